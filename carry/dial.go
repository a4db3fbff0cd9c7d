package carry

import (
	"context"
	"crypto/tls"
	"net/netip"
	"slices"
	"time"

	"redoubt"
)

// openEvery is how often an opening is repeated while nobody answers: a link may be down, and comes back unannounced.
const openEvery = 500 * time.Millisecond

// mostStrange is how many cookies in a row say that the server does not know the handshake: the first is the end of an
// outage, and where another comes the answer to a question may be lost.
const mostStrange = 3

// mostOpened is how many openings an answer may be to: each has a connection ID of its own, so that a round trip is known although some
// were lost, or went into an outage.
const mostOpened = 8

// opened is an opening that may be answered yet.
type opened struct {
	id    connID
	at    time.Time
	short bool // it asked for a short handshake
}

// Dial opens a Conn to the peer that is found at one of the remotes: the first to answer is used, and beside it those that share neither a
// socket of ours nor a host of the peer with one in use; the others stand by. The configuration proves who we are and verifies the peer
// (ServerName or a verification of its own). Dial returns when each side has verified the other, which takes three round trips, or
// one where both have kept what they agreed on when they met last (Config.Tickets); a link that is down is waited for until ctx is done. Errors: Invalid (the configuration verifies nobody, or there is no remote), Unauthenticated (one side
// refused the other's certificate), Unavailable (the endpoint is closed), ctx.Err().
func (e *Endpoint) Dial(ctx context.Context, config *tls.Config, remotes ...netip.AddrPort) (Conn, error) {
	const op = "carry.Dial"
	config, err := clientTLS(e.config, config, alpnDatagrams)
	if err != nil {
		return nil, err
	}
	paths := e.pathsTo(remotes)
	if len(paths) == 0 {
		return nil, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Hint: "at least one address of the peer"}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.context, cancel)()
	for {
		l, err := e.attempt(ctx, config, paths)
		switch {
		case l != nil:
			return l, nil
		case e.context.Err() != nil:
			return nil, ended(op, errClosed)
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil:
			return nil, err
		}
	}
}

// pathsTo gives the ways from our sockets to the remotes, at most maxPaths: first those that pair each socket with a remote of its own, for
// they may be used at the same time.
func (e *Endpoint) pathsTo(remotes []netip.AddrPort) (paths []path) {
	n := max(len(e.sockets), len(remotes))
	for shift := range n {
		for i := range n {
			k := (i + shift) % n
			if i < len(e.sockets) && k < len(remotes) && remotes[k].IsValid() && len(paths) < maxPaths {
				paths = append(paths, path{i, plainAddress(remotes[k])})
			}
		}
	}
	return paths
}

// attempt does one handshake. Both results are nil when it came to nothing and may be tried again.
func (e *Endpoint) attempt(ctx context.Context, config *tls.Config, paths []path) (*link, error) {
	const op = "carry.Dial"
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := newShake(e)
	s.client = true
	established := false
	defer func() {
		if !established {
			e.forget(s.local)
		}
	}()
	agreed, next := session{}, ticket{}
	r := e.resumer(paths, config)
	if r != nil {
		defer clear(r.ticket.secret)
	}
	if asked, err := s.askForCookie(ctx, paths, r); err != nil {
		return nil, ended(op, err)
	} else if !asked {
		return nil, nil
	}
	if r != nil && r.agreed != nil {
		agreed, next = *r.agreed, r.next
	} else { // in full
		defer s.close()
		if err := s.begin(ctx, config); err != nil {
			return nil, unauthenticated(op, err)
		}
		if took, err := s.converse(ctx); err != nil {
			return nil, unauthenticated(op, err)
		} else if !took {
			return nil, nil
		}
		agreed = s.session(nil)
		next, _ = s.exported(config)
	}
	agreed.paths = inUseFirst(paths, s.path)
	l, err := e.establish(agreed)
	if err != nil {
		return nil, ended(op, err)
	}
	established = true
	if len(next.secret) > 0 {
		e.config.Tickets.put(next)
	}
	for _, b := range s.early {
		l.deliver(b, s.path)
	}
	return l, nil
}

func inUseFirst(paths []path, used path) []path {
	list := []path{used}
	for _, p := range paths {
		if p != used {
			list = append(list, p)
		}
	}
	return list
}

