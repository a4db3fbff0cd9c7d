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
	ticketsEvery   = 200 * time.Millisecond // between two writes: peers may come many at a time; while they go on coming it doubles, up to
	ticketsAtMost  = 10 * time.Second
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

// keepTickets keeps them as they change, the last time when the context ends.
func (p *peers) keepTickets(ctx context.Context) {
	wait, last := ticketsEvery, time.Time{}
	for {
		select {
		case <-p.tickets.Changed():
		case <-ctx.Done():
			select {
			case <-p.tickets.Changed():
				p.writeTickets()
			default:
			}
			return
		}
		wait = nextTicketsWait(wait, time.Since(last))
		p.writeTickets()
		last = time.Now()
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// nextTicketsWait is how long after a write there is no other, by how long the one before that was and how long ago.
func nextTicketsWait(wait, since time.Duration) time.Duration {
	if since > ticketsAtMost {
		return ticketsEvery
	}
	return min(2*wait, ticketsAtMost)
}

func (p *peers) writeTickets() {
	kept := p.tickets.Kept()
	defer clear(kept)
	if err := p.ring.SealFile(filepath.Join(p.dir, ticketsFile), purposeTickets, kept); err != nil {
		p.log.Warn("what short handshakes stand on is not kept", slog.String("why", reason(err)))
	}
}
