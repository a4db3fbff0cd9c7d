package redoubt

import (
	"strings"
	"testing"
	"time"

	"redoubt/label"
)

// TestAConsentIsSignedInADomainOfItsOwn: byte for byte as docs/spec/guard.md says, and never what a reviewer signs.
func TestAConsentIsSignedInADomainOfItsOwn(t *testing.T) {
	s := ReleaseStatement{Estate: "e", ID: "ab", From: "high", To: "low", Requester: "asks", Bucket: "high.b", Key: "k", ContentType: "text/plain", SizeBytes: 1, SHA256: "cd", Label: "UNCLASSIFIED",
		Policy: "USA@1", Rules: "ef", Expires: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Originator: "author", Consent: []string{"ORCON"}}
	public := `{"estate":"e","id":"ab","to":"low","sha256":"cd","size":1,"label":"UNCLASSIFIED","expires":"2026-03-01T12:00:00Z","rest":"` + s.Public().Rest + `"}`
	if got, want := string(ConsentMessage(s.Public())), "redoubt release consent v1\n"+public; got != want {
		t.Errorf("a consent signs %q, want %q", got, want)
	}
	if got, want := string(ReleaseMessage(s.Public())), "redoubt release v1\n"+public; got != want {
		t.Errorf("a review signs %q, want %q", got, want)
	}
	if got, want := s.Public().Rest, "6592bb19f2f346bfc26869db9a7f59376c371e0cb813daedff170728dd18c9da"; got != want { // of the statement that guard.md writes out
		t.Errorf("rest is %s, want %s", got, want)
	}
	bare := s
	bare.Originator, bare.Consent = "", nil
	if b := string(message("x", bare)); strings.Contains(b, "originator") || strings.Contains(b, "consent") || bare.Public().Rest == s.Public().Rest {
		t.Errorf("what needs no consent says %s", b)
	}
	x := ExportConsent{Estate: "e", Node: "n", Bucket: "b", Key: "k", Version: "v", Label: "SECRET//ORCON", Consent: []string{"ORCON"}, Originator: "author", SizeBytes: 1, SHA256: "cd", Nation: "GBR", KAS: "ef",
		Policy: "USA@1", Expires: s.Expires}
	if got, want := string(ExportConsentMessage(x)), "redoubt export consent v1\n"+`{"estate":"e","node":"n","bucket":"b","key":"k","version":"v","label":"SECRET//ORCON","consent":["ORCON"],"originator":"author","size":1,"sha256":"cd","nation":"GBR","kas":"ef","policy":"USA@1","expires":"2026-03-01T12:00:00Z"}`; got != want {
		t.Errorf("a consent to an export signs %q, want %q", got, want)
	}
}

func TestWhatAsksForAConsent(t *testing.T) {
	policy, err := label.Builtin("USA")
	if err != nil {
		t.Fatal(err)
	}
	for marking, want := range map[string]string{"SECRET": "", "UNCLASSIFIED": "", "SECRET//NOFORN": "", "SECRET//IMCON": "", "SECRET//ORCON": "ORCON", "SECRET//ORCON-USGOV": "ORCON", "SECRET//PROPIN/FISA/ORCON": "FISA ORCON PROPIN",
		"SECRET//FGI GBR": "FGI", "SECRET//FGI": "FGI", "//GBR SECRET": "FGI", "//JOINT SECRET GBR USA": "FGI", "SECRET//FGI GBR//ORCON": "FGI ORCON"} {
		l, err := policy.Parse(marking)
		if err != nil {
			t.Errorf("%s: %v", marking, err)
			continue
		}
		if got := strings.Join(ConsentMarks(l), " "); got != want {
			t.Errorf("%s asks for a consent for %q, want %q", marking, got, want)
		}
	}
	if got := ConsentMarks(label.Label{}); len(got) != 0 {
		t.Errorf("no label at all asks for %v", got)
	}
}
