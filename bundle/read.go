package bundle

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"redoubt"
	"redoubt/keys"
)

// Expect is what a bundle is held against.
type Expect struct {
	Estate string
	Node   redoubt.NodeName // that it must be addressed to
	Now    time.Time
	// Key gives the key that a node signs with; an error where this node has no link with it.
	Key func(maker redoubt.NodeName) (ed25519.PublicKey, error)
	// Tagged says that one of TaggedFormat is taken, too: by who is the one that it is sealed to, and needs no piece of it to be known by a digest.
	Tagged bool
}

// Sheet is what a bundle tells without any key.
type Sheet struct {
	Head
	ID          [sha256.Size]byte // of what it says that was signed
	SealedBytes int64
	FileBytes   int64
}

// Bundle is a file that was verified and is not opened. The file must stay as it is; where it does not, reading fails.
type Bundle struct {
	Sheet
	file   io.ReaderAt
	steady bool // file is in memory that nobody else has: what was verified of it stays so
	head   []byte
	leaves [][sha256.Size]byte
	tags   *keys.Tags // in place of leaves, of a tagged one
}

func refuse(kind redoubt.Kind, rule, why, hint string) error {
	return &redoubt.Error{Op: "bundle.Verify", Kind: kind, Rule: rule, Err: errors.New(why), Hint: hint}
}

// Inspect reads what a file of size bytes tells without a key. It verifies the form and nothing else: what it gives is a claim.
func Inspect(file io.ReaderAt, size int64) (Sheet, error) {
	s, _, _, err := parse(file, size)
	return s, err
}

const again = "copy the file from its medium again, or have its maker export another"

// ReadHead reads the head of a file that comes as a stream, and gives the bytes that it is made of. What it says is a claim.
func ReadHead(r io.Reader) (h Head, raw []byte, err error) {
	raw = make([]byte, prefixLen)
	if n, err := io.ReadFull(r, raw); err != nil {
		return h, raw[:n], shortFault(err)
	}
	length, tagged, err := prefix(raw)
	if err != nil {
		return h, raw, err
	}
	raw = append(raw, make([]byte, length)...)
	if n, err := io.ReadFull(r, raw[prefixLen:]); err != nil {
		return h, raw[:prefixLen+n], shortFault(err)
	}
	h, err = decodeHead(tagged, raw[prefixLen:])
	return h, raw, err
}

// shortFault tells a file that ends from a stream that fails.
func shortFault(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return refuse(redoubt.Invalid, RuleTruncated, "the file ends within its head", again)
	}
	return &redoubt.Error{Op: "bundle.read", Kind: redoubt.KindOf(err), Err: err}
}

// prefix reads the first bytes of a file, and says how long its head is.
func prefix(in []byte) (length int, tagged bool, err error) {
	if string(in[:len(magic)]) != magic {
		return 0, false, refuse(redoubt.Invalid, RuleForm, "the file is no bundle", "name a file that redoubt bundle export wrote")
	}
	if f := binary.BigEndian.Uint16(in[len(magic):]); f != Format && f != TaggedFormat {
		return 0, false, refuse(redoubt.Invalid, RuleFormat, fmt.Sprintf("the bundle has format %d, and only %d and %d are read", f, Format, TaggedFormat),
			"export it again with a release that writes this format")
	}
	if length = int(binary.BigEndian.Uint16(in[len(magic)+2:])); length > MaxHeadBytes {
		return 0, false, refuse(redoubt.TooLarge, RuleLarge, "the head is larger than a head may be", "")
	}
	return length, isTagged(in), nil
}

