package computetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"redoubt"
	"redoubt/compute"
)

// Programs is how a driver is given programs.
type Programs struct {
	GOOS, GOARCH string // that they are built for
	// Load hands a program to an attempt, as its module or in an image, and gives what it is submitted with.
	Load      func(t *testing.T, r *Run, program []byte) redoubt.SubmitJob
	Processes bool // whether a program may start others, and make links and fifos
	Network   bool // whether programs may connect to what their jobs were granted; else jobs that ask for it are refused
	Eager     bool // whether the driver reads all inputs before a program begins, since it cannot do else
}

// built are the programs, by target; each is built once.
var built sync.Map

// Build builds the program of the suite.
func Build(t testing.TB, goos, goarch string) []byte {
	t.Helper()
	once, _ := built.LoadOrStore(goos+"/"+goarch, sync.OnceValues(func() ([]byte, error) {
		dir, err := os.MkdirTemp("", "program")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		c := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "program"), "redoubt/compute/computetest/program")
		c.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0", "GOFLAGS=")
		if out, err := c.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w: %s", err, out)
		}
		return os.ReadFile(filepath.Join(dir, "program"))
	}))
	b, err := once.(func() ([]byte, error))()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// suite is a driver under test.
type suite struct {
	Programs
	driver  compute.Driver
	program []byte
}

// Suite holds a driver to the contract of compute.Driver.
func Suite(t *testing.T, newDriver func(t *testing.T) compute.Driver, p Programs) {
	s := &suite{Programs: p, program: Build(t, p.GOOS, p.GOARCH)}
	s.driver = newDriver(t)
	if err := s.driver.Available(); err != nil {
		t.Fatalf("the driver is not available: %v", err)
	}
	for _, c := range []struct {
		name      string
		processes bool
		test      func(*testing.T, *suite)
	}{
		{"ExitCodesAreThePrograms", false, testExitCodes},
		{"ArgumentsAndEnvironmentArriveAsTheyWereGiven", false, testArguments},
		{"TheLogTellsStreamsApart", false, testLog},
		{"WhatIsNotOpenedIsNotRead", false, testLazy},
		{"ADirectoryIsListedWhenTheProgramListsIt", false, testListing},
		{"WhatLiesBeyondIsAsNeverThere", false, testBeyond},
		{"FilesAreReadWholeAndInParts", false, testContent},
		{"InputsCannotBeWritten", false, testReadOnly},
		{"OutputsArePutAfterACleanEnd", false, testOutputs},
		{"AFailedProgramHasNoOutputs", false, testNoOutputs},
		{"OutputsThatAreRefusedFailTheRun", false, testRefusedOutputs},
		{"TimeEndsAProgram", false, testTimeout},
		{"CancellingEndsAProgram", false, testCancel},
		{"MemoryIsBounded", false, testMemory},
		{"DiskIsBounded", false, testDisk},
		{"AFloodOfWordsBlocksNothing", false, testFlood},
		{"WhatIsNoProgramIsTheSubmittersFault", false, testRubbish},
		{"AProgramReachesWhatItsJobMayAndNothingElse", false, testNetwork},
		{"RunsAtOnceAreApart", false, testAtOnce},
		{"NothingIsLeftForTheNext", false, testNothingLeft},
		{"HostileOutputsAreLeft", true, testHostileOutputs},
		{"AForkBombEnds", true, testBomb},
		{"WhatIsLeftRunningEnds", true, testLeave},
	} {
		if c.processes && !p.Processes {
			continue
		}
		t.Run(c.name, func(t *testing.T) { c.test(t, s) })
	}
}

// load hands the program to r.
func (s *suite) load(t *testing.T, r *Run, args ...string) redoubt.SubmitJob {
	spec := s.Load(t, r, s.program)
	spec.Args = args
	return spec
}

