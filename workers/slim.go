package workers

import (
	"sync"

	"redoubt/sandbox"
)

// slim is the binary of cmd/redoubt-worker that was built in; nil: none was, or this machine cannot hold it, and modules run by this binary itself, which takes
// some thirty milliseconds more to begin.
var slim = sync.OnceValue(func() *sandbox.Binary {
	if len(built) == 0 {
		return nil
	}
	b, err := sandbox.NewBinary(built)
	if err != nil {
		return nil
	}
	return b
})
