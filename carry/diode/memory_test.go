package diode

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"redoubt"
	"redoubt/faketime"
)

// barePlan sends without digests.
func barePlan() Plan {
	p := plan()
	p.Bare = true
	return p
}

// inMemory has a receiver put together in memory what goes into so many bytes of it.
func inMemory(bytes int64) func(*Options) { return func(o *Options) { o.Memory = bytes } }

func TestABundleComesTogetherInMemory(t *testing.T) {
	file, next := newBundle(t, 1, 9<<20), newBundle(t, 2, 9<<20)
	for name, q := range map[string]Plan{"with digests": plan(), "bare": barePlan()} {
		t.Run(name, func(t *testing.T) {
			p := newPost(t, inMemory(64<<20))
			w := newRoad(1, p.Take)
			w.loss = 0.1
			w.take = func(b []byte) {
				if p.Take(b); len(p.staged()) != 0 {
					t.Fatal("something lies on disk before it is whole")
				}
			}
			send(t, w, q, file)
			send(t, w, q, next) // in the memory of the first
			p.has(file, next)
			p.again()
			datagrams := send(t, newRoad(1, p.Take), q, file).Datagrams
			if c := p.Counts(); c.Shards != 0 || c.Datagrams != datagrams {
				t.Errorf("what came before the last stop is staged once more: %+v", c)
			}
			p.has(file, next)
		})
	}
}

func TestWhatIsHalfInMemoryIsLostWithTheReceiver(t *testing.T) {
	file := newBundle(t, 1, 1<<20)
	p := newPost(t, inMemory(64<<20))
	all := record(t, barePlan(), file)
	for _, b := range all[:len(all)/2] {
		p.Take(b)
	}
	p.again()
	p.has()
	send(t, newRoad(1, p.Take), barePlan(), file) // all of it comes when it is repeated
	p.has(file)
}

