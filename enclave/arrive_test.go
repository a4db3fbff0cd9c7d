package enclave

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"redoubt"
	"redoubt/store"
	"redoubt/store/embedded"
)

// arriving is a version that the device has and that comes to the home by and by.
type arriving struct {
	pair
	t       *testing.T
	in      redoubt.Received // without its content
	content []byte
}

const secretSet = "USA@1 SECRET"

func newArriving(t *testing.T, change func(*Options)) *arriving {
	a := &arriving{pair: openPair(t, "SECRET", change), t: t}
	a.next("imagery")
	return a
}

// next has the device make one more.
func (a *arriving) next(key string) {
	a.t.Helper()
	a.content = make([]byte, 100_000)
	rand.Read(a.content)
	v := a.device.put(a.device.as("s-analyst", ""), key, string(a.content), "")
	refs, _, err := a.device.Since(context.Background(), "home", secretSet, 0, 2000)
	if err != nil {
		a.t.Fatal(err)
	}
	items := fetch(a.t, a.device, a.home, secretSet, refs[len(refs)-1:])
	if a.in = (redoubt.Received{Entry: items[0].Entry, Custody: items[0].Custody}); a.in.Entry.Name != v.Name {
		a.t.Fatalf("fetched %v", a.in.Entry.Name)
	}
}

// keep keeps content up to some byte, from where it was kept to.
func (a *arriving) keep(upTo int) {
	a.t.Helper()
	no, err := a.home.Keep(context.Background(), "device", a.in, a.content[a.in.From:upTo])
	if err != nil || no != nil {
		a.t.Fatalf("%+v, %v", no, err)
	}
	a.in.From = int64(upTo)
	a.home.charges()
}

func (a *arriving) part(off int64, part string) {
	a.t.Helper()
	if no, err := a.home.KeepPart(context.Background(), "device", a.in, redoubt.Stretch{From: off, Bytes: []byte(part)}, nil); err != nil || no != nil {
		a.t.Fatalf("%+v, %v", no, err)
	}
	a.home.charges()
}

// left is what is kept.
func (a *arriving) left() []redoubt.Arrival {
	a.t.Helper()
	all, err := a.home.Arriving(context.Background(), "device")
	if err != nil {
		a.t.Fatal(err)
	}
	return all
}

// finish has the rest come, and reads the whole back.
func (a *arriving) finish() {
	a.t.Helper()
	a.in.Content = bytes.NewReader(a.content[a.in.From:])
	if refused, err := a.home.Apply(context.Background(), "device", []redoubt.Received{a.in}); err != nil || len(refused) > 0 {
		a.t.Fatalf("%+v, %v", refused, err)
	}
	if got := a.home.get(a.home.as("s-analyst", ""), a.in.Entry.Name.Key); got != string(a.content) {
		a.t.Errorf("%d bytes came, and not as they were", len(got))
	}
	a.gone()
}

// gone says that nothing is left of what was on its way, and that every count is right.
func (a *arriving) gone() {
	a.t.Helper()
	if left := a.left(); len(left) > 0 {
		a.t.Errorf("still kept: %v", left)
	}
	view := a.home.engine.View()
	defer view.Close()
	for _, rec := range []byte{recArrival, recArrived, recArrives} {
		it := view.Scan([]byte{rec}, []byte{rec + 1})
		if it.Next() {
			a.t.Errorf("the catalogue still has %q", it.Key())
		}
		it.Close()
	}
	a.home.charges()
	a.checked(true)
}

func (a *arriving) checked(ok bool) {
	a.t.Helper()
	report, err := a.home.Check(context.Background(), a.home.as("admin", ""), nil)
	if err != nil || report.OK != ok {
		a.t.Errorf("the store reads back: %v, %v %v", report.OK, report.Faults, err)
	}
}

func (a *arriving) restart() {
	a.t.Helper()
	a.home.restart(true)
	a.join(a.home, a.device, "SECRET")
}

