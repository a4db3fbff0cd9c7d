package guard

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"redoubt"
)

// FeederOptions is what the low half of a raise is made of. All but Memory, Keep, Room and Log is needed.
type FeederOptions struct {
	High   redoubt.NodeName // whose bundles these are
	Guard  redoubt.Credential
	Source redoubt.RaiseSource
	Dir    string // of its notes, and of bundles that are too large for memory; its own
	// Send sends a bundle one way. It knows nothing of what arrives. again: it was sent before, and has time. It calls between again and again meanwhile, by
	// whom other bundles are sent then; nil: there are none.
	Send   func(ctx context.Context, b *Outgoing, again bool, between func(context.Context) error) error
	Memory int64              // bytes of bundles that are held in memory; 0: DefaultMemory
	Keep   int64              // bytes of those in files; 0: DefaultKeep
	Room   func(n int) []byte // memory for one; nil: make
	Log    *slog.Logger
}

// Limits of a feeder.
const (
	DefaultMemory = 128 << 20
	DefaultKeep   = 4 << 30
	maxHeldFiles  = 64 // bundles in files
	pollEvery     = time.Second
	againMin      = 250 * time.Millisecond
	againMax      = 30 * time.Second // between two tries of a source that is away, or of a number that does not come
	newAfter      = 8                // that are lacking are asked for before something new has a turn,
	newWithin     = time.Second      // if it comes within this
)

// Feeder is the low half of a raise: it takes bundles from the low node, and sends each of them one way. It keeps nothing on a disk: the low node has
// all of it, and gives it again by its number: what was not sent whole, or not repeated as often as it is to be, when a feeder ends, and what this one let
// go before it was repeated once. Run is called once.
type Feeder struct {
	o    FeederOptions
	busy time.Time   // when something new was sent last; of the one that sends, as the next is
	turn time.Time   // when something is repeated whatever comes,
	ask  time.Time   // and when something that was missed is asked for
	held []*Outgoing // they are being repeated, each between the datagrams of the one before it, and are not let go of meanwhile

	fresh chan struct{} // there is something to send
	asks  chan struct{} // there is something to ask for, or room

	mu      sync.Mutex // guards what follows
	note    note
	lacking []uint64    // numbers that are to be asked for again now, in their order, in turns with what is new
	missed  []uint64    // those that were sent once, as far as is known, and not repeated: one is asked for when nothing else is to be done
	resting []rested    // what did not come, and is asked for again later
	had     bool        // one of the numbering came since this half began: what is passed over from then on was never its own
	ofOld   int         // how many of them were asked for since something new had its turn
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
	if o.Room == nil {
		o.Room = func(n int) []byte { return make([]byte, n) }
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, diskFault(o.Dir, err)
	}
	f := &Feeder{o: o, fresh: make(chan struct{}, 1), asks: make(chan struct{}, 1)}
	if err := hinted(o.Dir, noteName, &f.note, o.Log); err != nil {
		return nil, err
	}
	for _, serial := range f.note.lacking() {
		if serial > f.note.Sent {
			f.lacking = append(f.lacking, serial)
		} else {
			f.missed = append(f.missed, serial)
		}
	}
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

// fetch takes bundles: what is lacking and what is new in turns.
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
			f.o.Log.Warn("nothing was handed over", slog.Uint64("again", b.of), slog.String("kind", redoubt.KindOf(err).Error()))
			if b.of != 0 {
				f.putOff(b.of)
				continue
			}
			pause = min(max(2*pause, againMin), againMax)
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

// take takes the next one. That it waits for something new ends, or does not begin, where something is lacking.
func (f *Feeder) take(ctx context.Context) (*Outgoing, error) {
	f.mu.Lock()
	b := &Outgoing{contents: &contents{dir: f.o.Dir, room: f.o.Room}}
	if last := len(f.spare) - 1; last >= 0 {
		b.buf, f.spare = f.spare[last][:0], f.spare[:last]
	}
	have, lacks := f.note.Have, len(f.lacking) > 0
	if f.ofOld++; lacks && f.ofOld <= newAfter {
		b.of = f.lacking[0]
	} else {
		f.ofOld = 0
	}
	f.mu.Unlock()
	var err error
	if b.of != 0 {
		b.Mark, err = f.o.Source.HandAgain(ctx, f.o.Guard, f.o.High, have, b.of, b.contents)
	} else {
		within, stop := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for turn := lacks; within.Err() == nil; turn = false {
				if turn {
					wait(within, newWithin)
				} else {
					await(within, f.asks, againMax)
				}
				if f.lacks() && !b.came.Load() {
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
		f.note, f.lacking, f.missed, f.resting, f.had = note{}, nil, nil, nil, false
	}
	n, last := &f.note, f.note.Have.Serial
	n.Have = b.Mark
	for serial := max(last+1, n.oldest()); serial < b.Mark.Serial; serial++ { // void; or had, and a power cut, or the loss of a disk, took back what was noted
		switch {
		case f.had: // void; or another half's, which would ask for this one's in turn, and so on for ever
			n.over(redoubt.NumberSpan{From: serial, To: serial})
		case last == 0: // it knows nothing of those before it
			f.missed = append(f.missed, serial)
		default:
			f.lacking = append(f.lacking, serial)
		}
	}
	f.had = true
	f.settled(b.of)
	f.waiting = append(f.waiting, b)
	wake(f.fresh)
	return f.keep()
}

// giveUp is about a number that is void, or too long ago.
func (f *Feeder) giveUp(serial uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.o.Log.Info("what was in a number is not known any more, or it is void", slog.Uint64("serial", serial))
	f.settled(serial)
	f.note.over(redoubt.NumberSpan{From: serial, To: serial})
	return f.keep()
}

// settled is about a number that is not to be asked for any more, with mu held.
func (f *Feeder) settled(serial uint64) {
	f.lacking = slices.DeleteFunc(f.lacking, func(n uint64) bool { return n == serial })
	f.resting = slices.DeleteFunc(f.resting, func(r rested) bool { return r.serial == serial })
}

// keep writes the note, with mu held. It outlives the process.
func (f *Feeder) keep() error {
	f.note.trim()
	return hint(f.o.Dir, noteName, f.note)
}

// send sends what is new, in its order, then what is due once more.
func (f *Feeder) send(ctx context.Context) error {
	for ctx.Err() == nil {
		went, err := f.news(ctx)
		if err == nil {
			err = f.repeat(ctx)
		}
		if err != nil {
			return err
		}
		f.recall(time.Now())
		if !went {
			await(ctx, f.fresh, f.nextLook())
		}
	}
	return nil
}

// news sends the next that waits, if one does, and takes what people asked for.
func (f *Feeder) news(ctx context.Context) (went bool, err error) {
	if went, err = f.sendNew(ctx); err != nil {
		return went, err
	}
	return went, f.refeed()
}

// waits says whether something is to be sent that never was.
func (f *Feeder) waits() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.waiting) > 0
}

// nextLook is how long there is nothing to do, as far as is known: until the first repeat is due.
func (f *Feeder) nextLook() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := pollEvery
	free := min(time.Until(f.busy.Add(repeats[0])), time.Until(f.turn))
	if len(f.missed) > 0 && len(f.lacking) == 0 {
		d = min(d, max(time.Until(f.busy.Add(repeats[0])), 10*time.Millisecond))
	}
	for _, b := range f.sent {
		d = min(d, max(time.Until(b.at), free, 10*time.Millisecond))
	}
	return d
}

