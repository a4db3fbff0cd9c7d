package carry

import "redoubt"

// agedShare is what a precedence that waits is sure of while higher ones have something to send: one part in
// agedShare of what they send, for each that waits. So none starves.
const agedShare = 20

// outbox is the four streams that wait to be sent.
type outbox [redoubt.Precedences]outgoing

func (b *outbox) init(limit uint64) {
	for p := range b {
		b[p].precedence, b[p].limit = redoubt.Precedence(p), limit
	}
}

// sendable tells whether any stream has something that may go now.
func (b *outbox) sendable() bool {
	for p := range b {
		if b[p].sendable() {
			return true
		}
	}
	return false
}

// queued is what was never sent.
func (b *outbox) queued() (n int) {
	for p := range b {
		n += b[p].queued()
	}
	return n
}

// pick says which precedence the next datagram begins with: the highest that has something for this lane, unless a lower
// one has waited while the others sent agedShare datagrams for each of its own. ok is false when there is nothing.
func (b *outbox) pick(datagram int, may [redoubt.Precedences]portion, lane int) (p redoubt.Precedence, ok bool) {
	for i := range b {
		if b[i].waiting >= uint64(agedShare*datagram) && b[i].offers(may[i], lane) {
			return redoubt.Precedence(i), true
		}
	}
	for i := len(b) - 1; i >= 0; i-- {
		if b[i].offers(may[i], lane) {
			return redoubt.Precedence(i), true
		}
	}
	return 0, false
}

// sent notes that a datagram of size bytes went out for p: what p is owed is paid, and the lower
// ones that had to wait grow older.
func (b *outbox) sent(p redoubt.Precedence, size int) {
	b[p].waiting = 0
	for i := range b[:p] {
		if b[i].sendable() {
			b[i].waiting += uint64(size)
		} else {
			b[i].waiting = 0
		}
	}
}
