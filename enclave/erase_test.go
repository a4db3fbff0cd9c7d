package enclave

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"redoubt"
	"redoubt/store"
	"redoubt/store/embedded"
)

var errPulled = errors.New("the plug was pulled")

// TestACrashAnywhereInAnErasureIsFinished fails each commit and each keyring step behind the removal of a version in
// turn; after a restart one epoch is left, and it is not the one that the version was under.
func TestACrashAnywhereInAnErasureIsFinished(t *testing.T) {
	for failAt := 1; ; failAt++ {
		var f *faulty
		w := open(t, withFaults(&f))
		ctx, s, officer := context.Background(), w.as("s-analyst", ""), w.as("officer", "")
		spilt := w.put(s, "spilt", "do not keep", "")
		w.put(s, "kept", "keep", "")
		w.upload(s, "parts", "", redoubt.MinPartBytes)
		before := w.epochs("SECRET")
		removed, n := false, 0
		f.when(func(b *store.Batch) error {
			removed = removed || len(b.Unlinks) > 0
			if !removed {
				return nil
			}
			if n++; n > failAt {
				return errPulled
			}
			return nil
		})
		err := w.EraseVersion(ctx, officer, spilt.Name, spilt.ID, "spill")
		w.restart(true)
		if got := w.get(s, "spilt"); got != "" {
			t.Fatalf("got %q after the removal was on record", got)
		}
		if e := w.fulfilAll(ctx); e != nil {
			t.Fatal(e)
		}
		now := w.epochs("SECRET")
		if len(now) != 1 || now[0] == before[0] {
			t.Errorf("failing at %d: epochs %v became %v, want one new one", failAt, before, now)
		}
		if got := w.get(s, "kept"); got != "keep" {
			t.Errorf("got %q, want keep", got)
		}
		view := w.engine.View()
		it := view.Scan(dutyMark, after(dutyMark))
		if it.Next() {
			t.Errorf("a duty is left: %s", it.Key())
		}
		it.Close()
		view.Close()
		if err == nil {
			if failAt < 3 {
				t.Errorf("only %d steps were tried", failAt)
			}
			return
		}
	}
}

