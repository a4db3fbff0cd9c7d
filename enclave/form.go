package enclave

import (
	"unicode/utf8"

	"redoubt"
)

// wellFormed holds an entry against what its kind may say.
func wellFormed(x *redoubt.JournalEntry) bool {
	if versionID(x.Stamp).isZero() || x.Maker == "" || x.SizeBytes < 0 || x.Stamp.Time() < 0 {
		return false
	}
	if !fitTags(x.Tags) {
		return false
	}
	if x.Kind != redoubt.EntryVersion {
		if x.Author != "" || x.MD5 != "" || len(x.Attributes.Meta) > 0 || x.Base != (redoubt.Stamp{}) || x.Kind == redoubt.EntryRemoval && len(x.Tags) > 0 {
			return false
		}
		return !versionID(x.Of).isZero() && x.Of != x.Stamp && !x.Marker && x.SizeBytes == 0 && len(x.PartSizes) == 0 && x.Content == [32]byte{}
	}
	if x.Of != (redoubt.Stamp{}) || len(x.PartSizes) > redoubt.MaxParts || x.SizeBytes > redoubt.MaxObjectBytes {
		return false
	}
	if x.Marker {
		return x.SizeBytes == 0 && x.Content == [32]byte{}
	}
	if len(x.PartSizes) == 0 {
		return true
	}
	var sum int64
	for _, n := range x.PartSizes {
		if n < 0 || sum > redoubt.MaxObjectBytes {
			return false
		}
		sum += n
	}
	return sum == x.SizeBytes
}

// fitTags holds tags to the limits that this node's own have.
func fitTags(tags []redoubt.Tag) bool {
	for _, t := range tags {
		if t.Key == "" || utf8.RuneCountInString(t.Key) > redoubt.MaxTagKeyRunes || utf8.RuneCountInString(t.Value) > redoubt.MaxTagValueRunes {
			return false
		}
	}
	return len(tags) <= redoubt.MaxTags
}
