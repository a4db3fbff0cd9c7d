package wasm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/computetest"
)

// Instructions, as far as these modules need them.
const (
	opUnreachable = 0x00
	opBlock       = 0x02
	opLoop        = 0x03
	opIf          = 0x04
	opEnd         = 0x0b
	opBr          = 0x0c
	opCall        = 0x10
	opDrop        = 0x1a
	opI32Const    = 0x41
	opI32Eqz      = 0x45
	opGrow        = 0x40
	noResult      = 0x40
)

func leb(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) }

// vec is a vector of the binary format: a count, and what is counted.
func vec(items ...[]byte) []byte { return append(leb(len(items)), bytes.Join(items, nil)...) }

func section(id byte, content []byte) []byte {
	return append(append([]byte{id}, leb(len(content))...), content...)
}

func text(s string) []byte { return append(leb(len(s)), s...) }

// assembly is a module with functions of its first type, () -> (); the last one is exported as _start. What it imports may be of type 1, of four numbers, as fd_write is, or 2, of two.
type assembly struct {
	imports []string // MODULE.NAME, or MODULE.NAME:TYPE
	memory  []byte   // limits
	table   [][]byte // types
	start   bool     // as the start function
	locals  []byte   // of each function
	bodies  [][]byte // without their end
	data    [][]byte // segments
}

func (a assembly) bytes() []byte {
	b := []byte("\x00asm\x01\x00\x00\x00")
	b = append(b, section(1, vec([]byte{0x60, 0, 0}, []byte{0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f}, []byte{0x60, 2, 0x7f, 0x7f, 1, 0x7f}))...)
	var imports, funcs, codes [][]byte
	for _, i := range a.imports {
		module, name, _ := strings.Cut(i, ".")
		name, of, _ := strings.Cut(name, ":")
		number, _ := strconv.Atoi(of)
		imports = append(imports, append(append(text(module), text(name)...), 0, byte(number)))
	}
	for _, body := range a.bodies {
		locals := a.locals
		if locals == nil {
			locals = []byte{0}
		}
		funcs = append(funcs, []byte{0})
		code := append(append(append([]byte{}, locals...), body...), opEnd)
		codes = append(codes, append(leb(len(code)), code...))
	}
	if imports != nil {
		b = append(b, section(2, vec(imports...))...)
	}
	b = append(b, section(3, vec(funcs...))...)
	if a.table != nil {
		b = append(b, section(4, vec(a.table...))...)
	}
	exports := [][]byte{append(text("_start"), append([]byte{0}, leb(len(a.imports)+len(a.bodies)-1)...)...)}
	if a.memory != nil {
		b = append(b, section(5, vec(a.memory))...)
		exports = append(exports, append(text("memory"), 2, 0))
	}
	b = append(b, section(7, vec(exports...))...)
	if a.start {
		b = append(b, section(8, leb(len(a.imports)+len(a.bodies)-1))...)
	}
	b = append(b, section(10, vec(codes...))...)
	if a.data != nil {
		b = append(b, section(11, vec(a.data...))...)
	}
	return b
}

