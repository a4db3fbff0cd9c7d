package carry

import "slices"

// span is the bytes [from, to) of a stream.
type span struct{ from, to uint64 }

// spans is a set of bytes as disjoint, sorted stretches that do not touch.
type spans []span

// add puts [from, to) into the set.
func (s *spans) add(from, to uint64) {
	list := *s
	i := list.search(from)
	j := i
	for j < len(list) && list[j].from <= to {
		from, to = min(from, list[j].from), max(to, list[j].to)
		j++
	}
	*s = slices.Replace(list, i, j, span{from, to})
}

// prefix is how far the set reaches from at without a gap.
func (s spans) prefix(at uint64) uint64 {
	for _, a := range s {
		if a.from > at {
			break
		}
		at = max(at, a.to)
	}
	return at
}

// drop takes everything below at out of the set.
func (s *spans) drop(at uint64) {
	list := *s
	i := 0
	for i < len(list) && list[i].to <= at {
		i++
	}
	list = slices.Delete(list, 0, i)
	if len(list) > 0 && list[0].from < at {
		list[0].from = at
	}
	*s = list
}

// has tells whether all of [from, to) is in the set.
func (s spans) has(from, to uint64) bool {
	i := s.search(from + 1)
	return i < len(s) && s[i].from <= from && to <= s[i].to
}

// search gives the first stretch that ends at or after at.
func (s spans) search(at uint64) int {
	i, _ := slices.BinarySearchFunc(s, at, func(a span, at uint64) int {
		if a.to < at {
			return -1
		}
		return 1
	})
	return i
}
