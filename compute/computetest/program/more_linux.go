package main

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// more is what takes processes, links and devices.
func more() map[string]func(string) error {
	all := map[string]func(string) error{
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
		"net": func(string) error {
			all, err := net.Interfaces()
			for _, i := range all {
				if i.Flags&net.FlagLoopback == 0 {
					fmt.Println(i.Name)
				}
			}
			return err
		},
		"families": families,
		"sysinfo":  func(string) error { fmt.Println(syscall.Sysinfo(new(syscall.Sysinfo_t))); return nil },
		// inode tells which device a file lies on, and which it is.
		"inode": func(name string) error {
			var s syscall.Stat_t
			err := syscall.Stat(name, &s)
			fmt.Println(s.Dev, s.Rdev)
			return err
		},
		"serve":  serve,
		"share":  share,
		"mapped": mapped,
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
	maps.Copy(all, reaches())
	return all
}

// families tells which families of sockets are not refused, by number, with and without bits that the kernel does not look at.
func families(string) error {
	for name, call := range map[string]uintptr{"socket": syscall.SYS_SOCKET, "socketpair": syscall.SYS_SOCKETPAIR} {
		for f := range uintptr(64) {
			for _, more := range []uintptr{0, 1 << 32} {
				var pair [2]int32
				fd, _, errno := syscall.RawSyscall6(call, f|more, syscall.SOCK_DGRAM, 0, uintptr(unsafe.Pointer(&pair)), 0, 0)
				if errno == syscall.EPERM {
					continue
				}
				fmt.Println(name, f, more)
				if errno == 0 && call == syscall.SYS_SOCKET {
					syscall.Close(int(fd))
				}
			}
		}
	}
	return nil
}

// share uses a number of bytes of memory that processes may share, until it ends.
func share(bytes string) error {
	n, err := strconv.Atoi(bytes)
	if err != nil {
		return err
	}
	b, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED|syscall.MAP_ANON)
	if err != nil {
		return err
	}
	for i := 0; i < n; i += 4096 {
		b[i] = 1
	}
	fmt.Println("had it all")
	return nil
}

// mapped maps a whole file, has all of its pages, until it ends.
func mapped(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	i, err := f.Stat()
	if err != nil {
		return err
	}
	b, err := syscall.Mmap(int(f.Fd()), 0, int(i.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	sum := 0
	for i := 0; i < len(b); i += 4096 {
		sum += int(b[i])
	}
	fmt.Println("mapped", len(b), sum)
	return nil
}
