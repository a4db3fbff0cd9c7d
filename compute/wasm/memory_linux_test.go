package wasm

import (
	"bytes"
	"testing"
)

// TestAMemoryHoldsNothingOfTheOneBefore, however large that was, and however far it grows itself.
func TestAMemoryHoldsNothingOfTheOneBefore(t *testing.T) {
	const most = 4 * warmBytes
	l := &limited{most: most}
	for _, sizes := range [][]uint64{{4096}, {warmBytes - 4096, warmBytes}, {warmBytes, 3 * warmBytes}, {8192}, {most}, {0}, {4096, most}} {
		m := l.Allocate(0, 1<<32)
		for _, size := range sizes {
			b := m.Reallocate(size)
			if uint64(len(b)) != size {
				t.Fatalf("got %d bytes of %d", len(b), size)
			}
		}
		b := m.Reallocate(most)
		if !bytes.Equal(b, make([]byte, most)) {
			t.Errorf("%v: something is there from the start", sizes)
		}
		for i := range b[:sizes[len(sizes)-1]] {
			b[i] = 1
		}
		if m.Reallocate(most+1) != nil || !l.refused {
			t.Error("it has more than it may")
		}
		m.Free()
	}
	small := l.Allocate(0, 4096)
	if b := small.Reallocate(4096); len(b) != 4096 || b[0] != 0 || small.Reallocate(8192) != nil {
		t.Error("a memory that may have a page has more, or another's")
	}
}
