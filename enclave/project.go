package enclave

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"redoubt"
	"redoubt/identity"
	"redoubt/label"
	"redoubt/store"
)

// A home tells its devices of people, grants and buckets by projections: system records of a kind of their own, named
// projection/RANGE/person|grant|bucket/NAME and labelled at the range's ceiling, which is the bound of those devices' links. So the
// ordinary journal carries them. They are written in the commit of what they tell of, and only where they change.

// audience is the devices of one range: they are told the same.
type audience struct {
	tag            string // of the range, in the names of records
	floor, ceiling label.Label
	people         bool // whether the range lies below where the records of people do; else those travel themselves
	devices        []DeclaredDevice
}

// rangeTag names a range in the names of records.
func rangeTag(floor, ceiling label.Label) (string, error) {
	low, err := floor.MarshalText()
	if err != nil {
		return "", err
	}
	high, err := ceiling.MarshalText()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(slices.Concat(low, []byte("\n"), high))
	return hex.EncodeToString(sum[:8]), nil
}

// audiences gathers the declared devices by their range, in a fixed order.
func (e *Enclave) audiences() ([]audience, error) {
	byTag := map[string]*audience{}
	for _, d := range e.links.declared {
		tag, err := rangeTag(d.Floor, d.Ceiling)
		if err != nil {
			return nil, err
		}
		a := byTag[tag]
		if a == nil {
			a = &audience{tag: tag, floor: d.Floor, ceiling: d.Ceiling, people: !d.Ceiling.Dominates(e.ceiling)}
			byTag[tag] = a
		}
		a.devices = append(a.devices, d)
	}
	var all []audience
	for _, a := range byTag {
		all = append(all, *a)
	}
	slices.SortFunc(all, func(a, b audience) int { return cmp.Compare(a.tag, b.tag) })
	return all, nil
}

// carries says whether any of a bucket under a prefix travels between the home and one of the devices.
func (a *audience) carries(bucket redoubt.BucketName, prefix string) bool {
	return slices.ContainsFunc(a.devices, func(d DeclaredDevice) bool { return carried(d.Carries, bucket, prefix) })
}

// carried says whether subscriptions name a bucket and a prefix, in either direction; none name all.
func carried(subs []redoubt.Subscription, bucket redoubt.BucketName, prefix string) bool {
	return len(subs) == 0 || slices.ContainsFunc(subs, func(s redoubt.Subscription) bool {
		return (s.Bucket == bucket || s.Bucket == "") && (strings.HasPrefix(s.Prefix, prefix) || strings.HasPrefix(prefix, s.Prefix))
	})
}

func (a *audience) cut() identity.Cut {
	return identity.Cut{Floor: a.floor, Ceiling: a.ceiling, Carries: a.carries}
}

// key is the name of the record that tells the audience of something.
func (a *audience) key(name string) string { return identity.KindProjection + "/" + a.tag + "/" + name }

// parseProjection takes such a name apart.
func parseProjection(key string) (tag, name string, ok bool) {
	rest, ok := strings.CutPrefix(key, identity.KindProjection+"/")
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, "/")
}

// tell adds a projection to a batch, with a record of its own of the node's act: it lies where its readers are.
func (e *Enclave) tell(ctx context.Context, b *store.Batch, a audience, name string, value []byte) error {
	if err := e.putRecordAt(ctx, b, a.ceiling, a.key(name), value); err != nil {
		return err
	}
	b.Append(e.recorder.Record(e.ownAct(a.ceiling, redoubt.ActionSystemRecord, redoubt.ObjectName{Bucket: redoubt.SystemBucket, Key: a.key(name)})))
	return nil
}

// tellPeople adds to a batch what of people and grants is to be told otherwise after recs. peopleMu is held, or the enclave opens.
func (e *Enclave) tellPeople(ctx context.Context, b *store.Batch, recs []identity.Record) error {
	if !slices.ContainsFunc(recs, concernsDevices) || len(e.links.declared) == 0 {
		return nil
	}
	after, err := e.identity.Trial(recs...)
	if err != nil {
		return err
	}
	return e.eachUntold(ctx, after, func(a audience, r identity.Record) error { return e.tell(ctx, b, a, r.Name, r.Value) })
}

