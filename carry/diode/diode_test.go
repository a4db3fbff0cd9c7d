package diode

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"redoubt"
	"redoubt/bundle"
)

func TestABundleArrivesWholeThoughATenthIsLost(t *testing.T) {
	for _, size := range []int{1, 100 << 10, 4<<20 - 3000, 9 << 20} {
		file := newBundle(t, 1, size)
		for seed := range uint64(3) {
			p := newPost(t)
			w := newRoad(seed, p.Take)
			w.loss = 0.1
			send(t, w, plan(), file)
			p.has(file)
			if n := p.told(Spoiled) + p.told(Refused) + p.told(Fault); n != 0 {
				t.Errorf("%d things went wrong", n)
			}
		}
	}
}

// weather is what a road does in one pass.
func weather(w *road, r *rand.Rand, total int) string {
	w.loss, w.duplicate, w.hold = r.Float64()*0.15, r.Float64()*0.2, r.IntN(2)*r.IntN(300)
	first := w.n
	switch r.IntN(4) {
	case 0: // bursts
		at, long := first+r.IntN(total), 1+r.IntN(total/3)
		w.gone = func(n int) bool { return n >= at && n < at+long }
	case 1: // a late start
		from := first + r.IntN(total)
		w.gone = func(n int) bool { return n < from }
	case 2: // the tail is cut off
		to := first + r.IntN(total)
		w.gone = func(n int) bool { return n >= to }
	default:
		w.gone = nil
	}
	return fmt.Sprintf("loss %.2f, %v held back", w.loss, w.hold)
}

// forger makes datagrams of those that it sees, without the key.
func forger(t testing.TB, r *rand.Rand) func([]byte) []byte {
	own, err := newTagger(bytes.Repeat([]byte{1}, KeyBytes))
	if err != nil {
		t.Fatal(err)
	}
	return func(b []byte) []byte {
		f := bytes.Clone(b)
		switch r.IntN(6) {
		case 0: // one bit is another
			f[r.IntN(len(f))] ^= 1 << r.IntN(8)
		case 1: // cut short
			return f[:r.IntN(len(f))]
		case 2: // made up under another key
			copy(f[headBytes:], "forged")
			copy(f, own.tag(f))
		case 3: // of another transfer
			f[tagBytes+2]++
		default:
			return nil
		}
		return f
	}
}

func TestWhateverTheRoadDoesWhatArrivesIsWhatWasSent(t *testing.T) {
	files := [][]byte{newBundle(t, 1, 200<<10), newBundle(t, 2, 5<<20), newBundle(t, 3, 17<<20)}
	seeds := uint64(12)
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 2))
			file := files[seed%3]
			p := newPost(t)
			w := newRoad(seed, func(b []byte) { p.Take(b) })
			w.forge = forger(t, r)
			said := []string{}
			for pass := 0; len(p.files()) == 0; pass++ {
				if pass == 12 {
					t.Fatalf("not whole after %d passes: %s; %+v", pass, strings.Join(said, "; "), p.Counts())
				}
				said = append(said, weather(w, r, len(file)/1000))
				send(t, w, plan(), file)
				if r.IntN(3) == 0 {
					p.again()
				}
			}
			p.has(file)
			if p.Counts().Spoiled != 0 {
				t.Errorf("a forger without the key spoiled blocks: %+v", p.Counts())
			}
			send(t, w, plan(), file) // once more changes nothing
			p.has(file)
		})
	}
}

func TestABurstTakesALittleOfEachBlock(t *testing.T) {
	file := newBundle(t, 1, 16<<20-1000)
	for _, c := range []struct {
		interleave int
		whole      bool
	}{{4, true}, {1, false}} {
		p := newPost(t)
		w := newRoad(1, p.Take)
		w.gone = func(n int) bool { return n >= 1000 && n < 2800 } // 1,800 datagrams: nearly half a block
		q := plan()
		q.Interleave = c.interleave
		send(t, w, q, file)
		if got := len(p.files()) == 1; got != c.whole {
			t.Errorf("with %d blocks mixed: whole is %v, want %v", c.interleave, got, c.whole)
		}
	}
}

