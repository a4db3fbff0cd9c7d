package access

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"redoubt"
	"redoubt/label"
)

// oracle decides a request slowly and by other means than the monitor: it collects every objection there is,
// compares labels by their published parts instead of their bits, and knows actions by lists of names.
func oracle(m *Monitor, r *Request) (objections []string) {
	object := func(s string, holds bool) {
		if !holds {
			objections = append(objections, s)
		}
	}
	isA := func(names string) bool { return slices.Contains(strings.Fields(names), string(r.Action)) }
	reads := isA("GetObject HeadObject GetObjectTagging GetObjectRetention RequestRelease ReadRelease ConsentToRelease")
	reviews := isA("ApproveRelease DenyRelease")
	exports := isA("ExportZTDF")
	guards := isA("GuardRelease AcceptRelease HandToGuard TakeFromGuard")
	partners := isA("HandToPartner")
	lists := isA("ListObjects ListObjectVersions ListMultipartUploads")
	writes := isA("PutObject DeleteObject MultipartUpload")
	alters := isA("PutObjectTagging PutObjectRetention DeleteObjectVersion BypassGovernanceRetention")
	aborts := isA("AbortMultipartUpload")
	buckets := isA("CreateBucket DeleteBucket PutBucketConfiguration")
	settings := isA("HeadBucket ListBuckets GetBucketConfiguration LinkStatus")
	erases := isA("RotateKey CryptoErase UpgradeLabel")
	people := isA("ProposeChange ApproveChange GrantNeedToKnow ListPeople InviteDevice ListDevices ArchiveAudit ConfirmAuditArchive TraceSpill")
	officers := erases || people || isA("RevokeGrant SearchAudit VerifyAudit KeyStatus EndDevice EndAgreement")
	admins := isA("Backup CheckStore ReadMetrics ExportBundle ImportBundle CutLink SilenceLink")
	selves := isA("MintCredential RevokeCredential ListCredentials ExplainDecision EnrolDevice")
	jobs := isA("SubmitJob ReadJob CancelJob RunJob CallService")
	granted := isA("Connect RunTrusted")
	expires, records := isA("LifecycleExpiration"), isA("SystemRecord RenewLease TakeFromPartner")
	sends, receives := isA("SendToPeer"), isA("TakeFromPeer")
	link := strings.HasPrefix(string(r.Subject.Name), "link.")
	objects := reads || lists || writes || alters || aborts || reviews || exports
	own := r.Subject.Name == "node.topsecret"
	w := r.Who.Working

	object("action", objects || buckets || settings || officers || admins || selves || expires || records || sends || receives || guards || partners || jobs || granted)
	object("live", r.Live == nil && r.Who.ID != "" && r.Who.Subject != "" && r.Who.Subject == r.Subject.Name)
	object("time", !r.Now.IsZero() && r.Now.Before(r.Who.Expires) && r.Now.Before(r.Subject.Expires))
	object("working", above(r.Subject.Clearance, w) && within(w, m.floor, m.ceiling))
	if objects || buckets || expires {
		object("bucket", r.Bucket != nil)
	}
	if reads || erases || reviews || exports {
		object("read up", above(w, r.Object))
	}
	if guards {
		object("read up", r.Object.IsZero() || above(w, r.Object))
		object("beyond node", r.New.IsZero() || within(r.New, m.floor, m.ceiling))
	}
	if jobs {
		object("read up", r.Object.IsZero() || above(w, r.Object))
		object("made at", r.MadeAt.IsZero() || above(w, r.MadeAt) && above(r.MadeAt, w))
		if !r.New.IsZero() {
			object("write down", above(r.New, w))
			object("beyond clearance", above(r.Subject.Clearance, r.New))
			object("beyond node", within(r.New, m.floor, m.ceiling))
		}
	}
	if granted {
		object("write down", above(r.New, w))
		object("beyond clearance", above(r.Subject.Clearance, r.New))
		object("beyond node", within(r.New, m.floor, m.ceiling))
		object("read up", above(r.New, r.Object))
		object("tells what is below", above(r.Object, w))
		object("could go on above it", above(r.Object, r.New))
		object("granted", slices.Contains(r.Granted, "*") || slices.Contains(r.Granted, r.Subject.Name))
	}
	if isA("PutObject DeleteObject MultipartUpload") {
		object("write down", above(r.New, w))
		object("beyond clearance", above(r.Subject.Clearance, r.New))
		object("beyond node", within(r.New, m.floor, m.ceiling))
		object("beyond bucket", r.Bucket != nil && within(r.New, r.Bucket.Floor, r.Bucket.Ceiling))
		object("write up", above(w, r.New) || slices.Contains(r.Subject.Roles, "write-up"))
	}
	if alters || aborts || isA("MultipartUpload") {
		object("made at", above(w, r.MadeAt) && above(r.MadeAt, w))
	}
	if alters {
		object("no object", !r.Object.IsZero())
	}
	if people {
		object("records above", above(w, m.ceiling))
		object("erasure above", r.Object.IsZero() || above(w, r.Object))
	}
	if alters && (r.Bypass || isA("BypassGovernanceRetention")) {
		object("bypass by the node", !own)
		named, denied := false, false
		if r.Bucket != nil {
			named, denied = names(r, "BypassGovernanceRetention")
		}
		object("bypass", !denied && (named || slices.Contains(r.Subject.Roles, "storage")))
	}
	if expires {
		object("expire", above(w, r.Object) && above(r.Object, w))
	}
	if sends {
		object("above the link", above(w, r.Object))
	}
	if receives {
		object("no bucket", r.Bucket != nil)
		object("above the link", above(w, r.New))
		object("beyond node", within(r.New, m.floor, m.ceiling))
		object("beyond bucket", r.Bucket != nil && within(r.New, r.Bucket.Floor, r.Bucket.Ceiling))
	}
	if buckets {
		object("bucket write down", above(m.floor, w))
	}
	if records {
		object("record", above(r.New, w) && within(r.New, m.floor, m.ceiling))
	}
	has := func(roles string) bool {
		return slices.ContainsFunc(strings.Fields(roles), func(x string) bool { return slices.Contains(r.Subject.Roles, redoubt.Role(x)) })
	}
	switch {
	case own:
		object("role", objects && !reviews && !exports || buckets || settings || expires || records)
	case link:
		object("link", sends || receives)
		object("another estate's", !has("partner"))
		if r.Bucket != nil {
			object("system", r.Bucket.Name != ".system")
			object("reserved", sends || strings.Contains(string(r.Bucket.Name), ".") == r.Guarded)
			object("read-only", sends || r.Guarded || !r.Bucket.ReadOnly)
		}
	default:
		object("link", !sends && !receives)
		object("role", !(reads || lists) || has("analyst reviewer admin storage"))
		object("role", !(writes || alters || aborts) || has("analyst admin storage"))
		object("role", !(jobs || granted) || has("analyst admin storage"))
		object("role", !buckets || has("storage"))
		object("role", !officers || has("officer"))
		object("role", !admins || has("admin"))
		object("role", !reviews || has("reviewer"))
		object("role", !exports || has("reviewer"))
		object("role", !guards || has("guard"))
		object("role", !partners || has("partner"))
		object("another estate's", !has("partner") || partners || selves && r.Self)
		object("role", !selves || r.Self || has("officer"))
		object("own", !expires && !records)
		if r.Bucket != nil {
			object("system", r.Bucket.Name != ".system")
			object("reserved", !(writes || alters || aborts || buckets) || !strings.Contains(string(r.Bucket.Name), "."))
			object("read-only", !(writes || alters || aborts) || !r.Bucket.ReadOnly)
		}
		if objects && r.Bucket != nil {
			allowed, denied := knows(r, lists)
			object("need to know", !denied && (allowed || !r.Bucket.Closed))
		}
	}
	return objections
}

