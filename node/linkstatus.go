package node

import (
	"context"
	"encoding/base64"
	"errors"
	"path/filepath"
	"slices"
	"time"

	"redoubt"
	"redoubt/carry"
)

// LinkStatuses tells of the links; see redoubt.LinkService.
func (p *peers) LinkStatuses(ctx context.Context, who redoubt.Credential) ([]redoubt.LinkStatus, error) {
	shows, err := p.cloud.LinkView(ctx, who)
	if err != nil {
		return nil, err
	}
	out := []redoubt.LinkStatus{}
	links := p.cloud.Links()
	for _, peer := range sortedNames(links) {
		if links[peer].Raise != redoubt.NoRaise { // RaiseService tells of it
			continue
		}
		s := redoubt.LinkStatus{Peer: peer, State: "down", PeerKey: base64.StdEncoding.EncodeToString(links[peer].Key)}
		if s.Pending, err = p.cloud.Pending(ctx, peer, shows); err != nil {
			return nil, err
		}
		if s.Budgets, err = p.spending(ctx, peer, shows); err != nil {
			return nil, err
		}
		p.describe(&s, shows, boundShown(links[peer], shows))
		if p.device != nil && peer == p.device.home {
			s.Home, s.LeaseExpires = true, p.device.lease().Expires
		} else {
			s.LeaseExpires = p.cloud.LeaseEnds(peer)
		}
		out = append(out, s)
	}
	return out, nil
}

// spending tells of the budgets of the label sets that the reader dominates.
func (p *peers) spending(ctx context.Context, peer redoubt.NodeName, shows func(string) bool) (all []redoubt.LinkBudget, err error) {
	sets, err := p.cloud.Sets(ctx, peer)
	if err != nil {
		return nil, err
	}
	today := redoubt.BudgetDay(time.Now())
	for _, set := range sets {
		if !shows(set) {
			continue
		}
		b, err := p.cloud.Budget(ctx, peer, set)
		if err != nil {
			return nil, err
		}
		if b.PerDay == 0 {
			continue
		}
		if b.Day < today { // a later one is kept to: the clock was set back
			b.Spent = 0
		}
		all = append(all, b)
	}
	return all, nil
}

// boundShown says whether the reader dominates all that the link carries: how fast the road answers and how much it is
// believed to take move with what goes over it at every label (RULES 3.4).
func boundShown(l redoubt.Link, shows func(string) bool) bool {
	text, err := l.Bound.MarshalText()
	return err == nil && shows(string(text))
}

// describe fills in what the meeting tells. whole: the reader dominates the link's bound.
func (p *peers) describe(s *redoubt.LinkStatus, shows func(string) bool, whole bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Cut, s.Silent = p.cut[s.Peer], p.silent
	m := p.meetings[s.Peer]
	if m == nil {
		return
	}
	status := m.said
	if !m.over {
		status = m.session.Status()
	}
	for set, n := range status.UnderWay {
		if shows(set) {
			s.UnderWay += n
		}
	}
	var rested int64
	for set, n := range status.Sent {
		if shows(set) {
			s.Sent += n
			s.SentBytes += status.SentBytes[set]
			rested += status.Rested[set]
		}
	}
	for set, n := range status.Received {
		if shows(set) {
			s.Received += n
		}
	}
	s.LastContact = m.last.UTC().Truncate(contactGrain)
	if m.over {
		return
	}
	road := m.conn.Stats()
	s.LastContact = road.LastHeard.UTC().Truncate(contactGrain)
	if road.State == carry.Up && !status.LastHeard.IsZero() {
		s.State, s.Road = "up", m.road
		if done := s.SentBytes - rested + s.UnderWay; s.Pending.Bytes > 0 && done > 0 {
			s.Progress = float64(done) / float64(s.SentBytes-rested+s.Pending.Bytes)
		}
	}
	if whole && s.State == "up" {
		s.RTTMillis, s.BytesPerSec = float64(road.RTT)/float64(time.Millisecond), road.BytesPerSec
		s.Pending.Estimate(s.BytesPerSec, s.UnderWay)
	}
}

func sortedNames[T any](m map[redoubt.NodeName]T) []redoubt.NodeName {
	names := make([]redoubt.NodeName, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// CutLink cuts a link or restores it; see redoubt.LinkService.
func (p *peers) CutLink(ctx context.Context, who redoubt.Credential, peer redoubt.NodeName, cut bool) error {
	if err := p.cloud.DecideCut(ctx, who, peer, cut); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	next := map[redoubt.NodeName]bool{}
	for other := range p.cut {
		next[other] = true
	}
	if next[peer] = cut; !cut {
		delete(next, peer)
	}
	if err := writeJSON(filepath.Join(p.dir, cutsFile), sortedNames(next)); err != nil {
		return err
	}
	p.cut = next
	if m := p.meetings[peer]; cut && m != nil {
		m.stop()
	}
	if !cut {
		p.changed()
	}
	return nil
}

// SilenceLink begins a device's radio silence or ends it; see redoubt.LinkService. It is on the disk before anything changes, so that a node
// that is killed meanwhile comes back as it was told to be.
func (p *peers) SilenceLink(ctx context.Context, who redoubt.Credential, peer redoubt.NodeName, silent bool) error {
	if p.device == nil { // before the decision: the record shall tell of no silence that never was
		return &redoubt.Error{Op: "SilenceLink", Object: string(peer), Kind: redoubt.Invalid, Err: errors.New("radio silence is a device's"), Hint: "redoubt link cut " + string(peer) + ", which sends it nothing either"}
	}
	if err := p.cloud.DecideSilence(ctx, who, peer, silent); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := writeJSON(filepath.Join(p.dir, silentFile), silent); err != nil {
		return err
	}
	p.silent = silent
	p.reach.keep(silent)
	if p.udp != nil {
		p.udp.SetSilent(silent)
	}
	p.changed()
	if !silent {
		return p.openDoor()
	}
	for _, m := range p.meetings {
		if m.road == "tcp" { // TCP cannot listen without answering
			m.stop()
		}
	}
	return p.shutDoor()
}

// changed has dial look anew at whether it may, with mu held.
func (p *peers) changed() {
	close(p.restored)
	p.restored = make(chan struct{})
}
