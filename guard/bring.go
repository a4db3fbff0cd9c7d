package guard

import (
	"context"
	"io"
	"os"
	"sync"
	"time"

	"redoubt"
)

// aheadBytes is the largest bundle that is brought while the one before it is being taken: what the node holds in memory.
const aheadBytes = 32 << 20

// bringing is a bundle on its way to the node. Its last byte waits for its turn: until then the node has nothing that it could take.
type bringing struct {
	spooled
	let  func()        // it may end: its turn has come
	turn chan struct{} // closed then
	sent chan struct{} // closed when all before the last byte was read
	done chan struct{} // closed when the node has answered, err
	err  error
	stop context.CancelFunc
}

// bring begins to hand a bundle to the node. Whoever calls it waits for done.
func (t *Taker) bring(ctx context.Context, b spooled) (*bringing, error) {
	f, err := os.Open(b.path)
	if err != nil {
		return nil, diskFault(b.path, err)
	}
	one := &bringing{spooled: b, turn: make(chan struct{}), sent: make(chan struct{}), done: make(chan struct{})}
	one.let = sync.OnceFunc(func() { close(one.turn) })
	ctx, one.stop = context.WithCancel(ctx)
	go func() {
		defer close(one.done)
		defer f.Close()
		_, one.err = t.o.Target.TakeRaise(ctx, t.o.Guard, &inTurn{ctx: ctx, r: f, behind: t.o.Behind, rests: &t.rests, size: b.bytes, left: b.bytes - 1, turn: one.turn, sent: sync.OnceFunc(func() { close(one.sent) })})
	}()
	return one, nil
}

// early says whether the node has answered before it had all: it waited too long for the end.
func (b *bringing) early() bool { return over(b.done) && !over(b.turn) }

func over(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// end gives up what is not to be taken now: the node gets no end of it.
func (b *bringing) end() {
	b.stop()
	<-b.done
}

// answer lets a bundle be taken, and waits for what the node says. Meanwhile the next is brought, if it is there or comes.
func (t *Taker) answer(ctx context.Context, one *bringing) error {
	defer one.stop()
	one.let()
	for sent := one.sent; ; {
		if over(one.sent) {
			sent = nil
		}
		if sent == nil && t.ahead == nil && t.well {
			if err := t.bringNext(ctx, one.mark); err != nil {
				t.o.Log.Warn("the next bundle is not brought ahead", "kind", redoubt.KindOf(err).Error()) // it has its turn
			}
		}
		select {
		case <-one.done:
			return one.err
		case <-sent:
		case <-t.came:
		}
	}
}

// bringNext begins to hand over the bundle that follows one, if it is there.
func (t *Taker) bringNext(ctx context.Context, last redoubt.BundleMark) error {
	b, is, err := t.row.behind(last)
	if err == nil && is && b.bytes <= t.early {
		t.ahead, err = t.bring(ctx, b)
	}
	return err
}

// letNext has the one that was brought ahead be taken at once, if its turn is next: the node has work while the one that it took is put away here.
func (t *Taker) letNext(taken string) {
	if t.ahead == nil || t.ahead.early() {
		return
	}
	t.row.remove(taken)
	b, is, err := t.row.first()
	if err == nil && is && b.path == taken { // the folder was looked through, where it lies yet
		t.row.remove(taken)
		b, is, err = t.row.first()
	}
	if err == nil && is && b == t.ahead.spooled { // it follows, as what is brought ahead does
		t.ahead.let()
	}
}

// dropAhead gives up what was brought ahead of its turn.
func (t *Taker) dropAhead() {
	if t.ahead != nil {
		t.ahead.end()
		t.ahead = nil
	}
}

// inTurn reads a file, and what is behind its first left bytes when its turn has come.
type inTurn struct {
	ctx    context.Context
	r      io.Reader
	behind func() bool
	rests  *rests
	size   int64
	left   int64
	turn   <-chan struct{}
	sent   func()
}

// What is on the road is read before what waits is handed over, for it would be lost: while the road is behind, handing over rests, restsMost at once, and then
// works for as long as a third of that. So it has a quarter of the time at least, whatever comes.
const (
	roadPause = time.Millisecond
	restsMost = 12 * roadPause
)

// rests are those of all bundles together.
type rests struct {
	mu    sync.Mutex
	works time.Time // nothing rests until then
}

// rest rests, if that is due.
func (i *inTurn) rest() {
	i.rests.mu.Lock() // the one ahead rests with the one before it
	defer i.rests.mu.Unlock()
	began := time.Now()
	if began.Before(i.rests.works) || !i.behind() {
		return
	}
	for i.ctx.Err() == nil && time.Since(began) < restsMost && i.behind() {
		wait(i.ctx, roadPause)
	}
	i.rests.works = time.Now().Add(time.Since(began) / 3)
}

// BytesInAll tells package client how long the request is.
func (i *inTurn) BytesInAll() int64 { return i.size }

func (i *inTurn) Read(p []byte) (int, error) {
	if i.left > 0 {
		i.rest()
		n, err := i.r.Read(p[:min(int64(len(p)), i.left)])
		i.left -= int64(n)
		return n, err
	}
	i.sent()
	select {
	case <-i.turn:
		return i.r.Read(p)
	case <-i.ctx.Done():
		return 0, i.ctx.Err()
	}
}
