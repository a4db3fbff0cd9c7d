package s3

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"redoubt"
	"redoubt/label"
)

// fake is all five contracts in memory: enough of an enclave to drive the front end. It decides by
// label alone.
type fake struct {
	mu       sync.Mutex
	policy   *label.Policy
	now      func() time.Time
	people   map[string]fakePerson // by access key
	buckets  map[redoubt.BucketName]*redoubt.Bucket
	versions map[redoubt.BucketName]map[string][]*fakeVersion // newest first
	uploads  map[redoubt.UploadID]*fakeUpload
	refused  []string
	fail     error // given by every call when set
	calls    map[string]int
	seen     redoubt.PutObject // the last PutObject
	digest   []byte            // what its content was said to be hashed to; nil: nothing was said
	copied   redoubt.CopyObject
}

type fakePerson struct {
	secret string
	cred   redoubt.Credential
}

type fakeVersion struct {
	redoubt.Version
	content []byte
}

type fakeUpload struct {
	redoubt.Upload
	in    redoubt.CreateUpload
	parts map[int]*fakePart
}

type fakePart struct {
	redoubt.Part
	content []byte
}

func newFake() *fake {
	p, err := label.Builtin("USA")
	if err != nil {
		panic(err)
	}
	f := &fake{policy: p, now: time.Now, people: map[string]fakePerson{}, buckets: map[redoubt.BucketName]*redoubt.Bucket{},
		versions: map[redoubt.BucketName]map[string][]*fakeVersion{}, uploads: map[redoubt.UploadID]*fakeUpload{}, calls: map[string]int{}}
	f.person("LOW", "UNCLASSIFIED")
	f.person("HIGH", "SECRET")
	return f
}

func (f *fake) person(id, marking string) {
	l, err := f.policy.Parse(marking)
	if err != nil {
		panic(err)
	}
	f.people[id] = fakePerson{"secret-of-" + id, redoubt.Credential{ID: id, Subject: redoubt.SubjectName(strings.ToLower(id)), Working: l}}
}