// place is an operand of i32.const.
func place(n int) (b []byte) {
	for ; n >= 0x40; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// dataAt is a segment of data.
func dataAt(at int, content string) []byte {
	return append(append(append([]byte{0, opI32Const}, place(at)...), opEnd), text(content)...)
}

// everyPage is a module with a byte of data in each page of its memory.
func everyPage(bytes int) []byte {
	a := assembly{bodies: [][]byte{nil}, memory: append([]byte{0}, leb(bytes>>16)...)}
	for at := 0; at < bytes; at += 4096 {
		a.data = append(a.data, dataAt(at, "x"))
	}
	return a.bytes()
}

// fullTables is a module with two tables, each full of its function.
func fullTables(entries int) []byte {
	table := append(append([]byte{0x40, 0, 0x70, 0}, leb(entries)...), 0xd2, 0, opEnd)
	return assembly{bodies: [][]byte{nil}, table: [][]byte{table, table}}.bytes()
}

func TestHostileModules(t *testing.T) {
	d := New(handed())
	endless := []byte{opLoop, noResult, opBr, 0, opEnd}
	bomb := []byte{opLoop, noResult, opI32Const, 1, opGrow, 0, opI32Const, 1, 0x6a, opI32Eqz, opIf, noResult, opUnreachable, opEnd, opBr, 0, opEnd} // grow until it is refused, then trap
	deep := append(bytes.Repeat([]byte{opBlock, noResult}, 5_000), bytes.Repeat([]byte{opEnd}, 5_000)...)
	for _, c := range []struct {
		name   string
		module []byte
		why    string // "": it ends well
	}{
		{"one that does nothing", assembly{bodies: [][]byte{nil}}.bytes(), ""},
		{"an endless loop", assembly{bodies: [][]byte{endless}}.bytes(), "out of time"},
		{"an endless start function", assembly{bodies: [][]byte{endless}, start: true}.bytes(), "out of time"},
		{"a trap", assembly{bodies: [][]byte{{opUnreachable}}}.bytes(), "it trapped"},
		{"endless recursion", assembly{bodies: [][]byte{{opCall, 0}}}.bytes(), "it trapped"},
		{"memory without end", assembly{bodies: [][]byte{bomb}, memory: []byte{0, 1}}.bytes(), "out of memory: it may use 64 MiB"},
		{"all memory from the start", assembly{bodies: [][]byte{nil}, memory: append([]byte{0}, leb(65536)...)}.bytes(), "out of memory: it may use 64 MiB"},
		{"a little more than it may from the start", assembly{bodies: [][]byte{nil}, memory: append([]byte{0}, leb(1025)...)}.bytes(), "out of memory: it may use 64 MiB"},
		{"just what it may", assembly{bodies: [][]byte{nil}, memory: append([]byte{0}, leb(1024)...)}.bytes(), ""},
		{"more memory than there is", assembly{bodies: [][]byte{nil}, memory: append([]byte{0}, leb(65537)...)}.bytes(), "no WebAssembly module"},
		{"a table without end", assembly{bodies: [][]byte{nil}, table: [][]byte{append([]byte{0x70, 0}, leb(1<<32-1)...)}}.bytes(), "no WebAssembly module|out of memory|trapped"},
		{"an import of nothing", assembly{bodies: [][]byte{nil}, imports: []string{"env.system"}}.bytes(), "no WebAssembly module"},
		{"an import of another system", assembly{bodies: [][]byte{nil}, imports: []string{"wasi_unstable.fd_write"}}.bytes(), "no WebAssembly module"},
		{"an import of a socket", assembly{bodies: [][]byte{nil}, imports: []string{"wasi_snapshot_preview1.sock_connect"}}.bytes(), "no WebAssembly module"},
		{"an import of another type", assembly{bodies: [][]byte{nil}, imports: []string{"wasi_snapshot_preview1.fd_write"}}.bytes(), "no WebAssembly module|trapped"},
		{"blocks without end", assembly{bodies: [][]byte{deep}}.bytes(), "*"},
		{"locals without end", assembly{bodies: [][]byte{nil}, locals: vec(append(leb(1<<31), 0x7f))}.bytes(), "no WebAssembly module|could not be compiled"},
		{"functions without end", assembly{bodies: make([][]byte, 200_000)}.bytes(), "*"},
		{"a section longer than the module", append([]byte("\x00asm\x01\x00\x00\x00"), 1, 0xff, 0xff, 0xff, 0xff, 0x0f), "no WebAssembly module"},
		{"a count longer than its section", append([]byte("\x00asm\x01\x00\x00\x00"), section(3, leb(1<<31))...), "no WebAssembly module|could not be compiled"},
		{"a component", []byte("\x00asm\x0d\x00\x01\x00"), "no WebAssembly module"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := computetest.NewRun(map[string][]byte{"b/f": []byte("x")})
			seconds := int64(60) // a job gives way to whatever else runs here
			if c.why == "out of time" {
				seconds = 2
			}
			spec := redoubt.SubmitJob{Module: r.SetModule(c.module), Seconds: seconds, Limits: redoubt.JobLimits{Memory: 64 << 20}}
			x, err := d.Run(t.Context(), r.Task(spec))
			if err != nil {
				t.Fatalf("it is the driver's fault: %v", err)
			}
			well := c.why == "*" || (c.why == "") == (x.Code == 0)
			if c.why != "" && c.why != "*" {
				well = slices.ContainsFunc(strings.Split(c.why, "|"), func(why string) bool { return x.Code == -1 && strings.Contains(x.Why, why) })
			}
			if !well {
				t.Errorf("got %+v, want %q", x, c.why)
			}
			if len(r.Outputs()) > 0 || r.LeftOpen() > 0 {
				t.Errorf("it left %v, and %d contents open", r.Outputs(), r.LeftOpen())
			}
		})
	}
}

