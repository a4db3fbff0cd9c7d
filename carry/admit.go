package carry

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"time"

	"redoubt"
)

// handshakeLife is how long a handshake may take: longer than an outage of 30 s. Dial then begins anew.
const handshakeLife = 90 * time.Second

var errNoRoom = errors.New("too many connections")

// answerOpen gives whoever asks a cookie for the address it is seen at. Nothing is kept.
func (e *Endpoint) answerOpen(b []byte, from path) {
	client, ok := decodeOpen(b)
	if !ok || e.server == nil {
		return
	}
	e.send(from, encodeRetry(retry{client, e.cookies.bake(e.now(), opening{from, client})}))
}

// takeShake gives a fragment to its handshake, and begins one for who has a cookie.
func (e *Endpoint) takeShake(b []byte, from path) {
	f, ok := decodeFragment(b)
	if !ok {
		return
	}
	if f.to != 0 {
		switch t := e.find(f.to).(type) {
		case *shake:
			t.deliver(b, from)
		case *link:
			t.repeatVerdict()
		}
		return
	}
	o := opening{from, f.from}
	if s := e.begun(o); s != nil {
		s.deliver(b, from)
		return
	}
	if e.server == nil || f.level != levelInitial {
		return
	}
	age, good := e.cookies.good(e.now(), o, f.cookie)
	if !good {
		return
	}
	if s := e.admit(o, age); s != nil {
		s.deliver(b, from)
		e.work.Go(func() { e.serve(s, o) })
	}
}

func (e *Endpoint) begun(o opening) *shake {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.halfOpen[o]
}

// admit makes room for a handshake, or gives nil. The cookie's age is the round trip, or more where something was lost.
func (e *Endpoint) admit(o opening, age time.Duration) *shake {
	host := hostOf(o.from.remote.Addr())
	s := newShake(e)
	s.path, s.remote, s.roundTrip = o.from, o.client, min(max(age, time.Millisecond), firstPatience)
	e.mu.Lock()
	full := e.closed || len(e.halfOpen) >= maxHalfOpen || e.perHost[host] >= maxHalfOpenEach
	if !full {
		e.halfOpen[o] = s
		e.perHost[host]++
	}
	e.mu.Unlock()
	if full {
		return nil
	}
	var ok bool
	if s.local, ok = e.claim(s); !ok {
		e.leave(o)
		return nil
	}
	return s
}

// leave gives the room of a handshake back.
func (e *Endpoint) leave(o opening) {
	host := hostOf(o.from.remote.Addr())
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.halfOpen, o)
	if e.perHost[host]--; e.perHost[host] == 0 {
		delete(e.perHost, host)
	}
}

// hostOf is what an attacker has one of.
func hostOf(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.WithZone("").Prefix(bits)
	return p
}

// serve runs the server's side of one handshake.
func (e *Endpoint) serve(s *shake, o opening) {
	ctx, cancel := context.WithTimeout(e.context, handshakeLife)
	defer cancel()
	defer e.leave(o)
	if err := s.begin(ctx, e.server); err == nil {
		err = s.listen(ctx)
		if err == nil && s.done && e.welcome(s) {
			s.close()
			return
		}
		if (err != nil || s.done) && s.seal != nil {
			s.refuse(ctx)
		}
	}
	s.close()
	e.forget(s.local)
}

// listen exchanges fragments until TLS is done. It gives nil when time ran out. It only answers: a client that is gone, or cut off, gets
// nothing repeated.
func (s *shake) listen(ctx context.Context) error {
	var flight, last time.Time // when the server's flight went first, and when anything went
	for !s.done {
		select {
		case <-ctx.Done():
			return nil
		case d := <-s.arrivals:
			f, ok := decodeAny(d.b)
			if !ok {
				if s.write != nil && len(d.b) > 0 && d.b[0]&^1 == kindSealed {
					s.keepEarly(d.b)
				}
				continue
			}
			if f.from != s.remote || f.level == levelVerdict {
				continue
			}
			before, had := len(s.out[levelHandshake]), s.came
			if err := s.take(f, d.b); err != nil {
				return err
			}
			now := s.endpoint.now()
			switch {
			case len(s.out[levelHandshake]) > before:
				flight, last = now, now
				s.send()
			case s.came == had: // the client asks
				if now.Sub(last) >= max(s.roundTrip, leastPatience) {
					last = now
					s.send()
				}
			case f.level == levelHandshake && flight.Equal(last) && !flight.IsZero():
				s.roundTrip = min(s.roundTrip, max(now.Sub(flight), time.Millisecond))
			}
		}
	}
	return nil
}

