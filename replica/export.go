package replica

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"

	"redoubt"
)

// exporter writes what one bundle holds.
type exporter struct {
	b      *Bundles
	peer   redoubt.NodeName
	packer *packer
	frames *frameWriter
	counts counts
	plain  bool // the peer lacks bases: nothing is packed against one
	raise  bool // nothing comes back: no ticket is written, and what was put in is kept here
	file   *raiseFile
	void   []uint64
	begun  map[string]redoubt.JournalSpan // of a raise: of what a part was handed over
	again  map[string][]redoubt.Stamp     // of a raise: what to write instead of what is new; nil: nothing
	held   map[string][]redoubt.Stamp     // of a raise: what was written
	unread map[string][]redoubt.Stamp     // of a raise: what was left out
	retry  map[string][]redoubt.Stamp     // of a raise: what was left out of others, and is tried once more
	tried  map[redoubt.Stamp]bool
	one    int64                 // of a raise: the largest content of one version; what is larger is left out. 0: no limit
	stamps int                   // of both
	most   int64                 // of content in the bundle; 0: BundleOptions.MaxBytes
	spans  []redoubt.JournalSpan // of a raise
	seq    uint64                // of the last parcel
	marks  int
	more   bool   // the bundle is full
	care   bool   // what is Corrupt is left out
	left   string // the set of which an entry had no room in it; none: all else went on
	first  string // the set that comes before all others, if it is there
}

// run writes the content: the manifest, each label set's entries in the order in which they were committed here with a ticket
// behind each page, and the end.
func (x *exporter) run(ctx context.Context, receipt bool) (err error) {
	o := &x.b.o
	taken, err := o.Ledger.Taken(ctx, x.peer)
	if err != nil {
		return err
	}
	x.plain = taken.Plain || x.raise
	m := manifest{Took: taken.Last.Serial, Lacking: taken.Lacking, Tickets: taken.Tickets}
	if x.raise {
		m = manifest{}
	}
	if m.Life, err = o.State.Life(ctx); err != nil {
		return err
	}
	if m.RemembersOf, err = o.State.PeerLife(ctx, x.peer); err != nil {
		return err
	}
	if err := x.frames.write(m.encode()); err != nil {
		return err
	}
	if err := x.notes(ctx); err != nil {
		return err
	}
	if receipt {
		return x.frames.end()
	}
	x.packer = &packer{journal: o.Journal, peer: x.peer, codecs: &x.b.codecs}
	if x.raise { // between the halves of a guard the road carries as much as a core has time for
		x.packer.rate = func() float64 { return quickRoad }
	}
	sets, err := o.Journal.Sets(ctx, x.peer)
	if err != nil {
		return err
	}
	slices.Sort(sets)
	if i, is := slices.BinarySearch(sets, x.first); is {
		sets = slices.Concat(sets[i:i+1], sets[:i], sets[i+1:])
	}
	if x.again != nil {
		if err := x.anew(ctx, sets); err != nil {
			return err
		}
		return x.frames.end()
	}
	if len(x.retry) > 0 {
		if err := x.retries(ctx, sets); err != nil {
			return err
		}
	}
	for _, set := range sets {
		if x.full() {
			break
		}
		if err := x.set(ctx, set); err != nil {
			return err
		}
	}
	return x.frames.end()
}

// notes writes what there is to say beside the journal.
func (x *exporter) notes(ctx context.Context) error {
	if len(x.void) > 0 {
		if err := x.frames.write(encodeNote(noteVoid, encodeVoid(x.void))); err != nil {
			return err
		}
	}
	if x.b.o.Notes == nil {
		return nil
	}
	all, err := x.b.o.Notes(ctx, x.peer)
	if err != nil {
		return err
	}
	for _, n := range all {
		if err := x.frames.write(encodeNote(n.Kind, n.Body)); err != nil {
			return err
		}
	}
	return nil
}

