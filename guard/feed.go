package guard

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"redoubt"
)

// FeederOptions is what the low half of a raise is made of. All but Keep and Log is needed.
type FeederOptions struct {
	High   redoubt.NodeName // whose bundles these are
	Guard  redoubt.Credential
	Source redoubt.RaiseSource
	Dir    string // its spool, its own
	// Send sends a file one way. It knows nothing of what arrives. again: it was sent before, and has time.
	Send func(ctx context.Context, path string, again bool) error
	Keep int64 // bytes of bundles that were sent and are kept, for a person to feed again; 0: DefaultKeep
	Log  *slog.Logger
}

// Limits of a feeder.
const (
	DefaultKeep = 4 << 30
	maxKept     = 4096    // bundles that are kept beside
	maxUnsent   = 8 << 30 // bytes that wait to be sent: then the source keeps its own, as it does while the guard is down
	pollEvery   = time.Second
	againMax    = 30 * time.Second // between two tries of a source that is away
	repeatEvery = 2 * time.Second  // whatever comes, what is due has a turn then,
	repeatShare = 8                // of one part in so many of the time
)

// repeats is when a bundle that was sent is sent again, if nothing newer comes: a high half that was away for a few minutes is fed without
// anybody having to ask. While much comes nothing is repeated: it would take the road, and the time of both halves, from what is new.
var repeats = []time.Duration{300 * time.Millisecond, 2 * time.Second, 20 * time.Second, 3 * time.Minute}

// repeatsLast is longer than all of them take on a road that is free.
const repeatsLast = 4 * time.Minute

// Feeder is the low half of a raise: it takes bundles from the low node into its spool, and sends each of them one way. One that is in the
// spool is handed over: the low node makes no other of its content. Run is called once.
type Feeder struct {
	o     FeederOptions
	spool spool
	have  redoubt.BundleMark // the newest in the spool; of the one that fetches
	sent  sent               // of the one that sends, as the four below are
	again []repeat           // of bundles that are in the spool still
	busy  time.Time          // when something new was sent last
	turn  time.Time          // when something is repeated whatever comes
	fresh chan struct{}      // something came into the spool
}

// sent is the newest that was sent whole of each numbering that the spool has.
type sent []redoubt.BundleMark

// has says whether a bundle was sent.
func (all sent) has(m redoubt.BundleMark) bool {
	return slices.ContainsFunc(all, func(last redoubt.BundleMark) bool { return last.Numbering == m.Numbering && m.Serial <= last.Serial })
}

// with is all with one more, without what the spool has no more.
func (all sent) with(m redoubt.BundleMark, there []spooled) sent {
	out := sent{m}
	for _, last := range all {
		if last.Numbering != m.Numbering && slices.ContainsFunc(there, func(b spooled) bool { return b.mark.Numbering == last.Numbering }) {
			out = append(out, last)
		}
	}
	return out
}

// repeat is a bundle that is to be sent once more.
type repeat struct {
	path string
	at   time.Time
	step int
}

