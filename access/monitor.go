package access

import (
	"time"

	"redoubt"
	"redoubt/label"
)

// Denier is an estate's own rules. It can only deny: it is asked last, about what everything else allowed.
type Denier interface {
	// Deny gives the name of the rule that denies the request, "" when none does. It gets a copy of its own.
	Deny(r *Request) (rule string)
}

// Monitor decides for one node. The zero Monitor refuses everything.
type Monitor struct {
	floor, ceiling label.Label
	own            redoubt.SubjectName
	extra          Denier
}

// New makes the monitor of a node with the accredited range [floor, ceiling]. extra may be nil.
func New(floor, ceiling label.Label, node redoubt.NodeName, extra Denier) *Monitor {
	return &Monitor{floor: floor, ceiling: ceiling, own: NodeSubject(node), extra: extra}
}

// Check decides. See the package doc for the order and [Request] for the facts that each action needs.
func (m *Monitor) Check(r *Request) Decision {
	if rule, kind := m.credential(r); rule != "" {
		return Decision{Kind: kind, Rule: rule}
	}
	class := ClassOf(r.Action)
	rule := m.mandatory(class, r)
	if rule == "" {
		rule = m.roles(class, r)
	}
	if rule == "" {
		rule = m.names(class, r)
	}
	if rule == "" {
		rule = m.needToKnow(class, r)
	}
	if rule == "" && m.extra != nil {
		own := *r // a copy, so that the caller's Request need not live on the heap
		if name := m.extra.Deny(&own); name != "" {
			rule = RuleEstate + name
		}
	}
	if rule != "" {
		return m.refuse(class, r, rule)
	}
	return Decision{Allow: true, Known: true, Rule: allowed(class, r)}
}

// allowed is the rule that an allowed request is recorded under. A write is a write-up only where the version's label
// is strictly above the working label; that it is not below has been shown.
func allowed(class Class, r *Request) string {
	switch {
	case (class == ClassWrite || class == ClassUpload) && !same(&r.Who.Working, &r.New):
		return ruleWriteUp
	case bypasses(class, r):
		return ruleBypass
	}
	return class.rule()
}

// credential checks that the credential, its subject and its working label are good now.
func (m *Monitor) credential(r *Request) (rule string, kind redoubt.Kind) {
	who, s := &r.Who, &r.Subject
	switch {
	case r.Live != nil:
		return RuleCredential, redoubt.KindOf(r.Live)
	case who.ID == "" || who.Subject == "" || r.Now.IsZero():
		return RuleCredential, redoubt.Unauthenticated
	case !r.Now.Before(who.Expires):
		return RuleCredential, redoubt.Expired
	case who.Subject != s.Name:
		return RuleSubject, redoubt.Unauthenticated
	case !r.Now.Before(s.Expires):
		return RuleClearance, redoubt.Expired
	case !label.Dominates(&s.Clearance, &who.Working) || !m.inRange(&who.Working):
		return RuleWorking, redoubt.Denied
	}
	return "", 0
}

