package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/computetest"
)

// hostile has the pod say these frames when the program is to run.
func hostile(t *testing.T, say func(f *frames) error) (compute.Exit, error, *computetest.Run) {
	t.Helper()
	c := newCluster()
	c.exec = func(_, _ string, in io.Reader, out io.Writer) error {
		f := &frames{r: in, w: out, max: maxTask}
		if _, _, err := f.read(); err != nil {
			return err
		}
		return say(f)
	}
	r := computetest.NewRun(nil)
	spec := withImage(r, "true")
	spec.Limits.Disk = 100
	x, err := c.driver(t, nil).Run(t.Context(), r.Task(spec))
	return x, err, r
}

func TestWhatComesBackIsHeldToItsForm(t *testing.T) {
	well := func(f *frames) { f.write(sayBegan, nil); f.writeJSON(sayExit, ending{}) }
	file := func(f *frames, name string, size int64, content string) {
		f.writeJSON(sayFile, entry{Path: name, Bytes: size})
		if content != "" {
			f.write(bytesOf, []byte(content))
		}
	}
	for name, say := range map[string]func(f *frames){
		"an output before the end":      func(f *frames) { f.write(sayBegan, nil); file(f, "a", 1, "x") },
		"an output after a failure":     func(f *frames) { f.writeJSON(sayExit, ending{Code: 1}); file(f, "a", 1, "x") },
		"two ends":                      func(f *frames) { well(f); well(f) },
		"words after the end":           func(f *frames) { well(f); f.write(sayOut, []byte("x")) },
		"no such kind":                  func(f *frames) { f.write('?', nil) },
		"an end that is none":           func(f *frames) { f.write(sayExit, []byte("{")) },
		"done before the end":           func(f *frames) { f.write(sayDone, nil) },
		"a path that leads out":         func(f *frames) { well(f); file(f, "../x", 1, "x") },
		"a path from the root":          func(f *frames) { well(f); file(f, "/x", 1, "x") },
		"no path":                       func(f *frames) { well(f); file(f, "", 1, "x") },
		"a path with a zero":            func(f *frames) { well(f); file(f, "a\x00", 1, "x") },
		"a long path":                   func(f *frames) { well(f); file(f, strings.Repeat("a", redoubt.MaxKeyBytes+1), 1, "x") },
		"one path twice":                func(f *frames) { well(f); file(f, "a", 1, "x"); file(f, "a", 1, "x") },
		"more content than was said":    func(f *frames) { well(f); file(f, "a", 1, "xy") },
		"content that is none":          func(f *frames) { well(f); f.writeJSON(sayFile, entry{Path: "a", Bytes: 2}); f.write(bytesOf, nil) },
		"something else within content": func(f *frames) { well(f); file(f, "a", 2, "x"); f.write(sayDone, nil) },
		"content of nothing":            func(f *frames) { well(f); f.write(bytesOf, []byte("x")) },
		"less than nothing":             func(f *frames) { well(f); file(f, "a", -1, "") },
		"an output over its disk":       func(f *frames) { well(f); file(f, "a", 60, strings.Repeat("x", 60)); file(f, "b", 41, "") },
		"a frame that is too long":      func(f *frames) { f.w.Write([]byte{0xff, 0xff, 0xff, 0xff, sayOut}) },
		"a frame of nothing":            func(f *frames) { f.w.Write([]byte{0, 0, 0, 0, 0}) },
		"an exit code that is none":     func(f *frames) { f.writeJSON(sayExit, ending{Code: 1 << 20}); f.write(sayDone, nil) },
	} {
		x, err, _ := hostile(t, func(f *frames) error { say(f); return nil })
		if err != nil || x.Code != -1 || x.Why == "" {
			t.Errorf("%s: got %+v, %v, want it told as the job's own", name, x, err)
		}
	}
	if x, err, r := hostile(t, func(f *frames) error {
		well(f)
		file(f, "a", 60, strings.Repeat("x", 60))
		file(f, "b", 40, strings.Repeat("x", 40))
		return f.write(sayDone, nil)
	}); err != nil || x.Code != 0 || len(r.Outputs()) != 2 {
		t.Errorf("what is well formed: got %+v, %v", x, err)
	}
}

func TestAStreamThatBreaksIsNotTheJobs(t *testing.T) {
	_, err, r := hostile(t, func(f *frames) error {
		f.writeJSON(sayExit, ending{})
		f.writeJSON(sayFile, entry{Path: "a", Bytes: 1})
		return errors.New("the stream broke")
	})
	if err == nil || len(r.Outputs()) > 1 {
		t.Errorf("got %v and %q, want it tried again", err, r.Outputs())
	}
}

func TestTooManyOutputsAreRefused(t *testing.T) {
	for n, ok := range map[int]bool{redoubt.MaxJobOutputs: true, redoubt.MaxJobOutputs + 1: false} {
		x, err, _ := hostile(t, func(f *frames) error {
			f.writeJSON(sayExit, ending{})
			for i := range n {
				if err := f.writeJSON(sayFile, entry{Path: fmt.Sprint(i)}); err != nil {
					return nil
				}
			}
			return f.write(sayDone, nil)
		})
		if err != nil || (x.Code == 0) != ok {
			t.Errorf("%d: got %+v, %v", n, x, err)
		}
	}
}

func TestTheAgentsImageIsReproducible(t *testing.T) {
	var one, two bytes.Buffer
	a, err := WriteAgentImage(&one, strings.NewReader("binary"), "amd64")
	b, err2 := WriteAgentImage(&two, strings.NewReader("binary"), "amd64")
	if err != nil || err2 != nil || a != b || !bytes.Equal(one.Bytes(), two.Bytes()) || !strings.HasPrefix(a, "sha256:") {
		t.Errorf("got %s and %s, %v, %v", a, b, err, err2)
	}
	c, err := WriteAgentImage(io.Discard, strings.NewReader("binarz"), "amd64")
	if err != nil || c == a {
		t.Errorf("another binary: %s, %v", c, err)
	}
}

func TestOutputsThatAreNoPlainFilesAreLeft(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"plain": "1", "d/deep": "2", "shut/in": "3", "unread": "4"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("/etc/passwd", filepath.Join(dir, "link")), os.Symlink(dir, filepath.Join(dir, "loop")), os.Chmod(filepath.Join(dir, "unread"), 0), os.WriteFile(filepath.Join(dir, "\xff"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := walk{f: &frames{w: &b}}
	if err := w.dir(dir, "", 0); err != nil {
		t.Fatal(err)
	}
	got, left := map[string]string{}, map[string]bool{}
	f := &frames{r: &b, max: maxFrame}
	for {
		kind, body, err := f.read()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if kind == sayLeft {
			left[string(body)] = true
			continue
		}
		var e entry
		if err := json.Unmarshal(body, &e); kind != sayFile || err != nil {
			t.Fatalf("%c, %v", kind, err)
		}
		content, err := io.ReadAll(&content{f: f, left: e.Bytes})
		if err != nil {
			t.Fatal(err)
		}
		got[e.Path] = string(content)
	}
	if want := map[string]string{"plain": "1", "d/deep": "2", "shut/in": "3", "unread": "4"}; !maps.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if want := map[string]bool{"link": true, "loop": true, "\xff": true}; !maps.Equal(left, want) {
		t.Errorf("left are %v", left)
	}
}