// concernsDevices says whether a record of people may change what a device is to know. Credentials are each node's own.
func concernsDevices(r identity.Record) bool {
	return r.Kind == identity.KindPerson || r.Kind == identity.KindGrant ||
		r.Kind == identity.KindRevocation && !strings.HasPrefix(r.Name, identity.KindCredential+"/")
}

// eachUntold gives what of people each audience was not told as it stands in people.
func (e *Enclave) eachUntold(ctx context.Context, people *identity.Registry, each func(audience, identity.Record) error) error {
	all, err := e.audiences()
	if err != nil {
		return err
	}
	for _, a := range all {
		if !a.people {
			continue
		}
		told, err := e.toldTo(ctx, a)
		if err != nil {
			return err
		}
		recs, err := people.Project(a.cut(), told)
		if err != nil {
			return err
		}
		for _, r := range recs {
			if err := each(a, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// toldTo is what an audience was told last, by the names of records.
func (e *Enclave) toldTo(ctx context.Context, a audience) (map[string][]byte, error) {
	told := map[string][]byte{}
	set, err := e.sets.of(ctx, a.ceiling)
	if err != nil {
		return nil, err
	}
	err = e.scanProjections(set, a.key(""), func(key string, rec *record) error {
		_, name, _ := parseProjection(key)
		told[name] = rec.inline
		return nil
	})
	return told, err
}

// scanProjections walks the current projections of a set whose names begin with prefix.
func (e *Enclave) scanProjections(set *labelSet, prefix string, each func(key string, rec *record) error) error {
	view := e.engine.View()
	defer view.Close()
	lower := append(rangeKey(recHead, systemBucketID, set.id), prefix...)
	it := view.Scan(lower, after(lower))
	defer it.Close()
	for it.Next() {
		rec, err := decodeRecord(it.Value())
		if err != nil {
			return &redoubt.Error{Op: "projection", Kind: redoubt.Corrupt, Err: err}
		}
		if err := each(string(it.Key()[rangeBytes:len(it.Key())-1]), rec); err != nil {
			return err
		}
	}
	return it.Err()
}

// tellAtOnce is how many projections go in one commit where the enclave opens.
const tellAtOnce = 1000

// bringUp tells every audience what it was not told: of a device that is new, a range that changed, a version of this software
// that told less. Done twice it writes nothing.
func (e *Enclave) bringUp(ctx context.Context) error {
	if len(e.links.declared) == 0 {
		return nil
	}
	b, n := new(store.Batch), 0
	add := func(a audience, name string, value []byte) error {
		if err := e.tell(ctx, b, a, name, value); err != nil {
			return err
		}
		if n++; n%tellAtOnce > 0 {
			return nil
		}
		full := b
		b = new(store.Batch)
		return e.commit(ctx, full, nil)
	}
	err := e.eachUntold(ctx, e.identity, func(a audience, r identity.Record) error { return add(a, r.Name, r.Value) })
	if err != nil {
		return err
	}
	all, err := e.audiences()
	if err != nil {
		return err
	}
	for _, a := range all {
		for _, bucket := range *e.buckets.Load() {
			value, err := e.bucketUntold(ctx, a, bucket)
			if err == nil && value != nil {
				err = add(a, bucketPart+string(bucket.Name), value)
			}
			if err != nil {
				return err
			}
		}
	}
	return e.commit(ctx, b, nil)
}

// bucketPart begins the names of projections of buckets.
const bucketPart = kindBucket + "/"

// bucketProjection is a bucket as devices of one range know it. Its number is each node's own, and does not travel.
type bucketProjection struct {
	Deleted bool           `json:"deleted,omitempty"`
	Bucket  redoubt.Bucket `json:"bucket"`
}

// maxBucketBytes bounds one: a policy, a thousand lifecycle rules and CORS rules have less.
const maxBucketBytes = 1 << 20

// tellBucket adds to a batch what of a bucket is to be told. bucketsMu is held.
func (e *Enclave) tellBucket(ctx context.Context, batch *store.Batch, b *bucket) error {
	if len(e.links.declared) == 0 {
		return nil
	}
	all, err := e.audiences()
	if err != nil {
		return err
	}
	for _, a := range all {
		value, err := e.bucketUntold(ctx, a, b)
		if err != nil {
			return err
		}
		if value == nil {
			continue
		}
		if err := e.tell(ctx, batch, a, bucketPart+string(b.Name), value); err != nil {
			return err
		}
	}
	return nil
}

// bucketUntold is what an audience is to be told of a bucket, nil where it was told that, or is to know nothing of it: of one
// that never had a label in common with it.
func (e *Enclave) bucketUntold(ctx context.Context, a audience, b *bucket) ([]byte, error) {
	if b.id == systemBucketID || strings.Contains(string(b.Name), ".") && (!guardsName(b.Name) || ownBucket(b.Name)) {
		return nil, nil
	}
	set, err := e.sets.of(ctx, a.ceiling)
	if err != nil {
		return nil, err
	}
	was, err := e.currentRecord(set, a.key(bucketPart+string(b.Name)))
	if err != nil {
		return nil, err
	}
	next, fits := e.cutBucket(a, b)
	if !fits {
		if was == nil {
			return nil, nil
		}
		next.Deleted = true
	}
	value, err := json.Marshal(next)
	if err != nil || bytes.Equal(value, was) {
		return nil, err
	}
	if len(value) > maxBucketBytes {
		return nil, &redoubt.Error{Op: "bucket", Object: string(b.Name), Kind: redoubt.TooLarge, Hint: "what devices are told of a bucket has at most 1 MiB"}
	}
	return value, nil
}

// currentRecord is the value of a system record of a set; nil where there is none.
func (e *Enclave) currentRecord(set *labelSet, key string) ([]byte, error) {
	raw, ok, err := e.engine.Get(headKey(systemBucketID, set.id, key))
	if err != nil || !ok {
		return nil, err
	}
	rec, err := decodeRecord(raw)
	if err != nil {
		return nil, &redoubt.Error{Op: "projection", Kind: redoubt.Corrupt, Err: err}
	}
	return rec.inline, nil
}

// cutBucket cuts a bucket's own range and its default label to a range; fits is false where nothing of it is left. The rest of its
// settings is known at the floor, and travels whole: what closes the bucket, denies or locks must hold at a device too.
func (e *Enclave) cutBucket(a audience, b *bucket) (out bucketProjection, fits bool) {
	out = bucketProjection{Deleted: b.deleted, Bucket: b.Bucket}
	floor, ceiling := a.floor, a.ceiling
	if out.Bucket.Floor != "" {
		floor = label.Join(floor, b.facts.Floor)
		out.Bucket.Floor = floor.Banner()
	}
	if out.Bucket.Ceiling != "" {
		ceiling = label.Meet(ceiling, b.facts.Ceiling)
		out.Bucket.Ceiling = ceiling.Banner()
	}
	if out.Bucket.Default != "" {
		l := label.Join(floor, label.Meet(ceiling, b.facts.Default))
		out.Bucket.Default = l.Banner()
		fits = l.Dominates(floor) && ceiling.Dominates(l)
	} else {
		fits = true
	}
	return out, fits && ceiling.Dominates(floor) && a.ceiling.Dominates(floor) && ceiling.Dominates(a.floor)
}

// ownTag names the range that this node is told for: its link's to its home.
func (e *Enclave) ownTag() (string, error) {
	return rangeTag(e.floor, e.links.fixed[0].Bound)
}

// loadTold takes from what is on record what the node's home tells it: in the range that the node has now, or (past) had.
func (e *Enclave) loadTold(past bool) error {
	if e.home() == "" {
		return nil
	}
	own, err := e.ownTag()
	if err != nil {
		return err
	}
	type told struct {
		id versionID
		identity.Record
	}
	var all []told
	for _, set := range e.sets.all() {
		err := e.scanProjections(set, identity.KindProjection+"/", func(key string, rec *record) error {
			tag, name, ok := parseProjection(key)
			if ok && rec.maker != string(e.name) && (tag == own) != past && !strings.HasPrefix(name, bucketPart) {
				all = append(all, told{rec.id, identity.Record{Kind: identity.KindProjection, Name: name, Value: rec.inline}})
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	slices.SortFunc(all, func(a, b told) int { return bytes.Compare(a.id[:], b.id[:]) })
	load := e.identity.Load
	if past {
		load = e.identity.LoadPast
	}
	for _, t := range all {
		if err := load(t.Record); err != nil {
			return err
		}
	}
	return nil
}

// errForeign is of a projection that names another bucket than its record does, or one that nobody can have made.
var errForeign = errors.New("not a projection of this bucket")
