package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"redoubt"
	"redoubt/carry"
	"redoubt/enclave"
	"redoubt/keys"
	"redoubt/replica"
)

// peers meets a node's peers: an enclave takes its devices in, a device dials its home. There is one meeting with a peer
// at a time; a newer one ends the older, whose road may be dead without anybody having told.
type peers struct {
	dir    string
	name   redoubt.NodeName
	estate string
	cloud  *enclave.Enclave
	cert   tls.Certificate
	clock  func() time.Time
	log    *slog.Logger
	device *deviceSide // of a device; nil: an enclave

	ring *keys.Keyring // that tickets are sealed under

	codecs  replica.Codecs
	roads   roads
	tickets *carry.Tickets

	udp  *carry.Endpoint // of a device: that it dials from
	tcp  *carry.Listener
	door door // of a device that others meet

	reach *reach // for jobs; silent with the links

	work sync.WaitGroup
	stop context.CancelFunc

	mu       sync.Mutex
	cut      map[redoubt.NodeName]bool
	silent   bool // of a device: it sends nothing
	meetings map[redoubt.NodeName]*meeting
	restored chan struct{} // closed and replaced when a cut ends, and when silence begins or ends
}

// meeting is a session under way, or the last one.
type meeting struct {
	conn    carry.Conn       // nil when it is over
	session *replica.Session // likewise
	said    replica.Status   // as it stood when it was over
	road    string
	stop    context.CancelFunc
	ended   chan struct{}
	over    bool
	told    string            // the last order that it was told
	toldOf  *string           // and the last word of neighbours; nil: none yet
	makers  string            // and of makers
	key     ed25519.PublicKey // that the peer proved
	last    time.Time         // when it ended
}

// end is of a meeting whose session has: of that and of the connection, which hold what had come and was not whole, nothing stays.
func (m *meeting) end(at time.Time) {
	m.over, m.last, m.said = true, at, m.session.Status()
	m.session, m.conn = nil, nil
}

// contactGrain is how finely the last contact is told.
const contactGrain = time.Minute

// cutsFile keeps which links are cut: an exercise's setting that outlives a restart.
const cutsFile = "cuts"

// silentFile keeps whether a device is in radio silence.
const silentFile = "silent"

func newPeers(dir string, name redoubt.NodeName, estate string, cloud *enclave.Enclave, out *reach, ring *keys.Keyring, clock func() time.Time, log *slog.Logger) (*peers, error) {
	cert, err := linkCertificate(ring, clock())
	if err != nil {
		return nil, err
	}
	p := &peers{dir: dir, name: name, estate: estate, cloud: cloud, cert: cert, ring: ring, clock: clock, log: log,
		cut: map[redoubt.NodeName]bool{}, meetings: map[redoubt.NodeName]*meeting{}, restored: make(chan struct{}), reach: out}
	p.readRoads()
	if p.tickets, err = openTickets(dir, ring, clock, log); err != nil {
		return nil, err
	}
	var cuts []redoubt.NodeName
	if err := readJSON(filepath.Join(dir, cutsFile), &cuts); err != nil && !errors.Is(err, redoubt.NotFound) {
		return nil, err
	}
	for _, peer := range cuts {
		p.cut[peer] = true
	}
	if err := readJSON(filepath.Join(dir, silentFile), &p.silent); err != nil && !errors.Is(err, redoubt.NotFound) {
		return nil, err
	}
	out.keep(p.silent)
	return p, nil
}

// linkCertificate proves that a node holds its key, and says nothing else: whose key that is each side's table of links says.
func linkCertificate(ring *keys.Keyring, now time.Time) (tls.Certificate, error) {
	return peerCertificate(ring, now, authorityLife)
}

// peerCertificate is signed with the node's own key, which it proves.
func peerCertificate(ring *keys.Keyring, from time.Time, life time.Duration, extensions ...pkix.Extension) (tls.Certificate, error) {
	signer, err := ring.Signer()
	if err != nil {
		return tls.Certificate{}, err
	}
	template, err := certificateFor("Redoubt peer", from, life)
	if err != nil {
		return tls.Certificate{}, err
	}
	template.KeyUsage, template.ExtraExtensions = x509.KeyUsageDigitalSignature, extensions
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		return tls.Certificate{}, &redoubt.Error{Op: "node.peerCertificate", Err: err}
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: signer}, nil
}

