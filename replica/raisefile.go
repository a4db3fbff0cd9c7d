package replica

import (
	"bytes"
	"errors"

	"redoubt"
	"redoubt/bundle"
)

// maxTagged is of content in a tagged bundle (bundle.Head.Tagged): as much as goes, sealed, into memory where it is taken. What stands around the
// content has the rest of what such a bundle may have.
const maxTagged = stagedInMemory - 1<<20

// raiseFile is the bundle that a raise is written into. It is tagged, but for one that begins with a version that is too large for that: what form
// it has is known with its first entry, and what comes before that is held until then.
type raiseFile struct {
	open   func(tagged bool) (*bundle.Writer, error)
	file   *bundle.Writer // nil: not begun
	tagged bool
	held   bytes.Buffer
}

func (f *raiseFile) Write(p []byte) (int, error) {
	if f.file == nil {
		return f.held.Write(p)
	}
	return f.file.Write(p)
}

// begin begins the file in a form, unless that was done.
func (f *raiseFile) begin(tagged bool) (err error) {
	if f.file != nil {
		return nil
	}
	if f.file, err = f.open(tagged); err != nil {
		return err
	}
	f.tagged = tagged
	_, err = f.file.Write(f.held.Bytes())
	f.held = bytes.Buffer{}
	return err
}

func (f *raiseFile) abandon() {
	if f.file != nil {
		f.file.Abandon()
	}
}

// fits says whether an entry of a set goes into the bundle, as the next. One that is too large for a tagged bundle ends that, and begins the next, or
// begins one of the other form.
func (x *exporter) fits(set string, next redoubt.JournalRef) (bool, error) {
	if x.file == nil || x.oversized(next) {
		return true, nil
	}
	large := next.SizeBytes > maxTagged-x.frames.bytes
	if err := x.file.begin(!large); err != nil {
		return false, err
	}
	if large && x.file.tagged {
		x.more, x.left = true, set
		return false, nil
	}
	return true, nil
}

// room says how many entries, in their order, still go into a bundle of a raise that is not full: one at least.
func (x *exporter) room(refs []redoubt.JournalRef) int {
	at := x.frames.bytes
	for i, r := range refs {
		if x.raise && i > 0 && (at >= x.most || x.file != nil && x.file.tagged && r.SizeBytes > maxTagged-at) {
			return i
		}
		at += r.SizeBytes
	}
	return len(refs)
}

// outgrew says whether a tagged bundle came to nothing because it would have been too long: of entries that say much beside a little content.
func (f *raiseFile) outgrew(err error) bool {
	e, ok := errors.AsType[*redoubt.Error](err)
	return ok && f.tagged && e.Rule == bundle.RuleLarge
}
