package enclave

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"time"

	"redoubt"
)

// lease signs a lease that begins now, and notes in r when it ends.
func (e *Enclave) lease(name redoubt.NodeName, r *deviceRecord) (redoubt.Lease, error) {
	now := e.clock().UTC().Truncate(time.Millisecond) // two that are given in one second are two
	l := redoubt.Lease{Device: name, Home: e.name, DeviceKey: base64.StdEncoding.EncodeToString(r.Key),
		HomeKey: base64.StdEncoding.EncodeToString(e.links.key), Issued: now, Expires: now.Add(e.links.declared[name].Lease)}
	sig, err := e.links.sign(redoubt.LeaseMessage(l))
	l.Signature = base64.StdEncoding.EncodeToString(sig)
	if r.Last != nil && r.Last.Signature != l.Signature {
		sum := sha256.Sum256([]byte(r.Last.Signature))
		if r.Given = append(slices.Clone(r.Given), sum[:]); len(r.Given) > maxGiven {
			r.Given = r.Given[len(r.Given)-maxGiven:]
		}
	}
	r.Lease, r.Last = l.Expires, &l
	return l, err
}

// maxGiven bounds how many leases a device may have missed: four are given in the life of one, while it is met.
const maxGiven = 16

// RenewLease gives an enrolled device that is met a lease from now on. Denied: it has ended.
func (e *Enclave) RenewLease(ctx context.Context, name redoubt.NodeName) (redoubt.Lease, error) {
	e.links.deviceMu.Lock()
	defer e.links.deviceMu.Unlock()
	r := e.links.device(name)
	if r.Key == nil || !r.Ended.IsZero() {
		return redoubt.Lease{}, &redoubt.Error{Op: "RenewLease", Object: string(name), Kind: redoubt.Denied}
	}
	return e.renew(ctx, name, r, nil)
}

// RenewDevice is RenewLease for a device that is locked and meets nobody; see redoubt.DeviceService. Its request names the lease that
// it has, by its signature. Each gets another lease once: asked again, the home gives the last one that it gave, while that runs. So a
// request that was kept and is sent once more makes no lease.
func (e *Enclave) RenewDevice(ctx context.Context, req redoubt.EnrolRequest) (redoubt.Lease, error) {
	const op = "RenewDevice"
	refused := &redoubt.Error{Op: op, Object: string(req.Device), Kind: redoubt.Denied, Rule: "enrolled-device (4.4)", Hint: "enrol it anew: redoubt device enrol NAME"}
	key, err := base64.StdEncoding.Strict().DecodeString(req.Key)
	sig, sigErr := base64.StdEncoding.Strict().DecodeString(req.Signature)
	l, linked := e.Links()[req.Device]
	if err != nil || sigErr != nil || !linked || !slices.Equal(l.Key, key) || !ed25519.Verify(l.Key, redoubt.EnrolMessage(req), sig) {
		return redoubt.Lease{}, refused
	}
	e.links.deviceMu.Lock()
	defer e.links.deviceMu.Unlock()
	r := e.links.device(req.Device)
	if !slices.Equal(r.Key, key) || !r.Ended.IsZero() {
		return redoubt.Lease{}, refused
	}
	named := sha256.Sum256([]byte(req.Token))
	isNamed := func(sum []byte) bool { return slices.Equal(sum, named[:]) }
	runs := r.Last != nil && e.clock().Before(r.Last.Expires)
	switch {
	case r.Last == nil: // of a record of an earlier version, which kept no lease: once
	case req.Token == r.Last.Signature:
	case slices.ContainsFunc(r.Given, isNamed) && !runs: // it missed those that came after, which have ended too
	case runs && (slices.ContainsFunc(r.Given, isNamed) || isNamed(r.Spent)):
		return *r.Last, nil // what it missed
	default:
		return redoubt.Lease{}, refused
	}
	return e.renew(ctx, req.Device, r, named[:])
}

// renew gives another lease. spent is that of the request which asks for it, nil where the home gives it by itself. deviceMu is held.
func (e *Enclave) renew(ctx context.Context, name redoubt.NodeName, r *deviceRecord, spent []byte) (redoubt.Lease, error) {
	l, err := e.lease(name, r)
	if err != nil {
		return redoubt.Lease{}, err
	}
	if spent != nil {
		r.Given, r.Spent = nil, spent
	}
	ent := e.ownAct(e.ceiling, redoubt.ActionRenewLease, redoubt.ObjectName{})
	ent.Detail = string(name)
	return l, e.keepRecord(ctx, name, r, ent) // nobody else has to look
}

// LeaseEnds is when the last lease that a device was given ends; zero for a peer that is no device of this node.
func (e *Enclave) LeaseEnds(name redoubt.NodeName) time.Time {
	e.links.deviceMu.Lock()
	defer e.links.deviceMu.Unlock()
	if r := e.links.devices[name]; r != nil {
		return r.Lease
	}
	return time.Time{}
}
