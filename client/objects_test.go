package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"redoubt"
	"redoubt/label"
	"redoubt/s3"
)

// shelf is just enough of an enclave to drive the S3 interface: it keeps versions, and decides nothing.
type shelf struct {
	redoubt.ObjectService
	redoubt.ListService
	redoubt.UploadService
	redoubt.BucketService
	policy *label.Policy

	mu      sync.Mutex
	all     []*held // oldest first
	uploads map[redoubt.UploadID]*parts
	buckets map[redoubt.BucketName]redoubt.BucketSettings
	fail    error
	keep    bool // uploads cannot be aborted
	refuse  int  // the part that is refused, when not 0
}

type held struct {
	v       redoubt.Version
	content []byte
}

func (h *held) Reader(off, n int64) io.Reader {
	if n < 0 {
		n = int64(len(h.content)) - off
	}
	return bytes.NewReader(h.content[off : off+n])
}
func (h *held) Version() redoubt.Version { return h.v }
func (h *held) Close() error             { return nil }

func (s *shelf) PutObject(_ context.Context, who redoubt.Credential, in redoubt.PutObject) (redoubt.Version, error) {
	if s.fail != nil {
		return redoubt.Version{}, s.fail
	}
	b, err := io.ReadAll(in.Body)
	if err != nil {
		return redoubt.Version{}, err
	}
	if in.Finish != nil {
		if _, _, err := in.Finish(); err != nil {
			return redoubt.Version{}, err
		}
	}
	l := who.Working
	if in.Label != "" {
		if l, err = s.policy.Parse(in.Label); err != nil {
			return redoubt.Version{}, redoubt.Invalid
		}
	}
	return s.add(redoubt.Version{Name: in.Name, Label: l, Attributes: in.Attributes, SizeBytes: int64(len(b))}, b), nil
}

func (s *shelf) add(v redoubt.Version, content []byte) redoubt.Version {
	s.mu.Lock()
	defer s.mu.Unlock()
	v.ID, v.ETag, v.Modified = redoubt.VersionID(fmt.Sprint("v", len(s.all))), "abc-1", noon
	s.all = append(s.all, &held{v, content})
	return v
}

func (s *shelf) find(name redoubt.ObjectName, id redoubt.VersionID) (*held, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return nil, s.fail
	}
	for _, h := range slices.Backward(s.all) {
		if h.v.Name == name && (id == "" || id == h.v.ID) {
			if h.v.Marker {
				break
			}
			return h, nil
		}
	}
	return nil, redoubt.NotFound
}

func (s *shelf) GetObject(_ context.Context, _ redoubt.Credential, in redoubt.ReadObject) (redoubt.Object, error) {
	h, err := s.find(in.Name, in.ID)
	if err != nil {
		return nil, err
	}
	return h, nil
}

func (s *shelf) HeadObject(_ context.Context, _ redoubt.Credential, in redoubt.ReadObject) (redoubt.Version, error) {
	h, err := s.find(in.Name, in.ID)
	if err != nil {
		return redoubt.Version{}, err
	}
	return h.v, nil
}

func (s *shelf) DeleteObject(_ context.Context, who redoubt.Credential, in redoubt.DeleteObject) (redoubt.Deleted, error) {
	if s.fail != nil {
		return redoubt.Deleted{}, s.fail
	}
	v := s.add(redoubt.Version{Name: in.Name, Label: who.Working, Marker: true}, nil)
	return redoubt.Deleted{ID: v.ID, Marker: true}, nil
}

// listed are versions by key, newest first.
func (s *shelf) listed(prefix string) []redoubt.Version {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []redoubt.Version
	for _, h := range slices.Backward(s.all) {
		if strings.HasPrefix(h.v.Name.Key, prefix) {
			out = append(out, h.v)
		}
	}
	slices.SortStableFunc(out, func(a, b redoubt.Version) int { return cmp.Compare(a.Name.Key, b.Name.Key) })
	return out
}

// ListObjects gives two keys a page.
func (s *shelf) ListObjects(_ context.Context, _ redoubt.Credential, in redoubt.ListObjects) (redoubt.ObjectPage, error) {
	if s.fail != nil {
		return redoubt.ObjectPage{}, s.fail
	}
	var p redoubt.ObjectPage
	last := in.After
	for _, v := range s.listed(in.Prefix) {
		if v.Name.Key <= last {
			continue
		}
		if len(p.Versions)+len(p.Prefixes) == 2 {
			p.Truncated, p.Next = true, last
			return p, nil
		}
		if at := strings.Index(v.Name.Key[len(in.Prefix):], in.Delimiter); in.Delimiter != "" && at >= 0 {
			prefix := v.Name.Key[:len(in.Prefix)+at+1]
			p.Prefixes = append(p.Prefixes, prefix)
			last = prefix + "\xf4\x8f\xbf\xbf"
			continue
		}
		last = v.Name.Key
		if !v.Marker {
			p.Versions = append(p.Versions, v)
		}
	}
	return p, nil
}

