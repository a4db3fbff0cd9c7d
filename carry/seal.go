package carry

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha512"
	"encoding/binary"
	"errors"
)

// rekeyAfter is when a sender moves to its next key: a quarter of what a key may seal under random
// nonces (2^32, NIST SP 800-38D section 8.3).
const (
	rekeyAfter = 1 << 30
	mostSealed = 1 << 32 // a peer that has not acknowledged any of so many is not there
)

// trafficKey derives the AEAD of one direction from a secret of the TLS handshake. The nonce is random and in front
// of the ciphertext: the one form of GCM that the FIPS module lets a caller seal with.
func trafficKey(secret []byte) (cipher.AEAD, error) {
	key, err := hkdf.Expand(sha512.New384, secret, "redoubt carry 1 key", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// nextSecret is that of the following epoch; from it nothing leads back.
func nextSecret(secret []byte) ([]byte, error) {
	return hkdf.Expand(sha512.New384, secret, "redoubt carry 1 next", 48)
}

// sealer seals what one side sends.
type sealer struct {
	secret []byte
	aead   cipher.AEAD
	to     connID // the peer's
	epoch  uint64
	sealed uint64 // datagrams under this epoch's key
	limit  uint64
}

func newSealer(secret []byte, to connID) (*sealer, error) {
	aead, err := trafficKey(secret)
	return &sealer{secret: secret, aead: aead, to: to, limit: rekeyAfter}, err
}

// seal appends the datagram of plain, which begins with its number, to dst.
func (s *sealer) seal(dst, plain []byte) []byte {
	at := len(dst)
	dst = binary.BigEndian.AppendUint32(append(dst, kindSealed|byte(s.epoch&1)), uint32(s.to))
	s.sealed++
	var aad [sealedHeader]byte
	copy(aad[:], dst[at:])
	return s.aead.Seal(dst, nil, plain, aad[:])
}

// rekey moves to the next epoch once the limit is reached and the peer is known to have the present one: known
// is the newest epoch that it acknowledged a datagram of. While it is not, sealing goes on; a peer that acknowledges
// nothing of 2^30 datagrams has been down long before.
func (s *sealer) rekey(known uint64) error {
	if s.sealed < s.limit || known < s.epoch {
		return nil
	}
	secret, err := nextSecret(s.secret)
	if err != nil {
		return err
	}
	aead, err := trafficKey(secret)
	if err != nil {
		return err
	}
	clear(s.secret)
	s.secret, s.aead, s.epoch, s.sealed = secret, aead, s.epoch+1, 0
	return nil
}

// opener opens what the peer sends: under the present key, the one before (for what was
// overtaken) and the one after (when the peer moves on).
type opener struct {
	secret             []byte // of next
	before, now, after cipher.AEAD
	epoch              uint64
}

func newOpener(secret []byte) (*opener, error) {
	now, err := trafficKey(secret)
	if err != nil {
		return nil, err
	}
	o := &opener{now: now}
	if o.secret, err = nextSecret(secret); err == nil {
		o.after, err = trafficKey(o.secret)
	}
	return o, err
}

var errSeal = errors.New("a datagram that does not open")

// open appends the plaintext of a datagram to dst.
func (o *opener) open(dst, datagram []byte) ([]byte, error) {
	if len(datagram) < sealedOverhead || datagram[0]&^1 != kindSealed {
		return nil, errSeal
	}
	aad, sealed := datagram[:sealedHeader], datagram[sealedHeader:]
	if uint64(datagram[0]&1) == o.epoch&1 {
		return o.now.Open(dst, nil, sealed, aad)
	}
	if o.before != nil {
		if plain, err := o.before.Open(dst, nil, sealed, aad); err == nil {
			return plain, nil
		}
	}
	plain, err := o.after.Open(dst, nil, sealed, aad)
	if err != nil {
		return nil, err
	}
	return plain, o.advance()
}

// advance follows the peer into its next epoch.
func (o *opener) advance() error {
	secret, err := nextSecret(o.secret)
	if err != nil {
		return err
	}
	after, err := trafficKey(secret)
	if err != nil {
		return err
	}
	clear(o.secret)
	o.secret, o.before, o.now, o.after, o.epoch = secret, o.now, o.after, after, o.epoch+1
	return nil
}
