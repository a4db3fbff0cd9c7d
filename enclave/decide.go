package enclave

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"redoubt"
	"redoubt/access"
	"redoubt/audit"
	"redoubt/label"
	"redoubt/store"
)

// ask is one question to the reference monitor.
type ask struct {
	op      string
	who     redoubt.Credential
	action  redoubt.Action
	bucket  *bucket // nil where the request is not about one, or names one that is not there
	name    redoubt.ObjectName
	object  label.Label           // of the version read or altered
	made    label.Label           // the working label that it was made at
	fresh   label.Label           // of a version to be written
	self    bool                  // about the subject's own credential
	bypass  bool                  // in spite of GOVERNANCE retention
	guarded bool                  // what a guard brought
	granted []redoubt.SubjectName // whom the estate file grants it
	detail  string
}

// entry is an audit entry on its way to the log.
type entry = audit.Entry

// decide asks the reference monitor; everything that an enclave does begins here. Allowed, it
// returns the audit entry, which the caller commits with its work (commit), or
// notes (noteRead). Refused, the refusal is durable before decide returns it:
// NotFound for who may not know that the object exists.
func (e *Enclave) decide(ctx context.Context, a ask) (*entry, error) {
	d, ent := e.judge(ctx, a)
	if d.Allow {
		return ent, nil
	}
	ent.Kind = d.Kind.Error()
	if err := e.record(ctx, ent); err != nil {
		return nil, err
	}
	return nil, e.refusal(d, a)
}

// refusal is what a refused caller is told, with what to do next where a rule has a remedy of its own.
func (e *Enclave) refusal(d access.Decision, a ask) error {
	err := d.Err(a.op, a.name.String())
	var told *redoubt.Error
	if !errors.As(err, &told) || !d.Known {
		return err
	}
	switch d.Rule {
	case access.RuleRecords:
		told.Hint = fmt.Sprintf("work at the node's ceiling: --label %q", e.ceiling.Banner())
	case access.RuleStorage:
		if home := e.home(); home != "" {
			told.Hint = fmt.Sprintf("buckets are made and configured at %s, which tells this device of them", home)
		}
	case access.RuleBypass:
		told.Hint = fmt.Sprintf("the storage role may, and whom a grant that names %s lets", redoubt.ActionBypassLock)
	}
	return err
}

// judge takes the decision and describes it.
func (e *Enclave) judge(ctx context.Context, a ask) (access.Decision, *entry) {
	req := e.request(&a, e.clock())
	d := e.monitor.Check(&req)
	return d, e.describe(ctx, a, d.Allow, d.Rule)
}

// request is a question with all that is known of who asks.
func (e *Enclave) request(a *ask, now time.Time) access.Request {
	req := access.Request{Now: now, Who: a.who, Action: a.action, Key: a.name.Key, Object: a.object, MadeAt: a.made, New: a.fresh, Self: a.self, Bypass: a.bypass, Guarded: a.guarded, Granted: a.granted}
	if a.bucket != nil {
		req.Bucket = &a.bucket.facts
	}
	switch a.who.ID {
	case ownCredential:
		req.Subject = redoubt.Subject{Name: a.who.Subject, Clearance: e.ceiling, Expires: a.who.Expires}
	case linkCredential: // made by as, for a link that stands; its subject is cleared to the link's bound
		req.Subject = redoubt.Subject{Name: a.who.Subject, Clearance: a.who.Working, Expires: a.who.Expires}
	default:
		req.Subject, _ = e.identity.Subject(a.who.Subject)
		if req.Live = e.live(a.who); req.Live == nil {
			req.Live = e.partnersLive(a.who.Subject)
		}
	}
	return req
}

// live says what is known of a credential now: nil, or why it is not good. That of a job, a schedule or a service is as good as its subject, and
// as what it was made with.
func (e *Enclave) live(who redoubt.Credential) error {
	kind, made, stands := strings.Cut(who.ID, ":") // which no access key has
	switch {
	case !stands:
		return e.identity.Live(who)
	case kind == "job":
		made = e.jobs.credential(redoubt.JobID(made))
	}
	if _, known := e.identity.Subject(who.Subject); !known || made == "" || e.identity.Ended(made) {
		return &redoubt.Error{Op: "job", Kind: redoubt.Unauthenticated}
	}
	return nil
}

