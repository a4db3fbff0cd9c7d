package wasm

import (
	"context"
	"encoding/binary"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// wazero binds a module's arguments and variables as it instantiates it. Here a module stands instantiated before it is known what it will be told, so the
// functions by which it asks for them are our own; all others of WASI are wazero's.

// faultWASI is the number of WASI for what lies outside of the module's memory.
const faultWASI = 21

// words are what one pair of those functions gives: each with the NUL behind it.
type words struct {
	all   []string
	bytes uint32 // of all, with the NULs
}

func wordsOf(all []string) words {
	w := words{all: all}
	for _, s := range all {
		w.bytes += uint32(len(s)) + 1
	}
	return w
}

// sizes is args_sizes_get or environ_sizes_get. A module that has no memory traps, as by all of WASI.
func (w *words) sizes(_ context.Context, mod api.Module, stack []uint64) {
	m, count, size := mod.Memory(), uint32(stack[0]), uint32(stack[1])
	stack[0] = faultWASI
	if m.WriteUint32Le(count, uint32(len(w.all))) && m.WriteUint32Le(size, w.bytes) {
		stack[0] = 0
	}
}

// get is args_get or environ_get.
func (w *words) get(_ context.Context, mod api.Module, stack []uint64) {
	m, at, to := mod.Memory(), uint32(stack[0]), uint32(stack[1])
	stack[0] = faultWASI
	places, ok := m.Read(at, 4*uint32(len(w.all)))
	text, ok2 := m.Read(to, w.bytes)
	if !ok || !ok2 {
		return
	}
	n := 0
	for i, s := range w.all {
		binary.LittleEndian.PutUint32(places[4*i:], to+uint32(n))
		n += copy(text[n:], s)
		text[n] = 0
		n++
	}
	stack[0] = 0
}

// instantiateWASI gives modules WASI, with what they are told being what args and env hold as they ask.
func instantiateWASI(ctx context.Context, r wazero.Runtime, args, env *words) error {
	b := r.NewHostModuleBuilder(wasi_snapshot_preview1.ModuleName)
	wasi_snapshot_preview1.NewFunctionExporter().ExportFunctions(b)
	for name, f := range map[string]api.GoModuleFunc{"args_sizes_get": args.sizes, "args_get": args.get, "environ_sizes_get": env.sizes, "environ_get": env.get} {
		b.NewFunctionBuilder().WithGoModuleFunction(f, []api.ValueType{api.ValueTypeI32, api.ValueTypeI32}, []api.ValueType{api.ValueTypeI32}).Export(name)
	}
	_, err := b.Instantiate(ctx)
	return err
}

// lastOfEach are NAME=VALUE of a list, of each name the last one that was said.
func lastOfEach(env []string) (last []string) {
	at := make(map[string]int, len(env))
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		v = name + "=" + value
		if i, known := at[name]; known {
			last[i] = v
			continue
		}
		at[name] = len(last)
		last = append(last, v)
	}
	return last
}
