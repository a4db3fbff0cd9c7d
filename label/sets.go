package label

import "math/bits"

// Sizes of the fixed bitsets that keep a Label comparable. A policy that needs more is refused by ReadSPIF.
const (
	maxCategories = 256 // restrictive categories of one policy; the USA policy uses about 60
	maxMarks      = 128 // handling marks of one policy; the USA policy uses about 60
	maxNations    = 320 // about 250 GENC trigraphs and room for groups
)

type (
	categorySet [maxCategories / 64]uint64
	nationSet   [maxNations / 64]uint64
	markSet     [maxMarks / 64]uint64
)

func (s *categorySet) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s *categorySet) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

func (s categorySet) empty() bool { return s == categorySet{} }

func (s categorySet) join(o categorySet) categorySet {
	for i := range s {
		s[i] |= o[i]
	}
	return s
}

func (s categorySet) meet(o categorySet) categorySet {
	for i := range s {
		s[i] &= o[i]
	}
	return s
}

func (s *nationSet) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s *nationSet) remove(i int)   { s[i/64] &^= 1 << (i % 64) }
func (s *nationSet) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

func (s nationSet) empty() bool { return s == nationSet{} }

func (s nationSet) count() int {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

func (s nationSet) join(o nationSet) nationSet {
	for i := range s {
		s[i] |= o[i]
	}
	return s
}

func (s nationSet) meet(o nationSet) nationSet {
	for i := range s {
		s[i] &= o[i]
	}
	return s
}

// one is the set of nation i alone.
func one(i int) nationSet {
	var s nationSet
	s.add(i)
	return s
}

func (s *markSet) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s *markSet) remove(i int)   { s[i/64] &^= 1 << (i % 64) }
func (s *markSet) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

func (s markSet) empty() bool { return s == markSet{} }

func (s markSet) join(o markSet) markSet {
	for i := range s {
		s[i] |= o[i]
	}
	return s
}

func (s markSet) meet(o markSet) markSet {
	for i := range s {
		s[i] &= o[i]
	}
	return s
}
