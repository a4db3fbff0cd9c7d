package enclave

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"time"

	"redoubt"
	"redoubt/label"
	"redoubt/store"
)

// Releases at their target. It believes a guard nothing: whoever has taken one over releases nothing without two reviewers' signatures over
// exactly this content, under this label, for this node.

const kindAccepted = "accepted"

// acceptedRecord says what was taken, once and for good.
type acceptedRecord struct {
	Statement string                 `json:"statement"` // ReleasePublic.Rest: of one ID there is one statement
	Version   redoubt.VersionID      `json:"version"`
	Receipt   redoubt.ReleaseReceipt `json:"receipt"`
	Void      bool                   `json:"void,omitempty"` // it was not taken, and is not to be: its guard told its source so
}

// AcceptRelease takes what two reviewers signed: decide → statement → signatures → content → one commit with the receipt; see
// redoubt.ReleaseTarget.
func (e *Enclave) AcceptRelease(ctx context.Context, guard redoubt.Credential, p redoubt.ReleasePackage, content io.Reader) (out redoubt.ReleaseReceipt, err error) {
	const op = "AcceptRelease"
	as, perr := e.policy.Parse(p.Statement.Label)
	a := ask{op: op, who: guard, action: redoubt.ActionAcceptRelease, fresh: as, detail: "release " + string(p.Statement.ID) + " from " + string(p.Statement.From)}
	ent, err := e.decide(ctx, a)
	if err != nil {
		return out, err
	}
	refuse := func(err error) (redoubt.ReleaseReceipt, error) {
		ent.Allow, ent.Rule = false, ruleOf(err)
		return redoubt.ReleaseReceipt{}, e.noted(ctx, ent, err)
	}
	if perr != nil {
		return refuse(&redoubt.Error{Op: op, Kind: redoubt.Invalid, Rule: "label: " + perr.Error()})
	}
	b, unfit := e.statementFits(op, guard, &p.Statement, as)
	public := p.Statement.Public()
	if ruleOf(unfit) != ruleOtherGuard { // what was taken stays taken, whatever is otherwise here by now
		if out, is, err := e.takenBefore(ctx, op, as, public, ent); is || err != nil {
			return out, err
		}
	}
	if unfit != nil {
		return refuse(unfit)
	}
	if _, _, err := e.reviewed(op, p, as); err != nil {
		return refuse(err)
	}
	w, err := e.takeReleased(ctx, op, b, as, &p.Statement, content)
	if err != nil {
		return out, e.noted(ctx, ent, err)
	}
	defer w.discard()
	e.releases.accept.Lock() // not before: a guard that stalls holds no other up
	defer e.releases.accept.Unlock()
	if out, is, err := e.takenBefore(ctx, op, as, public, ent); is || err != nil {
		return out, err
	}
	keys, originator, err := e.reviewed(op, p, as) // who signed may have ended while the content came
	if err != nil {
		return refuse(err)
	}
	out = redoubt.ReleaseReceipt{ReleasePublic: public, Taken: e.clock().UTC().Truncate(time.Second), Node: e.name, Key: base64.StdEncoding.EncodeToString(e.links.key)}
	for i, k := range keys {
		out.Reviewers = append(out.Reviewers, redoubt.Pseudonym{Key: base64.StdEncoding.EncodeToString(k), Sig: p.Approvals[i].Sig})
	}
	if p.Consent != nil {
		out.Consent = &redoubt.Pseudonym{Key: base64.StdEncoding.EncodeToString(originator), Sig: p.Consent.Sig}
		ent.Detail += ", by consent of " + string(p.Consent.Signer) + " for " + strings.Join(p.Statement.Consent, ", ")
	}
	sig, err := e.links.sign(redoubt.ReceiptMessage(out))
	if err != nil {
		return redoubt.ReleaseReceipt{}, e.noted(ctx, ent, err)
	}
	out.Sig = base64.StdEncoding.EncodeToString(sig)
	w.also = func(batch *store.Batch) error {
		value, err := json.Marshal(acceptedRecord{Statement: out.Rest, Version: e.ids.versionID(w.rec.id), Receipt: out})
		if err != nil {
			return err
		}
		return e.putRecordAt(ctx, batch, as, kindAccepted+"/"+string(out.ID), value)
	}
	if _, err := w.commit(ctx, op, redoubt.Conditions{}, ent); err != nil {
		return redoubt.ReleaseReceipt{}, e.noted(ctx, ent, err)
	}
	return out, nil
}

