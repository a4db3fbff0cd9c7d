package main

import (
	"strings"
	"testing"

	"redoubt/estate"
)

func TestDoctorTellsOfLabelsWithoutAShareAndOfSharesAboveTheDisk(t *testing.T) {
	for _, c := range []struct{ nodes, want string }{
		{"- {name: a, range: {floor: U, ceiling: S}, quotas: {U: 600, S: 400}}", "warn node a, ok shares"},
		{"- {name: a, range: {floor: U, ceiling: S}}", "warn node a, ok shares"},
		{"- {name: a, range: {floor: U, ceiling: S}, quotas: {U: 600, S: 400, default: 5000}}", "ok shares"},
		{"- {name: a, range: {floor: U, ceiling: S}, quotas: {U: 601, S: 400, default: 1}}", "warn shares"},
		{"- {name: a, range: {floor: U, ceiling: U}, quotas: {U: 600}}", "ok shares"},
		{"- {name: a, range: {floor: S, ceiling: S//NF}, quotas: {S: 600}}", "ok shares"},
		{"- {name: a, range: {floor: U, ceiling: U}, quotas: {U: 600}}\n- {name: b, range: {floor: U, ceiling: U}, quotas: {U: 600}}", "warn shares"},
		{"- {name: a, range: {floor: U, ceiling: S}, quotas: {U: 5000PiB, S: 5000PiB, default: 1}}", "warn shares"},
	} {
		e, err := estate.Read([]byte("redoubt: 1\nname: x\nexercise: true\npolicy: USA\nnodes:\n"+c.nodes+`
people:
- {name: o1, clearance: S, nation: USA, roles: [officer], expires: 2040-01-01}
- {name: o2, clearance: S, nation: USA, roles: [officer], expires: 2040-01-01}
`), nil)
		if err != nil {
			t.Fatal(err)
		}
		d := &diagnosis{}
		checkShares(d, e.Nodes, 1000)
		var got []string
		for _, f := range d.Findings {
			got = append(got, f.Level+" "+f.Check)
		}
		if got := strings.Join(got, ", "); got != c.want {
			t.Errorf("%s: got %q, want %q", c.nodes, got, c.want)
		}
	}
}
