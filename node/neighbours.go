package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"time"

	"redoubt"
	"redoubt/carry"
	"redoubt/estate"
	"redoubt/keys"
	"redoubt/replica"
)

// Devices of one home meet one another when it is not in reach (ADR 22). Each shows the lease that its home signed, in the certificate
// that proves its key; who has none that stands is not met, and a meeting ends with the lease.

// homeGone is how long a home is not met before its device dials a neighbour.
const homeGone = 10 * time.Second

// leaseExtension carries a lease, as JSON, in a link certificate. It is critical to nobody else: both ends compare keys.
var leaseExtension = asn1.ObjectIdentifier{1, 3, 6, 1, 3, 7236, 1}

const maxLeaseBytes = 4 << 10

// leased is the certificate that a device shows its neighbours: it ends with the lease.
func leased(ring *keys.Keyring, l redoubt.Lease) (tls.Certificate, error) {
	value, err := json.Marshal(l)
	if err != nil {
		return tls.Certificate{}, err
	}
	return peerCertificate(ring, l.Issued, l.Life(), pkix.Extension{Id: leaseExtension, Value: value})
}

// shownLease is the lease in a certificate, as JSON; nil where there is none.
func shownLease(cert *x509.Certificate) []byte {
	for _, x := range cert.Extensions {
		if x.Id.Equal(leaseExtension) {
			return x.Value
		}
	}
	return nil
}

// checkNeighbour says whether a lease stands that a neighbour shows, of it and its key, by the home of both, and gives its end.
func (d *deviceSide) checkNeighbour(shown []byte, key any, peer redoubt.NodeName) (expires time.Time, err error) {
	bad := &redoubt.Error{Op: "carry.neighbour", Object: string(peer), Kind: redoubt.Denied, Rule: "lease-of-its-home (4.3)"}
	var l redoubt.Lease
	if len(shown) > maxLeaseBytes || json.Unmarshal(shown, &l) != nil {
		return time.Time{}, bad
	}
	public, ok := key.(ed25519.PublicKey)
	if !ok || l.HomeKey != base64.StdEncoding.EncodeToString(d.homeKey) || !d.signed(l, d.homeKey, peer, base64.StdEncoding.EncodeToString(public)) {
		return time.Time{}, bad
	}
	if now := d.clock(); !now.Before(l.Expires) || l.Issued.After(now.Add(clockSkew)) {
		return time.Time{}, &redoubt.Error{Op: "carry.neighbour", Object: string(peer), Kind: redoubt.Expired, Rule: "lease-of-its-home (4.3)"}
	}
	return l.Expires, nil
}

// neighbourTLS proves a device to a neighbour that it dials: with its lease, which nobody sees but who has proved the key that the home
// told of first.
func (p *peers) neighbourTLS() (*tls.Config, error) {
	cert, err := leased(p.device.ring, p.device.lease())
	if err != nil {
		return nil, err
	}
	config := p.clientTLS()
	config.Certificates = []tls.Certificate{cert}
	return config, nil
}

// doorTLS is what a device shows whoever knocks: its key, and nothing else. Who comes in shows a lease.
func (p *peers) doorTLS() *tls.Config {
	config := p.serverTLS()
	config.VerifyConnection = func(s tls.ConnectionState) error {
		l, err := p.known(s)
		if err != nil {
			return err
		}
		cert := s.PeerCertificates[0]
		expires, err := p.device.checkNeighbour(shownLease(cert), cert.PublicKey, l.Peer)
		if err == nil && cert.NotAfter.After(expires) {
			err = errors.New("the certificate outlives the lease")
		}
		return err
	}
	return config
}

// admitNeighbour has a device look at the lease that a neighbour shows in its greeting: the one that was dialled has shown none
// yet. The meeting ends with the lease.
func (p *peers) admitNeighbour(ctx context.Context, o *replica.Options, l redoubt.Link, m *meeting) error {
	shown, err := json.Marshal(p.device.lease())
	if err != nil {
		return err
	}
	key := m.conn.Peer().PublicKey
	o.Proof, o.Admit = shown, func(proof []byte) error {
		expires, err := p.device.checkNeighbour(proof, key, l.Peer)
		if err == nil {
			end := time.AfterFunc(expires.Sub(p.device.clock()), m.stop)
			context.AfterFunc(ctx, func() { end.Stop() })
		}
		return err
	}
	return nil
}

// door is where a device's neighbours meet it. It is shut in radio silence: a TCP listener answers whoever knocks, and
// a connection that is not there cannot be heard.
type door struct {
	listen func() (net.Listener, net.PacketConn, error) // nil: none
	ctx    context.Context                              // of the node's meetings; nil: they have not begun
	bound  *bound                                       // what it listens at, before they begin
	udp    *carry.Endpoint
	tcp    *carry.Listener
}

