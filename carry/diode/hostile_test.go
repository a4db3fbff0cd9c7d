package diode

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/bundle"
	"redoubt/faketime"
)

// staged are the transfers that lie on disk.
func (p *post) staged() (names []string) {
	p.t.Helper()
	entries, err := os.ReadDir(filepath.Join(p.dir, stageDir))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestWithoutTheKeyNothingIsLookedAt(t *testing.T) {
	file := newBundle(t, 1, 1<<20)
	for name, key := range map[string][]byte{"another key": bytes.Repeat([]byte{1}, KeyBytes), "none": nil} {
		p := newPost(t)
		q := plan()
		q.Key = key
		took := send(t, newRoad(1, p.Take), q, file)
		if c := p.Counts(); c.Foreign != took.Datagrams || c.Datagrams != 0 || len(p.staged()) != 0 {
			t.Errorf("%s: %+v, staged %v", name, c, p.staged())
		}
	}
}

func TestWithoutAKeyAForgerHoldsUpABundleAndAltersNone(t *testing.T) {
	file := newBundle(t, 1, 9<<20)
	p := newPost(t, func(o *Options) { o.Key = nil })
	open, err := newTagger(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 4))
	w := newRoad(1, p.Take)
	w.loss = 0.05
	w.forge = func(b []byte) []byte { // as the sender would, but for the content
		if r.IntN(50) > 0 {
			return nil
		}
		f := bytes.Clone(b)
		f[headBytes+r.IntN(len(f)-headBytes)] ^= 1
		copy(f, open.tag(f))
		return f
	}
	q := plan()
	q.Key = nil
	send(t, w, q, file)
	p.Settle()
	if c := p.Counts(); c.Spoiled == 0 || len(p.files()) != 0 {
		t.Fatalf("the forger spoiled nothing, so nothing is tried here: %+v", c)
	}
	w.forge = nil
	before, blocks := p.Counts().Spoiled, int64(len(loadOf(t, q, file).blocks))
	send(t, w, q, file) // a block that was begun anew while the forger spoke may be spoiled once more, and what is behind that is true
	p.Settle()
	if again := p.Counts().Spoiled - before; again > blocks {
		t.Errorf("%d blocks were spoiled when nobody forged any more, want at most each of %d once", again, blocks)
	}
	send(t, w, q, file)
	p.has(file)
}

func TestAManifestThatWasForgedInPartIsForgotten(t *testing.T) {
	file := newBundle(t, 1, 150<<20) // 38 leaves: two pieces
	p := newPost(t, func(o *Options) { o.Key = nil })
	open, err := newTagger(nil)
	if err != nil {
		t.Fatal(err)
	}
	q := plan()
	q.Key = nil
	l := loadOf(t, q, file)
	if l.pieces() != 2 {
		t.Fatalf("%d pieces", l.pieces())
	}
	piece := func(i, of int, payload []byte) {
		p.Take(open.append(nil, &packet{Kind: kindManifest, Transfer: l.id, Block: uint32(of), Index: uint16(i), Payload: payload}))
	}
	piece(0, 2, []byte("forged"))
	piece(1, 2, l.piece(1))
	if len(p.staged()) != 0 {
		t.Fatal("a forged manifest began a transfer")
	}
	piece(0, 2, l.piece(0))
	piece(0, 3, []byte("forged")) // another number of pieces: what came before is forgotten, too
	piece(0, 2, l.piece(0))
	piece(1, 2, l.piece(1))
	if len(p.staged()) != 1 {
		t.Error("the manifest was not taken when it came whole")
	}
}

func TestOnlyWhatAMakerSignedIsStaged(t *testing.T) {
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32))
	own := makerKey.Public().(ed25519.PublicKey)
	file := newBundle(t, 1, 10_000)
	for _, c := range []struct {
		name   string
		file   []byte
		makers map[redoubt.NodeName]ed25519.PublicKey
		taken  bool
	}{
		{"its own", file, pins("secret", own), true},
		{"no maker is named", file, nil, true},
		{"another maker", file, pins("topsecret", own), false},
		{"nobody", file, map[redoubt.NodeName]ed25519.PublicKey{}, false},
		{"another key", file, pins("secret", other.Public().(ed25519.PublicKey)), false},
		{"no key", file, pins("secret", nil), false},
		{"a forger's under its name", sealBundle(t, headOf(t, file), other, 10_000), pins("secret", own), false},
	} {
		p := newPost(t, func(o *Options) { o.Makers = c.makers })
		send(t, newRoad(1, p.Take), plan(), c.file)
		if got := len(p.files()) == 1; got != c.taken || len(p.staged()) != 0 {
			t.Errorf("%s: taken is %v, staged %v", c.name, got, p.staged())
		}
		if !c.taken && p.told(Refused) != 1 {
			t.Errorf("%s: it was refused %d times, want it told once", c.name, p.told(Refused))
		}
	}
}

