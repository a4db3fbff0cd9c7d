package enclave

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"redoubt"
)

// TestAListOfReleasesIsMergedOfWhatItsReaderDominates, in any pages, as a walk through all of them in their order would have it.
func TestAListOfReleasesIsMergedOfWhatItsReaderDominates(t *testing.T) {
	var sets []*labelSet
	for _, marking := range []string{"UNCLASSIFIED", "CONFIDENTIAL", "SECRET", "SECRET//NOFORN", "TOP SECRET"} {
		sets = append(sets, &labelSet{label: parsed(t, marking)})
	}
	by := parsed(t, "SECRET")
	for seed := range uint64(50) {
		draw := rand.New(rand.NewPCG(seed, 0))
		r := &releases{byID: map[redoubt.ReleaseID]*releaseEntry{}, bySet: map[*labelSet][]*releaseEntry{}, open: map[redoubt.ObjectName][]*releaseEntry{}}
		var want []redoubt.ReleaseID
		for i := range draw.IntN(60) {
			x := &releaseEntry{id: redoubt.ReleaseID(fmt.Sprint(i)), set: sets[draw.IntN(len(sets))], state: []redoubt.ReleaseState{redoubt.ReleaseReview, redoubt.ReleaseDead}[draw.IntN(2)]}
			r.add(x)
			if by.Dominates(x.set.label) && x.state == redoubt.ReleaseReview {
				want = append([]redoubt.ReleaseID{x.id}, want...)
			}
		}
		var got []redoubt.ReleaseID
		for from := len(r.order); from > 0; {
			var some []*releaseEntry
			some, from = r.look(from, 1+draw.IntN(5), by, func(x *releaseEntry) bool { return x.state == redoubt.ReleaseReview })
			for _, x := range some {
				got = append(got, x.id)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("seed %d: got %v, want %v", seed, got, want)
		}
	}
}
