package registry_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"redoubt"
	"redoubt/compute/image"
	"redoubt/redoubttest"
)

// site is an enclave with its registry behind HTTP.
type site struct {
	*redoubttest.Stack
	t   *testing.T
	url string
}

func newSite(t *testing.T, o redoubttest.Options) *site {
	t.Helper()
	if o.Seed == 0 {
		o.Seed = 7
	}
	s := redoubttest.New(t, o)
	server := httptest.NewServer(s.Images)
	t.Cleanup(server.Close)
	return &site{s, t, server.URL}
}

// client is one credential at it.
type client struct {
	*site
	minted redoubt.Minted
}

func (s *site) as(who redoubt.SubjectName, marking string) *client {
	s.t.Helper()
	return &client{s, s.Mint(who, marking)}
}

type answer struct {
	status int
	header http.Header
	body   string
}

// code is the first error code of the answer.
func (a answer) code() string {
	var p struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal([]byte(a.body), &p) != nil || len(p.Errors) == 0 {
		return ""
	}
	return p.Errors[0].Code
}

func (a answer) String() string { return fmt.Sprintf("%d %.300s", a.status, a.body) }

// do sends one request; headers are NAME, VALUE in turn.
func (c *client) do(method, path string, body io.Reader, headers ...string) answer {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, body)
	if err != nil {
		c.t.Fatal(err)
	}
	req.SetBasicAuth("anybody", c.minted.Token)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		got = append(got, ("\n(broke off: " + err.Error() + ")")...)
	}
	return answer{resp.StatusCode, resp.Header, string(got)}
}

func (c *client) want(status int, code, method, path string, body io.Reader, headers ...string) answer {
	c.t.Helper()
	a := c.do(method, path, body, headers...)
	if a.status != status || a.code() != code {
		c.t.Fatalf("%s %s: got %s, want %d %s", method, path, a, status, code)
	}
	return a
}

// start begins an upload and gives its path.
func (c *client) start(repo string) string {
	c.t.Helper()
	return c.want(202, "", "POST", "/v2/"+repo+"/blobs/uploads/", nil).header.Get("Location")
}

// blob pushes a blob as docker does: POST, PATCH without a length, PUT.
func (c *client) blob(repo string, b []byte) image.Descriptor {
	c.t.Helper()
	d, at := image.DigestOf(b), c.start(repo)
	at = c.want(202, "", "PATCH", at, io.MultiReader(bytes.NewReader(b))).header.Get("Location") // of no known length
	c.want(201, "", "PUT", at+"?digest="+d.String(), nil)
	return image.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar", Digest: d, Size: int64(len(b))}
}

// push pushes an image of one layer under a tag.
func (c *client) push(repo, tag string, layer []byte) image.Digest {
	c.t.Helper()
	l := c.blob(repo, layer)
	config := c.blob(repo, fmt.Appendf(nil, `{"os":"linux","architecture":"amd64","config":{"Cmd":["x"]},"rootfs":{"type":"layers","diff_ids":[%q]}}`, l.Digest))
	config.MediaType = image.TypeConfig
	m := manifest(map[string]any{"config": config, "layers": []image.Descriptor{l}})
	c.want(201, "", "PUT", "/v2/"+repo+"/manifests/"+tag, bytes.NewReader(m), "Content-Type", image.TypeManifest)
	return image.DigestOf(m)
}

func manifest(fields map[string]any) []byte {
	fields["schemaVersion"] = 2
	if fields["mediaType"] == nil {
		fields["mediaType"] = image.TypeManifest
	}
	b, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	return b
}

