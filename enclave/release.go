package enclave

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"redoubt"
	"redoubt/label"
	"redoubt/store"
)

// Releases at their source. One is a system record at its source version's label, so it is known to who dominates that; what was rebuilt of
// it is an object in RebuiltBucket at the same label. A guard is given the content of a version under an open request, and of no other.

// RebuiltBucket holds, at the label of the source, what would leave: one object a release, under its ID. It is closed: people read it by
// the release.
const RebuiltBucket redoubt.BucketName = "guard.rebuilt"

// DeclaredGuard is a guard as an enclave that it joins knows it.
type DeclaredGuard struct {
	Name         redoubt.NodeName
	Low, High    redoubt.NodeName
	Floor, Limit label.Label // range of the other enclave
	Rules        string      // digest of what the guard holds releases to
	PerPersonDay int
	PerDay       int
}

// The rules that refuse a release, beside identity's.
const (
	ruleNoGuard    = "a-guard-leads-there (4.6)"
	ruleNotLower   = "a-release-lowers (2.6)"
	ruleTarget     = "within-targets-range (4.6)"
	ruleRate       = "release-rate (4.6)"
	ruleState      = "state-of-the-release (4.6)"
	ruleChanged    = "version-unchanged (4.6)"
	ruleRequester  = "who-asked-still-may (4.6)"
	rulePolicy     = "policy-unchanged (4.6)"
	ruleExpired    = "in-time (4.6)"
	ruleOrigin     = "released-where-made (2.5)"
	ruleConsent    = "originators-consent (1.5)"
	ruleOtherGuard = "guard-of-the-release (4.6)"
)

const kindRelease = "release"

// releases is what is in memory of them: where each lies, and what a list goes by.
type releases struct {
	mu     sync.Mutex // serialises what changes releases; taken before a name's lock
	accept sync.Mutex // serialises what is taken of them, likewise
	view   sync.Mutex // guards what follows
	byID   map[redoubt.ReleaseID]*releaseEntry
	order  []*releaseEntry // oldest first
	news   broadcast
}

// releaseEntry is what does not change of a release, and its state.
type releaseEntry struct {
	id    redoubt.ReleaseID
	set   *labelSet
	made  time.Time
	by    redoubt.SubjectName
	to    redoubt.NodeName
	guard redoubt.NodeName
	after time.Time
	state redoubt.ReleaseState // view
}

// releaseRecord is a release as it is kept.
type releaseRecord struct {
	redoubt.Release
	Guard   redoubt.NodeName  `json:"guard"`
	Working string            `json:"working"` // canonical text of who asked's working label
	Rebuilt redoubt.VersionID `json:"rebuilt,omitempty"`
	Policy  string            `json:"policy"`
	Rules   string            `json:"rules"`
}

// loadReleases reads them all at start.
func (e *Enclave) loadReleases() error {
	e.releases.byID = map[redoubt.ReleaseID]*releaseEntry{}
	view := e.engine.View()
	defer view.Close()
	for _, set := range e.sets.all() {
		lower := append(rangeKey(recHead, systemBucketID, set.id), kindRelease+"/"...)
		it := view.Scan(lower, after(lower))
		for it.Next() {
			rec, err := decodeRecord(it.Value())
			var r releaseRecord
			if err == nil {
				err = strictJSON(rec.inline, &r)
			}
			if err != nil {
				return errors.Join(&redoubt.Error{Op: "enclave.Open", Object: kindRelease, Kind: redoubt.Corrupt, Err: err}, it.Close())
			}
			e.releases.add(&releaseEntry{id: r.ID, set: set, made: r.Made, by: r.By, to: r.To, guard: r.Guard, state: r.State, after: r.After})
		}
		if err := errors.Join(it.Err(), it.Close()); err != nil {
			return err
		}
	}
	slices.SortStableFunc(e.releases.order, func(a, b *releaseEntry) int { return a.made.Compare(b.made) })
	return nil
}

func (r *releases) add(x *releaseEntry) {
	r.view.Lock()
	defer r.view.Unlock()
	r.byID[x.id] = x
	r.order = append(r.order, x)
}

func (r *releases) find(id redoubt.ReleaseID) (*releaseEntry, redoubt.ReleaseState) {
	r.view.Lock()
	defer r.view.Unlock()
	x := r.byID[id]
	if x == nil {
		return nil, ""
	}
	return x, x.state
}

// read reads a release's record.
func (e *Enclave) readRelease(x *releaseEntry) (*releaseRecord, error) {
	raw, ok, err := e.engine.Get(headKey(systemBucketID, x.set.id, kindRelease+"/"+string(x.id)))
	if err != nil || !ok {
		return nil, errors.Join(err, redoubt.Corrupt)
	}
	rec, err := decodeRecord(raw)
	r := new(releaseRecord)
	if err == nil {
		err = strictJSON(rec.inline, r)
	}
	if err != nil {
		return nil, &redoubt.Error{Op: "release", Kind: redoubt.Corrupt, Err: err}
	}
	return r, nil
}

