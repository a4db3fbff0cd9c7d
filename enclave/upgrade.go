package enclave

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"redoubt"
	"redoubt/label"
	"redoubt/store"
)

// Upgrade gives a version a higher label: decide → hold against ranges → write it anew → in the same commit take the old one out. Its keys are
// destroyed after that, here and by whoever took it, and its releases end with what was rebuilt of it; see redoubt.SpillService.
func (e *Enclave) Upgrade(ctx context.Context, who redoubt.Credential, q redoubt.Regrade) (out redoubt.Regraded, err error) {
	const op = "Upgrade"
	if err := validName(op, q.Name); err != nil {
		return out, err
	}
	b, f, ent, err := e.lookAt(ctx, op, who, redoubt.ActionRegrade, q.Name, q.Version)
	if err != nil {
		return out, err
	}
	ent.Detail = q.Reason
	to, err := e.policy.Parse(q.Label)
	refuse := func(kind redoubt.Kind, rule, hint string) (redoubt.Regraded, error) {
		ent.Allow, ent.Rule = false, rule
		return redoubt.Regraded{}, e.noted(ctx, ent, &redoubt.Error{Op: op, Object: q.Name.String(), Kind: kind, Rule: rule, Hint: hint})
	}
	switch {
	case err != nil:
		return refuse(redoubt.Invalid, "label: "+err.Error(), "redoubt label parse shows what a marking means")
	case !to.Dominates(f.set.label) || f.set.label.Dominates(to):
		return refuse(redoubt.Denied, ruleUpgrade, fmt.Sprintf("that is not above %s: what becomes lower is released, by two reviewers (redoubt release request --from %s --to %s)", f.set.label.Banner(), e.name, e.name))
	case !keepsConsentMarks(to, f.set.label):
		return refuse(redoubt.Denied, ruleKeepsMarks, f.set.label.Banner()+" has marks that its originator alone takes away: keep them in the higher label")
	case !who.Working.Dominates(to) || !b.facts.Ceiling.Dominates(to) || !e.ceiling.Dominates(to):
		return refuse(redoubt.Denied, "within-bucket-range (2.1)", "it cannot lie in this bucket at that label: if it is not to be here at all, redoubt spill report")
	case e.foreign(redoubt.NodeName(f.rec.maker)) || !e.alters(f.rec):
		return refuse(redoubt.Denied, ruleOwn, "it is of another node: upgrade it where it was made")
	}
	defer e.noteFailure(ctx, ent, &err)
	content, err := e.openContent(q.Name, f)
	if err != nil {
		return out, err
	}
	defer content.Close()
	w, err := e.write(ctx, b, q.Name, to, e.own(to))
	if err != nil {
		return out, err
	}
	defer w.discard()
	old := f.rec
	w.copies = true
	w.rec.author, w.rec.attrs, w.rec.tags, w.rec.retention, w.rec.hold, w.rec.sums = old.author, old.attrs, old.tags, old.retention, old.hold, old.sums
	if old.parts {
		w.rec.sums = redoubt.Checksums{} // those of parts are of parts
	}
	if sum, ok := old.contentSum(); ok { // and this is of the whole
		w.rec.hashed(sum)
	}
	if err := w.reserve(w.least()); err != nil {
		return out, err
	}
	if err := w.read(ctx, content.Reader(0, -1), old.size); err != nil {
		return out, err
	}
	sum, err := e.sumBefore(b, f.set.label, q.Name.Key, old.id)
	if err != nil {
		return out, err
	}
	follows, err := e.stillTheirs(q.Name, e.ids.versionID(old.id))
	if err != nil {
		return out, err
	}
	mark, rest := versionDuty(old.id), sourceDuty+hex.EncodeToString(old.id[:])
	w.also = func(batch *store.Batch) error { // the name's lock is held
		now, err := e.byID(e.engine, b, f.set.label, q.Name.Key, e.ids.versionID(old.id))
		if err != nil || now.rec == nil {
			return errors.Join(err, b.missing(op, q.Name))
		}
		if err := follows(batch, to, e.ids.versionID(w.rec.id)); err != nil {
			return err
		}
		if out.Over, err = e.seenBefore(b, to, q.Name.Key, old.id); err != nil {
			return err
		}
		if err := (duty{Set: f.set.id, Bucket: b.id, Parts: old.parts, Version: old.id[:]}).add(batch, mark); err != nil {
			return err
		}
		if err := (duty{Source: &source{Name: q.Name, Version: e.ids.versionID(old.id)}}).add(batch, rest); err != nil {
			return err
		}
		if err := errors.Join(e.noteErasure(ctx, batch, b, now, q.Name.Key), e.keepGone(batch, b, now, q.Name.Key, sum, "")); err != nil {
			return err
		}
		return e.remove(batch, b, now, q.Name.Key)
	}
	v, err := w.commit(ctx, op, redoubt.Conditions{}, ent)
	if err != nil {
		return redoubt.Regraded{}, err
	}
	e.removed(f, q.Name.Key)
	out.Version, out.Label, out.Erased = v.ID, to.Banner(), e.ids.versionID(old.id)
	return out, e.fulfilThese(ctx, []string{mark, rest})
}

// stillTheirs has the removal or erasure of a version by the partner that gave it take what is made of it here; of any other version it does nothing.
func (e *Enclave) stillTheirs(name redoubt.ObjectName, version redoubt.VersionID) (func(*store.Batch, label.Label, redoubt.VersionID) error, error) {
	for _, a := range e.partners.all {
		if a.Takes == nil || !strings.HasPrefix(string(name.Bucket), a.Estate+".") {
			continue
		}
		t := PartnerTaking{PartnerGiving{e}, a}
		stamp, is, err := t.tookAs(version)
		if err != nil || is {
			return func(b *store.Batch, l label.Label, v redoubt.VersionID) error {
				return t.note(b, stamp, takenRecord{Set: e.text(l), Bucket: name.Bucket, Key: name.Key, Version: v})
			}, err
		}
	}
	return func(*store.Batch, label.Label, redoubt.VersionID) error { return nil }, nil
}

// seenBefore is what who reads at a label sees under a name, or the marker that hides all from her; "": it is the version that is asked of.
func (e *Enclave) seenBefore(b *bucket, reader label.Label, key string, id versionID) (redoubt.VersionID, error) {
	cur, hidden, err := e.current(e.engine, lookCurrent, b, reader, key)
	if cur.rec == nil && hidden != nil {
		cur = *hidden
	}
	if err != nil || cur.rec == nil || cur.rec.id == id {
		return "", err
	}
	return e.ids.versionID(cur.rec.id), nil
}
