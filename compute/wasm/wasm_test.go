package wasm

import (
	"bufio"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/computetest"
	"redoubt/sandbox"
)

// measuring are workers of the tests of one system.
var measuring = map[string]sandbox.Worker{}

func TestMain(m *testing.M) {
	niceness = 1
	all := Workers()
	maps.Copy(all, hostile)
	all["says what it leaves"] = saying(func(f *frames) error {
		return errors.Join(f.writeJSON(sayEnd, ending{}), f.write(sayErr, []byte("a link is left")), f.write(sayDone))
	})
	all[lingers] = hangingOn(func(f *frames) error {
		signal.Ignore(syscall.SIGPIPE)
		return errors.Join(f.writeJSON(sayEnd, ending{}), f.writeJSON(sayFile, output{Path: "a", Bytes: 1}), f.write(sayBytes, []byte("a")), f.write(sayDone),
			f.writeJSON(sayFile, output{Path: "b", Bytes: 1}), f.write(sayBytes, []byte("b")), f.write(askOpen, []byte("secret")), f.write(sayOut, []byte("more")), f.write(sayDone))
	})
	all["says nothing"] = func(in io.Reader, _ io.Writer) error { _, err := io.Copy(io.Discard, in); return err }
	all[floods] = saying(func(f *frames) error {
		err := errors.Join(f.writeJSON(sayEnd, ending{}), f.write(sayDone))
		for err == nil {
			err = f.write(sayOut, make([]byte, maxPiece))
		}
		return err
	})
	all[atOnce] = hangingOn(func(f *frames) error {
		f.hold = true
		return errors.Join(f.writeJSON(sayEnd, ending{}), f.writeJSON(sayFile, output{Path: "a", Bytes: 1}), f.write(sayBytes, []byte("a")), f.write(sayDone), f.flush())
	})
	maps.Copy(all, measuring)
	sandbox.Enter(all)
	os.Exit(m.Run())
}

