package diode

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestWhatWasTakenIsWrittenOver: what comes next is in the file of what a node has, whole, whether it is longer or shorter; no more files than two wait for
// that, and none of them outlives the receiver.
func TestWhatWasTakenIsWrittenOver(t *testing.T) {
	p := newPost(t, inMemory(64<<20))
	spares := func() (n int) {
		all, err := filepath.Glob(p.path(newPrefix + "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	number := uint64(0)
	come := func(bytes int) []byte {
		number++
		file := newBundle(t, number, bytes)
		send(t, newRoad(1, p.Take), barePlan(), file)
		p.Settle()
		return file
	}
	take := func() {
		for name := range p.files() {
			if err := p.Taken(filepath.Join(p.dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	come(300_000)
	var first os.FileInfo
	for name := range p.files() {
		first, _ = os.Stat(filepath.Join(p.dir, name))
	}
	take()
	if p.has(); spares() != 1 {
		t.Fatalf("%d wait to be written over", spares())
	}
	for _, bytes := range []int{2_000_000, 1_000, 0, 700_000} {
		file := come(bytes)
		p.has(file)
		for name := range p.files() {
			if st, err := os.Stat(filepath.Join(p.dir, name)); err != nil || !os.SameFile(first, st) {
				t.Errorf("%d bytes are in a file of their own: %v", bytes, err)
			}
		}
		if spares() != 0 {
			t.Errorf("%d wait to be written over while one is in use", spares())
		}
		if err := p.record(); err != nil { // it is made durable as any other
			t.Fatal(err)
		}
		take()
	}
	var all [][]byte
	for range maxSpares + 2 {
		all = append(all, come(10_000))
	}
	p.has(all...)
	if take(); spares() != maxSpares {
		t.Errorf("%d wait to be written over, want %d", spares(), maxSpares)
	}
	if err := p.record(); err != nil { // of what is gone nothing is kept
		t.Error(err)
	}
	p.again()
	if n := spares(); n != 0 {
		t.Errorf("%d outlive the receiver", n)
	}
	if !slices.Equal(p.book.Series[0].Whole, []Span{{From: 1, To: number}}) {
		t.Errorf("the book has %v", p.book.Series[0].Whole)
	}
	p.has()
}

// TestAFileThatIsHalfWrittenOverIsNobodys: the receiver is killed meanwhile, and what it was and what it was to be are gone.
func TestAFileThatIsHalfWrittenOverIsNobodys(t *testing.T) {
	p := newPost(t, inMemory(64<<20))
	p.Stage.Close()
	path := p.path(newPrefix + "spare-a" + Suffix)
	if err := os.WriteFile(path, []byte("half of this and half of that"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.open()
	if _, err := os.Stat(path); err == nil {
		t.Error("it is there still")
	}
	file := newBundle(t, 1, 10_000)
	send(t, newRoad(1, p.Take), barePlan(), file)
	p.Settle()
	p.has(file)
}
