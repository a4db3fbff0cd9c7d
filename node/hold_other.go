//go:build !linux

package node

import "redoubt/carry/diode"

// holdOf is how many bytes of disk bundles on their way may take at the high half where the estate does not say.
func holdOf(string) int64 { return diode.DefaultHold }
