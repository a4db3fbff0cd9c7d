package sim_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"redoubt"
	"redoubt/replica"
)

// liar is a road whose owner says things twice, out of order, changed, or not at all.
type liar struct {
	replica.Conn
	mu   sync.Mutex
	dice *rand.Rand
	kept []said // what is said again later
}

type said struct {
	p   redoubt.Precedence
	msg []byte
}

func (l *liar) Send(ctx context.Context, p redoubt.Precedence, msg []byte) error {
	l.mu.Lock()
	roll := l.dice.IntN(20)
	later := said{p, bytes.Clone(msg)}
	var again []said
	switch {
	case len(msg) > 0 && msg[0] == 'h': // it wants to be heard
	case roll == 0:
		msg = bytes.Clone(msg)
		msg[1+l.dice.IntN(len(msg)-1)] ^= 1 << l.dice.IntN(8)
	case roll == 1:
		l.kept = append(l.kept, later)
		l.mu.Unlock()
		return nil
	case roll == 2:
		again = append(again, later)
	case roll == 3 && len(l.kept) > 0:
		again, l.kept = l.kept, nil
	}
	l.mu.Unlock()
	if err := l.Conn.Send(ctx, p, msg); err != nil {
		return err
	}
	for _, s := range again {
		if err := l.Conn.Send(ctx, s.p, s.msg); err != nil {
			return err
		}
	}
	return nil
}

// forge has a captured device send what its key lets it make up.
func (w *world) forge(s step) {
	var captured []*node
	for _, n := range w.nodes {
		if n.captured {
			captured = append(captured, n)
		}
	}
	if len(captured) == 0 {
		return
	}
	n := captured[s.pick%uint64(len(captured))]
	n.start()
	to := n.neighbour(s.pick)
	if s.pick>>8%3 == 0 || to == nil || !to.honest() {
		to = w.home()
	}
	to.start()
	if _, err := to.credential("ts-analyst", ""); err != nil || !mayMeet(n, to) { // it is a year since it was told of her: nobody can look
		return
	}
	r := rand.New(rand.NewPCG(s.pick, 3))
	for _, in := range w.forgeries(n, to, r) {
		// What is forged may be refused or, where it is the device's own to say, taken. It may not break anything.
		no, err := to.stack.Apply(context.Background(), n.name, in)
		if err != nil && redoubt.KindOf(err) != redoubt.NotFound {
			w.fault("%s was broken by what %s sent: %v", to.name, n.name, err)
		}
		if x := in[0].Entry; err == nil && len(no) == 0 && x.Kind == redoubt.EntryVersion && x.Name.Bucket != redoubt.SystemBucket {
			w.ledger.forged(n, to, x.Name)
		}
	}
}

