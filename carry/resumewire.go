package carry

import (
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha512"
	"encoding/binary"
)

// Sizes of a short handshake's two datagrams. The answer is the shorter one: who claims another's address gains nothing by it.
const (
	ticketIDSize     = 16
	ticketSecretSize = 48
	shareSize        = 65 // of P-256, uncompressed: X25519 is not of FIPS 140-3's module
	resumeTag        = 32
	resumeSize       = 2 + 4 + ticketIDSize + shareSize + resumeTag
	resumedSize      = 2 + 4 + 4 + shareSize + resumeTag
)

// resumeRequest asks to go on from an earlier connection: kind, version, the client's connection ID, the ticket's ID, a share, and a tag
// over all of it that proves the ticket's secret.
type resumeRequest struct {
	client connID
	ticket [ticketIDSize]byte
	share  [shareSize]byte
}

func encodeResume(m resumeRequest, secret []byte) ([]byte, error) {
	b := binary.BigEndian.AppendUint32([]byte{kindResume, wireVersion}, uint32(m.client))
	b = append(append(b, m.ticket[:]...), m.share[:]...)
	tag, err := requestTag(b, secret)
	return append(b, tag...), err
}

// decodeResume reads one; whether its tag is right is for provesTicket to say.
func decodeResume(b []byte) (m resumeRequest, ok bool) {
	if len(b) != resumeSize || b[0] != kindResume || b[1] != wireVersion {
		return m, false
	}
	m.client = connID(binary.BigEndian.Uint32(b[2:]))
	copy(m.ticket[:], b[6:])
	copy(m.share[:], b[6+ticketIDSize:])
	return m, m.client != 0
}

func requestTag(head, secret []byte) ([]byte, error) {
	key, err := hkdf.Expand(sha512.New384, secret, "redoubt carry 1 resume", 48)
	if err != nil {
		return nil, err
	}
	return tagOf(key, head), nil
}

func tagOf(key, message []byte) []byte {
	h := hmac.New(sha512.New384, key)
	h.Write(message)
	return h.Sum(nil)[:resumeTag]
}

// provesTicket tells whether a request was made by who has the ticket's secret.
func provesTicket(request, secret []byte) bool {
	tag, err := requestTag(request[:resumeSize-resumeTag], secret)
	return err == nil && hmac.Equal(tag, request[resumeSize-resumeTag:])
}

// resumeAnswer goes on: kind, version, the client's connection ID, the server's, a share, and a tag under keys that only who has the
// ticket's secret and one of the two shares can know.
type resumeAnswer struct {
	client, server connID
	share          [shareSize]byte
	tag            [resumeTag]byte
}

func (m *resumeAnswer) head() []byte {
	b := binary.BigEndian.AppendUint32([]byte{kindResumed, wireVersion}, uint32(m.client))
	return append(binary.BigEndian.AppendUint32(b, uint32(m.server)), m.share[:]...)
}

func encodeResumed(m resumeAnswer) []byte { return append(m.head(), m.tag[:]...) }

func decodeResumed(b []byte) (m resumeAnswer, ok bool) {
	if len(b) != resumedSize || b[0] != kindResumed || b[1] != wireVersion {
		return m, false
	}
	m.client, m.server = connID(binary.BigEndian.Uint32(b[2:])), connID(binary.BigEndian.Uint32(b[6:]))
	copy(m.share[:], b[10:])
	copy(m.tag[:], b[10+shareSize:])
	return m, m.client != 0 && m.server != 0
}

// resumedKeys are what both sides of a short handshake know.
type resumedKeys struct {
	client, server []byte // traffic secrets, of what each side sends
	confirm        []byte // of the answer's tag
	nextID         [ticketIDSize]byte
	nextSecret     []byte
}

// deriveResumed takes the ticket's secret and the agreement of the two shares together (SP 800-56C, section 2: a hybrid shared secret), bound to
// everything that was said.
func deriveResumed(own *ecdh.PrivateKey, peer [shareSize]byte, secret, request, answerHead []byte) (k resumedKeys, err error) {
	public, err := ecdh.P256().NewPublicKey(peer[:])
	if err != nil {
		return k, err
	}
	shared, err := own.ECDH(public)
	if err != nil {
		return k, err
	}
	h := sha512.New384()
	h.Write(request)
	h.Write(answerHead)
	said := string(h.Sum(nil))
	both := append(shared, secret...)
	defer clear(both)
	master, err := hkdf.Extract(sha512.New384, both, nil)
	if err != nil {
		return k, err
	}
	defer clear(master)
	next := make([]byte, ticketIDSize+ticketSecretSize)
	for _, x := range []struct {
		to    *[]byte
		label string
		n     int
	}{{&k.client, "client", 48}, {&k.server, "server", 48}, {&k.confirm, "confirm", 48}, {&next, "next", len(next)}} {
		if *x.to, err = hkdf.Expand(sha512.New384, master, "redoubt carry 1 resumed "+x.label+said, x.n); err != nil {
			return k, err
		}
	}
	copy(k.nextID[:], next)
	k.nextSecret = next[ticketIDSize:]
	return k, nil
}
