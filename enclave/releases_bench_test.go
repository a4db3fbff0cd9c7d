package enclave

import (
	"context"
	"fmt"
	"testing"

	"redoubt"
)

// BenchmarkReleasesListed lists the first page of 1,000 and of 20, and the last of 20, among 10,000 releases that wait and as many above the caller.
func BenchmarkReleasesListed(b *testing.B) {
	t := &testing.T{}
	c := openChain(t)
	b.Cleanup(func() { c.unclass.Close(); c.secret.Close(); c.ts.Close() })
	ctx := context.Background()
	low, high := c.ts.as("ts-analyst", "SECRET"), c.ts.as("ts-analyst", "TOP SECRET")
	c.ts.guards[0].PerPersonDay, c.ts.guards[0].PerDay = 1<<30, 1<<30
	c.ts.put(low, "plan", "text", "")
	c.ts.put(high, "high", "text", "")
	var last redoubt.ReleaseID
	for i := range 10_000 {
		for who, key := range map[redoubt.Credential]string{low: "plan", high: "high"} {
			q := planRequest
			q.Name.Key, q.Reason = key, fmt.Sprint("number ", i)
			r, err := c.ts.RequestRelease(ctx, who, q)
			if err != nil {
				b.Fatal(err)
			}
			if who == low && i == 20 {
				last = r.ID
			}
		}
	}
	for name, q := range map[string]redoubt.ListReleases{"page-of-1000": {Max: 1000}, "page-of-20": {Max: 20}, "last-page": {Max: 20, After: last}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				all, err := c.ts.Releases(ctx, low, q)
				if err != nil || len(all) != q.Max {
					b.Fatalf("%d, %v", len(all), err)
				}
			}
		})
	}
}
