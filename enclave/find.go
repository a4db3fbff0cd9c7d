package enclave

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"redoubt"
	"redoubt/label"
	"redoubt/store"
)

// findLooks is how many keys one page of a search looks at: it goes on from there, whether something was found or not.
const findLooks = 20_000

// finder is one search, compiled.
type finder struct {
	e    *Enclave
	who  redoubt.Credential
	q    redoubt.FindObjects
	text string
	of   label.Label // zero: any
	left int         // keys that may still be looked at
	out  redoubt.FindPage
}

// Find searches the current versions of every bucket that the caller may list, in the order of buckets and keys; see redoubt.FindService.
func (e *Enclave) Find(ctx context.Context, who redoubt.Credential, q redoubt.FindObjects) (redoubt.FindPage, error) {
	const op = "Find"
	f := &finder{e: e, who: who, q: q, text: strings.ToLower(q.Text), left: findLooks, out: redoubt.FindPage{Found: []redoubt.Found{}}}
	if f.q.Max = cmp.Or(q.Max, redoubt.MaxFindHits); f.q.Max < 1 || f.q.Max > redoubt.MaxFindHits || len(q.Text) > redoubt.MaxFindText {
		return f.out, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Hint: "at most 1000 are found at once, by at most 256 bytes of text"}
	}
	if q.Label != "" {
		var err error
		if f.of, err = e.policy.Parse(q.Label); err != nil {
			return f.out, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Rule: "label: " + err.Error(), Hint: "redoubt label parse shows what a marking means"}
		}
	}
	table := *e.buckets.Load()
	view := e.engine.View()
	defer view.Close()
	for _, name := range slices.Sorted(maps.Keys(table)) {
		if b := table[name]; b.id == systemBucketID || ownBucket(name) || name < q.After.Bucket || q.Bucket != "" && name != q.Bucket || q.Origin != "" && e.bucketOrigin(name) != q.Origin {
			continue
		}
		if b := table[name]; b.deleted { // it is there for who may read what is left in it
			empty, err := e.looksEmpty(b, who.Working)
			if err != nil {
				return f.out, err
			}
			if empty {
				continue
			}
		}
		more, err := f.bucket(ctx, view, name)
		if err != nil || more {
			return f.out, err
		}
	}
	return f.out, nil
}

// bucketOrigin is the enclave whose content a bucket holds: what was released here is of the one that it came from.
func (e *Enclave) bucketOrigin(name redoubt.BucketName) redoubt.NodeName {
	if origin, _, dotted := strings.Cut(string(name), "."); dotted {
		return redoubt.NodeName(origin)
	}
	return e.realm()
}

// bucket searches one; more says that the page ends in it.
func (f *finder) bucket(ctx context.Context, view store.View, name redoubt.BucketName) (more bool, err error) {
	e := f.e
	b, visible, err := e.listing(ctx, "Find", redoubt.ActionListObjects, f.who, name)
	if k := redoubt.KindOf(err); err != nil && (k == redoubt.NotFound || k == redoubt.Denied || k == redoubt.NoBucket) {
		return false, nil // closed to the caller
	}
	if err != nil {
		return false, err
	}
	m := merge(view, e.look(lookList, f.who.Working), b, "", recHead)
	defer m.close()
	start := ""
	if name == f.q.After.Bucket {
		start = f.q.After.Key
	}
	m.seek(startOf(start, "", ""))
	for key, ok := m.key(); ok; key, ok = m.key() {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if visible != nil && !visible(key) {
			m.skipKey(key)
			continue
		}
		if f.left == 0 || len(f.out.Found) == f.q.Max {
			f.out.Next = &redoubt.FindPosition{Bucket: name, Key: start}
			return true, nil
		}
		f.left--
		start = key
		tops, err := m.take(key)
		if err != nil {
			return false, err
		}
		if cur, _ := choose(tops, b.Current == "highest"); cur.rec != nil {
			if err := f.see(view, b, cur, key); err != nil {
				return false, err
			}
		}
	}
	return false, m.err()
}

// see takes a current version into the page, if it is what is looked for.
func (f *finder) see(view store.View, b *bucket, cur found, key string) error {
	modified := time.Unix(0, cur.rec.id.time()).UTC()
	switch q := &f.q; {
	case !f.of.IsZero() && !cur.set.label.Equivalent(f.of), q.Author != "" && cur.rec.author != string(q.Author),
		!q.Since.IsZero() && modified.Before(q.Since), !q.Until.IsZero() && !modified.Before(q.Until):
		return nil
	}
	raw, ok, err := view.Get(headKey(b.id, cur.set.id, key)) // a listing reads the beginning of a record alone
	if err != nil || !ok {
		return err
	}
	rec, err := decodeRecord(raw)
	if err != nil {
		return &redoubt.Error{Op: "Find", Kind: redoubt.Corrupt, Err: err}
	}
	if f.q.Maker != "" && rec.maker != string(f.q.Maker) || !f.says(key, rec) {
		return nil
	}
	_, there, dotted := strings.Cut(string(b.Name), ".")
	if !dotted {
		there = string(b.Name)
	}
	f.out.Found = append(f.out.Found, redoubt.Found{Origin: f.e.bucketOrigin(b.Name), There: redoubt.BucketName(there), Bucket: b.Name, Key: key, Version: f.e.ids.versionID(rec.id), Label: cur.set.label.Banner(),
		Maker: redoubt.NodeName(rec.maker), Author: redoubt.SubjectName(rec.author), Modified: modified, Bytes: rec.size, Meta: shown(rec.attrs).Meta})
	return nil
}

// says says whether the text looked for is in the key or in the metadata.
func (f *finder) says(key string, rec *record) bool {
	if f.text == "" || strings.Contains(strings.ToLower(key), f.text) {
		return true
	}
	for name, value := range shown(rec.attrs).Meta {
		if strings.Contains(name, f.text) || strings.Contains(strings.ToLower(value), f.text) {
			return true
		}
	}
	return false
}
