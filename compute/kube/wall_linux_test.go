package kube

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// walled is the first argument of this binary where it is to try the wall that it was started behind.
const walled = "try-the-wall"

func tryWall() {
	if len(os.Args) < 2 || os.Args[1] != walled {
		return
	}
	for name, call := range map[string]func() (int, error){
		"udp":    func() (int, error) { return unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0) },
		"raw":    func() (int, error) { return unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP) },
		"mptcp":  func() (int, error) { return unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP) },
		"link":   func() (int, error) { return unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, 0) },
		"packet": func() (int, error) { return unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0) },
		"uring":  func() (int, error) { n, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0); return int(n), e },
		"pair":   func() (int, error) { p, err := unix.Socketpair(unix.AF_INET, unix.SOCK_STREAM, 0); return p[0], err },
		"tipc":   func() (int, error) { p, err := unix.Socketpair(unix.AF_TIPC, unix.SOCK_STREAM, 0); return p[0], err },
		"files":  func() (int, error) { p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); return p[0], err },
		"tcp":    func() (int, error) { return unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0) },
		"tcp6":   func() (int, error) { return unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0) },
		"unix":   func() (int, error) { return unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0) },
	} {
		fd, err := call()
		if err != nil {
			fmt.Println(name, err)
			continue
		}
		device, _ := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
		fmt.Println(name, "has", device)
	}
	l, err := net.Listen("tcp", ":0")
	if err == nil {
		_, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", l.Addr().(*net.TCPAddr).Port))
	}
	fmt.Println("itself", err)
	os.Exit(0)
}

// behindWall has a keeper run a program, and gives what it said and how it ended.
func behindWall(t *testing.T, asks bool, args ...string) (string, ending) {
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(alone)
	k.asks = asks
	c, fault, err := k.launch(task{Args: raw(args), Dir: "/"}, in)
	in.Close()
	if err != nil || fault != "" {
		t.Fatalf("%s %v", fault, err)
	}
	k.follow(c, out, 0)
	return string(k.words.take()), k.end
}

// Every socket that a service's program has is of TCP and of the loopback device.
func TestAServicesSocketsAreOfLoopbackAlone(t *testing.T) {
	said, end := behindWall(t, true, os.Args[0], walled)
	for name, want := range map[string]string{"udp": "permission denied", "raw": "permission denied", "mptcp": "permission denied", "link": "permission denied", "packet": "permission denied",
		"uring": "permission denied", "pair": "permission denied", "tipc": "permission denied", "files": "has ", "tcp": "has lo", "tcp6": "has lo", "unix": "has ", "itself": "<nil>"} {
		if !strings.Contains("\n"+said, "\n"+name+" "+want+"\n") && !(name == "tcp6" && strings.Contains(said, "tcp6 address family")) {
			t.Errorf("%s: want %q", name, want)
		}
	}
	if end.Code != 0 || t.Failed() {
		t.Errorf("it ended with %+v and said\n%s", end, said)
	}
}

// Of a job's program none is of any network. What it is told is the same as what wall does.
func TestAJobsProgramHasNoSockets(t *testing.T) {
	c := exec.Command(os.Args[0], "-test.run=^TestBehindTheWallOfAJob$")
	c.Env = append(os.Environ(), walled+"=1")
	said, err := c.CombinedOutput()
	for _, name := range []string{"udp", "tcp", "tcp6", "raw", "link", "packet", "uring", "pair", "tipc"} {
		if !bytes.Contains(said, []byte(name+" permission denied\n")) {
			t.Errorf("%s is not refused", name)
		}
	}
	if !bytes.Contains(said, []byte("unix has \n")) || !bytes.Contains(said, []byte("files has \n")) || t.Failed() {
		t.Errorf("%v, %s", err, said)
	}
}

// TestBehindTheWallOfAJob is the process that TestAJobsProgramHasNoSockets starts.
func TestBehindTheWallOfAJob(t *testing.T) {
	if os.Getenv(walled) == "" {
		t.Skip("not started by a test")
	}
	if err := wall(); err != nil {
		t.Fatal(err)
	}
	os.Args = []string{os.Args[0], walled}
	tryWall()
}

// Linux from 5.0 to 5.13 asks somebody for a socket, and takes none from him in one step: there no service is begun in the way that would need it.
func TestAKernelThatTakesNoDescriptorIsNotAsked(t *testing.T) {
	if os.Getenv(walled) == "" {
		if !canAsk() {
			t.Skip("this kernel has nothing of it")
		}
		c := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		c.Env = append(os.Environ(), walled+"=1")
		if said, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v, %s", err, said)
		}
		return
	}
	if _, err := loadFilter([]bpf.Instruction{
		bpf.LoadAbsolute{Off: callAt, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_IOCTL, SkipTrue: 3},
		bpf.LoadAbsolute{Off: familyAt + 8, Size: 4}, // the second argument
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SECCOMP_IOCTL_NOTIF_ADDFD, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EINVAL)},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW},
	}, unix.SECCOMP_FILTER_FLAG_TSYNC); err != nil {
		t.Fatal(err)
	}
	if canAsk() {
		t.Error("it is taken for one that can")
	}
}

// A program of 32 bits calls the kernel by other numbers, which the filter does not tell apart: it is ended.
func TestAProgramOfAnotherProcessorIsEnded(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the processor has one way to call its kernel")
	}
	program := t.TempDir() + "/program"
	if err := os.WriteFile(program, exit32, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(program).Run(); err != nil {
		t.Skip("this kernel runs none of 32 bits")
	}
	if _, end := behindWall(t, true, program); end.Code == 0 || !strings.Contains(end.Signal, "bad system call") {
		t.Errorf("it ended with %+v", end)
	}
}

// exit32 is a program for Linux on i386 that ends well: ELF's header, one segment, and mov eax, 1; xor ebx, ebx; int 0x80.
var exit32 = slices.Concat([]byte("\x7fELF\x01\x01\x01"), make([]byte, 9), words32(3<<16|2, 1, 0x8048054, 52, 0, 0, 32<<16|52, 1, 0),
	words32(1, 0, 0x8048000, 0x8048000, 93, 93, 5, 0x1000), []byte{0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80})

func words32(all ...uint32) (b []byte) {
	for _, w := range all {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// Of what cannot be read the kernel shows no other process the memory.
func TestTheBinaryInAPodCannotBeRead(t *testing.T) {
	program := t.TempDir() + "/redoubt"
	if err := copySelf(program); err != nil {
		t.Fatal(err)
	}
	if s, err := os.Stat(program); err != nil || s.Mode().Perm() != 0o111 {
		t.Errorf("it is %v, %v", s, err)
	}
}
