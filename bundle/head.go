package bundle

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"redoubt"
)

// Limits of a bundle, each with what it is for.
const (
	MaxRecipients  = 16                       // nodes that one medium is carried round
	MaxHeadBytes   = 4 << 10                  // 16 recipients at 119 bytes each, and four names
	MaxSealedBytes = 1 << 40                  // the largest medium that people carry; its leaves are 8 MiB of digests
	MaxLife        = 2 * 366 * 24 * time.Hour // a device that comes back after a year, and the year after
	MaxAhead       = 5 * time.Minute          // of the maker's clock (RULES 4.4)
	MaxNameBytes   = 63
	MaxTaggedBytes = 32 << 20 // of a file of TaggedFormat: what is raised at once; its tags are 14 KiB

	leafBytes = 4 << 20
)

// The formats. Of a TaggedFormat the signature covers everything but the ciphertext, which to everybody without the content's key is fixed by that
// (keys.Tags): it is of a journal that has one recipient, and at most MaxTaggedBytes.
const (
	Format       = 1
	TaggedFormat = 2
)

const (
	magic      = "RDBTBNDL"
	prefixLen  = len(magic) + 2 + 2 // magic, format, length of the head
	trailerLen = 8 + sha256.Size + ed25519.SignatureSize
)

// The rules that refuse a bundle, as they are told to who brought it.
const (
	RuleForm      = "bundle-form"
	RuleFormat    = "bundle-format"
	RuleTruncated = "bundle-truncated"
	RuleLarge     = "bundle-size"
	RuleEstate    = "bundle-estate"
	RuleRecipient = "bundle-recipient"
	RuleMaker     = "known-maker (4.3)"
	RuleSignature = "makers-signature (4.3)"
	RuleSealed    = "bundle-sealed"
	RuleExpired   = "bundle-expired"
	RuleAhead     = "clock-ahead (4.4)"
	RuleReplayed  = "bundle-replayed"
	RuleReordered = "bundle-reordered"
	RuleChain     = "bundle-chain"
	RuleDamaged   = "bundle-damaged" // by who opens it: what is sealed is not what its signed tags are of
)

// Kind says what a bundle is for.
type Kind uint8

// The kinds of bundles. The zero kind is refused.
const (
	Journal Kind = iota + 1 // entries, and what was taken of the recipient's; it takes a number
	Receipt                 // only what was taken of the recipient's; it names the last number and takes none
)

func (k Kind) String() string {
	switch k {
	case Journal:
		return "journal"
	case Receipt:
		return "receipt"
	}
	return "unknown"
}

// Addressee is one recipient, and the bundle's place among those that the maker made for it.
type Addressee struct {
	Node      redoubt.NodeName
	Numbering [16]byte // drawn at random when the numbers begin at 1
	Serial    uint64
	Previous  [sha256.Size]byte // ID of the bundle with the number before; of a Receipt, of the last one
}

// Head is what a bundle says in clear. Times are whole seconds.
type Head struct {
	Tagged  bool // it is of TaggedFormat
	Kind    Kind
	Estate  string
	Maker   redoubt.NodeName
	Created time.Time
	Expires time.Time
	To      []Addressee
}

// For is a node's own place among the recipients.
func (h *Head) For(node redoubt.NodeName) (Addressee, bool) {
	for _, a := range h.To {
		if a.Node == node {
			return a, true
		}
	}
	return Addressee{}, false
}

// valid holds a head against what may be written and read.
func (h *Head) valid() error {
	switch {
	case h.Kind != Journal && h.Kind != Receipt:
		return errors.New("unknown kind")
	case !validName(h.Estate) || !validName(string(h.Maker)):
		return errors.New("a bundle names its estate and its maker")
	case h.Tagged && (h.Kind != Journal || len(h.To) != 1):
		return errors.New("a tagged bundle is a journal for one recipient")
	case len(h.To) == 0 || len(h.To) > MaxRecipients:
		return fmt.Errorf("a bundle has 1 to %d recipients", MaxRecipients)
	case h.Created.Unix() <= 0 || !h.Expires.After(h.Created) || h.Expires.Sub(h.Created) > MaxLife:
		return errors.New("a bundle expires after it was made, and within two years")
	}
	for i, a := range h.To {
		switch {
		case !validName(string(a.Node)) || a.Node == h.Maker:
			return errors.New("a recipient is another node")
		case i > 0 && a.Node <= h.To[i-1].Node:
			return errors.New("recipients stand in order, each once")
		case a.Numbering == [16]byte{}:
			return errors.New("a recipient's numbering is missing")
		case h.Kind == Journal && (a.Serial == 0 || (a.Serial == 1) != (a.Previous == [sha256.Size]byte{})),
			h.Kind == Receipt && (a.Serial == 0) != (a.Previous == [sha256.Size]byte{}):
			return errors.New("number and previous bundle do not go together")
		}
	}
	return nil
}

