package redoubttest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"redoubt"
	"redoubt/enclave"
	"redoubt/label"
	"redoubt/s3"
	"redoubt/store/embedded"
)

// cloud is an enclave on a real store in a directory, behind its S3 front end.
type cloud struct {
	*enclave.Enclave
	t      *testing.T
	policy *label.Policy
	srv    *httptest.Server
	clock  func() time.Time
}

// newCloud opens it; close, or the end of the test, closes it.
func newCloud(t *testing.T, dir string, o embedded.Options, clock func() time.Time) *cloud {
	t.Helper()
	c := &cloud{t: t, clock: clock}
	var err error
	if c.Enclave, c.policy, err = openCloud(dir, o, func(eo *enclave.Options) { eo.Clock = clock }); err != nil {
		t.Fatal(err)
	}
	c.srv = httptest.NewServer(s3.New(s3.Options{Objects: c, Lists: c, Uploads: c, Buckets: c, Auth: c, Policy: c.policy, Region: Region, Clock: clock, UnsignedInClear: true}))
	t.Cleanup(c.close)
	return c
}

func (c *cloud) close() {
	if c.srv == nil {
		return
	}
	c.srv.Close()
	c.srv = nil
	if err := c.Enclave.Close(); err != nil {
		c.t.Errorf("close: %v", err)
	}
}

// mint gives a credential at the cloud's time.
func (c *cloud) mint(who redoubt.SubjectName, seconds int64) (redoubt.Minted, error) {
	nonce := make([]byte, 16)
	rand.Read(nonce)
	req := redoubt.MintRequest{Subject: who, Node: "topsecret", Seconds: seconds, Issued: c.clock().UTC(), Nonce: base64.RawURLEncoding.EncodeToString(nonce)}
	req.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(personKey(who), redoubt.MintMessage(req)))
	return c.MintCredential(context.Background(), req)
}

func (c *cloud) as(who redoubt.SubjectName) wire {
	c.t.Helper()
	m, err := c.mint(who, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	return wire{base: c.srv.URL, http: c.srv.Client(), who: m}
}

// ask is do at the cloud's time.
func (c *cloud) ask(w wire, in Request) Response {
	c.t.Helper()
	req, err := w.sign(c.t.Context(), in, c.clock())
	if err != nil {
		c.t.Fatal(err)
	}
	req.URL.Host, req.Host = strings.TrimPrefix(c.srv.URL, "http://"), strings.TrimPrefix(w.base, "http://")
	r, err := w.send(req)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// verified: fsck and the audit log find nothing.
func (c *cloud) verified() {
	c.t.Helper()
	for _, who := range []redoubt.SubjectName{"ts-admin", "officer"} {
		m, err := c.mint(who, 0)
		if err != nil {
			c.t.Fatal(err)
		}
		as, err := c.Bearer(context.Background(), m.Token)
		if err != nil {
			c.t.Fatal(err)
		}
		if who == "officer" {
			if r, err := c.VerifyAudit(context.Background(), as, nil); err != nil || !r.OK {
				c.t.Errorf("audit: %+v, %v", r, err)
			}
		} else if r, err := c.Check(context.Background(), as, nil); err != nil || !r.OK {
			c.t.Errorf("fsck: %+v, %v", r, err)
		}
	}
}

// gauge is a disk that says how much of it is free.
type gauge struct {
	vfs.FS
	free atomic.Uint64
}

func (g *gauge) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: g.free.Load(), TotalBytes: 1 << 40, UsedBytes: 1 << 30}, nil
}

func TestAFullDiskRefusesWritesAndServesReads(t *testing.T) {
	disk := &gauge{FS: vfs.Default}
	fullDisk(t, t.TempDir(), embedded.Options{FS: disk, SegmentBytes: 1 << 20, ReserveBytes: 64 << 20}, func(full bool) {
		disk.free.Store(1 << 30)
		if full {
			disk.free.Store(40 << 20)
		}
	})
}

func TestADiskThatIsReallyFullRefusesWritesAndServesReads(t *testing.T) {
	mustRoot(t, "mounting a small file system")
	for _, c := range []struct {
		name    string
		reserve int64
	}{{"with a reserve", 8 << 20}, {"without a reserve", -1}} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64m", "redoubt-test", dir).CombinedOutput(); err != nil {
				t.Skipf("a tmpfs cannot be mounted here: %s", out)
			}
			t.Cleanup(func() {
				if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
					t.Errorf("umount: %s", out)
				}
			})
			ballast := filepath.Join(dir, "ballast")
			fullDisk(t, filepath.Join(dir, "state"), embedded.Options{SegmentBytes: 1 << 20, ReserveBytes: c.reserve, MaintainEvery: 50 * time.Millisecond}, func(full bool) {
				if !full {
					os.Remove(ballast)
					return
				}
				f, err := os.Create(ballast)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				for page := make([]byte, 4096); err == nil; { // until there is no more
					_, err = f.Write(page)
				}
			})
		})
	}
}

