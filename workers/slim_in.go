//go:build slim

package workers

import _ "embed"

// built is cmd/redoubt-worker, as `make build` has built it just before. As a string it is a constant, and leaves memory with what only the beginning of a
// node used.
//
//go:embed redoubt-worker
var built string
