package diode

import (
	"bytes"
	"slices"
)

// pending is a manifest of which pieces came.
type pending struct {
	pieces [][]byte
	n      int
	bytes  int
	order  int64 // of its newest piece
}

// gather keeps a piece, and gives the manifest when it was the last. Pieces that do not make what the transfer's name says are all
// forgotten: one of them was forged, and nobody can tell which.
func (s *Stage) gather(p *packet) (raw []byte) {
	x := s.pending[p.Transfer]
	if x == nil || len(x.pieces) != int(p.Block) { // no manifest comes in two numbers of pieces: one of them was forged
		x = &pending{pieces: make([][]byte, p.Block)}
		s.pending[p.Transfer] = x
	}
	x.order = s.counts.Datagrams
	if x.pieces[p.Index] != nil {
		return nil
	}
	x.pieces[p.Index] = bytes.Clone(p.Payload)
	x.n++
	x.bytes += len(p.Payload)
	if x.n == len(x.pieces) {
		delete(s.pending, p.Transfer)
		if raw = bytes.Join(x.pieces, nil); idOf(raw) == p.Transfer {
			return raw
		}
		s.counts.Foreign += int64(x.n)
		return nil
	}
	s.trim()
	return nil
}

// pieceCost is what an awaited piece takes in memory beside itself.
const pieceCost = 24

// trim forgets the manifests that were fed least recently, until the rest is within the limits.
func (s *Stage) trim() {
	for {
		held, oldest := 0, transferID{}
		for id, x := range s.pending {
			held += x.bytes + pieceCost*len(x.pieces)
			if o := s.pending[oldest]; o == nil || x.order < o.order {
				oldest = id
			}
		}
		if len(s.pending) <= maxPending && held <= maxPendBytes {
			return
		}
		delete(s.pending, oldest)
	}
}

// early keeps shards whose manifest has not come, the newest of them.
type early struct {
	packets []packet
	bytes   int
}

// earlyCost is what a shard that is kept takes beside itself.
const earlyCost = 80

func (e *early) add(p *packet) {
	kept := *p
	kept.Payload = bytes.Clone(p.Payload)
	e.packets = append(e.packets, kept)
	e.bytes += len(p.Payload) + earlyCost
	drop := 0
	for ; e.bytes > maxEarly; drop++ {
		e.bytes -= len(e.packets[drop].Payload) + earlyCost
	}
	e.packets = slices.Delete(e.packets, 0, drop)
}

// of gives those of a transfer, and keeps them no longer.
func (e *early) of(id transferID) (all []packet) {
	e.packets = slices.DeleteFunc(e.packets, func(p packet) bool {
		if p.Transfer != id {
			return false
		}
		all = append(all, p)
		e.bytes -= len(p.Payload) + earlyCost
		return true
	})
	return all
}

// maxSenders bounds the runs whose numbers are followed.
const maxSenders = 16

// runs follow the numbers of datagrams, to tell how many were lost. They are a help to who plans parity and nothing hangs on them.
type runs struct {
	all  []*run // the newest last
	past int64  // lost in runs that are followed no more
}

type run struct {
	id            uint32
	first, newest uint32
	came          int64
}

func (r *run) lost() int64 { return max(0, int64(r.newest-r.first)+1-r.came) }

func (r *runs) came(id, seq uint32) {
	i := slices.IndexFunc(r.all, func(x *run) bool { return x.id == id })
	if i < 0 {
		if len(r.all) == maxSenders {
			r.past += r.all[0].lost()
			r.all = slices.Delete(r.all, 0, 1)
		}
		r.all = append(r.all, &run{id: id, first: seq, newest: seq, came: 1})
		return
	}
	x := r.all[i]
	x.came++
	if int32(seq-x.newest) > 0 {
		x.newest = seq
	}
}

func (r *runs) lost() int64 {
	n := r.past
	for _, x := range r.all {
		n += x.lost()
	}
	return n
}
