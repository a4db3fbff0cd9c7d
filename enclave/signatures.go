package enclave

import (
	"crypto/ed25519"
	"sync"

	"redoubt"
)

// signatures remembers what was verified of those of batches: one is asked for when an entry is announced, when its content has come, and for
// every other entry of its batch. Whose key is one to take entries by is asked each time.
type signatures struct {
	mu    sync.Mutex
	known map[signature]bool // those that hold, at most maxSignatures
}

// maxSignatures is how many are remembered: more than are under way at once, some 200 bytes each. What is forgotten is verified again.
const maxSignatures = 1024

// signature is all that Custody.Signed asks.
type signature struct {
	maker redoubt.NodeName
	key   [ed25519.PublicKeySize]byte
	count int64
	root  [32]byte
	by    [ed25519.SignatureSize]byte
}

// hold is c.Signed(maker, key).
func (s *signatures) hold(c *redoubt.Custody, maker redoubt.NodeName, key ed25519.PublicKey) bool {
	if len(key) != ed25519.PublicKeySize {
		return false
	}
	is := signature{maker, [ed25519.PublicKeySize]byte(key), c.Count, c.Root, c.Signature}
	s.mu.Lock()
	known := s.known[is]
	s.mu.Unlock()
	if known {
		return true
	}
	if !c.Signed(maker, key) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil || len(s.known) >= maxSignatures {
		s.known = map[signature]bool{}
	}
	s.known[is] = true
	return true
}
