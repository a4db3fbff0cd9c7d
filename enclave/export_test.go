package enclave

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"redoubt"
	"redoubt/label"
	"redoubt/store"
)

const relGBR = "SECRET//REL TO USA, GBR"

// exported is what reviewers let out in these tests: a version that GBR may read.
func exported(c *chain) redoubt.ExportVersion {
	c.t.Helper()
	c.ts.put(c.ts.as("ts-analyst", relGBR), "plan", "the plan", "")
	return redoubt.ExportVersion{Name: redoubt.ObjectName{Bucket: "reports", Key: "plan"}, Nation: "GBR", Reason: "exercise"}
}

func TestAReviewerExportsWhatThePartnerMayRead(t *testing.T) {
	c := openChain(t)
	q := exported(c)
	out, o, err := c.ts.ExportVersion(context.Background(), c.ts.as("rev-1", "SECRET"), q)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	sum := sha256.Sum256([]byte("the plan"))
	digest := hex.EncodeToString(sum[:])
	if got := content(t, o, 0, -1); got != "the plan" || out.SHA256 != digest || out.SizeBytes != 8 || out.Label != relGBR || out.Nation != "GBR" || out.Classification != "SECRET" ||
		strings.Join(out.ReleasableTo, " ") != "GBR USA" || out.Version == "" {
		t.Errorf("it is %q, %+v", got, out)
	}
	l, meta, err := label.Read4774(strings.NewReader(out.XML))
	if err != nil || l.Banner() != relGBR || meta.Kind != label.Originator4774 || !meta.Created.Equal(out.Made) {
		t.Errorf("its label is %s, %+v, %v", l, meta, err)
	}
	var found []redoubt.AuditRecord
	err = c.ts.SearchAudit(context.Background(), c.ts.as("officer", "SECRET"), redoubt.AuditQuery{Action: redoubt.ActionExportZTDF}, func(r redoubt.AuditRecord) error {
		found = append(found, r)
		return nil
	})
	if err != nil || len(found) != 1 || !found[0].Allow || found[0].Subject != "rev-1" || found[0].Detail != "to GBR, sha256 "+digest+": exercise" || found[0].Bytes != 8 {
		t.Errorf("on record is %+v, %v", found, err)
	}
	c.ts.restart(true)
	if got := c.ts.decisionsAt("SECRET", redoubt.ActionExportZTDF); len(got) != 1 {
		t.Errorf("after a crash %v is on record", got)
	}
}