// keepRelease makes a release durable with an audit entry, then visible. releases.mu is held.
func (e *Enclave) keepRelease(ctx context.Context, set *labelSet, r *releaseRecord, ent *entry) error {
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	defer e.locks.lock(systemBucketID, kindRelease+"/"+string(r.ID))()
	b := new(store.Batch)
	if err := e.putRecordAt(ctx, b, set.label, kindRelease+"/"+string(r.ID), value); err != nil {
		return err
	}
	if err := e.commit(ctx, b, ent); err != nil {
		return err
	}
	if x, _ := e.releases.find(r.ID); x != nil {
		e.releases.view.Lock()
		x.state = r.State
		e.releases.view.Unlock()
	} else {
		e.releases.add(&releaseEntry{id: r.ID, set: set, made: r.Made, by: r.By, to: r.To, guard: r.Guard, state: r.State, after: r.After})
	}
	e.releases.news.wake()
	return nil
}

// guardTo finds the guard by which something leaves for a node. A release within the node itself is any of its guards' to filter.
func (e *Enclave) guardTo(to redoubt.NodeName) (DeclaredGuard, bool) {
	for _, g := range e.guards {
		if g.High == e.name && (g.Low == to || to == e.name) {
			if to == e.name {
				g.Floor, g.Limit = e.floor, e.ceiling
			}
			return g, true
		}
	}
	return DeclaredGuard{}, false
}

// policyName is the marking policy that an approval was given under.
func (e *Enclave) policyName() string { return e.policy.Name() + "@" + e.policy.Version() }

// RequestRelease asks for a release: find, decide, hold against policy and rate, keep; see redoubt.ReleaseService.
func (e *Enclave) RequestRelease(ctx context.Context, who redoubt.Credential, q redoubt.RequestRelease) (out redoubt.Release, err error) {
	const op = "RequestRelease"
	if err := validName(op, q.Name); err != nil {
		return out, err
	}
	if q.Reason == "" || len(q.Reason) > redoubt.MaxReleaseReason || q.Life < 0 || q.Life > redoubt.MaxReleaseLife || len(q.Keep) > redoubt.MaxTags || len(q.Key) > redoubt.MaxKeyBytes {
		return out, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Hint: fmt.Sprintf("a release has a reason of 1 to %d bytes and lives %s at most", redoubt.MaxReleaseReason, redoubt.MaxReleaseLife)}
	}
	b, f, ent, err := e.lookAt(ctx, op, who, redoubt.ActionRequestRelease, q.Name, q.Version)
	if err != nil {
		return out, err
	}
	refuse := func(kind redoubt.Kind, rule, hint string) (redoubt.Release, error) {
		ent.Allow, ent.Rule = false, rule
		return redoubt.Release{}, e.noted(ctx, ent, &redoubt.Error{Op: op, Object: q.Name.String(), Kind: kind, Rule: rule, Hint: hint})
	}
	g, ok := e.guardTo(q.To)
	as, perr := e.policy.Parse(q.Label)
	switch {
	case !ok:
		return refuse(redoubt.Denied, ruleNoGuard, "no guard leads from here to "+string(q.To)+": redoubt status lists the guards")
	case perr != nil:
		return refuse(redoubt.Invalid, "label: "+perr.Error(), "redoubt label parse shows what a marking means")
	case strings.IndexByte(string(b.Name), '.') >= 0:
		return refuse(redoubt.Denied, ruleOrigin, "it is of another enclave: release it where it was made")
	case as.Dominates(f.set.label):
		return refuse(redoubt.Denied, ruleNotLower, "that label is no lower than what it has, "+f.set.label.Banner()+": copy it, nothing need be released")
	case !g.Limit.Dominates(as) || !as.Dominates(g.Floor):
		return refuse(redoubt.Denied, ruleTarget, fmt.Sprintf("%s takes labels from %s to %s", q.To, g.Floor.Banner(), g.Limit.Banner()))
	case f.rec.size > redoubt.MaxReleaseBytes:
		return refuse(redoubt.TooLarge, ruleTarget, fmt.Sprintf("a release has at most %d bytes", redoubt.MaxReleaseBytes))
	}
	if marks := consentMarks(f.set.label); len(marks) > 0 {
		return refuse(redoubt.Denied, ruleConsent, strings.Join(marks, ", ")+" needs the originator's signed consent, which cannot be given here yet")
	}
	now := e.clock().UTC().Truncate(time.Second)
	from := now
	if q.After.After(now) {
		from = q.After.UTC().Truncate(time.Second)
	}
	if from.After(now.Add(redoubt.MaxReleaseAhead)) {
		return refuse(redoubt.Invalid, ruleExpired, "a release is approved 50 years ahead at most")
	}
	if hint := e.overRate(g, who.Subject); hint != "" {
		return refuse(redoubt.QuotaExceeded, ruleRate, hint)
	}
	id, err := e.drawReleaseID()
	if err != nil {
		return out, err
	}
	r := &releaseRecord{Guard: g.Name, Working: e.text(who.Working), Policy: e.policyName(), Rules: g.Rules, Release: redoubt.Release{ID: id, State: redoubt.ReleaseRequested, Name: q.Name,
		Version: e.ids.versionID(f.rec.id), Label: f.set.label.Banner(), From: e.name, To: q.To, As: as.Banner(), Reason: q.Reason, By: who.Subject, Made: now,
		Expires: from.Add(cmp.Or(q.Life, redoubt.MaxReleaseLife)).Add(time.Hour - 1).Truncate(time.Hour), // what leaves tells no minute
		Keep:    q.Keep, Key: cmp.Or(q.Key, q.Name.Key)}}
	if from.After(now) {
		r.After = from
	}
	e.releases.mu.Lock()
	defer e.releases.mu.Unlock()
	ent.Detail = "release " + string(id) + " to " + string(q.To) + " as " + r.As
	return r.Release, e.keepRelease(ctx, f.set, r, ent)
}