func TestABareBundleIsTakenUnderAKeyAndInMemoryAlone(t *testing.T) {
	file := newBundle(t, 1, 1<<20)
	takes := loadOf(t, barePlan(), file).holds()
	for _, c := range []struct {
		name   string
		memory int64
		taken  bool
	}{{"no memory", 0, false}, {"too little memory", takes - 1, false}, {"just enough", takes, true}} {
		p := newPost(t, inMemory(c.memory))
		send(t, newRoad(1, p.Take), barePlan(), file)
		if got := len(p.files()) == 1; got != c.taken || len(p.staged()) != 0 || !c.taken && p.told(Refused) != 1 {
			t.Errorf("%s: taken is %v, staged %v, refused %d times", c.name, got, p.staged(), p.told(Refused))
		}
	}
	p := newPost(t, inMemory(64<<20), func(o *Options) { o.Key = nil })
	open, err := newTagger(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range record(t, barePlan(), file) { // as a sender would that holds itself to nothing
		copy(b, open.tag(b))
		p.Take(b)
	}
	if p.has(); p.told(Refused) != 1 {
		t.Errorf("without a key it was refused %d times", p.told(Refused))
	}
	if l := loadOf(t, barePlan(), newBundle(t, 1, MaxBare)); l.bare() {
		t.Error("a bundle beyond the limit is sent bare")
	}
}

func TestWhatStallsInMemoryGivesWay(t *testing.T) {
	faketime.Test(t, whatStallsInMemoryGivesWay)
}

func whatStallsInMemoryGivesWay(t *testing.T) {
	first, second, other := newBundle(t, 1, 1<<20), newBundle(t, 2, 1<<20), newBundle(t, 3, 500_000)
	p := newPost(t, inMemory(loadOf(t, barePlan(), first).holds()+1<<10))
	all := record(t, barePlan(), first)
	for _, b := range all[:len(all)/2] {
		p.Take(b)
	}
	send(t, newRoad(1, p.Take), barePlan(), second)
	if p.has(); p.told(Given) != 0 || p.told(Refused) != 1 {
		t.Fatalf("one that is being fed gave way %d times, and the other was refused %d times", p.told(Given), p.told(Refused))
	}
	time.Sleep(staleMemory + time.Second)
	send(t, newRoad(1, p.Take), plan(), other) // which has room on disk
	if p.has(other); p.told(Given) != 0 {
		t.Errorf("%d gave way to one that comes together on disk", p.told(Given))
	}
	send(t, newRoad(1, p.Take), barePlan(), second)
	if p.has(other, second); p.told(Given) != 1 {
		t.Errorf("%d gave way", p.told(Given))
	}
}

// TestMemoryIsBoundedWhateverComes: the memory of a large one that became a file does not stand behind one of a few bytes.
func TestMemoryIsBoundedWhateverComes(t *testing.T) {
	const most, large = 16 << 20, 10 << 20
	p := newPost(t, inMemory(most))
	for i := range uint64(6) {
		send(t, newRoad(1, p.Take), barePlan(), newBundle(t, 2*i+1, large))
		p.Settle()
		for _, b := range record(t, barePlan(), newBundle(t, 2*i+2, 10_000))[:1] { // its manifest, and no more
			p.Take(b)
		}
		if n, held := p.inMemory(); held > most || n != int(i)+1 {
			t.Fatalf("%d on their way hold %d bytes, of %d", n, held, most)
		}
	}
	if n := len(p.files()); n != 6 {
		t.Errorf("%d became files", n)
	}
	q := newPost(t, inMemory(2*MaxBare))
	send(t, newRoad(1, q.Take), plan(), newBundle(t, 1, MaxBare)) // with its parity beyond that
	q.Settle()
	if q.Stage.mu.Lock(); len(q.slabs) > 0 {
		t.Errorf("%d bytes are kept for the next", cap(q.slabs[0]))
	}
	q.Stage.mu.Unlock()
}

func TestAFileThatAPowerCutDamagedIsAwaitedAgain(t *testing.T) {
	file, whole := newBundle(t, 1, 1<<20), newBundle(t, 2, 1<<20)
	for name, damage := range map[string]func(path string) error{
		"empty":    func(path string) error { return os.Truncate(path, 0) },
		"short":    func(path string) error { return os.Truncate(path, 100_000) },
		"of zeros": func(path string) error { return os.WriteFile(path, make([]byte, len(file)), 0o600) },
		"altered": func(path string) error {
			b := bytes.Clone(file)
			clear(b[500_000:510_000])
			return os.WriteFile(path, b, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPost(t, inMemory(64<<20))
			send(t, newRoad(1, p.Take), barePlan(), file)
			send(t, newRoad(1, p.Take), barePlan(), whole)
			p.has(file, whole)
			l := loadOf(t, plan(), file)
			p.Stage.Close()
			// The book is written when the files are durable: here it was not yet.
			if err := os.Remove(filepath.Join(p.dir, stageDir, "book.json")); err != nil {
				t.Fatal(err)
			}
			if err := damage(filepath.Join(p.dir, FileName(&l.Sheet))); err != nil {
				t.Fatal(err)
			}
			p.open()
			p.has(whole)
			send(t, newRoad(1, p.Take), barePlan(), whole)
			if c := p.Counts(); c.Shards != 0 {
				t.Errorf("what is sound is staged once more: %+v", c)
			}
			send(t, newRoad(1, p.Take), barePlan(), file)
			p.has(file, whole)
		})
	}
}

// TestWhatIsDroppedIsTakenWhenItIsSentAgain: a damaged one that came bare keeps no place of the true one, before the end or after it.
func TestWhatIsDroppedIsTakenWhenItIsSentAgain(t *testing.T) {
	first, file := newBundle(t, 1, 100_000), newBundle(t, 2, 100_000)
	bad := bytes.Clone(file)
	bad[50_000] ^= 1
	for name, end := range map[string]func(*post){"at once": func(*post) {}, "after the end": (*post).again, "after a power cut": func(p *post) {
		book, err := os.ReadFile(filepath.Join(p.dir, stageDir, "book.json"))
		if err != nil {
			t.Fatal(err)
		}
		p.Stage.Close()
		if err := os.WriteFile(filepath.Join(p.dir, stageDir, "book.json"), book, 0o600); err != nil {
			t.Fatal(err)
		}
		p.open()
	}} {
		p := newPost(t, inMemory(64<<20))
		send(t, newRoad(1, p.Take), barePlan(), first)
		send(t, newRoad(1, p.Take), barePlan(), bad)
		p.has(first, bad)
		if err := p.record(); err != nil { // so the book on disk has both
			t.Fatal(err)
		}
		path := filepath.Join(p.dir, FileName(&loadOf(t, plan(), file).Sheet))
		for range 2 { // one that is gone is dropped
			if err := p.Drop(path); err != nil {
				t.Fatal(err)
			}
		}
		p.has(first)
		if b, err := readBook(filepath.Join(p.dir, stageDir, "book.json")); err != nil || b.names(&loadOf(t, plan(), file).Sheet) || !b.names(&loadOf(t, plan(), first).Sheet) {
			t.Errorf("%s: the book has %+v (%v)", name, b, err)
		}
		end(p)
		send(t, newRoad(1, p.Take), barePlan(), file)
		send(t, newRoad(1, p.Take), barePlan(), first)
		if p.has(first, file); p.told(Whole) != 3 {
			t.Errorf("%s: %d became files, want what was not dropped to stay done", name, p.told(Whole))
		}
	}
}

// TestWhatTheDiskDidNotKeepIsAwaitedAgain: it says so once, and then that all is well.
func TestWhatTheDiskDidNotKeepIsAwaitedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		plan   Plan
		memory int64
		file   string // whose sync fails
	}{
		"a file that came in memory": {barePlan(), 64 << 20, Suffix}, "its folder": {barePlan(), 64 << 20, "/in"},
		"content on disk": {plan(), 0, "content"}, "the folder of one on disk": {plan(), 0, "/in"},
	} {
		t.Run(name, func(t *testing.T) {
			var fails atomic.Bool
			was := fsync
			t.Cleanup(func() { fsync = was })
			fsync = func(f *os.File) error {
				if strings.HasSuffix(f.Name(), c.file) && fails.CompareAndSwap(true, false) {
					return syscall.EIO
				}
				return was(f)
			}
			p := newPost(t, inMemory(c.memory), func(o *Options) { o.Key = sharedKey })
			p.Stage.Close()
			p.dir = filepath.Join(p.dir, "in")
			p.open()
			file := newBundle(t, 1, 100_000)
			fails.Store(true)
			send(t, newRoad(1, p.Take), c.plan, file)
			p.Settle()
			_ = p.record() // what it cannot keep it forgets
			if p.has(); fails.Load() {
				t.Fatal("nothing failed")
			}
			send(t, newRoad(1, p.Take), c.plan, file)
			p.has(file)
			if err := p.record(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNothingIsLeftOfAFileThatCannotBeNamed(t *testing.T) {
	file := newBundle(t, 1, 100_000)
	p := newPost(t, inMemory(64<<20))
	path := filepath.Join(p.dir, FileName(&loadOf(t, plan(), file).Sheet))
	if err := os.WriteFile(path, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	send(t, newRoad(1, p.Take), barePlan(), file)
	p.Settle()
	if left, err := filepath.Glob(filepath.Join(p.dir, stageDir, newPrefix+"*")); err != nil || len(left) != 0 || p.told(Fault) != 1 {
		t.Errorf("left is %q; %v", left, err)
	}
}

func TestANumberIsCutOutOfSpans(t *testing.T) {
	all := []Span{{From: 1, To: 3}, {From: 7, To: 7}, {From: 9, To: 10}}
	for n, want := range map[uint64]string{1: "2-3,7,9-10", 2: "1,3,7,9-10", 3: "1-2,7,9-10", 5: "1-3,7,9-10", 7: "1-3,9-10", 10: "1-3,7,9"} {
		if got := SpanText(redoubt.CutSpan(all, n)); got != want {
			t.Errorf("without %d: %s, want %s", n, got, want)
		}
	}
}

func TestTheBookHasNothingThatIsNotDurable(t *testing.T) {
	file := newBundle(t, 1, 1<<20)
	p := newPost(t, inMemory(64<<20))
	unsaved := func(all ...string) {
		p.Stage.mu.Lock()
		defer p.Stage.mu.Unlock()
		p.unsaved = all
	}
	unsaved(filepath.Join(p.dir, stageDir, "lock", "under a file")) // which cannot be made durable
	send(t, newRoad(1, p.Take), barePlan(), file)
	p.has(file)
	if err := p.record(); err == nil {
		t.Error("a file that cannot be made durable is taken for one that is")
	}
	id := loadOf(t, plan(), file).ID
	if b, err := readBook(filepath.Join(p.dir, stageDir, "book.json")); err != nil || b.has(id) {
		t.Errorf("the book on disk has what is not durable: %v", err)
	}
	unsaved()
	if err := p.record(); err != nil {
		t.Fatal(err)
	}
	if b, err := readBook(filepath.Join(p.dir, stageDir, "book.json")); err != nil || !b.has(id) {
		t.Errorf("the book on disk lacks what is durable: %v", err)
	}
}

func TestARunEndsBeforeItsKeyIsWorn(t *testing.T) {
	file := newBundle(t, 1, 100_000)
	p := newPost(t)
	runs := map[uint32]bool{}
	tags, err := newTagger(sharedKey)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSender(writer(func(b []byte) (int, error) {
		x, err := tags.parse(b)
		if err != nil || x.Seq >= runLength {
			t.Errorf("number %d: %v", x.Seq, err)
		}
		runs[x.Run] = true
		p.Take(b)
		return len(b), nil
	}), plan())
	if err != nil {
		t.Fatal(err)
	}
	s.seq = runLength - 5
	l, err := s.Load(context.Background(), InMemory(file), int64(len(file)), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(context.Background(), l, nil); err != nil {
		t.Fatal(err)
	}
	if p.has(file); len(runs) != 2 {
		t.Errorf("%d runs, want another after %d datagrams", len(runs), runLength)
	}
}

// TestForgedRunsCostLittle: each second some are looked at, and a true one is met in the next.
func TestForgedRunsCostLittle(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		tags, err := newTagger(sharedKey)
		if err != nil {
			t.Fatal(err)
		}
		true1, true2 := &packet{Kind: kindShard, Run: 1 << 30, Payload: make([]byte, shardUnit)}, &packet{Kind: kindShard, Run: 1<<30 + 1, Payload: make([]byte, shardUnit)}
		one, two := tags.append(nil, true1), tags.append(nil, true2)
		tags.runs = nil
		if _, err := tags.parse(one); err != nil {
			t.Fatal(err)
		}
		forged := bytes.Clone(one)
		for run := range uint32(3 * maxTries) {
			binary.BigEndian.PutUint32(forged[runAt:], run)
			if _, err := tags.parse(forged); err == nil {
				t.Fatal("a forged one is taken")
			}
		}
		if _, err := tags.parse(one); err != nil {
			t.Errorf("a run that was met is not taken meanwhile: %v", err)
		}
		if _, err := tags.parse(two); err == nil {
			t.Error("whatever number of runs is looked at")
		}
		time.Sleep(time.Second)
		if _, err := tags.parse(two); err != nil {
			t.Errorf("a true one is not met: %v", err)
		}
	})
}

func TestAKeyServesOneRun(t *testing.T) {
	tags, err := newTagger(sharedKey)
	if err != nil {
		t.Fatal(err)
	}
	for run := range uint32(3 * maxSenders) { // and no more keys are kept than that
		d := tags.append(nil, &packet{Kind: kindShard, Run: run, Payload: make([]byte, shardUnit)})
		if _, err := tags.parse(d); err != nil {
			t.Fatal(err)
		}
		other, _ := tags.of(run + 1)
		if _, err := other.Open(nil, nil, d[:tagBytes], d[tagBytes:]); err == nil {
			t.Errorf("run %d has the key of the next", run)
		}
		d[runAt+3] ^= 1
		if _, err := tags.parse(d); err != errTag {
			t.Errorf("with another run it is read: %v", err)
		}
	}
	if len(tags.runs) > maxSenders {
		t.Errorf("%d keys are kept", len(tags.runs))
	}
}
