package enclave

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"redoubt"
	"redoubt/bundle"
)

// tagged says of what form a bundle is.
func (c *chain) tagged(file []byte) bool {
	c.t.Helper()
	s, err := bundle.Inspect(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		c.t.Fatal(err)
	}
	return s.Tagged
}

// TestARaiseIsTaggedButForAVersionThatIsTooLarge: that begins a bundle of the other form, whether it is raised as it comes or with all that was there
// before the raise.
func TestARaiseIsTaggedButForAVersionThatIsTooLarge(t *testing.T) {
	for _, first := range []bool{false, true} {
		c := openChain(t)
		if !first {
			c.low("before", "it")
			c.raise(c.unclass, c.secret)
		}
		want := map[string]string{"a": "small", "b": noise(24 << 20), "c": "small again", "d": noise(12 << 20), "e": noise(12 << 20), "f": "the last"}
		for _, key := range []string{"a", "b", "c", "d", "e", "f"} {
			c.low(key, want[key])
		}
		var got []bool
		for c.above("f") == "" {
			file := c.next(c.unclass, c.secret)
			got = append(got, c.tagged(file))
			if _, err := c.take(c.unclass, c.secret, file); err != nil {
				t.Fatal(err)
			}
			if len(file) > bundle.MaxTaggedBytes || got[len(got)-1] && len(file) > 24<<20 {
				t.Errorf("bundle %d has %d bytes", len(got), len(file))
			}
		}
		c.nothing(c.unclass, c.secret)
		for key, text := range want {
			if c.above(key) != text {
				t.Errorf("%s did not come as it is", key)
			}
		}
		// The large one by itself; then as much as goes into memory.
		if fmt.Sprint(got) != fmt.Sprint([]bool{true, false, true, true}) {
			t.Errorf("with all at once %v, the bundles are tagged: %v", first, got)
		}
	}
}

// TestWhatWasDamagedOnTheWayIsRefusedWhole, by a rule of its own; nothing of it was taken, and the true one is when it comes.
func TestWhatWasDamagedOnTheWayIsRefusedWhole(t *testing.T) {
	c := openChain(t)
	c.low("a", noise(100_000))
	c.low("b", noise(300_000))
	file := c.next(c.unclass, c.secret)
	bad := bytes.Clone(file)
	bad[len(bad)-100_000] ^= 1 // of the ciphertext
	_, err := c.take(c.unclass, c.secret, bad)
	if e, ok := errors.AsType[*redoubt.Error](err); !ok || e.Rule != bundle.RuleDamaged || !errors.Is(err, redoubt.Denied) {
		t.Errorf("got %v", err)
	}
	if c.above("a") != "" || c.above("b") != "" {
		t.Error("something of it was taken")
	}
	if _, err := c.take(c.unclass, c.secret, file); err != nil || c.above("a") == "" || c.above("b") == "" {
		t.Errorf("the true one: %v", err)
	}
}
