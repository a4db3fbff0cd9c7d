package oci_test

import (
	"archive/tar"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/computetest"
	"redoubt/compute/oci"
)

// trusted is a driver with runc, where that is.
func trusted(t *testing.T) compute.Driver {
	t.Helper()
	if _, err := exec.LookPath("runc"); err != nil {
		if os.Getenv("CLIENTS_REQUIRE") == "1" {
			t.Fatal("runc is needed: make deps installs it")
		}
		t.Skip("runc is needed: make deps installs it")
	}
	if oci.Dynamic() {
		t.Skip("built with cgo: what stands beside a program needs a static binary")
	}
	d, err := oci.NewTrusted(oci.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// The contract of all drivers holds with runc, which takes all inputs before a program begins.
func TestContractWithRunc(t *testing.T) {
	computetest.Suite(t, trusted, computetest.Programs{GOOS: "linux", GOARCH: runtime.GOARCH, Load: func(t *testing.T, r *computetest.Run, p []byte) redoubt.SubmitJob { return withProgram(t, r, p) }, Processes: true, Eager: true})
}

// What stands on the machine's kernel sees nothing of the machine: no process, no file, no network, no other user, and has no way to more.
func TestRuncShowsNothingOfTheMachine(t *testing.T) {
	d := trusted(t)
	r := computetest.NewRun(map[string][]byte{"b/f": []byte("content")})
	l := layer(t, entry{name: "bin/"}, entry{name: "bin/program", content: program(t)}, entry{name: "etc/"}, entry{name: "etc/passwd", content: "root:x:0:0::/:\napp:x:1000:1000::/home:\n"},
		entry{name: "own", content: "x", h: tar.Header{Uid: 1000, Gid: 1000, Mode: 0o600}})
	spec := redoubt.SubmitJob{Image: push(t, r, object{"Entrypoint": []string{"/bin/program"}, "User": "app"}, nil, l)}
	spec.Args = []string{"user", "", "host", "", "net", "", "list", "/", "kind", "/proc/1/root/etc/shadow", "kind", "/etc/shadow", "refuse", "/proc/sys/kernel/hostname",
		"dial", "127.0.0.1:22", "dial", "192.0.2.1:443", "forged", "192.0.2.1:53", "device", "/tmp/null", "powers", ""}
	if os.Getuid() != 0 {
		t.Skip("the image has a user of its own, which takes root")
	}
	x := run(t, d, r, spec)
	want := "1000 1000\nredoubt\nbin/\ndev/\netc/\nin/\nout/\nown\nproc/\nsys/\ntmp/\nno such file or directory\nno such file or directory\nrefused\nrefused\ntrue\ntrue\ntrue\ntrue\noperation not permitted\n" +
		"unshare operation not permitted\nmount operation not permitted\nptrace operation not permitted\nkeyctl operation not permitted\nprocesses 1\ncapabilities 0\n"
	if x.Code != 0 || r.Said(1) != want {
		t.Errorf("got %+v, %q and %q, want %q", x, r.Said(1), r.Said(2), want)
	}
}

func TestRuncRunsNoServices(t *testing.T) {
	d := trusted(t)
	if _, serves := d.(compute.ServiceDriver); serves {
		t.Error("it runs services")
	}
}

// Sockets of a family that has no namespaces, as vsock's, reach other jobs and the machine.
func TestRuncHasSocketsOfItsOwnNetworkAlone(t *testing.T) {
	d := trusted(t)
	r := computetest.NewRun(nil)
	spec := withProgram(t, r, []byte(program(t)))
	spec.Args = []string{"families", ""}
	x := run(t, d, r, spec)
	got := strings.Split(strings.TrimSpace(r.Said(1)), "\n")
	slices.Sort(got)
	want := []string{"socket 1 0", "socket 10 0", "socket 16 0", "socket 2 0", "socketpair 1 0", "socketpair 10 0", "socketpair 16 0", "socketpair 2 0"}
	if x.Code != 0 || !slices.Equal(got, want) {
		t.Errorf("got %+v, %q and %q, want %q", x, got, r.Said(2), want)
	}
}

// What counts for the whole machine would tell of other labels' jobs.
func TestRuncShowsNothingThatCountsAllJobs(t *testing.T) {
	d := trusted(t)
	r := computetest.NewRun(nil)
	spec := withProgram(t, r, []byte(program(t)))
	for _, name := range []string{"meminfo", "loadavg", "stat", "vmstat", "uptime", "interrupts", "diskstats", "zoneinfo", "cgroups", "locks", "sys/fs/file-nr", "sys/fs/inode-state", "sys/fs/dentry-state"} {
		if _, err := os.Stat("/proc/" + name); err == nil {
			spec.Args = append(spec.Args, "cat", "/proc/"+name)
		}
	}
	if _, err := os.Stat("/proc/pressure"); err == nil {
		spec.Args = append(spec.Args, "list", "/proc/pressure")
	}
	spec.Args = append(spec.Args, "sysinfo", "", "cat", "/proc/self/cgroup")
	x := run(t, d, r, spec)
	refused, groups, _ := strings.Cut(r.Said(1), "\n")
	if x.Code != 0 || refused != "operation not permitted" {
		t.Errorf("got %+v, %q and %q", x, r.Said(1), r.Said(2))
	}
	for line := range strings.Lines(groups) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) != 3 || f[2] != "/" {
			t.Errorf("it is told of its control group %q", line)
		}
	}
}

