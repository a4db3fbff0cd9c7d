package replica

import (
	"bytes"
	"context"
	"io"
	"math/bits"
	"sync"

	"github.com/klauspost/compress/zstd"

	"redoubt"
)

// packer makes parcels of entries and takes them apart, for one peer. Its methods may be called at once.
type packer struct {
	journal redoubt.Journal
	peer    redoubt.NodeName
	codecs  *Codecs
	rate    func() float64 // see Options.Rate; nil: nothing is known
}

// Codecs are what packs and unpacks without a dictionary. Each holds megabytes: the sessions of a node share them, so that those
// that have nothing to say keep none. The zero Codecs is ready; its methods may be called at once.
type Codecs struct {
	small, middle, quick sync.Pool // of *zstd.Encoder: with windows of smallWindow and of middleWindow, and at the fastest level
	decoders             sync.Pool // of *zstd.Decoder
}

// encode compresses; quickly is for a road that carries as much as a core has time for. Its result may be longer than plain.
func (c *Codecs) encode(plain []byte, quickly bool) ([]byte, error) {
	var pool *sync.Pool // none for what is larger: three times the memory of the next, and seldom needed
	level, window := zstd.SpeedBetterCompression, windowOver(len(plain))
	switch {
	case quickly:
		pool, level, window = &c.quick, zstd.SpeedFastest, quickWindow
	case len(plain) <= smallWindow:
		pool, window = &c.small, smallWindow
	case len(plain) <= middleWindow:
		pool, window = &c.middle, middleWindow
	}
	var enc *zstd.Encoder
	if pool != nil {
		enc, _ = pool.Get().(*zstd.Encoder)
	}
	if enc == nil {
		var err error
		if enc, err = newEncoder(window, zstd.WithEncoderLevel(level)); err != nil {
			return nil, err
		}
	}
	if pool != nil {
		defer pool.Put(enc)
	}
	if quickly && len(plain) >= sampleFrom && !shrinks(enc, plain) {
		return plain, nil
	}
	return enc.EncodeAll(plain, make([]byte, 0, len(plain))), nil
}

// shrinks says whether compressing is worth a core's time: whether samples of the content become shorter by an eighth.
func shrinks(enc *zstd.Encoder, plain []byte) bool {
	var out []byte
	of, to := 0, 0
	for at := 0; at < len(plain); at += min(sampleEvery, len(plain)/2) {
		sample := plain[at:min(at+sampleBytes, len(plain))]
		out = enc.EncodeAll(sample, out[:0])
		of, to = of+len(sample), to+len(out)
	}
	return to < of-of/8
}

// Where a road is quick. quickRoad is the rate, in bytes a second, from which on one is: more than Gigabit Ethernet carries, where
// what the better level saves is still worth the core's time.
const (
	quickRoad   = 150e6
	sampleFrom  = 32 << 10 // of what is shorter, samples are as good as all of it
	sampleEvery = 128 << 10
	sampleBytes = 4 << 10
	quickWindow = 1 << 20
)

func (c *Codecs) decoder() (*zstd.Decoder, error) {
	if d, ok := c.decoders.Get().(*zstd.Decoder); ok {
		return d, nil
	}
	return newDecoder()
}

// describe puts an entry with its custody into the parcel.
func (p *parcel) describe(item *redoubt.JournalItem) (err error) {
	if p.Entry, err = item.Entry.MarshalBinary(); err != nil {
		return err
	}
	p.Custody, err = item.Custody.AppendBinary(nil)
	return err
}

// pack makes a parcel of an entry with all its content; against says that the peer may be sent a difference from its base.
func (p *packer) pack(ctx context.Context, set string, seq uint64, item *redoubt.JournalItem, against bool) (parcel, error) {
	out := parcel{Seq: seq}
	if err := out.describe(item); err != nil || item.Open == nil {
		return out, err
	}
	plain, err := readAll(item)
	if err != nil {
		return out, err
	}
	out.Packing, out.Content, err = p.compress(ctx, set, &item.Entry, plain, against)
	return out, err
}

func readAll(item *redoubt.JournalItem) ([]byte, error) {
	r, err := item.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return readRange(r, 0, item.Entry.SizeBytes)
}

// readRange gives n bytes of content, which are read and nowhere written: they may be what stands in memory already.
func readRange(r redoubt.Content, off, n int64) ([]byte, error) {
	if held, ok := r.(interface{ Whole() []byte }); ok {
		if whole := held.Whole(); off+n <= int64(len(whole)) {
			return whole[off : off+n : off+n], nil
		}
	}
	plain := make([]byte, n)
	_, err := io.ReadFull(r.Reader(off, n), plain)
	return plain, err
}

