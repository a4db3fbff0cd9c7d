package redoubttest_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/bundle"
	"redoubt/label"
	"redoubt/redoubttest"
	"redoubt/replica"
	"redoubt/store"
	"redoubt/store/memory"
)

// office is an enclave that exchanges by file.
type office struct {
	*redoubttest.Stack
	*replica.Bundles
	admin redoubt.Credential
	t     testing.TB
}

// newOffice opens a stack's exchange by file. change may spoil what it stands on.
func newOffice(t testing.TB, s *redoubttest.Stack, change ...func(*replica.BundleOptions)) *office {
	t.Helper()
	policy, err := label.Builtin("USA")
	if err != nil {
		t.Fatal(err)
	}
	o := replica.BundleOptions{Estate: "example", Node: s.Name(), Policy: policy, Journal: s, State: s, Ledger: s, Tickets: s,
		Identity: s.BundleIdentity, Sign: s.SignBundle, Clock: s.Now, Stage: t.TempDir()}
	for _, c := range change {
		c(&o)
	}
	return &office{Stack: s, Bundles: replica.NewBundles(o), admin: s.As(s.Mint("admin", "")), t: t}
}

// linkFor is a link to a peer, with the keys that it is known by.
func linkFor(t testing.TB, s, peer *redoubttest.Stack, bound string) redoubt.Link {
	t.Helper()
	id, err := peer.BundleIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return redoubt.Link{Peer: peer.Name(), Key: peer.JournalKey(), Recipient: id.Recipient().String(), Bound: s.Label(bound)}
}

// joined are stacks, each linked with every other, that exchange by file.
func joined(t testing.TB, bound string, stacks ...*redoubttest.Stack) []*office {
	t.Helper()
	var all []*office
	for _, s := range stacks {
		var links []redoubt.Link
		for _, peer := range stacks {
			if peer != s {
				links = append(links, linkFor(t, s, peer, bound))
			}
		}
		if err := s.SetLinks(context.Background(), links); err != nil {
			t.Fatal(err)
		}
		all = append(all, newOffice(t, s))
	}
	return all
}

func (o *office) export(q redoubt.ExportBundle) ([]byte, redoubt.BundleExport) {
	o.t.Helper()
	var file bytes.Buffer
	said, err := o.ExportBundle(context.Background(), o.admin, q, &file)
	if err != nil {
		o.t.Fatalf("export at %s for %s: %v", o.Name(), q.Peer, err)
	}
	return file.Bytes(), said
}

func (o *office) bundleFor(peer *office) []byte {
	o.t.Helper()
	file, _ := o.export(redoubt.ExportBundle{Peer: peer.Name()})
	return file
}

func (o *office) receiptFor(peer *office) []byte {
	o.t.Helper()
	file, _ := o.export(redoubt.ExportBundle{Peer: peer.Name(), Receipt: true})
	return file
}

func (o *office) take(file []byte) redoubt.BundleImport {
	o.t.Helper()
	said, err := o.ImportBundle(context.Background(), o.admin, bytes.NewReader(file), nil)
	if err != nil {
		o.t.Fatalf("import at %s: %v", o.Name(), err)
	}
	return said
}

// refuses wants a file refused by a rule, with nothing changed by it.
func (o *office) refuses(file []byte, kind redoubt.Kind, rule string) {
	o.t.Helper()
	_, err := o.ImportBundle(context.Background(), o.admin, bytes.NewReader(file), nil)
	var e *redoubt.Error
	if !errors.As(err, &e) || e.Rule != rule || redoubt.KindOf(err) != kind {
		o.t.Errorf("import at %s: got %v, want %v by %q", o.Name(), err, kind, rule)
	}
}

// analyst is somebody's credential at an office's node, at SECRET.
func (o *office) analyst() redoubt.Credential { return o.As(o.Mint("s-analyst", "")) }

func sameFiles(t *testing.T, all ...*office) {
	t.Helper()
	for _, o := range all[1:] {
		same(t, all[0].Stack, o.Stack, all[0].analyst(), o.analyst())
	}
}

