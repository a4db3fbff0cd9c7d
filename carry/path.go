package carry

import (
	"net/netip"
	"slices"
	"time"
)

// maxPaths is how many ways to one peer are known at once.
const maxPaths = 8

// path is one way to a peer: by one of our sockets, to one of its addresses.
type path struct {
	socket int
	remote netip.AddrPort
}

// way is a path as one connection knows it.
type way struct {
	path
	proved     bool // the peer answers there
	dialled    bool // it was given to Dial: it is never dropped for another
	challenge  [8]byte
	challenged time.Time
	heard      time.Time
}

// ways are the paths of a connection. The side that dialled chooses the one in use; the other
// follows it, once the address has proved to be the peer's.
type ways struct {
	list   []way
	active int
}

func (w *ways) find(p path) int {
	return slices.IndexFunc(w.list, func(x way) bool { return x.path == p })
}

func (w *ways) current() path { return w.list[w.active].path }

// learn gives the index of a path that the peer was heard on, a new one if there is room: the one heard
// longest ago makes room, but neither the one in use nor one that is still being proved.
func (w *ways) learn(p path, now time.Time) int {
	if i := w.find(p); i >= 0 {
		return i
	}
	if len(w.list) < maxPaths {
		w.list = append(w.list, way{path: p})
		return len(w.list) - 1
	}
	oldest := -1
	for i, x := range w.list {
		if i != w.active && !x.dialled && (x.proved || now.Sub(x.challenged) > challengeLife) && (oldest < 0 || x.heard.Before(w.list[oldest].heard)) {
			oldest = i
		}
	}
	if oldest >= 0 {
		w.list[oldest] = way{path: p}
	}
	return oldest
}

// challengeLife is how long an answer to a challenge is waited for; another challenge goes not before challengeGap.
const (
	challengeLife = 10 * time.Second
	challengeGap  = 200 * time.Millisecond
)
