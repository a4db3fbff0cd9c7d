package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"time"

	"redoubt"
	"redoubt/carry"
	"redoubt/keys"
)

// Devices of one home meet one another when it is not in reach (ADR 22). Each shows the lease that its home signed, in the certificate
// that proves its key; who has none that stands is not met, and a meeting ends with the lease.

// homeGone is how long a home is not met before its device dials a neighbour.
const homeGone = 10 * time.Second

// leaseExtension carries a lease, as JSON, in a link certificate. It is critical to nobody else: both ends compare keys.
var leaseExtension = asn1.ObjectIdentifier{1, 3, 6, 1, 3, 7236, 1}

const maxLeaseBytes = 4 << 10

// leased is the certificate that a device shows its neighbours: it ends with the lease.
func leased(ring *keys.Keyring, l redoubt.Lease) (*tls.Certificate, error) {
	signer, err := ring.Signer()
	if err != nil {
		return nil, err
	}
	value, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 63))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "Redoubt peer"}, NotBefore: l.Issued.Add(-clockSkew), NotAfter: l.Expires,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		ExtraExtensions: []pkix.Extension{{Id: leaseExtension, Value: value}}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		return nil, &redoubt.Error{Op: "node.leased", Err: err}
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: signer}, nil
}

// checkNeighbour says whether a certificate shows a lease that stands: of this peer and its key, by the home of both.
func (d *deviceSide) checkNeighbour(cert *x509.Certificate, peer redoubt.NodeName) error {
	bad := &redoubt.Error{Op: "carry.neighbour", Object: string(peer), Kind: redoubt.Denied, Rule: "lease-of-its-home (4.3)"}
	for _, x := range cert.Extensions {
		if !x.Id.Equal(leaseExtension) || len(x.Value) > maxLeaseBytes {
			continue
		}
		var l redoubt.Lease
		if json.Unmarshal(x.Value, &l) != nil {
			return bad
		}
		key, ok := cert.PublicKey.(ed25519.PublicKey)
		sig, err := base64.StdEncoding.Strict().DecodeString(l.Signature)
		if !ok || err != nil || l.Device != peer || l.Home != d.home || l.DeviceKey != base64.StdEncoding.EncodeToString(key) ||
			l.HomeKey != base64.StdEncoding.EncodeToString(d.homeKey) || !ed25519.Verify(d.homeKey, redoubt.LeaseMessage(l), sig) {
			return bad
		}
		// The certificate was made by the peer, so its own end says nothing.
		if now := d.clock(); !now.Before(l.Expires) || cert.NotAfter.After(l.Expires) || l.Issued.After(now.Add(clockSkew)) {
			return &redoubt.Error{Op: "carry.neighbour", Object: string(peer), Kind: redoubt.Expired, Rule: "lease-of-its-home (4.3)"}
		}
		return nil
	}
	return bad
}

// neighbourTLS proves a device to its neighbours, and verifies them as verify does.
func (p *peers) neighbourTLS() (*tls.Config, error) {
	p.device.mu.Lock()
	lease, ring := p.device.kept.Lease, p.device.ring
	p.device.mu.Unlock()
	cert, err := leased(ring, lease)
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{*cert}, InsecureSkipVerify: true, VerifyConnection: p.verify}, nil
}

// doorTLS is serverTLS of a device, whose lease may be renewed while it listens.
func (p *peers) doorTLS() *tls.Config {
	return &tls.Config{ClientAuth: tls.RequireAnyClientCert, VerifyConnection: p.verify, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return leased(p.device.ring, p.device.lease())
	}}
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
	config := carry.Config{Server: p.doorTLS()}
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
	p.door.udp, p.door.tcp, p.door.bound = nil, nil, nil
	var err error
	if b != nil {
		err = errors.Join(b.tcp.Close(), b.udp.Close())
	}
	if udp != nil {
		err = udp.Close()
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
		case <-time.After(jittered(dialPause)):
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
	return p.dialOnce(ctx, ctx, config, addresses)
}

// neighbours are what the home told last.
func (d *deviceSide) neighbours() []redoubt.Neighbour {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.kept.Neighbours
}

// toldNeighbours takes the home's word for the devices that may be met without it.
func (d *deviceSide) toldNeighbours(ctx context.Context, p *peers, body []byte) error {
	var all []redoubt.Neighbour
	if err := json.Unmarshal(body, &all); err != nil {
		return err
	}
	for _, n := range all {
		if _, err := parseAddresses(n.Addresses); err != nil {
			return err
		}
	}
	if err := p.cloud.SetNeighbours(ctx, all); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kept.Neighbours = all
	return d.keep()
}

// tellNeighbours tells devices that are being met of others, and of whose word has ended, when that is news. It waits for nobody: who
// cannot be told now is told at the next meeting. mu is held.
func (p *peers) tellNeighbours() {
	for peer, m := range p.meetings {
		if m.over || m.toldOf == nil {
			continue
		}
		if body := p.makers(); string(body) != m.makers && m.session.Offer(noteMakers, body) {
			m.makers = string(body)
		}
		if body := p.neighboursOf(peer); string(body) != *m.toldOf && m.session.Offer(noteNeighbours, body) {
			told := string(body)
			m.toldOf = &told
		}
	}
}

// makers is what a device is told of whom to believe.
func (p *peers) makers() []byte {
	body, err := json.Marshal(p.cloud.Makers())
	if err != nil {
		return []byte("{}") // plain fields encode
	}
	return body
}

// neighboursOf is what a device is told of others. Who has none is told so.
func (p *peers) neighboursOf(peer redoubt.NodeName) []byte {
	body, err := json.Marshal(p.cloud.Neighbours(peer))
	if err != nil {
		return []byte("[]") // plain fields encode
	}
	return body
}
