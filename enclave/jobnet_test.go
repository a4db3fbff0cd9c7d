package enclave

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"redoubt"
	"redoubt/label"
)

// far is what jobs of these tests connect to: it answers each piece with what it was told, and remembers.
type far struct {
	mu    sync.Mutex
	told  strings.Builder
	dials []string
	ended chan struct{} // one for each connection that ended
}

type farEnd struct{ net.Conn }

func (farEnd) CloseWrite() error { return nil }

func (f *far) dial(_ context.Context, address string) (redoubt.JobConn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dials = append(f.dials, address)
	if address == "192.0.2.99:1" {
		return nil, errors.New("nobody is there")
	}
	ours, theirs := net.Pipe()
	go func() {
		defer func() { f.ended <- struct{}{} }()
		b := make([]byte, 4096)
		for {
			n, err := theirs.Read(b)
			if err != nil {
				return
			}
			f.mu.Lock()
			f.told.Write(b[:n])
			f.mu.Unlock()
			if _, err := theirs.Write(b[:n]); err != nil {
				return
			}
		}
	}()
	return farEnd{ours}, nil
}

func (f *far) heard() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.told.String()
}

func withDestinations(f *far) func(*Options) {
	f.ended = make(chan struct{}, 1000)
	all := []redoubt.SubjectName{"*"}
	return func(o *Options) {
		o.Dial = f.dial
		o.Destinations = []redoubt.Destination{
			{Name: "low:1", Address: "192.0.2.1:1", Label: "UNCLASSIFIED", Subjects: all},
			{Name: "secret:1", Address: "192.0.2.2:1", Label: "SECRET", Subjects: all},
			{Name: "top:1", Address: "192.0.2.3:1", Label: "TOP SECRET", Subjects: all},
			{Name: "others:1", Address: "192.0.2.4:1", Label: "SECRET", Subjects: []redoubt.SubjectName{"u-analyst"}},
			{Name: "few:1", Address: "192.0.2.5:1", Label: "SECRET", Subjects: all, Bytes: 10},
			{Name: "gone:1", Address: "192.0.2.99:1", Label: "SECRET", Subjects: all},
		}
	}
}

func reaching(max string, names ...string) func(*redoubt.SubmitJob) {
	return func(q *redoubt.SubmitJob) { q.Max, q.Network = max, names }
}

func dialled(t *testing.T, r redoubt.JobRun, name string) redoubt.JobConn {
	t.Helper()
	c, err := r.Dial(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// says sends something and gives what is answered.
func says(c redoubt.JobConn, text string) (string, error) {
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	b := make([]byte, len(text))
	n, err := io.ReadFull(c, b)
	return string(b[:n]), err
}

func TestAConnectionHasTheJobRiseToItsDestination(t *testing.T) {
	f := new(far)
	w := open(t, withDestinations(f))
	who := w.as("s-analyst", "UNCLASSIFIED")
	j := w.submit(who, reaching("SECRET", "secret:1"))
	r := w.run()
	if got, _ := r.(*jobRun).now(); got != "UNCLASSIFIED" {
		t.Fatalf("before it begins at %s", got)
	}
	c := dialled(t, r, "secret:1")
	if got, _ := r.(*jobRun).now(); got != "SECRET" {
		t.Errorf("with a connection to SECRET it is at %s", got)
	}
	if got, err := says(c, "question"); err != nil || got != "question" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	putOut(t, r, "o", "x")
	finish(t, r, redoubt.JobExit{})
	if got := w.labelOf(w.as("s-analyst", "SECRET"), "out/o"); got != "SECRET" {
		t.Errorf("its output is %s", got)
	}
	if got := w.job(w.as("s-analyst", "SECRET"), j.ID); got.State != redoubt.JobDone {
		t.Errorf("got %+v", got)
	}
	if f.heard() != "question" || !slices.Equal(f.dials, []string{"192.0.2.2:1"}) {
		t.Errorf("it heard %q at %q", f.heard(), f.dials)
	}
	var said []string
	err := w.SearchAudit(context.Background(), w.as("officer", ""), redoubt.AuditQuery{Action: redoubt.ActionConnect}, func(a redoubt.AuditRecord) error {
		if a.Label == "SECRET" {
			said = append(said, a.Detail)
		}
		return nil
	})
	if err != nil || !slices.ContainsFunc(said, func(s string) bool { return strings.HasSuffix(s, " to secret:1") }) || !slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, "sent 8, took 8") }) {
		t.Errorf("on record are %q, %v", said, err)
	}
}

