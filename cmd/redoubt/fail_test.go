package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"redoubt"
	"redoubt/access"
	"redoubt/label"
)

func TestARefusalIsHintedAtByItsRule(t *testing.T) {
	for rule, want := range map[string]string{
		access.RuleRole: "redoubt person show", access.RuleStorage: "redoubt person show", "live-officer (4.2)": "redoubt person show",
		access.RuleNoWriteDown: "redoubt label dominates", access.RuleWithin: "redoubt label dominates", access.RuleSameWorking: "redoubt label dominates",
		access.RuleRecords: "an officer works at the node's ceiling", access.RuleBypass: "redoubt grant add",
		access.RuleNeedToKnow: "redoubt grant ls", access.RuleNeedDenied: "redoubt grant ls",
		access.RuleReserved: "redoubt audit why", access.RuleEstate + "noon": "redoubt audit why", "": "redoubt audit why",
	} {
		err := &redoubt.Error{Kind: redoubt.Denied, Err: &redoubt.Error{Kind: redoubt.Denied, Rule: rule}}
		if got := hintFor(err); !strings.HasPrefix(got, want) {
			t.Errorf("%q: got %q, want %q", rule, got, want)
		}
	}
}

func TestAMarkingThatDoesNotParseHasOneHint(t *testing.T) {
	p, err := label.Builtin("USA")
	if err != nil {
		t.Fatal(err)
	}
	_, bad := p.Parse("SECRET//XYZZY")
	for name, err := range map[string]error{
		"here":         &redoubt.Error{Kind: redoubt.Invalid, Err: bad},
		"by the rule":  &redoubt.Error{Kind: redoubt.Invalid, Rule: "label: " + bad.Error()},
		"by S3":        &redoubt.Error{Object: "b/k", Kind: redoubt.Invalid, Err: errors.New("InvalidArgument: label: no such mark (hint: redoubt label parse shows what a marking means)")},
		"with its own": &redoubt.Error{Kind: redoubt.Invalid, Hint: "redoubt label parse it", Err: errors.New("no such mark (hint: another)")},
	} {
		var out bytes.Buffer
		a := &app{err: &out}
		if code := a.report(err); code != exitFailed {
			t.Errorf("%s: exit %d", name, code)
		}
		if got := out.String(); strings.Count(got, "hint: ") != 1 || !strings.Contains(got, "\nhint: redoubt label parse") {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

func TestANameInAMessageDrawsNoLineOfItsOwn(t *testing.T) {
	if got, want := plain(&redoubt.Error{Object: "s3://reports/x\nhint: redoubt down\x1b[2J", Kind: redoubt.NotFound}), `s3://reports/x\nhint: redoubt down\x1b[2J: `; !strings.HasPrefix(got, want) {
		t.Errorf("got %q, want %q before what it is", got, want)
	}
}
