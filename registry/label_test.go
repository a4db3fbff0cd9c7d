package registry_test

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/compute/image"
	"redoubt/faketime"
	"redoubt/redoubttest"
)

// everyQuestion is everything that can be asked of an image by who might not know of it.
func everyQuestion(repo, tag string, d, layer image.Digest) [][2]string {
	base := "/v2/" + repo
	return [][2]string{{"GET", base + "/manifests/" + tag}, {"HEAD", base + "/manifests/" + tag}, {"GET", base + "/manifests/" + d.String()}, {"DELETE", base + "/manifests/" + tag},
		{"DELETE", base + "/manifests/" + d.String()}, {"GET", base + "/blobs/" + layer.String()}, {"HEAD", base + "/blobs/" + layer.String()}, {"DELETE", base + "/blobs/" + layer.String()},
		{"GET", base + "/tags/list"}, {"GET", base + "/referrers/" + d.String()}}
}

// told is an answer without what is random or repeats the question.
func (a answer) told(names ...string) string {
	h := a.header.Clone()
	for _, name := range []string{"Redoubt-Request", "Date"} {
		h.Del(name)
	}
	var b bytes.Buffer
	_ = h.Write(&b)
	return strings.NewReplacer(append(slices.Clone(names), "\r", "")...).Replace(a.String() + "\n" + b.String())
}

func TestWhatIsNotDominatedDoesNotExist(t *testing.T) {
	s := newSite(t, redoubttest.Options{})
	high, low := s.as("s-analyst", ""), s.as("u-analyst", "")
	big := noise(redoubt.MinPartBytes+1, 9)
	d := high.push("reports/tool", "v1", big)
	empty := high.blob("reports/tool", []byte("{}"))
	note := manifest(map[string]any{"config": empty, "layers": []image.Descriptor{}, "subject": image.Descriptor{MediaType: image.TypeManifest, Digest: d, Size: 1}})
	high.want(201, "", "PUT", "/v2/reports/tool/manifests/note", bytes.NewReader(note), "Content-Type", image.TypeManifest)
	never := everyQuestion("reports/none", "v1", image.DigestOf([]byte("no manifest")), image.DigestOf([]byte("no layer")))
	nowhere := everyQuestion("nobucket/none", "v1", d, image.DigestOf(big))
	for i, q := range everyQuestion("reports/tool", "v1", d, image.DigestOf(big)) {
		got := low.do(q[0], q[1], nil)
		for _, n := range [][2]string{never[i], nowhere[i]} {
			if want := low.do(n[0], n[1], nil); got.told() != want.told() {
				t.Errorf("%s %s: got %s, and of %s %s", q[0], q[1], got.told(), n[1], want.told())
			}
		}
	}
	high.want(200, "", "GET", "/v2/reports/tool/manifests/v1", nil) // and nothing of it went
	// Nor does a push tell: what lies above is pushed once more.
	if a := low.do("POST", "/v2/reports/other/blobs/uploads/?mount="+image.DigestOf(big).String()+"&from=reports/tool", nil); a.status != 202 {
		t.Errorf("mounted from above: %s", a)
	}
	if a := low.do("PUT", "/v2/reports/tool/manifests/v1", bytes.NewReader(note), "Content-Type", image.TypeManifest); a.status != 404 || a.code() != "MANIFEST_BLOB_UNKNOWN" {
		t.Errorf("a manifest of blobs from above: %s", a)
	}
}

func TestATagStandsOnceForEachLabel(t *testing.T) {
	s := newSite(t, redoubttest.Options{})
	low, high, top := s.as("u-analyst", ""), s.as("s-analyst", ""), s.as("ts-analyst", "")
	path := "/v2/reports/tool/manifests/latest"
	is := func(c *client, want image.Digest, label string) {
		t.Helper()
		a := c.want(200, "", "GET", path, nil)
		if a.header.Get("Docker-Content-Digest") != want.String() || a.header.Get("Redoubt-Label") != label {
			t.Errorf("got %s %s, want %s %s", a.header.Get("Docker-Content-Digest"), a.header.Get("Redoubt-Label"), want, label)
		}
	}
	one := low.push("reports/tool", "latest", []byte("one"))
	is(high, one, "UNCLASSIFIED")
	two := high.push("reports/tool", "latest", []byte("two"))
	is(low, one, "UNCLASSIFIED")
	is(high, two, "SECRET")
	is(top, two, "SECRET")
	low.want(202, "", "DELETE", path, nil) // hides nothing above
	low.want(404, "MANIFEST_UNKNOWN", "GET", path, nil)
	is(high, two, "SECRET")
	three := low.push("reports/tool", "latest", []byte("three"))
	is(high, three, "UNCLASSIFIED") // newest first, as with every object
	high.want(202, "", "DELETE", path, nil)
	high.want(404, "MANIFEST_UNKNOWN", "GET", path, nil)
	is(low, three, "UNCLASSIFIED") // what is done above does not show below
}