type bound struct {
	tcp net.Listener
	udp net.PacketConn
}

// bindDoor takes the addresses of the door, so that a node that cannot have them does not start. It gives what is dialled.
func (p *peers) bindDoor(listen func() (net.Listener, net.PacketConn, error)) (address string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.door.listen = listen
	b := new(bound)
	if b.tcp, b.udp, err = listen(); err != nil {
		return "", err
	}
	address = b.tcp.Addr().String()
	if p.silent {
		return address, errors.Join(b.tcp.Close(), b.udp.Close())
	}
	p.door.bound = b
	return address, nil
}

// openDoor lets neighbours in, once the node meets peers and unless it keeps silent. mu is held.
func (p *peers) openDoor() error {
	d := &p.door
	if d.listen == nil || d.ctx == nil || d.udp != nil || p.silent {
		return nil
	}
	b := d.bound
	if d.bound = nil; b == nil {
		b = new(bound)
		var err error
		if b.tcp, b.udp, err = d.listen(); err != nil {
			return err
		}
	}
	tcp, udp := b.tcp, b.udp
	var err error
	config := carry.Config{Server: p.doorTLS(), Recall: p.recall, Tickets: p.tickets}
	if d.udp, err = carry.NewEndpoint(config, udp); err != nil {
		return errors.Join(err, tcp.Close(), udp.Close())
	}
	if d.tcp, err = carry.ListenTCP(config, tcp); err != nil {
		return errors.Join(err, tcp.Close(), p.shutDoor())
	}
	ctx, byUDP, byTCP := d.ctx, d.udp.Accept, d.tcp.Accept
	p.work.Go(func() { p.accept(ctx, "udp", byUDP) })
	p.work.Go(func() { p.accept(ctx, "tcp", byTCP) })
	return nil
}

// shutDoor ends what came in by it, and lets nobody in any more. mu is held.
func (p *peers) shutDoor() error {
	udp, tcp, b := p.door.udp, p.door.tcp, p.door.bound
	if udp != nil && p.silent {
		udp.SetSilent(true) // it says no farewell
	}
	p.door.udp, p.door.tcp, p.door.bound = nil, nil, nil
	var err error
	if b != nil {
		err = errors.Join(b.tcp.Close(), b.udp.Close())
	}
	if udp != nil {
		err = errors.Join(err, udp.Close())
	}
	if tcp != nil {
		err = errors.Join(err, tcp.Close())
	}
	return err
}

// homeMet says whether a device is meeting its home.
func (p *peers) homeMet() bool { return p.meets(p.device.home) }

func (p *peers) meets(peer redoubt.NodeName) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.meetings[peer]
	return m != nil && !m.over && m.conn.Stats().State == carry.Up
}

// dialNeighbours keeps a device in meetings with the neighbours that it dials, while its home is not met.
func (p *peers) dialNeighbours(ctx context.Context) {
	gone := time.Now()
	mine := map[redoubt.NodeName]*meeting{} // that this side dialled
	for {
		select {
		case <-time.After(jittered(lookPause)):
		case <-ctx.Done():
			return
		}
		if p.homeMet() {
			gone = time.Now()
			for peer, m := range mine {
				m.stop()
				delete(mine, peer)
			}
		}
		if time.Since(gone) < homeGone {
			continue
		}
		for _, n := range p.device.neighbours() {
			if len(n.Addresses) == 0 || p.meets(n.Device) || p.isQuiet(n.Device) {
				continue
			}
			m, err := p.dialNeighbour(ctx, n)
			if m != nil {
				mine[n.Device] = m
			} else if ctx.Err() == nil {
				p.log.Debug("a neighbour is not met", slog.String("peer", string(n.Device)), slog.String("why", reason(err)))
			}
		}
	}
}

func (p *peers) isQuiet(peer redoubt.NodeName) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut[peer] || p.silent
}

func (p *peers) dialNeighbour(ctx context.Context, n redoubt.Neighbour) (*meeting, error) {
	addresses, err := parseAddresses(n.Addresses)
	if err != nil {
		return nil, err
	}
	config, err := p.neighbourTLS()
	if err != nil {
		return nil, err
	}
	return p.dialOnce(ctx, ctx, config, n.Device, addresses)
}

// neighbours are what the home told last.
func (d *deviceSide) neighbours() []redoubt.Neighbour {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.kept.Neighbours
}

