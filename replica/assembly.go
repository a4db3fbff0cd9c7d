package replica

import (
	"slices"

	"redoubt"
)

// run is bytes [from, to) of what a segment is packed in, and runs are such, ascending; a set of them has none that touch.
type (
	run  struct{ from, to int }
	runs []run
)

// add puts bytes into a set.
func (s *runs) add(from, to int) {
	if from >= to {
		return
	}
	list := *s
	i := 0
	for i < len(list) && list[i].to < from {
		i++
	}
	j := i
	for j < len(list) && list[j].from <= to {
		from, to = min(from, list[j].from), max(to, list[j].to)
		j++
	}
	*s = slices.Replace(list, i, j, run{from, to})
}

// prefix is how far a set reaches from 0.
func (s runs) prefix() int {
	if len(s) == 0 || s[0].from > 0 {
		return 0
	}
	return s[0].to
}

// total is how many bytes there are.
func (s runs) total() (n int) {
	for _, r := range s {
		n += r.to - r.from
	}
	return n
}

// lacks gives what of the first size bytes a set has not.
func (s runs) lacks(size int) (out runs) {
	at := 0
	for _, r := range s {
		if at < min(r.from, size) {
			out = append(out, run{at, min(r.from, size)})
		}
		at = max(at, r.to)
	}
	if at < size {
		out = append(out, run{at, size})
	}
	return out
}

// within gives where n bytes lie that stand at some place of what runs have in all.
func (s runs) within(at, n int) (out runs) {
	for _, r := range s {
		if n == 0 {
			break
		}
		length := r.to - r.from
		if at >= length {
			at -= length
			continue
		}
		take := min(n, length-at)
		out = append(out, run{r.from + at, r.from + at + take})
		at, n = 0, n-take
	}
	return out
}

// assembly is a segment that comes together. Pieces fill what it lacked when it began, in order; what has come of pieces that are not whole lies
// where it will stand.
type assembly struct {
	size   int    // of what it is packed in
	b      []byte // of that, up to the furthest that is there; have says which are
	have   runs
	lacked runs // when it began: what pieces fill
	open   int  // bytes of that, of which
	filled int  // so many came in whole pieces

	kept    int  // of its head and its first bytes, what is durable; 0: nothing that may be gone on from
	islands runs // durable behind that; one may touch the next
}

// begin prepares for a segment of so many bytes, of which some are there.
func (x *assembly) begin(size int) {
	x.size, x.lacked, x.filled = size, x.have.lacks(size), 0
	x.open = x.lacked.total()
}

// left is how much of it pieces have to bring.
func (x *assembly) left() int { return x.open - x.filled }

// put lays bytes down that begin at some place of the segment.
func (x *assembly) put(from int, b []byte) {
	if x.b == nil { // not before: what is to come is only announced
		x.b = room(int64(x.size))
	}
	if end := from + len(b); end > len(x.b) {
		if end > cap(x.b) {
			x.b = larger(x.b, end, x.size)
		}
		x.b = x.b[:end]
	}
	copy(x.b[from:], b)
	x.have.add(from, from+len(b))
}

// piece takes a whole piece.
func (x *assembly) piece(b []byte) {
	n := len(b)
	x.show(0, b)
	x.filled += n
}

// show lays down bytes of the pieces that come, which stand at some place behind those that were whole, and says how many are new.
func (x *assembly) show(at int, b []byte) (fresh int) {
	before := x.have.total()
	for _, r := range x.lacked.within(x.filled+at, len(b)) {
		n := r.to - r.from
		x.put(r.from, b[:n])
		b = b[n:]
	}
	return x.have.total() - before
}

// fresh is how many bytes are there and not durable.
func (x *assembly) fresh() int {
	return segmentHead + x.have.total() - x.kept - x.islands.total()
}

// unkept gives what may be kept next: of the part, which has a head that is told, and of the islands, if any are.
func (x *assembly) unkept(head []byte, apart bool) (part redoubt.Stretch, islands []redoubt.Stretch) {
	prefix := x.have.prefix()
	part = redoubt.Stretch{From: int64(x.kept)}
	if x.kept == 0 {
		part.Bytes = append(slices.Clip(head), x.b[:prefix]...)
	} else {
		part.Bytes = x.b[x.kept-segmentHead : prefix]
	}
	if !apart {
		return part, nil
	}
	var durable runs
	count, total := 0, 0
	for _, r := range x.islands {
		durable.add(r.from, r.to)
		if r.from > prefix && x.kept > 0 {
			count, total = count+1, total+r.to-r.from
		}
	}
	if x.kept == 0 {
		durable = nil // the part begins anew, and so do they
	}
	for _, r := range x.have {
		if r.from == 0 {
			continue
		}
		for _, lack := range durable.lacks(r.to) {
			lack.from = max(lack.from, r.from)
			n := min(lack.to-lack.from, redoubt.MaxIslandBytes-total)
			if n >= leastIsland && count < redoubt.MaxIslands {
				islands = append(islands, redoubt.Stretch{From: int64(segmentHead + lack.from), Bytes: x.b[lack.from : lack.from+n]})
				count, total = count+1, total+n
			}
		}
	}
	return part, islands
}

// leastIsland is what is worth keeping, and telling of, by itself.
const leastIsland = 256

// keptNow notes that what unkept gave is durable.
func (x *assembly) keptNow(part redoubt.Stretch, islands []redoubt.Stretch) {
	if x.kept == 0 {
		x.islands = nil
	}
	x.kept = int(part.From) + len(part.Bytes)
	x.islands = slices.DeleteFunc(x.islands, func(r run) bool { return segmentHead+r.from <= x.kept })
	for _, i := range islands {
		from := int(i.From) - segmentHead
		x.islands = append(x.islands, run{from, from + len(i.Bytes)})
	}
	slices.SortFunc(x.islands, func(a, b run) int { return a.from - b.from })
}
