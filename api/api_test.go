package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"redoubt"
	"redoubt/label"
)

// calls is every request of the interface that needs a bearer: what it sends, what the service is asked, and
// the answer. docs/spec/api.md names each.
var calls = []struct {
	method, path, body string
	asked              string // "" when no service is asked
	status             int
	answer             string
}{
	{"GET", "/v1/node", "", "", 200, `{"name":"node","kind":"enclave","range":{"floor":"","ceiling":""},"policy":"USA","version":"1","fips":true}`},
	{"GET", "/v1/credentials", "", "ada credentials", 200, `{"credentials":[]}`},
	{"DELETE", "/v1/credentials/RDX", "", "ada revoke RDX", 204, ``},
	{"GET", "/v1/people", "", "ada people", 200, `{"people":[{"name":"ada","clearance":"","nation":"","roles":null,"expires":"0001-01-01T00:00:00Z","public_key":""}]}`},
	{"POST", "/v1/people/bob/revoke", `{"reason":"left"}`, "ada revoke person bob left", 204, ``},
	{"GET", "/v1/changes", "", "ada changes", 200, `{"changes":[]}`},
	{"POST", "/v1/changes", `{"kind":"person","reason":"r"}`, "ada propose", 201, `{"id":"","kind":"person","reason":"r","made":"0001-01-01T00:00:00Z","expires":"0001-01-01T00:00:00Z","signatures":null}`},
	{"POST", "/v1/changes/ID/approve", `{"signer":"bob","sig":"S"}`, "ada approve ID bob", 200, `{"id":"ID","kind":"","reason":"","made":"0001-01-01T00:00:00Z","expires":"0001-01-01T00:00:00Z","signatures":null}`},
	{"GET", "/v1/grants", "", "ada grants", 200, `{"grants":[]}`},
	{"POST", "/v1/grants", `{"subject":"bob","bucket":"b"}`, "ada grant bob", 201, `{"id":"G","subject":"bob","bucket":"b","prefix":"","actions":null}`},
	{"DELETE", "/v1/grants/G", "", "ada revoke grant G", 204, ``},
	{"POST", "/v1/audit/search", `{}`, "ada search", 200, "" +
		`{"record":{"number":0,"time":"0001-01-01T00:00:00Z","subject":"","action":"GetObject","allow":false,"rule":""}}` + "\n" +
		`{"record":{"number":1,"time":"0001-01-01T00:00:00Z","subject":"","action":"GetObject","allow":false,"rule":""}}` + "\n" +
		`{"end":{"records":2}}`},
	{"POST", "/v1/audit/verify", `{"trusted":["a","b"]}`, "ada verify a,b", 200, `{"node":"node","ok":true,"entries":0,"kept_from":0,"checkpoint":"","verifier_key":"","faults":[]}`},
	{"POST", "/v1/audit/archive", `{"before":"2026-03-01T12:00:00Z","recipient":"R"}`, "ada archive 2026-03-01T12:00:00Z R", 200, "sealed"},
	{"POST", "/v1/audit/archive/confirm", `{"sha256":"ab"}`, "ada confirm ab", 200, `{"node":"node","from":0,"to":256,"sha256":"ab","time":"2026-03-01T12:00:00Z"}`},
	{"POST", "/v1/audit/export", `{"format":"cef"}`, "ada export cef", 200, "one\ntwo"},
	{"GET", "/v1/why/REQ", "", "ada why REQ", 200, `{"records":[]}`},
	{"GET", "/v1/keys", "", "ada keys", 200, `{"keys":[]}`},
	{"POST", "/v1/keys/rotate", `{"label":"SECRET"}`, "ada rotate SECRET", 200, `{"label":"SECRET","epoch":0,"epochs":null,"versions":0,"bytes":0}`},
	{"POST", "/v1/erase", `{"bucket":"b","key":"k","version":"v","reason":"spill"}`, "ada erase b/k v spill", 204, ``},
	{"POST", "/v1/check", "", "ada check", 200, `{"progress":{"done":1,"total":2}}` + "\n" + `{"report":{"node":"node","ok":true,"versions":2,"bytes":0,"faults":[]}}`},
	{"POST", "/v1/backup", `{"recipient":"R"}`, "ada backup R", 200, strings.Repeat("\x00", 1<<20)},
	{"POST", "/v1/bundles/export", `{"peer":"outpost","receipt":true,"seconds":60}`, "ada export bundle outpost 1m0s true", 200, "bundle"},
	{"POST", "/v1/exports", `{"bucket":"b","key":"k","version":"v","nation":"GBR","reason":"r"}`, "ada export b/k v GBR r", 200, "content"},
	{"POST", "/v1/exports", `{"bucket":"b","key":"k","version":"v","nation":"GBR","reason":"r","kas":"ab"}`, "ada export b/k v GBR rab", 200, "content"},
	{"POST", "/v1/exports/consent", `{"bucket":"b","key":"k","version":"v","nation":"GBR","kas":"ab","sha256":"cd","expires":"2026-03-01T12:00:00Z","signature":"s"}`, "ada consent-export b/k v GBR ab cd 2026-03-01T12:00:00Z s", 200,
		`{"estate":"","node":"","bucket":"","key":"","version":"v","label":"","consent":null,"originator":"","size":0,"sha256":"","nation":"GBR","kas":"","policy":"","expires":"0001-01-01T00:00:00Z"}`},
	{"POST", "/v1/compact", "", "ada compact", 204, ``},
	{"GET", "/v1/usage", "", "ada usage", 200, `{"usage":[]}`},
	{"GET", "/metrics", "", "ada usage", 200, ``},
}

