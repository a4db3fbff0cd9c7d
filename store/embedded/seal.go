package embedded

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"math/bits"
)

// sealOverhead is what AES-256-GCM with a random nonce adds: 12 bytes of nonce
// before and 16 of tag behind (SP 800-38D, 8.2.2). A key here seals one file, at most
// 2^24 pages or frames, far below the 2^32 of 8.3.
const sealOverhead = 28

const keyBytes = 32

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// newAEAD makes the one cipher of this package. Nonces come from inside the FIPS
// module, so that it works under GODEBUG=fips140=only.
func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// deriveAEAD makes a cipher for one purpose from the engine key.
func deriveAEAD(engineKey []byte, purpose string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, engineKey, nil, "redoubt store v1: "+purpose, keyBytes)
	if err != nil {
		return nil, err
	}
	return newAEAD(key)
}

func newKey() []byte {
	key := make([]byte, keyBytes)
	rand.Read(key) // never fails: crypto/rand ends the program instead
	return key
}

// sealMarked seals plain onto dst so that the last byte has at least two bits set. Where
// a write is torn its end is zero; where one bit of it flips it is not. So the two
// can be told apart (see tornWrite).
func sealMarked(a cipher.AEAD, dst, plain, aad []byte) []byte {
	for {
		out := a.Seal(dst, nil, plain, aad)
		if bits.OnesCount8(out[len(out)-1]) >= 2 {
			return out
		}
	}
}

// sectorBytes is the smallest unit that a disk writes whole.
const sectorBytes = 512

// tornWrite tells whether b, one write that does not verify, looks like a write that a
// crash cut short rather than like damage to a complete one. The space was zero before. b was made by
// sealMarked and holds ciphertext only, so a complete write has no zero sector and
// does not end in zero. start is where b lies in its file.
func tornWrite(b []byte, start int64) bool {
	if len(b) == 0 || b[len(b)-1] == 0 {
		return true
	}
	for at := int64(0); at < int64(len(b)); {
		end := min(at+sectorBytes-(start+at)%sectorBytes, int64(len(b)))
		if end-at >= 8 && allZero(b[at:end]) {
			return true
		}
		at = end
	}
	return false
}

func allZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.LittleEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
