package main

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestAListenerIsAsGoodAsTheSamplesAllow: what is alike is guessed, what is apart is told, and what lies between is as theory has it.
func TestAListenerIsAsGoodAsTheSamplesAllow(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	drawn := func(n int, shift float64) []float64 {
		v := make([]float64, n)
		for i := range v {
			v[i] = r.NormFloat64() + shift
		}
		return v
	}
	const n = 20_000
	for _, c := range []struct{ shift, accuracy, low, high float64 }{
		{0, 0.5, 0, 0.001},
		{100, 1, 0.99, 1},
		{-100, 1, 0.99, 1},
		{1, 0.6915, 0.12, 0.18}, // the normal distribution at half a deviation
	} {
		h := listen(drawn(n, 0), drawn(n, c.shift), r)
		if math.Abs(h.accuracy-c.accuracy) > 0.01 || h.bits < c.low || h.bits > c.high {
			t.Errorf("shifted by %v: accuracy %.3f, %.4f bits; want %.3f, %v to %v", c.shift, h.accuracy, h.bits, c.accuracy, c.low, c.high)
		}
	}
	same := make([]float64, n) // all alike: no limit tells anything
	if h := listen(same, same, r); h.accuracy != 0.5 || h.bits != 0 {
		t.Errorf("identical samples: %+v", h)
	}
	if h := listen(nil, nil, r); h.bits != 0 {
		t.Errorf("no samples: %+v", h)
	}
}
