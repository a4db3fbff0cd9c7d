package enclave

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"redoubt"
	"redoubt/store"
)

// shares opens an enclave with quotas.
func shares(t *testing.T, quotas map[string]int64) *world {
	t.Helper()
	return open(t, func(o *Options) { o.Quotas = quotas })
}

// charged is what is charged to a label.
func (w *world) charged(marking string) int64 {
	w.t.Helper()
	w.charges()
	return w.set(marking).charged.Load()
}

func (w *world) marker(who redoubt.Credential, key string) error { return w.del(who, key, "") }

// TestEveryRecordIsChargedInFull makes one of each and holds the charge against what it must at least cost.
func TestEveryRecordIsChargedInFull(t *testing.T) {
	w := open(t, nil)
	ctx, s := context.Background(), w.as("s-analyst", "")
	long := strings.Repeat("k", redoubt.MaxKeyBytes)
	meta := redoubt.Attributes{Meta: map[string]string{"note": strings.Repeat("n", 1000)}}
	tags := []redoubt.Tag{{Key: "a", Value: strings.Repeat("v", 200)}}
	w.put(s, "first", "", "")
	var u redoubt.Upload
	for _, c := range []struct {
		what  string
		least int64
		do    func() error
	}{
		{"an empty version", chargeOverhead + 5, func() error { w.put(s, "empty", "", ""); return nil }},
		{"content", chargeOverhead + 1000, func() error { w.put(s, "content", strings.Repeat("x", 1000), ""); return nil }},
		{"a name", chargeOverhead + redoubt.MaxKeyBytes, func() error { w.put(s, long, "", ""); return nil }},
		{"metadata", chargeOverhead + 1000, func() error {
			_, err := w.PutObject(ctx, s, redoubt.PutObject{Name: named("meta"), Attributes: meta})
			return err
		}},
		{"a marker", chargeOverhead, func() error { return w.marker(s, "marker") }},
		{"tags", 200, func() error {
			_, err := w.AlterObject(ctx, s, redoubt.AlterObject{Name: named("first"), Tags: &tags})
			return err
		}},
		{"an upload", chargeOverhead + 1000, func() (err error) {
			u, err = w.CreateUpload(ctx, s, redoubt.CreateUpload{Name: named("up"), Attributes: meta})
			return err
		}},
		{"a part", chargeOverhead + 7, func() error { w.part(s, u, 1, []byte("1234567")); return nil }},
	} {
		before := w.charged("SECRET")
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		if grown := w.charged("SECRET") - before; grown < c.least {
			t.Errorf("%s is charged %d bytes, want %d at least", c.what, grown, c.least)
		}
	}
	before := w.charged("SECRET")
	if err := w.AbortUpload(ctx, s, u.Name, u.ID); err != nil {
		t.Fatal(err)
	}
	if back := before - w.charged("SECRET"); back < 2*chargeOverhead+1000 {
		t.Errorf("the end of an upload gives %d bytes back", back)
	}
	none := []redoubt.Tag{}
	before = w.charged("SECRET")
	if _, err := w.AlterObject(ctx, s, redoubt.AlterObject{Name: named("first"), Tags: &none}); err != nil {
		t.Fatal(err)
	}
	if back := before - w.charged("SECRET"); back < 200 {
		t.Errorf("tags that go give %d bytes back", back)
	}
}

// TestAChargeTellsNothingOfOtherLabels: how many blobs and label sets a node has shows in no charge.
func TestAChargeTellsNothingOfOtherLabels(t *testing.T) {
	charge := func(made uint32, ref store.BlobRef) int64 {
		r := sample()
		r.made, r.pieces[0].ref = made, ref
		p := &partRecord{Ref: ref, Size: 5, Wrapped: make([]byte, 64)}
		b := new(store.Batch)
		var err error
		if p.stored, err = putPart(b, versionID{}, 1, p); err != nil {
			t.Fatal(err)
		}
		back, err := decodeRecord(r.encode(nil))
		if err != nil || back.charge("k") != r.cost("k", len(r.encode(nil))) {
			t.Fatalf("read back it costs %d, %v", back.charge("k"), err)
		}
		return back.charge("k") + p.charge()
	}
	few, many := charge(3, 7), charge(300, 1<<40)
	if few != many {
		t.Errorf("a version and a part cost %d among few and %d among many", few, many)
	}
}

