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

// TestARoadIsOfOneMachineUnlessTheEstateSaysSo: its address, the one that it is sent from and its pace are held to what they can be.
func TestARoadIsOfOneMachineUnlessTheEstateSaysSo(t *testing.T) {
	e, err := estate.Read([]byte(twoLevels("    road: {pace: 2Gbit}\n")), nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := e.Node("low-high"); n.Guard.Road != (estate.Road{Pace: 2_000_000_000}) || n.Guard.Road.Apart() {
		t.Errorf("got %+v", n.Guard.Road)
	}
	for text, want := range map[string]int64{"1GiB": estate.MinHold, "2TiB": 2 << 40, "1024TiB": estate.MaxHold} {
		e, err := estate.Read([]byte(twoLevels("    road: {hold: "+text+"}\n")), nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, _ := e.Node("low-high"); n.Guard.Road != (estate.Road{Hold: want}) {
			t.Errorf("hold %s: got %+v", text, n.Guard.Road)
		}
	}
	for road, why := range map[string]string{
		"{listen: \"10.9.0.2:4790\"}": "in an exercise both halves",
		"{from: 10.9.0.1}":            "leads to another machine",
		"{pace: 999kbit}":             "is not a pace",
		"{pace: 11Gbit}":              "is not a pace",
		"{pace: 1}":                   "is not a pace",
		"{hold: 1023MiB}":             "holds 1GiB to",
		"{hold: 1025TiB}":             "holds 1GiB to",
		"{hold: much}":                "is not a size",
	} {
		if _, err := estate.Read([]byte(twoLevels("    road: "+road+"\n")), nil); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %q", road, err, why)
		}
	}
	real := func(more string) error {
		text := strings.Replace(twoLevels(more), "exercise: true", "serial: 1", 1)
		_, err := estate.Read([]byte(text), nil) // it lacks keys and pins too, which is told beside
		return err
	}
	for more, why := range map[string]string{
		"    road: {listen: \"10.9.0.2:4790\"}\n":                                "",
		"    road: {listen: \"10.9.0.2:4790\", from: 10.9.0.1, pace: 100Mbit}\n": "",
		"    road: {listen: \"[fd00::2]:4790\", from: \"fd00::1\"}\n":            "",
		"    road: {listen: \"10.9.0.2\"}\n":                                     "is not an address and a port",
		"    road: {listen: \"10.9.0.2:0\"}\n":                                   "is not an address and a port",
		"    road: {listen: \"0.0.0.0:4790\"}\n":                                 "is not an address and a port",
		"    road: {listen: \"224.0.0.1:4790\"}\n":                               "is not an address and a port",
		"    road: {listen: \"above:4790\"}\n":                                   "is not an address and a port",
		"    road: {listen: \"10.9.0.2:4790\", from: 0.0.0.0}\n":                 "is not an address that one machine has",
		"    road: {listen: \"10.9.0.2:4790\", from: 127.0.0.1}\n":               "does not lead to",
		"    road: {listen: \"10.9.0.2:4790\", from: \"fd00::1\"}\n":             "does not lead to",
		"    machine: above\n    road: {listen: \"10.9.0.2:4790\"}\n":            "on no one machine",
		"    release_key: A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=\n":        "whose halves run apart",
		"    road: {listen: \"10.9.0.2:4790\"}\n    release_key: A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=\n    low_key: A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=\n": "another of the guard's keys",
	} {
		err := real(more)
		said := ""
		if err != nil {
			said = err.Error()
		}
		if why == "" && (strings.Contains(said, "road") || strings.Contains(said, "machine")) || !strings.Contains(said, why) {
			t.Errorf("%q: %v, want %q", more, err, why)
		}
	}
	text := strings.Replace(twoLevels("    road: {listen: \"10.9.0.2:4790\"}\n    release_key: A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=\n"), "exercise: true", "serial: 1", 1)
	text = strings.Replace(text, "name: officer-2", "name: low-high-release", 1)
	if _, err := estate.Read([]byte(text), nil); err == nil || !strings.Contains(err.Error(), "a person is named low-high-release") {
		t.Errorf("a person with the name of who brings releases: %v", err)
	}
}
