package keys

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"strconv"

	"redoubt"
)

// WrappedBytes is the length of a Wrapped: epoch 4, nonce 12, key 32, tag 16.
const WrappedBytes = 64

// Wrapped is a data key under its label's key of one epoch, as a version's record keeps
// it. It tells the epoch and nothing else. The zero Wrapped opens to nothing.
type Wrapped [WrappedBytes]byte

// Epoch is the epoch that w was wrapped under, unauthenticated until w is opened.
func (w Wrapped) Epoch() uint32 { return binary.BigEndian.Uint32(w[:4]) }

// ring is the immutable picture of the label keys that the hot path reads.
type ring struct{ labels map[string]*labelRing }

type labelRing struct {
	next    uint32
	current *epochKey // nil when the newest epoch was destroyed
	live    map[uint32]*epochKey
}

// epochKey is one label key, ready to use.
type epochKey struct {
	epoch uint32
	raw   *[32]byte
	aead  cipher.AEAD
	aad   []byte
}

// newRing builds the ring of b, taking from old what did not change.
func newRing(b *body, old *ring) (*ring, error) {
	r := &ring{labels: make(map[string]*labelRing, len(b.labels))}
	for text, l := range b.labels {
		lr := &labelRing{next: l.next, live: make(map[uint32]*epochKey, len(l.live))}
		for e, raw := range l.live {
			if old != nil {
				if was := old.labels[text]; was != nil && was.live[e] != nil && was.live[e].raw == raw {
					lr.live[e] = was.live[e]
					continue
				}
			}
			aead, err := newAEAD(raw[:])
			if err != nil {
				return nil, &redoubt.Error{Op: "keys.ring", Err: err}
			}
			aad := append([]byte("redoubt keys wrap v1\x00"), text...)
			lr.live[e] = &epochKey{epoch: e, raw: raw, aead: aead, aad: binary.BigEndian.AppendUint32(aad, e)}
		}
		lr.current = lr.live[l.current()]
		r.labels[text] = lr
	}
	return r, nil
}

// NewDataKey draws a data key for a version under label (its canonical text, 1 to
// MaxLabelBytes bytes) and wraps it under the label's current epoch. The first key of a
// label makes its epoch 1, durably, which takes a few disk syncs; after that it takes no lock.
// An epoch wraps at most 2^32 keys (NIST SP 800-38D): rotate long before.
func (k *Keyring) NewDataKey(label []byte) (DataKey, Wrapped, error) {
	current, err := k.current(label)
	if err != nil {
		return DataKey{}, Wrapped{}, err
	}
	d := DataKey{set: true}
	if err := k.random(d.key[:]); err != nil {
		return DataKey{}, Wrapped{}, err
	}
	return d, current.wrap(&d), nil
}

// DataKey opens w, which was made under label. redoubt.Erased when its epoch was
// destroyed; redoubt.Corrupt when w is not what this keyring made under this label.
func (k *Keyring) DataKey(label []byte, w Wrapped) (DataKey, error) {
	const op = "keys.DataKey"
	r := k.ring.Load()
	if r == nil {
		return DataKey{}, closed(op)
	}
	l, e := r.labels[string(label)], w.Epoch()
	if l == nil || e == 0 || e >= l.next {
		return DataKey{}, corrupt(op, "no such epoch of this label")
	}
	key := l.live[e]
	if key == nil {
		return DataKey{}, &redoubt.Error{Op: op, Kind: redoubt.Erased, Err: errors.New("epoch " + strconv.FormatUint(uint64(e), 10) + " was destroyed")}
	}
	d := DataKey{set: true}
	if _, err := key.aead.Open(d.key[:0], nil, w[4:], key.aad); err != nil {
		return DataKey{}, corrupt(op, "a wrapped key fails authentication")
	}
	return d, nil
}

// Wrap wraps a data key that is at hand under the label's current epoch: for content whose key was drawn before a
// rotation and that is recorded after it. The zero DataKey is redoubt.Invalid.
func (k *Keyring) Wrap(label []byte, d DataKey) (Wrapped, error) {
	if !d.set {
		return Wrapped{}, &redoubt.Error{Op: "keys.Wrap", Kind: redoubt.Invalid, Err: errors.New("no key")}
	}
	current, err := k.current(label)
	if err != nil {
		return Wrapped{}, err
	}
	return current.wrap(&d), nil
}

// Rewrap moves w, made under label, to the label's current epoch: what a rotation does
// to each record before the old epoch is destroyed. What is current already comes back
// unchanged. Errors as DataKey.
func (k *Keyring) Rewrap(label []byte, w Wrapped) (Wrapped, error) {
	current, err := k.current(label)
	if err != nil {
		return Wrapped{}, err
	}
	d, err := k.DataKey(label, w)
	if err != nil {
		return Wrapped{}, err
	}
	if w.Epoch() == current.epoch {
		return w, nil
	}
	defer d.Wipe()
	return current.wrap(&d), nil
}

func (e *epochKey) wrap(d *DataKey) Wrapped {
	var w Wrapped
	binary.BigEndian.PutUint32(w[:4], e.epoch)
	e.aead.Seal(w[4:4], nil, d.key[:], e.aad)
	return w
}

