package carry

import "encoding/binary"

// open asks for a cookie: kind, version, the client's connection ID, zeros up to openSize.
func encodeOpen(client connID) []byte {
	b := make([]byte, openSize)
	b[0], b[1] = kindOpen, wireVersion
	binary.BigEndian.PutUint32(b[2:], uint32(client))
	return b
}

func decodeOpen(b []byte) (client connID, ok bool) {
	if len(b) != openSize || b[0] != kindOpen || b[1] != wireVersion {
		return 0, false
	}
	for _, x := range b[6:] {
		if x != 0 {
			return 0, false
		}
	}
	client = connID(binary.BigEndian.Uint32(b[2:]))
	return client, client != 0
}

// retry gives the cookie.
type retry struct {
	client connID
	cookie cookie
}

const retrySize = 2 + 4 + cookieSize

func encodeRetry(m retry) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kindRetry, wireVersion}, uint32(m.client))
	return append(b, m.cookie[:]...)
}

func decodeRetry(b []byte) (m retry, ok bool) {
	if len(b) != retrySize || b[0] != kindRetry || b[1] != wireVersion {
		return m, false
	}
	return retry{connID(binary.BigEndian.Uint32(b[2:])), cookie(b[6:])}, true
}

// fragment is a piece of the TLS handshake: level 0 in clear, level 1 sealed under the handshake's own keys. have says up to where the
// sender has the other side's bytes of each level.
type fragment struct {
	from, to connID // to is 0 while the client does not know the server's
	cookie   cookie // of the client; zeros from the server
	have     [2]uint16
	level    uint8
	offset   uint16
	data     []byte // sealed at level 1
}

const fragmentHeader = 2 + 4 + 4 + cookieSize + 2 + 2 + 1 + 2

// encodeFragment gives header and data; the header is what a sealed fragment is bound to.
func encodeFragment(f fragment) []byte {
	b := make([]byte, 0, floorDatagram)
	b = binary.BigEndian.AppendUint32(append(b, kindShake, wireVersion), uint32(f.from))
	b = binary.BigEndian.AppendUint32(b, uint32(f.to))
	b = append(b, f.cookie[:]...)
	b = binary.BigEndian.AppendUint16(b, f.have[0])
	b = binary.BigEndian.AppendUint16(b, f.have[1])
	b = binary.BigEndian.AppendUint16(append(b, f.level), f.offset)
	return append(b, f.data...)
}

func decodeFragment(b []byte) (f fragment, ok bool) {
	if len(b) < fragmentHeader || len(b) > floorDatagram || b[0] != kindShake || b[1] != wireVersion {
		return f, false
	}
	f.from, f.to = connID(binary.BigEndian.Uint32(b[2:])), connID(binary.BigEndian.Uint32(b[6:]))
	f.cookie = cookie(b[10:])
	b = b[10+cookieSize:]
	f.have = [2]uint16{binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])}
	f.level, f.offset, f.data = b[4], binary.BigEndian.Uint16(b[5:]), b[7:]
	return f, f.from != 0 && f.level <= levelVerdict
}

// unknown answers a sealed datagram of a connection that is not here: its first bytes, nonce included, so that only who saw it can
// have sent the answer.
const unknownSize = 1 + sealedHeader + 12

func encodeUnknown(sealed []byte) []byte {
	return append([]byte{kindUnknown}, sealed[:unknownSize-1]...)
}
