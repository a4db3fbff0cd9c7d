// Command program is what the contract suite of package computetest has drivers run. It does what its arguments say, one "VERB ARG" pair of
// them after the other, and ends with the exit code of "exit CODE", or 1 where something did not go well.
package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

func main() {
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "args" {
		fmt.Printf("%q\n", args[1:])
		return
	}
	maps.Copy(verbs, more())
	for ; len(args) >= 2; args = args[2:] {
		do, ok := verbs[args[0]]
		if !ok {
			fmt.Fprintln(os.Stderr, "no such verb:", args[0])
			os.Exit(2)
		}
		if err := do(args[1]); err != nil {
			fmt.Fprintln(os.Stderr, args[0]+":", err)
			os.Exit(1)
		}
	}
}

// verbs are what every target has.
var verbs = map[string]func(string) error{
	"exit": func(code string) error {
		n, err := strconv.Atoi(code)
		if err == nil {
			os.Exit(n)
		}
		return err
	},
	"say":   func(s string) error { _, err := fmt.Println(s); return err },
	"warn":  func(s string) error { _, err := fmt.Fprintln(os.Stderr, s); return err },
	"env":   func(name string) error { _, err := fmt.Printf("%s=%s\n", name, os.Getenv(name)); return err },
	"cat":   cat,
	"kind":  kind,
	"sum":   sum,
	"read":  read,
	"range": readRange,
	"list":  list,
	"stat":  stat,
	"write": write,
	"fill":  fill,
	"rename": func(s string) error {
		from, to, _ := strings.Cut(s, "=")
		return os.Rename(from, to)
	},
	"remove":   func(s string) error { return os.RemoveAll(s) },
	"mkdir":    func(s string) error { return os.MkdirAll(s, 0o755) },
	"truncate": func(s string) error { name, n := number(s); return os.Truncate(name, n) },
	"append":   appendTo,
	"patch":    patch,
	"flood":    flood,
	"spin": func(string) error {
		for {
			spun++
		}
	},
	"hog":    hog,
	"link":   func(s string) error { name, to, _ := strings.Cut(s, "="); return os.Symlink(to, name) },
	"many":   many,
	"hold":   hold,
	"refuse": refused,
}

var spun int // so that the loop is not for nothing

func number(s string) (string, int64) {
	name, n, _ := strings.Cut(s, "=")
	v, err := strconv.ParseInt(n, 10, 64)
	if err != nil {
		panic(err)
	}
	return name, v
}

func cat(name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(b)
	return err
}

// kind tells what came of opening a file, in words that are the same for every name.
func kind(name string) error {
	_, err := os.ReadFile(name)
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	_, err = fmt.Println(err)
	return err
}

func sum(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return err
	}
	_, err = fmt.Printf("%d %x\n", n, h.Sum(nil))
	return err
}

// read reads a file to its end, as fast as it can, and tells how many bytes there were.
func read(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	var total int
	for b := make([]byte, 1<<20); err == nil; {
		var n int
		n, err = f.Read(b)
		total += n
	}
	fmt.Println("read", total)
	if err == io.EOF {
		return nil
	}
	return err
}

// readRange reads 10 bytes at "NAME=OFFSET".
func readRange(s string) error {
	name, off := number(s)
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 10)
	n, err := f.ReadAt(b, off)
	if err != nil && err != io.EOF {
		return err
	}
	_, err = fmt.Printf("%s\n", b[:n])
	return err
}

func list(dir string) error {
	all, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range all {
		mark := ""
		if e.IsDir() {
			mark = "/"
		}
		fmt.Println(e.Name() + mark)
	}
	return nil
}

func stat(name string) error {
	s, err := os.Stat(name)
	if err != nil {
		return err
	}
	_, err = fmt.Println(s.Name(), s.Size(), s.IsDir(), s.ModTime().UTC().Format("2006-01-02T15:04:05Z"))
	return err
}

func write(s string) error {
	name, content, _ := strings.Cut(s, "=")
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, []byte(content), 0o644)
}

// fill writes a number of bytes, "NAME=BYTES", and tells how many went in.
func fill(s string) error {
	name, n := number(s)
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	block, done := make([]byte, 1<<20), int64(0)
	for i := range block {
		block[i] = byte(i * i >> 3)
	}
	for done < n && err == nil {
		var m int
		m, err = f.Write(block[:min(n-done, int64(len(block)))])
		done += int64(m)
	}
	fmt.Println("wrote", done)
	return errors.Join(err, f.Close())
}

func appendTo(s string) error {
	name, content, _ := strings.Cut(s, "=")
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Close())
}

// patch writes an X at "NAME=OFFSET".
func patch(s string) error {
	name, off := number(s)
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte("X"), off)
	return errors.Join(err, f.Close())
}

// flood says a number of bytes.
func flood(bytes string) error {
	n, err := strconv.Atoi(bytes)
	line := []byte(strings.Repeat("x", 1023) + "\n")
	for ; n > 0 && err == nil; n -= len(line) {
		_, err = os.Stdout.Write(line)
	}
	return err
}

// many writes a number of files, "DIR=N".
func many(s string) error {
	dir, n := number(s)
	for i := range n {
		if err := write(fmt.Sprintf("%s/%d=x", dir, i)); err != nil {
			return err
		}
	}
	return nil
}

// hold opens a file a number of times, "NAME=N", reads of each, and tells how many it has open.
func hold(s string) error {
	name, n := number(s)
	var all []*os.File
	for range n {
		f, err := os.Open(name)
		if err == nil {
			_, err = f.Read(make([]byte, 1))
		}
		if err != nil {
			break
		}
		all = append(all, f)
	}
	fmt.Println("held", len(all))
	for _, f := range all {
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

var kept [][]byte

// hog uses memory until there is none, or a number of bytes.
func hog(bytes string) error {
	n, err := strconv.ParseInt(bytes, 10, 64)
	for ; n > 0; n -= 4 << 20 {
		b := make([]byte, 4<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		kept = append(kept, b)
	}
	fmt.Println("had it all", len(kept))
	return err
}

// refused tries to write, and does well where that is refused.
func refused(name string) error {
	if err := os.WriteFile(name, []byte("x"), 0o644); err == nil {
		return errors.New(name + " was written")
	}
	if err := os.Remove(name); err == nil {
		return errors.New(name + " was removed")
	}
	return nil
}
