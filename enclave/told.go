package enclave

import (
	"context"
	"crypto/sha256"
	"io"
	"slices"
	"strings"

	"redoubt"
	"redoubt/identity"
	"redoubt/label"
	"redoubt/store"
)

// toldKinds are the kinds of system records that a home tells its devices of. Each is taken from the home alone: its
// signature over the entry, and within it, for a person, those of the two officers.
var toldKinds = []string{identity.KindPerson, identity.KindGrant, identity.KindRevocation}

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
// records from a home to its devices.
func (e *Enclave) travels(l redoubt.Link, name redoubt.ObjectName, of label.Label, in bool) bool {
	if name.Bucket != redoubt.SystemBucket {
		return subscribed(l, name, of, in)
	}
	if in {
		return e.home() == l.Peer && told(name.Key)
	}
	return e.links.declared[l.Peer].Name == l.Peer && told(name.Key)
}

// receiveRecord decides a system record that came from a peer: the node's own subject writes it, on the word of its home.
func (e *Enclave) receiveRecord(ctx context.Context, l redoubt.Link, n *incoming, of label.Label) error {
	a := ask{op: "Apply", who: e.own(e.floor), action: redoubt.ActionSystemRecord, name: n.in.Entry.Name, fresh: of, detail: "from " + string(l.Peer)}
	n.b = (*e.buckets.Load())[redoubt.SystemBucket]
	ent, err := e.decide(ctx, a)
	n.entry = ent
	if err == nil && !l.Bound.Dominates(of) {
		err = &redoubt.Error{Op: "Apply", Kind: redoubt.Denied, Rule: "within-link-bound (4.3)"}
	}
	return err
}

// takeRecord takes a system record's value in, and refuses one that identity would not have written.
func (e *Enclave) takeRecord(n *incoming) error {
	x := &n.in.Entry
	if x.Kind != redoubt.EntryVersion || x.Marker || n.in.Content == nil || x.SizeBytes > identity.MaxRecordBytes {
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
	kind, name, _ := strings.Cut(x.Name.Key, "/")
	n.record = &identity.Record{Kind: kind, Name: name, Value: value}
	n.w = &write{e: e, b: n.b, name: x.Name, set: n.set, made: n.made}
	n.w.rec = &record{id: n.id, base: versionID(x.Base), made: n.made.id, maker: string(x.Maker), inline: value, custody: n.custody, from: n.from}
	return nil
}

// believe makes system records that are durable take effect, before anything else is committed under a right that they end.
func (e *Enclave) believe(round []*incoming) error {
	e.standingMu.Lock()
	defer e.standingMu.Unlock()
	for _, n := range round {
		if n.record == nil {
			continue
		}
		if err := e.identity.Load(*n.record); err != nil {
			return err
		}
	}
	return nil
}

// placeRecord puts a told record in its place.
func (e *Enclave) placeRecord(batch *store.Batch, n *incoming) error {
	if held, err := e.holdsStamp(n); err != nil || held {
		n.entry.Kind = outcomeHeld
		return err
	}
	_, err := e.place(batch, systemBucketID, n.set, n.in.Entry.Name.Key, n.w.rec)
	return err
}