func TestTwoNodesExchangeByFilesAlone(t *testing.T) {
	home, device := twoStacks(t)
	all := joined(t, "SECRET", home, device)
	h, d := all[0], all[1]
	who, dev := h.analyst(), d.analyst()
	put(t, home, who, "orders", "advance", "flash")
	put(t, home, who, "large", noise(1, 3<<20), "")
	put(t, home, who, "huge", noise(2, 9<<20), "")
	put(t, home, who, "empty", "", "")
	put(t, device, dev, "orders", "holding", "")
	first := h.bundleFor(d)
	if said := d.take(first); said.Serial != 1 || said.Missing != 0 {
		t.Errorf("the first bundle: %+v", said)
	}
	h.take(d.bundleFor(h)) // what the device has written, and what it took
	sameFiles(t, h, d)

	// What is acknowledged does not go again, and what changed goes as a difference.
	tags := []redoubt.Tag{{Key: "seen", Value: "yes"}}
	if _, err := home.AlterObject(context.Background(), who, redoubt.AlterObject{Name: redoubt.ObjectName{Bucket: "reports", Key: "orders"}, Tags: &tags}); err != nil {
		t.Fatal(err)
	}
	changed := []byte(noise(1, 3<<20))
	copy(changed[1<<20:], bytes.Repeat([]byte("changed"), 1000))
	put(t, home, who, "large", string(changed), "")
	if _, err := home.DeleteObject(context.Background(), who, redoubt.DeleteObject{Name: redoubt.ObjectName{Bucket: "reports", Key: "huge"}}); err != nil {
		t.Fatal(err)
	}
	second, said := h.export(redoubt.ExportBundle{Peer: "outpost"})
	if said.Serial != 2 || len(second) > 96<<10 {
		t.Errorf("the second bundle is %d and has %d bytes for one small change, a tag and a marker", said.Serial, len(second))
	}
	d.take(second)
	sameFiles(t, h, d)
	h.take(d.receiptFor(h))
	if third := h.bundleFor(d); len(third) > 70<<10 {
		t.Errorf("a bundle of nothing has %d bytes", len(third))
	}
}

func TestAReceiptAcknowledgesWhatWasTaken(t *testing.T) {
	home, device := twoStacks(t)
	all := joined(t, "SECRET", home, device)
	h, d := all[0], all[1]
	put(t, home, h.analyst(), "k", noise(3, 1<<20), "")
	first := h.bundleFor(d)
	again := h.bundleFor(d)
	if len(again) < 1<<20 {
		t.Fatal("what nobody has acknowledged is not in the next bundle")
	}
	d.take(first)
	receipt := d.receiptFor(h)
	if said := h.take(receipt); !said.Receipt {
		t.Errorf("the receipt: %+v", said)
	}
	if next := h.bundleFor(d); len(next) > 70<<10 {
		t.Errorf("the bundle after the receipt has %d bytes, want none of what was acknowledged", len(next))
	}
	h.refuses(receipt, redoubt.Exists, bundle.RuleReplayed)
}

func TestAStickThatIsLostRepeatedOrLateIsNoticedAndLosesNothing(t *testing.T) {
	home, device := twoStacks(t)
	all := joined(t, "SECRET", home, device)
	h, d := all[0], all[1]
	var files [][]byte
	for i := range 5 {
		put(t, home, h.analyst(), fmt.Sprintf("k%d", i), noise(uint64(i), 1000), "")
		files = append(files, h.bundleFor(d))
	}
	d.take(files[0])
	if said := d.take(files[3]); said.Missing != 2 || said.Serial != 4 {
		t.Errorf("after two sticks that did not come: %+v, want 2 missing", said)
	}
	d.refuses(files[3], redoubt.Exists, bundle.RuleReplayed)
	d.refuses(files[1], redoubt.Conflict, bundle.RuleReordered)
	d.refuses(files[0], redoubt.Conflict, bundle.RuleReordered)
	if said := d.take(files[4]); said.Missing != 0 {
		t.Errorf("the next one: %+v", said)
	}
	sameFiles(t, h, d)
}

