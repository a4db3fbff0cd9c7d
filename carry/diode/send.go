package diode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"syscall"

	"redoubt"
	"redoubt/bundle"
)

// Limits of what a sender is asked for.
const (
	MinRate       = 8_000           // bits a second: a small bundle takes a minute and a half
	MaxRate       = 100_000_000_000 // where paces are still whole nanoseconds
	MaxPasses     = 1_000
	MaxInterleave = 64 // blocks: twice 300 MiB of memory

	DefaultLoss       = 0.1
	DefaultInterleave = 4
)

// Plan says how bundles are sent.
type Plan struct {
	Rate       int64   // bits a second on the wire, UDPOverhead a datagram included
	Datagram   int     // bytes of UDP payload; the greatest that the road carries whole
	Loss       float64 // the share of datagrams that may be lost: parity is planned for it
	Interleave int     // blocks that are sent mixed, so that a burst takes a little of each
	Passes     int     // how often everything is sent
	Key        []byte  // KeyBytes that both sides share; nil: none
	// Bare sends bundles of MaxBare at most without digests of their blocks: for who receives in memory, under a key. Nothing is digested at either end, and
	// a file that is damaged is sent.
	Bare bool
}

// MaxBare is the longest file that is sent bare.
const MaxBare = 32 << 20

func (p *Plan) check() error {
	why := ""
	switch {
	case p.Rate < MinRate || p.Rate > MaxRate:
		why = fmt.Sprintf("a rate is between %d and %d bits a second", MinRate, MaxRate)
	case p.Datagram < MinDatagram || p.Datagram > MaxDatagram:
		why = fmt.Sprintf("a datagram has %d to %d bytes", MinDatagram, MaxDatagram)
	case !(p.Loss >= 0 && p.Loss <= MaxLoss):
		why = fmt.Sprintf("parity is planned for a loss of nothing up to %g", MaxLoss)
	case p.Interleave < 1 || p.Interleave > MaxInterleave:
		why = fmt.Sprintf("1 to %d blocks are mixed", MaxInterleave)
	case p.Passes < 1 || p.Passes > MaxPasses:
		why = fmt.Sprintf("1 to %d passes", MaxPasses)
	case p.Bare && p.Key == nil:
		why = "without digests a bundle is sent under a key"
	default:
		return nil
	}
	return &redoubt.Error{Op: "diode.Plan", Kind: redoubt.Invalid, Err: errors.New(why)}
}

// Pace changes the rate of what is sent from here on.
func (s *Sender) Pace(rate int64) {
	s.Rate, s.pace.rate, s.pace.left = rate, rate, 0
}

// Tally is what a bundle took to send.
type Tally struct {
	Datagrams int64 `json:"datagrams"`
	Bytes     int64 `json:"bytes"` // on the wire, UDPOverhead a datagram included
}

// Sender sends bundles, one after the other. It writes and never reads.
type Sender struct {
	Plan
	w    io.Writer
	tags *tagger
	pace *pacer
	run  uint32
	seq  uint32
	buf  []byte
	slab [2][]byte // of the groups of a pass, kept for the next
	Tally
}

// NewSender sends to w, a datagram a call of Write.
func NewSender(w io.Writer, p Plan) (*Sender, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	tags, err := newTagger(p.Key)
	if err != nil {
		return nil, &redoubt.Error{Op: "diode.NewSender", Kind: redoubt.Invalid, Err: err}
	}
	return &Sender{Plan: p, w: w, tags: tags, pace: newPacer(p.Rate), run: rand.Uint32()}, nil
}

// InMemory is a bundle in memory, which stays as it is while it is sent.
type InMemory []byte

// ReadAt reads of it.
func (w InMemory) ReadAt(p []byte, at int64) (int, error) { return bytes.NewReader(w).ReadAt(p, at) }

// Load is a bundle that was read whole and found undamaged, unless it is sent bare, cut as a plan says.
type Load struct {
	*manifest
	// Between is called before each datagram of the load, where it is not nil, and may send other loads by the same sender meanwhile: for who receives they
	// are mixed as on any road. What it fails with ends the sending.
	Between func(ctx context.Context) error

	file   io.ReaderAt
	whole  InMemory // the file, where that is in memory: what is sent is not copied, nor held against a digest again
	steady bool     // what is read of the file is not held against a digest: it is in memory, and was; or it is sent bare
	blocks []int    // that are sent
	total  int64    // datagrams of one pass
	copies int      // how often the manifest has to go so that it is lost as seldom as a block
}

