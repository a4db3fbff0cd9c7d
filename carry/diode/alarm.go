package diode

import (
	"sync"
	"time"
)

// alarms tells of events, one at a time; of those that who sends can bring about, maxAlarms in a minute. How many were left out is told when that is over.
type alarms struct {
	tell func(Event) // may be nil

	mu    sync.Mutex  // guards what follows; it is held while an event is told
	since time.Time   // a minute began then
	said  int         // alarms of it, with those that were left out
	later *time.Timer // the end of the minute, where some were; nil: none
}

// maxAlarms is how many alarms of a minute are told of: who has the key can have one with each datagram, and they go to a log.
const maxAlarms = 64

// say tells of events. A disk that fails is told of seldom, and whatever else comes.
func (a *alarms) say(all ...Event) {
	if a.tell == nil || len(all) == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range all {
		if e.Kind == Began || e.Kind == Whole || e.Kind == Fault || a.mayAlarm(time.Now()) {
			a.tell(e)
		}
	}
}

// mayAlarm counts an alarm, with mu held, and says whether it is told of.
func (a *alarms) mayAlarm(now time.Time) bool {
	if now.Sub(a.since) >= time.Minute {
		a.sum()
		a.since = now
	}
	if a.said++; a.said == maxAlarms+1 {
		a.later = time.AfterFunc(a.since.Add(time.Minute).Sub(now), a.end)
	}
	return a.said <= maxAlarms
}

// sum tells how many were left out, with mu held, and counts from nothing.
func (a *alarms) sum() {
	if a.later != nil {
		a.later.Stop()
		a.tell(Event{Kind: LeftOut, Count: a.said - maxAlarms})
	}
	a.said, a.later = 0, nil
}

// end tells how many were left out, and nothing more of them later.
func (a *alarms) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.later != nil { // else the next alarm told it just before
		a.sum()
	}
}
