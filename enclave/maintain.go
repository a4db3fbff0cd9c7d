package enclave

import (
	"context"
	"crypto/fips140"
	"encoding/binary"
	"fmt"
	"io"

	"redoubt"
	"redoubt/keys"
	"redoubt/store"
)

// NodeInfo says what this node is. It tells nothing of what it holds.
func (e *Enclave) NodeInfo(context.Context) redoubt.NodeInfo {
	return redoubt.NodeInfo{Name: e.name, Kind: e.kind, Range: redoubt.Range{Floor: e.floor.Banner(), Ceiling: e.ceiling.Banner()},
		Policy: e.policy.Name(), Version: e.build, FIPS: fips140.Enabled()}
}

// admin decides a call of the platform administrator, and records it.
func (e *Enclave) admin(ctx context.Context, who redoubt.Credential, op string, action redoubt.Action) error {
	entry, err := e.decide(ctx, ask{op: op, who: who, action: action})
	if err != nil {
		return err
	}
	return e.record(ctx, entry)
}

// Usage gives the use of every label's share that the caller's working label dominates.
func (e *Enclave) Usage(ctx context.Context, who redoubt.Credential) ([]redoubt.LabelUsage, error) {
	if err := e.admin(ctx, who, "Usage", redoubt.ActionReadMetrics); err != nil {
		return nil, err
	}
	out := []redoubt.LabelUsage{}
	for _, set := range e.look(lookUsage, who.Working) {
		out = append(out, redoubt.LabelUsage{Label: set.label.Banner(), Versions: set.versions.Load(), Bytes: set.bytes.Load(),
			ChargedBytes: set.charged.Load(), QuotaBytes: set.share.quota})
	}
	return out, nil
}

// Compact runs a round of garbage collection now.
func (e *Enclave) Compact(ctx context.Context, who redoubt.Credential) error {
	if err := e.admin(ctx, who, "Compact", redoubt.ActionCheck); err != nil {
		return err
	}
	return e.engine.Maintain(ctx)
}

// Check reads the whole store back: what the engine keeps, and every version with its
// keys and every chunk of its content. It names nothing: a fault is told by its version's ID. What it counts
// covers what the caller's working label dominates; that something is wrong above it is told without a count.
func (e *Enclave) Check(ctx context.Context, who redoubt.Credential, progress func(done, total int64)) (redoubt.CheckReport, error) {
	report := redoubt.CheckReport{Node: e.name, Faults: []string{}}
	if err := e.admin(ctx, who, "Check", redoubt.ActionCheck); err != nil {
		return report, err
	}
	faults, err := e.engine.Check(ctx, func(string) {})
	if err != nil {
		return report, err
	}
	if faults > 0 {
		report.Faults = append(report.Faults, "the store's own files do not read back: restore a backup, or remove what Check names at the node's ceiling")
	}
	seen := e.sets.seenBy(who.Working)
	var total int64
	for _, set := range seen {
		total += set.versions.Load()
	}
	view := e.engine.View()
	defer view.Close()
	above := false
	for _, set := range e.sets.all() {
		visible := who.Working.Dominates(set.label)
		err := e.checkSet(ctx, view, set, func(id versionID, size int64, fault error) {
			switch {
			case fault != nil && visible:
				report.Faults = append(report.Faults, fmt.Sprintf("version %s: %s", e.ids.token(id), redoubt.KindOf(fault)))
			case fault != nil:
				above = true
			}
			if visible {
				report.Versions++
				report.Bytes += size
				if progress != nil && report.Versions%64 == 0 {
					progress(report.Versions, max(total, report.Versions))
				}
			}
		})
		if err != nil {
			return report, err
		}
	}
	err = e.checkArrivals(ctx, view, func(set *labelSet, id versionID, fault error) {
		switch {
		case fault != nil && set != nil && who.Working.Dominates(set.label):
			report.Faults = append(report.Faults, fmt.Sprintf("version %s, which has not come whole: %s", e.ids.token(id), redoubt.KindOf(fault)))
		case fault != nil:
			above = true
		}
	})
	if err != nil {
		return report, err
	}
	if above {
		report.Faults = append(report.Faults, "something above your working label does not read back: check again with a higher credential")
	}
	report.OK = len(report.Faults) == 0
	return report, nil
}

