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
	mu     sync.Mutex
	told   strings.Builder
	dials  []string
	resets int
	ended  chan struct{} // one for each connection that ended
}

type farEnd struct {
	net.Conn
	of *far
}

// SetLinger is what a connection over TCP is told before it is reset.
func (e farEnd) SetLinger(sec int) error {
	e.of.mu.Lock()
	defer e.of.mu.Unlock()
	if sec == 0 {
		e.of.resets++
	}
	return nil
}

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
	return farEnd{ours, f}, nil
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

// A job that could read beyond a destination would tell it so by when it falls silent, or by when its next attempt connects.
func TestAJobThatConnectsHasItsDestinationsLabelForMAX(t *testing.T) {
	f := new(far)
	w := open(t, withDestinations(f))
	who := w.as("s-analyst", "UNCLASSIFIED")
	submitted := func(max string, names ...string) error {
		_, err := w.SubmitJob(context.Background(), who, w.jobSpec(who, reaching(max, names...)))
		return err
	}
	for _, c := range []struct {
		max   string
		names []string
	}{{"SECRET", []string{"low:1"}}, {"SECRET", []string{"secret:1", "low:1"}}, {"CONFIDENTIAL", []string{"low:1"}}} {
		if err := submitted(c.max, c.names...); redoubt.KindOf(err) != redoubt.Invalid {
			t.Errorf("MAX %s and %q: got %v", c.max, c.names, err)
		}
	}
	if err := submitted("", "low:1"); err != nil {
		t.Error(err)
	}
	if err := submitted("SECRET", "secret:1", "gone:1"); err != nil {
		t.Error(err)
	}
	r := w.run() // of the first; its destination is given another label meanwhile
	w.granted.destinations["low:1"].label = w.granted.destinations["secret:1"].label
	_, err := r.Dial(context.Background(), "low:1")
	want(t, err, redoubt.NotFound)
	if len(f.dials) != 0 {
		t.Errorf("it dialled %q", f.dials)
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
	dialled(t, r, "secret:1").Close()
	r.(*jobRun).dials.Store(redoubt.MaxJobDials)
	_, err = r.Dial(context.Background(), "secret:1")
	want(t, err, redoubt.QuotaExceeded)
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
	if f.resets != 0 {
		t.Error("what it said last may be lost")
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
	if f.resets != 1 {
		t.Errorf("%d connections were reset, want this one", f.resets)
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
	var said []string
	if err := w.SearchAudit(context.Background(), w.as("officer", ""), redoubt.AuditQuery{Action: redoubt.ActionSubmitJob}, func(a redoubt.AuditRecord) error { said = append(said, a.Detail); return nil }); err != nil || !slices.Contains(said, "job "+string(j.ID)+" on runc") {
		t.Errorf("on record are %q, %v", said, err)
	}
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
