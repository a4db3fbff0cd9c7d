package enclave

import (
	"context"
	"encoding/json"
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
	for _, b := range *e.buckets.Load() {
		if b.deleted || len(b.Lifecycle) == 0 {
			continue
		}
		for _, set := range e.sets.all() {
			if err := e.expireSet(ctx, b, set); err != nil {
				return err
			}
		}
	}
	if err := e.expireUploads(ctx); err != nil {
		return err
	}
	return e.expireCredentials(ctx)
}

// expireSet walks one set of a bucket, newest first under each key.
func (e *Enclave) expireSet(ctx context.Context, b *bucket, set *labelSet) error {
	view := e.engine.View()
	defer view.Close()
	now := e.clock()
	lower := rangeKey(recHead, b.id, set.id)
	it := view.Scan(lower, after(lower))
	defer it.Close()
	l := &lane{set: set, it: it}
	for it.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		l.stand(true)
		key := string(l.key)
		head, err := decodeRecord(it.Value())
		if err != nil {
			return &redoubt.Error{Op: "lifecycle", Kind: redoubt.Corrupt, Err: err}
		}
		h := e.history(view, b, key, []found{{set: set, rec: head}})
		next := h.next() // the head itself
		newer, since := 0, head.id.time()
		for next = h.next(); next != nil; next = h.next() {
			if err := e.expireOld(ctx, b, key, *next, newer, time.Unix(0, since), now); err != nil {
				h.close()
				return err
			}
			since = next.rec.id.time()
			newer++
		}
		if err := h.close(); err != nil {
			return err
		}
		if err := e.expireHead(ctx, b, key, found{set: set, rec: head}, newer > 0, now); err != nil {
			return err
		}
	}
	return it.Err()
}

// expireHead ends a current version that a rule is done with, and a marker that hides nothing any more.
func (e *Enclave) expireHead(ctx context.Context, b *bucket, key string, f found, hasOlder bool, now time.Time) error {
	for _, r := range b.Lifecycle {
		if !applies(r, key, f.rec) {
			continue
		}
		name := redoubt.ObjectName{Bucket: b.Name, Key: key}
		if f.rec.marker {
			if r.ExpiredMarkers && !hasOlder {
				return e.expireVersion(ctx, b, name, f)
			}
			continue
		}
		born := time.Unix(0, f.rec.id.time())
		due := r.Days > 0 && !now.Before(midnightAfter(born, r.Days)) || !r.Date.IsZero() && !now.Before(r.Date)
		if !due {
			continue
		}
		who := e.own(f.set.label)
		entry, err := e.decide(ctx, ask{op: "lifecycle", who: who, action: redoubt.ActionExpire, bucket: b, name: name, object: f.set.label, fresh: f.set.label})
		if err != nil {
			return err
		}
		w, err := e.write(ctx, b, name, f.set.label, who)
		if err != nil {
			return err
		}
		w.rec.marker = true
		_, err = w.commit(ctx, "lifecycle", redoubt.Conditions{IfMatch: []string{e.etag(f.rec)}}, entry)
		if k := redoubt.KindOf(err); err != nil && (k == redoubt.PreconditionFail || k == redoubt.NotFound || k == redoubt.NoBucket) {
			return nil // changed meanwhile; the next round sees it
		}
		return err
	}
	return nil
}

// expireOld removes a noncurrent version that a rule is done with. newer is how many noncurrent ones
// are newer; since is when it became noncurrent.
func (e *Enclave) expireOld(ctx context.Context, b *bucket, key string, f found, newer int, since, now time.Time) error {
	for _, r := range b.Lifecycle {
		if r.NoncurrentDays == 0 || newer < r.NewerNoncurrent || now.Before(midnightAfter(since, r.NoncurrentDays)) || !applies(r, key, f.rec) {
			continue
		}
		return e.expireVersion(ctx, b, redoubt.ObjectName{Bucket: b.Name, Key: key}, f)
	}
	return nil
}

func (e *Enclave) expireVersion(ctx context.Context, b *bucket, name redoubt.ObjectName, f found) error {
	locked := func(r *record) bool { return r.locked(e.clock(), false) }
	cur, err := e.byID(e.engine, b, f.set.label, name.Key, e.ids.versionID(f.rec.id))
	if err != nil || cur.rec == nil || locked(cur.rec) {
		return err
	}
	entry, err := e.decide(ctx, ask{op: "lifecycle", who: e.own(f.set.label), action: redoubt.ActionExpire, bucket: b, name: name, object: f.set.label})
	if err != nil {
		return err
	}
	_, err = e.removeVersion(ctx, b, f.set, name.Key, f.rec.id, entry, locked, nil)
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
			return u.abort(ctx, entry)
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
