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
	lookQuota                 // whose bytes count against a share
	lookUsage                 // whose use is shown
	lookAudit                 // whose records are found
	lookJournal               // which sets a peer is told of
)

// look gives the sets that a working label may look at: those that it dominates, whatever for.
func (e *Enclave) look(_ look, working label.Label) []*labelSet { return e.sets.seenBy(working) }

// lookEqual gives the sets whose uploads a working label may look at.
func (e *Enclave) lookEqual(_ look, working label.Label) []*labelSet { return e.sets.equalTo(working) }

// lookBytes gives what counts against a set's share: all at the same point of the order, or else another
// spelling or handling mark would be another share.
func (e *Enclave) lookBytes(set *labelSet) (n int64) {
	for _, s := range e.sets.equalTo(set.label) {
		n += s.bytes.Load() + s.reserved.Load()
	}
	return n
}

// lookEntry says whether an audit entry may be shown to a working label.
func (e *Enclave) lookEntry(working, of label.Label) bool { return working.Dominates(of) }
