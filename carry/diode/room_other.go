//go:build !linux

package diode

func inLargePages([]byte) {}
