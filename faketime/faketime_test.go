package faketime

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"runtime"
	"sync"
	"testing"
	"time"
)

// TestManyAskForRandomBytesAtOnce, more of them than the module has generators, which the collector takes besides.
func TestManyAskForRandomBytesAtOnce(t *testing.T) {
	Test(t, func(t *testing.T) {
		began := time.Now()
		for range 10 {
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					b := make([]byte, 1<<20)
					rand.Read(b)
					if _, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			runtime.GC()
		}
		if time.Since(began) != 0 {
			t.Error("the time is not fake")
		}
	})
}
