package enclave

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"redoubt"
	"redoubt/store"
)

// An originator's consent to an export. It is a system record at the version's label, one for each version, nation and key; the export that it is for
// uses it up in the commit that has it on record.

const kindExportConsent = "export-consent"

// exportConsentRecord is a consent as it is kept.
type exportConsentRecord struct {
	redoubt.ExportConsent
	Sig     string    `json:"sig"`
	Used    time.Time `json:"used,omitzero"`
	Footing string    `json:"footing,omitempty"` // what its originator stood on; "": none was kept, and it is good for nothing
	Ended   string    `json:"ended,omitempty"`   // the rule that it did not outlive
}

// id names a consent among all that are given for the same.
func (r *exportConsentRecord) id() redoubt.ReleaseID {
	sum := sha256.Sum256([]byte(r.Sig))
	return redoubt.ReleaseID(exportConsentName(r.Version, r.Nation, r.KAS) + "/" + hex.EncodeToString(sum[:8]))
}

func validDigest(s string) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == sha256.Size && s == strings.ToLower(s)
}

func exportConsentName(version redoubt.VersionID, nation, kas string) string {
	sum := sha256.Sum256([]byte(string(version) + "\n" + nation + "\n" + kas))
	return kindExportConsent + "/" + hex.EncodeToString(sum[:16])
}

// ConsentExport says what an originator signs, or keeps what she signed: decide → who she is → time → signature → keep; see redoubt.ExportService.
func (e *Enclave) ConsentExport(ctx context.Context, who redoubt.Credential, q redoubt.ConsentExport) (out redoubt.ExportConsent, err error) {
	const op = "ConsentExport"
	if err := validName(op, q.Name); err != nil {
		return out, err
	}
	if err := e.validNation(op, q.Nation); err != nil {
		return out, err
	}
	if !validDigest(q.KAS) || !validDigest(q.SHA256) || q.Version == "" || len(q.Sig) > 128 {
		return out, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Hint: "name the version, and give both digests as 64 hex digits"}
	}
	b, f, ent, err := e.lookAt(ctx, op, who, redoubt.ActionConsent, q.Name, q.Version)
	if err != nil {
		return out, err
	}
	refuse := func(kind redoubt.Kind, rule, hint string) (redoubt.ExportConsent, error) {
		ent.Allow, ent.Rule = false, rule
		return redoubt.ExportConsent{}, e.noted(ctx, ent, &redoubt.Error{Op: op, Object: q.Name.String(), Kind: kind, Rule: rule, Hint: hint})
	}
	marks, originator, unproved := e.consentTo(op, f.rec, f.set.label, f.set.label)
	now := e.clock()
	switch {
	case strings.IndexByte(string(b.Name), '.') >= 0:
		return refuse(redoubt.Denied, ruleOrigin, "it is of another enclave: export it where it was made")
	case unproved != nil:
		ent.Allow, ent.Rule = false, ruleConsent
		return out, e.noted(ctx, ent, unproved)
	case len(marks) == 0:
		return refuse(redoubt.Conflict, ruleState, f.set.label.Banner()+" needs no originator's consent")
	case originator != who.Subject:
		return refuse(redoubt.Denied, ruleConsent, "only "+string(originator)+" may consent")
	case !now.Before(q.Expires) || q.Expires.After(now.Add(redoubt.MaxReleaseLife+time.Hour)):
		return refuse(redoubt.Invalid, ruleExpired, "a consent lives 7 days at most")
	}
	c := redoubt.ExportConsent{Estate: e.estate, Node: e.name, Bucket: q.Name.Bucket, Key: q.Name.Key, Version: e.ids.versionID(f.rec.id), Label: f.set.label.Banner(), Consent: marks, Originator: originator,
		SizeBytes: f.rec.size, SHA256: q.SHA256, Nation: q.Nation, KAS: q.KAS, Policy: e.policyName(), Expires: q.Expires.UTC().Truncate(time.Second)}
	if q.Sig == "" {
		return c, e.noteRead(ctx, ent)
	}
	if _, err := e.identity.Consented(redoubt.ExportConsentMessage(c), redoubt.Signature{Signer: who.Subject, Sig: q.Sig}, originator, f.set.label); err != nil {
		ent.Allow, ent.Rule = false, ruleOf(err)
		return out, e.noted(ctx, ent, err)
	}
	r := &exportConsentRecord{ExportConsent: c, Sig: q.Sig, Footing: e.identity.Footing(originator)}
	value, err := json.Marshal(r)
	if err != nil {
		return out, err
	}
	name, batch := exportConsentName(c.Version, c.Nation, c.KAS), new(store.Batch)
	defer e.locks.lock(systemBucketID, name)()
	before, err := e.exportConsent(f.set, name)
	if err == nil && before != nil && before.Sig == q.Sig {
		rule := ruleConsent
		if before.Used.IsZero() {
			rule, err = e.consentEnded(f.set, before)
		}
		if err == nil && rule != "" {
			return refuse(redoubt.Conflict, ruleConsent, "that consent was used up or has ended: sign another one")
		}
	}
	if err != nil {
		return out, e.noted(ctx, ent, err)
	}
	if hint := e.openConsent(f.set, r, who.Working); hint != "" { // from before it is kept
		return refuse(redoubt.QuotaExceeded, ruleOpen, hint)
	}
	defer func() {
		if err == nil {
			return
		}
		if is, lost := e.exportConsent(f.set, name); lost == nil && (is == nil || is.id() != r.id()) {
			e.forgetConsent(r.id()) // it was not kept
		}
	}()
	if err := e.putRecordAt(ctx, batch, f.set.label, name, value); err != nil {
		return out, e.noted(ctx, ent, err)
	}
	done, err := e.standing(who, nil, nil)
	if err != nil {
		return out, err
	}
	defer done()
	ent.Detail = "an export to " + c.Nation + ", key " + c.KAS + ", sha256 " + c.SHA256 + ": the originator's consent for " + strings.Join(marks, ", ")
	if err := e.commit(ctx, batch, ent); err != nil {
		return out, err
	}
	if before != nil && before.Sig != q.Sig {
		e.forgetConsent(before.id())
	}
	return c, nil
}