// forgeries are entries under the device's own signature, and others' entries changed.
func (w *world) forgeries(n, to *node, r *rand.Rand) (all [][]redoubt.Received) {
	genuine := n.stock(to)
	if len(genuine) == 0 {
		return nil
	}
	pick := func() redoubt.JournalItem { return genuine[r.IntN(len(genuine))] }
	sign := func(x redoubt.JournalEntry, content []byte) {
		b, err := x.MarshalBinary()
		if err != nil {
			return
		}
		custody, err := redoubt.SealBatch(x.Maker, [][]byte{b}, n.stack.SignBundle)
		if err != nil {
			w.t.Fatal(err)
		}
		in := redoubt.Received{Entry: x, Custody: custody[0]}
		if content != nil {
			in.Content = bytes.NewReader(content)
		}
		all = append(all, []redoubt.Received{in})
	}
	become := func(kind redoubt.EntryKind, of redoubt.JournalEntry) redoubt.JournalEntry {
		x := redoubt.JournalEntry{Kind: kind, Stamp: n.ownStamp(of, r), Of: of.Stamp, Label: of.Label, Made: of.Made, Maker: n.name, Name: of.Name}
		if kind == redoubt.EntryAlteration {
			x.Tags = []redoubt.Tag{{Key: "captured", Value: "yes"}}
		}
		return x
	}
	for _, kind := range []redoubt.EntryKind{redoubt.EntryRemoval, redoubt.EntryAlteration} {
		v := pick().Entry
		sign(become(kind, v), nil) // of what another made
		x := become(kind, v)
		x.Name.Key = "a/other"
		sign(x, nil) // under another name
		x = become(kind, v)
		x.Made = x.Label
		sign(x, nil) // made at another label
		x = become(kind, v)
		x.Maker = v.Maker
		sign(x, nil) // in its maker's name
	}
	above := pick().Entry
	above.Maker, above.Label, above.Made = n.name, "USA@1 TOP SECRET//SI/TK", "USA@1 TOP SECRET//SI/TK"
	sign(above, []byte(strings.Repeat("x", int(above.SizeBytes))))
	again := pick() // another's version with other tags, other content, another name
	for _, change := range []func(*redoubt.JournalEntry){
		func(x *redoubt.JournalEntry) { x.Tags = []redoubt.Tag{{Key: "captured", Value: "yes"}} },
		func(x *redoubt.JournalEntry) { x.Content[0] ^= 1 },
		func(x *redoubt.JournalEntry) { x.Name.Key += "x" },
		func(x *redoubt.JournalEntry) { x.Stamp[7]++ },
		func(x *redoubt.JournalEntry) { x.Label = x.Made },
	} {
		x := again.Entry
		change(&x)
		all = append(all, []redoubt.Received{{Entry: x, Custody: again.Custody, Content: bytes.NewReader(nil)}})
		x.Maker = n.name
		sign(x, []byte("forged"))
	}
	for _, who := range subjects { // its own word about people
		system := become(redoubt.EntryVersion, pick().Entry)
		word := fmt.Appendf(nil, `{"kind":"person","name":%q,"by":"officer","at":%q}`, who, n.stack.Now().UTC().Format(time.RFC3339))
		system.Of, system.Name = redoubt.Stamp{}, redoubt.ObjectName{Bucket: redoubt.SystemBucket, Key: "revocation/person/" + string(who)}
		system.SizeBytes, system.Content = int64(len(word)), sha256.Sum256(word)
		sign(system, word)
	}
	ahead := become(redoubt.EntryVersion, pick().Entry)
	ahead.Of, ahead.Marker = redoubt.Stamp{}, true
	ahead.Stamp[2]++ // by 18 minutes: who is ahead by more takes it
	sign(ahead, nil)
	replayed := pick() // as it is, twice
	for range 2 {
		in := redoubt.Received{Entry: replayed.Entry, Custody: replayed.Custody}
		if replayed.Open != nil {
			if rd, err := replayed.Open(); err == nil {
				content, _ := io.ReadAll(rd.Reader(0, -1))
				rd.Close()
				in.Content = bytes.NewReader(content)
			}
		}
		all = append(all, []redoubt.Received{in})
	}
	return all
}

// ownStamp is a stamp that the device may give: the time, its maker's mark, and the label set's tag, which another of the set tells.
func (n *node) ownStamp(of redoubt.JournalEntry, r *rand.Rand) (s redoubt.Stamp) {
	binary.BigEndian.PutUint64(s[:], uint64(n.stack.Now().UnixNano()+int64(r.IntN(1000))))
	mine, its := sha256.Sum256([]byte(n.name)), sha256.Sum256([]byte(of.Maker))
	for i := range 4 { // the maker's mark is mixed with the tag of the label that it was made at, where that is another
		s[8+i] = of.Stamp[8+i] ^ its[i] ^ mine[i]
	}
	copy(s[12:], of.Stamp[12:])
	return s
}

// stock is some of what a device holds and may send to a peer, others' entries first.
func (n *node) stock(to *node) (out []redoubt.JournalItem) {
	ctx := context.Background()
	sets, err := n.stack.Sets(ctx, to.name)
	if err != nil {
		return nil
	}
	for _, set := range sets {
		var stamps []redoubt.Stamp
		_, err := n.stack.Inventory(ctx, to.name, set, func(s redoubt.Stamp) error { stamps = append(stamps, s); return nil })
		if err != nil {
			continue
		}
		items, err := n.stack.Fetch(ctx, to.name, set, stamps[:min(len(stamps), 500)])
		if err != nil {
			continue
		}
		for _, i := range items {
			if i.Entry.Maker != n.name && i.Entry.Kind == redoubt.EntryVersion {
				out = append(out, i)
			}
		}
	}
	return out
}
