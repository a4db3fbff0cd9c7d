package access

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"
	"time"

	"redoubt"
	"redoubt/label"
)

var (
	noon   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	usa, _ = label.Builtin("USA")
)

func mark(t testing.TB, marking string) label.Label {
	t.Helper()
	l, err := usa.Parse(marking)
	if err != nil {
		t.Fatalf("%s: %v", marking, err)
	}
	return l
}

func cleared(t testing.TB, marking, nation string) label.Label {
	t.Helper()
	l, err := usa.Clearance(marking, nation)
	if err != nil {
		t.Fatalf("%s for %s: %v", marking, nation, err)
	}
	return l
}

// monitor is that of a node from UNCLASSIFIED to TOP SECRET//SI/TK.
func monitor(t testing.TB) *Monitor {
	return New(mark(t, "UNCLASSIFIED"), mark(t, "TOP SECRET//SI/TK"), "topsecret", nil)
}

// request is one that is allowed for every action of an analyst: an American with TOP SECRET//SI/TK who
// works at SECRET.
func request(t testing.TB, a redoubt.Action) *Request {
	working := mark(t, "SECRET")
	return &Request{
		Now: noon,
		Who: redoubt.Credential{ID: "RDAAAAAAAAAAAAAAAAAA", Subject: "ada", Working: working, Expires: noon.Add(time.Hour)},
		Subject: redoubt.Subject{Name: "ada", Clearance: cleared(t, "TOP SECRET//SI/TK", "USA"), Nation: "USA",
			Expires: noon.Add(24 * time.Hour), Roles: []redoubt.Role{redoubt.RoleAnalyst}},
		Action: a,
		Bucket: &Bucket{Name: "reports", Floor: mark(t, "UNCLASSIFIED"), Ceiling: mark(t, "TOP SECRET//SI/TK")},
		Key:    "2026/march.txt",
		Object: working, MadeAt: working, New: working,
	}
}

// actions are all that the root declares, read from its source so that a new one cannot be forgotten here.
func actions(t testing.TB) []redoubt.Action {
	t.Helper()
	pkgs, err := parser.ParseDir(token.NewFileSet(), "..", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var all []redoubt.Action
	for _, f := range pkgs["redoubt"].Files {
		ast.Inspect(f, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if typ, ok := v.Type.(*ast.Ident); ok && typ.Name == "Action" {
				for _, x := range v.Values {
					s, err := strconv.Unquote(x.(*ast.BasicLit).Value)
					if err != nil {
						t.Fatal(err)
					}
					all = append(all, redoubt.Action(s))
				}
			}
			return true
		})
	}
	if len(all) < 35 {
		t.Fatalf("found %d actions, which cannot be all", len(all))
	}
	return all
}

func TestEveryActionHasAClass(t *testing.T) {
	for _, a := range actions(t) {
		if ClassOf(a) == ClassNone {
			t.Errorf("%s has no class", a)
		}
		if ClassOf(a).rule() == RuleNoAction {
			t.Errorf("%s is recorded under no rule", a)
		}
	}
	for _, a := range []redoubt.Action{"", "GetObject ", "getobject", "Anything"} {
		if c := ClassOf(a); c != ClassNone {
			t.Errorf("%q has class %d, want none", a, c)
		}
	}
}