// askForCookie asks on every path until one answers, which gives the handshake its connection ID. took is false when time ran out. With r it
// asks for a short handshake, and has no cookie where that was agreed on. A request is larger than an opening: where two are not answered
// the link may be down, and it is asked for when an opening was answered.
func (s *shake) askForCookie(ctx context.Context, paths []path, r *resumer) (took bool, err error) {
	e := s.endpoint
	timer := time.NewTimer(0)
	defer timer.Stop()
	var all []opened
	defer func() {
		for _, o := range all {
			if o.id != s.local {
				e.forget(o.id)
			}
		}
	}()
	ask := func(short bool, paths ...path) error {
		id, ok := e.claim(s)
		if !ok {
			return errNoRoom
		}
		if len(all) == mostOpened {
			e.forget(all[0].id)
			all = all[1:]
		}
		all = append(all, opened{id, e.now(), short})
		b := encodeOpen(id)
		if short {
			var err error
			if b, err = r.ask(id); err != nil {
				return err
			}
		}
		for _, p := range paths {
			e.send(p, b)
		}
		return nil
	}
	for {
		select {
		case <-ctx.Done():
			return false, nil
		case <-timer.C:
			if err := ask(r.atFirst(), paths...); err != nil {
				return false, err
			}
			timer.Reset(openEvery)
		case d := <-s.arrivals:
			if r.agrees(s, all, d) {
				return true, nil
			}
			m, ok := decodeRetry(d.b)
			i := slices.IndexFunc(all, func(o opened) bool { return ok && o.id == m.client })
			if i < 0 {
				continue
			}
			if o := all[i]; o.short || !r.againNow() {
				s.local, s.path, s.cookie, s.roundTrip = o.id, d.from, m.cookie, e.now().Sub(o.at)
				return true, nil
			}
			if err := ask(true, d.from); err != nil {
				return false, err
			}
			timer.Reset(openEvery)
		}
	}
}

// converse exchanges fragments until the server's verdict. took is false when time ran out. What is not answered is repeated once: then
// the link may be down, and is asked small questions until there is an answer. Each other one is an opening: a server that answers that and
// nothing else was restarted, or has no room, and it is begun anew.
func (s *shake) converse(ctx context.Context) (took bool, err error) {
	patience := func() time.Duration { return max(s.roundTrip*3/2, leastPatience) }
	began := s.endpoint.now()
	last, silent := began, 0 // when all went that was lacking, and what was not answered since
	strange := 0             // cookies that came since the server was heard
	s.send()
	timer, life := time.NewTimer(patience()), time.NewTimer(handshakeLife)
	defer timer.Stop()
	defer life.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, nil
		case <-life.C:
			return false, nil
		case <-timer.C:
			switch silent++; {
			case silent == 1:
				last = s.endpoint.now()
				s.send()
			case silent%2 == 0:
				s.endpoint.send(s.path, encodeOpen(s.local))
			default:
				s.ask()
			}
			timer.Reset(patience())
		case d := <-s.arrivals:
			if m, ok := decodeRetry(d.b); ok && m.client == s.local && silent > 1 {
				if strange++; strange >= mostStrange {
					return false, nil
				}
				s.ask()
				s.endpoint.send(s.path, encodeOpen(s.local))
				timer.Reset(patience())
				continue
			}
			f, ok := decodeAny(d.b)
			if !ok || f.from == 0 {
				if len(d.b) > 0 && d.b[0]&^1 == kindSealed && s.done {
					s.keepEarly(d.b)
				}
				continue
			}
			if s.remote != 0 && f.from != s.remote || f.to != s.local {
				continue
			}
			strange, silent = 0, min(silent, 1)
			if f.level == levelVerdict {
				verdict, known := s.verdict(f, d.b)
				if known && !verdict {
					return false, errRefused
				}
				if known && s.done {
					return true, nil
				}
				continue
			}
			s.remote = f.from
			before, doneBefore := len(s.out[levelHandshake]), s.done
			if err := s.take(f, d.b); err != nil {
				return false, err
			}
			if s.done && !doneBefore {
				life.Reset(s.endpoint.config.MaxSilence) // the server may have taken us: that is not given up lightly
			}
			now := s.endpoint.now()
			next := len(s.out[levelHandshake]) > before || s.done != doneBefore
			if next {
				s.roundTrip = max(min(s.roundTrip, now.Sub(began)), time.Millisecond)
			}
			if next || s.lacks() && now.Sub(last) >= patience() {
				last, silent = now, 0
				s.send()
				timer.Reset(patience())
			}
		}
	}
}

// verdict reads whether the server took us; known is false when it is not from the server.
func (s *shake) verdict(f fragment, b []byte) (took, known bool) {
	if s.open == nil {
		return false, false
	}
	plain, err := s.open.Open(nil, nil, f.data, b[:fragmentHeader])
	if err != nil || len(plain) != 1 || plain[0] > 1 {
		return false, false
	}
	return plain[0] == 1, true
}

func decodeAny(b []byte) (fragment, bool) {
	if len(b) == 0 || b[0] != kindShake {
		return fragment{}, false
	}
	return decodeFragment(b)
}