var shared = New(handed()) // so that the program is compiled once

// runs runs the program of the suite.
func runs(t *testing.T, r *computetest.Run, args ...string) (code int, why string) {
	t.Helper()
	spec := programs.Load(t, r, computetest.Build(t, programs.GOOS, programs.GOARCH))
	spec.Args = args
	x, err := shared.Run(t.Context(), r.Task(spec))
	if err != nil {
		t.Fatalf("%q: it is the driver's fault: %v", args, err)
	}
	if n := r.LeftOpen(); n != 0 {
		t.Errorf("%q: %d contents were left open", args, n)
	}
	return x.Code, x.Why
}

func TestPathsLeadNowhereElse(t *testing.T) {
	r := computetest.NewRun(map[string][]byte{"b/f": []byte("content")})
	var args []string
	paths := []string{"/etc/passwd", "/proc/self/environ", "/proc/self/mem", "/tmp/cache", "/in/../etc/passwd", "/in/../../proc/self/environ", "/in/b/../../etc/passwd", "/out/../tmp/ballast", "/out/../../etc/passwd",
		"/in/b/./../../x", "/in//etc/passwd", "in/../../etc/passwd", "/dev/null", "/in/b/" + strings.Repeat("x", 5000), "/in/" + strings.Repeat("a/", 2000), "/in/b/\x01", "/in/b/\xff", "/in/b/f\x00"}
	for _, p := range paths {
		args = append(args, "kind", strings.ReplaceAll(p, "\x00", "")+strings.Repeat("?", strings.Count(p, "\x00")))
	}
	code, why := runs(t, r, args...)
	said := strings.Split(strings.TrimSuffix(r.Said(1), "\n"), "\n")
	if code != 0 {
		t.Errorf("it ended with %d %s: %s", code, why, r.Said(2))
	}
	for i, s := range said {
		if s == "<nil>" {
			t.Errorf("path %d was opened: %q", i, r.Said(1))
		}
	}
	if len(said) < len(paths) {
		t.Errorf("of %d paths %d were tried", len(paths), len(said))
	}
	for name, content := range r.Outputs() {
		t.Errorf("%s was put: %q", name, content)
	}
	for _, read := range r.Reads() {
		if strings.Contains(read, "..") {
			t.Errorf("outside was asked for %q", read)
		}
	}
	// A link is refused, or leads nowhere, and is no output.
	for _, to := range []string{"/etc/passwd", "../../proc/self/environ", "/in/b/f", "link", "/", "../tmp/ballast"} {
		r := computetest.NewRun(map[string][]byte{"b/f": []byte("content")})
		runs(t, r, "write", "/out/plain=1", "link", "/out/link="+to, "kind", "/out/link", "kind", "/out/link/etc/passwd")
		if _, put := r.Outputs()["link"]; put || strings.Contains(r.Said(1), "<nil>") {
			t.Errorf("a link to %s: %q and %q", to, r.Said(1), r.Outputs())
		}
	}
}

func TestAModuleHoldsNoMoreThanItMay(t *testing.T) {
	r := computetest.NewRun(map[string][]byte{"b/f": []byte("content")})
	if code, why := runs(t, r, "hold", "/in/b/f=3000", "write", "/out/f=content", "hold", "/out/f=3000", "hold", "/in/b/f=10"); code != 0 {
		t.Fatalf("it ended with %d %s: %s", code, why, r.Said(2))
	}
	var in, out, again int
	if _, err := fmt.Sscanf(r.Said(1), "held %d\nheld %d\nheld %d\n", &in, &out, &again); err != nil || in > maxHandles || out > 256 || again != 10 {
		t.Errorf("got %q", r.Said(1))
	}
}

