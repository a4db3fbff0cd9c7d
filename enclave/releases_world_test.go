package enclave

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"testing"

	"redoubt"
)

// plan is what is released in these tests: a version at SECRET in topsecret, as UNCLASSIFIED into secret.
var planRequest = redoubt.RequestRelease{Name: redoubt.ObjectName{Bucket: "reports", Key: "plan"}, To: "secret", Label: "UNCLASSIFIED", Reason: "for the press"}

// ask has ts-analyst, who works at SECRET, ask for what she has just written.
func (c *chain) ask(change func(*redoubt.RequestRelease)) redoubt.Release {
	c.t.Helper()
	who := c.ts.as("ts-analyst", "SECRET")
	c.ts.put(who, "plan", "the plan, dirty", "")
	q := planRequest
	if change != nil {
		change(&q)
	}
	r, err := c.ts.RequestRelease(context.Background(), who, q)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// rebuilt has the guard's pipeline come to a content.
func (c *chain) rebuilt(id redoubt.ReleaseID, text string) {
	c.t.Helper()
	ctx, guard := context.Background(), c.ts.as(highGuard, "")
	_, o, err := c.ts.FetchRelease(ctx, guard, id)
	if err == nil {
		o.Close()
		err = c.ts.SubmitRelease(ctx, guard, id, redoubt.ReleaseVerdict{ContentType: "text/plain", Rules: testRules}, strings.NewReader(text))
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// inReview is a release whose statement stands.
func (c *chain) inReview() redoubt.ReleaseID {
	c.t.Helper()
	id := c.ask(nil).ID
	c.rebuilt(id, "the plan")
	return id
}

func (c *chain) show(id redoubt.ReleaseID) redoubt.Release {
	c.t.Helper()
	r, err := c.ts.Release(context.Background(), c.ts.as("ts-analyst", ""), id)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// signed is somebody's signature over a statement.
func (c *chain) signed(by redoubt.SubjectName, s redoubt.ReleaseStatement) redoubt.Signature {
	return redoubt.Signature{Signer: by, Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(c.keys[by], redoubt.ReleaseMessage(s.Public())))}
}

func (c *chain) approve(by redoubt.SubjectName, id redoubt.ReleaseID) error {
	c.t.Helper()
	r := c.show(id)
	if r.Statement == nil {
		c.t.Fatalf("%s is %s: there is no statement", id, r.State)
	}
	_, err := c.ts.ApproveRelease(context.Background(), c.ts.as(by, "SECRET"), id, c.signed(by, *r.Statement).Sig)
	return err
}

// approved is a release that two have signed.
func (c *chain) approved() redoubt.ReleaseID {
	c.t.Helper()
	id := c.inReview()
	for _, by := range []redoubt.SubjectName{"rev-1", "rev-2"} {
		if err := c.approve(by, id); err != nil {
			c.t.Fatal(err)
		}
	}
	return id
}

// fetched is what the guard carries of an approved release.
func (c *chain) fetched(id redoubt.ReleaseID) (redoubt.ReleasePackage, string) {
	c.t.Helper()
	p, o, err := c.ts.FetchApproved(context.Background(), c.ts.as(highGuard, ""), id)
	if err != nil {
		c.t.Fatal(err)
	}
	defer o.Close()
	b, err := io.ReadAll(o.Reader(0, -1))
	if err != nil {
		c.t.Fatal(err)
	}
	return p, string(b)
}

func (c *chain) accept(p redoubt.ReleasePackage, text string) (redoubt.ReleaseReceipt, error) {
	c.t.Helper()
	return c.secret.AcceptRelease(context.Background(), c.secret.as(highGuard, ""), p, strings.NewReader(text))
}

func (c *chain) finish(id redoubt.ReleaseID, r *redoubt.ReleaseReceipt, refused string) error {
	c.t.Helper()
	return c.ts.FinishRelease(context.Background(), c.ts.as(highGuard, ""), id, r, refused)
}

// released reads what came down.
func (c *chain) released() string {
	c.t.Helper()
	return c.secret.in(c.secret.as("u-analyst", ""), "topsecret.reports", "plan")
}

// wantState says how far a release is, and what of why.
func (c *chain) wantState(id redoubt.ReleaseID, state redoubt.ReleaseState, why string) {
	c.t.Helper()
	if r := c.show(id); r.State != state || !strings.Contains(r.Why, why) {
		c.t.Errorf("it is %s (%q), want %s (%q)", r.State, r.Why, state, why)
	}
}

// wantRefusal holds an error to its kind and rule.
func wantRefusal(t *testing.T, what string, err error, kind redoubt.Kind, rule string) {
	t.Helper()
	var e *redoubt.Error
	if !errors.As(err, &e) || e.Kind != kind || e.Rule != rule {
		t.Errorf("%s: got %v, want %v by %s", what, err, kind, rule)
	}
}

// decisionsAt is decisions of an officer at a marking.
func (w *world) decisionsAt(marking string, action redoubt.Action) (outcomes []string) {
	w.t.Helper()
	err := w.SearchAudit(context.Background(), w.as("officer", marking), redoubt.AuditQuery{Action: action}, func(r redoubt.AuditRecord) error {
		outcomes = append(outcomes, r.Outcome)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return outcomes
}

// restartGuarded is a crash of an enclave of the chain: what is durable is all that is left.
func (w *world) restartGuarded(c *chain) {
	w.t.Helper()
	raises, guards := w.links.raises, w.guards
	w.restart(true)
	w.guards = guards
	if err := w.SetRaises(context.Background(), raises); err != nil {
		w.t.Fatal(err)
	}
	c.files[w] = c.bundles(w)
}
