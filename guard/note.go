package guard

import (
	"cmp"
	"slices"

	"redoubt"
)

// note is what a feeder knows of the one before it. It is not synced: what a power cut takes back of it is asked for once more.
type note struct {
	Have redoubt.BundleMark   // the newest that it had
	Sent uint64               // and the newest that it sent, or that the one before it did
	Over []redoubt.NumberSpan // those about which nothing is left to do
}

const noteName = "feed.json"

// isOver says whether nothing is left to do about a number.
func (n *note) isOver(serial uint64) bool { return inSpans(n.Over, serial) }

// over notes that nothing is left to do about the numbers of a span.
func (n *note) over(s redoubt.NumberSpan) {
	out := n.Over[:0:0]
	for _, t := range n.Over {
		if t.From > s.To && t.From-s.To > 1 || s.From > t.To && s.From-t.To > 1 {
			out = append(out, t)
			continue
		}
		s = redoubt.NumberSpan{From: min(s.From, t.From), To: max(s.To, t.To)}
	}
	at, _ := slices.BinarySearchFunc(out, s, func(a, b redoubt.NumberSpan) int { return cmp.Compare(a.From, b.From) })
	n.Over = slices.Insert(out, at, s)
}

// undo notes that something is left to do about a number.
func (n *note) undo(serial uint64) {
	var out []redoubt.NumberSpan
	for _, s := range n.Over {
		if serial < s.From || serial > s.To {
			out = append(out, s)
			continue
		}
		if s.From < serial {
			out = append(out, redoubt.NumberSpan{From: s.From, To: serial - 1})
		}
		if serial < s.To {
			out = append(out, redoubt.NumberSpan{From: serial + 1, To: s.To})
		}
	}
	n.Over = out
}

// oldest is the first number that the low node may know what was in.
func (n *note) oldest() uint64 {
	return n.Have.Serial - min(n.Have.Serial, redoubt.MaxRaisedBundles) + 1
}

// lacking are the numbers about which something is left to do.
func (n *note) lacking() (all []uint64) {
	for serial := n.oldest(); serial <= n.Have.Serial; serial++ {
		if !n.isOver(serial) {
			all = append(all, serial)
		}
	}
	return all
}
