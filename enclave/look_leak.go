//go:build leak

package enclave

import (
	"os"

	"redoubt/label"
)

// This file is in no binary that anybody runs: with the build tag "leak" it plants the leak that the
// environment names, so that the non-interference test can show that it finds it.

type look uint8

const (
	lookCurrent look = iota
	lookList
	lookVersions
	lookEmpty
	lookCondition
	lookClock
	lookUploads
	lookQuota
	lookUsage
	lookAudit
	lookBack
	lookJobs
	lookState
	lookInput
	lookRise
	lookServices
	lookJournal
)

// Leaks names what can be planted, in the order of the looks.
var Leaks = []string{"current", "list", "versions", "empty", "condition", "clock", "uploads", "quota", "usage", "audit", "back", "jobs", "state", "input", "rise", "services"}

func planted(l look) bool { return int(l) < len(Leaks) && os.Getenv("REDOUBT_LEAK") == Leaks[l] }

func (e *Enclave) look(l look, working label.Label) []*labelSet {
	if planted(l) {
		return e.sets.all()
	}
	return e.sets.seenBy(working)
}

func (e *Enclave) lookEqual(l look, working label.Label) []*labelSet {
	if planted(l) {
		return e.sets.all()
	}
	return e.sets.equalTo(working)
}

func (e *Enclave) lookUsed(of *share, used int64) int64 {
	if planted(lookQuota) {
		for _, s := range e.sets.all() {
			if s.share != of {
				used += s.charged.Load()
			}
		}
	}
	return used
}

func (e *Enclave) seesGo(made *labelSet, f found) bool {
	return planted(lookBack) || made.share == f.set.share
}

func (e *Enclave) sees(l look, working, of label.Label) bool {
	return planted(l) || working.Dominates(of)
}

func (e *Enclave) risen(at, of label.Label) label.Label {
	if planted(lookRise) {
		return at
	}
	return label.Join(at, of)
}
