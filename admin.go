package redoubt

import (
	"context"
	"io"
	"time"
)

// AuditRecord is one decision as its reader may see it. Names are shown as HMACs; the
// one who knows a name finds its records by asking for it.
type AuditRecord struct {
	Number     uint64      `json:"number"`
	Time       time.Time   `json:"time"`
	Subject    SubjectName `json:"subject"`
	Credential string      `json:"credential,omitempty"`
	Action     Action      `json:"action"`
	Allow      bool        `json:"allow"`
	Rule       string      `json:"rule"`
	Outcome    string      `json:"outcome,omitempty"`
	Label      string      `json:"label,omitempty"`   // of what was acted on
	Working    string      `json:"working,omitempty"` // of the credential
	Name       string      `json:"name,omitempty"`    // HMAC, hex
	Bucket     string      `json:"bucket,omitempty"`  // HMAC, hex
	Version    VersionID   `json:"version,omitempty"`
	Bytes      int64       `json:"bytes,omitempty"`
	Count      uint32      `json:"count,omitempty"`
	Request    string      `json:"request,omitempty"`
	Detail     string      `json:"detail,omitempty"`
}

// AuditQuery selects records; zero fields do not restrict.
type AuditQuery struct {
	Subject SubjectName
	Action  Action
	Outcome string // "allow", "deny" or ""
	Rule    string
	Since   time.Time
	Until   time.Time
	Object  ObjectName // a known name, bucket alone or bucket and key
	Request string
	From    uint64 // first record number
	Max     int
}

// AuditReport is what verification found.
type AuditReport struct {
	Node        NodeName       `json:"node"`
	OK          bool           `json:"ok"`
	Entries     uint64         `json:"entries"`            // ever, archived ones included
	KeptFrom    uint64         `json:"kept_from"`          // the oldest entry that the log still holds; those before it are archived
	Archives    []AuditArchive `json:"archives,omitempty"` // those on record, oldest first
	Checkpoint  string         `json:"checkpoint"`         // the signed note that the log now stands at
	VerifierKey string         `json:"verifier_key"`
	Faults      []string       `json:"faults"`
}

// AuditArchive is an archive of old entries that was confirmed, so that the log let go of them.
type AuditArchive struct {
	Node   NodeName  `json:"node"`
	From   uint64    `json:"from"`   // the first entry in it
	To     uint64    `json:"to"`     // the first behind it
	SHA256 string    `json:"sha256"` // of the file, hex
	Time   time.Time `json:"time"`   // when it was confirmed
}

// AuditArchiver takes old entries of the log out into files, in two steps, so that a client that dies between them loses
// nothing. For security officers who work at the node's ceiling.
type AuditArchiver interface {
	// ArchiveAudit writes the entries that are older than before, by whole tiles, sealed to recipient (a public key made by
	// "redoubt key recipient"), and keeps in mind what it wrote in place of what it wrote before. The log loses nothing by it.
	// What is younger than the estate says the log is kept for is refused (Denied).
	ArchiveAudit(ctx context.Context, who Credential, before time.Time, recipient string, w io.Writer) error
	// ConfirmArchive says that the file with that SHA-256 (hex), the last that ArchiveAudit wrote, is durable elsewhere: the
	// log lets go of its entries and has the archive on record, in one commit. Confirmed again, it says the same again.
	ConfirmArchive(ctx context.Context, who Credential, sha256 string) (AuditArchive, error)
	// SearchArchive is SearchAudit in an archive that the caller has opened. It gives nothing before all of the
	// archive has verified as one of this node's.
	SearchArchive(ctx context.Context, who Credential, q AuditQuery, opened io.Reader, each func(AuditRecord) error) error
}

// AuditService is the log's public side. Every call is itself recorded; a reader sees
// records whose label the working label dominates.
type AuditService interface {
	SearchAudit(ctx context.Context, who Credential, q AuditQuery, each func(AuditRecord) error) error
	// VerifyAudit reads the whole log back and compares it with its tree and with the
	// checkpoints that the caller kept. Only who dominates the node's ceiling learns counts.
	VerifyAudit(ctx context.Context, who Credential, trusted []string) (AuditReport, error)
	// ExportAudit writes records as "ocsf", "cef" or "syslog", one a line.
	ExportAudit(ctx context.Context, who Credential, format string, q AuditQuery, w io.Writer) error
	// Why explains the decisions of one request to who may know them.
	Why(ctx context.Context, who Credential, request string) ([]AuditRecord, error)
}

// KeyStatus is the state of one label's keys.
type KeyStatus struct {
	Label    string   `json:"label"`
	Epoch    uint32   `json:"epoch"`
	Epochs   []uint32 `json:"epochs"` // those that can still open something
	Versions int64    `json:"versions"`
	Bytes    int64    `json:"bytes"`
}

