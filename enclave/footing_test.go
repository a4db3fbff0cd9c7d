package enclave

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"redoubt"
	"redoubt/store"
)

// undone are changes to what a release of rev-1 and rev-2 rests on that are taken back before anybody looks.
var undone = map[string]struct {
	do, undo func(c *chain)
	rule     string
}{
	"a reviewer's clearance": {
		func(c *chain) { c.becomes("rev-1", "CONFIDENTIAL", redoubt.RoleReviewer) },
		func(c *chain) { c.becomes("rev-1", "TOP SECRET//SI/TK", redoubt.RoleReviewer) }, ruleFooting},
	"a reviewer's role": {
		func(c *chain) { c.becomes("rev-1", "TOP SECRET//SI/TK", redoubt.RoleAnalyst) },
		func(c *chain) { c.becomes("rev-1", "TOP SECRET//SI/TK", redoubt.RoleReviewer) }, ruleFooting},
	"the clearance of who asked": {
		func(c *chain) { c.becomes("ts-analyst", "CONFIDENTIAL", redoubt.RoleAnalyst, redoubt.RoleWriteUp) },
		func(c *chain) {
			c.becomes("ts-analyst", "TOP SECRET//SI/TK", redoubt.RoleAnalyst, redoubt.RoleWriteUp)
		}, ruleFooting},
	"a reviewer's clearance that ran out": {
		func(c *chain) {
			p := reviewer("rev-1", "TOP SECRET//SI/TK", redoubt.RoleReviewer)
			p.Expires = c.hands.clock().Add(time.Hour)
			c.ts.changed(p, "officer", "officer-2")
			c.hands.add(2 * time.Hour)
		},
		func(c *chain) { c.becomes("rev-1", "TOP SECRET//SI/TK", redoubt.RoleReviewer) }, ruleFooting},
	"the version, written over": {
		func(c *chain) { c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "another plan", "") },
		func(c *chain) { c.removeNewest("SECRET") }, ruleChanged},
	"the version, written over by what an officer upgrades": {
		func(c *chain) { c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "another plan", "") },
		func(c *chain) {
			_, err := c.ts.Upgrade(context.Background(), c.ts.as("officer", "TOP SECRET//SI/TK"), redoubt.Regrade{Name: planRequest.Name, Version: c.newest("SECRET"), Label: "TOP SECRET", Reason: "is"})
			if err != nil {
				c.t.Fatal(err)
			}
		}, ruleChanged},
	"the version, written over and erased": {
		func(c *chain) { c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "another plan", "") },
		func(c *chain) {
			if err := c.ts.EraseVersion(context.Background(), c.ts.as("officer", "SECRET"), planRequest.Name, c.newest("SECRET"), "is"); err != nil {
				c.t.Fatal(err)
			}
		}, ruleChanged},
	"the version, deleted": {
		func(c *chain) {
			if err := c.ts.del(c.ts.as("ts-analyst", "SECRET"), "plan", ""); err != nil {
				c.t.Fatal(err)
			}
		},
		func(c *chain) { c.removeNewest("SECRET") }, ruleChanged},
	"the version, written over from below": {
		func(c *chain) {
			c.hands.add(time.Second)
			c.ts.put(c.ts.as("ts-analyst", "CONFIDENTIAL"), "plan", "below", "")
		},
		func(c *chain) { c.removeNewest("CONFIDENTIAL") }, ruleChanged},
	"which version its bucket shows": {
		func(c *chain) { c.shows("highest") },
		func(c *chain) { c.shows("newest") }, ruleChanged},
	"its bucket": {
		func(c *chain) {
			if err := c.ts.DeleteBucket(context.Background(), c.ts.as("admin", ""), "reports"); err != nil {
				c.t.Fatal(err)
			}
		},
		func(c *chain) {
			if _, err := c.ts.CreateBucket(context.Background(), c.ts.as("admin", ""), "reports", redoubt.BucketSettings{}); err != nil {
				c.t.Fatal(err)
			}
		}, ruleChanged},
}

