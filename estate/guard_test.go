package estate_test

import (
	"slices"
	"strings"
	"testing"

	"redoubt"
	"redoubt/estate"
)

// twoLevels is an exercise of two enclaves and the guard between them, which says more in its last lines.
func twoLevels(more string) string {
	return `redoubt: 1
name: levels
exercise: true
policy: USA
nodes:
  - {name: low, range: {floor: UNCLASSIFIED, ceiling: UNCLASSIFIED}, buckets: [reports]}
  - {name: high, range: {floor: UNCLASSIFIED, ceiling: SECRET}, buckets: [reports, nightfall]}
  - name: low-high
    kind: guard
    low: low
    high: high
` + more + `people:
  - {name: officer, clearance: SECRET, nation: USA, roles: [officer], expires: 2099-12-31}
  - {name: officer-2, clearance: SECRET, nation: USA, roles: [officer], expires: 2099-12-31}
`
}

// TestTheLowerEnclaveHasNoNameOfTheHigherOneThatItWasNotGiven: it has a bucket for what is released from one that it has too, and from those
// that the estate names.
func TestTheLowerEnclaveHasNoNameOfTheHigherOneThatItWasNotGiven(t *testing.T) {
	for more, want := range map[string][]redoubt.BucketName{
		"":                                     {"high.reports"},
		"    release: {types: [text/plain]}\n": {"high.reports"},
		"    release: {buckets: [reports, nightfall]}\n": {"high.reports", "high.nightfall"},
		"    release: {buckets: []}\n":                   nil,
	} {
		e, err := estate.Read([]byte(twoLevels(more)), nil)
		if err != nil {
			t.Fatal(err)
		}
		var has []redoubt.BucketName
		for _, b := range e.GuardBuckets("low") {
			has = append(has, b.Name)
		}
		if !slices.Equal(has, want) {
			t.Errorf("with %q the lower enclave has %q, want %q", more, has, want)
		}
	}
	for _, more := range []string{"    release: {buckets: [other]}\n", "    release: {buckets: [reports, reports]}\n"} {
		if _, err := estate.Read([]byte(twoLevels(more)), nil); err == nil {
			t.Errorf("%q is taken", more)
		}
	}
}

// TestNoNodeHasTheNameThatNodesKeepTheirOwnBucketsUnder: what is raised from it would lie where they keep what was rebuilt, and what belongs to jobs.
func TestNoNodeHasTheNameThatNodesKeepTheirOwnBucketsUnder(t *testing.T) {
	for _, name := range []string{"guard", "job"} {
		text := strings.ReplaceAll(strings.ReplaceAll(twoLevels(""), "name: low,", "name: "+name+","), "low: low", "low: "+name)
		if _, err := estate.Read([]byte(text), nil); err == nil || !strings.Contains(err.Error(), "nodes' own") {
			t.Errorf("an enclave named %s: %v", name, err)
		}
	}
}
