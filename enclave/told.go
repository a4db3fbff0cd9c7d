package enclave

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"redoubt"
	"redoubt/identity"
	"redoubt/label"
	"redoubt/store"
)

// toldKinds are the kinds of system records that a home tells its devices of. Each is taken from the home alone: its
// signature over the entry, and within it, for a person, those of the two officers. The records of people themselves go to devices
// that may hold the home's ceiling, where they lie; to others, and of buckets to all, go projections.
var toldKinds = []string{identity.KindPerson, identity.KindGrant, identity.KindRevocation, identity.KindProjection}

// told says whether a system record travels.
func told(key string) bool {
	kind, _, _ := strings.Cut(key, "/")
	return slices.Contains(toldKinds, kind)
}

// journaled says whether a version goes into the journal: objects of a node with links, and what a home tells its devices.
func (e *Enclave) journaled(bucket uint32, key string) bool {
	if bucket == systemBucketID {
		return len(e.links.declared) > 0 && e.linked() && told(key)
	}
	return e.linked()
}

// home is the peer that this node takes system records from; "" for an enclave.
func (e *Enclave) home() redoubt.NodeName {
	if len(e.links.fixed) == 1 {
		return e.links.fixed[0].Peer
	}
	return ""
}

// travels says whether a name travels over a link in a direction, in a label set: objects as it is subscribed, system
// records from a home to its devices, and on from one of them to another of the same range.
func (e *Enclave) travels(l redoubt.Link, name redoubt.ObjectName, of label.Label, in bool) bool {
	if ownBucket(name.Bucket) {
		return false // it is for this node alone
	}
	if name.Bucket != redoubt.SystemBucket {
		return subscribed(l, name, of, in)
	}
	if in && e.home() == l.Peer || l.Relays {
		return told(name.Key) && isFor(l, e.floor, l.Bound, name.Key)
	}
	if in {
		return false
	}
	d := e.links.declared[l.Peer]
	return d.Name == l.Peer && told(name.Key) && isFor(l, d.Floor, d.Ceiling, name.Key)
}

// isFor says whether a system record that is told is for the device at the end of a link: a projection for its range, and of a
// bucket that it carries.
func isFor(l redoubt.Link, floor, ceiling label.Label, key string) bool {
	tag, name, is := parseProjection(key)
	if !is {
		return !strings.HasPrefix(key, identity.KindProjection+"/")
	}
	own, err := rangeTag(floor, ceiling)
	if err != nil || tag != own {
		return false
	}
	bucket, of := strings.CutPrefix(name, bucketPart)
	return !of || carried(l.Subscriptions, redoubt.BucketName(bucket), "")
}

// otherRange says whether the home tells of something for a range that this device does not have: not yet, where the home goes by a
// newer estate. It is refused for now.
func (e *Enclave) otherRange(l redoubt.Link, key string) bool {
	tag, _, projected := parseProjection(key)
	own, err := rangeTag(e.floor, l.Bound)
	return projected && e.home() == l.Peer && err == nil && tag != own
}

// receiveRecord decides a system record that came from a peer: the node's own subject writes it, on the word of its home.
func (e *Enclave) receiveRecord(ctx context.Context, l redoubt.Link, n *incoming, of label.Label) error {
	a := ask{op: "Apply", who: e.own(e.floor), action: redoubt.ActionSystemRecord, name: n.in.Entry.Name, fresh: of, detail: "from " + string(l.Peer)}
	n.b = (*e.buckets.Load())[redoubt.SystemBucket]
	ent, err := e.decide(ctx, a)
	n.entry = ent
	_, _, projected := parseProjection(n.in.Entry.Name.Key)
	if err == nil && (!l.Bound.Dominates(of) || projected && of != l.Bound) {
		err = &redoubt.Error{Op: "Apply", Kind: redoubt.Denied, Rule: "within-link-bound (4.3)"}
	}
	return err
}

// takeRecord takes a system record's value in.
func (e *Enclave) takeRecord(n *incoming) error {
	x := &n.in.Entry
	kind, name, _ := strings.Cut(x.Name.Key, "/")
	most := int64(identity.MaxRecordBytes)
	if kind == identity.KindProjection {
		if _, name, _ = parseProjection(x.Name.Key); strings.HasPrefix(name, bucketPart) {
			most = maxBucketBytes
		}
	}
	if x.Kind != redoubt.EntryVersion || x.Marker || n.in.Content == nil || x.SizeBytes > most {
		return &redoubt.Error{Op: "Apply", Kind: redoubt.Invalid}
	}
	value, err := io.ReadAll(io.LimitReader(n.in.Content, x.SizeBytes+1))
	if err != nil {
		return err
	}
	if int64(len(value)) != x.SizeBytes {
		return &redoubt.Error{Op: "Apply", Kind: redoubt.Invalid}
	}
	if sha256.Sum256(value) != x.Content {
		return &redoubt.Error{Op: "Apply", Kind: redoubt.BadDigest}
	}
	n.record = &identity.Record{Kind: kind, Name: name, Value: value}
	n.w = &write{e: e, b: n.b, name: x.Name, set: n.set, made: n.made}
	n.w.rec = &record{id: n.id, base: versionID(x.Base), made: n.made.id, maker: string(x.Maker), inline: value, custody: n.custody, from: n.from}
	return nil
}

