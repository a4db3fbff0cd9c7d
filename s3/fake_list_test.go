package s3

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"redoubt"
)

// fold applies prefix, delimiter and after to names in order, calling leaf for each shown; false stops.
func fold(names []string, prefix, delimiter, after string, leaf func(name string), group func(prefix string)) {
	last := ""
	for _, n := range names {
		if !strings.HasPrefix(n, prefix) || n <= after {
			continue
		}
		if delimiter != "" {
			if i := strings.Index(n[len(prefix):], delimiter); i >= 0 {
				p := n[:len(prefix)+i+len(delimiter)]
				if p != last && !strings.HasPrefix(after, p) {
					group(p)
				}
				last = p
				continue
			}
		}
		leaf(n)
	}
}

func (f *fake) names(b redoubt.BucketName) []string {
	var names []string
	for n := range f.versions[b] {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func (f *fake) ListObjects(_ context.Context, who redoubt.Credential, in redoubt.ListObjects) (page redoubt.ObjectPage, err error) {
	done, failed := f.enter("ListObjects")
	defer done()
	if failed != nil {
		return page, failed
	}
	if f.buckets[in.Bucket] == nil {
		return page, redoubt.NoBucket
	}
	full := func(name string) bool {
		if len(page.Versions)+len(page.Prefixes) == in.Max {
			page.Truncated = true
			return true
		}
		page.Next = name
		return false
	}
	var visible []string
	for _, n := range f.names(in.Bucket) {
		if f.current(who, redoubt.ObjectName{Bucket: in.Bucket, Key: n}) != nil {
			visible = append(visible, n)
		}
	}
	fold(visible, in.Prefix, in.Delimiter, in.After, func(n string) {
		if !full(n) {
			page.Versions = append(page.Versions, f.current(who, redoubt.ObjectName{Bucket: in.Bucket, Key: n}).Version)
		}
	}, func(p string) {
		if !full(p) {
			page.Prefixes = append(page.Prefixes, p)
		}
	})
	return page, nil
}

func (f *fake) ListVersions(_ context.Context, who redoubt.Credential, in redoubt.ListVersions) (page redoubt.VersionPage, err error) {
	done, failed := f.enter("ListVersions")
	defer done()
	if failed != nil {
		return page, failed
	}
	if f.buckets[in.Bucket] == nil {
		return page, redoubt.NoBucket
	}
	reached := in.AfterID == ""
	for _, n := range f.names(in.Bucket) {
		if !strings.HasPrefix(n, in.Prefix) || n < in.AfterKey || n == in.AfterKey && in.AfterID == "" {
			continue
		}
		first := true
		for _, v := range f.versions[in.Bucket][n] {
			if !who.Working.Dominates(v.Label) {
				continue
			}
			latest := first
			first = false
			if n == in.AfterKey && !reached {
				reached = v.ID == in.AfterID
				continue
			}
			if len(page.Versions) == in.Max {
				page.Truncated = true
				return page, nil
			}
			shown := v.Version
			shown.Latest = latest
			page.Versions = append(page.Versions, shown)
			page.NextKey, page.NextID = n, v.ID
		}
	}
	return page, nil
}

func (f *fake) ListUploads(_ context.Context, who redoubt.Credential, in redoubt.ListUploads) (page redoubt.UploadPage, err error) {
	done, failed := f.enter("ListUploads")
	defer done()
	if failed != nil {
		return page, failed
	}
	if f.buckets[in.Bucket] == nil {
		return page, redoubt.NoBucket
	}
	for _, u := range f.uploads {
		if u.Name.Bucket == in.Bucket && u.Label.Equivalent(who.Working) {
			page.Uploads = append(page.Uploads, u.Upload)
		}
	}
	slices.SortFunc(page.Uploads, func(a, b redoubt.Upload) int { return cmp.Compare(a.Name.Key, b.Name.Key) })
	return page, nil
}