// run runs the program, and fails the test where that is the driver's fault.
func (s *suite) run(t *testing.T, r *Run, spec redoubt.SubmitJob) compute.Exit {
	t.Helper()
	x, err := s.driver.Run(t.Context(), r.Task(spec))
	if err != nil {
		t.Fatalf("%q: %v", spec.Args, err)
	}
	if n := r.LeftOpen(); n != 0 {
		t.Errorf("%q: %d contents were left open", spec.Args, n)
	}
	return x
}

// well runs the program, which must end with exit code 0, and gives what it said.
func (s *suite) well(t *testing.T, r *Run, args ...string) string {
	t.Helper()
	if x := s.run(t, r, s.load(t, r, args...)); x.Code != 0 {
		t.Fatalf("%q: got %+v, want exit code 0; it said %q", args, x, tail(r.Said(2)))
	}
	return r.Said(1)
}

func tail(s string) string { return s[max(0, len(s)-2000):] }

func testExitCodes(t *testing.T, s *suite) {
	for _, code := range []int{0, 1, 3, 127} {
		r := NewRun(nil)
		if x := s.run(t, r, s.load(t, r, "exit", fmt.Sprint(code))); x.Code != code {
			t.Errorf("got %+v, want exit code %d", x, code)
		}
	}
}

func testArguments(t *testing.T, s *suite) {
	args := []string{"args", "", "two words", "--json", "-", "\"'$HOME`", "ü\n"}
	if got, want := s.well(t, NewRun(nil), args...), fmt.Sprintf("%q\n", args[1:]); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	r := NewRun(nil)
	spec := s.load(t, r, "env", "A", "env", "EMPTY", "env", "USER", "env", "GODEBUG")
	spec.Env = []string{"A=1=2 3", "EMPTY="}
	t.Setenv("USER", "who runs the node")
	if x := s.run(t, r, spec); x.Code != 0 || r.Said(1) != "A=1=2 3\nEMPTY=\nUSER=\nGODEBUG=\n" {
		t.Errorf("got %+v and %q", x, r.Said(1))
	}
}

func testLog(t *testing.T, s *suite) {
	r := NewRun(nil)
	s.well(t, r, "say", "one", "warn", "two", "say", "three")
	if r.Said(1) != "one\nthree\n" || r.Said(2) != "two\n" {
		t.Errorf("got %q and %q", r.Said(1), r.Said(2))
	}
}

func some() map[string][]byte {
	return map[string][]byte{
		"reports/a":         []byte("alpha"),
		"reports/b":         []byte("beta"),
		"reports/deep/er/c": []byte("gamma"),
		"secret/x":          []byte("xi"),
		"secret/y":          []byte("ypsilon"),
	}
}

func testLazy(t *testing.T, s *suite) {
	r := NewRun(some())
	s.well(t, r, "say", "nothing of it")
	s.allowed(t, r)
	r = NewRun(some())
	if got := s.well(t, r, "cat", "/in/reports/a"); got != "alpha" {
		t.Errorf("got %q", got)
	}
	s.allowed(t, r, "stat reports", "stat reports/a", "open reports/a")
	if !slices.Contains(r.Reads(), "open reports/a") {
		t.Errorf("reads are %q: the file was read and not opened", r.Reads())
	}
	r = NewRun(some())
	s.well(t, r, "stat", "/in/reports/deep/er/c")
	s.allowed(t, r, "stat reports", "stat reports/deep", "stat reports/deep/er", "stat reports/deep/er/c")
}

// allowed checks that nothing was asked but this, the folder /in, and what belongs to the program.
func (s *suite) allowed(t *testing.T, r *Run, want ...string) {
	t.Helper()
	if s.Eager {
		return
	}
	for _, got := range r.Reads() {
		if got != "stat" && got != "module" && !strings.HasPrefix(got, "object ") && !slices.Contains(want, got) {
			t.Errorf("%q was asked, and the program did not ask it: %q", got, r.Reads())
		}
	}
}

