package wasm

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"redoubt"
	"redoubt/compute/computetest"
	"redoubt/sandbox"
)

// holds is a worker that has a module stand ready, and says how many bytes it holds: pages of the module's memory, and all that is the worker's own.
const holds = "says what it holds"

func init() {
	measuring[holds] = func(in io.Reader, out io.Writer) error {
		w := &worker{frames: frames{r: in, w: out}}
		i, err := w.ready(noInput{}, true)
		if err != nil {
			return err
		}
		i.stand()
		var own runtime.MemStats
		runtime.ReadMemStats(&own)
		bytes := own.Sys - own.HeapReleased
		if m := i.memory.last; m != nil {
			there := make([]byte, len(m.all)/os.Getpagesize())
			if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(m.all))), uintptr(len(m.all)), uintptr(unsafe.Pointer(unsafe.SliceData(there)))); errno != 0 {
				return errno
			}
			for _, one := range there {
				bytes += uint64(one&1) * uint64(os.Getpagesize())
			}
		}
		return errors.Join(w.write(sayReady), w.write(sayErr, fmt.Append(nil, bytes)))
	}
}

// TestAModuleStandsInstantiatedWhereThatTakesLittle, and nothing of it runs by that; what is not understood does not.
func TestAModuleStandsInstantiatedWhereThatTakesLittle(t *testing.T) {
	pages := func(n int) []byte { return append([]byte{0}, leb(n)...) }
	nothing := [][]byte{nil}
	with := func(data ...[]byte) []byte {
		return assembly{bodies: nothing, memory: pages(4096), data: data}.bytes()
	}
	tables := func(all ...[]byte) []byte { return assembly{bodies: nothing, table: all}.bytes() }
	table := func(n int) []byte { return append([]byte{0x70, 0}, leb(n)...) }
	more := func(id byte, content []byte) []byte {
		return append(assembly{bodies: nothing}.bytes(), section(id, content)...)
	}
	mega := strings.Repeat("x", 1<<20)
	for name, c := range map[string]struct {
		module []byte
		want   bool
	}{
		"a Go program":                      {computetest.Build(t, programs.GOOS, programs.GOARCH), true},
		"nothing":                           {assembly{bodies: nothing}.bytes(), true},
		"all of its memory":                 {assembly{bodies: nothing, memory: pages(65536)}.bytes(), true},
		"a start function":                  {assembly{bodies: nothing, start: true}.bytes(), false},
		"no module":                         {[]byte("no module"), false},
		"a section of later versions":       {more(13, nil), false},
		"data to the end of what is there":  {with(dataAt(warmBytes-1, "x")), true},
		"data behind it, as much as it has": {with(dataAt(0, mega), dataAt(warmBytes, mega)), true},
		"data at twice what is there":       {with(dataAt(2*warmBytes, "x")), false},
		"a byte in each page":               {everyPage(256 << 20), false},
		"data that goes nowhere":            {with(append([]byte{1}, text("x")...)), true},
		"data of memory 0":                  {with(append([]byte{2, 0}, dataAt(0, "x")[1:]...)), true},
		"data of another memory":            {with(append([]byte{2, 1}, dataAt(0, "x")[1:]...)), false},
		"data at a place below 0":           {with(append([]byte{0, opI32Const, 0x7f, opEnd}, text("x")...)), false},
		"data at a place without end":       {with(append([]byte{0, opI32Const, 0x80, 0x80, 0x80, 0x80, 0x80, 0, opEnd}, text("x")...)), false},
		"data where a global says":          {with(append([]byte{0, 0x23, 0, opEnd}, text("x")...)), false},
		"data at a sum":                     {with(append([]byte{0, opI32Const, 0, opI32Const, 0, 0x6a, opEnd}, text("x")...)), false},
		"data that is longer than it":       {with(append([]byte{0, opI32Const, 0, opEnd}, leb(9)...)), false},
		"something behind its data":         {more(11, []byte{0, 0}), false},
		"a table":                           {tables(table(100_000)), true},
		"a table with a bound":              {tables([]byte{0x6f, 1, 1, 2}), true},
		"a table with other limits":         {tables([]byte{0x70, 2, 1, 2}), false},
		"a table of what is not known":      {tables([]byte{0x69, 0, 1}), false},
		"a large table":                     {tables(table(beside / ofEntry)), false},
		"tables that are large together":    {tables(table(beside/ofEntry/2), table(beside/ofEntry/2)), false},
		"tables that begin full":            {fullTables(12_000_000), false},
		"many globals":                      {more(6, append(leb(beside/ofThing+1), make([]byte, 5*(beside/ofThing+1))...)), false},
		"many imports":                      {more(2, append(leb(beside/ofThing+1), make([]byte, 5*(beside/ofThing+1))...)), false},
		"many elements":                     {more(9, make([]byte, beside/ofEntry+1)), false},
		"more of them than there are bytes": {more(6, leb(9)), false},
	} {
		if got := early(c.module); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
		if b, err := bare(c.module); err == nil && early(b) != c.want {
			t.Errorf("%s: got %v of it without its functions, want %v", name, !c.want, c.want)
		}
	}
}

