package identity

import (
	"crypto/sha256"
	"errors"
	"time"

	"redoubt"
	"redoubt/label"
)

const (
	nonceBytes = 16
	// maxNonces bounds the requests of one subject within nonceLife, at a label and those below it: seven a second.
	maxNonces = 4096
	// maxNoncesOfAll bounds those over all labels, and so the memory: 12 MiB a subject. It is reached by working
	// at sixteen labels at once, as fast as each allows.
	maxNoncesOfAll = 16 * maxNonces
	// nonceLife is how long a request is remembered. It is good while its time lies within MintSkew of
	// the clock, so one stamped a skew ahead is good for two.
	nonceLife = 2*redoubt.MintSkew + time.Second
)

// nonces are the signed requests used lately: none is good twice. What is remembered of one is a digest of all that
// was signed, its label included: so a nonce used at a high label is no other answer at a low one. The zero value is empty.
type nonces struct {
	used  map[nonce]struct{}
	count map[redoubt.SubjectName]map[label.Label]int
	queue []spent // in the order of their end, nearly: all live equally long
}

// digest stands for one signed request.
type digest [nonceBytes]byte

func digestOf(req redoubt.MintRequest) digest {
	sum := sha256.Sum256(redoubt.MintMessage(req))
	return digest(sum[:nonceBytes])
}

type nonce struct {
	subject redoubt.SubjectName
	digest  digest
}

type spent struct {
	nonce
	working label.Label
	until   time.Time
}

// use takes a request for a credential at a working label, once. Only what was asked for at labels that this one
// dominates counts for it, up to maxNoncesOfAll.
func (n *nonces) use(s redoubt.SubjectName, working label.Label, d digest, now time.Time) error {
	n.forget(now)
	if _, again := n.used[nonce{s, d}]; again {
		return &redoubt.Error{Op: "identity.Mint", Object: string(s), Kind: redoubt.Unauthenticated,
			Hint: "every request needs a new nonce", Err: errors.New("request used before")}
	}
	below, all := 0, 0
	for l, count := range n.count[s] {
		if all += count; working.Dominates(l) {
			below += count
		}
	}
	if below >= maxNonces || all >= maxNoncesOfAll {
		return &redoubt.Error{Op: "identity.Mint", Object: string(s), Kind: redoubt.QuotaExceeded,
			Hint: "too many requests for credentials; wait ten minutes"}
	}
	n.seen(s, working, d, now, now)
	return nil
}

// seen remembers a request used at a moment, if that still matters now.
func (n *nonces) seen(s redoubt.SubjectName, working label.Label, d digest, at, now time.Time) {
	until := at.Add(nonceLife)
	key := nonce{s, d}
	if _, again := n.used[key]; again || !until.After(now) {
		return
	}
	if n.used == nil {
		n.used, n.count = make(map[nonce]struct{}), make(map[redoubt.SubjectName]map[label.Label]int)
	}
	if n.count[s] == nil {
		n.count[s] = make(map[label.Label]int)
	}
	n.used[key] = struct{}{}
	n.count[s][working]++
	n.queue = append(n.queue, spent{key, working, until})
}

// forget drops those whose time is over.
func (n *nonces) forget(now time.Time) {
	i := 0
	for ; i < len(n.queue) && !n.queue[i].until.After(now); i++ {
		old := n.queue[i]
		delete(n.used, old.nonce)
		of := n.count[old.subject]
		if of[old.working]--; of[old.working] == 0 {
			delete(of, old.working)
		}
		if len(of) == 0 {
			delete(n.count, old.subject)
		}
	}
	n.queue = n.queue[i:]
}
