package guard

import "redoubt"

// note is what a feeder knows of the one before it. It is not synced: what a power cut takes back of it is asked for once more.
type note struct {
	Have redoubt.BundleMark   // the newest that it had
	Sent uint64               // and the newest that it sent, or that the one before it did
	Over []redoubt.NumberSpan // those about which nothing is left to do
}

const noteName = "feed.json"

// over notes that nothing is left to do about the numbers of a span.
func (n *note) over(s redoubt.NumberSpan) { n.Over = redoubt.AddSpan(n.Over, s) }

// undo notes that something is left to do about a number.
func (n *note) undo(serial uint64) { n.Over = redoubt.CutSpan(n.Over, serial) }

// isOver says whether nothing is left to do about a number.
func (n *note) isOver(serial uint64) bool { return redoubt.InSpans(n.Over, serial) }

// oldest is the first number that the low node may know what was in.
func (n *note) oldest() uint64 {
	return n.Have.Serial - min(n.Have.Serial, redoubt.MaxRaisedBundles) + 1
}

// trim forgets what it says one by one of numbers about which nobody knows anything any more: else it would grow for as long as a road is full.
func (n *note) trim() {
	if oldest := n.oldest(); oldest > 1 {
		n.over(redoubt.NumberSpan{From: 1, To: oldest - 1})
	}
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
