package enclave

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"redoubt"
	"redoubt/label"
	"redoubt/store"
)

// Peers that are met no more may have what they took for good: devices that were revoked, lost or taken out of the estate, and partners whose agreement
// is over. Nothing tells them of an erasure.

// spillLink is a link as a report looks at it: one that is there, or was.
type spillLink struct {
	redoubt.Link
	over  string       // why nothing goes there any more; "": it does
	until time.Time    // when it ended, if that is known: what is newer never went there
	now   redoubt.Link // of one that carries less than it did: what it still carries is another's matter
	mute  bool         // what is acknowledged by its name proves nothing of what it has
	byAck bool         // what it carried is not known any more, but that it acknowledged some of a set
}

const (
	overUnwiped = "the device has ended, and nobody has confirmed that it was wiped: what it holds is behind its lease and its keys"
	overPartner = "it was given to a partner by an agreement that is over: it is not told of the erasure, and whether it is gone there the partner knows"
	overCarried = "the device does not carry it any more: it is not told of the erasure"
	overLink    = "it has no link here any more: it is not told of the erasure"
)

// spillLinks gives the links that are there, and those that were and may have left a copy.
func (e *Enclave) spillLinks() (all []spillLink, err error) {
	now := e.Links()
	for _, l := range now {
		all = append(all, spillLink{Link: l})
	}
	known := func(name redoubt.NodeName) bool {
		_, is := now[name]
		return is
	}
	for _, a := range e.partners.all {
		if a.Takes != nil {
			l := redoubt.Link{Peer: a.Peer, Bound: e.ceiling, Raise: redoubt.RaisedHere, Partner: true}
			for _, b := range a.Takes.Buckets {
				l.Subscriptions = append(l.Subscriptions, redoubt.Subscription{Bucket: partnersBucket(a, b), In: true})
			}
			all = append(all, spillLink{Link: l})
		}
		var made madeRecord
		any, err := e.bundleRecord(madeKey(a.Peer), &made)
		if err != nil {
			return nil, err
		}
		var gives redoubt.Link
		if a.Gives != nil {
			gives = a.link()
		}
		before, err := e.givenBefore(a.Peer, gives)
		if err != nil {
			return nil, err
		}
		all = append(all, before...)
		if !any || a.Gives == nil || known(a.Peer) {
			continue
		}
		l := spillLink{Link: a.link(), over: overPartner, mute: true, until: a.Expires}
		if end, ok := (*e.partners.ended.Load())[a.Name]; ok && a.Serial <= end.Serial && end.At.Before(a.Expires) {
			l.until = end.At.Add(time.Second) // it is kept in whole seconds
		}
		all, now[a.Peer] = append(all, l), l.Link
	}
	gone := map[redoubt.NodeName]bool{}
	e.links.deviceMu.Lock()
	devices := maps.Clone(e.links.devices) // a record is never altered: another takes its place. Nothing is read of the disk with the lock held
	e.links.deviceMu.Unlock()
	for name, r := range devices {
		d, declared := e.links.declared[name]
		l := deviceLink(name, d, r)
		if l, is := now[name]; is && declared {
			before, err := e.carriedBefore(name)
			if err != nil {
				return nil, err
			}
			for _, x := range before {
				x.now = l
				all = append(all, x)
			}
		}
		if declared && !r.Unwiped.IsZero() {
			all = append(all, spillLink{Link: l, over: overUnwiped, mute: true, until: r.Unwiped}) // an enrolment before this one
		}
		switch {
		case known(name) || r.Key == nil:
		case !r.Wiped.IsZero():
			gone[name] = true // its root key is
		case declared:
			all, now[name] = append(all, spillLink{Link: l, over: overUnwiped, until: r.Ended}), l
		}
	}
	peers, err := e.acknowledgers()
	for _, name := range peers {
		if !known(name) && !gone[name] {
			all = append(all, spillLink{Link: redoubt.Link{Peer: name, Bound: e.ceiling}, over: overLink, mute: true, byAck: true})
		}
	}
	return all, err
}

// acknowledgers are the peers that ever acknowledged anything.
func (e *Enclave) acknowledgers() (all []redoubt.NodeName, err error) {
	view := e.engine.View()
	defer view.Close()
	it := view.Scan([]byte{recCursor}, []byte{recCursor + 1})
	defer it.Close()
	for it.Next() {
		name, _, ok := bytes.Cut(it.Key()[1:], []byte{0})
		if peer := redoubt.NodeName(name); ok && (len(all) == 0 || all[len(all)-1] != peer) {
			all = append(all, peer)
		}
	}
	return all, it.Err()
}