// current is the label's current epoch, made on first use.
func (k *Keyring) current(label []byte) (*epochKey, error) {
	const op = "keys.NewDataKey"
	r := k.ring.Load()
	if r == nil {
		return nil, closed(op)
	}
	if l := r.labels[string(label)]; l != nil && l.current != nil {
		return l.current, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if r = k.ring.Load(); r == nil {
		return nil, closed(op)
	}
	if l := r.labels[string(label)]; l != nil && l.current != nil {
		return l.current, nil // somebody else was first
	}
	if _, err := k.addEpoch(op, label); err != nil {
		return nil, err
	}
	return k.ring.Load().labels[string(label)].current, nil
}

// Rotate begins a new epoch of label, durable on return; keys under older epochs still open.
func (k *Keyring) Rotate(label []byte) (epoch uint32, err error) {
	const op = "keys.Rotate"
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.body == nil {
		return 0, closed(op)
	}
	return k.addEpoch(op, label)
}

// addEpoch begins the next epoch of label. k.mu is held.
func (k *Keyring) addEpoch(op string, label []byte) (uint32, error) {
	if len(label) == 0 || len(label) > MaxLabelBytes {
		return 0, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Err: errors.New("label length")}
	}
	next := k.body.clone()
	l := next.labels[string(label)]
	if l == nil {
		if len(next.labels) >= MaxLabels {
			return 0, &redoubt.Error{Op: op, Kind: redoubt.TooLarge, Err: errors.New("too many labels")}
		}
		l = &labelEpochs{next: 1, live: map[uint32]*[32]byte{}}
		next.labels[string(label)] = l
	}
	if len(l.live) >= MaxEpochs || l.next == 1<<32-1 {
		return 0, &redoubt.Error{Op: op, Kind: redoubt.TooLarge, Err: errors.New("too many epochs"),
			Hint: "re-wrap and destroy old epochs"}
	}
	raw, epoch := new([32]byte), l.next
	if err := k.random(raw[:]); err != nil {
		return 0, err
	}
	l.live[epoch] = raw
	l.next++
	if err := k.change(op, next); err != nil {
		clear(raw[:])
		return 0, err
	}
	return epoch, nil
}

// Labels lists the labels that ever had a key here, in byte order.
func (k *Keyring) Labels() ([]string, error) {
	r := k.ring.Load()
	if r == nil {
		return nil, closed("keys.Labels")
	}
	return sorted(r.labels), nil
}

// Epochs lists the live epochs of label in order, and which is current (0 when none is).
func (k *Keyring) Epochs(label []byte) (live []uint32, current uint32, err error) {
	r := k.ring.Load()
	if r == nil {
		return nil, 0, closed("keys.Epochs")
	}
	l := r.labels[string(label)]
	if l == nil {
		return nil, 0, nil
	}
	if l.current != nil {
		current = l.current.epoch
	}
	return slices.Sorted(maps.Keys(l.live)), current, nil
}

// DestroyEpoch erases for good all that is wrapped under one epoch of label: its key is
// gone from file and memory when it returns (what that means: package comment). Data
// keys already handed out live until their holders drop them. It refuses the current
// epoch with redoubt.Conflict: Rotate and Rewrap first, or DestroyLabel. An epoch
// destroyed before is no error; one never made is redoubt.NotFound.
func (k *Keyring) DestroyEpoch(label []byte, epoch uint32) error {
	const op = "keys.DestroyEpoch"
	return k.destroy(op, label, func(l *labelEpochs) ([]uint32, error) {
		if epoch == 0 || epoch >= l.next {
			return nil, &redoubt.Error{Op: op, Kind: redoubt.NotFound}
		}
		if epoch == l.next-1 && l.live[epoch] != nil {
			return nil, &redoubt.Error{Op: op, Kind: redoubt.Conflict, Err: errors.New("the epoch is current"),
				Hint: "rotate and re-wrap first, or destroy the label"}
		}
		return []uint32{epoch}, nil
	})
}

// DestroyLabel erases for good all that was ever sealed under label, the current epoch
// too. New data under label then begins a new epoch.
func (k *Keyring) DestroyLabel(label []byte) error {
	return k.destroy("keys.DestroyLabel", label, func(l *labelEpochs) ([]uint32, error) {
		return sorted(l.live), nil
	})
}

func (k *Keyring) destroy(op string, label []byte, choose func(*labelEpochs) ([]uint32, error)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.body == nil {
		return closed(op)
	}
	old := k.body.labels[string(label)]
	if old == nil {
		return &redoubt.Error{Op: op, Kind: redoubt.NotFound, Err: errors.New("no key of this label")}
	}
	epochs, err := choose(old)
	if err != nil {
		return err
	}
	next := k.body.clone()
	for _, e := range epochs {
		delete(next.labels[string(label)].live, e)
	}
	// Rewritten even when nothing is left to delete: an earlier try may have failed
	// after the new file was in place and before the old one was overwritten.
	if err := k.change(op, next); err != nil {
		return err
	}
	for _, e := range epochs {
		if raw := old.live[e]; raw != nil {
			clear(raw[:])
		}
	}
	return nil
}
