package diode

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"redoubt"
	"redoubt/bundle"
	"redoubt/keys"
)

var made = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// makerKey signs the bundles of these tests.
var makerKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))

// sharedKey is what both sides share.
var sharedKey = bytes.Repeat([]byte{9}, KeyBytes)

var recipient = sync.OnceValue(func() *keys.Identity {
	id, err := keys.NewIdentity()
	if err != nil {
		panic(err)
	}
	return id
})

// newBundle is the file of a bundle with a number and so many bytes of content. Several of one numbering do not chain: nobody here asks.
func newBundle(t testing.TB, number uint64, bytes int, change ...func(*bundle.Head)) []byte {
	t.Helper()
	h := bundle.Head{Kind: bundle.Journal, Estate: "example", Maker: "secret", Created: made.Add(time.Duration(number) * time.Second), Expires: made.Add(24 * time.Hour),
		To: []bundle.Addressee{{Node: "outpost", Numbering: [16]byte{0xab}, Serial: number}}}
	if number > 1 {
		h.To[0].Previous[0] = 1
	}
	for _, c := range change {
		c(&h)
	}
	return sealBundle(t, h, makerKey, bytes)
}

func sealBundle(t testing.TB, h bundle.Head, key ed25519.PrivateKey, n int) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := bundle.NewWriter(&file, h, []keys.Recipient{recipient().Recipient()}, func(m []byte) ([]byte, error) { return ed25519.Sign(key, m), nil })
	if err != nil {
		t.Fatal(err)
	}
	content := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	r.Read(content)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(nil); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// road carries datagrams from a sender to whatever take is, and does to them what it is told.
type road struct {
	r    *rand.Rand
	loss float64
	// gone says that the datagram of that number is lost whatever the chances.
	gone      func(n int) bool
	duplicate float64
	forge     func(datagram []byte) []byte // sends one more beside each, where it gives one
	hold      int                          // up to so many are held back, and overtaken
	held      [][]byte
	take      func([]byte)
	n         int
	bytes     int64
}

func (w *road) Write(b []byte) (int, error) {
	n := w.n
	w.n++
	w.bytes += int64(len(b) + UDPOverhead)
	if w.forge != nil {
		if f := w.forge(b); f != nil {
			w.take(f)
		}
	}
	if w.gone != nil && w.gone(n) || w.r.Float64() < w.loss {
		return len(b), nil
	}
	w.held = append(w.held, bytes.Clone(b))
	if w.r.Float64() < w.duplicate {
		w.held = append(w.held, bytes.Clone(b))
	}
	for len(w.held) > w.hold {
		w.next()
	}
	return len(b), nil
}

func (w *road) next() {
	i := w.r.IntN(len(w.held))
	b := w.held[i]
	w.held = slices.Delete(w.held, i, i+1)
	w.take(b)
}

// flush lets go of what is held back.
func (w *road) flush() {
	for len(w.held) > 0 {
		w.next()
	}
}

func newRoad(seed uint64, take func([]byte)) *road {
	return &road{r: rand.New(rand.NewPCG(seed, 1)), take: take}
}

// plan is as fast as it goes: the pace has tests of its own.
func plan() Plan {
	return Plan{Rate: MaxRate, Datagram: DefaultDatagram, Loss: DefaultLoss, Interleave: DefaultInterleave, Passes: 1, Key: sharedKey}
}

// send sends a bundle over a road, and gives what it took.
func send(t testing.TB, w *road, p Plan, file []byte, only ...int) Tally {
	t.Helper()
	s, err := NewSender(w, p)
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Load(context.Background(), InMemory(file), int64(len(file)), only, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(context.Background(), l, nil); err != nil {
		t.Fatal(err)
	}
	w.flush()
	return s.Tally
}

// post is a receiving folder of a test.
type post struct {
	*Stage
	t   testing.TB
	dir string
	o   Options

	mu     sync.Mutex
	events []Event
}

func newPost(t testing.TB, change ...func(*Options)) *post {
	t.Helper()
	p := &post{t: t, dir: t.TempDir(), o: Options{Key: sharedKey}}
	for _, c := range change {
		c(&p.o)
	}
	p.o.Tell = func(e Event) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.events = append(p.events, e)
	}
	p.open()
	t.Cleanup(func() {
		if p.Stage != nil {
			p.Stage.Close()
		}
	})
	return p
}

func (p *post) open() {
	p.t.Helper()
	s, err := Open(p.dir, p.o)
	if err != nil {
		p.t.Fatal(err)
	}
	p.Stage = s
}

// again ends the receiver and begins another in its place.
func (p *post) again() {
	p.t.Helper()
	p.Stage.Close()
	p.open()
}

func (p *post) told(kind EventKind) (n int) {
	p.Settle()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// files are the whole files that there are, by name.
func (p *post) files() map[string][]byte {
	p.t.Helper()
	p.Settle()
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		p.t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, e := range entries {
		if e.Name() == stageDir {
			continue
		}
		if out[e.Name()], err = os.ReadFile(filepath.Join(p.dir, e.Name())); err != nil {
			p.t.Fatal(err)
		}
	}
	return out
}

// has wants exactly these bundles as whole files, to the byte.
func (p *post) has(want ...[]byte) {
	p.t.Helper()
	got := p.files()
	if len(got) != len(want) {
		p.t.Errorf("%d files, want %d; %+v", len(got), len(want), p.Counts())
	}
	for _, file := range want {
		s, err := bundle.Inspect(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			p.t.Fatal(err)
		}
		if !bytes.Equal(got[FileName(&s)], file) {
			p.t.Errorf("%s has %d bytes, want the %d that were sent", FileName(&s), len(got[FileName(&s)]), len(file))
		}
	}
}

func (p *post) status() Report {
	p.t.Helper()
	p.Settle()
	r, err := Status(p.dir)
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

func pins(maker redoubt.NodeName, key ed25519.PublicKey) map[redoubt.NodeName]ed25519.PublicKey {
	return map[redoubt.NodeName]ed25519.PublicKey{maker: key}
}
