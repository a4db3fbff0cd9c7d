package enclave

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"redoubt"
	"redoubt/access"
	"redoubt/keys"
	"redoubt/label"
	"redoubt/store"
)

// DeclaredDevice is a device whose home this node is, as the estate declares it.
type DeclaredDevice struct {
	Name           redoubt.NodeName
	Floor, Ceiling label.Label
	Lease          time.Duration
	Carries        []redoubt.Subscription // In is towards the device
	Budget         map[string]int64       // see redoubt.Link
	Meets          []redoubt.NodeName     // other declared devices that it dials without this node
	Addresses      []string               // where others dial it
}

// kindDevice is the kind of the records of devices.
const kindDevice = "device"

// deviceRecord is a device as its home keeps it.
type deviceRecord struct {
	Invited   time.Time `json:"invited,omitzero"` // until when the token may be used
	Token     []byte    `json:"token,omitempty"`  // its SHA-256
	Key       []byte    `json:"key,omitempty"`
	Recipient string    `json:"recipient,omitempty"` // that bundles for it are sealed to
	OldKeys   [][]byte  `json:"old_keys,omitempty"`  // of enrolments that ended: what was made under them stays genuine

	Enrolled time.Time      `json:"enrolled,omitzero"`
	First    *redoubt.Lease `json:"first,omitempty"` // that it enrolled with: the answer to who asks the same again
	Lease    time.Time      `json:"lease,omitzero"`  // when the last one given ends
	Last     *redoubt.Lease `json:"last,omitempty"`  // the last one given
	Given    [][]byte       `json:"given,omitempty"` // SHA-256 of the signatures of those before it that the device may have stopped at
	Spent    []byte         `json:"spent,omitempty"` // of the one that the last request for another named
	Ended    time.Time      `json:"ended,omitzero"`
	Wipe     bool           `json:"wipe,omitempty"`
	WipeNow  bool           `json:"wipe_now,omitempty"`
	Revoked  bool           `json:"revoked,omitempty"` // nothing is taken from it, whatever was ordered since
	Wiped    time.Time      `json:"wiped,omitzero"`
	Unheard  bool           `json:"unheard,omitempty"` // an officer closed an order to wipe that nobody confirmed
	Reason   string         `json:"reason,omitempty"`
	Unwiped  time.Time      `json:"unwiped,omitzero"` // when the last enrolment ended of which nobody confirmed that it was wiped, and after which came another
}

func (r *deviceRecord) state(now time.Time) string {
	switch {
	case !r.Wiped.IsZero():
		return redoubt.DeviceWiped
	case !r.Ended.IsZero() && r.Wipe:
		return redoubt.DeviceWiping
	case !r.Ended.IsZero():
		return redoubt.DeviceRevoked
	case r.Key != nil:
		return redoubt.DeviceEnrolled
	case r.Token != nil && now.Before(r.Invited):
		return redoubt.DeviceInvited
	}
	return redoubt.DeviceDeclared
}

// meets says whether the device is still met: one that is to be wiped is, until it is.
func (r *deviceRecord) meets() bool {
	return r.Key != nil && (r.Ended.IsZero() || r.Wipe && r.Wiped.IsZero())
}

// ending is what still passes over its link.
func (r *deviceRecord) ending() redoubt.Ending {
	switch {
	case r.Ended.IsZero():
		return redoubt.NotEnding
	case r.Wipe && !r.WipeNow && !r.Revoked:
		return redoubt.TakeOnly
	}
	return redoubt.NotesOnly
}

// loadDevices reads the records and makes links of them.
func (e *Enclave) loadDevices(ctx context.Context, declared []DeclaredDevice) error {
	e.links.declared, e.links.devices = map[redoubt.NodeName]DeclaredDevice{}, map[redoubt.NodeName]*deviceRecord{}
	for _, d := range declared {
		e.links.declared[d.Name] = d
	}
	err := e.Records(ctx, kindDevice, func(name string, value []byte) error {
		r := new(deviceRecord)
		if err := strictJSON(value, r); err != nil {
			return &redoubt.Error{Op: "device", Object: name, Kind: redoubt.Corrupt, Err: err}
		}
		e.links.devices[redoubt.NodeName(name)] = r
		return nil
	})
	if err != nil {
		return err
	}
	return e.relink(ctx)
}