func TestWhatCameOfAVersionOutlivesACrash(t *testing.T) {
	a := newArriving(t, nil)
	before := a.home.blobs()
	a.keep(30_000)
	a.restart()
	a.keep(60_000)
	a.part(0, "half a seg")
	a.restart()
	a.part(10, "ment")
	if got := a.left(); len(got) != 1 || !reflect.DeepEqual(got[0], redoubt.Arrival{Set: secretSet, Stamp: a.in.Entry.Stamp, Whole: 60_000, Part: 14, Digest: sha256.Sum256([]byte("half a segment"))}) {
		t.Fatalf("kept %+v", got)
	}
	if got, _, err := a.home.Part(context.Background(), "device", a.left()[0]); err != nil || string(got) != "half a segment" {
		t.Errorf("of the segment %q is kept, %v", got, err)
	}
	a.checked(true)
	a.finish()
	if got := a.home.blobs() - before; got != 3 {
		t.Errorf("the store has %d blobs more, want those of the three pieces", got)
	}
	if n := len(a.home.decisions(redoubt.ActionReceive)); n != 2 {
		t.Errorf("%d decisions are on record, want one when it began and one when it was taken", n)
	}
}

func TestAPartThatWasKeptGoesWithAVersionThatComesAtOnce(t *testing.T) {
	a := newArriving(t, nil)
	a.part(0, "the beginning of its only segment")
	a.finish()
}

func TestAVersionThatBeginsAnewKeepsNothingOfBefore(t *testing.T) {
	for _, again := range []func(a *arriving){func(a *arriving) { a.keep(20_000) }, func(a *arriving) { a.part(0, "anew") }} {
		a := newArriving(t, nil)
		blobs := a.home.blobs()
		a.keep(30_000)
		a.keep(60_000)
		a.part(0, "half")
		a.in.From = 0
		again(a)
		if got := a.home.blobs() - blobs; got != 1 {
			t.Errorf("%d blobs are kept, want the one that came last", got)
		}
		a.checked(true)
		a.finish()
	}
}

// restore has the home be what a backup of it gives.
func (a *arriving) restore() {
	a.t.Helper()
	to, id := recipient(a.t)
	var sealed bytes.Buffer
	if err := a.home.Backup(context.Background(), a.home.as("admin", ""), to, &sealed); err != nil {
		a.t.Fatal(err)
	}
	a.home = restored(a.t, a.home, id, &sealed)
	a.join(a.home, a.device, "SECRET")
}

func TestABackupHasWhatIsOnItsWay(t *testing.T) {
	a := newArriving(t, nil)
	a.keep(60_000)
	a.part(0, "half")
	a.restore()
	a.checked(true)
	a.home.charges()
	a.finish()
}

func TestErasureTakesWhatIsOnItsWay(t *testing.T) {
	for _, c := range []redoubt.Change{{Kind: redoubt.ChangeEraseLabel, Label: "SECRET"}, {Kind: redoubt.ChangeEraseBucket, Bucket: "reports"}} {
		a := newArriving(t, nil)
		blobs := a.home.blobs()
		a.keep(60_000)
		a.part(0, "half")
		if err := a.home.erase(c); err != nil {
			t.Fatal(err)
		}
		if got := a.home.blobs(); got != blobs {
			t.Errorf("%s: %d blobs are left of it", c.Kind, got-blobs)
		}
		a.gone()
		if _, err := a.home.Keep(context.Background(), "device", a.in, a.content[60_000:70_000]); !errors.Is(err, redoubt.Conflict) {
			t.Errorf("%s: what was kept is gone on with: %v", c.Kind, err)
		}
		a.in.From = 0
		a.finish()
	}
}