func testListing(t *testing.T, s *suite) {
	r := NewRun(some())
	if got, want := s.well(t, r, "list", "/in/reports"), "a\nb\ndeep/\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s.allowed(t, r, "stat reports", "list reports")
	r = NewRun(some())
	if got, want := s.well(t, r, "list", "/in"), "reports/\nsecret/\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s.allowed(t, r, "list")
	r = NewRun(some())
	if got, want := s.well(t, r, "stat", "/in/reports/b"), "b 4 false "+Modified.Format("2006-01-02T15:04:05Z")+"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	many := map[string][]byte{}
	var want strings.Builder
	for i := range 5000 {
		name := fmt.Sprintf("file-with-a-name-of-some-length-%05d", i)
		many["many/"+name] = nil
		want.WriteString(name + "\n")
	}
	if got := s.well(t, NewRun(many), "list", "/in/many"); got != want.String() {
		t.Errorf("of 5000 files %d are listed", strings.Count(got, "\n"))
	}
}

func testBeyond(t *testing.T, s *suite) {
	r := NewRun(some()).Hide("secret/x")
	got := s.well(t, r, "kind", "/in/secret/x", "kind", "/in/secret/none", "kind", "/in/none/none", "list", "/in/secret")
	words, rest, _ := strings.Cut(got, "\n")
	if want := words + "\n" + words + "\ny\n"; rest != want {
		t.Errorf("got %q", got)
	}
}

