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
	free, full := make(chan []byte, queued), make(chan []byte, queued)
	for range queued {
		free <- nil
	}
	defer context.AfterFunc(ctx, func() { from.Close() })()
	defer from.Close()
	var fault error
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(full)
		read := make([]byte, MaxDatagram+1)
		for {
			n, _, err := from.ReadFrom(read)
			if err != nil {
				if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
					fault = &redoubt.Error{Op: "diode.Receive", Kind: redoubt.Unavailable, Err: err}
				}
				return
			}
			full <- append((<-free)[:0], read[:n]...) // in memory of its own length: most roads have small ones
		}
	})
	for b := range full {
		s.Take(b)
		free <- b
	}
	reading.Wait()
	s.Settle()
	return fault
}