// consentMarks are those of a label that nobody but the originator may have leave (RULES 1.5).
func consentMarks(l label.Label) (all []string) {
	for _, m := range l.Marks() {
		if word, _, _ := strings.Cut(m, "-"); slices.Contains([]string{"ORCON", "PROPIN", "FISA", "FGI"}, word) {
			all = append(all, m)
		}
	}
	if len(l.Sources()) > 0 {
		all = append(all, "FGI")
	}
	return slices.Compact(all)
}

func (e *Enclave) drawReleaseID() (redoubt.ReleaseID, error) {
	var raw [16]byte
	_, err := io.ReadFull(rand.Reader, raw[:])
	return redoubt.ReleaseID(hex.EncodeToString(raw[:])), err
}

// overRate says what is spent of a guard's rates of a day, in words; "" is nothing.
func (e *Enclave) overRate(g DeclaredGuard, who redoubt.SubjectName) string {
	since := e.clock().Add(-24 * time.Hour)
	all, own := 0, 0
	e.releases.view.Lock()
	defer e.releases.view.Unlock()
	for _, x := range slices.Backward(e.releases.order) {
		if x.made.Before(since) {
			break
		}
		if x.guard == g.Name {
			all++
			if x.by == who {
				own++
			}
		}
	}
	switch {
	case own >= g.PerPersonDay:
		return fmt.Sprintf("you asked for %d releases within a day, and the estate lets one person ask for so many", own)
	case all >= g.PerDay:
		return "the guard's releases of a day are spent: ask again tomorrow"
	}
	return ""
}

// lookAt finds a version for who may read it, and decides an action about it.
func (e *Enclave) lookAt(ctx context.Context, op string, who redoubt.Credential, action redoubt.Action, name redoubt.ObjectName, id redoubt.VersionID) (*bucket, found, *entry, error) {
	a := ask{op: op, who: who, action: action, name: name}
	b, err := e.readable(op, name.Bucket)
	if err != nil {
		return nil, found{}, nil, e.missingBucket(ctx, a, err)
	}
	a.bucket = b
	var f found
	if id != "" {
		f, err = e.byID(e.engine, b, who.Working, name.Key, id)
	} else {
		f, _, err = e.current(e.engine, lookCurrent, b, who.Working, name.Key)
	}
	if err != nil {
		return nil, f, nil, err
	}
	if f.rec == nil || f.rec.marker {
		f = found{}
		_, err := e.decide(ctx, a) // refused like what may not be known
		if err == nil {
			err = b.missing(op, name)
		}
		return nil, f, nil, err
	}
	a.object = f.set.label
	ent, err := e.decide(ctx, a)
	if err != nil {
		return nil, found{}, nil, b.refused(op, name, err)
	}
	ent.Version = f.rec.id[:]
	return b, f, ent, nil
}

// releaseFor finds a release for who may know of it, and decides an action about it.
func (e *Enclave) releaseFor(ctx context.Context, op string, who redoubt.Credential, action redoubt.Action, id redoubt.ReleaseID) (*releaseEntry, *releaseRecord, *entry, error) {
	missing := &redoubt.Error{Op: op, Object: string(id), Kind: redoubt.NotFound, Hint: "redoubt release ls lists the releases that you may know of"}
	x, _ := e.releases.find(id)
	a := ask{op: op, who: who, action: action, detail: "release " + string(id)}
	if x == nil {
		return nil, nil, nil, e.noSuchRelease(ctx, a, missing)
	}
	r, err := e.readRelease(x)
	if err != nil {
		return nil, nil, nil, err
	}
	if a.bucket, err = e.readable(op, r.Name.Bucket); err != nil {
		return nil, nil, nil, e.noSuchRelease(ctx, a, missing)
	}
	a.name, a.object = r.Name, x.set.label
	ent, err := e.decide(ctx, a)
	if redoubt.KindOf(err) == redoubt.NotFound {
		err = missing
	}
	return x, r, ent, err
}

