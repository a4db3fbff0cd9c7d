package carry

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"crypto/tls"
	"slices"
	"sync"
	"time"
)

// Limits of short handshakes.
const (
	maxResuming    = mostOpened // of one ticket: answered, and the client not heard yet
	maxResumes     = 100        // a second, of those that prove a ticket; who asks more meets in full
	maxResumesEach = 8          // of one ticket
	resumesAtFirst = 2          // requests before it is asked whether the server is there at all
	resumesLater   = 3          // and after it said so
	mostProofs     = 32         // answers of an attempt that are looked at: each takes an agreement of keys
)

// resumer is the client's side of a short handshake. Its methods may be called of nil: there is none.
type resumer struct {
	ticket  ticket
	own     *ecdh.PrivateKey
	first   int // requests that go at once, and
	later   int // each when the server has said that it is there
	proofs  int // answers that may be looked at yet
	request map[connID][]byte

	agreed *session // once it is done
	next   ticket
}

// resumer gives a short handshake with who is at these paths, or nil where there is no ticket to make one with.
func (e *Endpoint) resumer(paths []path, config *tls.Config) *resumer {
	x, ok := e.config.Tickets.towards(paths, config)
	if !ok {
		return nil
	}
	own, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil
	}
	return &resumer{ticket: x, own: own, first: resumesAtFirst, later: resumesLater, proofs: mostProofs, request: map[connID][]byte{}}
}

// atFirst tells whether a request goes without a sign of the server.
func (r *resumer) atFirst() bool { return r != nil && spend(&r.first) }

// againNow tells whether one goes to a server that has just been heard.
func (r *resumer) againNow() bool { return r != nil && spend(&r.later) }

func spend(n *int) bool {
	*n--
	return *n >= 0
}

// ask gives the request under a connection ID.
func (r *resumer) ask(id connID) ([]byte, error) {
	m := resumeRequest{client: id, ticket: r.ticket.id, share: [shareSize]byte(r.own.PublicKey().Bytes())}
	b, err := encodeResume(m, r.ticket.secret)
	r.request[id] = b
	return b, err
}

// agrees tells whether a datagram is the server's answer to one of the requests. What does not prove the ticket's secret is ignored.
func (r *resumer) agrees(s *shake, all []opened, d incomingDatagram) bool {
	m, ok := decodeResumed(d.b)
	i := slices.IndexFunc(all, func(o opened) bool { return o.short && o.id == m.client })
	if !ok || i < 0 || !spend(&r.proofs) {
		return false
	}
	k, err := deriveResumed(r.own, m.share, r.ticket.secret, r.request[m.client], m.head())
	if err != nil || !hmac.Equal(m.tag[:], confirmation(k, m.head())) {
		return false
	}
	s.local, s.path, s.roundTrip = m.client, d.from, max(s.endpoint.now().Sub(all[i].at), time.Millisecond)
	r.agreed = &session{local: m.client, remote: m.server, read: k.server, write: k.client, peer: r.ticket.peer, roundTrip: s.roundTrip, dialled: true}
	r.next = r.ticket.next(k)
	r.next.remote = d.from.remote
	return true
}

func confirmation(k resumedKeys, head []byte) []byte { return tagOf(k.confirm, head) }

// resuming is the server's side of a short handshake: it was answered, and the client is not heard yet. Whoever repeats the request gets the
// same answer; that the client is there, and not somebody who recorded it, a datagram under the new keys shows.
type resuming struct {
	endpoint      *Endpoint
	ticket        ticket
	local, remote connID
	request       []byte
	answer        []byte
	began         time.Time
	keys          resumedKeys
	end           *time.Timer

	mu   sync.Mutex // of deliver
	link *link      // what has become of it
	over bool       // nothing

	asker  path // where the answer went
	askers bool // and whether it went elsewhere too; both with the endpoint's lock held
}

// takeResume answers who asks to go on. Where that cannot be, whatever the reason is, the answer is a cookie for the full handshake: who
// has no secret learns nothing of which tickets there are, or why one is not taken.
func (e *Endpoint) takeResume(b []byte, from path) {
	m, ok := decodeResume(b)
	if !ok || e.server == nil {
		return
	}
	if s := e.answered(m, b, from); s != nil {
		e.send(from, s.answer)
		return
	}
	now := e.now()
	x, known := e.config.Tickets.find(m.ticket)
	if known {
		defer clear(x.secret)
	} else {
		x.secret = e.cookies.key[:] // so that it takes as long to say no
	}
	if provesTicket(b, x.secret) && known && e.mayResume(x.id, now) && x.usable(e.server, false, e.config.Tickets.now()) == nil {
		if s := e.resume(x, m, b, from, now); s != nil {
			e.send(from, s.answer)
			return
		}
	}
	e.send(from, encodeRetry(retry{m.client, e.cookies.bake(now, opening{from, m.client})}))
}

