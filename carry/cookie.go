package carry

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// A cookie proves that whoever opens a connection receives at the address it sends from; until then nothing is kept
// of it, and no more bytes are sent there than came.
const (
	cookieSize = 8 + 16
	cookieLife = 2 * time.Minute
	openSize   = 64 // an opening is padded to it, so that the answer is no longer than the question
)

type cookie [cookieSize]byte

// cookies makes and checks cookies under a key of this process.
type cookies struct{ key [32]byte }

func (c *cookies) bake(now time.Time, o opening) (out cookie) {
	binary.BigEndian.PutUint64(out[:8], uint64(now.UnixMilli()))
	copy(out[8:], c.sum(out[:8], o))
	return out
}

// good checks a cookie, and tells how old it is: its way there and back, at least.
func (c *cookies) good(now time.Time, o opening, have cookie) (age time.Duration, good bool) {
	age = now.Sub(time.UnixMilli(int64(binary.BigEndian.Uint64(have[:8]))))
	return age, hmac.Equal(have[8:], c.sum(have[:8], o)) && age >= 0 && age <= cookieLife
}

func (c *cookies) sum(at []byte, o opening) []byte {
	m := hmac.New(sha256.New, c.key[:])
	m.Write(at)
	a := o.from.remote.Addr().As16()
	m.Write(a[:])
	m.Write(binary.BigEndian.AppendUint16(nil, o.from.remote.Port()))
	m.Write(binary.BigEndian.AppendUint32(nil, uint32(o.client)))
	return m.Sum(nil)[:cookieSize-8]
}
