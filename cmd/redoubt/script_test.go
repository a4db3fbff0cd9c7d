package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"redoubt"
	"redoubt/node"
	"redoubt/workers"
)

func TestMain(m *testing.M) {
	workers.Enter() // a worker's process is this binary under another name, which no script calls
	testscript.Main(m, map[string]func(){"redoubt": main})
}

func TestCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Defer(func() { stopEverything(e.WorkDir) })
			examples, err := filepath.Abs("../../examples")
			if err != nil {
				return err
			}
			e.Setenv("EXAMPLES", examples)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"ready":   ready,
			"grab":    grab,
			"nothing": nothing,
			"signal":  signalNode,
			"port":    port,
			"appears": appears,
			"becomes": becomes,
			"damage":  damage,
			"build":   buildProgram,
		},
	})
}

// stopEverything ends nodes that a script left running.
func stopEverything(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "runtime.json" {
			return nil
		}
		st, err := node.FindState(filepath.Dir(filepath.Dir(path)))
		if err != nil {
			return nil
		}
		names, _ := st.Nodes()
		for _, name := range names {
			if r, err := st.Runtime(name); err == nil && r.PID != 0 {
				_ = syscall.Kill(r.PID, syscall.SIGTERM)
			}
		}
		return nil
	})
}

// build FILE GOOS GOARCH PACKAGE: builds a command of this repository.
func buildProgram(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: build FILE GOOS GOARCH PACKAGE")
	}
	c := exec.Command("go", "build", "-trimpath", "-o", ts.MkAbs(args[0]), args[3])
	c.Env = append(os.Environ(), "GOOS="+args[1], "GOARCH="+args[2], "CGO_ENABLED=0", "GOFLAGS=", "GODEBUG=")
	if out, err := c.CombinedOutput(); err != nil {
		ts.Fatalf("%v: %s", err, out)
	}
}

// exits CODE COMMAND...: the command ends with exactly that code. Its output can be compared as after exec.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if err != nil || neg {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("got exit code %d, want %d", got, want)
	}
}

// damage FILE OFFSET: the byte there becomes another one.
func damage(ts *testscript.TestScript, neg bool, args []string) {
	offset, err := strconv.Atoi(args[1])
	if err != nil || neg {
		ts.Fatalf("usage: damage FILE OFFSET")
	}
	path := ts.MkAbs(args[0])
	content, err := os.ReadFile(path)
	ts.Check(err)
	if offset >= len(content) {
		ts.Fatalf("%s has %d bytes alone", args[0], len(content))
	}
	content[offset] ^= 1
	ts.Check(os.WriteFile(path, content, 0o600))
}

// ready STATE NODE...: waits until the nodes are ready and up has let go of the state; ! ready until they are not.
func ready(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args[1:] {
		eventually(ts, name, func() bool {
			st, err := node.FindState(ts.MkAbs(args[0]))
			if err != nil {
				return false
			}
			r, err := st.Runtime(redoubt.NodeName(name))
			return err == nil && (r.State == node.Ready) != neg
		})
	}
	st, err := node.FindState(ts.MkAbs(args[0]))
	ts.Check(err)
	eventually(ts, "the lock of "+args[0], func() bool {
		release, err := st.Lock()
		if err == nil {
			release()
		}
		return err == nil
	})
}

// signal STATE NODE SIGNAL: sends a running node a signal.
func signalNode(ts *testscript.TestScript, _ bool, args []string) {
	st, err := node.FindState(ts.MkAbs(args[0]))
	ts.Check(err)
	r, err := st.Runtime(redoubt.NodeName(args[1]))
	ts.Check(err)
	ts.Check(syscall.Kill(r.PID, map[string]syscall.Signal{"KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM}[args[2]]))
	eventually(ts, args[1]+" after "+args[2], func() bool {
		now, err := st.Runtime(redoubt.NodeName(args[1]))
		ts.Check(err)
		return now.PID == 0
	})
}

// grab VARIABLE FILE PATTERN: the pattern's first group, in a file, becomes a variable.
func grab(ts *testscript.TestScript, _ bool, args []string) {
	m := regexp.MustCompile(args[2]).FindStringSubmatch(ts.ReadFile(args[1]))
	if len(m) != 2 {
		ts.Fatalf("%s: no match of %s", args[1], args[2])
	}
	ts.Setenv(args[0], m[1])
}

// port NAME: a loopback address that no socket has, of datagrams or connections, in a variable.
func port(ts *testscript.TestScript, _ bool, args []string) {
	for range 100 {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		ts.Check(err)
		address := c.LocalAddr().String()
		l, err := net.Listen("tcp", address)
		ts.Check(c.Close())
		if err == nil {
			ts.Check(l.Close())
			ts.Setenv(args[0], address)
			return
		}
	}
	ts.Fatalf("no port is free for UDP and TCP")
}

// becomes PATTERN COMMAND...: runs redoubt's COMMAND until it succeeds and its output matches.
func becomes(ts *testscript.TestScript, _ bool, args []string) {
	want := regexp.MustCompile("(?m)" + args[0])
	eventually(ts, args[0], func() bool {
		return ts.Exec("redoubt", args[1:]...) == nil && want.MatchString(ts.ReadFile("stdout"))
	})
}

// patience is how long another process may take for what a script waits for: a machine may be busy.
const patience = 2 * time.Minute

// eventually waits until another process has brought something about. There is nothing to wait on but time.
func eventually(ts *testscript.TestScript, what string, holds func() bool) {
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("%s: waited in vain", what)
		}
	}
}

// appears FILE: waits until another process has made it.
func appears(ts *testscript.TestScript, _ bool, args []string) {
	eventually(ts, args[0], func() bool {
		_, err := os.Stat(ts.MkAbs(args[0]))
		return err == nil
	})
}

// nothing DIR WORD...: no file under DIR holds any of the words.
func nothing(ts *testscript.TestScript, _ bool, args []string) {
	err := filepath.WalkDir(ts.MkAbs(args[0]), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, word := range args[1:] {
			if strings.Contains(string(data), word) {
				return fmt.Errorf("%s holds %q", path, word)
			}
		}
		return nil
	})
	ts.Check(err)
}