func token() string {
	var b [12]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func (f *fake) enter(op string) (func(), error) {
	f.mu.Lock()
	f.calls[op]++
	return f.mu.Unlock, f.fail
}

func (f *fake) SigningKey(_ context.Context, id string, s redoubt.Scope) (key [32]byte, who redoubt.Credential, err error) {
	p, ok := f.people[id]
	if !ok {
		return key, who, &redoubt.Error{Op: "SigningKey", Kind: redoubt.Unauthenticated}
	}
	copy(key[:], signingKey(p.secret, s))
	return key, p.cred, nil
}

func signingKey(secret string, s redoubt.Scope) []byte {
	k := []byte("AWS4" + secret)
	for _, part := range []string{s.Date, s.Region, s.Service, "aws4_request"} {
		m := hmac.New(sha256.New, k)
		m.Write([]byte(part))
		k = m.Sum(nil)
	}
	return k
}

func (f *fake) Bearer(context.Context, string) (redoubt.Credential, error) {
	return redoubt.Credential{}, redoubt.Unauthenticated
}

func (f *fake) Refused(_ context.Context, _, reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused = append(f.refused, reason)
}

// current is the newest version that who dominates; nil for none or a marker.
func (f *fake) current(who redoubt.Credential, n redoubt.ObjectName) *fakeVersion {
	for _, v := range f.versions[n.Bucket][n.Key] {
		if who.Working.Dominates(v.Label) {
			if v.Marker {
				return nil
			}
			return v
		}
	}
	return nil
}

func (f *fake) find(who redoubt.Credential, n redoubt.ObjectName, id redoubt.VersionID) (*fakeVersion, error) {
	gone := &redoubt.Error{Op: "Find", Object: n.String(), Kind: redoubt.NotFound, Rule: "secret rule", Err: fmt.Errorf("hidden %s", n)}
	if f.buckets[n.Bucket] == nil {
		return nil, redoubt.NoBucket
	}
	if id == "" {
		if v := f.current(who, n); v != nil {
			return v, nil
		}
		return nil, gone
	}
	for _, v := range f.versions[n.Bucket][n.Key] {
		if v.ID == id && who.Working.Dominates(v.Label) {
			if v.Marker {
				return nil, &redoubt.Error{Kind: redoubt.MethodNotAllowed}
			}
			return v, nil
		}
	}
	return nil, gone
}

func check(c redoubt.Conditions, v *fakeVersion, read bool) error {
	if len(c.IfMatch) > 0 && (v == nil || !slices.Contains(c.IfMatch, v.ETag) && c.IfMatch[0] != "*") {
		return redoubt.PreconditionFail
	}
	if !c.IfUnmodifiedSince.IsZero() && len(c.IfMatch) == 0 && v != nil && v.Modified.After(c.IfUnmodifiedSince) {
		return redoubt.PreconditionFail
	}
	if len(c.IfNoneMatch) > 0 && v != nil && (c.IfNoneMatch[0] == "*" || slices.Contains(c.IfNoneMatch, v.ETag)) {
		if read {
			return redoubt.NotModified
		}
		return redoubt.PreconditionFail
	}
	if read && !c.IfModifiedSince.IsZero() && len(c.IfNoneMatch) == 0 && v != nil && !v.Modified.After(c.IfModifiedSince) {
		return redoubt.NotModified
	}
	return nil
}

func (f *fake) label(who redoubt.Credential, marking string, at label.Label) (label.Label, error) {
	if marking == "" {
		return label.Join(who.Working, at), nil
	}
	l, err := f.policy.Parse(marking)
	if err != nil {
		return l, &redoubt.Error{Kind: redoubt.Invalid, Hint: "write a marking of the policy"}
	}
	if !l.Dominates(label.Join(who.Working, at)) {
		return l, &redoubt.Error{Kind: redoubt.Denied, Rule: "no write-down"}
	}
	return l, nil
}

func (f *fake) store(v redoubt.Version, content []byte) redoubt.Version {
	v.ID, v.Modified, v.SizeBytes = redoubt.VersionID(token()), f.now().UTC().Truncate(time.Millisecond), int64(len(content))
	if v.ETag == "" {
		v.ETag = token() + "-1"
	}
	byKey := f.versions[v.Name.Bucket]
	byKey[v.Name.Key] = append([]*fakeVersion{{v, content}}, byKey[v.Name.Key]...)
	return v
}

func (f *fake) PutObject(_ context.Context, who redoubt.Credential, in redoubt.PutObject) (redoubt.Version, error) {
	content, err := io.ReadAll(in.Body)
	done, failed := f.enter("PutObject")
	defer done()
	f.seen = in
	if failed != nil {
		return redoubt.Version{}, failed
	}
	if f.buckets[in.Name.Bucket] == nil {
		return redoubt.Version{}, redoubt.NoBucket
	}
	if err != nil {
		return redoubt.Version{}, &redoubt.Error{Op: "PutObject", Kind: redoubt.Internal, Err: fmt.Errorf("wrapped away: %v", err)}
	}
	l, err := f.label(who, in.Label, f.policy.Lowest())
	if err != nil {
		return redoubt.Version{}, err
	}
	if err := check(in.If, f.current(who, in.Name), false); err != nil {
		return redoubt.Version{}, err
	}
	sums, md5, err := in.Finish()
	if err != nil {
		return redoubt.Version{}, err
	}
	if f.digest = nil; in.Digest != nil {
		if sum, known := in.Digest(); known {
			f.digest = sum[:]
		}
	}
	return f.store(redoubt.Version{Name: in.Name, Label: l, ETag: md5, Author: who.Subject, Attributes: in.Attributes, Checksums: sums,
		Tags: in.Tags, Retention: in.Retention, Hold: in.Hold}, content), nil
}

type fakeObject struct{ v *fakeVersion }

func (o fakeObject) Version() redoubt.Version { return o.v.Version }
func (o fakeObject) Close() error             { return nil }
func (o fakeObject) Reader(off, n int64) io.Reader {
	if n < 0 {
		n = int64(len(o.v.content)) - off
	}
	return bytes.NewReader(o.v.content[off : off+n])
}

func (f *fake) GetObject(_ context.Context, who redoubt.Credential, in redoubt.ReadObject) (redoubt.Object, error) {
	done, failed := f.enter("GetObject")
	defer done()
	if failed != nil {
		return nil, failed
	}
	v, err := f.find(who, in.Name, in.ID)
	if err != nil {
		return nil, err
	}
	if err := check(in.If, v, true); err != nil {
		return nil, err
	}
	return fakeObject{v}, nil
}

func (f *fake) HeadObject(_ context.Context, who redoubt.Credential, in redoubt.ReadObject) (redoubt.Version, error) {
	done, failed := f.enter("HeadObject")
	defer done()
	if failed != nil {
		return redoubt.Version{}, failed
	}
	v, err := f.find(who, in.Name, in.ID)
	if err != nil {
		return redoubt.Version{}, err
	}
	if err := check(in.If, v, true); err != nil {
		return redoubt.Version{}, err
	}
	return v.Version, nil
}

func (f *fake) DeleteObject(_ context.Context, who redoubt.Credential, in redoubt.DeleteObject) (redoubt.Deleted, error) {
	done, failed := f.enter("DeleteObject")
	defer done()
	if failed != nil {
		return redoubt.Deleted{}, failed
	}
	byKey := f.versions[in.Name.Bucket]
	if byKey == nil {
		return redoubt.Deleted{}, redoubt.NoBucket
	}
	if in.ID == "" {
		if err := check(in.If, f.current(who, in.Name), false); err != nil {
			return redoubt.Deleted{}, err
		}
		v := f.store(redoubt.Version{Name: in.Name, Label: who.Working, Marker: true, Author: who.Subject}, nil)
		return redoubt.Deleted{ID: v.ID, Marker: true}, nil
	}
	for i, v := range byKey[in.Name.Key] {
		if v.ID == in.ID && who.Working.Dominates(v.Label) {
			if v.Hold || v.Retention.Mode != "" && !in.BypassGovernance {
				return redoubt.Deleted{}, redoubt.Locked
			}
			byKey[in.Name.Key] = slices.Delete(byKey[in.Name.Key], i, i+1)
			return redoubt.Deleted{ID: in.ID, Marker: v.Marker}, nil
		}
	}
	return redoubt.Deleted{}, redoubt.NotFound
}

func (f *fake) CopyObject(_ context.Context, who redoubt.Credential, in redoubt.CopyObject) (redoubt.Version, error) {
	done, failed := f.enter("CopyObject")
	defer done()
	f.copied = in
	if failed != nil {
		return redoubt.Version{}, failed
	}
	v, err := f.find(who, in.Source, in.SourceID)
	if err != nil {
		return redoubt.Version{}, err
	}
	if f.buckets[in.Target.Bucket] == nil {
		return redoubt.Version{}, redoubt.NoBucket
	}
	if err := check(in.SourceIf, v, true); err != nil {
		return redoubt.Version{}, err
	}
	l, err := f.label(who, in.Label, v.Label)
	if err != nil {
		return redoubt.Version{}, err
	}
	n := v.Version
	n.Name, n.Label, n.ETag = in.Target, l, ""
	if in.ReplaceAttributes != nil {
		n.Attributes = *in.ReplaceAttributes
	}
	if in.ReplaceTags != nil {
		n.Tags = *in.ReplaceTags
	}
	return f.store(n, v.content), nil
}

func (f *fake) AlterObject(_ context.Context, who redoubt.Credential, in redoubt.AlterObject) (redoubt.Version, error) {
	done, failed := f.enter("AlterObject")
	defer done()
	if failed != nil {
		return redoubt.Version{}, failed
	}
	v, err := f.find(who, in.Name, in.ID)
	if err != nil {
		return redoubt.Version{}, err
	}
	if in.Tags != nil {
		v.Tags = *in.Tags
	}
	if in.Retention != nil {
		if v.Retention.Mode != "" && in.Retention.Until.Before(v.Retention.Until) && !in.BypassGovernance {
			return redoubt.Version{}, redoubt.Locked
		}
		v.Retention = *in.Retention
	}
	if in.Hold != nil {
		v.Hold = *in.Hold
	}
	return v.Version, nil
}
