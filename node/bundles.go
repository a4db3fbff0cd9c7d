package node

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"redoubt"
	"redoubt/enclave"
	"redoubt/estate"
	"redoubt/replica"
)

// stageDir holds bundles while they are imported, sealed as they came and without a name.
const stageDir = "incoming"

// bundles joins what exchanges journals by file. A file goes where a link is cut, too: who carries it decided so.
func (n *Node) bundles(e *estate.Estate, cloud *enclave.Enclave) (*replica.Bundles, error) {
	dir := filepath.Join(n.dir, stageDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, &redoubt.Error{Op: "node.bundles", Object: dir, Err: cause(err)}
	}
	return replica.NewBundles(replica.BundleOptions{Estate: e.Name, Node: n.name, Policy: e.MarkingPolicy(), Journal: cloud, State: cloud, Ledger: cloud, Tickets: cloud,
		Identity: cloud.BundleIdentity, Sign: cloud.SignBundle, Raises: cloud, Clock: cloud.Now, Stage: dir, Notes: n.peers.notes, Noted: n.peers.notedByFile, Log: n.log}), nil
}

// notes is what a home says to its device in a bundle: a lease that begins now, and whom to believe. An order to be wiped is
// told when the device is met: it must first hand over its work.
func (p *peers) notes(ctx context.Context, peer redoubt.NodeName) ([]replica.Note, error) {
	if p.device != nil {
		return nil, nil
	}
	if p.cloud.Links()[peer].Raise != redoubt.NoRaise {
		return p.raisedNotes()
	}
	makers, err := p.makersNotes()
	if err != nil {
		return nil, err
	}
	var out []replica.Note
	for _, body := range makers {
		out = append(out, replica.Note{Kind: noteMakers, Body: body})
	}
	neighbours, _ := p.neighboursOf(peer)
	out = append(out, replica.Note{Kind: noteNeighbours, Body: neighbours})
	lease, err := p.cloud.RenewLease(ctx, peer)
	if errors.Is(err, redoubt.Denied) {
		return out, nil // it has ended: it gets no further lease
	}
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(lease)
	return append(out, replica.Note{Kind: noteLease, Body: body}), err
}

// notedByFile takes what a home said in a bundle.
func (p *peers) notedByFile(ctx context.Context, peer redoubt.NodeName, n replica.Note) error {
	if p.device == nil && n.Kind == noteMakers && p.cloud.Links()[peer].Raise == redoubt.RaisedHere {
		return p.raisedSaid(ctx, peer, n)
	}
	if p.device == nil || peer != p.device.home {
		return nil
	}
	return p.device.told(ctx, p, n.Kind, n.Body)
}