// parse takes head and trailer apart.
func parse(file io.ReaderAt, size int64) (s Sheet, head []byte, t trailer, err error) {
	if size > int64(MaxSealedBytes)+int64(prefixLen+MaxHeadBytes+trailerLen) {
		return s, nil, t, refuse(redoubt.TooLarge, RuleLarge, "larger than a bundle may be", "")
	}
	if size < int64(prefixLen+trailerLen) {
		return s, nil, t, refuse(redoubt.Invalid, RuleTruncated, "the file is shorter than any bundle", again)
	}
	if s.Head, head, err = ReadHead(io.NewSectionReader(file, 0, size-int64(trailerLen))); err != nil {
		return s, nil, t, err
	}
	end := make([]byte, trailerLen)
	if err := readAt(file, end, size-int64(trailerLen)); err != nil {
		return s, nil, t, err
	}
	t = decodeTrailer(end)
	if s.FileBytes, s.SealedBytes = size, size-int64(len(head)+trailerLen); s.Tagged && size > MaxTaggedBytes {
		return s, nil, t, refuse(redoubt.TooLarge, RuleLarge, "larger than a tagged bundle may be", "")
	}
	if t.Sealed != uint64(s.SealedBytes) {
		return s, nil, t, refuse(redoubt.Invalid, RuleTruncated, "the file is not as long as it says", again)
	}
	s.ID = idOf(message(head, t.Sealed, t.Digest))
	return s, head, t, nil
}

// readAt fills p. A medium that fails is no fault of the bundle's.
func readAt(file io.ReaderAt, p []byte, at int64) error {
	n, err := file.ReadAt(p, at)
	if n == len(p) {
		return nil
	}
	return &redoubt.Error{Op: "bundle.read", Kind: redoubt.Unavailable, Err: errors.Join(errors.New("the file does not read"), err)}
}

// Verify reads a whole file of size bytes and gives it only if it is for this node and this estate, every sealed byte of it
// is what its maker signed, and it is in time. Of a tagged one that is said of all but the ciphertext, which is authenticated as it is opened. It opens nothing. progress may be nil. A refusal has Rule and Hint; nothing is kept of it.
// A file that is a bytes.Reader is taken to stay as it is, and is not verified once more as it is opened.
func Verify(ctx context.Context, file io.ReaderAt, size int64, x Expect, progress func(done int64)) (*Bundle, error) {
	s, head, t, err := parse(file, size)
	if err != nil {
		return nil, err
	}
	if s.Tagged && !x.Tagged {
		return nil, refuse(redoubt.Invalid, RuleFormat, "the bundle is of a form that only a raise or a partner's gateway hands over", "have its maker export one: redoubt bundle export")
	}
	if s.Estate != x.Estate {
		return nil, refuse(redoubt.Denied, RuleEstate, "the bundle is of another estate: "+s.Estate, "import it at a node of that estate")
	}
	if _, ok := s.For(x.Node); !ok {
		return nil, refuse(redoubt.Denied, RuleRecipient, "the bundle is not for this node", "import it at one of its recipients: redoubt bundle inspect names them")
	}
	key, err := x.Key(s.Maker)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, refuse(redoubt.Denied, RuleMaker, "this node has no link with "+string(s.Maker), "")
	}
	b := &Bundle{Sheet: s, file: file, head: head}
	_, b.steady = file.(*bytes.Reader)
	if err := b.verify(ctx, key, t, progress); err != nil {
		return nil, err
	}
	switch {
	case x.Now.IsZero() || s.Created.After(x.Now.Add(MaxAhead)):
		return nil, refuse(redoubt.Unavailable, RuleAhead, "the bundle was made at "+s.Created.Format(time.RFC3339)+", which is yet to come",
			"set the clocks of both nodes right, and import it again")
	case !x.Now.Before(s.Expires):
		return nil, refuse(redoubt.Expired, RuleExpired, "the bundle expired at "+s.Expires.Format(time.RFC3339), "export another: it holds what this one held")
	}
	return b, nil
}

// verify digests every sealed byte, or every tag, and holds the signature against it.
func (b *Bundle) verify(ctx context.Context, key ed25519.PublicKey, t trailer, progress func(int64)) error {
	forged := refuse(redoubt.Denied, RuleSignature, "the bundle is not as its maker signed it", "copy it from its medium again; if that does not help, it was altered or damaged")
	// The signature is over the digest that the file states: a forger is found before the file is read whole.
	if !ed25519.Verify(key, message(b.head, t.Sealed, t.Digest), t.Signature[:]) {
		return forged
	}
	is, err := b.holds(ctx, t.Digest, progress)
	if err == nil && !is {
		err = forged
	}
	return err
}