func testContent(t *testing.T, s *suite) {
	big := make([]byte, 5<<20+123)
	for i := range big {
		big[i] = byte(i>>12) ^ byte(i*7)
	}
	copy(big[3<<20-5:], "0123456789")
	r := NewRun(map[string][]byte{"b/big": big, "b/empty": {}})
	got := s.well(t, r, "sum", "/in/b/big", "sum", "/in/b/empty", "range", fmt.Sprintf("/in/b/big=%d", 3<<20-5), "range", fmt.Sprintf("/in/b/big=%d", len(big)+5))
	want := fmt.Sprintf("%d %x\n%d %x\n0123456789\n\n", len(big), sha256.Sum256(big), 0, sha256.Sum256(nil))
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func testReadOnly(t *testing.T, s *suite) {
	r := NewRun(some())
	s.well(t, r, "refuse", "/in/reports/a", "refuse", "/in/new", "refuse", "/in/reports/new")
}

func testOutputs(t *testing.T, s *suite) {
	r := NewRun(some())
	s.well(t, r, "write", "/out/a=1", "write", "/out/deep/er/b=two", "write", "/out/empty=", "write", "/out/gone=x", "remove", "/out/gone", "mkdir", "/out/folder",
		"write", "/out/old=moved", "rename", "/out/old=/out/deep/new", "write", "/out/cut=12345", "truncate", "/out/cut=2", "append", "/out/cut=end",
		"write", "/out/patched=abc", "patch", "/out/patched=1", "patch", "/out/patched=5", "fill", "/out/big=3000001", "cat", "/out/cut", "list", "/out/deep", "write", "/out/name with spaces, ü=x")
	out := r.Outputs()
	want := map[string]string{"a": "1", "deep/er/b": "two", "empty": "", "deep/new": "moved", "cut": "12end", "patched": "aXc\x00\x00X", "name with spaces, ü": "x"}
	if len(out["big"]) != 3000001 || out["big"][1<<20+12] != 18 {
		t.Errorf("the large output has %d bytes, or others", len(out["big"]))
	}
	delete(out, "big")
	if names := slices.Sorted(maps.Keys(out)); len(out) != len(want) {
		t.Errorf("outputs are %q", names)
	}
	for name, content := range want {
		if string(out[name]) != content {
			t.Errorf("%s: got %q, want %q", name, out[name], content)
		}
	}
	if got := r.Said(1); got != "wrote 3000001\n12ender/\nnew\n" {
		t.Errorf("it saw %q of its own", got)
	}
}

func testNoOutputs(t *testing.T, s *suite) {
	r := NewRun(nil)
	if x := s.run(t, r, s.load(t, r, "write", "/out/a=1", "exit", "1")); x.Code != 1 || len(r.Outputs()) != 0 {
		t.Errorf("got %+v and outputs %q", x, r.Outputs())
	}
}

func testRefusedOutputs(t *testing.T, s *suite) {
	r := NewRun(nil)
	r.RefuseOutputs(&redoubt.Error{Op: "Put", Kind: redoubt.QuotaExceeded})
	if _, err := s.driver.Run(t.Context(), r.Task(s.load(t, r, "write", "/out/a=1"))); !errors.Is(err, redoubt.QuotaExceeded) {
		t.Errorf("got %v, want what Put said", err)
	}
}

func testTimeout(t *testing.T, s *suite) {
	r := NewRun(nil)
	spec := s.load(t, r, "write", "/out/a=1", "say", "began", "spin", "")
	spec.Seconds = 2
	if x := s.run(t, r, spec); x.Code != -1 || !strings.Contains(x.Why, "time") || len(r.Outputs()) != 0 {
		t.Errorf("got %+v and outputs %q, want it ended for its time", x, r.Outputs())
	}
	if r.Said(1) != "began\n" {
		t.Errorf("what it said before is %q", r.Said(1))
	}
}

func testCancel(t *testing.T, s *suite) {
	r := NewRun(nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ran := &began{Run: r, cancel: cancel}
	task := r.Task(s.load(t, r, "write", "/out/a=1", "say", "began", "spin", ""))
	task.JobRun = ran
	x, err := s.driver.Run(ctx, task)
	if err == nil && x.Code != -1 || len(r.Outputs()) != 0 {
		t.Errorf("got %+v, %v and outputs %q, want it ended", x, err, r.Outputs())
	}
}

// began cancels when the program has said something.
type began struct {
	*Run
	cancel func()
}

func (b *began) Log(stream int, text []byte) { b.Run.Log(stream, text); b.cancel() }

func testMemory(t *testing.T, s *suite) {
	r := NewRun(nil)
	spec := s.load(t, r, "hog", fmt.Sprint(1<<30))
	spec.Limits.Memory = 128 << 20
	if x := s.run(t, r, spec); x.Code != -1 || !strings.HasPrefix(x.Why, "out of memory: ") || !strings.Contains(x.Why, "128 MiB") {
		t.Errorf("got %+v, want it out of memory; it said %q", x, tail(r.Said(1)+r.Said(2)))
	}
	r = NewRun(nil)
	spec = s.load(t, r, "hog", fmt.Sprint(64<<20))
	spec.Limits.Memory = 192 << 20
	if x := s.run(t, r, spec); x.Code != 0 {
		t.Errorf("got %+v, want a third of its memory to be its to use; it said %q", x, tail(r.Said(2)))
	}
}

func testDisk(t *testing.T, s *suite) {
	r := NewRun(nil)
	spec := s.load(t, r, "fill", fmt.Sprintf("/out/a=%d", 64<<20))
	spec.Limits.Disk = 8 << 20
	x := s.run(t, r, spec)
	var wrote int64
	if _, err := fmt.Sscanf(r.Said(1), "wrote %d", &wrote); err != nil || wrote > 8<<20 || x.Code == 0 || len(r.Outputs()) != 0 {
		t.Errorf("got %+v, %q and %d outputs, want it stopped at 8 MiB", x, r.Said(1), len(r.Outputs()))
	}
	r = NewRun(nil)
	spec = s.load(t, r, "fill", fmt.Sprintf("/out/a=%d", 6<<20), "remove", "/out/a", "fill", fmt.Sprintf("/out/b=%d", 6<<20))
	spec.Limits.Disk = 8 << 20
	if x := s.run(t, r, spec); x.Code != 0 || len(r.Outputs()["b"]) != 6<<20 {
		t.Errorf("got %+v, want the space of what was removed to be free again; it said %q", x, tail(r.Said(2)))
	}
}

func testFlood(t *testing.T, s *suite) {
	r := NewRun(nil)
	if got := s.well(t, r, "flood", fmt.Sprint(redoubt.MaxJobLogBytes+1<<20)); len(got) != redoubt.MaxJobLogBytes {
		t.Errorf("%d bytes were kept", len(got))
	}
}

func testRubbish(t *testing.T, s *suite) {
	for _, b := range [][]byte{[]byte("rubbish"), {}, s.program[:len(s.program)/2]} {
		r := NewRun(nil)
		spec := s.Load(t, r, b)
		if x := s.run(t, r, spec); x.Code == 0 || x.Code == -1 && x.Why == "" {
			t.Errorf("%d bytes: got %+v, want a reason", len(b), x)
		}
	}
}

func testAtOnce(t *testing.T, s *suite) {
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			name := fmt.Sprint(i)
			r := NewRun(map[string][]byte{"b/f": []byte(name)}).Between(redoubt.SubjectName("u"+name), "SECRET", "SECRET")
			x, err := s.driver.Run(t.Context(), r.Task(s.load(t, r, "cat", "/in/b/f", "write", "/out/o="+name, "list", "/out")))
			if err != nil || x.Code != 0 || r.Said(1) != name+"o\n" || !bytes.Equal(r.Outputs()["o"], []byte(name)) {
				t.Errorf("%d: got %+v, %v, %q and %q", i, x, err, r.Said(1), r.Outputs())
			}
		})
	}
	wg.Wait()
}

