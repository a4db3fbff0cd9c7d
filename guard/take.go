package guard

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"redoubt"
	"redoubt/bundle"
)

// TakerOptions is what the high half of a raise is made of. All but Drop, Waiting, Taken, Behind and Log is needed.
type TakerOptions struct {
	High   redoubt.NodeName
	Guard  redoubt.Credential
	Target redoubt.RaiseTarget
	Dir    string // where bundles come together: whole files appear in it
	// Drop removes a file of them as if it had not come, so that it is taken when it is sent again. nil: removing it is enough.
	Drop func(path string) error
	// Waiting is how many bytes of whole bundles wait for the node at most: what comes beyond them is a gap, to be fed again. 0: DefaultWaiting.
	Waiting int64
	// Taken removes one that the node has. nil: os.Remove.
	Taken func(path string) error
	// Behind says whether more is on the road than is read of it. nil: never.
	Behind func() bool
	Log    *slog.Logger
}

// gapPatience is how long a number that is lacking is waited for, from when what is behind it came, before that is taken: longer than the first
// repeats of what was sent. What comes later yet is taken then.
const gapPatience = 30 * time.Second

// damagedPause is what a damaged bundle costs who sends it: each is refused, and put on record, by the node.
const damagedPause = time.Second

// Taker is the high half of a raise: it hands whole bundles to the high node, in their order, and keeps them until that has them. While one is taken, all
// but the end of the next is on its way.
type Taker struct {
	o     TakerOptions
	spool spool
	row   row
	last  redoubt.BundleMark // the newest that was taken
	came  chan struct{}
	most  int64     // TakerOptions.Waiting
	early int64     // aheadBytes
	ahead *bringing // what follows the one that is being taken, on its way already
	rests rests
	well  bool // the last was taken: who takes nothing now is brought nothing ahead
}

const takenName = "taken.json"

// Limits of what the high half keeps, whatever the low one sends.
const (
	DefaultWaiting  = 64 << 30
	maxRefusedBytes = 1 << 30
	maxRefusedFiles = 256
)

// NewTaker opens the folder.
func NewTaker(o TakerOptions) (*Taker, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Drop == nil {
		o.Drop = os.Remove
	}
	if o.Taken == nil {
		o.Taken = os.Remove
	}
	if o.Behind == nil {
		o.Behind = func() bool { return false }
	}
	s, err := openSpool(o.Dir)
	if err != nil {
		return nil, err
	}
	t := &Taker{o: o, spool: s, row: row{spool: s, node: o.High}, came: make(chan struct{}, 1), most: cmp.Or(o.Waiting, DefaultWaiting), early: aheadBytes}
	return t, errors.Join(hinted(o.Dir, takenName, &t.last, o.Log), t.takeBack())
}

// takeBack has what was refused for good tried once more at each start: whoever mended the reason starts the guard anew.
func (t *Taker) takeBack() error {
	refused, err := filepath.Glob(filepath.Join(t.spool.dir, refusedName, "*"+bundleExt))
	for _, path := range refused {
		err = errors.Join(err, os.Rename(path, filepath.Join(t.spool.dir, filepath.Base(path))))
	}
	return diskFault(t.spool.dir, err)
}

// Came tells that a file is whole. It never waits for the node. Where too much waits for it already, the file is dropped.
func (t *Taker) Came(path string) {
	t.row.add(path)
	if held, err := t.row.held(); err == nil && held > t.most {
		t.o.Log.Error("a bundle is dropped, for too much waits for the node: have that take it, or give the high half more (road: {hold: SIZE} of the guard in the estate); a person at the low side feeds it again",
			slog.String("file", filepath.Base(path)), slog.Int64("waiting", held), slog.Int64("most", t.most))
		if err := t.o.Drop(path); err != nil { // then it waits too
			t.o.Log.Error("a bundle cannot be dropped", slog.String("kind", redoubt.KindOf(err).Error()))
		} else {
			t.row.remove(path)
		}
	}
	select {
	case t.came <- struct{}{}:
	default:
	}
}