func TestALongDirectoryIsListedWhole(t *testing.T) {
	files := map[string][]byte{}
	for i := range redoubt.MaxJobListed {
		files[fmt.Sprintf("b/%s%06d", strings.Repeat("a-name-of-some-length", 8), i)] = nil
	}
	r := computetest.NewRun(files)
	code, why := runs(t, r, "list", "/in/b")
	if n := strings.Count(r.Said(1), "\n"); code != 0 || n != min(redoubt.MaxJobListed, redoubt.MaxJobLogBytes/175) && !strings.HasPrefix(r.Said(1), "a-name") {
		t.Errorf("of %d entries %d were listed: %d %s %s", redoubt.MaxJobListed, n, code, why, r.Said(2))
	}
}

func TestManySmallOutputsArePut(t *testing.T) {
	r := computetest.NewRun(nil)
	if code, why := runs(t, r, "many", "/out/d=10001", "write", "/out/"+strings.Repeat("n", 255)+"=x"); code != 0 || len(r.Outputs()) != 10002 {
		t.Errorf("%d %s: %d were put; %s", code, why, len(r.Outputs()), r.Said(2))
	}
}

func TestWhatWasCompiledIsUsedByItsShareAlone(t *testing.T) {
	d := New(nil)
	module := assembly{bodies: [][]byte{nil}}.bytes()
	compiled := func(r *computetest.Run) bool {
		t.Helper()
		if x, err := d.Run(t.Context(), r.Task(redoubt.SubmitJob{Module: r.SetModule(module)})); err != nil || x.Code != 0 {
			t.Fatalf("%+v %v", x, err)
		}
		b, err := r.Kept(t.Context(), keptAs(d.target, r.SetModule(module)))
		return err == nil && len(b) > 0
	}
	alice := func() *computetest.Run { return computetest.NewRun(nil).Between("alice", "SECRET", "SECRET") }
	for i, c := range []struct {
		run  *computetest.Run
		want bool // it is compiled: nothing of another's was used
	}{{alice(), true}, {alice(), false}, {computetest.NewRun(nil).Between("bob", "SECRET", "SECRET"), true}, {computetest.NewRun(nil).Between("alice", "SECRET", "TOP SECRET"), true}, {computetest.NewRun(nil).Between("alice", "UNCLASSIFIED", "SECRET"), true}} {
		if got := compiled(c.run); got != c.want {
			t.Errorf("run %d was compiled: %v, want %v", i, got, c.want)
		}
	}
}