// noSuchRelease answers for a release that is not there as the monitor answers for one that may not be known.
func (e *Enclave) noSuchRelease(ctx context.Context, a ask, missing error) error {
	d, ent := e.judge(ctx, a) // no object: refused, on the record
	if d.Kind == redoubt.Expired || d.Kind == redoubt.Unauthenticated {
		missing = &redoubt.Error{Op: a.op, Kind: d.Kind, Rule: d.Rule}
	}
	return e.noted(ctx, ent, missing)
}

// Releases lists those whose source's label the caller dominates, newest first. One that expired meanwhile is shown as it will be.
func (e *Enclave) Releases(ctx context.Context, who redoubt.Credential, q redoubt.ListReleases) ([]redoubt.Release, error) {
	const op = "Releases"
	entry, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionListBuckets, detail: "releases"})
	if err != nil {
		return nil, err
	}
	most := min(cmp.Or(q.Max, redoubt.MaxReleasesListed), redoubt.MaxReleasesListed)
	var page []*releaseEntry
	e.releases.view.Lock()
	after := q.After == ""
	for _, x := range slices.Backward(e.releases.order) {
		if !after {
			after = x.id == q.After && who.Working.Dominates(x.set.label)
			continue
		}
		if who.Working.Dominates(x.set.label) && (q.State == "" || q.State == x.state) {
			page = append(page, x)
		}
		if len(page) == 2*most { // some may be of buckets that are closed to the caller
			break
		}
	}
	e.releases.view.Unlock()
	out := []redoubt.Release{}
	for _, x := range page {
		if len(out) == most {
			break
		}
		r, err := e.readRelease(x)
		if err != nil {
			return nil, err
		}
		b, err := e.readable(op, r.Name.Bucket)
		if err != nil {
			continue
		}
		if d, _ := e.judge(ctx, ask{op: op, who: who, action: redoubt.ActionReadRelease, bucket: b, name: r.Name, object: x.set.label}); !d.Allow {
			continue
		}
		out = append(out, e.shown(r))
	}
	entry.Count = uint32(max(len(out), 1))
	return out, e.noteRead(ctx, entry)
}

// shown is a release as people see it now.
func (e *Enclave) shown(r *releaseRecord) redoubt.Release {
	if stillOpen(r.State) && !e.clock().Before(r.Expires) {
		r.State, r.Why = redoubt.ReleaseDead, ruleExpired
	}
	return r.Release
}

// stillOpen says whether something may yet come of a release.
func stillOpen(s redoubt.ReleaseState) bool {
	return s == redoubt.ReleaseRequested || s == redoubt.ReleaseReview || s == redoubt.ReleaseApproved
}

// Release shows one.
func (e *Enclave) Release(ctx context.Context, who redoubt.Credential, id redoubt.ReleaseID) (redoubt.Release, error) {
	_, r, ent, err := e.releaseFor(ctx, "Release", who, redoubt.ActionReadRelease, id)
	if err != nil {
		return redoubt.Release{}, err
	}
	return e.shown(r), e.noteRead(ctx, ent)
}

// OpenRebuilt opens the bytes that would leave.
func (e *Enclave) OpenRebuilt(ctx context.Context, who redoubt.Credential, id redoubt.ReleaseID) (redoubt.Object, error) {
	x, r, ent, err := e.releaseFor(ctx, "OpenRebuilt", who, redoubt.ActionReadRelease, id)
	if err != nil {
		return nil, err
	}
	if r.Rebuilt == "" {
		return nil, e.noted(ctx, ent, &redoubt.Error{Op: "OpenRebuilt", Object: string(id), Kind: redoubt.Conflict, Hint: "it is " + string(r.State) + ": there is nothing rebuilt to look at"})
	}
	if err := e.noteRead(ctx, ent); err != nil {
		return nil, err
	}
	return e.openRebuilt(ctx, x, r)
}

func (e *Enclave) openRebuilt(ctx context.Context, x *releaseEntry, r *releaseRecord) (redoubt.Object, error) {
	return e.GetObject(ctx, e.own(x.set.label), redoubt.ReadObject{Name: redoubt.ObjectName{Bucket: RebuiltBucket, Key: string(r.ID)}, ID: r.Rebuilt, Action: redoubt.ActionReadRelease})
}
