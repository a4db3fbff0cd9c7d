package replica

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"

	"github.com/klauspost/compress/zstd"

	"redoubt"
)

// segmentBytes is of how much content is packed and kept at once: what is larger travels in several segments, each packed by itself.
const (
	segmentBytes   = maxWholeBytes
	maxSegment     = maxWholeBytes + 64<<10 // packed, and the steps of one
	maxKeptBytes   = 8192 * segmentBytes    // enclave.MaxArrivedPieces: content that is larger goes straight on, and nothing of it is kept
	segmentHead    = 5                      // of what is kept of a segment: its packing and its length
	packedChunks   = 4                      // steps, then zstd of the bytes that the base does not have
	maxChunkedBase = maxBaseBytes
)

// source is the content of an entry that is sent in segments.
type source struct {
	p       *packer
	entry   *redoubt.JournalEntry
	content redoubt.Content
	dict    []byte    // a base that is small, for content that is one segment
	base    *baseline // else
}

// open prepares an entry's content to be sent, against that of its base where the peer has it.
func (p *packer) open(ctx context.Context, set string, item *redoubt.JournalItem, against bool) (src *source, err error) {
	src = &source{p: p, entry: &item.Entry}
	if against {
		if src.base, err = p.baseline(ctx, set, item.Entry.Base); err != nil {
			return nil, err
		}
	}
	if b := src.base; b != nil && b.size <= maxWholeBytes && item.Entry.SizeBytes <= maxWholeBytes {
		src.dict, err = io.ReadAll(b.content.Reader(0, b.size))
		b.close()
		src.base = nil
	} else if b != nil {
		err = b.index()
	}
	if err == nil {
		src.content, err = item.Open()
	}
	if err != nil {
		src.base.close()
		return nil, err
	}
	return src, nil
}

func (s *source) close() {
	s.base.close()
	s.content.Close()
}

// baseline opens the content of one version that both sides may hold; nil where it is not here, empty or too large.
func (p *packer) baseline(ctx context.Context, set string, stamp redoubt.Stamp) (*baseline, error) {
	held, err := p.journal.Fetch(ctx, p.peer, set, []redoubt.Stamp{stamp})
	if redoubt.KindOf(err) == redoubt.NotFound {
		return nil, nil // nothing of the label set has come yet
	}
	if err != nil || len(held) == 0 || held[0].Open == nil || held[0].Entry.SizeBytes > maxChunkedBase || held[0].Entry.SizeBytes == 0 {
		return nil, err
	}
	content, err := held[0].Open()
	if err != nil {
		return nil, err
	}
	return &baseline{content: content, size: held[0].Entry.SizeBytes}, nil
}

// segment packs the segment that begins at off. The same content against the same base is packed into the same bytes, so that a
// part of them can be kept over a break.
func (s *source) segment(off int64) (packing uint8, packed []byte, err error) {
	plain, err := readRange(s.content, off, min(s.entry.SizeBytes-off, segmentBytes))
	if err != nil {
		return 0, nil, err
	}
	switch {
	case s.dict != nil:
		packing, packed, err = s.p.deflate(plain, s.dict)
	case s.base != nil:
		packing = packedChunks
		packed, err = s.chunked(plain)
	default:
		packing, packed, err = s.p.deflate(plain, nil)
	}
	if err != nil {
		return 0, nil, err
	}
	if len(packed) >= len(plain) {
		return packedPlain, plain, nil
	}
	return packing, packed, nil
}

// chunked packs content as steps and what the base does not have.
func (s *source) chunked(plain []byte) ([]byte, error) {
	all, err := s.base.steps(plain)
	if err != nil {
		return nil, err
	}
	var own []byte
	at := 0
	for _, x := range all {
		own = append(own, plain[at:at+x.literal]...)
		at += x.literal + x.copies
	}
	if len(own) == 0 {
		return encodeSteps(all), nil
	}
	packed, err := s.p.codecs.encode(own, false) // in zstd whatever it gains: the receiver reads nothing else
	return append(encodeSteps(all), packed...), err
}

