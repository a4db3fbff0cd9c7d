package enclave

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"redoubt"
	"redoubt/store"
)

// interloper is an engine that does something before its next commit.
type interloper struct {
	store.Engine
	do func()
}

func (b *interloper) Commit(ctx context.Context, batch *store.Batch) error {
	if do := b.do; do != nil {
		b.do = nil
		do()
	}
	return b.Engine.Commit(ctx, batch)
}

// TestAReleaseDiesOfWhatComesAndGoesWhileItIsKept, behind the look at what it rests on and before anybody could find it.
func TestAReleaseDiesOfWhatComesAndGoesWhileItIsKept(t *testing.T) {
	c := openChain(t)
	who := c.ts.as("ts-analyst", "SECRET")
	c.ts.put(who, "plan", "the plan", "")
	engine := c.ts.engine
	done := false
	c.ts.engine = &interloper{Engine: engine, do: func() {
		v := c.ts.put(who, "plan", "another plan", "")
		if err := c.ts.del(who, "plan", v.ID); err != nil {
			t.Error(err)
		}
		done = true
	}}
	r, err := c.ts.RequestRelease(context.Background(), who, planRequest)
	c.ts.engine = engine
	if err != nil || !done {
		t.Fatalf("%v, and it came between %v", err, done)
	}
	if err := c.ts.rested(r.ID); ruleOf(err) != ruleChanged {
		t.Errorf("got %v, want it dead by %s", err, ruleChanged)
	}
	if n := len(c.ts.releases.open); n != 0 {
		t.Errorf("changes find %d names of what is over", n)
	}
}

// consentUndone are changes to what a consent to an export rests on that are taken back before anybody looks.
var consentUndone = map[string]struct {
	change func(c *chain)
	ends   string // the rule; "": it rests on none of that
}{
	"its originator's clearance": {func(c *chain) {
		c.becomes("ts-analyst", "CONFIDENTIAL", redoubt.RoleAnalyst, redoubt.RoleWriteUp)
		c.becomes("ts-analyst", "TOP SECRET//SI/TK", redoubt.RoleAnalyst, redoubt.RoleWriteUp)
	}, ruleFooting},
	"the version, written over": {func(c *chain) {
		who := c.ts.as("ts-analyst", relGBR)
		c.deleted(who, c.ts.put(who, "plan", "another plan", "SECRET//ORCON/REL TO USA, GBR").ID)
	}, ruleChanged},
	"the version, written over from below": {func(c *chain) {
		c.hands.add(time.Second)
		who := c.ts.as("ts-analyst", "UNCLASSIFIED")
		c.deleted(who, c.ts.put(who, "plan", "below", "").ID)
	}, ruleChanged},
	"the version, deleted": {func(c *chain) {
		who := c.ts.as("ts-analyst", relGBR)
		gone, err := c.ts.DeleteObject(context.Background(), who, redoubt.DeleteObject{Name: named("plan")})
		if err != nil {
			c.t.Fatal(err)
		}
		c.deleted(who, gone.ID)
	}, ruleChanged},
	"which version its bucket shows": {func(c *chain) { c.shows("highest"); c.shows("newest") }, ruleChanged},
	"a reviewer's clearance": {func(c *chain) {
		c.becomes("rev-1", "CONFIDENTIAL", redoubt.RoleReviewer)
		c.becomes("rev-1", "TOP SECRET//SI/TK", redoubt.RoleReviewer)
	}, ""},
	"what lies above it": {func(c *chain) {
		who := c.ts.as("ts-analyst", "TOP SECRET")
		c.deleted(who, c.ts.put(who, "plan", "above", "").ID)
	}, ""},
}

func (c *chain) deleted(who redoubt.Credential, id redoubt.VersionID) {
	c.t.Helper()
	if err := c.ts.del(who, "plan", id); err != nil {
		c.t.Fatal(err)
	}
}

// TestAConsentToAnExportDiesAtTheChangeThoughItIsUndone, on record, whether or not the node ended meanwhile; another may be given.
func TestAConsentToAnExportDiesAtTheChangeThoughItIsUndone(t *testing.T) {
	for what, one := range consentUndone {
		for _, crash := range []bool{false, true} {
			c := openChain(t)
			q, give := exportMarked(c)
			if err := c.consentsTo("ts-analyst", give, nil); err != nil {
				t.Fatal(err)
			}
			one.change(c)
			if crash {
				c.ts.restartGuarded(c)
			}
			err := c.export("rev-1", q)
			if one.ends == "" {
				if err != nil {
					t.Errorf("%s, crash %v: %v, though it does not rest on that", what, crash, err)
				}
				continue
			}
			wantRefusal(t, what, err, redoubt.Denied, ruleConsent)
			if err := c.ts.fulfilAll(context.Background()); err != nil {
				t.Fatal(err)
			}
			c.ts.restartGuarded(c)
			wantRefusal(t, what+", later", c.export("rev-1", q), redoubt.Denied, ruleConsent)
			wantRefusal(t, what+", the same given again", c.consentsTo("ts-analyst", give, nil), redoubt.Conflict, ruleConsent)
			if !c.ts.saysOn(redoubt.ActionConsent, "the consent to an export to GBR, key "+kas+", has ended: "+one.ends) {
				t.Errorf("%s, crash %v: its end is not on record", what, crash)
			}
			give.Expires = give.Expires.Add(time.Second)
			if err := errors.Join(c.consentsTo("ts-analyst", give, nil), c.export("rev-1", q)); err != nil {
				t.Errorf("%s: by another consent: %v", what, err)
			}
			if n := len(c.ts.releases.open) + len(c.ts.releases.gives); n != 0 {
				t.Errorf("%s: changes find %d of what is over", what, n)
			}
		}
	}
}

// TestAConsentToAnExportDiesWhereTheEstateChangedMeanwhile.
func TestAConsentToAnExportDiesWhereTheEstateChangedMeanwhile(t *testing.T) {
	c := openChain(t)
	q, give := exportMarked(c)
	if err := c.consentsTo("ts-analyst", give, nil); err != nil {
		t.Fatal(err)
	}
	was := c.ts.o
	c.ts.o.People = slices.Clone(was.People)
	for i := range c.ts.o.People {
		if c.ts.o.People[i].Name == "ts-analyst" {
			c.ts.o.People[i].Clearance = "CONFIDENTIAL"
		}
	}
	c.ts.restart(false)
	was.Engine, was.Keys = c.ts.o.Engine, c.ts.o.Keys
	c.ts.o = was
	c.ts.restart(true)
	wantRefusal(t, "its originator was another", c.export("rev-1", q), redoubt.Denied, ruleConsent)
}
