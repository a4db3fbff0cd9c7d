package enclave

import (
	"hash/maphash"
	"sync"
)

// keyLocks makes the writers of one name take turns: a condition is checked and its
// write committed with nobody between. Different names do not wait for one another.
// The package doc says who holds two of them, and what is locked before and behind one.
type keyLocks struct {
	seed   maphash.Seed
	shards [256]struct {
		mu   sync.Mutex
		held map[lockName]*keyLock
	}
}

type lockName struct {
	bucket uint32
	key    string
}

type keyLock struct {
	mu      sync.Mutex
	holders int // holding or waiting; guarded by the shard's mu
}

func newKeyLocks() *keyLocks {
	l := &keyLocks{seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].held = map[lockName]*keyLock{}
	}
	return l
}

// lock waits for the name and returns what releases it.
func (l *keyLocks) lock(bucket uint32, key string) (unlock func()) {
	name := lockName{bucket, key}
	shard := &l.shards[maphash.Comparable(l.seed, name)%uint64(len(l.shards))]
	shard.mu.Lock()
	k := shard.held[name]
	if k == nil {
		k = new(keyLock)
		shard.held[name] = k
	}
	k.holders++
	shard.mu.Unlock()
	k.mu.Lock()
	return func() {
		k.mu.Unlock()
		shard.mu.Lock()
		defer shard.mu.Unlock()
		if k.holders--; k.holders == 0 {
			delete(shard.held, name)
		}
	}
}
