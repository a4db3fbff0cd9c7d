package carry

import (
	"context"
	"crypto/tls"
	"net/netip"
	"time"

	"redoubt"
)

// openEvery is how often an opening is repeated while nobody answers: a link may be down, and comes back unannounced.
const openEvery = 500 * time.Millisecond

// Dial opens a Conn to the peer that is found at one of the remotes: the first to answer is used, and beside it those that share neither a
// socket of ours nor a host of the peer with one in use; the others stand by. The configuration proves who we are and verifies the peer
// (ServerName or a verification of its own). Dial returns when each side has verified the other, which takes three round trips; a link that is
// down is waited for until ctx is done. Errors: Invalid (the configuration verifies nobody, or there is no remote), Unauthenticated (one side
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
	var ok bool
	if s.local, ok = e.claim(s); !ok {
		return nil, ended(op, errNoRoom)
	}
	established := false
	defer func() {
		if !established {
			e.forget(s.local)
		}
	}()
	if !s.askForCookie(ctx, paths) {
		return nil, nil
	}
	defer s.close()
	if err := s.begin(ctx, config); err != nil {
		return nil, unauthenticated(op, err)
	}
	if took, err := s.converse(ctx); err != nil {
		return nil, unauthenticated(op, err)
	} else if !took {
		return nil, nil
	}
	l, err := e.establish(s.session(inUseFirst(paths, s.path)))
	if err != nil {
		return nil, ended(op, err)
	}
	established = true
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

// askForCookie asks on every path until one answers.
func (s *shake) askForCookie(ctx context.Context, paths []path) bool {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var asked time.Time
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			if asked.IsZero() {
				asked = s.endpoint.now() // the first: an answer to it may come after others were sent
			}
			for _, p := range paths {
				s.endpoint.send(p, encodeOpen(s.local))
			}
			timer.Reset(openEvery)
		case d := <-s.arrivals:
			m, ok := decodeRetry(d.b)
			if !ok || m.client != s.local {
				continue
			}
			s.path, s.cookie = d.from, m.cookie
			s.roundTrip = s.endpoint.now().Sub(asked)
			return true
		}
	}
}

// converse exchanges fragments until the server's verdict. took is false when time ran out.
func (s *shake) converse(ctx context.Context) (took bool, err error) {
	patience := max(s.roundTrip*3/2, leastPatience)
	began := s.endpoint.now()
	s.send()
	timer, life := time.NewTimer(patience), time.NewTimer(handshakeLife)
	defer timer.Stop()
	defer life.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, nil
		case <-life.C:
			return false, nil
		case <-timer.C:
			s.send()
			timer.Reset(patience)
		case d := <-s.arrivals:
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
			if len(s.out[levelHandshake]) > before || s.done != doneBefore {
				s.roundTrip = max(min(s.roundTrip, s.endpoint.now().Sub(began)), time.Millisecond)
				s.send()
				timer.Reset(patience)
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