// NewFeeder opens the spool.
func NewFeeder(o FeederOptions) (*Feeder, error) {
	if o.Keep == 0 {
		o.Keep = DefaultKeep
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s, err := openSpool(o.Dir)
	if err != nil {
		return nil, err
	}
	f := &Feeder{o: o, spool: s, fresh: make(chan struct{}, 1)}
	if err := errors.Join(hinted(s, haveName, &f.have, o.Log), hinted(s, sentName, &f.sent, o.Log)); err != nil {
		return nil, err
	}
	return f, f.repeatAnew()
}

// repeatAnew has what may not have been sent as often as it is to be, when the last process ended, repeated from the first: where both halves ended at
// once, the higher one lacks what it had not made durable.
func (f *Feeder) repeatAnew() error {
	all, err := f.spool.all(f.o.High)
	var newest time.Time
	for _, b := range all {
		if f.sent.has(b.mark) && b.at.After(newest) {
			newest = b.at
		}
	}
	for _, b := range all {
		if f.sent.has(b.mark) && newest.Sub(b.at) < repeatsLast {
			f.repeatLater(b.path)
		}
	}
	return err
}

// Run feeds until ctx ends. A source that is away is tried again; an error is the spool's own.
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

// fetch takes bundles into the spool.
func (f *Feeder) fetch(ctx context.Context) error {
	pause := time.Duration(0)
	for ctx.Err() == nil {
		have := f.have
		room, err := f.room()
		if err != nil {
			return err
		}
		if !room {
			f.o.Log.Error("the raise is not sent as fast as it comes: what is new stays with the lower node", slog.Int64("waiting_bytes", maxUnsent))
			wait(ctx, againMax)
			continue
		}
		m, err := f.spool.take(func(w io.Writer) (redoubt.BundleMark, error) {
			return f.o.Source.HandRaise(ctx, f.o.Guard, f.o.High, have, w)
		})
		switch {
		case errors.Is(err, redoubt.NotModified):
			continue
		case err != nil && ctx.Err() == nil:
			pause = min(max(2*pause, 250*time.Millisecond), againMax)
			f.o.Log.Warn("nothing was handed over", slog.String("kind", redoubt.KindOf(err).Error()))
			wait(ctx, pause)
			continue
		case err != nil:
			return nil
		}
		pause = 0
		f.have = m
		if err := f.spool.hint(haveName, m); err != nil { // without it another bundle holds the same, and this one's number is void
			return err
		}
		f.wake()
	}
	return nil
}

// haveName and sentName are records of their own: each has one writer.
const (
	haveName = "have.json"
	sentName = "sent.json"
)

// room says whether more may wait to be sent.
func (f *Feeder) room() (bool, error) {
	all, err := f.spool.all(f.o.High)
	if err != nil {
		return false, err
	}
	var done sent
	if err := f.spool.record(sentName, &done); err != nil {
		return false, err
	}
	var waiting int64
	for _, b := range all {
		if !done.has(b.mark) {
			waiting += b.bytes
		}
	}
	return waiting <= maxUnsent, nil
}

// send sends what is new, in its order, then what a person asked for, then what is due once more.
func (f *Feeder) send(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := f.sendNew(ctx); err != nil {
			return err
		}
		if err := f.refeed(ctx); err != nil {
			return err
		}
		if err := f.repeat(ctx); err != nil {
			return err
		}
		if err := f.forget(); err != nil {
			return err
		}
		next := time.NewTimer(f.nextLook())
		select {
		case <-f.fresh:
		case <-next.C:
		case <-ctx.Done():
		}
		next.Stop()
	}
	return nil
}

// nextLook is how long there is nothing to do, as far as is known: until the first repeat is due.
func (f *Feeder) nextLook() time.Duration {
	d := pollEvery
	free := min(time.Until(f.busy.Add(repeats[0])), time.Until(f.turn))
	for _, r := range f.again {
		d = min(d, max(time.Until(r.at), free, 10*time.Millisecond))
	}
	return d
}

func (f *Feeder) sendNew(ctx context.Context) error {
	all, err := f.spool.all(f.o.High)
	if err != nil {
		return err
	}
	for _, b := range all {
		if f.sent.has(b.mark) {
			continue
		}
		if err := f.o.Send(ctx, b.path, false); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			f.o.Log.Error("a bundle could not be sent", slog.String("kind", redoubt.KindOf(err).Error()))
			return nil // it is tried again
		}
		f.sent = f.sent.with(b.mark, all)
		if err := f.spool.hint(sentName, f.sent); err != nil { // without it this is sent once more
			return err
		}
		f.busy = time.Now()
		f.repeatLater(b.path)
	}
	return nil
}