func TestABlobIsMountedFromWhatTheCallerMayRead(t *testing.T) {
	s := newSite(t, redoubttest.Options{})
	low, high := s.as("u-analyst", ""), s.as("s-analyst", "")
	for _, b := range [][]byte{[]byte("small"), noise(redoubt.MinPartBytes+7, 5)} {
		d := low.blob("reports/low", b).Digest
		a := high.want(201, "", "POST", "/v2/imagery/high/blobs/uploads/?mount="+d.String()+"&from=reports/low", nil)
		if a.header.Get("Location") != "/v2/imagery/high/blobs/"+d.String() {
			t.Errorf("got %v", a.header)
		}
		got := high.want(200, "", "GET", "/v2/imagery/high/blobs/"+d.String(), nil)
		if got.body != string(b) || got.header.Get("Redoubt-Label") != "SECRET" {
			t.Errorf("the copy: %d bytes, %s", len(got.body), got.header.Get("Redoubt-Label"))
		}
		low.want(404, "BLOB_UNKNOWN", "GET", "/v2/imagery/high/blobs/"+d.String(), nil)
	}
	// A copy keeps what handling marks its source has, which are in no comparison of labels.
	marked := []byte("marked")
	r := image.Repository{Bucket: "reports", Name: "marked"}
	if _, err := s.PutObject(t.Context(), s.As(high.minted), redoubt.PutObject{Name: r.Blob(image.DigestOf(marked)), Label: "SECRET//ORCON/NOFORN", Body: bytes.NewReader(marked), SizeBytes: int64(len(marked))}); err != nil {
		t.Fatal(err)
	}
	high.want(201, "", "POST", "/v2/imagery/high/blobs/uploads/?mount="+image.DigestOf(marked).String()+"&from=reports/marked", nil)
	if a := high.want(200, "", "HEAD", "/v2/imagery/high/blobs/"+image.DigestOf(marked).String(), nil); a.header.Get("Redoubt-Label") != "SECRET//ORCON/NOFORN" {
		t.Errorf("the copy of what is marked is %s", a.header.Get("Redoubt-Label"))
	}
	// What is not what its digest says is not copied.
	for _, b := range [][]byte{[]byte("else"), noise(100_000, 1)} {
		d := image.DigestOf(append([]byte("not "), b...))
		if _, err := s.PutObject(t.Context(), s.As(high.minted), redoubt.PutObject{Name: r.Blob(d), Body: bytes.NewReader(b), SizeBytes: int64(len(b))}); err != nil {
			t.Fatal(err)
		}
		high.want(202, "", "POST", "/v2/imagery/high/blobs/uploads/?mount="+d.String()+"&from=reports/marked", nil)
		high.want(404, "", "HEAD", "/v2/imagery/high/blobs/"+d.String(), nil)
	}
	for _, from := range []string{"", "reports/none", "nobucket/none", "../x", "reports"} {
		if a := high.do("POST", "/v2/imagery/high/blobs/uploads/?mount="+image.DigestOf(nil).String()+"&from="+from, nil); a.status != 202 || a.header.Get("Location") == "" {
			t.Errorf("from %q: %s", from, a)
		}
	}
}

