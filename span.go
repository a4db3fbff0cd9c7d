package redoubt

import (
	"cmp"
	"slices"
	"strconv"
)

// NumberSpan is a range of a bundle numbering, or of other numbers, both ends in it.
type NumberSpan struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

func (s NumberSpan) String() string {
	if s.From == s.To {
		return strconv.FormatUint(s.From, 10)
	}
	return strconv.FormatUint(s.From, 10) + "-" + strconv.FormatUint(s.To, 10)
}

// AddSpan keeps spans in order, apart and as few as there can be.
func AddSpan(spans []NumberSpan, s NumberSpan) []NumberSpan {
	out := make([]NumberSpan, 0, len(spans)+1)
	for _, t := range spans {
		if t.From > s.To && t.From-s.To > 1 || s.From > t.To && s.From-t.To > 1 {
			out = append(out, t)
			continue
		}
		s = NumberSpan{min(s.From, t.From), max(s.To, t.To)}
	}
	at, _ := slices.BinarySearchFunc(out, s, func(a, b NumberSpan) int { return cmp.Compare(a.From, b.From) })
	return slices.Insert(out, at, s)
}

// CutSpan takes one number out of spans.
func CutSpan(spans []NumberSpan, n uint64) (out []NumberSpan) {
	for _, s := range spans {
		if n < s.From || n > s.To {
			out = append(out, s)
			continue
		}
		if s.From < n {
			out = append(out, NumberSpan{s.From, n - 1})
		}
		if n < s.To {
			out = append(out, NumberSpan{n + 1, s.To})
		}
	}
	return out
}

// InSpans says whether a number is in one of the spans.
func InSpans(spans []NumberSpan, n uint64) bool {
	return slices.ContainsFunc(spans, func(s NumberSpan) bool { return s.From <= n && n <= s.To })
}