// voice is what is taken by of a device, declared or not: its keys, of which at most one has not ended.
type voice struct{ live, ended []ed25519.PublicKey }

// voices are those of all devices that this node has or ever had. It waits for nobody.
func (e *Enclave) voices() map[redoubt.NodeName]voice {
	if v := e.links.voices.Load(); v != nil {
		return *v
	}
	return nil
}

// voicesOf works them out. A key has ended with the enrolment that it was of, and with the declaration. deviceMu is held.
func (l *links) voicesOf() map[redoubt.NodeName]voice {
	out := map[redoubt.NodeName]voice{}
	for name := range l.declared {
		out[name] = voice{}
	}
	for name, r := range l.devices {
		var v voice
		for _, k := range r.OldKeys {
			v.ended = append(v.ended, k)
		}
		if _, declared := l.declared[name]; declared && r.Ended.IsZero() && r.Key != nil {
			v.live = append(v.live, r.Key)
		} else if r.Key != nil {
			v.ended = append(v.ended, r.Key)
		}
		out[name] = v
	}
	return out
}

// relink makes the table of links from what is declared and enrolled, and tells who meets peers.
func (e *Enclave) relink(ctx context.Context) error {
	voices := e.links.voicesOf()
	e.links.voices.Store(&voices)
	if err := e.noteTerms(ctx); err != nil {
		return err
	}
	all := slices.Concat(e.links.fixed, e.links.raises, e.partnerLinks(), e.links.neighbours)
	for name, d := range e.links.declared {
		r := e.links.devices[name]
		if r == nil || !r.meets() {
			continue
		}
		all = append(all, deviceLink(name, d, r))
		if err := e.noteCarried(ctx, name, d); err != nil {
			return err
		}
	}
	if err := e.SetLinks(ctx, all); err != nil {
		return err
	}
	e.links.altered.wake()
	return nil
}

// deviceLink is the link of a device as its home has it.
func deviceLink(name redoubt.NodeName, d DeclaredDevice, r *deviceRecord) redoubt.Link {
	l := redoubt.Link{Peer: name, Key: r.Key, Recipient: r.Recipient, Bound: d.Ceiling, Budget: d.Budget, Ending: r.ending()}
	for _, s := range d.Carries { // from the home's side what goes to the device goes out
		s.In, s.Out = s.Out, s.In
		l.Subscriptions = append(l.Subscriptions, s)
	}
	return l
}

// Links gives the peers that are to be met.
func (e *Enclave) Links() map[redoubt.NodeName]redoubt.Link {
	if t := e.links.table.Load(); t != nil {
		return maps.Clone(*t)
	}
	return nil
}

// LinksChanged gives a channel that is closed when the table of links changes after the call.
func (e *Enclave) LinksChanged() <-chan struct{} { return e.links.altered.wait() }

// officerOn decides and records what an officer does with devices.
func (e *Enclave) officerOn(ctx context.Context, who redoubt.Credential, op string, action redoubt.Action, name redoubt.NodeName) (*entry, DeclaredDevice, error) {
	entry, err := e.decide(ctx, ask{op: op, who: who, action: action, detail: string(name)})
	if err != nil {
		return nil, DeclaredDevice{}, err
	}
	d, ok := e.links.declared[name]
	if !ok {
		return nil, d, e.noted(ctx, entry, &redoubt.Error{Op: op, Object: string(name), Kind: redoubt.NotFound,
			Hint: "declare it in the estate: a node of kind device with this enclave as its home"})
	}
	return entry, d, nil
}

