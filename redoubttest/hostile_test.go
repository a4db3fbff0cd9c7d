package redoubttest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"redoubt"
	"redoubt/client"
	"redoubt/s3"
)

// target is a node, in a process of its own, that a test is hostile to.
type target struct {
	*victim
	wire // of s-analyst
	host string
	kept map[string]string // what was stored properly: key → content
}

// maxNodeRSS is what a node may ever have held in memory while it was attacked. It idles at some 60 MiB; what an attacker could
// make it hold without a limit is gigabytes.
const maxNodeRSS = 400 << 20

func newTarget(t *testing.T) *target {
	v := &victim{t: t, kind: kindNode, dir: t.TempDir()}
	t.Cleanup(v.kill)
	v.start()
	c := &crashes{victim: v}
	x := &target{victim: v, wire: wire{base: v.S3, http: httpClient(v.roots), who: c.mint("s-analyst", "")}, host: strings.TrimPrefix(v.S3, "https://"), kept: map[string]string{}}
	t.Cleanup(x.http.CloseIdleConnections)
	x.keep("canary", strings.Repeat("canary ", 1000))
	return x
}

func (x *target) keep(key, content string) {
	x.t.Helper()
	if _, err := x.want(x.t.Context(), Request{Method: http.MethodPut, Bucket: "imagery", Key: key, Body: []byte(content)}, http.StatusOK); err != nil {
		x.t.Fatal(err)
	}
	x.kept[key] = content
}

// stands: the node serves, and holds what was stored properly and nothing else.
func (x *target) stands() {
	x.t.Helper()
	o, err := client.NewObjects(x.S3, x.roots, x.who)
	if err != nil {
		x.t.Fatal(err)
	}
	defer o.Close()
	for _, bucket := range []redoubt.BucketName{"imagery", "reports"} {
		err := o.Versions(x.t.Context(), bucket, "", func(v client.Object) error {
			if _, ok := x.kept[v.Name.Key]; !ok || bucket != "imagery" {
				x.t.Errorf("something was stored: %s", v.Name)
			}
			return nil
		})
		if err != nil {
			x.t.Errorf("the node no longer lists: %v", err)
		}
	}
	for key, content := range x.kept {
		r, err := x.want(x.t.Context(), Request{Method: http.MethodGet, Bucket: "imagery", Key: key}, http.StatusOK)
		if err != nil || string(r.Body) != content {
			x.t.Errorf("%s no longer reads: %d bytes, %v", key, len(r.Body), err)
		}
	}
	if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", x.cmd.Process.Pid)); err == nil {
		_, rest, _ := strings.Cut(string(status), "VmHWM:")
		if kib, err := strconv.Atoi(strings.Fields(rest)[0]); err != nil || kib<<10 > maxNodeRSS {
			x.t.Errorf("the node has held %d KiB in memory, %v; want at most %d", kib, err, maxNodeRSS>>10)
		}
	}
}

// text is a signed request as it goes over the wire, its head and its body.
func (x *target) text(in Request, at time.Time) (head, body string) {
	x.t.Helper()
	req, err := x.sign(context.Background(), in, at)
	if err != nil {
		x.t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", in.Method, req.URL.RequestURI(), req.URL.Host)
	for name, values := range req.Header {
		for _, v := range values {
			fmt.Fprintf(&b, "%s: %s\r\n", name, v)
		}
	}
	if in.Body != nil {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(in.Body))
	}
	return b.String(), string(in.Body)
}

// patience is how long a test waits for an answer or a closed connection before it says that there is none.
const patience = 20 * time.Second

// say sends raw bytes over TLS, and gives all that came back until the node closed the connection.
func (x *target) say(raw string) string { return x.exchange(raw, false) }

// sayAndEnd is say, and then the end of what this side sends. net/http takes that for a client that has gone, so a
// request that is under way may be given up.
func (x *target) sayAndEnd(raw string) string { return x.exchange(raw, true) }