func TestTheNextPassFillsInWhatOneLacks(t *testing.T) {
	file := newBundle(t, 7, 15<<20)
	p := newPost(t)
	w := newRoad(1, p.Take)
	q := plan()
	q.Interleave = 1
	w.gone = func(n int) bool { return n >= 6000 } // of four blocks one and a half
	send(t, w, q, file)
	r := p.status()
	if len(r.Partial) != 1 || r.Partial[0].Number != 7 || SpanText(r.Partial[0].MissingBlocks) != "1-3" || r.Partial[0].Percent < 35 || r.Partial[0].Percent > 45 {
		t.Fatalf("the status is %+v", r.Partial)
	}
	if n := r.Numberings[0]; SpanText(n.Partial) != "7" || SpanText(n.Missing) != "1-6" || len(n.Whole) != 0 {
		t.Errorf("the numbers are %+v", n)
	}
	w.gone = nil
	if took := send(t, w, q, file, 1, 2, 3); took.Datagrams > 3*4200 {
		t.Errorf("three blocks took %d datagrams", took.Datagrams)
	}
	p.has(file)
	r = p.status()
	if n := r.Numberings[0]; len(r.Partial) != 0 || SpanText(n.Whole) != "7" || SpanText(n.Missing) != "1-6" {
		t.Errorf("the status of what is whole is %+v", r)
	}
}

func TestAKilledReceiverGoesOnWhereItWas(t *testing.T) {
	file := newBundle(t, 1, 9<<20)
	p := newPost(t)
	w := newRoad(1, func(b []byte) { p.Take(b) })
	w.loss = 0.05
	half := 0
	w.gone = func(n int) bool {
		if half++; half == 4000 {
			// What a process that is killed here leaves is what the files hold now.
			p.Settle()
			left := t.TempDir()
			if err := os.CopyFS(left, os.DirFS(p.dir)); err != nil {
				t.Fatal(err)
			}
			before := p.Partial()[0]
			p.Stage.Close()
			p.dir = left
			p.open()
			p.Settle()
			after := p.Partial()[0]
			if most := before.Shards + (marksEvery-1)*before.Blocks; after.Shards < before.Shards || after.Shards > most { // what was noted, and no more
				t.Errorf("before the kill %d shards are lacking, after it %d, want %d at most", before.Shards, after.Shards, most)
			}
			after.Shards, after.Percent = before.Shards, before.Percent
			if fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("before the kill %+v, after it %+v", before, after)
			}
		}
		return false
	}
	send(t, w, plan(), file)
	p.has(file)
	if c := p.Counts(); c.Shards == 0 {
		t.Errorf("nothing came after the kill: %+v", c)
	}
}

func TestAReceiverKilledAsAFileIsNamedKnowsThatItCame(t *testing.T) {
	file := newBundle(t, 1, 50_000)
	p := newPost(t)
	send(t, newRoad(1, p.Take), plan(), file)
	p.has(file)
	// As it was just before the book was written: the file has its name, and the transfer's folder is still there.
	p.Stage.Close()
	if err := os.Remove(filepath.Join(p.dir, stageDir, "book.json")); err != nil {
		t.Fatal(err)
	}
	load := loadOf(t, plan(), file)
	left := filepath.Join(p.dir, stageDir, stageName(load.id))
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left, "manifest"), load.raw, 0o600); err != nil {
		t.Fatal(err)
	}
	p.open()
	if n := p.status().Numberings; len(n) != 1 || SpanText(n[0].Whole) != "1" {
		t.Errorf("after the restart: %+v", n)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("the transfer is still there: %v", err)
	}
	send(t, newRoad(1, p.Take), plan(), file)
	p.has(file)
	if p.told(Began) != 1 {
		t.Error("what is whole was staged again")
	}
}