// slower has what is kept be of another peer, from whom the same version comes more slowly.
func (a *arriving) slower(peer redoubt.NodeName) {
	a.t.Helper()
	view := a.home.engine.View()
	defer view.Close()
	b := new(store.Batch)
	for _, rec := range []byte{recArrival, recArrived, recArrives} {
		it := view.Scan([]byte{rec}, []byte{rec + 1})
		for it.Next() {
			b.Delete(bytes.Clone(it.Key()))
			b.Set(bytes.Replace(it.Key(), []byte("device"), []byte(peer), 1), bytes.Clone(it.Value()))
		}
		it.Close()
	}
	if err := a.home.engine.Commit(context.Background(), b); err != nil {
		a.t.Fatal(err)
	}
	a.in.From = 0
}

// TestTheErasureOfAVersionTakesWhatIsOnItsWayOverACrash fails each commit behind the removal of a version in turn, of which another
// peer has sent a part.
func TestTheErasureOfAVersionTakesWhatIsOnItsWayOverACrash(t *testing.T) {
	for failAt := 0; ; failAt++ {
		var f, home *faulty
		a := newArriving(t, func(o *Options) {
			withFaults(&f)(o)
			if o.Name == "home" {
				home = f
			}
		})
		blobs := a.home.blobs()
		a.keep(60_000)
		a.part(0, "half")
		a.slower("patrol")
		a.finish0()
		removed, n := false, 0
		home.when(func(b *store.Batch) error {
			if removed {
				if n++; n > failAt {
					return errPulled
				}
			}
			removed = removed || len(b.Unlinks) > 0
			return nil
		})
		err := a.home.EraseVersion(context.Background(), a.home.as("officer", ""), a.in.Entry.Name, a.home.ids.versionID(versionID(a.in.Entry.Stamp)), "spill")
		a.restart()
		if e := a.home.fulfilAll(context.Background()); e != nil {
			t.Fatal(e)
		}
		if got := a.home.blobs(); got != blobs {
			t.Errorf("failing at %d: %d blobs are left", failAt, got-blobs)
		}
		a.gone()
		if err == nil {
			if failAt < 3 {
				t.Errorf("only %d steps were tried", failAt)
			}
			return
		}
	}
}

func TestARotationLeavesNoOldKeyOfWhatIsOnItsWay(t *testing.T) {
	a := newArriving(t, nil)
	a.keep(60_000)
	a.part(0, "half")
	old := a.home.epochs("SECRET")
	if _, err := a.home.RotateKey(context.Background(), a.home.as("officer", ""), "SECRET"); err != nil {
		t.Fatal(err)
	}
	if now := a.home.epochs("SECRET"); len(now) != 1 || now[0] == old[0] {
		t.Fatalf("epochs %v became %v", old, now)
	}
	a.checked(true)
	if got, _, err := a.home.Part(context.Background(), "device", a.left()[0]); err != nil || string(got) != "half" {
		t.Errorf("of the segment %q is kept, %v", got, err)
	}
	a.finish()
}