// mandatory is the rule of the labels (RULES 2.1 to 2.5). Everything else can only refuse further. The working
// label has been shown to be good, so a label equal to it needs no further look; most are.
func (m *Monitor) mandatory(class Class, r *Request) string {
	working := &r.Who.Working
	if class.touchesObjects() && r.Bucket == nil {
		return RuleNoBucket
	}
	switch class {
	case ClassRead, ClassKeys, ClassReview, ClassExport:
		if r.Object != *working && !label.Dominates(working, &r.Object) {
			return RuleNoReadUp
		}
	case ClassWrite:
		return m.writing(r)
	case ClassUpload:
		if !same(working, &r.MadeAt) {
			return RuleSameWorking
		}
		return m.writing(r)
	case ClassAbort:
		if !same(working, &r.MadeAt) {
			return RuleSameWorking
		}
	case ClassAlter:
		if r.Object.IsZero() || !same(working, &r.MadeAt) {
			return RuleSameWorking
		}
	case ClassPeople:
		// The records of people, changes and grants, and the log as a whole, lie at the ceiling, and every answer here depends on them: below
		// it they would tell (RULES 3.4). Nor is the end of a label signed by who may not read what it ends.
		if !label.Dominates(working, &m.ceiling) {
			return RuleRecords
		}
		if !r.Object.IsZero() && !label.Dominates(working, &r.Object) {
			return RuleNoReadUp
		}
	case ClassBucket:
		// A bucket's name and settings are known at the floor: whoever works above it would write down.
		if r.Bucket == nil {
			return RuleNoBucket
		}
		if !label.Dominates(&m.floor, working) {
			return RuleNoWriteDown
		}
	case ClassExpire:
		if r.Bucket == nil {
			return RuleNoBucket
		}
		if !same(working, &r.Object) {
			return RuleSameWorking
		}
	case ClassRecord:
		if !label.Dominates(&r.New, working) {
			return RuleNoWriteDown
		}
		if !m.inRange(&r.New) {
			return RuleNodeRange
		}
	case ClassSend:
		if !label.Dominates(working, &r.Object) {
			return RuleLink
		}
	case ClassReceive:
		switch {
		case r.Bucket == nil:
			return RuleNoBucket
		case !label.Dominates(working, &r.New):
			return RuleLink
		case !m.inRange(&r.New):
			return RuleNodeRange
		case !label.Dominates(&r.Bucket.Ceiling, &r.New) || !label.Dominates(&r.New, &r.Bucket.Floor):
			return RuleBucketRange
		}
	case ClassJob:
		switch {
		case !r.Object.IsZero() && !label.Dominates(working, &r.Object):
			return RuleNoReadUp
		case !r.MadeAt.IsZero() && !same(working, &r.MadeAt):
			return RuleSameWorking
		case r.New.IsZero():
		case !label.Dominates(&r.New, working):
			return RuleNoWriteDown
		case !label.Dominates(&r.Subject.Clearance, &r.New):
			return RuleWithin
		case !m.inRange(&r.New):
			return RuleNodeRange
		}
	case ClassGranted:
		// A job at Who.Working speaks with what is accredited for Object: nothing of the job may go below its label, and nothing that is beyond MAX
		// may come. Nor may it be able to rise beyond Object: when it falls silent would tell what it met there.
		switch {
		case !label.Dominates(&r.New, working):
			return RuleNoWriteDown
		case !label.Dominates(&r.Subject.Clearance, &r.New):
			return RuleWithin
		case !m.inRange(&r.New):
			return RuleNodeRange
		case !label.Dominates(&r.New, &r.Object):
			return RuleNoReadUp
		case !label.Dominates(&r.Object, working):
			return RuleNoWriteDown
		case !label.Dominates(&r.Object, &r.New):
			return RuleSpeaksAtMax
		}
	case ClassGuard:
		// What it opens or brings lies within its clearance, which is the node's range; a raise is sealed, and is about no one label.
		if !r.Object.IsZero() && !label.Dominates(working, &r.Object) {
			return RuleNoReadUp
		}
		if !r.New.IsZero() && !m.inRange(&r.New) {
			return RuleNodeRange
		}
	case ClassNone:
		return RuleNoAction
	}
	return ""
}

// same says whether two labels are one point of the order. working is known not to be zero.
func same(working, o *label.Label) bool { return *working == *o || working.Equivalent(*o) }

// writing is RULES 2.1 for a new version.
func (m *Monitor) writing(r *Request) string {
	working, b := &r.Who.Working, r.Bucket
	if r.New != *working { // what is the working label itself has passed these four already
		switch {
		case !label.Dominates(&r.New, working):
			return RuleNoWriteDown
		case !label.Dominates(&r.Subject.Clearance, &r.New):
			return RuleWithin
		case !m.inRange(&r.New):
			return RuleNodeRange
		case !label.Dominates(working, &r.New) && !r.Subject.Has(redoubt.RoleWriteUp):
			return RuleWriteUpGrant
		}
	}
	if !label.Dominates(&b.Ceiling, &r.New) || !label.Dominates(&r.New, &b.Floor) {
		return RuleBucketRange
	}
	return ""
}

// roles says what a subject is for. No role widens what the labels allow. Administrators and the storage role
// read and write objects like an analyst: what keeps them from what they do not need is their clearance.
// Officers do not: who clears people does not also read what they write.
func (m *Monitor) roles(class Class, r *Request) string {
	if r.Subject.Name == m.own {
		return m.ownRoles(class, r)
	}
	if isLink(r.Subject.Name) != (class == ClassSend || class == ClassReceive) {
		return RuleLinkSubject
	}
	if r.Subject.Has(redoubt.RolePartner) && class != ClassPartner { // not even the names of buckets
		if class != ClassSelf || !r.Self {
			return RuleRole
		}
	}
	switch class {
	case ClassSend, ClassReceive:
	case ClassRead, ClassList:
		if !hasAny(&r.Subject, redoubt.RoleAnalyst, redoubt.RoleReviewer, redoubt.RoleAdmin, redoubt.RoleStorage) {
			return RuleRole
		}
	case ClassWrite, ClassUpload, ClassAbort, ClassAlter:
		if !hasAny(&r.Subject, redoubt.RoleAnalyst, redoubt.RoleAdmin, redoubt.RoleStorage) {
			return RuleRole
		}
		if bypasses(class, r) {
			return m.bypass(r)
		}
	case ClassJob, ClassGranted:
		if !hasAny(&r.Subject, redoubt.RoleAnalyst, redoubt.RoleAdmin, redoubt.RoleStorage) {
			return RuleRole
		}
	case ClassSettings:
	case ClassBucket:
		if !r.Subject.Has(redoubt.RoleStorage) {
			return RuleStorage
		}
	case ClassOfficer, ClassPeople, ClassKeys:
		if !r.Subject.Has(redoubt.RoleOfficer) {
			return RuleRole
		}
	case ClassAdmin:
		if !r.Subject.Has(redoubt.RoleAdmin) {
			return RuleRole
		}
	case ClassSelf:
		if !r.Self && !r.Subject.Has(redoubt.RoleOfficer) {
			return RuleRole
		}
	case ClassExpire, ClassRecord:
		return RuleOwnSubject
	case ClassReview, ClassExport:
		if !r.Subject.Has(redoubt.RoleReviewer) {
			return RuleRole
		}
	case ClassPartner:
		if !r.Subject.Has(redoubt.RolePartner) {
			return RuleRole
		}
	case ClassGuard:
		if !r.Subject.Has(redoubt.RoleGuard) {
			return RuleRole
		}
	default:
		return RuleNoAction
	}
	return ""
}

