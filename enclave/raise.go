package enclave

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"redoubt"
	"redoubt/store"
)

// What is raised keeps its ID, its label and its maker, and the name that its maker signed: reports in unclass. Here it lies under
// ORIGIN.BUCKET, which follows from who made it, so that every node works out the same name: unclass.reports (RULES 2.5).

// realm is the enclave that this node's own content is of: itself, or a device's home.
func (e *Enclave) realm() redoubt.NodeName {
	if home := e.home(); home != "" {
		return home
	}
	return e.name
}

// originOf is the enclave that a maker's content is of. Who is not in the estate is of this one: nobody else is believed about it.
func (e *Enclave) originOf(maker redoubt.NodeName) redoubt.NodeName {
	if o, ok := e.origins[maker]; ok {
		return o
	}
	return e.realm()
}

// foreign says whether a maker's content is of another enclave.
func (e *Enclave) foreign(maker redoubt.NodeName) bool { return e.originOf(maker) != e.realm() }

// localName is the name under which an entry lies here.
func (e *Enclave) localName(maker redoubt.NodeName, n redoubt.ObjectName) redoubt.ObjectName {
	if o := e.originOf(maker); o != e.realm() && n.Bucket != redoubt.SystemBucket && strings.IndexByte(string(n.Bucket), '.') < 0 {
		n.Bucket = redoubt.BucketName(o) + "." + n.Bucket
	}
	return n
}

// guarded says whether an entry is what a guard brought, to this node or to its home: of another enclave, under its name; or released to
// this one, which its own enclave wrote, and nobody's device.
func (e *Enclave) guarded(l redoubt.Link, maker redoubt.NodeName, local redoubt.ObjectName) bool {
	origin, _, dotted := strings.Cut(string(local.Bucket), ".")
	if !dotted || local.Bucket == redoubt.SystemBucket {
		return false
	}
	if e.foreign(maker) {
		return origin == string(e.originOf(maker)) && (l.Raise == redoubt.RaisedHere || e.home() != "")
	}
	return e.home() != "" && maker == e.home() && origin != string(e.home())
}

// raisedWell says whether a raise may bring what a maker made: who stands in the estate, in another enclave than this one.
func (e *Enclave) raisedWell(l redoubt.Link, maker redoubt.NodeName) bool {
	_, known := e.origins[maker]
	return l.Raise != redoubt.RaisedHere || known && e.foreign(maker)
}

// ofAnother says whether what another enclave's node removes or alters was made in a third one, or in this: it might not have come yet,
// and would be gone before it does.
func (e *Enclave) ofAnother(n *incoming) bool {
	if !e.foreign(n.in.Entry.Maker) {
		return false
	}
	own := e.originOf(n.in.Entry.Maker)
	for node, origin := range e.origins {
		if origin != own && n.stampedBy(n.of, node) {
			return true
		}
	}
	return false
}

// raisedMark has who is believed of what a lower enclave raises, by the names of makers.
//
//	m r peer        the keys of makers that a peer told of, JSON
func raisedMark(peer redoubt.NodeName) []byte { return append([]byte{recMark, 'r'}, peer...) }

// RaisedMakers takes a lower enclave's word for the keys of those whose entries it raises: its own, its devices', and what was raised to it.
// It is believed about no maker of this node's own realm. Durable on return.
func (e *Enclave) RaisedMakers(ctx context.Context, peer redoubt.NodeName, makers map[redoubt.NodeName][]ed25519.PublicKey) error {
	l, err := e.link("RaisedMakers", peer)
	if err != nil || l.Raise != redoubt.RaisedHere {
		return errors.Join(err, redoubt.Denied)
	}
	e.links.deviceMu.Lock()
	defer e.links.deviceMu.Unlock()
	kept := map[redoubt.NodeName][]ed25519.PublicKey{}
	was := e.links.raised.Load()
	if was != nil {
		maps.Copy(kept, (*was)[peer]) // what was raised under a key that is no more told of stands
	}
	for name, all := range makers {
		if _, known := e.origins[name]; !known || !e.foreign(name) {
			continue
		}
		for _, k := range all {
			if len(kept[name]) < maxRaisedKeys && !slices.ContainsFunc(kept[name], func(has ed25519.PublicKey) bool { return has.Equal(k) }) {
				kept[name] = append(slices.Clip(kept[name]), k)
			}
		}
	}
	if was != nil && equalMakers((*was)[peer], kept) {
		return nil
	}
	raw, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	b := new(store.Batch)
	b.Set(raisedMark(peer), raw)
	if err := e.commit(ctx, b, nil); err != nil {
		return err
	}
	e.showRaised(peer, kept)
	e.links.altered.wake() // devices are told of them
	return nil
}

// maxRaisedKeys is of how many keys of one maker are believed: each is of a life of its state.
const maxRaisedKeys = 256

func equalMakers(a, b map[redoubt.NodeName][]ed25519.PublicKey) bool {
	return maps.EqualFunc(a, b, func(x, y []ed25519.PublicKey) bool {
		return slices.EqualFunc(x, y, func(p, q ed25519.PublicKey) bool { return p.Equal(q) })
	})
}

func (e *Enclave) showRaised(peer redoubt.NodeName, makers map[redoubt.NodeName][]ed25519.PublicKey) {
	table := map[redoubt.NodeName]map[redoubt.NodeName][]ed25519.PublicKey{}
	if was := e.links.raised.Load(); was != nil {
		maps.Copy(table, *was)
	}
	table[peer] = makers
	e.links.raised.Store(&table)
}

// SetRaises replaces the raises that this node is an end of.
func (e *Enclave) SetRaises(ctx context.Context, all []redoubt.Link) error {
	if err := e.loadRaised(all); err != nil {
		return err
	}
	e.links.deviceMu.Lock()
	defer e.links.deviceMu.Unlock()
	e.links.raises = all
	return e.relink(ctx)
}

// loadRaised reads what was told before.
func (e *Enclave) loadRaised(all []redoubt.Link) error {
	for _, l := range all {
		if l.Raise != redoubt.RaisedHere {
			continue
		}
		raw, ok, err := e.engine.Get(raisedMark(l.Peer))
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		var makers map[redoubt.NodeName][]ed25519.PublicKey
		if err := strictJSON(raw, &makers); err != nil {
			return &redoubt.Error{Op: "enclave.Open", Kind: redoubt.Corrupt, Err: err}
		}
		e.showRaised(l.Peer, makers)
	}
	return nil
}

// raisedKeys are the keys of a maker that came to be known by raises.
func (e *Enclave) raisedKeys(maker redoubt.NodeName) (all []ed25519.PublicKey) {
	told := e.links.raised.Load()
	if told == nil || !e.foreign(maker) {
		return nil
	}
	for _, makers := range *told {
		all = append(all, makers[maker]...)
	}
	return all
}