func (x *target) exchange(raw string, end bool) string {
	x.t.Helper()
	c, err := tls.Dial("tcp", x.host, &tls.Config{RootCAs: x.roots})
	if err != nil {
		x.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	go func() { // ends with the connection
		_, _ = io.WriteString(c, raw) // the node may close before it has read all
		if end {
			_ = c.CloseWrite()
		}
	}()
	var out bytes.Buffer
	_, err = io.Copy(&out, c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		x.t.Errorf("neither answered nor closed: %.200q", raw)
	}
	return out.String()
}

// answers splits what came back into status and S3 code of each answer.
func answers(raw string) (all []string) {
	r := bufio.NewReader(strings.NewReader(raw))
	for {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return all
		}
		body, _ := io.ReadAll(res.Body)
		one := strconv.Itoa(res.StatusCode)
		if code := (Response{Body: body}).code(); code != "" {
			one += " " + code
		}
		all = append(all, one)
	}
}

const crlf = "\r\n"

func TestHostileRequestsGetAClearAnswer(t *testing.T) {
	x := newTarget(t)
	now := time.Now()
	put := Request{Method: http.MethodPut, Bucket: "reports", Key: "hostile", Body: []byte("content")}
	get := Request{Method: http.MethodGet, Bucket: "imagery", Key: "canary"}
	with := func(in Request, change func(*Request)) Request { change(&in); return in }
	// signed is a whole request; edit changes its head after it was signed.
	signed := func(in Request, edit ...string) string {
		head, body := x.text(in, now)
		return strings.NewReplacer(edit...).Replace(head) + "Connection: close" + crlf + crlf + body
	}
	// loose is signed for a content whose length, and how it comes, the signature does not cover.
	loose := func(lines string) string {
		sum := sha256.Sum256(put.Body)
		head, _ := x.text(with(put, func(r *Request) { r.Body, r.Header = nil, header("X-Amz-Content-Sha256", hex.EncodeToString(sum[:])) }), now)
		return head + lines + crlf + "Connection: close" + crlf + crlf + string(put.Body)
	}
	keyed := func(escaped string) string { // the signature does not come to be looked at
		return "PUT /reports/" + escaped + " HTTP/1.1" + crlf + "Host: " + x.host + crlf + "Content-Length: 0" + crlf + "Connection: close" + crlf + crlf
	}
	headed := func(lines ...string) string {
		return "GET /reports/k HTTP/1.1" + crlf + "Host: " + x.host + crlf + strings.Join(lines, crlf) + crlf + "Connection: close" + crlf + crlf
	}
	xml := func(q url.Values, doc string) Request {
		return Request{Method: http.MethodPost, Bucket: "reports", Query: q, Body: []byte(doc)}
	}
	header1 := func(name, value string) func(*Request) {
		return func(r *Request) { r.Header = header(name, value) }
	}
	laughs := `<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha">` + func() (s string) {
		for c := 'b'; c < 'l'; c++ {
			s += fmt.Sprintf(`<!ENTITY %c "%s">`, c, strings.Repeat(fmt.Sprintf("&%c;", c-1), 10))
		}
		return s
	}() + `]><Delete><Object><Key>&k;</Key></Object></Delete>`
	var bomb bytes.Buffer
	z, _ := gzip.NewWriterLevel(&bomb, gzip.BestCompression)
	_, _ = z.Write(make([]byte, 64<<20))
	z.Close()

	for _, c := range []struct {
		name, raw string
		want      []string // any one of; the first answer only. "closed" is a connection closed without one
	}{
		// Too much of everything.
		{"a head of 200 KiB", headed("X-Long: " + strings.Repeat("a", 200<<10)), []string{"431"}},
		{"a head of 40 KiB", headed("X-Long: " + strings.Repeat("a", 40<<10)), []string{"400 RequestHeaderSectionTooLarge"}},
		{"4,000 headers", headed(strings.TrimSuffix(strings.Repeat("X-A: bcdefg"+crlf, 4000), crlf)), []string{"431", "400 RequestHeaderSectionTooLarge"}},
		{"a request line of a MiB", "GET /" + strings.Repeat("a", 1<<20) + " HTTP/1.1" + crlf + crlf, []string{"431"}},
		{"a key of 1,025 bytes", signed(with(put, func(r *Request) { r.Key = strings.Repeat("k", 1025) })), []string{"400 KeyTooLongError"}},
		{"a query of 20 KiB", "GET /reports?prefix=" + strings.Repeat("a", 20<<10) + " HTTP/1.1" + crlf + "Host: x" + crlf + "Connection: close" + crlf + crlf, []string{"400 InvalidURI"}},
		{"a query of 100 parameters", "GET /reports?" + func() (s string) {
			for i := range 100 {
				s += fmt.Sprintf("p%d=&", i)
			}
			return s
		}() + " HTTP/1.1" + crlf + "Host: x" + crlf + "Connection: close" + crlf + crlf, []string{"400 InvalidURI"}},
		{"an announced content of 6 GiB", loose("Content-Length: 6442450944"), []string{"400 EntityTooLarge"}},
		{"user metadata of 3 KiB", signed(with(put, header1("X-Amz-Meta-Big", strings.Repeat("m", 3<<10)))), []string{"400 MetadataTooLarge"}},

		// Names.
		{"a key of bad UTF-8", keyed("%ff%fe"), []string{"400 InvalidURI"}},
		{"an overlong slash", keyed("a%c0%afb"), []string{"400 InvalidURI"}},
		{"NUL in a key", keyed("a%00b"), []string{"400 InvalidURI"}},
		{"a raw NUL in the request line", "GET /reports/a\x00b HTTP/1.1" + crlf + "Host: x" + crlf + crlf, []string{"400"}},
		{"a broken escape", keyed("a%zz"), []string{"400"}},
		{"a bucket that climbs", "GET /../../etc/passwd HTTP/1.1" + crlf + "Host: x" + crlf + "Connection: close" + crlf + crlf, []string{"400 InvalidBucketName"}},
		{"the node's own bucket", signed(with(put, func(r *Request) { r.Bucket = ".system" })), []string{"404 NoSuchBucket", "403 AccessDenied", "400 InvalidBucketName"}},

		// Labels.
		{"two label headers", signed(with(put, func(r *Request) {
			r.Header = http.Header{"X-Amz-Meta-Redoubt-Label": {"SECRET", "UNCLASSIFIED"}}
		})), []string{"400 InvalidArgument"}},
		{"two equal label headers", signed(with(put, func(r *Request) {
			r.Header = http.Header{"X-Amz-Meta-Redoubt-Label": {"SECRET", "SECRET"}}
		})), []string{"400 InvalidArgument"}},
		{"two labels in one header", signed(with(put, header1("X-Amz-Meta-Redoubt-Label", "SECRET,UNCLASSIFIED"))), []string{"400 InvalidArgument"}},
		{"a label in header and query", signed(with(put, func(r *Request) {
			r.Header, r.Query = header("X-Amz-Meta-Redoubt-Label", "SECRET"), query("x-amz-meta-redoubt-label", "UNCLASSIFIED")
		})), []string{"400 InvalidArgument"}},
		{"a label changed after it was signed", signed(with(put, header1("X-Amz-Meta-Redoubt-Label", "SECRET")), "Redoubt-Label: SECRET", "Redoubt-Label: UNCLASSIFIED"), []string{"403 SignatureDoesNotMatch"}},
		{"a label added after signing", signed(put, "Content-Length:", "X-Amz-Meta-Redoubt-Label: UNCLASSIFIED"+crlf+"Content-Length:"), []string{"403 AccessDenied"}},
		{"a label of control characters", signed(with(put, header1("X-Amz-Meta-Redoubt-Label", "SECRET\x01"))), []string{"400", "400 InvalidArgument"}},
		{"a label of 20 KiB", signed(with(put, header1("X-Amz-Meta-Redoubt-Label", strings.Repeat("SECRET//", 2500)))), []string{"400 InvalidArgument", "400 MetadataTooLarge"}},
		{"a label below the credential's", signed(with(put, header1("X-Amz-Meta-Redoubt-Label", "UNCLASSIFIED"))), []string{"403 AccessDenied"}},
		{"a label above the clearance", signed(with(put, header1("X-Amz-Meta-Redoubt-Label", "TOP SECRET"))), []string{"403 AccessDenied"}},

		// Part numbers.
		{"part 0", signed(with(put, func(r *Request) { r.Query = query("uploadId", "x", "partNumber", "0") })), []string{"400 InvalidArgument"}},
		{"part 10001", signed(with(put, func(r *Request) { r.Query = query("uploadId", "x", "partNumber", "10001") })), []string{"400 InvalidArgument"}},
		{"part -1", signed(with(put, func(r *Request) { r.Query = query("uploadId", "x", "partNumber", "-1") })), []string{"400 InvalidArgument"}},
		{"part 2^64", signed(with(put, func(r *Request) { r.Query = query("uploadId", "x", "partNumber", "18446744073709551617") })), []string{"400 InvalidArgument"}},
		{"an upload that never was", signed(with(put, func(r *Request) { r.Query = query("uploadId", "x", "partNumber", "1") })), []string{"404 NoSuchUpload"}},
		{"a version that never was", signed(with(get, func(r *Request) { r.Query = query("versionId", "../../x") })), []string{"404 NoSuchVersion", "400 InvalidArgument"}},

		// Protocol.
		{"HTTP/1.0", strings.Replace(signed(get), "HTTP/1.1", "HTTP/1.0", 1), []string{"200"}},
		{"HTTP/9.9", strings.Replace(signed(get), "HTTP/1.1", "HTTP/9.9", 1), []string{"505", "400"}},
		{"HTTP/2 without having agreed on it", "PRI * HTTP/2.0" + crlf + crlf + "SM" + crlf + crlf, []string{"505", "400", "403 AccessDenied", "405 MethodNotAllowed", "400 InvalidURI", "closed"}},
		{"no Host", "GET /reports HTTP/1.1" + crlf + crlf, []string{"400"}},
		{"two Hosts", "GET /reports HTTP/1.1" + crlf + "Host: a" + crlf + "Host: b" + crlf + crlf, []string{"400"}},
		{"an absolute URI for another host", "GET https://elsewhere.example/imagery/canary HTTP/1.1" + crlf + "Host: " + x.host + crlf + "Connection: close" + crlf + crlf, []string{"403 AccessDenied"}},
		{"CONNECT", "CONNECT elsewhere.example:443 HTTP/1.1" + crlf + "Host: elsewhere.example:443" + crlf + "Connection: close" + crlf + crlf, []string{"400 InvalidURI", "403 AccessDenied", "405 MethodNotAllowed", "400"}},
		{"TRACE", "TRACE /imagery/canary HTTP/1.1" + crlf + "Host: x" + crlf + "Cookie: secret" + crlf + "Connection: close" + crlf + crlf, []string{"403 AccessDenied", "405 MethodNotAllowed"}},
		{"a target without a slash", "GET imagery HTTP/1.1" + crlf + "Host: x" + crlf + crlf, []string{"400", "400 InvalidURI"}},
		{"garbage", "\x16\x03\x01\x00\xff\xfe garbage\x00\x00" + crlf + crlf, []string{"400"}},
		{"nothing, then half-closed", "", []string{"closed"}},
		{"a header without a colon", headed("nonsense"), []string{"400"}},
		{"a header with a space before its colon", headed("X-A : b"), []string{"400"}},
		{"a header name of control bytes", headed("X-\x01: b"), []string{"400"}},
		{"a method with a bracket", "G[T / HTTP/1.1" + crlf + "Host: x" + crlf + crlf, []string{"400"}},
		{"an Expect that is not known", headed("Expect: miracles"), []string{"417"}},
		{"an upgrade", headed("Upgrade: websocket", "Connection: Upgrade"), []string{"403 AccessDenied"}},

		// Lies about length, and two messages in one.
		{"the right length and the wrong content", strings.TrimSuffix(loose("Content-Length: 7"), "content") + "CONTENT", []string{"400 XAmzContentSHA256Mismatch"}},
		{"less than announced, then half-closed", loose("Content-Length: 9000"), []string{"400 IncompleteBody"}},
		{"more than announced", loose("Content-Length: 3"), []string{"400 XAmzContentSHA256Mismatch"}},
		{"a negative length", loose("Content-Length: -7"), []string{"400"}},
		{"a signed length", loose("Content-Length: +7"), []string{"400"}},
		{"a length of words", loose("Content-Length: seven"), []string{"400"}},
		{"two lengths", loose("Content-Length: 7" + crlf + "Content-Length: 8"), []string{"400"}},
		{"no length", loose("X-A: b"), []string{"411 MissingContentLength"}},
		{"chunked and a length, half-closed", loose("Content-Length: 7" + crlf + "Transfer-Encoding: chunked"), []string{"400", "411 MissingContentLength", "400 IncompleteBody"}},
		{"chunked, disguised", loose("Transfer-Encoding: xchunked"), []string{"501", "400"}},
		{"chunked, twice", loose("Transfer-Encoding: chunked" + crlf + "Transfer-Encoding: chunked"), []string{"501", "400"}},
		{"chunked and identity", loose("Transfer-Encoding: chunked, identity"), []string{"501", "400"}},
		{"a chunk of 2^64 bytes, half-closed", strings.Replace(loose("Transfer-Encoding: chunked"), crlf+crlf+"content", crlf+crlf+"ffffffffffffffff"+crlf+"x", 1), []string{"411 MissingContentLength", "400", "400 IncompleteBody"}},
		{"content with a GET", signed(with(get, func(r *Request) { r.Body = []byte("surprise") })), []string{"200", "400 UnexpectedContent"}},

		// Documents.
		{"billion laughs", signed(xml(query("delete", ""), laughs)), []string{"400 MalformedXML"}},
		{"an external entity", signed(xml(query("delete", ""), `<!DOCTYPE d [<!ENTITY e SYSTEM "file:///etc/passwd">]><Delete><Object><Key>&e;</Key></Object></Delete>`)), []string{"400 MalformedXML"}},
		{"XML of a million levels", signed(xml(query("delete", ""), strings.Repeat("<a>", 1_000_000))), []string{"400 MalformedXML"}},
		{"XML of a million siblings", signed(xml(query("delete", ""), "<Delete>"+strings.Repeat("<a/>", 1_000_000)+"</Delete>")), []string{"400 MalformedXML"}},
		{"XML of 9 MiB", signed(xml(query("delete", ""), "<Delete>"+strings.Repeat(" ", 9<<20)+"</Delete>")), []string{"400 MalformedXML"}},
		{"1,001 deletes", signed(xml(query("delete", ""), "<Delete>"+strings.Repeat("<Object><Key>k</Key></Object>", 1001)+"</Delete>")), []string{"400 MalformedXML"}},
		{"XML in another charset", signed(xml(query("delete", ""), `<?xml version="1.0" encoding="UTF-7"?><Delete/>`)), []string{"400 MalformedXML"}},
		{"a document that is a gzip bomb", signed(with(xml(query("delete", ""), bomb.String()), header1("Content-Encoding", "gzip"))), []string{"400 MalformedXML"}},

		// Who says so.
		{"no credential", headed("X-A: b"), []string{"403 AccessDenied"}},
		{"an authorisation of a MiB", headed("Authorization: AWS4-HMAC-SHA256 " + strings.Repeat("Credential=a/b/c/d/e,", 1000)), []string{"400 AuthorizationHeaderMalformed"}},
		{"two authorisations", signed(get, "Authorization:", "Authorization: Basic YTpi"+crlf+"Authorization:"), []string{"400 InvalidArgument", "400 InvalidRequest"}},
		{"a body other than the signed", strings.Replace(signed(put), crlf+crlf+"content", crlf+crlf+"CONTENT", 1), []string{"400 XAmzContentSHA256Mismatch"}},
		{"a signature of an hour ago", func() string {
			h, b := x.text(get, now.Add(-time.Hour))
			return h + "Connection: close" + crlf + crlf + b
		}(), []string{"403 RequestTimeTooSkewed"}},
		{"a signature of 16 minutes ago", func() string {
			h, b := x.text(put, now.Add(-16*time.Minute))
			return h + "Connection: close" + crlf + crlf + b
		}(), []string{"403 RequestTimeTooSkewed"}},
		{"a signature of in 16 minutes", func() string {
			h, b := x.text(put, now.Add(16*time.Minute))
			return h + "Connection: close" + crlf + crlf + b
		}(), []string{"403 RequestTimeTooSkewed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			x.t = t
			say := x.say
			if strings.Contains(c.name, "half-closed") {
				say = x.sayAndEnd
			}
			raw := say(c.raw)
			got := "closed"
			if all := answers(raw); len(all) > 0 {
				got = all[0]
			}
			if !slices.Contains(c.want, got) {
				t.Errorf("got %s, want one of %q\n%.600s", got, c.want, raw)
			}
			for _, word := range []string{"goroutine ", "panic", ".go:", "/root/", x.dir} {
				if strings.Contains(raw, word) {
					t.Errorf("the answer tells of the inside (%q): %.600s", word, raw)
				}
			}
		})
	}
	x.t = t
	x.stands()
}

