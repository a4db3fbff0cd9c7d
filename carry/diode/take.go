package diode

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"redoubt"
)

// Take takes one datagram. What is forged, damaged, repeated or of no use changes nothing but Counts. b may be used again.
func (s *Stage) Take(b []byte) {
	var told []Event
	s.mu.Lock()
	p, err := s.tags.parse(b)
	switch {
	case s.closed:
	case err != nil:
		s.counts.Foreign++
	default:
		s.counts.Datagrams++
		s.runs.came(p.Run, p.Seq)
		if p.Kind == kindManifest {
			told = s.piece(&p)
		} else {
			told = s.shard(&p)
		}
	}
	s.mu.Unlock()
	s.alarms.say(told...)
}

// shard puts a shard where it belongs.
func (s *Stage) shard(p *packet) (told []Event) {
	t := s.moving[p.Transfer]
	if t == nil {
		if !slices.Contains(s.done, p.Transfer) && !slices.Contains(s.refused, p.Transfer) {
			s.counts.Early++
			s.early.add(p)
		}
		return nil
	}
	block, index := int(p.Block), int(p.Index)
	if block >= t.blocks() || index >= t.shards(block) || len(p.Payload) != t.shardBytes {
		s.counts.Foreign++
		return nil
	}
	fresh, enough, err := t.keep(block, index, p.Payload)
	if err != nil {
		return s.fault(t.manifest, err)
	}
	if fresh {
		s.counts.Shards++
		t.fed = time.Now()
	}
	if enough {
		s.enqueue(t, block)
	}
	if t.whole == t.blocks() && !t.ending { // it could not be made a file before
		s.enqueue(t, -1)
	}
	return nil
}

// idle: nobody makes a block or a file of it.
func (t *transfer) idle() bool { return !t.ending && !slices.Contains(t.state, blockBusy) }

// discard forgets a transfer.
func (s *Stage) discard(t *transfer) {
	delete(s.moving, t.id)
	t.close()
	if t.inMemory() {
		if cap(t.slab) <= MaxBare {
			s.slabs = append(s.slabs, t.slab)
			s.fewer(0)
		}
		return
	}
	os.RemoveAll(t.dir) // where that fails, the next Open removes it
}

// slab is memory for a transfer, with what was in it before: that of one that needs its own no more, where it is large enough, not much larger, and within
// the room that there is.
func (s *Stage) slab(m *manifest) (b []byte) {
	held, _ := s.holds(true)
	bytes := m.FileBytes + m.parityBytes()
	fits := func(b []byte) bool {
		size := int64(cap(b))
		return size >= bytes && size <= 2*bytes && held+m.holds()+size-bytes <= s.o.Memory
	}
	if i := slices.IndexFunc(s.slabs, fits); i >= 0 {
		b = s.slabs[i][:bytes]
		s.slabs = slices.Delete(s.slabs, i, i+1)
		return b
	}
	s.fewer(m.holds())
	return Room(int(bytes))
}

// maxSlabs is how many wait to be used again: while one bundle is made a file the next comes, and its successor begins. Where none is on its way, one waits.
const maxSlabs = 3

// fewer lets go of the oldest memory that waits, until what is held is within the limit with it and with so many bytes more.
func (s *Stage) fewer(more int64) {
	held, _ := s.holds(true)
	held += more
	for _, b := range s.slabs {
		held += int64(cap(b))
	}
	most := maxSlabs
	if len(s.moving) == 0 && more == 0 {
		most = 1
	}
	for len(s.slabs) > 0 && (held > s.o.Memory || len(s.slabs) > most) {
		held -= int64(cap(s.slabs[0]))
		s.slabs = slices.Delete(s.slabs, 0, 1)
	}
}

// seldomEvery is how often that is told which comes with every datagram.
const seldomEvery = time.Minute

func (s *Stage) seldom(e Event) []Event {
	if now := time.Now(); now.Sub(s.told) >= seldomEvery {
		s.told = now
		return []Event{e}
	}
	return nil
}

// fault tells of a disk that fails. What came is lost, as on the road; the next pass brings it.
func (s *Stage) fault(m *manifest, err error) []Event {
	return s.seldom(Event{Kind: Fault, Sheet: m.Sheet, Err: &redoubt.Error{Op: "diode.Stage", Object: s.dir, Err: err}})
}

func (s *Stage) enqueue(t *transfer, block int) {
	if block < 0 {
		t.ending = true
	} else {
		t.state[block] = blockBusy
	}
	s.jobs = append(s.jobs, job{t, block}) // one of each block at most
	s.work.Signal()
}