func TestACrashAfterTwoOfficersSignedStillErases(t *testing.T) {
	for _, c := range []redoubt.Change{{Kind: redoubt.ChangeEraseLabel, Label: "SECRET"}, {Kind: redoubt.ChangeEraseBucket, Bucket: "reports"}} {
		var f *faulty
		w := open(t, withFaults(&f))
		s := w.as("s-analyst", "")
		w.put(s, "a", "old", "")
		ordered := false
		f.when(func(b *store.Batch) error {
			if ordered {
				return errPulled
			}
			for _, write := range b.Writes {
				ordered = ordered || bytes.HasPrefix(write.Key, dutyMark)
			}
			return nil
		})
		if err := w.erase(c); err == nil {
			t.Fatal("the erasure went through")
		}
		w.restart(true)
		w.put(s, "b", "written after", "")
		if err := w.fulfilAll(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got := w.get(s, "a"); got != "" {
			t.Errorf("%s: got %q, want nothing", c.Kind, got)
		}
		if got := w.get(s, "b"); got != "written after" {
			t.Errorf("%s: what was written after the order: got %q", c.Kind, got)
		}
	}
}

func TestErasureTakesUnfinishedUploadsToo(t *testing.T) {
	for _, c := range []redoubt.Change{{Kind: redoubt.ChangeEraseLabel, Label: "SECRET"}, {Kind: redoubt.ChangeEraseBucket, Bucket: "reports"}} {
		w := open(t, nil)
		s, low := w.as("s-analyst", ""), w.as("u-analyst", "")
		u, list := w.upload(s, "parts", "", redoubt.MinPartBytes, 3)
		w.put(low, "low", "low", "")
		if err := w.erase(c); err != nil {
			t.Fatal(err)
		}
		if _, err := w.complete(s, u, list); !errors.Is(err, redoubt.NotFound) {
			t.Errorf("%s: the upload is still there: %v", c.Kind, err)
		}
		if _, n := w.usage("SECRET"); n != 0 {
			t.Errorf("%s: %d bytes still count", c.Kind, n)
		}
		if got := w.get(low, "low"); (got == "low") != (c.Kind == redoubt.ChangeEraseLabel) {
			t.Errorf("%s: the low version: got %q", c.Kind, got)
		}
	}
}

func TestErasureEndsOnTheEmbeddedStore(t *testing.T) {
	w := open(t, func(o *Options) {
		key := make([]byte, 32)
		rand.Read(key)
		engine, err := embedded.Open(t.TempDir(), embedded.Options{Key: key, ReserveBytes: -1, SegmentBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		o.Engine = engine
	})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s := w.as("s-analyst", "")
	for _, key := range []string{"a", "b", "c"} {
		w.put(s, key, strings.Repeat(key, 100), "")
	}
	done := make(chan error, 1)
	go func() { done <- w.erase(redoubt.Change{Kind: redoubt.ChangeEraseBucket, Bucket: "reports"}) }()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-ctx.Done():
		t.Fatal("the erasure waits for itself")
	}
	if n := w.blobs(); n != 0 {
		t.Errorf("%d blobs are left", n)
	}
	v := w.put(s, "d", "d", "")
	if err := w.EraseVersion(ctx, w.as("officer", ""), v.Name, v.ID, "spill"); err != nil {
		t.Fatal(err)
	}
}

func TestASlowBackupKeepsNobodyWaiting(t *testing.T) {
	w := open(t, nil)
	ctx, officer, admin := context.Background(), w.as("officer", ""), w.as("admin", "")
	s := w.as("s-analyst", "")
	w.put(s, "a", "x", "")
	to, identity := recipient(t)
	var sealed bytes.Buffer
	slow := &gated{w: &sealed, open: make(chan struct{}), reached: make(chan struct{})}
	backup := make(chan error, 1)
	go func() { backup <- w.Backup(ctx, admin, to, slow) }()
	<-slow.reached
	rotated := make(chan error, 1)
	go func() {
		_, err := w.RotateKey(ctx, officer, "SECRET")
		if err == nil {
			err = w.erase(redoubt.Change{Kind: redoubt.ChangeEraseLabel, Label: "SECRET"})
		}
		if err == nil {
			err = w.RevokePerson(ctx, officer, "u-analyst", "left")
		}
		rotated <- err
	}()
	select {
	case err := <-rotated:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("a rotation waits for the reader of a backup")
	}
	close(slow.open)
	if err := <-backup; err != nil {
		t.Fatal(err)
	}
	// What was backed up before the rotation opens with the keys that it took along.
	if got := restored(t, w, identity, &sealed).get(s, "a"); got != "x" {
		t.Errorf("the backup holds %q, want x", got)
	}
}

// gated is a writer that stands still until it is opened.
type gated struct {
	w             *bytes.Buffer
	open, reached chan struct{}
	once          sync.Once
}

func (g *gated) Write(p []byte) (int, error) {
	g.once.Do(func() { close(g.reached) })
	<-g.open
	return g.w.Write(p)
}

func TestARotationGoesOnPastWhatWasErased(t *testing.T) {
	w := open(t, nil)
	ctx, s, officer := context.Background(), w.as("s-analyst", ""), w.as("officer", "")
	w.put(s, "a", "x", "")
	if err := w.keyring.DestroyLabel(w.set("SECRET").text); err != nil {
		t.Fatal(err)
	}
	w.put(s, "b", "y", "")
	if _, err := w.GetObject(ctx, s, redoubt.ReadObject{Name: reports}); !errors.Is(err, redoubt.Erased) {
		t.Fatalf("got %v, want erased", err)
	}
	status, err := w.RotateKey(ctx, officer, "SECRET")
	if err != nil || len(status.Epochs) != 1 || status.Epochs[0] != status.Epoch {
		t.Fatalf("got %+v, %v", status, err)
	}
	if got := w.get(s, "b"); got != "y" {
		t.Errorf("got %q, want y", got)
	}
}

func TestARotationThatFailsSaysWhyAndLosesNothing(t *testing.T) {
	w := open(t, nil)
	ctx, s, officer := context.Background(), w.as("s-analyst", ""), w.as("officer", "")
	for i := range 100 {
		w.put(s, fmt.Sprint(i), "x", "")
	}
	b, set := (*w.buckets.Load())["reports"], w.set("SECRET")
	f, _, err := w.current(w.engine, lookCurrent, b, set.label, "0")
	if err != nil {
		t.Fatal(err)
	}
	f.rec.pieces[0].wrapped[20] ^= 1
	w.overwrite(headKey(b.id, set.id, "0"), f.rec.encode(nil))
	_, err = w.RotateKey(ctx, officer, "SECRET")
	want(t, err, redoubt.Corrupt)
	for i := 1; i < 100; i++ {
		if got := w.get(s, fmt.Sprint(i)); got != "x" {
			t.Fatalf("got %q under %d", got, i)
		}
	}
	if err := w.EraseVersion(ctx, officer, named("0"), w.ids.versionID(f.rec.id), "damaged"); err != nil {
		t.Fatal(err)
	}
	if err := w.fulfilAll(ctx); err != nil {
		t.Fatal(err)
	}
	if live := w.epochs("SECRET"); len(live) != 1 {
		t.Errorf("epochs %v are left", live)
	}
}

func TestRotatingALabelThatWasNeverUsedMakesNothing(t *testing.T) {
	w := open(t, nil)
	before := len(w.sets.all())
	got, err := w.RotateKey(context.Background(), w.as("officer", ""), "CONFIDENTIAL//NOFORN")
	if err != nil || got.Epoch != 0 || len(w.sets.all()) != before {
		t.Errorf("got %+v, %v and %d sets, want none and %d", got, err, len(w.sets.all()), before)
	}
	_, err = w.RotateKey(context.Background(), w.as("officer", "SECRET"), "TOP SECRET")
	if k := redoubt.KindOf(err); err == nil || k != redoubt.NotFound && k != redoubt.Denied {
		t.Errorf("an officer rotates above her working label: %v", err)
	}
	_, err = w.RotateKey(context.Background(), w.as("officer", ""), "MOST SECRET")
	want(t, err, redoubt.Invalid)
}

func TestRotationKeepsWhatIsReadWrittenAndUploadedMeanwhile(t *testing.T) {
	w := open(t, nil)
	ctx, s, officer := context.Background(), w.as("s-analyst", ""), w.as("officer", "")
	u, list := w.upload(s, "early", "", redoubt.MinPartBytes, 3)
	const rounds = 60
	var work sync.WaitGroup
	for n := range 4 {
		work.Go(func() {
			key := string(rune('a' + n))
			for i := range rounds {
				body, size := text(key)
				if _, err := w.PutObject(ctx, s, redoubt.PutObject{Name: named(key), Body: body, SizeBytes: size}); err != nil && !errors.Is(err, redoubt.Unavailable) {
					t.Errorf("put: %v", err)
				}
				if _, err := w.AlterObject(ctx, s, redoubt.AlterObject{Name: named(key), Tags: &[]redoubt.Tag{{Key: "i"}}}); err != nil && !errors.Is(err, redoubt.NotFound) {
					t.Errorf("tags: %v", err)
				}
				o, err := w.GetObject(ctx, s, redoubt.ReadObject{Name: named(key)})
				if err != nil && !(i == 0 && errors.Is(err, redoubt.NotFound)) {
					t.Errorf("get: %v", err)
					return
				}
				if err == nil {
					if got := content(t, o, 0, -1); got != key {
						t.Errorf("got %q, want %q", got, key)
					}
					o.Close()
				}
			}
		})
	}
	work.Go(func() { // parts and completions take the same locks as a rotation
		for range rounds {
			u, list := w.upload(s, "shared", "", 10)
			var both sync.WaitGroup
			both.Go(func() {
				body, size := text("x")
				_, err := w.PutPart(ctx, s, redoubt.PutPart{Name: u.Name, Upload: u.ID, Number: 2, Body: body, SizeBytes: size})
				if k := redoubt.KindOf(err); err != nil && k != redoubt.NotFound && k != redoubt.Unavailable {
					t.Errorf("part: %v", err)
				}
			})
			if _, err := w.complete(s, u, list); err != nil {
				t.Errorf("complete: %v", err)
			}
			both.Wait()
		}
	})
	done := make(chan struct{})
	go func() { work.Wait(); close(done) }()
	for rotating := true; rotating; {
		if _, err := w.RotateKey(ctx, officer, "SECRET"); err != nil {
			t.Fatal(err)
		}
		select {
		case <-done:
			rotating = false
		default:
		}
	}
	if _, err := w.complete(s, u, list); err != nil {
		t.Fatalf("an upload from before the rotations: %v", err)
	}
	if got := w.get(s, "early"); len(got) != redoubt.MinPartBytes+3 {
		t.Errorf("got %d bytes", len(got))
	}
	if report, err := w.Check(ctx, w.as("admin", ""), nil); err != nil || !report.OK {
		t.Errorf("got %+v, %v", report, err)
	}
	w.usage("SECRET")
}

// TestAPartAndACompletionLeaveTheGateToARotation puts a part in front of the name's lock while a rotation waits at the gate.
func TestAPartAndACompletionLeaveTheGateToARotation(t *testing.T) {
	w := open(t, nil)
	s := w.as("s-analyst", "")
	u, _ := w.upload(s, "parts", "", 3)
	b, set := (*w.buckets.Load())["reports"], w.set("SECRET")
	unlock := w.locks.lock(b.id, "parts") // as a completion holds it
	part := make(chan struct{})
	go func() { w.part(s, u, 2, []byte("x")); close(part) }()
	for end := time.Now().Add(time.Minute); w.locks.holders(b.id, "parts") < 2; time.Sleep(time.Millisecond) { // the part stands at its first lock
		if time.Now().After(end) {
			t.Fatal("the part does not wait for the name")
		}
	}
	gate := make(chan struct{})
	go func() { set.epochGate.Lock(); set.epochGate.Unlock(); close(gate) }() // as a rotation does
	select {
	case <-gate:
	case <-time.After(30 * time.Second):
		t.Error("a part holds the gate while it waits for the name")
	}
	unlock()
	<-part
}

// holders counts who holds the name or waits for it.
func (l *keyLocks) holders(bucket uint32, key string) int {
	n := 0
	for i := range l.shards {
		shard := &l.shards[i]
		shard.mu.Lock()
		if k := shard.held[lockName{bucket, key}]; k != nil {
			n += k.holders
		}
		shard.mu.Unlock()
	}
	return n
}

// TestASlowBodyMeetsARotation has a rotation come and go while content arrives: what waits in memory is sealed under a new
// key, and the key of what is streamed is wrapped under the new epoch.
func TestASlowBodyMeetsARotation(t *testing.T) {
	w := open(t, nil)
	ctx, s, officer := context.Background(), w.as("s-analyst", ""), w.as("officer", "")
	w.put(s, "first", "x", "")
	u, _ := w.upload(s, "parts", "", 1)
	for _, size := range []int{100, 1 << 20} {
		body := bytes.Repeat([]byte("x"), size)
		rotating := func() *rotatingReader {
			return &rotatingReader{rest: body, meanwhile: func() {
				if _, err := w.RotateKey(ctx, officer, "SECRET"); err != nil {
					t.Error(err)
				}
			}}
		}
		_, err := w.PutObject(ctx, s, redoubt.PutObject{Name: reports, Body: rotating(), SizeBytes: int64(size)})
		_, err2 := w.PutPart(ctx, s, redoubt.PutPart{Name: u.Name, Upload: u.ID, Number: 2, Body: rotating(), SizeBytes: int64(size)})
		if err != nil || err2 != nil || len(w.get(s, "a")) != size {
			t.Errorf("%d bytes: %v, %v", size, err, err2)
		}
	}
	w.usage("SECRET")
	if report, err := w.Check(ctx, w.as("admin", ""), nil); err != nil || !report.OK {
		t.Errorf("got %+v, %v", report, err)
	}
}

// rotatingReader gives its first half, then does something, then gives the rest.
type rotatingReader struct {
	rest      []byte
	given     int
	meanwhile func()
}

func (r *rotatingReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), (len(r.rest)+1)/2)], r.rest)
	r.rest, r.given = r.rest[n:], r.given+n
	if len(r.rest) < r.given && r.meanwhile != nil {
		r.meanwhile()
		r.meanwhile = nil
	}
	return n, nil
}

