package redoubt

import (
	"context"
	"time"
)

// LinkStatus is a link as one side sees it. Counts cover the label sets that the asker's working label dominates.
type LinkStatus struct {
	Peer         NodeName    `json:"peer"`
	State        string      `json:"state"` // "up" or "down"
	Cut          bool        `json:"cut,omitempty"`
	Silent       bool        `json:"silent,omitempty"`       // this side is in radio silence: it receives, and sends nothing
	Road         string      `json:"road,omitempty"`         // "udp" or "tcp", while it is up
	LastContact  time.Time   `json:"last_contact,omitzero"`  // to the minute: what came at another label must not show
	Pending      LinkPending `json:"pending"`                // not acknowledged by the peer
	Sent         int64       `json:"sent"`                   // entries acknowledged since this side started
	Received     int64       `json:"received"`               // entries taken since this side started
	RTTMillis    float64     `json:"rtt_ms,omitempty"`       // smoothed; to who dominates the link's bound alone
	BytesPerSec  float64     `json:"bytes_per_s,omitempty"`  // what the road is believed to take, likewise; 0: not known
	LeaseExpires time.Time   `json:"lease_expires,omitzero"` // of the device's lease
}

// LinkPending is what waits.
type LinkPending struct {
	Versions int64 `json:"versions"`
	Bytes    int64 `json:"bytes"`
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