// applyRecords takes what the home tells: those that this node can make take effect are committed, and take effect in the same
// call; what it could not is refused before anything of it is durable.
func (e *Enclave) applyRecords(ctx context.Context, told []*incoming) ([]redoubt.Refusal, error) {
	if len(told) == 0 {
		return nil, nil
	}
	e.peopleMu.Lock()
	defer e.peopleMu.Unlock()
	e.bucketsMu.Lock()
	defer e.bucketsMu.Unlock()
	sound, refused, err := e.vet(ctx, told)
	if err != nil {
		return refused, err
	}
	going := map[uint32]*sync.RWMutex{}
	for _, n := range sound {
		if n.bucket != nil && n.bucket.deleted {
			going[n.bucket.id] = n.bucket.gate
		}
	}
	for _, id := range slices.Sorted(maps.Keys(going)) { // no write into a bucket that goes is under way; in the order of lockNames
		going[id].Lock()
		defer going[id].Unlock()
	}
	return refused, e.applyAll(ctx, sound)
}

// vet tries records on a copy of what is known of people, and translates buckets. What fails is refused, on record: for now, since
// a home that goes by a newer version or estate tells what this node does not understand yet. It comes again, and after an upgrade it is taken.
func (e *Enclave) vet(ctx context.Context, told []*incoming) (sound []*incoming, refused []redoubt.Refusal, err error) {
	people, err := e.identity.Trial()
	if err != nil {
		return nil, nil, err
	}
	buckets := map[redoubt.BucketName]*bucket{}
	for _, n := range told {
		held, err := e.holdsStamp(n)
		if err != nil {
			return nil, refused, err
		}
		if !held && n.record != nil {
			if strings.HasPrefix(n.record.Name, bucketPart) && n.record.Kind == identity.KindProjection {
				err = e.translate(n, buckets)
			} else {
				err = people.Load(*n.record)
			}
		}
		if err == nil {
			sound = append(sound, n)
			continue
		}
		n.entry.Allow, n.entry.Rule, n.entry.Kind = false, ruleSound, redoubt.Invalid.Error()
		if err := e.record(ctx, n.entry); err != nil {
			return nil, refused, err
		}
		refused = append(refused, redoubt.Refusal{Stamp: n.in.Entry.Stamp, Kind: redoubt.Invalid, Rule: ruleSound, Later: true})
	}
	return sound, refused, nil
}

// translate makes a bucket of this node of what the home tells of one: its number and its gate are this node's, and where object
// lock was switched on it stays. seen are those of the same call. bucketsMu is held.
func (e *Enclave) translate(n *incoming, seen map[redoubt.BucketName]*bucket) error {
	var in bucketProjection
	if err := strictJSON(n.record.Value, &in); err != nil {
		return err
	}
	again, err := json.Marshal(in)
	name := in.Bucket.Name
	if err != nil || string(again) != string(n.record.Value) || bucketPart+string(name) != n.record.Name || !bucketName(name) && !guardsName(name) {
		return errForeign
	}
	old := seen[name]
	if old == nil {
		old = (*e.buckets.Load())[name]
	}
	rec, gate := bucketRecord{Deleted: in.Deleted, Told: true, Bucket: in.Bucket}, new(sync.RWMutex)
	if old != nil {
		rec.ID, gate = old.id, old.gate
		if old.Lock.Enabled && !rec.Bucket.Lock.Enabled {
			rec.Bucket.Lock = old.Lock
		}
	} else {
		rec.ID = e.nextBucketID()
		for _, b := range seen {
			rec.ID = max(rec.ID, b.id+1)
		}
	}
	if n.bucket, err = e.compile(rec, gate); err != nil {
		return err
	}
	seen[name] = n.bucket
	return nil
}

// placeRecord puts a told record in its place, and with the newest of a bucket what this node makes of it.
func (e *Enclave) placeRecord(ctx context.Context, batch *store.Batch, n *incoming) error {
	if held, err := e.holdsStamp(n); err != nil || held {
		n.entry.Kind = outcomeHeld
		return err
	}
	key := n.in.Entry.Name.Key
	raw, ok, err := e.engine.Get(headKey(systemBucketID, n.set.id, key))
	if err != nil {
		return err
	}
	var head record
	if ok {
		if _, _, err := head.decodeHead(raw); err != nil {
			return &redoubt.Error{Op: "Apply", Kind: redoubt.Corrupt, Err: err}
		}
	}
	n.newest = n.id.newer(head.id)
	if n.newest && n.bucket != nil {
		if err := e.putBucket(ctx, batch, n.bucket); err != nil {
			return err
		}
	}
	_, err = e.place(batch, systemBucketID, n.set, key, n.w.rec)
	return err
}

// believe makes system records that are durable take effect, before anything else is committed under a right that they end. Of
// projections the newest stands.
func (e *Enclave) believe(round []*incoming) {
	e.standingMu.Lock()
	defer e.standingMu.Unlock()
	for _, n := range round {
		switch {
		case n.record == nil || n.entry.Kind == outcomeHeld || n.record.Kind == identity.KindProjection && !n.newest:
		case n.bucket != nil:
			e.showBucket(n.bucket)
		default:
			e.identity.Apply(*n.record)
		}
	}
}
