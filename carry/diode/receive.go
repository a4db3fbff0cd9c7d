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

	spareBatches = 8 // that are kept for what comes: those that come are taken at once, as a rule
)

// batch are datagrams that came together.
type batch struct {
	all []ipv4.Message // each with room for one
	n   int            // that many came
}

func newBatch() *batch {
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

// Behind is told of a road from which something of ours came within oursFor, and of whose room in the kernel more than so many eighths are taken: what was read
// of up to two eighths the kernel counts until nothing waits any more.
const (
	oursFor       = 100 * time.Millisecond
	behindEighths = 3
)

// Behind says whether so much waits to be read that more may soon be lost, for which the kernel has no room: whoever has other work for the processor does
// less of that. Where the system does not tell what waits (other than Linux), it never is.
func (s *Stage) Behind() bool {
	from := s.source.Load()
	if at := s.ours.Load(); from == nil || at == 0 || time.Since(s.opened)-time.Duration(at) > oursFor {
		return false
	}
	waits, room := backlog(from.c)
	return waits > room/8*behindEighths
}

// takeAll takes what came together.
func (s *Stage) takeAll(b *batch) {
	before := s.Counts().Datagrams
	for i := range b.all[:b.n] {
		s.Take(b.all[i].Buffers[0][:b.all[i].N])
	}
	if s.Counts().Datagrams > before {
		s.ours.Store(int64(time.Since(s.opened)))
	}
}

// Receive takes datagrams from a source until ctx ends, and closes the source. It returns nil then, with everything that was read
// staged; an error is the source's.
func (s *Stage) Receive(ctx context.Context, from Source) error {
	full := make(chan *batch, queued)
	free := make(chan *batch, spareBatches)
	defer context.AfterFunc(ctx, func() { from.Close() })()
	defer from.Close()
	if udp, ok := from.(*udpSource); ok {
		s.source.Store(udp)
		defer s.source.Store(nil)
	}
	var fault error
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(full)
		for {
			var b *batch
			select {
			case b = <-free:
			default:
				b = newBatch()
			}
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
		select {
		case free <- b:
		default:
		}
	}
	reading.Wait()
	s.Settle()
	return fault
}
