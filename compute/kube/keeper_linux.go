package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// keep stands first in a pod, has a keeper work beside it, and takes in the orphans. With the keeper everything in the pod ends.
func keep() error {
	l, err := net.Listen("unix", keeperSocket)
	if err != nil {
		return err
	}
	socket, err := l.(*net.UnixListener).File()
	if err != nil {
		return err
	}
	c := exec.Command("/proc/self/exe", Command, verbKeeper)
	c.Env, c.Stderr, c.ExtraFiles = []string{}, os.Stderr, []*os.File{socket}
	asks := canAsk()
	if !asks {
		c.Env = []string{asksNot + "=1"}
		same := func(id int) []syscall.SysProcIDMap {
			return []syscall.SysProcIDMap{{ContainerID: id, HostID: id, Size: 1}}
		}
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET, UidMappings: same(os.Getuid()), GidMappings: same(os.Getgid())}
	}
	if err := c.Start(); err != nil {
		return notStarted(asks, err)
	}
	if err := secret(); err != nil { // not before: a parent that is secret cannot say who its child is in a namespace of users
		return err
	}
	for {
		var s unix.WaitStatus
		pid, err := unix.Wait4(-1, &s, 0, nil)
		if err == nil && pid == c.Process.Pid {
			return errors.New("the keeper has ended")
		}
		if err != nil && err != unix.EINTR {
			return os.NewSyscallError("wait4", err)
		}
	}
}

// notStarted tells a machine that makes no namespaces from one that had no room.
func notStarted(asks bool, err error) error {
	for _, no := range []error{unix.EPERM, unix.EACCES, unix.ENOSPC, unix.EUSERS, unix.EINVAL, unix.ENOSYS} {
		if !asks && errors.Is(err, no) {
			return &startError{exitNoWall, err}
		}
	}
	return &startError{exitNoKeeper, err}
}

// beginning is what a process is told that becomes the program.
type beginning struct {
	Task  task `json:"task"`
	Bound bool `json:"bound,omitempty"` // by a number of processes
	Asks  bool `json:"asks,omitempty"`  // for its sockets; the first message back has the descriptor
}

// launch starts the program behind its walls. fault: it cannot be begun, which is its own fault.
func (k *keeper) launch(t task, out *os.File) (_ *exec.Cmd, fault string, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, "", os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "start"), os.NewFile(uintptr(pair[1]), "start")
	defer ours.Close()
	c := exec.Command("/proc/self/exe", Command, verbStart)
	c.Env, c.Stdout, c.Stderr, c.ExtraFiles = []string{}, out, out, []*os.File{theirs}
	err = c.Start()
	theirs.Close()
	if err != nil {
		return nil, "", err
	}
	fault, err = behind(ours, beginning{Task: t, Bound: k.outside, Asks: k.asks})
	if fault != "" || err != nil {
		c.Process.Kill()
		c.Wait()
		return nil, fault, err
	}
	return c, "", nil
}

// behind tells a process what to become, and waits until it is that.
func behind(with *os.File, s beginning) (fault string, err error) {
	f := &frames{w: with, max: maxFault}
	b, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	if err := f.write(tellTask, b); err != nil {
		return "", err
	}
	head, rights := make([]byte, 5), make([]byte, unix.CmsgSpace(4))
	n, r, _, _, err := unix.Recvmsg(int(with.Fd()), head, rights, unix.MSG_WAITALL|unix.MSG_CMSG_CLOEXEC)
	if err != nil || n != len(head) {
		return "", errors.Join(errors.New("the program was not begun"), err)
	}
	if head[4] != sayBegan {
		f.r = io.MultiReader(bytes.NewReader(head), with)
		_, body, err := f.read()
		return "", errors.Join(err, errors.New(string(body)))
	}
	if s.Asks {
		m, err := unix.ParseSocketControlMessage(rights[:r])
		if err != nil || len(m) != 1 {
			return "", errors.Join(errFrame, err)
		}
		fds, err := unix.ParseUnixRights(&m[0])
		if err != nil || len(fds) != 1 {
			return "", errors.Join(errFrame, err)
		}
		go giveSockets(fds[0]) // ends with the program
	}
	f.r = with
	_, body, err := f.read()
	if err == io.EOF { // the socket has ended with the exec
		return "", nil
	}
	return string(body), err
}

// startProgram becomes the program that it is told, by the socket that it was started with.
func startProgram() error {
	const at = 3
	unix.CloseOnExec(at)
	with := os.NewFile(at, "start")
	f := &frames{r: with, w: with, max: maxTask}
	kind, body, err := f.read()
	var s beginning
	if err != nil || kind != tellTask || json.Unmarshal(body, &s) != nil || len(s.Task.Args) == 0 {
		return errors.Join(errFrame, err)
	}
	var rights []byte
	if s.Bound {
		err = bound(s.Task.Processes)
	}
	if err == nil && s.Asks {
		var listener int
		listener, err = askingWall()
		rights = unix.UnixRights(listener)
	}
	if err != nil {
		return f.write(sayFault, []byte(err.Error()))
	}
	if err := unix.Sendmsg(at, []byte{0, 0, 0, 1, sayBegan}, rights, nil, 0); err != nil {
		return os.NewSyscallError("sendmsg", err)
	}
	args, env := texts(s.Task.Args), texts(s.Task.Env)
	path, err := look(args[0], s.Task.Dir, env)
	if err == nil {
		err = os.Chdir(s.Task.Dir)
	}
	if err == nil {
		err = os.NewSyscallError("exec", syscall.Exec(path, args, env))
	}
	return f.write(sayFault, []byte(err.Error()))
}
