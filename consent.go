package redoubt

import (
	"slices"
	"strings"
	"time"

	"redoubt/label"
)

// MetaOriginator is the metadata of a copy of what somebody else may alone let leave (ConsentMarks): whose it is. Clients cannot write it: names
// that begin with redoubt are reserved.
const MetaOriginator = "redoubt-originator"

// SeveralOriginators is the MetaOriginator of what was put together of several people's. None of them can consent for the others.
const SeveralOriginators = "*"

// MarkFGI is of ConsentMarks the one whose originator is another nation.
const MarkFGI = "FGI"

// ConsentMarks are those handling marks of a label with which nothing leaves an enclave downward, or an estate, without its originator's consent
// (RULES 1.5): of FGI, FISA, ORCON and PROPIN, in this order, each once.
func ConsentMarks(l label.Label) (all []string) {
	for _, m := range l.Marks() {
		if word, _, _ := strings.Cut(m, "-"); slices.Contains([]string{MarkFGI, "FISA", "ORCON", "PROPIN"}, word) {
			all = append(all, word)
		}
	}
	if len(l.Sources()) > 0 {
		all = append(all, MarkFGI)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// ConsentMessage is what an originator signs for a release: what its reviewers sign, in a domain of its own, so that neither signature ever serves as
// the other.
func ConsentMessage(p ReleasePublic) []byte { return message("redoubt release consent v1", p) }

// ConsentExport asks for an originator's consent to one export, or gives it.
type ConsentExport struct {
	Name    ObjectName `json:"name"`
	Version VersionID  `json:"version"`
	Nation  string     `json:"nation"`
	KAS     string     `json:"kas"`           // SHA-256 of the key that it is to be sealed to (SubjectPublicKeyInfo, DER), hex
	SHA256  string     `json:"sha256"`        // of the content, hex
	Expires time.Time  `json:"expires"`       // at most MaxReleaseLife ahead
	Sig     string     `json:"sig,omitempty"` // over ExportConsentMessage; "": what is to be signed is asked for, and nothing is kept
}

// ExportConsent is exactly what an originator consents to: that one version leaves once, for one nation, sealed to one key.
type ExportConsent struct {
	Estate     string      `json:"estate"`
	Node       NodeName    `json:"node"`
	Bucket     BucketName  `json:"bucket"`
	Key        string      `json:"key"`
	Version    VersionID   `json:"version"`
	Label      string      `json:"label"`   // banner
	Consent    []string    `json:"consent"` // ConsentMarks of it
	Originator SubjectName `json:"originator"`
	SizeBytes  int64       `json:"size"`
	SHA256     string      `json:"sha256"`
	Nation     string      `json:"nation"`
	KAS        string      `json:"kas"`
	Policy     string      `json:"policy"` // name and version of the marking policy: a consent dies with it
	Expires    time.Time   `json:"expires"`
}

// ExportConsentMessage is what an originator signs for an export.
func ExportConsentMessage(c ExportConsent) []byte { return message("redoubt export consent v1", c) }