func TestEveryCallAsksItsServiceAndSaysWhatItAnswered(t *testing.T) {
	for _, c := range calls {
		f := &fake{}
		w := ask(New(options(t, f)), c.method, c.path, c.body)
		if w.Code != c.status {
			t.Errorf("%s %s: got %d %s, want %d", c.method, c.path, w.Code, w.Body, c.status)
		}
		if got := strings.Join(f.asked, ";"); got != c.asked {
			t.Errorf("%s %s: asked %q, want %q", c.method, c.path, got, c.asked)
		}
		if got := strings.TrimSuffix(w.Body.String(), "\n"); got != c.answer && c.path != "/metrics" {
			t.Errorf("%s %s: got %.300q, want %.300q", c.method, c.path, got, c.answer)
		}
		if id := w.Header().Get(RequestHeader); !regexp.MustCompile(`^[A-Z2-7]{24}$`).MatchString(id) || c.asked != "" && f.request != id {
			t.Errorf("%s %s: request %q in the answer, %q in the context", c.method, c.path, id, f.request)
		}
	}
}

func TestNothingIsAnsweredWithoutABearer(t *testing.T) {
	for _, c := range calls {
		for name, auth := range map[string][]string{"none": nil, "wrong": {"Bearer rdt_wrong"}, "basic": {"Basic rdt_good"}, "two": {"Bearer " + good, "Bearer " + good}, "empty": {"Bearer "}} {
			f := &fake{}
			r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
			r.Header["Authorization"] = auth
			w := httptest.NewRecorder()
			New(options(t, f)).ServeHTTP(w, r)
			if w.Code != http.StatusUnauthorized || len(f.asked) != 0 || w.Header().Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s %s, %s: got %d, asked %q", c.method, c.path, name, w.Code, f.asked)
			}
			if len(f.refused) != 1 {
				t.Errorf("%s %s, %s: refusals on record: %q", c.method, c.path, name, f.refused)
			}
		}
	}
}

func TestTheOwnersTokenOpensTheNodesDescriptionAlone(t *testing.T) {
	for _, token := range []string{"", "rdn_owner"} {
		o := options(t, &fake{})
		o.OwnerToken = token
		h := New(o)
		for _, c := range calls {
			for _, given := range []string{"Bearer rdn_owner", "Bearer ", "Bearer rdn_owne", "rdn_owner "} {
				r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
				r.Header.Set("Authorization", given)
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				want := http.StatusUnauthorized
				if token != "" && given == "Bearer "+token && c.path == "/v1/node" {
					want = http.StatusOK
				}
				if w.Code != want {
					t.Errorf("%s %s with %q where the token is %q: got %d, want %d", c.method, c.path, given, token, w.Code, want)
				}
			}
		}
	}
}

