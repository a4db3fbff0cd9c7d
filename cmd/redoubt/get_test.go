package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What is fetched into a device goes into it. A file in its place would be what every program then opens as the device.
func TestADeviceIsWrittenIntoAndNotReplaced(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip(err)
	}
	link := filepath.Join(t.TempDir(), "link") // as /dev/stdout is
	if err := os.Symlink(pipe, link); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{pipe, link} {
		got := make(chan string)
		go func() {
			b, _ := os.ReadFile(pipe)
			got <- string(b)
		}()
		if err := writeWhole(file, io.LimitReader(strings.NewReader("content"), 7)); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(file); err != nil || st.Mode()&os.ModeNamedPipe == 0 {
			os.WriteFile(pipe, nil, 0) // lets the reader go
			t.Fatalf("%s is %v now (%v)", file, st.Mode(), err)
		}
		if content := <-got; content != "content" {
			t.Errorf("%s was given %q", file, content)
		}
	}
}

// No key puts its content where another's belongs, however it is written: "a/z/../b" would come after "a/b".
func TestEachKeyHasAFileOfItsOwn(t *testing.T) {
	for prefix, keys := range map[string][][2]string{
		"in/": {{"in//b", ""}, {"in/./b", ""}, {"in/a", "a"}, {"in/a/b", ""}, {"in/a/b/c", ""}, {"in/b", "b"}, {"in/d//e", ""}, {"in/d/e", "d/e"},
			{"in/d/z/../e", ""}, {"in/../../x", ""}, {"in/d/", ""}, {"in/", ""}, {"in/.", ""}},
		"in":   {{"in", "in"}, {"in//b", ""}, {"in/b", "b"}, {"inb", ""}, {"inc", "c"}},
		"in/b": {{"in/b", "b"}, {"in/b/c", "c"}, {"in/bb", ""}},
		"":     {{"/etc/passwd", ""}, {"a", "a"}, {"..", ""}},
	} {
		f := folder{prefix: prefix, taken: map[string]bool{}}
		for _, k := range keys {
			if got, why := f.file(k[0]); got != k[1] || (why == "") != (got != "") {
				t.Errorf("%q under %q: got %q (%s), want %q", k[0], prefix, got, why, k[1])
			}
		}
	}
}
