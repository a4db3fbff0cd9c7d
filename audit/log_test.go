package audit

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"redoubt"
)

const origin = "redoubt.example/secret"

func testSigner() crypto.Signer { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)) }

func testClock() func() time.Time {
	now := day
	return func() time.Time { now = now.Add(time.Second); return now }
}

func testEntry(i int) []byte {
	e := Entry{Time: day.Add(time.Duration(i) * time.Second), Subject: "s", Action: "GetObject", Allow: i%3 != 0, Kind: "ok", Detail: fmt.Sprint(i)}
	return e.Append(nil)
}

type tester interface {
	Helper()
	Fatal(...any)
}

func commit(m *Memory, n int) {
	for range n {
		m.Commit(context.Background(), [][]byte{testEntry(int(m.Len()))})
	}
}

func openLog(t tester, m *Memory) *Log {
	t.Helper()
	l, err := NewLog(context.Background(), origin, testSigner(), m, m, testClock())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func advance(t tester, l *Log) Checkpoint {
	t.Helper()
	if err := l.Advance(context.Background()); err != nil {
		t.Fatal(err)
	}
	return l.Checkpoint()
}

// newLog is a log of n entries.
func newLog(t tester, n int) (*Memory, *Log) {
	t.Helper()
	m := &Memory{}
	l := openLog(t, m)
	commit(m, n)
	advance(t, l)
	return m, l
}

// plainRoot is the root as x/mod computes it, without tiles.
func plainRoot(t tester, m *Memory, size int) tlog.Hash {
	t.Helper()
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(at))
		for i, x := range at {
			out[i] = stored[x]
		}
		return out, nil
	})
	for i := range size {
		h, err := tlog.StoredHashes(int64(i), m.entries[i], reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, h...)
	}
	root, err := tlog.TreeHash(int64(size), reader)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func TestTheTreeIsThatOfRFC6962InAnyBatches(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &Memory{}
		l := openLog(t, m)
		var marks []Checkpoint
		for range rapid.IntRange(1, 6).Draw(t, "batches") {
			commit(m, rapid.SampledFrom([]int{0, 1, 2, 3, 100, 255, 256, 257, 600}).Draw(t, "batch"))
			marks = append(marks, advance(t, l))
			if rapid.Bool().Draw(t, "reopen") {
				l = openLog(t, m)
			}
		}
		size := int(m.Len())
		c := l.Checkpoint()
		if c.Size != uint64(size) || c.Root != plainRoot(t, m, size) {
			t.Fatalf("size %d: another root", size)
		}
		for _, old := range marks {
			p, err := l.ProveConsistency(old)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := p.Check(l.Verifier()); err != nil {
				t.Fatal(err)
			}
		}
		if size > 0 {
			n := rapid.IntRange(0, size-1).Draw(t, "entry")
			p, err := l.Prove(uint64(n))
			if err != nil {
				t.Fatal(err)
			}
			p, err = ParseProof(p.Append(nil))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := p.Check(l.Verifier(), m.entries[n]); err != nil || got.Size != c.Size {
				t.Fatal(err)
			}
			if _, err := p.Check(l.Verifier(), append(bytes.Clone(m.entries[n]), 0)); !errors.Is(err, redoubt.Corrupt) {
				t.Fatal("another entry was proven")
			}
			p.Index = (p.Index + 1) % uint64(size)
			if _, err := p.Check(l.Verifier(), m.entries[n]); size > 1 && err == nil {
				t.Fatal("another place was proven")
			}
		}
		if s, err := Verify(context.Background(), m, m, l.Verifier(), marks, nil); err != nil || s.Covered != uint64(size) {
			t.Fatal(s, err)
		}
	})
}

func TestALogOfThreeLevels(t *testing.T) {
	m, l := newLog(t, 256*256+300)
	if got, want := l.Checkpoint().Root, plainRoot(t, m, 256*256+300); got != want {
		t.Error("another root")
	}
	l = openLog(t, m)
	commit(m, 10)
	if got := advance(t, l).Root; got != plainRoot(t, m, 256*256+310) {
		t.Error("another root after reopening")
	}
	if _, err := l.Prove(70); err != nil {
		t.Error(err)
	}
	if _, err := Verify(context.Background(), m, m, l.Verifier(), nil, nil); err != nil {
		t.Error(err)
	}
	m.tiles[tlog.Tile{H: 8, L: 1, N: 0}][33] ^= 4
	checkFaults(t, m, l, nil, FaultTile, -1)
}

