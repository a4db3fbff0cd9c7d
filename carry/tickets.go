package carry

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"redoubt"
)

// How long one full handshake, with ML-KEM and both certificates, is gone on from, how often, and with how many peers.
const (
	ticketLife  = 24 * time.Hour
	ticketUses  = 100
	maxTickets  = 300     // the oldest makes room: its peer is met in full
	maxPeerCert = 4 << 10 // bytes; of a peer whose certificate is longer nothing is kept
)

// Tickets are what the next handshake with a peer that was met is made short by: secrets that both sides derived from the last one, each used
// once. An Endpoint takes and adds them; whoever owns them keeps them over a restart, sealed, for who has them may pass for either side until they are used.
// All methods may be called at once.
type Tickets struct {
	changed chan struct{} // one place
	now     func() time.Time

	mu     sync.Mutex
	closed bool
	all    []ticket // newest last; of one peer one that was dialled, and one that dialled
}

// ticket is one of them.
type ticket struct {
	id      [ticketIDSize]byte
	secret  []byte
	dialled bool              // by this side
	remote  netip.AddrPort    // where, if it was
	own     [32]byte          // digest of the key that this side proved
	peer    *x509.Certificate // that the other proved
	key     [32]byte          // digest of the key in it
	full    time.Time         // when the full handshake was
	uses    uint16            // handshakes since
}

const ticketsVersion = 1

// NewTickets makes them of what Kept gave, but for those that are too old by now; of nothing: none. Corrupt: it is no such thing.
func NewTickets(kept []byte, now func() time.Time) (*Tickets, error) {
	t := &Tickets{changed: make(chan struct{}, 1), now: now}
	if len(kept) == 0 {
		return t, nil
	}
	s := cryptobyte.String(kept)
	var version uint8
	var n uint16
	if !s.ReadUint8(&version) || version != ticketsVersion || !s.ReadUint16(&n) || n > maxTickets {
		return nil, errTickets
	}
	for range n {
		x, ok := readTicket(&s)
		if !ok {
			return nil, errTickets
		}
		t.all = append(t.all, x)
	}
	if !s.Empty() {
		return nil, errTickets
	}
	t.remove(t.tooOld)
	return t, nil
}

var errTickets = &redoubt.Error{Op: "carry.NewTickets", Kind: redoubt.Corrupt, Err: errors.New("these are no tickets")}

func readTicket(s *cryptobyte.String) (x ticket, ok bool) {
	var dialled uint8
	var remote, peer cryptobyte.String
	var full uint64
	var err error
	x.secret = make([]byte, ticketSecretSize)
	if !s.ReadUint8(&dialled) || dialled > 1 || !s.CopyBytes(x.id[:]) || !s.CopyBytes(x.secret) || !s.CopyBytes(x.own[:]) || !s.ReadUint64(&full) ||
		full > 1<<40 || !s.ReadUint16(&x.uses) || x.uses > ticketUses || !s.ReadUint8LengthPrefixed(&remote) || !s.ReadUint16LengthPrefixed(&peer) || len(peer) > maxPeerCert {
		return x, false
	}
	x.dialled, x.full = dialled == 1, time.Unix(int64(full), 0)
	if x.dialled {
		if x.remote.UnmarshalText(remote) != nil || !x.remote.IsValid() || x.remote.String() != string(remote) {
			return x, false
		}
	} else if len(remote) > 0 {
		return x, false
	}
	if x.peer, err = x509.ParseCertificate(bytes.Clone(peer)); err != nil {
		return x, false
	}
	x.key = keyDigest(x.peer)
	return x, true
}

// Kept is what to keep of them, sealed: there are secrets in it.
func (t *Tickets) Kept() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(t.tooOld)
	size := 3
	for _, x := range t.all {
		size += mostTicket + len(x.peer.Raw)
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, size)) // it does not grow: no other copy is left
	b.AddUint8(ticketsVersion)
	b.AddUint16(uint16(len(t.all)))
	for _, x := range t.all {
		dialled, remote := uint8(0), ""
		if x.dialled {
			dialled, remote = 1, x.remote.String()
		}
		b.AddUint8(dialled)
		b.AddBytes(x.id[:])
		b.AddBytes(x.secret)
		b.AddBytes(x.own[:])
		b.AddUint64(uint64(x.full.Unix()))
		b.AddUint16(x.uses)
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(remote)) })
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(x.peer.Raw) })
	}
	return b.BytesOrPanic()
}

// mostTicket is what Kept takes for one, but for the certificate.
const mostTicket = 1 + ticketIDSize + ticketSecretSize + 32 + 8 + 2 + 1 + 255 + 2

// Close clears the secrets. No handshake is short any more.
func (t *Tickets) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(func(ticket) bool { return true })
	t.closed = true
}

// remove takes out what is of a kind, with the lock held, and tells whether there was any.
func (t *Tickets) remove(of func(ticket) bool) bool {
	before := len(t.all)
	t.all = slices.DeleteFunc(t.all, func(x ticket) bool {
		gone := of(x)
		if gone {
			clear(x.secret)
		}
		return gone
	})
	return len(t.all) < before
}

func (t *Tickets) tooOld(x ticket) bool { return t.now().Sub(x.full) > ticketLife }

// Changed has something whenever Kept gives something else than before.
func (t *Tickets) Changed() <-chan struct{} { return t.changed }

