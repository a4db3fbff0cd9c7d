package client

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"

	"redoubt"
)

func (s *shelf) CreateBucket(_ context.Context, _ redoubt.Credential, name redoubt.BucketName, b redoubt.BucketSettings) (redoubt.Bucket, error) {
	if _, ok := s.buckets[name]; ok {
		return redoubt.Bucket{}, redoubt.Exists
	}
	s.buckets[name] = b
	return redoubt.Bucket{Name: name, BucketSettings: b}, s.fail
}

func (s *shelf) HeadBucket(_ context.Context, _ redoubt.Credential, name redoubt.BucketName) (redoubt.Bucket, error) {
	b, ok := s.buckets[name]
	if !ok {
		return redoubt.Bucket{}, redoubt.NoBucket
	}
	return redoubt.Bucket{Name: name, Created: noon, BucketSettings: b}, s.fail
}

func (s *shelf) ListBuckets(context.Context, redoubt.Credential) (all []redoubt.Bucket, err error) {
	for _, name := range slices.Sorted(maps.Keys(s.buckets)) {
		all = append(all, redoubt.Bucket{Name: name, Created: noon})
	}
	return all, s.fail
}

func (s *shelf) DeleteBucket(_ context.Context, _ redoubt.Credential, name redoubt.BucketName) error {
	delete(s.buckets, name)
	return s.fail
}

func (s *shelf) UpdateBucket(_ context.Context, _ redoubt.Credential, name redoubt.BucketName, change func(*redoubt.BucketSettings) error) (redoubt.Bucket, error) {
	b := s.buckets[name]
	if err := change(&b); err != nil || s.fail != nil {
		return redoubt.Bucket{}, errors.Join(err, s.fail)
	}
	s.buckets[name] = b
	return redoubt.Bucket{Name: name, BucketSettings: b}, nil
}

func TestBucketsAreMadeSetAndRemoved(t *testing.T) {
	o, s := shelves(t, false)
	want := BucketSettings{Default: "SECRET", Floor: "UNCLASSIFIED", Current: "highest", ETag: "md5", Closed: true}
	if err := o.CreateBucket(t.Context(), "desk", want, true); err != nil {
		t.Fatal(err)
	}
	if b := s.buckets["desk"]; !b.Lock.Enabled || !b.Closed || b.Default != "SECRET" {
		t.Errorf("the node has %+v", b)
	}
	if got, err := o.BucketSettings(t.Context(), "desk"); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	want.Closed = false
	if err := o.SetBucket(t.Context(), "desk", want); err != nil {
		t.Fatal(err)
	}
	if got, err := o.BucketSettings(t.Context(), "desk"); err != nil || got != want {
		t.Errorf("after set: got %+v, %v, want %+v", got, err, want)
	}
	if err := o.CreateBucket(t.Context(), "desk", want, false); !errors.Is(err, redoubt.Exists) {
		t.Errorf("made twice: got %v", err)
	}
	all, err := o.Buckets(t.Context())
	if err != nil || len(all) != 1 || all[0].Name != "desk" || !all[0].Created.Equal(noon) {
		t.Errorf("got %+v, %v", all, err)
	}
	if err := o.DeleteBucket(t.Context(), "desk"); err != nil || len(s.buckets) != 0 {
		t.Errorf("removed: %v, %d are left", err, len(s.buckets))
	}
	if _, err := o.BucketSettings(t.Context(), "desk"); !errors.Is(err, redoubt.NoBucket) {
		t.Errorf("of one that is gone: got %v", err)
	}
	s.fail = &redoubt.Error{Kind: redoubt.Denied, Rule: "storage-role"}
	var e *redoubt.Error
	if err := o.DeleteBucket(t.Context(), "desk"); !errors.As(err, &e) || e.Kind != redoubt.Denied || e.Rule != "storage-role" {
		t.Errorf("refused: got %v", err)
	}
}