// KeyService is rotation and crypto-erase. Officers only; each label within the officer's working label.
type KeyService interface {
	Keys(ctx context.Context, who Credential) ([]KeyStatus, error)
	// RotateKey begins a new epoch, re-wraps every data key of the label under it and destroys the old epochs.
	RotateKey(ctx context.Context, who Credential, marking string) (KeyStatus, error)
	// EraseVersion destroys one version for good, retention notwithstanding: its record, its key and every copy of it on disk.
	EraseVersion(ctx context.Context, who Credential, name ObjectName, id VersionID, reason string) error
}

// CheckReport is what fsck found.
type CheckReport struct {
	Node     NodeName `json:"node"`
	OK       bool     `json:"ok"`
	Versions int64    `json:"versions"`
	Bytes    int64    `json:"bytes"`
	Faults   []string `json:"faults"`
}

// MaintenanceService is what the platform administrator does. It opens no content.
type MaintenanceService interface {
	Check(ctx context.Context, who Credential, progress func(done, total int64)) (CheckReport, error)
	// Backup writes the whole enclave, sealed to recipient (a public key made by "redoubt key recipient"), from one moment.
	Backup(ctx context.Context, who Credential, recipient string, w io.Writer) error
	Compact(ctx context.Context, who Credential) error
	// Usage gives bytes and versions by label, for labels that the working label dominates.
	Usage(ctx context.Context, who Credential) ([]LabelUsage, error)
	// NodeInfo is known to every credential of the node.
	NodeInfo(ctx context.Context) NodeInfo
}

// QuotaOfOthers stands among quotas by marking for the share of every label that is not named; without it such a label has no limit.
const QuotaOfOthers = "default"

// LabelUsage is what carries one label, and what is charged to those who work at it. The two differ where something was
// written up: it carries the higher label and is charged to the lower one, for good. Spellings of one label share one quota.
type LabelUsage struct {
	Label        string `json:"label"`
	Versions     int64  `json:"versions"`
	Bytes        int64  `json:"bytes"`                 // of content
	ChargedBytes int64  `json:"charged_bytes"`         // against the quota: content, records and names of what was made at the label
	QuotaBytes   int64  `json:"quota_bytes,omitempty"` // 0: none
}

// NodeInfo says what a node is.
type NodeInfo struct {
	Name    NodeName `json:"name"`
	Kind    string   `json:"kind"` // enclave, device or guard
	Range   Range    `json:"range"`
	Policy  string   `json:"policy"`
	Version string   `json:"version"`
	FIPS    bool     `json:"fips"`

	Trusts []Trusted `json:"trusts,omitempty"` // told to the owner of the node's state alone
}

// Trusted is one key that a node believes another by, and where the node dials that other. Nothing that a marking is in.
type Trusted struct {
	Node        NodeName `json:"node"` // whose key it is
	As          string   `json:"as"`   // one of those below
	Fingerprint string   `json:"sha256"`
	Dials       []string `json:"dials,omitempty"` // HOST:PORT, over UDP and TCP; of TrustedInterface over TCP alone
}

// As what a key is believed. Fingerprints are SHA-256, hex, of the Ed25519 key; of TrustedInterface, of the certificate.
const (
	TrustedHome        = "home"        // by a device: people, revocations and leases hang on it
	TrustedInterface   = "interface"   // by a device: the TLS authority of its home, when it enrols and renews its lease
	TrustedDevice      = "device"      // by a home: the device's own work
	TrustedLower       = "lower"       // by an enclave that a guard raises to: what the lower one made, and whose entries it passes on
	TrustedSide        = "side"        // by a guard: the TLS authority of an enclave that it joins
	TrustedRoad        = "road"        // by a half of a guard: the key that it shares with the other, and where that listens
	TrustedNeighbour   = "neighbour"   // by a device: another's work, beside a lease that their home signed
	TrustedPartner     = "partner"     // by an agreement's gateway: another estate's, for what that gives
	TrustedDestination = "destination" // by a node: by no key; what the estate lets its jobs connect to, over TCP
	TrustedCluster     = "cluster"     // by a node: the certificate authority of the Kubernetes cluster that it runs images on
	TrustedMaker       = "maker"       // what was made under it, when another passes it on: of another device, or one of before
)

// Range is a node's accredited range of labels, as banners.
type Range struct {
	Floor   string `json:"floor"`
	Ceiling string `json:"ceiling"`
}

// SystemRecords are the node's own labelled versions under the reserved bucket:
// people, grants, buckets, changes, revocations. They are decided as the node's own subject.
type SystemRecords interface {
	PutRecord(ctx context.Context, kind, name string, value []byte) error
	Records(ctx context.Context, kind string, each func(name string, value []byte) error) error
}

// SystemBucket holds the system records.
const SystemBucket BucketName = ".system"