func TestThreeNodesExchangeByFilesAndLinksInAnyOrder(t *testing.T) {
	seeds := uint64(3)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { exchangeInAnyOrder(t, seed) })
	}
}

// exchangeInAnyOrder has three nodes write, and meet by files and links as a seed says, and wants them to agree after two rounds of files.
func exchangeInAnyOrder(t *testing.T, seed uint64) {
	bubble(t, func(t *testing.T) {
		clock := redoubttest.NewClock(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))
		var stacks []*redoubttest.Stack
		for i, name := range []redoubt.NodeName{"secret", "outpost", "ship"} {
			stacks = append(stacks, redoubttest.New(t, redoubttest.Options{Seed: uint64(i + 1), Name: name, Ceiling: "SECRET", Clock: clock}))
		}
		all := joined(t, "SECRET", stacks...)
		who := []redoubt.Credential{all[0].analyst(), all[1].analyst(), all[2].analyst()}
		r := rand.New(rand.NewPCG(8, seed))
		var sticks [][]byte
		var to []int
		for range 150 {
			a, b := r.IntN(3), r.IntN(3)
			clock.Add(time.Second)
			switch n := r.IntN(10); {
			case n < 4:
				size := []int{0, 10, 4000, 40_000, 200_000}[r.IntN(5)]
				put(t, stacks[a], who[a], fmt.Sprintf("k%d", r.IntN(8)), noise(r.Uint64(), size), "")
			case n == 4:
				spoil(t, stacks[a], who[a], r)
			case n < 7 && a != b:
				file, _ := all[a].export(redoubt.ExportBundle{Peer: stacks[b].Name(), Receipt: r.IntN(4) == 0})
				sticks, to = append(sticks, file), append(to, b)
			case n < 9 && len(sticks) > 0: // any stick, perhaps once more, perhaps late
				i := r.IntN(len(sticks))
				_, err := all[to[i]].ImportBundle(context.Background(), all[to[i]].admin, bytes.NewReader(sticks[i]), nil)
				if k := redoubt.KindOf(err); err != nil && k != redoubt.Exists && k != redoubt.Conflict {
					t.Fatal(err)
				}
			case a != b:
				m := meet(stacks[a], stacks[b], r.IntN(3)*(2+r.IntN(12)))
				synctest.Wait()
				m.part()
			}
			if r.IntN(40) == 0 && a != b {
				if err := stacks[a].Forget(context.Background(), stacks[b].Name()); err != nil {
					t.Fatal(err)
				}
			}
		}
		for range 2 {
			for i := range all {
				next := (i + 1) % len(all)
				clock.Add(time.Second)
				all[next].take(all[i].bundleFor(all[next]))
			}
		}
		sameFiles(t, all...)
	})
}