// knows evaluates grants in the simplest way.
func knows(r *Request, list bool) (allowed, denied bool) {
	for _, g := range slices.Concat(r.Subject.Grants, r.Bucket.Grants) {
		fits := (g.Subject == "*" || g.Subject == r.Subject.Name) && g.Bucket == r.Bucket.Name &&
			(len(g.Actions) == 0 || slices.Contains(g.Actions, r.Action)) &&
			(g.Expires.IsZero() || g.Expires.After(r.Now))
		switch {
		case !fits:
		case list && g.Deny:
			denied = denied || g.Prefix == ""
		case list:
			allowed = true
		case !strings.HasPrefix(r.Key, g.Prefix):
		case g.Deny:
			denied = true
		default:
			allowed = true
		}
	}
	return allowed, denied
}

// names says whether a grant gives an action by its name, and whether one denies it, by name or with all others.
func names(r *Request, action redoubt.Action) (given, denied bool) {
	for _, g := range slices.Concat(r.Subject.Grants, r.Bucket.Grants) {
		if !(g.Subject == "*" || g.Subject == r.Subject.Name) || g.Bucket != r.Bucket.Name || !strings.HasPrefix(r.Key, g.Prefix) ||
			!g.Expires.IsZero() && !g.Expires.After(r.Now) {
			continue
		}
		given = given || !g.Deny && slices.Contains(g.Actions, action)
		denied = denied || g.Deny && (len(g.Actions) == 0 || slices.Contains(g.Actions, action))
	}
	return given, denied
}

