package workers

import (
	"sync"

	"redoubt/sandbox"
)

// slim is the binary of cmd/redoubt-worker that was built in; nil: none was, or this machine cannot hold it, as the error says, and modules run by this binary
// itself, which takes some thirty milliseconds more to begin.
var slim = sync.OnceValues(func() (*sandbox.Binary, error) {
	if len(built) == 0 {
		return nil, nil
	}
	return sandbox.NewBinary(built)
})