// TestAShareIsSpentByWhateverIsStored spends a share by each sort of record alone: it ends, to the byte, at the quota.
func TestAShareIsSpentByWhateverIsStored(t *testing.T) {
	const quota = 60_000
	ctx := context.Background()
	for what, once := range map[string]func(w *world, who redoubt.Credential, n int) error{
		"empty versions": func(w *world, who redoubt.Credential, n int) error {
			_, err := w.PutObject(ctx, who, redoubt.PutObject{Name: named(fmt.Sprint(n))})
			return err
		},
		"metadata": func(w *world, who redoubt.Credential, n int) error {
			_, err := w.PutObject(ctx, who, redoubt.PutObject{Name: named("a"), Attributes: redoubt.Attributes{Meta: map[string]string{"n": strings.Repeat("n", 2000)}}})
			return err
		},
		"uploads": func(w *world, who redoubt.Credential, n int) error {
			_, err := w.CreateUpload(ctx, who, redoubt.CreateUpload{Name: named("a")})
			return err
		},
		"markers": func(w *world, who redoubt.Credential, n int) error { return w.marker(who, "a") },
	} {
		for _, marking := range []string{"UNCLASSIFIED", "SECRET"} {
			w := shares(t, map[string]int64{"UNCLASSIFIED": quota, "SECRET": quota})
			who, n := w.as("s-analyst", marking), 0
			var err error
			for err == nil && n < 1000 {
				err = once(w, who, n)
				n++
			}
			want(t, err, redoubt.QuotaExceeded)
			limit := int64(quota)
			if what == "markers" {
				limit += markerRoom
			}
			if used := w.charged(marking); used > limit || used < limit-4000 {
				t.Errorf("%s at %s: %d bytes are charged of %d", what, marking, used, limit)
			}
			other := map[string]string{"UNCLASSIFIED": "SECRET", "SECRET": "UNCLASSIFIED"}[marking]
			w.put(w.as("s-analyst", other), "other", "another label's share", "")
		}
	}
}

func TestWhoIsOverItsShareCanStillFreeIt(t *testing.T) {
	const quota = 100_000
	w := shares(t, map[string]int64{"SECRET": quota})
	ctx, s := context.Background(), w.as("s-analyst", "")
	v := w.put(s, "a", "keep", "")
	u, list := w.upload(s, "parts", "", 10)
	locked := redoubt.ObjectName{Bucket: "locked", Key: "a"}
	_, err := w.PutObject(ctx, s, redoubt.PutObject{Name: locked})
	if err != nil {
		t.Fatal(err)
	}
	w.fillUp(s, "SECRET", quota)
	_, err = w.CreateUpload(ctx, s, redoubt.CreateUpload{Name: named("no")})
	want(t, err, redoubt.QuotaExceeded)
	grow := []redoubt.Tag{{Key: "k", Value: strings.Repeat("v", 256)}, {Key: "l", Value: strings.Repeat("v", 256)}}
	_, err = w.AlterObject(ctx, s, redoubt.AlterObject{Name: named("a"), Tags: &grow})
	want(t, err, redoubt.QuotaExceeded)
	_, err = w.CopyObject(ctx, s, redoubt.CopyObject{Source: v.Name, Target: named("copy")})
	want(t, err, redoubt.QuotaExceeded)
	if got := w.get(s, "a"); got != "keep" {
		t.Errorf("got %q, want keep", got)
	}
	lock := redoubt.Retention{Mode: "GOVERNANCE", Until: w.clock().Add(time.Hour)}
	if _, err := w.AlterObject(ctx, s, redoubt.AlterObject{Name: locked, Retention: &lock}); err != nil {
		t.Errorf("a lock over a share that is spent: %v", err)
	}
	before := w.charged("SECRET")
	if err := w.marker(s, "a"); err != nil {
		t.Errorf("a marker over a share that is spent: %v", err)
	}
	one := w.charged("SECRET") - before
	for err = nil; err == nil; {
		err = w.marker(s, "a")
	}
	want(t, err, redoubt.QuotaExceeded)
	if used := w.charged("SECRET"); used > quota+markerRoom || used+one <= quota+markerRoom {
		t.Errorf("markers end at %d bytes, want the last that fits %d", used, quota+markerRoom)
	}
	if _, err := w.complete(s, u, list); err != nil { // what it makes costs less than what it takes
		t.Errorf("complete: %v", err)
	}
	gone, _ := w.ListVersions(ctx, s, redoubt.ListVersions{Bucket: "reports", Max: 1000})
	for _, v := range gone.Versions {
		if err := w.del(s, v.Name.Key, v.ID); err != nil {
			t.Fatalf("delete a version: %v", err)
		}
	}
	if n := w.charged("SECRET"); n > chargeOverhead+400 {
		t.Errorf("%d bytes stay charged for one empty version", n)
	}
	w.put(s, "again", strings.Repeat("x", quota/2), "")
}

