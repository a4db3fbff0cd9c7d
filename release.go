package redoubt

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"time"
)

// ReleaseID names one release for good, at its source and at its target: 32 hex digits, drawn at random.
type ReleaseID string

// ReleaseState says how far a release is.
type ReleaseState string

// The states of a release. From each the arrows of docs/spec/guard.md lead on; Released, Refused, Denied and Dead are final.
const (
	ReleaseRequested ReleaseState = "requested" // the guard has not filtered it yet
	ReleaseReview    ReleaseState = "review"    // rebuilt; two reviewers look at what would leave
	ReleaseApproved  ReleaseState = "approved"  // both signed; the guard takes it over
	ReleaseReleased  ReleaseState = "released"  // the target has it, and gave a receipt
	ReleaseRefused   ReleaseState = "refused"   // by the guard: policy, type, a filter, a word
	ReleaseDenied    ReleaseState = "denied"    // by a reviewer
	ReleaseDead      ReleaseState = "dead"      // expired, withdrawn, or what it rested on has changed
)

// Limits of releases.
const (
	MaxReleaseBytes   = 64 << 20                  // of content, before and after the filters: both filters hold it in memory
	MaxReleaseReason  = 1024                      // bytes of a reason
	MaxReleaseLife    = 7 * 24 * time.Hour        // an approval that is older is of another week's facts
	MaxReleaseReport  = 64                        // findings that are kept of one release
	MaxReleasesListed = 1000                      // in one page
	MaxReleaseTold    = 32 << 10                  // of what is told beside the content (names, reason, metadata), as JSON in ASCII: it goes in a header
	MaxReleaseAhead   = 50 * 366 * 24 * time.Hour // that a declassification is approved ahead: what it rests on is looked at when it leaves
)

// RequestRelease asks that one version leave for a lower node, or for a wider audience in the same one.
type RequestRelease struct {
	Name    ObjectName    `json:"name"`
	Version VersionID     `json:"version,omitempty"` // "": the one that is current for who asks
	To      NodeName      `json:"to"`                // the target; the source itself for another label in the same node
	Label   string        `json:"label"`             // marking under which it is to stand there
	Key     string        `json:"key,omitempty"`     // under which it is to appear; "": the same
	Keep    []string      `json:"keep,omitempty"`    // names of user metadata that are to leave too; none else does
	Reason  string        `json:"reason"`
	Life    time.Duration `json:"life,omitempty"` // until it dies; 0: MaxReleaseLife
	After   time.Time     `json:"after,omitzero"` // it leaves at this time and not before: a declassification that is approved ahead
}

// Release is a release as who dominates its source's label sees it.
type Release struct {
	ID       ReleaseID    `json:"id"`
	State    ReleaseState `json:"state"`
	Why      string       `json:"why,omitempty"` // of one that is refused, denied or dead: the rule, and what to do
	Name     ObjectName   `json:"name"`
	Version  VersionID    `json:"version"`
	Label    string       `json:"label"` // banner of the source version
	From     NodeName     `json:"from"`
	To       NodeName     `json:"to"`
	As       string       `json:"as"` // banner asked for
	Reason   string       `json:"reason"`
	By       SubjectName  `json:"by"` // who asked
	Made     time.Time    `json:"made"`
	After    time.Time    `json:"after,omitzero"`
	Expires  time.Time    `json:"expires"`
	Findings []Finding    `json:"findings,omitempty"`
	Keep     []string     `json:"keep,omitempty"`
	Key      string       `json:"key"`

	// Of one that needs its originator's consent (RULES 1.5):
	Originator SubjectName `json:"originator,omitempty"`  // who alone may give it
	ConsentFor []string    `json:"consent_for,omitempty"` // ConsentMarks of the source's label and of the one asked for
	Consent    *Signature  `json:"consent,omitempty"`     // hers, over ConsentMessage of the statement; nil: it was not given

	// Once it was rebuilt:
	Statement *ReleaseStatement `json:"statement,omitempty"` // what reviewers sign, and nothing else
	Approvals []Signature       `json:"approvals,omitempty"`
	DeniedBy  SubjectName       `json:"denied_by,omitempty"`
	Receipt   *ReleaseReceipt   `json:"receipt,omitempty"`
	Dropped   bool              `json:"dropped,omitempty"` // it has ended, and what was rebuilt is not kept any more
}

// Finding is what a step of the pipeline saw: something that it took out, or why it refused.
type Finding struct {
	Step   string `json:"step"` // "policy", "type", "filter NAME", "words", "rebuild"
	Rule   string `json:"rule"`
	Detail string `json:"detail,omitempty"` // at most 256 bytes, of the source's label
	Fatal  bool   `json:"fatal,omitempty"`  // it ended the release
}