func TestOnlyWhatIsForTheNodeIsStaged(t *testing.T) {
	for node, want := range map[redoubt.NodeName]bool{"": true, "outpost": true, "topsecret": false} {
		p := newPost(t, func(o *Options) { o.For = node })
		send(t, newRoad(1, p.Take), plan(), newBundle(t, 1, 10_000))
		if got := len(p.files()) == 1; got != want || len(p.staged()) != 0 {
			t.Errorf("for %q: taken is %v, staged %v", node, got, p.staged())
		}
	}
}

// TestWhoHasTheKeyDoesNotFillTheLog: each datagram is the whole of a manifest that does not read.
func TestWhoHasTheKeyDoesNotFillTheLog(t *testing.T) {
	p := newPost(t)
	tags, err := newTagger(p.o.Key)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint32(1000) {
		raw := binary.BigEndian.AppendUint32(bytes.Repeat([]byte{0xff}, 600), i)
		p.Take(tags.append(nil, &packet{Kind: kindManifest, Transfer: idOf(raw), Block: 1, Payload: raw}))
	}
	if n := p.told(Refused); n == 0 || n > maxAlarms {
		t.Errorf("%d alarms, want some and at most %d", n, maxAlarms)
	}
	p.alarms.say(Event{Kind: Fault})
	if p.told(Fault) != 1 {
		t.Error("nobody is told of a disk that fails meanwhile")
	}
	p.Stage.Close()
	left := 0
	for _, e := range p.events {
		left += e.Count
	}
	if n := p.told(Refused) + left; n != 1000 {
		t.Errorf("%d alarms were told, or counted, of 1000", n)
	}
}

// TestAlarmsThatWereLeftOutAreCounted, when the minute is over, also where nothing follows; the next minute begins with the next alarm.
func TestAlarmsThatWereLeftOutAreCounted(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		var told []string
		a := alarms{tell: func(e Event) { told = append(told, fmt.Sprint(e.Kind, " ", e.Count)) }}
		alarm := func(n int) {
			for range n {
				a.say(Event{Kind: Spoiled})
			}
		}
		wants := func(what string, alarms, events int, last string) {
			t.Helper()
			synctest.Wait()
			a.mu.Lock()
			defer a.mu.Unlock()
			n := 0
			for _, s := range told {
				if s == "spoiled 0" {
					n++
				}
			}
			if n != alarms || len(told) != events || told[len(told)-1] != last {
				t.Fatalf("%s: %d alarms, %d events, the last %q", what, n, len(told), told[len(told)-1])
			}
		}
		alarm(maxAlarms)
		time.Sleep(time.Hour)
		wants("as many as there may be", maxAlarms, maxAlarms, "spoiled 0")
		alarm(maxAlarms)
		time.Sleep(10 * time.Second)
		alarm(7)
		wants("more than that", 2*maxAlarms, 2*maxAlarms, "spoiled 0")
		time.Sleep(50 * time.Second)
		wants("a minute later", 2*maxAlarms, 2*maxAlarms+1, "left-out 7")
		alarm(maxAlarms + 1)
		a.say(Event{Kind: Whole})
		time.Sleep(time.Hour)
		wants("the next", 3*maxAlarms, 3*maxAlarms+3, "left-out 1")
		alarm(maxAlarms + 2)
		a.end()
		a.end()
		wants("before it is over, at the end", 4*maxAlarms, 4*maxAlarms+4, "left-out 2")
	})
}