// fillUp spends a label's share to the byte.
func (w *world) fillUp(who redoubt.Credential, marking string, quota int64) {
	w.t.Helper()
	const step = 10_000 // all sizes from 128 to 16,383 take two bytes in a record
	before := w.charged(marking)
	w.put(who, "fill", strings.Repeat("x", step), "")
	record := w.charged(marking) - before - step
	left := quota - w.charged(marking) - record
	for ; left > 16_000; left -= step + record {
		w.put(who, "fill", strings.Repeat("x", step), "")
	}
	w.put(who, "fill", strings.Repeat("x", int(left)), "")
	if n := w.charged(marking); n != quota {
		w.t.Fatalf("%d bytes are charged, want %d", n, quota)
	}
}

func TestAWriteUpIsChargedToItsWriterForGood(t *testing.T) {
	const quota = 50_000
	w := shares(t, map[string]int64{"UNCLASSIFIED": quota, "SECRET": quota})
	ctx, low, s := context.Background(), w.as("ts-analyst", "UNCLASSIFIED"), w.as("s-analyst", "")
	up := w.put(low, "up", strings.Repeat("x", 20_000), "SECRET")
	paid := w.charged("UNCLASSIFIED")
	if paid < 20_000 || w.charged("SECRET") != 0 {
		t.Fatalf("its writer is charged %d bytes and the label above %d", paid, w.charged("SECRET"))
	}
	// The share above is spent by those above, and the writer is not told.
	for err := error(nil); err == nil; {
		_, err = w.PutObject(ctx, s, redoubt.PutObject{Name: named("high"), SizeBytes: 5000, Body: bytes.NewReader(make([]byte, 5000))})
	}
	w.put(low, "up", strings.Repeat("x", 20_000), "SECRET")
	_, err := w.PutObject(ctx, low, redoubt.PutObject{Name: named("up"), Label: "SECRET", SizeBytes: 20_000, Body: bytes.NewReader(make([]byte, 20_000))})
	want(t, err, redoubt.QuotaExceeded)
	if strings.Contains(err.Error(), "SECRET") {
		t.Errorf("the refusal names the label above: %v", err)
	}
	// What is done with it above gives nothing back below.
	paid = w.charged("UNCLASSIFIED")
	if err := w.EraseVersion(ctx, w.as("officer", ""), up.Name, up.ID, "spill"); err != nil {
		t.Fatal(err)
	}
	if n := w.charged("UNCLASSIFIED"); n != paid {
		t.Errorf("an erasure above changes the charge below from %d to %d", paid, n)
	}
	w.restart(false)
	if n := w.charged("UNCLASSIFIED"); n != paid {
		t.Errorf("a restart changes the charge from %d to %d", paid, n)
	}
	if err := w.erase(redoubt.Change{Kind: redoubt.ChangeEraseLabel, Label: "SECRET"}); err != nil {
		t.Fatal(err)
	}
	if n := w.charged("UNCLASSIFIED"); n != paid {
		t.Errorf("the erasure of the label above changes the charge below from %d to %d", paid, n)
	}
	if n := w.charged("SECRET"); n != 0 {
		t.Errorf("%d bytes stay charged to a label that was erased", n)
	}
}

func TestLifecycleTellsNothingDownwardByAShare(t *testing.T) {
	w, h := aged(t, redoubt.LifecycleRule{Days: 1, NoncurrentDays: 1, ExpiredMarkers: true})
	low, s := w.as("ts-analyst", "UNCLASSIFIED"), w.as("s-analyst", "")
	w.put(low, "up", "x", "SECRET")
	w.put(s, "own", "x", "")
	paid := w.charged("UNCLASSIFIED")
	for range 6 {
		h.add(2 * day)
		w.expire()
	}
	if n, markers := w.versions(w.as("s-analyst", ""), "reports"); n+markers != 0 {
		t.Fatalf("%d versions and %d markers are left", n, markers)
	}
	if n := w.charged("UNCLASSIFIED"); n != paid {
		t.Errorf("an expiry above changes the charge below from %d to %d", paid, n)
	}
	if n := w.charged("SECRET"); n != 0 {
		t.Errorf("%d bytes stay charged for what has expired", n)
	}
}

