package oci_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/computetest"
	"redoubt/compute/oci"
)

// asNode has the test binary be a node of its own, which runs a program that never ends and says so.
const asNode = "OCI_TEST_NODE"

func node() {
	b, err := os.ReadFile(os.Getenv(asNode))
	if err != nil {
		panic(err)
	}
	d, err := oci.New(oci.Options{})
	if err != nil {
		panic(err)
	}
	r := computetest.NewRun(nil)
	var t testing.T
	spec := withProgram(&t, r, b)
	spec.Args = []string{"write", "/out/x=1", "say", "runs", "spin", ""}
	x, err := d.Run(context.Background(), (&says{Run: r}).task(spec))
	fmt.Println(x, err)
}

// says writes what is logged to standard output.
type says struct{ *computetest.Run }

func (s *says) Log(_ int, text []byte) { os.Stdout.Write(text) }

// below are the processes that descend from one, by what they were when they were seen: number and start.
func below(t *testing.T, pid int) map[int]string {
	t.Helper()
	parents := map[int]int{}
	starts := map[int]string{}
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if p, start, parent, ok := stat(name); ok {
			parents[p], starts[p] = parent, start
		}
	}
	all := map[int]string{}
	for p := range parents {
		for at := parents[p]; at != 0; at = parents[at] {
			if at == pid {
				all[p] = starts[p]
				break
			}
		}
	}
	return all
}

func stat(name string) (pid int, start string, parent int, ok bool) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, "", 0, false
	}
	head, rest, _ := bytes.Cut(b, []byte(" ("))
	f := strings.Fields(string(rest[bytes.LastIndexByte(rest, ')')+1:]))
	pid, _ = strconv.Atoi(string(head))
	if f[0] == "Z" || len(f) < 20 {
		return 0, "", 0, false
	}
	parent, _ = strconv.Atoi(f[1])
	return pid, f[19], parent, true
}

// gone waits until none of these is there.
func gone(t *testing.T, all map[int]string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for pid, start := range all {
		for {
			_, now, _, ok := stat(fmt.Sprintf("/proc/%d/stat", pid))
			if !ok || now != start {
				break
			}
			if time.Now().After(deadline) {
				b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				t.Fatalf("process %d is left: %q", pid, b)
			}
			time.Sleep(10 * time.Millisecond) // until it is so
		}
	}
}

func mounts(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestNothingIsLeftOfANodeThatIsKilled(t *testing.T) {
	newDriver(t) // whether one may be had
	before := mounts(t)
	p := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(p, []byte(program(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), asNode+"="+p)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 100)
	n, err := out.Read(said)
	if string(said[:n]) != "runs\n" {
		t.Fatalf("got %q and %v", said[:n], err)
	}
	all := below(t, c.Process.Pid)
	if len(all) < 3 {
		t.Fatalf("only %d processes run", len(all))
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.Wait()
	gone(t, all)
	if now := mounts(t); now != before {
		t.Errorf("mounts were\n%s\nand are\n%s", before, now)
	}
}

func TestNothingIsLeftWhenRunHasReturned(t *testing.T) {
	before := mounts(t)
	d := newDriver(t)
	r := computetest.NewRun(nil).Between("alice", "SECRET", "TOP SECRET")
	spec := withProgram(t, r, []byte(program(t)))
	spec.Args = []string{"leave", "/tmp/x", "say", "runs", "spin", ""}
	ctx, cancel := context.WithCancel(t.Context())
	var all map[int]string
	s := &atLog{Run: r, f: func() { all = below(t, os.Getpid()); cancel() }}
	if x, err := d.Run(ctx, s.task(spec)); err == nil && x.Code != -1 {
		t.Errorf("got %+v and %v", x, err)
	}
	for pid, start := range all { // not in a while: now
		if _, now, _, ok := stat(fmt.Sprintf("/proc/%d/stat", pid)); ok && now == start {
			t.Errorf("process %d is left", pid)
		}
	}
	if len(all) < 3 {
		t.Errorf("only %d processes ran", len(all))
	}
	if now := mounts(t); now != before {
		t.Errorf("mounts were\n%s\nand are\n%s", before, now)
	}
}

// A sandbox that is kept holds nothing of the run but itself, and goes with its time or the driver.
func TestASandboxThatIsKeptGoesWithItsTime(t *testing.T) {
	d := driverWith(t, oci.Options{WarmFor: time.Millisecond})
	r := computetest.NewRun(nil)
	spec := withProgram(t, r, []byte(program(t)))
	spec.Args = []string{"say", "x"}
	var all map[int]string
	s := &atLog{Run: r, f: func() { all = below(t, os.Getpid()) }}
	if x, err := d.Run(t.Context(), s.task(spec)); err != nil || x.Code != 0 || len(all) < 2 {
		t.Fatalf("got %+v, %v and %d processes", x, err, len(all))
	}
	gone(t, all)
}

// A sandbox that was kept and has gone is no failure of the next run.
func TestARunOutlivesTheEndOfASandboxThatWasKept(t *testing.T) {
	d := newDriver(t).(*oci.Driver)
	for range 2 {
		r := computetest.NewRun(nil)
		spec := withProgram(t, r, []byte(program(t)))
		spec.Args = []string{"exit", "0"}
		if x := run(t, d, r, spec); x.Code != 0 {
			t.Fatalf("got %+v", x)
		}
		oci.KillIdle(d)
	}
}

// atLog does something once the program has said something.
type atLog struct {
	*computetest.Run
	f    func()
	done bool
}

func (a *atLog) Log(stream int, text []byte) {
	a.Run.Log(stream, text)
	if !a.done && stream == 1 {
		a.done = true
		a.f()
	}
}

func (a *atLog) task(spec redoubt.SubmitJob) compute.Task {
	t := a.Run.Task(spec)
	t.JobRun = a
	return t
}

func (s *says) task(spec redoubt.SubmitJob) compute.Task {
	t := s.Run.Task(spec)
	t.JobRun = s
	return t
}
