package redoubt

import (
	"slices"
	"time"

	"redoubt/label"
)

// SubjectName names a person or a workload within an estate: 1 to 63 of a-z, 0-9 and "-".
type SubjectName string

// NodeName names an enclave, a device or a guard: 1 to 63 of a-z, 0-9 and "-".
type NodeName string

// Role is what a subject is for. Roles never widen what a label allows.
type Role string

// The roles. A subject may hold several.
const (
	RoleAnalyst  Role = "analyst"  // reads and writes objects
	RoleOfficer  Role = "officer"  // security officer: clears people, grants, erases, reads the audit log
	RoleReviewer Role = "reviewer" // reviews releases; reads objects
	RoleAdmin    Role = "admin"    // platform administrator: runs everything, reads nothing above the clearance
	RoleStorage  Role = "storage"  // makes, configures and removes buckets
	RoleWriteUp  Role = "write-up" // the grant to label a version above one's working label

	// RoleGuard is that of a guard at the two enclaves that it joins. No person has it: an estate's guards do.
	RoleGuard Role = "guard"
	// RolePartner is that of another estate's gateway at the node that an agreement names. No person has it: agreements give it.
	RolePartner Role = "partner"
)

// Roles lists every Role that a person may have.
func Roles() []Role {
	return []Role{RoleAnalyst, RoleOfficer, RoleReviewer, RoleAdmin, RoleStorage, RoleWriteUp}
}

// Subject is a person or a workload as the reference monitor sees one: resolved from
// system records at the moment of the decision, never kept across requests.
// The zero Subject has no clearance and may do nothing.
type Subject struct {
	Name      SubjectName
	Clearance label.Label // its audience is the subject's nation alone
	Nation    string      // trigraph
	Expires   time.Time   // of the clearance; the zero time has passed
	Roles     []Role
	Grants    []Grant // those that name this subject
}

// Has says whether the subject holds the role.
func (s Subject) Has(r Role) bool { return slices.Contains(s.Roles, r) }

// Credential is proof that a subject acts at one working label. It is made by
// identity alone; the monitor resolves the subject and any revocation anew on every decision.
// The zero Credential is refused everywhere.
type Credential struct {
	ID      string // the access key ID
	Subject SubjectName
	Working label.Label
	Expires time.Time
}

// Grant is need to know: it lets a subject into part of a bucket that is closed by
// default, or (Deny) keeps one out. It never overrides a label.
type Grant struct {
	ID      string      `json:"id"`
	Subject SubjectName `json:"subject"` // "*" is everyone
	Bucket  BucketName  `json:"bucket"`
	Prefix  string      `json:"prefix"`  // of the object's key; "" is the whole bucket
	Actions []Action    `json:"actions"` // empty: reading and writing
	Deny    bool        `json:"deny,omitempty"`
	Expires time.Time   `json:"expires,omitzero"` // zero: does not expire
}

// Action is what is asked of the reference monitor: the S3 operation's name where there is one.
type Action string

