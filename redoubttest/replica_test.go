package redoubttest_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/faketime"
	"redoubt/redoubttest"
	"redoubt/replica"
)

// bubble runs a test in fake time. Randomness is seeded too: the FIPS module's own source measures the
// machine's time, which stands still here.
func bubble(t *testing.T, test func(t *testing.T)) {
	cryptotest.SetGlobalRandom(t, 1)
	faketime.Test(t, test)
}

// link joins two enclaves, each knowing the other's key.
func link(t *testing.T, a, b *redoubttest.Stack, bound string, subs ...redoubt.Subscription) {
	t.Helper()
	for _, x := range [][2]*redoubttest.Stack{{a, b}, {b, a}} {
		l := redoubt.Link{Peer: x[1].Name(), Key: x[1].JournalKey(), Bound: x[0].Label(bound)}
		if x[0] == a {
			l.Subscriptions = subs
		}
		if err := x[0].SetLinks(context.Background(), []redoubt.Link{l}); err != nil {
			t.Fatal(err)
		}
	}
}

// meeting is a session between two enclaves over a road in memory.
type meeting struct {
	ends [2]*replica.Session
	road [2]*redoubttest.Road
	errs chan error
	stop context.CancelFunc
}

func meet(a, b *redoubttest.Stack, limit int) *meeting {
	m := &meeting{errs: make(chan error, 2)}
	m.road[0], m.road[1] = redoubttest.NewRoad(limit)
	return m.begin(a, b)
}

// meetPaced is meet over a line of so many bytes a second each way.
func meetPaced(a, b *redoubttest.Stack, pace int) *meeting {
	m := &meeting{errs: make(chan error, 2)}
	m.road[0], m.road[1] = redoubttest.NewRoad(0)
	for _, r := range m.road {
		r.Pace(pace)
	}
	return m.begin(a, b)
}

func (m *meeting) begin(a, b *redoubttest.Stack) *meeting {
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	sides := [2]*redoubttest.Stack{a, b}
	for i, s := range sides {
		m.ends[i] = replica.New(replica.Options{Estate: "example", Node: s.Name(), Peer: sides[1-i].Name(), Journal: s, State: s, Conn: m.road[i]})
		go func() { m.errs <- m.ends[i].Run(ctx) }()
	}
	return m
}

// part ends the meeting and gives what its ends said of it.
func (m *meeting) part() []error {
	m.stop()
	return []error{<-m.errs, <-m.errs}
}

func put(t *testing.T, s *redoubttest.Stack, who redoubt.Credential, key, content, precedence string) redoubt.Version {
	t.Helper()
	v, err := s.PutObject(context.Background(), who, redoubt.PutObject{Name: redoubt.ObjectName{Bucket: "reports", Key: key},
		Attributes: redoubt.Attributes{Precedence: precedence}, SizeBytes: int64(len(content)), Body: strings.NewReader(content)})
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return v
}

// seen is everything that a subject sees of an enclave: every version with its content, in order.
func seen(t *testing.T, s *redoubttest.Stack, who redoubt.Credential) (out []string) {
	t.Helper()
	q := redoubt.ListVersions{Bucket: "reports", Max: 1000}
	for {
		page, err := s.ListVersions(context.Background(), who, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range page.Versions {
			line := fmt.Sprintf("%s %s %v %v ", v.Name.Key, v.Label.Banner(), v.Marker, v.Latest)
			if !v.Marker {
				o, err := s.GetObject(context.Background(), who, redoubt.ReadObject{Name: v.Name, ID: v.ID})
				if err != nil {
					t.Fatal(err)
				}
				content, err := io.ReadAll(o.Reader(0, -1))
				if err != nil {
					t.Fatal(err)
				}
				line += fmt.Sprintf("%x %v %s", content, o.Version().Tags, o.Version().Maker)
				o.Close()
			}
			out = append(out, line)
		}
		if !page.Truncated {
			return out
		}
		q.AfterKey, q.AfterID = page.NextKey, page.NextID
	}
}

func same(t *testing.T, a, b *redoubttest.Stack, whoA, whoB redoubt.Credential) {
	t.Helper()
	x, y := seen(t, a, whoA), seen(t, b, whoB)
	if !slices.Equal(x, y) {
		t.Errorf("%s shows %d versions, %s %d: %.400q against %.400q", a.Name(), len(x), b.Name(), len(y), x, y)
	}
}

func twoStacks(t *testing.T) (home, device *redoubttest.Stack) {
	clock := redoubttest.NewClock(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))
	home = redoubttest.New(t, redoubttest.Options{Seed: 1, Name: "secret", Ceiling: "SECRET", Clock: clock})
	device = redoubttest.New(t, redoubttest.Options{Seed: 2, Name: "outpost", Ceiling: "SECRET", Clock: clock})
	return home, device
}

