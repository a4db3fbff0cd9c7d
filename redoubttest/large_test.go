package redoubttest_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/redoubttest"
)

// pair is two enclaves that can be killed and started again.
type pair struct {
	t     *testing.T
	clock *redoubttest.Clock
	disks [2]*redoubttest.Disk
	ends  [2]*redoubttest.Stack // the home, a device
	bound string
	m     *meeting
	spent int // bytes of meetings that have ended, both ways
}

func newPair(t *testing.T) *pair {
	p := &pair{t: t, clock: redoubttest.NewClock(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)), bound: "SECRET"}
	for i := range p.ends {
		p.disks[i] = redoubttest.NewDisk(t)
		p.start(i)
	}
	link(t, p.ends[0], p.ends[1], p.bound)
	return p
}

func (p *pair) start(i int) {
	p.ends[i] = redoubttest.New(p.t, redoubttest.Options{Seed: uint64(i + 1), Name: []redoubt.NodeName{"secret", "outpost"}[i], Ceiling: "SECRET", Clock: p.clock, Disk: p.disks[i]})
}

func (p *pair) who(i int) redoubt.Credential { return p.ends[i].As(p.ends[i].Mint("s-analyst", "")) }

// meet begins a meeting over a line of so many bytes a second each way; 0: no limit.
func (p *pair) meet(pace int) {
	p.m = meetPaced(p.ends[0], p.ends[1], pace)
}

// part ends the meeting and counts what it took.
func (p *pair) part() {
	for _, r := range p.m.road {
		_, n := r.Bytes()
		p.spent += n
	}
	p.m.road[0].Break()
	p.m.part()
}

// kill takes the power of one end in the midst of a meeting, and gives it back.
func (p *pair) kill(victim int) {
	p.ends[victim].Cut()
	p.part()
	p.ends[victim].Stop()
	p.start(victim)
	link(p.t, p.ends[0], p.ends[1], p.bound)
}

// until lets the meeting go on until both ends have handed over everything.
func (p *pair) until() {
	p.t.Helper()
	for _, s := range p.m.ends {
		if err := s.HandedOver(context.Background()); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *pair) same() {
	p.t.Helper()
	same(p.t, p.ends[0], p.ends[1], p.who(0), p.who(1))
}

// fine says that both stores read back, and that nothing is left of what was on its way.
func (p *pair) fine() {
	p.t.Helper()
	for i, s := range p.ends {
		report, err := s.Check(context.Background(), s.As(s.Mint("admin", "")), nil)
		if err != nil || !report.OK {
			p.t.Errorf("%s: %v %v", s.Name(), report.Faults, err)
		}
		left, err := s.Arriving(context.Background(), p.ends[1-i].Name())
		if err != nil || len(left) > 0 {
			p.t.Errorf("%s still keeps %v, %v", s.Name(), left, err)
		}
	}
}

func TestKillingEitherEndEveryTwentySecondsCostsLittle(t *testing.T) {
	const pace = 64 << 10
	fill := func(p *pair) {
		put(p.t, p.ends[1], p.who(1), "imagery", noise(1, 9<<20), "")
		put(p.t, p.ends[1], p.who(1), "track", noise(2, 3<<20), "priority")
		put(p.t, p.ends[0], p.who(0), "map", noise(3, 2<<20), "")
		for i := range 40 {
			put(p.t, p.ends[1], p.who(1), fmt.Sprintf("small/%d", i), noise(uint64(i+10), 4000), "")
		}
	}
	var calm int
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		fill(p)
		p.meet(pace)
		p.until()
		p.part()
		p.same()
		calm = p.spent
	})
	bubble(t, func(t *testing.T) {
		p, dice := newPair(t), rand.New(rand.NewPCG(5, 5))
		fill(p)
		kills := 0
		for ; ; kills++ {
			p.meet(pace)
			time.Sleep(15*time.Second + time.Duration(dice.IntN(10_000))*time.Millisecond)
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			done := p.m.ends[0].HandedOver(ctx) == nil && p.m.ends[1].HandedOver(ctx) == nil
			cancel()
			if done {
				break
			}
			if kills > 100 {
				t.Fatal("it comes to no end")
			}
			p.kill(dice.IntN(2))
		}
		p.part()
		p.same()
		p.fine()
		t.Logf("%d kills: %d bytes, and %d without any: %+.2f %%", kills, p.spent, calm, 100*(float64(p.spent)/float64(calm)-1))
		if kills < 8 {
			t.Errorf("only %d kills: nothing was tried", kills)
		}
		if p.spent > calm*105/100 {
			t.Errorf("%d kills made %d bytes of %d", kills, p.spent, calm)
		}
	})
}

