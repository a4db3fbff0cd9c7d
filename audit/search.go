package audit

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"

	"redoubt"
)

// Query selects entries. Zero fields do not restrict, except Visible: without it
// nothing is found.
type Query struct {
	// Visible reports whether the reader dominates a label given as canonical text. It is
	// asked for an entry's label and for its working label; both must be visible. An
	// entry without either is about the node itself: it is asked for "".
	Visible func(label string) bool
	// Numbers lets entry numbers out. They count entries that the reader may not see, so
	// only who dominates the node's ceiling gets them; others get Found without Numbered.
	Numbers bool

	Subject, Action, Rule, Kind, Request, Source string
	Outcome                                      string // "allow", "deny" or ""
	Name, Bucket                                 [16]byte
	Since, Until                                 time.Time // from Since, before Until
	From                                         uint64    // the first entry to look at
	To                                           uint64    // look at entries before this one; 0 is the end
	Newest                                       bool      // newest first
	Max                                          int       // how many to find; 0 is all
}

// Found is an entry that a query selects.
type Found struct {
	Number   uint64 // the entry's place in the stream
	Numbered bool   // false: the reader may not know it, and Number is 0
	Entry    Entry
}

// Search walks the entries that q selects and its reader may see, in the order of the
// stream. What was archived is not there (SearchArchive). An error ends the walk. How long it takes tells of what it passes over, as
// every search does (RULES 3: timing is measured, bounded, published).
func Search(ctx context.Context, entries Entries, q Query) iter.Seq2[Found, error] {
	return func(yield func(Found, error) bool) {
		if q.Visible == nil {
			yield(Found{}, &redoubt.Error{Op: "audit.Search", Kind: redoubt.Denied, Err: errors.New("nobody was named who may see")})
			return
		}
		to := entries.Len()
		if q.To != 0 {
			to = min(to, q.To)
		}
		left := q.Max
		give := func(f Found) bool {
			if !yield(f, nil) {
				return false
			}
			left--
			return left != 0
		}
		for block := range blocks(max(q.From, entries.First()), to, q.Newest) {
			found, err := q.kept(ctx, entries, block[0], block[1])
			if err != nil {
				yield(Found{}, &redoubt.Error{Op: "audit.Search", Kind: redoubt.KindOf(err), Err: err})
				return
			}
			for _, f := range found {
				if !give(f) {
					return
				}
			}
		}
	}
}

// blocks cuts [from, to) into pieces of some hundred entries.
func blocks(from, to uint64, newest bool) iter.Seq[[2]uint64] {
	const step = 512
	return func(yield func([2]uint64) bool) {
		for from < to {
			piece := [2]uint64{from, min(to, from+step)}
			if newest {
				piece = [2]uint64{max(from, to-min(to, step)), to}
				to = piece[0]
			} else {
				from = piece[1]
			}
			if !yield(piece) {
				return
			}
		}
	}
}

// kept is block, for what was not archived meanwhile.
func (q *Query) kept(ctx context.Context, entries Entries, from, to uint64) ([]Found, error) {
	for {
		found, err := q.block(ctx, entries, from, to)
		first := entries.First()
		if err == nil || first <= from {
			return found, err
		}
		if from = first; from >= to {
			return nil, nil
		}
	}
}

func (q *Query) block(ctx context.Context, entries Entries, from, to uint64) ([]Found, error) {
	var found []Found
	err := entries.Read(ctx, from, to, func(n uint64, b []byte) error {
		e, err := ParseEntry(b)
		if err != nil {
			return err
		}
		if q.matches(&e) && q.sees(&e) {
			f := Found{Entry: e}
			if q.Numbers {
				f.Number, f.Numbered = n, true
			}
			found = append(found, f)
		}
		return nil
	})
	if q.Newest {
		slices.Reverse(found)
	}
	return found, err
}

func (q *Query) matches(e *Entry) bool {
	same := func(want, have string) bool { return want == "" || want == have }
	none := [16]byte{}
	return same(q.Subject, e.Subject) && same(q.Action, e.Action) && same(q.Rule, e.Rule) && same(q.Kind, e.Kind) &&
		same(q.Request, e.Request) && same(q.Source, e.Source) &&
		(q.Outcome == "" || q.Outcome == "allow" && e.Allow || q.Outcome == "deny" && !e.Allow) &&
		(q.Name == none || bytes.Equal(q.Name[:], e.Name[:])) && (q.Bucket == none || bytes.Equal(q.Bucket[:], e.Bucket[:])) &&
		(q.Since.IsZero() || !e.Time.Before(q.Since)) && (q.Until.IsZero() || e.Time.Before(q.Until))
}

func (q *Query) sees(e *Entry) bool {
	if e.Label == "" && e.Working == "" {
		return q.Visible("")
	}
	return (e.Label == "" || q.Visible(e.Label)) && (e.Working == "" || q.Visible(e.Working))
}

// MaxArchiveFound is how many entries a search of an archive gives at most: they wait in memory until all of the archive
// has verified.
const MaxArchiveFound = 1 << 16

// SearchArchive gives the entries of an archive (see ReadArchive) that q selects and its reader may see, oldest first,
// once the whole archive has verified. From, To and Newest do not apply. More than MaxArchiveFound is redoubt.TooLarge.
func SearchArchive(ctx context.Context, in io.Reader, v note.Verifier, q Query) ([]Found, error) {
	const op = "audit.SearchArchive"
	if q.Visible == nil {
		return nil, &redoubt.Error{Op: op, Kind: redoubt.Denied, Err: errors.New("nobody was named who may see")}
	}
	var found []Found
	_, err := ReadArchive(ctx, in, v, nil, func(n uint64, b []byte) error {
		e, err := ParseEntry(b)
		if err != nil || !q.matches(&e) || !q.sees(&e) || q.Max > 0 && len(found) == q.Max {
			return err
		}
		if len(found) == MaxArchiveFound {
			return &redoubt.Error{Op: op, Kind: redoubt.TooLarge, Hint: "ask for less: a shorter time, one subject, or at most so many"}
		}
		f := Found{Entry: e}
		if q.Numbers {
			f.Number, f.Numbered = n, true
		}
		found = append(found, f)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}
