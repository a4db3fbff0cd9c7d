package access

import "redoubt"

// Class is what an action does, which is what decides the rules that it is held to.
type Class uint8

// The classes. The zero class is that of an unknown action, and is refused.
const (
	ClassNone     Class = iota
	ClassRead           // reads one version: content, tags, retention
	ClassList           // shows keys of a bucket; each key shown is decided by its label and Scope
	ClassSettings       // shows names and settings of buckets, which are known at the node's floor (RULES 2.5)
	ClassWrite          // makes a version or a delete marker
	ClassUpload         // begins, feeds or completes a multipart upload
	ClassAbort          // ends a multipart upload
	ClassAlter          // changes or removes one version that exists
	ClassBucket         // makes, configures or removes a bucket
	ClassOfficer        // what security officers do at whatever label they work, not about one label
	ClassPeople         // what security officers learn of people, changes and grants, and what they sign and grant, and the whole log's archives: at the node's ceiling
	ClassKeys           // what security officers do to one label's keys or one version: within their working label
	ClassAdmin          // what platform administrators do; it opens no content
	ClassSelf           // what everybody may do about himself, and an officer about anybody
	ClassExpire         // lifecycle expiry, by the node's own subject at the label of what expires
	ClassRecord         // system records, by the node's own subject
	ClassSend           // shows versions of one label to a link's subject
	ClassReceive        // takes a version, whole as it is, from a link's subject
	ClassReview         // what reviewers say to a release, of one version
	ClassExport         // what reviewers let out of the estate for who may read it already: of one version
	ClassPartner        // what another estate's gateway does; it is handed what is sealed to it, and nothing else
	ClassJob            // what a subject does with jobs: Object is what is read of one, MadeAt of one to be ended, New its MAX
	ClassGranted        // what the estate's file grants to subjects by name: Object is what it is accredited for, New the job's MAX
	ClassGuard          // what guards do at either of their enclaves; it opens what is under an open request, and nothing else
)

// ClassOf is the table of all actions. An action that it does not name has ClassNone.
func ClassOf(a redoubt.Action) Class {
	switch a { // a switch, not a map: it is compiled to a search and costs no hash on every decision
	case redoubt.ActionGetObject, redoubt.ActionHeadObject, redoubt.ActionGetTags, redoubt.ActionGetLock, redoubt.ActionRequestRelease, redoubt.ActionReadRelease, redoubt.ActionConsent:
		return ClassRead
	case redoubt.ActionPutObject, redoubt.ActionDeleteObject:
		return ClassWrite
	case redoubt.ActionListObjects, redoubt.ActionListVersions, redoubt.ActionListUploads:
		return ClassList
	case redoubt.ActionUpload:
		return ClassUpload
	case redoubt.ActionAbortUpload:
		return ClassAbort
	case redoubt.ActionDeleteVersion, redoubt.ActionPutTags, redoubt.ActionPutLock, redoubt.ActionBypassLock:
		return ClassAlter
	case redoubt.ActionHeadBucket, redoubt.ActionListBuckets, redoubt.ActionGetBucket, redoubt.ActionLinkStatus:
		return ClassSettings
	case redoubt.ActionCreateBucket, redoubt.ActionDeleteBucket, redoubt.ActionPutBucket:
		return ClassBucket
	case redoubt.ActionPropose, redoubt.ActionApprove, redoubt.ActionGrant, redoubt.ActionListPeople,
		redoubt.ActionInviteDevice, redoubt.ActionListDevices, redoubt.ActionArchiveAudit, redoubt.ActionConfirmArchive, redoubt.ActionSpill:
		return ClassPeople
	case redoubt.ActionRevokeGrant, redoubt.ActionSearchAudit, redoubt.ActionVerifyAudit, redoubt.ActionKeyStatus, redoubt.ActionEndDevice, redoubt.ActionEndAgreement:
		return ClassOfficer
	case redoubt.ActionRotateKey, redoubt.ActionErase, redoubt.ActionRegrade:
		return ClassKeys
	case redoubt.ActionBackup, redoubt.ActionCheck, redoubt.ActionReadMetrics, redoubt.ActionCutLink, redoubt.ActionSilenceLink, redoubt.ActionExportBundle, redoubt.ActionImportBundle:
		return ClassAdmin
	case redoubt.ActionMint, redoubt.ActionEnrolDevice, redoubt.ActionRevoke, redoubt.ActionListCredentials, redoubt.ActionExplain:
		return ClassSelf
	case redoubt.ActionExpire:
		return ClassExpire
	case redoubt.ActionSystemRecord, redoubt.ActionRenewLease, redoubt.ActionTakePartner:
		return ClassRecord
	case redoubt.ActionSend:
		return ClassSend
	case redoubt.ActionReceive:
		return ClassReceive
	case redoubt.ActionApproveRelease, redoubt.ActionDenyRelease:
		return ClassReview
	case redoubt.ActionExportZTDF:
		return ClassExport
	case redoubt.ActionGuardRelease, redoubt.ActionAcceptRelease, redoubt.ActionHandRaise, redoubt.ActionTakeRaise:
		return ClassGuard
	case redoubt.ActionSubmitJob, redoubt.ActionReadJob, redoubt.ActionCancelJob, redoubt.ActionRunJob, redoubt.ActionCallService:
		return ClassJob
	case redoubt.ActionConnect, redoubt.ActionRunTrusted:
		return ClassGranted
	case redoubt.ActionHandPartner:
		return ClassPartner
	}
	return ClassNone
}

// touchesObjects says whether need to know applies: whether the class reaches keys of a bucket.
func (c Class) touchesObjects() bool {
	switch c {
	case ClassRead, ClassList, ClassWrite, ClassUpload, ClassAbort, ClassAlter, ClassReview, ClassExport:
		return true
	}
	return false
}

// changes says whether the class changes a bucket or what is in it.
func (c Class) changes() bool {
	switch c {
	case ClassWrite, ClassUpload, ClassAbort, ClassAlter, ClassBucket:
		return true
	}
	return false
}

// What is recorded in the place of the class's rule: of a version strictly above the working label, and of an
// alteration in spite of GOVERNANCE retention.
const (
	ruleWriteUp = "write-up (2.1)"
	ruleBypass  = "bypass-governance"
)

// rule is the name under which the audit log records what the class allowed. allowed knows of the write-up.
func (c Class) rule() string {
	switch c {
	case ClassRead, ClassList:
		return "read-down (2.1)"
	case ClassWrite, ClassUpload:
		return "write (2.1)"
	case ClassAbort, ClassAlter:
		return "same-working-label (2.3)"
	case ClassSettings, ClassBucket:
		return "buckets-at-floor (2.5)"
	case ClassOfficer, ClassPeople, ClassKeys:
		return "officer (4.2)"
	case ClassAdmin:
		return "administrator (4.1)"
	case ClassSelf:
		return "own-or-officer (4.1)"
	case ClassExpire, ClassRecord:
		return "own-subject (4.3)"
	case ClassSend, ClassReceive:
		return RuleLink
	case ClassReview:
		return "reviewer (4.6)"
	case ClassExport:
		return "export (1.5)"
	case ClassGuard:
		return "guard (4.6, 4.7)"
	case ClassJob:
		return "job (5.1)"
	case ClassGranted:
		return "granted-by-the-estate (5.1)"
	case ClassPartner:
		return "partner (4.2)"
	}
	return RuleNoAction
}