// InviteDevice makes a token; see redoubt.DeviceService.
func (e *Enclave) InviteDevice(ctx context.Context, who redoubt.Credential, name redoubt.NodeName) (redoubt.Invitation, error) {
	const op = "InviteDevice"
	entry, _, err := e.officerOn(ctx, who, op, redoubt.ActionInviteDevice, name)
	if err != nil {
		return redoubt.Invitation{}, err
	}
	e.links.deviceMu.Lock()
	defer e.links.deviceMu.Unlock()
	r := e.links.device(name)
	if r.meets() {
		return redoubt.Invitation{}, e.noted(ctx, entry, &redoubt.Error{Op: op, Object: string(name), Kind: redoubt.Conflict, Hint: "it is enrolled: redoubt device revoke, if it is to be enrolled anew"})
	}
	token := make([]byte, 32)
	rand.Read(token)
	inv := redoubt.Invitation{Device: name, Home: e.name, Token: base64.RawURLEncoding.EncodeToString(token), Expires: e.clock().Add(redoubt.InvitationLife).UTC()}
	sum := sha256.Sum256([]byte(inv.Token))
	r.Token, r.Invited, r.First = sum[:], inv.Expires, nil
	return inv, e.keepDevice(ctx, name, r, entry)
}

// device is a copy of a device's record. deviceMu is held.
func (l *links) device(name redoubt.NodeName) *deviceRecord {
	r := new(deviceRecord)
	if was := l.devices[name]; was != nil {
		*r = *was
	}
	return r
}

// keepDevice keeps a record of which the links follow. deviceMu is held.
func (e *Enclave) keepDevice(ctx context.Context, name redoubt.NodeName, r *deviceRecord, entry *entry) error {
	if err := e.keepRecord(ctx, name, r, entry); err != nil {
		return err
	}
	return e.relink(context.WithoutCancel(ctx)) // it is on record: whoever asked may be gone
}

// keepRecord makes a record durable with its audit entry, then effective. deviceMu is held.
func (e *Enclave) keepRecord(ctx context.Context, name redoubt.NodeName, r *deviceRecord, entry *entry) error {
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	b := new(store.Batch)
	if err := e.putRecord(ctx, b, kindDevice, string(name), value); err != nil {
		return err
	}
	if err := e.commit(ctx, b, entry); err != nil {
		return err
	}
	e.links.devices[name] = r
	return nil
}

// EnrolDevice gives a device its first lease, and the same one to who asks the same again with the same key, until the invitation
// ends: an answer may be lost. Whatever is wrong with the token is one answer.
func (e *Enclave) EnrolDevice(ctx context.Context, req redoubt.EnrolRequest) (redoubt.Enrolment, error) {
	const op = "EnrolDevice"
	refused := &redoubt.Error{Op: op, Object: string(req.Device), Kind: redoubt.Denied, Rule: "one-time-token (4.1)", Hint: "ask an officer of the home for a fresh one: redoubt device enrol NAME"}
	who := redoubt.Credential{ID: linkCredential, Subject: access.LinkSubject(req.Device), Working: e.floor}
	entry := e.describe(ctx, ask{op: op, who: who, action: redoubt.ActionEnrolDevice, detail: string(req.Device)}, false, refused.Rule)
	e.links.deviceMu.Lock()
	defer e.links.deviceMu.Unlock()
	r := e.links.device(req.Device)
	sum := sha256.Sum256([]byte(req.Token))
	key, err := base64.StdEncoding.Strict().DecodeString(req.Key)
	sig, sigErr := base64.StdEncoding.Strict().DecodeString(req.Signature)
	good := subtle.ConstantTimeCompare(sum[:], r.Token) == 1 && e.clock().Before(r.Invited) && err == nil && sigErr == nil &&
		len(key) == ed25519.PublicKeySize && ed25519.Verify(key, redoubt.EnrolMessage(req), sig)
	if _, err := keys.ParseRecipient(req.Recipient); err != nil && req.Recipient != "" {
		good = false
	}
	again := good && r.First != nil && r.Ended.IsZero() && slices.Equal(key, r.Key) && req.Recipient == r.Recipient
	if _, declared := e.links.declared[req.Device]; !declared || !good || !again && (r.First != nil || e.keyTaken(key)) {
		return redoubt.Enrolment{}, refused // whoever it was: failures to authenticate are recorded together (RULES 6)
	}
	entry.Allow, entry.Rule = true, refused.Rule
	id, err := e.BundleIdentity()
	if err != nil {
		return redoubt.Enrolment{}, e.noted(ctx, entry, err)
	}
	out := redoubt.Enrolment{IDKeys: slices.Clone(e.idKeys), Recipient: id.Recipient().String()}
	if again { // the answer was lost
		out.Lease = *r.First
		entry.Detail += " again"
		return out, e.record(ctx, entry)
	}
	if r.Key != nil {
		r.OldKeys = append(slices.Clone(r.OldKeys), r.Key)
		if r.Wiped.IsZero() {
			r.Unwiped = r.Ended
		}
	}
	*r = deviceRecord{Token: r.Token, Invited: r.Invited, Key: key, Recipient: req.Recipient, OldKeys: r.OldKeys, Enrolled: e.clock().UTC(), Unwiped: r.Unwiped}
	if out.Lease, err = e.lease(req.Device, r); err != nil {
		return redoubt.Enrolment{}, e.noted(ctx, entry, err)
	}
	r.First = r.Last
	return out, e.keepDevice(ctx, req.Device, r, entry)
}