// piece takes a piece of a manifest; with the last of them a transfer begins.
func (s *Stage) piece(p *packet) []Event {
	if s.moving[p.Transfer] != nil || slices.Contains(s.done, p.Transfer) || slices.Contains(s.refused, p.Transfer) {
		return nil
	}
	raw := s.gather(p)
	if raw == nil {
		return nil
	}
	m, err := decodeManifest(raw)
	if err != nil { // its hash is the one that it was sent under: its sender made it so
		return s.refuse(p.Transfer, Event{Kind: Refused, Err: err})
	}
	if s.book.has(m.ID) || m.ID == s.leaving {
		s.done = remember(s.done, m.id, maxRecent)
		return nil
	}
	told, inMemory, err := s.admit(m)
	if errors.Is(err, redoubt.Unavailable) { // it may be taken when it comes round again
		return append(told, s.seldom(Event{Kind: Refused, Sheet: m.Sheet, Err: err})...)
	}
	if err != nil {
		e := Event{Kind: Refused, Sheet: m.Sheet, Err: err}
		if errors.Is(err, redoubt.TooLarge) {
			e.Needs = m.holds()
		}
		return append(told, s.refuse(m.id, e)...)
	}
	var t *transfer
	if inMemory {
		t = createInMemory(m, s.slab(m))
	} else if t, err = create(s.path(""), m); err != nil {
		return append(told, s.fault(m, err)...)
	}
	t.fed = time.Now()
	s.moving[m.id] = t
	told = append(told, Event{Kind: Began, Sheet: m.Sheet})
	for _, p := range s.early.of(m.id) {
		told = append(told, s.shard(&p)...)
	}
	return told
}

func (s *Stage) refuse(id transferID, e Event) []Event {
	s.refused = remember(s.refused, id, maxRefused)
	if s.o.Key == nil { // anybody can make up any number of them
		return s.seldom(e)
	}
	return []Event{e}
}

// remember keeps the newest of some transfers.
func remember(all []transferID, id transferID, most int) []transferID {
	if all = append(all, id); len(all) > most {
		all = slices.Delete(all, 0, len(all)-most)
	}
	return all
}

// admit says whether a bundle may be staged, and whether in memory. One that is stale gives way where there is no room.
func (s *Stage) admit(m *manifest) (told []Event, inMemory bool, err error) {
	refuse := func(kind redoubt.Kind, why, hint string) ([]Event, bool, error) {
		return told, false, &redoubt.Error{Op: "diode.Stage", Kind: kind, Err: errors.New(why), Hint: hint}
	}
	if s.o.Makers != nil {
		key, ok := s.o.Makers[m.Maker]
		if !ok {
			return refuse(redoubt.Denied, "a bundle of "+string(m.Maker)+", whose bundles are not taken here", "--maker names those whose bundles are taken")
		}
		if !m.SignedBy(key) {
			return refuse(redoubt.Denied, "a bundle that "+string(m.Maker)+" did not sign", "it is forged, or that node has another key by now")
		}
	}
	if _, ok := m.For(s.o.For); !ok && s.o.For != "" {
		return refuse(redoubt.Denied, "a bundle that is for other nodes", "redoubt bundle inspect names them")
	}
	if m.bare() && (s.o.Key == nil || m.FileBytes > MaxBare || m.holds() > s.o.Memory) {
		return refuse(redoubt.Denied, "a bundle without digests of its blocks, which is not taken here", "have it sent with them")
	}
	if m.holds() > s.o.Hold {
		return refuse(redoubt.TooLarge, fmt.Sprintf("a bundle that takes %d bytes to receive, where %d may be held", m.holds(), s.o.Hold), "--hold allows more")
	}
	for _, in := range []struct {
		memory bool
		room   int64
		stale  time.Duration // 0: none gives way
	}{{true, s.o.Memory, 0}, {false, s.o.Hold, 0}, {true, s.o.Memory, staleMemory}, {false, s.o.Hold, staleAfter}} {
		for m.holds() <= in.room && (in.memory || !m.bare()) {
			held, oldest := s.holds(in.memory)
			if held+m.holds() <= in.room && len(s.moving) < MaxStaged {
				return told, in.memory, nil
			}
			if in.stale == 0 || oldest == nil || time.Since(oldest.fed) < in.stale || !oldest.idle() {
				break
			}
			s.discard(oldest)
			told = append(told, Event{Kind: Given, Sheet: oldest.Sheet})
		}
	}
	return refuse(redoubt.Unavailable, "there is no room for another bundle until one of those on their way is whole",
		"redoubt diode status tells what is on its way; what got nothing new for a day gives way")
}

// holds is what those on their way take, in memory or on disk, and which of them got nothing new for longest.
func (s *Stage) holds(inMemory bool) (held int64, oldest *transfer) {
	for _, t := range s.moving {
		if t.inMemory() != inMemory {
			continue
		}
		if held += t.holds() + int64(cap(t.slab)-len(t.slab)); oldest == nil || t.fed.Before(oldest.fed) {
			oldest = t
		}
	}
	return held, oldest
}
