package main

import "testing"

// TestADocumentHasOneReading: what encoding/json takes for one field another reader takes for two, and shows the other one.
func TestADocumentHasOneReading(t *testing.T) {
	for doc, want := range map[string]bool{
		`{"sha256":"a","keys":[{"key":1},{"key":2}]}`: true, `{"a":{"a":1}}`: true, `{}`: true,
		`{"sha256":"a","sha256":"b"}`: false, `{"sha256":"a","SHA256":"b"}`: false, "{\"sha256\":\"a\",\"\u017fha256\":\"b\"}": false, `{"sha256":"a","\u017fha256":"b"}`: false,
		"{\"key\":1,\"\u212aey\":2}": false, `[{"a":1,"a":2}]`: false, `{"a":1}{}`: false, `{"a":1`: false, ``: false,
	} {
		if got := oneReading([]byte(doc)); got != want {
			t.Errorf("%s: got %t, want %t", doc, got, want)
		}
	}
}
