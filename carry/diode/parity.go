package diode

import (
	"math"
	"sort"
	"sync"

	"github.com/klauspost/reedsolomon"

	"redoubt"
)

// maxBlockLoss is how often a block may be beyond repair when datagrams are lost at the rate that was planned for, each for itself.
const maxBlockLoss = 1e-6

// MaxLoss is the greatest loss that parity is planned for. Where more is lost, passes help.
const MaxLoss = 0.5

// parityFor is the least number of parity shards with which a block of data shards can be made again, but for maxBlockLoss, when each
// shard is lost with the chance loss.
func parityFor(data int, loss float64) int {
	if loss <= 0 {
		return 0
	}
	// The more there is, the less is lost.
	return sort.Search(maxParity(data), func(m int) bool { return lostMore(data+m, m, loss) <= maxBlockLoss })
}

// lostMore is the chance that more than m of n are lost.
func lostMore(n, m int, loss float64) (p float64) {
	lgamma := func(x int) float64 { v, _ := math.Lgamma(float64(x) + 1); return v }
	for i := m + 1; i <= n; i++ {
		term := math.Exp(lgamma(n) - lgamma(i) - lgamma(n-i) + float64(i)*math.Log(loss) + float64(n-i)*math.Log1p(-loss))
		if p += term; p > maxBlockLoss || float64(i) > loss*float64(n) && term < maxBlockLoss*1e-6 {
			break
		}
	}
	return p
}

// coders are by data and parity. Each keeps the memory that it works in, which for small blocks costs more than the code. A road has few of them: those of a
// whole block, and of the ends of bundles.
var coders struct {
	sync.Mutex
	of map[[2]int]reedsolomon.Encoder
}

const maxCoders = 16

// coder is nil where there is no parity. The code is Leopard over GF(2^16) whatever the number of shards.
func coder(data, parity int) (reedsolomon.Encoder, error) {
	if parity == 0 {
		return nil, nil
	}
	coders.Lock()
	defer coders.Unlock()
	kind := [2]int{data, parity}
	if code, ok := coders.of[kind]; ok {
		return code, nil
	}
	code, err := reedsolomon.New(data, parity, reedsolomon.WithLeopardGF16(true), reedsolomon.WithMaxGoroutines(2))
	if err != nil {
		return nil, &redoubt.Error{Op: "diode.coder", Err: err}
	}
	if coders.of == nil || len(coders.of) == maxCoders {
		coders.of = map[[2]int]reedsolomon.Encoder{}
	}
	coders.of[kind] = code
	return code, nil
}

// cut gives the shards of a block that stands in slab.
func cut(slab []byte, shards, shardBytes int) [][]byte {
	out := make([][]byte, shards)
	for i := range out {
		out[i] = slab[i*shardBytes : (i+1)*shardBytes : (i+1)*shardBytes]
	}
	return out
}
