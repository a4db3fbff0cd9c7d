package storetest

import (
	"bytes"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// InOwnMounts runs a test that mounts file systems again, as a process with a mount namespace of its own. A process that begins
// elsewhere meanwhile, in a namespace with a copy of all mounts, would keep a file system that was cut off or unmounted alive, and
// its loop device: the next mount would find that one, or none.
func InOwnMounts(t *testing.T, test func(*testing.T)) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts a file system")
	}
	if os.Getenv("OWN_MOUNTS") == t.Name() {
		test(t)
		return
	}
	again := exec.Command(os.Args[0], append(os.Args[1:], "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1", "-test.testlogfile=")...)
	again.Env = append(os.Environ(), "OWN_MOUNTS="+t.Name())
	again.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // private ones: Go sees to that
	out, err := again.CombinedOutput()
	switch {
	case bytes.Contains(out, []byte("--- SKIP: "+t.Name()+" ")):
		t.Skipf("%s", out)
	case err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name()+" ")):
		t.Errorf("%v\n%s", err, out)
	default:
		t.Logf("%s", out)
	}
}