func headOf(t testing.TB, file []byte) bundle.Head {
	t.Helper()
	s, err := bundle.Inspect(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	return s.Head
}

func TestNoMoreIsHeldThanIsAllowed(t *testing.T) {
	file := newBundle(t, 1, 1<<20)
	takes := loadOf(t, plan(), file).holds()
	for _, c := range []struct {
		hold  int64
		taken bool
	}{{takes, true}, {takes - 1, false}} {
		p := newPost(t, func(o *Options) { o.Hold = c.hold })
		send(t, newRoad(1, p.Take), plan(), file)
		if got := len(p.files()) == 1; got != c.taken {
			t.Errorf("%d bytes where %d are needed: taken is %v", c.hold, takes, got)
		}
		if i := slices.IndexFunc(p.events, func(e Event) bool { return e.Kind == Refused }); !c.taken && (i < 0 || p.events[i].Needs != takes || p.events[i].Sheet.Maker != "secret") {
			t.Errorf("of a bundle that takes %d bytes it is told: %+v", takes, p.events)
		}
	}
	// Of two bundles the second waits until the first is whole.
	p := newPost(t, func(o *Options) { o.Hold = takes + takes/2 })
	second := newBundle(t, 2, 1<<20)
	first := record(t, plan(), file)
	for _, b := range first[:300] {
		p.Take(b)
	}
	send(t, newRoad(1, p.Take), plan(), second)
	if p.told(Refused) != 1 || len(p.staged()) != 1 {
		t.Errorf("refused %d, staged %v", p.told(Refused), p.staged())
	}
	for _, b := range first[300:] {
		p.Take(b)
	}
	p.Settle()
	send(t, newRoad(1, p.Take), plan(), second)
	p.has(file, second)
}

func TestSoManyBundlesAreOnTheirWayAtOnceAndTheStaleGiveWay(t *testing.T) {
	p := newPost(t)
	for n := range uint64(MaxStaged + 1) {
		for _, b := range record(t, plan(), newBundle(t, n+1, 50_000))[:8] { // the manifest, and a few shards
			p.Take(b)
		}
	}
	if got := len(p.staged()); got != MaxStaged || p.told(Refused) != 1 {
		t.Fatalf("%d are on their way, %d were refused", got, p.told(Refused))
	}
	old := p.staged()[0]
	past := time.Now().Add(-staleAfter - time.Minute)
	p.Stage.Close()
	if err := os.Chtimes(filepath.Join(p.dir, stageDir, old, "marks"), past, past); err != nil {
		t.Fatal(err)
	}
	p.open()
	late := newBundle(t, 1000, 1000)
	send(t, newRoad(1, p.Take), plan(), late)
	p.has(late)
	if p.told(Given) != 1 {
		t.Errorf("%d gave way", p.told(Given))
	}
	if _, err := os.Stat(filepath.Join(p.dir, stageDir, old)); !os.IsNotExist(err) {
		t.Errorf("the stale one is still there: %v", err)
	}
}

func TestWhatWaitsForItsManifestIsBounded(t *testing.T) {
	p := newPost(t)
	tags, err := newTagger(sharedKey)
	if err != nil {
		t.Fatal(err)
	}
	take := func(x packet) {
		r := rand.Uint64()
		binary.BigEndian.PutUint64(x.Transfer[:], r)
		p.Take(tags.append(nil, &x))
	}
	for range 3000 {
		take(packet{Kind: kindShard, Payload: make([]byte, 1152)})
		take(packet{Kind: kindManifest, Block: maxPieces, Payload: make([]byte, 1152)})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Stage.mu.Lock()
	defer p.Stage.mu.Unlock()
	if n := len(p.early.packets); p.early.bytes > maxEarly || n > maxEarly/1152 || n < 100 {
		t.Errorf("%d shards wait, %d bytes", n, p.early.bytes)
	}
	if n := len(p.pending); n > maxPending || n < 4 {
		t.Errorf("%d manifests wait", n)
	}
	if len(p.staged()) != 0 {
		t.Error("something was staged")
	}
}

func TestShardsThatDoNotFitTheirTransferChangeNothing(t *testing.T) {
	file := newBundle(t, 1, 1<<20)
	p := newPost(t)
	l := loadOf(t, plan(), file)
	tags, err := newTagger(sharedKey)
	if err != nil {
		t.Fatal(err)
	}
	p.Take(tags.append(nil, &packet{Kind: kindManifest, Transfer: l.id, Block: 1, Payload: l.piece(0)}))
	if p.told(Began) != 1 {
		t.Fatal("it did not begin")
	}
	for _, x := range []packet{
		{Block: 1, Payload: make([]byte, 1152)},
		{Block: maxBlocks - 1, Payload: make([]byte, 1152)},
		{Index: uint16(l.shards(0)), Payload: make([]byte, 1152)},
		{Index: 65535, Payload: make([]byte, 1152)},
		{Payload: make([]byte, 1088)},
		{Payload: make([]byte, 1216)},
	} {
		x.Kind, x.Transfer = kindShard, l.id
		p.Take(tags.append(nil, &x))
	}
	if c := p.Counts(); c.Shards != 0 || c.Foreign != 6 {
		t.Errorf("%+v", c)
	}
	send(t, newRoad(1, p.Take), plan(), file)
	p.has(file)
}

func TestOneProcessReceivesIntoAFolder(t *testing.T) {
	p := newPost(t)
	if _, err := Open(p.dir, p.o); redoubt.KindOf(err) != redoubt.Unavailable {
		t.Errorf("a second one: %v", err)
	}
	p.again()
}

func TestAFileOfTheSameNameStays(t *testing.T) {
	file := newBundle(t, 1, 1000)
	h := headOf(t, file)
	s := bundle.Sheet{Head: h}
	l := loadOf(t, plan(), file)
	s.ID = l.ID
	p := newPost(t)
	path := filepath.Join(p.dir, FileName(&s))
	if err := os.WriteFile(path, []byte("another's"), 0o600); err != nil {
		t.Fatal(err)
	}
	send(t, newRoad(1, p.Take), plan(), file)
	p.Settle()
	if got, err := os.ReadFile(path); err != nil || string(got) != "another's" || p.told(Fault) != 1 {
		t.Fatalf("the file is %q, %v; %d faults told", got, err, p.told(Fault))
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	p.again()
	p.has(file)
}

func TestPlansAreWithinTheirLimits(t *testing.T) {
	for name, change := range map[string]func(*Plan){
		"no rate":               func(p *Plan) { p.Rate = 0 },
		"too slow":              func(p *Plan) { p.Rate = MinRate - 1 },
		"too fast":              func(p *Plan) { p.Rate = MaxRate + 1 },
		"too small":             func(p *Plan) { p.Datagram = MinDatagram - 1 },
		"too large":             func(p *Plan) { p.Datagram = MaxDatagram + 1 },
		"less than no loss":     func(p *Plan) { p.Loss = -0.01 },
		"more than half lost":   func(p *Plan) { p.Loss = MaxLoss + 0.01 },
		"no block":              func(p *Plan) { p.Interleave = 0 },
		"too many blocks":       func(p *Plan) { p.Interleave = MaxInterleave + 1 },
		"no pass":               func(p *Plan) { p.Passes = 0 },
		"too many passes":       func(p *Plan) { p.Passes = MaxPasses + 1 },
		"bare without a key":    func(p *Plan) { p.Bare, p.Key = true, nil },
		"a key of another size": func(p *Plan) { p.Key = make([]byte, KeyBytes-1) },
	} {
		p := plan()
		change(&p)
		if _, err := NewSender(&bytes.Buffer{}, p); redoubt.KindOf(err) != redoubt.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	file := newBundle(t, 1, 5<<20)
	for _, p := range []Plan{{MinRate, MinDatagram, 0, 1, 1, nil, false}, {MaxRate, MaxDatagram, MaxLoss, MaxInterleave, 2, sharedKey, false}, {MaxRate, MinDatagram + 63, MaxLoss, 3, 1, nil, false}} {
		if l := loadOf(t, p, file); l.holds() < int64(len(file)) {
			t.Errorf("%+v: it takes %d bytes", p, l.holds())
		}
		if p.Rate == MinRate {
			continue // it would take an hour
		}
		q := newPost(t, func(o *Options) { o.Key = p.Key })
		send(t, newRoad(1, q.Take), p, file)
		q.has(file)
	}
}

func TestParityIsEnoughButForOneBlockInAMillion(t *testing.T) {
	for _, c := range []struct {
		data int
		loss float64
		most int // of parity
	}{{3641, 0, 0}, {1000, 0.1, 168}, {3641, 0.1, 520}, {57, 0.1, 26}, {3641, 0.01, 70}, {1, 0.5, 20}, {9363, 0.5, 10_500}} {
		m := parityFor(c.data, c.loss)
		if m > c.most || m > maxParity(c.data) {
			t.Errorf("%d shards at %g: %d parity, want %d at most", c.data, c.loss, m, c.most)
		}
		if c.loss > 0 && (lostMore(c.data+m, m, c.loss) > maxBlockLoss || lostMore(c.data+m-1, m-1, c.loss) <= maxBlockLoss) {
			t.Errorf("%d shards at %g: %d parity is not the least that is enough", c.data, c.loss, m)
		}
	}
}
