package enclave

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"redoubt"
	"redoubt/access"
	"redoubt/label"
	"redoubt/store"
)

// bucket is a bucket's record, compiled. It is immutable but for its gate.
type bucket struct {
	id      uint32 // of the name, for good: a bucket made anew under a name has the same
	deleted bool   // known to nobody but the readers of what is left in it
	told    bool   // by the node's home
	redoubt.Bucket
	facts access.Bucket
	gate  *sync.RWMutex // writers hold it shared while they commit; DeleteBucket holds it alone
}

// bucketRecord is the value of a system record of kind "bucket".
type bucketRecord struct {
	ID      uint32         `json:"id"`
	Deleted bool           `json:"deleted,omitempty"`
	Told    bool           `json:"told,omitempty"` // by the node's home, which has it made and configured
	Bucket  redoubt.Bucket `json:"bucket"`
}

const systemBucketID = 0

var bucketNames = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$`)

// bucket finds a bucket that the request names. Names are known at the node's floor, so this tells nothing.
func (e *Enclave) bucket(op string, name redoubt.BucketName) (*bucket, error) {
	if b := (*e.buckets.Load())[name]; b != nil && !b.deleted && name != redoubt.SystemBucket {
		return b, nil
	}
	return nil, &redoubt.Error{Op: op, Object: string(name), Kind: redoubt.NoBucket}
}

// readable finds a bucket for reading: a removed one too, whose higher versions stay
// readable to their readers (RULES 2.5). Who finds nothing in it is told what it would be told of a name never used.
func (e *Enclave) readable(op string, name redoubt.BucketName) (*bucket, error) {
	if b := (*e.buckets.Load())[name]; b != nil && name != redoubt.SystemBucket {
		return b, nil
	}
	return nil, &redoubt.Error{Op: op, Object: string(name), Kind: redoubt.NoBucket}
}

// missing is the answer for an object that is not there for the reader.
func (b *bucket) missing(op string, name redoubt.ObjectName) *redoubt.Error {
	if b.deleted {
		return &redoubt.Error{Op: op, Object: string(name.Bucket), Kind: redoubt.NoBucket}
	}
	return &redoubt.Error{Op: op, Object: name.String(), Kind: redoubt.NotFound}
}

// refused is the answer for what was refused: in a removed bucket, that of a name never used.
func (b *bucket) refused(op string, name redoubt.ObjectName, err error) error {
	if k := redoubt.KindOf(err); b.deleted && (k == redoubt.Denied || k == redoubt.NotFound) {
		return b.missing(op, name)
	}
	return err
}

// compile turns a record into a bucket, parsing its markings.
func (e *Enclave) compile(rec bucketRecord, gate *sync.RWMutex) (*bucket, error) {
	b := &bucket{id: rec.ID, deleted: rec.Deleted, told: rec.Told, Bucket: rec.Bucket, gate: gate}
	b.facts = access.Bucket{Name: rec.Bucket.Name, Floor: e.floor, Ceiling: e.ceiling,
		Closed: rec.Bucket.Closed, ReadOnly: rec.Bucket.ReadOnly, Grants: rec.Bucket.Grants}
	for _, m := range []struct {
		text string
		into *label.Label
	}{{rec.Bucket.Floor, &b.facts.Floor}, {rec.Bucket.Ceiling, &b.facts.Ceiling}, {rec.Bucket.Default, &b.facts.Default}} {
		if m.text == "" {
			continue
		}
		l, err := e.policy.Parse(m.text)
		if err != nil {
			return nil, &redoubt.Error{Op: "bucket", Object: string(rec.Bucket.Name), Kind: redoubt.Invalid, Err: err, Hint: err.Error()}
		}
		*m.into = l
	}
	if err := e.checkRange(b); err != nil {
		return nil, err
	}
	return b, nil
}

// checkRange refuses a bucket whose bounds lie outside the node's range.
func (e *Enclave) checkRange(b *bucket) error {
	f := &b.facts
	bad := func(rule string) error {
		return &redoubt.Error{Op: "bucket", Object: string(b.Name), Kind: redoubt.Invalid, Rule: rule, Hint: rule}
	}
	switch {
	case !f.Floor.Dominates(e.floor) || !e.ceiling.Dominates(f.Ceiling):
		return bad("the bucket's range must lie within the node's range")
	case !f.Ceiling.Dominates(f.Floor):
		return bad("the bucket's ceiling must dominate its floor")
	case !f.Default.IsZero() && (!f.Default.Dominates(f.Floor) || !f.Ceiling.Dominates(f.Default)):
		return bad("the bucket's default label must lie in its range")
	case b.Current != "" && b.Current != "newest" && b.Current != "highest":
		return bad("current is newest or highest")
	}
	return nil
}

// CreateBucket makes a bucket.
func (e *Enclave) CreateBucket(ctx context.Context, who redoubt.Credential, name redoubt.BucketName, s redoubt.BucketSettings) (out redoubt.Bucket, err error) {
	const op = "CreateBucket"
	made := &bucket{facts: access.Bucket{Name: name, Floor: e.floor, Ceiling: e.ceiling}}
	entry, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionCreateBucket, bucket: made, name: redoubt.ObjectName{Bucket: name}})
	if err != nil {
		return redoubt.Bucket{}, err
	}
	defer e.noteFailure(ctx, entry, &err)
	if e.home() != "" {
		return redoubt.Bucket{}, e.homesBucket(op, name, entry)
	}
	if !bucketName(name) {
		return redoubt.Bucket{}, &redoubt.Error{Op: op, Object: string(name), Kind: redoubt.Invalid,
			Hint: "a bucket's name is 3 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit; names with a dot are for guards"}
	}
	e.bucketsMu.Lock()
	defer e.bucketsMu.Unlock()
	old := (*e.buckets.Load())[name]
	if old != nil && !old.deleted {
		return redoubt.Bucket{}, &redoubt.Error{Op: op, Object: string(name), Kind: redoubt.Exists}
	}
	rec := bucketRecord{Bucket: redoubt.Bucket{Name: name, Created: e.clock().UTC().Truncate(1e6), BucketSettings: s}}
	gate := new(sync.RWMutex)
	if old != nil {
		rec.ID, gate = old.id, old.gate
	} else {
		rec.ID = e.nextBucketID()
	}
	if err := e.saveBucket(ctx, rec, gate, entry); err != nil {
		return redoubt.Bucket{}, err
	}
	return rec.Bucket, nil
}

// bucketName says whether the storage role may give a bucket this name.
func bucketName(name redoubt.BucketName) bool {
	return bucketNames.MatchString(string(name)) && !strings.HasPrefix(string(name), "xn--") && !strings.HasSuffix(string(name), "-s3alias")
}

// ownBucket says whether a bucket is the node's own: what was rebuilt for its reviewers, what belongs to its jobs. Nothing of it travels or is found.
func ownBucket(name redoubt.BucketName) bool { return name == RebuiltBucket || name == JobBucket }

// guardsName says whether a guard may write a bucket of this name: ORIGIN.BUCKET.
func guardsName(name redoubt.BucketName) bool {
	origin, bucket, dotted := strings.Cut(string(name), ".")
	return dotted && origin != "" && len(origin) <= 63 && bucketNames.MatchString(bucket) && strings.IndexFunc(origin, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }) < 0
}

// ruleHomesBucket keeps a device's buckets for its home to make and configure: what is in one that a device made would not be
// taken there.
const ruleHomesBucket = "buckets-of-its-home (2.5)"

func (e *Enclave) homesBucket(op string, name redoubt.BucketName, entry *entry) error {
	entry.Allow, entry.Rule = false, ruleHomesBucket
	return &redoubt.Error{Op: op, Object: string(name), Kind: redoubt.Denied, Rule: ruleHomesBucket,
		Hint: fmt.Sprintf("buckets are made and configured at %s, which tells this device of them", e.home())}
}

// nextBucketID counts names ever used; guarded by bucketsMu.
func (e *Enclave) nextBucketID() uint32 {
	next := uint32(1)
	for _, b := range *e.buckets.Load() {
		next = max(next, b.id+1)
	}
	return next
}

// saveBucket makes a bucket's record durable, with what devices are told of it, then visible. bucketsMu is held.
func (e *Enclave) saveBucket(ctx context.Context, rec bucketRecord, gate *sync.RWMutex, entry *entry) error {
	b, err := e.compile(rec, gate)
	if err != nil {
		return err
	}
	batch := new(store.Batch)
	if err := e.fellWith(batch, b); err != nil {
		return err
	}
	if err := e.putBucket(ctx, batch, b); err != nil {
		return err
	}
	if err := e.tellBucket(ctx, batch, b); err != nil {
		return err
	}
	if err := e.commit(ctx, batch, entry); err != nil {
		return err
	}
	e.showBucket(b)
	return nil
}

// putBucket adds a bucket's record to a batch.
func (e *Enclave) putBucket(ctx context.Context, batch *store.Batch, b *bucket) error {
	value, err := json.Marshal(bucketRecord{ID: b.id, Deleted: b.deleted, Told: b.told, Bucket: b.Bucket})
	if err != nil {
		return err
	}
	return e.putRecord(ctx, batch, kindBucket, string(b.Name), value)
}

// showBucket makes a bucket what its name stands for. bucketsMu is held.
func (e *Enclave) showBucket(b *bucket) {
	grown := maps.Clone(*e.buckets.Load())
	grown[b.Name] = b
	e.buckets.Store(&grown)
}

// HeadBucket gives a bucket's settings, which are known at the node's floor.
func (e *Enclave) HeadBucket(ctx context.Context, who redoubt.Credential, name redoubt.BucketName) (redoubt.Bucket, error) {
	a := ask{op: "HeadBucket", who: who, action: redoubt.ActionHeadBucket, name: redoubt.ObjectName{Bucket: name}}
	b, err := e.bucket("HeadBucket", name)
	if err != nil {
		return redoubt.Bucket{}, e.missingBucket(ctx, a, err)
	}
	a.bucket = b
	entry, err := e.decide(ctx, a)
	if err != nil {
		return redoubt.Bucket{}, err
	}
	return b.Bucket, e.noteRead(ctx, entry)
}

// ListBuckets lists every bucket of the node by name.
func (e *Enclave) ListBuckets(ctx context.Context, who redoubt.Credential) ([]redoubt.Bucket, error) {
	entry, err := e.decide(ctx, ask{op: "ListBuckets", who: who, action: redoubt.ActionListBuckets})
	if err != nil {
		return nil, err
	}
	if err := e.noteRead(ctx, entry); err != nil {
		return nil, err
	}
	var out []redoubt.Bucket
	for name, b := range *e.buckets.Load() {
		if !b.deleted && name != redoubt.SystemBucket && name != JobBucket {
			out = append(out, b.Bucket)
		}
	}
	slices.SortFunc(out, func(a, b redoubt.Bucket) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return out, nil
}

// DeleteBucket removes a bucket that looks empty to the caller: neither a version
// nor a marker nor an upload that the working label dominates is in it.
func (e *Enclave) DeleteBucket(ctx context.Context, who redoubt.Credential, name redoubt.BucketName) (err error) {
	const op = "DeleteBucket"
	a := ask{op: op, who: who, action: redoubt.ActionDeleteBucket, name: redoubt.ObjectName{Bucket: name}}
	b, err := e.bucket(op, name)
	if err != nil {
		return e.missingBucket(ctx, a, err)
	}
	a.bucket = b
	entry, err := e.decide(ctx, a)
	if err != nil {
		return err
	}
	defer e.noteFailure(ctx, entry, &err)
	e.bucketsMu.Lock()
	defer e.bucketsMu.Unlock()
	b.gate.Lock()
	defer b.gate.Unlock()
	if b, err = e.bucket(op, name); err != nil {
		return err
	}
	if b.told {
		return e.homesBucket(op, name, entry)
	}
	empty, err := e.looksEmpty(b, who.Working)
	if err != nil {
		return err
	}
	if !empty {
		return &redoubt.Error{Op: op, Object: string(name), Kind: redoubt.NotEmpty}
	}
	rec := bucketRecord{ID: b.id, Deleted: true, Bucket: b.Bucket}
	return e.saveBucket(ctx, rec, b.gate, entry)
}

func (e *Enclave) looksEmpty(b *bucket, working label.Label) (bool, error) {
	view := e.engine.View()
	defer view.Close()
	for _, rec := range []byte{recHead, recUpload} {
		for _, set := range e.look(lookEmpty, working) {
			lower := rangeKey(rec, b.id, set.id)
			it := view.Scan(lower, after(lower))
			found, err := it.Next(), it.Err()
			it.Close()
			if err != nil || found {
				return false, err
			}
		}
	}
	return true, nil
}

// UpdateBucket changes a bucket's settings.
func (e *Enclave) UpdateBucket(ctx context.Context, who redoubt.Credential, name redoubt.BucketName, change func(*redoubt.BucketSettings) error) (out redoubt.Bucket, err error) {
	const op = "UpdateBucket"
	a := ask{op: op, who: who, action: redoubt.ActionPutBucket, name: redoubt.ObjectName{Bucket: name}}
	b, err := e.bucket(op, name)
	if err != nil {
		return redoubt.Bucket{}, e.missingBucket(ctx, a, err)
	}
	a.bucket = b
	entry, err := e.decide(ctx, a)
	if err != nil {
		return redoubt.Bucket{}, err
	}
	defer e.noteFailure(ctx, entry, &err)
	e.bucketsMu.Lock()
	defer e.bucketsMu.Unlock()
	if b, err = e.bucket(op, name); err != nil {
		return redoubt.Bucket{}, err
	}
	if b.told {
		return redoubt.Bucket{}, e.homesBucket(op, name, entry)
	}
	rec := bucketRecord{ID: b.id}
	if err := clone(&rec.Bucket, b.Bucket); err != nil { // change may write into a list, which requests under way read
		return redoubt.Bucket{}, err
	}
	before := rec.Bucket.Lock
	if err := change(&rec.Bucket.BucketSettings); err != nil {
		return redoubt.Bucket{}, err
	}
	if before.Enabled && !rec.Bucket.Lock.Enabled {
		return redoubt.Bucket{}, &redoubt.Error{Op: op, Object: string(name), Kind: redoubt.Invalid, Hint: "object lock cannot be switched off"}
	}
	if err := e.saveBucket(ctx, rec, b.gate, entry); err != nil {
		return redoubt.Bucket{}, err
	}
	return rec.Bucket, nil
}

// clone copies a bucket with everything that its settings point to.
func clone(to *redoubt.Bucket, from redoubt.Bucket) error {
	value, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(value, to)
}

// BucketCORS gives the rules that a browser's preflight is answered from.
func (e *Enclave) BucketCORS(_ context.Context, name redoubt.BucketName) []redoubt.CORSRule {
	if b, err := e.bucket("BucketCORS", name); err == nil {
		return b.CORS
	}
	return nil
}

// BucketMD5ETag says whether every PUT into the bucket gets an MD5 for its ETag.
func (e *Enclave) BucketMD5ETag(_ context.Context, name redoubt.BucketName) bool {
	b, err := e.bucket("BucketMD5ETag", name)
	return err == nil && b.MD5ETag
}

// loadBuckets reads the table at start and makes those of the genesis estate that were never made.
func (e *Enclave) loadBuckets(ctx context.Context, genesis []redoubt.Bucket) error {
	table := map[redoubt.BucketName]*bucket{redoubt.SystemBucket: {id: systemBucketID, Bucket: redoubt.Bucket{Name: redoubt.SystemBucket}, gate: new(sync.RWMutex)}}
	err := e.Records(ctx, kindBucket, func(name string, value []byte) error {
		var rec bucketRecord
		if err := strictJSON(value, &rec); err != nil {
			return fmt.Errorf("bucket record: %w", err)
		}
		b, err := e.compile(rec, new(sync.RWMutex))
		if err != nil {
			return err
		}
		table[rec.Bucket.Name] = b
		return nil
	})
	if err != nil {
		return err
	}
	e.buckets.Store(&table)
	e.bucketsMu.Lock()
	defer e.bucketsMu.Unlock()
	for _, g := range genesis {
		if (*e.buckets.Load())[g.Name] != nil {
			continue
		}
		g.Created = e.clock().UTC().Truncate(1e6)
		rec := bucketRecord{ID: e.nextBucketID(), Bucket: g}
		if err := e.saveBucket(ctx, rec, new(sync.RWMutex), e.ownAct(e.floor, redoubt.ActionCreateBucket, redoubt.ObjectName{Bucket: g.Name})); err != nil {
			return err
		}
	}
	return nil
}
