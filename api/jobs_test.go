package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"redoubt"
	"redoubt/faketime"
)

// jobFake is the services of jobs and schedules. It notes what it was asked, as whom, and answers with fail when that is set.
type jobFake struct {
	*fake
	waits bool // what waits does so until it may no longer
}

func (f jobFake) PutModule(ctx context.Context, who redoubt.Credential, digest string, module io.Reader) error {
	b, _ := io.ReadAll(module)
	return f.note(ctx, who, "put module", digest, string(b))
}
func (f jobFake) HasModule(ctx context.Context, who redoubt.Credential, digest string) (bool, error) {
	return digest == "ab", f.note(ctx, who, "has module", digest)
}
func (f jobFake) SubmitJob(ctx context.Context, who redoubt.Credential, q redoubt.SubmitJob) (redoubt.Job, error) {
	return redoubt.Job{ID: "J", State: redoubt.JobSubmitted}, f.note(ctx, who, "submit", q.Module, fmt.Sprint(q.Args, q.In, q.Out), q.Max, q.From)
}
func (f jobFake) Jobs(ctx context.Context, who redoubt.Credential, q redoubt.ListJobs) ([]redoubt.Job, error) {
	return nil, f.note(ctx, who, "jobs", string(q.State), string(q.After), fmt.Sprint(q.Max))
}
func (f jobFake) Job(ctx context.Context, who redoubt.Credential, id redoubt.JobID) (redoubt.Job, error) {
	return redoubt.Job{ID: id}, f.note(ctx, who, "job", string(id))
}
func (f jobFake) WaitJob(ctx context.Context, who redoubt.Credential, id redoubt.JobID, not redoubt.JobState) (redoubt.Job, error) {
	if f.waits {
		<-ctx.Done()
	}
	return redoubt.Job{ID: id}, f.note(ctx, who, "wait", string(id), string(not))
}
func (f jobFake) JobLog(ctx context.Context, who redoubt.Credential, id redoubt.JobID, from int64, wait bool) ([]byte, int64, bool, error) {
	if f.waits {
		<-ctx.Done()
	}
	return []byte("said"), from + 4, true, f.note(ctx, who, "log", string(id), fmt.Sprint(from, wait))
}
func (f jobFake) CancelJob(ctx context.Context, who redoubt.Credential, id redoubt.JobID) error {
	return f.note(ctx, who, "cancel", string(id))
}
func (f jobFake) PutSchedule(ctx context.Context, who redoubt.Credential, s redoubt.Schedule) (redoubt.Schedule, error) {
	return s, f.note(ctx, who, "put schedule", string(s.Name), s.Cron, fmt.Sprint(s.On), s.Job.Module)
}
func (f jobFake) Schedules(ctx context.Context, who redoubt.Credential) ([]redoubt.Schedule, error) {
	return nil, f.note(ctx, who, "schedules")
}
func (f jobFake) RemoveSchedule(ctx context.Context, who redoubt.Credential, name redoubt.ScheduleName) error {
	return f.note(ctx, who, "remove schedule", string(name))
}

func withJobs(t testing.TB, f jobFake) Options {
	o := options(t, f.fake)
	o.Jobs, o.Schedules = f, f
	return o
}

const (
	emptyJob = `"by":"","made":"0001-01-01T00:00:00Z","start":"","max":"","spec":{},`
	nullJob  = `{"id":"J",` + emptyJob + `"state":"","exit_code":0}`
)

