package redoubt

import (
	"context"
	"time"
)

// Regrade asks for another label of a version, in place.
type Regrade struct {
	Name    ObjectName `json:"name"`
	Version VersionID  `json:"version,omitempty"` // "": the current one
	Label   string     `json:"label"`
	Reason  string     `json:"reason"`
}

// Regraded is what became of it.
type Regraded struct {
	Version VersionID `json:"version"` // the new one
	Label   string    `json:"label"`
	Erased  VersionID `json:"erased"`         // the old one, which is gone
	Over    VersionID `json:"over,omitempty"` // the version or delete marker that who reads at the new label saw under the name before, where it was not the old one: the new one is newer
}

// SpillCopy is a version that holds what was spilled, or may; or an upload in progress whose parts may.
type SpillCopy struct {
	Bucket   BucketName `json:"bucket"`
	Key      string     `json:"key"`
	Version  VersionID  `json:"version"` // of an upload its ID
	Label    string     `json:"label"`
	Maker    NodeName   `json:"maker"`
	Relation string     `json:"relation"` // "itself", "same content", "derived" (by a job, or a copy of that with its mark), "rebuilt" (by a guard, of one of those), "upload"; left, to be looked at: "later" (of the same name), "may be derived"
	Job      JobID      `json:"job,omitempty"`
	From     VersionID  `json:"from,omitempty"`   // of what is derived: a listed version that Job had opened, or that this may be a copy of
	Above    bool       `json:"above,omitempty"`  // of the same content, at a label above that of the version itself: it may be where it belongs
	Spared   bool       `json:"spared,omitempty"` // an officer has looked at it, and it stays
	Gone     bool       `json:"gone"`             // its record and every key that opened it are destroyed here
}

// SpillReader is a job that ran, or an instance of a service, and had read what was spilled. What it had not put by then is nowhere.
type SpillReader struct {
	Job   JobID       `json:"job"`
	By    SubjectName `json:"by"`
	Max   string      `json:"max"`   // banner
	Ended bool        `json:"ended"` // by the report: a job begins anew if it has retries left
}

// Spill asks for a report.
type Spill struct {
	Name    ObjectName  `json:"name"`
	Version VersionID   `json:"version,omitempty"` // "": the current one
	Reason  string      `json:"reason"`
	Erase   bool        `json:"erase"`           // else it is found, and left
	Spare   []VersionID `json:"spare,omitempty"` // derivatives and copies above that stay, of those that a report of this Version has listed
}

// SpillPeer is a node that copies went to.
type SpillPeer struct {
	Node NodeName `json:"node"`
	Had  int      `json:"had"`           // copies that it has acknowledged
	Gone int      `json:"gone"`          // of them, those whose erasure it has acknowledged
	May  int      `json:"may,omitempty"` // copies that it may have beside them: nothing was heard of it since
	Why  string   `json:"why,omitempty"` // of what is not known, or not yet so
}

// SpillRelease is a release of what was spilled that left, or may have: it is traced at the node that took it, by its own officers.
type SpillRelease struct {
	ID     ReleaseID  `json:"id"`
	To     NodeName   `json:"to"`
	Bucket BucketName `json:"bucket"`
	Key    string     `json:"key"`
	Why    string     `json:"why,omitempty"` // it is not known whether it left; "": the target has signed that it took it
}

// SpillExport is a file that a version left as, for a partner.
type SpillExport struct {
	Version VersionID   `json:"version"`
	Nation  string      `json:"nation"`
	By      SubjectName `json:"by"`
	At      time.Time   `json:"at"`
	SHA256  string      `json:"sha256"`
}

// SpillReport says where a version that was put too low went, what of it is proven gone, and what is not yet.
type SpillReport struct {
	ID       string         `json:"id"`
	Node     NodeName       `json:"node"`
	Name     ObjectName     `json:"name"`
	Version  VersionID      `json:"version"`
	Reason   string         `json:"reason"`
	By       SubjectName    `json:"by"`
	Made     time.Time      `json:"made"`
	As       time.Time      `json:"as"` // when this was so
	SHA256   string         `json:"sha256"`
	Copies   []SpillCopy    `json:"copies"`
	Readers  []SpillReader  `json:"readers,omitempty"`
	Peers    []SpillPeer    `json:"peers"`
	Releases []SpillRelease `json:"releases"`
	Exports  []SpillExport  `json:"exports,omitempty"` // nobody takes them back
	Proven   bool           `json:"proven"`            // all of it is gone: here, and wherever it went
	Why      string         `json:"why,omitempty"`     // of what the report does not cover, or not yet
	Key      string         `json:"key"`               // the node's, Ed25519, base64
	Sig      string         `json:"sig"`               // over SpillMessage, base64
}

// SpillErased is a version that a peer's erasure took away here and that no report here erases. Why it was erased the peer knows: it may have been a
// spill there, and then what was copied or made of it here is reported here.
type SpillErased struct {
	Name    ObjectName `json:"name"`
	Version VersionID  `json:"version"`
	Label   string     `json:"label"`
	Bytes   int64      `json:"bytes"`
	From    NodeName   `json:"from"`
	At      time.Time  `json:"at"` // when its erasure came
}

// SpillMessage is what a node signs of a report.
func SpillMessage(r SpillReport) []byte {
	r.Sig = ""
	return message("redoubt spill report v1", r)
}

// SpillService is what security officers do about what was labelled too low. All of it takes a working label at the node's ceiling: what
// is to be found may lie anywhere below.
type SpillService interface {
	// Upgrade gives a version a higher label: a new version of it, and the old one is erased, here and wherever it went; its open releases end,
	// and what was rebuilt of it is erased too. Denied: the label is not
	// strictly higher (a lower one is a release, by two reviewers), or outside the range of bucket or node.
	Upgrade(ctx context.Context, who Credential, q Regrade) (Regraded, error)
	// ReportSpill finds a version, every copy of its content, and what jobs made of those, erases them, and keeps a report. Without Erase it only
	// finds. What an erasure took away before is reported as what is here (docs/adr/0050); Conflict: it is not clear which is meant, and the hint names
	// them. The version is out of reach from the commit that keeps the report, before anything is searched for. What fails after that is taken up
	// again by the node, and by who asks once more for the same version: the report then is the same one. Invalid: there is no reason, or what is to
	// be spared was not listed as derived, as what may be, or as a copy above; Conflict: a report that has begun erases it. What only may be derived
	// is spared at any time.
	ReportSpill(ctx context.Context, who Credential, q Spill) (SpillReport, error)
	// Spill tells how a report stands now; Spills lists them, newest first.
	Spill(ctx context.Context, who Credential, id string) (SpillReport, error)
	Spills(ctx context.Context, who Credential) ([]SpillReport, error)
	// ErasedElsewhere lists what erasures of peers took away and no report erases, newest first: the last 1,000, and how many
	// there are in all.
	ErasedElsewhere(ctx context.Context, who Credential) (newest []SpillErased, all int, err error)
}
