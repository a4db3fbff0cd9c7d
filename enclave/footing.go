package enclave

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	"redoubt"
	"redoubt/label"
	"redoubt/store"
)

// What a release rests on may change and come back: a clearance is ended and given again, a version is written over and what did so is
// removed. The release is dead all the same, whether or not anybody looked between (ADR 49). Of people it keeps what they stood on, which never
// comes back; what brings a version back finds the open releases of it, and puts their end on record in its own commit. An originator's consent to
// an export rests on her and on the version in the same way.

const (
	ruleFooting = "nobody-changed-since (4.6)"
	fallenDuty  = "fallen/" // and the ID of a release, or of a consent: its version was not current meanwhile
)

// standOn keeps of people what they stand on now. Whom it is kept of already stands on that; "" is nobody.
func (e *Enclave) standOn(r *releaseRecord, people ...redoubt.SubjectName) {
	if r.Footing == nil {
		r.Footing = map[redoubt.SubjectName]string{}
	}
	for _, name := range people {
		if name != "" && r.Footing[name] == "" {
			r.Footing[name] = e.identity.Footing(name)
		}
	}
}

// people are whom a release rests on.
func (r *releaseRecord) people() []redoubt.SubjectName {
	out := []redoubt.SubjectName{r.By}
	if r.Originator != "" {
		out = append(out, r.Originator)
	}
	for _, sig := range r.Approvals {
		out = append(out, sig.Signer)
	}
	return out
}

// stayed says whether nobody was changed whom a release rests on, and its version was current all the time.
func (e *Enclave) stayed(r *releaseRecord) (rule string, err error) {
	for _, name := range r.people() {
		if is := e.identity.Footing(name); is == "" || is != r.Footing[name] {
			return ruleFooting, nil
		}
	}
	_, fell, err := e.engine.Get(dutyKey(fallenDuty + string(r.ID)))
	if fell {
		return ruleChanged, err
	}
	return "", err
}

// fell puts on record that a version was current in the place of others that are so again now, with what removes it: their releases are dead. The
// name's lock is held.
func (e *Enclave) fell(batch *store.Batch, b *bucket, f found, key string) error {
	return e.fall(batch, redoubt.ObjectName{Bucket: b.Name, Key: key}, func(x *releaseEntry) bool {
		newer := f.rec.id.newer(x.version)
		above := func(a, b label.Label) bool { return a.Dominates(b) && !b.Dominates(a) }
		switch of, by := x.set.label, f.set.label; {
		case !x.working.IsZero() && !x.working.Dominates(by):
			return false // who asked never saw it
		case f.rec.marker:
			return newer && by.Dominates(of)
		case b.Current == "highest" && above(by, of):
			return true
		case b.Current == "highest" && above(of, by):
			return false
		}
		return newer
	})
}

// fellWith puts on record that a bucket was removed, or shows another version as the current one: what was asked for in it is dead. bucketsMu is held.
func (e *Enclave) fellWith(batch *store.Batch, b *bucket) error {
	old := (*e.buckets.Load())[b.Name]
	if old == nil || b.deleted == old.deleted && (b.Current == "highest") == (old.Current == "highest") {
		return nil
	}
	e.releases.view.Lock()
	var names []redoubt.ObjectName
	for name := range e.releases.open {
		if name.Bucket == b.Name {
			names = append(names, name)
		}
	}
	e.releases.view.Unlock()
	for _, name := range names {
		if err := e.fall(batch, name, func(*releaseEntry) bool { return true }); err != nil {
			return err
		}
	}
	return nil
}

func (e *Enclave) fall(batch *store.Batch, name redoubt.ObjectName, which func(*releaseEntry) bool) error {
	e.releases.view.Lock()
	defer e.releases.view.Unlock()
	for _, x := range e.releases.open[name] {
		if which(x) {
			if err := (duty{}).add(batch, fallenDuty+string(x.id)); err != nil {
				return err
			}
		}
	}
	return nil
}

// settleFallen ends a release whose version was not current meanwhile.
func (e *Enclave) settleFallen(ctx context.Context, name string) error {
	if strings.HasPrefix(name, fallenDuty+kindExportConsent+"/") {
		return e.endConsent(ctx, redoubt.ReleaseID(strings.TrimPrefix(name, fallenDuty)), ruleChanged)
	}
	e.releases.mu.Lock()
	defer e.releases.mu.Unlock()
	x, state := e.releases.find(redoubt.ReleaseID(strings.TrimPrefix(name, fallenDuty)))
	if x != nil && stillOpen(state) {
		r, err := e.readRelease(x)
		if err != nil {
			return err
		}
		return e.die(ctx, x, r, ruleChanged)
	}
	b := new(store.Batch)
	b.Delete(dutyKey(name))
	return e.commit(ctx, b, nil)
}