// homesWord is what a home tells its devices of one another, in as many notes as it takes. One that is older than what was told
// last says nothing: a bundle may have lain for long.
type homesWord struct {
	Issued     time.Time           `json:"issued"`
	More       bool                `json:"more,omitempty"` // another of the same follows
	Makers     makersKeys          `json:"makers,omitempty"`
	Neighbours []redoubt.Neighbour `json:"neighbours,omitempty"`
}

// toldNeighbours takes the home's word for the devices that may be met without it. One that has a fault, of an estate that this device
// does not have yet, is left out.
func (d *deviceSide) toldNeighbours(ctx context.Context, p *peers, body []byte) error {
	var w homesWord
	if err := strictly(body, &w); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !w.Issued.After(d.kept.NeighboursAt) {
		return nil
	}
	good := []redoubt.Neighbour{}
	for _, n := range w.Neighbours {
		_, err := parseAddresses(n.Addresses)
		if err == nil {
			err = p.cloud.CheckNeighbour(n)
		}
		if err != nil {
			d.log.Warn("a neighbour that the home told of does not fit this device", slog.String("kind", redoubt.KindOf(err).Error()))
			continue
		}
		good = append(good, n)
	}
	if err := p.cloud.SetNeighbours(ctx, good); err != nil {
		return err
	}
	d.kept.Neighbours, d.kept.NeighboursAt = good, w.Issued
	return d.keep()
}

// toldMakers takes the home's word for the keys of its devices, when all of it has come.
func (d *deviceSide) toldMakers(p *peers, body []byte) error {
	var w homesWord
	if err := strictly(body, &w); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !w.Issued.After(d.kept.MakersAt) {
		return nil
	}
	if !w.Issued.Equal(d.coming.Issued) {
		d.coming = homesWord{Issued: w.Issued, Makers: makersKeys{}}
	}
	for name, keys := range w.Makers {
		d.coming.Makers[name] = append(d.coming.Makers[name], keys...)
	}
	if len(d.coming.Makers) > maxMakers {
		return &redoubt.Error{Op: "node.toldMakers", Kind: redoubt.TooLarge}
	}
	if w.More {
		return nil
	}
	d.kept.Makers, d.kept.MakersAt, d.coming = p.cloud.SetMakers(whole(d.coming.Makers)), w.Issued, homesWord{}
	return d.keep()
}

// maxMakers bounds what a home has a device keep: four times the nodes of an estate.
const maxMakers = 4 * estate.MaxNodes

// makersNotes are the keys of a home's devices, as they are told: each note has as many as go into one.
func (p *peers) makersNotes() (notes [][]byte, err error) {
	const keysAtOnce = 2000 // at 120 bytes with their names they fill a note
	all, now := p.cloud.Makers(), p.clock().UTC()
	w := homesWord{Issued: now, Makers: makersKeys{}}
	n := 0
	flush := func(more bool) error {
		w.More = more
		body, err := json.Marshal(w)
		notes = append(notes, body)
		w.Makers, n = makersKeys{}, 0
		return err
	}
	for _, name := range sortedNames(all) {
		for _, k := range all[name] {
			if n == keysAtOnce {
				if err := flush(true); err != nil {
					return nil, err
				}
			}
			w.Makers[name] = append(w.Makers[name], k)
			n++
		}
	}
	return notes, flush(false)
}

func strictly(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the note")
	}
	return nil
}

// tellNeighbours tells devices that are being met of others, when that is news. It waits for nobody: who cannot be told now is told
// at the next meeting. mu is held.
func (p *peers) tellNeighbours() {
	news := p.makersNews()
	for peer, m := range p.meetings {
		if m.over || m.toldOf == nil {
			continue
		}
		if news != m.makers && p.offerMakers(m) {
			m.makers = news
		}
		if body, of := p.neighboursOf(peer); of != *m.toldOf && m.session.Offer(noteNeighbours, body) {
			m.toldOf = &of
		}
	}
}

// makersNews is what of the makers is news when it changes.
func (p *peers) makersNews() string {
	news, _ := json.Marshal(p.cloud.Makers()) // plain fields encode
	return string(news)
}

// offerMakers tells of the makers, if all of it is taken up at once.
func (p *peers) offerMakers(m *meeting) bool {
	notes, err := p.makersNotes()
	for _, body := range notes {
		if err != nil || !m.session.Offer(noteMakers, body) {
			return false
		}
	}
	return err == nil
}

// neighboursOf is what a device is told of others, and what of that is news when it changes. Who has none is told so.
func (p *peers) neighboursOf(peer redoubt.NodeName) (body []byte, of string) {
	all := p.cloud.Neighbours(peer)
	body, err := json.Marshal(homesWord{Issued: p.clock().UTC(), Neighbours: all})
	if err != nil {
		return nil, "" // plain fields encode
	}
	news, _ := json.Marshal(all)
	return body, string(news)
}
