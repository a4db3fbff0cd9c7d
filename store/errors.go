package store

import "errors"

// ErrUncertain is in the chain of a Commit error after a failed disk sync: the batch
// may or may not survive a restart. The engine refuses writes until it is reopened,
// which settles the matter one way for good.
var ErrUncertain = errors.New("outcome unknown until restart")
