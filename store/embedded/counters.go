package embedded

import (
	"encoding/binary"

	"redoubt/store"
)

// counts says whether a write changes a counter, and by how much.
func counts(w *store.Write) (delta int64, ok bool) {
	switch w.Op {
	case store.OpAdd:
		return w.Delta, true
	case store.OpNumber:
		return 1, true
	}
	return 0, false
}

// resolve works out what each counter that a batch changes becomes, without changing anything.
// Only committed state and this batch's own earlier writes count.
func (e *Engine) resolve(writes []store.Write) (values map[int][8]byte, err error) {
	adds := 0
	for i := range writes {
		if _, ok := counts(&writes[i]); ok {
			adds++
		}
	}
	if adds == 0 {
		return nil, nil
	}
	values = make(map[int][8]byte, adds)
	adding := make(map[string]int, adds) // key of a counter -> its last write so far
	for i := range writes {
		if _, ok := counts(&writes[i]); ok {
			adding[string(writes[i].Key)] = -1
		}
	}
	for i := range writes {
		w := &writes[i]
		last, ours := adding[string(w.Key)]
		if !ours {
			continue
		}
		if delta, ok := counts(w); ok {
			var old int64
			switch {
			case last < 0:
				old, err = e.counter(w.Key)
			case writes[last].Op == store.OpSet:
				old, err = counterValue(writes[last].Value)
			case writes[last].Op != store.OpDelete:
				v := values[last]
				old = int64(binary.LittleEndian.Uint64(v[:]))
			}
			if err != nil {
				return nil, err
			}
			var v [8]byte
			binary.LittleEndian.PutUint64(v[:], uint64(old+delta))
			values[i] = v
		}
		adding[string(w.Key)] = i
	}
	return values, nil
}

func counterValue(v []byte) (int64, error) {
	if len(v) != 8 {
		return 0, invalid("add to a value that is no counter")
	}
	return int64(binary.LittleEndian.Uint64(v)), nil
}

// counter is the value of a counter as of the last encoded batch: the frame being
// built is not in the index yet, but every key it wrote as a counter is remembered.
func (e *Engine) counter(key []byte) (int64, error) {
	if v, ok := e.pending[string(key)]; ok {
		if v == nil {
			return 0, nil
		}
		return counterValue(v)
	}
	if v, ok := e.counters[string(key)]; ok {
		return v, nil
	}
	var space [256]byte
	v, ok, err := lookup(e.idx, userKey(space[:0], key))
	if err != nil || !ok {
		return 0, err
	}
	return counterValue(v)
}

// remember keeps a counter at hand. A value that is no counter is only forgotten.
func (e *Engine) remember(key, value []byte) {
	if value == nil {
		value = []byte{}
	}
	e.pending[string(key)] = value
	if len(value) != 8 {
		delete(e.counters, string(key))
		return
	}
	if _, known := e.counters[string(key)]; !known && len(e.counters) >= maxCounters {
		for k := range e.counters { // any one; the index has it, or the frame
			delete(e.counters, k)
			break
		}
	}
	e.counters[string(key)] = int64(binary.LittleEndian.Uint64(value))
}