func TestWhatMayNotLeaveIsNotExported(t *testing.T) {
	c := openChain(t)
	q := exported(c)
	who := c.ts.as("ts-analyst", "SECRET")
	for key, marking := range map[string]string{"noforn": "SECRET//NOFORN", "orcon": "SECRET//ORCON/REL TO USA, GBR", "propin": "SECRET//PROPIN/REL TO USA, GBR", "fisa": "SECRET//FISA/REL TO USA, GBR",
		"fgi": "SECRET//FGI GBR//REL TO USA, GBR", "theirs": "//GBR SECRET//REL TO USA, GBR", "joint": "//JOINT SECRET GBR USA", "other": "SECRET//REL TO USA, AUS", "group": "SECRET//REL TO USA, NATO"} {
		w := who
		if p := parsed(t, marking); !p.Dominates(w.Working) {
			w = c.ts.as("ts-analyst", marking)
		}
		c.ts.put(w, key, "text", marking)
	}
	c.low("raised", "weather")
	c.raise(c.unclass, c.secret)
	c.raise(c.secret, c.ts)
	rev := c.ts.as("rev-1", "SECRET")
	key := func(k string) func(*redoubt.ExportVersion) { return func(q *redoubt.ExportVersion) { q.Name.Key = k } }
	for what, one := range map[string]struct {
		change func(*redoubt.ExportVersion)
		kind   redoubt.Kind
		rule   string
	}{
		"what is for the owner alone":    {key("noforn"), redoubt.Denied, ruleNation},
		"what is for another nation":     {key("other"), redoubt.Denied, ruleNation},
		"what is for a group":            {key("group"), redoubt.Denied, ruleNation},
		"to another nation":              {func(q *redoubt.ExportVersion) { q.Nation = "AUS" }, redoubt.Denied, ruleNation},
		"ORCON":                          {key("orcon"), redoubt.Denied, ruleConsent},
		"PROPIN":                         {key("propin"), redoubt.Denied, ruleConsent},
		"FISA":                           {key("fisa"), redoubt.Denied, ruleConsent},
		"FGI":                            {key("fgi"), redoubt.Denied, ruleConsent},
		"the partner's own":              {key("theirs"), redoubt.Denied, ruleConsent},
		"what two nations own":           {key("joint"), redoubt.Denied, ruleConsent},
		"of another enclave":             {func(q *redoubt.ExportVersion) { q.Name = redoubt.ObjectName{Bucket: "unclass.reports", Key: "raised"} }, redoubt.Denied, ruleOrigin},
		"to the own nation":              {func(q *redoubt.ExportVersion) { q.Nation = "USA" }, redoubt.Invalid, ""},
		"to nobody":                      {func(q *redoubt.ExportVersion) { q.Nation = "" }, redoubt.Invalid, ""},
		"to no nation":                   {func(q *redoubt.ExportVersion) { q.Nation = "XXZ" }, redoubt.Invalid, ""},
		"to several at once":             {func(q *redoubt.ExportVersion) { q.Nation = "FVEY" }, redoubt.Invalid, ""},
		"to a nation in small letters":   {func(q *redoubt.ExportVersion) { q.Nation = "gbr" }, redoubt.Invalid, ""},
		"without a reason":               {func(q *redoubt.ExportVersion) { q.Reason = "" }, redoubt.Invalid, ""},
		"with a reason that is too long": {func(q *redoubt.ExportVersion) { q.Reason = strings.Repeat("x", redoubt.MaxExportReason+1) }, redoubt.Invalid, ""},
		"what is not there":              {key("none"), redoubt.NotFound, ""},
		"a version that is not there":    {func(q *redoubt.ExportVersion) { q.Version = "x" }, redoubt.NotFound, ""},
	} {
		q := q
		one.change(&q)
		_, o, err := c.ts.ExportVersion(context.Background(), rev, q)
		if o != nil {
			t.Errorf("%s: content was given", what)
		}
		wantRefusal(t, what, err, one.kind, one.rule)
	}
	q.Reason = strings.Repeat("x", redoubt.MaxExportReason)
	if _, o, err := c.ts.ExportVersion(context.Background(), rev, q); err != nil {
		t.Errorf("with the longest reason: %v", err)
	} else {
		o.Close()
	}
	q.Name.Key, q.Nation = "group", "NATO"
	if _, o, err := c.ts.ExportVersion(context.Background(), rev, q); err != nil {
		t.Errorf("to a group that its audience names: %v", err)
	} else {
		o.Close()
	}
}

func TestOnlyReviewersExportAndOnlyWhatTheyMayRead(t *testing.T) {
	c := openChain(t)
	q := exported(c)
	for _, who := range []redoubt.Credential{c.ts.as("ts-analyst", "SECRET"), c.ts.as("officer", "SECRET")} {
		_, _, err := c.ts.ExportVersion(context.Background(), who, q)
		if k := redoubt.KindOf(err); k != redoubt.Denied {
			t.Errorf("%s: got %v, want denied", who.Subject, err)
		}
	}
	// Below the version's label a reviewer is told what she would be told of nothing.
	low := c.ts.as("rev-1", "UNCLASSIFIED")
	_, _, hidden := c.ts.ExportVersion(context.Background(), low, q)
	q.Name.Key = "nothing"
	_, _, nothing := c.ts.ExportVersion(context.Background(), low, q)
	var a, b *redoubt.Error
	if !errors.As(hidden, &a) || !errors.As(nothing, &b) || a.Kind != redoubt.NotFound || a.Kind != b.Kind || a.Rule != b.Rule || a.Hint != b.Hint {
		t.Errorf("of what is above: %v; of nothing: %v", hidden, nothing)
	}
}

