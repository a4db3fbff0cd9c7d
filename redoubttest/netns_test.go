package redoubttest

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"redoubt/estate"
)

// alone is a machine as far as networks go: a namespace with one address, and no way to any other.
type alone struct {
	t       *testing.T
	ns      string
	address string
	*running
	env []string
}

func newAlone(t *testing.T, n int) *alone {
	t.Helper()
	a := &alone{t: t, ns: fmt.Sprintf("redoubt-test-%d-%d", os.Getpid(), n), address: fmt.Sprintf("10.213.%d.1", n),
		running: &running{t: t, exe: redoubtBinary(t), state: filepath.Join(t.TempDir(), "state")}}
	if out, err := exec.Command("ip", "netns", "add", a.ns).CombinedOutput(); err != nil {
		t.Skipf("network namespaces cannot be made here: %s", out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", a.ns).CombinedOutput(); err != nil {
			t.Errorf("ip netns del: %s", out)
		}
	})
	for _, args := range [][]string{{"link", "set", "lo", "up"}, {"addr", "add", a.address + "/32", "dev", "lo"}} {
		if out, err := exec.Command("ip", append([]string{"-n", a.ns}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %q: %s", args, out)
		}
	}
	return a
}

// here is a command on this machine.
func (a *alone) here(args ...string) *exec.Cmd {
	c := exec.Command("ip", append([]string{"netns", "exec", a.ns, a.exe}, args...)...)
	c.Env = append(append(os.Environ(), "REDOUBT_STATE="+a.state), a.env...)
	return c
}

// ask runs a command on this machine to its end.
func (a *alone) ask(args ...string) said {
	a.t.Helper()
	var out, talk bytes.Buffer
	c := a.here(args...)
	c.Stdout, c.Stderr = &out, &talk
	var exit *exec.ExitError
	if err := c.Run(); err != nil && !errors.As(err, &exit) {
		a.t.Fatalf("%q: %v", args, err)
	}
	return said{out.String(), talk.String(), c.ProcessState.ExitCode()}
}

// serve runs a node on this machine until the function that it gives is called.
func (a *alone) serve(args ...string) (stop func()) {
	a.t.Helper()
	var talk bytes.Buffer
	c := a.here(append([]string{"serve"}, args...)...)
	c.Stderr = &talk
	if err := c.Start(); err != nil {
		a.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = c.Wait(); close(ended) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		c.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			c.Process.Kill()
			<-ended
		}
		if code := c.ProcessState.ExitCode(); code != 0 {
			a.t.Errorf("serve %q: exit %d: %s", args, code, &talk)
		}
	}
	a.t.Cleanup(stop)
	until(a.t, "the node is ready", func() bool {
		select {
		case <-ended:
			stopped = true
			a.t.Fatalf("serve %q ended: %s", args, &talk)
		default:
		}
		s := a.try("status", "--json")
		return s.code == 0 && strings.Contains(s.out, `"ready"`)
	})
	return stop
}

// dial opens a connection from this machine. The thread that was moved into its namespace is never used again.
func (a *alone) dial(address string) error {
	failed := make(chan error)
	go func() {
		runtime.LockOSThread()
		ns, err := os.Open("/run/netns/" + a.ns)
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			ns.Close()
		}
		if err != nil {
			failed <- fmt.Errorf("setns: %w", err)
			return
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			host, port, _ := net.SplitHostPort(address)
			to := unix.SockaddrInet4{Addr: [4]byte(net.ParseIP(host).To4())}
			fmt.Sscan(port, &to.Port)
			err = unix.Connect(fd, &to)
			unix.Close(fd)
		}
		failed <- err
	}()
	return <-failed
}

