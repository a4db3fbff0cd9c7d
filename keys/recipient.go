package keys

import (
	"crypto/cipher"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"redoubt"
)

// Content for somebody else (a backup, an escrow) is sealed by HPKE (RFC 9180) with the
// hybrid ML-KEM-1024 + P-384, HKDF-SHA384 and AES-256-GCM: CNSA 2.0 strength, and the
// FIPS module allows it. Each recipient's block holds one file key.
const (
	sealToMagic      = "RDBTSEAL"
	MaxRecipients    = 64 // escrow officers of one estate
	hybridPublicKey  = 1665
	hybridPrivateKey = 32
	hybridEnc        = 1665
	recipientBlock   = 16 + hybridEnc + 32 + 16 // key id, encapsulation, sealed file key
	recipientPrefix  = "redoubt-recipient-1:"
	identityPrefix   = "redoubt-identity-1:"
)

var hpkeInfo = []byte("redoubt keys seal-to v1")

// Recipient is a public key that content can be sealed to. The zero Recipient is refused.
type Recipient struct{ key hpke.PublicKey }

// Identity is the private key of a Recipient. It prints as "redacted".
type Identity struct{ key hpke.PrivateKey }

// NewIdentity makes a key pair.
func NewIdentity() (*Identity, error) {
	key, err := hpke.MLKEM1024P384().GenerateKey()
	if err != nil {
		return nil, &redoubt.Error{Op: "keys.NewIdentity", Err: err}
	}
	return &Identity{key}, nil
}

// BundleIdentity is the identity that bundles for this node are sealed to. It is made on the first call, durable on return.
func (k *Keyring) BundleIdentity() (*Identity, error) {
	text, err := k.Secret("bundles", func() ([]byte, error) {
		id, err := NewIdentity()
		if err != nil {
			return nil, err
		}
		return id.Secret()
	})
	if err != nil {
		return nil, err
	}
	defer clear(text)
	return ParseIdentity(text)
}

// Recipient is the public half.
func (i *Identity) Recipient() Recipient { return Recipient{i.key.PublicKey()} }

// Secret is the one text form of the private key, for whoever keeps it. The caller clears it.
func (i *Identity) Secret() ([]byte, error) {
	raw, err := i.key.Bytes()
	if err != nil {
		return nil, &redoubt.Error{Op: "keys.Identity", Err: errors.New("the key has no bytes")}
	}
	defer clear(raw)
	return base64.StdEncoding.AppendEncode([]byte(identityPrefix), raw), nil
}

// ParseIdentity reads what Secret gave.
func ParseIdentity(text []byte) (*Identity, error) {
	raw, err := parseKeyText(string(text), identityPrefix, hybridPrivateKey)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	key, err := hpke.MLKEM1024P384().NewPrivateKey(raw)
	if err != nil {
		return nil, &redoubt.Error{Op: "keys.ParseIdentity", Kind: redoubt.Invalid, Err: errors.New("not a private key")}
	}
	return &Identity{key}, nil
}

// String is the one text form of the public key.
func (r Recipient) String() string {
	if r.key == nil {
		return ""
	}
	return recipientPrefix + base64.StdEncoding.EncodeToString(r.key.Bytes())
}

// ParseRecipient reads what Recipient.String gave.
func ParseRecipient(text string) (Recipient, error) {
	raw, err := parseKeyText(text, recipientPrefix, hybridPublicKey)
	if err != nil {
		return Recipient{}, err
	}
	key, err := hpke.MLKEM1024P384().NewPublicKey(raw)
	if err != nil {
		return Recipient{}, &redoubt.Error{Op: "keys.ParseRecipient", Kind: redoubt.Invalid, Err: errors.New("not a public key")}
	}
	return Recipient{key}, nil
}

func parseKeyText(text, prefix string, size int) ([]byte, error) {
	rest, ok := strings.CutPrefix(text, prefix)
	if ok && len(rest) == base64.StdEncoding.EncodedLen(size) && !strings.ContainsAny(rest, "\r\n") {
		if raw, err := base64.StdEncoding.Strict().DecodeString(rest); err == nil && len(raw) == size {
			return raw, nil
		}
	}
	return nil, &redoubt.Error{Op: "keys.parse", Kind: redoubt.Invalid, Err: fmt.Errorf("want %s and %d bytes in base64", prefix, size)}
}

// Format hides the key from every verb of fmt.
func (*Identity) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue hides the key from slog.
func (*Identity) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the key from JSON and text encoders; Secret gives it on purpose.
func (*Identity) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// SealTo seals what is written to it for each of recipients (1 to MaxRecipients), any
// one of whom opens all. Close finishes it; without Close nothing opens. It says how
// many recipients there are and a 16-byte hash of each one's key, and nothing else.
func SealTo(recipients []Recipient, w io.Writer) (*Sealer, error) {
	s, _, err := sealFor(recipients, w)
	return s, err
}

