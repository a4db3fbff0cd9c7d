package enclave

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"redoubt"
	"redoubt/access"
	"redoubt/label"
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
	Releaser     redoubt.SubjectName // as whom it brings releases to Low; "": as Name
}

// brings says whether a subject brings the guard's releases to one of its two enclaves.
func (d DeclaredGuard) brings(to redoubt.NodeName, who redoubt.SubjectName) bool {
	if to == d.Low && d.Releaser != "" {
		return who == d.Releaser
	}
	return string(who) == string(d.Name)
}

// The rules that refuse a release, beside identity's.
const (
	ruleNoGuard    = "a-guard-leads-there (4.6)"
	ruleNotLower   = "a-release-lowers (2.6)"
	ruleTarget     = "within-targets-range (4.6)"
	ruleRate       = "release-rate (4.6)"
	ruleOpen       = "consents-open (4.6)"
	ruleState      = "state-of-the-release (4.6)"
	ruleChanged    = "version-unchanged (4.6)"
	ruleRequester  = "who-asked-still-may (4.6)"
	rulePolicy     = "policy-unchanged (4.6)"
	ruleExpired    = "in-time (4.6)"
	ruleOrigin     = "released-where-made (2.5)"
	ruleOtherGuard = "guard-of-the-release (4.6)"
	ruleTold       = "told-in-a-header (4.6)"
	ruleReceipt    = "receipt-of-the-target (4.6)"
)

const kindRelease = "release"

// releases is what is in memory of them: where each lies, and what a list goes by.
type releases struct {
	mu      sync.Mutex // serialises what changes releases; taken before a name's lock
	accept  sync.Mutex // serialises what is taken of them, likewise
	view    sync.Mutex // guards what follows
	byID    map[redoubt.ReleaseID]*releaseEntry
	order   []*releaseEntry                                             // oldest first
	open    map[redoubt.ObjectName][]*releaseEntry                      // by their source: those of which something may come, and one that is being asked for
	gives   map[redoubt.ReleaseID]*releaseEntry                         // consents to exports, as what changes their version finds them in open (footing.go)
	givesOf map[redoubt.SubjectName]map[redoubt.ReleaseID]*releaseEntry // the same, by originator
	bySet   map[*labelSet][]*releaseEntry                               // likewise: what people ask costs nothing for what lies above them (3.2)
	news    broadcast
}

// releaseEntry is what does not change of a release, and its state.
type releaseEntry struct {
	id      redoubt.ReleaseID
	set     *labelSet
	seq     int // in order
	made    time.Time
	by      redoubt.SubjectName
	owner   redoubt.SubjectName // its originator, where her consent is needed
	to      redoubt.NodeName
	guard   redoubt.NodeName
	name    redoubt.ObjectName // of the source
	ends    time.Time
	after   time.Time            // it leaves no earlier
	version versionID            // of the source
	working label.Label          // of who asked; zero: it is no label any more
	state   redoubt.ReleaseState // view
	given   bool                 // view: see releaseRecord.Fetched
	keeps   bool                 // view: what was rebuilt of it is kept
}

func (e *Enclave) newReleaseEntry(set *labelSet, r *releaseRecord) *releaseEntry {
	x := &releaseEntry{id: r.ID, set: set, made: r.Made, by: r.By, owner: r.Originator, to: r.To, guard: r.Guard, name: r.Name, ends: r.Expires, after: r.After}
	x.version, _ = e.ids.parse(string(r.Version))
	x.working, _ = label.ParseText([]byte(r.Working), e.policy)
	x.follow(r)
	return x
}

// releaseRecord is a release as it is kept.
type releaseRecord struct {
	redoubt.Release
	Guard   redoubt.NodeName  `json:"guard"`
	Working string            `json:"working"` // canonical text of who asked's working label
	Rebuilt redoubt.VersionID `json:"rebuilt,omitempty"`
	Policy  string            `json:"policy"`
	Rules   string            `json:"rules"`

	// Footing is what each person stood on whom it rests on, when she asked or signed (identity.Registry.Footing); an originator when it was asked for.
	Footing map[redoubt.SubjectName]string `json:"footing,omitempty"`

	// Fetched is when its guard was first given what is to leave: from then on it may have left. It is zero again once the guard has said that it did
	// not, and why.
	Fetched time.Time `json:"fetched,omitzero"`
}

