package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// zeros are bytes without end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// reaches is what tries how far a program gets: over a network, and by calls of the kernel's.
func reaches() map[string]func(string) error {
	return map[string]func(string) error{
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
	}
}