// becomes has two officers make somebody what she is to be, a minute later.
func (c *chain) becomes(name redoubt.SubjectName, clearance string, roles ...redoubt.Role) {
	c.t.Helper()
	c.hands.add(time.Minute)
	c.ts.changed(reviewer(name, clearance, roles...), "officer", "officer-2")
}

// newest is the newest version or marker of the plan at a marking.
func (c *chain) newest(marking string) redoubt.VersionID {
	c.t.Helper()
	set := c.ts.set(marking)
	b := (*c.ts.buckets.Load())["reports"]
	raw, ok, err := c.ts.engine.Get(headKey(b.id, set.id, "plan"))
	if err != nil || !ok {
		c.t.Fatalf("there is no plan at %s: %v", marking, err)
	}
	rec, err := decodeRecord(raw)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.ts.ids.versionID(rec.id)
}

func (c *chain) removeNewest(marking string) {
	c.t.Helper()
	if err := c.ts.del(c.ts.as("ts-analyst", marking), "plan", c.newest(marking)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *chain) shows(which string) {
	c.t.Helper()
	_, err := c.ts.UpdateBucket(context.Background(), c.ts.as("admin", ""), "reports", func(s *redoubt.BucketSettings) error { s.Current = which; return nil })
	if err != nil {
		c.t.Fatal(err)
	}
}

// TestAnApprovalDiesAtTheChangeThoughItIsUndone: between the two signatures, or before the guard comes for it, whether or not the node ended meanwhile.
func TestAnApprovalDiesAtTheChangeThoughItIsUndone(t *testing.T) {
	ctx := context.Background()
	for what, one := range undone {
		for _, crash := range []bool{false, true} {
			c := openChain(t)
			id := c.inReview()
			s := *c.show(id).Statement
			if err := c.approve("rev-1", id); err != nil {
				t.Fatal(err)
			}
			one.do(c)
			one.undo(c)
			if crash {
				c.ts.restartGuarded(c)
			}
			_, err := c.ts.ApproveRelease(ctx, c.ts.as("rev-2", "SECRET"), id, c.signed("rev-2", s).Sig)
			if err == nil || !crash && ruleOf(err) != one.rule {
				t.Errorf("%s: the second signature, crash %v: %v, want it dead by %s", what, crash, err, one.rule)
			}
			c.wantState(id, redoubt.ReleaseDead, one.rule)

			c = openChain(t)
			id = c.approved()
			one.do(c)
			one.undo(c)
			if crash {
				c.ts.restartGuarded(c)
			}
			_, o, err := c.ts.FetchApproved(ctx, c.ts.as(highGuard, ""), id)
			if err == nil || o != nil || !crash && ruleOf(err) != one.rule {
				t.Errorf("%s: the guard, crash %v: %v, want it dead by %s", what, crash, err, one.rule)
			}
			c.wantState(id, redoubt.ReleaseDead, one.rule)
			if n := c.rebuiltVersions(id); n != 0 {
				t.Errorf("%s: %d contents are kept of what is dead", what, n)
			}
		}
	}
}

// TestAnApprovalDiesWhereTheEstateChangedMeanwhile: rules and people of the estate are read at start, and whoever was current in one run may not be in the next.
func TestAnApprovalDiesWhereTheEstateChangedMeanwhile(t *testing.T) {
	for what, change := range map[string]func(*Options){
		"the guard's rules": func(o *Options) {
			o.Guards = slices.Clone(o.Guards)
			o.Guards[0].Rules = "others"
		},
		"the guard": func(o *Options) { o.Guards = nil },
		"a reviewer": func(o *Options) {
			o.People = slices.Clone(o.People)
			for i := range o.People {
				if o.People[i].Name == "rev-2" {
					o.People[i].Clearance = "CONFIDENTIAL"
				}
			}
		},
	} {
		c := openChain(t)
		id := c.approved()
		c.ts.restart(false)
		if err := c.ts.rested(id); err != nil {
			t.Errorf("a restart: %v", err)
		}
		was := c.ts.o
		change(&c.ts.o)
		c.ts.restart(false)
		was.Engine, was.Keys = c.ts.o.Engine, c.ts.o.Keys
		c.ts.o = was
		c.ts.restart(true)
		if c.show(id).State != redoubt.ReleaseDead {
			t.Errorf("%s was another, and is what it was again: the release is %s", what, c.show(id).State)
		}
	}
}

// TestAnApprovalDiesAtAChangeThatComesOverALink: a device writes the version over, and takes that back.
func TestAnApprovalDiesAtAChangeThatComesOverALink(t *testing.T) {
	c := openChain(t)
	far := c.device("ts-device", c.ts)
	id := c.approved()
	other := c.approvedOf("other")
	carry(t, c.ts, far)
	c.hands.add(time.Second)
	who := far.as("ts-analyst", "SECRET")
	v := far.put(who, "plan", "from the field", "")
	if _, refused := carry(t, far, c.ts); len(refused) > 0 {
		t.Fatalf("refused: %+v", refused)
	}
	if got := c.ts.get(c.ts.as("ts-analyst", "SECRET"), "plan"); got != "from the field" {
		t.Fatalf("the plan is %q", got)
	}
	if err := far.del(who, "plan", v.ID); err != nil {
		t.Fatal(err)
	}
	if _, refused := carry(t, far, c.ts); len(refused) > 0 {
		t.Fatalf("refused: %+v", refused)
	}
	if got := c.ts.get(c.ts.as("ts-analyst", "SECRET"), "plan"); got != "the plan, dirty" {
		t.Fatalf("the plan is %q", got)
	}
	if _, _, err := c.ts.FetchApproved(context.Background(), c.ts.as(highGuard, ""), id); ruleOf(err) != ruleChanged {
		t.Errorf("got %v, want it dead by %s", err, ruleChanged)
	}
	if err := c.ts.rested(other); err != nil {
		t.Errorf("a release of another version: %v", err)
	}
}

// approvedOf is approved of another key.
func (c *chain) approvedOf(key string) redoubt.ReleaseID {
	c.t.Helper()
	who := c.ts.as("ts-analyst", "SECRET")
	c.ts.put(who, key, "another", "")
	q := planRequest
	q.Name.Key = key
	r, err := c.ts.RequestRelease(context.Background(), who, q)
	if err != nil {
		c.t.Fatal(err)
	}
	c.rebuilt(r.ID, "another")
	for _, by := range []redoubt.SubjectName{"rev-1", "rev-2"} {
		if err := c.approve(by, r.ID); err != nil {
			c.t.Fatal(err)
		}
	}
	return r.ID
}

// TestWhatAnApprovalDoesNotRestOnLeavesIt: what happens to other people, to other versions, and above who asked.
func TestWhatAnApprovalDoesNotRestOnLeavesIt(t *testing.T) {
	ctx := context.Background()
	for what, do := range map[string]func(c *chain){
		"another reviewer is changed": func(c *chain) { c.becomes("rev-3", "CONFIDENTIAL", redoubt.RoleReviewer) },
		"somebody is revoked": func(c *chain) {
			if err := c.ts.RevokePerson(ctx, c.ts.as("officer", "TOP SECRET//SI/TK"), "s-rev", "left"); err != nil {
				c.t.Fatal(err)
			}
		},
		"a credential is renewed": func(c *chain) {
			old := c.ts.as("rev-1", "SECRET")
			if err := c.ts.RevokeCredential(ctx, old, old.ID); err != nil {
				c.t.Fatal(err)
			}
			c.ts.as("rev-1", "SECRET")
		},
		"a grant is given and taken": func(c *chain) {
			g, err := c.ts.Grant(ctx, c.ts.as("officer", "TOP SECRET//SI/TK"), redoubt.Grant{Subject: "rev-1", Bucket: "reports"})
			if err == nil {
				err = c.ts.RevokeGrant(ctx, c.ts.as("officer", "TOP SECRET//SI/TK"), g.ID)
			}
			if err != nil {
				c.t.Fatal(err)
			}
		},
		"clearances are prolonged while they run": func(c *chain) {
			for _, p := range []redoubt.Person{reviewer("rev-1", "TOP SECRET//SI/TK", redoubt.RoleReviewer), reviewer("ts-analyst", "TOP SECRET//SI/TK", redoubt.RoleWriteUp, redoubt.RoleAnalyst)} {
				for year := range 2 {
					c.hands.add(time.Minute)
					p.Expires = c.hands.clock().Add(time.Duration(11+year) * 365 * 24 * time.Hour)
					c.ts.changed(p, "officer", "officer-2")
				}
			}
		},
		"another key is written over": func(c *chain) {
			who := c.ts.as("ts-analyst", "SECRET")
			c.ts.put(who, "plan2", "a", "")
			v := c.ts.put(who, "plan2", "b", "")
			if err := c.ts.del(who, "plan2", v.ID); err != nil {
				c.t.Fatal(err)
			}
		},
		"a higher version comes and goes": func(c *chain) {
			who := c.ts.as("ts-analyst", "TOP SECRET//SI/TK")
			v := c.ts.put(who, "plan", "higher", "")
			if err := c.ts.del(who, "plan", v.ID); err != nil {
				c.t.Fatal(err)
			}
		},
		"a marker below comes and goes": func(c *chain) {
			who := c.ts.as("ts-analyst", "UNCLASSIFIED")
			d, err := c.ts.DeleteObject(ctx, who, redoubt.DeleteObject{Name: planRequest.Name})
			if err != nil {
				c.t.Fatal(err)
			}
			if err := c.ts.del(who, "plan", d.ID); err != nil {
				c.t.Fatal(err)
			}
		},
		"an older version goes": func(c *chain) {
			if err := c.ts.del(c.ts.as("ts-analyst", "SECRET"), "plan", c.ts.all("plan")[1].ID); err != nil {
				c.t.Fatal(err)
			}
		},
		"it is tagged": func(c *chain) {
			if _, err := c.ts.AlterObject(ctx, c.ts.as("ts-analyst", "SECRET"), redoubt.AlterObject{Name: planRequest.Name, Tags: &[]redoubt.Tag{{Key: "a", Value: "b"}}}); err != nil {
				c.t.Fatal(err)
			}
		},
		"the label's key is rotated": func(c *chain) {
			if _, err := c.ts.RotateKey(ctx, c.ts.as("officer", "TOP SECRET//SI/TK"), "SECRET"); err != nil {
				c.t.Fatal(err)
			}
		},
		"the bucket is configured": func(c *chain) { c.shows("newest") },
	} {
		c := openChain(t)
		c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "of yesterday", "")
		id := c.inReview()
		if err := c.approve("rev-1", id); err != nil {
			t.Fatal(err)
		}
		do(c)
		if err := c.ts.lookAtReleases(ctx); err != nil {
			t.Fatal(err)
		}
		c.ts.restartGuarded(c)
		if err := c.approve("rev-2", id); err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if p, text := c.fetched(id); text != "the plan" || len(p.Approvals) != 2 {
			t.Errorf("%s: the guard is given %q", what, text)
		}
	}
}