// TestNobodyWritesAndExportsAlone: rev-3 may do either.
func TestNobodyWritesAndExportsAlone(t *testing.T) {
	c := openChain(t)
	q := exported(c)
	c.ts.put(c.ts.as("rev-3", relGBR), "hers", "text", relGBR)
	q.Name.Key = "hers"
	_, _, err := c.ts.ExportVersion(context.Background(), c.ts.as("rev-3", "SECRET"), q)
	wantRefusal(t, "by who wrote it", err, redoubt.Denied, ruleAuthor)
	_, o, err := c.ts.ExportVersion(context.Background(), c.ts.as("rev-1", "SECRET"), q)
	if err != nil {
		t.Fatalf("by another: %v", err)
	}
	o.Close()
}

// TestWhatWasExportedIsNotProvenGone: nobody takes a file back. It is known after a crash, and of copies too.
func TestWhatWasExportedIsNotProvenGone(t *testing.T) {
	c := openChain(t)
	q := exported(c)
	c.ts.put(c.ts.as("ts-analyst", relGBR), "copy", "the plan", "")
	q.Name.Key = "copy"
	_, o, err := c.ts.ExportVersion(context.Background(), c.ts.as("rev-1", "SECRET"), q)
	if err != nil {
		t.Fatal(err)
	}
	o.Close()
	c.ts.restart(true)
	sum := sha256.Sum256([]byte("the plan"))
	r := c.spill("", true)
	if r.Proven || len(r.Exports) != 1 || r.Exports[0].Nation != "GBR" || r.Exports[0].By != "rev-1" || r.Exports[0].SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("a file with it left: proven %v, exports %+v", r.Proven, r.Exports)
	}
}

// opening does something once, behind the next blob that is opened.
type opening struct {
	store.Engine
	then func()
}

func (o *opening) OpenBlob(ref store.BlobRef) (store.Blob, error) {
	b, err := o.Engine.OpenBlob(ref)
	if then := o.then; then != nil {
		o.then = nil
		then()
	}
	return b, err
}

// TestAnExportThatASpillOvertakesIsRefused: while it was read for its digest, the version was taken out, or what it was made of, or it was deleted.
func TestAnExportThatASpillOvertakesIsRefused(t *testing.T) {
	for what, overtake := range map[string]func(*chain) error{
		"reported": func(c *chain) error {
			_, err := c.ts.reported("plan", "", true)
			return err
		},
		"upgraded": func(c *chain) error {
			_, err := c.ts.Upgrade(context.Background(), c.ts.spillOfficer(), redoubt.Regrade{Name: named("plan"), Label: "TOP SECRET", Reason: "too low"})
			return err
		},
		"deleted": func(c *chain) error {
			return c.ts.del(c.ts.as("ts-analyst", relGBR), "plan", c.ts.all("plan")[0].ID)
		},
		"made of what is being reported": func(c *chain) error { // its own search has not come so far
			b, f, _, err := c.ts.lookAt(context.Background(), "ReportSpill", c.ts.spillOfficer(), redoubt.ActionSpill, named("plan"), "")
			if err != nil {
				return err
			}
			m, of := mark{job: "j", reads: []versionID{{1}}}, spilt{"r", origin{of: "o", stamp: versionID{1}, label: f.set.label}}
			f.rec.attrs = m.on(f.rec.attrs)
			c.ts.overwrite(headKey(b.id, f.set.id, "plan"), f.rec.encode(nil))
			c.ts.readers.mu.Lock()
			defer c.ts.readers.mu.Unlock()
			c.ts.readers.spilt[of.stamp] = of
			return nil
		},
	} {
		t.Run(what, func(t *testing.T) {
			c := openChain(t)
			q := exported(c)
			var overtaken error
			c.ts.engine = &opening{Engine: c.ts.engine, then: func() { overtaken = overtake(c) }}
			_, o, err := c.ts.ExportVersion(context.Background(), c.ts.as("rev-1", "SECRET"), q)
			if err == nil {
				o.Close()
			}
			if overtaken != nil {
				t.Fatal(overtaken)
			}
			want(t, err, redoubt.NotFound)
			for _, r := range c.ts.stoodAll() {
				if !r.Proven || len(r.Exports) > 0 {
					t.Errorf("the report is %+v", r)
				}
			}
		})
	}
}

