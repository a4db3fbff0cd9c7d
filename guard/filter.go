package guard

import (
	"context"

	"redoubt"
)

// Filter verifies that content is of one type and holds nothing else, and writes it anew. A Filter runs what it does in a process of its own,
// with limits; what that process does wrong refuses the content.
type Filter interface {
	// Name is the code base, as docs/filters.md has it.
	Name() string
	// Clean writes content of a type anew. It never gives back what it was given: what it returns was written from what it understood. An error
	// of Kind Denied says why the content is refused (Rule, and Hint for the one who asked); any other Kind is the filter's own failure, and
	// refuses as well. seen are the things that it took out.
	Clean(ctx context.Context, in Content) (out []byte, seen []redoubt.Finding, err error)
}

// Content is what a filter is given.
type Content struct {
	Type   string // media type, one of the allow-list
	Schema []byte // of JSON, XML and CSV: the closed schema that it must meet; else nil
	Bytes  []byte
}

// Pair is the two filters of one type: from different code bases, and both always invoked, First before Second.
type Pair struct{ First, Second Filter }
