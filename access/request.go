package access

import (
	"strings"
	"time"

	"redoubt"
	"redoubt/label"
)

// Bucket is what a decision needs to know of a bucket: its settings, compiled. "" in the settings is the
// node's own bound, which whoever compiles fills in: a zero label here admits nothing.
type Bucket struct {
	Name             redoubt.BucketName
	Default          label.Label // not looked at by the monitor; it stands here for whoever makes New
	Floor, Ceiling   label.Label
	Closed, ReadOnly bool
	Grants           []redoubt.Grant // what the bucket's policy was mapped to
}

// Request is one question to the monitor, with every fact that the answer rests on. Which facts an action
// needs is told by its class; the others are left zero.
//
//	class     needs besides Now, Who, Subject, Action
//	Read      Bucket, Key, Object
//	List      Bucket
//	Write     Bucket, Key, New (of a delete marker: the working label)
//	Upload    Bucket, Key, New, MadeAt (of an upload that begins: the working label)
//	Abort     Bucket, Key, MadeAt
//	Alter     Bucket, Key, Object, MadeAt, and Bypass where it goes past GOVERNANCE retention
//	Bucket    Bucket (of one to be made: its name)
//	People    Object, where it is about the erasure of a label: that label
//	Keys      Object: the label whose keys, or of the version which
//	Self      Self, where it is about the caller
//	Expire    Bucket, Object: the label of what expires
//	Record    New
//	Send      Object: the label of what is sent
//	Receive   Bucket, Key, New, and Guarded where a guard wrote it, here or where it comes from
//	Review    Bucket, Key, Object: the version that is to be released
//	Export    Bucket, Key, Object: the version that is to leave
//	Job       Object: what is read of one; MadeAt: of one that is ended; New: the MAX of one that is submitted or run
//	Granted   Granted; Object: what is accredited for which label; New: the MAX of the job that asks; Who works at the job's label so far
//	Guard     Object, where it opens something; New, where it brings something
type Request struct {
	Now     time.Time
	Who     redoubt.Credential
	Subject redoubt.Subject // resolved now, never kept across requests
	Live    error           // what identity says of the credential now: nil, or its Kind is the answer
	Action  redoubt.Action
	Bucket  *Bucket
	Key     string
	Object  label.Label           // of the version read or altered
	MadeAt  label.Label           // the working label that it was made at
	New     label.Label           // of the version to be written
	Self    bool                  // it concerns the caller alone: her own credential, her own request
	Guarded bool                  // it is what a guard brought: content of another enclave's, in a bucket that bears its name
	Granted []redoubt.SubjectName // whom the estate's file grants what is asked for; nil: nobody
	Bypass  bool                  // it removes, or weakens the lock of, a version that GOVERNANCE retention keeps
}

// Decision is the answer. The zero Decision refuses, as an internal error.
type Decision struct {
	Allow bool
	Known bool         // the caller may know that what she asked about exists, and the rule that refused
	Kind  redoubt.Kind // what a refused caller is answered; NotFound for what she may not know of
	Rule  string       // the rule that decided, for the audit log: a stable name and its number in RULES
}

// Err is nil for what is allowed, and otherwise what the operation returns. It carries the rule only for
// whoever may know of the object.
func (d Decision) Err(op, object string) error {
	if d.Allow {
		return nil
	}
	e := &redoubt.Error{Op: op, Object: object, Kind: d.Kind}
	if d.Known {
		e.Rule = d.Rule
	}
	return e
}

// The rules that refuse, as they stand in the audit log and in messages. They are stable.
const (
	RuleNoAction     = "unknown-action"
	RuleCredential   = "live-credential (2.1)"
	RuleSubject      = "known-subject (4.3)"
	RuleClearance    = "clearance-current (2.1)"
	RuleWorking      = "working-label (2.1)"
	RuleNoReadUp     = "no-read-up (2.1)"
	RuleNoWriteDown  = "no-write-down (2.1)"
	RuleWithin       = "within-clearance (2.1)"
	RuleNodeRange    = "within-node-range (2.1)"
	RuleBucketRange  = "within-bucket-range (2.1)"
	RuleWriteUpGrant = "write-up-grant (2.1)"
	RuleSameWorking  = "same-working-label (2.3)"
	RuleNoBucket     = "no-bucket (2.5)"
	RuleReserved     = "reserved-name (2.5)"
	RuleReadOnly     = "read-only-bucket (2.5)"
	RuleStorage      = "storage-role (2.5)"
	RuleRole         = "role (4.2)"
	RuleRecords      = "officers-records (3.4)" // people, changes, grants and the whole log lie at the node's ceiling
	RuleOwnSubject   = "own-subject (4.3)"
	RuleLink         = "within-link-bound (4.3)"
	RuleLinkSubject  = "link-subject (4.3)"
	RuleNeedToKnow   = "need-to-know"
	RuleNeedDenied   = "need-to-know-denied"
	RuleGranted      = "not-granted (5.1)"
	RuleSpeaksAtMax  = "speaks-at-max (5.1)"     // what a job connects to is accredited for its MAX, no more and no less
	RuleBypass       = "bypass-governance-right" // the storage role, or a grant that names BypassGovernanceRetention
	RuleEstate       = "estate-rule: "           // followed by the name that the estate gives it
)

// NodeSubject is the name of the node's own subject. The dot keeps it from being a person's.
func NodeSubject(n redoubt.NodeName) redoubt.SubjectName { return redoubt.SubjectName("node." + n) }

const linkPrefix = "link."

// LinkSubject is the name of the subject that stands for a peer on its link. It may be sent versions and have them taken,
// within the link's bound, and nothing else.
func LinkSubject(peer redoubt.NodeName) redoubt.SubjectName {
	return redoubt.SubjectName(linkPrefix + peer)
}

func isLink(s redoubt.SubjectName) bool { return strings.HasPrefix(string(s), linkPrefix) }

// reserved says whether the name is one of those with a dot, which guards and the node itself write.
func reserved(b redoubt.BucketName) bool { return strings.IndexByte(string(b), '.') >= 0 }