func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestWhoDoesNotSayWhoTheyAreLearnsOnlyHow(t *testing.T) {
	s := newSite(t, redoubttest.Options{})
	ask := func(path, auth string) *http.Response {
		req, _ := http.NewRequest("GET", s.url+path, nil)
		if auth != "" {
			req.Header.Set("Authorization", auth)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	token := s.Mint("s-analyst", "").Token
	basic := func(user, password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	}
	for _, bad := range []string{"", "Basic", "Basic !", basic("s-analyst", ""), basic(token, ""), basic("s-analyst", token+"x"), "Bearer", "Bearer x" + token, "Digest " + token, token} {
		for _, path := range []string{"/v2/", "/v2/reports/a/tags/list", "/v2/nonsense"} {
			if resp := ask(path, bad); resp.StatusCode != 401 || resp.Header.Get("Www-Authenticate") != `Basic realm="redoubt"` {
				t.Errorf("%s with %q: %d", path, bad, resp.StatusCode)
			}
		}
	}
	for _, good := range []string{basic("whoever", token), basic("", token), "Bearer " + token, "basic " + strings.TrimPrefix(basic("x", token), "Basic ")} {
		if resp := ask("/v2/", good); resp.StatusCode != 200 || resp.Header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
			t.Errorf("%q: %d", good, resp.StatusCode)
		}
	}
}

func TestBlobsArePushedInEveryWayThereIs(t *testing.T) {
	s := newSite(t, redoubttest.Options{})
	c := s.as("s-analyst", "")
	const repo = "reports/tools/a"
	big := noise(2*redoubt.MinPartBytes+12345, 1)
	for _, b := range [][]byte{nil, []byte("small"), noise(redoubt.MinPartBytes, 2), big} {
		d := image.DigestOf(b)
		path := "/v2/" + repo + "/blobs/" + d.String()
		ways := map[string]func(){
			"one POST": func() {
				c.want(201, "", "POST", "/v2/"+repo+"/blobs/uploads/?digest="+d.String(), bytes.NewReader(b))
			},
			"POST and PUT": func() { c.want(201, "", "PUT", c.start(repo)+"?digest="+d.String(), bytes.NewReader(b)) },
			"streamed":     func() { c.blob(repo, b) },
			"in pieces": func() {
				at, step := c.start(repo), len(b)/3+1
				for from := 0; from < len(b); from += step {
					piece := b[from:min(len(b), from+step)]
					a := c.want(202, "", "PATCH", at, bytes.NewReader(piece), "Content-Range", fmt.Sprintf("%d-%d", from, from+len(piece)-1))
					if want := fmt.Sprintf("0-%d", from+len(piece)-1); a.header.Get("Range") != want {
						t.Errorf("got Range %s, want %s", a.header.Get("Range"), want)
					}
				}
				c.want(201, "", "PUT", at+"?digest="+d.String(), nil)
			},
			"a piece, and the rest in PUT": func() {
				at, half := c.start(repo), len(b)/2
				if half > 0 {
					c.want(202, "", "PATCH", at, bytes.NewReader(b[:half]), "Content-Range", fmt.Sprintf("0-%d", half-1))
				}
				c.want(201, "", "PUT", at+"?digest="+d.String(), bytes.NewReader(b[half:]))
			},
		}
		for way, push := range ways {
			c.want(404, "BLOB_UNKNOWN", "GET", path, nil)
			push()
			head := c.want(200, "", "HEAD", path, nil)
			got := c.want(200, "", "GET", path, nil)
			if got.body != string(b) || head.header.Get("Content-Length") != fmt.Sprint(len(b)) || head.header.Get("Docker-Content-Digest") != d.String() || head.header.Get("Redoubt-Label") != "SECRET" {
				t.Errorf("%s of %d: %d bytes, %v", way, len(b), len(got.body), head.header)
			}
			c.want(202, "", "DELETE", path, nil)
		}
	}
}

func TestRangesOfBlobs(t *testing.T) {
	s := newSite(t, redoubttest.Options{})
	c := s.as("s-analyst", "")
	for _, n := range []int{1000, redoubt.MinPartBytes + 1000} {
		b := noise(n, uint64(n))
		path := "/v2/reports/a/blobs/" + c.blob("reports/a", b).Digest.String()
		for header, want := range map[string][]byte{"bytes=0-0": b[:1], "bytes=10-19": b[10:20], "bytes=990-": b[990:], "bytes=-7": b[n-7:],
			"bytes=0-99999999999": b, "bytes=-99999999999": b} {
			a := c.want(206, "", "GET", path, nil, "Range", header)
			if a.body != string(want) || !strings.HasSuffix(a.header.Get("Content-Range"), fmt.Sprint("/", n)) {
				t.Errorf("%s: %d bytes, %s", header, len(a.body), a.header.Get("Content-Range"))
			}
		}
		for _, header := range []string{"bytes=9-8", "bytes=a-b", "bytes=", "bytes=-", "octets=0-1", "bytes=0-1,3-4", "bytes=99999999999999999999-", "bytes=+1-2", "bytes=--1"} {
			if a := c.want(200, "", "GET", path, nil, "Range", header); a.body != string(b) {
				t.Errorf("%s: %d bytes", header, len(a.body))
			}
		}
		for _, header := range []string{fmt.Sprintf("bytes=%d-", n), "bytes=999999999-9999999999", "bytes=-0"} {
			if a := c.want(416, "SIZE_INVALID", "GET", path, nil, "Range", header); a.header.Get("Content-Range") != fmt.Sprintf("bytes */%d", n) {
				t.Errorf("%s: %v", header, a.header)
			}
		}
	}
}

func TestWhatHasAnotherDigestIsNeverThere(t *testing.T) {
	s := newSite(t, redoubttest.Options{})
	c := s.as("s-analyst", "")
	const repo = "reports/a"
	for _, n := range []int{10, 2 * redoubt.MinPartBytes} {
		b := noise(n, 3)
		other := image.DigestOf([]byte("other"))
		c.want(400, "DIGEST_INVALID", "POST", "/v2/"+repo+"/blobs/uploads/?digest="+other.String(), bytes.NewReader(b))
		c.want(400, "DIGEST_INVALID", "PUT", c.start(repo)+"?digest="+other.String(), bytes.NewReader(b))
		at := c.start(repo)
		c.want(202, "", "PATCH", at, bytes.NewReader(b))
		c.want(400, "DIGEST_INVALID", "PUT", at+"?digest="+other.String(), nil)
		c.want(404, "BLOB_UPLOAD_UNKNOWN", "GET", at, nil) // that upload is over
		at = c.start(repo)
		for _, bad := range []string{"", "?digest=", "?digest=sha256:00", "?digest=sha512:" + other.Hex(), "?digest=" + strings.ToUpper(other.String())} {
			c.want(400, "DIGEST_INVALID", "PUT", at+bad, nil)
		}
		c.want(204, "", "DELETE", at, nil)
		for _, d := range []image.Digest{other, image.DigestOf(b)} {
			c.want(404, "BLOB_UNKNOWN", "GET", "/v2/"+repo+"/blobs/"+d.String(), nil)
		}
	}
	c.want(400, "DIGEST_INVALID", "PUT", "/v2/"+repo+"/manifests/"+image.DigestOf([]byte("other")).String(), strings.NewReader(`{"schemaVersion":2,"mediaType":"`+image.TypeIndex+`","manifests":[]}`), "Content-Type", image.TypeIndex)
	// Nothing of it lies in the bucket either, not even under a name of its own.
	page, err := s.ListVersions(t.Context(), s.As(c.minted), redoubt.ListVersions{Bucket: "reports", Max: 100})
	if err != nil || len(page.Versions) != 0 {
		t.Errorf("there are %d versions, %v", len(page.Versions), err)
	}
	ups, err := s.ListUploads(t.Context(), s.As(c.minted), redoubt.ListUploads{Bucket: "reports", Max: 100})
	if err != nil || len(ups.Uploads) != 0 {
		t.Errorf("there are %d uploads, %v", len(ups.Uploads), err)
	}
}

func TestAnUploadGoesOnWhereItBroke(t *testing.T) {
	s := newSite(t, redoubttest.Options{})
	c := s.as("s-analyst", "")
	b := noise(3*redoubt.MinPartBytes, 4)
	at, sent := c.start("reports/a"), 0
	for _, n := range []int{100, redoubt.MinPartBytes, redoubt.MinPartBytes + 777, 1} {
		ctx, gone := context.WithCancel(t.Context())
		req := httptest.NewRequestWithContext(ctx, "PATCH", at, io.MultiReader(bytes.NewReader(b[sent:min(len(b), sent+n)]), broken(gone)))
		req.SetBasicAuth("x", c.minted.Token)
		w := httptest.NewRecorder()
		s.Images.ServeHTTP(w, req)
		if w.Code != 400 {
			t.Fatalf("of a broken request: %d %s", w.Code, w.Body)
		}
		a := c.want(204, "", "GET", at, nil)
		var first, last int
		if _, err := fmt.Sscanf(a.header.Get("Range"), "%d-%d", &first, &last); err != nil || a.status != 204 || last+1 < sent {
			t.Fatalf("got %s, %v", a, a.header)
		}
		if sent = last + 1; last == 0 {
			sent = 0
		}
	}
	if sent != 2*redoubt.MinPartBytes+878 {
		t.Errorf("%d bytes were kept", sent)
	}
	a := c.want(416, "BLOB_UPLOAD_INVALID", "PATCH", at, strings.NewReader("x"), "Content-Range", fmt.Sprintf("%d-%d", sent+1, sent+1))
	if a.header.Get("Range") != fmt.Sprintf("0-%d", sent-1) {
		t.Errorf("got Range %s", a.header.Get("Range"))
	}
	c.want(416, "BLOB_UPLOAD_INVALID", "PATCH", at, strings.NewReader("x"), "Content-Range", "0-0")
	for _, bad := range []string{"x", "5", "5-4", "-1-0", fmt.Sprintf("%d-%d", sent, sent+5), "bytes 0-0/1"} {
		c.want(400, "BLOB_UPLOAD_INVALID", "PATCH", at, strings.NewReader("x"), "Content-Range", bad)
	}
	d := image.DigestOf(b)
	c.want(201, "", "PUT", at+"?digest="+d.String(), bytes.NewReader(b[sent:]), "Content-Range", fmt.Sprintf("%d-%d", sent, len(b)-1))
	if got := c.want(200, "", "GET", "/v2/reports/a/blobs/"+d.String(), nil); got.body != string(b) {
		t.Errorf("got %d bytes", len(got.body))
	}
}

// broken is what a server reads of a client that is gone.
type broken func()

func (b broken) Read([]byte) (int, error) {
	b()
	return 0, io.ErrUnexpectedEOF
}

// TestAnUploadDoesNotOutliveItsNode: whoever goes on is told that there is no such upload, as of one that never was, and begins anew.
func TestAnUploadDoesNotOutliveItsNode(t *testing.T) {
	for how, end := range map[string]func(*site){
		"stopped in order": func(s *site) {
			if err := s.Images.Close(); err != nil {
				t.Error(err)
			}
			s.Stop()
		},
		"killed": func(s *site) {
			s.Cut()
			s.Stop()
		},
	} {
		disk := redoubttest.NewDisk(t)
		before := newSite(t, redoubttest.Options{Disk: disk})
		c := before.as("s-analyst", "")
		b := noise(2*redoubt.MinPartBytes, 5)
		at, d := c.start("reports/a"), image.DigestOf(b)
		c.want(202, "", "PATCH", at, bytes.NewReader(b[:redoubt.MinPartBytes+1]))
		end(before)
		c = &client{newSite(t, redoubttest.Options{Disk: disk}), c.minted} // the token is good for it still
		for method, body := range map[string]io.Reader{"GET": nil, "PATCH": bytes.NewReader(b[redoubt.MinPartBytes+1:]), "DELETE": nil} {
			c.want(404, "BLOB_UPLOAD_UNKNOWN", method, at, body)
		}
		c.want(404, "BLOB_UPLOAD_UNKNOWN", "PUT", at+"?digest="+d.String(), bytes.NewReader(b[redoubt.MinPartBytes+1:]))
		c.want(404, "BLOB_UNKNOWN", "GET", "/v2/reports/a/blobs/"+d.String(), nil)
		page, err := c.ListUploads(t.Context(), c.As(c.minted), redoubt.ListUploads{Bucket: "reports", Max: 10})
		if err != nil {
			t.Fatal(err)
		}
		if left := len(page.Uploads); left != map[string]int{"killed": 1}[how] {
			t.Errorf("%s: %d multipart uploads are left", how, left)
		}
		at = c.start("reports/a")
		c.want(201, "", "PUT", at+"?digest="+d.String(), bytes.NewReader(b))
		if got := c.want(200, "", "GET", "/v2/reports/a/blobs/"+d.String(), nil); got.body != string(b) {
			t.Errorf("%s: got %d bytes", how, len(got.body))
		}
	}
}

func TestAnUploadIsItsBeginnersAlone(t *testing.T) {
	s := newSite(t, redoubttest.Options{})
	mine, again, other := s.as("s-analyst", ""), s.as("s-analyst", ""), s.as("ts-analyst", "")
	at := mine.start("reports/a")
	never := "/v2/reports/a/blobs/uploads/" + strings.Repeat("0", 32)
	for _, c := range []*client{again, other} {
		for _, method := range []string{"GET", "PATCH", "PUT", "DELETE"} {
			if got, want := c.do(method, at, nil), c.do(method, never, nil); got.status != 404 || got.body != want.body {
				t.Errorf("%s of another's: %s; of none: %s", method, got, want)
			}
		}
	}
	mine.want(404, "BLOB_UPLOAD_UNKNOWN", "GET", strings.Replace(at, "reports/a", "reports/b", 1), nil) // nor of another repository
	mine.want(204, "", "GET", at, nil)
}

func TestUploadsAreBounded(t *testing.T) {
	s := newSite(t, redoubttest.Options{})
	c, d := s.as("s-analyst", ""), s.as("s-analyst", "")
	var all []string
	for range 16 {
		all = append(all, c.start("reports/a"))
	}
	c.want(429, "TOOMANYREQUESTS", "POST", "/v2/reports/a/blobs/uploads/", nil)
	d.start("reports/a") // another credential has its own
	c.want(204, "", "DELETE", all[0], nil)
	c.start("reports/a")
	for range 2 {
		e := s.as("s-analyst", "")
		for range 16 {
			e.start("reports/a")
		}
	}
	e := s.as("s-analyst", "")
	for range 15 {
		e.start("reports/a")
	}
	e.want(429, "TOOMANYREQUESTS", "POST", "/v2/reports/a/blobs/uploads/", nil) // 64 of the label
	s.as("u-analyst", "").start("reports/a")                                    // another label does not notice
	s.as("ts-analyst", "").start("reports/a")
}

func TestNamesThatAreTricks(t *testing.T) {
	s := newSite(t, redoubttest.Options{})
	c := s.as("s-analyst", "")
	for _, name := range []string{"reports", "reports/_tags", "reports/a/_blobs", "reports/A", "reports//a", "reports/a%00b", "reports/a%0a", "reports/a%20b", "reports/-a", "reports/a-",
		"models/a", ".system/a", "reports/" + strings.Repeat("a", 250), "reports/%c3%bc", "reports/a%5cb"} {
		for _, rest := range []string{"/tags/list", "/manifests/latest", "/blobs/" + image.DigestOf(nil).String(), "/referrers/" + image.DigestOf(nil).String()} {
			if a := c.do("GET", "/v2/"+name+rest, nil); a.status != 400 || a.code() != "NAME_INVALID" {
				t.Errorf("%s%s: %s", name, rest, a)
			}
		}
		if a := c.do("POST", "/v2/"+name+"/blobs/uploads/", nil); a.status != 400 || a.code() != "NAME_INVALID" {
			t.Errorf("%s: %s", name, a)
		}
	}
	for _, tag := range []string{"-a", ".a", "a%2fb", "a%20", strings.Repeat("a", 129), "%2e%2e", "a%00"} {
		if a := c.do("GET", "/v2/reports/a/manifests/"+tag, nil); a.status < 400 || a.status >= 500 {
			t.Errorf("tag %s: %s", tag, a)
		}
	}
	// Names that hold the words of paths are names.
	for _, name := range []string{"reports/blobs/uploads", "reports/manifests/a", "reports/tags/list", "reports/referrers/x/blobs"} {
		d := c.push(name, "v1", []byte(name))
		if a := c.want(200, "", "GET", "/v2/"+name+"/manifests/v1", nil); a.header.Get("Docker-Content-Digest") != d.String() {
			t.Errorf("%s: %v", name, a.header)
		}
		if a := c.want(200, "", "GET", "/v2/"+name+"/tags/list", nil); !strings.Contains(a.body, `"tags":["v1"]`) {
			t.Errorf("%s: %s", name, a)
		}
	}
	for path, method := range map[string]string{"/v2/_catalog": "GET", "/v2/reports/a": "GET", "/v2/reports/a/x/y": "GET"} {
		if a := c.do(method, path, nil); a.status != 404 || a.code() != "UNSUPPORTED" {
			t.Errorf("%s: %s", path, a)
		}
	}
	c.want(405, "UNSUPPORTED", "POST", "/v2/reports/a/manifests/v1", nil)
}
