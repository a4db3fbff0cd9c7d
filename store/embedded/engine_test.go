package embedded_test

import (
	"bytes"
	"testing"

	"go.uber.org/goleak"

	"redoubt/store"
	"redoubt/store/embedded"
	"redoubt/store/storetest"
)

var testKey = bytes.Repeat([]byte{7}, 32)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	storetest.Test(t, func(t *testing.T, dir string) store.Engine {
		e, err := embedded.Open(dir, embedded.Options{Key: testKey, SegmentBytes: 1 << 20, ReserveBytes: -1})
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		return e
	})
}
