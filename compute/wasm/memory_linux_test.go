package wasm

import (
	"bytes"
	"context"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
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

// TestNothingOfARunIsLeftBehindIt, also where the module does not stand instantiated for its next one.
func TestNothingOfARunIsLeftBehindIt(t *testing.T) {
	store := func(at int) []byte {
		return append(append([]byte{opI32Const}, place(at)...), opI32Const, 1, 0x36, 2, 0) // i32.store
	}
	const first, beyond = 4096, warmBytes + 4096
	for _, starts := range []bool{false, true} {
		module := assembly{bodies: [][]byte{append(store(first), store(beyond)...)}, start: starts, memory: append([]byte{0}, leb(128)...)}.bytes()
		m := &runnable{memory: &limited{most: 64 << 20}, early: early(module), config: wazero.NewModuleConfig().WithName("").WithStartFunctions()}
		m.ctx = experimental.WithMemoryAllocator(context.Background(), m.memory)
		m.runtime = wazero.NewRuntimeWithConfig(m.ctx, wazero.NewRuntimeConfigCompiler())
		defer m.runtime.Close(m.ctx)
		var err error
		if m.module, err = m.runtime.CompileModule(m.ctx, module); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			m.stand()
			if x := m.run(nil, nil); x != (ending{}) {
				t.Fatalf("got %+v", x)
			}
			all := m.memory.last.all
			if all[first] != 1 || all[beyond] != 1 {
				t.Fatal("it has written nothing")
			}
			if m.stand(); all[first] != 0 || all[beyond] != 0 {
				t.Errorf("a start function: %v; what it has written is there yet", starts)
			}
		}
	}
}