func (e *Enclave) checkSet(ctx context.Context, view store.View, set *labelSet, each func(versionID, int64, error)) error {
	for _, b := range *e.buckets.Load() {
		err := e.eachVersion(view, b.id, set, func(key string, raw []byte) error {
			rec, err := decodeRecord(raw)
			if err != nil {
				each(versionID{}, 0, &redoubt.Error{Op: "check", Kind: redoubt.Corrupt, Err: err})
				return ctx.Err()
			}
			if b.id == systemBucketID {
				return ctx.Err()
			}
			name := redoubt.ObjectName{Bucket: b.Name, Key: key}
			fault := e.readBack(name, set, rec)
			if redoubt.KindOf(fault) == redoubt.Erased { // rotated or erased since the view was taken?
				now, err := e.byID(e.engine, b, set.label, key, e.ids.versionID(rec.id))
				if err != nil || now.rec == nil {
					return err
				}
				fault = e.readBack(name, set, now.rec)
			}
			each(rec.id, rec.size, fault)
			return ctx.Err()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// readBack opens every chunk of a version.
func (e *Enclave) readBack(name redoubt.ObjectName, set *labelSet, rec *record) error {
	o := &object{e: e, name: name, set: set, rec: rec}
	defer o.Close()
	if err := o.open(); err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, o.Reader(0, -1))
	if err == nil && n != rec.size {
		err = &redoubt.Error{Op: "check", Kind: redoubt.Corrupt}
	}
	return err
}

// Backup writes the whole enclave from one moment, sealed to recipient: its keyring,
// then everything its store holds. The caller opens nothing by it.
func (e *Enclave) Backup(ctx context.Context, who redoubt.Credential, recipient string, w io.Writer) error {
	const op = "Backup"
	to, err := keys.ParseRecipient(recipient)
	if err != nil {
		return &redoubt.Error{Op: op, Kind: redoubt.Invalid, Err: err, Hint: "redoubt key recipient makes one"}
	}
	if err := e.admin(ctx, who, op, redoubt.ActionBackup); err != nil {
		return err
	}
	view, ring, err := e.moment()
	if err != nil {
		return err
	}
	defer view.Close()
	defer clear(ring)
	sealer, err := keys.SealTo([]keys.Recipient{to}, w)
	if err != nil {
		return err
	}
	head := binary.BigEndian.AppendUint32([]byte(backupMagic), uint32(len(ring)))
	for _, b := range [][]byte{head, ring} {
		if _, err := sealer.Write(b); err != nil {
			return err
		}
	}
	if err := store.Dump(ctx, view, e.engine, sealer); err != nil {
		return err
	}
	return sealer.Close()
}

// moment gives records and the keys that open them, as they stand together. Nobody waits at rotateMu for whoever
// reads the backup: a rotation that comes after leaves both as they were.
func (e *Enclave) moment() (store.View, []byte, error) {
	e.rotateMu.Lock()
	defer e.rotateMu.Unlock()
	view := e.engine.View()
	ring, err := e.keyring.Export()
	if err != nil {
		view.Close()
	}
	return view, ring, err
}

const (
	backupMagic  = "redoubt backup 1\n"
	maxRingBytes = 256 << 20 // the largest keyring (package keys)
)

// Restore fills an empty engine and a new keyring file from a backup. makeKeys is handed the exported keyring;
// nothing is usable until Restore returns without an error.
func Restore(ctx context.Context, who *keys.Identity, r io.Reader, makeKeys func(exported []byte) error, engine store.Engine) error {
	const op = "Restore"
	plain, err := keys.OpenWith(who, r)
	if err != nil {
		return err
	}
	head := make([]byte, len(backupMagic)+4)
	if _, err := io.ReadFull(plain, head); err != nil || string(head[:len(backupMagic)]) != backupMagic {
		return &redoubt.Error{Op: op, Kind: redoubt.Invalid, Err: err, Hint: "this is no backup of an enclave"}
	}
	n := binary.BigEndian.Uint32(head[len(backupMagic):])
	if n > maxRingBytes {
		return &redoubt.Error{Op: op, Kind: redoubt.TooLarge}
	}
	ring := make([]byte, n)
	defer clear(ring)
	if _, err := io.ReadFull(plain, ring); err != nil {
		return &redoubt.Error{Op: op, Kind: redoubt.Corrupt, Err: err}
	}
	if err := store.Load(ctx, engine, plain); err != nil {
		return err
	}
	b := new(store.Batch) // peers may have acknowledged, and been told, what came after the backup: another life begins
	b.Delete(lifeMark)
	if err := engine.Commit(ctx, b); err != nil {
		return err
	}
	return makeKeys(ring)
}