// restore undoes segment, for size bytes of content. What cannot be undone is refused: it is not what anybody signed.
func (p *packer) restore(ctx context.Context, a *arrival, packing uint8, packed []byte, size int64) (plain []byte, state uint8, err error) {
	switch packing {
	case packedPlain:
		if int64(len(packed)) != size {
			return nil, refused, nil
		}
		return packed, taken, nil
	case packedZstd:
		return p.inflate(packed, size, nil)
	}
	if a.base == nil {
		if a.base, err = p.baseline(ctx, a.set, a.in.Entry.Base); err != nil {
			return nil, 0, err
		}
	}
	if a.base == nil {
		return nil, needsBase, nil
	}
	if packing == packedDelta {
		if a.base.size > maxWholeBytes {
			return nil, refused, nil
		}
		dict, err := io.ReadAll(a.base.content.Reader(0, a.base.size))
		if err != nil {
			return nil, 0, err
		}
		return p.inflate(packed, size, dict)
	}
	all, literals, rest, err := decodeSteps(packed, size, a.base.size)
	if err != nil {
		return nil, refused, nil
	}
	own, state, err := p.inflate(rest, int64(literals), nil)
	if err != nil || state != taken {
		return nil, state, err
	}
	plain, err = a.base.make(all, own, size)
	return plain, taken, err
}

// deflate compresses with zstd, against a dictionary where there is one. Where it gains nothing its result may be content as it is,
// and no shorter.
func (p *packer) deflate(plain, dict []byte) (packing uint8, packed []byte, err error) {
	if dict == nil {
		packed, err = p.codecs.encode(plain, p.rate != nil && p.rate() >= quickRoad)
		return packedZstd, packed, err
	}
	enc, err := newEncoder(windowOver(len(dict)+len(plain)), zstd.WithEncoderDictRaw(dictID, dict))
	if err != nil {
		return 0, nil, err
	}
	defer enc.Close()
	return packedDelta, enc.EncodeAll(plain, nil), nil
}

// inflate undoes deflate, within the size that is expected.
func (p *packer) inflate(packed []byte, size int64, dict []byte) (plain []byte, state uint8, err error) {
	if size > maxWholeBytes || size == 0 && len(packed) > 0 {
		return nil, refused, nil
	}
	if size == 0 {
		return nil, taken, nil
	}
	var dec *zstd.Decoder
	if dict == nil {
		if dec, err = p.codecs.decoder(); err != nil {
			return nil, 0, err
		}
		defer p.codecs.decoders.Put(dec)
	} else {
		if dec, err = newDecoder(zstd.WithDecoderDictRaw(dictID, dict)); err != nil {
			return nil, 0, err
		}
		defer dec.Close()
	}
	var head zstd.Header
	if head.Decode(packed) != nil || head.HasFCS && head.FrameContentSize != uint64(size) {
		return nil, refused, nil
	}
	plain, err = dec.DecodeAll(packed, make([]byte, 0, size))
	if err != nil || int64(len(plain)) != size {
		return nil, refused, nil
	}
	return plain, taken, nil
}

// sameBeginning says whether a segment that was packed again begins with what the peer keeps of it.
func sameBeginning(k *kept, packing uint8, packed []byte) (skip int, same bool) {
	skip = int(k.Part) - segmentHead
	if skip < 0 || skip > len(packed) {
		return 0, false
	}
	return skip, bytes.Equal(k.Digest[:], partDigest(packing, packed, skip))
}

// sameIslands says whether what the peer keeps behind the beginning of a segment is of this one, and what lacks it beside that.
func sameIslands(k *kept, packed []byte) (lacked runs, same bool) {
	have := runs{}
	have.add(0, int(k.Part)-segmentHead)
	found := make([]redoubt.Island, 0, len(k.Islands))
	for _, x := range k.Islands {
		from, to := int(x.From)-segmentHead, int(x.From+x.SizeBytes)-segmentHead
		if to > len(packed) {
			return nil, false
		}
		found = append(found, redoubt.Island{From: x.From, SizeBytes: x.SizeBytes, Digest: sha256.Sum256(packed[from:to])})
		have.add(from, to)
	}
	return have.lacks(len(packed)), len(found) > 0 && islandsDigest(found) == k.of
}