func TestZeroValuesRefuse(t *testing.T) {
	m := monitor(t)
	own, self := m.Own(mark(t, "SECRET"), noon)
	for _, a := range append(actions(t), "") {
		if d := m.Check(&Request{Action: a}); d.Allow {
			t.Errorf("%s: an empty request was allowed", a)
		}
		full := request(t, a)
		full.Subject.Roles, full.Self = redoubt.Roles(), true
		if d := new(Monitor).Check(full); d.Allow {
			t.Errorf("%s: the zero monitor allowed", a)
		}
		for name, clear := range map[string]func(*Request){
			"Now":        func(r *Request) { r.Now = time.Time{} },
			"Who":        func(r *Request) { r.Who = redoubt.Credential{} },
			"ID":         func(r *Request) { r.Who.ID = "" },
			"Working":    func(r *Request) { r.Who.Working = label.Label{} },
			"Expires":    func(r *Request) { r.Who.Expires = time.Time{} },
			"Subject":    func(r *Request) { r.Subject = redoubt.Subject{} },
			"no subject": func(r *Request) { r.Subject = redoubt.Subject{}; r.Who.Subject = "" },
			"Clearance":  func(r *Request) { r.Subject.Clearance = label.Label{} },
			"clearance":  func(r *Request) { r.Subject.Expires = time.Time{} },
		} {
			r := request(t, a)
			r.Subject.Roles, r.Self = redoubt.Roles(), true
			clear(r)
			if d := m.Check(r); d.Allow || d.Known {
				t.Errorf("%s without %s: got %+v, want refused and unknown", a, name, d)
			}
		}
	}
	// What each class needs, beyond that.
	for _, a := range actions(t) {
		class := ClassOf(a)
		for name, c := range map[string]struct {
			clear func(*Request)
			needs []Class
		}{
			"Object": {func(r *Request) { r.Object = label.Label{} }, []Class{ClassRead, ClassAlter, ClassKeys, ClassExpire}},
			"MadeAt": {func(r *Request) { r.MadeAt = label.Label{} }, []Class{ClassUpload, ClassAbort, ClassAlter}},
			"New":    {func(r *Request) { r.New = label.Label{} }, []Class{ClassWrite, ClassUpload, ClassRecord}},
			"Bucket": {func(r *Request) { r.Bucket = nil }, []Class{ClassRead, ClassList, ClassWrite, ClassUpload, ClassAbort, ClassAlter, ClassBucket, ClassExpire}},
			"bounds": {func(r *Request) { r.Bucket = &Bucket{Name: "reports"} }, []Class{ClassWrite, ClassUpload}},
		} {
			for _, need := range c.needs {
				if need != class {
					continue
				}
				r := request(t, a)
				r.Subject.Roles, r.Self = redoubt.Roles(), true
				if class == ClassBucket {
					r.Who.Working = mark(t, "UNCLASSIFIED")
				}
				if class == ClassExpire || class == ClassRecord {
					r.Who, r.Subject = own, self
				}
				if d := m.Check(r); !d.Allow {
					t.Fatalf("%s: %+v, want allowed before anything is cleared", a, d)
				}
				c.clear(r)
				if d := m.Check(r); d.Allow {
					t.Errorf("%s without %s was allowed", a, name)
				}
			}
		}
	}
}

func TestOnlyAVersionAboveTheWorkingLabelIsRecordedAsWriteUp(t *testing.T) {
	m := monitor(t)
	for _, a := range []redoubt.Action{redoubt.ActionPutObject, redoubt.ActionDeleteObject, redoubt.ActionUpload} {
		r := request(t, a)
		r.Subject.Roles = append(r.Subject.Roles, redoubt.RoleWriteUp)
		for _, c := range []struct {
			above bool
			want  string
		}{{false, "write (2.1)"}, {true, "write-up (2.1)"}} {
			if r.New = r.Who.Working; c.above {
				r.Who.Working = mark(t, "CONFIDENTIAL")
				r.MadeAt = r.Who.Working
			}
			if d := m.Check(r); !d.Allow || d.Rule != c.want {
				t.Errorf("%s of %s at %s: got %+v, want %q", a, r.New, r.Who.Working, d, c.want)
			}
			if n := testing.AllocsPerRun(100, func() { m.Check(r) }); n != 0 {
				t.Errorf("%s: %v allocations a decision, want 0", a, n)
			}
		}
	}
}

func TestAllowedDecisionsAllocateNothing(t *testing.T) {
	m := monitor(t)
	for _, a := range []redoubt.Action{redoubt.ActionGetObject, redoubt.ActionPutObject, redoubt.ActionListObjects, redoubt.ActionPutTags} {
		r := request(t, a)
		r.Bucket.Closed = true
		r.Subject.Grants = []redoubt.Grant{{Subject: "ada", Bucket: "reports", Prefix: "2026/"}}
		if !m.Check(r).Allow {
			t.Fatalf("%s was refused", a)
		}
		if n := testing.AllocsPerRun(100, func() { m.Check(r) }); n != 0 {
			t.Errorf("%s: %v allocations a decision, want 0", a, n)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	m := monitor(b)
	for _, a := range []redoubt.Action{redoubt.ActionGetObject, redoubt.ActionPutObject, redoubt.ActionListObjects, redoubt.ActionPutTags} {
		b.Run(string(a), func(b *testing.B) {
			r := request(b, a)
			for b.Loop() {
				if !m.Check(r).Allow {
					b.Fatal("refused")
				}
			}
		})
	}
	b.Run("mandatory part of GetObject", func(b *testing.B) {
		r := request(b, redoubt.ActionGetObject)
		for b.Loop() {
			if m.mandatory(ClassRead, r) != "" {
				b.Fatal("refused")
			}
		}
	})
	b.Run("GetObject with eight grants", func(b *testing.B) {
		r := request(b, redoubt.ActionGetObject)
		r.Bucket.Closed = true
		for range 8 {
			r.Subject.Grants = append(r.Subject.Grants, redoubt.Grant{Subject: "ada", Bucket: "reports", Prefix: "2026/"})
		}
		for b.Loop() {
			if !m.Check(r).Allow {
				b.Fatal("refused")
			}
		}
	})
}
