package enclave

import (
	"context"
	"strings"

	"redoubt"
	"redoubt/label"
	"redoubt/store"
)

// The kinds of system records that an enclave writes itself; those of identity come
// with their own names.
const kindBucket = "bucket"

// recordLabel is the label of a kind of system records (RULES 4.3: each kind states
// it). Buckets are known at the node's floor; what tells of people and their
// clearances lies at its ceiling, and access.RuleRecords shows it to nobody below. Projections lie at the ceiling of the
// devices that they are for (project.go).
func (e *Enclave) recordLabel(kind string) label.Label {
	if kind == kindBucket {
		return e.floor
	}
	return e.ceiling
}

// putRecord adds a system record to a batch: a version under the reserved bucket,
// named KIND/NAME, whose older versions stay. A nil value is a marker: the record is no more.
func (e *Enclave) putRecord(ctx context.Context, b *store.Batch, kind, name string, value []byte) error {
	return e.putRecordAt(ctx, b, e.recordLabel(kind), kind+"/"+name, value)
}

// putRecordAt is putRecord at a label that the kind alone does not say.
func (e *Enclave) putRecordAt(ctx context.Context, b *store.Batch, l label.Label, key string, value []byte) error {
	set, err := e.sets.of(ctx, l)
	if err != nil {
		return err
	}
	t, err := e.nextTime(ctx, set)
	if err != nil {
		return err
	}
	rec := &record{id: makeVersionID(t, e.maker, set.tag), made: set.id, maker: string(e.name), inline: value, marker: value == nil}
	_, err = e.place(b, systemBucketID, set, key, rec)
	return err
}

// PutRecord writes one system record as the node's own subject; durable on return.
func (e *Enclave) PutRecord(ctx context.Context, kind, name string, value []byte) error {
	unlock := e.locks.lock(systemBucketID, kind+"/"+name)
	defer unlock()
	b := new(store.Batch)
	if err := e.putRecord(ctx, b, kind, name, value); err != nil {
		return err
	}
	return e.commit(ctx, b, e.ownAct(e.recordLabel(kind), redoubt.ActionSystemRecord, redoubt.ObjectName{Bucket: redoubt.SystemBucket, Key: kind + "/" + name}))
}

// Records gives the current system records of a kind in the order of their names.
func (e *Enclave) Records(ctx context.Context, kind string, each func(name string, value []byte) error) error {
	set, err := e.sets.of(ctx, e.recordLabel(kind))
	if err != nil {
		return err
	}
	view := e.engine.View()
	defer view.Close()
	lower := append(rangeKey(recHead, systemBucketID, set.id), kind+"/"...)
	it := view.Scan(lower, after(lower))
	defer it.Close()
	for it.Next() {
		rec, err := decodeRecord(it.Value())
		if err != nil {
			return &redoubt.Error{Op: "Records", Object: kind, Kind: redoubt.Corrupt, Err: err}
		}
		if rec.marker {
			continue
		}
		name := strings.TrimPrefix(string(it.Key()[rangeBytes:len(it.Key())-1]), kind+"/")
		if err := each(name, rec.inline); err != nil {
			return err
		}
	}
	return it.Err()
}