func noise(seed uint64, n int) string {
	r := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.UintN(256))
	}
	return string(b)
}

func TestTwoNodesStayInStepOverALink(t *testing.T) {
	bubble(t, func(t *testing.T) {
		home, device := twoStacks(t)
		link(t, home, device, "SECRET")
		h, d := home.As(home.Mint("s-analyst", "")), device.As(device.Mint("s-analyst", ""))
		put(t, home, h, "before", "written before they ever met", "")
		put(t, device, d, "large", noise(1, 3<<20), "")
		put(t, device, d, "huge", noise(2, 9<<20), "priority")
		put(t, device, d, "empty", "", "")
		m := meet(home, device, 0)
		synctest.Wait()
		same(t, home, device, h, d)
		put(t, home, h, "orders", "advance", "flash")
		put(t, device, d, "orders", "holding", "")
		tags := []redoubt.Tag{{Key: "seen", Value: "yes"}}
		if _, err := home.AlterObject(context.Background(), h, redoubt.AlterObject{Name: redoubt.ObjectName{Bucket: "reports", Key: "before"}, Tags: &tags}); err != nil {
			t.Fatal(err)
		}
		if _, err := device.DeleteObject(context.Background(), d, redoubt.DeleteObject{Name: redoubt.ObjectName{Bucket: "reports", Key: "large"}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		same(t, home, device, h, d)
		if got := seen(t, home, h); len(got) != 7 {
			t.Errorf("%d versions, want 7: %.300q", len(got), got)
		}
		for i, end := range m.ends {
			if err := end.HandedOver(context.Background()); err != nil {
				t.Errorf("end %d: %v", i, err)
			}
			if n := end.Status().Sent["USA@1 SECRET"]; n == 0 {
				t.Errorf("end %d counts nothing that it sent", i)
			}
		}
		for _, err := range m.part() {
			if err != nil {
				t.Error(err)
			}
		}
		// The next meeting asks nothing: each side remembers what the other has.
		m = meet(home, device, 0)
		synctest.Wait()
		for i, r := range m.road {
			if n, _ := r.Bytes(); n != 1 {
				t.Errorf("end %d said %d messages of nothing new, want its hello", i, n)
			}
			if m.ends[i].Status().LastHeard.IsZero() {
				t.Errorf("end %d has met a peer that had nothing to say, and does not count it as heard", i)
			}
		}
		m.part()
	})
}

// TestManyEntriesThatAreFoundByComparingArrive: of what a comparison finds missing no size is known when it is queued.
func TestManyEntriesThatAreFoundByComparingArrive(t *testing.T) {
	bubble(t, func(t *testing.T) {
		home, device := twoStacks(t)
		h, d := home.As(home.Mint("s-analyst", "")), device.As(device.Mint("s-analyst", ""))
		for i := range 70 {
			put(t, home, h, fmt.Sprintf("k%d", i), noise(uint64(i), 30_000), "")
		}
		link(t, home, device, "SECRET")
		m := meet(home, device, 0)
		synctest.Wait()
		same(t, home, device, h, d)
		if got := seen(t, device, d); len(got) != 70 {
			t.Errorf("the device shows %d versions, want 70", len(got))
		}
		for _, err := range m.part() {
			if err != nil {
				t.Error(err)
			}
		}
	})
}

func TestALinkThatIsCutAgainAndAgainLosesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		home, device := twoStacks(t)
		link(t, home, device, "SECRET")
		h, d := home.As(home.Mint("s-analyst", "")), device.As(device.Mint("s-analyst", ""))
		r := rand.New(rand.NewPCG(3, 3))
		for round := range 60 {
			for range r.IntN(4) {
				key := fmt.Sprintf("k%d", r.IntN(12))
				size := []int{0, 10, 4000, 40_000, 200_000}[r.IntN(5)]
				if r.IntN(2) == 0 {
					put(t, home, h, key, noise(r.Uint64(), size), "")
				} else {
					put(t, device, d, key, noise(r.Uint64(), size), []string{"", "flash", "priority"}[r.IntN(3)])
				}
			}
			m := meet(home, device, 2+r.IntN(12))
			synctest.Wait()
			m.part()
			if round%20 == 19 {
				if err := device.Forget(context.Background(), "secret"); err != nil {
					t.Fatal(err)
				}
			}
		}
		m := meet(home, device, 0)
		synctest.Wait()
		m.part()
		same(t, home, device, h, d)
	})
}

