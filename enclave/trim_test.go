package enclave

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"redoubt"
	"redoubt/store"
)

// kept counts the records of a kind.
func (w *world) kept(kind byte) (n int) {
	w.t.Helper()
	view := w.engine.View()
	defer view.Close()
	it := view.Scan([]byte{kind}, []byte{kind + 1})
	defer it.Close()
	for it.Next() {
		n++
	}
	return n
}

func (w *world) trim() {
	w.t.Helper()
	if err := w.Trim(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

// entries counts the entries of every journal, the counters aside.
func (w *world) entries() int {
	n := 0
	for _, set := range w.sets.all() {
		if _, is, err := w.engine.Get(setKey(recJournal, set.id)); err != nil {
			w.t.Fatal(err)
		} else if is {
			n++
		}
	}
	return w.kept(recJournal) - n
}

func TestAJournalKeepsWhatAPeerHasNotAcknowledgedAndNoMore(t *testing.T) {
	p := openPair(t, "SECRET", nil)
	third := open(t, func(o *Options) { o.Name = "third" })
	p.join(p.home, third, "SECRET")
	who, top := p.home.as("s-analyst", ""), p.home.as("ts-analyst", "")
	for _, key := range []string{"a", "b", "c"} {
		p.home.put(who, key, key, "")
		p.home.put(top, key, "above both bounds", "")
	}
	p.home.trim()
	if n := p.home.entries(); n != 3 {
		t.Errorf("%d entries are left, want the three at SECRET: no peer is for what is above", n)
	}
	carry(t, p.home, p.device)
	p.home.trim()
	if n := p.home.entries(); n != 3 {
		t.Errorf("%d entries are left while one peer of two has not acknowledged them, want 3", n)
	}
	carry(t, p.home, third)
	p.home.put(who, "d", "d", "")
	p.home.trim()
	p.home.trim()
	if n := p.home.entries(); n != 1 {
		t.Errorf("%d entries are left, want the one that nobody has acknowledged", n)
	}
	carry(t, p.home, p.device)
	carry(t, p.home, third)
	want := p.home.picture(who)
	for _, w := range []*world{p.device, third} {
		if got := w.picture(w.as("s-analyst", "")); !slices.Equal(got, want) || len(got) != 4 {
			t.Errorf("%s shows %v, want %v", w.name, got, want)
		}
	}
	// Who is new, and who lost its state, is told by what there is.
	late := open(t, func(o *Options) { o.Name = "late" })
	p.join(p.home, late, "SECRET")
	p.home.trim()
	carry(t, p.home, late)
	if got := late.picture(late.as("s-analyst", "")); !slices.Equal(got, want) {
		t.Errorf("who came late shows %v, want %v", got, want)
	}
}

func TestAPeerThatWasRetiredWhileTheJournalWentOnIsAskedAnew(t *testing.T) {
	p := openPair(t, "SECRET", nil)
	third := open(t, func(o *Options) { o.Name = "third" })
	p.join(p.home, third, "SECRET")
	who := p.home.as("s-analyst", "")
	p.home.put(who, "a", "a", "")
	carry(t, p.home, p.device)
	carry(t, p.home, third)
	all := *p.home.links.table.Load()
	if err := p.home.SetLinks(context.Background(), []redoubt.Link{all["third"]}); err != nil {
		t.Fatal(err)
	}
	p.home.put(who, "b", "written while the device was retired", "")
	carry(t, p.home, third)
	p.home.trim()
	if err := p.home.SetLinks(context.Background(), []redoubt.Link{all["third"], all["device"]}); err != nil {
		t.Fatal(err)
	}
	if _, known, err := p.home.Acknowledged(context.Background(), "device", "USA@1 SECRET"); err != nil || known {
		t.Errorf("what a retired peer acknowledged counts although the journal was trimmed beyond it (%v)", err)
	}
	carry(t, p.home, p.device)
	if got := p.device.get(p.device.as("s-analyst", ""), "b"); got != "written while the device was retired" {
		t.Errorf("the device shows %q", got)
	}
}

func TestAMarkOfARemovalGoesWhenEveryPeerAcknowledgedItAndNeverByAge(t *testing.T) {
	clock := new(hands)
	clocked := func(name redoubt.NodeName) func(*Options) {
		return func(o *Options) { o.Name, o.Clock = name, clock.clock }
	}
	clock.now.Store(time.Now().UnixNano())
	p := pair{open(t, clocked("home")), open(t, clocked("device"))}
	third := open(t, clocked("third"))
	p.join(p.home, p.device, "SECRET")
	p.join(p.home, third, "SECRET")
	who := p.home.as("s-analyst", "")
	v := p.home.put(who, "a", "a", "")
	carry(t, p.home, p.device)
	carry(t, p.home, third)
	if err := p.home.del(who, "a", v.ID); err != nil {
		t.Fatal(err)
	}
	carry(t, p.home, third)
	p.home.trim()
	clock.add(20 * 366 * 24 * time.Hour)
	p.home.trim()
	if n := p.home.kept(recFate); n != 1 {
		t.Fatalf("%d marks are left after twenty years in which one peer was not met, want 1", n)
	}
	if err := p.device.Forget(context.Background(), "home"); err != nil {
		t.Fatal(err)
	}
	carry(t, p.device, p.home) // it brings everything that it has
	if n := p.home.sets.table.Load().byLabel[who.Working].versions.Load(); n != 0 {
		t.Errorf("%d versions that were removed came back after twenty years", n)
	}
	carry(t, p.home, p.device)
	carry(t, p.device, p.home)
	carry(t, third, p.home)
	for _, w := range []*world{p.home, p.device, third} {
		w.trim()
		if n := w.kept(recFate); n != 1 {
			t.Errorf("%s has %d marks just after everybody acknowledged the removal, want 1: what is under way may still come", w.name, n)
		}
	}
	clock.add(forgetAfter + time.Hour)
	for _, w := range []*world{p.home, p.device, third} {
		w.trim()
		if marks, stamps, entries := w.kept(recFate), w.kept(recStamp), w.entries(); marks+stamps+entries != 0 {
			t.Errorf("%s has %d marks, %d stamps and %d entries of what everybody forgot, want none", w.name, marks, stamps, entries)
		}
	}
}

func TestAMarkOfARemovalGoesWhenThePeerThatLacksItWasRetired(t *testing.T) {
	clock := new(hands)
	clock.now.Store(time.Now().UnixNano())
	p := pair{open(t, func(o *Options) { o.Name, o.Clock = "home", clock.clock }), open(t, func(o *Options) { o.Name, o.Clock = "device", clock.clock })}
	p.join(p.home, p.device, "SECRET")
	who := p.home.as("s-analyst", "")
	v := p.home.put(who, "a", "a", "")
	carry(t, p.home, p.device)
	if err := p.home.del(who, "a", v.ID); err != nil {
		t.Fatal(err)
	}
	p.home.trim()
	if err := p.home.SetLinks(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	p.home.trim()
	clock.add(forgetAfter + time.Hour)
	p.home.trim()
	if marks, stamps := p.home.kept(recFate), p.home.kept(recStamp); marks+stamps != 0 {
		t.Errorf("%d marks and %d stamps are left, want none", marks, stamps)
	}
}

func TestWhatIsWrittenWhileANodeHasNoLinkIsJournaled(t *testing.T) {
	p := openPair(t, "SECRET", nil)
	who := p.home.as("s-analyst", "")
	v := p.home.put(who, "before", "1", "")
	carry(t, p.home, p.device)
	all := *p.home.links.table.Load()
	if err := p.home.SetLinks(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	p.home.put(who, "between", "2", "")
	if err := p.home.del(who, "before", v.ID); err != nil {
		t.Fatal(err)
	}
	p.home.restart(true)
	p.home.put(p.home.as("s-analyst", ""), "after a restart", "3", "")
	if err := p.home.SetLinks(context.Background(), []redoubt.Link{all["device"]}); err != nil {
		t.Fatal(err)
	}
	carry(t, p.home, p.device)
	want := p.home.picture(p.home.as("s-analyst", ""))
	if got := p.device.picture(p.device.as("s-analyst", "")); !slices.Equal(got, want) || len(got) != 2 {
		t.Errorf("the device shows %v, want %v", got, want)
	}
}

func TestWhatIsRemovedWhileTheIndexIsMadeIsNotIndexed(t *testing.T) {
	var f *faulty
	p := pair{open(t, func(o *Options) { o.Name = "home"; withFaults(&f)(o) }), open(t, func(o *Options) { o.Name = "device" })}
	who := p.home.as("s-analyst", "")
	v := p.home.put(who, "a", "a", "")
	p.home.put(who, "b", "b", "")
	once := false
	f.when(func(b *store.Batch) error { // the commit of the index
		at := slices.IndexFunc(b.Writes, func(w store.Write) bool { return len(w.Key) > 0 && w.Key[0] == recStamp && w.Op == store.OpSet })
		if at < 0 || once {
			return nil
		}
		once = true
		f.before = nil
		f.mu.Unlock()
		defer f.mu.Lock()
		return p.home.del(who, "a", v.ID)
	})
	p.join(p.home, p.device, "SECRET")
	if !once {
		t.Fatal("nothing was removed while the index was made")
	}
	carry(t, p.home, p.device)
	carry(t, p.device, p.home)
	inventory := func(w, peer *world) (all []redoubt.Stamp) {
		if _, err := w.Inventory(context.Background(), peer.name, "USA@1 SECRET", func(s redoubt.Stamp) error { all = append(all, s); return nil }); err != nil {
			t.Fatal(err)
		}
		return all
	}
	if a, b := inventory(p.home, p.device), inventory(p.device, p.home); !slices.EqualFunc(a, b, func(x, y redoubt.Stamp) bool { return bytes.Equal(x[:], y[:]) }) {
		t.Errorf("both hold the same and their inventories differ: %x, %x", a, b)
	}
}

func TestOfTwoRemovalsEveryNodeKeepsTheSame(t *testing.T) {
	p := openPair(t, "SECRET", nil)
	third := open(t, func(o *Options) { o.Name = "third" })
	p.join(p.home, third, "SECRET")
	p.join(p.device, third, "SECRET")
	p.home.put(p.home.as("s-analyst", ""), "a", "a", "")
	carry(t, p.home, p.device)
	carry(t, p.home, third)
	for _, w := range []*world{p.home, p.device, third} {
		who := w.as("s-analyst", "")
		page, err := w.ListVersions(context.Background(), who, redoubt.ListVersions{Bucket: "reports", Max: 10})
		if err != nil || len(page.Versions) != 1 {
			t.Fatal(page, err)
		}
		if err := w.del(who, "a", page.Versions[0].ID); err != nil {
			t.Fatal(err)
		}
	}
	all := []*world{p.home, p.device, third}
	for range 3 {
		for _, a := range all {
			for _, b := range all {
				if a != b {
					carry(t, a, b)
				}
			}
		}
	}
	for _, a := range all {
		for _, b := range all {
			if a == b {
				continue
			}
			if err := a.Forget(context.Background(), b.name); err != nil {
				t.Fatal(err)
			}
			var here, there []redoubt.Stamp
			_, _ = a.Inventory(context.Background(), b.name, "USA@1 SECRET", func(s redoubt.Stamp) error { here = append(here, s); return nil })
			_, _ = b.Inventory(context.Background(), a.name, "USA@1 SECRET", func(s redoubt.Stamp) error { there = append(there, s); return nil })
			if !slices.Equal(here, there) || len(here) != 1 {
				t.Errorf("%s and %s each keep a removal of its own: %x, %x", a.name, b.name, here, there)
			}
		}
	}
}

func TestARefusalThatCannotBeRecordedIsNone(t *testing.T) {
	var f *faulty
	p := pair{open(t, func(o *Options) { o.Name = "home" }), open(t, func(o *Options) { o.Name = "device"; withFaults(&f)(o) })}
	p.join(p.home, p.device, "SECRET")
	p.home.put(p.home.as("ts-analyst", ""), "a", "a", "")
	l := (*p.home.links.table.Load())["device"]
	l.Bound = p.home.ceiling
	p.home.link(nil, l)
	refs, _, err := p.home.Since(context.Background(), "device", p.home.sets.table.Load().byLabel[p.home.as("ts-analyst", "").Working].name, 0, 10)
	if err != nil || len(refs) != 1 {
		t.Fatal(len(refs), err)
	}
	items := fetch(t, p.home, p.device, p.home.sets.table.Load().byLabel[p.home.as("ts-analyst", "").Working].name, refs)
	f.when(func(*store.Batch) error { return &redoubt.Error{Op: "commit", Kind: redoubt.DiskFull} })
	refused, err := p.device.Apply(context.Background(), "home", received(t, items))
	if len(refused) != 0 || !errors.Is(err, redoubt.DiskFull) {
		t.Errorf("refused %+v, %v: want no refusal, which the sender would take for the last word, and the fault", refused, err)
	}
	f.when(nil)
}
