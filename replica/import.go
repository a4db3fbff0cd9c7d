package replica

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"

	"redoubt"
	"redoubt/bundle"
	"redoubt/keys"
)

// RuleContent refuses a bundle whose content is not as a bundle's is, although its maker signed it.
const RuleContent = "bundle-content"

// importer takes what one bundle holds.
type importer struct {
	b        *Bundles
	v        *bundle.Bundle
	id       *keys.Identity
	plain    []byte // the content, where it was opened into memory
	peer     redoubt.NodeName
	packer   *packer
	counts   counts
	progress func(done, total int64)

	waiting      []redoubt.Received // of waitingSet, to be applied together
	waitingSet   string
	waitingBytes int64 // of content, as it is held

	broken  map[string]bool   // sets of which something was not taken: later tickets are not given back
	tickets map[string][]byte // the last of each other set
	lacking bool
	whole   bool     // what cannot be taken now ends the import: it is brought again
	void    []uint64 // numbers that were never handed over
}

// run reads the content twice: once to see that it is well formed to its end, then to take it. taking becomes what is to be kept.
func (m *importer) run(ctx context.Context, taking *redoubt.BundleTaking) error {
	if m.v.FileBytes <= stagedInMemory {
		defer m.forget()
		if err := m.hold(); err != nil {
			return err
		}
	}
	m.broken, m.tickets = map[string]bool{}, map[string][]byte{}
	said, err := m.walk(ctx, nil)
	if err != nil {
		return err
	}
	fresh, err := m.meet(ctx, said.Life, taking)
	if err != nil {
		return err
	}
	m.packer = &packer{journal: m.b.o.Journal, peer: m.peer, codecs: &m.b.codecs}
	if _, err := m.walk(ctx, m.take); err != nil {
		return err
	}
	if err := m.applyGathered(ctx); err != nil {
		return err
	}
	if !fresh {
		for _, t := range said.Tickets {
			if err := m.b.o.Tickets.Redeem(ctx, m.peer, t); err != nil {
				return err
			}
		}
	}
	taking.Plain = said.Lacking
	mark := m.v.Mark(m.b.o.Node)
	if m.v.Kind == bundle.Receipt {
		taking.Receipt = mark
		return nil
	}
	taking.Last, taking.Lacking, taking.Tickets = mark, m.lacking, nil
	for _, t := range m.tickets {
		taking.Tickets = append(taking.Tickets, t)
	}
	return nil
}

// hold opens the content into the memory for that, so that it is opened but once. Imports wait for one another, so there is one.
func (m *importer) hold() error {
	plain, err := m.v.Open(m.id)
	if err != nil {
		return err
	}
	m.b.opened.Reset()
	m.b.opened.Grow(int(m.v.SealedBytes)) // what is sealed is longer: nothing is moved, which would leave a copy
	if _, err := m.b.opened.ReadFrom(plain); err != nil {
		return err
	}
	m.plain = m.b.opened.Bytes()
	return nil
}

// forget overwrites what was opened.
func (m *importer) forget() {
	clear(m.b.opened.Bytes())
	m.plain = nil
}

// meet holds the life of the maker's state against the one that was known. Another one means that what it acknowledged may be
// lost to it; a bundle that is older than what was taken last does not say so. fresh: what it gives back is of no account.
func (m *importer) meet(ctx context.Context, life [16]byte, taking *redoubt.BundleTaking) (fresh bool, err error) {
	known, err := m.b.o.State.PeerLife(ctx, m.peer)
	if err != nil || known == life {
		return false, err
	}
	if m.v.Created.Before(taking.Last.Created) || m.v.Created.Before(taking.Receipt.Created) {
		return false, &redoubt.Error{Op: "ImportBundle", Kind: redoubt.Conflict, Rule: bundle.RuleReplayed, Err: errors.New("the bundle is of a state of its maker's that has ended"),
			Hint: "import the newest bundle of " + string(m.peer)}
	}
	if known == [16]byte{} {
		return false, m.b.o.State.Remember(ctx, m.peer, life)
	}
	if err := m.b.o.State.Forget(ctx, m.peer); err != nil {
		return false, err
	}
	return true, m.b.o.State.Remember(ctx, m.peer, life)
}

