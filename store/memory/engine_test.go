package memory_test

import (
	"testing"

	"redoubt/store"
	"redoubt/store/memory"
	"redoubt/store/storetest"
)

func TestContract(t *testing.T) {
	engines := map[string]*memory.Engine{}
	storetest.Test(t, func(t *testing.T, dir string) store.Engine {
		if old := engines[dir]; old != nil {
			engines[dir] = old.Reopen()
		} else {
			engines[dir] = memory.Open()
		}
		return engines[dir]
	})
}