// jobCalls is every request about jobs and schedules, as calls is of the others.
var jobCalls = []struct {
	method, path, body, asked string
	status                    int
	answer                    string
}{
	{"GET", "/v1/modules/ab", "", "ada has module ab", 200, `{"there":true}`},
	{"GET", "/v1/modules/cd", "", "ada has module cd", 200, `{"there":false}`},
	{"PUT", "/v1/modules/ab", "content", "ada put module ab content", 204, ``},
	{"POST", "/v1/jobs", `{"module":"ab","args":["a"],"in":[{"bucket":"b","prefix":"p/"}],"out":{"bucket":"c"},"max":"SECRET","from":"schedule x"}`, "ada submit ab [a] [{b p/}] {c } SECRET schedule x", 201, `{"id":"J",` + emptyJob + `"state":"submitted","exit_code":0}`},
	{"GET", "/v1/jobs", "", "ada jobs   0", 200, `{"jobs":[]}`},
	{"GET", "/v1/jobs?state=running&after=J&max=7", "", "ada jobs running J 7", 200, `{"jobs":[]}`},
	{"GET", "/v1/jobs/J", "", "ada job J", 200, nullJob},
	{"GET", "/v1/jobs/J/wait?not=running", "", "ada wait J running", 200, nullJob},
	{"GET", "/v1/jobs/J/log?from=3&wait=true", "", "ada log J 3 true", 200, `said`},
	{"GET", "/v1/jobs/J/log", "", "ada log J 0 false", 200, `said`},
	{"DELETE", "/v1/jobs/J", "", "ada cancel J", 204, ``},
	{"GET", "/v1/schedules", "", "ada schedules", 200, `{"schedules":[]}`},
	{"PUT", "/v1/schedules/S", `{"cron":"* * * * *","job":{"module":"ab"}}`, "ada put schedule S * * * * * <nil> ab", 200, `{"name":"S","by":"","label":"","cron":"* * * * *","job":{"module":"ab"},"made":"0001-01-01T00:00:00Z"}`},
	{"DELETE", "/v1/schedules/S", "", "ada remove schedule S", 204, ``},
}

