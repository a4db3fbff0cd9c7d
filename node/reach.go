package node

import (
	"context"
	"errors"
	"net"
	"sync"

	"redoubt"
)

// reach dials what jobs may connect to (estate: destinations). While a device keeps silent nothing is dialled, and what was is closed.
type reach struct {
	mu     sync.Mutex // guards what follows; nothing else is locked under it
	silent bool
	open   map[*reached]bool
	dials  map[*context.CancelFunc]bool // that are under way
}

// reached is a connection.
type reached struct {
	*net.TCPConn
	by *reach
}

// Close ends it.
func (c *reached) Close() error {
	c.by.mu.Lock()
	delete(c.by.open, c)
	c.by.mu.Unlock()
	return c.TCPConn.Close()
}

var errSilent = &redoubt.Error{Op: "Dial", Kind: redoubt.Unavailable, Err: errors.New("the device is in radio silence")}

// dial connects to an address of the estate file's.
func (r *reach) dial(ctx context.Context, address string) (redoubt.JobConn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.mu.Lock()
	if r.silent {
		r.mu.Unlock()
		return nil, errSilent
	}
	if r.open == nil {
		r.open, r.dials = map[*reached]bool{}, map[*context.CancelFunc]bool{}
	}
	r.dials[&cancel] = true
	r.mu.Unlock()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.dials, &cancel)
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	switch {
	case !ok:
		return nil, errors.Join(errors.New("not a connection over TCP"), c.Close())
	case r.silent:
		return nil, errors.Join(errSilent, c.Close())
	}
	out := &reached{tcp, r}
	r.open[out] = true
	return out, nil
}

// keep begins silence, or ends it.
func (r *reach) keep(silent bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.silent = silent; !silent {
		return
	}
	for cancel := range r.dials {
		(*cancel)()
	}
	for c := range r.open {
		_ = c.SetLinger(0) // what it has not sent yet is not sent
		_ = c.TCPConn.Close()
	}
	clear(r.open)
}
