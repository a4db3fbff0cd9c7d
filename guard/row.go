package guard

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"redoubt"
)

// row is what waits in a folder of bundles, in the order in which it is taken. The folder is not read for each that comes or is taken: where the node was
// away for a day it holds that day's. It is looked through now and then, for what nobody told of.
type row struct {
	spool spool
	node  redoubt.NodeName

	mu    sync.Mutex // guards what follows; before the spool's
	all   []spooled
	began began
	bytes int64
	again time.Time // when the folder is looked through next
}

// fewWait is how many may wait for the folder to be looked through at once for one whose place is not plain.
const fewWait = 256

// lookShare is of how much of the time the folder is looked through at most: one part in so many.
const lookShare = 50

// look looks through the folder, if that is due, with mu held.
func (r *row) look() error {
	now := time.Now()
	if now.Before(r.again) {
		return nil
	}
	all, err := r.spool.all(r.node)
	if err != nil {
		return err
	}
	r.all, r.began, r.bytes = all, begins(all), 0
	for _, b := range all {
		r.bytes += b.bytes
	}
	r.again = now.Add(max(pollEvery, lookShare*time.Since(now)))
	return nil
}

// first is the bundle that is before all others.
func (r *row) first() (b spooled, is bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.look(); err != nil || len(r.all) == 0 {
		return b, false, err
	}
	return r.all[0], true, nil
}

// behind is the bundle of the next number.
func (r *row) behind(last redoubt.BundleMark) (b spooled, is bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.look(); err != nil {
		return b, false, err
	}
	last.Serial++
	i, is := slices.BinarySearchFunc(r.all, spooled{mark: last}, r.began.compare)
	if !is {
		return b, false, nil
	}
	return r.all[i], true, nil
}

// held is how many bytes wait.
func (r *row) held() (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.look()
	return r.bytes, err
}

// add has a file that came stand in its place. Where that is not plain, the folder is looked through: now, if that is soon done.
func (r *row) add(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, err := inspect(path, r.node)
	at, known := r.began[b.mark.Numbering]
	i, is := slices.BinarySearchFunc(r.all, b, r.began.compare)
	if err != nil || filepath.Dir(path) != r.spool.dir || !known || b.mark.Created.Before(at) || is {
		if len(r.all) < fewWait {
			r.again = time.Time{}
		}
		return
	}
	r.spool.keep(b)
	r.all, r.bytes = slices.Insert(r.all, i, b), r.bytes+b.bytes
}

// remove takes a file out that waits no more.
func (r *row) remove(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spool.forget(path)
	i := slices.IndexFunc(r.all, func(b spooled) bool { return b.path == path })
	if i < 0 {
		return
	}
	if r.bytes -= r.all[i].bytes; i == 0 {
		r.all = r.all[1:]
		return
	}
	r.all = slices.Delete(r.all, i, i+1)
}

// began is when the first bundle of each numbering was made.
type began map[[16]byte]time.Time

func begins(all []spooled) began {
	out := began{}
	for _, b := range all {
		if t, ok := out[b.mark.Numbering]; !ok || b.mark.Created.Before(t) {
			out[b.mark.Numbering] = b.mark.Created
		}
	}
	return out
}

// compare has numberings by age, each by number.
func (n began) compare(a, b spooled) int {
	return cmp.Or(n[a.mark.Numbering].Compare(n[b.mark.Numbering]), strings.Compare(string(a.mark.Numbering[:]), string(b.mark.Numbering[:])), cmp.Compare(a.mark.Serial, b.mark.Serial))
}