func TestWhomTheNodeBelievesIsToldToTheOwnerOfItsStateAlone(t *testing.T) {
	o := options(t, &fake{})
	o.OwnerToken = "rdn_owner"
	told := []redoubt.Trusted{{Node: "outpost", As: redoubt.TrustedDevice, Fingerprint: "ab"}}
	o.Trusts = func() []redoubt.Trusted { return told }
	h := New(o)
	const plain = `{"name":"node","kind":"enclave","range":{"floor":"","ceiling":""},"policy":"USA","version":"1","fips":true}` + "\n"
	if got := ask(h, "GET", "/v1/node", "").Body.String(); got != plain {
		t.Errorf("a credential is told %s", got)
	}
	for _, node := range []redoubt.NodeName{"outpost", "picket"} { // as it stands at each request
		told[0].Node = node
		r := httptest.NewRequest("GET", "/v1/node", nil)
		r.Header.Set("Authorization", "Bearer rdn_owner")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if want := strings.TrimSuffix(plain, "}\n") + `,"trusts":[{"node":"` + string(node) + `","as":"device","sha256":"ab"}]}` + "\n"; w.Body.String() != want {
			t.Errorf("the owner is told %s, want %s", w.Body, want)
		}
	}
}

func TestEveryKindHasItsAnswer(t *testing.T) {
	names := map[string]bool{}
	for _, kind := range redoubt.Kinds() {
		row, ok := kinds[kind]
		if !ok || row.name == "" || names[row.name] {
			t.Errorf("%v: got %+v", kind, row)
		}
		names[row.name] = true
		for _, c := range calls {
			if c.asked == "" || c.path == "/metrics" && kind == redoubt.NotModified {
				continue
			}
			f := &fake{fail: fmt.Errorf("wrapped: %w", &redoubt.Error{Op: "op", Object: "reports/secret-name", Kind: kind, Rule: "a-rule", Hint: "a hint", Err: errors.New("cause")})}
			w := ask(New(options(t, f)), c.method, c.path, c.body)
			if w.Code != row.status {
				t.Errorf("%s %s, %v: got %d, want %d", c.method, c.path, kind, w.Code, row.status)
			}
			if strings.Contains(w.Body.String(), "secret-name") || strings.Contains(w.Body.String(), "cause") {
				t.Errorf("%s %s, %v: the answer tells %s", c.method, c.path, kind, w.Body)
			}
			var got problemBody
			if w.Code == http.StatusNotModified {
				continue
			}
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Error.Kind != row.name || got.Error.Message != kind.Error() {
				t.Errorf("%s %s, %v: got %s", c.method, c.path, kind, w.Body)
			}
			silent := kind == redoubt.NotFound || kind == redoubt.Internal
			if silent != (got.Error.Rule == "") || silent != (got.Error.Hint == "") {
				t.Errorf("%s %s, %v: got %s", c.method, c.path, kind, w.Body)
			}
		}
	}
	if p, status := told(errors.New("unclassified")); p.Kind != "internal" || status != 500 {
		t.Errorf("an unclassified error: got %+v", p)
	}
	if p, status := told(redoubt.Kind(200)); p.Kind != "internal" || status != 500 {
		t.Errorf("an unknown kind: got %+v", p)
	}
}

