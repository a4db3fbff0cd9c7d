//go:build slim

package workers

import _ "embed"

// built is cmd/redoubt-worker, as `make build` has built it just before.
//
//go:embed redoubt-worker
var built []byte