// A dial raises whether or not anybody answers: that nobody does is an answer too.
func TestADestinationThatDoesNotAnswerRaisesToo(t *testing.T) {
	f := new(far)
	w := open(t, withDestinations(f))
	w.submit(w.as("s-analyst", "UNCLASSIFIED"), reaching("SECRET", "gone:1"))
	r := w.run()
	_, err := r.Dial(context.Background(), "gone:1")
	want(t, err, redoubt.Unavailable)
	if got, _ := r.(*jobRun).now(); got != "SECRET" {
		t.Errorf("it is at %s", got)
	}
}

// With a connection to what lies below MAX the job is as one whose MAX that is: what lies beyond is as never there, so that nothing of it shows in what the
// job goes on to say, nor in that it falls silent.
func TestAConnectionSetsMAX(t *testing.T) {
	f := new(far)
	w := open(t, withDestinations(f))
	low, high := w.as("s-analyst", "UNCLASSIFIED"), w.as("s-analyst", "SECRET")
	w.put(low, "both", "below", "")
	w.put(high, "both", "above", "")
	w.put(high, "secret", "x", "")
	w.put(low, "hidden", "below", "")
	if _, err := w.DeleteObject(context.Background(), high, redoubt.DeleteObject{Name: redoubt.ObjectName{Bucket: "reports", Key: "hidden"}}); err != nil {
		t.Fatal(err)
	}
	w.submit(low, reaching("SECRET", "low:1", "secret:1", "gone:1"))
	r := w.run()
	c := dialled(t, r, "low:1")
	_, _, err := r.Open(context.Background(), "reports/secret")
	want(t, err, redoubt.NotFound)
	_, err = r.Stat(context.Background(), "reports/secret")
	want(t, err, redoubt.NotFound)
	for name, content := range map[string]string{"both": "below", "hidden": "below"} {
		if got := read(t, r, "reports/"+name); got != content {
			t.Errorf("of %s it reads %q", name, got)
		}
	}
	all, err := r.List(context.Background(), "reports")
	if err != nil || len(all) != 2 {
		t.Errorf("it lists %v, %v", all, err)
	}
	for _, name := range []string{"secret:1", "gone:1"} {
		_, err = r.Dial(context.Background(), name)
		want(t, err, redoubt.NotFound)
	}
	if got, _ := r.(*jobRun).now(); got != "UNCLASSIFIED" {
		t.Errorf("it is at %s", got)
	}
	if got, err := says(c, "still"); err != nil || got != "still" {
		t.Errorf("got %q, %v", got, err)
	}
	if log := string(r.(*jobRun).log); !strings.Contains(log, "low:1 the job's MAX has become UNCLASSIFIED") {
		t.Errorf("its log is %q", log)
	}
}

func TestAJobThatHasRisenSpeaksToNothingBelow(t *testing.T) {
	for of, rise := range map[string]func(*testing.T, redoubt.JobRun){
		"by what it reads":             func(t *testing.T, r redoubt.JobRun) { read(t, r, "reports/secret") },
		"by a destination":             func(t *testing.T, r redoubt.JobRun) { dialled(t, r, "secret:1") },
		"by one that does not answer":  func(_ *testing.T, r redoubt.JobRun) { r.Dial(context.Background(), "gone:1") },
		"by a list that shows a label": func(_ *testing.T, r redoubt.JobRun) { r.List(context.Background(), "reports") },
	} {
		t.Run(of, func(t *testing.T) {
			f := new(far)
			w := open(t, withDestinations(f))
			w.put(w.as("s-analyst", "SECRET"), "secret", "x", "")
			w.submit(w.as("s-analyst", "UNCLASSIFIED"), reaching("SECRET", "low:1", "secret:1", "gone:1"))
			r := w.run()
			rise(t, r)
			if _, err := r.Dial(context.Background(), "low:1"); redoubt.KindOf(err) != redoubt.Denied {
				t.Errorf("got %v", err)
			}
			if slices.Contains(f.dials, "192.0.2.1:1") {
				t.Error("it was dialled")
			}
		})
	}
}

