package enclave

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"redoubt"
	"redoubt/audit"
	"redoubt/keys"
	"redoubt/store"
)

// ruleAuditKeep refuses to archive what the estate says is kept.
const ruleAuditKeep = "audit-keep (6)"

// written is the archive that was written last and is not confirmed yet.
type written struct {
	From   uint64    `json:"from"`
	To     uint64    `json:"to"`
	SHA256 string    `json:"sha256"`
	Before time.Time `json:"before"` // all its entries are older
}

// writtenKey holds it: there is one, so what was written before cannot be confirmed any more.
var writtenKey = []byte{recTree, 'P'}

// archiveKey holds a confirmed archive, by its first entry.
func archiveKey(from uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{recTree, 'A'}, from)
}

// ArchiveAudit writes the log's oldest entries to a file; see redoubt.AuditArchiver. Nothing is dropped.
func (e *Enclave) ArchiveAudit(ctx context.Context, who redoubt.Credential, before time.Time, recipient string, w io.Writer) (err error) {
	const op = "ArchiveAudit"
	to, err := keys.ParseRecipient(recipient)
	if err != nil {
		return &redoubt.Error{Op: op, Kind: redoubt.Invalid, Err: err, Hint: "redoubt key recipient makes one"}
	}
	entry, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionArchiveAudit})
	if err != nil {
		return err
	}
	if e.keep == 0 && before.After(e.clock()) {
		before = e.clock() // the caller's may be ahead
	}
	if err := e.oldEnough(ctx, op, entry, before); err != nil {
		return err
	}
	entry.Detail = "begun"
	if err := e.record(ctx, entry); err != nil {
		return err
	}
	defer e.noteFailure(ctx, entry, &err)
	file, err := e.writeArchive(ctx, before, to, w)
	if err != nil {
		return err
	}
	value, err := json.Marshal(file)
	if err != nil {
		return err
	}
	done := *entry
	done.Detail = fmt.Sprintf("from=%d to=%d sha256=%s", file.From, file.To, file.SHA256)
	b := new(store.Batch)
	b.Set(writtenKey, value)
	return e.commit(ctx, b, &done)
}

// oldEnough refuses what the estate says is kept. The refusal is on record.
func (e *Enclave) oldEnough(ctx context.Context, op string, entry *entry, before time.Time) error {
	limit := e.clock().Add(-e.keep)
	if !before.After(limit) {
		return nil
	}
	entry.Allow, entry.Rule = false, ruleAuditKeep
	return e.noted(ctx, entry, &redoubt.Error{Op: op, Kind: redoubt.Denied, Rule: ruleAuditKeep,
		Hint: "archive what is from before " + limit.UTC().Format(time.RFC3339)})
}

// writeArchive seals an archive of what is older than before into w.
func (e *Enclave) writeArchive(ctx context.Context, before time.Time, to keys.Recipient, w io.Writer) (written, error) {
	if err := e.tree.Advance(ctx); err != nil {
		return written{}, err
	}
	from, end, err := e.tree.Archivable(ctx, before)
	if err != nil {
		return written{}, err
	}
	sum := sha256.New()
	sealer, err := keys.SealTo([]keys.Recipient{to}, io.MultiWriter(w, sum))
	if err != nil {
		return written{}, err
	}
	if err := errors.Join(e.tree.WriteArchive(ctx, sealer, from, end), sealer.Close()); err != nil {
		return written{}, err
	}
	return written{From: from, To: end, SHA256: hex.EncodeToString(sum.Sum(nil)), Before: before.UTC()}, nil
}

