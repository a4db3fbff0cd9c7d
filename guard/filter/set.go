package filter

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"redoubt"
	"redoubt/guard"
	"redoubt/sandbox"
)

// The types, each with two filters. Parameters of a media type (charset) are not part of it.
const (
	Text = "text/plain"
	JSON = "application/json"
	XML  = "application/xml"
	CSV  = "text/csv"
	PNG  = "image/png"
	JPEG = "image/jpeg"
	PDF  = "application/pdf"
	ZIP  = "application/zip"
)

// maxBetween bounds what goes into a filter and what goes on from one to the next: the contract's own limit.
const maxBetween = redoubt.MaxReleaseBytes

// kinds are the types with the programs of their second filters.
var kinds = []kind{
	{mediaType: Text, tools: []tool{uconv}, agree: same},
	{mediaType: JSON, tools: []tool{jq}, agree: sameJSON},
	{mediaType: XML, tools: []tool{xmllint}, fit: xmlProgram, agree: sameXML},
	{mediaType: CSV, tools: []tool{python}, input: csvInput, agree: sameCSV},
	{mediaType: PNG, tools: []tool{pngtopam, pnmtopng}, agree: barePNG},
	{mediaType: JPEG, tools: []tool{djpeg, cjpeg}, agree: bareJPEG},
	{mediaType: PDF, tools: []tool{poppler}},
	{mediaType: ZIP, tools: []tool{bsdtar}, trim: trimZIP, agree: sameZIP},
}

type kind struct {
	mediaType string
	tools     []tool
	input     func(guard.Content) ([]byte, error)                  // what the first program is given; nil: the content
	fit       func(sandbox.Program, guard.Content) sandbox.Program // fits the programs to one content; nil: they are the same for all, and may wait
	trim      func(out []byte) []byte                              // takes off what the last program puts behind what it wrote; nil: nothing
	agree     func(ctx context.Context, in, out []byte) error
}

// Types are the types that have two filters on a machine that has all programs, sorted.
func Types() []string {
	var all []string
	for _, k := range kinds {
		all = append(all, k.mediaType)
	}
	slices.Sort(all)
	return all
}

// Options say how filters run. The zero Options start a process for each step of each item.
type Options struct {
	// Warm is how many processes of each program wait for input, started before it comes. Each is used for one item. They are kept from the
	// first item of a type on.
	Warm int
}

// Set has the pairs of this machine. It is safe for use by many goroutines at once. Close ends what waits.
type Set struct {
	pairs   map[string]guard.Pair
	lacking map[string]error
	pools   []*pool
}

// New finds what is installed. The error is Unavailable where the kernel does not wall programs in: then no content can be filtered at all. A
// type that lacks a program is told when its pair is asked for.
func New(o Options) (*Set, error) {
	if _, err := sandbox.Available(); err != nil {
		return nil, err
	}
	s := &Set{pairs: map[string]guard.Pair{}, lacking: map[string]error{}}
	byPath := map[string]*pool{}
	share := func(p sandbox.Program) *pool {
		if byPath[p.Name] == nil {
			byPath[p.Name] = newPool(p, o.Warm)
			s.pools = append(s.pools, byPath[p.Name])
		}
		return byPath[p.Name]
	}
	for _, k := range kinds {
		second := others{base: k.tools[0].base, input: k.input, fit: k.fit, trim: k.trim, agree: k.agree}
		var missing error
		for _, t := range k.tools {
			missing = errors.Join(missing, t.there())
			second.pools = append(second.pools, share(t.program()))
		}
		if missing != nil {
			s.lacking[k.mediaType] = &redoubt.Error{Op: "filter", Object: k.mediaType, Kind: redoubt.Denied, Rule: "a filter of " + k.mediaType + " is not installed", Hint: hintOf(missing), Err: missing}
			continue
		}
		ours := share(ownProgram())
		switch k.mediaType {
		case PDF: // who draws stands before who writes
			s.pairs[PDF] = guard.Pair{First: pages{look: ours, draw: second.pools[0]}, Second: own{pdfWrite, ours}}
		case ZIP:
			s.pairs[ZIP] = guard.Pair{First: archive{ours, s.Pair}, Second: second}
		default:
			s.pairs[k.mediaType] = guard.Pair{First: own{k.mediaType, ours}, Second: second}
		}
	}
	return s, nil
}

// Pair gives the two filters of a type. Denied: it is none of the allow-list, or this machine lacks one of the two; Hint says what to do.
func (s *Set) Pair(mediaType string) (guard.Pair, error) {
	if p, ok := s.pairs[mediaType]; ok {
		return p, nil
	}
	if err := s.lacking[mediaType]; err != nil {
		return guard.Pair{}, err
	}
	return guard.Pair{}, &redoubt.Error{Op: "filter", Object: mediaType, Kind: redoubt.Denied, Rule: "content of this type is not released",
		Hint: fmt.Sprintf("release it as one of %v", Types())}
}

// Close ends the processes that wait. No pair may be used after it.
func (s *Set) Close() {
	for _, p := range s.pools {
		p.close()
	}
}

// Base is one code base of a type, on this machine.
type Base struct {
	Type    string
	Name    string // as docs/filters.md has it
	Path    string // of the program; "" for our own
	Version string // as the program says it; "" where it is missing
	Err     error  // why it is of no use, with the package to install as hint
}

// Available tells per type what its filters are and whether they run here, by running each. The error is that of sandbox.Available.
func Available(ctx context.Context) ([]Base, error) {
	if _, err := sandbox.Available(); err != nil {
		return nil, err
	}
	var all []Base
	for _, k := range kinds {
		all = append(all, Base{Type: k.mediaType, Name: OwnName, Version: "built in"})
		for _, t := range k.tools {
			b := Base{Type: k.mediaType, Name: t.base, Path: t.path, Err: t.there()}
			if b.Err == nil {
				b.Version, b.Err = t.says(ctx)
			}
			all = append(all, b)
		}
	}
	return all, nil
}