// handed is the test's own binary, handed over as that of the workers is; nil with cgo, where it needs libraries.
var handed = sync.OnceValue(func() *sandbox.Binary {
	content, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return nil
	}
	b, err := sandbox.NewBinary(string(content))
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
	"linger behind end": hangingOn(func(f *frames) error { return f.writeJSON(sayEnd, ending{}) }),
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

// lingers is a worker that has done well, and then says more, asks, and hangs on.
const lingers = "done, and goes on"

// begun is a worker of one of these tests' own.
func begun(name string, ends time.Duration) *runner {
	s := spares{ends: ends, start: func(shelfKey, *made) (*sandbox.Process, error) {
		return sandbox.Start(sandbox.Program{Name: name, Worker: name, Scratch: 1 << 20, Limits: sandbox.Limits{Memory: workerMemory}})
	}}
	return s.begin(shelfKey{}, &made{})
}

// TestAWorkerSaysWhatItLeaves behind the module's end, and that has done well.
func TestAWorkerSaysWhatItLeaves(t *testing.T) {
	s := &session{t: compute.Task{JobRun: computetest.NewRun(nil), Timeout: time.Minute}, unready: time.Minute, handOver: time.Minute}
	if x, err := s.run(t.Context(), begun("says what it leaves", endTime)); err != nil || x.Code != 0 {
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

// TestTheEndOfAnAttemptDoesNotWaitForThatOfItsProcess: what a worker has handed over by its last word is there, nothing that it says behind that is heard, and
// it is ended where it does not end by itself.
func TestTheEndOfAnAttemptDoesNotWaitForThatOfItsProcess(t *testing.T) {
	attempt := func(of *runner) (compute.Exit, *watched) {
		t.Helper()
		r := &watched{Run: computetest.NewRun(map[string][]byte{"secret": []byte("x")})}
		s := &session{t: compute.Task{JobRun: r, Timeout: time.Hour}, unready: time.Minute, handOver: time.Hour}
		x, err := s.run(t.Context(), of)
		if err != nil || x.Code != 0 {
			t.Fatalf("got %+v and %v of a worker that did well", x, err)
		}
		return x, r
	}
	hangs := begun(lingers, time.Hour)
	x, r := attempt(hangs)
	select {
	case <-x.Gone:
		t.Error("its process has ended by itself")
	default:
	}
	hangs.cancel()
	<-x.Gone
	if out := r.Outputs(); len(out) != 1 || string(out["a"]) != "a" || len(r.opened) > 0 || r.Said(1) != "" {
		t.Errorf("it left %q, opened %q and said %q behind its last word", out, r.opened, r.Said(1))
	}
	x, _ = attempt(begun(lingers, time.Millisecond))
	<-x.Gone
}

// floods is a worker that has done well, and then says more without end.
const floods = "done, and floods"

// TestBehindItsLastWordNothingOfAWorkerIsRead: what it says then is not even taken from it, so one that does ends by that.
func TestBehindItsLastWordNothingOfAWorkerIsRead(t *testing.T) {
	s := &session{t: compute.Task{JobRun: computetest.NewRun(nil), Timeout: time.Hour}, unready: time.Minute, handOver: time.Hour}
	x, err := s.run(t.Context(), begun(floods, time.Hour))
	if err != nil || x.Code != 0 {
		t.Fatalf("got %+v and %v of a worker that did well", x, err)
	}
	<-x.Gone
}

// atOnce is a worker whose last word is there with its first, and that hangs on.
const atOnce = "says it all at once"

// whilePut has something be while an output is put.
type whilePut struct {
	*computetest.Run
	put func(ctx context.Context)
}

func (r *whilePut) Put(ctx context.Context, name string, bytes int64, content io.Reader) error {
	r.put(ctx)
	return r.Run.Put(ctx, name, bytes, content)
}

// TestWhatRunsYetIsSaidHoweverTheAttemptEnded: also of one that was ended, or that took too long, as its last word lay there already.
func TestWhatRunsYetIsSaidHoweverTheAttemptEnded(t *testing.T) {
	for want, handOver := range map[string]time.Duration{"it was ended": time.Hour, "handed over": time.Millisecond} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r := &whilePut{computetest.NewRun(nil), func(of context.Context) {
			if handOver == time.Hour {
				cancel()
			}
			<-of.Done()
		}}
		s := &session{t: compute.Task{JobRun: r, Timeout: time.Hour}, unready: time.Minute, handOver: handOver}
		of := begun(atOnce, time.Hour)
		x, err := s.run(ctx, of)
		if err != nil || !strings.Contains(x.Why, want) || x.Gone != of.ended {
			t.Errorf("got %+v and %v, want %s, and what tells of its process", x, err, want)
		}
		<-of.ended
	}
}

// TestWhoClosesTheDriverWaitsForWhatEnds, also where no Run does.
func TestWhoClosesTheDriverWaitsForWhatEnds(t *testing.T) {
	d := New(handed())
	r := computetest.NewRun(nil)
	x, err := d.Run(t.Context(), r.Task(redoubt.SubmitJob{Module: r.SetModule(assembly{bodies: [][]byte{nil}}.bytes())}))
	if err != nil || x.Code != 0 || x.Gone == nil {
		t.Fatalf("got %+v and %v", x, err)
	}
	d.Close()
	select {
	case <-x.Gone:
	default:
		t.Error("a worker runs when the driver is closed")
	}
}

// TestAWorkerOfTheModulesOwnEnds: it holds its place for the time of its outputs at most, learns nothing behind its end, and has not done well.
func TestAWorkerOfTheModulesOwnEnds(t *testing.T) {
	for name := range hostile {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &watched{Run: computetest.NewRun(map[string][]byte{"secret": []byte("x")})}
			s := &session{t: compute.Task{JobRun: r, Timeout: time.Hour}, unready: time.Minute, handOver: time.Second}
			x, err := s.run(t.Context(), begun(name, endTime))
			if err == nil && x.Code == 0 {
				t.Error("it is taken for a program that did well")
			}
			if len(r.opened) > 0 {
				t.Errorf("it was given %q", r.opened)
			}
		})
	}
}
