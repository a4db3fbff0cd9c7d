package diode

import (
	"context"
	"errors"
	"net"
	"sync"

	"redoubt"
)

// Source is where datagrams come from. It has no way to send: a receiver cannot answer.
type Source interface {
	// ReadFrom gives one datagram a call.
	ReadFrom(p []byte) (n int, from net.Addr, err error)
	// Close has a ReadFrom that waits return.
	Close() error
}

// queued is how many datagrams wait for the disk: 10 ms at 1 Gbit/s and 1.2 MB at the default size, 32 MiB at the greatest.
const queued = 1024

// Receive takes datagrams from a source until ctx ends, and closes the source. It returns nil then, with everything that was read
// staged; an error is the source's.
func (s *Stage) Receive(ctx context.Context, from Source) error {
	full := make(chan []byte, queued)
	free := sync.Pool{New: func() any { return new([MaxDatagram + 1]byte) }} // as many as wait at most: those that come are taken at once, as a rule
	defer context.AfterFunc(ctx, func() { from.Close() })()
	defer from.Close()
	var fault error
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(full)
		for {
			read := free.Get().(*[MaxDatagram + 1]byte)
			n, _, err := from.ReadFrom(read[:])
			if err != nil {
				if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
					fault = &redoubt.Error{Op: "diode.Receive", Kind: redoubt.Unavailable, Err: err}
				}
				return
			}
			full <- read[:n]
		}
	})
	for b := range full {
		s.Take(b)
		free.Put((*[MaxDatagram + 1]byte)(b[:MaxDatagram+1]))
	}
	reading.Wait()
	s.Settle()
	return fault
}