// above compares by the parts that labels publish.
func above(a, b label.Label) bool {
	if a.IsZero() || b.IsZero() || a.Rank() < b.Rank() {
		return false
	}
	for _, c := range b.Categories() {
		if !slices.Contains(a.Categories(), c) {
			return false
		}
	}
	if b.ForAll() {
		return true
	}
	if a.ForAll() {
		return false
	}
	for _, n := range a.ReleasableTo() {
		if !slices.Contains(b.ReleasableTo(), n) {
			return false
		}
	}
	return true
}

func within(l, floor, ceiling label.Label) bool { return above(ceiling, l) && above(l, floor) }

// drawn is a random request, near enough to what is allowed that much of it is.
func drawn(rt *rapid.T, t *testing.T, all []redoubt.Action) *Request {
	markings := []label.Label{{}}
	for _, s := range []string{"UNCLASSIFIED", "UNCLASSIFIED//NOFORN", "SECRET//REL TO USA, GBR", "SECRET", "SECRET//NOFORN",
		"SECRET//SI", "TOP SECRET//SI/TK", "TOP SECRET//SI", "TOP SECRET//HCS//NOFORN"} {
		markings = append(markings, mark(t, s))
	}
	clearances := []label.Label{{}, cleared(t, "SECRET", "USA"), cleared(t, "SECRET", "GBR"), cleared(t, "TOP SECRET//SI/TK", "USA"), cleared(t, "UNCLASSIFIED", "USA")}
	r := request(t, rapid.SampledFrom(all).Draw(rt, "action"))
	some := func(name string) label.Label { return rapid.SampledFrom(markings).Draw(rt, name) }
	often := func(name string) bool { return rapid.IntRange(0, 2).Draw(rt, name) == 0 }
	seldom := func(name string) bool { return rapid.IntRange(0, 15).Draw(rt, name) == 0 }
	if often("clear otherwise") {
		r.Subject.Clearance = rapid.SampledFrom(clearances).Draw(rt, "clearance")
	}
	if often("work otherwise") {
		w := some("working")
		r.Who.Working, r.Object, r.MadeAt, r.New = w, w, w, w
	}
	if often("own") {
		r.Who.Subject, r.Subject.Name = "node.topsecret", "node.topsecret"
	}
	if class := ClassOf(r.Action); (class == ClassSend || class == ClassReceive) != seldom("another's part") {
		r.Who.Subject, r.Subject.Name = "link.outpost", "link.outpost"
	}
	if often("object") {
		r.Object = some("Object")
	}
	if often("made") {
		r.MadeAt = some("MadeAt")
	}
	if often("new") {
		r.New = some("New")
	}
	r.Subject.Roles = rapid.SliceOfN(rapid.SampledFrom(append(redoubt.Roles(), redoubt.RoleGuard)), 0, 6).Draw(rt, "roles")
	if r.Action == redoubt.ActionHandPartner || seldom("another estate's") {
		r.Subject.Roles = append(r.Subject.Roles, redoubt.RolePartner)
	}
	r.Guarded = rapid.Bool().Draw(rt, "guarded")
	if ClassOf(r.Action) == ClassGuard && often("about nothing") {
		r.Object, r.New = label.Label{}, label.Label{}
	}
	r.Self = rapid.Bool().Draw(rt, "self")
	r.Bypass = seldom("bypass")
	r.Granted = rapid.SampledFrom([][]redoubt.SubjectName{nil, {"bob"}, {"bob", "ada"}, {"*"}}).Draw(rt, "granted")
	if ClassOf(r.Action) == ClassPeople && often("about no label") {
		r.Object = label.Label{}
	}
	r.Bucket = &Bucket{
		Name:   redoubt.BucketName(rapid.SampledFrom([]string{"reports", "reports", "unclass.reports", ".system"}).Draw(rt, "bucket")),
		Floor:  r.Bucket.Floor,
		Closed: often("closed"), ReadOnly: seldom("read-only"), Ceiling: r.Bucket.Ceiling,
	}
	if seldom("bounded") {
		r.Bucket.Floor, r.Bucket.Ceiling = some("bucket floor"), some("bucket ceiling")
	}
	grants := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) redoubt.Grant {
		return redoubt.Grant{
			Subject: rapid.SampledFrom([]redoubt.SubjectName{"ada", "*", "bob"}).Draw(rt, "grantee"),
			Bucket:  rapid.SampledFrom([]redoubt.BucketName{"reports", "imagery"}).Draw(rt, "of"),
			Prefix:  rapid.SampledFrom([]string{"", "2026/", "2025/"}).Draw(rt, "prefix"),
			Actions: rapid.SampledFrom([][]redoubt.Action{nil, {r.Action}, {redoubt.ActionGetObject}, {r.Action, redoubt.ActionBypassLock}}).Draw(rt, "actions"),
			Deny:    rapid.Bool().Draw(rt, "deny"),
			Expires: rapid.SampledFrom([]time.Time{{}, noon, noon.Add(1)}).Draw(rt, "until"),
		}
	}), 0, 3)
	r.Subject.Grants, r.Bucket.Grants = grants.Draw(rt, "grants"), grants.Draw(rt, "bucket grants")
	switch rapid.IntRange(0, 40).Draw(rt, "spoil") {
	case 0:
		r.Bucket = nil
	case 1:
		r.Live = errors.New("who knows")
	case 2:
		r.Now = r.Who.Expires
	case 3:
		r.Now = r.Subject.Expires
	case 4:
		r.Who.Subject = "eve"
	case 5:
		r.Who.ID = ""
	}
	return r
}

