package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"redoubt"
)

// Record is one fact as it is kept: a system record of the node. Kind and Name together are its key; a later
// record of the same key replaces an earlier one. Value is canonical JSON; nil says that the record is no more, which
// only credentials come to.
type Record struct {
	Kind, Name string
	Value      []byte
}

// The kinds of records that this package writes and loads.
const (
	KindPerson     = "person"     // name: SUBJECT/CHANGE; one for every change that took effect
	KindCredential = "credential" // name: access key ID
	KindGrant      = "grant"      // name: grant ID
	KindChange     = "change"     // name: change ID
	KindRevocation = "revocation" // name: KIND/NAME of what is revoked
)

// Kinds lists them.
func Kinds() []string {
	return []string{KindPerson, KindCredential, KindGrant, KindChange, KindRevocation}
}

// MaxRecordBytes bounds one record. The largest is a change with a person, MaxRolesPerPerson and MaxSignatures.
const MaxRecordBytes = 32 << 10

// personRecord is a person as a change that took effect left it. It keeps the signed change, so that the
// right to it can be verified from the record alone.
type personRecord struct {
	Change    redoubt.Change                         `json:"change"`
	Effective time.Time                              `json:"effective"`
	GrantedBy map[redoubt.Role][]redoubt.SubjectName `json:"granted_by"`
}

// credentialRecord is a credential without its secrets.
type credentialRecord struct {
	ID      string              `json:"id"`
	Subject redoubt.SubjectName `json:"subject"`
	Label   string              `json:"label"` // label.MarshalText of the working label
	Issued  time.Time           `json:"issued"`
	Expires time.Time           `json:"expires"`
	Key     string              `json:"key"`   // public key that signed for it, base64
	Nonce   string              `json:"nonce"` // digest of the request, base64url; so that it stays used over a restart
	Life    int                 `json:"life,omitempty"`
}

// changeRecord is a change with the signatures that it has.
type changeRecord struct {
	Change    redoubt.Change `json:"change"`
	Effective time.Time      `json:"effective,omitzero"` // zero: it lacks a signature
}

// revocationRecord says that something is revoked, for good.
type revocationRecord struct {
	Kind   string              `json:"kind"`
	Name   string              `json:"name"`
	By     redoubt.SubjectName `json:"by"`
	Reason string              `json:"reason,omitempty"`
	At     time.Time           `json:"at"`
}

// encode makes a record of v.
func encode(kind, name string, v any) Record {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("identity: a record of plain fields does not encode: %v", err))
	}
	return Record{Kind: kind, Name: name, Value: b}
}

// decode reads a record's value into v. A record is exactly the bytes that its content encodes to: so an
// unknown field, a duplicate key, other spacing or a trailing byte is an error.
func decode(rec Record, v any) error {
	if len(rec.Value) > MaxRecordBytes {
		return errors.New("record too large")
	}
	if err := json.Unmarshal(rec.Value, v); err != nil {
		return err
	}
	if again, err := json.Marshal(v); err != nil || !bytes.Equal(again, rec.Value) {
		return errors.New("not the canonical encoding of its content")
	}
	return nil
}

// Load takes one record at start. It fails on any that this package would not have written.
func (r *Registry) Load(rec Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := errors.New("a record without a value")
	if rec.Value != nil {
		err = r.take(rec)
	}
	if err != nil {
		return &redoubt.Error{Op: "identity.Load", Object: rec.Kind + " " + rec.Name, Kind: redoubt.Corrupt, Err: err}
	}
	return nil
}

// Apply makes records that a mutation returned take effect, once they are durable. What they revoke is
// refused from before it returns. It panics on records that no mutation returned.
func (r *Registry) Apply(recs ...Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range recs {
		if err := r.take(rec); err != nil {
			panic(fmt.Sprintf("identity: applying %s: %v", rec.Kind, err))
		}
	}
}

// take applies one record; r.mu is held. Records may come in any order, and more than once.
func (r *Registry) take(rec Record) error {
	switch rec.Kind {
	case KindPerson:
		return r.takePerson(rec)
	case KindCredential:
		return r.takeCredential(rec)
	case KindGrant:
		return r.takeGrant(rec)
	case KindChange:
		return r.takeChange(rec)
	case KindRevocation:
		return r.takeRevocation(rec)
	case KindProjection:
		return r.takeProjection(rec, true)
	}
	return errors.New("unknown kind of record")
}