func TestWhatIsNotThereHasOneAnswer(t *testing.T) {
	f := &fake{}
	h := New(options(t, f))
	want := `{"error":{"kind":"not-found","message":"not found"}}` + "\n"
	for _, c := range [][2]string{{"GET", "/"}, {"GET", "/v1/nothing"}, {"PUT", "/v1/keys"}, {"GET", "/v1/erase"}, {"GET", "/v1/credentials/x"}} {
		if w := ask(h, c[0], c[1], ""); w.Code != 404 || w.Body.String() != want {
			t.Errorf("%s %s: got %d %s", c[0], c[1], w.Code, w.Body)
		}
	}
	f.fail = &redoubt.Error{Kind: redoubt.NotFound, Rule: "no-read-up (2.1)"}
	if w := ask(h, "GET", "/v1/why/x", ""); w.Code != 404 || w.Body.String() != want {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestBodiesAreReadStrictly(t *testing.T) {
	for name, c := range map[string]struct {
		body   string
		status int
	}{
		"good":              {`{"label":"SECRET"}`, 200},
		"spaces":            {" {\n\"label\" : \"SECRET\" } \n", 200},
		"empty":             {``, 400},
		"not JSON":          {`label=SECRET`, 400},
		"cut":               {`{"label":"SEC`, 400},
		"unknown field":     {`{"label":"SECRET","x":1}`, 400},
		"twice":             {`{"label":"SECRET","label":"UNCLASSIFIED"}`, 400},
		"twice, by case":    {`{"label":"SECRET","Label":"UNCLASSIFIED"}`, 400},
		"twice, escaped":    {`{"label":"SECRET","\u006cabel":"UNCLASSIFIED"}`, 400},
		"trailing":          {`{"label":"SECRET"} x`, 400},
		"two documents":     {`{"label":"SECRET"}{}`, 400},
		"an array":          {`[{"label":"SECRET"}]`, 400},
		"a number":          {`1`, 400},
		"wrong type":        {`{"label":1}`, 400},
		"not UTF-8":         {"{\"label\":\"\xff\"}", 400},
		"deep":              {strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1), 400},
		"as large as may":   {`{"label":"` + strings.Repeat("S", MaxBodyBytes-12) + `"}`, 200},
		"one byte too many": {`{"label":"` + strings.Repeat("S", MaxBodyBytes-11) + `"}`, 413},
	} {
		f := &fake{}
		w := ask(New(options(t, f)), "POST", "/v1/keys/rotate", c.body)
		if w.Code != c.status || (c.status == 200) != (len(f.asked) == 1) {
			t.Errorf("%s: got %d %.200s, want %d", name, w.Code, w.Body, c.status)
		}
	}
	r := httptest.NewRequest("POST", "/v1/keys/rotate", strings.NewReader(`{"label":"SECRET"}`))
	r.Header.Set("Authorization", "Bearer "+good)
	w := httptest.NewRecorder()
	New(options(t, &fake{})).ServeHTTP(w, r)
	if w.Code != 400 {
		t.Errorf("no content type: got %d", w.Code)
	}
}

func FuzzUnique(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":{"a":1},"b":[{"a":1},{"a":2}]}`, `{"a":1,"a":2}`, `[[],{}]`, `"x"`, `{"a":"a"}`, `{"a":["a","a"]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if unique(b) == "" && !json.Valid(b) {
			t.Errorf("%q passes", b)
		}
	})
}

func TestKeysMayRepeatInDifferentObjects(t *testing.T) {
	for _, s := range []string{`{"a":{"a":1},"b":[{"a":1},{"a":2}]}`, `{"a":["a","a"],"b":"a"}`, `[{"a":1},{"a":1}]`, `{"a":{},"b":{}}`} {
		if hint := unique([]byte(s)); hint != "" {
			t.Errorf("%s: %s", s, hint)
		}
	}
	for _, s := range []string{`{"a":{},"a":1}`, `{"b":[{"a":1,"a":2}]}`, `{"a":[],"c":1,"a":1}`, `{"x":{"a":1},"a":1,"a":2}`} {
		if unique([]byte(s)) == "" {
			t.Errorf("%s passes", s)
		}
	}
}

func TestMintNeedsNoBearerAndRefusalsAreOnRecord(t *testing.T) {
	f := &fake{}
	send := func() *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "/v1/credentials", strings.NewReader(`{"subject":"ada","node":"node","label":"SECRET","seconds":60,"issued":"2026-03-01T12:00:00Z","nonce":"n","signature":"s"}`))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		New(options(t, f)).ServeHTTP(w, r)
		return w
	}
	if w := send(); w.Code != 201 || !strings.Contains(w.Body.String(), `"secret_access_key":"s"`) || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	want := redoubt.MintRequest{Subject: "ada", Node: "node", Label: "SECRET", Seconds: 60, Issued: noon, Nonce: "n", Signature: "s"}
	if f.mint != want {
		t.Errorf("got %+v", f.mint)
	}
	f.fail = &redoubt.Error{Kind: redoubt.Unauthenticated}
	if w := send(); w.Code != 401 || strings.Contains(w.Body.String(), "secret") || len(f.refused) != 1 {
		t.Errorf("got %d %s, on record %q", w.Code, w.Body, f.refused)
	}
}

