package enclave

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"redoubt"
)

// wantKept holds what reviewers could look at of a release to whether it is there.
func (c *chain) wantKept(what string, id redoubt.ReleaseID, want bool) {
	c.t.Helper()
	o, err := c.ts.OpenRebuilt(context.Background(), c.ts.as("rev-1", "SECRET"), id)
	if err == nil {
		o.Close()
	}
	r, n := c.show(id), c.rebuiltVersions(id)
	if want && (err != nil || n != 1 || r.Dropped) {
		c.t.Errorf("%s: %d contents are kept (%v, dropped %v), want one", what, n, err, r.Dropped)
	}
	var e *redoubt.Error
	if !want && (n != 0 || !r.Dropped || r.Statement == nil || !errors.As(err, &e) || e.Kind != redoubt.Conflict || !strings.Contains(e.Hint, "is not kept behind its end")) {
		c.t.Errorf("%s: %d contents are kept (%v, dropped %v), want none, and that it says so", what, n, err, r.Dropped)
	}
	c.ts.charges()
}

// costs is what is charged for at SECRET, and how many blobs there are.
func (c *chain) costs() (bytes, blobs int64) { return c.ts.set("SECRET").charged.Load(), c.ts.blobs() }

// TestWhatWasRebuiltGoesWithTheEndOfItsRelease, whichever that is: it is charged to its label.
func TestWhatWasRebuiltGoesWithTheEndOfItsRelease(t *testing.T) {
	ctx := context.Background()
	deny := func(c *chain, by redoubt.SubjectName, id redoubt.ReleaseID) {
		if _, err := c.ts.DenyRelease(ctx, c.ts.as(by, "SECRET"), id, "no"); err != nil {
			c.t.Fatal(err)
		}
	}
	for what, end := range map[string]func(*chain, redoubt.ReleaseID){
		"denied":    func(c *chain, id redoubt.ReleaseID) { deny(c, "rev-3", id) },
		"withdrawn": func(c *chain, id redoubt.ReleaseID) { deny(c, "ts-analyst", id) },
		"expired": func(c *chain, id redoubt.ReleaseID) {
			c.hands.add(redoubt.MaxReleaseLife + 2*time.Hour)
			if err := c.ts.lookAtReleases(ctx); err != nil {
				c.t.Fatal(err)
			}
		},
		"dead": func(c *chain, id redoubt.ReleaseID) {
			c.becomes("rev-1", "TOP SECRET//SI/TK", redoubt.RoleAnalyst)
			if err := c.ts.lookAtReleases(ctx); err != nil {
				c.t.Fatal(err)
			}
		},
		"refused by the target": func(c *chain, id redoubt.ReleaseID) {
			c.fetched(id)
			if err := c.finish(id, nil, "its disk is full"); err != nil {
				c.t.Fatal(err)
			}
		},
		"released": func(c *chain, id redoubt.ReleaseID) {
			p, text := c.fetched(id)
			r, err := c.accept(p, text)
			if err == nil {
				err = c.finish(id, &r, "")
			}
			if err != nil {
				c.t.Fatal(err)
			}
		},
	} {
		for _, crash := range []bool{false, true} {
			c := openChain(t)
			id := c.approved()
			_, before := c.costs()
			c.wantKept(what+", before", id, true)
			end(c, id)
			if crash {
				c.ts.restartGuarded(c)
			}
			c.wantKept(what, id, false)
			if _, after := c.costs(); after != before-1 {
				t.Errorf("%s: %d blobs are there, before its end it was %d", what, after, before)
			}
			if what == "released" {
				if got := c.released(); got != "the plan" {
					t.Errorf("below it is %q", got)
				}
			}
		}
	}
}

// TestWhatMayHaveLeftIsKeptUntilItIsSettled: the guard was given it, and nobody knows what came of that.
func TestWhatMayHaveLeftIsKeptUntilItIsSettled(t *testing.T) {
	ctx := context.Background()
	for what, end := range endings {
		for _, taken := range []bool{false, true} {
			c := openChain(t)
			id := c.approved()
			p, text := c.fetched(id)
			if taken {
				if _, err := c.accept(p, text); err != nil {
					t.Fatal(err)
				}
			}
			end.do(c, id)
			if err := c.ts.lookAtReleases(ctx); err != nil {
				t.Fatal(err)
			}
			c.ts.restartGuarded(c)
			if err := c.ts.lookAtReleases(ctx); err != nil {
				t.Fatal(err)
			}
			c.wantState(id, end.state, "asks secret whether it was taken")
			c.wantKept(what, id, true)
			var receipt *redoubt.ReleaseReceipt
			refused := "it was not taken"
			if r, is := c.taken(p); is {
				receipt, refused = &r, ""
			}
			if err := c.finish(id, receipt, refused); err != nil {
				t.Fatal(err)
			}
			c.wantKept(what+", settled", id, false)
		}
	}
}