// listen takes peers in at an address, over UDP and TCP.
func (p *peers) listen(udp net.PacketConn, tcp net.Listener) error {
	config := carry.Config{Server: p.serverTLS(), Recall: p.recall, Tickets: p.tickets}
	var err error
	if p.udp, err = carry.NewEndpoint(config, udp); err != nil {
		return err
	}
	p.tcp, err = carry.ListenTCP(config, tcp)
	return err
}

// callFrom opens the socket that a device dials its home from: on loopback where its home is nowhere else.
func (p *peers) callFrom() (string, error) {
	from := "127.0.0.1:0"
	for _, a := range p.device.addresses {
		if !a.Addr().IsLoopback() {
			from = ":0"
		}
	}
	socket, err := net.ListenPacket("udp", from)
	if err != nil {
		return "", &redoubt.Error{Op: "node.callFrom", Object: from, Kind: redoubt.Unavailable, Err: cause(err)}
	}
	sockets := []net.PacketConn{socket}
	for _, source := range otherSources(p.device.addresses, sourceTo) {
		if s, err := net.ListenPacket("udp", netip.AddrPortFrom(source, 0).String()); err == nil { // else that way out is gone again
			sockets = append(sockets, s)
		}
	}
	if p.udp, err = carry.NewEndpoint(carry.Config{Recall: p.recall, Tickets: p.tickets}, sockets...); err != nil {
		for _, s := range sockets {
			err = errors.Join(err, s.Close())
		}
		return "", err
	}
	p.udp.SetSilent(p.silent)
	return socket.LocalAddr().String(), nil
}

// otherSources are our addresses that datagrams to some of the home's would leave from, but for the first: each is another way out,
// and has a socket of its own, so that carriage may use several at the same time. The first socket is bound to none of them: it
// works on when they change.
func otherSources(homes []netip.AddrPort, source func(netip.AddrPort) (netip.Addr, error)) (others []netip.Addr) {
	var all []netip.Addr
	for _, h := range homes {
		if a, err := source(h); err == nil && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all[min(1, len(all)):min(maxSources, len(all))]
}

// maxSources bounds the sockets: carriage knows eight paths, of two by two on.
const maxSources = 4

// sourceTo asks the system, without sending anything, which of our addresses it would take.
func sourceTo(home netip.AddrPort) (netip.Addr, error) {
	c, err := net.Dial("udp", home.String())
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// run meets peers until close.
func (p *peers) run() {
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	if p.udp != nil && p.device == nil {
		p.work.Go(func() { p.accept(ctx, "udp", p.udp.Accept) })
	}
	if p.tcp != nil {
		p.work.Go(func() { p.accept(ctx, "tcp", p.tcp.Accept) })
	}
	if p.device != nil {
		p.mu.Lock()
		p.door.ctx = ctx
		if err := p.openDoor(); err != nil {
			p.log.Error("neighbours cannot meet this device", slog.String("why", reason(err)))
		}
		p.mu.Unlock()
		p.work.Go(func() { p.dial(ctx) })
		p.work.Go(func() { p.dialNeighbours(ctx) })
	}
	p.work.Go(func() { p.follow(ctx) })
	p.work.Go(func() { p.rememberRoads(ctx) })
	p.work.Go(func() { p.keepTickets(ctx) })
}

// close ends every meeting and waits.
func (p *peers) close() error {
	if p.stop != nil {
		p.stop()
	}
	var err error
	if p.udp != nil {
		err = p.udp.Close()
	}
	if p.tcp != nil {
		err = errors.Join(err, p.tcp.Close())
	}
	p.mu.Lock()
	err = errors.Join(err, p.shutDoor())
	p.mu.Unlock()
	p.work.Wait()
	p.tickets.Close()
	return err
}

func (p *peers) accept(ctx context.Context, road string, accept func(context.Context) (carry.Conn, error)) {
	for {
		conn, err := accept(ctx)
		if err != nil {
			return // closed
		}
		p.meet(ctx, conn, road)
	}
}

// who is the peer that a certificate's key belongs to.
func (p *peers) who(cert *x509.Certificate) (redoubt.Link, bool) {
	key, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return redoubt.Link{}, false
	}
	for _, l := range p.cloud.Links() {
		if slices.Equal(l.Key, key) && l.Raise == redoubt.NoRaise {
			return l, true
		}
	}
	return redoubt.Link{}, false
}

// verify is the TLS verification of both sides: the peer holds the key of one of our links, whatever its certificate says.
func (p *peers) verify(s tls.ConnectionState) error {
	_, err := p.known(s)
	return err
}

func (p *peers) known(s tls.ConnectionState) (redoubt.Link, error) {
	if len(s.PeerCertificates) != 1 {
		return redoubt.Link{}, errors.New("one certificate is asked for")
	}
	l, ok := p.who(s.PeerCertificates[0])
	if !ok {
		return l, errors.New("no link has this key")
	}
	return l, nil
}

func (p *peers) serverTLS() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{p.cert}, ClientAuth: tls.RequireAnyClientCert, VerifyConnection: p.verify}
}