// TestWhatWasAskedBeforeFootingsWereKeptStandsOnWhatThereIs from the first start on.
func TestWhatWasAskedBeforeFootingsWereKeptStandsOnWhatThereIs(t *testing.T) {
	for _, changed := range []bool{false, true} {
		c := openChain(t)
		id := c.approved()
		c.rewrite(id, func(r *releaseRecord) { r.Footing = nil })
		if err := c.ts.rested(id); changed && ruleOf(err) != ruleFooting {
			t.Errorf("what stands on nothing: %v", err)
		}
		c = openChain(t)
		id = c.approved()
		c.rewrite(id, func(r *releaseRecord) { r.Footing = nil })
		c.ts.restartGuarded(c)
		if changed {
			undone["a reviewer's role"].do(c)
			undone["a reviewer's role"].undo(c)
		}
		if err := c.ts.rested(id); (err != nil) != changed {
			t.Errorf("changed %v: %v", changed, err)
		}
	}
}

// rewrite has a release on record otherwise, as a program of another version would have it.
func (c *chain) rewrite(id redoubt.ReleaseID, change func(*releaseRecord)) {
	c.t.Helper()
	ctx := context.Background()
	x, _ := c.ts.releases.find(id)
	r, err := c.ts.readRelease(x)
	if err != nil {
		c.t.Fatal(err)
	}
	change(r)
	b := new(store.Batch)
	value, err := json.Marshal(r)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.ts.putRecordAt(ctx, b, x.set.label, kindRelease+"/"+string(id), value); err != nil {
		c.t.Fatal(err)
	}
	if err := c.ts.commit(ctx, b, nil); err != nil {
		c.t.Fatal(err)
	}
	c.ts.showRelease(x.set, r)
}

