package redoubttest_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/redoubttest"
	"redoubt/replica"
)

// limited joins two stacks by a link with budgets for what home sends, and subscriptions as home has them.
func limited(t *testing.T, home, device *redoubttest.Stack, budget map[string]int64, subs ...redoubt.Subscription) {
	t.Helper()
	link(t, home, device, "SECRET")
	l := home.Links()[device.Name()]
	l.Budget, l.Subscriptions = budget, subs
	if err := home.SetLinks(context.Background(), []redoubt.Link{l}); err != nil {
		t.Fatal(err)
	}
	other := device.Links()[home.Name()]
	for _, s := range subs {
		s.In, s.Out = s.Out, s.In
		other.Subscriptions = append(other.Subscriptions, s)
	}
	if err := device.SetLinks(context.Background(), []redoubt.Link{other}); err != nil {
		t.Fatal(err)
	}
}

func TestALabelThatHasSpentItsBudgetWaitsForTheNextDayAndNoOtherFeelsIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		home, device := twoStacks(t)
		limited(t, home, device, map[string]int64{"SECRET": 100_000})
		high, low := home.As(home.Mint("s-analyst", "")), home.As(home.Mint("s-analyst", "UNCLASSIFIED"))
		there := device.As(device.Mint("s-analyst", ""))
		m := meet(home, device, 0)
		for i := range 10 {
			put(t, home, high, fmt.Sprintf("secret-%d", i), noise(uint64(i), 20_000), "")
			synctest.Wait()
		}
		put(t, home, high, "flash", noise(20, 20_000), "flash")
		for i := range 10 {
			put(t, home, low, fmt.Sprintf("open-%d", i), noise(uint64(30+i), 20_000), "")
		}
		synctest.Wait()
		count := func() (secret, open int) {
			for _, line := range seen(t, device, there) {
				if line[:4] == "open" {
					open++
				} else {
					secret++
				}
			}
			return secret, open
		}
		if secret, open := count(); secret != 5+1 || open != 10 {
			t.Errorf("of a spent budget the device has %d SECRET versions and %d of another label, want the 5 paid for with the FLASH, and 10", secret, open)
		}
		// Whoever starts anew on the same day has spent it still.
		m.part()
		if b, err := home.Budget(context.Background(), "outpost", "USA@1 SECRET"); err != nil || b.PerDay != 100_000 || b.Spent < 120_000 || b.Spent > 130_000 {
			t.Errorf("on record: %+v, %v; want six versions of 20,000 bytes and a little", b, err)
		}
		m = meet(home, device, 0)
		synctest.Wait()
		if secret, _ := count(); secret != 6 {
			t.Errorf("a new meeting on the same day brought the device to %d SECRET versions, want 6", secret)
		}
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		if secret, open := count(); secret != 6+5 || open != 10 {
			t.Errorf("on the next day the device has %d and %d, want 11 and 10", secret, open)
		}
		m.part()
	})
}

func TestWhoHandsOverItsWorkAsksNoBudget(t *testing.T) {
	bubble(t, func(t *testing.T) {
		home, device := twoStacks(t)
		limited(t, home, device, map[string]int64{redoubt.QuotaOfOthers: 1000})
		h, d := home.As(home.Mint("s-analyst", "")), device.As(device.Mint("s-analyst", ""))
		for i := range 5 {
			put(t, home, h, fmt.Sprint(i), noise(uint64(i), 20_000), "")
		}
		m := meet(home, device, 0)
		synctest.Wait()
		if n := len(seen(t, device, d)); n == 5 {
			t.Fatal("nothing was held back")
		}
		if err := m.ends[0].HandedOver(context.Background()); err != nil {
			t.Error(err)
		}
		same(t, home, device, h, d)
		m.part()
	})
}

