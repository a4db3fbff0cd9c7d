package redoubt

import (
	"context"
	"io"
	"time"
)

// MaxRaiseGaps bounds the gaps that are kept of one raise. Those beyond it become one with the oldest: a person feeds all of it again.
const MaxRaiseGaps = 1024

// RaiseStatus is one raise as one of its two ends sees it.
type RaiseStatus struct {
	Peer     NodeName     `json:"peer"`
	Way      string       `json:"way"`                // "up": this node hands over; "here": it takes
	Serial   uint64       `json:"serial"`             // of the last bundle that was handed over, or taken
	At       time.Time    `json:"at,omitzero"`        // when that was made
	Gaps     []NumberSpan `json:"gaps,omitempty"`     // at the higher end: what never came. A person at the lower end feeds it again
	Blocked  string       `json:"blocked,omitempty"`  // why the next one is not taken, as a quota or a disk; at the lower end: why it is not made, as a version that does not read
	Unread   int          `json:"unread,omitempty"`   // at the lower end: versions that were passed over, for they did not read, or are larger than a bundle
	Awaiting bool         `json:"awaiting,omitempty"` // at the lower end: the guard has not said that it has the last one
}

// RaisedBundle is what a bundle of a raise holds.
type RaisedBundle struct {
	Spans []JournalSpan      // of the journal; none, where it holds again what an earlier one held
	Held  map[string][]Stamp // by label sets
	// Unread is what it was to hold and is left out of, for it is Corrupt or larger than any bundle; by label sets. The spans are over it as well.
	Unread map[string][]Stamp
	Void   []uint64 // numbers of which it says that they are
}

// MaxRaiseEntries bounds the entries in one bundle of a raise.
const MaxRaiseEntries = 16 << 10

// MaxRaiseUnread bounds what a lower node knows one by one of what it left out of a raise. What is beyond is counted.
const MaxRaiseUnread = 256

// How far back a lower node knows what it handed over: so many bundles, and so many entries in them.
const (
	MaxRaisedBundles = 4096
	MaxRaisedEntries = 1 << 20
)

// RaiseLedger is what a lower node keeps of what it handed to a guard. What the guard says that it has is done with: nothing comes back from
// above. What it has and loses it asks for by its number.
type RaiseLedger interface {
	// Handed takes the guard's word for the last bundle that it has. What was made since and is not that is void: its number is never used
	// again, and its content goes into the next. It gives the numbers that are void.
	Handed(ctx context.Context, peer NodeName, have BundleMark) (void []uint64, err error)
	// HandOver keeps that a bundle was made, what is in it and what was left out of it, on record; durable on return.
	HandOver(ctx context.Context, who Credential, peer NodeName, mark BundleMark, b RaisedBundle) error
	// HandedOver gives what was in a bundle, but for its spans. NotFound: it is void, or too long ago.
	HandedOver(ctx context.Context, peer NodeName, serial uint64) (RaisedBundle, error)
	// Begun gives, by label sets, how far a whole was handed over that takes several bundles: their Part, and the To that its first was of.
	Begun(ctx context.Context, peer NodeName) (map[string]JournalSpan, error)
	// Passed keeps that of a set there is nothing to hand over up to the span's To, as follows from its From or, of a whole, from what was begun Behind. It
	// keeps nothing where that is other by now, as where all was asked for anew meanwhile.
	Passed(ctx context.Context, peer NodeName, span JournalSpan) error
	// LeftOut gives, by label sets, what was left out of bundles and is in none that the guard has, as far as it is known one by one.
	LeftOut(ctx context.Context, peer NodeName) (map[string][]Stamp, error)
	// Awaits gives the number of the last bundle that was made and that no guard said it has.
	Awaits(ctx context.Context, peer NodeName) (serial uint64, is bool, err error)
}

// RaiseSource is the lower end of a raise, as a guard's low half sees it.
type RaiseSource interface {
	// HandRaise writes the next bundle, sealed to the higher node, once there is something that it has not handed over. have is the last that the
	// guard has; the zero mark: none. It waits; NotModified: nothing came until ctx ended.
	HandRaise(ctx context.Context, guard Credential, peer NodeName, have BundleMark, w io.Writer) (BundleMark, error)
	// HandAgain writes at once what an earlier bundle held and is still there, as the next bundle, which says that the earlier number is void.
	// NotFound: that number is void already, or too long ago.
	HandAgain(ctx context.Context, guard Credential, peer NodeName, have BundleMark, serial uint64, w io.Writer) (BundleMark, error)
}

// RaiseTarget is the higher end, as a guard's high half sees it.
type RaiseTarget interface {
	// TakeRaise takes a bundle. Exists: it was taken before. Unavailable, QuotaExceeded, DiskFull: not now, and nothing is lost by bringing it
	// again. What is wrong with it for good is refused otherwise, on record.
	TakeRaise(ctx context.Context, guard Credential, r io.Reader) (BundleImport, error)
}

// RaiseService tells people of a node's raises. What it tells of either end is of activity at every label of the lower node, so who asks
// dominates that node's ceiling: others are told of none.
type RaiseService interface {
	Raises(ctx context.Context, who Credential) ([]RaiseStatus, error)
	// RaiseAnew has everything handed over once more: for what no number is known of any more. By the administrator of the lower node.
	RaiseAnew(ctx context.Context, who Credential, peer NodeName) error
}