// TestAReadAndACheckOutliveARotation has a rotation come between what a reader found and the opening of its key.
func TestAReadAndACheckOutliveARotation(t *testing.T) {
	var meanwhile func()
	w := open(t, func(o *Options) {
		o.Clock = func() time.Time { // it is asked when the read is decided, behind what was found
			if f := meanwhile; f != nil {
				meanwhile = nil
				f()
			}
			return time.Now()
		}
	})
	w.stop() // nothing else asks for the time
	w.done.Wait()
	ctx, low, officer, admin := context.Background(), w.as("u-analyst", ""), w.as("officer", ""), w.as("admin", "")
	rotate := func() {
		if _, err := w.RotateKey(ctx, officer, "UNCLASSIFIED"); err != nil {
			t.Error(err)
		}
	}
	for i := range 100 {
		w.put(low, fmt.Sprint(i), "x", "")
	}
	meanwhile = rotate
	if got := w.get(low, "7"); got != "x" || meanwhile != nil {
		t.Errorf("got %q, want x", got)
	}
	steps := 0
	report, err := w.Check(ctx, admin, func(int64, int64) { steps++; rotate() })
	if err != nil || !report.OK || report.Versions != 100 || steps == 0 {
		t.Errorf("after %d rotations: got %+v, %v", steps, report, err)
	}
}

