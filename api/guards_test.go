package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/faketime"
)

// guardFake is every service of guards. It notes what it was asked, as whom, and answers with fail when that is set.
type guardFake struct {
	*fake
	hand func(ctx context.Context, w io.Writer) (redoubt.BundleMark, error)
}

func (f guardFake) RequestRelease(ctx context.Context, who redoubt.Credential, q redoubt.RequestRelease) (redoubt.Release, error) {
	return redoubt.Release{ID: "ab"}, f.note(ctx, who, "request", q.Name.String(), string(q.Version), string(q.To), q.Label, q.Key, fmt.Sprint(q.Keep), q.Reason, q.Life.String())
}
func (f guardFake) Releases(ctx context.Context, who redoubt.Credential, q redoubt.ListReleases) ([]redoubt.Release, error) {
	return nil, f.note(ctx, who, "list", string(q.State), string(q.After), fmt.Sprint(q.Max))
}
func (f guardFake) Release(ctx context.Context, who redoubt.Credential, id redoubt.ReleaseID) (redoubt.Release, error) {
	return redoubt.Release{ID: id}, f.note(ctx, who, "show", string(id))
}
func (f guardFake) OpenRebuilt(ctx context.Context, who redoubt.Credential, id redoubt.ReleaseID) (redoubt.Object, error) {
	return text("rebuilt"), f.note(ctx, who, "open", string(id))
}
func (f guardFake) ApproveRelease(ctx context.Context, who redoubt.Credential, id redoubt.ReleaseID, sig string) (redoubt.Release, error) {
	return redoubt.Release{ID: id}, f.note(ctx, who, "approve", string(id), sig)
}
func (f guardFake) ConsentRelease(ctx context.Context, who redoubt.Credential, id redoubt.ReleaseID, sig string) (redoubt.Release, error) {
	return redoubt.Release{ID: id}, f.note(ctx, who, "consent", string(id), sig)
}
func (f guardFake) DenyRelease(ctx context.Context, who redoubt.Credential, id redoubt.ReleaseID, reason string) (redoubt.Release, error) {
	return redoubt.Release{ID: id}, f.note(ctx, who, "deny", string(id), reason)
}
func (f guardFake) PendingReleases(ctx context.Context, who redoubt.Credential, s redoubt.ReleaseState) ([]redoubt.ReleaseID, error) {
	return nil, f.note(ctx, who, "pending", string(s))
}
func (f guardFake) FetchRelease(ctx context.Context, who redoubt.Credential, id redoubt.ReleaseID) (redoubt.ReleaseWork, redoubt.Object, error) {
	return redoubt.ReleaseWork{}, text("source"), f.note(ctx, who, "fetch", string(id))
}
func (f guardFake) SubmitRelease(ctx context.Context, who redoubt.Credential, id redoubt.ReleaseID, v redoubt.ReleaseVerdict, content io.Reader) error {
	b, _ := io.ReadAll(content)
	return f.note(ctx, who, "submit", string(id), v.Rules, string(b))
}
func (f guardFake) FetchApproved(ctx context.Context, who redoubt.Credential, id redoubt.ReleaseID) (redoubt.ReleasePackage, redoubt.Object, error) {
	return redoubt.ReleasePackage{}, text("approved"), f.note(ctx, who, "approved", string(id))
}
func (f guardFake) FinishRelease(ctx context.Context, who redoubt.Credential, id redoubt.ReleaseID, r *redoubt.ReleaseReceipt, refused string) error {
	return f.note(ctx, who, "finish", string(id), fmt.Sprint(r != nil), refused)
}
func (f guardFake) AcceptRelease(ctx context.Context, who redoubt.Credential, p redoubt.ReleasePackage, content io.Reader) (redoubt.ReleaseReceipt, error) {
	b, _ := io.ReadAll(content)
	return redoubt.ReleaseReceipt{}, f.note(ctx, who, "accept", string(p.Statement.ID), string(b))
}
func (f guardFake) ReleaseTaken(ctx context.Context, who redoubt.Credential, p redoubt.ReleasePublic) (redoubt.ReleaseReceipt, bool, error) {
	return redoubt.ReleaseReceipt{}, p.SizeBytes > 0, f.note(ctx, who, "taken", string(p.ID))
}
func (f guardFake) HandRaise(ctx context.Context, who redoubt.Credential, peer redoubt.NodeName, have redoubt.BundleMark, w io.Writer) (redoubt.BundleMark, error) {
	if err := f.note(ctx, who, "hand", string(peer), fmt.Sprint(have.Serial)); err != nil || f.hand == nil {
		return redoubt.BundleMark{}, err
	}
	return f.hand(ctx, w)
}
func (f guardFake) HandAgain(ctx context.Context, who redoubt.Credential, peer redoubt.NodeName, have redoubt.BundleMark, serial uint64, w io.Writer) (redoubt.BundleMark, error) {
	if err := f.note(ctx, who, "again", string(peer), fmt.Sprint(have.Serial), fmt.Sprint(serial)); err != nil || f.hand == nil {
		return redoubt.BundleMark{}, err
	}
	return f.hand(ctx, w)
}
func (f guardFake) TakeRaise(ctx context.Context, who redoubt.Credential, r io.Reader) (redoubt.BundleImport, error) {
	b, _ := io.ReadAll(r)
	return redoubt.BundleImport{Peer: "low", Serial: 3, ID: "id", Counts: []redoubt.BundleCount{{Label: "SECRET"}}}, f.note(ctx, who, "take", string(b))
}
func (f guardFake) Raises(ctx context.Context, who redoubt.Credential) ([]redoubt.RaiseStatus, error) {
	return nil, f.note(ctx, who, "raises")
}
func (f guardFake) RaiseAnew(ctx context.Context, who redoubt.Credential, peer redoubt.NodeName) error {
	return f.note(ctx, who, "anew", string(peer))
}

