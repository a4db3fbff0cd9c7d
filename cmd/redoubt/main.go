// Command redoubt runs an estate and everything that is asked of one: `redoubt NOUN VERB`,
// one file a command. Results go to stdout and talk to stderr; `--json` prints one document.
// It exits 0 when done, 1 when something failed, 2 when it was called wrongly and 3 when
// policy refused.
package main

import (
	"context"
	"os"
	"syscall"

	"redoubt/node"
	"redoubt/workers"
)

func main() {
	workers.Enter()                                          // in a process that stands behind walls it works there, and goes no further
	syscall.Umask(0o077)                                     // whatever it writes, state, keys or content, is for its caller alone
	if len(os.Args) == 3 && os.Args[1] == node.HalfCommand { // behind it the side, for whoever lists processes
		os.Exit(runHalf(os.Stdin, os.Stderr))
	}
	os.Exit(run(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
}