// walk reads the whole content, and hands each message of entries to take where it is not nil. What the messages say is bounded here.
func (m *importer) walk(ctx context.Context, take func(ctx context.Context, msg []byte, rest *frameReader) error) (said manifest, err error) {
	f := &frameReader{held: m.plain}
	if m.plain == nil {
		if f.r, err = m.v.Open(m.id); err != nil {
			return said, err
		}
	}
	malformed := func(err error) error {
		if err == nil || redoubt.KindOf(err) != redoubt.Internal || ctx.Err() != nil {
			return err
		}
		return &redoubt.Error{Op: "ImportBundle", Kind: redoubt.Invalid, Rule: RuleContent, Err: err}
	}
	msg, err := f.next()
	if err != nil {
		return said, malformed(err)
	}
	if said, err = decodeManifest(bytes.Clone(msg)); err != nil {
		return said, malformed(err)
	}
	form := &former{receipt: m.v.Kind == bundle.Receipt, sets: map[string]bool{}}
	for {
		if err := ctx.Err(); err != nil {
			return said, err
		}
		if msg, err = f.next(); err != nil {
			return said, malformed(err)
		}
		if take == nil { // what is read the second time is the same: Open sees to it
			if err := form.check(msg); err != nil {
				return said, malformed(err)
			}
		}
		if msg[0] == msgEnd {
			return said, malformed(f.finish())
		}
		if take == nil {
			continue
		}
		if err := take(ctx, msg, f); err != nil {
			return said, err
		}
		if m.progress != nil {
			m.progress(f.bytes, m.v.SealedBytes)
		}
	}
}

// take takes one message.
func (m *importer) take(ctx context.Context, msg []byte, rest *frameReader) error {
	switch msg[0] {
	case msgNote:
		kind, body, err := decodeNote(msg)
		if err == nil && kind == noteVoid {
			m.void, err = decodeVoid(body)
			return err
		}
		if err == nil && m.b.o.Noted != nil {
			err = m.b.o.Noted(ctx, m.peer, Note{kind, bytes.Clone(body)})
		}
		return err
	case msgItems:
		return m.takeItems(ctx, rest.lasting(msg))
	case msgBegin:
		return m.takeLarge(ctx, msg, rest)
	case msgMark:
		t, err := decodeMark(msg)
		if err == nil {
			err = m.applyGathered(ctx)
		}
		if err == nil && !m.broken[t.Set] {
			m.tickets[t.Set] = bytes.Clone(t.Ticket)
		}
		return err
	}
	return errMessage
}

// takeItems takes a message of small entries, which stays as it is.
func (m *importer) takeItems(ctx context.Context, msg []byte) error {
	all, err := decodeItems(msg)
	if err != nil {
		return err
	}
	custodies, err := sharedCustody(m.peer, all)
	if err != nil {
		return err
	}
	for i := range all.Parcels {
		r, ok, err := m.unpack(ctx, all.Set, &all.Parcels[i])
		if err != nil || !ok {
			if err != nil {
				return err
			}
			continue
		}
		if custodies != nil {
			r.Custody = custodies[i]
		}
		if err := m.gather(ctx, all.Set, r, r.Entry.SizeBytes); err != nil {
			return err
		}
	}
	return nil
}

// unpack makes of a parcel what is applied. One that is packed against another that waits has that applied first.
func (m *importer) unpack(ctx context.Context, set string, p *parcel) (r redoubt.Received, ok bool, err error) {
	r, state, err := m.packer.unpack(ctx, set, p)
	if err == nil && state == needsBase && len(m.waiting) > 0 {
		if err = m.applyGathered(ctx); err == nil {
			r, state, err = m.packer.unpack(ctx, set, p)
		}
	}
	if err == nil && state != taken {
		m.refuse(set, state)
	}
	return r, state == taken, err
}

