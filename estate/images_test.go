package estate

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestWhichImagesMayRunIsReadStrictlyAndSigned(t *testing.T) {
	const digest, key = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w="
	read := func(images string) *Estate {
		t.Helper()
		text := strings.Replace(fmt.Sprintf(real, 1, public(1), public(2)), "\npeople:", "\n"+images+"\npeople:", 1)
		e, err := Read([]byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	if e := read(""); e.Nodes[0].Images != nil || bytes.Contains(e.Canonical(), []byte("images")) {
		t.Errorf("without one: %+v", e.Nodes[0].Images)
	}
	if e := read("    images: []"); e.Nodes[0].Images == nil || len(e.Nodes[0].Images.Rules) != 0 || !bytes.Contains(e.Canonical(), []byte(`"images":{"rules":null}`)) {
		t.Errorf("an empty one: %+v", e.Nodes[0].Images)
	}
	e := read("    images:\n      - repository: tools/*\n        digests: [" + digest + "]\n        signed_by: [" + key + "]\n      - {repository: \"*\", signed_by: [" + key + "]}")
	if p := e.Nodes[0].Images; p == nil || len(p.Rules) != 2 || p.Rules[0].Repository != "tools/*" || p.Rules[0].Digests[0] != digest || p.Rules[1].SignedBy[0] != key {
		t.Errorf("got %+v", p)
	}
	if !bytes.Contains(e.Canonical(), []byte(`"images":{"rules":[{"repository":"tools/*","digests":["`+digest+`"],"signed_by":["`+key+`"]},{"repository":"*",`)) {
		t.Errorf("the signature does not cover it: %s", e.Canonical())
	}
}
