package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// zeros are bytes without end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// more is what takes processes, links and devices.
func more() map[string]func(string) error {
	return map[string]func(string) error{
		"symlink": func(at string) error { return os.Symlink("/etc/passwd", at) },
		"fifo":    func(at string) error { return syscall.Mkfifo(at, 0o644) },
		"device":  func(at string) error { fmt.Println(syscall.Mknod(at, syscall.S_IFCHR|0o666, 1<<8|3)); return nil },
		"socket":  func(at string) error { _, err := net.Listen("unix", at); fmt.Println(err); return nil },
		// nameless makes a file whose name is no text.
		"nameless": func(dir string) error { return os.WriteFile(dir+"/\xff\xfe", []byte("x"), 0o644) },
		"setuid":   func(at string) error { return os.Chmod(at, 0o4755|os.ModeSetuid) },
		"user":     func(string) error { fmt.Println(os.Getuid(), os.Getgid()); return nil },
		"pwd":      func(string) error { d, err := os.Getwd(); fmt.Println(d); return err },
		"host":     func(string) error { h, err := os.Hostname(); fmt.Println(h); return err },
		"dial": func(to string) error {
			c, err := net.DialTimeout("tcp", to, 2*time.Second)
			if err == nil {
				c.Close()
				return fmt.Errorf("%s answered", to)
			}
			fmt.Println("refused")
			return nil
		},
		// talk says something to "HOST:PORT=WORDS", and tells what is answered, to the end.
		"talk": func(s string) error {
			to, words, _ := strings.Cut(s, "=")
			c, err := net.Dial("tcp", to)
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err := io.WriteString(c, words); err != nil {
				return err
			}
			if err := c.(*net.TCPConn).CloseWrite(); err != nil {
				return err
			}
			_, err = io.Copy(os.Stdout, c)
			return err
		},
		// pour sends "HOST:PORT=BYTES", and reads as many back.
		"pour": func(s string) error {
			to, n := number(s)
			c, err := net.Dial("tcp", to)
			if err != nil {
				return err
			}
			defer c.Close()
			sent := make(chan error, 1)
			go func() {
				_, err := io.CopyN(c, zeros{}, n)
				sent <- errors.Join(err, c.(*net.TCPConn).CloseWrite())
			}()
			got, err := io.Copy(io.Discard, c)
			fmt.Println("took", got)
			return errors.Join(err, <-sent)
		},
		// hears connects to an address, says one byte, and tells how the answer ends.
		"hears": func(to string) error {
			c, err := net.Dial("tcp", to)
			if err != nil {
				return err
			}
			if _, err := c.Write([]byte("x")); err != nil {
				return err
			}
			_, err = io.Copy(os.Stdout, c)
			fmt.Println("ended", errors.Is(err, syscall.ECONNRESET))
			return nil
		},
		// forged tells what comes of sockets that write packets of their own, and of datagrams to an address.
		"forged": func(to string) error {
			for _, k := range [][3]int{{syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_RAW}, {syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_ICMP}, {syscall.AF_PACKET, syscall.SOCK_RAW, 0x0300}} {
				_, err := syscall.Socket(k[0], k[1], k[2])
				fmt.Println(err != nil)
			}
			c, err := net.Dial("udp", to)
			if err == nil {
				c.SetDeadline(time.Now().Add(300 * time.Millisecond))
				if _, err = c.Write([]byte("question")); err == nil {
					_, err = c.Read(make([]byte, 512))
				}
			}
			fmt.Println(err != nil)
			return nil
		},
		// shut waits until an address does not answer, half a minute at most.
		"shut": func(to string) error {
			for began := time.Now(); time.Since(began) < 30*time.Second; time.Sleep(100 * time.Millisecond) {
				c, err := net.DialTimeout("tcp", to, 2*time.Second)
				if err != nil {
					return nil
				}
				c.Close()
			}
			return fmt.Errorf("%s answers", to)
		},
		// powers tries what a program with more rights than it should have can do, and tells what it sees of others.
		"powers": func(string) error {
			zero := []byte{0}
			at := uintptr(unsafe.Pointer(&zero[0]))
			for _, c := range []struct {
				name string
				call uintptr
				a, b uintptr
			}{{"unshare", syscall.SYS_UNSHARE, syscall.CLONE_NEWUSER, 0}, {"mount", syscall.SYS_MOUNT, at, at}, {"ptrace", syscall.SYS_PTRACE, syscall.PTRACE_ATTACH, 1}, {"keyctl", syscall.SYS_KEYCTL, 0, 0}} {
				if _, _, err := syscall.RawSyscall6(c.call, c.a, c.b, at, 0, 0, 0); err != 0 {
					fmt.Println(c.name, err)
				} else {
					fmt.Println(c.name, "done")
				}
			}
			all, err := os.ReadDir("/proc")
			n := 0
			for _, d := range all {
				if d.Name()[0] >= '0' && d.Name()[0] <= '9' {
					n++
				}
			}
			fmt.Println("processes", n)
			status, _ := os.ReadFile("/proc/self/status")
			for line := range strings.Lines(string(status)) {
				if of, ok := strings.CutPrefix(line, "CapEff:"); ok {
					v, _ := strconv.ParseUint(strings.TrimSpace(of), 16, 64)
					fmt.Println("capabilities", v)
				}
			}
			return err
		},
		"net": func(string) error {
			all, err := net.Interfaces()
			for _, i := range all {
				if i.Flags&net.FlagLoopback == 0 {
					fmt.Println(i.Name)
				}
			}
			return err
		},
		"serve": serve,
		// leave starts another that writes on, and does not wait for it.
		"leave": func(at string) error {
			c := exec.Command("/proc/self/exe", "deaf", at)
			return c.Start()
		},
		"deaf": func(at string) error {
			signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
			for i := 0; ; i++ {
				if err := os.WriteFile(at, []byte(fmt.Sprint(i)), 0o644); err != nil {
					return err
				}
			}
		},
		// bomb starts two of itself, each of which does, and waits.
		"bomb": func(string) error {
			for range 2 {
				if err := exec.Command("/proc/self/exe", "bomb", "").Start(); err != nil {
					return fmt.Errorf("refused: %w", err)
				}
			}
			for {
				time.Sleep(time.Hour)
			}
		},
		"mmap": func(name string) error {
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			b, err := syscall.Mmap(int(f.Fd()), 0, 10, syscall.PROT_READ, syscall.MAP_PRIVATE)
			if err != nil {
				return err
			}
			_, err = fmt.Printf("%s\n", b)
			return err
		},
		// unlinked uses a file that has no name any more.
		"unlinked": func(at string) error {
			f, err := os.Create(at)
			if err != nil {
				return err
			}
			if err := os.Remove(at); err != nil {
				return err
			}
			if _, err := f.WriteString("still there"); err != nil {
				return err
			}
			if err := f.Truncate(5); err != nil {
				return err
			}
			i, err := f.Stat()
			if err != nil {
				return err
			}
			b := make([]byte, 20)
			n, _ := f.ReadAt(b, 0)
			fmt.Println(i.Size(), string(b[:n]))
			return f.Close()
		},
		// buffers fills sockets, whose content is the kernel's memory, until it may not.
		"buffers": func(string) error {
			b := make([]byte, 64<<10)
			for {
				s, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK, 0)
				if err != nil {
					return err
				}
				for err == nil {
					_, err = syscall.Write(s[0], b)
				}
			}
		},
		"hardlink": func(s string) error { return os.Link(s, s+".link") },
	}
}
