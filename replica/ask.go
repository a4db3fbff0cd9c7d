package replica

import (
	"context"
	"slices"

	"redoubt"
)

// After a break some of what is not acknowledged on record may have come all the same: acknowledgements are put on record once a second, and
// one entry that waits holds the position before those that came behind it. Where more waits than the question costs, the
// peer is asked which of it is lacking: 16 bytes an entry, and a round trip. In the steady state nothing is asked.

// askAbove is how many bytes have to wait for that: some ten messages of small entries.
const askAbove = 16 << 10

// entryCost is about what an entry takes beside its content.
const entryCost = 300

// surelyLacking divides a page: the peer is not asked about flash, and about what it said that it has in part. Those go at once: the road would
// be idle until the answer comes.
func (s *Session) surelyLacking(set string, refs []redoubt.JournalRef) (sure, others []redoubt.JournalRef) {
	s.keptMu.Lock()
	defer s.keptMu.Unlock()
	for _, r := range refs {
		if r.Precedence == redoubt.Flash || s.kept[r.Stamp].Set == set {
			sure = append(sure, r)
		} else {
			others = append(others, r)
		}
	}
	return sure, others
}

// askFirst is how many are asked about first; where the peer has any of them, twice as many the next time.
const askFirst = 32

// winnow leaves out of a page of the journal, the last one or not, what the peer has.
func (s *Session) winnow(ctx context.Context, out *outgoing, refs []redoubt.JournalRef, last bool) (keep []redoubt.JournalRef, err error) {
	waits := int64(0)
	for _, r := range refs {
		waits += r.SizeBytes + entryCost
	}
	if last { // what comes behind this is new
		delete(s.asking, out.set)
	}
	if waits < askAbove {
		return refs, nil
	}
	for n := askFirst; len(refs) > 0; n *= 2 {
		some := refs[:min(n, len(refs))]
		refs = refs[len(some):]
		ask := inquiry{Set: out.set}
		for _, r := range some {
			ask.Stamps = append(ask.Stamps, r.Stamp)
		}
		lacks, err := s.ask(ctx, ask)
		if err != nil {
			return nil, err
		}
		all := true
		for i, r := range some {
			if all = all && lacks[i]; lacks[i] {
				keep = append(keep, r)
			}
		}
		if all { // and so it will be with what is newer
			delete(s.asking, out.set)
			return append(keep, refs...), nil
		}
	}
	return keep, nil
}

// ask asks which of some stamps the peer lacks.
func (s *Session) ask(ctx context.Context, m inquiry) ([]bool, error) {
	if err := s.o.Conn.Send(ctx, redoubt.Immediate, m.encode()); err != nil {
		return nil, err
	}
	select {
	case msg := <-s.lacking:
		return decodeLacking(msg, len(m.Stamps))
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// answerInquiry answers a peer that asks.
func (s *Session) answerInquiry(ctx context.Context, msg []byte) error {
	m, err := decodeInquiry(msg)
	if err != nil {
		return err
	}
	lacks, err := s.o.Journal.Lacking(ctx, s.o.Peer, m.Set, m.Stamps)
	if err != nil {
		return err
	}
	return s.say(ctx, redoubt.Immediate, encodeLacking(m.Stamps, lacks))
}

// tellKept says in a hello what is kept of the peer's.
func (s *Session) tellKept(ctx context.Context) (out []kept, err error) {
	all, err := s.o.Journal.Arriving(ctx, s.o.Peer)
	if err != nil {
		return nil, err
	}
	for _, a := range all[:min(len(all), redoubt.MaxArrivals)] { // nothing of them is read: the digest is on record
		out = append(out, kept{Arrival: a})
	}
	return out, nil
}

// heardIslands takes the note that came before the peer's hello, where one did.
func (s *Session) heardIslands(theirs *hello) error {
	for i, m := range s.early {
		if m.p != redoubt.Flash || m.msg[0] != msgNote {
			continue
		}
		kind, body, err := decodeNote(m.msg)
		if err != nil {
			return err
		}
		if kind == noteIslands {
			s.islands = true
			s.early = slices.Delete(s.early, i, i+1)
			return joinApart(theirs.Kept, body)
		}
	}
	return nil
}

// heardKept remembers what the peer keeps of what this node sent.
func (s *Session) heardKept(all []kept) {
	s.keptMu.Lock()
	defer s.keptMu.Unlock()
	for _, k := range all {
		s.kept[k.Stamp] = k
	}
}

// resumes is what the peer keeps of a version, told once: sent again in the same session it goes from its beginning.
func (s *Session) resumes(set string, stamp redoubt.Stamp) (k kept) {
	s.keptMu.Lock()
	defer s.keptMu.Unlock()
	if k = s.kept[stamp]; k.Set != set {
		return kept{}
	}
	delete(s.kept, stamp)
	return k
}
