package enclave

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"redoubt"
	"redoubt/identity"
	"redoubt/store"
)

// Expire applies the buckets' lifecycle rules now, as the node's own subject. An expired
// current version gets a marker at its own label, so that nothing lower is told and
// nothing higher is hidden; an expired noncurrent one is removed, if nothing locks it. It also
// forgets credentials that expired over a day ago.
func (e *Enclave) Expire(ctx context.Context) error {
	var failed error // what fails in one place does not keep the others from ending
	for _, b := range *e.buckets.Load() {
		if b.deleted || len(b.Lifecycle) == 0 {
			continue
		}
		for _, set := range e.sets.all() {
			failed = errors.Join(failed, e.expireSet(ctx, b, set))
		}
	}
	return errors.Join(failed, e.expireUploads(ctx), e.expireCredentials(ctx))
}

// expirePage is how many keys are looked at in one view: a view that stays open keeps a scrub waiting.
const expirePage = 512

// expireSet walks one set of a bucket.
func (e *Enclave) expireSet(ctx context.Context, b *bucket, set *labelSet) (err error) {
	for from := rangeKey(recHead, b.id, set.id); from != nil && err == nil; {
		from, err = e.expireSome(ctx, b, set, from)
	}
	return err
}

// expireSome looks at a page of keys from one on, newest first under each, and says where the next page begins.
func (e *Enclave) expireSome(ctx context.Context, b *bucket, set *labelSet, from []byte) (next []byte, err error) {
	view := e.engine.View()
	defer view.Close()
	now := e.clock()
	it := view.Scan(from, after(rangeKey(recHead, b.id, set.id)))
	defer it.Close()
	l := &lane{set: set, it: it}
	for range expirePage {
		if !it.Next() {
			return nil, it.Err()
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		l.stand(true)
		key := string(l.key)
		next = append(append([]byte(nil), it.Key()...), 0)
		head, err := decodeRecord(it.Value())
		if err != nil {
			return nil, &redoubt.Error{Op: "lifecycle", Kind: redoubt.Corrupt, Err: err}
		}
		if err := e.expireKey(ctx, view, b, key, found{set: set, rec: head}, now); err != nil {
			return nil, err
		}
	}
	return next, nil
}

// expireKey applies the rules to one key's versions in one set.
func (e *Enclave) expireKey(ctx context.Context, view store.View, b *bucket, key string, head found, now time.Time) (err error) {
	h := e.history(view, b, key, []found{head})
	defer func() { err = errors.Join(err, h.close()) }()
	h.next() // the head itself
	newer, since := 0, head.rec.id.time()
	for old := h.next(); old != nil; old = h.next() {
		if err := e.expireOld(ctx, view, b, key, *old, newer, time.Unix(0, since), now); err != nil {
			return err
		}
		since = old.rec.id.time()
		newer++
	}
	return e.expireHead(ctx, view, b, key, head, now)
}

// expireHead ends a current version that a rule is done with, and a marker that hides nothing any more.
func (e *Enclave) expireHead(ctx context.Context, view store.View, b *bucket, key string, f found, now time.Time) error {
	for _, r := range b.Lifecycle {
		if !applies(r, key, f.rec) {
			continue
		}
		name := redoubt.ObjectName{Bucket: b.Name, Key: key}
		if f.rec.marker {
			if !r.ExpiredMarkers {
				continue
			}
			if hides, err := e.hidesAny(view, b, key, f); err != nil || hides {
				return err
			}
			return e.expireVersion(ctx, b, name, f)
		}
		born := time.Unix(0, f.rec.id.time())
		if due := r.Days > 0 && !now.Before(midnightAfter(born, r.Days)) || !r.Date.IsZero() && !now.Before(r.Date); due {
			return e.expireCurrent(ctx, view, b, name, f)
		}
	}
	return nil
}

// hidesAny says whether a marker hides anything: a version older than itself in any set that its label dominates.
func (e *Enclave) hidesAny(view store.View, b *bucket, key string, marker found) (bool, error) {
	var tops []found
	for _, set := range e.sets.seenBy(marker.set.label) {
		raw, ok, err := view.Get(headKey(b.id, set.id, key))
		if err != nil {
			return false, err
		}
		if ok {
			rec := new(record)
			if _, _, err := rec.decodeHead(raw); err != nil {
				return false, &redoubt.Error{Op: "lifecycle", Kind: redoubt.Corrupt, Err: err}
			}
			tops = append(tops, found{set: set, rec: rec})
		}
	}
	h := e.history(view, b, key, tops)
	hides := false
	for v := h.next(); v != nil && !hides; v = h.next() {
		hides = !v.rec.marker && marker.rec.id.newer(v.rec.id)
	}
	return hides, h.close()
}

// expireCurrent writes a marker over a version that is due, if it is what the readers of its label see: a marker
// would hide from them also what is newer and lower, which is not due.
func (e *Enclave) expireCurrent(ctx context.Context, view store.View, b *bucket, name redoubt.ObjectName, f found) (err error) {
	cur, _, err := e.current(view, lookCurrent, b, f.set.label, name.Key)
	if err != nil || cur.rec == nil || cur.rec.id != f.rec.id {
		return err
	}
	who := e.own(f.set.label)
	entry, err := e.decide(ctx, ask{op: "lifecycle", who: who, action: redoubt.ActionExpire, bucket: b, name: name, object: f.set.label, fresh: f.set.label})
	if err != nil {
		return err
	}
	w, err := e.write(ctx, b, name, f.set.label, who)
	if err != nil {
		return e.noted(ctx, entry, err)
	}
	defer w.discard()
	w.rec.marker = true
	if _, err = w.commit(ctx, "lifecycle", redoubt.Conditions{IfMatch: []string{e.etag(f.rec)}}, entry); err == nil {
		return nil
	}
	switch err = e.noted(ctx, entry, err); redoubt.KindOf(err) {
	case redoubt.PreconditionFail, redoubt.NotFound, redoubt.NoBucket:
		return nil // changed meanwhile; the next round sees it
	}
	return err
}

// expireOld removes a noncurrent version that a rule is done with. newer is how many noncurrent ones
// are newer; since is when it became noncurrent.
func (e *Enclave) expireOld(ctx context.Context, view store.View, b *bucket, key string, f found, newer int, since, now time.Time) error {
	for _, r := range b.Lifecycle {
		if r.NoncurrentDays == 0 || newer < r.NewerNoncurrent || now.Before(midnightAfter(since, r.NoncurrentDays)) {
			continue
		}
		full, err := e.byID(view, b, f.set.label, key, e.ids.versionID(f.rec.id)) // a walk reads no tags
		if err != nil || full.rec == nil {
			return err
		}
		if applies(r, key, full.rec) {
			return e.expireVersion(ctx, b, redoubt.ObjectName{Bucket: b.Name, Key: key}, full)
		}
	}
	return nil
}

func (e *Enclave) expireVersion(ctx context.Context, b *bucket, name redoubt.ObjectName, f found) error {
	locked := func(r *record) bool { return r.locked(e.clock(), false) }
	cur, err := e.byID(e.engine, b, f.set.label, name.Key, e.ids.versionID(f.rec.id))
	if err != nil || cur.rec == nil || locked(cur.rec) || !e.alters(cur.rec) {
		return err // what a device did not make its home expires
	}
	entry, err := e.decide(ctx, ask{op: "lifecycle", who: e.own(f.set.label), action: redoubt.ActionExpire, bucket: b, name: name, object: f.set.label})
	if err != nil {
		return err
	}
	gone, err := e.removeVersion(ctx, b, f.set, name.Key, f.rec.id, entry, locked, nil)
	if err == nil && gone {
		return nil
	}
	if err == nil { // removed or locked meanwhile
		err = &redoubt.Error{Op: "lifecycle", Kind: redoubt.Conflict}
	}
	if err = e.noted(ctx, entry, err); redoubt.KindOf(err) == redoubt.Conflict {
		return nil
	}
	return err
}

// applies says whether a rule's filter takes a version.
func applies(r redoubt.LifecycleRule, key string, rec *record) bool {
	if r.Disabled || !strings.HasPrefix(key, r.Prefix) || rec.size < r.MinBytes || r.MaxBytes > 0 && rec.size > r.MaxBytes {
		return false
	}
	for _, want := range r.Tags {
		if !slices.Contains(rec.tags, want) {
			return false
		}
	}
	return true
}

// midnightAfter is when a lifetime in days ends: S3 rounds up to the next midnight UTC.
func midnightAfter(t time.Time, days int) time.Time {
	end := t.UTC().AddDate(0, 0, days)
	day := end.Truncate(24 * time.Hour)
	if day.Before(end) {
		day = day.Add(24 * time.Hour)
	}
	return day
}

// expireUploads aborts uploads that were begun too long ago.
func (e *Enclave) expireUploads(ctx context.Context) error {
	view := e.engine.View()
	defer view.Close()
	now := e.clock()
	return e.eachUpload(view, func(u *upload) error {
		for _, r := range u.b.Lifecycle {
			if r.Disabled || r.AbortUploadDays == 0 || !strings.HasPrefix(u.name.Key, r.Prefix) || now.Before(midnightAfter(u.rec.Started, r.AbortUploadDays)) {
				continue
			}
			entry, err := e.decide(ctx, ask{op: "lifecycle", who: e.own(u.made.label), action: redoubt.ActionExpire, bucket: u.b, name: u.name, object: u.made.label})
			if err != nil {
				return err
			}
			if err := u.abort(ctx, entry); redoubt.KindOf(err) != redoubt.NotFound {
				return err
			}
			return nil // ended meanwhile
		}
		return nil
	})
}

// expireCredentials forgets the records of credentials that expired over a day ago. What was revoked stays on record.
func (e *Enclave) expireCredentials(ctx context.Context) error {
	b, set := new(store.Batch), e.sets.table.Load().byLabel[e.recordLabel(identity.KindCredential)]
	if set == nil {
		return nil
	}
	err := e.Records(ctx, identity.KindCredential, func(name string, value []byte) error {
		var c struct{ Expires time.Time }
		if err := json.Unmarshal(value, &c); err != nil {
			return err
		}
		if c.Expires.Before(e.clock().Add(-24*time.Hour)) && len(b.Writes) < store.MaxBatchWrites/2 {
			b.Delete(headKey(systemBucketID, set.id, identity.KindCredential+"/"+name))
		}
		return nil
	})
	if err != nil || len(b.Writes) == 0 {
		return err
	}
	return e.commit(ctx, b, e.ownAct(set.label, redoubt.ActionSystemRecord, redoubt.ObjectName{Bucket: redoubt.SystemBucket}))
}
