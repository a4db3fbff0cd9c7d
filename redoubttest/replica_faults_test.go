package redoubttest_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/redoubttest"
)

func TestASessionThatBreaksWhileItComparesAcknowledgesNothing(t *testing.T) {
	for limit := 2; limit < 6; limit++ {
		bubble(t, func(t *testing.T) {
			home, device := twoStacks(t)
			h, d := home.As(home.Mint("s-analyst", "")), device.As(device.Mint("s-analyst", ""))
			for i := range 10 { // before there was a link: the journal has no entries of them
				put(t, home, h, fmt.Sprintf("k%d", i), "written before they ever met", "")
			}
			link(t, home, device, "SECRET")
			m := meet(home, device, limit)
			time.Sleep(3 * time.Second)
			m.part()
			m = meet(home, device, 0)
			synctest.Wait()
			m.part()
			same(t, home, device, h, d)
			if got := seen(t, device, d); len(got) != 10 {
				t.Errorf("after a session that broke at message %d the device shows %d versions, want 10", limit, len(got))
			}
		})
	}
}

func TestWhatIsRefusedForNowIsTakenLaterInTheSameSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		ahead, here := redoubttest.NewClock(noon.Add(10*time.Minute)), redoubttest.NewClock(noon)
		home := redoubttest.New(t, redoubttest.Options{Seed: 1, Name: "secret", Ceiling: "SECRET", Clock: ahead})
		device := redoubttest.New(t, redoubttest.Options{Seed: 2, Name: "outpost", Ceiling: "SECRET", Clock: here})
		link(t, home, device, "SECRET")
		h, d := home.As(home.Mint("s-analyst", "")), device.As(device.Mint("s-analyst", ""))
		put(t, home, h, "orders", "advance", "")
		m := meet(home, device, 0)
		time.Sleep(time.Minute)
		if got := seen(t, device, d); len(got) != 0 {
			t.Fatalf("a version from the future was taken: %v", got)
		}
		n, _ := m.road[0].Bytes()
		if n > 10 { // hello, comparison, and the entry some three times
			t.Errorf("in a minute of refusals home said %d messages, want it to wait longer each time", n)
		}
		here.Add(10 * time.Minute)
		time.Sleep(5 * time.Minute)
		same(t, home, device, h, d)
		if got := seen(t, device, d); len(got) != 1 {
			t.Errorf("the device shows %d versions when its clock has caught up, want 1", len(got))
		}
		if err := m.ends[0].HandedOver(context.Background()); err != nil {
			t.Error(err)
		}
		m.part()
	})
}

// TestWhatComesBehindARefusalForNowIsNotSentAtEveryMeeting: the entry that waits holds the position on record, and the peer is asked
// what it has of the rest.
func TestWhatComesBehindARefusalForNowIsNotSentAtEveryMeeting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		clock := redoubttest.NewClock(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))
		home := redoubttest.New(t, redoubttest.Options{Seed: 1, Name: "secret", Ceiling: "SECRET", Clock: clock, Buckets: []redoubt.Bucket{{Name: "reports"}, {Name: "new"}}})
		device := redoubttest.New(t, redoubttest.Options{Seed: 2, Name: "outpost", Ceiling: "SECRET", Clock: clock})
		link(t, home, device, "SECRET")
		h, d := home.As(home.Mint("s-analyst", "")), device.As(device.Mint("s-analyst", ""))
		put(t, home, h, "first", "so that something is acknowledged", "")
		m := meet(home, device, 0)
		time.Sleep(3 * time.Second)
		if _, err := home.PutObject(context.Background(), h, redoubt.PutObject{Name: redoubt.ObjectName{Bucket: "new", Key: "k"}, Body: strings.NewReader("x"), SizeBytes: 1}); err != nil {
			t.Fatal(err)
		}
		const many = 1200 // more than are asked about at once
		for i := range many {
			put(t, home, h, fmt.Sprint("k", i), noise(uint64(i), 1000), []string{"", "flash"}[i/(many-1)])
		}
		time.Sleep(3 * time.Second)
		m.part()
		if got := seen(t, device, d); len(got) != many+1 {
			t.Fatalf("the device shows %d versions, want all but the one that waits", len(got))
		}
		put(t, home, h, "last", "new", "")
		m = meet(home, device, 0)
		time.Sleep(3 * time.Second)
		same := len(seen(t, device, d))
		if _, n := m.road[0].Bytes(); n > 16*many+6000 || same != many+2 {
			t.Errorf("the next meeting said %d bytes, and the device shows %d versions", n, same)
		}
		if _, n := m.road[1].Bytes(); n > 1000 {
			t.Errorf("the answers took %d bytes", n)
		}
		m.part()
	})
}
