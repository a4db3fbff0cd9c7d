package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"redoubt"
	"redoubt/api"
)

// jobNode runs jobs, so to say: it notes what it is told.
type jobNode struct{ *node }

var aJob = redoubt.Job{ID: "J", By: "ada", Made: noon, Start: "SECRET", Max: "SECRET", Spec: redoubt.SubmitJob{Module: "ab", Args: []string{"a b"}, In: []redoubt.JobInput{{Bucket: "b", Prefix: "p/ü"}}},
	State: redoubt.JobFailed, Label: "SECRET", Attempt: 2, Began: noon, Ended: noon, ExitCode: 3, Why: "why", Outputs: []redoubt.JobOutput{{Key: "k", Version: "v", Bytes: 7}}, LogBytes: 9}

func (n jobNode) PutModule(_ context.Context, _ redoubt.Credential, digest string, module io.Reader) error {
	b, err := io.ReadAll(module)
	return errors.Join(err, n.say("put module", digest, string(b)))
}
func (n jobNode) HasModule(_ context.Context, _ redoubt.Credential, digest string) (bool, error) {
	return true, n.say("has module", digest)
}
func (n jobNode) SubmitJob(_ context.Context, _ redoubt.Credential, q redoubt.SubmitJob) (redoubt.Job, error) {
	return aJob, n.say("submit", q)
}
func (n jobNode) Jobs(_ context.Context, _ redoubt.Credential, q redoubt.ListJobs) ([]redoubt.Job, error) {
	return []redoubt.Job{aJob}, n.say("jobs", q)
}
func (n jobNode) Job(_ context.Context, _ redoubt.Credential, id redoubt.JobID) (redoubt.Job, error) {
	return aJob, n.say("job", id)
}
func (n jobNode) WaitJob(_ context.Context, _ redoubt.Credential, id redoubt.JobID, not redoubt.JobState) (redoubt.Job, error) {
	return aJob, n.say("wait", id, not)
}
func (n jobNode) JobLog(_ context.Context, _ redoubt.Credential, id redoubt.JobID, from int64, wait bool) ([]byte, int64, bool, error) {
	return []byte("said\n\x00"), from + 6, true, n.say("log", id, from, wait)
}
func (n jobNode) CancelJob(_ context.Context, _ redoubt.Credential, id redoubt.JobID) error {
	return n.say("cancel", id)
}
func (n jobNode) PutSchedule(_ context.Context, _ redoubt.Credential, s redoubt.Schedule) (redoubt.Schedule, error) {
	return s, n.say("put schedule", s)
}
func (n jobNode) Schedules(context.Context, redoubt.Credential) ([]redoubt.Schedule, error) {
	return []redoubt.Schedule{{Name: "s", Next: noon}}, n.say("schedules")
}
func (n jobNode) RemoveSchedule(_ context.Context, _ redoubt.Credential, name redoubt.ScheduleName) error {
	return n.say("remove schedule", name)
}

