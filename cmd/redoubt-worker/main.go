// Command redoubt-worker is what the binary redoubt carries within it and runs WebAssembly modules with: the workers of package wasm, and nothing else that
// would have to be set up first. It is never installed, and does nothing outside of the walls that redoubt starts it in.
package main

import (
	"fmt"
	"os"

	"redoubt/compute/wasm"
	"redoubt/sandbox"
)

func main() {
	sandbox.Enter(wasm.Workers())
	fmt.Fprintln(os.Stderr, "redoubt-worker: redoubt starts it, and nobody else")
	os.Exit(2)
}
