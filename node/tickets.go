package node

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"redoubt"
	"redoubt/carry"
	"redoubt/keys"
)

// ticketsFile keeps, sealed, what the next handshake with a peer is made short by, so that a node that lost its power does not begin anew.
const (
	ticketsFile    = "tickets"
	purposeTickets = "tickets"
	ticketsEvery   = 200 * time.Millisecond // between two writes: peers may come many at a time
)

// openTickets reads what was kept. What cannot be read is as good as none: peers are met in full.
func openTickets(dir string, ring *keys.Keyring, clock func() time.Time, log *slog.Logger) (*carry.Tickets, error) {
	kept, err := ring.OpenFile(filepath.Join(dir, ticketsFile), purposeTickets)
	if err == nil {
		defer clear(kept)
		var t *carry.Tickets
		if t, err = carry.NewTickets(kept, clock); err == nil {
			return t, nil
		}
	}
	if redoubt.KindOf(err) != redoubt.NotFound {
		log.Warn("what short handshakes stand on is lost", slog.String("why", reason(err)))
	}
	return carry.NewTickets(nil, clock)
}

// keepTickets keeps them as they change.
func (p *peers) keepTickets(ctx context.Context) {
	path := filepath.Join(p.dir, ticketsFile)
	for {
		select {
		case <-p.tickets.Changed():
		case <-ctx.Done():
			return
		}
		kept := p.tickets.Kept()
		if err := p.ring.SealFile(path, purposeTickets, kept); err != nil && ctx.Err() == nil {
			p.log.Warn("what short handshakes stand on is not kept", slog.String("why", reason(err)))
		}
		clear(kept)
		select {
		case <-time.After(ticketsEvery):
		case <-ctx.Done():
			return
		}
	}
}
