package wasm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"redoubt"
	"redoubt/compute/computetest"
	"redoubt/sandbox"
)

// begunOf counts the workers that a driver begins.
type begunOf struct {
	*Driver
	mu   sync.Mutex
	keys []shelfKey
}

func counted(t *testing.T) *begunOf {
	d := &begunOf{Driver: New(handed())}
	d.spares.life = time.Hour // of a test on a busy machine, which has them give way
	start := d.spares.start
	d.spares.start = func(k shelfKey, m *made) (*sandbox.Process, error) {
		d.mu.Lock()
		d.keys = append(d.keys, k)
		d.mu.Unlock()
		return start(k, m)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func (d *begunOf) run(t *testing.T, r *computetest.Run, q redoubt.SubmitJob) {
	t.Helper()
	if x, err := d.Run(t.Context(), r.Task(q)); err != nil || x.Code != 0 {
		t.Fatalf("got %+v and %v", x, err)
	}
}

// ready are the workers that stand ready, or are begun to.
func (d *begunOf) ready(of func(shelfKey) bool) (all []*runner) {
	d.spares.mu.Lock()
	defer d.spares.mu.Unlock()
	for k, h := range d.spares.shelves {
		if of(k) {
			all = append(all, h.all...)
		}
	}
	return all
}

func every(shelfKey) bool { return true }

func TestAWorkerThatStandsReadyServesItsOwnShareModuleAndLimitsAlone(t *testing.T) {
	d := counted(t)
	module, other := assembly{bodies: [][]byte{nil}}.bytes(), assembly{bodies: [][]byte{nil, nil}}.bytes()
	q := redoubt.SubmitJob{Limits: redoubt.JobLimits{Memory: 64 << 20, Disk: 1 << 20}, Seconds: 60}
	run := func(by redoubt.SubjectName, start, max string, module []byte, q redoubt.SubmitJob) {
		t.Helper()
		r := computetest.NewRun(nil).Between(by, start, max)
		q.Module = r.SetModule(module)
		d.run(t, r, q)
	}
	run("alice", "SECRET", "SECRET", module, q)
	if n := len(d.ready(every)); n != 0 {
		t.Errorf("after the first run of its module %d workers stand ready", n)
	}
	run("alice", "SECRET", "SECRET", module, q)
	hers := d.ready(every)
	if len(hers) != most {
		t.Fatalf("after the second %d stand ready, want %d", len(hers), most)
	}
	more, larger, longer := q, q, q
	more.Limits.Memory, larger.Limits.Disk, longer.Seconds = 65<<20, 2<<20, 61
	for _, of := range []func(){
		func() { run("bob", "SECRET", "SECRET", module, q) },
		func() { run("alice", "UNCLASSIFIED", "SECRET", module, q) },
		func() { run("alice", "SECRET", "TOP SECRET", module, q) },
		func() { run("alice", "SECRET", "SECRET", other, q) },
		func() { run("alice", "SECRET", "SECRET", module, more) },
		func() { run("alice", "SECRET", "SECRET", module, larger) },
		func() { run("alice", "SECRET", "SECRET", module, longer) },
	} {
		of()
		if now := d.ready(every); !slices.Equal(now, hers) {
			t.Errorf("another's run has taken of what stood ready for alice: %v, want %v", now, hers)
		}
	}
	run("alice", "SECRET", "SECRET", module, q)
	if now := d.ready(every); slices.Contains(now, hers[0]) || !slices.Contains(now, hers[1]) {
		t.Error("her own has not taken the first that stood ready")
	}
}

// TestNothingOfOneRunIsLeftInAnother, with workers that stood ready: each serves one run, finds what that is told and no more, and nothing is asked for it before.
func TestNothingOfOneRunIsLeftInAnother(t *testing.T) {
	d := counted(t)
	const runs = 6
	for i := range runs {
		r := computetest.NewRun(map[string][]byte{"b/f": []byte("content")})
		q := programs.Load(t, r, computetest.Build(t, programs.GOOS, programs.GOARCH))
		q.Args = []string{"list", "/out", "env", "MINE", "write", fmt.Sprintf("/out/%d=%d", i, i), "cat", "/in/b/f"}
		q.Env = []string{fmt.Sprintf("MINE=%d", i)}
		d.run(t, r, q)
		if want := fmt.Sprintf("MINE=%d\ncontent", i); r.Said(1) != want {
			t.Errorf("run %d says %q, want %q: nothing in /out, its own variable, its input", i, r.Said(1), want)
		}
		for j := range runs {
			if name := fmt.Sprint(j); (r.Outputs()[name] != nil) != (i == j) || len(r.Outputs()) != 1 {
				t.Errorf("run %d leaves %v", i, r.Outputs())
			}
		}
		if n := strings.Count(strings.Join(r.Reads(), " "), "module"); n != 1 {
			t.Errorf("run %d asked %q", i, r.Reads())
		}
	}
	stand := len(d.ready(every))
	d.Close()
	if len(d.keys) != runs+stand {
		t.Errorf("%d workers were begun for %d runs, and %d stood ready at the end", len(d.keys), runs, stand)
	}
}

func TestWorkersThatStandReadyEnd(t *testing.T) {
	module := assembly{bodies: [][]byte{nil}}.bytes()
	twice := func(d *begunOf) {
		t.Helper()
		for range 2 {
			r := computetest.NewRun(nil)
			d.run(t, r, redoubt.SubmitJob{Module: r.SetModule(module)})
		}
	}
	d := counted(t)
	twice(d)
	all := d.ready(every)
	d.Close()
	for _, r := range all {
		select {
		case <-r.ended:
		default:
			t.Error("one runs when the driver is closed")
		}
	}
	twice(d)
	if n := len(d.ready(every)); n != 0 || len(all) == 0 {
		t.Errorf("%d stood ready before, %d do after it was closed", len(all), n)
	}
	d = counted(t)
	twice(d)
	all = d.ready(every)
	d.spares.mu.Lock()
	for _, h := range d.spares.shelves {
		h.ends.Reset(0)
	}
	d.spares.mu.Unlock()
	for _, r := range all {
		<-r.ended
	}
	if n := len(d.ready(every)); n != 0 {
		t.Errorf("%d stand ready when their time is over", n)
	}
}

func TestWorkersThatStandReadyAreCountedForEachMAX(t *testing.T) {
	d := counted(t)
	for i := range 5 {
		module := assembly{bodies: make([][]byte, i+1)}.bytes()
		for _, max := range []string{"SECRET", "TOP SECRET"} {
			for range 2 {
				r := computetest.NewRun(nil).Between("alice", "SECRET", max)
				d.run(t, r, redoubt.SubmitJob{Module: r.SetModule(module)})
			}
		}
	}
	lanes := map[string]bool{}
	for k := range d.spares.shelves {
		lanes[k.lane] = true
	}
	if len(lanes) != 2 {
		t.Fatalf("there are %d lanes", len(lanes))
	}
	for lane := range lanes {
		if n := len(d.ready(func(k shelfKey) bool { return k.lane == lane })); n != 2*most {
			t.Errorf("%d stand ready in a lane, want %d", n, 2*most)
		}
	}
}

// TestWorkersThatStandReadyAreFewOfLargeModules: none for one that is larger still, and in a lane as many as its bytes allow.
func TestWorkersThatStandReadyAreFewOfLargeModules(t *testing.T) {
	s := spares{shelves: map[shelfKey]*shelf{}, life: time.Hour, start: func(shelfKey, *made) (*sandbox.Process, error) { return nil, errors.New("there is no room") }}
	t.Cleanup(s.close)
	defer func(was int) { most = was }(most)
	most = 10
	of := func(bytes int) *made {
		return &made{bare: make([]byte, moduleHead), code: make([]byte, bytes-moduleHead)}
	}
	held := func(lane, module string, m *made) (bytesOfLane, ofModule int) {
		for range 2 {
			<-s.take(shelfKey{lane: lane, module: module}, m).ended
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for k, h := range s.shelves {
			for _, r := range h.all {
				if k.lane == lane {
					bytesOfLane += r.bytes
				}
				if k.lane == lane && k.module == module {
					ofModule++
				}
			}
		}
		return bytesOfLane, ofModule
	}
	for _, c := range []struct {
		lane, module   string
		made           *made
		held, ofModule int
	}{
		{"a", "too large", of(spareBytes + 1), 0, 0},
		{"a", "large as it is loaded", &made{bare: append(make([]byte, moduleHead), section(sectionType, make([]byte, spareBytes/256))...)}, 0, 0},
		{"a", "unknown", &made{}, 0, 0},
		{"a", "large", of(spareBytes), laneBytes, laneBytes / spareBytes},
		{"b", "large", of(spareBytes), laneBytes, laneBytes / spareBytes},    // another's lane takes none
		{"a", "small", of(1 << 20), laneBytes - spareBytes + most<<20, most}, // of another in its lane as much as it needs
		{"a", "as large", of(spareBytes), laneBytes, laneBytes / spareBytes},
	} {
		if held, n := held(c.lane, c.module, c.made); held != c.held || n != c.ofModule {
			t.Errorf("%s in lane %s: %d stand ready, and %d MiB in all; want %d, and %d MiB", c.module, c.lane, n, held>>20, c.ofModule, c.held>>20)
		}
	}
}

// TestAWorkerThatDiedWhileItStoodReadyIsReplaced, and no run fails by it.
func TestAWorkerThatDiedWhileItStoodReadyIsReplaced(t *testing.T) {
	d := counted(t)
	module := assembly{bodies: [][]byte{nil}}.bytes()
	once := func() {
		t.Helper()
		r := computetest.NewRun(nil)
		d.run(t, r, redoubt.SubmitJob{Module: r.SetModule(module)})
	}
	once()
	once()
	for _, r := range d.ready(every) {
		r.cancel()
	}
	for range most { // whether they have ended by now or not
		once()
	}
	start := d.spares.start
	d.spares.mu.Lock()
	d.spares.start = func(shelfKey, *made) (*sandbox.Process, error) { return nil, errors.New("there is no room") }
	d.spares.mu.Unlock()
	for range most {
		once()
	}
	failing := d.ready(every)
	for _, r := range failing {
		<-r.ended
	}
	d.spares.mu.Lock()
	d.spares.start = start
	for _, h := range d.spares.shelves { // as where one ends in the moment that it is taken
		for _, r := range h.all {
			r.ended = make(chan struct{})
			time.AfterFunc(time.Millisecond, func() { close(r.ended) })
		}
	}
	d.spares.mu.Unlock()
	once()
}

// TestAWorkerThatHadNotBegunIsReplacedOnce, also one that did not stand ready: it was told nothing, and another one does what it was for.
func TestAWorkerThatHadNotBegunIsReplacedOnce(t *testing.T) {
	d := counted(t)
	start := d.spares.start
	for failing, want := range []int{1, 2, 2} {
		starts := 0
		d.spares.start = func(k shelfKey, m *made) (*sandbox.Process, error) {
			if starts++; starts <= failing {
				return nil, errors.New("there is no room")
			}
			return start(k, m)
		}
		r := computetest.NewRun(nil).Between(redoubt.SubjectName(fmt.Sprint(failing)), "SECRET", "SECRET") // none stands ready
		x, err := d.Run(t.Context(), r.Task(redoubt.SubmitJob{Module: r.SetModule(assembly{bodies: [][]byte{nil}}.bytes())}))
		if (err == nil && x.Code == 0) != (failing < 2) || starts != want {
			t.Errorf("%d of its workers could not be begun: got %+v and %v after %d", failing, x, err, starts)
		}
	}
}

// TestWhatPreparesARunIsNotItsTime: the time of an attempt is the program's.
func TestWhatPreparesARunIsNotItsTime(t *testing.T) {
	d := counted(t)
	start := d.spares.start
	d.spares.start = func(k shelfKey, m *made) (*sandbox.Process, error) {
		time.Sleep(1200 * time.Millisecond) // longer than it may run
		return start(k, m)
	}
	r := computetest.NewRun(nil)
	d.run(t, r, redoubt.SubmitJob{Module: r.SetModule(assembly{bodies: [][]byte{nil}}.bytes()), Seconds: 1})
}

// TestAWorkerThatIsNotReadyInTimeIsTheMachinesFault: the attempt is repeated, and not told of as the module's.
func TestAWorkerThatIsNotReadyInTimeIsTheMachinesFault(t *testing.T) {
	d := counted(t)
	d.spares.start = func(shelfKey, *made) (*sandbox.Process, error) {
		return sandbox.Start(sandbox.Program{Name: "wasm", Worker: "says nothing", Binary: handed()})
	}
	d.spares.mu.Lock()
	r := d.spares.begin(shelfKey{memory: 64 << 20, disk: 1 << 20}, &made{})
	d.spares.mu.Unlock()
	s := newSession(computetest.NewRun(nil).Task(redoubt.SubmitJob{}))
	s.unready = time.Millisecond
	if x, err := s.run(t.Context(), r); err == nil || !strings.Contains(err.Error(), "not ready within") {
		t.Errorf("got %+v and %v", x, err)
	}
}

// FuzzBare takes anything for a module: what it gives has no function that does something, and is no module where that was none. It stands ready as the
// module does, which weighs what it has at least.
func FuzzBare(f *testing.F) {
	f.Add(assembly{bodies: [][]byte{nil, {opUnreachable}}, memory: []byte{0, 1}}.bytes())
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x00\x02\x01n\x0a\x01\x00"))
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x0a\xff\xff\xff\xff\x0f"))
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x0a\x05\xff\xff\xff\xff\x0f"))
	f.Add(assembly{bodies: [][]byte{nil}, memory: []byte{0, 1}, table: [][]byte{{0x70, 1, 1, 2}}, data: [][]byte{dataAt(0, "x")}}.bytes())
	f.Fuzz(func(t *testing.T, module []byte) {
		stands := early(module)
		if w, known := (&made{bare: module}).weight(); known && w < len(module) {
			t.Errorf("%x weighs %d", module, w)
		}
		b, err := bare(module)
		if err != nil {
			return
		}
		if early(b) != stands {
			t.Errorf("%x stands ready: %v, and without its functions %v", module, stands, !stands)
		}
		again, err := bare(b)
		if err != nil || !bytes.Equal(again, b) || len(b) > 8+len(module)*(len(nothingOf)+1) {
			t.Errorf("got %x of %x, and then %x, %v", b, module, again, err)
		}
	})
}