// text is content in memory.
type text string

func (s text) Version() redoubt.Version      { return redoubt.Version{SizeBytes: int64(len(s))} }
func (s text) Close() error                  { return nil }
func (s text) Reader(int64, int64) io.Reader { return strings.NewReader(string(s)) }
func guardOptions(t testing.TB, f guardFake) Options {
	o := options(t, f.fake)
	o.Releases, o.ReleaseSource, o.ReleaseTarget, o.RaiseSource, o.RaiseTarget, o.Raises = f, f, f, f, f, f
	return o
}

// guardCalls is every request about releases and raises.
var guardCalls = []struct {
	method, path, told, body string // told: what goes in ReleaseHeader, with a body that is content; "" with a body of JSON
	asked                    string
	status                   int
	answer                   string
}{
	{"GET", "/v1/releases", "", "", "ada list   0", 200, `{"releases":[]}`},
	{"GET", "/v1/releases?state=review&after=ab&max=5", "", "", "ada list review ab 5", 200, `{"releases":[]}`},
	{"POST", "/v1/releases", "", `{"bucket":"b","key":"k","version":"v","to":"low","label":"U","as":"n","keep":["m"],"reason":"r","seconds":60}`, "ada request b/k v low U n [m] r 1m0s", 201, "*"},
	{"GET", "/v1/releases/ab", "", "", "ada show ab", 200, "*"},
	{"GET", "/v1/releases/ab/content", "", "", "ada open ab", 200, "rebuilt"},
	{"POST", "/v1/releases/ab/approve", "", `{"signature":"s"}`, "ada approve ab s", 200, "*"},
	{"POST", "/v1/releases/ab/consent", "", `{"signature":"s"}`, "ada consent ab s", 200, "*"},
	{"POST", "/v1/releases/ab/deny", "", `{"reason":"r"}`, "ada deny ab r", 200, "*"},
	{"GET", "/v1/raises", "", "", "ada raises", 200, `{"raises":[]}`},
	{"POST", "/v1/raises/high/anew", "", "", "ada anew high", 204, ""},
	{"GET", "/v1/guard/releases?state=requested", "", "", "ada pending requested", 200, `{"releases":[]}`},
	{"GET", "/v1/guard/releases/ab/source", "", "", "ada fetch ab", 200, "source"},
	{"POST", "/v1/guard/releases/ab/verdict", `{"content_type":"","rules":"r"}`, "content", "ada submit ab r content", 204, ""},
	{"GET", "/v1/guard/releases/ab/approved", "", "", "ada approved ab", 200, "approved"},
	{"POST", "/v1/guard/releases/ab/finished", "", `{"receipt":null,"refused":"no"}`, "ada finish ab false no", 204, ""},
	{"POST", "/v1/guard/accept", `{"statement":{"estate":"","id":"ab","from":"","to":"","requester":"","bucket":"","key":"","content_type":"","size":0,"sha256":"","label":"","policy":"","rules":"","expires":"2026-03-01T12:00:00Z"},"approvals":[]}`, "content", "ada accept ab content", 200, "*"},
	{"POST", "/v1/guard/taken", "", `{"estate":"e","id":"ab","to":"low","sha256":"","size":0,"label":"U","expires":"2026-03-01T12:00:00Z","rest":""}`, "ada taken ab", 200, `{"taken":false}`},
	{"POST", "/v1/guard/taken", "", `{"estate":"e","id":"ab","to":"low","sha256":"","size":1,"label":"U","expires":"2026-03-01T12:00:00Z","rest":""}`, "ada taken ab", 200, "*"},
	{"POST", "/v1/guard/raise/take", "none", "bundle", "ada take bundle", 200, `{"missing":0,"serial":3}`},
}