// Run takes until ctx ends. A node that is away, or has no room, is tried again: nothing is lost meanwhile. An error is the folder's.
func (t *Taker) Run(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	defer t.dropAhead()
	pause := time.Duration(0)
	for ctx.Err() == nil {
		taken, err := t.next(ctx)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil
		case errors.Is(err, errAway):
			pause = min(max(2*pause, 250*time.Millisecond), againMax)
			wait(ctx, pause)
			continue
		case err != nil:
			return err
		case taken:
			pause = 0
			continue
		}
		select {
		case <-t.came:
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// errAway is a node that takes nothing now.
var errAway = &redoubt.Error{Op: "guard.Taker", Kind: redoubt.Unavailable}

// follows says whether nothing is lacking before a bundle, as far as is known.
func (t *Taker) follows(b spooled) bool {
	return b.mark.Serial <= t.last.Serial+1 && b.mark.Numbering == t.last.Numbering || t.last.Serial == 0
}

// next takes the first bundle whose turn it is.
func (t *Taker) next(ctx context.Context) (taken bool, err error) {
	b, is, err := t.row.first()
	if err == nil && t.ahead != nil && over(t.ahead.turn) { // it is being taken, whatever came meanwhile
		b, is = t.ahead.spooled, true
	}
	if err != nil || !is {
		return false, err
	}
	if !t.follows(b) {
		if time.Since(b.seen) < gapPatience { // of itself: several that are lacking are waited for at once
			return false, nil
		}
		t.o.Log.Warn("a number did not come; a person at the low side feeds it again", slog.Uint64("before", b.mark.Serial))
	}
	has, err := t.take(ctx, b)
	if errors.Is(err, os.ErrNotExist) { // the disk lost it
		t.row.remove(b.path)
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if !has { // what its head says was never verified, so nothing follows from it
		return true, nil
	}
	newer := b.mark.Numbering != t.last.Numbering || b.mark.Serial > t.last.Serial
	if newer {
		t.last = b.mark
	}
	t.letNext(b.path)
	if newer {
		if err := hint(t.spool.dir, takenName, b.mark); err != nil { // without it the next is waited before, as for a gap
			return false, err
		}
	}
	err = removed(t.o.Taken(b.path))
	t.row.remove(b.path)
	return true, diskFault(t.spool.dir, err)
}

func removed(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// take hands one to the node, and says whether that has it. What it refuses for good is set aside.
func (t *Taker) take(ctx context.Context, b spooled) (has bool, err error) {
	one := t.ahead
	if one != nil && (one.spooled != b || one.early()) { // another has its turn, or the node waited too long for its end
		t.dropAhead()
		one = nil
	}
	if t.ahead = nil; one == nil {
		if one, err = t.bring(ctx, b); err != nil {
			return false, err
		}
	}
	err = t.answer(ctx, one)
	if t.well = err == nil || redoubt.KindOf(err) == redoubt.Exists; !t.well {
		t.dropAhead()
	}
	switch redoubt.KindOf(err) {
	case redoubt.Exists:
		return true, nil
	case redoubt.Invalid, redoubt.Denied, redoubt.Conflict, redoubt.TooLarge, redoubt.Corrupt, redoubt.BadDigest:
		t.o.Log.Error("the node refused a bundle", slog.Uint64("serial", b.mark.Serial), slog.String("kind", redoubt.KindOf(err).Error()))
		if e, ok := errors.AsType[*redoubt.Error](err); ok && e.Rule == bundle.RuleDamaged || damaged(ctx, b.path) {
			wait(ctx, damagedPause)
			err = removed(t.o.Drop(b.path))
			t.row.remove(b.path)
			return false, diskFault(b.path, err)
		}
		err = t.setAside(b)
		t.row.remove(b.path)
		return false, err
	}
	if err != nil {
		t.o.Log.Warn("the node takes nothing now", slog.String("kind", redoubt.KindOf(err).Error()))
		return false, errAway
	}
	return true, nil
}

// damaged says whether a bundle's content is another than its maker signed: nothing that anybody mends here makes it good, and the true one may yet come.
// Of a tagged bundle that is said of form, length and tags; of the ciphertext the node says it, who alone can see it, by its rule.
func damaged(ctx context.Context, path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil {
		_, err = bundle.ReadOutline(ctx, f, st.Size(), nil)
	}
	kind := redoubt.KindOf(err)
	return err != nil && (kind == redoubt.Denied || kind == redoubt.Invalid || kind == redoubt.TooLarge)
}

// setAside keeps one that was refused for takeBack, beside the newest of those that were before. It is durable there on return: who brought it takes it
// for come, and nobody sends it again.
func (t *Taker) setAside(b spooled) error {
	dir := filepath.Join(t.spool.dir, refusedName)
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = syncPath(b.path)
	}
	if err == nil {
		err = os.Rename(b.path, filepath.Join(dir, filepath.Base(b.path)))
	}
	if err == nil {
		err = errors.Join(syncPath(dir), t.spool.sync())
	}
	if err != nil {
		return diskFault(dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return diskFault(dir, err)
	}
	type kept struct {
		name string
		size int64
		at   time.Time
	}
	var all []kept
	var held int64
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // gone meanwhile
		}
		all, held = append(all, kept{e.Name(), info.Size(), info.ModTime()}), held+info.Size()
	}
	slices.SortFunc(all, func(a, b kept) int { return a.at.Compare(b.at) })
	for len(all) > 1 && (held > maxRefusedBytes || len(all) > maxRefusedFiles) {
		t.o.Log.Error("a bundle that the node refused before is dropped for room", slog.String("file", all[0].name))
		if err := removed(t.o.Drop(filepath.Join(dir, all[0].name))); err != nil {
			return diskFault(dir, err)
		}
		all, held = all[1:], held-all[0].size
	}
	return nil
}