// fullDisk: writes are refused with S3's words for it, reads go on, deletes are possible or refused in the same words, nothing that was
// acknowledged is lost, and with space the same process writes again.
func fullDisk(t *testing.T, dir string, o embedded.Options, fill func(bool)) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	fill(false)
	c := newCloud(t, dir, o, time.Now)
	w := c.as("s-analyst")
	kept := map[string][sha256.Size]byte{}
	put := func(key string, n int) Response {
		t.Helper()
		body := make([]byte, n)
		rand.Read(body)
		r := c.ask(w, Request{Method: http.MethodPut, Bucket: "reports", Key: key, Body: body})
		if r.Status == http.StatusOK {
			kept[key] = sha256.Sum256(body)
		}
		return r
	}
	holds := func(when string) {
		t.Helper()
		for key, sum := range kept {
			if r := c.ask(w, Request{Method: http.MethodGet, Bucket: "reports", Key: key}); r.Status != http.StatusOK || sha256.Sum256(r.Body) != sum {
				t.Errorf("%s: %s does not read: %d %s", when, key, r.Status, r.code())
			}
		}
		r := c.ask(w, Request{Method: http.MethodGet, Bucket: "reports", Query: query("list-type", "2")})
		if n := bytes.Count(r.Body, []byte("<Key>")); r.Status != http.StatusOK || n != len(kept) {
			t.Errorf("%s: %d keys are listed, want %d", when, n, len(kept))
		}
	}
	for i, n := range []int{0, 10, 4 << 10, 200 << 10, 3 << 20} {
		if r := put(fmt.Sprint("before/", i), n); r.Status != http.StatusOK {
			t.Fatalf("before: %d %s", r.Status, r.Body)
		}
	}
	begun := c.ask(w, Request{Method: http.MethodPost, Bucket: "reports", Key: "parts", Query: query("uploads", "")})
	_, upload, _ := strings.Cut(string(begun.Body), "<UploadId>")
	upload, _, _ = strings.Cut(upload, "</UploadId>")

	fill(true)
	refused := 0
	for i, n := range []int{0, 10, 4 << 10, 100 << 10, 200 << 10, 3 << 20, 4 << 10, 3 << 20, 4 << 10, 3 << 20} {
		r := put(fmt.Sprint("full/", i), n) // what finds room in a segment that was made before is stored
		switch {
		case r.Status == http.StatusOK && o.ReserveBytes < 0:
		case r.Status == http.StatusInsufficientStorage && r.code() == "InsufficientCapacity":
			refused++
		default:
			t.Errorf("%d bytes on a full disk: got %d %s, want 507 InsufficientCapacity", n, r.Status, r.Body)
		}
	}
	if refused == 0 {
		t.Error("nothing was refused: the disk was not full")
	}
	for _, in := range []Request{
		{Method: http.MethodPut, Query: query("uploadId", upload, "partNumber", "1"), Key: "parts", Body: make([]byte, 2<<20)},
		{Method: http.MethodPost, Query: query("uploads", ""), Key: "more parts"},
		{Method: http.MethodPut, Query: query("tagging", ""), Key: "before/1", Body: []byte("<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>")},
	} {
		in.Bucket = "reports"
		if r := c.ask(w, in); r.Status >= 300 && r.code() != "InsufficientCapacity" {
			t.Errorf("%s %v on a full disk: %d %s", in.Method, in.Query, r.Status, r.Body)
		}
	}
	holds("on a full disk")
	r := c.ask(w, Request{Method: http.MethodGet, Bucket: "reports", Key: "before/4", Header: header("Range", "bytes=1000000-1000009")})
	if r.Status != http.StatusPartialContent || len(r.Body) != 10 {
		t.Errorf("a range on a full disk: %d", r.Status)
	}

	fill(false)
	for i, n := range []int{4 << 10, 3 << 20} {
		key := fmt.Sprint("after/", i)
		until(t, "writes are taken again", func() bool {
			r := put(key, n)
			if r.Status != http.StatusOK && r.code() != "InsufficientCapacity" {
				t.Fatalf("with space again: %d %s", r.Status, r.Body)
			}
			return r.Status == http.StatusOK
		})
	}
	holds("with space again")
	c.verified()
	c.close()
	c = newCloud(t, dir, o, time.Now)
	w = c.as("s-analyst")
	holds("after a restart")
	c.verified()
	c.close()
}

