package keys

import (
	"crypto"
	"crypto/ed25519"
	"io"
	"slices"
	"sync"
)

// Signer signs with the enclave's Ed25519 key; it is a crypto.Signer. After the
// keyring's Close it refuses. It may be used at once by many.
type Signer struct {
	public ed25519.PublicKey

	mu      sync.RWMutex // guards private
	private ed25519.PrivateKey
}

func newSigner(seed []byte) *Signer {
	private := ed25519.NewKeyFromSeed(seed)
	return &Signer{public: slices.Clone(private.Public().(ed25519.PublicKey)), private: private}
}

// Public is the ed25519.PublicKey; it stays readable after Close.
func (s *Signer) Public() crypto.PublicKey { return slices.Clone(s.public) }

// Sign signs message itself (opts.HashFunc() must be 0); random is not used.
func (s *Signer) Sign(random io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.private == nil {
		return nil, closed("keys.Sign")
	}
	return s.private.Sign(nil, message, opts)
}

func (s *Signer) wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.private)
	s.private = nil
}