// The actions on objects and buckets. Class says which of them read, write or alter.
const (
	ActionGetObject     Action = "GetObject"
	ActionHeadObject    Action = "HeadObject"
	ActionPutObject     Action = "PutObject"
	ActionDeleteObject  Action = "DeleteObject"        // writes a delete marker
	ActionDeleteVersion Action = "DeleteObjectVersion" // removes one version
	ActionListObjects   Action = "ListObjects"
	ActionListVersions  Action = "ListObjectVersions"
	ActionGetTags       Action = "GetObjectTagging"
	ActionPutTags       Action = "PutObjectTagging"
	ActionGetLock       Action = "GetObjectRetention"
	ActionPutLock       Action = "PutObjectRetention"
	ActionBypassLock    Action = "BypassGovernanceRetention" // a right beside DeleteVersion and PutLock, for grants to name
	ActionUpload        Action = "MultipartUpload"           // create, part, complete
	ActionListUploads   Action = "ListMultipartUploads"
	ActionAbortUpload   Action = "AbortMultipartUpload"
	ActionCreateBucket  Action = "CreateBucket"
	ActionHeadBucket    Action = "HeadBucket"
	ActionListBuckets   Action = "ListBuckets"
	ActionDeleteBucket  Action = "DeleteBucket"
	ActionGetBucket     Action = "GetBucketConfiguration"
	ActionPutBucket     Action = "PutBucketConfiguration"
	ActionExpire        Action = "LifecycleExpiration" // by the node's own subject

	ActionMint            Action = "MintCredential"
	ActionRevoke          Action = "RevokeCredential"
	ActionPropose         Action = "ProposeChange"
	ActionApprove         Action = "ApproveChange"
	ActionGrant           Action = "GrantNeedToKnow"
	ActionRevokeGrant     Action = "RevokeGrant"
	ActionListPeople      Action = "ListPeople"
	ActionListCredentials Action = "ListCredentials"
	ActionExplain         Action = "ExplainDecision"
	ActionSearchAudit     Action = "SearchAudit"
	ActionVerifyAudit     Action = "VerifyAudit"
	ActionArchiveAudit    Action = "ArchiveAudit"        // writes the log's oldest entries to a file
	ActionConfirmArchive  Action = "ConfirmAuditArchive" // the file is durable: the log lets go of them
	ActionKeyStatus       Action = "KeyStatus"
	ActionRotateKey       Action = "RotateKey"
	ActionErase           Action = "CryptoErase"
	ActionBackup          Action = "Backup"
	ActionCheck           Action = "CheckStore"
	ActionReadMetrics     Action = "ReadMetrics"
	ActionSystemRecord    Action = "SystemRecord" // by the node's own subject
	ActionSend            Action = "SendToPeer"   // a label set's versions, to a link's subject
	ActionReceive         Action = "TakeFromPeer" // a version, from a link's subject
	ActionInviteDevice    Action = "InviteDevice"
	ActionEnrolDevice     Action = "EnrolDevice" // by a one-time token
	ActionListDevices     Action = "ListDevices"
	ActionEndDevice       Action = "EndDevice"  // revoke, or order to be wiped
	ActionRenewLease      Action = "RenewLease" // by the node's own subject
	ActionLinkStatus      Action = "LinkStatus"
	ActionCutLink         Action = "CutLink"     // and restore it, for exercises
	ActionSilenceLink     Action = "SilenceLink" // and end it
	ActionExportBundle    Action = "ExportBundle"
	ActionImportBundle    Action = "ImportBundle"

	ActionRequestRelease Action = "RequestRelease"
	ActionReadRelease    Action = "ReadRelease"    // what is asked for, and the bytes that would leave
	ActionApproveRelease Action = "ApproveRelease" // by a reviewer, as DenyRelease is
	ActionDenyRelease    Action = "DenyRelease"
	ActionConsent        Action = "ConsentToRelease" // by the originator: to a release, or to an export
	ActionGuardRelease   Action = "GuardRelease"     // by a guard: fetch what is to be filtered or was approved, and say what came of it
	ActionAcceptRelease  Action = "AcceptRelease"    // of what two reviewers signed, from a guard
	ActionRegrade        Action = "UpgradeLabel"     // by an officer
	ActionSpill          Action = "TraceSpill"
	ActionHandRaise      Action = "HandToGuard"   // what is to be raised, sealed, to a guard
	ActionTakeRaise      Action = "TakeFromGuard" // what was raised, sealed, from a guard
	ActionExportZTDF     Action = "ExportZTDF"    // a version leaves the estate as a file for a partner nation, by a reviewer

	ActionSubmitJob   Action = "SubmitJob" // and a schedule of jobs
	ActionReadJob     Action = "ReadJob"
	ActionCancelJob   Action = "CancelJob"
	ActionCallService Action = "CallService"
	ActionRunJob      Action = "RunJob"     // beginning and end of an attempt, as its subject
	ActionConnect     Action = "Connect"    // of a job, to a destination that the estate grants
	ActionRunTrusted  Action = "RunTrusted" // a job on the machine's own kernel, which the estate grants

	ActionHandPartner  Action = "HandToPartner"   // what an agreement lets out, sealed, to another estate's gateway
	ActionTakePartner  Action = "TakeFromPartner" // the same from there, by the node's own subject, which asked for it
	ActionEndAgreement Action = "EndAgreement"    // by an officer
)