// TestAFallenReleaseIsDeadOnRecordAtTheNextRound, though nobody asks for it.
func TestAFallenReleaseIsDeadOnRecordAtTheNextRound(t *testing.T) {
	ctx := context.Background()
	c := openChain(t)
	id := c.approved()
	one := undone["the version, written over"]
	one.do(c)
	one.undo(c)
	if err := c.ts.fulfilAll(ctx); err != nil {
		t.Fatal(err)
	}
	c.wantState(id, redoubt.ReleaseDead, ruleChanged)
	if _, due, err := c.ts.engine.Get(dutyKey(fallenDuty + string(id))); due || err != nil {
		t.Errorf("its duty stands: %v", err)
	}
	if said := c.ts.saidOf(redoubt.ActionDenyRelease); !slices.Contains(said, "release "+string(id)+" is dead: "+ruleChanged) {
		t.Errorf("the record says %q", said)
	}
	// One that was never kept leaves nothing.
	b := new(store.Batch)
	if err := (duty{}).add(b, fallenDuty+strings.Repeat("0", 32)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.ts.commit(ctx, b, nil), c.ts.fulfilAll(ctx)); err != nil {
		t.Fatal(err)
	}
	if _, due, err := c.ts.engine.Get(dutyKey(fallenDuty + strings.Repeat("0", 32))); due || err != nil {
		t.Errorf("its duty stands: %v", err)
	}
}