// exportConsent finds one; nil: there is none.
func (e *Enclave) exportConsent(set *labelSet, name string) (*exportConsentRecord, error) {
	raw, ok, err := e.engine.Get(headKey(systemBucketID, set.id, name))
	if err != nil || !ok {
		return nil, err
	}
	rec, err := decodeRecord(raw)
	r := new(exportConsentRecord)
	if err == nil {
		err = strictJSON(rec.inline, r)
	}
	if err != nil {
		return nil, &redoubt.Error{Op: kindExportConsent, Kind: redoubt.Corrupt, Err: err}
	}
	return r, nil
}

// consentedExport is what an export rests on beside its label. Where the label asks for no consent it asks for nothing.
type consentedExport struct {
	e          *Enclave
	asked      ask
	b          *bucket
	set        *labelSet
	version    redoubt.VersionID
	q          redoubt.ExportVersion
	originator redoubt.SubjectName
	marks      []string
	found      *exportConsentRecord
	charged    hold
}

// look finds the consent, and holds it against everything but the content.
func (c *consentedExport) look(ctx context.Context, op string, who redoubt.Credential) error {
	if len(c.marks) == 0 {
		return nil
	}
	e, need := c.e, strings.Join(c.marks, ", ")
	bad := func(hint string) error {
		return &redoubt.Error{Op: op, Object: c.q.Name.String(), Kind: redoubt.Denied, Rule: ruleConsent, Hint: hint}
	}
	consents := need + " needs the consent of " + string(c.originator) + " for this nation and this key: redoubt ztdf consent"
	if c.q.KAS == "" {
		return bad(consents)
	}
	r, err := e.exportConsent(c.set, exportConsentName(c.version, c.q.Nation, c.q.KAS))
	if err != nil {
		return err
	}
	if r == nil {
		return bad(consents)
	}
	b, err := e.bucket(op, c.q.Name.Bucket)
	if err != nil {
		return err
	}
	cur, _, err := e.current(e.engine, lookCurrent, b, who.Working, c.q.Name.Key)
	if err != nil {
		return err
	}
	switch {
	case !r.Used.IsZero():
		return bad("the consent was used up by an export before: " + consents)
	case !e.clock().Before(r.Expires):
		return bad("the consent has expired: " + consents)
	case cur.rec == nil || e.ids.versionID(cur.rec.id) != c.version || cur.set != c.set:
		return bad("the version was written over or removed since: a consent is for what is current")
	case r.Estate != e.estate || r.Node != e.name || r.Policy != e.policyName() || r.Version != c.version || r.Nation != c.q.Nation || r.KAS != c.q.KAS || r.Originator != c.originator || r.Label != c.set.label.Banner() || !slices.Equal(r.Consent, c.marks):
		return bad("the consent was given under another policy, or for something else: " + consents)
	}
	if _, err := e.identity.Consented(redoubt.ExportConsentMessage(r.ExportConsent), redoubt.Signature{Signer: r.Originator, Sig: r.Sig}, c.originator, c.set.label); err != nil {
		return err
	}
	if rule, err := e.consentEnded(c.set, r); err != nil || rule != "" {
		return cmp.Or(err, bad("the consent has ended by "+why(rule)))
	}
	c.found = r
	return nil
}