// mayCarry says whether a version may have gone there.
func (l *spillLink) mayCarry(e *Enclave, name redoubt.ObjectName, of label.Label, id versionID, acknowledged bool) bool {
	switch {
	case !l.until.IsZero() && time.Unix(0, id.time()).After(l.until.Add(MaxClockAhead)):
		return false
	case l.now.Peer != "" && l.now.Bound.Dominates(of) && e.travels(l.now, name, of, false):
		return false
	case l.byAck:
		return acknowledged && !ownBucket(name.Bucket)
	}
	return e.travels(l.Link, name, of, false)
}

// comesBack says whether all that is written on a device under what it was given comes to its home.
func comesBack(l redoubt.Link) bool {
	return !slices.ContainsFunc(l.Subscriptions, func(s redoubt.Subscription) bool {
		return s.Out && (!s.In || s.Prefix != "" || s.Bound != "" || s.Latest)
	})
}

// carriedRecord is what a device carried, as its estate said, or a partner was given. The last of a device's is of now.
type carriedRecord struct {
	Ceiling string                 `json:"ceiling"` // canonical text
	Carries []redoubt.Subscription `json:"carries,omitempty"`
	Terms   string                 `json:"terms,omitempty"` // of a partner: Agreement.Terms
	Until   time.Time              `json:"until,omitzero"`
}

// b peer s  []carriedRecord, JSON
func carriedKey(peer redoubt.NodeName) []byte { return bundleKey(peer, 's') }

// noteCarried keeps what a device carries, where that is another thing than before: what it had taken by then nobody takes back.
func (e *Enclave) noteCarried(ctx context.Context, name redoubt.NodeName, d DeclaredDevice) error {
	all, changed, err := e.carriedNow(name, d, "")
	if err != nil || !changed {
		return err
	}
	b := new(store.Batch)
	if err := setCarried(b, name, all); err != nil {
		return err
	}
	return e.engine.Commit(ctx, b)
}

func setCarried(b *store.Batch, peer redoubt.NodeName, all []carriedRecord) error {
	raw, err := json.Marshal(all)
	if err != nil {
		return err
	}
	b.Set(carriedKey(peer), raw)
	return nil
}

// carriedNow is what is to be kept where that is another thing than what is.
func (e *Enclave) carriedNow(name redoubt.NodeName, d DeclaredDevice, terms string) (all []carriedRecord, changed bool, err error) {
	ceiling, err := d.Ceiling.MarshalText()
	if err != nil {
		return nil, false, err
	}
	if _, err := e.bundleRecord(carriedKey(name), &all); err != nil {
		return nil, false, err
	}
	is := carriedRecord{Ceiling: string(ceiling), Terms: terms}
	for _, s := range d.Carries {
		s.Limit = label.Label{} // it is compiled anew of Bound
		is.Carries = append(is.Carries, s)
	}
	if n := len(all); n > 0 {
		last := &all[n-1]
		if last.Ceiling == is.Ceiling && last.Terms == is.Terms && slices.Equal(last.Carries, is.Carries) {
			return nil, false, nil
		}
		last.Until = e.clock().UTC()
	}
	return append(all, is), true, nil
}

// carriedBefore gives the links that a device had when it carried something else. A marking that the policy has no more bounds nothing: the device may have
// had all of it.
func (e *Enclave) carriedBefore(name redoubt.NodeName) (out []spillLink, err error) {
	var all []carriedRecord
	if _, err := e.bundleRecord(carriedKey(name), &all); err != nil {
		return nil, err
	}
	for _, x := range all {
		if x.Until.IsZero() {
			continue
		}
		ceiling, err := label.ParseText([]byte(x.Ceiling), e.policy)
		if err != nil {
			ceiling = e.ceiling
		}
		for i, s := range x.Carries {
			if s.Bound == "" {
				continue
			}
			if x.Carries[i].Limit, err = e.policy.Parse(s.Bound); err != nil {
				x.Carries[i].Bound = ""
			}
		}
		l := deviceLink(name, DeclaredDevice{Ceiling: ceiling, Carries: x.Carries}, new(deviceRecord))
		out = append(out, spillLink{Link: l, over: overCarried, mute: true, until: x.Until})
	}
	return out, nil
}