// takeLarge takes an entry whose content follows in pieces: with others as long as it is held in memory, and by itself beyond.
func (m *importer) takeLarge(ctx context.Context, msg []byte, rest *frameReader) error {
	start, err := decodeBegin(rest.lasting(msg))
	if err != nil {
		return err
	}
	content := &pieces{f: rest, seq: start.Parcel.Seq, left: start.Bytes}
	p := start.Parcel
	if p.Packing == packedPlain && start.Bytes > gatherBytes {
		r, ok, err := m.unpack(ctx, start.Set, &parcel{Entry: p.Entry, Custody: p.Custody})
		if err == nil && ok {
			r.Content = content
			if err = m.applyGathered(ctx); err == nil {
				err = m.apply(ctx, start.Set, []redoubt.Received{r})
			}
		}
		if err == nil {
			_, err = io.Copy(io.Discard, content) // of what was refused, or is here already
		}
		return err
	}
	if p.Content, err = content.all(); err != nil { // which the former bounds, and gatherBytes
		return err
	}
	r, ok, err := m.unpack(ctx, start.Set, &p)
	if err != nil || !ok {
		return err
	}
	waits := r.Entry.SizeBytes
	if m.plain != nil && p.Packing == packedPlain && waits >= gatherApart {
		waits = 0
	}
	return m.gather(ctx, start.Set, r, waits)
}

// What waits to be applied together: one commit and one sync for all of it.
const (
	gatherEntries = 512
	gatherBytes   = 8 << 20
	gatherApart   = 256 << 10 // content from there on has a place of its own in a store, and burdens no commit: what lies in memory anyway waits for free
)

// gather has an entry wait for others of its label set, and with it bytes of content.
func (m *importer) gather(ctx context.Context, set string, r redoubt.Received, bytes int64) error {
	if len(m.waiting) > 0 && set != m.waitingSet {
		if err := m.applyGathered(ctx); err != nil {
			return err
		}
	}
	m.waiting, m.waitingSet, m.waitingBytes = append(m.waiting, r), set, m.waitingBytes+bytes
	if len(m.waiting) < gatherEntries && m.waitingBytes < gatherBytes {
		return nil
	}
	return m.applyGathered(ctx)
}

// applyGathered applies what waits.
func (m *importer) applyGathered(ctx context.Context) error {
	in := m.waiting
	m.waiting, m.waitingBytes = nil, 0
	return m.apply(ctx, m.waitingSet, in)
}

// refuse counts an entry that could not be unpacked.
func (m *importer) refuse(set string, state uint8) {
	n := m.counts.of(set)
	if state == needsBase {
		m.lacking, m.broken[set] = true, true
		n.Waiting++
		return
	}
	m.refused(n, "packing")
}

func (m *importer) refused(n *redoubt.BundleCount, rule string) {
	if n.Refused == nil {
		n.Refused = map[string]int{}
	}
	n.Refused[rule]++
}

// apply has the enclave decide and take entries.
func (m *importer) apply(ctx context.Context, set string, in []redoubt.Received) error {
	if len(in) == 0 {
		return nil
	}
	refusals, err := m.b.o.Journal.Apply(ctx, m.peer, in)
	if err != nil {
		return err
	}
	n, gone := m.counts.of(set), make(map[redoubt.Stamp]bool, len(refusals))
	for _, r := range refusals {
		gone[r.Stamp] = true
		m.b.o.Log.Warn("an entry of a bundle was refused", slog.String("peer", string(m.peer)), slog.String("kind", r.Kind.Error()), slog.String("rule", r.Rule))
		if r.Later && m.whole && passing(r.Kind) {
			return &redoubt.Error{Op: "TakeRaise", Kind: r.Kind, Rule: r.Rule, Err: errors.New("not everything in it is taken now")}
		}
		if r.Later {
			m.broken[set] = true
			n.Waiting++
		} else {
			m.refused(n, r.Rule)
		}
	}
	for i := range in {
		if !gone[in[i].Entry.Stamp] {
			n.Entries++
			n.Bytes += in[i].Entry.SizeBytes
		}
	}
	return nil
}

