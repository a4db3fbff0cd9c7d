package sim_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// edit replaces a text that occurs once in a file of the repository. In the new one @ is whether the fault is planted.
type edit struct{ file, old, new string }

// planted are faults that a fleet must find: each is a line of the product that says something else. None of this is in any binary that
// anybody runs, and no file is changed: the compiler is given other texts in their place.
var planted = []struct {
	name   string
	first  uint64 // a seed that showed it: tried first, though nodes run beside one another and may do otherwise
	within uint64 // how many seeds, from 1 on
	script string // instead: the history that shows it
	edits  []edit
}{
	{"of two alterations the second is not taken", 0, 0, "sides", []edit{
		{"enclave/apply.go", "if was.stands(saidBy(x, own)) {", "if was.stands(saidBy(x, own)) || @ && x.Kind == redoubt.EntryAlteration && was.altered() {"}}},
	{"alterations are left out where nodes compare", 2, 10, "", []edit{
		{"enclave/tell.go", "if !e.eitherWay(l, set, raw) || ", "if @ && redoubt.EntryKind(raw[0]) == redoubt.EntryAlteration {\n\t\treturn false, nil\n\t}\n\tif !e.eitherWay(l, set, raw) || "}}},
	{"a device's word lifts what its home locked", 0, 0, "sides", []edit{
		{"enclave/fate.go", "own.Hold || other.Hold}", "own.Hold || other.Hold && !@}"}}},
	{"a later word lifts COMPLIANCE", 0, 0, "firm", []edit{
		{"enclave/fate.go", "if f.until > 0 {", "if f.until > 0 && !@ {"}}},
	{"clocks do not observe what comes", 1, 10, "", []edit{
		{"enclave/apply.go", "last := s.clock.Load(); last < t;", "last := s.clock.Load(); last < t && !@;"}}},
	{"the newest version counts as superseded", 1, 10, "", []edit{
		{"enclave/link.go", "return head.id != f.rec.id, nil", "return head.id != f.rec.id || @, nil"}}},
	{"what is the newest again is not told", 3, 20, "", []edit{
		{"enclave/delete.go", "return e.noteAgain(batch, b, f.set, key, it.Value())", "if @ {\n\t\t\treturn nil\n\t\t}\n\t\treturn e.noteAgain(batch, b, f.set, key, it.Value())"}}},
	{"a budget is never renewed", 0, 0, "budget", []edit{
		{"replica/budget.go", "if out.purse.day < o.day {", "if out.purse.day < o.day && !@ {"},
		{"replica/budget.go", "if b.Day >= o.day {", "if b.Day >= o.day || @ {"},
		{"enclave/budget.go", "if day == was.Day {", "if day == was.Day || @ {"}}},
	{"a neighbour's own word about people is taken", 0, 0, "word", []edit{
		{"enclave/receive.go", "if n.system() && in.Entry.Maker != e.home() {", "if n.system() && in.Entry.Maker != e.home() && !@ {"}}},
	{"what is kept of another peer's versions is told", 0, 0, "kept", []edit{
		{"enclave/arrive.go", "err = e.eachArrival(view, peer, func(a *arrival) error {\n\t\tif e.stillArrives(l, a) {",
			"if @ {\n\t\tpeer = \"\"\n\t}\n\terr = e.eachArrival(view, peer, func(a *arrival) error {\n\t\tif @ || e.stillArrives(l, a) {"}}},
	{"a mark is forgotten before a neighbour has heard", 0, 0, "marks", []edit{
		{"enclave/trim.go", "} else if !told {", "} else if !told && !@ {"}}},
	{"a clearance goes to devices uncut", 1, 10, "", []edit{
		{"identity/project.go", "low := label.Meet(a, b)\n", "low := label.Meet(a, b)\n\tif @ {\n\t\tlow = a\n\t}\n"}}},
	{"an older word about somebody takes the place of a newer one", 2, 20, "", []edit{
		{"enclave/told.go", "n.record.Kind == identity.KindProjection && !n.newest:", "n.record.Kind == identity.KindProjection && !n.newest && !@:"}}},
}