// However a reading and a dialling fall together, a job that was told something is connected to nothing below it.
func TestNothingIsToldToAJobThatIsConnectedBelowIt(t *testing.T) {
	f := new(far)
	w := open(t, withDestinations(f))
	low := w.as("s-analyst", "UNCLASSIFIED")
	w.put(low, "both", "below", "")
	w.put(w.as("s-analyst", "SECRET"), "both", "above", "")
	w.submit(low, reaching("SECRET", "low:1"))
	r := w.run().(*jobRun)
	before, err := r.walk(context.Background(), "Open", redoubt.ActionGetObject, "reports", "both")
	if err != nil {
		t.Fatal(err)
	}
	defer before.close()
	dialled(t, r, "low:1")
	if f, err := before.find(context.Background(), "both"); !errors.Is(err, errLessThere) {
		t.Errorf("what was looked for before it connected is told: %+v, %v", f, err)
	}
	if at, _ := r.now(); at != "UNCLASSIFIED" {
		t.Errorf("it is at %s", at)
	}
	finish(t, r, redoubt.JobExit{})
	for range 50 {
		w.submit(low, reaching("SECRET", "low:1"))
		r := w.run()
		var wg sync.WaitGroup
		var told [4]string
		for i := range told {
			wg.Go(func() { told[i] = read(t, r, "reports/both") })
		}
		c, err := r.Dial(context.Background(), "low:1")
		wg.Wait()
		if connected := err == nil; connected == slices.Contains(told[:], "above") {
			t.Fatalf("connected: %v, and it read %q", err, told)
		}
		if c != nil {
			c.Close()
		}
		finish(t, r, redoubt.JobExit{})
	}
}

// A destination that is not there, that others alone were granted, and that lies beyond MAX are answered alike.
func TestADestinationThatAJobMayNotReachIsAsNeverNamed(t *testing.T) {
	f := new(far)
	w := open(t, withDestinations(f))
	who := w.as("s-analyst", "UNCLASSIFIED")
	told := map[string]bool{}
	for _, name := range []string{"never:1", "others:1", "top:1", "secret:2", "192.0.2.2:1"} {
		_, err := w.SubmitJob(context.Background(), who, w.jobSpec(who, reaching("SECRET", name)))
		want(t, err, redoubt.Invalid)
		told[strings.ReplaceAll(err.Error()+reason(err), name, "NAME")] = true
	}
	if len(told) != 1 {
		t.Errorf("they are told apart: %v", told)
	}
	_, err := w.SubmitJob(context.Background(), w.as("s-analyst", "SECRET"), w.jobSpec(who, reaching("", "low:1")))
	want(t, err, redoubt.Denied) // it would be told what lies above it
	_, err = w.SubmitJob(context.Background(), who, w.jobSpec(who, reaching("SECRET", "secret:1", "secret:1")))
	want(t, err, redoubt.Invalid)
	w.submit(who, reaching("SECRET", "secret:1"))
	r := w.run()
	_, err = r.Dial(context.Background(), "low:1") // which is there, and not this job's
	want(t, err, redoubt.NotFound)
	if len(f.dials) != 0 {
		t.Errorf("it dialled %q", f.dials)
	}
}

func TestAConnectionEndsWithTheRightToIt(t *testing.T) {
	f := new(far)
	w := open(t, withDestinations(f))
	who := w.as("s-analyst", "SECRET")
	w.submit(who, reaching("", "secret:1"))
	r := w.run()
	c := dialled(t, r, "secret:1")
	if _, err := says(c, "a"); err != nil {
		t.Fatal(err)
	}
	if err := w.RevokeCredential(context.Background(), who, who.ID); err != nil {
		t.Fatal(err)
	}
	if got, err := says(c, "b"); err == nil {
		t.Errorf("it heard %q with a credential that was revoked", got)
	}
	<-f.ended
	_, err := r.Dial(context.Background(), "secret:1")
	want(t, err, redoubt.Unauthenticated)
}

func TestAnAttemptSaysAndHearsSoMuch(t *testing.T) {
	f := new(far)
	w := open(t, withDestinations(f))
	w.submit(w.as("s-analyst", "SECRET"), reaching("", "few:1", "secret:1"))
	r := w.run()
	c := dialled(t, r, "few:1")
	if got, err := says(c, "12345"); err != nil || got != "12345" {
		t.Fatalf("ten bytes: got %q, %v", got, err)
	}
	if _, err := says(c, "x"); err == nil {
		t.Error("the eleventh byte passed")
	}
	<-f.ended
	_, err := r.Dial(context.Background(), "few:1")
	want(t, err, redoubt.QuotaExceeded)
	for range redoubt.MaxJobConnections - 1 {
		dialled(t, r, "secret:1")
	}
	c.Close()
	last := dialled(t, r, "secret:1")
	_, err = r.Dial(context.Background(), "secret:1")
	want(t, err, redoubt.QuotaExceeded)
	last.Close()
	dialled(t, r, "secret:1")
}