// What was kept and is not what a compiler made, or is another machine's, is compiled anew, and that is kept in its place. The module does nothing; what a
// worker is given of it beside what was compiled traps.
func TestWhatWasKeptMayBeAnything(t *testing.T) {
	module := assembly{bodies: [][]byte{nil}}.bytes()
	r := computetest.NewRun(nil)
	digest := r.SetModule(module)
	first := New(handed())
	run := func(t *testing.T, d *Driver) {
		t.Helper()
		if x, err := d.Run(t.Context(), r.Task(redoubt.SubmitJob{Module: digest})); err != nil || x.Code != 0 {
			t.Errorf("got %+v and %v of a module that does nothing", x, err)
		}
	}
	run(t, first)
	as := keptAs(first.target, digest)
	right, err := r.Kept(t.Context(), as)
	if err != nil {
		t.Fatal(err)
	}
	well, err := readMade(right)
	if err != nil || bytes.Equal(well.bare, module) {
		t.Fatalf("got %x and %v of %x", well.bare, err, module)
	}
	dir, file, _ := strings.Cut(well.name, "/")
	named := func(name string) []byte { return made{well.bare, name, well.code}.bytes() }
	code := func(code []byte) []byte { return made{well.bare, well.name, code}.bytes() }
	older := bytes.Clone(well.code)
	older[7]++ // the version of wazero
	for name, kept := range map[string][]byte{"nothing": {}, "short": {1, 2, 3}, "a length beyond": binary.BigEndian.AppendUint64(nil, 1<<63), "a name that leads out": named("../../../x"), "an absolute name": named("/etc/passwd"),
		"no code": code([]byte("x")), "half of the code": code(well.code[:len(well.code)/2]), "another's code": named("../cache/x"), "no module": made{nil, well.name, well.code}.bytes(), "a trailing byte": append(bytes.Clone(right), 0),
		"a long name": named(strings.Repeat("x", 5000)), "a longer name than a file may have": named(strings.Repeat("x", 500)), "a folder": named(dir + "/"), "no name": named(""),
		"another architecture": named(dir + "-more/" + file), "another processor": named(dir + "/" + strings.Repeat("0", len(file))), "another version": code(older)} {
		t.Run(name, func(t *testing.T) {
			if err := r.Keep(t.Context(), as, kept); err != nil {
				t.Fatal(err)
			}
			run(t, New(handed()))
			if now, err := r.Kept(t.Context(), as); err != nil || !bytes.Equal(now, right) {
				t.Errorf("%d bytes are kept, and %v; want what the compiler made", len(now), err)
			}
			if err := r.Keep(t.Context(), as, kept); err != nil {
				t.Fatal(err)
			}
			i, err := New(handed()).Begin(t.Context(), compute.Service{JobRun: r, Spec: redoubt.ServiceSpec{Module: digest}, Limits: redoubt.JobLimits{Memory: 64 << 20}, Timeout: time.Minute, Log: io.Discard})
			if err != nil {
				t.Fatal(err)
			}
			defer i.Close()
			if _, err := request(i, "GET", "/svc/x/", ""); err == nil || !strings.Contains(err.Error(), "it gave no answer") {
				t.Errorf("got %v of a service that says nothing", err)
			}
		})
	}
}

// TestWhatIsOfNoUseIsDroppedWhoeverHasReadIt: two attempts that read it at once are not told each other's.
func TestWhatIsOfNoUseIsDroppedWhoeverHasReadIt(t *testing.T) {
	r, d := computetest.NewRun(nil), New(handed())
	task := r.Task(redoubt.SubmitJob{Module: r.SetModule(assembly{bodies: [][]byte{nil}}.bytes())})
	right, _, err := d.compiled(t.Context(), task, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k := range d.made {
		d.made[k] = &made{right.bare, "another", right.code}
		d.bytes = d.made[k].size()
	}
	got, _, err := d.compiled(t.Context(), task, &made{right.bare, "another", right.code})
	if err != nil || !got.same(right) || d.bytes != right.size() {
		t.Errorf("got %v and %v, and %d bytes are held", got, err, d.bytes)
	}
}

// TestTheVersionOfWhatWasCompiledIsThatOfWazero, whatever that knows of its own.
func TestTheVersionOfWhatWasCompiledIsThatOfWazero(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	number, _, _ := strings.Cut(strings.TrimPrefix(version, "wazero-"), "-")
	if !strings.Contains(string(mod), "github.com/tetratelabs/wazero v"+number+"\n") {
		t.Errorf("%s is not the version of go.mod", version)
	}
}

// TestWhatIsKeptIsOfTheProcessorThatItWasCompiledFor: under its name alone it is looked for.
func TestWhatIsKeptIsOfTheProcessorThatItWasCompiledFor(t *testing.T) {
	r := computetest.NewRun(nil)
	digest := r.SetModule(assembly{bodies: [][]byte{nil}}.bytes())
	here, there := New(handed()), New(handed())
	there.target = "another's"
	for _, d := range []*Driver{here, there} {
		if x, err := d.Run(t.Context(), r.Task(redoubt.SubmitJob{Module: digest})); err != nil || x.Code != 0 {
			t.Fatalf("got %+v and %v", x, err)
		}
		if _, err := r.Kept(t.Context(), keptAs(d.target, digest)); err != nil || len(d.target) < 8 {
			t.Errorf("%q: %v", d.target, err)
		}
	}
	if here.target == there.target {
		t.Error("what was found of this machine is another's")
	}
}