// TestWhatOldReleasesLeftIsTakenOut: a program that kept it for good ended them.
func TestWhatOldReleasesLeftIsTakenOut(t *testing.T) {
	ctx := context.Background()
	c := openChain(t)
	denied, given, open := c.approvedOf("one"), c.approvedOf("two"), c.approvedOf("three")
	c.fetched(given)
	for _, id := range []redoubt.ReleaseID{denied, given} {
		c.rewrite(id, func(r *releaseRecord) { r.State, r.DeniedBy = redoubt.ReleaseDenied, "rev-1" })
	}
	c.ts.restartGuarded(c)
	for range 2 {
		if err := c.ts.lookAtReleases(ctx); err != nil {
			t.Fatal(err)
		}
		c.wantKept("denied", denied, false)
		c.wantKept("given and denied", given, true)
		c.wantKept("open", open, true)
	}
	if said := c.ts.saidOf(redoubt.ActionDeleteVersion); len(said) != 1 || said[0] != "release "+string(denied)+" has ended" {
		t.Errorf("the record says %q", said)
	}
}

// TestReleasesDoNotFillTheirLabel: what a hundred of them leave is their records.
func TestReleasesDoNotFillTheirLabel(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	one := strings.Repeat("the plan ", 8192)
	for range 5 {
		id := c.ask(nil).ID
		before, _ := c.costs()
		c.rebuilt(id, one)
		if during, _ := c.costs(); during < before+int64(len(one)) {
			t.Fatalf("it is charged %d, and was %d", during, before)
		}
		if _, err := c.ts.DenyRelease(ctx, c.ts.as("rev-1", "SECRET"), id, "no"); err != nil {
			t.Fatal(err)
		}
		if now, _ := c.costs(); now != before {
			t.Errorf("it is charged %d when it is over, before it was %d", now, before)
		}
	}
}

// TestASpillFindsNothingOfWhatWasLetGo: its keys end with those of the version.
func TestASpillFindsNothingOfWhatWasLetGo(t *testing.T) {
	c := openChain(t)
	id := c.approved()
	if _, err := c.ts.DenyRelease(context.Background(), c.ts.as("rev-3", "SECRET"), id, "no"); err != nil {
		t.Fatal(err)
	}
	r := c.spill("", true)
	if !r.Proven && len(r.Releases) == 0 {
		t.Errorf("it is not proven: %+v", r)
	}
	for _, x := range r.Copies {
		if !x.Gone {
			t.Errorf("%s/%s is not gone", x.Bucket, x.Key)
		}
	}
}

// TestAReadingOfWhatWasRebuiltEndsWithIt, however long it is; that of another does not.
func TestAReadingOfWhatWasRebuiltEndsWithIt(t *testing.T) {
	ctx := context.Background()
	for what, text := range map[string]string{"short": "the plan", "long": strings.Repeat("the plan ", 1<<18)} {
		c := openChain(t)
		begun := func() (redoubt.ReleaseID, io.Reader) {
			id := c.ask(nil).ID
			c.rebuilt(id, text)
			o, err := c.ts.OpenRebuilt(ctx, c.ts.as("rev-1", "SECRET"), id)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { o.Close() })
			r := o.Reader(0, -1)
			if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			return id, r
		}
		other, beside := begun()
		id, r := begun()
		if _, err := c.ts.DenyRelease(ctx, c.ts.as("rev-2", "SECRET"), id, "no"); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(r); len(rest) != 0 || !errors.Is(err, redoubt.NotFound) {
			t.Errorf("%s: %d bytes are read behind its end, %v", what, len(rest), err)
		}
		if rest, err := io.ReadAll(beside); err != nil || len(rest) != len(text)-1 {
			t.Errorf("%s: of that of release %s %d bytes are read, %v", what, other, len(rest), err)
		}
	}
}