func TestConnectionsEndWithTheAttempt(t *testing.T) {
	f := new(far)
	w := open(t, withDestinations(f))
	w.submit(w.as("s-analyst", "SECRET"), reaching("", "secret:1"))
	r := w.run()
	c := dialled(t, r, "secret:1")
	finish(t, r, redoubt.JobExit{})
	<-f.ended
	if _, err := says(c, "x"); err == nil {
		t.Error("it could say something after the job's end")
	}
}

// What its originator alone may let leave does not leave over a connection either, though its label is dominated.
func TestWhatNeedsAConsentIsNotSaidToADestination(t *testing.T) {
	f := new(far)
	w := open(t, withDestinations(f))
	w.put(w.as("s-analyst", "SECRET//ORCON"), "held", "x", "")
	w.submit(w.as("s-analyst", "SECRET"), reaching("SECRET//ORCON", "secret:1"))
	r := w.run()
	c := dialled(t, r, "secret:1")
	if got := read(t, r, "reports/held"); got != "x" {
		t.Fatalf("got %q", got)
	}
	<-f.ended
	if _, err := says(c, "x"); err == nil {
		t.Error("it could say it")
	}
	_, err := r.Dial(context.Background(), "secret:1")
	want(t, err, redoubt.Denied)
}

// What a job has read that is reported as a spill is told to nobody any more.
func TestASpillCutsTheConnectionsOfWhoHasReadIt(t *testing.T) {
	f := new(far)
	w := open(t, withDestinations(f))
	who := w.as("s-analyst", "SECRET")
	v := w.put(who, "plan", "the plan", "")
	w.submit(who, reaching("", "secret:1"))
	r := w.run()
	c := dialled(t, r, "secret:1")
	if got := read(t, r, "reports/plan"); got != "the plan" {
		t.Fatalf("got %q", got)
	}
	if _, err := says(c, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.reported("plan", v.ID, true); err != nil {
		t.Fatal(err)
	}
	<-f.ended
	if _, err := says(c, "y"); err == nil {
		t.Error("it could say something after the report")
	}
	_, err := r.Dial(context.Background(), "secret:1")
	want(t, err, redoubt.Denied)
}

func TestTheMachinesOwnKernelIsForWhomItWasGrantedTo(t *testing.T) {
	w := open(t, func(o *Options) { o.Runc = []redoubt.SubjectName{"s-analyst"} })
	trusted := func(q *redoubt.SubmitJob) { q.Driver, q.Image, q.Module = redoubt.DriverRunc, "reports/tool:1", "" }
	who := w.as("u-analyst", "UNCLASSIFIED")
	_, err := w.SubmitJob(context.Background(), who, w.jobSpec(who, trusted))
	want(t, err, redoubt.Denied)
	who = w.as("s-analyst", "SECRET")
	j := w.submit(who, trusted)
	w.o.Runc = nil // an estate that grants it no more
	w.restart(false)
	other := w.submit(who, func(*redoubt.SubmitJob) {})
	if r := w.run(); r.Job().ID != other.ID {
		t.Fatalf("it runs: %v", r.Job())
	}
	if got := w.job(who, j.ID); got.State != redoubt.JobFailed || !strings.Contains(got.Why, "grant") {
		t.Errorf("got %+v", got)
	}
}

func TestADestinationOfTheOptionsHasANameAndALabel(t *testing.T) {
	p, err := label.Builtin("USA")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []redoubt.Destination{{}, {Name: "a:1"}, {Name: "A:1", Label: "SECRET"}, {Name: "a:1", Label: "NOTHING"}} {
		if _, err := newGranted(Options{Policy: p, Destinations: []redoubt.Destination{d}}); err == nil {
			t.Errorf("%+v was taken", d)
		}
	}
	if _, err := newGranted(Options{Policy: p, Destinations: []redoubt.Destination{{Name: "a:1", Label: "SECRET"}, {Name: "a:1", Label: "SECRET"}}}); err == nil {
		t.Error("one name twice was taken")
	}
}
