package enclave

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"redoubt"
	"redoubt/keys"
)

// takeIn seals and stages a version's content under this node's own keys, and holds it against the digest that was signed.
func (e *Enclave) takeIn(ctx context.Context, n *incoming) error {
	x := &n.in.Entry
	n.w = &write{e: e, who: e.own(n.set.label), b: n.b, name: x.Name, set: n.set, made: n.made, hold: hold{set: n.made}}
	rec := &record{id: n.id, base: versionID(x.Base), made: n.made.id, author: string(x.Author), maker: string(x.Maker), marker: x.Marker, size: x.SizeBytes,
		attrs: x.Attributes, sums: x.Checksums, tags: x.Tags, retention: x.Retention, hold: x.Hold, custody: n.custody, from: n.from, parts: len(x.PartSizes) > 0}
	if n.signed != x.Name {
		rec.origin = n.encoded
	}
	n.w.rec = rec
	if err := rec.setMD5(x.MD5); err != nil {
		return &redoubt.Error{Op: "Apply", Kind: redoubt.Invalid, Err: err}
	}
	if x.Marker {
		return e.reserve(&n.w.hold, n.w.least(), markerRoom)
	}
	digest := sha256.New()
	if n.in.From > 0 {
		var err error
		if n.arrival, err = e.goOn(n, digest); err != nil {
			return err
		}
	}
	sizes := pieceSizes(x, n.in.From, x.SizeBytes)
	if err := n.w.reserve(n.w.least() + int64(len(sizes)+len(rec.pieces))*mostOfPiece - n.arrival.charged()); err != nil { // least has the stated size in it
		return err
	}
	if n.in.Content == nil {
		return &redoubt.Error{Op: "Apply", Kind: redoubt.Invalid, Err: errors.New("a version came without its content")}
	}
	body := io.LimitReader(n.in.Content, x.SizeBytes-n.in.From+1)
	tee := io.TeeReader(body, digest)
	held, _ := n.in.Content.(*bytes.Reader)
	for _, p := range sizes {
		part := io.LimitReader(tee, p.size)
		if held != nil && int64(held.Len()) == p.size {
			part = &whole{Reader: part, held: held, digest: digest}
		}
		if err := n.w.takePart(ctx, part, p); err != nil {
			return err
		}
		if n.w.unfinished() >= finishTogether {
			if err := n.w.finish(); err != nil {
				return err
			}
		}
	}
	if extra, err := body.Read(make([]byte, 1)); extra > 0 || err != io.EOF {
		if err == nil || err == io.EOF {
			err = errors.New("more content than was signed for")
		}
		return &redoubt.Error{Op: "Apply", Kind: redoubt.Invalid, Err: err}
	}
	return rec.hashedAs([32]byte(digest.Sum(nil)), x.Content)
}

// whole is the rest of a content that lies in memory: it is digested and sealed where it lies.
type whole struct {
	io.Reader // the same, for who does not ask for WriteTo
	held      *bytes.Reader
	digest    io.Writer
}

func (w *whole) WriteTo(to io.Writer) (int64, error) {
	if w.held.Len() < digestBeside {
		return w.held.WriteTo(io.MultiWriter(w.digest, to))
	}
	var digested sync.WaitGroup
	defer digested.Wait()
	again := *w.held
	digested.Go(func() { _, _ = again.WriteTo(w.digest) }) // a hash fails at nothing
	return w.held.WriteTo(to)
}

// digestBeside is the least content that is digested while it is sealed, where there is a processor for it: one thing after the other takes longer than to
// have another thread begin.
const digestBeside = 256 << 10

// mostOfPiece is the most that a piece adds to a record, so that what was taken in also fits: size, key and what that is bound to.
const mostOfPiece = binary.MaxVarintLen64 + keys.WrappedBytes + 16 + 2

// pieceSizes says in which pieces the bytes [from, to) of a version's content are kept: a piece ends where a part does. A piece that
// does not begin a part goes on with the one before it.
func pieceSizes(x *redoubt.JournalEntry, from, to int64) (out []piece) {
	parts := x.PartSizes
	if len(parts) == 0 {
		parts = []int64{x.SizeBytes}
	}
	at := int64(0)
	for _, size := range parts {
		begin, end := max(at, from), min(at+size, to)
		if begin < end || size == 0 && at >= from && (at < to || at == x.SizeBytes && to == at) {
			out = append(out, piece{size: end - begin, joins: begin > at})
		}
		at += size
	}
	return out
}

// takePart seals and stages one piece of content under a key of its own. It is written out, and not durable before finish.
func (w *write) takePart(ctx context.Context, r io.Reader, p piece) error {
	key, wrapped, err := w.e.keyring.NewDataKey(w.set.text)
	if err != nil {
		return err
	}
	defer key.Wipe()
	staged, err := w.e.engine.Stage(ctx)
	if err != nil {
		return err
	}
	w.staged = append(w.staged, staged)
	sealer := keys.NewSealer(key, w.binding(w.rec.id), staged)
	n, err := io.Copy(sealer, r)
	if err = errors.Join(err, sealer.Close()); err != nil {
		return err
	}
	if n != p.size {
		return &redoubt.Error{Op: "Apply", Kind: redoubt.Invalid, Err: errors.New("less content than was signed for")}
	}
	if err := staged.Settle(); err != nil { // a version may have ten thousand pieces: none keeps a buffer, or space that it does not need
		return err
	}
	p.ref, p.wrapped, p.bound = staged.Ref(), wrapped, w.rec.id
	w.rec.pieces = append(w.rec.pieces, p)
	return nil
}

// unfinished is how many pieces takePart staged and finish has not made durable.
func (w *write) unfinished() int { return len(w.staged) - w.durable }

// finish makes durable what takePart staged.
func (w *write) finish() error {
	for ; w.durable < len(w.staged); w.durable++ {
		if err := w.staged[w.durable].Finish(); err != nil {
			return err
		}
	}
	return nil
}