func TestAuditQueriesArriveWhole(t *testing.T) {
	f := &fake{}
	body := `{"subject":"bob","action":"GetObject","outcome":"deny","rule":"r","since":"2026-03-01T12:00:00Z","until":"2026-03-01T13:00:00Z","bucket":"b","key":"k","request":"q","from":7,"max":9}`
	want := redoubt.AuditQuery{Subject: "bob", Action: "GetObject", Outcome: "deny", Rule: "r", Since: noon, Until: noon.Add(time.Hour),
		Object: redoubt.ObjectName{Bucket: "b", Key: "k"}, Request: "q", From: 7, Max: 9}
	ask(New(options(t, f)), "POST", "/v1/audit/search", body)
	if f.query != want {
		t.Errorf("search: got %+v", f.query)
	}
	f.query = redoubt.AuditQuery{}
	ask(New(options(t, f)), "POST", "/v1/audit/export", `{"format":"ocsf","query":`+body+`}`)
	if f.query != want {
		t.Errorf("export: got %+v", f.query)
	}
	for _, bad := range []string{`{"outcome":"maybe"}`, `{"max":-1}`, `{"key":"k"}`} {
		if w := ask(New(options(t, f)), "POST", "/v1/audit/search", bad); w.Code != 400 {
			t.Errorf("%s: got %d", bad, w.Code)
		}
	}
	if w := ask(New(options(t, f)), "POST", "/v1/audit/export", `{"format":"csv"}`); w.Code != 400 {
		t.Errorf("csv: got %d", w.Code)
	}
	if w := ask(New(options(t, f)), "POST", "/v1/erase", `{"bucket":"b","key":"k"}`); w.Code != 400 {
		t.Errorf("an erasure without a version: got %d", w.Code)
	}
}

func TestAStreamThatFailsLateIsNeverTakenForWhole(t *testing.T) {
	f := &fake{late: &redoubt.Error{Kind: redoubt.Corrupt, Object: "secret-name"}}
	srv := httptest.NewServer(New(options(t, f)))
	defer srv.Close()
	get := func(path, body string) (string, error) {
		r, _ := http.NewRequest("POST", srv.URL+path, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+good)
		r.Header.Set("Content-Type", "application/json")
		res, err := srv.Client().Do(r)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		return string(b), err
	}
	for _, path := range []string{"/v1/audit/search", "/v1/check"} {
		b, err := get(path, `{}`)
		if err != nil || !strings.HasSuffix(b, `{"error":{"kind":"corrupt","message":"failed authentication on disk"}}`+"\n") {
			t.Errorf("%s: got %q, %v", path, b, err)
		}
	}
	for path, body := range map[string]string{"/v1/backup": `{"recipient":"R"}`, "/v1/audit/export": `{"format":"cef"}`} {
		if b, err := get(path, body); err == nil {
			t.Errorf("%s: got %d bytes that look whole", path, len(b))
		}
	}
}

func TestMetricsShowWhatTheCredentialDominates(t *testing.T) {
	f := &fake{usage: []redoubt.LabelUsage{{Label: "UNCLASSIFIED", Versions: 3, Bytes: 100}, {Label: "SECRET", Versions: 1, Bytes: 7, ChargedBytes: 9, QuotaBytes: 50}}}
	o := options(t, f)
	whole := prometheus.NewCounter(prometheus.CounterOpts{Name: "redoubt_commits_total", Help: "h"})
	o.NodeWide = []prometheus.Collector{whole}
	text := ask(New(o), "GET", "/metrics", "").Body.String()
	for _, want := range []string{`redoubt_label_bytes{label="SECRET"} 7`, `redoubt_label_versions{label="UNCLASSIFIED"} 3`,
		`redoubt_label_quota_bytes{label="SECRET"} 50`, `redoubt_label_charged_bytes{label="SECRET"} 9`, `redoubt_node_info{fips="on",kind="enclave",node="node",policy="USA",version="1"} 1`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	for _, tells := range []string{"redoubt_commits_total", "go_goroutines", "process_"} {
		if strings.Contains(text, tells) {
			t.Errorf("%s shows to who does not dominate the ceiling", tells)
		}
	}
	o.Ceiling = mark(t, "SECRET")
	text = ask(New(o), "GET", "/metrics", "").Body.String()
	for _, want := range []string{"redoubt_commits_total 0", "go_goroutines", "process_cpu_seconds_total"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s for who dominates the ceiling", want)
		}
	}
	o.Ceiling = label.Label{}
	if text = ask(New(o), "GET", "/metrics", "").Body.String(); strings.Contains(text, "go_goroutines") {
		t.Error("without a ceiling the whole node shows")
	}
}

