package redoubt

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// MintMessage is what a subject signs for a MintRequest: a domain line and the
// canonical JSON of the request without its signature.
func MintMessage(r MintRequest) []byte {
	r.Signature = ""
	return message("redoubt mint v1", r)
}

// ChangeMessage is what officers sign for a Change: everything but ID, signatures and state.
func ChangeMessage(c Change) []byte {
	c.ID, c.Signatures, c.State = "", nil, ""
	return message("redoubt change v1", c)
}

// ChangeID is the hex SHA-256 over ChangeMessage.
func ChangeID(c Change) string {
	sum := sha256.Sum256(ChangeMessage(c))
	return hex.EncodeToString(sum[:])
}

// EnrolMessage is what a device signs to be enrolled.
func EnrolMessage(r EnrolRequest) []byte {
	r.Signature = ""
	return message("redoubt enrol v1", r)
}

// LeaseMessage is what a home signs for a lease.
func LeaseMessage(l Lease) []byte {
	l.Signature = ""
	return message("redoubt lease v1", l)
}

func message(domain string, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("redoubt: a message of plain fields does not encode: %v", err))
	}
	return append([]byte(domain+"\n"), b...)
}