func TestMonitorAgreesWithTheOracle(t *testing.T) {
	all, m := actions(t), monitor(t)
	allowed := 0
	agrees := func(rt *rapid.T) {
		r := drawn(rt, t, all)
		objections := oracle(m, r)
		d := m.Check(r)
		if d.Allow {
			allowed++
		}
		if d.Allow != (len(objections) == 0) {
			rt.Fatalf("%s: got %+v, the oracle objects: %q", r.Action, d, objections)
		}
		if d.Rule == "" || d.Allow && (!d.Known || d.Kind != 0) {
			rt.Fatalf("%s: got the decision %+v, which is no whole one", r.Action, d)
		}
		if d.Known && !d.Allow && d.Kind != redoubt.Denied {
			rt.Fatalf("%s: got %+v, want what may be known to be Denied", r.Action, d)
		}
	}
	for allowed < 5 && !t.Failed() { // else the property says little
		rapid.Check(t, agrees)
	}
}

// TestOfficersRecordsAgreeWithTheOracle and the next draw only what has many conditions and is drawn seldom among all actions.
func TestOfficersRecordsAgreeWithTheOracle(t *testing.T) {
	agrees(t, []redoubt.Action{redoubt.ActionPropose, redoubt.ActionApprove, redoubt.ActionGrant, redoubt.ActionListPeople, redoubt.ActionRevokeGrant,
		redoubt.ActionArchiveAudit, redoubt.ActionConfirmArchive},
		func(rt *rapid.T, r *Request) {
			r.Subject = request(t, r.Action).Subject
			r.Who.Subject, r.Subject.Roles = r.Subject.Name, []redoubt.Role{redoubt.RoleOfficer}
			r.Who.Working = rapid.SampledFrom([]label.Label{mark(t, "TOP SECRET//SI/TK"), mark(t, "TOP SECRET//SI/TK//NOFORN"), mark(t, "TOP SECRET//SI"),
				mark(t, "SECRET"), mark(t, "UNCLASSIFIED")}).Draw(rt, "at")
		})
}

func TestBypassingRetentionAgreesWithTheOracle(t *testing.T) {
	agrees(t, []redoubt.Action{redoubt.ActionDeleteVersion, redoubt.ActionPutLock, redoubt.ActionPutTags, redoubt.ActionBypassLock},
		func(rt *rapid.T, r *Request) {
			whole := request(t, r.Action)
			r.Who, r.Subject.Name, r.Subject.Clearance = whole.Who, whole.Subject.Name, whole.Subject.Clearance
			r.Object, r.MadeAt, r.Bypass = whole.Object, whole.MadeAt, rapid.IntRange(0, 3).Draw(rt, "bypass") > 0
			r.Subject.Roles = append(r.Subject.Roles, rapid.SampledFrom([]redoubt.Role{redoubt.RoleAnalyst, redoubt.RoleStorage}).Draw(rt, "alters"))
		})
}