// holds says whether what is sealed has a digest, and keeps what it is known by from then on.
func (b *Bundle) holds(ctx context.Context, digest [sha256.Size]byte, progress func(int64)) (bool, error) {
	if b.Tagged {
		tags, err := keys.ReadTags(b.sealed(), b.SealedBytes)
		switch {
		case redoubt.KindOf(err) == redoubt.Corrupt: // of a form that nobody signs
			return false, nil
		case err != nil:
			return false, &redoubt.Error{Op: "bundle.read", Kind: redoubt.Unavailable, Err: errors.Join(errors.New("the file does not read"), err)}
		}
		b.tags = tags
		if progress != nil {
			progress(b.SealedBytes)
		}
		return tags.Digest() == digest, nil
	}
	sum, err := b.digest(ctx, progress)
	if err != nil {
		return false, err
	}
	is := sum.sum() == digest
	b.leaves = sum.all
	return is, nil
}

// sealed is what stands between head and trailer.
func (b *Bundle) sealed() *io.SectionReader {
	return io.NewSectionReader(b.file, int64(len(b.head)), b.SealedBytes)
}

// digest reads every sealed byte and keeps the digests of its pieces.
func (b *Bundle) digest(ctx context.Context, progress func(int64)) (*leaves, error) {
	sum, buf := newLeaves(true), make([]byte, 256<<10)
	for at := int64(0); at < b.SealedBytes; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n := min(int64(len(buf)), b.SealedBytes-at)
		if err := readAt(b.file, buf[:n], int64(len(b.head))+at); err != nil {
			return nil, err
		}
		sum.Write(buf[:n])
		if at += n; progress != nil {
			progress(at)
		}
	}
	return sum, nil
}

// Mark is the bundle's place among those that its maker made for node.
func (b *Bundle) Mark(node redoubt.NodeName) redoubt.BundleMark {
	a, _ := b.For(node)
	return redoubt.BundleMark{Numbering: a.Numbering, Serial: a.Serial, ID: b.ID, Created: b.Created}
}

// Follows holds the bundle against the last one of its maker and kind that node has taken (zero: none). missing is how many numbers
// lie between; bundles that were lost lose nothing, for each holds all that was not acknowledged when it was made. What is not
// newer than last is refused.
func (b *Bundle) Follows(node redoubt.NodeName, last redoubt.BundleMark) (missing uint64, err error) {
	if b.Kind == Receipt {
		return 0, b.afterReceipt(last)
	}
	a, ok := b.For(node)
	switch {
	case !ok:
		return 0, refuse(redoubt.Denied, RuleRecipient, "the bundle is not for this node", "")
	case b.ID == last.ID:
		return 0, refuse(redoubt.Exists, RuleReplayed, fmt.Sprintf("bundle %d was imported already", a.Serial), "nothing is to be done; redoubt bundle export --receipt writes its receipt again")
	case a.Numbering != last.Numbering:
		if b.Created.Before(last.Created) {
			return 0, refuse(redoubt.Conflict, RuleReplayed, "the bundle is of a numbering that has ended", "import the newest bundle of "+string(b.Maker)+"; if this is it, that node's clock was set back")
		}
		return a.Serial - 1, nil
	case a.Serial == last.Serial:
		return 0, refuse(redoubt.Conflict, RuleChain, fmt.Sprintf("another bundle with the number %d was imported: its maker's state was copied or set back", a.Serial),
			"have "+string(b.Maker)+" export everything anew: redoubt bundle export --anew")
	case a.Serial < last.Serial:
		return 0, refuse(redoubt.Conflict, RuleReordered, fmt.Sprintf("bundle %d comes after bundle %d was imported", a.Serial, last.Serial),
			"nothing is lost: what it holds and is still lacking is in every later bundle")
	case a.Serial == last.Serial+1 && a.Previous != last.ID:
		return 0, refuse(redoubt.Conflict, RuleChain, fmt.Sprintf("bundle %d does not follow the bundle %d that was imported: its maker's state was copied or set back", a.Serial, last.Serial),
			"have "+string(b.Maker)+" export everything anew: redoubt bundle export --anew")
	}
	return a.Serial - last.Serial - 1, nil
}

