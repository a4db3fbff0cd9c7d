//go:build !linux

package compute

func machineMemory() int64 { return 0 }