// reviewed holds a release against the time, the two who signed it and its originator, and gives their keys.
func (e *Enclave) reviewed(op string, p redoubt.ReleasePackage, as label.Label) (reviewers []ed25519.PublicKey, originator ed25519.PublicKey, err error) {
	s := &p.Statement
	if now := e.clock(); !now.Before(s.Expires) || s.Expires.After(now.Add(redoubt.MaxReleaseLife+2*time.Hour)) {
		return nil, nil, &redoubt.Error{Op: op, Object: string(s.ID), Kind: redoubt.Expired, Rule: ruleExpired}
	}
	if e.clock().Before(s.After) {
		return nil, nil, &redoubt.Error{Op: op, Object: string(s.ID), Kind: redoubt.Unavailable, Rule: ruleExpired, Hint: "its time has not come"}
	}
	cleared, source := label.Join(as, e.ceiling), as
	if s.From == e.name { // it is known here what they read, and no more was asked of them when they signed
		if x, _ := e.releases.find(s.ID); x != nil {
			source = label.Join(as, x.set.label)
			cleared = source
		}
	}
	if originator, err = e.consented(op, p, source); err != nil {
		return nil, nil, err
	}
	reviewers, err = e.identity.Reviewed(redoubt.ReleaseMessage(s.Public()), p.Approvals, s.Requester, cleared)
	return reviewers, originator, err
}

// consented holds a release against its originator's consent, and gives her key; nil: none is needed. Which marks of the source's label ask for it is
// in what the reviewers signed, and those of what is known here of both labels are among them.
func (e *Enclave) consented(op string, p redoubt.ReleasePackage, known label.Label) (ed25519.PublicKey, error) {
	s := &p.Statement
	bad := func(hint string) (ed25519.PublicKey, error) {
		return nil, &redoubt.Error{Op: op, Object: string(s.ID), Kind: redoubt.Denied, Rule: ruleConsent, Hint: hint}
	}
	marks := redoubt.ConsentMarks(known)
	switch {
	case slices.Contains(marks, redoubt.MarkFGI) || slices.ContainsFunc(s.Consent, func(m string) bool { return !slices.Contains([]string{"FISA", "ORCON", "PROPIN"}, m) }):
		return bad("another nation's consent cannot be proved here")
	case slices.ContainsFunc(marks, func(m string) bool { return !slices.Contains(s.Consent, m) }) || !slices.IsSorted(s.Consent) || (len(s.Consent) > 0) != (s.Originator != ""):
		return bad("the statement does not say what its label asks a consent for, or by whom")
	case (len(s.Consent) > 0) != (p.Consent != nil):
		return bad("the originator's consent is lacking, or none is asked for")
	case p.Consent == nil:
		return nil, nil
	}
	for _, sig := range p.Approvals {
		if err := e.identity.NotOriginator(sig.Signer, s.Originator); err != nil {
			return nil, err
		}
	}
	return e.identity.Consented(redoubt.ConsentMessage(s.Public()), *p.Consent, s.Originator, known)
}

// takenBefore holds a release against what was taken, once and for good: the same once more writes nothing and has the same receipt, and another
// one is refused.
func (e *Enclave) takenBefore(ctx context.Context, op string, as label.Label, public redoubt.ReleasePublic, ent *entry) (out redoubt.ReleaseReceipt, is bool, err error) {
	before, err := e.accepted(as, public.ID)
	switch {
	case err != nil:
		return out, false, e.noted(ctx, ent, err)
	case before == nil:
		return out, false, nil
	case before.Statement != public.Rest || before.Void:
		ent.Allow, ent.Rule = false, "single-use (4.6)"
		return out, true, e.noted(ctx, ent, &redoubt.Error{Op: op, Object: string(public.ID), Kind: redoubt.Conflict, Rule: ent.Rule})
	}
	ent.Rule = "single-use (4.6): taken before"
	return before.Receipt, true, e.record(ctx, ent)
}