func TestAnInsertionInTheMiddleOfALargeObjectTravelsAsADifference(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		was := noise(1, 40<<20)
		put(t, p.ends[0], p.who(0), "imagery", was, "")
		p.meet(0)
		synctest.Wait()
		_, before := p.m.road[0].Bytes()
		put(t, p.ends[0], p.who(0), "imagery", was[:21<<20]+noise(2, 3000)+was[21<<20:], "")
		synctest.Wait()
		_, after := p.m.road[0].Bytes()
		t.Logf("3,000 bytes in the midst of 40 MiB cost %d bytes", after-before)
		if after-before > 16<<10 {
			t.Errorf("3,000 bytes in the midst of 40 MiB cost %d bytes", after-before)
		}
		p.part()
		p.same()
		p.fine()
	})
}

func TestTheFormOfALargeMultipartVersionIsKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		ctx, who, name := context.Background(), p.who(1), redoubt.ObjectName{Bucket: "reports", Key: "film"}
		u, err := p.ends[1].CreateUpload(ctx, who, redoubt.CreateUpload{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		in := redoubt.CompleteUpload{Name: name, Upload: u.ID, SizeBytes: -1}
		sizes := []int64{5 << 20, 12 << 20, 6<<20 + 1, 17}
		for i, n := range sizes {
			part, err := p.ends[1].PutPart(ctx, who, redoubt.PutPart{Name: name, Upload: u.ID, Number: i + 1, SizeBytes: n, Body: strings.NewReader(noise(uint64(i), int(n)))})
			if err != nil {
				t.Fatal(err)
			}
			in.Parts = append(in.Parts, redoubt.CompletePart{Number: i + 1, ETag: part.ETag})
		}
		if _, err := p.ends[1].CompleteUpload(ctx, who, in); err != nil {
			t.Fatal(err)
		}
		p.meet(1 << 20)
		time.Sleep(17 * time.Second)
		p.kill(0) // in the midst of the third segment
		p.meet(0)
		synctest.Wait()
		p.part()
		p.same()
		p.fine()
		o, err := p.ends[0].GetObject(ctx, p.who(0), redoubt.ReadObject{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		if got := fmt.Sprint(o.Version().PartSizes); got != fmt.Sprint(sizes) {
			t.Errorf("the parts have %s bytes, want %v", got, sizes)
		}
		// It is passed on as its maker signed it.
		third := redoubttest.New(t, redoubttest.Options{Seed: 9, Name: "secret-2", Ceiling: "SECRET", Clock: p.clock})
		key := p.ends[1].JournalKey()
		for _, x := range [][2]*redoubttest.Stack{{p.ends[0], third}, {third, p.ends[0]}} {
			links := []redoubt.Link{{Peer: x[1].Name(), Key: x[1].JournalKey(), Bound: x[0].Label("SECRET")}, {Peer: "outpost", Key: key, Bound: x[0].Label("SECRET")}}
			if err := x[0].SetLinks(ctx, links); err != nil {
				t.Fatal(err)
			}
		}
		m := meet(p.ends[0], third, 0)
		synctest.Wait()
		m.part()
		same(t, p.ends[0], third, p.who(0), third.As(third.Mint("s-analyst", "")))
	})
}
