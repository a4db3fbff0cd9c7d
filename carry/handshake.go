package carry

import (
	"context"
	"crypto/cipher"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"time"

	"redoubt"
)

// Limits and times of a handshake.
const (
	maxHandshake   = 1<<16 - 1 // bytes of TLS a level: a chain of certificates is a few thousand
	earlyDatagrams = 16        // sealed ones that overtook the end of the handshake
	shakeQueue     = 32
	firstPatience  = time.Second // before a round trip is known
	leastPatience  = 250 * time.Millisecond
	lingerTime     = 10 * time.Second // how long a refusal is repeated to whoever asks
)

// Levels of a fragment; the first two are those of TLS.
const (
	levelInitial   = 0
	levelHandshake = 1
	levelVerdict   = 2 // from the server, sealed like levelHandshake: whether it took the client
)

var (
	errRefused  = errors.New("the peer refused our certificate, or has no room")
	errProtocol = errors.New("the peer does not speak this protocol")
	errTooLong  = errors.New("the peer's handshake is too long")
)

// incomingDatagram is one that came for a handshake.
type incomingDatagram struct {
	b    []byte
	from path
}

// shake is one handshake: TLS 1.3 in datagrams, each level a stream of bytes of its own. One goroutine runs it.
type shake struct {
	endpoint      *Endpoint
	tls           *tls.QUICConn
	client        bool
	local, remote connID
	path          path
	cookie        cookie
	roundTrip     time.Duration

	out     [2][]byte
	outDone [2]int // what the other side has of it
	in      [2]incomingLevel
	came    int         // bytes of in that came
	seal    cipher.AEAD // of levelHandshake
	open    cipher.AEAD

	read, write []byte // traffic secrets
	done        bool
	peer        *x509.Certificate

	arrivals chan incomingDatagram
	early    [][]byte
}

// incomingLevel is what came of one level.
type incomingLevel struct {
	buf []byte
	got spans
	fed int
}

func newShake(e *Endpoint) *shake {
	return &shake{endpoint: e, arrivals: make(chan incomingDatagram, shakeQueue)}
}

// deliver implements taker. What does not fit is as good as lost.
func (s *shake) deliver(b []byte, from path) {
	select {
	case s.arrivals <- incomingDatagram{append([]byte(nil), b...), from}:
	default:
	}
}

// parameters are what both sides say of themselves within TLS, so that nobody can change it on the way: version, own
// connection ID, the other's (0 while it is not known).
func (s *shake) parameters() []byte {
	b := binary.BigEndian.AppendUint32([]byte{wireVersion}, uint32(s.local))
	return binary.BigEndian.AppendUint32(b, uint32(s.remote))
}

func (s *shake) checkParameters(b []byte) error {
	if len(b) != 9 || b[0] != wireVersion || connID(binary.BigEndian.Uint32(b[1:])) != s.remote && !s.client {
		return errProtocol
	}
	if s.client {
		if connID(binary.BigEndian.Uint32(b[1:])) != s.remote || connID(binary.BigEndian.Uint32(b[5:])) != s.local {
			return errProtocol
		}
	}
	return nil
}

// begin starts TLS.
func (s *shake) begin(ctx context.Context, config *tls.Config) error {
	quic := &tls.QUICConfig{TLSConfig: config}
	if s.client {
		s.tls = tls.QUICClient(quic)
	} else {
		s.tls = tls.QUICServer(quic)
	}
	s.tls.SetTransportParameters(s.parameters())
	if err := s.tls.Start(ctx); err != nil {
		return err
	}
	return s.events()
}

// events does what TLS asks for.
func (s *shake) events() error {
	for {
		e := s.tls.NextEvent()
		var err error
		switch e.Kind {
		case tls.QUICNoEvent:
			return nil
		case tls.QUICErrorEvent:
			return e.Err
		case tls.QUICWriteData:
			if e.Level == tls.QUICEncryptionLevelInitial {
				s.out[levelInitial] = append(s.out[levelInitial], e.Data...)
			} else if e.Level == tls.QUICEncryptionLevelHandshake {
				s.out[levelHandshake] = append(s.out[levelHandshake], e.Data...)
			}
		case tls.QUICSetReadSecret:
			err = s.secret(&s.open, &s.read, e)
		case tls.QUICSetWriteSecret:
			err = s.secret(&s.seal, &s.write, e)
		case tls.QUICTransportParameters:
			err = s.checkParameters(e.Data)
		case tls.QUICHandshakeDone:
			s.done = true
			s.peer = s.tls.ConnectionState().PeerCertificates[0]
		}
		if err != nil {
			return err
		}
	}
}

