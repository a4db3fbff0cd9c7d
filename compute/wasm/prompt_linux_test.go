package wasm

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"redoubt/sandbox"
)

// TestAServicesWorkerIsPromptAndAJobsIsNot: somebody waits for each answer of the one alone.
func TestAServicesWorkerIsPromptAndAJobsIsNot(t *testing.T) {
	d := New(nil) // so that they are children of ours
	ours, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		of     string
		begin  func() (*sandbox.Process, error)
		policy uint32
		by     int32
	}{
		{"a service", func() (*sandbox.Process, error) { return d.startServer(64<<20, &made{}) }, unix.SCHED_NORMAL, 1},
		{"a job", func() (*sandbox.Process, error) { return d.start(shelfKey{memory: 64 << 20, disk: 1 << 20}, &made{}) }, unix.SCHED_BATCH, int32(niceness)},
	} {
		before := children(t)
		p, err := c.begin()
		if err != nil {
			t.Fatal(err)
		}
		defer p.Kill()
		begun := slices.DeleteFunc(children(t), func(pid int) bool { return slices.Contains(before, pid) })
		if len(begun) != 1 {
			t.Fatalf("%s has begun %v", c.of, begun)
		}
		if got, err := unix.SchedGetAttr(begun[0], 0); err != nil || got.Policy != c.policy || got.Nice != min(ours.Nice+c.by, 19) {
			t.Errorf("the worker of %s has %+v and %v, want policy %d, and niceness %d on top of ours, %d", c.of, got, err, c.policy, c.by, ours.Nice)
		}
	}
}

// children are the processes that this one has begun, as far as they are there yet.
func children(t *testing.T) (all []int) {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || lists == nil {
		t.Fatalf("got %v and %v", lists, err)
	}
	for _, list := range lists {
		b, _ := os.ReadFile(list) // of a thread that may have ended
		for _, one := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(one)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, pid)
		}
	}
	return all
}
