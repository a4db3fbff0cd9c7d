package replica

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"redoubt"
	"redoubt/bundle"
	"redoubt/keys"
	"redoubt/label"
)

// bare is a node that holds nothing and counts what it is given.
type bare struct {
	redoubt.Journal
	key     ed25519.PrivateKey
	applied int
	applies int
	took    redoubt.BundleTaking
	life    [16]byte
}

func (b *bare) Apply(_ context.Context, _ redoubt.NodeName, in []redoubt.Received) ([]redoubt.Refusal, error) {
	b.applied += len(in)
	b.applies++
	return nil, nil
}
func (b *bare) Fetch(context.Context, redoubt.NodeName, string, []redoubt.Stamp) ([]redoubt.JournalItem, error) {
	return nil, nil
}
func (b *bare) Permit(context.Context, redoubt.Credential, redoubt.Action, redoubt.NodeName) (redoubt.Link, error) {
	return redoubt.Link{Key: b.key.Public().(ed25519.PublicKey)}, nil
}
func (b *bare) Refuse(_ context.Context, _ redoubt.Credential, _ redoubt.Action, _ redoubt.NodeName, err error) error {
	return err
}
func (b *bare) Made(context.Context, redoubt.NodeName) (m redoubt.BundleMark, err error) {
	return m, nil
}
func (b *bare) Make(context.Context, redoubt.Credential, redoubt.NodeName, redoubt.BundleMark) error {
	return nil
}
func (b *bare) Taken(context.Context, redoubt.NodeName) (redoubt.BundleTaking, error) {
	return b.took, nil
}
func (b *bare) Take(_ context.Context, _ redoubt.Credential, _ redoubt.NodeName, t redoubt.BundleTaking) error {
	b.took = t
	return nil
}
func (b *bare) Ticket(context.Context, redoubt.NodeName, redoubt.JournalSpan) ([]byte, error) {
	return []byte("ticket"), nil
}
func (b *bare) Redeem(context.Context, redoubt.NodeName, []byte) error { return nil }
func (b *bare) Budget(context.Context, redoubt.NodeName, string) (redoubt.LinkBudget, error) {
	return redoubt.LinkBudget{}, nil
}
func (b *bare) Spend(context.Context, redoubt.NodeName, string, int64, int64) error { return nil }
func (b *bare) Acknowledged(context.Context, redoubt.NodeName, string) (uint64, bool, error) {
	return 0, false, nil
}
func (b *bare) Acknowledge(context.Context, redoubt.NodeName, string, uint64) error { return nil }
func (b *bare) Forget(context.Context, redoubt.NodeName) error                      { return nil }
func (b *bare) Life(context.Context) ([16]byte, error)                              { return [16]byte{2}, nil }
func (b *bare) PeerLife(context.Context, redoubt.NodeName) ([16]byte, error)        { return b.life, nil }
func (b *bare) Remember(_ context.Context, _ redoubt.NodeName, life [16]byte) error {
	b.life = life
	return nil
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// post is a bare node with what makes and opens bundles for it.
type post struct {
	*Bundles
	node *bare
	id   *keys.Identity
}

func newPost(t testing.TB) *post {
	t.Helper()
	policy, err := label.Builtin("USA")
	if err != nil {
		t.Fatal(err)
	}
	p := &post{node: &bare{key: ed25519.NewKeyFromSeed(make([]byte, 32))}}
	if p.id, err = keys.NewIdentity(); err != nil {
		t.Fatal(err)
	}
	p.Bundles = NewBundles(BundleOptions{Estate: "example", Node: "outpost", Policy: policy, Journal: p.node, State: p.node, Ledger: p.node, Tickets: p.node,
		Identity: func() (*keys.Identity, error) { return p.id, nil }, Clock: func() time.Time { return noon }, Stage: t.TempDir()})
	return p
}

// wrap makes a bundle whose content is what a hostile maker, which is a peer, signed.
func (p *post) wrap(t testing.TB, kind bundle.Kind, content []byte) []byte {
	t.Helper()
	return p.wrapAs(t, false, kind, content)
}

func (p *post) wrapAs(t testing.TB, tagged bool, kind bundle.Kind, content []byte) []byte {
	t.Helper()
	h := bundle.Head{Tagged: tagged, Kind: kind, Estate: "example", Maker: "secret", Created: noon, Expires: noon.Add(time.Hour),
		To: []bundle.Addressee{{Node: "outpost", Numbering: [16]byte{1}}}}
	if kind == bundle.Journal {
		h.To[0].Serial = 1
	}
	var file bytes.Buffer
	w, err := bundle.NewWriter(&file, h, []keys.Recipient{p.id.Recipient()}, func(m []byte) ([]byte, error) { return ed25519.Sign(p.node.key, m), nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(nil); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// framed puts messages behind one another, with the zeros that follow an end.
func framed(msgs ...[]byte) []byte {
	var out bytes.Buffer
	f := &frameWriter{w: &out}
	for _, m := range msgs {
		if len(m) == 1 && m[0] == msgEnd {
			f.end()
			continue
		}
		f.write(m)
	}
	return out.Bytes()
}

var testManifest = (&manifest{Life: [16]byte{1}}).encode()

// entryOf is an entry of a label set that is well formed, and not signed.
func entryOf(t testing.TB, set string, size int64) []byte {
	t.Helper()
	e := redoubt.JournalEntry{Kind: redoubt.EntryVersion, Stamp: redoubt.Stamp{1}, Label: set, Made: set, Maker: "secret",
		Name: redoubt.ObjectName{Bucket: "reports", Key: "k"}, SizeBytes: size}
	b, err := e.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestContentThatIsNotWellFormedIsRefusedBeforeAnyOfItIsTaken(t *testing.T) {
	p := newPost(t)
	entry := entryOf(t, "S", 4)
	item := func(seq uint64, set string) []byte {
		return items{Set: set, Parcels: []parcel{{Seq: seq, Entry: entry, Custody: []byte{0}, Packing: packedPlain, Content: []byte("1234")}}}.encode()
	}
	start := func(seq uint64, n int64) []byte {
		return begin{Set: "S", Parcel: parcel{Seq: seq, Entry: entry, Custody: []byte{0}, Packing: packedPlain}, Bytes: n}.encode()
	}
	end := []byte{msgEnd}
	good := framed(testManifest, item(1, "S"), mark{"S", []byte("t")}.encode(), end)
	many := [][]byte{testManifest}
	for i := range maxTickets + 2 {
		many = append(many, mark{string(binary.BigEndian.AppendUint16(nil, uint16(i))), []byte("t")}.encode())
	}
	for name, content := range map[string][]byte{
		"nothing":                        nil,
		"no manifest":                    framed(item(1, "S"), end),
		"two manifests":                  framed(testManifest, testManifest, end),
		"a manifest of no life":          framed((&manifest{}).encode(), end),
		"a manifest of another protocol": framed(append([]byte{msgManifest, 2}, testManifest[2:]...), end),
		"a ticket that is too long":      framed((&manifest{Life: [16]byte{1}, Tickets: [][]byte{make([]byte, redoubt.MaxTicketBytes+1)}}).encode(), end),
		"no end":                         framed(testManifest, item(1, "S")),
		"cut in a message":               framed(testManifest, item(1, "S"))[:60],
		"a message of no length":         append(framed(testManifest), 0, 0, 0, 0),
		"a message that is too large":    append(framed(testManifest), binary.BigEndian.AppendUint32(nil, maxFrame+1)...),
		"a message of a session":         framed(testManifest, encodeAck(nil), end),
		"a hello":                        framed(testManifest, hello{Estate: "e", Node: "n"}.encode(), end),
		"numbers out of order":           framed(testManifest, item(2, "S"), item(1, "S"), end),
		"a number twice":                 framed(testManifest, item(1, "S"), item(1, "S"), end),
		"a set that comes again":         framed(testManifest, item(1, "S"), item(2, "U"), item(3, "S"), end),
		"too many sets":                  framed(append(many, end)...),
		"a piece of nothing":             framed(testManifest, appendPiece(nil, 1, []byte("x")), end),
		"a piece of another":             framed(testManifest, start(1, 4), appendPiece(nil, 2, []byte("1234")), end),
		"pieces that are too many":       framed(testManifest, start(1, 4), appendPiece(nil, 1, []byte("12345")), end),
		"pieces that are too few":        framed(testManifest, start(1, 4), appendPiece(nil, 1, []byte("123")), end),
		"a signature beside custodies":   framed(testManifest, items{Set: "S", Signature: make([]byte, 64), Parcels: []parcel{{Seq: 1, Entry: entry, Custody: []byte{0}, Packing: packedPlain, Content: []byte("1234")}}}.encode(), end),
		"an end that says more":          framed(testManifest, []byte{msgEnd, 0}),
		"no zeros behind the end":        good[:len(good)-1],
		"more zeros behind the end":      append(bytes.Clone(good), 0),
		"something behind the end":       append(bytes.Clone(good[:len(good)-1]), 1),
	} {
		_, err := p.ImportBundle(context.Background(), redoubt.Credential{}, bytes.NewReader(p.wrap(t, bundle.Journal, content)), nil)
		var e *redoubt.Error
		if !errors.As(err, &e) || e.Rule != RuleContent || e.Kind != redoubt.Invalid {
			t.Errorf("%s: %v, want it refused by %s", name, err, RuleContent)
		}
		if p.node.applied > 0 || p.node.took.Last != (redoubt.BundleMark{}) || p.node.life != [16]byte{} {
			t.Fatalf("%s: something of it was taken", name)
		}
	}
	_, err := p.ImportBundle(context.Background(), redoubt.Credential{}, bytes.NewReader(p.wrap(t, bundle.Receipt, good)), nil)
	if redoubt.KindOf(err) != redoubt.Invalid || p.node.applied > 0 {
		t.Errorf("a receipt with entries: %v", err)
	}
	if _, err := p.ImportBundle(context.Background(), redoubt.Credential{}, bytes.NewReader(p.wrap(t, bundle.Journal, good)), nil); err != nil {
		t.Errorf("what is well formed: %v", err)
	}
}

// TestWhatLiesInMemoryIsAppliedTogether where a commit has no more of it than its place; all else by so many bytes.
func TestWhatLiesInMemoryIsAppliedTogether(t *testing.T) {
	enc, err := newEncoder(smallWindow)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	for what, one := range map[string]struct {
		n, size int
		packing uint8
		want    int
	}{
		"in memory":                  {4, 3 << 20, packedPlain, 1},
		"unpacked beside it":         {4, 3 << 20, packedZstd, 2},
		"where it counts no more":    {17, gatherApart * 2, packedPlain, 1},
		"at the limit":               {34, gatherApart, packedPlain, 1},
		"where it goes into commits": {34, gatherApart - 1, packedPlain, 2},
		"more than is held":          {9, 3 << 20, packedPlain, 3},
	} {
		entry, content := entryOf(t, "S", int64(one.size)), make([]byte, one.size)
		if one.packing == packedZstd {
			content = enc.EncodeAll(content, nil)
		}
		signed, err := redoubt.SealBatch("secret", [][]byte{entry}, func([]byte) ([]byte, error) { return make([]byte, ed25519.SignatureSize), nil })
		if err != nil {
			t.Fatal(err)
		}
		custody, err := signed[0].AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		p, msgs := newPost(t), [][]byte{testManifest}
		for seq := uint64(1); seq <= uint64(one.n); seq++ {
			msgs = append(msgs, begin{Set: "S", Parcel: parcel{Seq: seq, Entry: entry, Custody: custody, Packing: one.packing}, Bytes: int64(len(content))}.encode())
			for piece := range slices.Chunk(content, bundlePiece) {
				msgs = append(msgs, appendPiece(nil, seq, piece))
			}
		}
		file := p.wrap(t, bundle.Journal, framed(append(msgs, []byte{msgEnd})...))
		if _, err := p.ImportBundle(context.Background(), redoubt.Credential{}, bytes.NewReader(file), nil); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if p.node.applied != one.n || p.node.applies != one.want {
			t.Errorf("%s: %d of %d entries were applied, in %d times, want %d", what, p.node.applied, one.n, p.node.applies, one.want)
		}
	}
}

func TestABombIsRefusedWithinWhatWasSignedFor(t *testing.T) {
	enc, err := newEncoder(maxWholeBytes)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	bomb := enc.EncodeAll(make([]byte, 64<<20), nil)
	for name, size := range map[string]int64{"that says four bytes": 4, "that says what it is": 64 << 20, "at the limit": maxWholeBytes} {
		p := newPost(t)
		m := items{Set: "S", Parcels: []parcel{{Seq: 1, Entry: entryOf(t, "S", size), Custody: []byte{0}, Packing: packedZstd, Content: bomb}}}
		file := p.wrap(t, bundle.Journal, framed(testManifest, m.encode(), []byte{msgEnd}))
		if _, err := p.ImportBundle(context.Background(), redoubt.Credential{}, bytes.NewReader(file), nil); err != nil {
			t.Errorf("a bomb %s: %v, want it refused singly", name, err)
		}
		if p.node.applied != 0 {
			t.Errorf("a bomb %s was handed on", name)
		}
	}
}

// FuzzContent looks for content that makes its reader fall over, or that is taken to an end that it does not have.
func FuzzContent(f *testing.F) {
	entry := entryOf(f, "S", 4)
	m := items{Set: "S", Parcels: []parcel{{Seq: 1, Entry: entry, Custody: []byte{0}, Packing: packedPlain, Content: []byte("1234")}}}
	large := begin{Set: "S", Parcel: parcel{Seq: 2, Entry: entry, Custody: []byte{0}, Packing: packedPlain}, Bytes: 4}
	good := framed(testManifest, m.encode(), large.encode(), appendPiece(nil, 2, []byte("1234")), mark{"S", []byte("t")}.encode(), []byte{msgEnd})
	body := len(bytes.TrimRight(good, "\x00"))
	f.Add(good[:body])
	f.Add(framed(testManifest, []byte{msgEnd})[:len(testManifest)+9])
	p := newPost(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		packer := &packer{journal: p.node, peer: "secret", codecs: new(Codecs)}
		// The zeros behind the end are made for the fuzzer: they are tested above.
		padded := append(bytes.Clone(in), make([]byte, (padBytes-len(in)%padBytes)%padBytes)...)
		scan := &frameReader{r: bytes.NewReader(padded)}
		form := &former{sets: map[string]bool{}}
		msg, err := scan.next()
		if err != nil {
			return
		}
		if _, err := decodeManifest(msg); err != nil {
			return
		}
		for {
			if msg, err = scan.next(); err != nil {
				return
			}
			if form.check(msg) != nil {
				return
			}
			if msg[0] == msgEnd {
				break
			}
		}
		if scan.finish() != nil {
			return
		}
		// What passed is taken without a fault of form.
		again := &frameReader{r: bytes.NewReader(padded)}
		m := &importer{b: p.Bundles, peer: "secret", packer: packer, counts: newCounts(), broken: map[string]bool{}, tickets: map[string][]byte{}}
		if _, err := again.next(); err != nil {
			t.Fatal(err)
		}
		for {
			msg, err := again.next()
			if err != nil {
				t.Fatal(err)
			}
			if msg[0] == msgEnd {
				return
			}
			if err := m.take(context.Background(), msg, again); err != nil {
				t.Fatalf("what was found well formed fails: %v", err)
			}
		}
	})
}

// TestNothingOfABundleStaysInMemoryInClear: neither where it was opened into, nor where that was moved from, whatever becomes of it.
func TestNothingOfABundleStaysInMemoryInClear(t *testing.T) {
	secret := bytes.Repeat([]byte("what must not stay"), 1000)
	m := items{Set: "S", Parcels: []parcel{{Seq: 1, Entry: entryOf(t, "S", int64(len(secret))), Custody: []byte{0}, Packing: packedPlain, Content: secret}}}
	for what, content := range map[string][]byte{
		"taken":   framed(testManifest, m.encode(), []byte{msgEnd}),
		"refused": framed(testManifest, m.encode()),
	} {
		p := newPost(t)
		file := p.wrap(t, bundle.Journal, content)
		for room := len(content); room <= len(file); room += 16 { // in the memory that was there, from too little on
			before := make([]byte, 0, room)
			p.opened, p.node.took, p.node.life = *bytes.NewBuffer(before), redoubt.BundleTaking{}, [16]byte{}
			_, err := p.ImportBundle(context.Background(), redoubt.Credential{}, bytes.NewReader(file), nil)
			if (err == nil) != (what == "taken") {
				t.Fatalf("%s: %v", what, err)
			}
			if p.opened.Len() < len(secret) {
				t.Fatalf("%s: it was not opened into the memory that is looked at", what)
			}
			for where, b := range map[string][]byte{"where it was opened": p.opened.Bytes(), "where that was before": before} {
				if b = b[:cap(b)]; len(bytes.Trim(b, "\x00")) > 0 {
					t.Fatalf("room for %d bytes of %d, %s: something is left %s", room, len(content), what, where)
				}
			}
		}
	}
}
