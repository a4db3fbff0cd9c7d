package estate

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"redoubt"
)

// granting is the estate of these tests with a section of its first node.
func granting(section string) (*Estate, error) {
	text := strings.Replace(fmt.Sprintf(real, 1, public(1), public(2)), "\npeople:", "\n"+section+"\npeople:", 1)
	return Read([]byte(text), nil)
}

func TestWhatJobsMayConnectToIsReadAndSigned(t *testing.T) {
	e, err := granting("")
	if err != nil || e.Nodes[0].Destinations != nil || e.Nodes[0].Runc != nil || bytes.Contains(e.Canonical(), []byte("destinations")) || bytes.Contains(e.Canonical(), []byte("runc")) {
		t.Fatalf("without any: %v", err)
	}
	person := string(e.People[0].Name)
	ceiling := e.Nodes[0].Range.Ceiling
	e, err = granting(`    destinations:
      - {name: "weather.example.mil:443", address: "192.0.2.7:8443", label: "` + ceiling + `", subjects: [` + person + `], bytes: 2GiB}
      - {name: "index:80", address: "[2001:db8::7]:80", label: "` + ceiling + `", subjects: "*"}
    runc: {subjects: [` + person + `]}`)
	if err != nil {
		t.Fatal(err)
	}
	want := []redoubt.Destination{{Name: "weather.example.mil:443", Address: "192.0.2.7:8443", Label: ceiling, Subjects: []redoubt.SubjectName{redoubt.SubjectName(person)}, Bytes: 2 << 30},
		{Name: "index:80", Address: "[2001:db8::7]:80", Label: ceiling, Subjects: []redoubt.SubjectName{"*"}}}
	if !reflect.DeepEqual(e.Nodes[0].Destinations, want) || e.Nodes[0].Runc == nil || string(e.Nodes[0].Runc.Subjects[0]) != person {
		t.Errorf("got %+v and %+v", e.Nodes[0].Destinations, e.Nodes[0].Runc)
	}
	for _, part := range []string{`"destinations":[{"name":"weather.example.mil:443","address":"192.0.2.7:8443","label":"` + ceiling + `","subjects":["` + person + `"],"bytes":2147483648},`, `"runc":{"subjects":["` + person + `"]}`} {
		if !bytes.Contains(e.Canonical(), []byte(part)) {
			t.Errorf("the signature does not cover %s: %s", part, e.Canonical())
		}
	}
}

func TestADestinationThatIsANodeHasItsCeiling(t *testing.T) {
	e, err := granting("")
	if err != nil {
		t.Fatal(err)
	}
	n := e.Nodes[0]
	listen := "    s3: {listen: \"127.0.0.1:9000\"}\n"
	e, err = granting(listen + `    destinations: [{name: "objects:9000", at: ` + string(n.Name) + `, subjects: "*"}]`)
	if err != nil {
		t.Fatal(err)
	}
	if got := e.Nodes[0].Destinations[0]; got.Address != "127.0.0.1:9000" || got.Label != n.Range.Ceiling {
		t.Errorf("got %+v", got)
	}
	for of, section := range map[string]string{
		"no fixed port":      `    destinations: [{name: "objects:9000", at: ` + string(n.Name) + `, listener: api, subjects: "*"}]`,
		"a label of its own": listen + `    destinations: [{name: "objects:9000", at: ` + string(n.Name) + `, label: "` + n.Range.Floor + `", subjects: "*"}]`,
		"no such node":       `    destinations: [{name: "objects:9000", at: elsewhere, subjects: "*"}]`,
	} {
		if _, err := granting(section); err == nil {
			t.Errorf("%s was taken", of)
		}
	}
}

func TestADestinationThatIsOddIsRefused(t *testing.T) {
	e, err := granting("")
	if err != nil {
		t.Fatal(err)
	}
	ceiling := e.Nodes[0].Range.Ceiling
	whole := map[string]string{"name": `"weather.mil:443"`, "address": `"192.0.2.7:443"`, "label": `"` + ceiling + `"`, "subjects": `"*"`}
	section := func(change map[string]string) string {
		var parts []string
		for _, k := range []string{"name", "address", "at", "listener", "label", "subjects", "bytes"} {
			v := whole[k]
			if c, ok := change[k]; ok {
				v = c
			}
			if v != "" {
				parts = append(parts, k+": "+v)
			}
		}
		return "    destinations: [{" + strings.Join(parts, ", ") + "}]"
	}
	if _, err := granting(section(nil)); err != nil {
		t.Fatal(err)
	}
	for of, change := range map[string]map[string]string{
		"no port":               {"name": `"weather.mil"`},
		"port 0":                {"name": `"weather.mil:0"`},
		"an address as a name":  {"name": `"192.0.2.7:443"`},
		"an IPv6 as a name":     {"name": `"[::1]:443"`},
		"what looks like one":   {"name": `"10.1:443"`},
		"capitals":              {"name": `"Weather.mil:443"`},
		"a wildcard":            {"name": `"*.mil:443"`},
		"a space":               {"name": `"we ather:443"`},
		"the sandbox itself":    {"name": `"localhost:443"`},
		"its host name":         {"name": `"redoubt:443"`},
		"a name as address":     {"address": `"weather.mil:443"`},
		"every address":         {"address": `"0.0.0.0:443"`},
		"a group":               {"address": `"224.0.0.1:443"`},
		"a zone":                {"address": `"[fe80::1%eth0]:443"`},
		"no label":              {"label": ""},
		"no such label":         {"label": `"SOMEWHAT SECRET"`},
		"nobody":                {"subjects": "[]"},
		"a stranger":            {"subjects": "[nobody-at-all]"},
		"no subjects":           {"subjects": ""},
		"a node and an address": {"at": string(e.Nodes[0].Name)},
		"neither":               {"address": ""},
		"a listener alone":      {"listener": "s3"},
		"no bytes":              {"bytes": "0"},
	} {
		if _, err := granting(section(change)); err == nil {
			t.Errorf("%s was taken", of)
		}
	}
	if _, err := granting("    destinations:\n" + strings.Repeat("      - {name: \"a:1\", address: \"192.0.2.7:443\", label: \""+ceiling+"\", subjects: \"*\"}\n", 2)); err == nil {
		t.Error("one name twice was taken")
	}
	if _, err := granting("    runc: {subjects: [nobody-at-all]}"); err == nil {
		t.Error("runc for a stranger was taken")
	}
}
