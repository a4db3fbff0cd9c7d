package ztdf

import (
	"crypto/aes"
	"encoding/binary"
	"io"
	"testing"
)

// TestTheSignedDigestBindsWhatTheTagsDoNot forges, as a recipient can who has the payload key: other content under the same nonce and the same
// tag, so that the hashes, the root signature and the originator's assertionSig all fit. Without the digest that is signed here the forgery is read
// by who accepts that (and File.Whole says so); with it, it is refused.
func TestTheSignedDigestBindsWhatTheTagsDoNot(t *testing.T) {
	const body = "pay one pound!!!and nothing more!"
	forged := func(p *parts) []byte {
		first := p.payload[nonceBytes:]
		var d [16]byte
		for i := range d {
			d[i] = body[i] ^ "pay a million!!!"[i]
			first[i] ^= d[i]
		}
		h := make([]byte, 16)
		must(aes.NewCipher(p.key)).Encrypt(h, h)
		for i, x := range times(d, [16]byte(h)) { // the next block takes the difference away again
			first[16+i] ^= x
		}
		return p.zip()
	}
	p := takeApart(t, written(t, content(t, body)))
	_, err := open(forged(p), options())
	wantRefused(t, "with the digest", err, RuleIntegrity, "payload is not the one")

	p = takeApart(t, written(t, content(t, body)))
	data := forged(p.resign(edKey(), false))
	_, err = open(data, options())
	wantRefused(t, "without the digest", err, RuleDigest, "tags alone")
	f, err := open(data, unbound())
	if err != nil || f.Whole {
		t.Fatalf("without the digest the forgery should be read: %v", err)
	}
	if got := must(io.ReadAll(f.Reader())); string(got[:16]) != "pay a million!!!" {
		t.Errorf("the forgery is %q: this test forges nothing", got)
	}
}

// times multiplies in the field of GHASH (NIST SP 800-38D, section 6.3).
func times(x, y [16]byte) (z [16]byte) {
	be := binary.BigEndian
	v0, v1 := be.Uint64(y[:8]), be.Uint64(y[8:])
	var z0, z1 uint64
	for i := range 128 {
		if x[i/8]>>(7-i%8)&1 == 1 {
			z0, z1 = z0^v0, z1^v1
		}
		low := v1 & 1
		v1, v0 = v1>>1|v0<<63, v0>>1
		if low == 1 {
			v0 ^= 0xe1 << 56
		}
	}
	be.PutUint64(z[:8], z0)
	be.PutUint64(z[8:], z1)
	return z
}