// validName is a name as estates have them: 1 to 63 of a-z, 0-9 and "-".
func validName(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= MaxNameBytes
}

// encode gives prefix and head. There is one form of each head.
func (h *Head) encode() ([]byte, error) {
	if err := h.valid(); err != nil {
		return nil, &redoubt.Error{Op: "bundle.Head", Kind: redoubt.Invalid, Rule: RuleForm, Err: err}
	}
	var b cryptobyte.Builder
	b.AddBytes([]byte(magic))
	format := uint16(Format)
	if h.Tagged {
		format = TaggedFormat
	}
	b.AddUint16(format)
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint8(uint8(h.Kind))
		text8(b, h.Estate)
		text8(b, string(h.Maker))
		b.AddUint64(uint64(h.Created.Unix()))
		b.AddUint64(uint64(h.Expires.Unix()))
		b.AddUint8(uint8(len(h.To)))
		for _, a := range h.To {
			text8(b, string(a.Node))
			b.AddBytes(a.Numbering[:])
			b.AddUint64(a.Serial)
			b.AddBytes(a.Previous[:])
		}
	})
	return b.Bytes()
}

func text8(b *cryptobyte.Builder, s string) {
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(s)) })
}

// decodeHead reads what follows the prefix, strictly.
func decodeHead(tagged bool, in []byte) (h Head, err error) {
	s := cryptobyte.String(in)
	var kind, n uint8
	var estate, maker cryptobyte.String
	var created, expires uint64
	bad := &redoubt.Error{Op: "bundle.Head", Kind: redoubt.Invalid, Rule: RuleForm, Err: errors.New("malformed head")}
	if !s.ReadUint8(&kind) || !s.ReadUint8LengthPrefixed(&estate) || !s.ReadUint8LengthPrefixed(&maker) ||
		!s.ReadUint64(&created) || !s.ReadUint64(&expires) || created > maxUnix || expires > maxUnix || !s.ReadUint8(&n) || n > MaxRecipients {
		return h, bad
	}
	h = Head{Tagged: tagged, Kind: Kind(kind), Estate: string(estate), Maker: redoubt.NodeName(maker),
		Created: time.Unix(int64(created), 0).UTC(), Expires: time.Unix(int64(expires), 0).UTC(), To: make([]Addressee, n)}
	for i := range h.To {
		a := &h.To[i]
		var node cryptobyte.String
		if !s.ReadUint8LengthPrefixed(&node) || !s.CopyBytes(a.Numbering[:]) || !s.ReadUint64(&a.Serial) || !s.CopyBytes(a.Previous[:]) {
			return h, bad
		}
		a.Node = redoubt.NodeName(node)
	}
	if !s.Empty() {
		return h, bad
	}
	if err := h.valid(); err != nil {
		return h, &redoubt.Error{Op: "bundle.Head", Kind: redoubt.Invalid, Rule: RuleForm, Err: err}
	}
	return h, nil
}

// maxUnix is the year 9999: later seconds have no calendar form.
const maxUnix = 253402300799

// trailer ends a file.
type trailer struct {
	Sealed    uint64 // bytes between head and trailer
	Digest    [sha256.Size]byte
	Signature [ed25519.SignatureSize]byte
}

func (t *trailer) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, t.Sealed)
	return append(append(b, t.Digest[:]...), t.Signature[:]...)
}

func decodeTrailer(in []byte) (t trailer) {
	t.Sealed = binary.BigEndian.Uint64(in)
	copy(t.Digest[:], in[8:])
	copy(t.Signature[:], in[8+sha256.Size:])
	return t
}

// message is what the maker signs: the file's head byte for byte, and the length of what is sealed with the digest of its bytes or, in v2, of its tags.
func message(head []byte, sealed uint64, digest [sha256.Size]byte) []byte {
	sum := sha256.Sum256(head)
	name := "redoubt bundle v1\n"
	if isTagged(head) {
		name = "redoubt bundle v2\n"
	}
	b := append([]byte(name), sum[:]...)
	b = binary.BigEndian.AppendUint64(b, sealed)
	return append(b, digest[:]...)
}

// idOf is a bundle's ID: what was signed, in short.
func idOf(message []byte) [sha256.Size]byte { return sha256.Sum256(message) }

func isTagged(head []byte) bool { return binary.BigEndian.Uint16(head[len(magic):]) == TaggedFormat }