// TestTheErasureOfALabelLeavesNoKeyAndNoRecordWithoutOne lets a write, or a rotation, come between the order and its execution.
func TestTheErasureOfALabelLeavesNoKeyAndNoRecordWithoutOne(t *testing.T) {
	for _, rotated := range []bool{false, true} {
		w := open(t, nil)
		ctx, s := context.Background(), w.as("s-analyst", "")
		w.put(s, "a", "old", "")
		d, name, err := w.ordered(redoubt.Change{Kind: redoubt.ChangeEraseLabel, Label: "SECRET", ID: "x"})
		if err != nil {
			t.Fatal(err)
		}
		b := new(store.Batch)
		if err := errors.Join(d.add(b, name), w.engine.Commit(ctx, b)); err != nil {
			t.Fatal(err)
		}
		if rotated {
			if _, err := w.RotateKey(ctx, w.as("officer", ""), "SECRET"); err != nil {
				t.Fatal(err)
			}
		}
		w.put(s, "between", "x", "")
		under := w.epochs("SECRET")
		if err := w.fulfilAll(ctx); err != nil {
			t.Fatal(err)
		}
		for _, epoch := range w.epochs("SECRET") {
			if slices.Contains(under, epoch) {
				t.Errorf("rotated meanwhile %v: epoch %d, which the erased was under, is left", rotated, epoch)
			}
		}
		for _, key := range w.list(s) {
			if got := w.get(s, key); got == "" || key == "a" {
				t.Errorf("rotated meanwhile %v: %q is listed and reads %q", rotated, key, got)
			}
		}
		w.usage("SECRET")
		if report, err := w.Check(ctx, w.as("admin", ""), nil); err != nil || !report.OK {
			t.Errorf("got %+v, %v", report, err)
		}
	}
}