func TestHostileNamesAreNamesAndNothingElse(t *testing.T) {
	x := newTarget(t)
	for i, key := range []string{"../../../../etc/passwd", "a/../b", "..", "./.", "/leading", "a//b", "a\\b", "%2e%2e%2f", "trailing/", "\u202egnp.exe", "\x01\x7f", "<script>&'\"", " ", "-rf", strings.Repeat("k", 1024)} {
		x.keep(key, fmt.Sprint("content ", i))
	}
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, 8<<20))
	z.Close()
	if _, err := x.want(t.Context(), Request{Method: http.MethodPut, Bucket: "imagery", Key: "bomb", Body: bomb.Bytes(), Header: header("Content-Encoding", "gzip")}, http.StatusOK); err != nil {
		t.Fatal(err)
	}
	x.kept["bomb"] = bomb.String() // as it came: nobody opens it
	x.stands()
	for _, r := range []string{"bytes=" + strings.Repeat("0-,", 2000) + "0-", "bytes=0-" + strings.Repeat("9", 100), "bytes=-99999999999999999999", "bytes=5-1", "chapters=1-2"} {
		got, err := x.do(t.Context(), Request{Method: http.MethodGet, Bucket: "imagery", Key: "canary", Header: header("Range", r)})
		if err != nil || !slices.Contains([]int{200, 206, 400, 416}, got.Status) || len(got.Body) > 2*len(x.kept["canary"]) {
			t.Errorf("range %.40q: %d with %d bytes, %v", r, got.Status, len(got.Body), err)
		}
	}
}

