package sandbox_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"redoubt/sandbox"
)

// TestAConfinedProcessHasItsFolderAlone, and neither traces what started it nor reads its memory; root does not make a difference.
func TestAConfinedProcessHasItsFolderAlone(t *testing.T) {
	const told = "REDOUBT_TEST_CONFINE"
	if at := os.Getenv(told); at != "" {
		fmt.Println(confined(at, os.Getppid()))
		return
	}
	at := t.TempDir()
	for _, name := range []string{"mine/in", "others/secret"} {
		if err := os.MkdirAll(filepath.Join(at, filepath.Dir(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(at, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(at, "mine", ".stage"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestAConfinedProcessHasItsFolderAlone$")
	cmd.Env = append(os.Environ(), told+"="+at)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	if want := "before: all; after: write move"; first != want {
		t.Errorf("got %q, want %q", first, want)
	}
}

// confined says what a process can do before and after it is confined to a folder.
func confined(at string, parent int) string {
	can := func() (all []string) {
		does := func(what string, err error) {
			if err == nil {
				all = append(all, what)
			}
		}
		does("write", os.WriteFile(filepath.Join(at, "mine", ".stage", "out"), nil, 0o600))
		does("move", os.Rename(filepath.Join(at, "mine", ".stage", "out"), filepath.Join(at, "mine", "out")))
		_, err := os.ReadFile(filepath.Join(at, "others", "secret"))
		does("read another's", err)
		does("write another's", os.WriteFile(filepath.Join(at, "others", "new"), nil, 0o600))
		m, err := os.Open(fmt.Sprintf("/proc/%d/mem", parent))
		does("open memory", err)
		if err == nil {
			m.Close()
		}
		does("list memory", read(fmt.Sprintf("/proc/%d/maps", parent)))
		return all
	}
	before := can()
	if err := sandbox.Confine([]string{filepath.Join(at, "mine")}, []string{"/etc/hosts"}); err != nil {
		return err.Error()
	}
	if len(before) == 6 {
		before = []string{"all"}
	}
	after := can()
	if err := unix.PtraceSeize(parent); err == nil {
		after = append(after, "trace")
	}
	return "before: " + strings.Join(before, " ") + "; after: " + strings.Join(after, " ")
}

func read(path string) error {
	_, err := os.ReadFile(path)
	return err
}

// TestAnEnclosedProcessCanDoNothingButWhatItHasOpen, in any of its threads, as whatever user it runs.
func TestAnEnclosedProcessCanDoNothingButWhatItHasOpen(t *testing.T) {
	const told, where = "REDOUBT_TEST_ENCLOSE", "REDOUBT_TEST_ENCLOSE_AT"
	tries := map[string]func() error{
		"write":   func() error { return os.WriteFile(filepath.Join(os.Getenv(where), "x"), nil, 0o600) },
		"read":    func() error { _, err := os.ReadFile("/etc/passwd"); return err },
		"chown":   func() error { return unix.Fchown(int(os.Stdin.Fd()), 1, 1) },
		"execute": func() error { return exec.Command("/proc/self/exe", "-test.run", "none").Run() },
		"mount":   func() error { return unix.Mount("x", os.Getenv(where), "tmpfs", 0, "") },
		"unshare": func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
		"trace":   func() error { return unix.PtraceAttach(os.Getppid()) },
	}
	if what := os.Getenv(told); what != "" {
		threads := make(chan error, 8) // some that are there before
		for range cap(threads) {
			go func() { runtime.LockOSThread(); threads <- nil; select {} }()
		}
		for range cap(threads) {
			<-threads
		}
		if err := sandbox.Enclose([]string{os.Getenv(where)}, nil); err != nil {
			fmt.Println("enclose:", err)
			return
		}
		if err := tries[what](); err != nil {
			fmt.Println("refused")
			return
		}
		fmt.Println("done")
		return
	}
	if sandbox.Dynamic() {
		t.Skip("built with cgo, whose threads Go does not know of")
	}
	for what, want := range map[string]string{"write": "done", "read": "refused", "chown": "refused", "execute": "refused", "mount": "killed", "unshare": "killed", "trace": "killed"} {
		cmd := exec.Command("/proc/self/exe", "-test.run", "^TestAnEnclosedProcessCanDoNothingButWhatItHasOpen$")
		f, err := os.Create(filepath.Join(t.TempDir(), "open"))
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdin = f
		cmd.Env = append(os.Environ(), told+"="+what, where+"="+t.TempDir())
		out, err := cmd.CombinedOutput()
		got, _, _ := strings.Cut(string(out), "\n")
		if x, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && x.Signaled() && x.Signal() == syscall.SIGSYS {
			got = "killed"
		}
		if got != want {
			t.Errorf("%s: got %q and %v, want %q", what, got, err, want)
		}
		f.Close()
	}
}
