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
	lookJournal
)

// Leaks names what can be planted, in the order of the looks.
var Leaks = []string{"current", "list", "versions", "empty", "condition", "clock", "uploads", "quota", "usage", "audit"}

func planted(l look) bool { return os.Getenv("REDOUBT_LEAK") == Leaks[l] }

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

func (e *Enclave) lookBytes(set *labelSet) (n int64) {
	counted := e.sets.equalTo(set.label)
	if planted(lookQuota) {
		counted = e.sets.all()
	}
	for _, s := range counted {
		n += s.bytes.Load() + s.reserved.Load()
	}
	return n
}

func (e *Enclave) lookEntry(working, of label.Label) bool {
	return planted(lookAudit) || working.Dominates(of)
}
