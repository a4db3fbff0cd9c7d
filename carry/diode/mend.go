package diode

import (
	"errors"
	"os"
	"path/filepath"
)

// mending makes blocks, and files of them, until the Stage closes.
func (s *Stage) mending() {
	defer close(s.ended)
	var m mender
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for len(s.jobs) == 0 && !s.closed {
			s.rest.Broadcast()
			s.work.Wait()
		}
		if s.closed {
			s.jobs = nil
			s.rest.Broadcast()
			return
		}
		j := s.jobs[0]
		s.jobs, s.busy = s.jobs[1:], true
		var told []Event
		if j.block >= 0 {
			told = s.mend(&m, j.t, j.block)
		} else {
			told = s.end(&m, j.t)
		}
		s.mu.Unlock()
		s.alarms.say(told...)
		s.mu.Lock()
		s.busy = false
	}
}

// mend makes one block. It is called with mu held, and lets go of it for the work: the block is busy, so nobody else touches it.
func (s *Stage) mend(m *mender, t *transfer, block int) []Event {
	set := t.have[block]
	s.mu.Unlock()
	err := m.mend(t, block, set)
	s.mu.Lock()
	if err != nil {
		again := t.forget(block)
		if !errors.Is(err, errSpoiled) {
			return s.fault(t.manifest, errors.Join(err, again))
		}
		s.counts.Spoiled++
		return []Event{{Kind: Spoiled, Sheet: t.Sheet}}
	}
	if err := t.markWhole(block); err != nil {
		return s.fault(t.manifest, err)
	}
	if t.whole == t.blocks() {
		s.enqueue(t, -1)
	}
	return nil
}

// end makes a file of a transfer whose blocks are whole. What another process found whole is looked at once more: the machine may have
// lost power since.
func (s *Stage) end(m *mender, t *transfer) []Event {
	defer func() { t.ending = false }() // until it is over, nobody else begins it
	if !t.named && s.book.has(t.ID) {   // in another cut
		s.done = remember(s.done, t.id, maxRecent)
		s.discard(t)
		return nil
	}
	spare := ""
	if last := len(s.spares) - 1; last >= 0 && t.inMemory() {
		spare, s.spares = s.spares[last], s.spares[:last]
	}
	s.mu.Unlock()
	var spoiled []int
	if t.resumed {
		for b := range t.blocks() {
			if !m.check(t, b) {
				spoiled = append(spoiled, b)
			}
		}
	}
	var name string
	var err error
	if len(spoiled) == 0 {
		name, err = t.settle(s.dir, spare)
	}
	s.mu.Lock()
	for _, b := range spoiled {
		s.counts.Spoiled++
		err = errors.Join(err, t.forget(b))
	}
	if errors.Is(err, errUnsaved) { // what of it is on disk nobody knows
		s.discard(t)
		if t.named {
			os.Remove(filepath.Join(s.dir, name))
		}
	}
	if err != nil {
		return s.fault(t.manifest, err)
	}
	if len(spoiled) > 0 {
		return []Event{{Kind: Spoiled, Sheet: t.Sheet}}
	}
	s.book.note(&t.Sheet)
	if t.inMemory() {
		s.unsaved = append(s.unsaved, filepath.Join(s.dir, name))
		s.wakeSaver()
	} else {
		s.mu.Unlock()
		err := s.record()
		s.mu.Lock()
		if err != nil {
			return s.fault(t.manifest, err)
		}
	}
	s.done = remember(s.done, t.id, maxRecent)
	for _, x := range s.moving {
		if x.ID == t.ID && (x == t || x.idle()) { // it may have been sent in two cuts
			s.discard(x)
		}
	}
	return []Event{{Kind: Whole, Sheet: t.Sheet, File: filepath.Join(s.dir, name)}}
}
