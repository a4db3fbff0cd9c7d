// Package tpmtest runs an emulated TPM 2.0 (swtpm, of Debian) for tests. Each is a process of its own, with its state in a
// folder of the test's, and hears on a Unix socket there and nowhere else.
package tpmtest

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
)

// Need skips a test where there is no swtpm; with CLIENTS_REQUIRE=1, as CI runs, it fails instead.
func Need(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("swtpm"); err == nil {
		return
	}
	const why = "no swtpm, the emulated TPM: scripts/deps installs it"
	if os.Getenv("CLIENTS_REQUIRE") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// TPM is an emulated TPM, running.
type TPM struct {
	Path string // of its socket
	dir  string
	cmd  *exec.Cmd
	out  bytes.Buffer
}

// Start starts a fresh TPM, which ends with the test. Its socket lies in a folder with a short name: such paths have 107 bytes at most.
func Start(t testing.TB) *TPM {
	t.Helper()
	Need(t)
	dir, err := os.MkdirTemp("", "tpm")
	if err != nil {
		t.Fatal(err)
	}
	m := &TPM{Path: filepath.Join(dir, "sock"), dir: dir}
	t.Cleanup(func() {
		m.Kill()
		if t.Failed() {
			t.Logf("swtpm said: %s", m.out.String())
		}
		os.RemoveAll(dir)
	})
	if err := m.On(); err != nil {
		t.Fatal(err)
	}
	return m
}

// On gives a TPM that is off its power, as a machine that is switched on does: its PCRs are empty.
func (m *TPM) On() error {
	os.Remove(m.Path) // of one that was killed
	m.cmd = exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+m.dir, "--server", "type=unixio,path="+m.Path, "--flags", "not-need-init,startup-clear")
	m.cmd.Stdout, m.cmd.Stderr = &m.out, &m.out
	if err := m.cmd.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) { // another process: there is nothing to wait on
		c, err := net.Dial("unix", m.Path)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return errors.Join(err, errors.New(m.out.String()))
		}
	}
}

// Off switches the machine off in order, as its firmware does.
func (m *TPM) Off() error {
	err := m.Do(func(t transport.TPM) error {
		_, err := tpm2.Shutdown{ShutdownType: tpm2.TPMSUClear}.Execute(t)
		return err
	})
	m.Kill()
	return err
}

// Kill pulls its power.
func (m *TPM) Kill() {
	if m.cmd == nil {
		return
	}
	m.cmd.Process.Kill()
	m.cmd.Wait() // that it was killed is no news
	m.cmd = nil
}

// Extend measures something into a PCR, as firmware does of what it starts.
func (m *TPM) Extend(pcr uint, what byte) error {
	return m.Do(func(t transport.TPM) error {
		_, err := tpm2.PCRExtend{PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
			Digests: tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: bytes.Repeat([]byte{what}, 32)}}}}.Execute(t)
		return err
	})
}

// Do has work done with it directly.
func (m *TPM) Do(work func(transport.TPM) error) error {
	t, err := linuxudstpm.Open(m.Path)
	if err != nil {
		return err
	}
	return errors.Join(work(t), t.Close())
}