// S3 writes the same keys: what lies there is held to its digest, whoever put it there.
func TestWhatS3PutUnderADigestIsNotBelieved(t *testing.T) {
	s := newSite(t, redoubttest.Options{})
	c := s.as("s-analyst", "")
	as, r := s.As(c.minted), image.Repository{Bucket: "reports", Name: "tool"}
	put := func(name redoubt.ObjectName, b []byte, sums redoubt.Checksums) {
		t.Helper()
		if _, err := s.PutObject(t.Context(), as, redoubt.PutObject{Name: name, Body: bytes.NewReader(b), SizeBytes: int64(len(b)),
			Finish: func() (redoubt.Checksums, string, error) { return sums, "", nil }}); err != nil {
			t.Fatal(err)
		}
	}
	wrong := noise(600<<10, 6)
	sum := image.DigestOf(wrong)
	known := redoubt.Checksums{SHA256: base64.StdEncoding.EncodeToString(sum[:])}

	d := image.DigestOf([]byte("summed"))
	put(r.Blob(d), wrong, known)
	for _, method := range []string{"HEAD", "GET"} {
		if a := c.do(method, "/v2/reports/tool/blobs/"+d.String(), nil); a.status != 404 {
			t.Errorf("%s of a blob of another sum: %s", method, a)
		}
	}
	small := image.DigestOf([]byte("small, not summed"))
	put(r.Blob(small), []byte("else"), redoubt.Checksums{})
	c.want(404, "BLOB_UNKNOWN", "GET", "/v2/reports/tool/blobs/"+small.String(), nil)
	large := image.DigestOf([]byte("large, not summed"))
	put(r.Blob(large), wrong, redoubt.Checksums{})
	if a := c.do("GET", "/v2/reports/tool/blobs/"+large.String(), nil); !strings.Contains(a.body, "broke off") || len(a.body) >= len(wrong) {
		t.Errorf("a large blob of another sum was given whole: %d bytes", len(a.body))
	}
	m := image.DigestOf([]byte("manifest"))
	put(r.Manifest(m), manifest(map[string]any{"mediaType": image.TypeIndex, "manifests": []image.Descriptor{}}), redoubt.Checksums{})
	text := []byte("no manifest")
	put(r.Manifest(image.DigestOf(text)), text, redoubt.Checksums{})
	put(r.Tag("one"), []byte(m.String()), redoubt.Checksums{})
	put(r.Tag("two"), []byte("sha256:../../x"), redoubt.Checksums{})
	put(r.Tag("three"), noise(1000, 1), redoubt.Checksums{})
	for _, ref := range []string{m.String(), image.DigestOf(text).String(), "one", "two"} {
		c.want(404, "MANIFEST_UNKNOWN", "GET", "/v2/reports/tool/manifests/"+ref, nil)
	}
	if a := c.do("GET", "/v2/reports/tool/manifests/three", nil); a.status < 400 || a.status >= 500 {
		t.Errorf("a tag of 1000 bytes: %s", a)
	}
	put(redoubt.ObjectName{Bucket: "reports", Key: r.Tags() + "no/tag"}, nil, redoubt.Checksums{})
	if a := c.want(200, "", "GET", "/v2/reports/tool/tags/list", nil); !strings.Contains(a.body, `["one","three","two"]`) {
		t.Errorf("tags: %s", a)
	}
}

func TestEveryVerbIsOnRecordUnderItsRequest(t *testing.T) {
	s := newSite(t, redoubttest.Options{})
	c := s.as("s-analyst", "")
	d := c.push("reports/tool", "v1", []byte("one"))
	officer := s.As(s.Mint("officer", ""))
	for _, q := range [][3]string{{"GET", "/v2/reports/tool/manifests/v1", "GetObject"}, {"HEAD", "/v2/reports/tool/blobs/" + image.DigestOf([]byte("one")).String(), "HeadObject"},
		{"DELETE", "/v2/reports/tool/manifests/" + d.String(), "DeleteObject"}, {"GET", "/v2/reports/tool/tags/list", "ListObjects"}, {"GET", "/v2/reports/none/manifests/v1", "GetObject"}} {
		a := c.do(q[0], q[1], nil)
		var found []string
		err := s.SearchAudit(t.Context(), officer, redoubt.AuditQuery{Request: a.header.Get("Redoubt-Request")}, func(e redoubt.AuditRecord) error {
			found = append(found, string(e.Action))
			return nil
		})
		if err != nil || !slices.Contains(found, q[2]) {
			t.Errorf("%s %s: on record are %v, %v", q[0], q[1], found, err)
		}
	}
}

func TestWhoMayNotWriteIsToldBeforeMuchIsSent(t *testing.T) {
	s := newSite(t, redoubttest.Options{})
	c := s.as("officer", "SECRET") // reads the log, writes no objects
	at := c.start("reports/tool")
	if a := c.do("PATCH", at, bytes.NewReader(noise(redoubt.MinPartBytes+1, 1))); a.status != 403 || a.code() != "DENIED" {
		t.Errorf("got %s", a)
	}
	c.want(404, "BLOB_UPLOAD_UNKNOWN", "GET", at, nil)
}

