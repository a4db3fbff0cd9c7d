//go:build leak

package redoubttest_test

import (
	"strings"
	"testing"

	"redoubt/enclave"
)

// TestWhatCanBePlanted tells TestEveryPlantedLeakIsFound, which runs it, the names of the leaks.
func TestWhatCanBePlanted(t *testing.T) {
	if len(enclave.Leaks) == 0 {
		t.Fatal("there are no leaks")
	}
	t.Logf("plantable: %s", strings.Join(enclave.Leaks, " "))
}