// askJobs sends one of them, a module as bytes.
func askJobs(h http.Handler, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+good)
	r.Header.Set("Content-Type", "application/json")
	if strings.HasPrefix(path, "/v1/modules/") {
		r.Header.Set("Content-Type", octets)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestEveryCallAboutJobsAsksItsService(t *testing.T) {
	doc, err := os.ReadFile("../docs/spec/api.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range jobCalls {
		f := jobFake{fake: &fake{}}
		w := askJobs(New(withJobs(t, f)), c.method, c.path, c.body)
		if w.Code != c.status || strings.Join(f.asked, ";") != c.asked || strings.TrimSuffix(w.Body.String(), "\n") != c.answer {
			t.Errorf("%s %s: got %d %s and asked %q, want %d %s and %q", c.method, c.path, w.Code, w.Body, f.asked, c.status, c.answer, c.asked)
		}
		path, _, _ := strings.Cut(c.path, "?")
		path = regexp.MustCompile(`/(ab|cd)$`).ReplaceAllString(strings.NewReplacer("/J", "/{id}", "/S", "/{name}").Replace(path), "/{digest}")
		if !strings.Contains(string(doc), "`"+c.method+" "+path) {
			t.Errorf("the document does not name %s %s", c.method, path)
		}
		for name, auth := range map[string]string{"none": "", "wrong": "Bearer rdt_wrong"} {
			f := jobFake{fake: &fake{}}
			r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
			r.Header.Set("Authorization", auth)
			w := httptest.NewRecorder()
			New(withJobs(t, f)).ServeHTTP(w, r)
			if w.Code != http.StatusUnauthorized || len(f.asked) > 0 {
				t.Errorf("%s %s with %s: %d, asked %q", c.method, c.path, name, w.Code, f.asked)
			}
		}
		for _, kind := range []redoubt.Kind{redoubt.NotFound, redoubt.Denied, redoubt.QuotaExceeded} {
			f := jobFake{fake: &fake{fail: &redoubt.Error{Op: "op", Object: "secret-name", Kind: kind, Rule: "a-rule", Hint: "a hint"}}}
			w := askJobs(New(withJobs(t, f)), c.method, c.path, c.body)
			if w.Code != kinds[kind].status || strings.Contains(w.Body.String(), "secret-name") || strings.Contains(w.Body.String(), "said") || w.Header().Get(LogNextHeader) != "" {
				t.Errorf("%s %s, %v: %d %s", c.method, c.path, kind, w.Code, w.Body)
			}
		}
	}
}

func TestANodeThatRunsNoJobsAnswersAsOfAPathThatIsNone(t *testing.T) {
	h := New(options(t, &fake{}))
	want := ask(h, "GET", "/v1/nothing", "")
	for _, c := range jobCalls {
		if w := askJobs(h, c.method, c.path, c.body); w.Code != 404 || w.Body.String() != want.Body.String() {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
}

func TestHostileRequestsAboutJobsReachNoService(t *testing.T) {
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/v1/jobs", ``, 400},
		{"POST", "/v1/jobs", `{"module":"ab","modul":"cd"}`, 400},
		{"POST", "/v1/jobs", `{"module":"ab","Module":"cd"}`, 400},
		{"POST", "/v1/jobs", `{"module":"ab"}{}`, 400},
		{"POST", "/v1/jobs", `{"seconds":1e30}`, 400},
		{"POST", "/v1/jobs", `{"limits":{"memory":"all"}}`, 400},
		{"POST", "/v1/jobs", `{"limits":{"cpus":NaN}}`, 400},
		{"POST", "/v1/jobs", `{"args":["` + strings.Repeat("x", MaxBodyBytes) + `"]}`, 413},
		{"POST", "/v1/jobs", `{"in":` + strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth) + `}`, 400},
		{"GET", "/v1/jobs?max=0", "", 400},
		{"GET", "/v1/jobs?max=1001", "", 400},
		{"GET", "/v1/jobs?max=-1", "", 400},
		{"GET", "/v1/jobs?max=x", "", 400},
		{"GET", "/v1/jobs/J/log?from=x", "", 400},
		{"GET", "/v1/jobs/J/log?from=99999999999999999999", "", 400},
		{"PUT", "/v1/schedules/S", `{"name":"other","job":{}}`, 400},
		{"PUT", "/v1/schedules/S", `{"by":"bob","job":{}}`, 400},
		{"PUT", "/v1/schedules/S", `{"on":"s3://b"}`, 400},
		{"PUT", "/v1/jobs", `{}`, 404},
		{"POST", "/v1/jobs/J", `{}`, 404},
		{"GET", "/v1/jobs/J/files", "", 404},
		{"DELETE", "/v1/modules/ab", "", 404},
	} {
		f := jobFake{fake: &fake{}}
		w := askJobs(New(withJobs(t, f)), c.method, c.path, c.body)
		if w.Code != c.status || len(f.asked) > 0 {
			t.Errorf("%s %s %.60s: got %d %.200s and asked %q, want %d", c.method, c.path, c.body, w.Code, w.Body, f.asked, c.status)
		}
	}
	for _, typ := range []string{"", "application/json", "text/plain", "application/wasm"} {
		f := jobFake{fake: &fake{}}
		r := httptest.NewRequest("PUT", "/v1/modules/ab", strings.NewReader("x"))
		r.Header.Set("Authorization", "Bearer "+good)
		r.Header.Set("Content-Type", typ)
		w := httptest.NewRecorder()
		New(withJobs(t, f)).ServeHTTP(w, r)
		if w.Code != 400 || len(f.asked) > 0 {
			t.Errorf("a module as %q: %d", typ, w.Code)
		}
	}
}

func TestALogSaysWhereItGoesOn(t *testing.T) {
	w := askJobs(New(withJobs(t, jobFake{fake: &fake{}})), "GET", "/v1/jobs/J/log?from=6", "")
	if w.Header().Get(LogNextHeader) != "10" || w.Header().Get(LogMoreHeader) != "true" || w.Header().Get("Content-Type") != octets {
		t.Errorf("got %v", w.Header())
	}
}

func TestWhoWaitsForAJobIsAnsweredInTime(t *testing.T) {
	for _, path := range []string{"/v1/jobs/J/wait?not=submitted", "/v1/jobs/J/log?wait=true"} {
		faketime.Test(t, func(t *testing.T) {
			if w := askJobs(New(withJobs(t, jobFake{fake: &fake{}, waits: true})), "GET", path, ""); w.Code != 200 {
				t.Errorf("after a while %s: %d", path, w.Code)
			}
			stopping, stop := context.WithCancel(t.Context())
			stop()
			o := withJobs(t, jobFake{fake: &fake{}, waits: true})
			o.Stopping = stopping
			if w := askJobs(New(o), "GET", path, ""); w.Code != 200 {
				t.Errorf("of a node that stops %s: %d", path, w.Code)
			}
		})
	}
}
