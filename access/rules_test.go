package access

import (
	"errors"
	"testing"
	"time"

	"redoubt"
	"redoubt/label"
)

// TestEachRuleRefuses breaks one rule at a time of a request that is allowed, and wants to be told which.
func TestEachRuleRefuses(t *testing.T) {
	const get, put, tags, list = redoubt.ActionGetObject, redoubt.ActionPutObject, redoubt.ActionPutTags, redoubt.ActionListObjects
	roles := func(want ...redoubt.Role) func(*Request) { return func(r *Request) { r.Subject.Roles = want } }
	works := func(marking string) func(*Request) {
		return func(r *Request) {
			w := mark(t, marking)
			r.Who.Working, r.Object, r.MadeAt, r.New = w, w, w, w
		}
	}
	grant := func(g redoubt.Grant) func(*Request) {
		return func(r *Request) { r.Bucket.Closed = true; r.Subject.Grants = append(r.Subject.Grants, g) }
	}
	officer := both(works("TOP SECRET//SI/TK"), roles(redoubt.RoleOfficer))
	past := func(right func(*Request)) func(*Request) { return both(right, func(r *Request) { r.Bypass = true }) }
	names := func(r *Request) { // a grant in an open bucket, which lets nobody in that was not
		r.Subject.Grants = append(r.Subject.Grants, redoubt.Grant{Subject: "ada", Bucket: "reports", Actions: []redoubt.Action{redoubt.ActionBypassLock}})
	}
	mine := redoubt.Grant{Subject: "ada", Bucket: "reports"}
	granted := func(r *Request) {
		r.Granted, r.New, r.Object = []redoubt.SubjectName{"ada"}, mark(t, "TOP SECRET"), mark(t, "TOP SECRET")
	}
	with := func(change func(*redoubt.Grant)) redoubt.Grant { g := mine; change(&g); return g }

	for _, c := range []struct {
		name  string
		act   redoubt.Action
		setup func(*Request) // nil: none; after it the request is allowed
		spoil func(*Request)
		rule  string
		kind  redoubt.Kind
		known bool
	}{
		{"a revoked credential", get, nil, func(r *Request) { r.Live = redoubt.Unauthenticated }, RuleCredential, redoubt.Unauthenticated, false},
		{"an expired credential", get, nil, func(r *Request) { r.Now = r.Who.Expires }, RuleCredential, redoubt.Expired, false},
		{"a failure to look", get, nil, func(r *Request) { r.Live = errors.New("disk") }, RuleCredential, redoubt.Internal, false},
		{"another's credential", get, nil, func(r *Request) { r.Subject.Name = "bob" }, RuleSubject, redoubt.Unauthenticated, false},
		{"an expired clearance", get, nil, func(r *Request) { r.Subject.Expires = noon }, RuleClearance, redoubt.Expired, false},
		{"a clearance lowered since", get, nil, func(r *Request) { r.Subject.Clearance = cleared(t, "UNCLASSIFIED", "USA") }, RuleWorking, redoubt.Denied, false},
		{"a working label above the node", get, works("TOP SECRET//SI/TK"), func(r *Request) {
			r.Who.Working = mark(t, "TOP SECRET//SI-G/TK//NOFORN")
			r.Subject.Clearance = cleared(t, "TOP SECRET//HCS/SI-G/TK", "USA")
		}, RuleWorking, redoubt.Denied, false},

		{"read up", get, nil, func(r *Request) { r.Object = mark(t, "TOP SECRET") }, RuleNoReadUp, redoubt.NotFound, false},
		{"read of another nation's", get, works("SECRET//REL TO USA, GBR"), func(r *Request) { r.Object = mark(t, "SECRET") }, RuleNoReadUp, redoubt.NotFound, false},
		{"write down", put, nil, func(r *Request) { r.New = mark(t, "UNCLASSIFIED") }, RuleNoWriteDown, redoubt.Denied, true},
		{"write for a wider audience", put, nil, func(r *Request) { r.New = mark(t, "SECRET//REL TO USA, GBR") }, RuleNoWriteDown, redoubt.Denied, true},
		{"write above the clearance", put, roles(redoubt.RoleAnalyst, redoubt.RoleWriteUp), func(r *Request) { r.New = mark(t, "TOP SECRET//HCS//NOFORN") }, RuleWithin, redoubt.Denied, true},
		{"write above the node", put, func(r *Request) {
			r.Subject.Clearance = cleared(t, "TOP SECRET//HCS/SI/TK", "USA")
			r.Subject.Roles = append(r.Subject.Roles, redoubt.RoleWriteUp)
		}, func(r *Request) { r.New = mark(t, "TOP SECRET//HCS//NOFORN") }, RuleNodeRange, redoubt.Denied, true},
		{"write above the bucket", put, nil, func(r *Request) { r.Bucket.Ceiling = mark(t, "UNCLASSIFIED") }, RuleBucketRange, redoubt.Denied, true},
		{"write below the bucket", put, nil, func(r *Request) { r.Bucket.Floor = mark(t, "TOP SECRET") }, RuleBucketRange, redoubt.Denied, true},
		{"write up without the grant", put, func(r *Request) {
			r.New = mark(t, "TOP SECRET")
			r.Subject.Roles = []redoubt.Role{redoubt.RoleAnalyst, redoubt.RoleWriteUp}
		}, roles(redoubt.RoleAnalyst), RuleWriteUpGrant, redoubt.Denied, true},
		{"alter from above", tags, nil, works2(t, "TOP SECRET"), RuleSameWorking, redoubt.Denied, true},
		{"alter from below", tags, nil, works2(t, "UNCLASSIFIED"), RuleSameWorking, redoubt.NotFound, false},
		{"another label's upload", redoubt.ActionUpload, nil, func(r *Request) { r.MadeAt = mark(t, "UNCLASSIFIED") }, RuleSameWorking, redoubt.NotFound, false},
		{"abort of another label's upload", redoubt.ActionAbortUpload, nil, func(r *Request) { r.MadeAt = mark(t, "UNCLASSIFIED") }, RuleSameWorking, redoubt.NotFound, false},

		{"reading as an officer", get, nil, roles(redoubt.RoleOfficer), RuleRole, redoubt.Denied, true},
		{"writing as a reviewer", put, nil, roles(redoubt.RoleReviewer), RuleRole, redoubt.Denied, true},
		{"no role", list, nil, roles(), RuleRole, redoubt.Denied, true},
		{"a bucket by an administrator", redoubt.ActionCreateBucket, both(works("UNCLASSIFIED"), roles(redoubt.RoleStorage)), roles(redoubt.RoleAdmin), RuleStorage, redoubt.Denied, true},
		{"a bucket from above the floor", redoubt.ActionCreateBucket, both(works("UNCLASSIFIED"), roles(redoubt.RoleStorage)), works("SECRET"), RuleNoWriteDown, redoubt.Denied, true},
		{"people by an analyst", redoubt.ActionPropose, officer, roles(redoubt.RoleAnalyst), RuleRole, redoubt.Denied, true},
		{"a change proposed below the records", redoubt.ActionPropose, officer, works("TOP SECRET//SI"), RuleRecords, redoubt.Denied, true},
		{"a change approved below the records", redoubt.ActionApprove, officer, works("TOP SECRET"), RuleRecords, redoubt.Denied, true},
		{"a grant given below the records", redoubt.ActionGrant, officer, works("SECRET"), RuleRecords, redoubt.Denied, true},
		{"people listed below the records", redoubt.ActionListPeople, officer, works("UNCLASSIFIED"), RuleRecords, redoubt.Denied, true},
		{"the log archived below the ceiling", redoubt.ActionArchiveAudit, officer, works("TOP SECRET//SI"), RuleRecords, redoubt.Denied, true},
		{"an archive confirmed below the ceiling", redoubt.ActionConfirmArchive, officer, works("SECRET"), RuleRecords, redoubt.Denied, true},
		{"the log archived by an administrator", redoubt.ActionArchiveAudit, officer, roles(redoubt.RoleAdmin), RuleRole, redoubt.Denied, true},
		{"an archive confirmed by an analyst", redoubt.ActionConfirmArchive, officer, roles(redoubt.RoleAnalyst), RuleRole, redoubt.Denied, true},
		{"an erasure proposed of a label beside", redoubt.ActionPropose, officer, func(r *Request) { r.Object = mark(t, "TOP SECRET//HCS//NOFORN") }, RuleNoReadUp, redoubt.Denied, true},
		{"an erasure approved of a label beside", redoubt.ActionApprove, officer, func(r *Request) { r.Object = mark(t, "TOP SECRET//HCS//NOFORN") }, RuleNoReadUp, redoubt.Denied, true},
		{"a grant revoked by an analyst", redoubt.ActionRevokeGrant, roles(redoubt.RoleOfficer), roles(redoubt.RoleAnalyst), RuleRole, redoubt.Denied, true},
		{"backup by an officer", redoubt.ActionBackup, roles(redoubt.RoleAdmin), roles(redoubt.RoleOfficer), RuleRole, redoubt.Denied, true},
		{"a bundle made by an officer", redoubt.ActionExportBundle, roles(redoubt.RoleAdmin), roles(redoubt.RoleOfficer), RuleRole, redoubt.Denied, true},
		{"a bundle taken by an analyst", redoubt.ActionImportBundle, roles(redoubt.RoleAdmin), roles(redoubt.RoleAnalyst), RuleRole, redoubt.Denied, true},
		{"erasure above the officer", redoubt.ActionErase, roles(redoubt.RoleOfficer), func(r *Request) { r.Object = mark(t, "TOP SECRET") }, RuleNoReadUp, redoubt.NotFound, false},
		{"another's credential revoked", redoubt.ActionRevoke, func(r *Request) { r.Self = true }, func(r *Request) { r.Self = false }, RuleRole, redoubt.Denied, true},
		{"a lock bypassed by an analyst", redoubt.ActionDeleteVersion, past(roles(redoubt.RoleStorage)), roles(redoubt.RoleAnalyst), RuleBypass, redoubt.Denied, true},
		{"a lock bypassed by another's grant", redoubt.ActionDeleteVersion, past(names), func(r *Request) { r.Subject.Grants[0].Subject = "bob" }, RuleBypass, redoubt.Denied, true},
		{"a lock bypassed by a grant of everything", redoubt.ActionPutLock, past(names), func(r *Request) { r.Subject.Grants[0].Actions = nil }, RuleBypass, redoubt.Denied, true},
		{"a lock bypassed beside the grant's prefix", redoubt.ActionPutLock, past(names), func(r *Request) { r.Subject.Grants[0].Prefix = "2025/" }, RuleBypass, redoubt.Denied, true},
		{"a lock bypassed after the grant", redoubt.ActionPutLock, past(names), func(r *Request) { r.Subject.Grants[0].Expires = noon }, RuleBypass, redoubt.Denied, true},
		{"a lock bypassed in spite of a denial", redoubt.ActionPutLock, past(roles(redoubt.RoleStorage)), func(r *Request) {
			r.Bucket.Grants = []redoubt.Grant{{Subject: "*", Bucket: "reports", Deny: true, Actions: []redoubt.Action{redoubt.ActionBypassLock}}}
		}, RuleNeedDenied, redoubt.Denied, true},
		{"the right alone, by its name", redoubt.ActionBypassLock, roles(redoubt.RoleStorage), roles(redoubt.RoleAnalyst), RuleBypass, redoubt.Denied, true},
		{"expiry by a person", redoubt.ActionExpire, ownRequest(t), func(r *Request) { r.Who.Subject, r.Subject.Name = "ada", "ada" }, RuleOwnSubject, redoubt.Denied, true},
		{"a record by a person", redoubt.ActionSystemRecord, ownRequest(t), func(r *Request) { r.Who.Subject, r.Subject.Name = "ada", "ada" }, RuleOwnSubject, redoubt.Denied, true},
		{"expiry at another label", redoubt.ActionExpire, ownRequest(t), func(r *Request) { r.Object = mark(t, "UNCLASSIFIED") }, RuleSameWorking, redoubt.Denied, true},

		{"a destination that nobody was granted", redoubt.ActionConnect, granted, func(r *Request) { r.Granted = nil }, RuleGranted, redoubt.NotFound, false},
		{"a destination of others", redoubt.ActionConnect, granted, func(r *Request) { r.Granted = []redoubt.SubjectName{"bob"} }, RuleGranted, redoubt.NotFound, false},
		{"a destination beyond MAX", redoubt.ActionConnect, granted, func(r *Request) { r.Object = mark(t, "TOP SECRET//SI") }, RuleNoReadUp, redoubt.NotFound, false},
		{"a destination without a label", redoubt.ActionConnect, granted, func(r *Request) { r.Object = label.Label{} }, RuleNoReadUp, redoubt.NotFound, false},
		{"a destination below the job", redoubt.ActionConnect, granted, func(r *Request) { r.Object = mark(t, "UNCLASSIFIED") }, RuleNoWriteDown, redoubt.Denied, true},
		{"a destination with a wider audience", redoubt.ActionConnect, granted, func(r *Request) { r.Object = mark(t, "SECRET//REL TO USA, GBR") }, RuleNoWriteDown, redoubt.Denied, true},
		{"a destination below MAX", redoubt.ActionConnect, granted, func(r *Request) { r.Object = mark(t, "SECRET") }, RuleSpeaksAtMax, redoubt.Denied, true},
		{"a MAX below the job", redoubt.ActionConnect, granted, func(r *Request) { r.New = mark(t, "UNCLASSIFIED"); r.Object = r.New }, RuleNoWriteDown, redoubt.Denied, true},
		{"a MAX beyond the clearance", redoubt.ActionConnect, granted, func(r *Request) { r.New = mark(t, "TOP SECRET//HCS//NOFORN") }, RuleWithin, redoubt.Denied, true},
		{"a destination by an officer", redoubt.ActionConnect, granted, roles(redoubt.RoleOfficer), RuleRole, redoubt.Denied, true},
		{"the machine's own kernel, by others", redoubt.ActionRunTrusted, granted, func(r *Request) { r.Granted = []redoubt.SubjectName{"bob"} }, RuleGranted, redoubt.NotFound, false},

		{"a guard's bucket", put, nil, func(r *Request) { r.Bucket.Name = "unclass.reports" }, RuleReserved, redoubt.Denied, true},
		{"the node's records", get, nil, func(r *Request) { r.Bucket.Name = redoubt.SystemBucket }, RuleReserved, redoubt.NoBucket, false},
		{"a read-only bucket", put, nil, func(r *Request) { r.Bucket.ReadOnly = true }, RuleReadOnly, redoubt.Denied, true},
		{"no bucket", get, nil, func(r *Request) { r.Bucket = nil }, RuleNoBucket, redoubt.NoBucket, false},

		{"a closed bucket", get, nil, func(r *Request) { r.Bucket.Closed = true }, RuleNeedToKnow, redoubt.NotFound, false},
		{"writing into a closed bucket", put, nil, func(r *Request) { r.Bucket.Closed = true }, RuleNeedToKnow, redoubt.Denied, true},
		{"a denial beside a grant", get, grant(mine), grant(with(func(g *redoubt.Grant) { g.Deny = true })), RuleNeedDenied, redoubt.NotFound, false},
		{"a denial by the bucket", get, nil, func(r *Request) {
			r.Bucket.Grants = []redoubt.Grant{with(func(g *redoubt.Grant) { g.Deny, g.Subject = true, "*" })}
		}, RuleNeedDenied, redoubt.NotFound, false},
		{"another's grant", get, grant(mine), func(r *Request) { r.Subject.Grants[0].Subject = "bob" }, RuleNeedToKnow, redoubt.NotFound, false},
		{"another bucket's grant", get, grant(mine), func(r *Request) { r.Subject.Grants[0].Bucket = "imagery" }, RuleNeedToKnow, redoubt.NotFound, false},
		{"another prefix's grant", get, grant(mine), func(r *Request) { r.Subject.Grants[0].Prefix = "2025/" }, RuleNeedToKnow, redoubt.NotFound, false},
		{"another action's grant", get, grant(mine), func(r *Request) { r.Subject.Grants[0].Actions = []redoubt.Action{put} }, RuleNeedToKnow, redoubt.NotFound, false},
		{"an expired grant", get, grant(mine), func(r *Request) { r.Subject.Grants[0].Expires = noon }, RuleNeedToKnow, redoubt.NotFound, false},
		{"an unknown action", get, nil, func(r *Request) { r.Action = "Anything" }, RuleNoAction, redoubt.Denied, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, r := monitor(t), request(t, c.act)
			if c.setup != nil {
				c.setup(r)
			}
			if d := m.Check(r); !d.Allow {
				t.Fatalf("before: got %+v, want it allowed", d)
			}
			c.spoil(r)
			got, want := m.Check(r), Decision{Rule: c.rule, Kind: c.kind, Known: c.known}
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func both(a, b func(*Request)) func(*Request) { return func(r *Request) { a(r); b(r) } }

// works2 changes the working label and leaves the object as it was.
func works2(t *testing.T, marking string) func(*Request) {
	return func(r *Request) { r.Who.Working = mark(t, marking) }
}

func ownRequest(t *testing.T) func(*Request) {
	return func(r *Request) { r.Who, r.Subject = monitor(t).Own(r.Object, noon) }
}

func TestAnAdministratorReadsNothingAboveTheClearance(t *testing.T) {
	m, r := monitor(t), request(t, redoubt.ActionGetObject)
	r.Subject.Roles = redoubt.Roles()
	r.Subject.Clearance, r.Who.Working = cleared(t, "UNCLASSIFIED", "USA"), mark(t, "UNCLASSIFIED")
	if d := m.Check(r); d.Allow || d.Known {
		t.Errorf("SECRET for an administrator at UNCLASSIFIED: got %+v", d)
	}
	r.Object = mark(t, "UNCLASSIFIED")
	r.Subject.Roles = []redoubt.Role{redoubt.RoleAdmin}
	if d := m.Check(r); !d.Allow {
		t.Errorf("UNCLASSIFIED for an administrator at UNCLASSIFIED: got %+v", d)
	}
}

func TestNofornIsTheSamePointAsThePlainMarking(t *testing.T) {
	m, r := monitor(t), request(t, redoubt.ActionPutTags)
	r.Object, r.MadeAt = mark(t, "SECRET//NOFORN"), mark(t, "SECRET//NOFORN")
	if d := m.Check(r); !d.Allow {
		t.Errorf("SECRET//NOFORN altered at SECRET: got %+v", d)
	}
}

func TestWhoWroteUpMayStillAlterWhatSheCannotRead(t *testing.T) {
	m, r := monitor(t), request(t, redoubt.ActionPutTags)
	r.Object = mark(t, "TOP SECRET")
	if d := m.Check(r); !d.Allow {
		t.Errorf("RULES 2.3: got %+v, want allowed at the working label that it was made at", d)
	}
}

func TestTheNodesOwnSubjectWritesReservedNamesWithinItsLabels(t *testing.T) {
	m, r := monitor(t), request(t, redoubt.ActionPutObject)
	r.Who, r.Subject = m.Own(r.New, noon)
	r.Bucket.Name, r.Bucket.Closed, r.Bucket.ReadOnly = "unclass.reports", true, true
	if d := m.Check(r); !d.Allow {
		t.Errorf("got %+v, want the own subject allowed", d)
	}
	r.New = mark(t, "UNCLASSIFIED")
	if d := m.Check(r); d.Allow {
		t.Errorf("the own subject wrote down")
	}
	for _, a := range []redoubt.Action{redoubt.ActionPropose, redoubt.ActionErase, redoubt.ActionBackup, redoubt.ActionMint} {
		r.Action, r.Self = a, true
		if d := m.Check(r); d.Allow {
			t.Errorf("%s: the own subject was allowed", a)
		}
	}
	r.Action, r.Bypass = redoubt.ActionDeleteVersion, true
	r.Bucket.Grants = []redoubt.Grant{{Subject: "*", Bucket: r.Bucket.Name, Actions: []redoubt.Action{redoubt.ActionBypassLock}}}
	if d := m.Check(r); d.Allow || d.Rule != RuleBypass {
		t.Errorf("the own subject goes past retention: %+v", d)
	}
	r.Now = noon.Add(time.Minute)
	r.Action = redoubt.ActionPutObject
	if d := m.Check(r); d.Allow {
		t.Errorf("the own subject's credential outlived its minute")
	}
}

func TestADenialOfAPrefixLeavesTheRestOfAList(t *testing.T) {
	m, r := monitor(t), request(t, redoubt.ActionListObjects)
	r.Subject.Grants = []redoubt.Grant{{Subject: "*", Bucket: "reports", Prefix: "2025/", Deny: true}}
	if d := m.Check(r); !d.Allow {
		t.Errorf("got %+v, want the list, without what is denied", d)
	}
	if scope := m.Scope(r); scope == nil || scope("2025/x") || !scope("2026/x") {
		t.Error("the scope is not all but the denied prefix")
	}
	r.Bucket.Closed = true
	r.Subject.Grants[0].Deny = false
	if scope := m.Scope(r); !m.Check(r).Allow || scope == nil || !scope("2025/x") || scope("2026/x") {
		t.Error("the scope is not the granted prefix alone")
	}
	r.Bucket = nil
	if scope := m.Scope(r); scope == nil || scope("2025/x") {
		t.Error("no bucket, and something is in scope")
	}
}

func TestEstateRulesDenyAndOnlyDeny(t *testing.T) {
	m := monitor(t)
	m = New(m.floor, m.ceiling, "topsecret", denier("no-fridays"))
	want := Decision{Known: true, Kind: redoubt.Denied, Rule: RuleEstate + "no-fridays"}
	if got := m.Check(request(t, redoubt.ActionGetObject)); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	m = New(m.floor, m.ceiling, "topsecret", denier(""))
	if d := m.Check(request(t, redoubt.ActionGetObject)); !d.Allow {
		t.Errorf("got %+v, want allowed", d)
	}
}

func TestErrorsKeepTheRuleFromWhoMayNotKnow(t *testing.T) {
	m, r := monitor(t), request(t, redoubt.ActionGetObject)
	r.Object = mark(t, "TOP SECRET")
	var e *redoubt.Error
	if err := m.Check(r).Err("GetObject", "reports/x"); !errors.As(err, &e) || e.Kind != redoubt.NotFound || e.Rule != "" {
		t.Errorf("read up: got %#v", err)
	}
	r.Object, r.Subject.Roles = label.Label{}, nil
	r.Object = mark(t, "SECRET")
	if err := m.Check(r).Err("GetObject", "reports/x"); !errors.As(err, &e) || e.Kind != redoubt.Denied || e.Rule != RuleRole {
		t.Errorf("no role: got %#v", err)
	}
	if err := (Decision{}).Err("GetObject", ""); !errors.Is(err, redoubt.Internal) {
		t.Errorf("the zero decision: got %v", err)
	}
	if err := (Decision{Allow: true}).Err("GetObject", ""); err != nil {
		t.Errorf("allowed: got %v", err)
	}
}

func TestGoingPastRetentionIsRecordedByItsName(t *testing.T) {
	m, r := monitor(t), request(t, redoubt.ActionDeleteVersion)
	r.Subject.Roles = []redoubt.Role{redoubt.RoleStorage}
	for _, c := range []struct {
		bypass bool
		want   string
	}{{false, "same-working-label (2.3)"}, {true, "bypass-governance"}} {
		r.Bypass = c.bypass
		if d := m.Check(r); !d.Allow || d.Rule != c.want {
			t.Errorf("got %+v, want it allowed by %q", d, c.want)
		}
	}
}
