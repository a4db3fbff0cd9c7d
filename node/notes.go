package node

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"redoubt"
	"redoubt/replica"
)

// The notes that nodes send one another.
const (
	noteLease      = "lease"      // home: a renewed redoubt.Lease, JSON
	noteMakers     = "makers"     // home: the keys of its devices, homesWord, JSON
	noteNeighbours = "neighbours" // home: the devices that may be met without it, homesWord, JSON
	noteWipe       = "wipe"       // home: hand over what you have (or, "now", do not) and destroy your keys
	noteWiped      = "wiped"      // device: it is done
)

// met says what a home has to say at the beginning of a meeting.
func (p *peers) met(ctx context.Context, s *replica.Session, peer redoubt.NodeName) error {
	if p.device != nil {
		return nil
	}
	believed := p.makersNews()
	makers, err := p.makersNotes()
	if err != nil {
		return err
	}
	for _, body := range makers {
		if err := s.Tell(ctx, noteMakers, body); err != nil {
			return err
		}
	}
	neighbours, of := p.neighboursOf(peer)
	if err := s.Tell(ctx, noteNeighbours, neighbours); err != nil {
		return err
	}
	p.mu.Lock()
	if m := p.meetings[peer]; m != nil && m.session == s {
		m.toldOf, m.makers = &of, believed
	}
	p.tellNeighbours() // of what changed meanwhile
	p.mu.Unlock()
	if wipe, now := p.cloud.WipeOrdered(peer); wipe {
		return s.Tell(ctx, noteWipe, wipeBody(now))
	}
	for {
		lease, err := p.cloud.RenewLease(ctx, peer)
		if errors.Is(err, redoubt.Denied) {
			return nil // it has ended; what is next is told by tellOrders
		}
		var body []byte
		if err == nil {
			body, err = json.Marshal(lease)
		}
		if err == nil {
			err = s.Tell(ctx, noteLease, body)
		}
		if err != nil {
			return err
		}
		select {
		case <-time.After(lease.Life() / 4):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func wipeBody(now bool) []byte {
	if now {
		return []byte("now")
	}
	return nil
}

// tellOrders tells devices that are being met what was ordered meanwhile, each once. It waits for nobody: who cannot be told now
// is told at the next meeting.
func (p *peers) tellOrders() {
	if p.device != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tellNeighbours()
	for peer, m := range p.meetings {
		wipe, now := p.cloud.WipeOrdered(peer)
		order := string(wipeBody(now)) + "!"
		if wipe && !m.over && m.told != order && m.session.Offer(noteWipe, wipeBody(now)) {
			m.told = order
		}
	}
}

// noted takes what the peer has to say.
func (p *peers) noted(ctx context.Context, s *replica.Session, peer redoubt.NodeName, kind string, body []byte) error {
	if p.device != nil && peer == p.device.home {
		return p.device.noted(ctx, p, s, kind, body)
	}
	if kind == noteWiped {
		return p.cloud.DeviceWiped(ctx, peer)
	}
	return nil // a kind that a later version knows
}