// TestClockJumpsBackADay: the clock goes back by a day, between two starts and while the enclave runs. Versions keep their order, and
// what was revoked stays so.
func TestClockJumpsBackADay(t *testing.T) {
	for _, between := range []bool{true, false} {
		t.Run(map[bool]string{true: "between two starts", false: "while it runs"}[between], func(t *testing.T) {
			dir := t.TempDir()
			noon := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
			clock := NewClock(noon)
			o := embedded.Options{SegmentBytes: 1 << 20, ReserveBytes: -1}
			c := newCloud(t, dir, o, clock.Now)
			revoked, err := c.mint("u-analyst", 3600*24*7)
			if err != nil {
				t.Fatal(err)
			}
			week := wire{base: c.srv.URL, http: c.srv.Client(), who: func() redoubt.Minted {
				m, err := c.mint("u-analyst", 3600*24*7)
				if err != nil {
					t.Fatal(err)
				}
				return m
			}()}
			var order []redoubt.VersionID
			put := func() {
				t.Helper()
				r := c.ask(week, Request{Method: http.MethodPut, Bucket: "reports", Key: "k", Body: fmt.Append(nil, len(order))})
				if r.Status != http.StatusOK {
					t.Fatalf("put %d: %d %s", len(order), r.Status, r.Body)
				}
				order = append(order, r.version())
			}
			put()
			clock.Add(2 * time.Hour)
			put()
			who, err := c.Bearer(t.Context(), revoked.Token)
			if err == nil {
				err = c.RevokeCredential(t.Context(), who, revoked.AccessKeyID)
			}
			if err != nil {
				t.Fatal(err)
			}
			latest := clock.Now()
			clock.Set(noon.Add(-22 * time.Hour))
			if between {
				c.close()
				c = newCloud(t, dir, o, clock.Now)
				week.base, week.http = c.srv.URL, c.srv.Client()
			}
			if _, err := c.Bearer(t.Context(), revoked.Token); !errors.Is(err, redoubt.Unauthenticated) {
				t.Errorf("a credential that was revoked: got %v", err)
			}
			for range 3 {
				put()
				clock.Add(time.Minute)
			}
			clock.Set(latest.Add(time.Hour))
			put()
			r := c.ask(week, Request{Method: http.MethodGet, Bucket: "reports", Query: query("versions", "")})
			at := len(r.Body)
			for i, id := range order { // the newest is listed first
				n := bytes.Index(r.Body, []byte("<VersionId>"+id+"</VersionId>"))
				if n < 0 || n > at {
					t.Errorf("version %d of %d is not where it belongs", i, len(order))
				}
				at = n
			}
			r = c.ask(week, Request{Method: http.MethodGet, Bucket: "reports", Key: "k"})
			if got, err := io.ReadAll(bytes.NewReader(r.Body)); err != nil || string(got) != fmt.Sprint(len(order)-1) {
				t.Errorf("current is %q, want %d", got, len(order)-1)
			}
			c.verified()
		})
	}
}

func TestAnEndedCredentialStaysEndedOverARestart(t *testing.T) {
	dir := t.TempDir()
	noon := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	clock := NewClock(noon)
	o := embedded.Options{SegmentBytes: 1 << 20, ReserveBytes: -1}
	c := newCloud(t, dir, o, clock.Now)
	short, err := c.mint("u-analyst", 3600)
	if err != nil {
		t.Fatal(err)
	}
	clock.Add(2 * time.Hour)
	if r := c.ask(c.as("u-analyst"), Request{Method: http.MethodPut, Bucket: "reports", Key: "k"}); r.Status != http.StatusOK {
		t.Fatalf("a write, which makes the time durable: %d", r.Status)
	}
	if _, err := c.Bearer(t.Context(), short.Token); !errors.Is(err, redoubt.Expired) {
		t.Fatalf("after its time: got %v, want expired", err)
	}
	c.close()
	clock.Set(noon.Add(-22 * time.Hour))
	c = newCloud(t, dir, o, clock.Now)
	if _, err := c.Bearer(t.Context(), short.Token); err == nil {
		t.Error("a credential that had ended is good again: the clock went back")
	}
}