// sealFor gives what stands before the first chunk, too.
func sealFor(recipients []Recipient, w io.Writer) (*Sealer, []byte, error) {
	const op = "keys.SealTo"
	if len(recipients) == 0 || len(recipients) > MaxRecipients {
		return nil, nil, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Err: fmt.Errorf("1 to %d recipients", MaxRecipients)}
	}
	d := DataKey{set: true}
	defer d.Wipe()
	if _, err := rand.Read(d.key[:]); err != nil {
		return nil, nil, &redoubt.Error{Op: op, Err: err}
	}
	head := binary.BigEndian.AppendUint16([]byte(sealToMagic), uint16(len(recipients)))
	for _, r := range recipients {
		if r.key == nil {
			return nil, nil, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Err: errors.New("an empty recipient")}
		}
		block, err := hpke.Seal(r.key, hpke.HKDFSHA384(), hpke.AES256GCM(), hpkeInfo, d.key[:])
		if err != nil || len(block) != recipientBlock-16 {
			return nil, nil, &redoubt.Error{Op: op, Err: errors.Join(err, errors.New("HPKE"))}
		}
		id := keyID(r.key)
		head = append(append(head, id[:16]...), block...)
	}
	if _, err := w.Write(head); err != nil {
		return nil, nil, &redoubt.Error{Op: op, Kind: redoubt.KindOf(err), Err: err}
	}
	return NewSealer(d, sealToBinding(head), w), head, nil
}

func keyID(key hpke.PublicKey) [32]byte { return sha256.Sum256(key.Bytes()) }

// sealToBinding binds the content to the whole head, so that no recipient can be added,
// dropped or exchanged unseen.
func sealToBinding(head []byte) Binding {
	sum := sha256.Sum256(head)
	return Binding{Bucket: "seal-to", Version: sum[:]}
}

// OpenWith opens what SealTo made, as a stream: each chunk is authenticated before a byte
// of it is read, and the end before io.EOF. A stream that stops early is redoubt.Corrupt,
// never io.EOF. One that is not sealed to who is redoubt.Denied.
func OpenWith(who *Identity, r io.Reader) (io.Reader, error) {
	const op = "keys.OpenWith"
	if err := given(op, who); err != nil {
		return nil, err
	}
	head := make([]byte, len(sealToMagic)+2)
	if _, err := io.ReadFull(r, head); err != nil || string(head[:len(sealToMagic)]) != sealToMagic {
		return nil, corrupt(op, "not sealed content")
	}
	n := int(binary.BigEndian.Uint16(head[len(sealToMagic):]))
	if n == 0 || n > MaxRecipients {
		return nil, corrupt(op, "count of recipients")
	}
	head = append(head, make([]byte, n*recipientBlock)...)
	if _, err := io.ReadFull(r, head[len(sealToMagic)+2:]); err != nil {
		return nil, corrupt(op, "the head ends early")
	}
	d, err := fileKey(op, who, head)
	if err != nil {
		return nil, err
	}
	defer d.Wipe()
	return newStreamOpener(d, sealToBinding(head), r)
}

// given refuses no identity.
func given(op string, who *Identity) error {
	if who == nil || who.key == nil {
		return &redoubt.Error{Op: op, Kind: redoubt.Denied, Err: errors.New("no identity given")}
	}
	return nil
}

// fileKey opens the recipient's block of what stands before the first chunk. The caller wipes the key.
func fileKey(op string, who *Identity, head []byte) (d DataKey, err error) {
	id := keyID(who.key.PublicKey())
	for b := head[len(sealToMagic)+2:]; len(b) > 0; b = b[recipientBlock:] {
		if string(b[:16]) != string(id[:16]) {
			continue
		}
		raw, err := hpke.Open(who.key, hpke.HKDFSHA384(), hpke.AES256GCM(), hpkeInfo, b[16:recipientBlock])
		if err != nil || len(raw) != 32 {
			return d, corrupt(op, "the recipient's block fails authentication")
		}
		d.set = true
		copy(d.key[:], raw)
		clear(raw)
		return d, nil
	}
	return d, &redoubt.Error{Op: op, Kind: redoubt.Denied, Err: errors.New("not sealed to this identity"),
		Hint: "open it with the identity of one of its recipients"}
}

// streamOpener opens sealed content of unknown length in order. It reads a byte beyond
// each chunk to know which is the last.
type streamOpener struct {
	r     io.Reader
	aead  cipher.AEAD
	aad   []byte
	index uint64
	ahead [1]byte
	more  bool // ahead holds the first byte of the next chunk
	in    []byte
	out   []byte
	rest  []byte
	err   error
}

func newStreamOpener(d DataKey, b Binding, r io.Reader) (*streamOpener, error) {
	aead, err := d.aead()
	if err != nil {
		return nil, err
	}
	s := &streamOpener{r: r, aead: aead, aad: b.appendAAD(nil), in: make([]byte, sealedChunk), out: make([]byte, ChunkBytes)}
	if _, err := io.ReadFull(r, s.ahead[:]); err != nil {
		return nil, corrupt("keys.OpenWith", "the content is missing")
	}
	s.more = true
	return s, nil
}

// Read gives the next content.
func (s *streamOpener) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		if len(p) == 0 {
			return 0, nil
		}
		s.next()
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *streamOpener) next() {
	if !s.more {
		clear(s.out)
		s.err = io.EOF
		return
	}
	s.in[0] = s.ahead[0]
	n, err := io.ReadFull(s.r, s.in[1:])
	n++
	s.more = false
	if err == nil {
		if _, err = io.ReadFull(s.r, s.ahead[:]); err == nil {
			s.more = true
		}
	}
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		s.err = &redoubt.Error{Op: "keys.OpenWith", Kind: redoubt.KindOf(err), Err: err}
		return
	}
	// A final chunk is empty only when it is the first.
	if s.index > 0 && n <= ChunkOverhead {
		s.err = corrupt("keys.OpenWith", "content fails authentication")
		return
	}
	plain, err := s.aead.Open(s.out[:0], nil, s.in[:n], chunkAAD(s.aad, s.index, !s.more))
	if err != nil {
		s.err = corrupt("keys.OpenWith", "content fails authentication or ends early")
		return
	}
	s.rest = plain
	s.index++
}
