package s3

import (
	"cmp"
	"context"
	"slices"

	"redoubt"
)

func (f *fake) CreateBucket(_ context.Context, _ redoubt.Credential, name redoubt.BucketName, s redoubt.BucketSettings) (redoubt.Bucket, error) {
	done, failed := f.enter("CreateBucket")
	defer done()
	if failed != nil {
		return redoubt.Bucket{}, failed
	}
	if f.buckets[name] != nil {
		return redoubt.Bucket{}, redoubt.Exists
	}
	b := &redoubt.Bucket{Name: name, Created: f.now(), BucketSettings: s}
	f.buckets[name], f.versions[name] = b, map[string][]*fakeVersion{}
	return *b, nil
}

func (f *fake) HeadBucket(_ context.Context, _ redoubt.Credential, name redoubt.BucketName) (redoubt.Bucket, error) {
	done, failed := f.enter("HeadBucket")
	defer done()
	if failed != nil {
		return redoubt.Bucket{}, failed
	}
	if f.buckets[name] == nil {
		return redoubt.Bucket{}, redoubt.NoBucket
	}
	return *f.buckets[name], nil
}

func (f *fake) ListBuckets(context.Context, redoubt.Credential) (all []redoubt.Bucket, err error) {
	done, failed := f.enter("ListBuckets")
	defer done()
	for _, b := range f.buckets {
		all = append(all, *b)
	}
	slices.SortFunc(all, func(a, b redoubt.Bucket) int { return cmp.Compare(a.Name, b.Name) })
	return all, failed
}

func (f *fake) DeleteBucket(_ context.Context, who redoubt.Credential, name redoubt.BucketName) error {
	done, failed := f.enter("DeleteBucket")
	defer done()
	if failed != nil {
		return failed
	}
	if f.buckets[name] == nil {
		return redoubt.NoBucket
	}
	for key := range f.versions[name] {
		if f.current(who, redoubt.ObjectName{Bucket: name, Key: key}) != nil {
			return redoubt.NotEmpty
		}
	}
	delete(f.buckets, name)
	delete(f.versions, name)
	return nil
}

func (f *fake) UpdateBucket(_ context.Context, _ redoubt.Credential, name redoubt.BucketName, change func(*redoubt.BucketSettings) error) (redoubt.Bucket, error) {
	done, failed := f.enter("UpdateBucket")
	defer done()
	if failed != nil {
		return redoubt.Bucket{}, failed
	}
	b := f.buckets[name]
	if b == nil {
		return redoubt.Bucket{}, redoubt.NoBucket
	}
	s := b.BucketSettings
	if err := change(&s); err != nil {
		return *b, err
	}
	b.BucketSettings = s
	return *b, nil
}

func (f *fake) BucketCORS(_ context.Context, name redoubt.BucketName) []redoubt.CORSRule {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b := f.buckets[name]; b != nil {
		return b.CORS
	}
	return nil
}

func (f *fake) BucketMD5ETag(_ context.Context, name redoubt.BucketName) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.buckets[name]
	return b != nil && b.MD5ETag
}
