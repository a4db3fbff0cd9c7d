package oci

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// TestAGroupIsClearedWhenItsMakerIsGone: one that is empty may be about to be used, by a node that starts beside this one.
func TestAGroupIsClearedWhenItsMakerIsGone(t *testing.T) {
	c := exec.Command("true")
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{fmt.Sprintf("%d-1", os.Getpid()): false, "1-7": false, fmt.Sprintf("%d-1", c.Process.Pid): true, "x-1": false, "": false} {
		if got := gone(name); got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
}
