package bundle

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"io"

	"redoubt"
)

// LeafBytes is how long each piece of the sealed content is that has a digest of its own; the last is shorter.
const LeafBytes = leafBytes

// TrailerBytes is how long the end of a file is, behind the sealed content.
const TrailerBytes = trailerLen

// Outline is a bundle without its content: what its maker signed, and the digests that the signature covers, by which each piece
// of the content is known wherever it comes from. Nothing of it needs a key, and nothing of it is secret from who has the file.
type Outline struct {
	Sheet
	Start  []byte              // the file up to the end of its head
	End    []byte              // its trailer
	Leaves [][sha256.Size]byte // of the sealed content, in order; of a bare outline, and of a tagged bundle, none
}

// ReadOutline reads a whole file of size bytes. It gives an outline only if the content is what the file's own end says: a damaged
// file is refused here. Of a tagged bundle only form, length and tags are held against that, and the outline has no leaves: that its ciphertext was
// damaged, only its recipient can see (RuleDamaged). Whether its maker signed it is not asked: SignedBy. progress may be nil.
func ReadOutline(ctx context.Context, file io.ReaderAt, size int64, progress func(done int64)) (*Outline, error) {
	s, head, t, err := parse(file, size)
	if err != nil {
		return nil, err
	}
	b := &Bundle{Sheet: s, file: file, head: head}
	is, err := b.holds(ctx, t.Digest, progress)
	if err != nil {
		return nil, err
	}
	if !is {
		return nil, refuse(redoubt.Denied, RuleSignature, "the bundle is not as it says at its end that it is", again)
	}
	return &Outline{Sheet: s, Start: head, End: t.append(nil), Leaves: b.leaves}, nil
}

// NewOutline puts an outline together that came in pieces. The digests must be those that the trailer is about; that of a tagged bundle is about none.
func NewOutline(start, end []byte, leaves [][sha256.Size]byte) (*Outline, error) {
	o, err := NewBareOutline(start, end)
	if err != nil {
		return nil, err
	}
	if o.Tagged {
		return nil, refuse(redoubt.Invalid, RuleFormat, "no piece of a tagged bundle is known by a digest", "")
	}
	if int64(len(leaves)) != (o.SealedBytes+leafBytes-1)/leafBytes {
		return nil, refuse(redoubt.Invalid, RuleForm, "there are not as many digests as pieces", "")
	}
	top := newLeaves(false).top
	for i := range leaves {
		top.Write(leaves[i][:])
	}
	if [sha256.Size]byte(top.Sum(nil)) != decodeTrailer(end).Digest {
		return nil, refuse(redoubt.Denied, RuleSignature, "the digests are not those that the bundle's end is about", "")
	}
	o.Leaves = leaves
	return o, nil
}

// NewBareOutline is an outline without digests, by which no piece of the content is known: only the whole is, to who verifies it.
func NewBareOutline(start, end []byte) (*Outline, error) {
	if len(end) != trailerLen {
		return nil, refuse(redoubt.Invalid, RuleTruncated, "the end of a bundle has another length", "")
	}
	h, raw, err := ReadHead(bytes.NewReader(start))
	if err != nil {
		return nil, err
	}
	t := decodeTrailer(end)
	switch {
	case len(raw) != len(start):
		return nil, refuse(redoubt.Invalid, RuleForm, "something stands behind the head", "")
	case t.Sealed > MaxSealedBytes, h.Tagged && t.Sealed > uint64(MaxTaggedBytes-len(raw)-trailerLen):
		return nil, refuse(redoubt.TooLarge, RuleLarge, "larger than a bundle may be", "")
	}
	s := Sheet{Head: h, ID: idOf(message(raw, t.Sealed, t.Digest)), SealedBytes: int64(t.Sealed)}
	s.FileBytes = int64(len(start)) + s.SealedBytes + int64(trailerLen)
	return &Outline{Sheet: s, Start: raw, End: bytes.Clone(end)}, nil
}

// ReadBareOutline reads of a file of size bytes what stands before and behind its content. Whether that is whole is not asked.
func ReadBareOutline(file io.ReaderAt, size int64) (*Outline, error) {
	s, head, t, err := parse(file, size)
	if err != nil {
		return nil, err
	}
	return &Outline{Sheet: s, Start: head, End: t.append(nil)}, nil
}

// SignedBy says whether the outline, and with it every byte that its digests allow, is signed with a key.
func (o *Outline) SignedBy(key ed25519.PublicKey) bool {
	t := decodeTrailer(o.End)
	return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, message(o.Start, t.Sealed, t.Digest), t.Signature[:])
}

// LeafLen is how long a piece is.
func (o *Outline) LeafLen(leaf int) int {
	return int(min(leafBytes, o.SealedBytes-int64(leaf)*leafBytes))
}

// IsLeaf says whether sealed is that piece of the content, to the byte.
func (o *Outline) IsLeaf(leaf int, sealed []byte) bool {
	return leaf >= 0 && leaf < len(o.Leaves) && len(sealed) == o.LeafLen(leaf) && sha256.Sum256(sealed) == o.Leaves[leaf]
}
