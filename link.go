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
	Road         string      `json:"road,omitempty"`         // "udp" or "tcp", while it is up
	LastContact  time.Time   `json:"last_contact,omitzero"`  // to the minute: what came at another label must not show
	Pending      LinkPending `json:"pending"`                // not acknowledged by the peer
	Sent         int64       `json:"sent"`                   // entries acknowledged since this side started
	Received     int64       `json:"received"`               // entries taken since this side started
	RTTMillis    float64     `json:"rtt_ms,omitempty"`       // smoothed; to who dominates the link's bound alone
	BytesPerSec  float64     `json:"bytes_per_s,omitempty"`  // what the road is believed to take, likewise; 0: not known
	LeaseExpires time.Time   `json:"lease_expires,omitzero"` // of the device's lease
	PeerKey      string      `json:"peer_key,omitempty"`     // Ed25519, base64: what the peer signs its bundles with
}

// LinkPending is what waits.
type LinkPending struct {
	Versions int64 `json:"versions"`
	Bytes    int64 `json:"bytes"`
}

// LinkService is what is told of a node's links, and their cutting for exercises.
type LinkService interface {
	LinkStatuses(ctx context.Context, who Credential) ([]LinkStatus, error)
	// CutLink ends the meeting with a peer and keeps another from beginning until it is restored, over restarts too.
	CutLink(ctx context.Context, who Credential, peer NodeName, cut bool) error
}
