package guard

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"redoubt"
)

// repeats is when a bundle that was sent is sent again, if nothing newer comes: a high half that was away for a few minutes is fed without
// anybody having to ask. While much comes nothing is repeated: it would take the road, and the time of both halves, from what is new.
var repeats = []time.Duration{300 * time.Millisecond, 2 * time.Second, 20 * time.Second, 3 * time.Minute}

const (
	repeatEvery = 2 * time.Second // whatever comes, what is due has a turn then,
	repeatShare = 8               // of one part in so many of the time
)

// idle says whether nothing new was sent for a while.
func (f *Feeder) idle(now time.Time) bool { return now.Sub(f.busy) >= repeats[0] }

// giving has what is repeated in its turn give way to what is new, and to repeats that are much shorter: so that of a large bundle nobody has to wait for
// the end.
type giving struct {
	f     *Feeder
	since time.Time // it gave way last then
	most  int64     // bytes of what is repeated between: others go between that in turn, and not without end
	err   error     // what ended the repeat, of the folder
}

// smaller is by how much a bundle has to be smaller than the one between whose datagrams it is repeated.
const smaller = 4

// way sends what is new, if the repeat had its part of the time: for as long as there is something, but for the repeat's next part and as much for other
// repeats, which go then. What rests has its turn, too.
func (g *giving) way(ctx context.Context) error {
	const part = repeatEvery / repeatShare
	if time.Since(g.since) < part {
		return nil
	}
	for went, until := true, time.Now().Add(repeatEvery-2*part); went && time.Now().Before(until); {
		if went, g.err = g.f.news(ctx); g.err != nil {
			return g.err
		}
	}
	now := time.Now()
	g.f.recall(now)
	for whole := true; whole && g.err == nil && time.Since(now) < part; {
		b := g.f.due(time.Now(), g.most)
		if b == nil {
			break
		}
		other := giving{f: g.f, since: time.Now()}
		whole, g.err = other.again(ctx, b, false)
	}
	g.since = time.Now()
	return g.err
}

// again sends one once more, and plans the next time. That it is not whole is the road's fault, or it was cut short; an error is the folder's own.
func (g *giving) again(ctx context.Context, b *Outgoing, idle bool) (whole bool, err error) {
	began, between := time.Now(), g.way
	if idle {
		between = nil
	}
	f := g.f
	g.most, f.held = b.Size()/smaller, append(f.held, b)
	err = f.o.Send(ctx, b, idle, between)
	f.held = f.held[:len(f.held)-1]
	switch {
	case g.err != nil:
		return false, g.err
	case ctx.Err() != nil:
		return false, nil
	case err != nil: // a road that fails does so for the others, too
		f.failed(b)
		return false, nil
	}
	return true, f.repeated(b, began)
}

