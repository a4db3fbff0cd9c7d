package diode

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"redoubt"
	"redoubt/bundle"
)

// Limits of what a receiver holds of what anybody sends it.
const (
	MaxStaged    = 64                   // bundles that are on their way at once
	DefaultHold  = 64 << 30             // bytes of disk of all that are on their way; also bounds one bundle
	staleAfter   = 24 * time.Hour       // without a new shard, one gives way when there is no room for another
	staleMemory  = time.Second          // one in memory, where another waits for its room: senders send one after the other, and all of one when they send it again
	maxPending   = 32                   // manifests of which pieces are awaited
	maxPendBytes = maxManifestBytes * 2 // of their pieces
	maxEarly     = 1 << 20              // bytes of shards that came before their manifest
	maxRefused   = 256                  // transfers that were refused, so that each is told once
)

// Options say what a Stage takes.
type Options struct {
	Key    []byte                                 // KeyBytes that both sides share; nil: none
	Makers map[redoubt.NodeName]ed25519.PublicKey // whose bundles are taken, and their keys; nil: anybody's, for the node verifies
	For    redoubt.NodeName                       // to whom those are addressed that are taken; "": anybody
	Hold   int64                                  // bytes of disk; 0: DefaultHold
	Memory int64                                  // bytes of memory, in which what goes into them comes together; only with a key are bundles taken that are sent bare
	Tell   func(Event)                            // may be nil; called by one at a time, and must call nothing of the Stage but Drop
}

// EventKind says what happened.
type EventKind string

// The kinds of events.
const (
	Began   EventKind = "began"    // a bundle is on its way
	Whole   EventKind = "whole"    // a bundle is a file
	Spoiled EventKind = "spoiled"  // blocks were not what their digests say, and are awaited again
	Refused EventKind = "refused"  // a bundle is not taken
	Given   EventKind = "given"    // one that was stale gave way to another
	Fault   EventKind = "fault"    // the disk fails
	LeftOut EventKind = "left-out" // so many of the others were not told, since there were too many within a minute
)

// Event is something that the operator of the receiving side is told.
type Event struct {
	Kind  EventKind
	Sheet bundle.Sheet // a claim until the node has verified it
	File  string       // of Whole
	Err   error        // of Refused and Fault
	Needs int64        // bytes of disk, of one Refused that will never have them: it takes more than Options.Hold
	Count int          // of LeftOut
}

// Counts are of what came since the Stage was opened.
type Counts struct {
	Datagrams int64 `json:"datagrams"` // of this format and key
	Foreign   int64 `json:"foreign"`   // that were not
	Shards    int64 `json:"shards"`    // that were new
	Early     int64 `json:"early"`     // shards that came before their manifest, some of which were dropped
	Spoiled   int64 `json:"spoiled"`   // blocks that were awaited anew
	Lost      int64 `json:"lost"`      // datagrams that were sent and did not come, as their numbers tell
}

// Stage is where bundles come together: a folder whose whole files are bundles, and in it `.diode` with what is on its way. One process
// has it at a time.
type Stage struct {
	dir    string
	o      Options
	tags   *tagger // used with mu held
	undo   func()  // of the folder's lock
	alarms alarms

	mu      sync.Mutex // guards what follows
	book    *book
	moving  map[transferID]*transfer
	slabs   [][]byte // of some in memory that became files
	spares  []string // files that are nobody's any more, to be written over
	unsaved []string // files that came together in memory and may be lost with the machine's power; the book on disk has none of them
	pending map[transferID]*pending
	early   early
	refused []transferID
	done    []transferID // became files, or had been
	leaving [32]byte     // the ID of what Drop is about to remove
	jobs    []job
	work    *sync.Cond // there is a job, or the Stage closes
	rest    *sync.Cond // there is none
	busy    bool
	closed  bool
	counts  Counts
	runs    runs
	told    time.Time     // when something was told that is told seldom
	faulted time.Time     // when a fault was told of
	ended   chan struct{} // the mender's

	opened time.Time
	ours   atomic.Int64 // when something of ours was taken last, ns since then; 0: never
	source atomic.Pointer[udpSource]

	saving sync.Mutex    // one saves at a time; before mu
	drop   sync.Mutex    // one is dropped at a time; before saving
	save   chan struct{} // something is unsaved
	saved  chan struct{} // who saves has ended
	close  context.CancelFunc
}

// job is a block to make; block -1: all are whole.
type job struct {
	t     *transfer
	block int
}

