package enclave

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"
	"time"

	"redoubt"
	"redoubt/store"
)

// TestAConsentThatHasExpiredIsFoundByNothing, once it was looked whether it has.
func TestAConsentThatHasExpiredIsFoundByNothing(t *testing.T) {
	c := openChain(t)
	q, give := exportMarked(c)
	if err := c.consentsTo("ts-analyst", give, nil); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{1, 0} {
		if err := c.ts.Trim(context.Background()); err != nil {
			t.Fatal(err)
		}
		if n := len(c.ts.releases.open[q.Name]); n != want || len(c.ts.releases.gives) != want {
			t.Errorf("%d are found, want %d", n, want)
		}
		c.hands.add(time.Hour)
	}
}

// TestConsentsAreTakenUpInTheTimeOfOneForEach: at a start there may be many.
func TestConsentsAreTakenUpInTheTimeOfOneForEach(t *testing.T) {
	c := openChain(t)
	c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "the plan", "")
	set, began := c.ts.set("SECRET"), time.Now()
	const all = 40_000
	for n := range all {
		c.ts.watchConsent(set, &exportConsentRecord{Sig: fmt.Sprint(n), ExportConsent: redoubt.ExportConsent{Bucket: "reports", Key: fmt.Sprint(n), Expires: c.hands.clock().Add(time.Hour)}})
	}
	if took := time.Since(began); took > 5*time.Second || len(c.ts.releases.gives) != all {
		t.Errorf("%d of %d are taken up in %s", len(c.ts.releases.gives), all, took)
	}
}

// givesKey is what is given, for another key.
func givesKey(give redoubt.ConsentExport, n int) redoubt.ConsentExport {
	give.KAS = fmt.Sprintf("%064x", n)
	return give
}

// TestAVersionHasSoManyOpenConsents: what hides it is removed in one commit with all of them.
func TestAVersionHasSoManyOpenConsents(t *testing.T) {
	c := openChain(t)
	q, give := exportMarked(c)
	for n := range maxConsentsOfVersion {
		if err := c.consentsTo("ts-analyst", givesKey(give, n), nil); err != nil {
			t.Fatal(n, err)
		}
	}
	full := func(when string) {
		t.Helper()
		wantRefusal(t, when, c.consentsTo("ts-analyst", givesKey(give, 1000), nil), redoubt.QuotaExceeded, ruleOpen)
	}
	full("one more")
	again := givesKey(give, 7)
	again.Expires = again.Expires.Add(time.Minute)
	if err := c.consentsTo("ts-analyst", again, nil); err != nil {
		t.Errorf("in the place of one: %v", err)
	}
	full("one more, after one took the place of another")
	c.ts.restartGuarded(c)
	full("one more, after a restart")
	q.KAS = givesKey(give, 3).KAS
	if err := errors.Join(c.export("rev-1", q), c.consentsTo("ts-analyst", give, nil)); err != nil {
		t.Errorf("after one was used up: %v", err)
	}
	full("one more, after another was used up")
	c.hands.add(time.Hour)
	give.Expires = give.Expires.Add(time.Hour)
	if err := c.consentsTo("ts-analyst", give, nil); err != nil {
		t.Errorf("after all but one have expired: %v", err)
	}
	if n := len(c.ts.releases.open[q.Name]); n != 2 {
		t.Errorf("%d are found, want the two that are open", n)
	}
}

// failing is an engine that commits no consent.
type failing struct{ store.Engine }

func (f failing) Commit(ctx context.Context, b *store.Batch) error {
	for _, w := range b.Writes {
		if bytes.Contains(w.Key, []byte(kindExportConsent)) {
			return redoubt.DiskFull
		}
	}
	return f.Engine.Commit(ctx, b)
}

// TestAConsentThatWasNotKeptIsNotOpen.
func TestAConsentThatWasNotKeptIsNotOpen(t *testing.T) {
	c := openChain(t)
	_, give := exportMarked(c)
	engine := c.ts.engine
	c.ts.engine = failing{engine}
	err := c.consentsTo("ts-analyst", give, nil)
	c.ts.engine = engine
	if n := len(c.ts.releases.gives) + len(c.ts.releases.givesOf) + len(c.ts.releases.open); err == nil || n != 0 {
		t.Errorf("%v, and %d are found", err, n)
	}
}

// TestAnOriginatorHasSoManyOpenConsents, of those that she may know of where she works.
func TestAnOriginatorHasSoManyOpenConsents(t *testing.T) {
	c := openChain(t)
	_, give := exportMarked(c)
	for n := range maxConsentsOfOriginator {
		if n%maxConsentsOfVersion == 0 {
			_, give = exportMarked(c)
		}
		if err := c.consentsTo("ts-analyst", givesKey(give, n), nil); err != nil {
			t.Fatal(n, err)
		}
	}
	_, give = exportMarked(c)
	wantRefusal(t, "one more", c.consentsTo("ts-analyst", give, nil), redoubt.QuotaExceeded, ruleOpen)

	low := c.ts.as("ts-analyst", "CONFIDENTIAL//REL TO USA, GBR")
	sum := sha256.Sum256([]byte("a plan"))
	give.Name, give.SHA256 = named("low"), hex.EncodeToString(sum[:])
	give.Version = c.ts.put(low, "low", "a plan", "CONFIDENTIAL//ORCON/REL TO USA, GBR").ID
	consent := func(who redoubt.Credential) error {
		give := give
		give.Sig = ""
		out, err := c.ts.ConsentExport(context.Background(), who, give)
		if err != nil {
			return err
		}
		give.Sig = base64.StdEncoding.EncodeToString(ed25519.Sign(c.keys["ts-analyst"], redoubt.ExportConsentMessage(out)))
		_, err = c.ts.ConsentExport(context.Background(), who, give)
		return err
	}
	wantRefusal(t, "one below, asked for above", consent(c.ts.as("ts-analyst", "SECRET")), redoubt.QuotaExceeded, ruleOpen)
	if err := consent(c.ts.as("ts-analyst", "CONFIDENTIAL")); err != nil {
		t.Errorf("one below, where none is known of: %v", err)
	}
	c.hands.add(time.Hour)
	give.Expires = give.Expires.Add(time.Hour)
	if err := consent(c.ts.as("ts-analyst", "SECRET")); err != nil {
		t.Errorf("after all have expired: %v", err)
	}
}