func (s *shake) secret(handshake *cipher.AEAD, traffic *[]byte, e tls.QUICEvent) (err error) {
	switch e.Level {
	case tls.QUICEncryptionLevelHandshake:
		*handshake, err = trafficKey(e.Data)
	case tls.QUICEncryptionLevelApplication:
		*traffic = append([]byte(nil), e.Data...)
	}
	return err
}

// take reads a fragment. What is not for us, or does not open, is ignored.
func (s *shake) take(f fragment, b []byte) error {
	if f.level >= levelHandshake {
		if s.open == nil {
			return nil
		}
		plain, err := s.open.Open(nil, nil, f.data, b[:fragmentHeader])
		if err != nil {
			return nil
		}
		f.data = plain
	}
	for level := range s.outDone {
		if have := int(f.have[level]); have <= len(s.out[level]) {
			s.outDone[level] = max(s.outDone[level], have)
		}
	}
	if f.level == levelInitial && s.open != nil {
		return nil // that level is over; anybody could have sent this
	}
	in := &s.in[f.level]
	end := int(f.offset) + len(f.data)
	if end > maxHandshake {
		return errTooLong
	}
	if end > len(in.buf) {
		in.buf = append(in.buf, make([]byte, end-len(in.buf))...)
	}
	if len(f.data) == 0 || in.got.has(uint64(f.offset), uint64(end)) {
		return nil
	}
	copy(in.buf[f.offset:], f.data)
	in.got.add(uint64(f.offset), uint64(end))
	s.came += len(f.data)
	return s.feed()
}

// feed gives TLS what has come without a gap.
func (s *shake) feed() error {
	for level, tlsLevel := range []tls.QUICEncryptionLevel{tls.QUICEncryptionLevelInitial, tls.QUICEncryptionLevelHandshake} {
		in := &s.in[level]
		reach := int(in.got.prefix(0))
		if reach == in.fed || level == levelHandshake && s.open == nil {
			continue
		}
		data := in.buf[in.fed:reach:reach]
		in.fed = reach
		if err := s.tls.HandleData(tlsLevel, data); err != nil {
			return errors.Join(err, s.events())
		}
		if err := s.events(); err != nil {
			return err
		}
	}
	return nil
}

// send sends everything that the other side does not have, or at least what we have of its.
func (s *shake) send() {
	sentAny := false
	for level := range s.out {
		if level == levelHandshake && s.seal == nil {
			continue
		}
		const most = floorDatagram - fragmentHeader - aeadOverhead
		for at := s.outDone[level]; at < len(s.out[level]); at += most {
			s.sendFragment(uint8(level), at, s.out[level][at:min(at+most, len(s.out[level]))])
			sentAny = true
		}
	}
	if !sentAny {
		s.ask()
	}
}

// ask says what we have of the other side's, and nothing else: a small datagram, that the other side answers with what is lacking.
func (s *shake) ask() {
	level := uint8(levelInitial)
	if s.seal != nil {
		level = levelHandshake
	}
	s.sendFragment(level, s.outDone[level], nil)
}

// lacks tells whether the other side is not known to have all that we say.
func (s *shake) lacks() bool {
	return s.outDone[levelInitial] < len(s.out[levelInitial]) || s.seal != nil && s.outDone[levelHandshake] < len(s.out[levelHandshake])
}

func (s *shake) sendFragment(level uint8, offset int, data []byte) {
	s.endpoint.send(s.path, s.fragment(level, offset, data))
}

func (s *shake) fragment(level uint8, offset int, data []byte) []byte {
	f := fragment{from: s.local, to: s.remote, cookie: s.cookie, level: level, offset: uint16(offset)}
	for i := range s.in {
		f.have[i] = uint16(s.in[i].fed)
	}
	if level == levelInitial {
		f.data = data
		return encodeFragment(f)
	}
	header := encodeFragment(f)
	return s.seal.Seal(header, nil, data, append([]byte(nil), header...))
}

// keepEarly keeps what overtook the end of the handshake.
func (s *shake) keepEarly(b []byte) {
	if len(s.early) < earlyDatagrams {
		s.early = append(s.early, b)
	}
}

// session is what the finished handshake agreed on.
func (s *shake) session(paths []path) session {
	return session{
		local: s.local, remote: s.remote, read: s.read, write: s.write, peer: s.peer,
		roundTrip: s.roundTrip, paths: paths, dialled: s.client,
	}
}

// close ends TLS's goroutine.
func (s *shake) close() {
	if s.tls != nil {
		s.tls.Close()
	}
}

func unauthenticated(op string, err error) error {
	return &redoubt.Error{Op: op, Kind: redoubt.Unauthenticated, Err: err}
}