// sendNew sends the next that waits, if one does.
func (f *Feeder) sendNew(ctx context.Context) (went bool, err error) {
	f.mu.Lock()
	var b *Outgoing
	if len(f.waiting) > 0 {
		b = f.waiting[0]
	}
	f.mu.Unlock()
	if b == nil {
		return false, nil
	}
	if err := f.o.Send(ctx, b, false, nil); err != nil {
		if ctx.Err() == nil {
			f.o.Log.Error("a bundle could not be sent", slog.String("kind", redoubt.KindOf(err).Error()))
		}
		return false, nil // it is tried again
	}
	f.busy = time.Now()
	return true, f.wasSent(b)
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
	for i := 0; i < len(f.sent); {
		m1, d1 := holds(f.waiting)
		m2, d2 := holds(f.sent)
		if m1+m2 <= f.o.Memory && d1+d2 <= f.o.Keep && len(f.sent) < maxHeldFiles*64 {
			break
		}
		if slices.Contains(f.held, f.sent[i]) {
			i++
			continue
		}
		f.end(f.sent[i])
	}
	wake(f.asks)
	return f.keep()
}

// end lets go of a bundle that was sent, with mu held. It is missed if it was never repeated, but for what was missed before and had all the room.
func (f *Feeder) end(b *Outgoing) {
	f.sent = slices.DeleteFunc(f.sent, func(x *Outgoing) bool { return x == b })
	switch {
	case b.Mark.Numbering != f.note.Have.Numbering:
	case b.step == 0 && (b.of == 0 || len(f.sent) > 0):
		f.missed = append(f.missed, b.Mark.Serial)
	default:
		f.note.over(redoubt.NumberSpan{From: b.Mark.Serial, To: b.Mark.Serial})
	}
	if f.reuse(b.close()); len(f.sent)+len(f.waiting) == 0 {
		f.spare = nil // nothing goes on
	}
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
