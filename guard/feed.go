package guard

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"redoubt"
)

// FeederOptions is what the low half of a raise is made of. All but Memory, Keep and Log is needed.
type FeederOptions struct {
	High   redoubt.NodeName // whose bundles these are
	Guard  redoubt.Credential
	Source redoubt.RaiseSource
	Dir    string // of its notes, and of bundles that are too large for memory; its own
	// Send sends a bundle one way. It knows nothing of what arrives. again: it was sent before, and has time.
	Send   func(ctx context.Context, b *Outgoing, again bool) error
	Memory int64 // bytes of bundles that are held in memory; 0: DefaultMemory
	Keep   int64 // bytes of those in files; 0: DefaultKeep
	Log    *slog.Logger
}

// Limits of a feeder.
const (
	DefaultMemory = 128 << 20
	DefaultKeep   = 4 << 30
	maxHeldFiles  = 64 // bundles in files
	pollEvery     = time.Second
	againMax      = 30 * time.Second // between two tries of a source that is away
	repeatEvery   = 2 * time.Second  // whatever comes, what is due has a turn then,
	repeatShare   = 8                // of one part in so many of the time
)

// repeats is when a bundle that was sent is sent again, if nothing newer comes: a high half that was away for a few minutes is fed without
// anybody having to ask. While much comes nothing is repeated: it would take the road, and the time of both halves, from what is new.
var repeats = []time.Duration{300 * time.Millisecond, 2 * time.Second, 20 * time.Second, 3 * time.Minute}

// Feeder is the low half of a raise: it takes bundles from the low node, and sends each of them one way. It keeps nothing on a disk: the low node has
// all of it, and gives it again by its number. What was not sent whole, or not repeated as often as it is to be, when a feeder ends, the next one asks
// for. Run is called once.
type Feeder struct {
	o    FeederOptions
	busy time.Time // when something new was sent last; of the one that sends, as the next is
	turn time.Time // when something is repeated whatever comes

	fresh chan struct{} // there is something to send
	asks  chan struct{} // there is something to ask for, or room

	mu      sync.Mutex // guards what follows
	note    note
	lacking []uint64    // numbers that are to be asked for again, in their order
	had     bool        // one of the numbering came since this half began: what is passed over from then on was never its own
	putsOff bool        // the last of them that was asked for did not come: what is new has its turn
	waiting []*Outgoing // not sent yet
	sent    []*Outgoing // to be repeated
	spare   [][]byte    // memory of some that are over
}

// NewFeeder reads what the one before it noted.
func NewFeeder(o FeederOptions) (*Feeder, error) {
	o.Memory, o.Keep = cmp.Or(o.Memory, DefaultMemory), cmp.Or(o.Keep, DefaultKeep)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, diskFault(o.Dir, err)
	}
	f := &Feeder{o: o, fresh: make(chan struct{}, 1), asks: make(chan struct{}, 1)}
	if err := hinted(o.Dir, noteName, &f.note, o.Log); err != nil {
		return nil, err
	}
	f.lacking = f.note.lacking()
	return f, nil
}

// Run feeds until ctx ends. A source that is away is tried again; an error is the folder's own.
func (f *Feeder) Run(ctx context.Context) error {
	failed := make(chan error, 2)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() { failed <- f.fetch(ctx) }()
	go func() { failed <- f.send(ctx) }()
	err := <-failed
	stop()
	return errors.Join(err, <-failed)
}

// fetch takes bundles: what is lacking before what is new.
func (f *Feeder) fetch(ctx context.Context) error {
	pause := time.Duration(0)
	for ctx.Err() == nil {
		if !f.room() {
			await(ctx, f.asks, againMax)
			continue
		}
		b, err := f.take(ctx)
		switch {
		case errors.Is(err, redoubt.NotModified):
			continue
		case b.of != 0 && errors.Is(err, redoubt.NotFound):
			if err := f.giveUp(b.of); err != nil {
				return err
			}
			continue
		case err != nil && ctx.Err() == nil:
			f.putOff(b.of)
			pause = min(max(2*pause, 250*time.Millisecond), againMax)
			f.o.Log.Warn("nothing was handed over", slog.String("kind", redoubt.KindOf(err).Error()))
			wait(ctx, pause)
			continue
		case err != nil:
			return nil
		}
		pause = 0
		if err := f.hold(b); err != nil {
			return err
		}
	}
	return nil
}

