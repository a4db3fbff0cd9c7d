package node

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestANodeThatStartsAgainIsNotTakenForTheOneThatWasKilled(t *testing.T) {
	st := State{dir: t.TempDir()}
	dir := st.NodeDir("secret")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		pid  int
		want string
	}{{os.Getpid(), Ready}, {gone.Process.Pid, Starting}} {
		if err := writeJSON(runtimeFile(dir), Runtime{PID: c.pid, State: Ready, Token: "secret"}); err != nil {
			t.Fatal(err)
		}
		release, err := lockFile(filepath.Join(dir, "lock"), "", "")
		if err != nil {
			t.Fatal(err)
		}
		r, err := st.Runtime("secret")
		if err != nil || r.State != c.want || c.want == Starting && (r.PID != 0 || r.Token != "") {
			t.Errorf("with the lock held and a process that is there: %v, it is %+v, %v", c.pid == os.Getpid(), r, err)
		}
		release()
		if r, err := st.Runtime("secret"); err != nil || r.State != Stopped {
			t.Errorf("without the lock it is %+v, %v", r, err)
		}
	}
}
