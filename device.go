package redoubt

import (
	"context"
	"time"
)

// Invitation lets one device enrol, once, until Expires. The token is shown once; the home keeps a hash of it.
type Invitation struct {
	Device  NodeName  `json:"device"`
	Home    NodeName  `json:"home"`
	Token   string    `json:"token"` // 32 random bytes, base64url
	Expires time.Time `json:"expires"`
}

// InvitationLife is how long a token may be used: as long as carrying it to a device takes.
const InvitationLife = 24 * time.Hour

// EnrolRequest is what a device says to be enrolled. Its keys were made on the device and never leave it.
type EnrolRequest struct {
	Device    NodeName `json:"device"`
	Token     string   `json:"token"`
	Key       string   `json:"key"`       // Ed25519, base64: what the device signs with and proves itself by
	Recipient string   `json:"recipient"` // what bundles for the device are sealed to (keys.Recipient); "": it takes none
	Signature string   `json:"signature"` // of that key over EnrolMessage, base64
}

// Lease lets a device work without its home until it ends. It is signed by the home, and renewed whenever the two meet.
type Lease struct {
	Device    NodeName  `json:"device"`
	Home      NodeName  `json:"home"`
	DeviceKey string    `json:"device_key"`
	HomeKey   string    `json:"home_key"` // that the home signs with and proves itself by
	Issued    time.Time `json:"issued"`
	Expires   time.Time `json:"expires"`
	Signature string    `json:"signature"` // of HomeKey over LeaseMessage, base64
}

// Enrolment is what a device is given when it enrols.
type Enrolment struct {
	Lease Lease `json:"lease"`
	// IDKeys make the opaque IDs and ETags of versions, so that a version has the same ones at the device as at its home.
	IDKeys []byte `json:"id_keys"`
	// Recipient is what bundles for the home are sealed to.
	Recipient string `json:"recipient"`
}

// Neighbour is a device that another device of the same home may meet without it, as the home tells that other device. Each shows its
// lease when they meet: who has none that stands is not met.
type Neighbour struct {
	Device        NodeName       `json:"device"`
	Key           []byte         `json:"key"`
	Recipient     string         `json:"recipient,omitempty"`     // that bundles for it are sealed to
	Bound         string         `json:"bound"`                   // banner: the lower of the two ceilings
	Subscriptions []Subscription `json:"subscriptions,omitempty"` // as the one that is told has them; none: every bucket, both ways
	Addresses     []string       `json:"addresses,omitempty"`     // where it is dialled by the one that is told; none: it dials
	Alike         bool           `json:"alike,omitempty"`         // its range is the other's: what the home tells one it tells the other
}

// MaxNeighbours is how many one device has.
const MaxNeighbours = 16

// Life is how long the lease is, counted in run time by a device that does not know the time.
func (l Lease) Life() time.Duration { return l.Expires.Sub(l.Issued) }

// Device is a device as its home knows it.
type Device struct {
	Name     NodeName  `json:"name"`
	Range    Range     `json:"range"`
	State    string    `json:"state"` // "declared", "invited", "enrolled", "wiping", "wiped" or "revoked"
	Key      string    `json:"key,omitempty"`
	Enrolled time.Time `json:"enrolled,omitzero"`
	Lease    time.Time `json:"lease_expires,omitzero"` // the last one given
	Ended    time.Time `json:"ended,omitzero"`         // revoked or ordered to be wiped
	Reason   string    `json:"reason,omitempty"`
	// WipeUnheard: an order to wipe it was closed by an officer, and never confirmed.
	WipeUnheard bool `json:"wipe_unheard,omitempty"`
}

// The states of a device.
const (
	DeviceDeclared = "declared"
	DeviceInvited  = "invited"
	DeviceEnrolled = "enrolled"
	DeviceWiping   = "wiping"  // to be wiped when it is met, after its sealed work is handed over
	DeviceWiped    = "wiped"   // it confirmed that its root key is gone
	DeviceRevoked  = "revoked" // nothing is taken from it and nothing sent to it any more
)

// DeviceService is a home's devices. Devices are declared in the estate, which two officers sign; one officer invites
// a declared device and ends one. What is told and decided here lies at the node's ceiling.
type DeviceService interface {
	// InviteDevice makes a token. An earlier one of the same device is void. Conflict: it is enrolled; revoke it first.
	InviteDevice(ctx context.Context, who Credential, name NodeName) (Invitation, error)
	// EnrolDevice needs no credential: the token is the proof. It is used up by the first key that comes with it: the same request again
	// gets the same answer until the invitation ends. Denied: the token does not stand, in the same words for one that never did.
	EnrolDevice(ctx context.Context, req EnrolRequest) (Enrolment, error)
	// RenewDevice gives an enrolled device whose lease has ended a new one. Its key is the proof: Token is the
	// signature of the lease that it has, each of which gets another once. Denied: it has ended, or is not one that it may have.
	RenewDevice(ctx context.Context, req EnrolRequest) (Lease, error)
	Devices(ctx context.Context, who Credential) ([]Device, error)
	// EndDevice revokes a device, or orders it to be wiped when it is met: after it handed over its work, or (now) at once.
	// It takes effect before it returns, and there is no way back: a device that is found again is enrolled anew. To revoke one that is
	// to be wiped closes the order, where its confirmation will never come.
	EndDevice(ctx context.Context, who Credential, name NodeName, wipe, now bool, reason string) error
}