// TestAReleaseThatIsAskedForWhileItsVersionIsWrittenOver dies with what did so at the latest when that is removed, however the two met.
func TestAReleaseThatIsAskedForWhileItsVersionIsWrittenOver(t *testing.T) {
	c := openChain(t)
	c.ts.guards[0].PerPersonDay, c.ts.guards[0].PerDay = 1<<30, 1<<30
	who := c.ts.as("ts-analyst", "SECRET")
	q := planRequest
	q.Version = c.ts.put(who, "plan", "the plan", "").ID
	const rounds = 200
	var removals atomic.Int64 // begun
	var all sync.WaitGroup
	type asked struct {
		id redoubt.ReleaseID
		at int64
	}
	var mu sync.Mutex
	var open []asked
	done := make(chan struct{})
	for range 3 {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				r, err := c.ts.RequestRelease(context.Background(), who, q)
				if err == nil {
					mu.Lock()
					open = append(open, asked{r.ID, removals.Load()})
					mu.Unlock()
				} else if !errors.Is(err, redoubt.Conflict) {
					t.Error(err)
					return
				}
			}
		})
	}
	inTime := func() bool { // one was asked for before a removal began
		mu.Lock()
		defer mu.Unlock()
		return slices.ContainsFunc(open, func(r asked) bool { return r.at < removals.Load() })
	}
	for n := 0; n < rounds || !inTime() && !t.Failed(); n++ {
		v := c.ts.put(who, "plan", "another plan", "")
		removals.Add(1)
		if err := c.ts.del(who, "plan", v.ID); err != nil {
			t.Error(err)
		}
	}
	close(done)
	all.Wait()
	dead := 0
	for _, r := range open {
		if err := c.ts.rested(r.id); r.at < removals.Load() && ruleOf(err) != ruleChanged {
			t.Errorf("one that was asked for before removal %d: %v", r.at+1, err)
		} else if err != nil {
			dead++
		}
	}
	if dead == 0 {
		t.Error("none was asked for in time")
	}
}