// welcome makes a link of a finished handshake and tells the client. Accept is given it when the client is heard to know.
func (e *Endpoint) welcome(s *shake) bool {
	l, err := newLink(e, s.session([]path{s.path}))
	if err != nil {
		return false
	}
	l.verdict = s.fragment(levelVerdict, 0, []byte{1})
	e.mu.Lock()
	if e.closed || len(e.accepted) == cap(e.accepted) {
		e.mu.Unlock()
		return false
	}
	e.links[s.local] = l
	e.work.Go(l.run)
	e.mu.Unlock()
	if next, ok := s.exported(e.server); ok {
		e.config.Tickets.put(next)
	}
	l.repeatVerdict()
	for {
		select {
		case d := <-s.arrivals: // what came while TLS finished
			if d.b[0]&^1 == kindSealed {
				s.keepEarly(d.b)
			}
			continue
		default:
		}
		break
	}
	for _, b := range s.early {
		l.deliver(b, s.path)
	}
	return true
}

// refuse tells the client that it is not taken, as often as it asks.
func (s *shake) refuse(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lingerTime)
	defer cancel()
	s.sendFragment(levelVerdict, 0, []byte{0})
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.arrivals:
			s.sendFragment(levelVerdict, 0, []byte{0})
		}
	}
}

// announce hands a link to Accept when its client is heard for the first time, with the link's lock held.
func (l *link) announce() {
	if l.dialled || l.announced {
		return
	}
	l.announced = true
	select {
	case l.endpoint.accepted <- l:
	default:
		l.end(errNoRoom)
	}
}

// repeatVerdict tells the client once more that it was taken.
func (l *link) repeatVerdict() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.endpoint.now()
	if l.verdict == nil || now.Sub(l.verdictSent) < leastPatience/2 {
		return
	}
	l.verdictSent = now
	l.endpoint.send(l.ways.lanes[0].path, l.verdict)
}

// answerUnknown hints to the peer that its connection is not here, so that it need not wait until its silence is too long.
func (e *Endpoint) answerUnknown(b []byte, from path) {
	now := e.now()
	e.mu.Lock()
	allowed := e.answers.take(now, maxUnknown)
	e.mu.Unlock()
	if allowed {
		e.send(from, encodeUnknown(b))
	}
}

// takeUnknown gives such a hint to the link that sent what it answers.
func (e *Endpoint) takeUnknown(b []byte) {
	now := e.now()
	e.mu.Lock()
	allowed := e.hints.take(now, maxUnknown)
	e.mu.Unlock()
	if len(b) == unknownSize && allowed {
		e.hint(b[1:], false)
	}
}

// takeRefused takes what a system says of a datagram that nobody was there for: how it began.
func (e *Endpoint) takeRefused(b []byte) {
	now := e.now()
	e.mu.Lock()
	allowed := e.hints.take(now, maxUnknown)
	e.mu.Unlock()
	if len(b) >= unknownSize-1 && b[0]&^1 == kindSealed && allowed {
		e.hint(b[:unknownSize-1], true)
	}
}

func (e *Endpoint) hint(header []byte, refused bool) {
	for _, l := range e.all() {
		if l.asked(header, refused) {
			return
		}
	}
}

// asked takes a hint that the peer has no such connection, or is not there at all (refused: nobody signs that either). It ends a link that is
// down where it answers one of the last probes and the peer is there: so only who can read along can end a link, and only one that is down.
// Else it is a reason to send nothing more than pings until there is an answer.
func (l *link) asked(header []byte, refused bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seal.to != connID(binary.BigEndian.Uint32(header[1:])) {
		return false
	}
	for _, w := range l.ways.list {
		if l.state == Down && !refused && slices.Contains(w.probes[:], beginning(header)) {
			l.end(&redoubt.Error{Op: "carry", Kind: redoubt.Unavailable, Err: errForgotten})
			return true
		}
		if slices.Contains(w.recent[:], beginning(header)) {
			l.hush(w)
			return true
		}
	}
	return false
}

// How long hints are passed over after one was false, at first and at most: who forges them holds a path up for less than a round trip, and ever
// more seldom.
const (
	deafAtFirst = time.Second
	deafAtMost  = time.Minute
)

// hush stops a way until there is an answer: what is sent to who is gone is lost.
func (l *link) hush(w *way) {
	now := l.endpoint.now()
	if w.state == Down || !w.hushed.IsZero() || now.Before(w.deaf) {
		return
	}
	w.hushed, w.probed = now, time.Time{}
	l.wake()
}

// answered takes that the peer is there: a hint that it was not was false.
func (w *way) answered(now time.Time) {
	if w.hushed.IsZero() {
		return
	}
	w.hushed = time.Time{}
	w.deafFor = min(max(2*w.deafFor, deafAtFirst), deafAtMost)
	w.deaf = now.Add(w.deafFor)
}