// ConfirmArchive lets go of the entries of an archive that is durable elsewhere; see redoubt.AuditArchiver.
func (e *Enclave) ConfirmArchive(ctx context.Context, who redoubt.Credential, digest string) (redoubt.AuditArchive, error) {
	const op = "ConfirmArchive"
	entry, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionConfirmArchive})
	if err != nil {
		return redoubt.AuditArchive{}, err
	}
	e.archiveMu.Lock()
	defer e.archiveMu.Unlock()
	if done, ok, err := e.confirmed(digest); err != nil || ok {
		entry.Detail = "confirmed before"
		return done, e.recordOr(ctx, entry, err)
	}
	file, err := e.waiting(digest)
	if err != nil {
		return redoubt.AuditArchive{}, e.noted(ctx, entry, err)
	}
	if err := e.oldEnough(ctx, op, entry, file.Before); err != nil {
		return redoubt.AuditArchive{}, err
	}
	a := audit.Archived{From: file.From, To: file.To}
	if n, err := hex.Decode(a.Digest[:], []byte(file.SHA256)); err != nil || n != len(a.Digest) {
		return redoubt.AuditArchive{}, e.noted(ctx, entry, &redoubt.Error{Op: op, Kind: redoubt.Corrupt, Err: errors.New("the record of the archive is damaged")})
	}
	out := redoubt.AuditArchive{Node: e.name, From: a.From, To: a.To, SHA256: file.SHA256, Time: e.clock().UTC()}
	value, err := json.Marshal(out)
	if err != nil {
		return redoubt.AuditArchive{}, err
	}
	entry.Detail = a.String()
	b := &store.Batch{DropBelow: a.To}
	b.Delete(writtenKey)
	b.Set(archiveKey(a.From), value)
	if err := e.commit(context.WithoutCancel(ctx), b, entry); err != nil {
		return redoubt.AuditArchive{}, err
	}
	return out, nil
}

// recordOr records entry, unless there is an error to be recorded in its place.
func (e *Enclave) recordOr(ctx context.Context, entry *entry, err error) error {
	if err != nil {
		return e.noted(ctx, entry, err)
	}
	return e.record(ctx, entry)
}

// confirmed looks for an archive on record.
func (e *Enclave) confirmed(digest string) (redoubt.AuditArchive, bool, error) {
	all, err := e.archives()
	for _, a := range all {
		if a.SHA256 == digest {
			return a, true, err
		}
	}
	return redoubt.AuditArchive{}, false, err
}

// waiting gives the archive that was written last, if that is its digest and it begins where the log does.
func (e *Enclave) waiting(digest string) (file written, err error) {
	value, ok, err := e.engine.Get(writtenKey)
	if err == nil && ok {
		err = strictJSON(value, &file)
	}
	if err != nil {
		return file, &redoubt.Error{Op: "ConfirmArchive", Kind: redoubt.Corrupt, Err: err}
	}
	if !ok || digest == "" || file.SHA256 != digest || file.From != (stream{e.engine}).First() {
		return file, &redoubt.Error{Op: "ConfirmArchive", Kind: redoubt.Conflict,
			Err: errors.New("it is not the archive that this node wrote last"), Hint: "it is not the archive that the node wrote last, byte for byte; the log has lost nothing: write it anew, and confirm that"}
	}
	return file, nil
}

// archives are those on record, oldest first.
func (e *Enclave) archives() (all []redoubt.AuditArchive, err error) {
	view := e.engine.View()
	defer view.Close()
	it := view.Scan([]byte{recTree, 'A'}, []byte{recTree, 'A' + 1})
	defer it.Close()
	for it.Next() {
		var a redoubt.AuditArchive
		if err := strictJSON(it.Value(), &a); err != nil {
			return nil, &redoubt.Error{Op: "audit archives", Kind: redoubt.Corrupt, Err: err}
		}
		all = append(all, a)
	}
	return all, it.Err()
}

// SearchArchive searches an archive that the caller has opened; see redoubt.AuditArchiver. What it shows is what SearchAudit would
// have shown of the same entries.
func (e *Enclave) SearchArchive(ctx context.Context, who redoubt.Credential, q redoubt.AuditQuery, opened io.Reader, each func(redoubt.AuditRecord) error) error {
	entry, err := e.decide(ctx, ask{op: "SearchArchive", who: who, action: redoubt.ActionSearchAudit, detail: "in an archive"})
	if err != nil {
		return err
	}
	if err := e.record(ctx, entry); err != nil {
		return err
	}
	found, err := audit.SearchArchive(ctx, opened, e.tree.Verifier(), e.auditQuery(who, q))
	if err != nil {
		if redoubt.KindOf(err) == redoubt.Corrupt && !who.Working.Dominates(e.ceiling) { // where it is wrong tells numbers of entries
			err = &redoubt.Error{Op: "SearchArchive", Kind: redoubt.Corrupt, Err: errors.New("it is no archive of this node's log, or it was altered")}
		}
		return err
	}
	for _, f := range found {
		if err := each(e.auditRecord(f)); err != nil {
			return err
		}
	}
	return nil
}