// TestAnExportEndsWithTheRightToIt, before it is on record as behind that.
func TestAnExportEndsWithTheRightToIt(t *testing.T) {
	for what, take := range map[string]func(*chain) error{
		"revoked": func(c *chain) error {
			return c.ts.RevokePerson(context.Background(), c.ts.as("officer", ""), "rev-1", "left")
		},
		"denied by a grant": func(c *chain) error {
			_, err := c.ts.Grant(context.Background(), c.ts.as("officer", ""), redoubt.Grant{Subject: "rev-1", Bucket: "reports", Deny: true})
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			c := openChain(t)
			q, reviewer := exported(c), c.ts.as("rev-1", "SECRET")
			c.ts.put(c.ts.as("ts-analyst", relGBR), "plan", strings.Repeat("the plan", 1<<17), "")
			told, given, err := c.ts.ExportVersion(context.Background(), reviewer, q)
			if err != nil {
				t.Fatal(err)
			}
			defer given.Close()
			var failed error
			c.ts.engine = &opening{Engine: c.ts.engine, then: func() { failed = take(c) }}
			if _, o, err := c.ts.ExportVersion(context.Background(), reviewer, q); err == nil {
				o.Close()
				t.Error("it left though the right to it was taken while it was read")
			}
			if failed != nil {
				t.Fatal(failed)
			}
			set := c.ts.set(relGBR)
			if all, err := c.ts.exports(set, told.Version); err != nil || len(all) != 1 {
				t.Errorf("got %v %v on record, want the first alone", all, err)
			}
			if got, err := io.ReadAll(given.Reader(0, -1)); err == nil {
				t.Errorf("%d bytes were given of what she may have no more", len(got))
			}
		})
	}
}

func (w *world) stoodAll() []redoubt.SpillReport {
	w.t.Helper()
	all, err := w.Spills(context.Background(), w.spillOfficer())
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// TestWhatIsKnownOfAnExportIsChargedToWhoExports, for good, and to nobody else; with her share it ends.
func TestWhatIsKnownOfAnExportIsChargedToWhoExports(t *testing.T) {
	c := openChain(t)
	q := exported(c)
	export := func() error {
		_, o, err := c.ts.ExportVersion(context.Background(), c.ts.as("rev-1", "SECRET"), q)
		if err == nil {
			err = o.Close()
		}
		return err
	}
	if err := export(); err != nil {
		t.Fatal(err)
	}
	own, other := c.ts.charged("SECRET"), c.ts.charged(relGBR)
	if err := export(); err != nil {
		t.Fatal(err)
	}
	each := c.ts.charged("SECRET") - own
	if each < 300 || c.ts.charged(relGBR) != other {
		t.Errorf("an export costs %d bytes, and the label of its version %d", each, c.ts.charged(relGBR)-other)
	}
	c.ts.restartGuarded(c)
	share := c.ts.set("SECRET").share
	share.quota = c.ts.charged("SECRET") + each
	if err := export(); err != nil {
		t.Errorf("within the share: %v", err)
	}
	if err := export(); !errors.Is(err, redoubt.QuotaExceeded) {
		t.Errorf("over the share: %v", err)
	}
	if n := c.ts.charged("SECRET"); n != share.quota || share.used.Load() != n {
		t.Errorf("%d bytes are charged and %d used, want %d", n, share.used.Load(), share.quota)
	}
}