func (t *Tickets) tell() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// put takes a ticket in, in the place of what there was of the same peer and side.
func (t *Tickets) put(x ticket) {
	if t == nil || len(x.peer.Raw) > maxPeerCert || x.uses > ticketUses {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.remove(func(o ticket) bool { return o.dialled == x.dialled && o.key == x.key })
	if len(t.all) == maxTickets {
		clear(t.all[0].secret)
		t.all = slices.Delete(t.all, 0, 1)
	}
	t.all = append(t.all, x)
	t.tell()
}

// find gives the ticket of an ID that a peer who dials names. A ticket that this side dialled with is none: its own request would come back to it.
func (t *Tickets) find(id [ticketIDSize]byte) (x ticket, ok bool) {
	if t == nil {
		return x, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, x := range t.all {
		if !x.dialled && x.id == id {
			return x.copy(), true
		}
	}
	return x, false
}

// take uses the ticket of an ID up, and tells whether it was still there.
func (t *Tickets) take(id [ticketIDSize]byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := t.remove(func(o ticket) bool { return !o.dialled && o.id == id })
	t.tell()
	return taken
}

// towards gives the newest ticket for a peer that one of these ways leads to and that is as the configuration wants it.
func (t *Tickets) towards(paths []path, config *tls.Config) (x ticket, ok bool) {
	if t == nil {
		return x, false
	}
	t.mu.Lock()
	var all []ticket
	for _, x := range t.all {
		if x.dialled && slices.ContainsFunc(paths, func(p path) bool { return p.remote == x.remote }) {
			all = append(all, x.copy())
		}
	}
	t.mu.Unlock()
	for _, o := range slices.Backward(all) {
		if !ok && o.usable(config, true, t.now()) == nil {
			x, ok = o, true
		} else {
			clear(o.secret)
		}
	}
	return x, ok
}

// copy gives one with a secret of its own, for whoever is removed has it cleared.
func (x ticket) copy() ticket {
	x.secret = bytes.Clone(x.secret)
	return x
}

var errTicket = errors.New("the ticket may not be used any more")

// usable says whether a handshake may stand on a ticket now: it is not too old and not used too often, our own key is the same, and the peer
// passes everything that the configuration asks of a certificate, as in a full handshake.
func (x *ticket) usable(config *tls.Config, client bool, now time.Time) error {
	if age := now.Sub(x.full); age < -time.Second || age > ticketLife || x.uses >= ticketUses || !ownKey(config, x.own) {
		return errTicket
	}
	if now.Before(x.peer.NotBefore) || now.After(x.peer.NotAfter) {
		return errExpired
	}
	return verifyAgain(config, client, x.peer, now)
}

// verifyAgain asks of a certificate what TLS asks in a handshake.
func verifyAgain(config *tls.Config, client bool, cert *x509.Certificate, now time.Time) error {
	state := tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, DidResume: true, NegotiatedProtocol: alpnDatagrams, ServerName: config.ServerName,
		PeerCertificates: []*x509.Certificate{cert}}
	options, asked := x509.VerifyOptions{Roots: config.ClientCAs, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}},
		config.ClientAuth >= tls.VerifyClientCertIfGiven
	if client {
		options.Roots, options.DNSName, options.KeyUsages, asked = config.RootCAs, config.ServerName, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, !config.InsecureSkipVerify
	}
	if asked {
		var err error
		if state.VerifiedChains, err = cert.Verify(options); err != nil {
			return err
		}
	}
	if config.VerifyPeerCertificate != nil {
		if err := config.VerifyPeerCertificate([][]byte{cert.Raw}, state.VerifiedChains); err != nil {
			return err
		}
	}
	if config.VerifyConnection != nil {
		return config.VerifyConnection(state)
	}
	return nil
}

// ownKey tells whether a configuration proves the key of a digest. One that chooses its certificate by the peer is not asked.
func ownKey(config *tls.Config, digest [32]byte) bool {
	own, ok := ownDigest(config)
	return ok && own == digest
}

func ownDigest(config *tls.Config) (d [32]byte, ok bool) {
	if len(config.Certificates) != 1 || len(config.Certificates[0].Certificate) == 0 || config.GetCertificate != nil || config.GetClientCertificate != nil {
		return d, false
	}
	own, err := x509.ParseCertificate(config.Certificates[0].Certificate[0])
	if err != nil {
		return d, false
	}
	return keyDigest(own), true
}

// keyDigest is of the key in a certificate.
func keyDigest(cert *x509.Certificate) [32]byte { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// bothKeys names the client's key and the server's: what TLS exports is bound to the server's by itself, and not to the client's, which comes later.
func bothKeys(client bool, own, peer [32]byte) []byte {
	if client {
		return append(own[:], peer[:]...)
	}
	return append(peer[:], own[:]...)
}

// exported is the ticket of a full handshake that is done: both sides derive it, nothing travels for it.
func (s *shake) exported(config *tls.Config) (x ticket, ok bool) {
	state, tickets := s.tls.ConnectionState(), s.endpoint.config.Tickets
	if tickets == nil || len(state.PeerCertificates) != 1 {
		return x, false
	}
	if x.own, ok = ownDigest(config); !ok {
		return x, false
	}
	peer := keyDigest(state.PeerCertificates[0])
	b, err := state.ExportKeyingMaterial("redoubt carry 1 ticket", bothKeys(s.client, x.own, peer), ticketIDSize+ticketSecretSize)
	if err != nil {
		return x, false
	}
	copy(x.id[:], b)
	x.secret = b[ticketIDSize:]
	x.dialled, x.peer, x.full = s.client, state.PeerCertificates[0], tickets.now().Round(0) // also by the clock that a restart is told of
	x.key = peer
	if s.client {
		x.remote = s.path.remote
	}
	return x, true
}

// next is the ticket that a short handshake leaves behind.
func (x ticket) next(k resumedKeys) ticket {
	x.id, x.secret = k.nextID, k.nextSecret
	x.uses++
	return x
}