// die ends a release by a rule, as the node's own act. releases.mu is held.
func (e *Enclave) die(ctx context.Context, x *releaseEntry, r *releaseRecord, rule string) error {
	r.State, r.Why = redoubt.ReleaseDead, why(rule)
	ent := e.ownAct(x.set.label, redoubt.ActionDenyRelease, r.Name)
	ent.Detail = "release " + string(r.ID) + " is dead: " + rule
	return e.keepRelease(ctx, x.set, r, ent)
}

// lookAtReleases ends what does not rest on everything any more, and lets go of what was rebuilt of releases that ended when that was kept for good.
func (e *Enclave) lookAtReleases(ctx context.Context) error {
	var errs []error
	for _, x := range e.releases.some(func(x *releaseEntry) bool { return stillOpen(x.state) || x.keeps && !maybeLeft(x.state, x.given) }) {
		if ctx.Err() != nil {
			break
		}
		errs = append(errs, e.lookAtRelease(ctx, x)) // one that does not read holds no other up
	}
	return errors.Join(errs...)
}

func (e *Enclave) lookAtRelease(ctx context.Context, x *releaseEntry) error {
	e.releases.mu.Lock()
	defer e.releases.mu.Unlock()
	r, err := e.readRelease(x)
	if err != nil {
		return err
	}
	switch {
	case stillOpen(r.State):
		rule, err := e.rests(x, r)
		if err != nil || rule == "" {
			return err
		}
		return e.die(ctx, x, r, rule)
	case r.dropsRebuilt():
		ent := e.ownAct(x.set.label, redoubt.ActionDeleteVersion, rebuiltName(r.ID))
		ent.Detail = "release " + string(r.ID) + " has ended"
		return e.keepRelease(ctx, x.set, r, ent)
	}
	return nil
}

// takeUpReleases looks at every open release at start, before anything is done about one: policy, rules and people of the estate may be others than
// when the node ended, and be as they were when it ends again. One that was asked for before footings were kept stands on what there is now.
func (e *Enclave) takeUpReleases(ctx context.Context) error {
	for _, x := range e.releases.some(func(x *releaseEntry) bool { return stillOpen(x.state) }) {
		r, err := e.readRelease(x)
		if err != nil {
			return err
		}
		if r.Footing == nil {
			e.standOn(r, r.people()...)
			if err := e.keepRelease(ctx, x.set, r, nil); err != nil {
				return err
			}
		}
		if err := e.lookAtRelease(ctx, x); err != nil {
			return err
		}
	}
	return nil
}

// some gives those releases that which takes, oldest first.
func (r *releases) some(which func(*releaseEntry) bool) (out []*releaseEntry) {
	r.view.Lock()
	defer r.view.Unlock()
	for _, x := range r.order {
		if which(x) {
			out = append(out, x)
		}
	}
	return out
}

// What may be open of consents to exports: each adds to the commit that removes what hides its version.
const (
	maxConsentsOfVersion    = 64
	maxConsentsOfOriginator = 1000 // at what she works above: what lies higher counts for nothing there (3.3)
)

// watchConsent has what changes a version find a consent to its export. What is above the version's label it does not hang on: that would tell of it below.
func (e *Enclave) watchConsent(set *labelSet, r *exportConsentRecord) {
	e.releases.view.Lock()
	defer e.releases.view.Unlock()
	e.releases.watchConsent(e.newConsentEntry(set, r))
}

func (e *Enclave) newConsentEntry(set *labelSet, r *exportConsentRecord) *releaseEntry {
	x := &releaseEntry{id: r.id(), set: set, name: redoubt.ObjectName{Bucket: r.Bucket, Key: r.Key}, owner: r.Originator, ends: r.Expires, working: set.label}
	x.version, _ = e.ids.parse(string(r.Version))
	return x
}

// openConsent is watchConsent of one that is given now, if not too many are open; else it says in words what is. One that it replaces does not count beside it.
func (e *Enclave) openConsent(set *labelSet, r *exportConsentRecord, working label.Label) (hint string) {
	x, now := e.newConsentEntry(set, r), e.clock()
	e.releases.view.Lock()
	defer e.releases.view.Unlock()
	ofVersion, ofHers := 0, 0
	for _, o := range e.releases.givesOf[x.owner] { // a version has one originator
		switch {
		case !now.Before(o.ends):
			e.releases.unwatchConsent(o)
		case consentName(o.id) == consentName(x.id) || !working.Dominates(o.set.label):
		default:
			ofHers++
			if o.version == x.version && o.set == x.set {
				ofVersion++
			}
		}
	}
	const wait = ": wait until one has expired, or have one used up by its export"
	switch {
	case ofVersion >= maxConsentsOfVersion:
		return fmt.Sprintf("%d consents to exports of this version are open, as many as may be", ofVersion) + wait
	case ofHers >= maxConsentsOfOriginator:
		return fmt.Sprintf("%d of your consents to exports are open, as many as may be", ofHers) + wait
	}
	e.releases.watchConsent(x)
	return ""
}