// room says whether more may wait to be sent: half of what is held.
func (f *Feeder) room() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	memory, file := holds(f.waiting)
	return memory <= f.o.Memory/2 && file <= f.o.Keep/2 && len(f.waiting) < maxHeldFiles
}

// holds is what bundles take.
func holds(all []*Outgoing) (memory, file int64) {
	for _, b := range all {
		m, d := b.holds()
		memory, file = memory+m, file+d
	}
	return memory, file
}

// take takes the next one. That it waits for something new ends where something is lacking.
func (f *Feeder) take(ctx context.Context) (*Outgoing, error) {
	f.mu.Lock()
	b := &Outgoing{contents: &contents{dir: f.o.Dir}}
	if last := len(f.spare) - 1; last >= 0 {
		b.buf, f.spare = f.spare[last][:0], f.spare[:last]
	}
	have := f.note.Have
	if len(f.lacking) > 0 && !f.putsOff {
		b.of = f.lacking[0]
	}
	f.putsOff = false
	f.mu.Unlock()
	var err error
	if b.of != 0 {
		b.Mark, err = f.o.Source.HandAgain(ctx, f.o.Guard, f.o.High, have, b.of, b.contents)
	} else {
		within, stop := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for within.Err() == nil {
				if await(within, f.asks, againMax); f.lacks() && !b.came.Load() {
					stop()
				}
			}
		}()
		b.Mark, err = f.o.Source.HandRaise(within, f.o.Guard, f.o.High, have, b.contents)
		cut := within.Err() != nil && ctx.Err() == nil
		stop()
		<-ended
		if err != nil && cut {
			err = redoubt.NotModified
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.reuse(b.close())
		return b, err
	}
	if len(b.buf) < cap(b.buf)/2 { // a small bundle does not hold the memory of a large one
		f.reuse(b.buf)
		b.buf = slices.Clone(b.buf)
	}
	return b, nil
}

// putOff has a number that did not come asked for behind the others, and something new before them: what does not read any more below holds up nothing.
func (f *Feeder) putOff(serial uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if serial != 0 && len(f.lacking) > 0 && f.lacking[0] == serial {
		f.lacking, f.putsOff = append(f.lacking[1:], serial), true
	}
}

// maxSpare is how many buffers wait to be used again: one that comes, and one that is let go meanwhile.
const maxSpare = 2

func (f *Feeder) reuse(buf []byte) {
	if cap(buf) > maxRaised && len(f.spare) < maxSpare {
		f.spare = append(f.spare, buf)
	}
}

func (f *Feeder) lacks() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.lacking) > 0
}

// hold has a bundle wait to be sent.
func (f *Feeder) hold(b *Outgoing) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.note.Have.Numbering != b.Mark.Numbering { // another life of the lower state, or the first bundle that this half has
		f.note, f.lacking, f.had = note{}, nil, false
	}
	n, last := &f.note, f.note.Have.Serial
	n.Have = b.Mark
	for serial := max(last+1, n.oldest()); serial < b.Mark.Serial; serial++ { // void; or had, and a power cut, or the loss of a disk, took back what was noted
		if f.had { // void; or another half's, which would ask for this one's in turn, and so on for ever
			n.over(redoubt.NumberSpan{From: serial, To: serial})
		} else {
			f.lacking = append(f.lacking, serial)
		}
	}
	f.had = true
	f.lacking = slices.DeleteFunc(f.lacking, func(serial uint64) bool { return serial == b.of })
	f.waiting = append(f.waiting, b)
	wake(f.fresh)
	return f.keep()
}

