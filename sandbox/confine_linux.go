package sandbox

import (
	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"

	"redoubt"
)

// Confine leaves this process, every thread of it and all that it starts, the files of some folders to write and some others to read, for good.
// A process that is confined can neither trace one that is not, nor read its memory. Its network stays as it was. What is not there is passed
// over. An error: the kernel has no Landlock that knows moves between folders (5.19), and nothing has changed.
func Confine(write, read []string) error {
	if abi, err := ll.LandlockGetABIVersion(); err != nil || abi < 2 {
		return &redoubt.Error{Op: "sandbox.Confine", Kind: redoubt.NotImplemented, Hint: "Linux 5.19 or later, with landlock among its security modules"}
	}
	rules := []landlock.Rule{landlock.RWDirs(write...).WithRefer().IgnoreIfMissing(), landlock.ROFiles(read...).IgnoreIfMissing()}
	if err := landlock.V5.BestEffort().RestrictPaths(rules...); err != nil {
		return &redoubt.Error{Op: "sandbox.Confine", Err: err}
	}
	return nil
}