// full says whether the rest must go into another bundle.
func (x *exporter) full() bool {
	x.more = x.more || x.frames.bytes >= cmp.Or(x.most, x.b.o.MaxBytes) || x.marks >= maxTickets || x.stamps >= redoubt.MaxRaiseEntries
	return x.more
}

// set writes what the peer has not acknowledged of a set; where nothing is known, all that it is to have.
func (x *exporter) set(ctx context.Context, set string) error {
	o := &x.b.o
	from, known, err := o.State.Acknowledged(ctx, x.peer, set)
	if err != nil {
		return err
	}
	span := redoubt.JournalSpan{Set: set, From: from, To: from, Whole: !known}
	marked := false // one ticket a set is kept by the peer: they count once
	ticket := func() error {
		if !marked {
			x.marks++
		}
		marked = true
		if x.raise {
			x.spans = append(x.spans, span)
			return nil
		}
		t, err := o.Tickets.Ticket(ctx, x.peer, span)
		if err != nil {
			return err
		}
		return x.frames.write(mark{set, t}.encode())
	}
	switch {
	case !known && x.raise:
		some := false
		if span, some, err = x.begin(ctx, set); err == nil && some {
			err = ticket()
		}
		if span.Part = (redoubt.Stamp{}); err != nil || x.more {
			return err
		}
	case !known:
		if span.To, err = x.whole(ctx, set); err != nil || x.more {
			return err
		}
		if err := ticket(); err != nil {
			return err
		}
	}
	for !x.full() {
		refs, upTo, err := o.Journal.Since(ctx, x.peer, set, span.To, pageEntries)
		if err != nil || len(refs) == 0 {
			return err
		}
		if ok, err := x.fits(set, refs[0]); !ok {
			return err
		}
		last := len(refs) < pageEntries
		if n := x.room(refs); n < len(refs) {
			refs, upTo, last = refs[:n], refs[n-1].Position, false
		}
		if err := x.refs(ctx, set, refs); err != nil {
			return err
		}
		span.To = upTo
		if err := ticket(); err != nil || last {
			return err
		}
	}
	return nil
}

// fetchBytes is of how much content is fetched at once: so much the journal keeps of what it has to read to sign for it (enclave.keptContent),
// and what it does not keep is read twice.
const fetchBytes = 1 << 20

// refs writes what they are about.
func (x *exporter) refs(ctx context.Context, set string, refs []redoubt.JournalRef) error {
	for len(refs) > 0 {
		if x.oversized(refs[0]) {
			x.unread[set], refs = append(x.unread[set], refs[0].Stamp), refs[1:]
			x.stamps++
			continue
		}
		var stamps []redoubt.Stamp
		for left := int64(fetchBytes); len(stamps) < len(refs) && !x.oversized(refs[len(stamps)]); {
			r := refs[len(stamps)]
			if left -= r.SizeBytes; left < 0 && len(stamps) > 0 {
				break
			}
			stamps = append(stamps, r.Stamp)
		}
		refs = refs[len(stamps):]
		if err := x.entries(ctx, set, stamps); err != nil {
			return err
		}
	}
	return nil
}

// oversized says whether a version goes into no bundle, so that a raise leaves it out.
func (x *exporter) oversized(r redoubt.JournalRef) bool { return x.one > 0 && r.SizeBytes > x.one }

// whole writes all of a set that the peer is to have, and gives the position that this is of.
func (x *exporter) whole(ctx context.Context, set string) (upTo uint64, err error) {
	var page []redoubt.Stamp
	flush := func() error {
		err := x.entries(ctx, set, page)
		page = page[:0]
		return err
	}
	upTo, err = x.b.o.Journal.Inventory(ctx, x.peer, set, func(stamp redoubt.Stamp) error {
		if x.full() {
			return errFull
		}
		if page = append(page, stamp); len(page) < bundleItems {
			return nil
		}
		return flush()
	})
	if err == errFull {
		if len(x.counts) == 1 { // nothing else is in the bundle: the next one would end at the same place
			return 0, &redoubt.Error{Op: "ExportBundle", Object: string(x.peer), Kind: redoubt.TooLarge, Err: errors.New("what the peer is to have of one label does not go into one bundle"),
				Hint: "let the two nodes meet over a link once, or subscribe the link to less"}
		}
		return 0, nil
	}
	if err == nil {
		err = flush()
	}
	return upTo, err
}