// afterReceipt holds a receipt against the last one.
func (b *Bundle) afterReceipt(last redoubt.BundleMark) error {
	switch {
	case b.ID == last.ID:
		return refuse(redoubt.Exists, RuleReplayed, "this receipt was imported already", "nothing is to be done")
	case b.Created.Before(last.Created):
		return refuse(redoubt.Conflict, RuleReordered, "a receipt that was made later was imported", "nothing is lost: each receipt says all that the ones before it said")
	}
	return nil
}

// Open gives the content, as a stream that ends with io.EOF only where the content ends. It reads the file a second time and
// gives nothing that is not what was verified. A chunk of a tagged bundle that does not open under its verified tag is RuleDamaged, at its place.
func (b *Bundle) Open(who *keys.Identity) (io.Reader, error) {
	plain, err := b.open(who)
	if err != nil {
		return nil, sealedFault(err)
	}
	bound := make([]byte, sha256.Size)
	if _, err := io.ReadFull(plain, bound); err != nil {
		if e, ok := errors.AsType[*redoubt.Error](err); ok && e.Rule == RuleDamaged {
			return nil, err
		}
		return nil, sealedFault(err)
	}
	if want := sha256.Sum256(b.head); !bytes.Equal(bound, want[:]) {
		return nil, refuse(redoubt.Denied, RuleSealed, "the content was sealed under another head", "")
	}
	return plain, nil
}

func (b *Bundle) open(who *keys.Identity) (io.Reader, error) {
	switch {
	case b.Tagged:
		r, err := keys.OpenTagged(who, b.tags, b.sealed())
		return damaging{r}, err
	case b.steady:
		return keys.OpenWith(who, b.sealed())
	}
	return keys.OpenWith(who, &verified{b: b})
}

// damaging gives what does not open under its tag its rule.
type damaging struct{ r io.Reader }

func (d damaging) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if err != nil && redoubt.KindOf(err) == redoubt.Corrupt {
		err = &redoubt.Error{Op: "bundle.Open", Kind: redoubt.Denied, Rule: RuleDamaged, Err: errors.Join(errors.New("what is sealed is not what its maker signed the tags of"), err), Hint: "have it sent again"}
	}
	return n, err
}

func sealedFault(err error) error {
	return &redoubt.Error{Op: "bundle.Open", Kind: redoubt.KindOf(err), Rule: RuleSealed, Err: err}
}

// verified reads sealed content again, a leaf at a time.
type verified struct {
	b    *Bundle
	next int
	buf  []byte
	rest []byte
}

func (v *verified) Read(p []byte) (int, error) {
	if len(v.rest) == 0 {
		if v.next == len(v.b.leaves) {
			return 0, io.EOF
		}
		at := int64(v.next) * leafBytes
		if v.buf == nil {
			v.buf = make([]byte, min(leafBytes, v.b.SealedBytes))
		}
		v.rest = v.buf[:min(leafBytes, v.b.SealedBytes-at)]
		if err := readAt(v.b.file, v.rest, int64(len(v.b.head))+at); err != nil {
			return 0, err
		}
		if sha256.Sum256(v.rest) != v.b.leaves[v.next] {
			v.next, v.rest = len(v.b.leaves), nil
			return 0, &redoubt.Error{Op: "bundle.Open", Kind: redoubt.Corrupt, Rule: RuleSignature, Err: errors.New("the file changed after it was verified")}
		}
		v.next++
	}
	n := copy(p, v.rest)
	v.rest = v.rest[n:]
	return n, nil
}
