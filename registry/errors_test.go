package registry

import (
	"errors"
	"testing"

	"redoubt"
)

func TestEveryKindHasAnAnswer(t *testing.T) {
	for _, k := range redoubt.Kinds() {
		row, ok := kinds[k]
		if !ok || row.code == "" || row.status < 300 {
			t.Errorf("%v: %+v", k, row)
		}
	}
	if len(kinds) != len(redoubt.Kinds()) {
		t.Errorf("%d rows for %d kinds", len(kinds), len(redoubt.Kinds()))
	}
}

func TestOnlyKindRuleAndHintReachAClient(t *testing.T) {
	secret := errors.New("grid 38T")
	for _, k := range redoubt.Kinds() {
		err := &redoubt.Error{Op: "GetObject", Object: "reports/secret", Kind: k, Rule: "2.1", Hint: "ask", Err: secret}
		p, _ := told(err)
		want := k.Error() + ": 2.1; hint: ask"
		if k == redoubt.NotFound || k == redoubt.Internal {
			want = k.Error()
		}
		if p.Message != want {
			t.Errorf("%v: got %q, want %q", k, p.Message, want)
		}
		if q, _ := told(as("NAME_INVALID", err)); q.Message != want || q.Code != "NAME_INVALID" {
			t.Errorf("%v: got %+v", k, q)
		}
	}
	never, status := told(unknown("BLOB_UNKNOWN", redoubt.NotFound))
	for _, k := range []redoubt.Kind{redoubt.NotFound, redoubt.NoBucket, redoubt.MethodNotAllowed, redoubt.Erased, redoubt.BadDigest} {
		if p, s := told(unknown("BLOB_UNKNOWN", &redoubt.Error{Kind: k, Rule: "x", Hint: "y", Marker: "z"})); p != never || s != status {
			t.Errorf("%v: got %+v %d, want %+v %d", k, p, s, never, status)
		}
	}
}

func TestPathsOfOtherProtocolsAreNotTheRegistrys(t *testing.T) {
	for path, want := range map[string]bool{"/v2": true, "/v2/": true, "/v2/reports/a/tags/list": true, "/v2/models": false, "/v2/models/x": false, "/v2/health/ready": false,
		"/v2/modelsx/a": true, "/v1/node": false, "/v20/": false, "/": false, "/x/v2/": false} {
		if got := Serves(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}
