package enclave

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"time"

	"redoubt"
)

// How a report stands: what of it is proven, by this node's own records and by what peers have acknowledged since. What is not known is not
// proven.

// asItStands brings a report up to now, and signs it.
func (e *Enclave) asItStands(r *spillRecord) (redoubt.SpillReport, error) {
	out := r.SpillReport
	out.As, out.Key = e.clock().UTC().Truncate(time.Second), base64.StdEncoding.EncodeToString(e.links.key)
	out.Copies, out.Peers = slices.Clone(r.Copies), nil
	_, due, err := e.engine.Get(dutyKey(spillDuty + r.ID))
	if err != nil {
		return out, err
	}
	if due && out.Why == "" {
		out.Why = "it is not at its end: the node goes on with it, and there may be copies that are not listed yet"
	}
	out.Proven = out.Why == ""
	for i := range out.Copies {
		c := &out.Copies[i]
		gone, err := e.goneHere(c, r.Found[i])
		if err != nil {
			return out, err
		}
		c.Gone = gone
		out.Proven = out.Proven && (gone || c.Relation == relLater || c.Spared)
		if out.Why == "" && c.Relation == relMayBe && !gone && !c.Spared {
			out.Why = whyMayBe
		}
	}
	links, err := e.spillLinks()
	if err != nil {
		return out, err
	}
	for _, l := range links {
		p, err := e.spillPeer(l, r)
		if err != nil {
			return out, err
		}
		if p == nil {
			continue
		}
		out.Peers = append(out.Peers, *p)
		out.Proven = out.Proven && p.Why == "" && p.Had == p.Gone && p.May == 0
	}
	slices.SortFunc(out.Peers, func(a, b redoubt.SpillPeer) int { return cmp.Compare(a.Node, b.Node) })
	if out.Releases, err = e.spillReleases(r); err != nil {
		return out, err
	}
	if out.Exports, err = e.spillExports(r); err != nil {
		return out, err
	}
	out.Proven = out.Proven && len(out.Releases) == 0 && len(out.Exports) == 0
	sig, err := e.links.sign(redoubt.SpillMessage(out))
	out.Sig = base64.StdEncoding.EncodeToString(sig)
	return out, err
}

// spillReleases gives the releases of what is listed that left, or may have: what two reviewers signed, the guard may carry, and the target may
// have taken it though nothing is heard of it.
func (e *Enclave) spillReleases(r *spillRecord) ([]redoubt.SpillRelease, error) {
	of, out := r.erased(), []redoubt.SpillRelease{}
	for _, c := range r.Copies {
		if c.Relation == relLater || c.Relation == relMayBe && !c.Spared {
			of.add(redoubt.ObjectName{Bucket: c.Bucket, Key: c.Key}, c.Version)
		}
	}
	_, all, err := e.releasesOf(of)
	if err != nil {
		return nil, err
	}
	for _, rel := range all {
		if rel.Statement == nil || rel.Receipt == nil && len(rel.Approvals) < 2 {
			continue
		}
		x := redoubt.SpillRelease{ID: rel.ID, To: rel.To, Bucket: rel.Statement.Bucket, Key: rel.Statement.Key}
		if rel.Receipt == nil {
			x.Why = "it may have left: two reviewers have signed it, and " + string(rel.To) + " has not signed that it took it"
		}
		out = append(out, x)
	}
	return out, nil
}

// spillExports gives the files that what is listed left as.
func (e *Enclave) spillExports(r *spillRecord) (all []redoubt.SpillExport, err error) {
	for i, c := range r.Copies {
		if !r.goes(i) && c.Relation != relLater && (c.Relation != relMayBe || c.Spared) {
			continue
		}
		set, err := e.setNamed(r.Found[i].Set)
		if err != nil {
			return nil, err
		}
		of, err := e.exports(set, c.Version)
		if err != nil {
			return nil, err
		}
		all = append(all, of...)
	}
	return all, nil
}