// watchConsent is of one entry; view is held.
func (r *releases) watchConsent(x *releaseEntry) {
	if old := r.gives[x.id]; old != nil {
		r.unwatchConsent(old)
	}
	if r.givesOf[x.owner] == nil {
		r.givesOf[x.owner] = map[redoubt.ReleaseID]*releaseEntry{}
	}
	r.gives[x.id], r.givesOf[x.owner][x.id] = x, x
	r.open[x.name] = append(r.open[x.name], x)
}

// unwatchConsent ends that; view is held.
func (r *releases) unwatchConsent(x *releaseEntry) {
	r.unwatch(x)
	delete(r.gives, x.id)
	if delete(r.givesOf[x.owner], x.id); len(r.givesOf[x.owner]) == 0 {
		delete(r.givesOf, x.owner)
	}
}

// forgetConsent is of one that was used, has ended, was replaced or was not kept.
func (e *Enclave) forgetConsent(id redoubt.ReleaseID) {
	e.releases.view.Lock()
	defer e.releases.view.Unlock()
	if x := e.releases.gives[id]; x != nil {
		e.releases.unwatchConsent(x)
	}
}

// forgetConsents is of all that have expired.
func (e *Enclave) forgetConsents() {
	now := e.clock()
	e.releases.view.Lock()
	defer e.releases.view.Unlock()
	for _, x := range e.releases.gives {
		if !now.Before(x.ends) {
			e.releases.unwatchConsent(x)
		}
	}
}

// consentEnded says by which rule a consent to an export rests on something no more; "": it does.
func (e *Enclave) consentEnded(set *labelSet, r *exportConsentRecord) (rule string, err error) {
	if r.Ended != "" {
		return r.Ended, nil
	}
	if is := e.identity.Footing(r.Originator); is == "" || is != r.Footing {
		return ruleFooting, nil
	}
	if _, fell, err := e.engine.Get(dutyKey(fallenDuty + string(r.id()))); err != nil || fell {
		return ruleChanged, err
	}
	b, err := e.bucket(kindExportConsent, r.Bucket)
	if err != nil {
		return ruleChanged, nil
	}
	view := e.engine.View()
	defer view.Close()
	cur, _, err := e.current(view, lookCurrent, b, set.label, r.Key)
	switch {
	case err != nil:
		return "", err
	case r.Policy != e.policyName():
		return rulePolicy, nil
	case cur.rec == nil || e.ids.versionID(cur.rec.id) != r.Version || cur.set != set:
		return ruleChanged, nil
	}
	return "", nil
}

// endConsent ends a consent by a rule, as the node's own act, if it is there and may still be used.
func (e *Enclave) endConsent(ctx context.Context, id redoubt.ReleaseID, rule string) error {
	name := consentName(id)
	defer e.locks.lock(systemBucketID, name)()
	e.releases.view.Lock()
	x := e.releases.gives[id]
	e.releases.view.Unlock()
	b, ent := new(store.Batch), (*entry)(nil)
	b.Delete(dutyKey(fallenDuty + string(id)))
	if x != nil {
		r, err := e.exportConsent(x.set, name)
		if err != nil {
			return err
		}
		if r != nil && r.id() == id && r.Used.IsZero() && r.Ended == "" {
			r.Ended = rule
			value, err := json.Marshal(r)
			if err != nil {
				return err
			}
			if err := e.putRecordAt(ctx, b, x.set.label, name, value); err != nil {
				return err
			}
			ent = e.ownAct(x.set.label, redoubt.ActionConsent, x.name)
			ent.Detail = "the consent to an export to " + r.Nation + ", key " + r.KAS + ", has ended: " + rule
		}
	}
	if err := e.commit(ctx, b, ent); err != nil {
		return err
	}
	e.forgetConsent(id)
	return nil
}

// consentName names the record of a consent.
func consentName(id redoubt.ReleaseID) string {
	return string(id[:strings.LastIndexByte(string(id), '/')])
}

// loadConsents watches those that may still be used, before anything is removed.
func (e *Enclave) loadConsents() error {
	view := e.engine.View()
	defer view.Close()
	for _, set := range e.sets.all() {
		err := e.recordsAt(view, set, kindExportConsent, func(_ string, value []byte) error {
			r := new(exportConsentRecord)
			if err := strictJSON(value, r); err != nil {
				return err
			}
			if r.Used.IsZero() && r.Ended == "" && e.clock().Before(r.Expires) {
				e.watchConsent(set, r)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// takeUpConsents looks at every consent at start, as at every release.
func (e *Enclave) takeUpConsents(ctx context.Context) error {
	e.releases.view.Lock()
	all := maps.Clone(e.releases.gives)
	e.releases.view.Unlock()
	for id, x := range all {
		r, err := e.exportConsent(x.set, consentName(id))
		if err != nil || r == nil {
			return errors.Join(err, redoubt.Corrupt)
		}
		rule, err := e.consentEnded(x.set, r)
		if err == nil && rule != "" {
			err = e.endConsent(ctx, id, rule)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
