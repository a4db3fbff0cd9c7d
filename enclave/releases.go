package enclave

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"redoubt"
	"redoubt/label"
)

// The list of releases. What of them is in memory says which are shown; of the store no more is read than the page.

// Releases lists those whose source's label the caller dominates, newest first. One that expired meanwhile is shown as it will be.
func (e *Enclave) Releases(ctx context.Context, who redoubt.Credential, q redoubt.ListReleases) ([]redoubt.Release, error) {
	const op = "Releases"
	entry, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionListBuckets, detail: "releases"})
	if err != nil {
		return nil, err
	}
	most := min(cmp.Or(q.Max, redoubt.MaxReleasesListed), redoubt.MaxReleasesListed)
	out, from := []redoubt.Release{}, e.releases.before(q.After, who)
	for len(out) < most && from > 0 {
		var some []*releaseEntry
		some, from = e.releases.look(from, most-len(out), who.Working, func(x *releaseEntry) bool { return q.State == "" || q.State == x.now(e.clock()) })
		for _, x := range some {
			b, err := e.readable(op, x.name.Bucket)
			if err != nil {
				continue
			}
			if d, _ := e.judge(ctx, ask{op: op, who: who, action: redoubt.ActionReadRelease, bucket: b, name: x.name, object: x.set.label}); !d.Allow {
				continue // of a bucket that is closed to the caller
			}
			r, err := e.readRelease(x)
			if err != nil {
				return nil, err
			}
			out = append(out, e.shown(r))
		}
	}
	entry.Count = uint32(max(len(out), 1))
	return out, e.noteRead(ctx, entry)
}

// before is how many releases are older than one, all where none is named; none where the caller may not know of that one.
func (r *releases) before(id redoubt.ReleaseID, who redoubt.Credential) int {
	r.view.Lock()
	defer r.view.Unlock()
	x := r.byID[id]
	switch {
	case id == "":
		return len(r.order)
	case x == nil || !who.Working.Dominates(x.set.label):
		return 0
	}
	return x.seq
}

// look gives up to most of the first from releases that are at labels which by dominates, the newest first, and how many older ones are left to
// look at. Those of each label set are in their order: they are merged.
func (r *releases) look(from, most int, by label.Label, which func(*releaseEntry) bool) (some []*releaseEntry, left int) {
	r.view.Lock()
	defer r.view.Unlock()
	var sets [][]*releaseEntry
	for set, all := range r.bySet {
		if by.Dominates(set.label) {
			n, _ := slices.BinarySearchFunc(all, from, func(x *releaseEntry, seq int) int { return cmp.Compare(x.seq, seq) })
			sets = append(sets, all[:n])
		}
	}
	last := func(all []*releaseEntry) int {
		if len(all) == 0 {
			return -1
		}
		return all[len(all)-1].seq
	}
	if len(sets) == 0 {
		return nil, 0
	}
	for len(some) < most {
		newest := 0
		for i := range sets {
			if last(sets[i]) > last(sets[newest]) {
				newest = i
			}
		}
		if from = max(last(sets[newest]), 0); last(sets[newest]) < 0 {
			break
		}
		n := len(sets[newest]) - 1
		if x := sets[newest][n]; which(x) {
			some = append(some, x)
		}
		sets[newest] = sets[newest][:n]
	}
	return some, from
}

// now is a release's state as people see it. releases.view is held.
func (x *releaseEntry) now(at time.Time) redoubt.ReleaseState {
	if stillOpen(x.state) && !at.Before(x.ends) {
		return redoubt.ReleaseDead
	}
	return x.state
}

// shown is a release as people see it now.
func (e *Enclave) shown(r *releaseRecord) redoubt.Release {
	if stillOpen(r.State) && !e.clock().Before(r.Expires) {
		r.State, r.Why = redoubt.ReleaseDead, ruleExpired
	}
	if maybeLeft(r.State, !r.Fetched.IsZero()) {
		r.Why = strings.TrimPrefix(r.Why+"; its guard had it already, and asks "+string(r.To)+" whether it was taken", "; ")
	}
	return r.Release
}

// stillOpen says whether something may yet come of a release.
func stillOpen(s redoubt.ReleaseState) bool {
	return s == redoubt.ReleaseRequested || s == redoubt.ReleaseReview || s == redoubt.ReleaseApproved
}
