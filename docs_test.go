package redoubt_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// declared lists every function of the module as PACKAGE.FUNC or PACKAGE.TYPE.METHOD,
// interface methods too, and every test by its name.
func declared(t *testing.T) (funcs, tests map[string]bool) {
	t.Helper()
	funcs, tests = map[string]bool{}, map[string]bool{}
	for _, s := range sources(t) {
		f, err := parser.ParseFile(token.NewFileSet(), s.path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		pkg := top(s.pkg)
		if pkg == "" {
			pkg = "redoubt"
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				name := pkg + "."
				if d.Recv != nil {
					name += receiver(d.Recv.List[0].Type) + "."
				}
				funcs[name+d.Name.Name] = true
				if s.test {
					tests[d.Name.Name] = true
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					ts, ok := spec.(*ast.TypeSpec)
					if !ok {
						continue
					}
					funcs[pkg+"."+ts.Name.Name] = true
					if iface, ok := ts.Type.(*ast.InterfaceType); ok {
						for _, m := range iface.Methods.List {
							for _, n := range m.Names {
								funcs[pkg+"."+ts.Name.Name+"."+n.Name] = true
							}
						}
					}
				}
			}
		}
	}
	return funcs, tests
}

func receiver(e ast.Expr) string {
	if star, ok := e.(*ast.StarExpr); ok {
		e = star.X
	}
	if id, ok := e.(*ast.Ident); ok {
		return id.Name
	}
	return "?"
}

var walkName = regexp.MustCompile("`((?:redoubt|label|keys|access|identity|audit|store|compute|enclave|replica|carry|s3|api|node)\\.[A-Za-z0-9_.]+)`")

func TestTheWalksNameRealFunctions(t *testing.T) {
	funcs, _ := declared(t)
	text, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	named := walkName.FindAllStringSubmatch(string(text), -1)
	if len(named) < 15 {
		t.Fatalf("only %d functions are named", len(named))
	}
	for _, n := range named {
		if !funcs[n[1]] {
			t.Errorf("docs/architecture.md names %s, which is not there", n[1])
		}
	}
}

var testName = regexp.MustCompile("`((?:Test|Fuzz)[A-Z][A-Za-z0-9_]*)`")

func TestDocsNameRealTests(t *testing.T) {
	_, tests := declared(t)
	found := 0
	err := filepath.WalkDir("docs", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".md") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, n := range testName.FindAllStringSubmatch(string(text), -1) {
			found++
			if !tests[n[1]] {
				t.Errorf("%s names %s, which is not there", path, n[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 20 {
		t.Errorf("only %d tests are named: the threat model lists what tries each line", found)
	}
}
