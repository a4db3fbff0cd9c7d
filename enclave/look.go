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
	lookJobs                  // which jobs are listed
	lookState                 // whose state is told
	lookInput                 // which sets a job is told of
	lookRise                  // what a job rises by
	lookServices              // which services are shown
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

// sees says whether what is at a label may be shown to a working label.
func (e *Enclave) sees(_ look, working, of label.Label) bool { return working.Dominates(of) }

// risen is the label of a job that is told of what is at another.
func (e *Enclave) risen(at, of label.Label) label.Label { return label.Join(at, of) }