const stageDir = ".diode"

// Open opens a folder to receive into, and goes on with what an earlier process left there. Unavailable: another process has it.
func Open(dir string, o Options) (*Stage, error) {
	o.Hold = cmp.Or(o.Hold, DefaultHold)
	tags, err := newTagger(o.Key)
	if err != nil {
		return nil, &redoubt.Error{Op: "diode.Open", Kind: redoubt.Invalid, Err: err}
	}
	s := &Stage{dir: dir, o: o, opened: time.Now(), tags: tags, alarms: alarms{tell: o.Tell}, moving: map[transferID]*transfer{}, pending: map[transferID]*pending{}, ended: make(chan struct{}), save: make(chan struct{}, 1), saved: make(chan struct{})}
	s.work, s.rest = sync.NewCond(&s.mu), sync.NewCond(&s.mu)
	if err := os.MkdirAll(s.path(""), 0o700); err != nil {
		return nil, &redoubt.Error{Op: "diode.Open", Object: dir, Err: err}
	}
	if s.undo, err = lockFile(s.path("lock")); err != nil {
		return nil, err
	}
	if s.book, err = readBook(s.path("book.json")); err == nil {
		err = s.resume()
	}
	if err == nil && o.Memory > 0 {
		err = s.sound()
	}
	if err != nil {
		s.undo()
		return nil, err
	}
	var ctx context.Context
	ctx, s.close = context.WithCancel(context.Background())
	go s.mending()
	go s.keepSaving(ctx)
	return s, nil
}

func (s *Stage) path(name string) string { return filepath.Join(s.dir, stageDir, name) }

// resume opens what an earlier process left, and removes what it left unfinished or what does not read.
func (s *Stage) resume() error {
	entries, err := os.ReadDir(s.path(""))
	if err != nil {
		return &redoubt.Error{Op: "diode.Open", Object: s.dir, Err: err}
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), newPrefix) {
			os.RemoveAll(s.path(e.Name()))
		}
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		t, err := resume(s.path(""), e.Name())
		if err != nil {
			err = s.named(e.Name())
		} else if s.book.has(t.ID) {
			t.close()
			err = os.RemoveAll(t.dir)
		} else {
			s.moving[t.id] = t
		}
		if err != nil {
			return &redoubt.Error{Op: "diode.Open", Object: s.path(e.Name()), Err: err}
		}
	}
	for _, t := range s.moving {
		for b, set := range t.have {
			if set.n >= t.data(b) {
				s.enqueue(t, b)
			}
		}
		if t.whole == t.blocks() {
			s.enqueue(t, -1)
		}
	}
	return nil
}