// direct asks the registry without a network between.
func direct(s *redoubttest.Stack, token, method, path string, body []byte) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, bytes.NewReader(body))
	req.SetBasicAuth("x", token)
	w := httptest.NewRecorder()
	s.Images.ServeHTTP(w, req)
	return w
}

func TestAnUploadEndsWhenNothingComes(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := redoubttest.New(t, redoubttest.Options{Seed: 3, Time: time.Now})
		m := s.Mint("s-analyst", "")
		at := direct(s, m.Token, "POST", "/v2/reports/a/blobs/uploads/", nil).Header().Get("Location")
		patch := func(n int) int {
			return direct(s, m.Token, "PATCH", at, make([]byte, n)).Code
		}
		if code := patch(redoubt.MinPartBytes + 5); code != 202 {
			t.Fatalf("got %d", code)
		}
		for range 3 {
			time.Sleep(50 * time.Minute)
			if code := patch(1); code != 202 {
				t.Fatalf("after 50 minutes: %d", code)
			}
		}
		uploads := func() int {
			page, err := s.ListUploads(t.Context(), s.As(m), redoubt.ListUploads{Bucket: "reports", Max: 10})
			if err != nil {
				t.Fatal(err)
			}
			return len(page.Uploads)
		}
		if uploads() != 1 {
			t.Error("there is no upload under way")
		}
		// One that is being used does not end, however long that takes.
		req := httptest.NewRequest("PATCH", at, &slow{wait: 90 * time.Minute})
		req.SetBasicAuth("x", m.Token)
		w := httptest.NewRecorder()
		s.Images.ServeHTTP(w, req)
		synctest.Wait()
		if code := patch(1); w.Code != 202 || code != 202 {
			t.Fatalf("after a request of 90 minutes: %d, then %d", w.Code, code)
		}
		time.Sleep(time.Hour + time.Second)
		synctest.Wait()
		if code := patch(1); code != http.StatusNotFound || uploads() != 0 {
			t.Errorf("after an hour: %d, and %d uploads", code, uploads())
		}
		s.Stop()
	})
}

// slow gives one byte after a while.
type slow struct {
	wait time.Duration
	done bool
}

func (s *slow) Read(p []byte) (int, error) {
	if s.done {
		return 0, io.EOF
	}
	time.Sleep(s.wait)
	s.done, p[0] = true, 'x'
	return 1, nil
}

func TestOneCredentialHasSoManyRequestsAtOnce(t *testing.T) {
	s := newSite(t, redoubttest.Options{})
	c, other := s.as("s-analyst", ""), s.as("s-analyst", "")
	var busy sync.WaitGroup
	release, waiting := make(chan struct{}), make(chan struct{}, 64)
	for range 64 {
		busy.Go(func() {
			req := httptest.NewRequest("POST", "/v2/reports/a/blobs/uploads/?digest="+image.DigestOf(nil).String(), gate{waiting, release})
			req.SetBasicAuth("x", c.minted.Token)
			w := httptest.NewRecorder()
			s.Images.ServeHTTP(w, req)
			if w.Code != 201 {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
		})
	}
	for range 64 {
		<-waiting
	}
	a := c.want(429, "TOOMANYREQUESTS", "GET", "/v2/", nil)
	if a.header.Get("Retry-After") == "" {
		t.Error("it is not told when to try again")
	}
	other.want(200, "", "GET", "/v2/", nil)
	close(release)
	busy.Wait()
	c.want(200, "", "GET", "/v2/", nil)
}

// gate is an empty body that ends when it may.
type gate struct {
	waiting chan<- struct{}
	release <-chan struct{}
}

func (g gate) Read([]byte) (int, error) {
	g.waiting <- struct{}{}
	<-g.release
	return 0, io.EOF
}

func TestALabelsShareBoundsItsImages(t *testing.T) {
	s := newSite(t, redoubttest.Options{Quotas: map[string]int64{"SECRET": 8 << 20}})
	c := s.as("s-analyst", "")
	b := noise(9<<20, 1)
	c.want(403, "DENIED", "POST", "/v2/reports/a/blobs/uploads/?digest="+image.DigestOf(b).String(), bytes.NewReader(b))
	at := c.start("reports/a")
	c.want(403, "DENIED", "PATCH", at, bytes.NewReader(b))
	c.want(404, "BLOB_UPLOAD_UNKNOWN", "GET", at, nil)
	c.blob("reports/a", b[:6<<20]) // what was refused takes no room
	s.as("u-analyst", "").blob("reports/a", b)
}
