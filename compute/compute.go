// Package compute runs what tenants bring, walled in: WebAssembly modules, container images. It decides nothing: a job's inputs come through
// redoubt.JobRun, which raises the job by each, and what it writes goes back through it.
//
// An [Engine] takes jobs from a desk and gives each attempt to a [Driver]. A driver is hostile ground's keeper: the program, its image, what it
// writes and how it behaves are the tenant's.
package compute

import (
	"context"
	"io"
	"strings"
	"time"

	"redoubt"
)

// Task is one attempt of a job as a driver is given it.
type Task struct {
	redoubt.JobRun // inputs, program, outputs
	Spec           redoubt.SubmitJob
	Limits         redoubt.JobLimits // with the defaults filled in
	Timeout        time.Duration     // of the program's run; the driver ends it then
}

// Exit is how a program ended.
type Exit struct {
	Code int    // its own; -1: it was ended
	Why  string // where it was ended, or could not be begun: for the submitter, with what to do. "out of memory: it may use 512 MiB; ask for more with --memory"

	// Gone is closed when nothing of the program runs; nil: nothing does. Until then what it held is being given back. Nothing that it says is heard.
	Gone <-chan struct{}
}

// Driver runs programs of one kind. All methods may be called at once.
type Driver interface {
	// Run runs an attempt to its end: it gives the program /in, which it fills only as the program reads (Task.List, Stat, Open), and what it
	// writes to standard output and error to Task.Log; after a clean end (code 0) it gives each regular file below /out to Task.Put. Whatever
	// else lies there it leaves, and says so in the log. When Run returns nothing of the program is heard any more, and it has ended, or does so by itself
	// within seconds (Exit.Gone).
	//
	// An error is the driver's or the machine's fault, not the program's: the attempt is repeated. A program that cannot be run (no such
	// image, not WebAssembly) is an Exit of code -1.
	Run(ctx context.Context, t Task) (Exit, error)
	// Available says what the driver lacks on this machine; nil: nothing.
	Available() error
	io.Closer
}

// Plain is what a worker, a pod or a cluster said, fit to be shown.
func Plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || redoubt.Invisible(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > 512 {
		s = strings.ToValidUTF8(s[:512], "") + "…"
	}
	return strings.TrimSpace(s)
}
