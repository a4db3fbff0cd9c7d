package filter

import (
	"os"
	"strings"
	"testing"
)

func TestTheDocumentNamesEachTypeAndProgram(t *testing.T) {
	b, err := os.ReadFile("../../docs/filters.md")
	if err != nil {
		t.Fatal(err)
	}
	deps, err := os.ReadFile("../../scripts/deps")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds {
		if !strings.Contains(string(b), "| `"+k.mediaType+"` |") {
			t.Errorf("docs/filters.md does not name %s", k.mediaType)
		}
		for _, tool := range k.tools {
			if !strings.Contains(string(b), "`"+tool.path+"`") {
				t.Errorf("docs/filters.md does not name %s", tool.path)
			}
			for pkg := range strings.FieldsSeq(tool.pkg) {
				if !strings.Contains(string(b), pkg) || !strings.Contains(string(deps), pkg) {
					t.Errorf("docs/filters.md or scripts/deps lacks %s", pkg)
				}
			}
		}
	}
}