func TestAfterALossOfStateTheCostIsThatOfTheDifference(t *testing.T) {
	bubble(t, func(t *testing.T) {
		home, device := twoStacks(t)
		link(t, home, device, "SECRET")
		h, d := home.As(home.Mint("s-analyst", "")), device.As(device.Mint("s-analyst", ""))
		const many = 4000
		for i := range many {
			put(t, home, h, fmt.Sprintf("k%d", i), "x", "")
		}
		m := meet(home, device, 0)
		synctest.Wait()
		m.part()
		for _, s := range []*redoubttest.Stack{home, device} {
			for _, peer := range []redoubt.NodeName{"secret", "outpost"} {
				if err := s.Forget(context.Background(), peer); err != nil {
					t.Fatal(err)
				}
			}
		}
		put(t, home, h, "new", "y", "")
		put(t, device, d, "other", "z", "")
		m = meet(home, device, 0)
		synctest.Wait()
		same(t, home, device, h, d)
		for i, r := range m.road {
			if n, b := r.Bytes(); n > 20 || b > 12<<10 {
				t.Errorf("end %d spent %d messages and %d bytes on two differences among %d", i, n, b, many)
			}
		}
		m.part()
	})
}

func TestARepeatedChangeTravelsAsADifference(t *testing.T) {
	bubble(t, func(t *testing.T) {
		home, device := twoStacks(t)
		link(t, home, device, "SECRET")
		h, d := home.As(home.Mint("s-analyst", "")), device.As(device.Mint("s-analyst", ""))
		first := []byte(noise(5, 1<<20))
		put(t, home, h, "map", string(first), "")
		m := meet(home, device, 0)
		synctest.Wait()
		_, before := m.road[0].Bytes()
		copy(first[500_000:], bytes.Repeat([]byte("changed"), 1000))
		put(t, home, h, "map", string(first), "")
		synctest.Wait()
		same(t, home, device, h, d)
		if _, after := m.road[0].Bytes(); after-before > 4000 {
			t.Errorf("a change of 7,000 like bytes cost %d bytes", after-before)
		}
		m.part()
	})
}