// pieces reads the content of a begun entry.
type pieces struct {
	f    *frameReader
	seq  uint64
	left int64
	rest []byte
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		if p.left == 0 {
			return 0, io.EOF
		}
		if err := p.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// next reads the next piece.
func (p *pieces) next() error {
	msg, err := p.f.next()
	if err != nil {
		return err
	}
	seq, content, err := decodePiece(msg)
	if err != nil || seq != p.seq || int64(len(content)) > p.left {
		return errors.Join(err, errMessage)
	}
	p.rest = content
	p.left -= int64(len(content))
	return nil
}

// all reads the rest into memory; what lies there already, in one piece, it gives as it is.
func (p *pieces) all() ([]byte, error) {
	if p.f.r == nil && p.left > 0 {
		if err := p.next(); err != nil {
			return nil, err
		}
		if p.left == 0 {
			whole := p.rest
			p.rest = nil
			return whole, nil
		}
	}
	all := make([]byte, p.left+int64(len(p.rest)))
	_, err := io.ReadFull(p, all)
	return all, err
}

// former holds messages against the order and the bounds that they have in a bundle, without opening what they carry.
type former struct {
	receipt bool // nothing but notes and the end follows the manifest
	notes   int
	seq     uint64
	left    int64 // of the content of the entry that is begun
	sets    map[string]bool
	set     string // the one that is told of now
}

func (f *former) check(msg []byte) error {
	if f.left > 0 && msg[0] != msgPiece {
		return errMessage
	}
	switch msg[0] {
	case msgEnd:
		if len(msg) != 1 {
			return errMessage
		}
		return nil
	case msgNote:
		if f.notes++; f.notes > maxNotes || len(f.sets) > 0 {
			return errMessage
		}
		_, _, err := decodeNote(msg)
		return err
	case msgPiece:
		seq, content, err := decodePiece(msg)
		if err != nil || seq != f.seq || int64(len(content)) > f.left {
			return errMessage
		}
		f.left -= int64(len(content))
		return nil
	case msgItems:
		m, err := decodeItems(msg)
		if err != nil {
			return err
		}
		for i := range m.Parcels {
			p := &m.Parcels[i]
			if (p.Packing == packedNone) != (len(p.Content) == 0) && p.Packing != packedPlain || len(m.Signature) > 0 && len(p.Custody) > 0 || !f.next(p.Seq) {
				return errMessage
			}
		}
		return f.about(m.Set)
	case msgBegin:
		m, err := decodeBegin(msg)
		p := &m.Parcel
		if err != nil || len(p.Custody) == 0 || p.Packing == packedNone || m.Bytes == 0 || p.Packing != packedPlain && m.Bytes > maxPackedBytes || !f.next(p.Seq) {
			return errMessage
		}
		f.left = m.Bytes
		return f.about(m.Set)
	case msgMark:
		m, err := decodeMark(msg)
		if err != nil {
			return err
		}
		return f.about(m.Set)
	}
	return errMessage
}

// next says whether a parcel's number is greater than every one before it.
func (f *former) next(seq uint64) bool {
	up := seq > f.seq
	f.seq = seq
	return up
}

// about sees to it that all of a label set stands together, and that the sets are not too many.
func (f *former) about(set string) error {
	if f.receipt || set != f.set && f.sets[set] || len(f.sets) > maxTickets {
		return errMessage
	}
	f.set, f.sets[set] = set, true
	return nil
}