func TestASignatureEndsWhenItSays(t *testing.T) {
	clock := NewClock(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	s := New(t, Options{Seed: 7, Clock: clock})
	srv := httptest.NewTLSServer(s.Handler)
	t.Cleanup(srv.Close)
	w := wire{base: srv.URL, http: srv.Client(), who: s.Mint("s-analyst", "")}
	put := Request{Method: http.MethodPut, Bucket: "reports", Key: "k", Body: []byte("content")}
	signed := clock.Now()
	send := func(req *http.Request, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		r, err := w.send(req)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(fmt.Sprint(r.Status, " ", r.code()))
	}
	try := func(address string) string {
		return send(http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil))
	}
	replay := func() string { return send(w.sign(t.Context(), put, signed)) }
	if got := replay(); got != "200" {
		t.Fatalf("put: %s", got)
	}
	presigned, err := w.presign(t.Context(), Request{Method: http.MethodGet, Bucket: "reports", Key: "k"}, 10*time.Minute, signed)
	if err != nil {
		t.Fatal(err)
	}
	if got := try(presigned); got != "200" {
		t.Errorf("presigned, in its time: %s", got)
	}
	if longer := strings.Replace(presigned, "X-Amz-Expires=600", "X-Amz-Expires=6000", 1); longer == presigned || try(longer) != "403 SignatureDoesNotMatch" {
		t.Errorf("presigned, with its life made longer: %s", try(longer))
	}
	if other := strings.Replace(presigned, "/reports/k", "/reports/other", 1); try(other) != "403 SignatureDoesNotMatch" {
		t.Errorf("presigned for another key: %s", try(other))
	}
	clock.Add(10*time.Minute + time.Second)
	if got := try(presigned); got != "403 AccessDenied" {
		t.Errorf("presigned, after its time: %s", got)
	}
	clock.Add(5 * time.Minute)
	if got := replay(); got != "403 RequestTimeTooSkewed" {
		t.Errorf("a request of a quarter of an hour ago, sent again: %s", got)
	}
	week, err := w.presign(t.Context(), Request{Method: http.MethodGet, Bucket: "reports", Key: "k"}, 7*24*time.Hour, clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	clock.Add(13 * time.Hour) // longer than the credential lives
	if got := try(week); got != "400 ExpiredToken" {
		t.Errorf("presigned for a week by a credential that has ended: %s", got)
	}
}

func TestPipelinedGarbageEndsTheConnection(t *testing.T) {
	x := newTarget(t)
	head, _ := x.text(Request{Method: http.MethodGet, Bucket: "imagery", Key: "canary"}, time.Now())
	got := answers(x.say(head + crlf + head + crlf + "\x00\xff\xfegarbage" + crlf + crlf + head + crlf))
	if want := []string{"200", "200", "400"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	// A request inside the content of another stays content.
	inner := "GET /imagery/canary HTTP/1.1" + crlf + "Host: x" + crlf + crlf
	head, body := x.text(Request{Method: http.MethodPut, Bucket: "imagery", Key: "smuggled", Body: []byte(inner)}, time.Now())
	x.kept["smuggled"] = inner
	if got := answers(x.say(head + "Connection: close" + crlf + crlf + body)); !slices.Equal(got, []string{"200"}) {
		t.Errorf("got %q, want one answer", got)
	}
	// Both framings at once, which no signature covers: whatever is made of it, what follows is not taken for a request of the one who signed.
	head, _ = x.text(Request{Method: http.MethodPut, Bucket: "reports", Key: "smuggled", Header: header("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")}, time.Now())
	head += "Content-Length: 5" + crlf
	for i, one := range answers(x.sayAndEnd(head + "Transfer-Encoding: chunked" + crlf + crlf + "0" + crlf + crlf + inner)) {
		if strings.HasPrefix(one, "2") {
			t.Errorf("answer %d is %s", i, one)
		}
	}
	x.stands()
}

func TestAContentIsAskedForOnlyFromWhoMaySendIt(t *testing.T) {
	x := newTarget(t)
	expect := "Expect: 100-continue" + crlf + "Connection: close" + crlf + crlf
	head, body := x.text(Request{Method: http.MethodPut, Bucket: "imagery", Key: "expected", Body: []byte("content")}, time.Now())
	x.kept["expected"] = body
	if raw := x.say(head + expect + body); !strings.HasPrefix(raw, "HTTP/1.1 100 Continue") || !strings.Contains(raw, "HTTP/1.1 200 OK") {
		t.Errorf("signed: %.300s", raw)
	}
	unsigned := "PUT /reports/k HTTP/1.1" + crlf + "Host: x" + crlf + "Content-Length: 1000000000" + crlf + expect
	if raw := x.say(unsigned); !strings.HasPrefix(raw, "HTTP/1.1 403") || strings.Contains(raw, "100 Continue") {
		t.Errorf("unsigned: %.300s", raw)
	}
	down, _ := x.text(Request{Method: http.MethodPut, Bucket: "reports", Key: "k", Body: []byte("content"), Header: header("X-Amz-Meta-Redoubt-Label", "UNCLASSIFIED")}, time.Now())
	if raw := x.say(down + expect); !strings.HasPrefix(raw, "HTTP/1.1 403") || strings.Contains(raw, "100 Continue") {
		t.Errorf("a write-down: %.300s", raw)
	}
	x.stands()
}

// TestManyHostileClientsAtOnce: none of them takes memory, sockets or the service from the others.
func TestManyHostileClientsAtOnce(t *testing.T) {
	x := newTarget(t)
	open := func() int {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", x.cmd.Process.Pid))
		if err != nil {
			t.Skip("no /proc: ", err)
		}
		return len(fds)
	}
	x.http.CloseIdleConnections()
	before := open()
	big := bytes.Repeat([]byte("<Object><Key>k</Key></Object>"), 200_000) // 5.6 MiB
	var wg sync.WaitGroup
	for i := range 48 {
		wg.Go(func() {
			switch i % 4 {
			case 0: // a plain TCP client that says nothing of TLS
				c, err := net.Dial("tcp", x.host)
				if err == nil {
					_, _ = c.Write(bytes.Repeat([]byte{0xff}, 1<<16))
					c.Close()
				}
			case 1: // a handshake that is left
				c, err := net.Dial("tcp", x.host)
				if err == nil {
					_, _ = c.Write([]byte{0x16, 3, 1, 0x40, 0, 1})
					c.Close()
				}
			case 2: // a large document without a good end
				_, _ = x.do(t.Context(), Request{Method: http.MethodPost, Bucket: "reports", Query: query("delete", ""), Body: append([]byte("<Delete>"), big...)})
			case 3: // large content that is cut off
				head, _ := x.text(Request{Method: http.MethodPut, Bucket: "reports", Key: "cut", Body: make([]byte, 32<<20)}, time.Now())
				c, err := tls.Dial("tcp", x.host, &tls.Config{RootCAs: x.roots})
				if err == nil {
					_, _ = io.WriteString(c, head+crlf)
					_, _ = c.Write(make([]byte, 4<<20))
					c.Close()
				}
			}
		})
	}
	wg.Wait()
	x.http.CloseIdleConnections()
	until(t, "the node has let go of every connection", func() bool { return open() <= before+10 }) // the store may have opened files of its own
	x.stands()
}

func TestSlowClientsAreCut(t *testing.T) {
	s := New(t, Options{Seed: 3, Time: time.Now})
	s.Clock.Set(time.Now())
	var active atomic.Int64
	var served atomic.Int64
	inner := s3.New(s3.Options{Objects: s.Enclave, Lists: s.Enclave, Uploads: s.Enclave, Buckets: s.Enclave, Auth: s.Enclave, Region: Region,
		Limits: s3.Limits{Stall: time.Second, ProgressBytes: 1 << 10}})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		active.Add(1)
		served.Add(1)
		defer active.Add(-1)
		inner.ServeHTTP(w, r)
	}))
	srv.Config.ReadHeaderTimeout = time.Second
	srv.StartTLS()
	t.Cleanup(srv.Close)
	x := &target{victim: &victim{t: t, place: place{S3: srv.URL}}, wire: wire{base: srv.URL, http: srv.Client(), who: s.Mint("s-analyst", "")}}
	dial := func(t *testing.T) *tls.Conn {
		t.Helper()
		c, err := tls.Dial("tcp", strings.TrimPrefix(srv.URL, "https://"), srv.Client().Transport.(*http.Transport).TLSClientConfig)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(patience))
		return c
	}
	// drip sends a byte now and then until the other side has had enough, and gives what it said.
	drip := func(t *testing.T, c *tls.Conn, one string) string {
		t.Helper()
		ended := make(chan struct{})
		defer func() { <-ended }()
		go func() {
			defer close(ended)
			for {
				if _, err := io.WriteString(c, one); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond) // the drip
			}
		}()
		said, err := io.ReadAll(c)
		c.Close()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the client was never cut off")
		}
		return string(said)
	}
	t.Run("in the head", func(t *testing.T) {
		c := dial(t)
		_, _ = io.WriteString(c, "GET /reports HTTP/1.1"+crlf+"Host: x"+crlf)
		if got := answers(drip(t, c, "X-Drip: a"+crlf)); len(got) > 0 && got[0] != "408" && got[0] != "400" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("in the content", func(t *testing.T) {
		c := dial(t)
		head, _ := x.text(Request{Method: http.MethodPut, Bucket: "reports", Key: "slow", Body: make([]byte, 100_000)}, time.Now())
		_, _ = io.WriteString(c, head+crlf)
		if got := answers(drip(t, c, "\x00")); len(got) != 1 || got[0] != "400 RequestTimeout" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("by taking nothing of the answer", func(t *testing.T) {
		x.t = t
		big := make([]byte, 48<<20) // more than the sockets between us hold
		if _, err := x.want(t.Context(), Request{Method: http.MethodPut, Bucket: "reports", Key: "big", Body: big}, http.StatusOK); err != nil {
			t.Fatal(err)
		}
		c := dial(t)
		before := served.Load()
		head, _ := x.text(Request{Method: http.MethodGet, Bucket: "reports", Key: "big"}, time.Now())
		_, _ = io.WriteString(c, head+crlf)
		until(t, "the request is served", func() bool { return served.Load() > before })
		until(t, "the request has ended", func() bool { return active.Load() == 0 })
		n, err := io.Copy(io.Discard, c)
		if n >= int64(len(big)) {
			t.Errorf("all %d bytes came, %v", n, err)
		}
	})
	until(t, "no request is under way", func() bool { return active.Load() == 0 })
	r, err := x.do(t.Context(), Request{Method: http.MethodGet, Bucket: "reports", Key: "slow"})
	if err != nil || r.Status != http.StatusNotFound {
		t.Errorf("what dripped was stored: %d, %v", r.Status, err)
	}
}