// ReleaseTaken says whether a release was taken. One that was not is void from here on, so that nothing which is still on its way, or held up
// within this node, makes a lie of the answer.
func (e *Enclave) ReleaseTaken(ctx context.Context, guard redoubt.Credential, p redoubt.ReleasePublic) (out redoubt.ReleaseReceipt, taken bool, err error) {
	const op = "ReleaseTaken"
	as, perr := e.policy.Parse(p.Label)
	ent, err := e.decide(ctx, ask{op: op, who: guard, action: redoubt.ActionAcceptRelease, fresh: as, detail: "release " + string(p.ID) + ": was it taken"})
	if err != nil {
		return out, false, err
	}
	declared := slices.ContainsFunc(e.guards, func(d DeclaredGuard) bool {
		return d.brings(e.name, guard.Subject) && (d.Low == e.name || d.High == e.name)
	})
	kind, rule := redoubt.Denied, ""
	switch rest, err := hex.DecodeString(p.Rest); {
	case !declared:
		rule = ruleOtherGuard
	case p.Estate != e.estate || p.To != e.name:
		rule = "for-this-node (4.6)"
	case perr != nil || !e.ceiling.Dominates(as):
		rule = "within-bucket-range (2.1)"
	case !validReleaseID(p.ID) || err != nil || len(rest) != sha256.Size:
		kind, rule = redoubt.Invalid, "well-formed-statement (4.6)"
	}
	if rule != "" {
		ent.Allow, ent.Rule = false, rule
		return out, false, e.noted(ctx, ent, &redoubt.Error{Op: op, Object: string(p.ID), Kind: kind, Rule: rule})
	}
	e.releases.accept.Lock()
	defer e.releases.accept.Unlock()
	before, err := e.accepted(as, p.ID)
	switch {
	case err != nil:
		return out, false, e.noted(ctx, ent, err)
	case before != nil && !before.Void && before.Statement == p.Rest:
		ent.Rule = "single-use (4.6): taken before"
		return before.Receipt, true, e.record(ctx, ent)
	case before != nil: // void already, or another statement has the ID for good
		return out, false, e.record(ctx, ent)
	}
	value, err := json.Marshal(acceptedRecord{Statement: p.Rest, Void: true})
	if err != nil {
		return out, false, err
	}
	b := new(store.Batch)
	if err := e.putRecordAt(ctx, b, as, kindAccepted+"/"+string(p.ID), value); err != nil {
		return out, false, e.noted(ctx, ent, err)
	}
	ent.Detail = "release " + string(p.ID) + " was not taken, and is not from here on"
	return out, false, e.commit(ctx, b, ent)
}

// statementFits holds a statement against what this node knows: its estate, its guards, its policy, its buckets.
func (e *Enclave) statementFits(op string, guard redoubt.Credential, s *redoubt.ReleaseStatement, as label.Label) (*bucket, error) {
	bad := func(kind redoubt.Kind, rule string) (*bucket, error) {
		return nil, &redoubt.Error{Op: op, Object: string(s.ID), Kind: kind, Rule: rule}
	}
	var g DeclaredGuard
	for _, d := range e.guards {
		if d.brings(e.name, guard.Subject) && (d.Low == e.name && d.High == s.From || d.High == e.name && s.From == e.name) {
			g = d
		}
	}
	prefix, _, _ := strings.Cut(string(s.Bucket), ".")
	name := redoubt.ObjectName{Bucket: s.Bucket, Key: s.Key}
	digest, err := hex.DecodeString(s.SHA256)
	switch {
	case g.Name == "":
		return bad(redoubt.Denied, ruleOtherGuard)
	case s.Estate != e.estate || s.To != e.name:
		return bad(redoubt.Denied, "for-this-node (4.6)")
	case s.Policy != e.policyName() || s.Rules != g.Rules:
		return bad(redoubt.Denied, rulePolicy)
	case s.From != e.name && prefix != string(s.From) || s.From == e.name && strings.IndexByte(string(s.Bucket), '.') >= 0:
		return bad(redoubt.Denied, "reserved-name (2.5)")
	case !validReleaseID(s.ID) || err != nil || len(digest) != sha256.Size || s.SizeBytes < 0 || s.SizeBytes > redoubt.MaxReleaseBytes || validName(op, name) != nil || redoubt.Hides(s.Key) >= 0 || !fitText(s.ContentType, 128) || !fitMeta(s.Meta):
		return bad(redoubt.Invalid, "well-formed-statement (4.6)")
	}
	b, err := e.bucket(op, s.Bucket)
	if err != nil {
		return nil, err
	}
	if !b.facts.Ceiling.Dominates(as) || !as.Dominates(b.facts.Floor) || !e.ceiling.Dominates(as) {
		return bad(redoubt.Denied, "within-bucket-range (2.1)")
	}
	return b, nil
}

