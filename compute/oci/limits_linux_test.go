package oci_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/computetest"
	"redoubt/compute/oci"
)

// The same contract holds where no control group may be had.
func TestContractWithoutControlGroups(t *testing.T) {
	if oci.GroupsOf(driverWith(t, oci.Options{})) == "" {
		t.Skip("there are none here: TestContract was without them")
	}
	without := func(t *testing.T) compute.Driver {
		d := driverWith(t, oci.Options{})
		oci.WithoutGroups(d)
		return d
	}
	computetest.Suite(t, without, computetest.Programs{GOOS: "linux", GOARCH: runtime.GOARCH, Load: func(t *testing.T, r *computetest.Run, p []byte) redoubt.SubmitJob { return withProgram(t, r, p) }, Processes: true, Network: true})
}

// groupsNow are the control groups for memory that there are of this process's.
func groupsNow(t *testing.T, d *oci.Driver) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(oci.GroupsOf(d), fmt.Sprintf("redoubt-oci-%d-*", os.Getpid())))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAControlGroupBoundsTheSandboxAndGoesWithIt(t *testing.T) {
	d := driverWith(t, oci.Options{})
	if oci.GroupsOf(d) == "" {
		t.Skip("this process may make no control groups")
	}
	before := groupsNow(t, d)
	r := computetest.NewRun(map[string][]byte{"reports/go": []byte("go")})
	spec := withProgram(t, r, []byte(program(t)))
	spec.Args = []string{"cat", "/in/reports/go", "hog", fmt.Sprint(400 << 20)}
	s := &atOpen{Run: r, name: "reports/go", f: func() {
		all := groupsNow(t, d)
		if len(all) != len(before)+1 {
			t.Errorf("there are %q", all)
		}
		for _, g := range all { // below what the program asks for, so that it is the machine's kernel that ends it
			limit := "memory.limit_in_bytes"
			if _, err := os.Stat(filepath.Join(g, "memory.max")); err == nil {
				limit = "memory.max"
			}
			file, want := oci.Weight(d, filepath.Base(g))
			if got, err := os.ReadFile(file); strings.TrimSpace(string(got)) != want && !(os.IsNotExist(err) && limit == "memory.max") { // where processors are not delegated
				t.Errorf("beside others it has %q of the processors, %v, want %s", got, err, want)
			}
			if err := os.WriteFile(filepath.Join(g, limit), []byte(fmt.Sprint(200<<20)), 0); err != nil {
				t.Error(err)
			}
		}
	}}
	if x := run2(t, d, s.task(spec)); x.Code != -1 || !strings.HasPrefix(x.Why, "out of memory: ") {
		t.Errorf("got %+v", x)
	}
	if all := groupsNow(t, d); len(all) != len(before) {
		t.Errorf("%q are left", all)
	}
}

// atOpen does something before the program has what it opens.
type atOpen struct {
	*computetest.Run
	name string
	f    func()
}

func (a *atOpen) Open(ctx context.Context, name string) (redoubt.JobFile, redoubt.Content, error) {
	if name == a.name {
		a.f()
	}
	return a.Run.Open(ctx, name)
}

func (a *atOpen) task(spec redoubt.SubmitJob) compute.Task {
	t := a.Run.Task(spec)
	t.JobRun = a
	return t
}

func run2(t *testing.T, d compute.Driver, task compute.Task) compute.Exit {
	t.Helper()
	x, err := d.Run(t.Context(), task)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// What the sandbox's kernel keeps for a program is not the program's memory, and is bounded too.
func TestWhatTheKernelKeepsForAProgramIsBounded(t *testing.T) {
	d := driverWith(t, oci.Options{})
	oci.WithoutGroups(d)
	r := computetest.NewRun(nil)
	spec := withProgram(t, r, []byte(program(t)))
	spec.Args = []string{"buffers", ""}
	spec.Limits.Memory = 64 << 20
	if x := run(t, d, r, spec); x.Code != -1 || !strings.HasPrefix(x.Why, "out of memory: ") {
		t.Errorf("got %+v; it said %q", x, r.Said(2))
	}
}

func TestDetailsSayWhatHoldsTheLimits(t *testing.T) {
	d := driverWith(t, oci.Options{})
	all := d.Details()
	if len(all) != 2 || !all[0].OK || !all[1].OK || !strings.Contains(all[1].Detail, "memory") {
		t.Errorf("got %+v", all)
	}
	if want := os.Getenv("CGROUPS"); want != "" && !strings.HasSuffix(all[1].Detail, "by cgroup "+want) { // scripts/cgroup2
		t.Errorf("limits are held by %s", all[1].Detail)
	}
	oci.WithoutGroups(d)
	if all := d.Details(); !strings.Contains(all[1].Detail, "affinity") {
		t.Errorf("got %+v", all)
	}
}