// keyTaken says whether a key is, or was, another's: every device has one of its own, for each enrolment.
func (e *Enclave) keyTaken(key []byte) bool {
	if slices.Equal(key, e.links.key) {
		return true
	}
	for _, keys := range e.links.known() {
		for _, k := range keys {
			if slices.Equal(k, key) {
				return true
			}
		}
	}
	return false
}

// known is every key of every device that ever was enrolled here.
func (l *links) known() map[redoubt.NodeName][]ed25519.PublicKey {
	out := map[redoubt.NodeName][]ed25519.PublicKey{}
	for name, v := range l.voicesOf() {
		if all := slices.Concat(v.ended, v.live); len(all) > 0 {
			out[name] = all
		}
	}
	return out
}

// Devices lists what is declared and what became of it.
func (e *Enclave) Devices(ctx context.Context, who redoubt.Credential) ([]redoubt.Device, error) {
	entry, err := e.decide(ctx, ask{op: "Devices", who: who, action: redoubt.ActionListDevices})
	if err != nil {
		return nil, err
	}
	e.links.deviceMu.Lock()
	defer e.links.deviceMu.Unlock()
	out := []redoubt.Device{}
	for _, name := range slices.Sorted(maps.Keys(e.links.declared)) {
		d, r := e.links.declared[name], e.links.device(name)
		out = append(out, redoubt.Device{Name: name, Range: redoubt.Range{Floor: d.Floor.Banner(), Ceiling: d.Ceiling.Banner()}, State: r.state(e.clock()),
			Key: base64.StdEncoding.EncodeToString(r.Key), Enrolled: r.Enrolled, Lease: r.Lease, Ended: r.Ended, Reason: r.Reason, WipeUnheard: r.Unheard})
	}
	return out, e.noteRead(ctx, entry)
}