// Load reads a bundle and plans its sending; where file is InMemory, it is read but once. only names the blocks to send; nil: all. progress may be nil.
func (s *Sender) Load(ctx context.Context, file io.ReaderAt, size int64, only []int, progress func(done int64)) (*Load, error) {
	bare := s.Bare && size <= MaxBare
	var o *bundle.Outline
	var err error
	if bare {
		o, err = bundle.ReadBareOutline(file, size)
	} else {
		o, err = bundle.ReadOutline(ctx, file, size, progress)
	}
	if err == nil && o.Tagged && !bare {
		err = &redoubt.Error{Op: "diode.Load", Kind: redoubt.Invalid, Rule: bundle.RuleFormat, Err: errors.New("no block of that bundle is known by a digest: it is sent bare, or not at all")}
	}
	if err != nil {
		return nil, err
	}
	g := geometry{shardBytes: (s.Datagram - headBytes) / shardUnit * shardUnit, sealed: o.SealedBytes}
	if last := g.blocks() - 1; last >= 0 {
		g.lastParity = parityFor(g.data(last), s.Loss)
		if last > 0 {
			g.parity = parityFor(g.data(0), s.Loss)
		}
	}
	m, err := newManifest(o, g)
	if err != nil {
		return nil, err
	}
	whole, steady := file.(InMemory)
	l := &Load{manifest: m, file: file, whole: whole, steady: steady || bare, blocks: only}
	if only == nil {
		for b := range g.blocks() {
			l.blocks = append(l.blocks, b)
		}
	}
	for _, b := range l.blocks {
		if b < 0 || b >= g.blocks() {
			return nil, &redoubt.Error{Op: "diode.Load", Kind: redoubt.Invalid, Err: fmt.Errorf("the bundle has blocks 0 to %d", g.blocks()-1)}
		}
		l.total += int64(g.shards(b))
	}
	l.copies = 2
	if s.Loss > 0 { // each piece lost that often: pieces · loss^copies ≤ maxBlockLoss
		l.copies = max(2, int(math.Ceil(math.Log(maxBlockLoss/float64(m.pieces()))/math.Log(s.Loss))))
	}
	return l, nil
}

// Outline is what the load is of.
func (l *Load) Outline() *bundle.Outline { return l.manifest.Outline }

// Datagrams is about how many one pass takes.
func (l *Load) Datagrams() int64 { return l.total + int64(l.copies*l.pieces()) }

// manifestEvery is after how many shards at least a piece of the manifest goes again: who starts late waits so long for each piece.
const manifestEvery = 256

