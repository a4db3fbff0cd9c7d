package diode

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/vectors.txt anew; read the difference before you commit it")

const (
	vectorFile   = "testdata/vectors.txt"
	vectorBundle = "../../bundle/testdata/vector/small.rbundle" // committed with its keys beside it
)

// vectorPlan cuts the committed bundle into the smallest datagrams there are.
func vectorPlan() Plan {
	p := plan()
	p.Datagram, p.Loss, p.Key = MinDatagram, 0.02, bytes.Repeat([]byte{0x5a}, KeyBytes)
	return p
}

// vectorDatagrams are what a sender makes of the committed bundle whose run is 7.
func vectorDatagrams(t testing.TB) (all [][]byte) {
	t.Helper()
	file, err := os.ReadFile(vectorBundle)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSender(writer(func(b []byte) (int, error) { all = append(all, bytes.Clone(b)); return len(b), nil }), vectorPlan())
	if err != nil {
		t.Fatal(err)
	}
	s.run = 7
	l, err := s.Load(context.Background(), InMemory(file), int64(len(file)), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(context.Background(), l, nil); err != nil {
		t.Fatal(err)
	}
	return all
}

func readVectors(t testing.TB) (all [][]byte) {
	t.Helper()
	f, err := os.Open(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if line := lines.Text(); line != "" && !strings.HasPrefix(line, "#") {
			b, err := hex.DecodeString(line)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, b)
		}
	}
	if lines.Err() != nil || len(all) == 0 {
		t.Fatalf("no vectors: %v", lines.Err())
	}
	return all
}

func TestTheDatagramsAreThoseOfTheVectors(t *testing.T) {
	made := vectorDatagrams(t)
	if *update {
		var b strings.Builder
		fmt.Fprintf(&b, "# bundle/testdata/vector/small.rbundle in datagrams of %d bytes, parity for a loss of 0.02, under a key of %d bytes 5a; run 7.\n", MinDatagram, KeyBytes)
		for _, d := range made {
			fmt.Fprintf(&b, "%x\n", d)
		}
		if err := os.WriteFile(vectorFile, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := readVectors(t)
	if len(made) != len(want) {
		t.Fatalf("%d datagrams, want %d", len(made), len(want))
	}
	for i := range want {
		if !bytes.Equal(made[i][tagBytes:], want[i][tagBytes:]) { // each tag has a nonce of its own
			t.Errorf("datagram %d is another", i)
		}
	}
	file, err := os.ReadFile(vectorBundle)
	if err != nil {
		t.Fatal(err)
	}
	// The other way, and with the first shard made again from parity.
	for _, drop := range []int{-1, 0} {
		p := newPost(t, func(o *Options) { o.Key = vectorPlan().Key })
		tags, err := newTagger(vectorPlan().Key)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range want {
			x, err := tags.parse(d)
			if err != nil {
				t.Fatal(err)
			}
			if x.Kind != kindShard || int(x.Index) != drop {
				p.Take(d)
			}
		}
		p.has(file)
	}
}

// FuzzDatagram looks for a datagram that is taken and is not the one that its fields make, and for a receiver that falls over.
func FuzzDatagram(f *testing.F) {
	for _, d := range readVectors(f) {
		f.Add(d[tagBytes:])
	}
	f.Fuzz(func(t *testing.T, rest []byte) {
		tags, err := newTagger(sharedKey)
		if err != nil {
			t.Fatal(err)
		}
		b := append(make([]byte, tagBytes), rest...)
		if len(b) > headBytes {
			copy(b, tags.tag(b))
		}
		p, err := tags.parse(b)
		if err != nil {
			return
		}
		if again := tags.append(nil, &p); !bytes.Equal(again[tagBytes:], b[tagBytes:]) {
			t.Errorf("%x is read as %+v, which is %x", b, p, again)
		}
		s := &Stage{dir: t.TempDir(), tags: tags, moving: map[transferID]*transfer{}, pending: map[transferID]*pending{}, book: &book{}}
		s.Take(b)
		if s.counts.Datagrams != 1 {
			t.Errorf("what is read is not counted: %+v", s.counts)
		}
	})
}

// FuzzManifest looks for a manifest that has two forms, or geometry that is out of bounds.
func FuzzManifest(f *testing.F) {
	file, err := os.ReadFile(vectorBundle)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(loadOf(f, vectorPlan(), file).raw)
	f.Add(loadOf(f, plan(), newBundle(f, 1, 9<<20)).raw)
	bare := plan()
	bare.Bare = true
	f.Add(loadOf(f, bare, file).raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := decodeManifest(raw)
		if err != nil {
			return
		}
		if again, err := newManifest(m.Outline, m.geometry); err != nil || !bytes.Equal(again.raw, raw) || again.id != m.id {
			t.Errorf("read and written again: %v", err)
		}
		if m.bare() != (len(m.Leaves) == 0) || !m.bare() && m.blocks() != len(m.Leaves) || m.most() > maxShards || m.holds() > 4*m.FileBytes+1<<20 {
			t.Errorf("%d blocks of %d shards that hold %d bytes", m.blocks(), m.most(), m.holds())
		}
	})
}
