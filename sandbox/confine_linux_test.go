package sandbox_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
