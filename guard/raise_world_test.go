package guard

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"redoubt"
	"redoubt/bundle"
	"redoubt/keys"
)

// TestMain runs beside the tests what fake time does not bear: the entropy of the cryptographic module is measured by a clock that moves.
func TestMain(m *testing.M) {
	go func() {
		for do := range outside {
			do()
			done <- struct{}{}
		}
	}()
	os.Exit(m.Run())
}

var outside, done = make(chan func()), make(chan struct{})

// inRealTime runs do outside of the caller's bubble.
func inRealTime(do func()) {
	outside <- do
	<-done
}

// lowNode hands over what it is told to hold, by the rules of a RaiseLedger: what the guard has is done with, anything else comes again.
type lowNode struct {
	t      *testing.T
	to     *keys.Identity
	key    ed25519.PrivateKey
	tagged bool // form of its bundles

	mu      sync.Mutex
	news    chan struct{}
	items   []string // not handed over
	pending []string // in the last bundle
	mark    redoubt.BundleMark
	last    redoubt.BundleMark
	void    []uint64
	haves   []uint64            // what the guard said it had, by number
	held    map[uint64][]string // what was in each number that is not void
	said    map[uint64][]uint64 // which others each said to be void
	agains  []uint64            // what was asked for again
	cut     int                 // of the next bundle so many bytes are written before it fails; 0: it does not
	away    error               // what is answered instead
	rotten  uint64              // the number whose content does not read
}

func newLowNode(t *testing.T) *lowNode {
	var id *keys.Identity
	var err error
	if inRealTime(func() { id, err = keys.NewIdentity() }); err != nil {
		t.Fatal(err)
	}
	return &lowNode{t: t, to: id, key: ed25519.NewKeyFromSeed(make([]byte, 32)), news: make(chan struct{}, 100), last: redoubt.BundleMark{Numbering: [16]byte{1}}, held: map[uint64][]string{}, said: map[uint64][]uint64{}}
}

func (n *lowNode) write(items ...string) {
	n.mu.Lock()
	n.items = append(n.items, items...)
	n.mu.Unlock()
	select {
	case n.news <- struct{}{}:
	default: // it is told of enough
	}
}

func (n *lowNode) HandRaise(ctx context.Context, _ redoubt.Credential, peer redoubt.NodeName, have redoubt.BundleMark, w io.Writer) (m redoubt.BundleMark, err error) {
	n.mu.Lock()
	if err := n.handed(have); err != nil {
		defer n.mu.Unlock()
		return m, err
	}
	some := len(n.items) > 0
	n.mu.Unlock()
	for !some {
		select {
		case <-n.news:
		case <-ctx.Done():
			return m, redoubt.NotModified
		}
		n.mu.Lock()
		some = len(n.items) > 0
		n.mu.Unlock()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	items := n.items
	n.items = nil
	return n.make(items, items, n.void, w)
}

// handed takes the guard's word for what it has.
func (n *lowNode) handed(have redoubt.BundleMark) error {
	n.haves = append(n.haves, have.Serial)
	if n.away != nil {
		return n.away
	}
	if n.mark.Serial > 0 && have.ID != n.mark.ID {
		n.items, n.void = append(n.pending, n.items...), append(n.void, n.mark.Serial)
		delete(n.held, n.mark.Serial)
	}
	n.pending, n.mark = nil, redoubt.BundleMark{}
	return nil
}

func (n *lowNode) HandAgain(_ context.Context, _ redoubt.Credential, peer redoubt.NodeName, have redoubt.BundleMark, serial uint64, w io.Writer) (m redoubt.BundleMark, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.handed(have); err != nil {
		return m, err
	}
	n.agains = append(n.agains, serial)
	if serial == n.rotten {
		return m, redoubt.Corrupt
	}
	items, ok := n.held[serial]
	if !ok {
		return m, redoubt.NotFound
	}
	return n.make(items, nil, slices.Concat(n.void, n.said[serial], []uint64{serial}), w)
}

// asked counts what was asked for again.
func (n *lowNode) asked() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.agains)
}

// make makes a bundle of items; pending: what is to come in the next where this one is void.
func (n *lowNode) make(items, pending []string, void []uint64, w io.Writer) (m redoubt.BundleMark, err error) {
	m = redoubt.BundleMark{Numbering: n.last.Numbering, Serial: n.last.Serial + 1, Created: time.Now().UTC().Truncate(time.Second)}
	said := fmt.Sprintf("void%v|%s", void, strings.Join(items, "|"))
	file, id := n.bundle(m, n.last.ID, said)
	m.ID = id
	n.last, n.pending, n.mark = m, pending, m
	n.held[m.Serial], n.said[m.Serial] = items, void
	if n.cut > 0 {
		_, _ = w.Write(file[:n.cut])
		n.cut = 0
		return redoubt.BundleMark{}, redoubt.Unavailable // it was made, and did not come
	}
	if _, err := w.Write(file); err != nil {
		return redoubt.BundleMark{}, err
	}
	return m, nil
}

