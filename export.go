package redoubt

import (
	"context"
	"time"
)

// MaxExportBytes is the most that one version may have that leaves as a file: its digest is on record before its first byte goes
// out, so it is read twice.
const MaxExportBytes = 64 << 30

// MaxExportReason bounds the reason of an export, in bytes: it stands in the audit log.
const MaxExportReason = 512

// ExportVersion asks that one version leave the estate as a file, for a partner nation that may read it already.
type ExportVersion struct {
	Name    ObjectName `json:"name"`
	Version VersionID  `json:"version,omitempty"` // "": the one that is current for who asks
	Nation  string     `json:"nation"`            // code of the nation that it is for, as the marking policy has it
	Reason  string     `json:"reason"`
	KAS     string     `json:"kas,omitempty"` // of what needs its originator's consent: the key that the consent names, as ConsentExport has it
}

// Exported is what a node says of a version that it let leave. Nothing in it is of another version.
type Exported struct {
	Version        VersionID `json:"version"`
	Label          string    `json:"label"` // banner
	Classification string    `json:"classification"`
	Categories     []string  `json:"categories"`
	ReleasableTo   []string  `json:"releasable_to"` // nations and groups; ["ALL"] for everybody
	XML            string    `json:"xml"`           // the originator's label, STANAG 4774
	Nation         string    `json:"nation"`
	ContentType    string    `json:"content_type,omitempty"`
	SizeBytes      int64     `json:"size"`
	SHA256         string    `json:"sha256"` // of the content, hex: the audit log has it
	Made           time.Time `json:"made"`   // when the version was made

	Consent *ExportConsent `json:"consent,omitempty"` // by which it left; it is used up
}

// ExportService lets versions leave the estate as files for partners. It widens nobody's audience: what a nation may not read
// already, a release has to make readable first.
type ExportService interface {
	// ExportVersion decides that a version may leave, for a subject with the role reviewer that may read it, and gives its content.
	// On return the decision is durable, with digest, nation and reason.
	//
	// Denied: the label's audience does not contain the nation; ORCON, PROPIN or FISA without the originator's consent to exactly this; FGI or
	// another owner, whose consent cannot be proved here; what came from another enclave; no reviewer. Invalid: no nation of the policy, or the own one; no reason. TooLarge:
	// more than MaxExportBytes. NotFound: nothing that the credential may know of. The caller closes the object.
	ExportVersion(ctx context.Context, who Credential, q ExportVersion) (Exported, Object, error)
	// ConsentExport gives what an originator signs for one export, and keeps her consent once it comes with her signature: it is good once, until it
	// expires, and while the version is current. Denied: she is not the version's originator. Conflict: it needs no consent.
	// QuotaExceeded: 64 of the version are open, or 1,000 of hers.
	ConsentExport(ctx context.Context, who Credential, q ConsentExport) (ExportConsent, error)
}
