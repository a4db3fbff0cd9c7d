package enclave

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"redoubt"
	"redoubt/keys"
	"redoubt/label"
	"redoubt/store"
	"redoubt/store/memory"
)

// restart opens the enclave anew on what is durable, without a clean close where it crashed.
func (w *world) restart(crash bool) {
	w.t.Helper()
	engine := w.o.Engine
	if f, ok := engine.(*faulty); ok {
		engine = f.Engine
	}
	if crash {
		w.stop()
		w.done.Wait()
		w.keyring.Close()
	} else if err := w.Close(); err != nil {
		w.t.Fatal(err)
	}
	ring, err := keys.Open(filepath.Join(w.rings, "ring"), keys.KeyFile(filepath.Join(w.rings, "key")))
	if err != nil {
		w.t.Fatal(err)
	}
	w.o.Engine, w.o.Keys = engine.(*memory.Engine).Reopen(), ring
	if w.Enclave, err = Open(context.Background(), w.o); err != nil {
		w.t.Fatal(err)
	}
}

// faulty is an engine whose commits may be made to fail or to be watched.
type faulty struct {
	store.Engine
	mu     sync.Mutex // one commit at a time asks before
	before func(*store.Batch) error
}

func (f *faulty) Commit(ctx context.Context, b *store.Batch) error {
	if err := f.ask(b); err != nil {
		return err
	}
	return f.Engine.Commit(ctx, b)
}

func (f *faulty) ask(b *store.Batch) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.before == nil {
		return nil
	}
	return f.before(b)
}

func (f *faulty) when(before func(*store.Batch) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = before
}

// failsAfterClosing has every commit fail behind the one that closes what was spilled, but for the first few.
func (f *faulty) failsAfterClosing(few int) {
	closed, n := false, 0
	f.when(func(b *store.Batch) error {
		if closed {
			if n++; n > few {
				return errPulled
			}
		}
		closed = closed || len(b.Unlinks) > 0
		return nil
	})
}

func withFaults(f **faulty) func(*Options) {
	return func(o *Options) {
		*f = &faulty{Engine: o.Engine}
		o.Engine = *f
	}
}

// hands is a clock that is set by hand.
type hands struct{ now atomic.Int64 }

func (h *hands) clock() time.Time    { return time.Unix(0, h.now.Load()).UTC() }
func (h *hands) add(d time.Duration) { h.now.Add(int64(d)) }

func withClock(h *hands) func(*Options) {
	h.now.Store(time.Now().UnixNano())
	return func(o *Options) { o.Clock = h.clock }
}

var reports = redoubt.ObjectName{Bucket: "reports", Key: "a"}

func named(key string) redoubt.ObjectName { return redoubt.ObjectName{Bucket: "reports", Key: key} }

// upload begins an upload and stores parts of the given sizes.
func (w *world) upload(who redoubt.Credential, key, marking string, sizes ...int) (redoubt.Upload, []redoubt.CompletePart) {
	w.t.Helper()
	ctx := context.Background()
	u, err := w.CreateUpload(ctx, who, redoubt.CreateUpload{Name: named(key), Label: marking})
	if err != nil {
		w.t.Fatal(err)
	}
	var list []redoubt.CompletePart
	for i, size := range sizes {
		list = append(list, w.part(who, u, i+1, bytes.Repeat([]byte{byte('1' + i)}, size)))
	}
	return u, list
}

func (w *world) part(who redoubt.Credential, u redoubt.Upload, number int, body []byte) redoubt.CompletePart {
	w.t.Helper()
	p, err := w.PutPart(context.Background(), who, redoubt.PutPart{Name: u.Name, Upload: u.ID, Number: number, SizeBytes: int64(len(body)), Body: bytes.NewReader(body)})
	if err != nil {
		w.t.Fatal(err)
	}
	return redoubt.CompletePart{Number: number, ETag: p.ETag}
}

func (w *world) complete(who redoubt.Credential, u redoubt.Upload, list []redoubt.CompletePart) (redoubt.Version, error) {
	return w.CompleteUpload(context.Background(), who, redoubt.CompleteUpload{Name: u.Name, Upload: u.ID, Parts: list, SizeBytes: -1})
}

func (w *world) del(who redoubt.Credential, key string, id redoubt.VersionID) error {
	_, err := w.DeleteObject(context.Background(), who, redoubt.DeleteObject{Name: named(key), ID: id})
	return err
}