// maybeLeft says of a release that ended whether it may have left before: its guard was given it, and has not said what came of it.
func maybeLeft(state redoubt.ReleaseState, given bool) bool {
	return given && (state == redoubt.ReleaseDead || state == redoubt.ReleaseDenied)
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
	key, kept := cmp.Or(q.Key, q.Name.Key), 0
	if err := validName(op, redoubt.ObjectName{Bucket: q.Name.Bucket, Key: key}); err != nil {
		return out, err
	}
	for _, name := range q.Keep {
		kept += len(name)
	}
	if q.Reason == "" || len(q.Reason) > redoubt.MaxReleaseReason || q.Life < 0 || q.Life > redoubt.MaxReleaseLife || len(q.Keep) > redoubt.MaxTags || kept > redoubt.MaxMetadataBytes {
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
	marks, originator, err := e.consentTo(op, f.rec, f.set.label, as)
	if err != nil {
		ent.Allow, ent.Rule = false, ruleOf(err)
		return out, e.noted(ctx, ent, err)
	}
	now := e.clock().UTC().Truncate(time.Second)
	from := now
	if q.After.After(now) {
		from = q.After.UTC().Truncate(time.Second)
	}
	if from.After(now.Add(redoubt.MaxReleaseAhead)) {
		return refuse(redoubt.Invalid, ruleExpired, "a release is approved 50 years ahead at most")
	}
	id, err := e.drawReleaseID()
	if err != nil {
		return out, err
	}
	r := &releaseRecord{Guard: g.Name, Working: e.text(who.Working), Policy: e.policyName(), Rules: g.Rules, Release: redoubt.Release{ID: id, State: redoubt.ReleaseRequested, Name: q.Name,
		Version: e.ids.versionID(f.rec.id), Label: f.set.label.Banner(), From: e.name, To: q.To, As: as.Banner(), Reason: q.Reason, By: who.Subject, Made: now,
		Expires: from.Add(cmp.Or(q.Life, redoubt.MaxReleaseLife)).Add(time.Hour - 1).Truncate(time.Hour), // what leaves tells no minute
		Keep:    q.Keep, Key: key, Originator: originator, ConsentFor: marks}}
	if from.After(now) {
		r.After = from
	}
	if toldBytes(r.Release, keptOf(f.rec.attrs.Meta, q.Keep)) > redoubt.MaxReleaseTold {
		return refuse(redoubt.TooLarge, ruleTold, "names, reason and metadata are too long together: keep less metadata, or ask under a shorter key")
	}
	e.releases.mu.Lock()
	defer e.releases.mu.Unlock()
	if hint := e.overRate(g, who); hint != "" {
		return refuse(redoubt.QuotaExceeded, ruleRate, hint)
	}
	x := e.newReleaseEntry(f.set, r)
	defer e.releases.watch(x)() // from before it is looked at: what changes behind the look finds it
	e.bucketsMu.Lock()          // and the bucket stays as it is
	defer e.bucketsMu.Unlock()
	e.standOn(r, r.By, r.Originator)
	if rule, err := e.rests(x, r); err != nil || rule != "" { // it would be dead before anybody looked at it
		if err != nil {
			return out, e.noted(ctx, ent, err)
		}
		return refuse(redoubt.Conflict, rule, why(rule))
	}
	ent.Detail = "release " + string(id) + " to " + string(q.To) + " as " + r.As
	return r.Release, e.keepRelease(ctx, f.set, r, ent)
}

// keptOf is of a version's metadata what is asked to leave.
func keptOf(meta map[string]string, keep []string) map[string]string {
	if len(keep) == 0 {
		return nil
	}
	out := maps.Clone(meta)
	maps.DeleteFunc(out, func(name, _ string) bool {
		return !slices.Contains(keep, name) || name == redoubt.MetaOriginator || name == metaMade
	}) // whose it is the statement says
	return out
}

// toldBytes is how long values are as JSON in which what is not ASCII is escaped.
func toldBytes(all ...any) (n int) {
	for _, v := range all {
		b, err := json.Marshal(v)
		if err != nil {
			return redoubt.MaxReleaseTold + 1
		}
		for _, r := range string(b) {
			switch {
			case r < 0x80:
				n++
			case r < 0x10000:
				n += len(`\u0000`)
			default:
				n += 2 * len(`\u0000`)
			}
		}
	}
	return n
}

func (e *Enclave) drawReleaseID() (redoubt.ReleaseID, error) {
	var raw [16]byte
	_, err := io.ReadFull(rand.Reader, raw[:])
	return redoubt.ReleaseID(hex.EncodeToString(raw[:])), err
}

// overRate says what is spent of a guard's rates of a day, in words; "" is nothing. What counts is what who asks may know of: a rate that
// others spend above her would tell her so (RULES 3.3). releases.mu is held.
func (e *Enclave) overRate(g DeclaredGuard, who redoubt.Credential) string {
	since := e.clock().Add(-24 * time.Hour)
	all, own := 0, 0
	e.releases.view.Lock()
	defer e.releases.view.Unlock()
	for set, some := range e.releases.bySet {
		if !who.Working.Dominates(set.label) {
			continue
		}
		for _, x := range slices.Backward(some) {
			if x.made.Before(since) {
				break
			}
			if x.guard == g.Name {
				all++
				if x.by == who.Subject {
					own++
				}
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
	view := e.engine.View() // of one moment, as a read
	defer view.Close()
	if id != "" {
		f, err = e.byID(view, b, who.Working, name.Key, id)
	} else {
		f, _, err = e.current(view, lookCurrent, b, who.Working, name.Key)
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
	if e.readers.closes(f.rec, f.set.label) != "" { // as a read is refused it
		return nil, found{}, nil, e.noted(ctx, ent, b.missing(op, name))
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
	d, ent := e.judge(ctx, a)
	if !d.Known {
		return nil, nil, nil, e.noted(ctx, ent, unknownRelease(d, missing))
	}
	return x, r, ent, e.known(ctx, d, a, ent)
}

// known is the end of a decision about a release that the caller may know of.
func (e *Enclave) known(ctx context.Context, d access.Decision, a ask, ent *entry) error {
	if d.Allow {
		return nil
	}
	return e.noted(ctx, ent, e.refusal(d, a))
}

// noSuchRelease answers for a release that is not there as for one that may not be known.
func (e *Enclave) noSuchRelease(ctx context.Context, a ask, missing error) error {
	d, ent := e.judge(ctx, a) // no object: refused, on the record
	return e.noted(ctx, ent, unknownRelease(d, missing))
}

// unknownRelease is the one answer for what is not there and for what may not be known; a credential that has ended is told so in either case.
func unknownRelease(d access.Decision, missing error) error {
	if d.Kind == redoubt.Expired || d.Kind == redoubt.Unauthenticated {
		return &redoubt.Error{Op: "Release", Kind: d.Kind}
	}
	return missing
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
	if r.Dropped {
		return nil, e.noted(ctx, ent, &redoubt.Error{Op: "OpenRebuilt", Object: string(id), Kind: redoubt.Conflict, Hint: "it is " + string(r.State) + ": what was rebuilt is not kept behind its end, and its digest is in the statement"})
	}
	if err := e.noteRead(ctx, ent); err != nil {
		return nil, err
	}
	o, err := e.openRebuilt(ctx, x, r)
	if err != nil {
		return nil, err
	}
	of := o.(*object) // as the node opened it, it is read as who asked may
	of.asked = ask{op: "OpenRebuilt", who: who, action: redoubt.ActionReadRelease, name: r.Name, object: x.set.label, detail: "release " + string(id) + ", while it was sent"}
	of.since, of.held = ent.Time, true
	return of, nil
}

func (e *Enclave) openRebuilt(ctx context.Context, x *releaseEntry, r *releaseRecord) (redoubt.Object, error) {
	return e.GetObject(ctx, e.own(x.set.label), redoubt.ReadObject{Name: redoubt.ObjectName{Bucket: RebuiltBucket, Key: string(r.ID)}, ID: r.Rebuilt, Action: redoubt.ActionReadRelease})
}
