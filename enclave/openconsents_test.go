package enclave

import (
	"context"
	"fmt"
	"testing"
	"time"

	"redoubt"
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
