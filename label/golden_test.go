package label

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/golden anew; read the difference before you commit it")

const goldenFile = "testdata/golden/markings.txt"

// The file holds blocks, apart by empty lines: "POLICY marking", then what the reader makes of it, indented.
func TestGoldenMarkingsReadAsTheyAlwaysDid(t *testing.T) {
	data, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	count := 0
	for _, block := range strings.Split(strings.TrimSpace(string(data)), "\n\n") {
		if strings.HasPrefix(block, "#") {
			out = append(out, block)
			continue
		}
		head, _, _ := strings.Cut(block, "\n")
		name, marking, _ := strings.Cut(head, " ")
		got := head + "\n" + describe(policy(t, name), marking)
		out = append(out, got)
		count++
		if got != block && !*update {
			t.Errorf("got\n%s\nwant\n%s", got, block)
		}
	}
	if count < 80 {
		t.Errorf("got %d markings, want at least 80", count)
	}
	if *update {
		if err := os.WriteFile(goldenFile, []byte(strings.Join(out, "\n\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func describe(p *Policy, marking string) string {
	l, err := p.Parse(marking)
	if err != nil {
		var lines []string
		for _, f := range err.(*ParseError).Faults {
			lines = append(lines, fmt.Sprintf("  fault      %d %q %s", f.Offset, f.Text, f.Reason))
		}
		return strings.Join(lines, "\n")
	}
	readers := strings.Join(l.ReleasableTo(), " ")
	if l.ForAll() {
		readers = "ALL"
	}
	lines := []string{"  banner     " + l.Banner(), "  portion    " + l.Portion(), "  readers    " + readers}
	if c := l.Categories(); len(c) > 0 {
		lines = append(lines, "  categories "+strings.Join(c, ", "))
	}
	if m := l.Marks(); len(m) > 0 {
		lines = append(lines, "  marks      "+strings.Join(m, ", "))
	}
	return strings.Join(lines, "\n")
}