func TestASpentShareStopsNoLifecycle(t *testing.T) {
	w, h := aged(t, redoubt.LifecycleRule{Days: 1, NoncurrentDays: 1, ExpiredMarkers: true})
	s := w.as("s-analyst", "")
	for i := range 100 {
		w.put(s, fmt.Sprint(i), "x", "")
	}
	w.set("SECRET").share.quota = 1000
	for range 6 {
		h.add(2 * day)
		w.expire()
	}
	if n := w.charged("SECRET"); n != 0 {
		t.Errorf("%d bytes stay charged", n)
	}
}

func TestASharesDefaultIsForEveryLabelThatIsNotNamed(t *testing.T) {
	w := shares(t, map[string]int64{"SECRET": 5000, redoubt.QuotaOfOthers: 2000})
	for marking, limit := range map[string]int64{"SECRET": 5000, "SECRET//NOFORN": 5000, "UNCLASSIFIED": 2000, "SECRET//REL TO USA, GBR": 2000} {
		err := error(nil)
		for err == nil {
			_, err = w.PutObject(context.Background(), w.as("s-analyst", marking), redoubt.PutObject{Name: named("a")})
		}
		want(t, err, redoubt.QuotaExceeded)
		if s := w.set(marking).share; s.quota != limit || s.used.Load() > limit || s.used.Load() < limit-1000 {
			t.Errorf("%s: %d bytes are used of %d, want %d", marking, s.used.Load(), s.quota, limit)
		}
	}
	if n := w.charged("SECRET") + w.charged("SECRET//NOFORN"); n > 5000 {
		t.Errorf("two spellings of one label are charged %d bytes together", n)
	}
}

// TestWhatAPeerSendsIsChargedToo: what does not fit is refused for later, by itself, and costs the same here as where it was made.
func TestWhatAPeerSendsIsChargedToo(t *testing.T) {
	p := openPair(t, "SECRET", nil)
	s, low := p.home.as("s-analyst", ""), p.home.as("ts-analyst", "UNCLASSIFIED")
	p.home.put(s, "small", "x", "")
	p.home.put(low, "up", strings.Repeat("x", 3000), "SECRET")
	u, list := p.home.upload(s, "parts", "", redoubt.MinPartBytes, 17)
	if _, err := p.home.complete(s, u, list); err != nil {
		t.Fatal(err)
	}
	if err := p.home.marker(s, "small"); err != nil {
		t.Fatal(err)
	}
	share, err := p.device.sets.of(context.Background(), p.home.set("SECRET").label)
	if err != nil {
		t.Fatal(err)
	}
	share.share.quota = redoubt.MinPartBytes
	_, refused := carry(t, p.home, p.device)
	if len(refused) != 1 || refused[0].Kind != redoubt.QuotaExceeded || !refused[0].Later {
		t.Fatalf("refused %+v, want the one that is too large", refused)
	}
	p.device.charges()
	share.share.quota = 2 * redoubt.MinPartBytes
	if err := p.home.Forget(context.Background(), "device"); err != nil {
		t.Fatal(err)
	}
	if _, refused = carry(t, p.home, p.device); len(refused) != 0 {
		t.Fatalf("refused %+v", refused)
	}
	for _, marking := range []string{"SECRET", "UNCLASSIFIED"} {
		if a, b := p.home.charged(marking), p.device.charged(marking); a != b {
			t.Errorf("%s is charged %d where it was made and %d here", marking, a, b)
		}
	}
	grow := []redoubt.Tag{{Key: "k", Value: strings.Repeat("v", 200)}}
	if _, err := p.home.AlterObject(context.Background(), s, redoubt.AlterObject{Name: named("parts"), Tags: &grow}); err != nil {
		t.Fatal(err)
	}
	carry(t, p.home, p.device)
	if a, b := p.home.charged("SECRET"), p.device.charged("SECRET"); a != b {
		t.Errorf("after an alteration SECRET is charged %d where it was made and %d here", a, b)
	}
	page, err := p.home.ListVersions(context.Background(), s, redoubt.ListVersions{Bucket: "reports", Prefix: "parts", Max: 10})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.home.del(s, "parts", page.Versions[0].ID); err != nil {
		t.Fatal(err)
	}
	carry(t, p.home, p.device)
	if a, b := p.home.charged("SECRET"), p.device.charged("SECRET"); a != b || a > redoubt.MinPartBytes {
		t.Errorf("after a removal SECRET is charged %d where it was made and %d here", a, b)
	}
}