// Memory that processes share is a job's as any other is; what they map of their inputs is not.
func TestRuncBoundsMemoryThatIsShared(t *testing.T) {
	for _, grouped := range []bool{true, false} {
		d := trusted(t)
		if !grouped {
			oci.TrustedWithoutGroups(d.(*oci.Trusted))
		}
		r := computetest.NewRun(map[string][]byte{"b/f": make([]byte, 160<<20)})
		spec := withProgram(t, r, []byte(program(t)))
		spec.Limits.Memory = 128 << 20
		spec.Args = []string{"share", fmt.Sprint(384 << 20), "spin", ""}
		if x := run(t, d, r, spec); x.Code != -1 || !strings.HasPrefix(x.Why, "out of memory: ") {
			t.Errorf("control groups %v: got %+v, %q and %q", grouped, x, r.Said(1), r.Said(2))
		}
		spec.Args = []string{"mapped", "/in/b/f", "share", fmt.Sprint(32 << 20), "sum", "/in/b/f"}
		if x := run(t, d, r, spec); x.Code != 0 {
			t.Errorf("control groups %v: got %+v, %q and %q", grouped, x, r.Said(1), r.Said(2))
		}
	}
}

// What is copied for a job is bounded by what it may use.
func TestRuncBoundsWhatIsCopied(t *testing.T) {
	d := trusted(t)
	r := computetest.NewRun(map[string][]byte{"b/f": make([]byte, 40<<20), "b/c/g": make([]byte, 40<<20)})
	spec := withProgram(t, r, []byte(program(t)))
	spec.Args, spec.Limits = []string{"say", "ran"}, redoubt.JobLimits{Memory: 64 << 20, Disk: 8 << 20}
	if x := run(t, d, r, spec); x.Code != -1 || !strings.HasPrefix(x.Why, "its image and inputs are more than 72 MiB") {
		t.Errorf("got %+v", x)
	}
	spec.Limits.Disk = 32 << 20
	if x := run(t, d, r, spec); x.Code != 0 {
		t.Errorf("got %+v and %q", x, r.Said(2))
	}
}

// so many files are listed, in folders that have few each.
type files struct {
	*computetest.Run
	folders, each int
}

func (f *files) List(_ context.Context, dir string) (all []redoubt.JobFile, err error) {
	n := f.each
	if dir == "" {
		n = f.folders
	}
	for i := range n {
		all = append(all, redoubt.JobFile{Name: fmt.Sprint(i), Dir: dir == "" || strings.Count(dir, "/") == 0})
	}
	return all, nil
}

