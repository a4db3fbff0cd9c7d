package diode

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"golang.org/x/net/ipv4"

	"redoubt"
)

// Source is where datagrams come from. It has no way to send: a receiver cannot answer.
type Source interface {
	// ReadFrom gives one datagram a call.
	ReadFrom(p []byte) (n int, from net.Addr, err error)
	// Close has a ReadFrom that waits return.
	Close() error
}

// A batch is what one call of the kernel gives: as many datagrams as are there, up to so many. So many batches wait for the disk, 32 MiB at most.
const (
	batched = 16
	queued  = 64
)

// batch are datagrams that came together.
type batch struct {
	all []ipv4.Message // each with room for one
	n   int            // that many came
}

func newBatch() any {
	b := &batch{all: make([]ipv4.Message, batched)}
	room := make([]byte, batched*(MaxDatagram+1))
	for i := range b.all {
		b.all[i].Buffers = [][]byte{room[i*(MaxDatagram+1) : (i+1)*(MaxDatagram+1)]}
	}
	return b
}

// read fills b with what has come, one at least.
func (b *batch) read(from Source) (err error) {
	if s, ok := from.(*udpSource); ok {
		b.n, err = s.batches.ReadBatch(b.all, 0)
		return err
	}
	b.n = 1
	b.all[0].N, _, err = from.ReadFrom(b.all[0].Buffers[0])
	return err
}

// behindFor is how long a full batch says that more is waiting.
const behindFor = 5 * time.Millisecond

// Behind says whether more of ours waits to be read than comes by one call. What the kernel has no room for is lost: whoever has other work for the processor
// does less of that.
func (s *Stage) Behind() bool {
	at := s.behind.Load()
	return at > 0 && time.Since(s.opened)-time.Duration(at) < behindFor
}

// takeAll takes what came together. A full batch of which some is ours was not all there was.
func (s *Stage) takeAll(b *batch) {
	before := s.Counts().Datagrams
	for i := range b.all[:b.n] {
		s.Take(b.all[i].Buffers[0][:b.all[i].N])
	}
	if b.n == batched && s.Counts().Datagrams > before {
		s.behind.Store(int64(time.Since(s.opened)))
	}
}

// Receive takes datagrams from a source until ctx ends, and closes the source. It returns nil then, with everything that was read
// staged; an error is the source's.
func (s *Stage) Receive(ctx context.Context, from Source) error {
	full := make(chan *batch, queued)
	free := sync.Pool{New: newBatch} // as many as wait at most: those that come are taken at once, as a rule
	defer context.AfterFunc(ctx, func() { from.Close() })()
	defer from.Close()
	var fault error
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(full)
		for {
			b := free.Get().(*batch)
			if err := b.read(from); err != nil {
				if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
					fault = &redoubt.Error{Op: "diode.Receive", Kind: redoubt.Unavailable, Err: err}
				}
				return
			}
			full <- b
		}
	})
	for b := range full {
		s.takeAll(b)
		free.Put(b)
	}
	reading.Wait()
	s.Settle()
	return fault
}
