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

// queued is how many datagrams wait for the disk: 20 ms at 1 Gbit/s, 2.5 MB at the default size.
const queued = 2048

// Receive takes datagrams from a source until ctx ends, and closes the source. It returns nil then, with everything that was read
// staged; an error is the source's.
func (s *Stage) Receive(ctx context.Context, from Source) error {
	free, full := make(chan []byte, queued), make(chan []byte, queued)
	for range queued {
		free <- make([]byte, MaxDatagram+1)
	}
	defer context.AfterFunc(ctx, func() { from.Close() })()
	defer from.Close()
	var fault error
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(full)
		for {
			b := <-free
			n, _, err := from.ReadFrom(b)
			if err != nil {
				if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
					fault = &redoubt.Error{Op: "diode.Receive", Kind: redoubt.Unavailable, Err: err}
				}
				return
			}
			full <- b[:n]
		}
	})
	for b := range full {
		s.Take(b)
		free <- b[:cap(b)]
	}
	reading.Wait()
	s.Settle()
	return fault
}
