package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"redoubt"
	"redoubt/label"
)

const gbrToUSA = `{"format": "redoubt-equivalence-1", "from": "GBR@1", "to": "USA@1", "notBefore": "2020-01-01T00:00:00Z", "expires": "2120-01-01T00:00:00Z",
 "classifications": {"OFFICIAL": "CONFIDENTIAL", "SECRET": "SECRET", "TOP SECRET": "TOP SECRET"}, "categories": {}, "marks": {}, "audience": {"GBR": ["GBR"], "USA": ["USA"]}}`

func TestAnImportHasTheOriginatorsLabelAndAtLeastTheWorkingOne(t *testing.T) {
	agreement := filepath.Join(t.TempDir(), "gbr-usa.json")
	if err := os.WriteFile(agreement, []byte(gbrToUSA), 0o600); err != nil {
		t.Fatal(err)
	}
	var known []*label.Policy
	for _, n := range []string{"USA", "GBR"} {
		p, err := policy(n)
		if err != nil {
			t.Fatal(err)
		}
		known = append(known, p)
	}
	for what, one := range map[string]struct {
		of                               *label.Policy
		signed, node, working, agreement string
		want                             string
		rule                             string
	}{
		"its own":                         {known[0], "SECRET//REL TO USA, GBR", "USA", "SECRET//REL TO USA, GBR", "", "SECRET//REL TO USA, GBR", ""},
		"above the working label":         {known[0], "SECRET", "USA", "UNCLASSIFIED", "", "SECRET", ""},
		"below the working label":         {known[0], "UNCLASSIFIED", "USA", "SECRET//REL TO USA, GBR", "", "SECRET//REL TO USA, GBR", ""},
		"beside the working label":        {known[0], "CONFIDENTIAL//REL TO USA, AUS", "USA", "SECRET//REL TO USA, GBR", "", "SECRET//NOFORN", ""},
		"another's, by an agreement":      {known[1], "SECRET//REL TO GBR, USA", "USA", "UNCLASSIFIED", agreement, "//GBR SECRET//REL TO USA, GBR", ""},
		"another's, without one":          {known[1], "SECRET//REL TO GBR, USA", "USA", "UNCLASSIFIED", "", "", "agreement"},
		"what the agreement does not say": {known[1], "SECRET//REL TO GBR, AUS", "USA", "UNCLASSIFIED", agreement, "", "agreement"},
		"where the policy is not known":   {known[0], "SECRET", "FRA", "SECRET", "", "", ""},
		"its own, by an agreement":        {known[0], "SECRET", "USA", "SECRET", agreement, "", ""},
	} {
		l, err := one.of.Parse(one.signed)
		if err != nil {
			t.Fatal(err)
		}
		got, err := importLabel(l, one.node, one.working, known, one.agreement)
		if one.want == "" {
			var e *redoubt.Error
			if err == nil || one.rule != "" && (!errors.As(err, &e) || e.Rule != one.rule || e.Kind != redoubt.Denied) {
				t.Errorf("%s: got %v, %v, want a refusal by %q", what, got, err, one.rule)
			}
			continue
		}
		if err != nil || got.Banner() != one.want {
			t.Errorf("%s: got %s, %v, want %s", what, got, err, one.want)
		}
	}
}
