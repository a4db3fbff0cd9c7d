package main

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
)

// A listener is somebody low who takes times and wants to know which of two things went on above. It is asked what
// the best of simple listeners could do: one that learned a threshold beforehand, and one that knows the whole
// distribution as far as bins of it show.

// heard is what a listener can make of samples taken under a and under b, each as likely.
type heard struct {
	accuracy float64 // of a threshold learned on one half and tried on the other; 0.5 is a guess
	chance   float64 // what such an accuracy reaches by chance in one of a hundred tries
	bits     float64 // mutual information of one sample, what chance alone would show taken off; at least 0
}

// listen says how well a and b are told apart. Both are in the order in which they were taken.
func listen(a, b []float64, r *rand.Rand) heard {
	n := min(len(a), len(b))
	a, b = a[:n], b[:n]
	var h heard
	for fold := range 2 { // alternate samples, so that slow drifts are in both halves
		learnA, tryA := halves(a, fold)
		learnB, tryB := halves(b, fold)
		at, above := threshold(learnA, learnB)
		h.accuracy += rightly(tryA, tryB, at, above) / 2
	}
	h.chance = 0.5 + 2.33*0.5/math.Sqrt(float64(2*n))
	bits := information(a, b)
	const shuffles = 20
	all := slices.Concat(a, b)
	for range shuffles {
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		bits -= information(all[:n], all[n:]) / shuffles
	}
	h.bits = max(0, bits)
	return h
}

func halves(v []float64, fold int) (learn, try []float64) {
	for i, x := range v {
		if i/2%2 == fold {
			learn = append(learn, x)
		} else {
			try = append(try, x)
		}
	}
	return learn, try
}

// threshold gives the limit that tells most samples apart, and whether b lies above it.
func threshold(a, b []float64) (at float64, above bool) {
	type sample struct {
		x   float64
		isB bool
	}
	var all []sample
	for _, x := range a {
		all = append(all, sample{x, false})
	}
	for _, x := range b {
		all = append(all, sample{x, true})
	}
	slices.SortFunc(all, func(p, q sample) int { return cmp.Compare(p.x, q.x) })
	best, lead := -1, 0 // lead: how many more of a than of b lie at or below
	for i, s := range all {
		if lead++; s.isB {
			lead -= 2
		}
		if i+1 < len(all) && all[i+1].x == s.x {
			continue
		}
		if abs := max(lead, -lead); abs > best {
			best, at, above = abs, s.x, lead > 0
		}
	}
	return at, above
}

// rightly is the share of samples that the threshold puts on their side.
func rightly(a, b []float64, at float64, above bool) float64 {
	right := 0
	for _, x := range a {
		if (x <= at) == above {
			right++
		}
	}
	for _, x := range b {
		if (x > at) == above {
			right++
		}
	}
	return float64(right) / float64(max(1, len(a)+len(b)))
}

// information is the mutual information, in bits, of which of the two a sample came from and into which of
// eight equally full bins it falls.
func information(a, b []float64) float64 {
	const bins = 8
	all := slices.Concat(a, b)
	if len(all) < 2*bins {
		return 0
	}
	slices.Sort(all)
	var edges [bins - 1]float64
	for i := range edges {
		edges[i] = all[(i+1)*len(all)/bins]
	}
	var count [2][bins]float64
	for of, v := range [2][]float64{a, b} {
		for _, x := range v {
			i, _ := slices.BinarySearch(edges[:], x)
			count[of][i]++
		}
	}
	bits, total := 0.0, float64(len(all))
	for of, n := range [2]float64{float64(len(a)), float64(len(b))} {
		for i, c := range count[of] {
			if c > 0 {
				bits += c / total * math.Log2(c*total/(n*(count[0][i]+count[1][i])))
			}
		}
	}
	return bits
}

// quantile of unsorted samples.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(v))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
