package enclave

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"redoubt"
)

func TestWhyIsForOnesOwnRequestsAndForOfficers(t *testing.T) {
	w := open(t, nil)
	s := w.as("s-analyst", "")
	ctx := redoubt.WithRequest(context.Background(), "req-1")
	body, size := text("x")
	if _, err := w.PutObject(ctx, s, redoubt.PutObject{Name: reports, Body: body, SizeBytes: size}); err != nil {
		t.Fatal(err)
	}
	bg := context.Background()
	for _, who := range []redoubt.Credential{s, w.as("officer", "")} {
		got, err := w.Why(bg, who, "req-1")
		if err != nil || len(got) != 1 || !got[0].Allow || got[0].Request != "req-1" || got[0].Bytes != 1 || got[0].Label != "SECRET//NOFORN" && got[0].Label != "SECRET" {
			t.Errorf("%s: got %+v, %v", who.Subject, got, err)
		}
	}
	for _, who := range []redoubt.Credential{w.as("ts-analyst", ""), w.as("officer", "UNCLASSIFIED")} {
		if _, err := w.Why(bg, who, "req-1"); !errors.Is(err, redoubt.NotFound) {
			t.Errorf("%s at %s: %v", who.Subject, who.Working, err)
		}
	}
	_, err := w.Why(bg, s, "")
	want(t, err, redoubt.Invalid)
}

func TestASearchShowsALowOfficerNothingAbove(t *testing.T) {
	w := open(t, nil)
	ctx := context.Background()
	w.put(w.as("ts-analyst", ""), "a", "x", "")
	w.put(w.as("u-analyst", ""), "a", "x", "")
	count := func(who redoubt.Credential, q redoubt.AuditQuery) (n int, numbered bool) {
		err := w.SearchAudit(ctx, who, q, func(r redoubt.AuditRecord) error {
			n, numbered = n+1, numbered || r.Number != 0
			if strings.Contains(r.Label, "TOP") && who.Working.Rank() == w.floor.Rank() {
				t.Errorf("shown: %+v", r)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return n, numbered
	}
	puts := redoubt.AuditQuery{Action: redoubt.ActionPutObject, Object: redoubt.ObjectName{Bucket: "reports", Key: "a"}}
	if n, numbered := count(w.as("officer", ""), puts); n != 2 || !numbered {
		t.Errorf("the high officer finds %d (numbers: %v)", n, numbered)
	}
	if n, numbered := count(w.as("officer", "UNCLASSIFIED"), puts); n != 1 || numbered {
		t.Errorf("the low officer finds %d (numbers: %v)", n, numbered)
	}
	if n, _ := count(w.as("officer", ""), redoubt.AuditQuery{Object: redoubt.ObjectName{Bucket: "nobody"}}); n != 0 {
		t.Errorf("found %d for a name never used", n)
	}
	stop := errors.New("stop")
	if err := w.SearchAudit(ctx, w.as("officer", ""), redoubt.AuditQuery{}, func(redoubt.AuditRecord) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	for _, format := range []string{"ocsf", "cef", "syslog"} {
		var out bytes.Buffer
		if err := w.ExportAudit(ctx, w.as("officer", ""), format, puts, &out); err != nil || strings.Count(out.String(), "\n") != 2 {
			t.Errorf("%s: got %q, %v", format, out.String(), err)
		}
		if strings.Contains(out.String(), "reports") {
			t.Errorf("%s names a bucket in clear", format)
		}
	}
	want(t, w.ExportAudit(ctx, w.as("officer", ""), "xml", puts, nil), redoubt.Invalid)
}

func TestALogThatDoesNotVerifyCountsNothingToALowOfficer(t *testing.T) {
	w := open(t, nil)
	ctx, high, low := context.Background(), w.as("officer", ""), w.as("officer", "UNCLASSIFIED")
	w.put(w.as("s-analyst", ""), "a", "x", "")
	good, err := w.VerifyAudit(ctx, high, nil)
	if err != nil || !good.OK || good.Entries == 0 {
		t.Fatalf("got %+v, %v", good, err)
	}
	if again, err := w.VerifyAudit(ctx, high, []string{good.Checkpoint}); err != nil || !again.OK {
		t.Errorf("against an older checkpoint: %+v, %v", again, err)
	}
	if got, err := w.VerifyAudit(ctx, low, nil); err != nil || !got.OK || got.Entries != 0 || got.Checkpoint != "" {
		t.Errorf("the low officer learns %+v, %v", got, err)
	}
	_, err = w.VerifyAudit(ctx, high, []string{"no checkpoint"})
	want(t, err, redoubt.Invalid)
	other := open(t, nil)
	strange, err := other.VerifyAudit(ctx, other.as("officer", ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.VerifyAudit(ctx, high, []string{strange.Checkpoint})
	want(t, err, redoubt.Invalid)
	for range 300 { // over one tile
		w.get(w.as("s-analyst", ""), "nothing")
	}
	if err := w.tree.Advance(ctx); err != nil {
		t.Fatal(err)
	}
	tile := tileKey(tlogTile(0))
	raw, ok, err := w.engine.Get(tile)
	if err != nil || !ok {
		t.Fatal(err, ok)
	}
	raw[0] ^= 1
	w.overwrite(tile, raw)
	bad, err := w.VerifyAudit(ctx, high, nil)
	if err != nil || bad.OK || len(bad.Faults) == 0 {
		t.Errorf("got %+v, %v", bad, err)
	}
	got, err := w.VerifyAudit(ctx, low, nil)
	if err != nil || got.OK || len(got.Faults) != 1 || strings.ContainsAny(got.Faults[0], "0123456789") {
		t.Errorf("the low officer learns %+v, %v", got, err)
	}
}

func TestCheckFindsDamageAndNamesNothing(t *testing.T) {
	w := open(t, nil)
	ctx, s := context.Background(), w.as("s-analyst", "")
	v := w.put(s, "a-telling-name", "x", "")
	w.put(s, "b", "y", "")
	var steps int64
	b, set := (*w.buckets.Load())["reports"], w.set("SECRET")
	f, err := w.byID(w.engine, b, set.label, v.Name.Key, v.ID)
	if err != nil || f.rec == nil {
		t.Fatal(err)
	}
	f.rec.pieces[0].wrapped[20] ^= 1
	w.overwrite(headKey(b.id, set.id, v.Name.Key), f.rec.encode(nil))
	report, err := w.Check(ctx, w.as("admin", ""), func(done, total int64) { steps = done })
	if err != nil || report.OK || report.Versions != 0 || len(report.Faults) != 1 || strings.Contains(report.Faults[0], string(v.ID)) {
		t.Errorf("a low administrator: got %+v, %v", report, err)
	}
	_ = steps
	_, err = w.Check(ctx, s, nil)
	want(t, err, redoubt.Denied)
	want(t, w.Compact(ctx, s), redoubt.Denied)
	if err := w.Compact(ctx, w.as("admin", "")); err != nil {
		t.Error(err)
	}
	_, err = w.GetObject(ctx, s, redoubt.ReadObject{Name: v.Name})
	want(t, err, redoubt.Corrupt)
	if err := w.EraseVersion(ctx, w.as("officer", ""), v.Name, v.ID, "damaged"); err != nil {
		t.Fatal(err)
	}
	if report, err := w.Check(ctx, w.as("admin", ""), nil); err != nil || !report.OK {
		t.Errorf("after the damaged version is gone: %+v, %v", report, err)
	}
}
