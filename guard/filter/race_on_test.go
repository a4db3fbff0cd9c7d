//go:build race

package filter_test

// raced tells that the race detector is built in.
const raced = true
