//go:build !leak

package enclave

import "redoubt/label"

// look says what a set is looked at for. Each is a place where a careless
// enclave could let something high show; look_leak.go plants such a leak in each, for
// the test that must find them.
type look uint8

const (
	lookCurrent   look = iota // which version a reader sees
	lookList                  // which keys a listing shows
	lookVersions              // which versions a listing shows
	lookEmpty                 // whether a bucket looks empty
	lookCondition             // what a conditional write compares with
	lookClock                 // which clocks a set's clock runs ahead of
	lookUploads               // which uploads are shown
	lookQuota                 // whose charges count against a share
	lookUsage                 // whose use is shown
	lookAudit                 // whose records are found
	lookBack                  // who sees a version go
	lookJournal               // which sets a peer is told of
)

// look gives the sets that a working label may look at: those that it dominates, whatever for.
func (e *Enclave) look(_ look, working label.Label) []*labelSet { return e.sets.seenBy(working) }

// lookEqual gives the sets whose uploads a working label may look at.
func (e *Enclave) lookEqual(_ look, working label.Label) []*labelSet { return e.sets.equalTo(working) }

// lookUsed gives what counts against a share of which used bytes are: those alone.
func (e *Enclave) lookUsed(_ *share, used int64) int64 { return used }

// seesGo says whether those who made a version see it go when it is removed, and so may be given its charge back: where it
// carries the label that it was made at.
func (e *Enclave) seesGo(made *labelSet, f found) bool { return made.share == f.set.share }

// lookEntry says whether an audit entry may be shown to a working label.
func (e *Enclave) lookEntry(working, of label.Label) bool { return working.Dominates(of) }