// EndDevice revokes a device or orders it to be wiped; it takes effect before it returns. Revoking one that is to be wiped closes the
// order: what became of it is not known, and that stays on record.
func (e *Enclave) EndDevice(ctx context.Context, who redoubt.Credential, name redoubt.NodeName, wipe, now bool, reason string) error {
	const op = "EndDevice"
	entry, _, err := e.officerOn(ctx, who, op, redoubt.ActionEndDevice, name)
	if err != nil {
		return err
	}
	if len(reason) > maxReason {
		return e.noted(ctx, entry, &redoubt.Error{Op: op, Kind: redoubt.TooLarge, Hint: "a reason has at most 1024 bytes"})
	}
	e.links.deviceMu.Lock()
	defer e.links.deviceMu.Unlock()
	r := e.links.device(name)
	r.Token, r.Invited = nil, time.Time{}
	if r.Key == nil && !wipe {
		return e.keepDevice(ctx, name, r, entry) // an invitation ends
	}
	if r.Key == nil {
		return e.noted(ctx, entry, &redoubt.Error{Op: op, Object: string(name), Kind: redoubt.Conflict, Hint: "it is not enrolled"})
	}
	if r.Ended.IsZero() {
		r.Ended = e.clock().UTC()
	}
	r.Unheard = !wipe && (r.Unheard || r.Wipe && r.Wiped.IsZero())
	r.Wipe, r.WipeNow, r.Revoked, r.Reason = wipe, wipe && now, r.Revoked || !wipe, reason
	switch {
	case wipe:
		entry.Detail += " wipe"
	case r.Unheard:
		entry.Detail += " wipe closed, not confirmed"
	}
	return e.keepDevice(ctx, name, r, entry)
}

const maxReason = 1024

// WipeOrdered says whether a device that is met is to be wiped, and whether before it has handed over its work.
func (e *Enclave) WipeOrdered(name redoubt.NodeName) (wipe, now bool) {
	e.links.deviceMu.Lock()
	defer e.links.deviceMu.Unlock()
	r := e.links.devices[name]
	return r != nil && r.Wipe && r.Wiped.IsZero(), r != nil && r.WipeNow
}

// DeviceWiped notes that a device said that its root key is gone.
func (e *Enclave) DeviceWiped(ctx context.Context, name redoubt.NodeName) error {
	e.links.deviceMu.Lock()
	defer e.links.deviceMu.Unlock()
	r := e.links.device(name)
	if !r.Wipe {
		return errors.New("nobody asked for it")
	}
	r.Wiped = e.clock().UTC()
	ent := e.ownAct(e.ceiling, redoubt.ActionEndDevice, redoubt.ObjectName{})
	ent.Detail = string(name) + " wiped"
	return e.keepDevice(ctx, name, r, ent)
}

// endedMakers is the name under which Makers has the keys that have ended. No node has it.
const endedMakers = redoubt.NodeName("")

// Makers is the keys of everybody whose entries this node may pass on: its own, and its devices'. Those of devices that have ended are
// once more under no name: what one device gets of another under them is taken from this node alone.
func (e *Enclave) Makers() map[redoubt.NodeName][]ed25519.PublicKey {
	e.links.deviceMu.Lock()
	defer e.links.deviceMu.Unlock()
	out := e.links.known()
	if told := e.links.raised.Load(); told != nil {
		for _, makers := range *told {
			for name, all := range makers {
				out[name] = append(out[name], all...)
			}
		}
	}
	out[e.name] = append(out[e.name], e.links.key)
	voices := e.links.voicesOf()
	for _, name := range slices.Sorted(maps.Keys(voices)) {
		if ended := voices[name].ended; len(ended) > 0 {
			out[endedMakers] = append(out[endedMakers], ended...)
		}
	}
	return out
}

// SetMakers takes a home's word for the keys of its other devices, whose entries it passes on. A key that was said to have ended before
// has, though the word comes late and is an older one. It gives what stands, for the caller to keep over restarts.
func (e *Enclave) SetMakers(makers map[redoubt.NodeName][]ed25519.PublicKey) map[redoubt.NodeName][]ed25519.PublicKey {
	e.links.deviceMu.Lock()
	defer e.links.deviceMu.Unlock()
	stands := make(map[redoubt.NodeName][]ed25519.PublicKey, len(makers)+1)
	maps.Copy(stands, makers)
	if was := e.links.makers.Load(); was != nil {
		for _, k := range (*was)[endedMakers] {
			if !slices.ContainsFunc(stands[endedMakers], func(has ed25519.PublicKey) bool { return has.Equal(k) }) {
				stands[endedMakers] = append(slices.Clip(stands[endedMakers]), k)
			}
		}
	}
	e.links.makers.Store(&stands)
	return stands
}