// compress packs content, against that of its base where it may, and as it is where nothing is gained.
func (p *packer) compress(ctx context.Context, set string, entry *redoubt.JournalEntry, plain []byte, against bool) (packing uint8, packed []byte, err error) {
	var base []byte
	if against {
		if base, err = p.content(ctx, set, entry.Base); err != nil {
			return 0, nil, err
		}
	}
	if packing, packed, err = p.deflate(plain, base); err != nil {
		return 0, nil, err
	}
	if len(packed) >= len(plain) {
		return packedPlain, plain, nil
	}
	return packing, packed, nil
}

// newEncoder makes one that finds what repeats within window bytes. Its memory is 4 MB and the window, half as much again.
func newEncoder(window int, more ...zstd.EOption) (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, append([]zstd.EOption{zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
		zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(window)}, more...)...)
}

// smallWindow is for what goes together in a message, middleWindow for most of what goes alone.
const (
	smallWindow  = 64 << 10
	middleWindow = 1 << 20
)

// windowOver is the window, a power of two, in which all of n bytes are in reach: the content's base must be, to its last byte.
func windowOver(n int) int { return max(smallWindow, 1<<bits.Len(uint(n-1))) }

// dictID marks frames that need a base; it is ours alone.
const dictID = 0x52444254

// content is the content of one version that both sides may hold, for a dictionary; nil where it is not here or too large.
func (p *packer) content(ctx context.Context, set string, stamp redoubt.Stamp) ([]byte, error) {
	held, err := p.journal.Fetch(ctx, p.peer, set, []redoubt.Stamp{stamp})
	if redoubt.KindOf(err) == redoubt.NotFound {
		return nil, nil // nothing of the label set has come yet
	}
	if err != nil || len(held) == 0 || held[0].Open == nil || held[0].Entry.SizeBytes > maxWholeBytes || held[0].Entry.SizeBytes == 0 {
		return nil, err
	}
	return readAll(&held[0])
}

// share leaves out the custodies of a message that is one whole batch of the maker's: the receiver works them out.
func (m *items) share(maker redoubt.NodeName, fetched []redoubt.JournalItem) {
	if len(m.Parcels) != len(fetched) {
		return
	}
	for i := range fetched {
		c := &fetched[i].Custody
		if fetched[i].Entry.Maker != maker || c.Count != int64(len(fetched)) || c.Index != int64(i) || c.Root != fetched[0].Custody.Root {
			return
		}
	}
	m.Signature = bytes.Clone(fetched[0].Custody.Signature[:])
	for i := range m.Parcels {
		m.Parcels[i].Custody = nil
	}
}

// sharedCustody works out the custodies of a message under one signature.
func sharedCustody(maker redoubt.NodeName, m items) ([]redoubt.Custody, error) {
	if len(m.Signature) == 0 {
		return nil, nil
	}
	entries := make([][]byte, len(m.Parcels))
	for i := range m.Parcels {
		if len(m.Parcels[i].Custody) > 0 {
			return nil, errMessage
		}
		entries[i] = m.Parcels[i].Entry
	}
	return redoubt.SealBatch(maker, entries, func([]byte) ([]byte, error) { return m.Signature, nil })
}

// unpack takes a parcel apart. What cannot be unpacked is refused without being decided: it is not what anybody signed.
func (p *packer) unpack(ctx context.Context, set string, in *parcel) (r redoubt.Received, state uint8, err error) {
	if err := r.Entry.UnmarshalBinary(in.Entry); err != nil {
		return r, refused, nil
	}
	if r.Entry.Label != set {
		return r, refused, nil
	}
	if len(in.Custody) > 0 {
		if err := r.Custody.UnmarshalBinary(in.Custody); err != nil {
			return r, refused, nil
		}
	}
	if in.Packing == packedNone {
		return r, taken, nil
	}
	plain, state, err := p.expand(ctx, set, &r.Entry, in.Packing, in.Content)
	r.Content = bytes.NewReader(plain)
	return r, state, err
}

// expand undoes compress, within the size that was signed for.
func (p *packer) expand(ctx context.Context, set string, entry *redoubt.JournalEntry, packing uint8, packed []byte) (plain []byte, state uint8, err error) {
	if packing == packedPlain {
		return packed, taken, nil
	}
	if entry.SizeBytes > maxWholeBytes {
		return nil, refused, nil
	}
	var base []byte
	if packing == packedDelta {
		if base, err = p.content(ctx, set, entry.Base); err != nil {
			return nil, 0, err
		}
		if base == nil {
			return nil, needsBase, nil
		}
	}
	return p.inflate(packed, entry.SizeBytes, base)
}

// newDecoder bounds what a frame may ask for: a window and a result as large as what is packed whole.
func newDecoder(more ...zstd.DOption) (*zstd.Decoder, error) {
	return zstd.NewReader(nil, append(more, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(2*maxWholeBytes), zstd.WithDecoderMaxWindow(maxWholeBytes))...)
}
