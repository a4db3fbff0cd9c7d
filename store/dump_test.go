package store_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"redoubt"
	"redoubt/store"
	"redoubt/store/memory"
)

func dumped(t testing.TB) []byte {
	t.Helper()
	e := memory.Open()
	b := new(store.Batch)
	for i := range 20 {
		b.Set(fmt.Appendf(nil, "key %d", i), bytes.Repeat([]byte{byte(i)}, i*10))
		b.Append(fmt.Appendf(nil, "entry %d", i))
	}
	for _, n := range []int{0, 1, 1000} {
		s, err := e.Stage(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		s.Write(bytes.Repeat([]byte{9}, n))
		s.Finish()
		b.Links = append(b.Links, s)
	}
	if err := e.Commit(context.Background(), b); err != nil {
		t.Fatal(err)
	}
	v := e.View()
	defer v.Close()
	var out bytes.Buffer
	if err := store.Dump(context.Background(), v, e, &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestADumpLoadsAndDumpsTheSame(t *testing.T) {
	first := dumped(t)
	e := memory.Open()
	if err := store.Load(context.Background(), e, bytes.NewReader(first)); err != nil {
		t.Fatal(err)
	}
	v := e.View()
	defer v.Close()
	var again bytes.Buffer
	if err := store.Dump(context.Background(), v, e, &again); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, again.Bytes()) {
		t.Fatal("a loaded dump dumps differently")
	}
	if err := store.Load(context.Background(), e, bytes.NewReader(first)); !errors.Is(err, redoubt.NotEmpty) {
		t.Fatalf("Load into a full engine: got %v, want not empty", err)
	}
}

func TestADamagedDumpIsRefused(t *testing.T) {
	good := dumped(t)
	load := func(b []byte) error { return store.Load(context.Background(), memory.Open(), bytes.NewReader(b)) }
	for n := range good {
		if err := load(good[:n]); !errors.Is(err, redoubt.Corrupt) {
			t.Fatalf("cut after %d of %d bytes: got %v, want corrupt", n, len(good), err)
		}
		bad := bytes.Clone(good)
		bad[n] ^= 1 << (n % 8)
		if err := load(bad); err == nil {
			t.Fatalf("byte %d of %d flipped: loads", n, len(good))
		}
	}
	if err := load(append(bytes.Clone(good), 0)); !errors.Is(err, redoubt.Corrupt) {
		t.Fatalf("a trailing byte: got %v, want corrupt", err)
	}
}

func TestALengthThatLiesTakesNoMemory(t *testing.T) {
	lie := append([]byte("redoubt dump 1\n"), 'K')
	lie = binary.BigEndian.AppendUint32(lie, store.MaxValueBytes)
	allocated := testing.AllocsPerRun(1, func() {
		if err := store.Load(context.Background(), memory.Open(), bytes.NewReader(lie)); !errors.Is(err, redoubt.Corrupt) {
			t.Fatalf("got %v, want corrupt", err)
		}
	})
	if allocated > 100 {
		t.Fatalf("%v allocations", allocated)
	}
}

func FuzzLoad(f *testing.F) {
	good := dumped(f)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte("redoubt dump 1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e := memory.Open()
		if err := store.Load(context.Background(), e, bytes.NewReader(b)); err != nil {
			return
		}
		v := e.View()
		defer v.Close()
		var out bytes.Buffer
		if err := store.Dump(context.Background(), v, e, &out); err != nil {
			t.Fatalf("what loads does not dump: %v", err)
		}
	})
}