func (p *peers) clientTLS() *tls.Config {
	// Names and chains mean nothing here: verify compares the key.
	return &tls.Config{Certificates: []tls.Certificate{p.cert}, InsecureSkipVerify: true, VerifyConnection: p.verify}
}

// meet begins a meeting, and returns its end; nil where the peer is not met.
func (p *peers) meet(ctx context.Context, conn carry.Conn, road string) *meeting {
	p.mu.Lock()
	l, ok := p.who(conn.Peer()) // with mu held: whoever ends a link after this finds the meeting
	if !ok || p.cut[l.Peer] || p.silent || ctx.Err() != nil {
		p.mu.Unlock()
		conn.Close()
		return nil
	}
	before := p.meetings[l.Peer]
	ctx, stop := context.WithCancel(ctx)
	m := &meeting{conn: conn, road: road, key: l.Key, stop: stop, ended: make(chan struct{})}
	o := replica.Options{Estate: p.estate, Node: p.name, Peer: l.Peer, Journal: p.cloud, State: p.cloud, Conn: conn, Log: p.log, Codecs: &p.codecs,
		Rate: func() float64 { return conn.Stats().BytesPerSec },
		Met:  func(ctx context.Context, s *replica.Session) error { return p.met(ctx, s, l.Peer) },
		Noted: func(ctx context.Context, s *replica.Session, kind string, body []byte) error {
			return p.noted(ctx, s, l.Peer, kind, body)
		}}
	if p.device != nil && l.Peer != p.device.home {
		if err := p.admitNeighbour(ctx, &o, l, m); err != nil {
			p.mu.Unlock()
			stop()
			conn.Close()
			return nil
		}
	}
	m.session = replica.New(o)
	p.meetings[l.Peer] = m
	p.mu.Unlock()
	p.work.Go(func() {
		if before != nil {
			before.stop()
			<-before.ended
		}
		p.log.Info("meeting a peer", slog.String("peer", string(l.Peer)), slog.String("road", road))
		err := m.session.Run(ctx)
		stop()
		p.mu.Lock()
		m.end(p.clock())
		p.mu.Unlock()
		close(m.ended)
		if err != nil {
			p.log.Info("a meeting ended", slog.String("peer", string(l.Peer)), slog.String("kind", redoubt.KindOf(err).Error()), slog.String("why", reason(err)))
		}
	})
	return m
}

// reason is what of an error may be logged: the text of those of carriage and of the session, which hold neither names nor
// labels, and of any other the kind alone.
func reason(err error) string {
	var e *redoubt.Error
	if !errors.As(err, &e) || strings.HasPrefix(e.Op, "carry.") || strings.HasPrefix(e.Op, "replica.") {
		return err.Error()
	}
	return redoubt.KindOf(err).Error()
}

// follow ends meetings with peers whose link has ended.
func (p *peers) follow(ctx context.Context) {
	for {
		changed := p.cloud.LinksChanged()
		links := p.cloud.Links()
		p.mu.Lock()
		for peer, m := range p.meetings {
			if l, stands := links[peer]; !stands || !slices.Equal(l.Key, m.key) {
				m.stop()
			}
		}
		p.mu.Unlock()
		p.tellOrders()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// waitRestored waits while a link is cut or silent, says whether it was, and returns what the next change closes.
func (p *peers) waitRestored(ctx context.Context, peer redoubt.NodeName) (next <-chan struct{}, waited, ok bool) {
	for ; ; waited = true {
		p.mu.Lock()
		quiet, restored := p.cut[peer] || p.silent, p.restored
		p.mu.Unlock()
		if !quiet {
			return restored, waited, ctx.Err() == nil
		}
		select {
		case <-restored:
		case <-ctx.Done():
			return nil, waited, false
		}
	}
}

// parseAddresses reads addresses of a home.
func parseAddresses(texts []string) (all []netip.AddrPort, err error) {
	for _, t := range texts {
		a, err := netip.ParseAddrPort(t)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, nil
}
