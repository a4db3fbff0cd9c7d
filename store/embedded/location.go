package embedded

import (
	"encoding/binary"
	"math"
)

// location tells where a blob lies: inline in one frame of the log, or in runs of
// extent segments.
type location struct {
	size   int64 // of the content
	inline bool
	runs   []run
}

// run is a contiguous part of a blob; length counts content, not what frames it.
type run struct {
	segment uint64
	off     int64
	length  int64
}

// disk is how many bytes a run takes in its segment.
func (l *location) disk(r run) int64 {
	if l.inline {
		return inlineDisk(r.length)
	}
	return extentDisk(r.length)
}

func (l *location) append(b []byte) []byte {
	b = append(b, flag(l.inline))
	b = binary.AppendUvarint(b, uint64(l.size))
	b = binary.AppendUvarint(b, uint64(len(l.runs)))
	for _, r := range l.runs {
		b = binary.AppendUvarint(b, r.segment)
		b = binary.AppendUvarint(b, uint64(r.off))
		b = binary.AppendUvarint(b, uint64(r.length))
	}
	return b
}

func (d *decoder) location() (l location) {
	if len(d.b) == 0 || d.b[0] > 1 {
		d.bad, d.b = true, nil
		return l
	}
	l.inline = d.b[0] == 1
	d.b = d.b[1:]
	l.size = d.length()
	n := d.uvarint()
	if n > uint64(len(d.b))/3 {
		d.bad, d.b = true, nil
		return l
	}
	l.runs = make([]run, n)
	sum := int64(0)
	for i := range l.runs {
		l.runs[i] = run{d.uvarint(), d.length(), d.length()}
		if sum += l.runs[i].length; sum < 0 || sum > l.size {
			d.bad = true
		}
	}
	if sum != l.size {
		d.bad = true
	}
	return l
}

func (d *decoder) length() int64 {
	v := d.uvarint()
	if v > math.MaxInt64/4 {
		d.bad = true
		return 0
	}
	return int64(v)
}

func decodeLocation(b []byte) (location, error) {
	d := decoder{b: b}
	l := d.location()
	if d.bad || len(d.b) > 0 {
		return l, corrupt("blob location", errFrame)
	}
	return l, nil
}