func TestRuncBoundsTheNumberOfAllInputs(t *testing.T) {
	d := trusted(t)
	r := computetest.NewRun(nil)
	spec := withProgram(t, r, []byte(program(t)))
	task := r.Task(spec)
	task.JobRun = &files{r, 2, 50_000}
	if x := run2(t, d, task); x.Code != -1 || !strings.HasPrefix(x.Why, "its inputs are more than 100000 files") {
		t.Errorf("got %+v", x)
	}
}

// stuck never says what inputs there are.
type stuck struct{ *computetest.Run }

func (s stuck) List(ctx context.Context, _ string) ([]redoubt.JobFile, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestTimeOfRuncBeginsBeforeInputsAreRead(t *testing.T) {
	d := trusted(t)
	r := computetest.NewRun(nil)
	task := r.Task(withProgram(t, r, []byte(program(t))))
	task.JobRun, task.Timeout = stuck{r}, time.Second
	if x := run2(t, d, task); x.Code != -1 || !strings.HasPrefix(x.Why, "out of time: ") {
		t.Errorf("got %+v", x)
	}
}

func TestAProgramBeginsOnce(t *testing.T) {
	if err := oci.BeginTwice(); err == nil || err.Error() != "a second beginning" {
		t.Errorf("got %v", err)
	}
}

// The kernel counts much by user: no two jobs that run at once have one.
func TestRuncGivesEachSandboxUsersOfItsOwn(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("it takes root")
	}
	d := trusted(t)
	r, second := computetest.NewRun(nil), computetest.NewRun(nil)
	spec := withProgram(t, r, []byte(program(t)))
	withProgram(t, second, []byte(program(t)))
	spec.Args = []string{"cat", "/proc/self/uid_map", "cat", "/proc/self/gid_map"}
	inner := spec
	spec.Args = append(spec.Args, "say", "runs")
	s := &atLog{Run: r, f: func() {
		if x := run(t, d, second, inner); x.Code != 0 {
			t.Errorf("got %+v and %q", x, second.Said(2))
		}
	}}
	if x := run2(t, d, s.task(spec)); x.Code != 0 {
		t.Errorf("got %+v and %q", x, r.Said(2))
	}
	first := map[string]bool{}
	for _, m := range []string{r.Said(1), second.Said(1)} {
		users, _, _ := strings.Cut(m, "\n")
		f := strings.Fields(users)
		if len(f) != 3 || f[2] != "65536" || first[f[1]] {
			t.Errorf("got %q and %q", r.Said(1), second.Said(1))
			break
		}
		first[f[1]] = true
	}
	if err := oci.TakeAllUsers(); err != nil {
		t.Error(err)
	}
}

// A lock on a device of the machine's, or when it was used, would be seen by every job.
func TestRuncGivesEachSandboxDevicesOfItsOwn(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("it takes root")
	}
	d := trusted(t)
	r := computetest.NewRun(nil)
	spec := withProgram(t, r, []byte(program(t)))
	devices := []string{"null", "zero", "full", "random", "urandom", "tty"}
	for _, name := range devices {
		spec.Args = append(spec.Args, "inode", "/dev/"+name)
	}
	spec.Args = append(spec.Args, "write", "/dev/null=x")
	if x := run(t, d, r, spec); x.Code != 0 {
		t.Errorf("got %+v and %q", x, r.Said(2))
	}
	got := strings.Split(strings.TrimSpace(r.Said(1)), "\n")
	for i, name := range devices {
		var s syscall.Stat_t
		if err := syscall.Stat("/dev/"+name, &s); err != nil {
			t.Fatal(err)
		}
		of, kind, _ := strings.Cut(got[min(i, len(got)-1)], " ")
		if of == fmt.Sprint(s.Dev) || kind != fmt.Sprint(s.Rdev) {
			t.Errorf("%s: got %q, and the machine's is on %d and %d", name, got, s.Dev, s.Rdev)
		}
	}
}