// TestARotationWhileTheRestComes: what is under a key that has ended is sent again, and what was kept before is not.
func TestARotationWhileTheRestComes(t *testing.T) {
	a := newArriving(t, nil)
	a.keep(60_000)
	a.in.Content = io.MultiReader(bytes.NewReader(a.content[60_000:99_000]), readerFunc(func([]byte) (int, error) {
		_, err := a.home.RotateKey(context.Background(), a.home.as("officer", ""), "SECRET")
		if err == nil {
			err = io.EOF
		}
		return 0, err
	}), bytes.NewReader(a.content[99_000:]))
	if _, err := a.home.Apply(context.Background(), "device", []redoubt.Received{a.in}); !errors.Is(err, redoubt.Unavailable) {
		t.Fatalf("%v", err)
	}
	if left := a.left(); len(left) != 1 || left[0].Whole != 60_000 {
		t.Errorf("kept %v", left)
	}
	a.finish()
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestWhatALinkNoLongerCarriesIsNeitherToldNorKept(t *testing.T) {
	for what, narrow := range map[string]func(a *arriving, l *redoubt.Link){
		"a lower bound": func(a *arriving, l *redoubt.Link) { l.Bound = a.home.floor },
		"another subscription": func(a *arriving, l *redoubt.Link) {
			l.Subscriptions = []redoubt.Subscription{{Bucket: "imagery", In: true}}
		},
		"a device that is wiped": func(a *arriving, l *redoubt.Link) { l.Ending = redoubt.NotesOnly },
	} {
		a := newArriving(t, nil)
		a.keep(60_000)
		a.part(0, "half")
		kept := a.left()[0]
		l := (*a.home.links.table.Load())["device"]
		narrow(a, &l)
		a.home.link(a.device, l)
		if left := a.left(); len(left) > 0 {
			t.Errorf("%s: it is told of %v", what, left)
		}
		if got, _, err := a.home.Part(context.Background(), "device", kept); !errors.Is(err, redoubt.NotFound) {
			t.Errorf("%s: the part is given out: %q, %v", what, got, err)
		}
		if no, err := a.home.Keep(context.Background(), "device", a.in, a.content[60_000:70_000]); err != nil || no == nil || no.Later {
			t.Errorf("%s: more is kept: %+v, %v", what, no, err)
		}
		a.home.trim()
		a.gone()
	}
}

func TestWhatIsAbandonedIsCollected(t *testing.T) {
	h := new(hands)
	a := newArriving(t, withClock(h))
	a.keep(60_000)
	h.add(arrivalLife - time.Hour)
	a.home.trim()
	if len(a.left()) != 1 {
		t.Fatal("it was let go of early")
	}
	h.add(2 * time.Hour)
	a.home.trim()
	a.gone()
}

func TestAVersionThatIsRemovedBeforeItHasComeLeavesNothing(t *testing.T) {
	a := newArriving(t, nil)
	blobs := a.home.blobs()
	a.keep(60_000)
	a.part(0, "half")
	page, err := a.device.ListVersions(context.Background(), a.device.as("s-analyst", ""), redoubt.ListVersions{Bucket: "reports", Max: 10})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.device.del(a.device.as("s-analyst", ""), "imagery", page.Versions[0].ID); err != nil {
		t.Fatal(err)
	}
	carry(t, a.device, a.home)
	if got := a.home.blobs(); got != blobs {
		t.Errorf("%d blobs are left of it", got-blobs)
	}
	a.gone()
	if _, held, no, err := a.home.Begin(context.Background(), "device", a.in); !held || no != nil || err != nil {
		t.Errorf("it is waited for again: %+v, %v", no, err)
	}
}

// scanned is an engine that notes where its views are scanned from.
type scanned struct {
	store.Engine
	mu   sync.Mutex
	from [][]byte
}

type scannedView struct {
	store.View
	of *scanned
}

func (s *scanned) View() store.View { return scannedView{s.Engine.View(), s} }
func (v scannedView) Scan(lower, upper []byte) store.Iterator {
	v.of.mu.Lock()
	defer v.of.mu.Unlock()
	v.of.from = append(v.of.from, bytes.Clone(lower))
	return v.View.Scan(lower, upper)
}

// TestARemovalOfWhatNeverCameLooksAtNoOtherArrival removes, with other versions on their way, one that was on its way from two peers.
func TestARemovalOfWhatNeverCameLooksAtNoOtherArrival(t *testing.T) {
	var home *scanned
	a := newArriving(t, func(o *Options) {
		if o.Name == "home" {
			home = &scanned{Engine: o.Engine}
			o.Engine = home
		}
	})
	blobs := a.home.blobs()
	a.keep(60_000)
	a.slower("patrol")
	a.keep(50_000)
	a.part(0, "half")
	first := a.in.Entry
	a.next("other")
	a.keep(40_000)
	if err := a.device.del(a.device.as("s-analyst", ""), "imagery", a.device.ids.versionID(versionID(first.Stamp))); err != nil {
		t.Fatal(err)
	}
	refs, _, err := a.device.Since(t.Context(), "home", secretSet, 0, 2000)
	if err != nil {
		t.Fatal(err)
	}
	items := fetch(t, a.device, a.home, secretSet, refs[len(refs)-1:])
	home.mu.Lock()
	home.from = nil
	home.mu.Unlock()
	if no, err := a.home.Apply(t.Context(), "device", []redoubt.Received{{Entry: items[0].Entry, Custody: items[0].Custody}}); err != nil || len(no) > 0 {
		t.Fatalf("%+v, %v", no, err)
	}
	home.mu.Lock()
	for _, k := range home.from {
		if (k[0] == recArrival || k[0] == recArrived || k[0] == recArrives) && !bytes.Contains(k, first.Stamp[:]) {
			t.Errorf("what is on its way is looked through from %q", k)
		}
	}
	home.mu.Unlock()
	if got := a.home.blobs() - blobs; got != 1 {
		t.Errorf("%d blobs are kept, want that of the other version", got)
	}
	a.home.charges()
	a.finish()
}

func TestAPeerThatBeginsAThousandVersionsIsKeptAFew(t *testing.T) {
	h := new(hands)
	a := newArriving(t, withClock(h))
	blobs := a.home.blobs()
	for i := range 60 {
		a.next(fmt.Sprint("k", i))
		h.add(time.Second)
		a.keep(50_000)
	}
	if left := a.left(); len(left) > redoubt.MaxArrivals || len(left) < 2 {
		t.Errorf("%d are kept", len(left))
	}
	if got := a.home.blobs() - blobs; got > redoubt.MaxArrivals {
		t.Errorf("%d blobs are kept", got)
	}
	a.finish0()
}

// finish0 finishes the last of several.
func (a *arriving) finish0() {
	a.t.Helper()
	a.in.Content = bytes.NewReader(a.content[a.in.From:])
	if refused, err := a.home.Apply(context.Background(), "device", []redoubt.Received{a.in}); err != nil || len(refused) > 0 {
		a.t.Fatalf("%+v, %v", refused, err)
	}
	a.home.charges()
}

func TestContentThatIsNotAsSignedIsLetGoOfWhole(t *testing.T) {
	a := newArriving(t, nil)
	a.content[7] ^= 1
	blobs := a.home.blobs()
	a.keep(60_000)
	a.in.Content = bytes.NewReader(a.content[60_000:])
	refused, err := a.home.Apply(context.Background(), "device", []redoubt.Received{a.in})
	if err != nil || len(refused) != 1 || refused[0].Rule != ruleContent || refused[0].Later {
		t.Fatalf("%+v, %v", refused, err)
	}
	if got := a.home.blobs(); got != blobs {
		t.Errorf("%d blobs are left of it", got-blobs)
	}
	a.gone()
}

func TestOnlyWhatGoesOnIsKept(t *testing.T) {
	a, ctx := newArriving(t, nil), context.Background()
	a.keep(60_000)
	a.part(0, "half")
	in := a.in
	for what, try := range map[string]func() error{
		"content from further on": func() error {
			in.From = 70_000
			_, err := a.home.Keep(ctx, "device", in, a.content[70_000:80_000])
			return err
		},
		"content from before": func() error {
			in.From = 50_000
			_, err := a.home.Keep(ctx, "device", in, a.content[50_000:80_000])
			return err
		},
		"a part from further on": func() error {
			in.From = 60_000
			_, err := a.home.KeepPart(ctx, "device", in, redoubt.Stretch{From: 5, Bytes: []byte("x")}, nil)
			return err
		},
		"a part of what is before": func() error {
			in.From = 50_000
			_, err := a.home.KeepPart(ctx, "device", in, redoubt.Stretch{From: 4, Bytes: []byte("x")}, nil)
			return err
		},
		"a rest from further on": func() error {
			in.From, in.Content = 70_000, bytes.NewReader(a.content[70_000:])
			_, err := a.home.Apply(ctx, "device", []redoubt.Received{in})
			return err
		},
	} {
		if err := try(); !errors.Is(err, redoubt.Conflict) {
			t.Errorf("%s: %v", what, err)
		}
	}
	in.From, in.Content = 60_000, nil
	for what, try := range map[string]func() error{
		"content to its end": func() error { _, err := a.home.Keep(ctx, "device", in, a.content[60_000:]); return err },
		"no content":         func() error { _, err := a.home.Keep(ctx, "device", in, nil); return err },
		"a part that is too large": func() error {
			_, err := a.home.KeepPart(ctx, "device", in, redoubt.Stretch{From: 4, Bytes: make([]byte, MaxArrivedPart-3)}, nil)
			return err
		},
		"content before its begins": func() error { in.From = -1; _, err := a.home.Keep(ctx, "device", in, a.content[:1]); return err },
	} {
		if err := try(); !errors.Is(err, redoubt.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, forge := range map[string]func(*redoubt.Received){
		"another key":   func(r *redoubt.Received) { r.Entry.Name.Key = "other" },
		"a signature":   func(r *redoubt.Received) { r.Custody.Signature[5] ^= 1 },
		"a marker":      func(r *redoubt.Received) { r.Entry.Marker = true },
		"another maker": func(r *redoubt.Received) { r.Entry.Maker = "nobody" },
	} {
		in := a.in
		forge(&in)
		if no, err := a.home.Keep(ctx, "device", in, a.content[60_000:61_000]); no == nil || err != nil {
			t.Errorf("%s: %+v, %v", what, no, err)
		}
		if _, _, no, err := a.home.Begin(ctx, "device", in); no == nil || err != nil {
			t.Errorf("%s is begun: %+v, %v", what, no, err)
		}
	}
	a.finish()
}

func TestWhatTheShareHasNoRoomForIsRefusedBeforeItComes(t *testing.T) {
	a, ctx := newArriving(t, nil), context.Background()
	set, err := a.home.sets.of(ctx, a.device.set("SECRET").label)
	if err != nil {
		t.Fatal(err)
	}
	set.share.quota = 50_000
	if _, _, no, err := a.home.Begin(ctx, "device", a.in); err != nil || no == nil || no.Kind != redoubt.QuotaExceeded || !no.Later {
		t.Errorf("%+v, %v", no, err)
	}
	no, err := a.home.Keep(ctx, "device", a.in, a.content[:60_000])
	if err != nil || no == nil || no.Kind != redoubt.QuotaExceeded || !no.Later {
		t.Errorf("%+v, %v", no, err)
	}
	a.gone()
	set.share.quota = 110_000 // the version, and not what was kept of it twice
	a.keep(90_000)
	a.finish()
}

func TestDamageToWhatIsOnItsWayIsToldAndStopsNothing(t *testing.T) {
	a := newArriving(t, nil)
	a.keep(30_000)
	a.keep(60_000)
	set := a.home.set("SECRET")
	key := arrivalKey(recArrival, "device", set.id, versionID(a.in.Entry.Stamp))
	raw, _, err := a.home.engine.Get(key)
	if err != nil {
		t.Fatal(err)
	}
	lost := new(store.Batch)
	lost.Delete(append(arrivalKey(recArrived, "device", set.id, versionID(a.in.Entry.Stamp)), arrivedWhole, 0, 0, 0, 1))
	if err := a.home.engine.Commit(context.Background(), lost); err != nil {
		t.Fatal(err)
	}
	a.checked(false)
	for _, damaged := range []string{"{}", "", strings.Replace(string(raw), `"whole":`, `"other":`, 1)} {
		a.home.overwrite(key, []byte(damaged))
		a.checked(false)
		if left := a.left(); len(left) > 0 {
			t.Errorf("%q is taken for %v", damaged, left)
		}
	}
}

func TestAPartThatIsNotAllThereIsLetGoOfAndTheWholeBytesStay(t *testing.T) {
	a := newArriving(t, nil)
	a.keep(60_000)
	blobs := a.home.blobs()
	a.part(0, "some and ")
	a.part(9, "more")
	a.restart()
	at := a.left()[0]
	if want := sha256.Sum256([]byte("some and more")); at.Part != 13 || at.Digest != want {
		t.Fatalf("told %+v, want the digest of 13 bytes", at)
	}
	lost := new(store.Batch)
	lost.Delete(append(arrivalKey(recArrived, "device", a.home.set("SECRET").id, versionID(a.in.Entry.Stamp)), arrivedPart, 0, 0, 0, 1))
	raw, _, err := a.home.engine.Get(lost.Writes[0].Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.home.engine.Commit(context.Background(), lost); err != nil {
		t.Fatal(err)
	}
	part, _, err := a.home.Part(context.Background(), "device", at)
	want(t, err, redoubt.Corrupt)
	if at := a.left()[0]; part != nil || at.Part != 0 || at.Digest != [32]byte{} || at.Whole != 60_000 {
		t.Errorf("%q is read, and told %+v; want the whole bytes alone", part, at)
	}
	r, err := decodeArrived(raw) // what the test took away stays charged, and its blob
	if err != nil {
		t.Fatal(err)
	}
	back := new(store.Batch)
	back.Unlinks = append(back.Unlinks, r.Ref)
	made := &hold{set: a.home.set("SECRET")}
	if err := errors.Join(a.home.charge(back, made, -r.charge(), 0), a.home.engine.Commit(context.Background(), back)); err != nil {
		t.Fatal(err)
	}
	made.settle()
	if got := a.home.blobs(); got != blobs {
		t.Errorf("%d blobs are left of the part", got-blobs)
	}
	a.home.charges()
	a.part(0, "anew")
	a.finish()
}

func TestAPeerIsToldWhatIsLackingOfWhatItAsks(t *testing.T) {
	a, ctx := newArriving(t, nil), context.Background()
	held := a.in.Entry.Stamp
	carry(t, a.device, a.home)
	a.home.put(a.home.as("ts-analyst", ""), "above", "x", "")
	page, err := a.home.ListVersions(ctx, a.home.as("ts-analyst", ""), redoubt.ListVersions{Bucket: "reports", Prefix: "above", Max: 1})
	if err != nil {
		t.Fatal(err)
	}
	above, _ := a.home.ids.parse(string(page.Versions[0].ID))
	removed := a.home.put(a.home.as("s-analyst", ""), "gone", "x", "")
	gone, _ := a.home.ids.parse(string(removed.ID))
	if err := a.home.del(a.home.as("s-analyst", ""), "gone", removed.ID); err != nil {
		t.Fatal(err)
	}
	unknown := redoubt.Stamp{1, 2, 3}
	asked := []redoubt.Stamp{unknown, held, redoubt.Stamp(gone), redoubt.Stamp(above)}
	got, err := a.home.Lacking(ctx, "device", secretSet, asked)
	if err != nil || fmt.Sprint(got) != fmt.Sprint([]redoubt.Stamp{unknown, redoubt.Stamp(above)}) {
		t.Errorf("lacking: %v, %v; want what is unknown and what is above", got, err)
	}
	if got, err := a.home.Lacking(ctx, "device", page.Versions[0].Label.String(), asked); err == nil && len(got) != len(asked) {
		t.Errorf("of a set above the bound %d of %d are told to be here", len(asked)-len(got), len(asked))
	}
	l := (*a.home.links.table.Load())["device"]
	l.Subscriptions = []redoubt.Subscription{{Bucket: "imagery", In: true, Out: true}}
	a.home.link(a.device, l)
	if got, err := a.home.Lacking(ctx, "device", secretSet, asked); err != nil || len(got) != len(asked) {
		t.Errorf("what the link does not carry is told to be here: %v, %v", got, err)
	}
}

// TestAVersionInManyPartsTakesMemoryAndDiskForAFew: a peer may send ten thousand parts, each a piece with a buffer and space of its own.
func TestAVersionInManyPartsTakesMemoryAndDiskForAFew(t *testing.T) {
	const parts, size, segment = 160, 160_000, 8 << 20
	var home *waited
	a := newArriving(t, func(o *Options) {
		if o.Name != "home" {
			return
		}
		engine, err := embedded.Open(t.TempDir(), embedded.Options{Key: make([]byte, 32), ReserveBytes: -1, SegmentBytes: segment})
		if err != nil {
			t.Fatal(err)
		}
		home = &waited{Engine: engine}
		o.Engine = home
	})
	a.content = make([]byte, parts*size)
	rand.Read(a.content)
	x := &a.in.Entry
	x.SizeBytes, x.Content, x.MD5, x.Checksums, x.PartSizes = int64(len(a.content)), sha256.Sum256(a.content), "", redoubt.Checksums{}, nil
	for range parts {
		x.PartSizes = append(x.PartSizes, size)
	}
	encoded, err := x.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	custodies, err := redoubt.SealBatch("device", [][]byte{encoded}, a.device.links.sign)
	if err != nil {
		t.Fatal(err)
	}
	a.in.Custody = custodies[0]

	disk, heap := a.home.engine.Stats().DiskBytes, heapInUse()
	var took int64
	a.in.Content = &atEnd{r: bytes.NewReader(a.content), do: func() { took = heapInUse() - heap }}
	if refused, err := a.home.Apply(context.Background(), "device", []redoubt.Received{a.in}); err != nil || len(refused) > 0 {
		t.Fatalf("%+v, %v", refused, err)
	}
	if home.most > finishTogether {
		t.Errorf("%d pieces waited to be made durable, want %d at most", home.most, finishTogether)
	}
	if took > 32<<20 {
		t.Errorf("before the last of %d parts was taken, the heap had grown by %d MiB", parts, took>>20)
	}
	if took := a.home.engine.Stats().DiskBytes - disk; took > int64(len(a.content))+5*segment { // of the log too, and four that are appended to
		t.Errorf("%d MiB of content in %d parts take %d MiB of disk", len(a.content)>>20, parts, took>>20)
	}
	if got := a.home.get(a.home.as("s-analyst", ""), x.Name.Key); got != string(a.content) {
		t.Errorf("%d bytes came, and not as they were", len(got))
	}
}

// waited counts how many blobs were staged and not finished, at most.
type waited struct {
	store.Engine
	mu         sync.Mutex
	open, most int
}

type waitedBlob struct {
	store.Staged
	w    *waited
	once sync.Once
}

func (w *waited) Stage(ctx context.Context) (store.Staged, error) {
	s, err := w.Engine.Stage(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open++
	w.most = max(w.most, w.open)
	return &waitedBlob{Staged: s, w: w}, err
}

func (s *waitedBlob) Finish() error {
	s.once.Do(func() {
		s.w.mu.Lock()
		defer s.w.mu.Unlock()
		s.w.open--
	})
	return s.Staged.Finish()
}

func (w *waited) Commit(ctx context.Context, b *store.Batch) error {
	own := *b
	own.Links = nil
	for _, s := range b.Links {
		own.Links = append(own.Links, s.(*waitedBlob).Staged)
	}
	err := w.Engine.Commit(ctx, &own)
	b.FirstAppend = own.FirstAppend
	return err
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// atEnd does something once, when all was read.
type atEnd struct {
	r  io.Reader
	do func()
}

func (a *atEnd) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if err == io.EOF && a.do != nil {
		a.do()
		a.do = nil
	}
	return n, err
}