// ownRoles is what the node does as itself: objects, buckets, expiry and records, and nothing that an
// officer or an administrator answers for. It never goes past retention.
func (m *Monitor) ownRoles(class Class, r *Request) string {
	if bypasses(class, r) {
		return RuleBypass
	}
	if class == ClassReview || class == ClassExport { // people answer for what leaves
		return RuleRole
	}
	if class.touchesObjects() || class.changes() {
		return ""
	}
	switch class {
	case ClassSettings, ClassExpire, ClassRecord:
		return ""
	}
	return RuleRole
}

// names keeps reserved and read-only buckets for the node's own subject (RULES 2.5).
func (m *Monitor) names(class Class, r *Request) string {
	switch b := r.Bucket; {
	case b == nil || r.Subject.Name == m.own:
	case b.Name == redoubt.SystemBucket:
		return RuleReserved
	case class == ClassReceive && r.Guarded:
		if !reserved(b.Name) {
			return RuleReserved
		}
	case (class.changes() || class == ClassReceive) && reserved(b.Name):
		return RuleReserved
	case (class.changes() && class != ClassBucket || class == ClassReceive) && b.ReadOnly:
		return RuleReadOnly
	}
	return ""
}

// refuse decides what a refused caller is told.
func (m *Monitor) refuse(class Class, r *Request, rule string) Decision {
	switch {
	case rule == RuleNoBucket, class != ClassBucket && r.Bucket != nil && r.Bucket.Name == redoubt.SystemBucket:
		return Decision{Kind: redoubt.NoBucket, Rule: rule}
	case m.mayKnow(class, r, rule):
		return Decision{Known: true, Kind: redoubt.Denied, Rule: rule}
	}
	return Decision{Kind: redoubt.NotFound, Rule: rule}
}

// mayKnow says whether the caller may know of what she was refused: that is, whether the answer for it may
// differ from the answer for what does not exist.
func (m *Monitor) mayKnow(class Class, r *Request, rule string) bool {
	switch class {
	case ClassRead, ClassAlter, ClassReview, ClassExport:
		return label.Dominates(&r.Who.Working, &r.Object) && m.needToKnow(class, r) == ""
	case ClassKeys, ClassSend, ClassGuard, ClassJob:
		return r.Object.IsZero() && (class == ClassGuard || class == ClassJob) || label.Dominates(&r.Who.Working, &r.Object)
	case ClassGranted:
		return label.Dominates(&r.New, &r.Object) && redoubt.Granted(r.Granted, r.Subject.Name)
	case ClassUpload, ClassAbort:
		return rule != RuleSameWorking && m.needToKnow(class, r) == ""
	}
	return true // buckets are known at the floor, and nothing else was asked about
}

// inRange takes a pointer because a label has some two hundred bytes, and this is asked on every decision.
func (m *Monitor) inRange(l *label.Label) bool {
	return label.Dominates(&m.ceiling, l) && label.Dominates(l, &m.floor)
}

// Own gives the node's own subject and a credential of it at a working label, good for one minute from now:
// what lifecycle, guards and system records are decided as.
func (m *Monitor) Own(working label.Label, now time.Time) (redoubt.Credential, redoubt.Subject) {
	expires := now.Add(time.Minute)
	return redoubt.Credential{ID: string(m.own), Subject: m.own, Working: working, Expires: expires},
		redoubt.Subject{Name: m.own, Clearance: m.ceiling, Expires: expires}
}

func hasAny(s *redoubt.Subject, roles ...redoubt.Role) bool {
	for _, r := range roles {
		for _, has := range s.Roles {
			if has == r {
				return true
			}
		}
	}
	return false
}
