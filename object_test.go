package redoubt

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestANameIsInSmallLettersInJSON, as everything else; what was kept before in capitals is read.
func TestANameIsInSmallLettersInJSON(t *testing.T) {
	b, err := json.Marshal(Release{Name: ObjectName{Bucket: "reports", Key: "plan"}})
	if want := `"name":{"bucket":"reports","key":"plan"}`; err != nil || !strings.Contains(string(b), want) {
		t.Errorf("got %s, %v, want %s in it", b, err, want)
	}
	var was ObjectName
	d := json.NewDecoder(strings.NewReader(`{"Bucket":"reports","Key":"plan"}`))
	d.DisallowUnknownFields()
	if err := d.Decode(&was); err != nil || was != (ObjectName{Bucket: "reports", Key: "plan"}) {
		t.Errorf("got %v, %v", was, err)
	}
}