func TestHealthSaysNothingButOK(t *testing.T) {
	f := &fake{}
	o := options(t, f)
	o.Ready = func() error { return f.fail }
	h := New(o)
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Code, w.Body.String()
	}
	for _, path := range []string{"/health/live", "/health/ready"} {
		if code, text := get(path); code != 200 || text != "ok\n" {
			t.Errorf("%s: got %d %q", path, code, text)
		}
	}
	f.fail = errors.New("replaying the log")
	if code, text := get("/health/ready"); code != 503 || text != "" {
		t.Errorf("not ready: got %d %q", code, text)
	}
	if code, _ := get("/health/live"); code != 200 {
		t.Errorf("live while not ready: got %d", code)
	}
}

func TestTheDocumentNamesEveryCallAndKind(t *testing.T) {
	b, err := os.ReadFile("../docs/spec/api.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)
	for kind, row := range kinds {
		if !strings.Contains(doc, fmt.Sprintf("| `%s` | %d |", row.name, row.status)) {
			t.Errorf("%v: no row for %s, %d", kind, row.name, row.status)
		}
	}
	for _, c := range calls {
		path := regexp.MustCompile(`/(RDX|G)$`).ReplaceAllString(c.path, "/{id}")
		path = strings.NewReplacer("/bob/", "/{name}/", "/ID/", "/{id}/", "/REQ", "/{request}").Replace(path)
		if !strings.Contains(doc, "`"+c.method+" "+path+"`") {
			t.Errorf("no %s %s", c.method, path)
		}
	}
}

func TestABundleComesAsItIsAndGoesWithItsReport(t *testing.T) {
	f := &fake{}
	r := httptest.NewRequest("POST", "/v1/bundles/import", strings.NewReader("a file"))
	r.Header.Set("Authorization", "Bearer "+good)
	for _, typ := range []string{"application/json", ""} {
		r.Header.Set("Content-Type", typ)
		w := httptest.NewRecorder()
		New(options(t, f)).ServeHTTP(w, r)
		if w.Code != http.StatusBadRequest || len(f.asked) > 0 {
			t.Errorf("as %q: %d, asked %q", typ, w.Code, f.asked)
		}
	}
	r.Header.Set("Content-Type", "application/octet-stream")
	w := httptest.NewRecorder()
	New(options(t, f)).ServeHTTP(w, r)
	want := `{"progress":{"done":1,"total":2}}` + "\n" + `{"report":{"peer":"secret","receipt":false,"serial":7,"id":"","missing":0,"counts":[]}}` + "\n"
	if w.Code != 200 || w.Body.String() != want || strings.Join(f.asked, ";") != "ada import bundle a file" {
		t.Errorf("import: %d %s, asked %q", w.Code, w.Body, f.asked)
	}
	w = ask(New(options(t, f)), "POST", "/v1/bundles/export", `{"peer":"outpost"}`)
	if got := w.Result().Trailer.Get(BundleTrailer); got != `{"peer":"outpost","serial":7,"id":"","more":false,"counts":[]}` || w.Header().Get("Content-Type") != "application/octet-stream" {
		t.Errorf("export: %q behind %q", got, w.Body)
	}
	for _, bad := range []string{`{}`, `{"peer":"x","seconds":-1}`, `{"peer":"x","seconds":9223372036854775807}`, `{"peer":"x","receipt":true,"anew":true}`} {
		if w := ask(New(options(t, f)), "POST", "/v1/bundles/export", bad); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d", bad, w.Code)
		}
	}
}

func TestWhatIsToldOfAnExportIsOneHeaderOfASCII(t *testing.T) {
	w := ask(New(options(t, &fake{})), "POST", "/v1/exports", `{"bucket":"b","key":"k","nation":"GBR","reason":"r"}`)
	want := `{"version":"v","label":"SECRET//REL TO USA, GBR","classification":"","categories":[],"releasable_to":[],"xml":"<\u00e9/>","nation":"GBR","size":7,"sha256":"","made":"0001-01-01T00:00:00Z"}`
	if got := w.Header().Get(ExportHeader); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	w = ask(New(options(t, &fake{fail: redoubt.Denied})), "POST", "/v1/exports", `{"bucket":"b","key":"k","nation":"GBR","reason":"r"}`)
	if w.Code != 403 || w.Header().Get(ExportHeader) != "" || strings.Contains(w.Body.String(), "content") {
		t.Errorf("refused: %d %q %s", w.Code, w.Header(), w.Body)
	}
}
