package carry

import (
	"encoding/binary"
	"slices"

	"redoubt"
)

// lengthSize is the prefix of each message in its stream: its length, 1 to MaxMessage.
const lengthSize = 4

// outgoing is one precedence's stream on the sending side: messages that were taken and are not
// known to have arrived.
type outgoing struct {
	precedence redoubt.Precedence
	messages   []segment
	next, end  uint64 // what was never sent is [next, end)
	limit      uint64 // how far the peer lets the stream go
	acked      spans  // within [messages[0].offset, next)
	lost       []*stretch
	again      []*stretch // FLASH: the second copies
	waiting    uint64     // bytes that others were sent while this had something; see outbox.pick
}

// segment is a message with its prefix, at its place in the stream.
type segment struct {
	offset uint64
	data   []byte
}

// stretch is part of a stream as it went into one datagram, or two if it is FLASH.
type stretch struct {
	of     *outgoing
	span   span
	copies int // under way
	lane   int // that the first copy went by
	probes int // that it went with
}

// portion says what of a stream a datagram may carry, by the path that it goes by: a bit for each kind.
type portion uint8

const (
	lostOnes  portion = 1 << iota // what was lost
	newOnes                       // what was never sent
	copiesOf                      // FLASH: second copies of what went by another path
	copiesAll                     // and of what went by the same one
)

// put takes a copy of a message into the queue.
func (o *outgoing) put(msg []byte) {
	data := message(lengthSize + len(msg))
	binary.BigEndian.PutUint32(data, uint32(len(msg)))
	copy(data[lengthSize:], msg)
	o.messages = append(o.messages, segment{o.end, data})
	o.end += uint64(len(data))
}

// queued is what was never sent.
func (o *outgoing) queued() int { return int(o.end - o.next) }

func (o *outgoing) unacked() int {
	n := o.next
	if len(o.messages) > 0 {
		n -= o.messages[0].offset
	} else {
		n = 0
	}
	for _, s := range o.acked {
		n -= s.to - s.from
	}
	return int(n)
}

// sendable tells whether something may go now.
func (o *outgoing) sendable() bool {
	return len(o.lost) > 0 || o.next < min(o.end, o.limit) || len(o.again) > 0
}

// prune drops what was to be sent again and has arrived meanwhile.
func (o *outgoing) prune() {
	for len(o.lost) > 0 && o.has(o.lost[0].span) {
		o.lost = slices.Delete(o.lost, 0, 1)
	}
	o.again = slices.DeleteFunc(o.again, func(s *stretch) bool { return o.has(s.span) })
}

// offers tells whether any of a portion may go now by a lane.
func (o *outgoing) offers(what portion, lane int) bool {
	return what&lostOnes != 0 && len(o.lost) > 0 || what&newOnes != 0 && o.next < min(o.end, o.limit) || o.copy(what, lane) >= 0
}

// copy is the place in again of the next second copy that may go by a lane, or -1.
func (o *outgoing) copy(what portion, lane int) int {
	if what&(copiesOf|copiesAll) == 0 {
		return -1
	}
	return slices.IndexFunc(o.again, func(s *stretch) bool { return what&copiesAll != 0 || s.lane != lane })
}

// has tells whether the peer is known to have a stretch.
func (o *outgoing) has(s span) bool { return s.to <= o.floor() || o.acked.has(s.from, s.to) }

// take gives the next stretch of at most room bytes of stream for a lane, or nil: what was lost goes first, then what is
// new, then the second copies.
func (o *outgoing) take(room int, what portion, lane int) *stretch {
	if what&lostOnes != 0 {
		if s := o.takeFrom(&o.lost, 0, room); s != nil {
			return s
		}
	}
	if to := min(o.end, o.limit, o.next+uint64(room)); what&newOnes != 0 && o.next < to {
		s := &stretch{of: o, span: span{o.next, to}, lane: lane}
		o.next = to
		if o.precedence == redoubt.Flash {
			o.again = append(o.again, s)
		}
		return s
	}
	if i := o.copy(what, lane); i >= 0 {
		return o.takeFrom(&o.again, i, room)
	}
	return nil
}

// takeFrom gives the first stretch of a list from place i on that has not arrived meanwhile, cut to room.
func (o *outgoing) takeFrom(list *[]*stretch, i, room int) *stretch {
	for len(*list) > i {
		s := (*list)[i]
		if o.has(s.span) {
			*list = slices.Delete(*list, i, i+1)
			continue
		}
		s.span.from = max(s.span.from, o.floor()) // the peer has the rest, and we have let go of it
		if n := s.span.to - s.span.from; n <= uint64(room) {
			*list = slices.Delete(*list, i, i+1)
			return s
		}
		cut := s.span.from + uint64(room)
		first := &stretch{of: o, span: span{s.span.from, cut}, lane: s.lane}
		(*list)[i] = &stretch{of: o, span: span{cut, s.span.to}, lane: s.lane}
		return first
	}
	return nil
}

// floor is where the oldest message begins that is not known to have arrived.
func (o *outgoing) floor() uint64 {
	if len(o.messages) == 0 {
		return o.next
	}
	return o.messages[0].offset
}

// appendBytes appends what stands in [from, to).
func (o *outgoing) appendBytes(dst []byte, s span) []byte {
	i, _ := slices.BinarySearchFunc(o.messages, s.from, func(m segment, at uint64) int {
		if m.offset <= at {
			return -1
		}
		return 1
	})
	for i--; s.from < s.to; i++ {
		m := o.messages[i]
		part := m.data[s.from-m.offset:]
		part = part[:min(uint64(len(part)), s.to-s.from)]
		dst = append(dst, part...)
		s.from += uint64(len(part))
	}
	return dst
}

// arrived notes that the peer has a stretch, and lets go of messages that it has whole.
func (o *outgoing) arrived(s span) {
	if s.to <= o.floor() {
		return
	}
	o.acked.add(max(s.from, o.floor()), s.to)
	reach := o.acked.prefix(o.floor())
	n := 0
	for n < len(o.messages) && o.messages[n].offset+uint64(len(o.messages[n].data)) <= reach {
		n++
	}
	if n > 0 {
		for _, m := range o.messages[:n] {
			recycle(m.data)
		}
		o.messages = slices.Delete(o.messages, 0, n)
		o.acked.drop(o.floor())
	}
}

// missed notes that a copy of a stretch was lost. It is sent again when no other copy is under way.
func (o *outgoing) missed(s *stretch) {
	s.copies--
	if s.copies > 0 || o.has(s.span) {
		return
	}
	if slices.Contains(o.again, s) {
		return // its second copy is still to go
	}
	o.lost = append(o.lost, s)
}