func TestNothingAboveTheBoundIsOnTheRoad(t *testing.T) {
	bubble(t, func(t *testing.T) {
		clock := redoubttest.NewClock(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))
		run := func(high bool) (sent [][]byte) {
			home := redoubttest.New(t, redoubttest.Options{Seed: 1, Name: "topsecret", Clock: clock})
			device := redoubttest.New(t, redoubttest.Options{Seed: 2, Name: "outpost", Ceiling: "SECRET", Clock: clock})
			link(t, home, device, "SECRET")
			low, top := home.As(home.Mint("s-analyst", "")), home.As(home.Mint("ts-analyst", ""))
			both := func(i int) {
				if high {
					put(t, home, top, fmt.Sprintf("k%d", i), "above", "flash")
				}
				put(t, home, low, fmt.Sprintf("k%d", i), fmt.Sprint("below", i), "")
			}
			both(1)
			m := &meeting{errs: make(chan error, 2)}
			m.road[0], m.road[1] = redoubttest.NewRoad(0)
			m.road[0].Watch(func(msg []byte) { sent = append(sent, bytes.Clone(msg)) })
			ctx, stop := context.WithCancel(context.Background())
			m.stop = stop
			for i, s := range []*redoubttest.Stack{home, device} {
				peer := []redoubt.NodeName{"outpost", "topsecret"}[i]
				end := replica.New(replica.Options{Estate: "example", Node: s.Name(), Peer: peer, Journal: s, State: s, Conn: m.road[i]})
				go func() { m.errs <- end.Run(ctx) }()
			}
			synctest.Wait()
			both(2)
			synctest.Wait()
			m.part()
			// Several goroutines speak: what counts is what is said, not which of them is first.
			slices.SortFunc(sent, func(a, b []byte) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(len(a), len(b))) })
			return sent
		}
		without, with := run(false), run(true)
		if len(without) != len(with) || len(with) < 4 {
			t.Fatalf("%d messages with what is above, %d without", len(with), len(without))
		}
		for i := range with {
			if len(with[i]) != len(without[i]) || with[i][0] != without[i][0] {
				t.Errorf("message %d has %d bytes with what is above, %d without", i, len(with[i]), len(without[i]))
			}
			if bytes.Contains(with[i], []byte("TOP SECRET")) || bytes.Contains(with[i], []byte("above")) {
				t.Errorf("message %d tells of what is above the bound", i)
			}
		}
	})
}

func TestASubscriptionLimitsWhatTravels(t *testing.T) {
	bubble(t, func(t *testing.T) {
		home, device := twoStacks(t)
		link(t, home, device, "SECRET", redoubt.Subscription{Bucket: "reports", Prefix: "field/", In: true, Out: true})
		h, d := home.As(home.Mint("s-analyst", "")), device.As(device.Mint("s-analyst", ""))
		put(t, home, h, "field/a", "for the field", "")
		put(t, home, h, "staff/b", "not for the field", "")
		put(t, device, d, "other/c", "not asked for", "")
		m := meet(home, device, 0)
		synctest.Wait()
		m.part()
		if got := seen(t, device, d); len(got) != 2 || !strings.HasPrefix(got[0], "field/a") {
			t.Errorf("the device shows %q", got)
		}
		if got := seen(t, home, h); len(got) != 2 {
			t.Errorf("the home shows %q", got)
		}
	})
}

func TestAPeerOfAnotherEstateOrNameIsTurnedAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		home, device := twoStacks(t)
		link(t, home, device, "SECRET")
		for _, o := range []replica.Options{{Estate: "other", Node: "outpost"}, {Estate: "example", Node: "impostor"}} {
			a, b := redoubttest.NewRoad(0)
			o.Peer, o.Journal, o.State, o.Conn = "secret", device, device, b
			errs := make(chan error, 2)
			go func() { errs <- replica.New(o).Run(context.Background()) }()
			err := replica.New(replica.Options{Estate: "example", Node: "secret", Peer: "outpost", Journal: home, State: home, Conn: a}).Run(context.Background())
			if redoubt.KindOf(err) != redoubt.Invalid {
				t.Errorf("%s of %s: %v, want it turned away", o.Node, o.Estate, err)
			}
			<-errs
		}
	})
}
