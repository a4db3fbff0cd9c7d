package samples

import (
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"

	"redoubt/estate"
)

func TestEverySampleNamesItsSourceAndLicence(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("SOURCES.md")
	if err != nil {
		t.Fatal(err)
	}
	kinds, listed, bytes := map[string]bool{}, map[string]bool{}, 0
	for _, s := range all {
		name := string(s.Bucket) + "/" + s.Key
		content, err := s.Content()
		if err != nil || len(content) == 0 {
			t.Errorf("%s: %d bytes, %v", name, len(content), err)
		}
		if s.Source == "" || s.Licence == "" || s.ContentType == "" || !strings.Contains(string(page), "| "+name+" | "+s.Source+" |") {
			t.Errorf("%s: source or licence is missing, or SOURCES.md says otherwise", name)
		}
		if s.LicenceText != "" {
			if _, err := os.Stat("licences/" + s.LicenceText); err != nil {
				t.Error(err)
			}
		}
		kinds[path.Ext(s.Key)], listed[name] = true, true
		bytes += len(content)
	}
	if len(all) < 30 || len(kinds) < 10 || bytes > 6<<20 {
		t.Errorf("got %d files of %d kinds, %d bytes; want 30 of 10 and at most 6 MiB", len(all), len(kinds), bytes)
	}
	err = fs.WalkDir(embedded, "files", func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !listed[strings.TrimPrefix(p, "files/")] {
			t.Errorf("%s is not in the manifest", p)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestSamplesFitTheExampleEstate(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	e := estate.Example()
	used := map[string]int{}
	for _, s := range all {
		for _, p := range s.Puts {
			n, ok := e.Node(p.Node)
			l, err := e.MarkingPolicy().Parse(p.Label)
			if !ok || err != nil || l.Banner() != p.Label || !n.Ceiling().Dominates(l) || !l.Dominates(n.Floor()) {
				t.Errorf("%s at %s: %q does not fit (%v)", s.Key, p.Node, p.Label, err)
			}
			used[string(p.Node)]++
		}
	}
	if len(used) != 3 {
		t.Errorf("got samples at %v, want all three enclaves", used)
	}
}
