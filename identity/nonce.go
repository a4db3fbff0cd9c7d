package identity

import (
	"errors"
	"time"

	"redoubt"
)

const (
	nonceBytes = 16
	// maxNonces bounds the nonces of one subject within nonceLife: seven a second, and 160 KiB.
	maxNonces = 4096
	// nonceLife is how long a nonce is remembered. A request is good while its time lies within MintSkew of
	// the clock, so one stamped a skew ahead is good for two.
	nonceLife = 2*redoubt.MintSkew + time.Second
)

// nonces are those used lately: no signed request is good twice. The zero value is empty.
type nonces struct {
	used  map[nonce]struct{}
	count map[redoubt.SubjectName]int
	queue []spent // in the order of their end, nearly: all live equally long
}

type nonce struct {
	subject redoubt.SubjectName
	value   [nonceBytes]byte
}

type spent struct {
	nonce
	until time.Time
}

// use takes a nonce, once.
func (n *nonces) use(s redoubt.SubjectName, value [nonceBytes]byte, now time.Time) error {
	n.forget(now)
	if _, again := n.used[nonce{s, value}]; again {
		return &redoubt.Error{Op: "identity.Mint", Object: string(s), Kind: redoubt.Unauthenticated,
			Hint: "every request needs a new nonce", Err: errors.New("nonce used before")}
	}
	if n.count[s] >= maxNonces {
		return &redoubt.Error{Op: "identity.Mint", Object: string(s), Kind: redoubt.QuotaExceeded,
			Hint: "too many requests for credentials; wait ten minutes"}
	}
	n.seen(s, value, now, now)
	return nil
}

// seen remembers a nonce used at a moment, if that still matters now.
func (n *nonces) seen(s redoubt.SubjectName, value [nonceBytes]byte, at, now time.Time) {
	until := at.Add(nonceLife)
	key := nonce{s, value}
	if _, again := n.used[key]; again || !until.After(now) {
		return
	}
	if n.used == nil {
		n.used, n.count = make(map[nonce]struct{}), make(map[redoubt.SubjectName]int)
	}
	n.used[key] = struct{}{}
	n.count[s]++
	n.queue = append(n.queue, spent{key, until})
}

// forget drops those whose time is over.
func (n *nonces) forget(now time.Time) {
	i := 0
	for ; i < len(n.queue) && !n.queue[i].until.After(now); i++ {
		old := n.queue[i].nonce
		delete(n.used, old)
		if n.count[old.subject]--; n.count[old.subject] == 0 {
			delete(n.count, old.subject)
		}
	}
	n.queue = n.queue[i:]
}
