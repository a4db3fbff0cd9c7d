package kube

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What stands beside a program in its pod is of the same user, and has more than it: inputs, the key, sockets without a wall. The kernel gives its memory
// to nobody, which shows in whose its files in /proc are.
func TestWhatStandsBesideAProgramIsSecret(t *testing.T) {
	user := os.Getuid()
	if user == 0 {
		user = 65534
	}
	for _, verb := range []string{verbHold, verbTake, verbRun, verbKeep, verbKeeper, verbJoin} {
		t.Run(verb, func(t *testing.T) {
			socket, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
			if err != nil {
				t.Fatal(err)
			}
			defer socket.Close()
			held, err := socket.(*net.UnixListener).File()
			if err != nil {
				t.Fatal(err)
			}
			self, err := os.Open("/proc/self/exe")
			if err != nil {
				t.Fatal(err)
			}
			says, said, err := os.Pipe() // nobody takes what it says, so that it waits
			if err != nil {
				t.Fatal(err)
			}
			fills, err := unix.FcntlInt(said.Fd(), unix.F_SETPIPE_SZ, os.Getpagesize())
			if err == nil {
				_, err = said.Write(make([]byte, fills))
			}
			if err != nil {
				t.Fatal(err)
			}
			c := exec.Command("/proc/self/fd/4", Command, verb)
			c.ExtraFiles, c.Stdout, c.SysProcAttr = []*os.File{held, self}, said, &syscall.SysProcAttr{}
			if _, err := c.StdinPipe(); err != nil {
				t.Fatal(err)
			}
			switch {
			case verb == verbJoin: // with whom it joins
				l, err := net.Listen("unix", keeperSocket)
				for errors.Is(err, unix.EADDRINUSE) { // by another run of this test
					time.Sleep(time.Millisecond)
					l, err = net.Listen("unix", keeperSocket)
				}
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
			case os.Getuid() == 0:
				c.SysProcAttr.Cloneflags = unix.CLONE_NEWPID | unix.CLONE_NEWNET // with it all that it starts ends
			default:
				same := func(id int) []syscall.SysProcIDMap {
					return []syscall.SysProcIDMap{{ContainerID: id, HostID: id, Size: 1}}
				}
				c.SysProcAttr.Cloneflags, c.SysProcAttr.UidMappings, c.SysProcAttr.GidMappings = unix.CLONE_NEWUSER|unix.CLONE_NEWPID|unix.CLONE_NEWNET, same(user), same(os.Getgid())
			}
			if os.Getuid() == 0 {
				c.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(user), Gid: uint32(user)}
			}
			if err := c.Start(); errors.Is(err, unix.EPERM) && os.Getuid() != 0 {
				t.Skip("no namespaces may be made here")
			} else if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- c.Wait() }()
			defer func() {
				c.Process.Kill()
				<-ended
				errors.Join(says.Close(), said.Close(), held.Close(), self.Close())
			}()
			for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
				s, err := os.Stat("/proc/" + strconv.Itoa(c.Process.Pid) + "/environ")
				if err == nil && int(s.Sys().(*syscall.Stat_t).Uid) != user {
					break
				}
				select {
				case err := <-ended:
					ended <- err
					t.Fatalf("it has ended: %v", err)
				default:
				}
				if time.Now().After(deadline) {
					t.Fatal("its memory is open to all of its user")
				}
			}
			if line, err := os.ReadFile("/proc/" + strconv.Itoa(c.Process.Pid) + "/cmdline"); err != nil || len(line) == 0 { // as of one that has ended
				t.Errorf("it has no memory: %v", err)
			}
		})
	}
}