// describe makes the audit entry of a decision.
func (e *Enclave) describe(ctx context.Context, a ask, allow bool, rule string) *entry {
	of := a.fresh
	if of.IsZero() {
		of = label.Join(a.object, a.who.Working)
	}
	if of.IsZero() {
		of = a.who.Working
	}
	ent := &entry{Time: e.clock(), Subject: string(a.who.Subject), Credential: a.who.ID, Action: string(a.action),
		Allow: allow, Rule: rule, Label: e.text(of), Working: e.text(a.who.Working),
		Request: redoubt.RequestID(ctx), Detail: a.detail, Count: 1, Kind: "ok"}
	if a.name.Bucket != "" {
		ent.Bucket = e.namer.Bucket(string(a.name.Bucket))
	}
	if a.name.Key != "" {
		ent.Name = e.namer.Name(string(a.name.Bucket), a.name.Key)
	}
	return ent
}

// ownCredential is the ID of the node's own credentials. It is not one that identity could give, so nobody else has it.
const ownCredential = "node"

// own is the node's own subject, working at l.
func (e *Enclave) own(l label.Label) redoubt.Credential {
	return redoubt.Credential{ID: ownCredential, Subject: access.NodeSubject(e.name), Working: l, Expires: e.clock().Add(time.Minute)}
}

// ownAct describes an act of the node's own subject at the label of what it acts on: a record of it
// at the floor would tell everybody below how much there was.
func (e *Enclave) ownAct(l label.Label, action redoubt.Action, name redoubt.ObjectName) *entry {
	return e.describe(context.Background(), ask{who: e.own(l), action: action, name: name}, true, access.RuleOwnSubject)
}

// text is a label's canonical text, "" for none.
func (e *Enclave) text(l label.Label) string {
	if set := e.sets.table.Load().byLabel[l]; set != nil {
		return set.name
	}
	if t, ok := e.texts.load(l); ok {
		return t.(string)
	}
	b, err := l.MarshalText()
	if err != nil {
		return ""
	}
	e.texts.store(l, string(b))
	return string(b)
}

// record makes an entry durable by itself, also for a client that is gone: a decision does not
// go unrecorded because nobody waits for it.
func (e *Enclave) record(ctx context.Context, ent *entry) error {
	return e.commit(context.WithoutCancel(ctx), new(store.Batch), ent)
}

// noted records how an allowed request ended without an effect, and returns err.
func (e *Enclave) noted(ctx context.Context, ent *entry, err error) error {
	ent.Kind, ent.Bytes = redoubt.KindOf(err).Error(), 0
	if lost := e.record(ctx, ent); lost != nil {
		return lost
	}
	return err
}

// noteFailure is noted, deferred, for what failed after it was allowed: the decision is on record
// although nothing came of it.
func (e *Enclave) noteFailure(ctx context.Context, ent *entry, err *error) {
	if *err != nil {
		*err = e.noted(ctx, ent, *err)
	}
}

// commit makes a batch and the entry that speaks of it durable together (one sync a write).
func (e *Enclave) commit(ctx context.Context, b *store.Batch, ent *entry) error {
	if ent != nil {
		b.Append(e.recorder.Record(ent))
	}
	err := e.engine.Commit(ctx, b)
	if err == nil {
		if e.linked() {
			e.links.grown.wake()
		}
		return nil
	}
	var known *redoubt.Error
	if errors.As(err, &known) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &redoubt.Error{Op: "commit", Kind: redoubt.Internal, Err: err}
}

// noteRead records an allowed read; it is durable within a second (RULES 6). After
// an error the read must be refused.
func (e *Enclave) noteRead(ctx context.Context, ent *entry) error { return e.recorder.Read(ctx, ent) }

// strictJSON decodes exactly one value: unknown fields and trailing bytes are errors.
func strictJSON(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("trailing bytes")
	}
	return nil
}
