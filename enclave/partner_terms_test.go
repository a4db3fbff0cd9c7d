package enclave

import (
	"context"
	"testing"

	"redoubt"
	"redoubt/label"
)

const sharedMarking = "SECRET//REL TO USA, GBR"

// handedAll hands the partner all of one label set, and has it say so.
func (a *ally) handedAll() {
	a.t.Helper()
	ctx := context.Background()
	g, who := a.PartnerGiving(), a.as(redoubt.SubjectName(gbrGateway), "")
	if err := a.RefreshPartners(ctx); err != nil {
		a.t.Fatal(err)
	}
	_, to, err := g.Since(ctx, gbrGateway, "USA@1 "+sharedMarking, 0, 1000)
	if err != nil {
		a.t.Fatal(err)
	}
	last, err := g.Made(ctx, gbrGateway)
	if err != nil {
		a.t.Fatal(err)
	}
	mark := redoubt.BundleMark{Serial: last.Serial + 1, Numbering: last.Numbering}
	span := redoubt.JournalSpan{Set: "USA@1 " + sharedMarking, To: to, Whole: true}
	if err := g.HandOver(ctx, who, gbrGateway, mark, redoubt.RaisedBundle{Spans: []redoubt.JournalSpan{span}}); err != nil {
		a.t.Fatal(err)
	}
	if _, err := g.Handed(ctx, gbrGateway, mark); err != nil {
		a.t.Fatal(err)
	}
	if _, known, err := a.Acknowledged(ctx, gbrGateway, span.Set); err != nil || !known {
		a.t.Fatalf("what it has is known: %v, %v", known, err)
	}
}

// renewed has the gateway begin anew with an agreement that was signed anew.
func (a *ally) renewed(change func(*Agreement)) {
	a.t.Helper()
	a.o.Agreements[0].Serial++
	change(&a.o.Agreements[0])
	a.restart(false)
	if err := a.RefreshPartners(context.Background()); err != nil {
		a.t.Fatal(err)
	}
}

// TestUnderOtherTermsAPartnerIsGivenEverythingOnceMore: what lies in a bucket that they agree on now was passed over before, and so was what had no equivalent.
func TestUnderOtherTermsAPartnerIsGivenEverythingOnceMore(t *testing.T) {
	a := openAlly(t, func(p *Agreement) { p.Terms = "reports" })
	ctx := context.Background()
	a.put(a.as("s-analyst", sharedMarking), "shared", "for friends", "")
	a.handedAll()
	known := func() bool {
		_, known, err := a.Acknowledged(ctx, gbrGateway, "USA@1 "+sharedMarking)
		if err != nil {
			t.Fatal(err)
		}
		return known
	}
	if a.renewed(func(*Agreement) {}); !known() {
		t.Error("by the same terms it is given everything once more")
	}
	wider := func(p *Agreement) {
		p.Gives.Buckets, p.Terms = []redoubt.BucketName{"reports", "imagery"}, "reports and imagery"
	}
	if a.renewed(wider); known() {
		t.Error("what lies in the other bucket is passed over for good")
	}
	a.handedAll()
	if a.renewed(func(*Agreement) {}); !known() {
		t.Error("it is given everything at every start")
	}
	if a.renewed(func(p *Agreement) { p.Terms = "another equivalence" }); known() {
		t.Error("what had no equivalent is passed over for good")
	}
}

// TestWhatAPartnerWasGivenByOtherTermsMayBeASpill: nothing tells it of an erasure any more.
func TestWhatAPartnerWasGivenByOtherTermsMayBeASpill(t *testing.T) {
	for what, narrower := range map[string]func(*Agreement){
		"a lower bound": func(p *Agreement) {
			l, err := label.ParseText([]byte("USA@1 CONFIDENTIAL//REL TO USA, GBR"), p.Gives.Bound.Policy())
			if err != nil {
				t.Fatal(err)
			}
			p.Gives = &AgreementFlow{Bound: l, Buckets: p.Gives.Buckets}
		},
		"another bucket": func(p *Agreement) {
			p.Gives = &AgreementFlow{Bound: p.Gives.Bound, Buckets: []redoubt.BucketName{"imagery"}}
		},
		"nothing": func(p *Agreement) { p.Gives = nil },
	} {
		t.Run(what, func(t *testing.T) {
			a := openAlly(t, func(p *Agreement) { p.Terms = "before" })
			a.put(a.as("s-analyst", sharedMarking), "shared", "for friends", "")
			a.handedAll()
			a.renewed(func(p *Agreement) { narrower(p); p.Terms = "after" })
			r, err := a.ReportSpill(context.Background(), a.spillOfficer(), redoubt.Spill{Name: named("shared"), Reason: "too low", Erase: true})
			if err != nil {
				t.Fatal(err)
			}
			wantUnproven(t, r, gbrGateway)
			if len(r.Peers) != 1 {
				t.Errorf("it is named more than once: %+v", r.Peers)
			}
		})
	}
}

// TestAPartnerThatLostWhatItHadIsGivenItAgain: it was restored from a backup, and gives nothing itself.
func TestAPartnerThatLostWhatItHadIsGivenItAgain(t *testing.T) {
	for what, tt := range map[string]struct {
		lost func(*redoubt.BundleMark)
		anew bool
	}{
		"what it said before": {func(*redoubt.BundleMark) {}, false},
		"an earlier number":   {func(m *redoubt.BundleMark) { m.Serial-- }, true},
		"nothing":             {func(m *redoubt.BundleMark) { *m = redoubt.BundleMark{} }, true},
		"another numbering":   {func(m *redoubt.BundleMark) { m.Numbering[0]++ }, true},
	} {
		t.Run(what, func(t *testing.T) {
			a := openAlly(t, nil)
			ctx := context.Background()
			a.put(a.as("s-analyst", sharedMarking), "shared", "for friends", "")
			a.handedAll()
			a.put(a.as("s-analyst", sharedMarking), "more", "for friends", "")
			a.handedAll()
			have, err := a.Made(ctx, gbrGateway)
			if err != nil || have.Serial != 2 {
				t.Fatal(have, err)
			}
			tt.lost(&have)
			for range 2 { // until it has something new it says the same
				if _, err := a.PartnerGiving().Handed(ctx, gbrGateway, have); err != nil {
					t.Fatal(err)
				}
				if _, known, err := a.Acknowledged(ctx, gbrGateway, "USA@1 "+sharedMarking); err != nil || known == tt.anew {
					t.Errorf("what it has is known: %v, want %v; %v", known, !tt.anew, err)
				}
			}
			a.handedAll()
		})
	}
}

func TestAnAgreementBeginsAtTheMomentAnotherEnds(t *testing.T) {
	a := openAlly(t, nil)
	a.o.Agreements[1].Recipient = "r"
	a.renewed(func(p *Agreement) {
		next := &a.o.Agreements[1]
		next.NotBefore, next.Expires = p.Expires, p.Expires.Add(p.Expires.Sub(p.NotBefore))
	})
	has := func() (gbr, fra bool) {
		_, gbr = a.Links()[gbrGateway]
		_, fra = a.Links()["fra--orbite"]
		return gbr, fra
	}
	if gbr, fra := has(); !gbr || fra {
		t.Fatalf("links before: gbr %v, fra %v", gbr, fra)
	}
	a.time.add(a.o.Agreements[0].Expires.Sub(a.clock()))
	if err := a.RefreshPartners(context.Background()); err != nil {
		t.Fatal(err)
	}
	if gbr, fra := has(); gbr || !fra {
		t.Errorf("links afterwards: gbr %v, fra %v, want that of fra alone", gbr, fra)
	}
}