// TestNothingOfAModuleRunsBeforeItIsToldWhatFor, also of one whose start function speaks: but for being ready nothing is said by then.
func TestNothingOfAModuleRunsBeforeItIsToldWhatFor(t *testing.T) {
	d, r := New(handed()), computetest.NewRun(nil)
	speak := []byte{opI32Const, 1, opI32Const, 0, opI32Const, 1, opI32Const, 16, opCall, 0, opDrop}
	module := assembly{imports: []string{"wasi_snapshot_preview1.fd_write:1"}, bodies: [][]byte{speak}, start: true, memory: []byte{0, 1}, data: [][]byte{dataAt(0, "\x08\x00\x00\x00\x02\x00\x00\x00hi")}}.bytes()
	m, x, err := d.compiled(t.Context(), r.Task(redoubt.SubmitJob{Module: r.SetModule(module)}), nil)
	if m == nil {
		t.Fatalf("got %+v and %v", x, err)
	}
	key := shelfKey{memory: 64 << 20, disk: 1 << 20, timeout: time.Minute}
	p, err := d.start(key, m)
	if err != nil {
		t.Fatal(err)
	}
	said, ended := p.Talk(t.Context(), func(in io.Writer, out io.Reader) error {
		f := frames{r: bufio.NewReader(out), w: in}
		if err := f.load(loading{Memory: key.memory, Disk: key.disk, Made: m.name}, m.bare, m.code); err != nil {
			return err
		}
		for _, want := range []byte{sayReady, sayOut, sayOut, sayEnd, sayDone} { // the second by _start
			kind, body, err := f.read()
			if err != nil {
				return err
			}
			if kind != want || kind == sayOut && string(body) != "hi" {
				t.Errorf("it says %c, %q; want %c", kind, body, want)
			}
			if kind == sayReady {
				if err := f.writeJSON(tellTask, task{}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if said != nil || ended != nil {
		t.Errorf("got %v and %v", said, ended)
	}
}

// TestAWorkerThatStandsReadyHoldsLittle, whatever its module would have it hold: no more than that weighs, and where that is much none stands ready.
func TestAWorkerThatStandsReadyHoldsLittle(t *testing.T) {
	d, r := New(handed()), computetest.NewRun(nil)
	var weighs int
	var known bool
	held := func(module []byte) int {
		t.Helper()
		limits := redoubt.JobLimits{Memory: 512 << 20, Disk: 1 << 20}
		m, x, err := d.compiled(t.Context(), r.Task(redoubt.SubmitJob{Module: r.SetModule(module), Limits: limits}), nil)
		if m == nil {
			t.Fatalf("got %+v and %v", x, err)
		}
		p, err := sandbox.Start(sandbox.Program{Name: holds, Worker: holds, Binary: d.binary, Scratch: 16 << 20, Limits: sandbox.Limits{Memory: limits.Memory + workerMemory}})
		if err != nil {
			t.Fatal(err)
		}
		if weighs, known = m.weight(); !known {
			t.Error("it is not known what it weighs")
		}
		size := 0
		said, ended := p.Talk(t.Context(), func(in io.Writer, out io.Reader) error {
			f := frames{r: bufio.NewReader(out), w: in}
			if err := f.load(loading{Memory: limits.Memory, Disk: limits.Disk, Made: m.name}, m.bare, m.code); err != nil {
				return err
			}
			if err := f.ready(); err != nil {
				return err
			}
			_, body, err := f.read()
			if err == nil {
				size, err = strconv.Atoi(string(body))
			}
			return err
		})
		if said != nil || ended != nil || size == 0 {
			t.Fatalf("got %d, %v and %v", size, said, ended)
		}
		return size
	}
	least := held(assembly{bodies: [][]byte{nil}}.bytes())
	for name, module := range map[string][]byte{"a byte in each page": everyPage(256 << 20), "tables that begin full": fullTables(12_000_000),
		"a Go program": computetest.Build(t, programs.GOOS, programs.GOARCH)} {
		if more := held(module) - least; more > 2*warmBytes+weighs || weighs > spareBytes {
			t.Errorf("%s: %d MiB more than for one that does nothing; it weighs %d", name, more>>20, weighs>>20)
		}
	}
	types := append([]byte("\x00asm\x01\x00\x00\x00"), section(sectionType, append(leb(300_000), bytes.Repeat([]byte{0x60, 0, 0}, 300_000)...))...)
	if more := held(types) - least; more > 2*warmBytes+weighs || weighs <= spareBytes {
		t.Errorf("%d bytes of types: %d MiB more than for one that does nothing; they weigh %d", len(types), more>>20, weighs>>20)
	}
	for _, m := range []made{{}, {bare: []byte("no module")}, {bare: append(assembly{}.bytes(), section(sectionData, leb(1<<31))...)}} {
		if w, known := m.weight(); known {
			t.Errorf("%x weighs %d", m.bare, w)
		}
	}
}