// AwaitsConsent says whether a release stands in review and its originator has not said yes.
func (r *Release) AwaitsConsent() bool {
	return r.State == ReleaseReview && len(r.ConsentFor) > 0 && r.Consent == nil
}

// ReleaseStatement is exactly what leaves and under what terms. Both reviewers sign ReleaseMessage of it, its originator ConsentMessage where
// her consent is needed, and the target holds everything that arrives against it. Nothing in it is of the source but what is to leave.
type ReleaseStatement struct {
	Estate      string            `json:"estate"`
	ID          ReleaseID         `json:"id"`
	From        NodeName          `json:"from"`
	To          NodeName          `json:"to"`
	Requester   SubjectName       `json:"requester"` // neither reviewer
	Bucket      BucketName        `json:"bucket"`    // at the target
	Key         string            `json:"key"`
	ContentType string            `json:"content_type"`
	Meta        map[string]string `json:"meta,omitempty"`
	SizeBytes   int64             `json:"size"`
	SHA256      string            `json:"sha256"`         // of the rebuilt content, hex
	Label       string            `json:"label"`          // banner
	Policy      string            `json:"policy"`         // name and version of the marking policy: an approval dies with it
	Rules       string            `json:"rules"`          // SHA-256 of the guard's own policy, hex: an approval dies with it too
	After       time.Time         `json:"after,omitzero"` // the target takes it no earlier
	Expires     time.Time         `json:"expires"`

	// Of one that needs its originator's consent; else empty.
	Originator SubjectName `json:"originator,omitempty"` // no reviewer of it
	Consent    []string    `json:"consent,omitempty"`    // the marks that ask for it, of the source's label too
}

// ReleasePublic is what may be shown of a statement to anybody: what left, as what, to where.
type ReleasePublic struct {
	Estate    string    `json:"estate"`
	ID        ReleaseID `json:"id"`
	To        NodeName  `json:"to"`
	SHA256    string    `json:"sha256"`
	SizeBytes int64     `json:"size"`
	Label     string    `json:"label"`
	Expires   time.Time `json:"expires"`
	Rest      string    `json:"rest"` // SHA-256 of the statement's canonical form, hex: it binds what is not shown
}

// Public is what the receipt tells of the statement.
func (s ReleaseStatement) Public() ReleasePublic {
	rest := sha256.Sum256(message("redoubt release statement v1", s))
	return ReleasePublic{Estate: s.Estate, ID: s.ID, To: s.To, SHA256: s.SHA256, SizeBytes: s.SizeBytes, Label: s.Label, Expires: s.Expires, Rest: hex.EncodeToString(rest[:])}
}

// ReleaseMessage is what a reviewer signs. It is made of the public part alone, so that whoever holds a receipt can check the
// signatures; Rest in it binds everything else.
func ReleaseMessage(p ReleasePublic) []byte { return message("redoubt release v1", p) }

// Pseudonym is a person in a receipt: a public key without a name.
type Pseudonym struct {
	Key string `json:"key"` // Ed25519, base64
	Sig string `json:"sig"` // over ReleaseMessage, of an originator over ConsentMessage, base64
}

// ReleaseReceipt proves to anybody, offline, that the target took a content under a label because two reviewers signed for
// it, and its originator where her consent was needed. Node vouches that the two keys are those of two different reviewers of the estate, neither
// of whom asked or is the originator, and that nothing lacks a consent that it needed.
type ReleaseReceipt struct {
	ReleasePublic
	Taken     time.Time   `json:"taken"`
	Reviewers []Pseudonym `json:"reviewers"`
	Consent   *Pseudonym  `json:"consent,omitempty"` // nil: none was needed
	Node      NodeName    `json:"node"`
	Key       string      `json:"key"` // the node's, Ed25519, base64: to be compared with one that is known already
	Sig       string      `json:"sig"` // the node's, over ReceiptMessage, base64
}

// ReceiptMessage is what the target signs.
func ReceiptMessage(r ReleaseReceipt) []byte {
	r.Sig = ""
	return message("redoubt release receipt v1", r)
}

// ReleasePackage is what a guard carries to the target, beside the content.
type ReleasePackage struct {
	Statement ReleaseStatement `json:"statement"`
	Approvals []Signature      `json:"approvals"`
	Consent   *Signature       `json:"consent,omitempty"`

	// Settle says that it is given to nobody any more: its guard had it before, and asks the target whether that took it (ReleaseTaken).
	Settle bool `json:"settle,omitempty"`
}