// giveUp is about a number that is void, or too long ago.
func (f *Feeder) giveUp(serial uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.o.Log.Warn("what was in a number is not known any more, or it is void", slog.Uint64("serial", serial))
	f.lacking = slices.DeleteFunc(f.lacking, func(n uint64) bool { return n == serial })
	f.note.over(redoubt.NumberSpan{From: serial, To: serial})
	return f.keep()
}

// keep writes the note, with mu held. It outlives the process.
func (f *Feeder) keep() error { return hint(f.o.Dir, noteName, f.note) }

// send sends what is new, in its order, then what is due once more.
func (f *Feeder) send(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := f.sendNew(ctx); err != nil {
			return err
		}
		if err := f.refeed(); err != nil {
			return err
		}
		if err := f.repeat(ctx); err != nil {
			return err
		}
		await(ctx, f.fresh, f.nextLook())
	}
	return nil
}

// nextLook is how long there is nothing to do, as far as is known: until the first repeat is due.
func (f *Feeder) nextLook() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := pollEvery
	free := min(time.Until(f.busy.Add(repeats[0])), time.Until(f.turn))
	for _, b := range f.sent {
		d = min(d, max(time.Until(b.at), free, 10*time.Millisecond))
	}
	return d
}

func (f *Feeder) sendNew(ctx context.Context) error {
	for ctx.Err() == nil {
		f.mu.Lock()
		var b *Outgoing
		if len(f.waiting) > 0 {
			b = f.waiting[0]
		}
		f.mu.Unlock()
		if b == nil {
			return nil
		}
		if err := f.o.Send(ctx, b, false); err != nil {
			if ctx.Err() == nil {
				f.o.Log.Error("a bundle could not be sent", slog.String("kind", redoubt.KindOf(err).Error()))
			}
			return nil // it is tried again
		}
		f.busy = time.Now()
		if err := f.wasSent(b); err != nil {
			return err
		}
	}
	return nil
}

// wasSent has a bundle repeated, and lets go of the oldest for which there is no more room. What it had of another number is with it from now on.
func (f *Feeder) wasSent(b *Outgoing) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = f.waiting[1:]
	b.at = f.busy.Add(repeats[0])
	f.sent = append(f.sent, b)
	if b.Mark.Numbering == f.note.Have.Numbering {
		f.note.Sent = max(f.note.Sent, b.Mark.Serial)
		if b.of != 0 {
			f.note.over(redoubt.NumberSpan{From: b.of, To: b.of})
		}
	}
	for {
		m1, d1 := holds(f.waiting)
		m2, d2 := holds(f.sent)
		if len(f.sent) == 0 || m1+m2 <= f.o.Memory && d1+d2 <= f.o.Keep && len(f.sent) < maxHeldFiles*64 {
			break
		}
		f.end(f.sent[0])
	}
	wake(f.asks)
	return f.keep()
}

// end lets go of a bundle that was sent, with mu held.
func (f *Feeder) end(b *Outgoing) {
	f.sent = slices.DeleteFunc(f.sent, func(x *Outgoing) bool { return x == b })
	if b.Mark.Numbering == f.note.Have.Numbering {
		f.note.over(redoubt.NumberSpan{From: b.Mark.Serial, To: b.Mark.Serial})
	}
	if f.reuse(b.close()); len(f.sent)+len(f.waiting) == 0 {
		f.spare = nil // nothing goes on
	}
}

