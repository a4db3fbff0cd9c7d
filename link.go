package redoubt

import (
	"context"
	"time"
)

// LinkStatus is a link as one side sees it. Counts cover the label sets that the asker's working label dominates.
type LinkStatus struct {
	Peer         NodeName     `json:"peer"`
	Home         bool         `json:"home,omitempty"` // at a device: the peer is its home, and no neighbour
	State        string       `json:"state"`          // "up" or "down"
	Cut          bool         `json:"cut,omitempty"`
	Silent       bool         `json:"silent,omitempty"`       // this side is in radio silence: it receives, and sends nothing
	Road         string       `json:"road,omitempty"`         // "udp" or "tcp", while it is up
	LastContact  time.Time    `json:"last_contact,omitzero"`  // to the minute: what came at another label must not show
	Pending      LinkPending  `json:"pending"`                // not acknowledged by the peer
	Sent         int64        `json:"sent"`                   // entries acknowledged in this meeting, or the last
	SentBytes    int64        `json:"sent_bytes"`             // of their content
	UnderWay     int64        `json:"under_way"`              // bytes of content that are on the road, of those that wait
	Progress     float64      `json:"progress,omitempty"`     // of what has waited since nothing did, while it is up: 0 to 1
	Received     int64        `json:"received"`               // entries taken in it
	RTTMillis    float64      `json:"rtt_ms,omitempty"`       // smoothed; to who dominates the link's bound alone
	BytesPerSec  float64      `json:"bytes_per_s,omitempty"`  // what the road is believed to take, likewise; 0: not known
	Budgets      []LinkBudget `json:"budgets,omitempty"`      // where the link has any
	LeaseExpires time.Time    `json:"lease_expires,omitzero"` // of the device's lease
	PeerKey      string       `json:"peer_key,omitempty"`     // Ed25519, base64: what the peer signs its bundles with
}

// LinkPending is what waits.
type LinkPending struct {
	Versions     int64                      `json:"versions"`
	Bytes        int64                      `json:"bytes"`
	ByPrecedence map[Precedence]LinkWaiting `json:"by_precedence,omitempty"` // of those that something waits in
}

// LinkWaiting is what waits in one precedence.
type LinkWaiting struct {
	Versions int64   `json:"versions"`
	Bytes    int64   `json:"bytes"`
	Seconds  float64 `json:"seconds,omitempty"` // until it has been sent, what is more urgent first, at the rate of now; 0: not known
}

// Add counts versions that wait.
func (p *LinkPending) Add(of Precedence, versions, bytes int64) {
	p.Versions += versions
	p.Bytes += bytes
	if p.ByPrecedence == nil {
		p.ByPrecedence = map[Precedence]LinkWaiting{}
	}
	w := p.ByPrecedence[of]
	w.Versions += versions
	w.Bytes += bytes
	p.ByPrecedence[of] = w
}

// Estimate works out how long each precedence takes at a rate; at none it is not known. Of what waits so much is on the road.
func (p *LinkPending) Estimate(bytesPerSec float64, underWay int64) {
	before := -min(underWay, p.Bytes)
	for of := Flash; ; of-- {
		if w, ok := p.ByPrecedence[of]; ok && bytesPerSec > 0 {
			before += w.Bytes
			w.Seconds = max(float64(before), 0) / bytesPerSec
			p.ByPrecedence[of] = w
		}
		if of == Routine {
			return
		}
	}
}

// LinkService is what is told of a node's links, their cutting for exercises, and radio silence.
type LinkService interface {
	LinkStatuses(ctx context.Context, who Credential) ([]LinkStatus, error)
	// CutLink ends the meeting with a peer and keeps another from beginning until it is restored, over restarts too.
	CutLink(ctx context.Context, who Credential, peer NodeName, cut bool) error
	// SilenceLink begins or ends a device's radio silence towards its home, over restarts too: while it lasts the device sends nothing by its
	// link and dials nobody, and what comes by a link that stands is received. Errors beside the decision's: NotFound (no such peer),
	// Invalid (the node is no device: an enclave's sockets serve many).
	SilenceLink(ctx context.Context, who Credential, peer NodeName, silent bool) error
}