// errFull ends an inventory.
var errFull = &redoubt.Error{Op: "replica.Export", Kind: redoubt.TooLarge}

// entries writes entries of one label set, in their order: small ones together, a large one in pieces.
func (x *exporter) entries(ctx context.Context, set string, stamps []redoubt.Stamp) error {
	if x.care {
		return x.carefully(ctx, set, stamps)
	}
	for part := range slices.Chunk(stamps, bundleItems) {
		fetched, err := x.b.o.Journal.Fetch(ctx, x.peer, set, part)
		if err != nil {
			return err
		}
		if err := x.page(ctx, set, fetched); err != nil {
			return err
		}
		letGo(fetched)
	}
	return nil
}

func (x *exporter) page(ctx context.Context, set string, fetched []redoubt.JournalItem) error {
	m, size := items{Set: set}, 0
	flush := func() error {
		if len(m.Parcels) == 0 {
			return nil
		}
		m.share(x.b.o.Node, fetched)
		err := x.frames.write(m.encode())
		m, size = items{Set: set}, 0
		return err
	}
	for i := range fetched {
		item := &fetched[i]
		if item.Superseded {
			continue
		}
		if x.raise {
			x.held[set] = append(x.held[set], item.Entry.Stamp)
			x.stamps++
		}
		n := x.counts.of(set)
		n.Entries++
		n.Bytes += item.Entry.SizeBytes
		x.seq++
		if item.Entry.SizeBytes > togetherBytes {
			if err := flush(); err != nil {
				return err
			}
			if err := x.large(ctx, set, item); err != nil {
				return err
			}
			continue
		}
		p, err := x.packer.pack(ctx, set, x.seq, item, x.against(item))
		if err != nil {
			return err
		}
		m.Parcels = append(m.Parcels, p)
		if size += len(p.Entry) + len(p.Custody) + len(p.Content); size >= bundleTogether {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// against says whether an entry is packed against its base. A base that this node has is one that the peer acknowledged or made,
// or one that stands before the entry in this bundle; where it has neither, it says so in its next bundle or receipt, and is sent
// the content as it is.
func (x *exporter) against(item *redoubt.JournalItem) bool {
	return item.Entry.Base != (redoubt.Stamp{}) && !x.plain
}

// large writes one entry in pieces: what can be held whole compressed, more as it is.
func (x *exporter) large(ctx context.Context, set string, item *redoubt.JournalItem) error {
	m := begin{Set: set, Parcel: parcel{Seq: x.seq, Packing: packedPlain}, Bytes: item.Entry.SizeBytes}
	var content io.Reader // of what is not held whole
	var held []byte
	if item.Entry.SizeBytes <= maxWholeBytes {
		whole, err := x.packer.pack(ctx, set, x.seq, item, x.against(item))
		if err != nil {
			return err
		}
		m.Bytes, held = int64(len(whole.Content)), whole.Content
		whole.Content = nil
		m.Parcel = whole
	} else {
		if err := m.Parcel.describe(item); err != nil {
			return err
		}
		open, err := item.Open()
		if err != nil {
			return err
		}
		defer open.Close()
		content = open.Reader(0, -1)
	}
	if err := x.frames.write(m.encode()); err != nil {
		return err
	}
	for piece := range slices.Chunk(held, bundlePiece) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := x.frames.piece(x.seq, piece); err != nil {
			return err
		}
	}
	if content == nil {
		return nil
	}
	buf := make([]byte, min(bundlePiece, m.Bytes))
	for left := m.Bytes; left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(content, buf[:min(int64(len(buf)), left)])
		if err != nil {
			return err
		}
		if err := x.frames.piece(x.seq, buf[:n]); err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}