// repeat sends again what is due, as long as nothing newer comes: what is half sent then is begun anew when that is over. In its turn it is sent
// whatever comes: a writer that never rests does not keep what was lost from ever coming.
func (f *Feeder) repeat(ctx context.Context) error {
	began := time.Now()
	turn := !began.Before(f.turn)
	for ctx.Err() == nil {
		now := time.Now()
		b := f.due(now)
		if b == nil {
			f.turn = now.Add(repeatEvery)
			return nil
		}
		within, end := ctx, func() {}
		idle := len(f.fresh) == 0 && now.Sub(f.busy) >= repeats[0]
		switch took := now.Sub(began); {
		case idle:
			within, end = f.whileIdle(ctx)
		case !turn:
			return nil
		case took >= repeatEvery/repeatShare:
			f.turn = now.Add(max(repeatEvery, repeatShare*took))
			return nil
		}
		_ = f.o.Send(within, b, idle) // a road that fails: it was sent once, and the next repeat follows
		cut := within.Err() != nil
		end()
		if cut {
			return nil
		}
		if err := f.repeated(b, now); err != nil {
			return err
		}
	}
	return nil
}

// repeated plans the next repeat of a bundle, or lets go of it.
func (f *Feeder) repeated(b *Outgoing, now time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b.step++; b.step < len(repeats) {
		b.at = now.Add(repeats[b.step])
		return nil
	}
	f.end(b)
	return f.keep()
}

// due is the bundle whose repeat is due longest; nil: none is.
func (f *Feeder) due(now time.Time) (first *Outgoing) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.sent {
		if !now.Before(b.at) && (first == nil || b.at.Before(first.at)) {
			first = b
		}
	}
	return first
}

// whileIdle is ctx until there is something new.
func (f *Feeder) whileIdle(ctx context.Context) (context.Context, func()) {
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-f.fresh:
			wake(f.fresh)
			stop()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { stop(); <-ended }
}

// Refeed is what a person at the low side asks to be sent once more.
type Refeed struct {
	Serials []redoubt.NumberSpan `json:"serials"` // of the newest numbering
}

// AskRefeed asks the feeder whose folder is dir to send numbers again: in a gap there may be numbers that never were, and what is still lacking then is a
// gap still. NotFound: it never had any of them, or so long ago that nobody knows what was in them; then raising anew is what is left.
func AskRefeed(dir string, serials []redoubt.NumberSpan) error {
	var n note
	if err := record(dir, noteName, &n); err != nil {
		return err
	}
	if n.Have.Serial == 0 || !slices.ContainsFunc(serials, func(s redoubt.NumberSpan) bool { return s.From <= n.Have.Serial && s.To >= n.oldest() }) {
		return &redoubt.Error{Op: "guard.AskRefeed", Object: dir, Kind: redoubt.NotFound, Err: errors.New("none of these numbers is known any more"),
			Hint: "have everything raised anew: redoubt guard refeed GUARD --anew --as ADMIN@LOW"}
	}
	return keepRecord(dir, refeedName, Refeed{Serials: serials})
}

// refeed takes what a person asked for: what is held is due now, the rest is asked for.
func (f *Feeder) refeed() error {
	path := filepath.Join(f.o.Dir, refeedName)
	if _, err := os.Stat(path); err != nil {
		return nil
	}
	var asked Refeed
	if err := hinted(f.o.Dir, refeedName, &asked, f.o.Log); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for serial := f.note.oldest(); serial <= f.note.Have.Serial; serial++ {
		if !redoubt.InSpans(asked.Serials, serial) || slices.Contains(f.lacking, serial) || slices.ContainsFunc(f.waiting, func(b *Outgoing) bool { return b.Mark.Serial == serial || b.of == serial }) {
			continue
		}
		if i := slices.IndexFunc(f.sent, func(b *Outgoing) bool { return b.Mark.Serial == serial }); i >= 0 {
			f.sent[i].at, f.sent[i].step = time.Now(), 0
			continue
		}
		f.note.undo(serial)
		f.lacking = append(f.lacking, serial)
	}
	wake(f.asks)
	if err := f.keep(); err != nil {
		return err
	}
	return diskFault(f.o.Dir, removed(os.Remove(path)))
}

// wake has who waits look again.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// await waits to be woken, or for d, or until ctx ends.
func await(ctx context.Context, c chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c:
	case <-t.C:
	case <-ctx.Done():
	}
}

// wait waits, or until ctx ends.
func wait(ctx context.Context, d time.Duration) { await(ctx, nil, d) }