func (n jobNode) serve(t *testing.T) *Client {
	t.Helper()
	srv := httptest.NewTLSServer(api.New(api.Options{Auth: n, Credentials: n, People: n, Grants: n, Audit: n, Keys: n, Maintenance: n, Jobs: n, Schedules: n}))
	t.Cleanup(srv.Close)
	c, err := New(srv.URL, roots(srv), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	m, err := c.Mint(t.Context(), seed("ada"), "ada", "secret", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	return c.With(m.Token)
}

func TestANodeHearsOfJobsWhatWasMeant(t *testing.T) {
	ctx, n := t.Context(), jobNode{newNode(t)}
	c := n.serve(t)
	schedule := redoubt.Schedule{Name: "s", Cron: "* * * * *", On: &redoubt.JobInput{Bucket: "b"}, Job: aJob.Spec}
	for name, m := range map[string]struct {
		call func() (any, error)
		said []any
		want any
	}{
		"PutModule":      {func() (any, error) { return nil, c.PutModule(ctx, "a/b", strings.NewReader("content")) }, []any{"put module", "a/b", "content"}, nil},
		"HasModule":      {func() (any, error) { return c.HasModule(ctx, "a b") }, []any{"has module", "a b"}, true},
		"SubmitJob":      {func() (any, error) { return c.SubmitJob(ctx, aJob.Spec) }, []any{"submit", aJob.Spec}, aJob},
		"Jobs":           {func() (any, error) { return c.Jobs(ctx, redoubt.ListJobs{State: "failed", After: "K&max=9", Max: 7}) }, []any{"jobs", redoubt.ListJobs{State: "failed", After: "K&max=9", Max: 7}}, []redoubt.Job{aJob}},
		"Jobs, all":      {func() (any, error) { return c.Jobs(ctx, redoubt.ListJobs{}) }, []any{"jobs", redoubt.ListJobs{}}, []redoubt.Job{aJob}},
		"Job":            {func() (any, error) { return c.Job(ctx, "../J?") }, []any{"job", redoubt.JobID("../J?")}, aJob},
		"WaitJob":        {func() (any, error) { return c.WaitJob(ctx, "J", "submitted") }, []any{"wait", redoubt.JobID("J"), redoubt.JobSubmitted}, aJob},
		"CancelJob":      {func() (any, error) { return nil, c.CancelJob(ctx, "J") }, []any{"cancel", redoubt.JobID("J")}, nil},
		"PutSchedule":    {func() (any, error) { return c.PutSchedule(ctx, schedule) }, []any{"put schedule", schedule}, schedule},
		"Schedules":      {func() (any, error) { return c.Schedules(ctx) }, []any{"schedules"}, []redoubt.Schedule{{Name: "s", Next: noon}}},
		"RemoveSchedule": {func() (any, error) { return nil, c.RemoveSchedule(ctx, "s") }, []any{"remove schedule", redoubt.ScheduleName("s")}, nil},
		"JobLog": {func() (any, error) {
			text, next, more, err := c.JobLog(ctx, "J", 4, true)
			return []any{string(text), next, more}, err
		}, []any{"log", redoubt.JobID("J"), int64(4), true}, []any{"said\n\x00", int64(10), true}},
	} {
		n.said, n.fail = nil, nil
		got, err := m.call()
		if err != nil || !reflect.DeepEqual(got, m.want) || !reflect.DeepEqual(n.said, m.said) {
			t.Errorf("%s: got %+v %v, want %+v; the node heard %+v, want %+v", name, got, err, m.want, n.said, m.said)
		}
		n.fail = &redoubt.Error{Op: "op", Kind: redoubt.Denied, Rule: "a-rule", Hint: "a hint"}
		_, err = m.call()
		var told *redoubt.Error
		if !errors.Is(err, redoubt.Denied) || !errors.As(err, &told) || told.Rule != "a-rule" || told.Hint != "a hint" {
			t.Errorf("%s, refused: got %v", name, err)
		}
	}
}

// A node that is not what it should be gets no memory for a log, and none that goes nowhere.
func TestALogIsTakenFromANodeWithinLimits(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter){
		"no next":    func(w http.ResponseWriter) { w.Write([]byte("x")) },
		"nonsense":   func(w http.ResponseWriter) { w.Header().Set(api.LogNextHeader, "x"); w.Write([]byte("x")) },
		"too much":   func(w http.ResponseWriter) { w.Header().Set(api.LogNextHeader, "1"); flood(w) },
		"goes back":  func(w http.ResponseWriter) { w.Header().Set(api.LogNextHeader, "1"); w.Write([]byte("x")) },
		"leaps":      func(w http.ResponseWriter) { w.Header().Set(api.LogNextHeader, "99"); w.Write([]byte("x")) },
		"is no text": func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError); flood(w) },
	} {
		srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w) }))
		c, err := New(srv.URL, roots(srv), "")
		if err != nil {
			t.Fatal(err)
		}
		if text, next, _, err := c.JobLog(t.Context(), "J", 10, false); err == nil {
			t.Errorf("%s: got %d bytes and goes on at %d", name, len(text), next)
		}
		c.Close()
		srv.Close()
	}
}

func flood(w io.Writer) {
	b := bytes.Repeat([]byte("x"), 1<<20)
	for range 100 {
		if _, err := w.Write(b); err != nil {
			return
		}
	}
}