func loadOf(t testing.TB, p Plan, file []byte) *Load {
	t.Helper()
	s, err := NewSender(&bytes.Buffer{}, p)
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Load(context.Background(), InMemory(file), int64(len(file)), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestWhatADiskLostIsFoundOutAndAwaitedAgain(t *testing.T) {
	file := newBundle(t, 1, 9<<20)
	p := newPost(t)
	w := newRoad(1, func(b []byte) { p.Take(b) })
	q := plan()
	q.Interleave = 1
	w.gone = func(n int) bool { return n >= 8_800 }
	send(t, w, q, file)
	p.Settle()
	p.Stage.Close()
	// The marks of two whole blocks outlived the content of one.
	load := loadOf(t, q, file)
	content, err := os.OpenFile(filepath.Join(p.dir, stageDir, stageName(load.id), "content"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := content.WriteAt(make([]byte, 100_000), 5<<20); err != nil {
		t.Fatal(err)
	}
	content.Close()
	p.open()
	w.gone = nil
	send(t, w, q, file, 2)
	if p.told(Spoiled) != 1 || len(p.files()) != 0 {
		t.Fatalf("%d spoiled, %d files: what the disk lost was not found out", p.told(Spoiled), len(p.files()))
	}
	if r := p.status(); SpanText(r.Partial[0].MissingBlocks) != "1" {
		t.Errorf("missing is %+v", r.Partial)
	}
	send(t, w, q, file)
	p.has(file)
}

// record gives the datagrams of a bundle.
func record(t testing.TB, p Plan, file []byte) (all [][]byte) {
	t.Helper()
	w := newRoad(1, func(b []byte) { all = append(all, bytes.Clone(b)) })
	send(t, w, p, file)
	return all
}

func TestTwoBundlesComeAtOnce(t *testing.T) {
	files := [][]byte{newBundle(t, 1, 6<<20), newBundle(t, 2, 3<<20)}
	p := newPost(t)
	a, b := record(t, plan(), files[0]), record(t, plan(), files[1])
	r := rand.New(rand.NewPCG(1, 1))
	for len(a)+len(b) > 0 {
		from := &a
		if r.IntN(len(a)+len(b)) >= len(a) {
			from = &b
		}
		if r.Float64() > 0.1 {
			p.Take((*from)[0])
		}
		*from = (*from)[1:]
	}
	p.has(files...)
	if c := p.Counts(); c.Lost < 700 || c.Lost > 1300 {
		t.Errorf("a tenth of %d was lost, and it says %d", c.Datagrams+c.Lost, c.Lost)
	}
}

func TestABundleThatIsSentInTwoCutsIsOneFile(t *testing.T) {
	file := newBundle(t, 1, 1<<20)
	other := plan()
	other.Datagram = 600
	p := newPost(t)
	a, b := record(t, plan(), file), record(t, other, file)
	for i := range b {
		if i < len(a) {
			p.Take(a[i])
		}
		p.Take(b[i])
	}
	p.has(file)
	if r := p.status(); len(r.Partial) != 0 || p.told(Whole) != 1 {
		t.Errorf("%d were whole, and there is still %+v", p.told(Whole), r.Partial)
	}
	entries, err := os.ReadDir(filepath.Join(p.dir, stageDir))
	if err != nil || len(entries) != 2 { // the lock and the book
		t.Errorf("left are %v, %v", entries, err)
	}
}

func TestGapsAreToldByTheirNumbers(t *testing.T) {
	p := newPost(t)
	third := newBundle(t, 3, 1000)
	for _, file := range [][]byte{newBundle(t, 2, 1000), third, newBundle(t, 7, 1000)} {
		send(t, newRoad(1, p.Take), plan(), file)
	}
	receipt := newBundle(t, 9, 1000, func(h *bundle.Head) { h.Kind = bundle.Receipt })
	send(t, newRoad(1, p.Take), plan(), receipt)
	n := p.status().Numberings
	if len(n) != 1 || SpanText(n[0].Whole) != "2-3,7" || SpanText(n[0].Missing) != "1,4-6" {
		t.Errorf("the numbers are %+v", n)
	}
	// A file that was moved away came all the same.
	for name := range p.files() {
		if err := os.Remove(filepath.Join(p.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	p.again()
	send(t, newRoad(2, p.Take), plan(), third)
	if len(p.files()) != 0 || SpanText(p.status().Numberings[0].Whole) != "2-3,7" {
		t.Errorf("after the files are gone: %+v", p.status())
	}
	// With a later numbering nobody wants what is missing of the one before.
	send(t, newRoad(2, p.Take), plan(), newBundle(t, 1, 1000, func(h *bundle.Head) {
		h.Created = h.Created.AddDate(0, 0, 1)
		h.Expires = h.Created.AddDate(0, 0, 1)
		h.To[0].Numbering = [16]byte{0xcd}
	}))
	n = p.status().Numberings
	if len(n) != 2 || n[0].Ended || !n[1].Ended || SpanText(n[0].Whole) != "1" {
		t.Errorf("two numberings are %+v", n)
	}
}

func TestAFileThatIsNoBundleIsNotSent(t *testing.T) {
	file := newBundle(t, 1, 5<<20)
	s, err := NewSender(&bytes.Buffer{}, plan())
	if err != nil {
		t.Fatal(err)
	}
	load := func(b []byte, only ...int) (*Load, error) {
		return s.Load(context.Background(), InMemory(b), int64(len(b)), only, nil)
	}
	damaged := bytes.Clone(file)
	damaged[3<<20] ^= 1
	for name, b := range map[string][]byte{"damaged": damaged, "cut short": file[:len(file)-1], "none": []byte("no bundle")} {
		if _, err := load(b); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
	if _, err := load(file, 2); redoubt.KindOf(err) != redoubt.Invalid {
		t.Errorf("a block that is not there: %v", err)
	}
	// One that changes while it is sent ends the sending.
	l, err := s.Load(context.Background(), io.NewSectionReader(bytes.NewReader(file), 0, int64(len(file))), int64(len(file)), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	file[4<<20+5000] ^= 1
	if err := s.Send(context.Background(), l, nil); redoubt.KindOf(err) != redoubt.Corrupt {
		t.Errorf("a file that changed: %v", err)
	}
}

func TestASendingEndsWhenItIsEnded(t *testing.T) {
	file := newBundle(t, 1, 9<<20)
	ctx, cancel := context.WithCancel(context.Background())
	n := 0
	w := newRoad(1, func([]byte) {
		if n++; n == 500 {
			cancel()
		}
	})
	s, err := NewSender(w, plan())
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Load(ctx, InMemory(file), int64(len(file)), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(ctx, l, nil); err != context.Canceled || n != 500 {
		t.Errorf("after %d datagrams: %v", n, err)
	}
}

func TestSpansAreASetOfNumbers(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 3))
	for range 300 {
		var spans []Span
		set := map[uint64]bool{}
		for range r.IntN(12) {
			from := 1 + r.Uint64N(40)
			s := Span{From: from, To: from + r.Uint64N(5)}
			spans = redoubt.AddSpan(spans, s)
			for n := s.From; n <= s.To; n++ {
				set[n] = true
			}
		}
		missing := gaps(spans, 50)
		for n := uint64(1); n <= 50; n++ {
			if redoubt.InSpans(spans, n) != set[n] || redoubt.InSpans(missing, n) == set[n] {
				t.Fatalf("%d in %v: want %v; missing %v", n, spans, set[n], missing)
			}
		}
		for i := 1; i < len(spans); i++ {
			if spans[i].From <= spans[i-1].To+1 {
				t.Fatalf("%v are not apart", spans)
			}
		}
		if len(spans) > 0 {
			if again, err := ParseSpans(SpanText(spans)); err != nil || SpanText(again) != SpanText(spans) {
				t.Fatalf("%v read back: %v, %v", spans, again, err)
			}
		}
	}
	most := uint64(1<<64 - 1)
	if got := SpanText(redoubt.AddSpan(redoubt.AddSpan(nil, Span{From: most, To: most}), Span{From: most - 1, To: most - 1})); got != "18446744073709551614-18446744073709551615" {
		t.Errorf("at the end of all numbers: %s", got)
	}
	if got := gaps([]Span{{From: most, To: most}}, most); len(got) != 1 || got[0] != (Span{From: 1, To: most - 1}) {
		t.Errorf("what is missing before the last of all numbers: %v", got)
	}
	for _, bad := range []string{"", "a", "3-", "-3", "5-4", "1,,2", "+1", "18446744073709551616"} {
		if s, err := ParseSpans(bad); err == nil {
			t.Errorf("%q is read as %v", bad, s)
		}
	}
}