// ListReleases selects releases; zero fields do not restrict.
type ListReleases struct {
	State ReleaseState
	After ReleaseID // exclusive, in the order of the list
	Max   int
}

// ReleaseService is what people do about releases at their source. Every method is decided and recorded; a release whose
// source's label the credential does not dominate is NotFound, in the words for one that never was.
type ReleaseService interface {
	// RequestRelease takes a request of who may read the version. Denied: no guard leads to the target, the label is none
	// that it may be released under, the rate is spent.
	RequestRelease(ctx context.Context, who Credential, q RequestRelease) (Release, error)
	// Releases lists newest first.
	Releases(ctx context.Context, who Credential, q ListReleases) ([]Release, error)
	Release(ctx context.Context, who Credential, id ReleaseID) (Release, error)
	// OpenRebuilt opens the bytes that would leave.
	OpenRebuilt(ctx context.Context, who Credential, id ReleaseID) (Object, error)
	// ApproveRelease takes a reviewer's signature over ReleaseMessage of the statement. Denied: she asked, signed already, is no
	// reviewer or is not cleared for the source. Conflict: the release is not in review. What it rests on is looked at anew each time.
	ApproveRelease(ctx context.Context, who Credential, id ReleaseID, sig string) (Release, error)
	// ConsentRelease takes the originator's signature over ConsentMessage of the statement, before, between or behind the reviewers'. Denied: she is
	// not the originator. Conflict: the release is not in review, needs no consent or has it. What it rests on is looked at anew.
	ConsentRelease(ctx context.Context, who Credential, id ReleaseID, sig string) (Release, error)
	// DenyRelease ends one: any reviewer who might approve it, who asked for it, and the originator whose consent it needs.
	DenyRelease(ctx context.Context, who Credential, id ReleaseID, reason string) (Release, error)
}

// ReleaseWork is one release as its guard is given it.
type ReleaseWork struct {
	Release
	Attributes Attributes `json:"attributes"` // of the source version; Meta has what is to be kept alone
}

// ReleaseVerdict is what the pipeline came to. Of one that was not refused, content goes with it.
type ReleaseVerdict struct {
	ContentType string    `json:"content_type"`
	Rules       string    `json:"rules"`
	Findings    []Finding `json:"findings,omitempty"`
	Refused     string    `json:"refused,omitempty"` // why; "": not
}

// ReleaseSource is what a guard asks of the node that something leaves. It is given the content of a version under an open
// request for it, and of no other.
type ReleaseSource interface {
	// PendingReleases gives those that wait for this guard in a state: ReleaseRequested or ReleaseApproved. With what is approved come those that
	// ended after the guard was given them, until it has said whether they left. It waits until there is one, or ctx ends (then none and no error).
	PendingReleases(ctx context.Context, guard Credential, state ReleaseState) ([]ReleaseID, error)
	// FetchRelease opens the source version of a requested release.
	FetchRelease(ctx context.Context, guard Credential, id ReleaseID) (ReleaseWork, Object, error)
	// SubmitRelease takes what the pipeline came to. content is read to its end where the verdict is no refusal.
	SubmitRelease(ctx context.Context, guard Credential, id ReleaseID, v ReleaseVerdict, content io.Reader) error
	// FetchApproved gives what two reviewers signed, after everything that it rests on was looked at once more, and keeps that it did. Of one that
	// ended since it was given first there is the statement alone, to be settled, and no Object.
	FetchApproved(ctx context.Context, guard Credential, id ReleaseID) (ReleasePackage, Object, error)
	// FinishRelease takes the target's receipt, or (refused) why the target would not have it, or that it had not taken what was to be settled.
	FinishRelease(ctx context.Context, guard Credential, id ReleaseID, receipt *ReleaseReceipt, refused string) error
}

// ReleaseTarget is the far side. It believes the guard nothing: statement, signatures, roles and content are all checked anew.
type ReleaseTarget interface {
	// AcceptRelease takes a released content. What it took it never takes again: the same package once more gives the same receipt
	// and writes nothing, and another one of the same ID is Conflict.
	AcceptRelease(ctx context.Context, guard Credential, p ReleasePackage, content io.Reader) (ReleaseReceipt, error)
	// ReleaseTaken gives the receipt of a release that was taken. One that was not is never taken afterwards: that is durable on return.
	ReleaseTaken(ctx context.Context, guard Credential, p ReleasePublic) (r ReleaseReceipt, taken bool, err error)
}