func TestALinkThatCarriesTheLatestAloneSkipsWhatIsSuperseded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		home, device := twoStacks(t)
		limited(t, home, device, nil, redoubt.Subscription{Bucket: "reports", Prefix: "tracks/", In: true, Out: true, Latest: true},
			redoubt.Subscription{Bucket: "reports", Prefix: "orders", In: true, Out: true})
		h, d := home.As(home.Mint("s-analyst", "")), device.As(device.Mint("s-analyst", ""))
		low := home.As(home.Mint("s-analyst", "UNCLASSIFIED"))
		put(t, device, d, "tracks/7", "made at the device", "")
		m := meet(home, device, 0)
		synctest.Wait()
		m.part()
		for i := range 20 {
			put(t, home, h, "tracks/7", fmt.Sprintf("home %d", i), "")
			put(t, home, h, "orders", fmt.Sprintf("order %d", i), "")
		}
		put(t, home, low, "tracks/7", "of another label", "")
		if p, err := home.Pending(context.Background(), "outpost", func(string) bool { return true }); err != nil || p.Versions != 23 {
			t.Errorf("%d versions wait (%v), want 20 orders, the track's first on the device's, its last, and the one of another label", p.Versions, err)
		}
		m = meet(home, device, 0)
		synctest.Wait()
		var tracks, orders int
		for _, line := range seen(t, device, d) {
			if line[:6] == "orders" {
				orders++
			} else {
				tracks++
			}
		}
		if orders != 20 || tracks != 4 {
			t.Errorf("the device has %d orders and %d versions of the track, want 20 and 4", orders, tracks)
		}
		if all, err := device.Conflicts(context.Background(), d); err != nil || len(all) != 0 {
			t.Errorf("conflicts %v, %v: nobody wrote apart", all, err)
		}
		m.part()
		if p, err := home.Pending(context.Background(), "outpost", func(string) bool { return true }); err != nil || p.Versions != 0 {
			t.Errorf("%d versions wait: %v", p.Versions, err)
		}
		// Who compares finds no difference: both leave out what is superseded.
		if err := device.Forget(context.Background(), "secret"); err != nil {
			t.Fatal(err)
		}
		m = meet(home, device, 0)
		synctest.Wait()
		if n := m.ends[0].Status().Sent["USA@1 SECRET"]; n != 0 {
			t.Errorf("%d entries were sent again", n)
		}
		for i, r := range m.road { // a hello, and for each of two label sets a question of one range and an empty answer
			if n, bytes := r.Bytes(); bytes > 500 {
				t.Errorf("to compare sets that are alike end %d said %d messages of %d bytes", i, n, bytes)
			}
		}
		m.part()
	})
}

func TestWhatIsTheNewestAgainWhenTheOneAfterItIsRemovedTravels(t *testing.T) {
	bubble(t, func(t *testing.T) {
		home, device := twoStacks(t)
		limited(t, home, device, nil, redoubt.Subscription{Bucket: "reports", In: true, Out: true, Latest: true})
		h, d := home.As(home.Mint("s-analyst", "")), device.As(device.Mint("s-analyst", ""))
		for _, side := range []struct {
			at, other *redoubttest.Stack
			who, sees redoubt.Credential
			key       string
		}{{home, device, h, d, "at home"}, {device, home, d, h, "at the device"}} {
			put(t, side.at, side.who, side.key, "first", "")
			second := put(t, side.at, side.who, side.key, "second", "")
			m := meet(home, device, 0)
			synctest.Wait()
			m.part() // the first is superseded, and stayed where it is
			if _, err := side.at.DeleteObject(context.Background(), side.who, redoubt.DeleteObject{Name: second.Name, ID: second.ID}); err != nil {
				t.Fatal(err)
			}
			m = meet(home, device, 0)
			synctest.Wait()
			m.part()
			o, err := side.other.GetObject(context.Background(), side.sees, redoubt.ReadObject{Name: second.Name})
			if err != nil {
				t.Errorf("%s: the other side does not show the first, which is the newest again: %v", side.key, err)
				continue
			}
			o.Close()
		}
		same(t, home, device, h, d)
	})
}

// turning is a journal in which something happens behind a reading of it, and behind the look-up of what was read.
type turning struct {
	redoubt.Journal
	read, found func()
}

func (j *turning) Since(ctx context.Context, peer redoubt.NodeName, set string, after uint64, max int) ([]redoubt.JournalRef, uint64, error) {
	refs, upTo, err := j.Journal.Since(ctx, peer, set, after, max)
	if len(refs) > 0 && j.read != nil {
		read := j.read
		j.read = nil
		read()
	}
	return refs, upTo, err
}

func (j *turning) Fetch(ctx context.Context, peer redoubt.NodeName, set string, stamps []redoubt.Stamp) ([]redoubt.JournalItem, error) {
	items, err := j.Journal.Fetch(ctx, peer, set, stamps)
	if slices.ContainsFunc(items, func(i redoubt.JournalItem) bool { return i.Superseded }) && j.found != nil {
		found := j.found
		j.found = nil
		found()
	}
	return items, err
}