func TestCheckpointGolden(t *testing.T) {
	m, l := newLog(t, 3)
	want := "redoubt.example/secret\n3\n" + plainRootText(t, m, 3) + "\nredoubt-time 2026-03-01T12:00:02Z\n\n— redoubt.example/secret "
	if got := string(l.Checkpoint().Note); !strings.HasPrefix(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	v, err := NewVerifier(l.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	if c, err := ParseCheckpoint(l.Checkpoint().Note, v); err != nil || c.Size != 3 || !c.Time.Equal(l.Checkpoint().Time) {
		t.Errorf("got %+v, %v", c, err)
	}
}

func plainRootText(t *testing.T, m *Memory, n int) string {
	root := plainRoot(t, m, n)
	return root.String()
}

func TestEveryFlippedBitOfACheckpointIsFound(t *testing.T) {
	_, l := newLog(t, 5)
	c := l.Checkpoint()
	for bit := range len(c.Note) * 8 {
		bad := bytes.Clone(c.Note)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := ParseCheckpoint(bad, l.Verifier()); !errors.Is(err, redoubt.Corrupt) {
			t.Fatalf("bit %d flipped (%q): got %v", bit, bad[bit/8], err)
		}
	}
	if _, err := ParseCheckpoint(c.Note, nil); err == nil {
		t.Error("taken without a verifier")
	}
	other, _ := VerifierKey(origin, ed25519.NewKeyFromSeed(make([]byte, 32)).Public())
	v, _ := NewVerifier(other)
	if _, err := ParseCheckpoint(c.Note, v); err == nil {
		t.Error("taken from another key")
	}
}

func TestALogThatWasTamperedWithDoesNotOpen(t *testing.T) {
	ctx := context.Background()
	open := func(m *Memory, s crypto.Signer) error {
		_, err := NewLog(ctx, origin, s, m, m, testClock())
		return err
	}
	m, _ := newLog(t, 300)
	if err := open(m, ed25519.NewKeyFromSeed(make([]byte, 32))); !errors.Is(err, redoubt.Corrupt) {
		t.Errorf("another key: %v", err)
	}
	m.entries = m.entries[:299]
	if err := open(m, testSigner()); !errors.Is(err, redoubt.Corrupt) {
		t.Errorf("an entry gone: %v", err)
	}
	m, _ = newLog(t, 300)
	m.tiles[tlog.Tile{H: 8, L: 0, N: 1}][5] ^= 1
	if err := open(m, testSigner()); !errors.Is(err, redoubt.Corrupt) {
		t.Errorf("an edge tile changed: %v", err)
	}
	if _, err := NewLog(ctx, "with space", testSigner(), m, m, testClock()); !errors.Is(err, redoubt.Invalid) {
		t.Errorf("a bad origin: %v", err)
	}
	if _, err := NewLog(ctx, origin, nil, m, m, testClock()); err == nil {
		t.Error("no key was taken")
	}
}

// failingTiles fails a save after it has kept the tiles and not the checkpoint.
type failingTiles struct {
	*Memory
	fail bool
}

func (f *failingTiles) Save(ctx context.Context, tiles []TileData, size uint64, note []byte) error {
	if f.fail {
		signed, _ := f.Latest()
		f.Memory.Save(ctx, tiles, f.sizes[len(f.sizes)-1], signed)
		return errors.New("disk")
	}
	return f.Memory.Save(ctx, tiles, size, note)
}

func TestAFailedSaveIsTakenUpAgain(t *testing.T) {
	m := &Memory{}
	f := &failingTiles{Memory: m}
	l, err := NewLog(context.Background(), origin, testSigner(), m, f, testClock())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		commit(m, 100)
		f.fail = i%2 == 0
		before := l.Checkpoint()
		if err := l.Advance(context.Background()); (err != nil) != f.fail {
			t.Fatal(err)
		} else if err != nil && l.Checkpoint().Size != before.Size {
			t.Fatal("a checkpoint that was not saved is shown")
		}
		if f.fail { // a crash there
			if l, err = NewLog(context.Background(), origin, testSigner(), m, f, testClock()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := Verify(context.Background(), m, m, l.Verifier(), nil, nil); err != nil {
		t.Error(err)
	}
}

func TestConsistencyRefusesAFork(t *testing.T) {
	_, l := newLog(t, 50)
	m2 := &Memory{}
	l2 := openLog(t, m2)
	m2.Commit(context.Background(), [][]byte{testEntry(99)})
	commit(m2, 20)
	fork := advance(t, l2)
	if _, err := l.ProveConsistency(fork); !errors.Is(err, redoubt.Corrupt) {
		t.Errorf("got %v, want Corrupt", err)
	}
	if _, err := l2.ProveConsistency(l.Checkpoint()); !errors.Is(err, redoubt.Corrupt) {
		t.Errorf("ahead: got %v, want Corrupt", err)
	}
	if _, err := l.Prove(50); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("beyond: got %v, want NotFound", err)
	}
}

func FuzzParseProof(f *testing.F) {
	_, l := newLog(f, 9)
	p, err := l.Prove(3)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p.Append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := ParseProof(in)
		if err != nil {
			return
		}
		if !bytes.Equal(p.Append(nil), in) {
			t.Fatal("two encodings of one proof")
		}
		p.Check(l.Verifier(), []byte("entry"))
	})
}

func FuzzParseCheckpoint(f *testing.F) {
	_, l := newLog(f, 9)
	f.Add(l.Checkpoint().Note)
	f.Fuzz(func(t *testing.T, in []byte) {
		if c, err := ParseCheckpoint(in, l.Verifier()); err == nil && c.Size != 9 && c.Size != 0 {
			t.Fatal("a checkpoint that nobody signed")
		}
	})
}

func BenchmarkAdvance(b *testing.B) {
	m := &Memory{}
	for i := range 100_000 {
		m.entries = append(m.entries, testEntry(i))
	}
	for b.Loop() {
		m.tiles, m.sizes, m.checkpoints = nil, nil, nil
		advance(b, openLog(b, m))
	}
	b.ReportMetric(float64(b.N)*100_000/b.Elapsed().Seconds(), "entries/s")
}

func BenchmarkAdvanceByHundreds(b *testing.B) {
	m := &Memory{}
	l := openLog(b, m)
	for b.Loop() {
		commit(m, 100)
		advance(b, l)
	}
	b.ReportMetric(float64(b.N)*100/b.Elapsed().Seconds(), "entries/s")
}

func BenchmarkVerify(b *testing.B) {
	m, l := newLog(b, 100_000)
	for b.Loop() {
		if _, err := Verify(context.Background(), m, m, l.Verifier(), nil, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*100_000/b.Elapsed().Seconds(), "entries/s")
}