// TestEnclavesOnMachinesThatCannotReachOneAnother: three levels, three machines, three states, one signed estate that is no exercise.
func TestEnclavesOnMachinesThatCannotReachOneAnother(t *testing.T) {
	mustRoot(t, "network namespaces")
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	desk := &running{t: t, exe: redoubtBinary(t), state: filepath.Join(dir, "none")}
	path := func(name string) string { return filepath.Join(dir, name) }

	// The estate: everybody with a key of her own, two officers' signatures.
	text := regexp.MustCompile(`(?s)  - name: unclass-secret.*?\npeople:`).ReplaceAllString(string(estate.ExampleText), "people:") // without its guards
	text = strings.Replace(text, "exercise: true", "serial: 1", 1)
	for _, m := range regexp.MustCompile(`(?m)^  - name: (\S+).*\n    clearance`).FindAllStringSubmatch(text, -1) {
		public := strings.TrimSpace(desk.must("person", "key", path(m[1]+".key")))
		if fields := strings.Fields(public); len(fields) > 0 {
			public = fields[len(fields)-1]
		}
		text = strings.Replace(text, m[0], strings.TrimSuffix(m[0], "    clearance")+"    public_key: "+public+"\n    clearance", 1)
	}
	machines := map[string]*alone{}
	levels := []string{"unclass", "secret", "topsecret"}
	for i, name := range levels {
		machines[name] = newAlone(t, i+1)
		text = strings.Replace(text, "  - name: "+name+"\n", fmt.Sprintf("  - name: %s\n    s3: {listen: \"%s:8443\"}\n    api: {listen: \"%s:8444\"}\n", name, machines[name].address, machines[name].address), 1)
	}
	file := path("estate.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pass", "wrong"} {
		if err := os.WriteFile(path(name), []byte("a long enough passphrase of "+name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	machines["unclass"].env = []string{"REDOUBT_PASSPHRASE_FILE=" + path("pass")}
	machines["topsecret"].env = machines["unclass"].env
	args := func(name string) []string {
		a := []string{name, "--estate", file, "--state", machines[name].state}
		if name == "secret" {
			a = append(a, "--key-file", path("secret.keyring-key"))
		}
		return a
	}
	for _, signer := range []string{"", "officer", "officer-2"} {
		if signer != "" {
			if s := desk.try("estate", "sign", file, "--as", signer, "--key", path(signer+".key")); s.code != 0 {
				t.Fatalf("sign: %s", s.err)
			}
		}
		if signer != "officer-2" {
			if s := machines["unclass"].ask(append([]string{"serve"}, args("unclass")...)...); s.code != 3 || !strings.Contains(s.err, "sign") {
				t.Fatalf("with the signature of %q alone: exit %d: %s", signer, s.code, s.err)
			}
		}
	}

	stop := map[string]func(){}
	for _, name := range levels {
		stop[name] = machines[name].serve(args(name)...)
	}
	people := map[string]string{"unclass": "u-analyst", "secret": "s-analyst", "topsecret": "ts-analyst"}
	as := func(name string) []string {
		return []string{"--as", people[name] + "@" + name, "--key", path(people[name] + ".key")}
	}
	for _, name := range levels {
		content := path("of-" + name)
		if err := os.WriteFile(content, []byte("kept at "+name), 0o600); err != nil {
			t.Fatal(err)
		}
		m := machines[name]
		if s := m.ask(append([]string{"put", content, "s3://reports/mine"}, as(name)...)...); s.code != 0 {
			t.Fatalf("put at %s: exit %d: %s", name, s.code, s.err)
		}
		if s := m.ask(append([]string{"get", "s3://reports/mine", "-"}, as(name)...)...); s.code != 0 || s.out != "kept at "+name {
			t.Errorf("get at %s: exit %d: %s%s", name, s.code, s.out, s.err)
		}
		if s := m.ask("get", "s3://reports/mine", "-", "--as", people[name]+"@"+name); s.code == 0 {
			t.Errorf("%s keeps a subject's key: it is no exercise", name)
		}
		for _, other := range levels {
			for _, port := range []string{":8443", ":8444"} {
				err := m.dial(machines[other].address + port)
				switch {
				case other == name && err != nil:
					t.Errorf("%s does not reach itself: %v", name, err)
				case other != name && !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EHOSTUNREACH):
					t.Errorf("from %s to %s: got %v, want unreachable", name, other, err)
				}
			}
		}
	}
	if c, err := tls.DialWithDialer(&net.Dialer{Timeout: 2 * time.Second}, "tcp", machines["secret"].address+":8443", &tls.Config{RootCAs: machines["secret"].roots("secret")}); err == nil {
		c.Close()
		t.Error("an enclave is reached from outside its namespace") // whoever else may answer there has not its certificate
	}

	// Each stops and starts alone, by the estate that it keeps; nothing else opens it.
	for _, name := range levels {
		stop[name]()
	}
	m := machines["unclass"]
	m.env = []string{"REDOUBT_PASSPHRASE_FILE=" + path("wrong")}
	if s := m.ask("serve", "unclass"); s.code != 3 {
		t.Errorf("with a wrong passphrase: exit %d: %s", s.code, s.err)
	}
	m.env = []string{"REDOUBT_PASSPHRASE_FILE=" + path("pass")}
	m.serve("unclass")
	if s := m.ask(append([]string{"get", "s3://reports/mine", "-"}, as("unclass")...)...); s.code != 0 || s.out != "kept at unclass" {
		t.Errorf("after a restart: exit %d: %s%s", s.code, s.out, s.err)
	}
}