// bundle makes a genuine one.
func (n *lowNode) bundle(m redoubt.BundleMark, previous [32]byte, said string) (file []byte, id [32]byte) {
	var out bytes.Buffer
	h := bundle.Head{Tagged: n.tagged, Kind: bundle.Journal, Estate: "example", Maker: "low", Created: m.Created, Expires: m.Created.Add(time.Hour),
		To: []bundle.Addressee{{Node: "high", Numbering: m.Numbering, Serial: m.Serial, Previous: previous}}}
	var err error
	inRealTime(func() {
		var w *bundle.Writer
		if w, err = bundle.NewWriter(&out, h, []keys.Recipient{n.to.Recipient()}, func(m []byte) ([]byte, error) { return ed25519.Sign(n.key, m), nil }); err == nil {
			_, err = w.Write([]byte(said))
		}
		if err == nil {
			err = w.Finish(func(of [32]byte) error { id = of; return nil })
		}
	})
	if err != nil {
		n.t.Error(err)
	}
	return out.Bytes(), id
}

// highNode takes bundles as an enclave does: each number once, gaps told apart from what never was.
type highNode struct {
	t  *testing.T
	of *lowNode

	mu    sync.Mutex
	items map[string]bool
	taken []uint64 // in their order
	void  map[uint64]bool
	fails []error // of the next calls
	came  int
}

func newHighNode(t *testing.T, of *lowNode) *highNode {
	return &highNode{t: t, of: of, items: map[string]bool{}, void: map[uint64]bool{}}
}

func (n *highNode) TakeRaise(ctx context.Context, _ redoubt.Credential, r io.Reader) (out redoubt.BundleImport, err error) {
	raw, err := io.ReadAll(r)
	if err != nil {
		return out, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.came++
	if len(n.fails) > 0 {
		if err, n.fails = n.fails[0], n.fails[1:]; err != nil {
			return out, err
		}
	}
	expect := bundle.Expect{Estate: "example", Node: "high", Now: time.Now(), Tagged: true, Key: func(redoubt.NodeName) (ed25519.PublicKey, error) { return n.of.key.Public().(ed25519.PublicKey), nil }}
	v, err := bundle.Verify(ctx, bytes.NewReader(raw), int64(len(raw)), expect, nil)
	if err != nil {
		return out, err
	}
	m := v.Mark("high")
	if slices.Contains(n.taken, m.Serial) {
		return out, redoubt.Exists
	}
	plain, err := v.Open(n.of.to)
	if err != nil {
		return out, err
	}
	said, err := io.ReadAll(plain)
	if err != nil {
		return out, err
	}
	void, items, _ := strings.Cut(string(said), "|")
	for _, s := range strings.Fields(strings.Trim(strings.TrimPrefix(void, "void"), "[]")) {
		var serial uint64
		fmt.Sscan(s, &serial)
		n.void[serial] = true
	}
	for item := range strings.SplitSeq(items, "|") {
		n.items[item] = true
	}
	n.taken = append(n.taken, m.Serial)
	return redoubt.BundleImport{Serial: m.Serial}, nil
}

// serials are the numbers that it took.
func (n *highNode) serials() []uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.taken)
}

// wantAll says that all of it came, and that no number is lacking that ever was anything.
func (n *highNode) wantAll(items ...string) {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, item := range items {
		if !n.items[item] {
			n.t.Errorf("%s did not come", item)
		}
	}
	if len(n.items) != len(items) {
		n.t.Errorf("%d things came, want %d", len(n.items), len(items))
	}
	if len(n.taken) == 0 {
		return
	}
	for serial := uint64(1); serial <= slices.Max(n.taken); serial++ {
		if !slices.Contains(n.taken, serial) && !n.void[serial] {
			n.t.Errorf("number %d is lacking", serial)
		}
	}
}

// road carries bundles to a folder, as the datagrams do: whole, or not at all.
type road struct {
	mu    sync.Mutex
	to    string
	sent  []uint64       // numbers
	fails int            // of the next sendings so many fail
	loses map[uint64]int // by number: so many of its next sendings are lost on the way; 0: of any
	tell  func()
}

func (r *road) Send(_ context.Context, b *Outgoing, _ bool, _ func(context.Context) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fails > 0 {
		r.fails--
		return redoubt.Unavailable
	}
	serial := b.Mark.Serial
	r.sent = append(r.sent, serial)
	if r.loses[serial] > 0 || r.loses[0] > 0 {
		r.loses[serial]--
		r.loses[0]--
		return nil
	}
	raw, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
	if err != nil || r.to == "" {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.to, ".coming"), raw, 0o600); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(r.to, ".coming"), filepath.Join(r.to, fmt.Sprint(serial)+bundleExt)); err != nil {
		return err
	}
	if r.tell != nil {
		r.tell()
	}
	return nil
}

// sends counts how often a number was sent.
func (r *road) sends(serial uint64) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, other := range r.sent {
		if other == serial {
			n++
		}
	}
	return n
}

// feed runs a feeder in dir for a while, and crashes it then: what is on its disk is all that is left.
func feed(t *testing.T, dir string, from *lowNode, over *road, d time.Duration) {
	t.Helper()
	f, err := NewFeeder(FeederOptions{High: "high", Source: from, Dir: dir, Send: over.Send})
	if err != nil {
		t.Fatal(err)
	}
	during(t, d, f.Run)
}

// take runs a taker likewise.
func takeFor(t *testing.T, dir string, to *highNode, d time.Duration) {
	t.Helper()
	k, err := NewTaker(TakerOptions{High: "high", Target: to, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	during(t, d, k.Run)
}

// runs has run go on until stop is called, which says whether it ended well.
func runs(t *testing.T, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func during(t *testing.T, d time.Duration, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	if err := run(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
