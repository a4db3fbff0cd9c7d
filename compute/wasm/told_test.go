package wasm

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"pgregory.net/rapid"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/computetest"
)

// TestWhatAModuleIsToldLiesWhereItAsksForIt, or nowhere: beyond its memory nothing is written.
func TestWhatAModuleIsToldLiesWhereItAsksForIt(t *testing.T) {
	r := wazero.NewRuntime(t.Context())
	defer r.Close(t.Context())
	compiled, err := r.CompileModule(t.Context(), assembly{bodies: [][]byte{nil}, memory: []byte{0, 1}}.bytes())
	if err != nil {
		t.Fatal(err)
	}
	mod, err := r.InstantiateModule(t.Context(), compiled, wazero.NewModuleConfig().WithStartFunctions())
	if err != nil {
		t.Fatal(err)
	}
	const page = 1 << 16
	memory, _ := mod.Memory().Read(0, page)
	call := func(f func(stack []uint64), a, b uint32) uint64 {
		stack := []uint64{uint64(a), uint64(b)}
		f(stack)
		return stack[0]
	}
	rapid.Check(t, func(rt *rapid.T) {
		all := rapid.SliceOfN(rapid.StringMatching(`[^\x00]{0,9}`), 0, 6).Draw(rt, "all")
		place := rapid.OneOf(rapid.Uint32Range(0, page), rapid.Uint32Range(page-64, page+4), rapid.Uint32Range(1<<32-64, 1<<32-1))
		a, b := place.Draw(rt, "a"), place.Draw(rt, "b")
		text := ""
		for _, s := range all {
			text += s + "\x00"
		}
		w := wordsOf(all)
		fits := func(at uint32, n int) bool { return uint64(at)+uint64(n) <= page }
		clear(memory)
		got := call(func(s []uint64) { w.sizes(t.Context(), mod, s) }, a, b)
		switch {
		case !fits(a, 4) || !fits(b, 4):
			if got != faultWASI {
				rt.Fatalf("sizes at %d and %d: %d", a, b, got)
			}
		case a+4 <= b || b+4 <= a:
			if got != 0 || binary.LittleEndian.Uint32(memory[a:]) != uint32(len(all)) || binary.LittleEndian.Uint32(memory[b:]) != uint32(len(text)) {
				rt.Fatalf("sizes of %q at %d and %d: %d, %x and %x", all, a, b, got, memory[a:a+4], memory[b:b+4])
			}
		}
		clear(memory)
		got = call(func(s []uint64) { w.get(t.Context(), mod, s) }, a, b)
		places := 4 * len(all)
		switch {
		case !fits(a, places) || !fits(b, len(text)):
			if got != faultWASI || !bytes.Equal(memory, make([]byte, page)) {
				rt.Fatalf("%q at %d and %d: %d", all, a, b, got)
			}
		case int(a)+places <= int(b) || int(b)+len(text) <= int(a):
			if got != 0 || string(memory[b:int(b)+len(text)]) != text {
				rt.Fatalf("%q at %d and %d: %d, %q", all, a, b, got, memory[b:int(b)+len(text)])
			}
			at := b
			for i, s := range all {
				if p := binary.LittleEndian.Uint32(memory[int(a)+4*i:]); p != at {
					rt.Fatalf("%q is said to be at %d, and is at %d", s, p, at)
				}
				at += uint32(len(s)) + 1
			}
		}
	})
}

// TestAModuleWithoutMemoryTrapsWhereItAsksWhatItIsTold, and nothing else breaks by it.
func TestAModuleWithoutMemoryTrapsWhereItAsksWhatItIsTold(t *testing.T) {
	w := wordsOf([]string{"a"})
	r := wazero.NewRuntime(t.Context())
	defer r.Close(t.Context())
	if err := instantiateWASI(t.Context(), r, &w, &w); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"args_sizes_get", "args_get", "environ_sizes_get", "environ_get", "clock_res_get"} { // the last one is wazero's own
		module := assembly{imports: []string{"wasi_snapshot_preview1." + name + ":2"}, bodies: [][]byte{{opI32Const, 0, opI32Const, 8, opCall, 0, opDrop}}}.bytes()
		mod, err := r.InstantiateWithConfig(t.Context(), module, wazero.NewModuleConfig().WithName("").WithStartFunctions())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := mod.ExportedFunction("_start").Call(t.Context()); err == nil || endingOf(err).Code != -1 || endingOf(err).Program {
			t.Errorf("%s: got %v, want a trap", name, err)
		}
	}
}

func TestOfEachNameTheLastIsTold(t *testing.T) {
	got := lastOfEach([]string{"A=1", "B=2", "A=3", "AB=4", "C", "B=", "A=5=6"})
	if want := []string{"A=5=6", "B=", "AB=4", "C="}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestStringsAreReadAsTheyWereWritten(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		all := rapid.SliceOf(rapid.String()).Draw(rt, "all")
		b := appendStrings(nil, all)
		if got, err := readStrings(b); err != nil || !slices.Equal(got, all) {
			rt.Fatalf("got %q and %v of %q", got, err, all)
		}
		if len(b) > 0 {
			if got, err := readStrings(b[:len(b)-1]); err == nil {
				rt.Fatalf("got %q of a part of %q", got, all)
			}
		}
	})
	for _, b := range []string{"\x00", "\x00\x00\x00", "\x00\x00\x00\x02x", "\xff\xff\xff\xff", "\x00\x00\x00\x00\x01"} {
		if got, err := readStrings([]byte(b)); err == nil {
			t.Errorf("got %q of %q", got, b)
		}
	}
}

// TestARequestIsToldItsOwnVariablesAlone: not those of one before, and over what the service was deployed with.
func TestARequestIsToldItsOwnVariablesAlone(t *testing.T) {
	r := computetest.NewRun(nil)
	i, err := New(nil).Begin(t.Context(), compute.Service{JobRun: r, Spec: redoubt.ServiceSpec{Module: r.SetModule(computetest.Build(t, "wasip1", "wasm")), Env: []string{"OWN=1", "OWN=2", "REQUEST_METHOD=own"},
		Args: []string{"say", "X-Own: x\n", "env", "OWN", "env", "REQUEST_METHOD", "env", "HTTP_X_TEST", "env", "PATH_INFO"}}, Limits: redoubt.JobLimits{Memory: 64 << 20}, Timeout: time.Minute, At: "SECRET", Log: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	call := func(target, header string) (string, error) {
		w, q := httptest.NewRecorder(), httptest.NewRequest("GET", target, nil)
		if header != "" {
			q.Header.Set("X-Test", header)
		}
		err := i.Call(w, q)
		return w.Body.String(), err
	}
	for _, header := range []string{"first", "", "third", ""} {
		want := strings.Join([]string{"OWN=2", "REQUEST_METHOD=GET", "HTTP_X_TEST=" + header, "PATH_INFO=/" + header, ""}, "\n")
		if got, err := call("/svc/x/"+header, header); err != nil || got != want {
			t.Errorf("got %q and %v, want %q", got, err, want)
		}
		if got, err := call("/svc/x/%00", ""); err == nil || got != "" { // which no variable can hold
			t.Errorf("got %q of a path with a NUL", got)
		}
	}
}