func validReleaseID(id redoubt.ReleaseID) bool {
	raw, err := hex.DecodeString(string(id))
	return err == nil && len(raw) == 16 && hex.EncodeToString(raw) == string(id)
}

// fitText holds a text to its length, and to showing all that it has: what hides in a name leaves unseen by both reviewers.
func fitText(s string, most int) bool { return len(s) <= most && redoubt.Hides(s) < 0 }

func fitMeta(m map[string]string) bool {
	bytes := 0
	for name, value := range m {
		bytes += len(name) + len(value)
		if name == redoubt.MetaOriginator || name == metaMade || !fitText(name, redoubt.MaxMetadataBytes) || !fitText(value, redoubt.MaxMetadataBytes) || name == "" {
			return false
		}
	}
	return bytes <= redoubt.MaxMetadataBytes && len(m) <= redoubt.MaxTags
}

// accepted finds what was taken under an ID; nil: nothing.
func (e *Enclave) accepted(as label.Label, id redoubt.ReleaseID) (*acceptedRecord, error) {
	for _, set := range e.sets.all() { // under whatever label: an ID is used once
		raw, ok, err := e.engine.Get(headKey(systemBucketID, set.id, kindAccepted+"/"+string(id)))
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		rec, err := decodeRecord(raw)
		out := new(acceptedRecord)
		if err == nil {
			err = strictJSON(rec.inline, out)
		}
		if err != nil {
			return nil, &redoubt.Error{Op: "AcceptRelease", Kind: redoubt.Corrupt, Err: err}
		}
		return out, nil
	}
	return nil, nil
}

// takeReleased takes the content in, as a version of this node's own that is yet to be committed. Content that is not what was signed leaves
// nothing.
func (e *Enclave) takeReleased(ctx context.Context, op string, b *bucket, as label.Label, s *redoubt.ReleaseStatement, content io.Reader) (_ *write, err error) {
	w, err := e.write(ctx, b, redoubt.ObjectName{Bucket: s.Bucket, Key: s.Key}, as, e.own(as))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.discard()
		}
	}()
	w.rec.attrs = redoubt.Attributes{ContentType: s.ContentType, Meta: s.Meta}
	w.rec.author = string(redoubt.SubjectName("guard." + string(s.From)))
	if len(redoubt.ConsentMarks(as)) > 0 { // it is hers here too; else her name stays above
		w.rec.attrs = withOriginator(w.rec.attrs, s.Originator, "")
	}
	if w.rec.retention, err = b.retention(op, redoubt.Retention{}, false, e.clock()); err != nil {
		return nil, err
	}
	if err = w.reserve(w.least()); err != nil {
		return nil, err
	}
	sum := sha256.New()
	if err = w.read(ctx, io.TeeReader(io.LimitReader(content, s.SizeBytes+1), sum), s.SizeBytes); err != nil {
		return nil, err
	}
	want, bad := hex.DecodeString(s.SHA256)
	if bad != nil || subtle.ConstantTimeCompare(sum.Sum(nil), want) != 1 {
		return nil, &redoubt.Error{Op: op, Object: string(s.ID), Kind: redoubt.BadDigest, Rule: "content-as-signed (4.6)"}
	}
	return w, nil
}
