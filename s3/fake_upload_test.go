package s3

import (
	"context"
	"fmt"
	"io"

	"redoubt"
)

func (f *fake) upload(who redoubt.Credential, n redoubt.ObjectName, id redoubt.UploadID) (*fakeUpload, error) {
	u := f.uploads[id]
	if u == nil || u.Name != n || !u.Label.Equivalent(who.Working) {
		return nil, redoubt.NotFound
	}
	return u, nil
}

func (f *fake) CreateUpload(_ context.Context, who redoubt.Credential, in redoubt.CreateUpload) (redoubt.Upload, error) {
	done, failed := f.enter("CreateUpload")
	defer done()
	if failed != nil {
		return redoubt.Upload{}, failed
	}
	if f.buckets[in.Name.Bucket] == nil {
		return redoubt.Upload{}, redoubt.NoBucket
	}
	l, err := f.label(who, in.Label, f.policy.Lowest())
	if err != nil {
		return redoubt.Upload{}, err
	}
	u := &fakeUpload{Upload: redoubt.Upload{Name: in.Name, ID: redoubt.UploadID(token()), Label: l, Author: who.Subject, Started: f.now(),
		Attributes: in.Attributes, SumAlgorithm: in.SumAlgorithm, SumComposite: in.SumComposite}, in: in, parts: map[int]*fakePart{}}
	f.uploads[u.ID] = u
	return u.Upload, nil
}

func (f *fake) PutPart(_ context.Context, who redoubt.Credential, in redoubt.PutPart) (redoubt.Part, error) {
	content, err := io.ReadAll(in.Body)
	done, failed := f.enter("PutPart")
	defer done()
	if failed != nil {
		return redoubt.Part{}, failed
	}
	if err != nil {
		return redoubt.Part{}, err
	}
	u, err := f.upload(who, in.Name, in.Upload)
	if err != nil {
		return redoubt.Part{}, err
	}
	sums, md5, err := in.Finish()
	if err != nil {
		return redoubt.Part{}, err
	}
	if md5 == "" {
		md5 = token()
	}
	p := &fakePart{redoubt.Part{Number: in.Number, SizeBytes: int64(len(content)), ETag: md5, Modified: f.now(), Checksums: sums}, content}
	u.parts[in.Number] = p
	return p.Part, nil
}

func (f *fake) CopyPart(_ context.Context, who redoubt.Credential, in redoubt.CopyPart) (redoubt.Part, redoubt.Version, error) {
	done, failed := f.enter("CopyPart")
	defer done()
	if failed != nil {
		return redoubt.Part{}, redoubt.Version{}, failed
	}
	u, err := f.upload(who, in.Name, in.Upload)
	if err != nil {
		return redoubt.Part{}, redoubt.Version{}, err
	}
	v, err := f.find(who, in.Source, in.SourceID)
	if err != nil {
		return redoubt.Part{}, redoubt.Version{}, err
	}
	n := in.N
	if n < 0 {
		n = v.SizeBytes - in.Off
	}
	if in.Off+n > v.SizeBytes {
		return redoubt.Part{}, redoubt.Version{}, redoubt.RangeInvalid
	}
	p := &fakePart{redoubt.Part{Number: in.Number, SizeBytes: n, ETag: token(), Modified: f.now()}, v.content[in.Off : in.Off+n]}
	u.parts[in.Number] = p
	return p.Part, v.Version, nil
}

func (f *fake) ListParts(_ context.Context, who redoubt.Credential, in redoubt.ListParts) (page redoubt.PartPage, err error) {
	done, failed := f.enter("ListParts")
	defer done()
	if failed != nil {
		return page, failed
	}
	u, err := f.upload(who, in.Name, in.Upload)
	if err != nil {
		return page, err
	}
	page.Upload = u.Upload
	for n := in.After + 1; n <= redoubt.MaxParts; n++ {
		if p := u.parts[n]; p != nil {
			if len(page.Parts) == in.Max {
				page.Truncated = true
				break
			}
			page.Parts, page.Next = append(page.Parts, p.Part), n
		}
	}
	return page, nil
}

func (f *fake) CompleteUpload(_ context.Context, who redoubt.Credential, in redoubt.CompleteUpload) (redoubt.Version, error) {
	done, failed := f.enter("CompleteUpload")
	defer done()
	if failed != nil {
		return redoubt.Version{}, failed
	}
	u, err := f.upload(who, in.Name, in.Upload)
	if err != nil {
		return redoubt.Version{}, err
	}
	var content []byte
	v := redoubt.Version{Name: in.Name, Label: u.Label, Author: who.Subject, Attributes: u.Attributes, Tags: u.in.Tags}
	for _, want := range in.Parts {
		p := u.parts[want.Number]
		if p == nil || p.ETag != want.ETag {
			return redoubt.Version{}, &redoubt.Error{Kind: redoubt.Invalid, Err: redoubt.ErrInvalidPart}
		}
		content = append(content, p.content...)
		v.PartSizes = append(v.PartSizes, p.SizeBytes)
	}
	delete(f.uploads, in.Upload)
	v.Checksums = in.Checksums
	v.ETag = fmt.Sprintf("%s-%d", token(), len(in.Parts))
	return f.store(v, content), nil
}

func (f *fake) AbortUpload(_ context.Context, who redoubt.Credential, name redoubt.ObjectName, id redoubt.UploadID) error {
	done, failed := f.enter("AbortUpload")
	defer done()
	if failed != nil {
		return failed
	}
	if _, err := f.upload(who, name, id); err != nil {
		return err
	}
	delete(f.uploads, id)
	return nil
}
