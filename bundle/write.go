package bundle

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"io"

	"redoubt"
	"redoubt/keys"
)

// Writer makes one bundle as a stream: what is written to it is its content.
type Writer struct {
	w      io.Writer
	head   []byte
	sealer *keys.Sealer
	leaves *leaves
	tags   *keys.Tags // in place of leaves, of a tagged bundle
	total  uint64     // bytes that were sealed
	most   uint64
	sign   func(message []byte) ([]byte, error)
	err    error
}

// NewWriter begins a bundle: the head is written to w at once. to are the keys of h.To, in that order; sign signs with the
// maker's key. Without Finish, what w holds is no bundle.
func NewWriter(w io.Writer, h Head, to []keys.Recipient, sign func(message []byte) ([]byte, error)) (*Writer, error) {
	const op = "bundle.NewWriter"
	head, err := h.encode()
	if err != nil {
		return nil, err
	}
	if len(to) != len(h.To) {
		return nil, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Err: errors.New("each recipient has one key")}
	}
	if _, err := w.Write(head); err != nil {
		return nil, &redoubt.Error{Op: op, Kind: redoubt.KindOf(err), Err: err}
	}
	b := &Writer{w: w, head: head, most: MaxSealedBytes, sign: sign}
	if h.Tagged {
		b.most = uint64(MaxTaggedBytes - len(head) - trailerLen)
		b.sealer, b.tags, err = keys.SealToOne(to[0], sealed{b})
	} else {
		b.leaves = newLeaves(false)
		b.sealer, err = keys.SealTo(to, sealed{b})
	}
	if err != nil {
		return nil, err
	}
	bound := sha256.Sum256(head)
	_, err = b.Write(bound[:])
	return b, err
}

// sealed is where the sealer writes to.
type sealed struct{ b *Writer }

func (s sealed) Write(p []byte) (int, error) {
	if s.b.total += uint64(len(p)); s.b.total > s.b.most {
		return 0, &redoubt.Error{Op: "bundle.Writer", Kind: redoubt.TooLarge, Rule: RuleLarge}
	}
	if s.b.leaves != nil {
		s.b.leaves.Write(p)
	}
	return s.b.w.Write(p)
}

// Write adds content.
func (b *Writer) Write(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.sealer.Write(p)
	b.err = err
	return n, err
}

// Finish seals the end and signs. number keeps the bundle's ID as the last of its numbering, durable on return, before
// the signature is written: so a file that is signed has a number of its own, and what fails before it leaves no bundle.
func (b *Writer) Finish(number func(id [sha256.Size]byte) error) error {
	const op = "bundle.Finish"
	if err := b.sealer.Close(); err != nil || b.err != nil {
		return errors.Join(err, b.err)
	}
	b.err = errors.New("bundle: finished")
	t := trailer{Sealed: b.total}
	if b.tags != nil {
		t.Digest = b.tags.Digest()
	} else {
		t.Digest = b.leaves.sum()
	}
	text := message(b.head, t.Sealed, t.Digest)
	sig, err := b.sign(text)
	if err != nil || len(sig) != ed25519.SignatureSize {
		return &redoubt.Error{Op: op, Kind: redoubt.KindOf(err), Err: errors.Join(err, errors.New("the maker's key did not sign"))}
	}
	copy(t.Signature[:], sig)
	if number != nil {
		if err := number(idOf(text)); err != nil {
			return err
		}
	}
	if _, err := b.w.Write(t.append(nil)); err != nil {
		return &redoubt.Error{Op: op, Kind: redoubt.KindOf(err), Err: err}
	}
	return nil
}

// Abandon frees what an unfinished bundle holds. What was written is no bundle.
func (b *Writer) Abandon() {
	if b.err == nil {
		b.err = errors.New("bundle: abandoned")
	}
	b.sealer.Close()
}