// erase has two officers sign an erasure and gives the error of its execution.
func (w *world) erase(c redoubt.Change) error {
	w.t.Helper()
	ctx := context.Background()
	c.Node, c.Reason, c.Made, c.Expires = w.name, "spill", w.clock(), w.clock().Add(time.Hour)
	sign := func(by redoubt.SubjectName) redoubt.Signature {
		return redoubt.Signature{Signer: by, Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(w.keys[by], redoubt.ChangeMessage(c)))}
	}
	c.ID = redoubt.ChangeID(c)
	c.Signatures = []redoubt.Signature{sign("officer")}
	if _, err := w.ProposeChange(ctx, w.as("officer", ""), c); err != nil {
		w.t.Fatal(err)
	}
	_, err := w.ApproveChange(ctx, w.as("officer-2", ""), c.ID, sign("officer-2"))
	return err
}

func (w *world) set(marking string) *labelSet {
	w.t.Helper()
	l, err := w.policy.Parse(marking)
	if err != nil {
		w.t.Fatal(err)
	}
	set := w.sets.table.Load().byLabel[l]
	if set == nil {
		w.t.Fatalf("no set of %s", marking)
	}
	return set
}

// epochs are the live epochs of a label.
func (w *world) epochs(marking string) []uint32 {
	w.t.Helper()
	live, _, err := w.keyring.Epochs(w.set(marking).text)
	if err != nil {
		w.t.Fatal(err)
	}
	return live
}

// usage is what a label counts in memory and what its counters say.
func (w *world) usage(marking string) (versions, bytes int64) {
	w.t.Helper()
	set := w.set(marking)
	view := w.engine.View()
	defer view.Close()
	kept := newSetTable(nil).newLabelSet(set.id, set.label, set.text, func(label.Label) int64 { return 0 })
	if err := kept.load(view); err != nil {
		w.t.Fatal(err)
	}
	if a, b := set.versions.Load(), kept.versions.Load(); a != b {
		w.t.Errorf("%s: %d versions counted and %d kept", marking, a, b)
	}
	if a, b := set.bytes.Load(), kept.bytes.Load(); a != b {
		w.t.Errorf("%s: %d bytes counted and %d kept", marking, a, b)
	}
	w.charges()
	return set.versions.Load(), set.bytes.Load()
}

// charges holds what every label is charged, in memory and on record, against a full count of the catalogue.
func (w *world) charges() {
	w.t.Helper()
	view := w.engine.View()
	defer view.Close()
	counted, err := w.countCharges(view)
	if err != nil {
		w.t.Fatal(err)
	}
	used := map[*share]int64{}
	for _, set := range w.sets.all() {
		charged, err := counter(view, recCharge, set.id)
		if err != nil {
			w.t.Fatal(err)
		}
		if mem := set.charged.Load(); charged != counted[set.id] || mem != charged {
			w.t.Errorf("%s is charged %d, on record %d; what there is costs %d", set.name, mem, charged, counted[set.id])
		}
		used[set.share] += counted[set.id]
	}
	for s, n := range used {
		if got := s.used.Load(); got != n {
			w.t.Errorf("of the share of %s %d bytes are used, want %d", s.label.Banner(), got, n)
		}
	}
}

// blobs is how many blobs the store holds.
func (w *world) blobs() int64 { return w.engine.Stats().Blobs }

// decisions are the outcomes of an action on record.
func (w *world) decisions(action redoubt.Action) (outcomes []string) {
	w.t.Helper()
	err := w.SearchAudit(context.Background(), w.as("officer", ""), redoubt.AuditQuery{Action: action}, func(r redoubt.AuditRecord) error {
		outcomes = append(outcomes, r.Outcome)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return outcomes
}

func content(t *testing.T, o redoubt.Object, off, n int64) string {
	t.Helper()
	b, err := io.ReadAll(o.Reader(off, n))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func want(t *testing.T, err error, kind redoubt.Kind) {
	t.Helper()
	if redoubt.KindOf(err) != kind || err == nil {
		t.Errorf("got %v, want %v", err, kind)
	}
}

func text(s string) (io.Reader, int64) { return strings.NewReader(s), int64(len(s)) }

// overwrite changes one key of the catalogue, as damage would.
func (w *world) overwrite(key, value []byte) {
	w.t.Helper()
	b := new(store.Batch)
	b.Set(key, value)
	if err := w.engine.Commit(context.Background(), b); err != nil {
		w.t.Fatal(err)
	}
}

func tlogTile(level int) tlog.Tile { return tlog.Tile{H: 8, L: level, W: 1} }