// repeat sends again what is due, as long as nothing newer comes: what is half sent then is begun anew when that is over. In its turn it is sent
// whatever comes: a writer that never rests does not keep what was lost from ever coming.
func (f *Feeder) repeat(ctx context.Context) error {
	began := time.Now()
	turn := !began.Before(f.turn)
	for ctx.Err() == nil {
		now := time.Now()
		i := f.due(now)
		if i < 0 {
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
		r := f.again[i]
		_ = f.o.Send(within, r.path, idle) // one that is gone, or a road that fails: it was sent once, and the next repeat follows
		cut := within.Err() != nil
		end()
		if cut {
			return nil
		}
		if r.step++; r.step == len(repeats) {
			f.again = slices.Delete(f.again, i, i+1)
			continue
		}
		r.at = now.Add(repeats[r.step])
		f.again[i] = r
	}
	return nil
}

// repeatLater has a bundle repeated from now on, once.
func (f *Feeder) repeatLater(path string) {
	f.again = slices.DeleteFunc(f.again, func(r repeat) bool { return r.path == path })
	f.again = append(f.again, repeat{path, time.Now().Add(repeats[0]), 0})
}

// due is the place of the repeat that is due longest; -1: none is.
func (f *Feeder) due(now time.Time) int {
	at := -1
	for i, r := range f.again {
		if !now.Before(r.at) && (at < 0 || r.at.Before(f.again[at].at)) {
			at = i
		}
	}
	return at
}

// whileIdle is ctx until something new comes into the spool.
func (f *Feeder) whileIdle(ctx context.Context) (context.Context, func()) {
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-f.fresh:
			f.wake()
			stop()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { stop(); <-ended }
}

// wake has the one that sends look for what is new.
func (f *Feeder) wake() {
	select {
	case f.fresh <- struct{}{}:
	default:
	}
}

// Refeed is what a person at the low side asks to be sent once more.
type Refeed struct {
	Serials []redoubt.NumberSpan `json:"serials"` // of the newest numbering
}

// AskRefeed asks the feeder whose spool is in dir to send numbers again, those of them that it has: in a gap there may be numbers that never
// were, and what is still lacking then is a gap still. NotFound: it has none of them any more; then raising anew is what is left.
func AskRefeed(dir string, high redoubt.NodeName, serials []redoubt.NumberSpan) error {
	s, err := openSpoolAsIs(dir)
	if err != nil {
		return err
	}
	all, err := s.all(high)
	if err != nil {
		return err
	}
	var newest redoubt.BundleMark
	has := map[uint64]bool{}
	for _, b := range all {
		if b.mark.Numbering != newest.Numbering {
			newest, has = b.mark, map[uint64]bool{}
		}
		has[b.mark.Serial] = true
	}
	found := false
	for n := range has {
		found = found || inSpans(serials, n)
	}
	if !found {
		return &redoubt.Error{Op: "guard.AskRefeed", Object: dir, Kind: redoubt.NotFound, Err: errors.New("none of these numbers is in the spool any more"),
			Hint: "have everything raised anew: redoubt guard refeed GUARD --anew --as ADMIN@LOW"}
	}
	return s.keep(refeedName, Refeed{Serials: serials})
}

func inSpans(all []redoubt.NumberSpan, n uint64) bool {
	return slices.ContainsFunc(all, func(s redoubt.NumberSpan) bool { return s.From <= n && n <= s.To })
}

// refeed sends what a person asked for.
func (f *Feeder) refeed(ctx context.Context) error {
	path := filepath.Join(f.spool.dir, refeedName)
	if _, err := os.Stat(path); err != nil {
		return nil
	}
	var asked Refeed
	if err := f.spool.record(refeedName, &asked); err != nil {
		f.o.Log.Error("what is to be fed again cannot be read", slog.String("kind", redoubt.KindOf(err).Error()))
		return diskFault(f.spool.dir, os.Remove(path))
	}
	all, err := f.spool.all(f.o.High)
	if err != nil {
		return err
	}
	for _, b := range all {
		if b.mark.Numbering != all[len(all)-1].mark.Numbering || !inSpans(asked.Serials, b.mark.Serial) {
			continue
		}
		if err := f.o.Send(ctx, b.path, false); err != nil {
			return nil // it is asked for still
		}
		f.repeatLater(b.path)
	}
	return diskFault(f.spool.dir, os.Remove(path))
}

// forget removes the oldest of what was sent, beyond what is kept, and repeats nothing that is not there.
func (f *Feeder) forget() error {
	all, err := f.spool.all(f.o.High)
	if err != nil {
		return err
	}
	var kept, files int64
	there := map[string]bool{}
	for _, b := range slices.Backward(all) {
		if f.sent.has(b.mark) {
			kept += b.bytes
			files++
		}
		if kept <= f.o.Keep && files <= maxKept || !f.sent.has(b.mark) {
			there[b.path] = true
			continue
		}
		if err := os.Remove(b.path); err != nil {
			return diskFault(f.spool.dir, err)
		}
	}
	f.again = slices.DeleteFunc(f.again, func(r repeat) bool { return !there[r.path] })
	return nil
}

// wait waits, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
