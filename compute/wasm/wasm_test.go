package wasm

import (
	"bufio"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"sync"
	"testing"
	"time"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/computetest"
	"redoubt/sandbox"
)

func TestMain(m *testing.M) {
	all := Workers()
	maps.Copy(all, hostile)
	all["says what it leaves"] = saying(func(f *frames) error {
		return errors.Join(f.writeJSON(sayEnd, ending{}), f.write(sayErr, []byte("a link is left")), f.write(sayDone))
	})
	sandbox.Enter(all)
	os.Exit(m.Run())
}

// handed is the test's own binary, handed over as that of the workers is; nil with cgo, where it needs libraries.
var handed = sync.OnceValue(func() *sandbox.Binary {
	content, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return nil
	}
	b, err := sandbox.NewBinary(content)
	if err != nil {
		return nil
	}
	return b
})

var programs = computetest.Programs{GOOS: "wasip1", GOARCH: "wasm", Load: func(_ *testing.T, r *computetest.Run, program []byte) redoubt.SubmitJob {
	return redoubt.SubmitJob{Module: r.SetModule(program)}
}}

func TestTheContractOfDrivers(t *testing.T) {
	computetest.Suite(t, func(*testing.T) compute.Driver { return New(nil) }, programs)
}

// hostile are workers that are the module's own: each says what it is told, and then hangs on.
var hostile = map[string]sandbox.Worker{
	"linger behind done": hangingOn(func(f *frames) error { return errors.Join(f.writeJSON(sayEnd, ending{}), f.write(sayDone)) }),
	"linger behind end":  hangingOn(func(f *frames) error { return f.writeJSON(sayEnd, ending{}) }),
	"linger in a file": hangingOn(func(f *frames) error {
		return errors.Join(f.writeJSON(sayEnd, ending{}), f.writeJSON(sayFile, output{Path: "a", Bytes: 9}))
	}),
	"ask behind end": hangingOn(func(f *frames) error {
		return errors.Join(f.writeJSON(sayEnd, ending{}), f.write(askOpen, []byte("secret")))
	}),
	"end twice": hangingOn(func(f *frames) error {
		return errors.Join(f.writeJSON(sayEnd, ending{}), f.writeJSON(sayEnd, ending{}))
	}),
	"done before its end":  hangingOn(func(f *frames) error { return f.write(sayDone) }),
	"done, and ends so":    saying(func(f *frames) error { return f.write(sayDone) }),
	"output before an end": hangingOn(func(f *frames) error { return f.writeJSON(sayFile, output{Path: "a"}) }),
}

// saying is a worker that ends when it has spoken.
func saying(say func(*frames) error) sandbox.Worker {
	return func(in io.Reader, out io.Writer) error {
		w := &worker{frames: frames{r: bufio.NewReader(in), w: out}}
		return errors.Join(w.load(), w.write(sayReady), w.hear(), say(&w.frames))
	}
}

func hangingOn(say func(*frames) error) sandbox.Worker {
	return saying(func(f *frames) error {
		err := say(f)
		time.Sleep(time.Hour)
		return err
	})
}

// begun is a worker of one of these tests' own.
func begun(name string) *runner {
	s := spares{start: func(shelfKey, *made) (*sandbox.Process, error) {
		return sandbox.Start(sandbox.Program{Name: name, Worker: name, Scratch: 1 << 20, Limits: sandbox.Limits{Memory: workerMemory}})
	}}
	return s.begin(shelfKey{}, &made{})
}

// TestAWorkerSaysWhatItLeaves behind the module's end, and that has done well.
func TestAWorkerSaysWhatItLeaves(t *testing.T) {
	s := &session{t: compute.Task{JobRun: computetest.NewRun(nil), Timeout: time.Minute}, handOver: time.Minute}
	if x, err := s.run(t.Context(), begun("says what it leaves")); err != nil || x.Code != 0 {
		t.Errorf("got %+v, %v", x, err)
	}
}

// watched tells of what a job is asked.
type watched struct {
	*computetest.Run
	opened []string
}

func (r *watched) Open(ctx context.Context, name string) (redoubt.JobFile, redoubt.Content, error) {
	r.opened = append(r.opened, name)
	return r.Run.Open(ctx, name)
}

// TestAWorkerOfTheModulesOwnEnds: it holds its place for the time of its outputs at most, learns nothing behind its end, and has not done well.
func TestAWorkerOfTheModulesOwnEnds(t *testing.T) {
	for name := range hostile {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &watched{Run: computetest.NewRun(map[string][]byte{"secret": []byte("x")})}
			s := &session{t: compute.Task{JobRun: r, Timeout: time.Hour}, handOver: time.Second}
			x, err := s.run(t.Context(), begun(name))
			if err == nil && x.Code == 0 {
				t.Error("it is taken for a program that did well")
			}
			if len(r.opened) > 0 {
				t.Errorf("it was given %q", r.opened)
			}
		})
	}
}