// repeat sends again what is due, as long as nothing newer comes: what is half sent then is begun anew when that is over. In its turn it is sent
// whatever comes, which goes between: a writer that never rests does not keep what was lost from ever coming.
func (f *Feeder) repeat(ctx context.Context) error {
	began := time.Now()
	turn, gives := !began.Before(f.turn), giving{f: f, since: began}
	for ctx.Err() == nil {
		now := time.Now()
		b := f.due(now, math.MaxInt64)
		if b == nil {
			f.turn = now.Add(repeatEvery)
			return nil
		}
		within, end := ctx, func() {}
		idle := len(f.fresh) == 0 && f.idle(now)
		switch took := now.Sub(gives.since); {
		case idle:
			within, end = f.whileIdle(ctx)
		case !turn:
			return nil
		case now.Sub(began) >= repeatEvery/repeatShare:
			f.turn = now.Add(max(repeatEvery, repeatShare*took))
			return nil
		}
		whole, err := gives.again(within, b, idle)
		if end(); err != nil || !whole {
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

// failed has a bundle repeated later of which only a part went, if any.
func (f *Feeder) failed(b *Outgoing) {
	f.turn = time.Now().Add(repeatEvery)
	f.mu.Lock()
	defer f.mu.Unlock()
	b.at = time.Now().Add(repeats[b.step])
}

// due is the bundle of so many bytes at most whose repeat is due longest; nil: none is.
func (f *Feeder) due(now time.Time, most int64) (first *Outgoing) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.sent {
		if b.Size() <= most && !now.Before(b.at) && (first == nil || b.at.Before(first.at)) {
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

// rested is a number that did not come when it was asked for.
type rested struct {
	serial uint64
	pause  time.Duration
	until  time.Time // zero: it is over, and the number is lacking
}

// putOff has a number that did not come asked for later, each time after a longer rest, and something new before that: what does not read any more below
// holds up nothing.
func (f *Feeder) putOff(serial uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Contains(f.lacking, serial) {
		return
	}
	r := rested{serial: serial}
	if i := slices.IndexFunc(f.resting, func(r rested) bool { return r.serial == serial }); i >= 0 {
		r = f.resting[i]
	}
	f.settled(serial)
	r.pause = min(max(2*r.pause, againMin), againMax)
	r.until = time.Now().Add(r.pause)
	f.resting, f.ofOld = append(f.resting, r), newAfter
}

// recall has what rested asked for, and the oldest that was missed, if there is time: nobody here knows whether it arrived, and what did is not taken
// twice. Where something new comes all the time one has its turn.
func (f *Feeder) recall(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, r := range f.resting {
		if !r.until.IsZero() && now.After(r.until) {
			f.resting[i].until = time.Time{}
			f.lacking = append(f.lacking, r.serial)
			wake(f.asks)
		}
	}
	for len(f.missed) > 0 && f.missed[0] < f.note.oldest() {
		f.o.Log.Info("what was in a number that was missed is not known any more", slog.Uint64("serial", f.missed[0]))
		f.missed = f.missed[1:]
	}
	if len(f.missed) == 0 || len(f.lacking) > 0 || !f.ask.Before(now) && (!f.idle(now) || len(f.waiting) > 0) {
		return
	}
	f.lacking, f.missed, f.ask = append(f.lacking, f.missed[0]), f.missed[1:], now.Add(repeatEvery)
	wake(f.asks)
}

// Refeed is what a person at the low side asks to be sent once more.
type Refeed struct {
	Serials []redoubt.NumberSpan `json:"serials"` // of the newest numbering
}

// AskRefeed asks the feeder whose folder is dir to send numbers again: in a gap there may be numbers that never were, and what is still lacking then is a
// gap still. NotFound: one of them was not made yet, as far as it knows; or all were made so long ago that nobody knows what was in them, and then raising anew
// is what is left.
func AskRefeed(dir string, serials []redoubt.NumberSpan) error {
	var n note
	if err := record(dir, noteName, &n); err != nil {
		return err
	}
	for _, s := range serials {
		if s.To > n.Have.Serial {
			return &redoubt.Error{Op: "guard.AskRefeed", Object: dir, Kind: redoubt.NotFound, Err: fmt.Errorf("number %d was not made yet: the newest that the guard's low half had is %d", max(s.From, n.Have.Serial+1), n.Have.Serial),
				Hint: "redoubt guard status at the higher enclave shows which are lacking"}
		}
	}
	if !slices.ContainsFunc(serials, func(s redoubt.NumberSpan) bool { return s.To >= n.oldest() }) {
		return &redoubt.Error{Op: "guard.AskRefeed", Object: dir, Kind: redoubt.NotFound, Err: errors.New("none of these numbers is known any more"),
			Hint: "have everything raised anew: redoubt guard refeed GUARD --anew --as ADMIN@LOW"}
	}
	return keepRecord(dir, refeedName+"-"+rand.Text()+refeedExt, Refeed{Serials: serials}) // one that waits stands beside it
}

// refeed takes what people asked for: what is held is due now, the rest is asked for.
func (f *Feeder) refeed() error {
	orders, err := filepath.Glob(filepath.Join(f.o.Dir, refeedName+"*"+refeedExt))
	if err != nil || len(orders) == 0 {
		return diskFault(f.o.Dir, err)
	}
	var serials []redoubt.NumberSpan
	for _, path := range orders {
		var asked Refeed
		if err := hinted(f.o.Dir, filepath.Base(path), &asked, f.o.Log); err != nil {
			return err
		}
		serials = append(serials, asked.Serials...)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.note.Have.Numbering // numbers are of the newest one, and some of an earlier one may be held
	for serial := f.note.oldest(); serial <= f.note.Have.Serial; serial++ {
		if !redoubt.InSpans(serials, serial) || slices.Contains(f.lacking, serial) ||
			slices.ContainsFunc(f.waiting, func(b *Outgoing) bool { return b.Mark.Numbering == now && (b.Mark.Serial == serial || b.of == serial) }) {
			continue
		}
		if i := slices.IndexFunc(f.sent, func(b *Outgoing) bool { return b.Mark.Numbering == now && b.Mark.Serial == serial }); i >= 0 {
			f.sent[i].at, f.sent[i].step = time.Now(), 0
			continue
		}
		f.settled(serial)
		f.note.undo(serial)
		f.lacking = append(f.lacking, serial)
		f.missed = slices.DeleteFunc(f.missed, func(n uint64) bool { return n == serial })
	}
	wake(f.asks)
	if err := f.keep(); err != nil {
		return err
	}
	for _, path := range orders {
		err = errors.Join(err, removed(os.Remove(path)))
	}
	return diskFault(f.o.Dir, err)
}