// answered gives the short handshake that a request was answered by: who repeats it, whoever that is, costs nothing more.
func (e *Endpoint) answered(m resumeRequest, b []byte, from path) *resuming {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.resuming[m.ticket] {
		if bytes.Equal(s.request, b) {
			s.askers = s.askers || from != s.asker
			return s
		}
	}
	return nil
}

// mayResume tells whether one more request on a ticket is gone on with this second: who has recorded some of one ticket takes the others nothing.
func (e *Endpoint) mayResume(id [ticketIDSize]byte, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if second := now.Unix(); e.resumesOf.second != second {
		e.resumesOf.second = second
		clear(e.resumesOf.each)
	}
	e.resumesOf.each[id]++ // of tickets that there are: so many at most
	return e.resumesOf.each[id] <= maxResumesEach && e.resumes.take(now, maxResumes)
}

// resume begins the short handshake that a request asks for; nil where there is no room. The first ones on a ticket stay, for who repeats what was
// recorded is not to end what is under way.
func (e *Endpoint) resume(x ticket, m resumeRequest, b []byte, from path, now time.Time) *resuming {
	s := &resuming{endpoint: e, ticket: x, remote: m.client, request: bytes.Clone(b), began: now, asker: from}
	s.mu.Lock() // until it is whole
	defer s.mu.Unlock()
	own, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil
	}
	var ok bool
	if s.local, ok = e.claim(s); !ok {
		return nil
	}
	answer := resumeAnswer{client: m.client, server: s.local, share: [shareSize]byte(own.PublicKey().Bytes())}
	if s.keys, err = deriveResumed(own, m.share, x.secret, s.request, answer.head()); err != nil {
		e.forget(s.local)
		return nil
	}
	answer.tag = [resumeTag]byte(confirmation(s.keys, answer.head()))
	s.answer = encodeResumed(answer)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || len(e.resuming[x.id]) >= maxResuming {
		delete(e.links, s.local)
		return nil
	}
	e.resuming[x.id] = append(e.resuming[x.id], s)
	s.end = time.AfterFunc(handshakeLife, func() { e.giveUp(s) })
	return s
}

// giveUp ends a short handshake that has become no connection.
func (e *Endpoint) giveUp(s *resuming) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s.end.Stop()
	if e.links[s.local] == taker(s) {
		delete(e.links, s.local)
	}
	all := slices.DeleteFunc(e.resuming[s.ticket.id], func(o *resuming) bool { return o == s })
	if e.resuming[s.ticket.id] = all; len(all) == 0 {
		delete(e.resuming, s.ticket.id)
	}
}

// deliver implements taker: the first datagram under the new keys makes a connection of it, and uses the ticket up. Where that may not be any
// more, the client is told that there is no such connection.
func (s *resuming) deliver(b []byte, from path) {
	e, now := s.endpoint, s.endpoint.now()
	s.mu.Lock() // datagrams come by several sockets
	defer s.mu.Unlock()
	if s.link != nil {
		s.link.deliver(b, from)
		return
	}
	o, err := newOpener(bytes.Clone(s.keys.client))
	if err == nil {
		_, err = o.open(nil, b)
	}
	if err != nil || s.over {
		return
	}
	if now.Sub(s.began) <= handshakeLife && s.ticket.usable(e.server, false, e.config.Tickets.now()) == nil && e.config.Tickets.take(s.ticket.id) {
		s.link = e.promote(s, from, now)
	}
	if s.link == nil {
		s.over = true
		e.giveUp(s)
		e.answerUnknown(b, from)
		return
	}
	e.config.Tickets.put(s.ticket.next(s.keys))
	s.link.deliver(b, from)
}

// promote makes the connection, and ends every other handshake on the same ticket; nil where there is no room. Whoever knows the keys has had
// the answer: that the peer is where its datagram came from is proved where the answer went there and nowhere else. Where it did not (the request was
// sent by several paths, or repeated by somebody, or the address has changed) a challenge asks, and nothing else goes there before.
func (e *Endpoint) promote(s *resuming, from path, now time.Time) *link {
	e.mu.Lock()
	proved := !s.askers && from == s.asker
	e.mu.Unlock()
	l, err := newLink(e, session{
		unproved: !proved, local: s.local, remote: s.remote, read: s.keys.client, write: s.keys.server, peer: s.ticket.peer,
		roundTrip: min(max(now.Sub(s.began), time.Millisecond), firstPatience), paths: []path{from},
	})
	if err != nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, other := range e.resuming[s.ticket.id] {
		other.end.Stop()
		delete(e.links, other.local)
	}
	delete(e.resuming, s.ticket.id)
	if e.closed || len(e.accepted) == cap(e.accepted) {
		return nil
	}
	e.links[s.local] = l
	e.work.Go(l.run)
	return l
}
