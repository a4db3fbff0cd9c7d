package bundle

import (
	"crypto/sha256"
	"hash"
)

// leaves digests sealed content: SHA-256 of the SHA-256 of each 4 MiB of it, in order, behind a name of its own. The digests of
// the pieces are kept where what was verified is to be read again.
type leaves struct {
	keep  bool
	all   [][sha256.Size]byte
	top   hash.Hash
	leaf  hash.Hash
	n     int // bytes in leaf
	total uint64
}

func newLeaves(keep bool) *leaves {
	l := &leaves{keep: keep, top: sha256.New(), leaf: sha256.New()}
	l.top.Write([]byte("redoubt bundle sealed v1\n"))
	return l
}

func (l *leaves) Write(p []byte) (int, error) {
	total := len(p)
	l.total += uint64(total)
	for len(p) > 0 {
		n := min(len(p), leafBytes-l.n)
		l.leaf.Write(p[:n])
		if l.n += n; l.n == leafBytes {
			l.end()
		}
		p = p[n:]
	}
	return total, nil
}

func (l *leaves) end() {
	sum := [sha256.Size]byte(l.leaf.Sum(nil))
	l.top.Write(sum[:])
	if l.keep {
		l.all = append(l.all, sum)
	}
	l.leaf.Reset()
	l.n = 0
}

// sum ends the last piece and gives the digest of all.
func (l *leaves) sum() [sha256.Size]byte {
	if l.n > 0 {
		l.end()
	}
	return [sha256.Size]byte(l.top.Sum(nil))
}