// TestAShareIsExactUnderConcurrency: many writers at once fill it to the last record that fits, and never over it.
func TestAShareIsExactUnderConcurrency(t *testing.T) {
	const quota = 200_000
	w := shares(t, map[string]int64{"SECRET": quota})
	ctx, s := context.Background(), w.as("s-analyst", "")
	one := func(n int) error {
		_, err := w.PutObject(ctx, s, redoubt.PutObject{Name: named(fmt.Sprintf("%04d", n)), SizeBytes: 100, Body: bytes.NewReader(make([]byte, 100))})
		return err
	}
	if err := one(0); err != nil {
		t.Fatal(err)
	}
	cost := w.charged("SECRET")
	var writers sync.WaitGroup
	for g := range 16 {
		writers.Go(func() {
			for i := range 50 {
				if err := one(1 + g*50 + i); err != nil && !errors.Is(err, redoubt.QuotaExceeded) {
					t.Error(err)
				}
				if used := w.set("SECRET").share.used.Load(); used > quota {
					t.Errorf("%d bytes are used of %d", used, quota)
				}
			}
		})
	}
	writers.Wait()
	for one(9999) == nil { // what writers that were refused held meanwhile
	}
	if used := w.charged("SECRET"); used > quota || used+cost+8 <= quota {
		t.Errorf("%d bytes of %d are used, a version costs %d", used, quota, cost)
	}
}

// TestNoTwoWritersCountOnTheSameBytes: of many who reserve at once, as many get through as fit.
func TestNoTwoWritersCountOnTheSameBytes(t *testing.T) {
	const quota = 500
	w := open(t, nil)
	w.put(w.as("s-analyst", ""), "a", "", "")
	set := w.set("SECRET")
	before := set.share.used.Load()
	set.share.quota = before + quota
	for range 300 {
		var took atomic.Int64
		var writers sync.WaitGroup
		for range 8 {
			writers.Go(func() {
				h := hold{set: set}
				for w.reserve(&h, 1, 0) == nil {
				}
				took.Add(h.held)
			})
		}
		writers.Wait()
		if n := took.Load(); n != quota {
			t.Fatalf("%d bytes were taken of %d", n, quota)
		}
		set.share.used.Add(-quota)
	}
	w.charges()
}

// TestAStateWithoutChargesIsCountedOnce opens what an older program left: nothing that says what is charged.
func TestAStateWithoutChargesIsCountedOnce(t *testing.T) {
	w := open(t, nil)
	s, low := w.as("s-analyst", ""), w.as("ts-analyst", "UNCLASSIFIED")
	w.put(s, "a", "one", "")
	w.put(s, "a", "two", "SECRET//NOFORN")
	w.put(low, "up", "three", "TOP SECRET")
	w.upload(s, "parts", "", redoubt.MinPartBytes, 7)
	if err := w.marker(s, "a"); err != nil {
		t.Fatal(err)
	}
	before := map[string]int64{}
	for _, set := range w.sets.all() {
		before[set.name] = set.charged.Load()
	}
	change := func(do func(b *store.Batch)) {
		b := new(store.Batch)
		do(b)
		if err := w.engine.Commit(context.Background(), b); err != nil {
			t.Fatal(err)
		}
		w.restart(true)
	}
	same := func(when string) {
		t.Helper()
		w.charges()
		for _, set := range w.sets.all() {
			if got := set.charged.Load(); got != before[set.name] {
				t.Errorf("%s: %s is charged %d, want %d", when, set.name, got, before[set.name])
			}
		}
	}
	change(func(b *store.Batch) {
		b.Delete(shareMark)
		for _, set := range w.sets.all() {
			b.Delete(setKey(recCharge, set.id))
		}
	})
	same("a state of an older program")
	// An older program that runs again writes the time and no charges.
	change(func(b *store.Batch) {
		b.Set(timeMark, binary.LittleEndian.AppendUint64(nil, uint64(w.clock().Add(time.Millisecond).UnixNano())))
		b.Set(setKey(recCharge, w.set("SECRET").id), binary.LittleEndian.AppendUint64(nil, 1))
	})
	same("after an older program ran again")
	before[w.set("SECRET").name] = 1
	change(func(b *store.Batch) {
		b.Set(setKey(recCharge, w.set("SECRET").id), binary.LittleEndian.AppendUint64(nil, 1))
	})
	if got := w.set("SECRET").charged.Load(); got != 1 {
		t.Errorf("what is on record was counted again: %d", got)
	}
	b := new(store.Batch)
	b.Delete(shareMark)
	if err := w.engine.Commit(context.Background(), b); err != nil {
		t.Fatal(err)
	}
}