func TestWhatTheEstateGrantsAgreesWithTheOracle(t *testing.T) {
	at := []string{"UNCLASSIFIED", "SECRET//REL TO USA, GBR", "SECRET", "SECRET//NOFORN", "TOP SECRET//SI", "TOP SECRET//SI/TK", "TOP SECRET//HCS//NOFORN"}
	agrees(t, []redoubt.Action{redoubt.ActionConnect, redoubt.ActionRunTrusted}, func(rt *rapid.T, r *Request) {
		whole := request(t, r.Action)
		r.Who, r.Subject.Name, r.Subject.Clearance = whole.Who, whole.Subject.Name, whole.Subject.Clearance
		r.Who.Working = mark(t, rapid.SampledFrom(at[:3]).Draw(rt, "so far"))
		r.Object = mark(t, rapid.SampledFrom(at).Draw(rt, "accredited"))
		r.New = r.Object
		if rapid.IntRange(0, 2).Draw(rt, "of another MAX") == 0 {
			r.New = mark(t, rapid.SampledFrom(at[1:]).Draw(rt, "max"))
		}
		r.Subject.Roles = append(r.Subject.Roles, redoubt.RoleAnalyst)
	})
}

// agrees holds the monitor against the oracle for some actions, drawn as change makes them likelier to be allowed.
func agrees(t *testing.T, actions []redoubt.Action, change func(*rapid.T, *Request)) {
	m, allowed, refused := monitor(t), 0, 0
	one := func(rt *rapid.T) {
		r := drawn(rt, t, actions)
		change(rt, r)
		objections, d := oracle(m, r), m.Check(r)
		if d.Allow != (len(objections) == 0) {
			rt.Fatalf("%s: got %+v, the oracle objects: %q", r.Action, d, objections)
		}
		if d.Allow {
			allowed++
		} else {
			refused++
		}
	}
	for (allowed < 5 || refused < 5) && !t.Failed() { // else the property says little
		rapid.Check(t, one)
	}
}

func TestNothingIsReadUpAndNothingTellsOfIt(t *testing.T) {
	all, m := actions(t), monitor(t)
	rapid.Check(t, func(rt *rapid.T) {
		r := drawn(rt, t, all)
		if above(r.Who.Working, r.Object) {
			return
		}
		d := m.Check(r)
		switch ClassOf(r.Action) {
		case ClassRead, ClassKeys, ClassExport:
			if d.Allow || d.Known {
				rt.Fatalf("%s: got %+v for what is above %s", r.Action, d, r.Who.Working)
			}
			// Against a name never used the answer is the same, apart from the rule that only the audit sees.
			gone := *r
			gone.Object, gone.MadeAt = label.Label{}, label.Label{}
			if other := m.Check(&gone); other.Kind != d.Kind || other.Known != d.Known {
				rt.Fatalf("%s: %+v for what is above, %+v for what is not there", r.Action, d, other)
			}
		case ClassAlter:
			if d.Known && !d.Allow {
				rt.Fatalf("%s: got %+v, which tells of what is above", r.Action, d)
			}
		}
	})
}

func TestDenyingMoreNeverAllows(t *testing.T) {
	all, m := actions(t), monitor(t)
	rapid.Check(t, func(rt *rapid.T) {
		r := drawn(rt, t, all)
		if m.Check(r).Allow || r.Bucket == nil {
			return
		}
		deny := redoubt.Grant{Subject: "*", Bucket: r.Bucket.Name, Deny: true, Prefix: rapid.SampledFrom([]string{"", "2026/"}).Draw(rt, "more")}
		r.Subject.Grants = append(r.Subject.Grants, deny)
		strict := New(m.floor, m.ceiling, "topsecret", denier("no"))
		if m.Check(r).Allow || strict.Check(r).Allow {
			rt.Fatalf("%s: a denial allowed what was refused", r.Action)
		}
	})
}

func TestScopeIsWhatCheckWouldSayOfEachKey(t *testing.T) {
	m := monitor(t)
	keys := []string{"2024/x", "2025/", "2025/x", "2026/march.txt", "2026", "y"}
	rapid.Check(t, func(rt *rapid.T) {
		r := drawn(rt, t, []redoubt.Action{redoubt.ActionListObjects, redoubt.ActionListVersions, redoubt.ActionListUploads})
		if r.Bucket == nil || !m.Check(r).Allow {
			return
		}
		scope := m.Scope(r)
		for _, key := range keys {
			r.Key = key
			want := m.needToKnow(ClassRead, r) == ""
			if got := scope == nil || scope(key); got != want {
				rt.Fatalf("%q: got %v, want %v", key, got, want)
			}
		}
	})
}

type denier string

func (d denier) Deny(*Request) string { return string(d) }