// goneHere says whether a copy was erased: its record is gone, and nothing is left to do of the erasure of its keys.
func (e *Enclave) goneHere(c *redoubt.SpillCopy, f spillFound) (bool, error) {
	b, err := e.readable("spill", c.Bucket)
	if err != nil || !f.Done && c.Relation != relMayBe {
		return false, nil
	}
	set, err := e.setNamed(f.Set)
	if err != nil {
		return false, err
	}
	mark := "version/"
	if c.Relation == relUpload {
		mark = uploadDuty
		made, err := e.setNamed(f.Made)
		if err != nil {
			return false, err
		}
		if _, open, err := e.engine.Get(uploadKey(b.id, made.id, c.Key, versionID(f.Stamp))); err != nil || open {
			return false, err
		}
	} else if left, err := e.byID(e.engine, b, set.label, c.Key, c.Version); err != nil || left.rec != nil {
		return false, err
	}
	_, due, err := e.engine.Get(dutyKey(mark + hex.EncodeToString(f.Stamp)))
	return !due, err
}

// spillPeer is how far a peer has the copies, and their erasure; nil: none goes there. What is carried there counts as gone by the peer's word
// alone: it acknowledges what it has after it has it, so one that has not said anything may have every copy.
func (e *Enclave) spillPeer(l spillLink, r *spillRecord) (*redoubt.SpillPeer, error) {
	p, carried := &redoubt.SpillPeer{Node: l.Peer}, false
	below := false
	for i, c := range r.Copies {
		f := r.Found[i]
		set, err := e.setNamed(f.Set)
		if err != nil {
			return nil, err
		}
		name := redoubt.ObjectName{Bucket: c.Bucket, Key: c.Key}
		if !r.goes(i) || !l.Bound.Dominates(set.label) {
			continue
		}
		if l.Raise == redoubt.RaisedHere {
			if (c.Maker != e.name || l.Partner) && e.travels(l.Link, name, set.label, true) {
				carried, below = true, true
				p.Had++
				if f.From == l.Peer {
					p.Gone++
				}
			}
			continue
		}
		at, known, err := e.acknowledged(cursorKey(l.Peer, set.name))
		if err != nil {
			return nil, err
		}
		if c.Maker != l.Peer && !l.mayCarry(e, name, set.label, versionID(f.Stamp), known) {
			continue
		}
		carried = true
		gone := f.Done && !l.mute && (f.From == l.Peer || f.Erased > 0 && known && at >= f.Erased)
		switch {
		case gone:
			p.Had, p.Gone = p.Had+1, p.Gone+1
		case c.Maker == l.Peer || f.At == 0 || known && at >= f.At:
			p.Had++
		default:
			p.May++
		}
	}
	switch {
	case !carried:
		return nil, nil
	case below && l.Partner && p.Gone == p.Had:
		p.Why = "it was erased there, and came from there by an agreement: whether copies of it are gone there the partner knows"
	case below && p.Gone == p.Had:
		p.Why = "it was erased there, and nothing goes back: whether copies of it are gone there is seen there"
	case below && l.Partner:
		p.Why = "it came from there by an agreement, and nothing goes back: whether it is gone there the partner knows"
	case below:
		p.Why = "it was raised from there, and nothing goes back: report it there"
	case l.over != "":
		if p.Gone < p.Had || p.May > 0 {
			p.Why = l.over
		}
	case l.Partner:
		p.Why = "it was given to a partner by an agreement, and so is its erasure: whether it is gone there the partner knows"
	case l.Raise == redoubt.RaisedAway:
		p.Why = "what was handed to the guard is above: whether it is gone there is seen there, and nothing comes back: report it there too"
	case l.Ending != redoubt.NotEnding:
		p.Why = "the device has ended: what it holds is behind its lease and its keys"
	case p.Gone < p.Had:
		p.Why = "it has not been met since: the erasure waits for it"
	case p.May > 0:
		p.Why = "it has not been met since, and may have taken it without saying so: the erasure waits for it"
	case e.links.declared[l.Peer].Name == l.Peer && !comesBack(l.Link):
		p.Why = "it is gone there, but what its people copied of it there does not all come here, where it would be found: look there"
	}
	return p, nil
}