// Of one share or of two, a run finds nothing that another wrote, neither under /out nor elsewhere.
func testNothingLeft(t *testing.T, s *suite) {
	for _, by := range []redoubt.SubjectName{"alice", "alice", "bob"} {
		r := NewRun(nil).Between(by, "SECRET", "SECRET")
		args := []string{"list", "/out", "write", "/out/x=1"}
		if s.Processes {
			args = append(args, "kind", "/tmp/left", "write", "/tmp/left=1")
		}
		got := s.well(t, r, args...)
		if s.Processes && got != "no such file or directory\n" || !s.Processes && got != "" {
			t.Errorf("%s: got %q", by, got)
		}
	}
}

func testHostileOutputs(t *testing.T, s *suite) {
	r := NewRun(nil)
	s.well(t, r, "write", "/out/plain=1", "setuid", "/out/plain", "symlink", "/out/link", "fifo", "/out/fifo", "device", "/out/null", "socket", "/out/socket",
		"mkdir", "/out/d", "symlink", "/out/d/link", "nameless", "/out", "write", "/out/new\nline=x")
	out := r.Outputs()
	for name := range out {
		if name != "plain" && name != "new\nline" {
			t.Errorf("%q was put: %q", name, out[name])
		}
	}
	if string(out["plain"]) != "1" {
		t.Errorf("outputs are %q", out)
	}
	for _, name := range []string{"link", "fifo", "d/link"} {
		if !strings.Contains(r.Said(2), name) {
			t.Errorf("the log does not tell of %s: %q", name, r.Said(2))
		}
	}
}

func testBomb(t *testing.T, s *suite) {
	r := NewRun(nil)
	spec := s.load(t, r, "bomb", "")
	spec.Limits.Processes = 64
	spec.Seconds = 60
	if x := s.run(t, r, spec); x.Code == 0 || x.Code == -1 && !strings.Contains(x.Why, "process") {
		t.Errorf("got %+v, want it stopped for its processes", x)
	}
	s.well(t, NewRun(nil), "say", "and others go on")
}

func testLeave(t *testing.T, s *suite) {
	r := NewRun(nil)
	s.well(t, r, "write", "/out/a=1", "leave", "/tmp/b", "write", "/out/c=2")
	if out := r.Outputs(); string(out["a"]) != "1" || string(out["c"]) != "2" {
		t.Errorf("outputs are %q", out)
	}
}