// still locks the version until its export is committed, unless it was removed meanwhile, or taken out as a spill, or what it was made of: a spill report either
// lists the export, or comes before it and refuses it.
func (c *consentedExport) still(op string) (unlock func(), err error) {
	e := c.e
	unlock = e.lockName(c.b, c.q.Name.Key)
	f, err := e.byID(e.engine, c.b, c.set.label, c.q.Name.Key, c.version)
	if err == nil && (f.rec == nil || e.readers.closes(f.rec, c.set.label) != "") {
		err = c.b.missing(op, c.q.Name)
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// use has an export on record, durable on return. It looks at the version and at the consent once more, now that the content is known, and uses that up in the
// same commit.
func (c *consentedExport) use(ctx context.Context, op string, who redoubt.Credential, digest string, ent *entry) error {
	c.e.readers.gate.RLock() // what is closed stays so until this is committed
	defer c.e.readers.gate.RUnlock()
	defer c.charged.release()
	if len(c.marks) == 0 {
		unlock, err := c.still(op)
		if err != nil {
			return c.e.noted(ctx, ent, err)
		}
		defer unlock()
		batch := new(store.Batch)
		if err := c.keep(ctx, batch, who, digest); err != nil {
			return c.e.noted(ctx, ent, err)
		}
		return c.commit(ctx, who, batch, ent)
	}
	refuse := func(err error) error {
		ent.Allow, ent.Rule = false, ruleOf(err)
		return c.e.noted(ctx, ent, err)
	}
	name := exportConsentName(c.version, c.q.Nation, c.q.KAS)
	defer c.e.locks.lock(systemBucketID, name)()
	unlock, err := c.still(op)
	if err != nil {
		return c.e.noted(ctx, ent, err)
	}
	defer unlock()
	if err := c.look(ctx, op, who); err != nil {
		return refuse(err)
	}
	if c.found.SHA256 != digest {
		return refuse(&redoubt.Error{Op: op, Object: c.q.Name.String(), Kind: redoubt.Denied, Rule: ruleConsent, Hint: "the consent is for other content"})
	}
	c.found.Used = c.e.clock().UTC().Truncate(time.Second)
	value, err := json.Marshal(c.found)
	if err != nil {
		return err
	}
	batch := new(store.Batch)
	if err := c.e.putRecordAt(ctx, batch, c.set.label, name, value); err != nil {
		return c.e.noted(ctx, ent, err)
	}
	if err := c.keep(ctx, batch, who, digest); err != nil {
		return c.e.noted(ctx, ent, err)
	}
	ent.Detail = "by consent of " + string(c.originator) + ", key " + c.q.KAS + ", " + ent.Detail
	if err := c.commit(ctx, who, batch, ent); err != nil {
		return err
	}
	c.e.forgetConsent(c.found.id())
	return nil
}

// commit has an export on record, if who asked may have it still: all of the content was read since it was decided.
func (c *consentedExport) commit(ctx context.Context, who redoubt.Credential, batch *store.Batch, ent *entry) error {
	done, err := c.e.standing(who, &c.asked, ent)
	if err != nil {
		return c.e.noted(ctx, ent, err)
	}
	defer done()
	if err := c.e.commit(ctx, batch, ent); err != nil {
		return err
	}
	c.charged.settle()
	return nil
}

// keep has an export known for as long as there is a state: a spill report asks for it when the audit log may have aged into archives. It is charged for
// good to who exports, at her working label, which sees it go; the caller releases what is not committed.
func (c *consentedExport) keep(ctx context.Context, b *store.Batch, who redoubt.Credential, digest string) error {
	value, err := json.Marshal(redoubt.SpillExport{Version: c.version, Nation: c.q.Nation, By: who.Subject, At: c.e.clock().UTC().Truncate(time.Second), SHA256: digest})
	if err != nil {
		return err
	}
	name := exportsOf(c.version) + newSpillID()
	made, err := c.e.sets.of(ctx, who.Working)
	if err != nil {
		return err
	}
	c.charged.set = made
	cost := chargeOf(name, len(value), 0)
	if err := c.e.charge(b, &c.charged, cost, 0); err != nil {
		return err
	}
	deltaSet(b, recKept, made.id, cost)
	return c.e.putRecordAt(ctx, b, c.set.label, name, value)
}

// told is the consent that was used.
func (c *consentedExport) told() *redoubt.ExportConsent {
	if c.found == nil {
		return nil
	}
	return &c.found.ExportConsent
}
