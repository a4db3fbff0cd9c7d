package client

import (
	"context"
	"sync"
	"time"

	"redoubt"
)

// purse holds the credential in use, and gets another for work that outlives it.
type purse struct {
	mu     sync.Mutex // guards what follows; held while one is minted
	minted redoubt.Minted
	since  time.Time // by our clock, not the node's
	every  time.Duration
	mint   func(context.Context) (redoubt.Minted, error)
}

// Renew has requests signed by a new credential, which mint gives, when the one in use is older than every. While
// minting fails the old one serves on. It is called before the client is used.
func (o *Objects) Renew(every time.Duration, mint func(context.Context) (redoubt.Minted, error)) {
	o.who.mu.Lock()
	defer o.who.mu.Unlock()
	o.who.every, o.who.mint = every, mint
}

func (p *purse) open(ctx context.Context) redoubt.Minted {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mint != nil && time.Since(p.since) > p.every {
		if m, err := p.mint(ctx); err == nil {
			p.minted, p.since = m, time.Now()
		}
	}
	return p.minted
}
