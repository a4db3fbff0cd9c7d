package redoubt_test

import (
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// rows are the packages of ARCHITECTURE section 4, lowest first. A package imports from the rows
// below its own, never from its own.
var rows = [][]string{
	{"label", "faketime"}, // the second for tests alone
	{""},                  // the root
	{"keys", "sandbox"},
	{"access", "audit", "bundle", "identity"},
	{"store", "carry", "compute", "model", "meter", "estate", "tpm", "ztdf"},
	{"enclave", "replica", "guard"},
	{"s3", "api", "registry", "console", "client"},
	{"node", "workers"},
	{"redoubttest"},
	{"cmd", "sim", "examples"},
}

// trusted packages take nothing but the standard library, golang.org/x and one another.
var trusted = []string{"", "label", "keys", "access", "identity", "audit", "bundle", "guard"}

// modulePath is how our own packages are imported.
const modulePath = "redoubt"

type source struct {
	path, pkg string // file, and its folder within the module
	test      bool
	imports   []string
}

// sources parses every Go file of the module. It reads files, not `go list`, whose result is
// cached past a change.
func sources(t *testing.T) (all []source) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules" || hasOwnModule(path)) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		s := source{path: path, pkg: filepath.ToSlash(filepath.Dir(path)), test: strings.HasSuffix(path, "_test.go")}
		if s.pkg == "." {
			s.pkg = ""
		}
		for _, i := range f.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, p)
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("only %d files were read: the laws were not looked at", len(all))
	}
	return all
}

func hasOwnModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// top is the package of the house that a folder belongs to: store for store/embedded.
func top(pkg string) string {
	first, _, _ := strings.Cut(pkg, "/")
	return first
}

func rowOf(pkg string) int {
	return slices.IndexFunc(rows, func(r []string) bool { return slices.Contains(r, top(pkg)) })
}

// own gives the folder of one of our packages, if the import is one.
func own(path string) (pkg string, ok bool) {
	if path == modulePath {
		return "", true
	}
	return strings.CutPrefix(path, modulePath+"/")
}

func TestImportsGoUpOnly(t *testing.T) {
	for _, s := range sources(t) {
		row := rowOf(s.pkg)
		if row < 0 {
			t.Errorf("%s: package %q has no place in the house", s.path, s.pkg)
			continue
		}
		for _, i := range s.imports {
			pkg, ok := own(i)
			if !ok || top(pkg) == top(s.pkg) || s.test {
				continue // a package's own sub-packages, and tests, which may stand on anything below what they test
			}
			if rowOf(pkg) >= row {
				t.Errorf("%s imports %s, which is not below it", s.path, i)
			}
		}
	}
}

func TestOnlyEnclaveImportsStore(t *testing.T) {
	for _, s := range sources(t) {
		for _, i := range s.imports {
			pkg, ok := own(i)
			if !ok || top(pkg) != "store" {
				continue
			}
			from := top(s.pkg)
			if from == "store" || from == "enclave" || from == "node" || from == "redoubttest" {
				continue
			}
			t.Errorf("%s imports %s: that goes round the reference monitor", s.path, i)
		}
	}
}

func TestOnlyNodeImportsEnclave(t *testing.T) {
	for _, s := range sources(t) {
		for _, i := range s.imports {
			pkg, ok := own(i)
			if !ok || top(pkg) != "enclave" {
				continue
			}
			from := top(s.pkg)
			if from == "enclave" || from == "node" || from == "redoubttest" {
				continue
			}
			t.Errorf("%s imports %s: front ends are handed contracts", s.path, i)
		}
	}
}

func TestNothingThatRunsImportsItsTests(t *testing.T) {
	for _, s := range sources(t) {
		for _, i := range s.imports {
			if i == modulePath+"/faketime" && !s.test {
				t.Errorf("%s imports %s, which replaces the source of random bytes", s.path, i)
			}
			if pkg, ok := own(i); ok && top(pkg) == "redoubttest" && !s.test && top(s.pkg) != "redoubttest" {
				t.Errorf("%s imports %s, which may open the store", s.path, i)
			}
		}
	}
}

// TestFakeTimeIsFakedOneWay: synctest itself gives up under the FIPS 140-3 module, now and then.
func TestFakeTimeIsFakedOneWay(t *testing.T) {
	for _, s := range sources(t) {
		if s.pkg == "faketime" || !slices.Contains(s.imports, "testing/synctest") {
			continue
		}
		text, err := os.ReadFile(s.path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte("synctest.Test(")) {
			t.Errorf("%s runs a test in fake time by itself, and not by package faketime", s.path)
		}
	}
}

func TestTrustedPackagesTakeOnlyTheStandardLibrary(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || !slices.Contains(trusted, s.pkg) {
			continue
		}
		for _, i := range s.imports {
			pkg, ours := own(i)
			first, _, _ := strings.Cut(i, "/")
			switch {
			case i == "unsafe" || i == "C":
				t.Errorf("%s imports %s", s.path, i)
			case ours && !slices.Contains(trusted, pkg):
				t.Errorf("%s imports %s, which is not trusted", s.path, i)
			case !ours && strings.Contains(first, ".") && !strings.HasPrefix(i, "golang.org/x/"):
				t.Errorf("%s imports %s", s.path, i)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), s.path, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		documented[s.pkg] = documented[s.pkg] || f.Doc != nil
	}
	for pkg, ok := range documented {
		if !ok {
			t.Errorf("package %q has no package comment", pkg)
		}
	}
}