// Send sends every pass of a load, at the plan's rate. It returns when the last datagram was given to w; whether any arrived, nobody
// here can know. progress may be nil; it is told of datagrams, of all passes together. The file must stay as it is: a block that is
// another by now ends the sending.
func (s *Sender) Send(ctx context.Context, l *Load, progress func(done int64)) error {
	for range s.Passes {
		if err := s.pass(ctx, l, progress); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sender) pass(ctx context.Context, l *Load, progress func(int64)) error {
	// First the manifest alone, so that what follows can be put where it belongs: as often as it needs where that is little of
	// the whole. A small bundle has the rest of the copies spread over all of it.
	first, every := 2, max(1, min(manifestEvery, l.total/int64(l.copies*l.pieces())))
	if int64(64*l.copies*l.pieces()) <= l.total {
		first = l.copies
	}
	for range first {
		for i := range l.pieces() {
			if err := s.piece(ctx, l, i); err != nil {
				return err
			}
		}
	}
	slabs := s.slab // its own until it is over: another load may be sent between
	s.slab = [2][]byte{}
	groups, stop := encodeAhead(ctx, l, s.Interleave, &slabs)
	defer func() { stop(); s.slab = slabs }()
	shards, next := int64(0), 0
	for g := range groups {
		if g.err != nil {
			return g.err
		}
		for i := range g.most {
			for b, block := range g.blocks {
				if i >= len(g.shards[b]) {
					continue
				}
				if err := s.datagram(ctx, l, packet{Kind: kindShard, Transfer: l.id, Block: uint32(block), Index: uint16(i), Payload: g.shards[b][i]}); err != nil {
					return err
				}
				if shards++; shards%every == 0 {
					if err := s.piece(ctx, l, next); err != nil {
						return err
					}
					next = (next + 1) % l.pieces()
				}
				if progress != nil && shards%64 == 0 {
					progress(s.Datagrams)
				}
			}
		}
		g.used <- struct{}{}
	}
	return ctx.Err()
}

func (s *Sender) piece(ctx context.Context, l *Load, i int) error {
	return s.datagram(ctx, l, packet{Kind: kindManifest, Transfer: l.id, Block: uint32(l.pieces()), Index: uint16(i), Payload: l.piece(i)})
}

// datagram sends one when its time has come. One that the kernel has no room for is lost, as on the road.
func (s *Sender) datagram(ctx context.Context, l *Load, p packet) error {
	if l.Between != nil {
		if err := l.Between(ctx); err != nil {
			return err
		}
	}
	if err := s.pace.wait(ctx, headBytes+len(p.Payload)+UDPOverhead); err != nil {
		return err
	}
	if s.seq == runLength {
		s.run, s.seq = rand.Uint32(), 0
	}
	p.Run, p.Seq = s.run, s.seq
	s.seq++
	s.buf = s.tags.append(s.buf[:0], &p)
	if _, err := s.w.Write(s.buf); err != nil && !errors.Is(err, syscall.ENOBUFS) {
		return &redoubt.Error{Op: "diode.send", Kind: redoubt.Unavailable, Err: err}
	}
	s.Datagrams++
	s.Tally.Bytes += int64(len(s.buf) + UDPOverhead)
	return nil
}

// group is some blocks with their parity, ready to be sent mixed.
type group struct {
	blocks []int
	shards [][][]byte // of each
	most   int        // of the block that has most
	err    error
	used   chan<- struct{} // told when they were sent
}

// encodeAhead makes the next group while one is sent, so that the rate has no gaps. It holds two groups in memory, in slabs, which it makes
// larger where they are too small. stop ends it.
func encodeAhead(ctx context.Context, l *Load, interleave int, slabs *[2][]byte) (<-chan group, func()) {
	ctx, cancel := context.WithCancel(ctx)
	out, used := make(chan group), make(chan struct{}, 2)
	go func() { // ends when all is encoded, or with stop
		defer close(out)
		e := encoder{l}
		for n, at := 0, 0; at < len(l.blocks); n++ {
			if n >= 2 { // the slab of the group before the last is free when that was sent
				select {
				case <-used:
				case <-ctx.Done():
					return
				}
			}
			blocks := l.blocks[at:min(at+interleave, len(l.blocks))]
			at += len(blocks)
			if size := len(blocks) * l.most() * l.shardBytes; len(slabs[n%2]) < size {
				slabs[n%2] = Room(size)
			}
			g := e.group(blocks, slabs[n%2])
			g.used = used
			select {
			case out <- g:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, func() {
		cancel()
		for range out { // until it has ended
		}
	}
}

type encoder struct{ l *Load }

func (e *encoder) group(blocks []int, slab []byte) group {
	g := group{blocks: blocks}
	for _, b := range blocks {
		shards := cut(slab, e.l.shards(b), e.l.shardBytes)
		if g.err = e.block(b, slab, shards); g.err != nil {
			return g
		}
		slab = slab[len(shards)*e.l.shardBytes:]
		g.shards, g.most = append(g.shards, shards), max(g.most, len(shards))
	}
	return g
}

// block reads a block into its data shards, which lie one behind the other in slab, and makes its parity.
func (e *encoder) block(b int, slab []byte, shards [][]byte) error {
	n, data := e.l.blockLen(b), e.l.data(b)
	content, at := slab[:data*e.l.shardBytes], int64(len(e.l.Start))+int64(b)*bundle.LeafBytes
	read := 0
	if e.l.whole != nil { // all shards but the last stand there as they are
		for i := range data - 1 {
			from := at + int64(i*e.l.shardBytes)
			shards[i] = e.l.whole[from : from+int64(e.l.shardBytes) : from+int64(e.l.shardBytes)]
		}
		read = (data - 1) * e.l.shardBytes
	}
	if got, err := e.l.file.ReadAt(content[read:n], at+int64(read)); got < n-read {
		return &redoubt.Error{Op: "diode.send", Kind: redoubt.Unavailable, Err: errors.Join(errors.New("the file does not read"), err)}
	}
	clear(content[n:])
	if !e.l.steady && !e.l.IsLeaf(b, content[:n]) {
		return &redoubt.Error{Op: "diode.send", Kind: redoubt.Corrupt, Err: errors.New("the file changed while it was sent")}
	}
	code, err := coder(data, e.l.parityOf(b))
	if err != nil || code == nil {
		return err
	}
	if err := code.Encode(shards); err != nil {
		return &redoubt.Error{Op: "diode.send", Err: err}
	}
	return nil
}
