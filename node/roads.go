package node

import (
	"context"
	"crypto/x509"
	"log/slog"
	"maps"
	"math"
	"path/filepath"
	"sync"
	"time"

	"redoubt"
	"redoubt/carry"
)

// roads is what was found of the roads to peers over UDP, as carriage tells it. It is a hint: who lost it, or has one of another road, finds
// it anew at the price of what is sent too fast meanwhile.
type roads struct {
	mu    sync.Mutex
	found map[redoubt.NodeName]carry.Road
	news  bool // that is not on disk
}

// roadsFile keeps it, so that a node that lost its power does not begin anew.
const roadsFile = "roads"

// How often it is looked at, and how much of the rate has to be news to be worth a write.
const (
	roadsEvery = 5 * time.Second
	roadsNews  = 0.2
	maxRoads   = 300 // within maxStateFileBytes; of further peers nothing is kept
)

// readRoads reads what was kept. A file that cannot be read is as good as none: it is a hint.
func (p *peers) readRoads() {
	found := map[redoubt.NodeName]carry.Road{}
	if err := readJSON(filepath.Join(p.dir, roadsFile), &found); err != nil && redoubt.KindOf(err) != redoubt.NotFound {
		p.log.Warn("what was found of the roads to peers is lost", slog.String("why", reason(err)))
		clear(found)
	}
	p.roads.found = found
}

// road is what is known of the road to a peer.
func (p *peers) road(peer redoubt.NodeName) carry.Road {
	p.roads.mu.Lock()
	defer p.roads.mu.Unlock()
	return p.roads.found[peer]
}

// recall is road by what a peer proves.
func (p *peers) recall(cert *x509.Certificate) carry.Road {
	l, ok := p.who(cert)
	if !ok {
		return carry.Road{}
	}
	return p.road(l.Peer)
}

// rememberRoads keeps what meetings find.
func (p *peers) rememberRoads(ctx context.Context) {
	tick := time.NewTicker(roadsEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		seen := map[redoubt.NodeName]carry.Road{}
		p.mu.Lock()
		for peer, m := range p.meetings {
			if !m.over {
				seen[peer] = m.conn.Stats().Road
			}
		}
		p.mu.Unlock()
		if all := p.roads.learn(seen, p.cloud.Links()); all != nil {
			if err := writeJSON(filepath.Join(p.dir, roadsFile), all); err != nil {
				p.log.Warn("what was found of the roads to peers is not kept", slog.String("why", reason(err)))
			}
		}
	}
}

// forgetRoad is for a peer that is met over TCP: UDP is closed now, and not waited for as long again.
func (p *peers) forgetRoad(peer redoubt.NodeName) {
	r := &p.roads
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.found[peer]; known {
		delete(r.found, peer)
		r.news = true
	}
}

// learn takes what was seen, and gives all that is known where enough of it is news; else nil. Peers whose link has ended are forgotten.
func (r *roads) learn(seen map[redoubt.NodeName]carry.Road, links map[redoubt.NodeName]redoubt.Link) map[redoubt.NodeName]carry.Road {
	r.mu.Lock()
	defer r.mu.Unlock()
	for peer, now := range seen {
		before, known := r.found[peer]
		if now.DatagramBytes == 0 { // not found yet
			now.DatagramBytes = before.DatagramBytes
		}
		if !known && len(r.found) >= maxRoads {
			continue
		}
		if now.BytesPerSec > 0 && (math.Abs(now.BytesPerSec-before.BytesPerSec) >= roadsNews*before.BytesPerSec || now.DatagramBytes != before.DatagramBytes) {
			r.found[peer], r.news = now, true
		}
	}
	if !r.news {
		return nil
	}
	r.news = false
	maps.DeleteFunc(r.found, func(peer redoubt.NodeName, _ carry.Road) bool {
		_, stands := links[peer]
		return !stands
	})
	return maps.Clone(r.found)
}