// named clears away a transfer that does not open. If it became a file just before the end, the book has it from now on.
func (s *Stage) named(name string) error {
	if m, err := readManifest(filepath.Join(s.path(name), "manifest")); err == nil {
		if file, err := Inspect(filepath.Join(s.dir, FileName(&m.Sheet))); err == nil && file.ID == m.ID {
			s.book.note(&m.Sheet)
			if err := writeJSON(s.path("book.json"), s.book); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(s.path(name))
}

// sound looks at the files that came together in memory and are not in the book: they came just before the end. One that a power cut took something
// of is removed, as if it had not come.
func (s *Stage) sound() error {
	files, err := filepath.Glob(filepath.Join(s.dir, "*"+Suffix))
	for _, path := range files {
		o, bad := readFile(path, func(f io.ReaderAt, size int64) (*bundle.Outline, error) {
			sheet, err := bundle.Inspect(f, size)
			if err != nil || s.book.names(&sheet) {
				return nil, err
			}
			return bundle.ReadOutline(context.Background(), f, size, nil)
		})
		switch kind := redoubt.KindOf(bad); {
		case bad == nil && o != nil:
			s.book.note(&o.Sheet)
			s.unsaved = append(s.unsaved, path)
		case kind == redoubt.Invalid || kind == redoubt.Denied || kind == redoubt.TooLarge:
			err = errors.Join(err, os.Remove(path))
		default:
			err = errors.Join(err, bad)
		}
	}
	if err != nil {
		return &redoubt.Error{Op: "diode.Open", Object: s.dir, Err: err}
	}
	if len(s.unsaved) == 0 {
		return nil
	}
	return s.record()
}

// saveEvery is how long what came together in memory may be unsaved: who takes a file away meanwhile spares the disk the work.
const saveEvery = time.Second

// keepSaving saves what is unsaved, until ctx ends.
func (s *Stage) keepSaving(ctx context.Context) {
	defer close(s.saved)
	for ctx.Err() == nil {
		select {
		case <-s.save:
		case <-ctx.Done():
			continue
		}
		pause := time.NewTimer(saveEvery)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
		if err := s.record(); err != nil {
			s.mu.Lock()
			told := s.seldom(Event{Kind: Fault, Err: &redoubt.Error{Op: "diode.Stage", Object: s.dir, Err: err}})
			s.mu.Unlock()
			s.alarms.say(told...)
			s.wakeSaver()
		}
	}
}

func (s *Stage) wakeSaver() {
	select {
	case s.save <- struct{}{}:
	default:
	}
}

// record makes durable what is unsaved and still there, and then the book, which has it.
func (s *Stage) record() (err error) {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	files := s.unsaved
	s.unsaved = nil
	book, err := json.Marshal(s.book)
	s.mu.Unlock()
	for i, path := range files {
		bad := syncFile(path)
		if err = errors.Join(err, bad); errors.Is(bad, errUnsaved) {
			s.lose(path)
			files[i] = ""
		}
	}
	if err == nil && len(files) > 0 {
		if err = syncDir(s.dir); errors.Is(err, errUnsaved) {
			for i, path := range files {
				s.lose(path)
				files[i] = ""
			}
		}
	}
	if err == nil {
		err = writeFile(s.path("book.json"), book)
	}
	if err != nil {
		s.mu.Lock()
		s.unsaved = append(slices.DeleteFunc(files, func(path string) bool { return path == "" }), s.unsaved...)
		s.mu.Unlock()
	}
	return err
}

// Drop removes a whole file as if it had not come: when it is sent again it is taken again. That holds after a crash too, for the book lacks it before it is
// gone.
func (s *Stage) Drop(path string) error {
	s.drop.Lock()
	defer s.drop.Unlock()
	sheet, err := Inspect(path)
	if err == nil {
		s.mu.Lock()
		s.leaving = sheet.ID
		s.book.forget(&sheet)
		s.mu.Unlock()
		if err = s.record(); err != nil {
			s.wakeSaver()
		}
	} else if redoubt.KindOf(err) == redoubt.Invalid { // no bundle, so the book has nothing of it
		err = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if gone := os.Remove(path); !errors.Is(gone, os.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	s.leaving, s.done = [32]byte{}, nil // what else is done the book knows
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return &redoubt.Error{Op: "diode.Drop", Object: path, Err: err}
	}
	return nil
}

// maxSpares is how many files wait to be written over: one that comes, and one that is taken meanwhile.
const maxSpares = 2

// Taken removes a whole file that its node has. What came in memory and is soon taken then never costs the kernel new pages, nor the disk a write.
func (s *Stage) Taken(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	spare := s.path(newPrefix + "spare-" + filepath.Base(path))
	if st, err := os.Stat(path); err == nil && st.Size() <= MaxBare && s.o.Memory > 0 && len(s.spares) < maxSpares && os.Rename(path, spare) == nil {
		s.spares = append(s.spares, spare)
		return nil
	}
	return os.Remove(path)
}

// lose removes a file that the disk may not have kept: as on the road, it comes again or is lacking.
func (s *Stage) lose(path string) {
	sheet, err := Inspect(path)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.book.forget(&sheet)
		s.done = nil
	}
	os.Remove(path)
}

// Close waits for blocks that are being made, and lets go of the folder. What is on its way stays there.
func (s *Stage) Close() error {
	s.mu.Lock()
	s.closed = true
	s.work.Broadcast()
	s.mu.Unlock()
	<-s.ended
	s.close()
	<-s.saved
	s.alarms.end()
	var err error
	if len(s.unsaved) > 0 {
		err = s.record()
	}
	for _, path := range s.spares {
		os.Remove(path) // where that fails, the next Open removes it
	}
	for _, t := range s.moving {
		err = errors.Join(err, t.noteAll()) // what was in memory is lost, as on the road
		t.close()
	}
	s.undo()
	if err != nil {
		return &redoubt.Error{Op: "diode.Close", Object: s.dir, Err: err}
	}
	return nil
}

// Settle returns when every block of which enough came is made.
func (s *Stage) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.jobs) > 0 || s.busy {
		s.rest.Wait()
	}
}

// Counts tells what came.
func (s *Stage) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts
	c.Lost = s.runs.lost()
	return c
}