func TestWhatIsTheNewestAgainWhileItIsLeftOutTravels(t *testing.T) {
	bubble(t, func(t *testing.T) {
		home, device := twoStacks(t)
		limited(t, home, device, nil, redoubt.Subscription{Bucket: "reports", In: true, Out: true, Latest: true})
		h, d := home.As(home.Mint("s-analyst", "")), device.As(device.Mint("s-analyst", ""))
		put(t, home, h, "before", "", "")
		m := meet(home, device, 0)
		synctest.Wait() // the two have compared: what follows is read from the journal
		m.part()
		var second redoubt.Version
		left := false
		journal := &turning{Journal: home, read: func() { second = put(t, home, h, "a", "second", "") }, found: func() {
			left = true
			if _, err := home.DeleteObject(context.Background(), h, redoubt.DeleteObject{Name: second.Name, ID: second.ID}); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second) // until the journal has been read on
		}}
		put(t, home, h, "a", "first", "")
		a, b := redoubttest.NewRoad(0)
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 2)
		for _, end := range []*replica.Session{
			replica.New(replica.Options{Estate: "example", Node: home.Name(), Peer: device.Name(), Journal: journal, State: home, Conn: a}),
			replica.New(replica.Options{Estate: "example", Node: device.Name(), Peer: home.Name(), Journal: device, State: device, Conn: b}),
		} {
			go func() { ended <- end.Run(ctx) }()
		}
		time.Sleep(time.Minute)
		stop()
		<-ended
		<-ended
		if !left {
			t.Fatal("nothing was left out")
		}
		same(t, home, device, h, d)
	})
}

func TestASubscriptionHasABoundOfItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		home, device := twoStacks(t)
		limited(t, home, device, nil, redoubt.Subscription{Bucket: "reports", In: true, Out: true, Bound: "UNCLASSIFIED", Limit: home.Label("UNCLASSIFIED")})
		h, d := home.As(home.Mint("s-analyst", "")), device.As(device.Mint("s-analyst", ""))
		low := home.As(home.Mint("s-analyst", "UNCLASSIFIED"))
		put(t, home, h, "a", "secret", "")
		put(t, home, low, "b", "open", "")
		put(t, device, d, "c", "secret", "")
		m := meet(home, device, 0)
		synctest.Wait()
		m.part()
		if got := seen(t, device, d); len(got) != 2 {
			t.Errorf("the device has %q, want its own and the open one", got)
		}
		if got := seen(t, home, h); len(got) != 2 {
			t.Errorf("home has %q, want its own two", got)
		}
		// Who sends above it is refused: here the device, which forgets the bound.
		l := device.Links()["secret"]
		l.Subscriptions = nil
		if err := device.SetLinks(context.Background(), []redoubt.Link{l}); err != nil {
			t.Fatal(err)
		}
		if err := device.Forget(context.Background(), "secret"); err != nil {
			t.Fatal(err)
		}
		m = meet(home, device, 0)
		synctest.Wait()
		m.part()
		if got := seen(t, home, h); len(got) != 2 {
			t.Errorf("home took what lies above the subscription's bound: %q", got)
		}
	})
}

func TestAComparisonKnowsWhatIsUrgent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		home, device := twoStacks(t)
		limited(t, home, device, map[string]int64{"SECRET": 1}) // after one message nothing but FLASH goes
		h, d := home.As(home.Mint("s-analyst", "")), device.As(device.Mint("s-analyst", ""))
		for i := range 40 {
			put(t, home, h, fmt.Sprintf("routine-%02d", i), noise(uint64(i), 30_000), "")
		}
		put(t, home, h, "urgent", "advance", "flash")
		m := meet(home, device, 0)
		synctest.Wait()
		m.part()
		urgent := false
		got := seen(t, device, d)
		for _, line := range got {
			urgent = urgent || line[:6] == "urgent"
		}
		if !urgent || len(got) > 2 {
			t.Errorf("of %d versions that came, FLASH is one: %v", len(got), urgent)
		}
	})
}

func TestALargeObjectStopsBetweenSegmentsWhenTheDaysBudgetIsSpentAndGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		home, device := twoStacks(t)
		limited(t, home, device, map[string]int64{"SECRET": 9 << 20})
		h, d := home.As(home.Mint("s-analyst", "")), device.As(device.Mint("s-analyst", ""))
		put(t, home, h, "imagery", noise(1, 36<<20), "")
		m := meet(home, device, 0)
		synctest.Wait()
		for day := range 3 { // two segments of 8 MiB a day: the second begins while some is left
			if n := len(seen(t, device, d)); (n == 1) != (day == 2) {
				t.Errorf("on day %d the device shows %d versions", day, n)
			}
			time.Sleep(24 * time.Hour)
			synctest.Wait()
		}
		_, bytes := m.road[0].Bytes()
		if bytes > 37<<20 {
			t.Errorf("36 MiB cost %d bytes: what went on a day before was sent again", bytes)
		}
		m.part()
		same(t, home, device, h, d)
	})
}
