package redoubt

import (
	"errors"
	"strings"
)

// Kind says what sort of failure an Error is. A Kind is itself an error, so that
// errors.Is(err, redoubt.NotFound) asks the question a caller has. Only the Kind
// ever reaches a client, through one exhaustive table in each front end.
type Kind uint8

// The kinds of failure. The zero Kind is Internal: an error that nobody
// classified is never shown as anything milder.
const (
	Internal         Kind = iota // a fault of ours; the caller may try again
	NotFound                     // no such thing, or nothing that the subject may know of
	Denied                       // the reference monitor refused, and the subject may know why
	Unauthenticated              // no credential, or one that does not verify
	Expired                      // the credential was good and is past its time
	Invalid                      // the request is malformed
	TooLarge                     // a limit on what arrives was passed
	Exists                       // the name is taken, and the subject may know so
	Conflict                     // another change won; read again and retry
	PreconditionFail             // a condition of the request (If-Match and the like) does not hold
	NotModified                  // a condition says that the reader has it already
	RangeInvalid                 // the byte range lies outside the object
	NotEmpty                     // a bucket still shows its caller something
	Locked                       // retention or legal hold forbids the change
	QuotaExceeded                // the share of this label is used up
	DiskFull                     // the reserve of the disk is reached; nothing was written
	Erased                       // the key was destroyed; the content is gone for good
	Corrupt                      // stored bytes failed authentication
	Unavailable                  // starting, stopping, or cut off; try again later
	NotImplemented               // understood, and not offered
	BadDigest                    // the content does not match the digest that came with it
	NoBucket                     // no bucket of that name; names of buckets are known to every credential of a node
	MethodNotAllowed             // the thing exists and does not support this operation (a GET of a delete marker)
)

var kindText = [...]string{
	Internal: "internal error", NotFound: "not found", Denied: "refused by policy",
	Unauthenticated: "not authenticated", Expired: "credential expired", Invalid: "invalid request",
	TooLarge: "too large", Exists: "already exists", Conflict: "conflicting change",
	PreconditionFail: "precondition failed", NotModified: "not modified", RangeInvalid: "range not satisfiable",
	NotEmpty: "not empty", Locked: "locked by retention or legal hold", QuotaExceeded: "quota of this label exceeded",
	DiskFull: "disk reserve reached", Erased: "crypto-erased", Corrupt: "failed authentication on disk",
	Unavailable: "unavailable", NotImplemented: "not implemented", BadDigest: "digest mismatch",
	NoBucket:         "no such bucket",
	MethodNotAllowed: "method not allowed",
}

// Kinds returns every Kind, for tables that must be exhaustive.
func Kinds() []Kind {
	all := make([]Kind, len(kindText))
	for i := range all {
		all[i] = Kind(i)
	}
	return all
}

// Error makes a Kind an error, so that errors.Is(err, NotFound) works.
func (k Kind) Error() string {
	if int(k) >= len(kindText) {
		return kindText[Internal]
	}
	return kindText[k]
}

// Error is the one error type that crosses a package border.
type Error struct {
	Op     string // the operation: "PutObject", "keys.Open"
	Object string // what it was about; never shown to whom may not know of it
	Kind   Kind
	Rule   string // for Denied: the rule that refused, safe to show to who may know the object exists
	Hint   string // what to do next, for people
	Err    error  // the cause, for logs at the right level; never for clients

	// Marker is for NotFound: the delete marker that is the reason, one that the caller dominates.
	Marker VersionID
}

// Error renders operation, object, kind and cause for logs and the command line.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op + ": ")
	}
	if e.Object != "" {
		b.WriteString(e.Object + ": ")
	}
	b.WriteString(e.Kind.Error())
	if e.Rule != "" {
		b.WriteString(" (" + e.Rule + ")")
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches a Kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}

// KindOf finds the Kind of err: that of the outermost *Error or Kind in its
// chain, and Internal for any other error.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	var k Kind
	if errors.As(err, &k) {
		return k
	}
	return Internal
}

// The faults of a list of parts that S3 has codes of their own for. They are in the chain
// of an Invalid error.
var (
	ErrInvalidPart      = errors.New("no such part, or not with that ETag or checksum")
	ErrInvalidPartOrder = errors.New("parts must be in ascending order")
	ErrPartTooSmall     = errors.New("every part but the last has at least 5 MiB")
)

// ErrNoCurrent is in the chain of the NotFound of a write on a condition: of what is named it is the version that is not there.
var ErrNoCurrent = errors.New("there is no version that the condition could be of")
