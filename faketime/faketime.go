// Package faketime runs tests in fake time, also where the FIPS 140-3 module is enforced. Nothing that runs imports it.
package faketime

import (
	"crypto/fips140"
	cryptorand "crypto/rand"
	"math/rand/v2"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
)

// Test is [synctest.Test]. Under FIPS 140-3 the random bytes of the test are not the module's: where two ask at once it takes fresh entropy, which it measures
// by a clock that stands still in here, and gives up.
func Test(t *testing.T, f func(*testing.T)) {
	t.Helper()
	if fips140.Enabled() {
		reader := cryptorand.Reader // the one that the module's callers must name
		cryptotest.SetGlobalRandom(t, rand.Uint64())
		cryptorand.Reader = reader
	}
	synctest.Test(t, f)
}