// ListVersions gives two versions a page.
func (s *shelf) ListVersions(_ context.Context, _ redoubt.Credential, in redoubt.ListVersions) (redoubt.VersionPage, error) {
	var p redoubt.VersionPage
	skip := in.AfterKey != ""
	for _, v := range s.listed(in.Prefix) {
		if skip {
			skip = v.Name.Key != in.AfterKey || v.ID != in.AfterID
			continue
		}
		if len(p.Versions) == 2 {
			p.Truncated, p.NextKey, p.NextID = true, p.Versions[1].Name.Key, p.Versions[1].ID
			return p, nil
		}
		p.Versions = append(p.Versions, v)
	}
	return p, nil
}

func (s *shelf) BucketCORS(context.Context, redoubt.BucketName) []redoubt.CORSRule { return nil }

// shelves gives a client of the S3 interface as ada at SECRET, over TLS or in clear.
func shelves(t *testing.T, clear bool) (*Objects, *shelf) {
	t.Helper()
	n := newNode(t)
	usa, err := label.Builtin("USA")
	if err != nil {
		t.Fatal(err)
	}
	s := &shelf{policy: usa, uploads: map[redoubt.UploadID]*parts{}, buckets: map[redoubt.BucketName]redoubt.BucketSettings{}}
	h := s3.New(s3.Options{Objects: s, Lists: s, Uploads: s, Buckets: s, Auth: n, Policy: usa, Region: "redoubt"})
	srv := httptest.NewUnstartedServer(h)
	if clear {
		srv.Start()
	} else {
		srv.EnableHTTP2 = true
		srv.StartTLS()
	}
	t.Cleanup(srv.Close)
	m, _, recs, err := n.r.Mint(signedMint())
	if err != nil {
		t.Fatal(err)
	}
	n.r.Apply(recs...)
	pool := x509.NewCertPool()
	if !clear {
		pool = roots(srv)
	}
	o, err := NewObjects(srv.URL, pool, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	return o, s
}

func signedMint() redoubt.MintRequest {
	req := redoubt.MintRequest{Subject: "ada", Node: "secret", Issued: time.Now().UTC(), Nonce: base64.RawURLEncoding.EncodeToString(make([]byte, 16))}
	req.Signature = b64(ed25519.Sign(seed("ada"), redoubt.MintMessage(req)))
	return req
}

// strangeKeys are what a path has to carry unchanged.
var strangeKeys = []string{"a", "a b+c", "dir/sub/x", "ü/日本", "100%/%41", "q?x=1#f", "a//b", "./a/../b", "tab\t", "'(!*)'", "trailing/"}

func TestObjectsComeBackAsTheyWere(t *testing.T) {
	for _, clear := range []bool{false, true} {
		o, _ := shelves(t, clear)
		for i, key := range strangeKeys {
			name := redoubt.ObjectName{Bucket: "reports", Key: key}
			content := bytes.Repeat([]byte{byte(i)}, i*100_000)
			var sent int64
			put, err := o.Put(t.Context(), Upload{Name: name, Label: "SECRET", ContentType: "text/plain", Meta: map[string]string{"case": "Alpha Beta"},
				Precedence: "flash", SizeBytes: int64(len(content)), Body: bytes.NewReader(content), Progress: func(n int64) { sent = n }})
			if err != nil {
				t.Fatalf("put %q: %v", key, err)
			}
			if put.Version == "" || put.SizeBytes != int64(len(content)) || sent != int64(len(content)) {
				t.Errorf("put %q: got %+v, told of %d bytes", key, put, sent)
			}
			got, r, err := o.Get(t.Context(), name, "")
			if err != nil {
				t.Fatalf("get %q: %v", key, err)
			}
			b, err := io.ReadAll(r)
			r.Close()
			if err != nil || !bytes.Equal(b, content) {
				t.Errorf("get %q: got %d bytes, %v, want %d", key, len(b), err, len(content))
			}
			head, err := o.Head(t.Context(), name, put.Version)
			if err != nil {
				t.Fatalf("head %q: %v", key, err)
			}
			for _, d := range []Object{got, head} {
				if d.Version != put.Version || d.Label != "SECRET" || d.Precedence != "flash" || d.SizeBytes != int64(len(content)) ||
					d.ContentType != "text/plain" || d.ETag != "abc-1" || !d.Modified.Equal(noon) || d.Meta["case"] != "Alpha Beta" || len(d.Meta) != 1 {
					t.Errorf("%q: got %+v", key, d)
				}
			}
		}
	}
}

func TestListsGoOnToTheirEnd(t *testing.T) {
	o, _ := shelves(t, false)
	for range 2 {
		for _, key := range strangeKeys {
			if _, err := o.Put(t.Context(), Upload{Name: redoubt.ObjectName{Bucket: "reports", Key: key}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	gone, err := o.Delete(t.Context(), redoubt.ObjectName{Bucket: "reports", Key: "a"}, "")
	if err != nil || !gone.Marker || gone.ID == "" {
		t.Fatalf("got %+v, %v", gone, err)
	}
	want := slices.Sorted(slices.Values(strangeKeys))
	var versions []string
	markers := 0
	err = o.Versions(t.Context(), "reports", "", func(v Object) error {
		if v.Marker {
			markers++
			if v.Version != gone.ID || v.Name.Key != "a" {
				t.Errorf("got the marker %+v", v)
			}
			return nil
		}
		versions = append(versions, v.Name.Key)
		return nil
	})
	if err != nil || markers != 1 || !slices.Equal(slices.Compact(slices.Clone(versions)), want) || len(versions) != 2*len(want) {
		t.Errorf("versions: got %q, %d markers, %v", versions, markers, err)
	}
	var keys, prefixes []string
	err = o.List(t.Context(), "reports", "", "/", func(v Object) error { keys = append(keys, v.Name.Key); return nil },
		func(p string) error { prefixes = append(prefixes, p); return nil })
	if err != nil || !slices.Contains(keys, "a b+c") || !slices.Contains(keys, "tab\t") || !slices.Equal(prefixes, []string{"./", "100%/", "a/", "dir/", "trailing/", "ü/"}) {
		t.Errorf("list: got %q, %q, %v", keys, prefixes, err)
	}
	stop := errors.New("enough")
	if err := o.List(t.Context(), "reports", "", "", func(Object) error { return stop }, nil); err != stop {
		t.Errorf("got %v, want what each returned", err)
	}
}

func TestS3ErrorsKeepKindAndRule(t *testing.T) {
	o, s := shelves(t, false)
	name := redoubt.ObjectName{Bucket: "reports", Key: "k"}
	_, _, err := o.Get(t.Context(), name, "")
	if !errors.Is(err, redoubt.NotFound) {
		t.Errorf("what is not there: got %v", err)
	}
	for _, kind := range redoubt.Kinds() {
		s.fail = &redoubt.Error{Kind: kind, Rule: "no-write-down (2.1)", Hint: "ask for more"}
		_, err := o.Put(t.Context(), Upload{Name: name, SizeBytes: 1, Body: strings.NewReader("x")})
		want := kind
		switch kind {
		case redoubt.Corrupt: // S3 has one word for our faults
			want = redoubt.Internal
		case redoubt.Locked: // and one for what is forbidden
			want = redoubt.Denied
		case redoubt.NotFound: // a PUT names a bucket that could be missing, and nothing else
			want = redoubt.NoBucket
		}
		if !errors.Is(err, want) {
			t.Errorf("%v: got %v", kind, err)
		}
		var e *redoubt.Error
		if kind == redoubt.Denied && (!errors.As(err, &e) || e.Rule != "no-write-down (2.1)" || e.Hint != "ask for more") {
			t.Errorf("denied: got %#v", err)
		}
	}
	s.fail = nil
	other, err := NewObjects(o.base.String(), nil, redoubt.Minted{AccessKeyID: o.who.minted.AccessKeyID, SecretAccessKey: strings.Repeat("x", 40), Region: o.who.minted.Region})
	if err != nil {
		t.Fatal(err)
	}
	other.http = o.http
	if _, err = other.Put(t.Context(), Upload{Name: name}); !errors.Is(err, redoubt.Unauthenticated) {
		t.Errorf("with another secret: got %v", err)
	}
	if _, err = o.Head(t.Context(), redoubt.ObjectName{Bucket: "a/b", Key: "k"}, ""); !errors.Is(err, redoubt.Invalid) {
		t.Errorf("a bucket that is a path: got %v", err)
	}
}