func askGuard(h http.Handler, method, path, told, body, bearer string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+bearer)
	r.Header.Set("Content-Type", "application/json")
	if told != "" {
		r.Header.Set("Content-Type", octets)
		r.Header.Set(ReleaseHeader, told)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestEveryCallAboutGuardsAsksItsService(t *testing.T) {
	for _, c := range guardCalls {
		f := guardFake{fake: &fake{}}
		w := askGuard(New(guardOptions(t, f)), c.method, c.path, c.told, c.body, good)
		if w.Code != c.status || strings.Join(f.asked, ";") != c.asked {
			t.Errorf("%s %s: got %d %s, asked %q, want %d and %q", c.method, c.path, w.Code, w.Body, f.asked, c.status, c.asked)
		}
		if got := strings.TrimSuffix(w.Body.String(), "\n"); c.answer != "*" && got != c.answer {
			t.Errorf("%s %s: got %q, want %q", c.method, c.path, got, c.answer)
		}
		f = guardFake{fake: &fake{}}
		if w := askGuard(New(guardOptions(t, f)), c.method, c.path, c.told, c.body, "rdt_wrong"); w.Code != http.StatusUnauthorized || len(f.asked) > 0 {
			t.Errorf("%s %s without a bearer: %d, asked %q", c.method, c.path, w.Code, f.asked)
		}
		if w := askGuard(New(options(t, &fake{})), c.method, c.path, c.told, c.body, good); w.Code != http.StatusNotFound {
			t.Errorf("%s %s at a node without guards: %d", c.method, c.path, w.Code)
		}
	}
}

// TestWhatMayNotBeKnownIsAnsweredAsWhatNeverWas, to the byte, whatever the service says of it.
func TestWhatMayNotBeKnownIsAnsweredAsWhatNeverWas(t *testing.T) {
	for _, c := range guardCalls {
		if !strings.Contains(c.path, "releases/ab") {
			continue
		}
		answer := func(err error, id string) (int, string) {
			f := guardFake{fake: &fake{fail: err}}
			w := askGuard(New(guardOptions(t, f)), c.method, strings.ReplaceAll(c.path, "/ab", "/"+id), c.told, c.body, good)
			return w.Code, fmt.Sprint(w.Header()["Content-Type"], w.Header()[ReleaseHeader], w.Body)
		}
		code, hidden := answer(&redoubt.Error{Op: "Release", Object: "ab", Kind: redoubt.NotFound, Rule: "no-read-up (2.1)", Hint: "it is of the bucket plans"}, "ab")
		other, never := answer(redoubt.NotFound, strings.Repeat("0", 32))
		if code != 404 || other != 404 || hidden != never {
			t.Errorf("%s %s: %d %s\nand for what never was: %d %s", c.method, c.path, code, hidden, other, never)
		}
	}
}

func TestWhatIsToldInTheHeaderIsReadStrictly(t *testing.T) {
	long := `{"content_type":"","rules":"` + strings.Repeat("r", maxReleaseHeader) + `"}`
	for what, told := range map[string]string{"nothing": " ", "no JSON": "x", "an unknown field": `{"content_type":"","rules":"r","eve":1}`, "a field twice": `{"rules":"r","Rules":"s"}`, "two texts": `{} {}`, "too much": long} {
		f := guardFake{fake: &fake{}}
		w := askGuard(New(guardOptions(t, f)), "POST", "/v1/guard/releases/ab/verdict", told, "content", good)
		if w.Code != http.StatusBadRequest || len(f.asked) > 0 {
			t.Errorf("%s: %d, asked %q", what, w.Code, f.asked)
		}
	}
	f := guardFake{fake: &fake{}}
	r := httptest.NewRequest("POST", "/v1/guard/releases/ab/verdict", strings.NewReader("content"))
	r.Header.Set("Authorization", "Bearer "+good)
	r.Header.Set("Content-Type", octets)
	r.Header[ReleaseHeader] = []string{`{"rules":"r"}`, `{"rules":"s"}`}
	w := httptest.NewRecorder()
	if New(guardOptions(t, f)).ServeHTTP(w, r); w.Code != http.StatusBadRequest || len(f.asked) > 0 {
		t.Errorf("told twice: %d, asked %q", w.Code, f.asked)
	}
	limit := `{"content_type":"","rules":"` + strings.Repeat("r", maxReleaseHeader-len(`{"content_type":"","rules":""}`)) + `"}`
	if w := askGuard(New(guardOptions(t, f)), "POST", "/v1/guard/releases/ab/verdict", limit, "content", good); w.Code != http.StatusNoContent {
		t.Errorf("at the limit: %d %s", w.Code, w.Body)
	}
}

func TestReleasesAreAskedForWithinTheirLimits(t *testing.T) {
	for path, status := range map[string]int{"max=0": 400, "max=1": 200, "max=1000": 200, "max=1001": 400, "max=x": 400, "max=-1": 400} {
		if w := askGuard(New(guardOptions(t, guardFake{fake: &fake{}})), "GET", "/v1/releases?"+path, "", "", good); w.Code != status {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	for seconds, status := range map[int64]int{-1: 400, 0: 201, 7 * 86400: 201, 7*86400 + 1: 400, 1 << 62: 400} {
		body := fmt.Sprintf(`{"bucket":"b","key":"k","version":"","to":"low","label":"U","as":"","keep":null,"reason":"r","seconds":%d}`, seconds)
		if w := askGuard(New(guardOptions(t, guardFake{fake: &fake{}})), "POST", "/v1/releases", "", body, good); w.Code != status {
			t.Errorf("for %d seconds: %d %s", seconds, w.Code, w.Body)
		}
	}
}

// TestANodeThatStopsAnswersWhatWaitsAndFinishesWhatBegan: it would otherwise stop as late as a guard's question ends.
func TestANodeThatStopsAnswersWhatWaitsAndFinishesWhatBegan(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		f := guardFake{fake: &fake{}}
		writes := false
		f.hand = func(ctx context.Context, w io.Writer) (redoubt.BundleMark, error) {
			if writes {
				io.WriteString(w, "x")
				select {
				case <-ctx.Done():
					return redoubt.BundleMark{}, ctx.Err()
				case <-time.After(time.Minute):
					return redoubt.BundleMark{Serial: 4}, nil
				}
			}
			<-ctx.Done()
			return redoubt.BundleMark{}, redoubt.NotModified
		}
		for _, writes = range []bool{false, true} {
			o := guardOptions(t, f)
			var stop context.CancelFunc
			o.Stopping, stop = context.WithCancel(t.Context())
			began := time.Now()
			time.AfterFunc(time.Second, stop)
			w := askGuard(New(o), "POST", "/v1/guard/raise/hand", "", `{"peer":"high","have":{"serial":0}}`, good)
			took := time.Since(began)
			if !writes && (w.Code != http.StatusNoContent || took != time.Second) || writes && (w.Code != http.StatusOK || took != time.Minute) {
				t.Errorf("writing %v: %d after %v", writes, w.Code, took)
			}
		}
	})
}

// TestABundleIsWaitedForAndThenTakesItsTime: a guard's question ends when nothing has come, and not while what came is written.
func TestABundleIsWaitedForAndThenTakesItsTime(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		f := guardFake{fake: &fake{}}
		f.hand = func(ctx context.Context, _ io.Writer) (redoubt.BundleMark, error) {
			<-ctx.Done()
			return redoubt.BundleMark{}, redoubt.NotModified
		}
		began := time.Now()
		body := `{"peer":"high","have":{"serial":0}}`
		if w := askGuard(New(guardOptions(t, f)), "POST", "/v1/guard/raise/hand", "", body, good); w.Code != http.StatusNoContent || w.Header().Get("Trailer") != "" || time.Since(began) != guardWait {
			t.Errorf("nothing came: %d after %v", w.Code, time.Since(began))
		}
		f.hand = func(ctx context.Context, w io.Writer) (redoubt.BundleMark, error) {
			time.Sleep(guardWait - time.Second)
			for range 10 {
				io.WriteString(w, "x")
				time.Sleep(guardWait)
				if ctx.Err() != nil {
					return redoubt.BundleMark{}, ctx.Err()
				}
			}
			return redoubt.BundleMark{Serial: 4}, nil
		}
		w := askGuard(New(guardOptions(t, f)), "POST", "/v1/guard/raise/hand", "", body, good)
		var mark struct{ Serial uint64 }
		if err := json.Unmarshal([]byte(w.Result().Trailer.Get(RaiseTrailer)), &mark); err != nil || w.Code != 200 || w.Body.Len() != 10 || mark.Serial != 4 {
			t.Errorf("a large one: %d, %d bytes, mark %+v, %v", w.Code, w.Body.Len(), mark, err)
		}
	})
	for _, have := range []string{`{"serial":1}`, `{"serial":1,"numbering":"00","id":"00"}`, `{"serial":1,"numbering":"zz","id":"zz"}`, `{"serial":-1}`} {
		for _, call := range []string{"hand", "again"} {
			f := guardFake{fake: &fake{}}
			if w := askGuard(New(guardOptions(t, f)), "POST", "/v1/guard/raise/"+call, "", `{"peer":"high","have":`+have+`}`, good); w.Code != http.StatusBadRequest || len(f.asked) > 0 {
				t.Errorf("%s, have %s: %d", call, have, w.Code)
			}
		}
	}
}
