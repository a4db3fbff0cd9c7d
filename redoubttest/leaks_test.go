package redoubttest_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// leakSeeds bounds the hunt: a planted leak that so many histories do not show is one that the test does not find.
const leakSeeds = 40

// TestEveryPlantedLeakIsFound builds this package once with the build tag "leak", which plants none
// until REDOUBT_LEAK names one, and has TestNonInterference hunt for each in turn. It fails for a leak that
// is not found, and for anything found where none is planted.
func TestEveryPlantedLeakIsFound(t *testing.T) {
	if os.Getenv(huntVariable) != "" {
		t.Skip("this is the hunt itself")
	}
	if testing.Short() {
		t.Skip("builds and runs a test binary")
	}
	binary := filepath.Join(t.TempDir(), "leaky.test")
	build := exec.CommandContext(t.Context(), filepath.Join(runtime.GOROOT(), "bin", "go"), "test", "-tags", "leak", "-c", "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build with the leaks: %v\n%s", err, out)
	}
	names := plantable(t, binary)
	if len(names) < 16 {
		t.Fatalf("only %d leaks can be planted: %v", len(names), names)
	}
	if n, out := hunt(t, binary, "", 8); n != 0 {
		t.Fatalf("with no leak planted, history %d shows one:\n%s", n, out)
	}
	var table strings.Builder
	for _, name := range names {
		start := time.Now()
		n, out := hunt(t, binary, name, leakSeeds)
		if n == 0 {
			t.Errorf("the leak %q was not found in %d histories\n%s", name, leakSeeds, out)
			continue
		}
		fmt.Fprintf(&table, "  %-10s found by history %2d (%4.1f s): %s\n", name, n, time.Since(start).Seconds(), firstStep.FindString(out))
	}
	t.Logf("planted leaks:\n%s", table.String())
}

const huntVariable = "REDOUBT_LEAK_HUNT"

var (
	foundPattern = regexp.MustCompile(regexp.QuoteMeta(foundAfter) + ` (\d+)`)
	firstStep    = regexp.MustCompile(`step \d+: .*`)
)

// plantable asks the binary what it can plant.
func plantable(t *testing.T, binary string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestWhatCanBePlanted$", "-test.v")
	cmd.Env = append(os.Environ(), huntVariable+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.SplitSeq(string(out), "\n") {
		if _, names, ok := strings.Cut(line, "plantable: "); ok {
			return strings.Fields(names)
		}
	}
	t.Fatalf("the binary does not say what it can plant:\n%s", out)
	return nil
}

// hunt runs the test with one leak planted; n is the number of the history that showed it, 0 for none.
func hunt(t *testing.T, binary, leak string, seeds int) (n int, out string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.run=^TestNonInterference$", "-noninterference.noshrink",
		fmt.Sprintf("-noninterference.fixed=%d", seeds), "-noninterference.n=0")
	cmd.Env = append(os.Environ(), huntVariable+"=1", "REDOUBT_LEAK="+leak)
	b, err := cmd.CombinedOutput()
	out = string(b)
	m := foundPattern.FindStringSubmatch(out)
	if m == nil {
		if err != nil {
			t.Fatalf("hunting for %q: %v\n%s", leak, err, out)
		}
		return 0, out
	}
	n, err = strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n, out
}
