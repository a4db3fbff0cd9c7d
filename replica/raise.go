package replica

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"time"

	"redoubt"
	"redoubt/bundle"
	"redoubt/keys"
)

// A raise is bundles that go one way. Nothing comes back from above, so what the guard has is taken for handed over, and a
// bundle that is lost behind that is a gap in the numbers, which the far side shows and a person on this side feeds again.

// maxRaiseBytes is of content in one bundle of a raise, before the entry that passes it: enough that its seal and its signature cost little,
// and little enough that the first of many is soon above.
const maxRaiseBytes = 16 << 20

// noteVoid tells which numbers were never handed over: what was in them is in this bundle. Its body is numbers of 8 bytes.
const noteVoid = "void"

const maxVoid = MaxNoteBytes / 8

func encodeVoid(serials []uint64) []byte {
	var b []byte
	for _, n := range serials[max(0, len(serials)-maxVoid):] {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

func decodeVoid(b []byte) (serials []uint64, err error) {
	if len(b)%8 != 0 {
		return nil, errMessage
	}
	for ; len(b) > 0; b = b[8:] {
		serials = append(serials, binary.BigEndian.Uint64(b))
	}
	return serials, nil
}

// HandRaise writes the next bundle for a guard to carry up; see redoubt.RaiseSource. It goes permit → what the guard has → wait → write → keep.
func (b *Bundles) HandRaise(ctx context.Context, who redoubt.Credential, peer redoubt.NodeName, have redoubt.BundleMark, w io.Writer) (redoubt.BundleMark, error) {
	return b.hand(ctx, who, redoubt.ActionHandRaise, peer, have, 0, w)
}

// HandAgain writes what an earlier bundle held; see redoubt.RaiseSource.
func (b *Bundles) HandAgain(ctx context.Context, who redoubt.Credential, peer redoubt.NodeName, have redoubt.BundleMark, serial uint64, w io.Writer) (redoubt.BundleMark, error) {
	if serial == 0 {
		return redoubt.BundleMark{}, &redoubt.Error{Op: "HandAgain", Object: string(peer), Kind: redoubt.Invalid, Err: errors.New("numbers begin at 1")}
	}
	return b.hand(ctx, who, redoubt.ActionHandRaise, peer, have, serial, w)
}

// hand writes the next bundle; again: with what that number held, and 0 with what was not handed over.
func (b *Bundles) hand(ctx context.Context, who redoubt.Credential, action redoubt.Action, peer redoubt.NodeName, have redoubt.BundleMark, again uint64, w io.Writer) (mark redoubt.BundleMark, err error) {
	link, err := b.o.Ledger.Permit(ctx, who, action, peer)
	if err != nil {
		return mark, err
	}
	defer func() {
		if err != nil && redoubt.KindOf(err) != redoubt.NotModified {
			err = b.o.Ledger.Refuse(ctx, who, action, peer, err)
		}
	}()
	if link.Raise != redoubt.RaisedAway || b.o.Raises == nil || link.Partner != (action == redoubt.ActionHandPartner) {
		return mark, &redoubt.Error{Op: "HandRaise", Object: string(peer), Kind: redoubt.Denied, Err: errors.New("nothing is raised to that node")}
	}
	to, err := keys.ParseRecipient(link.Recipient)
	if err != nil {
		return mark, &redoubt.Error{Op: "HandRaise", Object: string(peer), Kind: redoubt.Invalid, Err: err}
	}
	release, err := acquire(ctx, b.exporting)
	if err != nil {
		return mark, err
	}
	void, err := b.o.Raises.Handed(ctx, peer, have)
	release()
	if err != nil {
		return mark, err
	}
	var held redoubt.RaisedBundle
	empty := false
	if again == 0 {
		if err = b.fellBack(ctx, action, peer, have); err == nil {
			empty, err = b.waitToRaise(ctx, peer, action == redoubt.ActionHandRaise)
		}
	} else if held, err = b.o.Raises.HandedOver(ctx, peer, again); err == nil {
		void = append(append(slices.Clip(void), held.Void...), again)
		slices.Sort(void)
		void = slices.Compact(void)
		void = void[max(0, len(void)-maxVoid):]
	}
	if err != nil {
		return mark, err
	}
	if release, err = acquire(ctx, b.exporting); err != nil {
		return mark, err
	}
	defer release()
	head, mark, err := b.head(ctx, redoubt.ExportBundle{Peer: peer, Life: bundle.MaxLife})
	if err != nil {
		return mark, err
	}
	file := &raiseFile{open: func(tagged bool) (*bundle.Writer, error) {
		head.Tagged = tagged
		return bundle.NewWriter(w, head, []keys.Recipient{to}, b.o.Sign)
	}}
	defer file.abandon()
	ended := func(err error) {
		b.replan(peer, func(r *raisePlan) {
			r.plain = file.outgrew(err)
			r.care.after(again, err)
		})
	}
	begun, err := b.o.Raises.Begun(ctx, peer)
	if err != nil {
		return mark, err
	}
	retry, err := b.leftOut(ctx, peer, again)
	if err != nil {
		return mark, err
	}
	plan := b.planned(peer)
	x := &exporter{b: b, peer: peer, frames: &frameWriter{w: file}, counts: newCounts(), raise: true, file: file, void: void, begun: begun, first: plan.first, again: held.Held, held: map[string][]redoubt.Stamp{},
		care: len(retry) > 0 || b.withCare(peer, again), unread: map[string][]redoubt.Stamp{}, retry: retry, tried: map[redoubt.Stamp]bool{}, most: maxRaiseBytes, one: b.one}
	if again != 0 || plan.plain { // what is given again is what it was, or less, whatever form that had
		err = file.begin(false)
	}
	if err == nil {
		err = x.run(ctx, false)
	}
	if err == nil {
		err = file.begin(true)
	}
	if err != nil {
		ended(err)
		return mark, err
	}
	err = file.file.Finish(func(id [32]byte) error {
		mark.ID = id
		return b.o.Raises.HandOver(ctx, who, peer, mark, redoubt.RaisedBundle{Spans: x.spans, Held: x.held, Unread: x.unread, Void: void})
	})
	ended(err)
	if err == nil { // what was given again may be lost as well: an empty one follows it
		if again != 0 {
			x.more, x.left = true, x.first
		}
		b.handedOver(peer, again == 0 && empty && len(x.counts) == 0, x.more, x.left)
	}
	return mark, err
}

// fellBack has an empty bundle due for a guard that does not have the last one that was made, as if that had just been: by its number the guard sees what
// it had and lost. Nothing newer may come for long. Not at once: of two guards each would make the other fall back, without end.
func (b *Bundles) fellBack(ctx context.Context, action redoubt.Action, peer redoubt.NodeName, have redoubt.BundleMark) error {
	if action != redoubt.ActionHandRaise {
		return nil
	}
	last, err := b.o.Ledger.Made(ctx, peer)
	if err != nil || last.Serial == 0 || last.Serial == have.Serial && last.Numbering == have.Numbering && last.ID == have.ID {
		return err
	}
	b.replan(peer, func(r *raisePlan) {
		if r.beat.IsZero() {
			r.beat = b.nextBeat()
		}
	})
	return nil
}

// raisePlan is how the next bundle of a raise is to be.
type raisePlan struct {
	beat   time.Time // when an empty one follows, where there is nothing new; zero: one did
	gather time.Time // before that it does not follow
	plain  bool      // it is not tagged, for the last came to nothing because it was
	retry  time.Time // what was left out is not tried again before
	care   care      // those that came to nothing for what does not read
	first  string    // the label set that it begins with: else one in which something always is new would keep the large entry of another from ever having room
}

// replan alters how the next bundle is to be. What was handed over before this process began counts as handed over now.
func (b *Bundles) replan(peer redoubt.NodeName, do func(r *raisePlan)) {
	b.raisesMu.Lock()
	defer b.raisesMu.Unlock()
	r := b.raises[peer]
	if r == nil {
		r = &raisePlan{beat: b.nextBeat()}
		b.raises[peer] = r
	}
	do(r)
}

func (b *Bundles) planned(peer redoubt.NodeName) (now raisePlan) {
	b.replan(peer, func(r *raisePlan) { now = *r })
	return now
}

func (b *Bundles) nextBeat() time.Time { return time.Now().Add(cmp.Or(b.o.Beat, raiseBeat)) }

// raiseBeat is how long after the last bundle an empty one follows, once: by its number the far side sees the loss of what came before, which
// nothing newer would show it otherwise.
const raiseBeat = time.Minute

// raiseGather is how long after a bundle the next one follows at the soonest, unless more was waiting than went into it: what comes meanwhile goes in
// one bundle, since each takes a seal, a signature and a dozen syncs, however little is in it. What comes after a while of nothing goes at once.
const raiseGather = 100 * time.Millisecond

// waitToRaise waits until there is something that was not handed over, or (empty) it is time for a bundle of nothing.
func (b *Bundles) waitToRaise(ctx context.Context, peer redoubt.NodeName, beats bool) (empty bool, err error) {
	var beat <-chan time.Time // never
	if beats {
		if at := b.planned(peer).beat; !at.IsZero() {
			timer := time.NewTimer(time.Until(at))
			defer timer.Stop()
			beat = timer.C
		}
	}
	for {
		changed := b.o.Journal.Changed()
		is, err := b.hasToRaise(ctx, peer)
		if err == nil && is {
			return false, b.gatherRaise(ctx, peer)
		}
		if err != nil {
			return false, err
		}
		select {
		case <-changed:
		case <-beat:
			return true, nil
		case <-ctx.Done():
			return false, redoubt.NotModified
		}
	}
}

// gatherRaise waits until raiseGather is over.
func (b *Bundles) gatherRaise(ctx context.Context, peer redoubt.NodeName) error {
	d := time.Until(b.planned(peer).gather)
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return redoubt.NotModified
	}
}

func (b *Bundles) handedOver(peer redoubt.NodeName, empty, more bool, left string) {
	b.replan(peer, func(r *raisePlan) {
		r.first, r.gather, r.beat = left, time.Time{}, b.nextBeat()
		if !more {
			r.gather = time.Now().Add(raiseGather)
		}
		if empty {
			r.beat = time.Time{}
		}
	})
}

// hasToRaise looks whether there is something, and notes how far there is nothing: else the same would be looked through again, and the
// journal kept for it.
func (b *Bundles) hasToRaise(ctx context.Context, peer redoubt.NodeName) (bool, error) {
	sets, err := b.o.Journal.Sets(ctx, peer)
	if err != nil {
		return false, err
	}
	begun, err := b.o.Raises.Begun(ctx, peer)
	if err != nil {
		return false, err
	}
	for _, set := range sets {
		from, known, err := b.o.State.Acknowledged(ctx, peer, set)
		if err != nil {
			return false, err
		}
		at := from
		if !known {
			part, some := begun[set], false
			at, err = b.o.Journal.Inventory(ctx, peer, set, func(s redoubt.Stamp) error {
				if some = beyond(s, part); some {
					return errFull
				}
				return nil
			})
			if some || err != nil {
				return some, nilIf(err, errFull)
			}
			if part.Part != (redoubt.Stamp{}) {
				at = part.To
			}
		}
		refs, upTo, err := b.o.Journal.Since(ctx, peer, set, at, 1)
		if err != nil || len(refs) > 0 {
			return len(refs) > 0, err
		}
		if !known || upTo > from {
			span := redoubt.JournalSpan{Set: set, From: from, To: upTo, Whole: !known, Behind: begun[set].Part}
			if err := b.o.Raises.Passed(ctx, peer, span); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// beyond says whether a stamp is of what was not handed over yet of a whole.
func beyond(s redoubt.Stamp, begun redoubt.JournalSpan) bool {
	return bytes.Compare(s[:], begun.Part[:]) > 0
}

// begin writes what was not handed over yet of a whole, as far as it goes into the bundle. What is behind its last stamp is for the next.
func (x *exporter) begin(ctx context.Context, set string) (span redoubt.JournalSpan, some bool, err error) {
	begun := x.begun[set]
	span = redoubt.JournalSpan{Set: set, Whole: true, Behind: begun.Part}
	var page []redoubt.Stamp
	flush := func() error {
		refs, err := x.b.o.Journal.Refs(ctx, x.peer, set, page)
		for len(refs) > 0 && err == nil {
			if x.full() {
				return errFull
			}
			ok, bad := x.fits(set, refs[0])
			if bad != nil {
				return bad
			}
			if !ok {
				return errFull
			}
			n := x.room(refs)
			if err = x.refs(ctx, set, refs[:n]); err == nil {
				span.Part, some, refs = refs[n-1].Stamp, true, refs[n:]
			}
		}
		page = page[:0]
		return err
	}
	span.To, err = x.b.o.Journal.Inventory(ctx, x.peer, set, func(s redoubt.Stamp) error {
		if !beyond(s, begun) {
			return nil
		}
		if page = append(page, s); len(page) < bundleItems {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if begun.Part != (redoubt.Stamp{}) {
		span.To = begun.To
	}
	switch {
	case err == nil:
		span.Part, some = redoubt.Stamp{}, true
	case err == errFull:
		x.more, err = true, nil
	}
	return span, some, err
}

// anew writes what an earlier bundle held, as far as the peer is still to have it.
func (x *exporter) anew(ctx context.Context, sets []string) error {
	for _, set := range sets {
		for page := range slices.Chunk(x.again[set], bundleItems) {
			refs, err := x.b.o.Journal.Refs(ctx, x.peer, set, page)
			if err == nil {
				err = x.refs(ctx, set, refs)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func nilIf(err, of error) error {
	if err == of {
		return nil
	}
	return err
}

// TakeRaise takes what a guard brought; see redoubt.RaiseTarget.
func (b *Bundles) TakeRaise(ctx context.Context, who redoubt.Credential, r io.Reader) (redoubt.BundleImport, error) {
	return b.importAs(ctx, who, redoubt.ActionTakeRaise, r, nil)
}

// passing says whether what refused an entry may pass by itself, so that a raise had better wait for it.
func passing(k redoubt.Kind) bool {
	return slices.Contains([]redoubt.Kind{redoubt.QuotaExceeded, redoubt.DiskFull, redoubt.Unavailable}, k)
}

// gaps are the numbers that are lacking once a bundle was taken: those that it passed over, less itself and what it says was never sent.
func (m *importer) gaps(was []redoubt.NumberSpan, last, now redoubt.BundleMark, late bool) []redoubt.NumberSpan {
	gaps := was
	switch {
	case late:
		gaps = redoubt.CutSpan(gaps, now.Serial)
	case now.Numbering != last.Numbering: // another life of the lower state: it hands over everything that this one may lack
		if gaps = nil; now.Serial > 1 {
			gaps = []redoubt.NumberSpan{{From: 1, To: now.Serial - 1}}
		}
	case now.Serial > last.Serial+1:
		gaps = append(slices.Clone(gaps), redoubt.NumberSpan{From: last.Serial + 1, To: now.Serial - 1})
	}
	for _, n := range m.void {
		if n < now.Serial { // of this numbering, and before it: nothing else was void when it was written
			gaps = redoubt.CutSpan(gaps, n)
		}
	}
	for len(gaps) > redoubt.MaxRaiseGaps {
		gaps[1].From = gaps[0].From
		gaps = gaps[1:]
	}
	return gaps
}