const faultVariable = "REDOUBT_SIM_FAULT"

// plantedFile says in a package whether a fault is planted.
const plantedFile = `package %s

import "os"

func planted(name string) bool { return os.Getenv("` + faultVariable + `") == name }
`

// TestEveryPlantedFaultIsFound builds this package once with all of the faults in it, of which none is planted until the environment
// names it, and has TestFleet hunt for each in turn, and for anything where none is planted.
func TestEveryPlantedFaultIsFound(t *testing.T) {
	if *seed != 0 || *most > 0 || *hunt > 0 || testing.Short() {
		t.Skip("builds and runs a test binary")
	}
	binary := buildPlanted(t)
	if by, out := hunted(t, binary, "none", "-sim.hunt=2"); by != "" {
		t.Fatalf("with no fault planted %s shows one:\n%s", by, out)
	}
	for _, p := range planted {
		if *only != "" && !strings.Contains(p.name, *only) {
			continue
		}
		began := time.Now()
		by, out := "", ""
		switch {
		case p.script != "":
			by, out = hunted(t, binary, p.name, "-sim.script="+p.script)
		case p.first > 0:
			by, out = hunted(t, binary, p.name, fmt.Sprintf("-sim.seed=%d", p.first))
		}
		if by == "" && p.within > 0 {
			by, out = hunted(t, binary, p.name, fmt.Sprintf("-sim.hunt=%d", p.within))
		}
		if by == "" {
			t.Errorf("%s: not found by %d seeds\n%s", p.name, p.within, out)
			continue
		}
		t.Logf("%s: found by %s (%.1f s): %s", p.name, by, time.Since(began).Seconds(), foundFault.FindString(out))
	}
}

// buildPlanted makes the binary.
func buildPlanted(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir, texts := t.TempDir(), map[string]string{}
	for _, p := range planted {
		for _, e := range p.edits {
			path := filepath.Join(root, e.file)
			if _, read := texts[path]; !read {
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				texts[path] = string(b)
			}
			if n := strings.Count(texts[path], e.old); n != 1 {
				t.Fatalf("%s: %q occurs %d times in %s, want once: the fault is to be planted anew", p.name, e.old, n, e.file)
			}
			texts[path] = strings.Replace(texts[path], e.old, strings.ReplaceAll(e.new, "@", fmt.Sprintf("planted(%q)", p.name)), 1)
			texts[filepath.Join(filepath.Dir(path), "planted.go")] = fmt.Sprintf(plantedFile, filepath.Base(filepath.Dir(path)))
		}
	}
	replace := map[string]string{}
	for path, text := range texts {
		replace[path] = filepath.Join(dir, strings.ReplaceAll(strings.TrimPrefix(path, root), string(filepath.Separator), "_"))
		if err := os.WriteFile(replace[path], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	binary, list := filepath.Join(dir, "planted.test"), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), filepath.Join(runtime.GOROOT(), "bin", "go"), "test", "-c", "-overlay", list, "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build with the faults: %v\n%s", err, out)
	}
	return binary
}

var (
	foundBy    = regexp.MustCompile(`(seed \d+|script \S+) of`)
	foundFault = regexp.MustCompile(`\[[^\n]*`)
)

// hunted runs histories with one fault planted until one shows a fault, and says which; "" is none.
func hunted(t *testing.T, binary, fault, which string) (by, out string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestFleet$", which, "-sim.devices=6", "-sim.steps=200", "-sim.shrink=0")
	cmd.Env = append(os.Environ(), faultVariable+"="+fault)
	b, err := cmd.CombinedOutput()
	out = string(b)
	m := foundBy.FindStringSubmatch(out)
	if m == nil {
		if err != nil {
			t.Fatalf("hunting for %q: %v\n%s", fault, err, out)
		}
		return "", out
	}
	return m[1], out
}