// spoil alters a version that a node shows, or removes it for good, or hides it.
func spoil(t *testing.T, s *redoubttest.Stack, who redoubt.Credential, r *rand.Rand) {
	t.Helper()
	page, err := s.ListVersions(context.Background(), who, redoubt.ListVersions{Bucket: "reports", Max: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if len(page.Versions) == 0 {
		return
	}
	v := page.Versions[r.IntN(len(page.Versions))]
	switch n := r.IntN(4); {
	case n == 0:
		_, err = s.DeleteObject(context.Background(), who, redoubt.DeleteObject{Name: v.Name})
	case n == 1:
		_, err = s.DeleteObject(context.Background(), who, redoubt.DeleteObject{Name: v.Name, ID: v.ID})
	case !v.Marker:
		tags := []redoubt.Tag{{Key: "n", Value: fmt.Sprint(r.IntN(100))}}
		_, err = s.AlterObject(context.Background(), who, redoubt.AlterObject{Name: v.Name, ID: v.ID, Tags: &tags})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestEachHostileBundleIsRefusedByItsRule(t *testing.T) {
	home, device := twoStacks(t)
	all := joined(t, "SECRET", home, device)
	h, d := all[0], all[1]
	put(t, home, h.analyst(), "k", noise(4, 100_000), "")
	good := h.bundleFor(d)
	before := seen(t, device, d.analyst())
	spoil := func(at int, with byte) []byte {
		b := bytes.Clone(good)
		if at < 0 {
			at += len(b)
		}
		b[at] ^= with
		return b
	}
	for _, c := range []struct {
		name string
		file []byte
		kind redoubt.Kind
		rule string
	}{
		{"no bundle", []byte(strings.Repeat("this is a letter ", 20)), redoubt.Invalid, bundle.RuleForm},
		{"nothing", nil, redoubt.Invalid, bundle.RuleTruncated},
		{"of an older format", spoil(9, 1), redoubt.Invalid, bundle.RuleFormat},
		{"truncated", good[:len(good)-1], redoubt.Invalid, bundle.RuleTruncated},
		{"truncated in its head", good[:40], redoubt.Invalid, bundle.RuleTruncated},
		{"longer", append(bytes.Clone(good), 0), redoubt.Invalid, bundle.RuleTruncated},
		{"with another content", spoil(len(good)/2, 1), redoubt.Denied, bundle.RuleSignature},
		{"with another digest", spoil(-80, 1), redoubt.Denied, bundle.RuleSignature},
		{"with another signature", spoil(-1, 1), redoubt.Denied, bundle.RuleSignature},
		{"with another number", spoil(bytes.Index(good, []byte("outpost"))+7+16+7, 2), redoubt.Invalid, bundle.RuleForm},
		{"made later", spoil(bytes.Index(good, []byte("secret"))+6+7, 1), redoubt.Denied, bundle.RuleSignature},
	} {
		t.Run(c.name, func(t *testing.T) {
			d.t = t
			d.refuses(c.file, c.kind, c.rule)
		})
	}
	d.t = t
	d.refuses(d.bundleFor(h), redoubt.Denied, bundle.RuleMaker) // its own
	stranger := redoubttest.New(t, redoubttest.Options{Seed: 9, Name: "secret", Ceiling: "SECRET", Clock: home.Clock})
	if err := stranger.SetLinks(context.Background(), []redoubt.Link{linkFor(t, stranger, device, "SECRET")}); err != nil {
		t.Fatal(err)
	}
	d.refuses(newOffice(t, stranger).bundleFor(d), redoubt.Denied, bundle.RuleSignature)
	other := newOffice(t, home, func(o *replica.BundleOptions) { o.Estate = "elsewhere" })
	d.refuses(other.bundleFor(d), redoubt.Denied, bundle.RuleEstate)
	h.refuses(good, redoubt.Denied, bundle.RuleMaker)

	ship := redoubttest.New(t, redoubttest.Options{Seed: 3, Name: "ship", Ceiling: "SECRET", Clock: home.Clock})
	if err := ship.SetLinks(context.Background(), []redoubt.Link{linkFor(t, ship, home, "SECRET")}); err != nil {
		t.Fatal(err)
	}
	newOffice(t, ship).refuses(good, redoubt.Denied, bundle.RuleRecipient)

	device.Clock.Add(-time.Hour)
	ahead := newOffice(t, home, func(o *replica.BundleOptions) { o.Clock = func() time.Time { return home.Now().Add(6 * time.Minute) } })
	device.Clock.Add(time.Hour)
	d.refuses(ahead.bundleFor(d), redoubt.Unavailable, bundle.RuleAhead)
	short, _ := h.export(redoubt.ExportBundle{Peer: "outpost", Life: time.Minute})
	device.Clock.Add(2 * time.Minute)
	d.refuses(short, redoubt.Expired, bundle.RuleExpired)

	if after := seen(t, device, d.analyst()); len(after) != len(before) {
		t.Errorf("refused bundles changed what the device shows: %q", after)
	}
	if taken, err := device.Taken(context.Background(), "secret"); err != nil || taken.Last != (redoubt.BundleMark{}) {
		t.Errorf("refused bundles are kept as taken: %+v, %v", taken, err)
	}
	d.take(good) // and it was none of them
}

func TestOnlyAnAdministratorCarriesBundles(t *testing.T) {
	home, device := twoStacks(t)
	all := joined(t, "SECRET", home, device)
	h, d := all[0], all[1]
	good := h.bundleFor(d)
	for _, who := range []redoubt.SubjectName{"s-analyst", "officer"} {
		c := d.As(d.Mint(who, ""))
		if _, err := d.ImportBundle(context.Background(), c, bytes.NewReader(good), nil); redoubt.KindOf(err) != redoubt.Denied {
			t.Errorf("import by %s: %v", who, err)
		}
		if _, err := d.ExportBundle(context.Background(), c, redoubt.ExportBundle{Peer: "secret"}, io.Discard); redoubt.KindOf(err) != redoubt.Denied {
			t.Errorf("export by %s: %v", who, err)
		}
	}
	if _, err := d.ExportBundle(context.Background(), d.admin, redoubt.ExportBundle{Peer: "nobody"}, io.Discard); redoubt.KindOf(err) != redoubt.NotFound {
		t.Errorf("export for nobody: %v", err)
	}
}

func TestAnAdministratorIsToldNoCountOfWhatSheDoesNotDominate(t *testing.T) {
	home, device := twoStacks(t)
	all := joined(t, "SECRET", home, device)
	h, d := all[0], all[1]
	put(t, home, h.analyst(), "k", "secret", "")
	put(t, home, h.As(h.Mint("u-analyst", "")), "k", "open", "")
	file, made := h.export(redoubt.ExportBundle{Peer: "outpost"})
	taken := d.take(file)
	for what, counts := range map[string][]redoubt.BundleCount{"export": made.Counts, "import": taken.Counts} {
		if len(counts) != 1 || counts[0].Label != "UNCLASSIFIED" || counts[0].Entries != 1 || counts[0].Bytes != 4 {
			t.Errorf("%s told the administrator %+v", what, counts)
		}
	}
}

func TestABundleTellsNothingOfWhatIsAboveTheBound(t *testing.T) {
	clock := redoubttest.NewClock(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))
	run := func(high int) (shape []string) {
		home := redoubttest.New(t, redoubttest.Options{Seed: 1, Name: "topsecret", Clock: clock})
		device := redoubttest.New(t, redoubttest.Options{Seed: 2, Name: "outpost", Ceiling: "SECRET", Clock: clock})
		all := joined(t, "SECRET", home, device)
		h, d := all[0], all[1]
		low, top := h.analyst(), home.As(home.Mint("ts-analyst", ""))
		for round := range 3 {
			for i := range 40 {
				for range high {
					put(t, home, top, fmt.Sprintf("k%d", i), noise(uint64(i), 3000), "flash")
				}
				put(t, home, low, fmt.Sprintf("k%d", i), fmt.Sprint(round, noise(uint64(i), 2000)), "")
			}
			file := h.bundleFor(d)
			shape = append(shape, fmt.Sprint(len(file)))
			shape = append(shape, frames(t, d, file)...)
			for _, word := range []string{"SECRET", "reports", "s-analyst"} {
				if bytes.Contains(file, []byte(word)) {
					t.Errorf("the file has %q in clear", word)
				}
			}
			d.take(file)
			receipt := d.receiptFor(h)
			shape = append(shape, frames(t, h, receipt)...)
			h.take(receipt)
		}
		return shape
	}
	without, with := run(0), run(3)
	if len(without) < 12 || !slices.Equal(with, without) {
		t.Errorf("with what is above the bound the bundles are %q, and without %q", with, without)
	}
}

// frames opens a bundle and gives the kind and the size of each message in it.
func frames(t *testing.T, at *office, file []byte) (out []string) {
	t.Helper()
	sheet, err := bundle.Inspect(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	link, err := at.Permit(context.Background(), at.admin, redoubt.ActionImportBundle, sheet.Maker)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Verify(context.Background(), bytes.NewReader(file), int64(len(file)), bundle.Expect{Estate: "example", Node: at.Name(), Now: at.Now(),
		Key: func(redoubt.NodeName) (ed25519.PublicKey, error) { return link.Key, nil }}, nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := at.BundleIdentity()
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	for {
		n := binary.BigEndian.Uint32(plain)
		out = append(out, fmt.Sprintf("%c %d", plain[4], n))
		if plain[4] == 'e' {
			return append(out, fmt.Sprint(len(plain)))
		}
		plain = plain[4+n:]
	}
}

// fragile is an engine of which one commit fails: before it has done anything, or after.
type fragile struct {
	store.Engine
	left atomic.Int64 // commits until then; negative: none fails
	late bool
}

var errFragile = errors.New("the disk is gone")

func (f *fragile) Commit(ctx context.Context, b *store.Batch) error {
	if f.left.Add(-1) != 0 {
		return f.Engine.Commit(ctx, b)
	}
	if f.late {
		if err := f.Engine.Commit(ctx, b); err != nil {
			return err
		}
	}
	return errFragile
}

func TestAnImportThatIsKilledAtAnyWriteAndBegunAgainEndsRight(t *testing.T) {
	for _, late := range []bool{false, true} {
		failed := 0
		for at := int64(1); ; at++ {
			clock := redoubttest.NewClock(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))
			home := redoubttest.New(t, redoubttest.Options{Seed: 1, Name: "secret", Ceiling: "SECRET", Clock: clock})
			disk := &fragile{Engine: memory.Open(), late: late}
			disk.left.Store(-1)
			device := redoubttest.New(t, redoubttest.Options{Seed: 2, Name: "outpost", Ceiling: "SECRET", Clock: clock, Engine: disk})
			all := joined(t, "SECRET", home, device)
			h, d := all[0], all[1]
			put(t, home, h.As(h.Mint("u-analyst", "")), "open", "below", "")
			for i := range 3 {
				put(t, home, h.analyst(), "k", noise(7, 20_000)+fmt.Sprint(i), "")
			}
			put(t, home, h.analyst(), "large", noise(6, 1<<20), "")
			put(t, device, d.analyst(), "mine", "of the device", "")
			file := h.bundleFor(d)
			disk.left.Store(at)
			_, err := d.ImportBundle(context.Background(), d.admin, bytes.NewReader(file), nil)
			over := disk.left.Load() > 0
			disk.left.Store(-1)
			if err != nil {
				failed++
				_, err = d.ImportBundle(context.Background(), d.admin, bytes.NewReader(file), nil)
				if err != nil && !(late && redoubt.KindOf(err) == redoubt.Exists) { // it had been taken whole
					t.Fatalf("after a failure of write %d: %v", at, err)
				}
			}
			disk.left.Store(at)
			var back bytes.Buffer
			_, err = d.ExportBundle(context.Background(), d.admin, redoubt.ExportBundle{Peer: "secret"}, &back)
			disk.left.Store(-1)
			if err != nil {
				h.refuses(back.Bytes(), redoubt.Invalid, bundle.RuleTruncated)
				back.Reset()
				back.Write(d.bundleFor(h))
			}
			h.take(back.Bytes())
			sameFiles(t, h, d)
			if next := h.bundleFor(d); len(next) > 70<<10 {
				t.Errorf("after a failure of write %d the receipt acknowledged nothing: the next bundle has %d bytes", at, len(next))
			}
			home.Stop()
			device.Stop()
			if over {
				break
			}
		}
		if failed < 5 {
			t.Errorf("only %d writes failed: the import was not looked at", failed)
		}
	}
}

func TestAFileThatEndsWhileItComesChangesNothing(t *testing.T) {
	home, device := twoStacks(t)
	all := joined(t, "SECRET", home, device)
	h, d := all[0], all[1]
	put(t, home, h.analyst(), "k", noise(4, 30_000), "")
	file := h.bundleFor(d)
	for at := 0; at < len(file); at += 1 + len(file)/50 {
		r := io.MultiReader(bytes.NewReader(file[:at]), iotest.ErrReader(errFragile))
		if _, err := d.ImportBundle(context.Background(), d.admin, r, nil); !errors.Is(err, errFragile) {
			t.Fatalf("a file that fails at %d: %v", at, err)
		}
		d.refuses(file[:at], redoubt.Invalid, bundle.RuleTruncated)
	}
	if got := seen(t, device, d.analyst()); len(got) != 0 {
		t.Errorf("the device shows %q", got)
	}
	d.take(file)
	sameFiles(t, h, d)
}

func TestANodeThatLostItsStateIsSentEverythingAgain(t *testing.T) {
	home, device := twoStacks(t)
	all := joined(t, "SECRET", home, device)
	h, d := all[0], all[1]
	for i := range 3 {
		put(t, home, h.analyst(), "k", fmt.Sprint("version ", i, noise(5, 5000)), "")
	}
	old := h.bundleFor(d)
	d.take(old)
	oldReceipt := d.receiptFor(h)
	h.take(oldReceipt)
	late := d.receiptFor(h) // on a stick that is found when all is over

	// The same name and keys of people, and nothing else of what it was.
	home.Clock.Add(time.Minute)
	fresh := redoubttest.New(t, redoubttest.Options{Seed: 2, Name: "outpost", Ceiling: "SECRET", Clock: home.Clock})
	for _, x := range [][2]*redoubttest.Stack{{home, fresh}, {fresh, home}} {
		if err := x[0].SetLinks(context.Background(), []redoubt.Link{linkFor(t, x[0], x[1], "SECRET")}); err != nil {
			t.Fatal(err)
		}
	}
	f := newOffice(t, fresh)
	put(t, home, h.analyst(), "k", "version 3 "+noise(5, 5000), "")
	f.take(h.bundleFor(f)) // of it only the last version, against a base that is not there
	if got := seen(t, fresh, f.analyst()); len(got) != 0 {
		t.Fatalf("the fresh node shows %d versions of a bundle that was not made for it: was the base not used?", len(got))
	}
	h.take(f.bundleFor(h))
	h.refuses(late, redoubt.Conflict, bundle.RuleReplayed)
	f.take(h.bundleFor(f))
	sameFiles(t, h, f)
	h.take(f.receiptFor(h))
	h.refuses(oldReceipt, redoubt.Conflict, bundle.RuleReordered)
	h.take(f.receiptFor(h))
	if next := h.bundleFor(f); len(next) > 70<<10 {
		t.Errorf("the bundle after the receipt has %d bytes", len(next))
	}
}

// twin is a ledger as it stood before: that of a state that was copied.
type twin struct {
	redoubt.BundleLedger
	made redoubt.BundleMark
}

func (l twin) Made(context.Context, redoubt.NodeName) (redoubt.BundleMark, error) { return l.made, nil }

func (l twin) Make(context.Context, redoubt.Credential, redoubt.NodeName, redoubt.BundleMark) error {
	return nil
}

func TestAMakerWhoseStateWasCopiedIsNoticed(t *testing.T) {
	home, device := twoStacks(t)
	all := joined(t, "SECRET", home, device)
	h, d := all[0], all[1]
	d.take(h.bundleFor(d))
	then, err := home.Made(context.Background(), "outpost")
	if err != nil {
		t.Fatal(err)
	}
	d.take(h.bundleFor(d))
	copied := newOffice(t, home, func(o *replica.BundleOptions) { o.Ledger = twin{home, then} })
	d.refuses(copied.bundleFor(d), redoubt.Conflict, bundle.RuleChain)
	then.Serial++ // it made one more that nobody imported
	then.ID[0] ^= 1
	d.refuses(newOffice(t, home, func(o *replica.BundleOptions) { o.Ledger = twin{home, then} }).bundleFor(d), redoubt.Conflict, bundle.RuleChain)
	anew, said := h.export(redoubt.ExportBundle{Peer: "outpost", Anew: true})
	if said.Serial != 1 {
		t.Errorf("numbers that begin anew begin at %d", said.Serial)
	}
	d.take(anew)
}

func TestWhatIsNotTakenNowIsNotAcknowledgedAndComesAgain(t *testing.T) {
	start := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	home := redoubttest.New(t, redoubttest.Options{Seed: 1, Name: "secret", Ceiling: "SECRET", Clock: redoubttest.NewClock(start)})
	device := redoubttest.New(t, redoubttest.Options{Seed: 2, Name: "outpost", Ceiling: "SECRET", Clock: redoubttest.NewClock(start)})
	all := joined(t, "SECRET", home, device)
	d := all[1]
	h := newOffice(t, home, func(o *replica.BundleOptions) { o.Clock = device.Now }) // the bundles' dates are not what is looked at
	who := h.analyst()
	put(t, home, who, "before", "in time", "")
	d.take(h.bundleFor(d))
	h.take(d.receiptFor(h))
	put(t, home, who, "now", "in time", "")
	home.Clock.Add(10 * time.Minute)
	put(t, home, who, "later", noise(1, 200_000), "")
	d.take(h.bundleFor(d))
	if got := seen(t, device, d.analyst()); len(got) != 2 {
		t.Fatalf("the device shows %d versions, want those in time", len(got))
	}
	h.take(d.receiptFor(h))
	device.Clock.Add(10 * time.Minute)
	again := h.bundleFor(d)
	if len(again) < 200_000 {
		t.Fatal("what was not taken is not in the next bundle")
	}
	d.take(again)
	sameFiles(t, h, d)
}

func TestWhatLacksItsBaseComesAgainAsItIs(t *testing.T) {
	home, device := twoStacks(t)
	all := joined(t, "SECRET", home, device)
	h, d := all[0], all[1]
	who, dev := h.analyst(), d.analyst()
	put(t, home, who, "map", noise(1, 100_000), "")
	put(t, home, who, "small", noise(2, 10_000), "")
	d.take(h.bundleFor(d))
	h.take(d.receiptFor(h))
	// The device removes both for good; its home does not hear of it.
	page, err := device.ListVersions(context.Background(), dev, redoubt.ListVersions{Bucket: "reports", Max: 10})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range page.Versions {
		if _, err := device.DeleteObject(context.Background(), dev, redoubt.DeleteObject{Name: v.Name, ID: v.ID}); err != nil {
			t.Fatal(err)
		}
	}
	put(t, home, who, "map", noise(1, 100_000)+"changed", "")
	put(t, home, who, "small", noise(2, 10_000)+"changed", "")
	second := h.bundleFor(d)
	if len(second) > 70<<10 {
		t.Fatalf("a difference of 14 bytes has %d bytes", len(second))
	}
	d.take(second)
	if got := seen(t, device, dev); len(got) != 0 {
		t.Fatalf("the device shows %d versions without their bases", len(got))
	}
	h.take(d.receiptFor(h))
	third := h.bundleFor(d)
	d.take(third)
	if got := seen(t, device, dev); len(got) != 2 {
		t.Errorf("the device shows %d versions, want both that came again", len(got))
	}
	h.take(d.bundleFor(h)) // the removals too
	sameFiles(t, h, d)
	put(t, home, who, "map", noise(1, 100_000)+"changed again", "")
	if fourth := h.bundleFor(d); len(fourth) > 70<<10 {
		t.Errorf("once nothing is lacking, a difference of 14 bytes has %d bytes", len(fourth))
	}
}

func TestNotesTravelInBundlesAndReceipts(t *testing.T) {
	home, device := twoStacks(t)
	all := joined(t, "SECRET", home, device)
	d := all[1]
	say := 0
	h := newOffice(t, home, func(o *replica.BundleOptions) {
		o.Notes = func(_ context.Context, peer redoubt.NodeName) ([]replica.Note, error) {
			say++
			return []replica.Note{{Kind: "lease", Body: []byte(fmt.Sprint(peer, say))}}, nil
		}
	})
	var heard []string
	d = newOffice(t, device, func(o *replica.BundleOptions) {
		o.Noted = func(_ context.Context, peer redoubt.NodeName, n replica.Note) error {
			heard = append(heard, fmt.Sprintf("%s: %s %s", peer, n.Kind, n.Body))
			return nil
		}
	})
	put(t, home, h.analyst(), "k", "x", "")
	d.take(h.bundleFor(d))
	d.take(h.receiptFor(d))
	if want := []string{"secret: lease outpost1", "secret: lease outpost2"}; !slices.Equal(heard, want) {
		t.Errorf("heard %q, want %q", heard, want)
	}
}
