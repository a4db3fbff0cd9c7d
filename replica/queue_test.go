package replica

import (
	"context"
	"encoding/binary"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/faketime"
)

// ledger is a journal of sets of equal entries, and what is on record of a link.
type ledger struct {
	redoubt.Journal
	redoubt.LinkState
	sets    map[string]*ledgerSet
	changed chan struct{}
	spends  map[string]int64 // the day of the last
}

type ledgerSet struct {
	entries uint64
	urgency redoubt.Precedence
	budget  redoubt.LinkBudget
}

func (l *ledger) Sets(context.Context, redoubt.NodeName) (all []string, err error) {
	for name := range l.sets {
		all = append(all, name)
	}
	slices.Sort(all)
	return all, nil
}
func (l *ledger) Changed() <-chan struct{} { return l.changed }
func (l *ledger) Since(_ context.Context, _ redoubt.NodeName, set string, after uint64, most int) (refs []redoubt.JournalRef, upTo uint64, err error) {
	s := l.sets[set]
	for upTo = after; upTo < s.entries && len(refs) < most; {
		upTo++
		r := redoubt.JournalRef{Position: upTo, Precedence: s.urgency, SizeBytes: 1}
		binary.BigEndian.PutUint64(r.Stamp[:], upTo)
		refs = append(refs, r)
	}
	return refs, upTo, nil
}
func (l *ledger) Budget(_ context.Context, _ redoubt.NodeName, set string) (redoubt.LinkBudget, error) {
	return l.sets[set].budget, nil
}
func (l *ledger) Spend(_ context.Context, _ redoubt.NodeName, set string, day, _ int64) error {
	l.spends[set] = day
	return nil
}
func (l *ledger) Acknowledged(context.Context, redoubt.NodeName, string) (uint64, bool, error) {
	return 0, true, nil
}

// road takes what is sent.
type road struct {
	Conn
	sent func(msg []byte)
}

func (r road) Send(_ context.Context, _ redoubt.Precedence, msg []byte) error {
	r.sent(msg)
	return nil
}

// following is a session that reads journals, and whose peer lacks all that it is asked about.
func following(l *ledger) *Session {
	var s *Session
	s = New(Options{Node: "outpost", Peer: "secret", Journal: l, State: l, Conn: road{sent: func(msg []byte) {
		if m, err := decodeInquiry(msg); err == nil {
			s.lacking <- encodeLacking(m.Stamps, m.Stamps)
		}
	}}})
	return s
}

// drain takes what may be sent of a precedence now.
func drain(o *outbox, p redoubt.Precedence) (all []*ref) {
	for {
		o.mu.Lock()
		ready := o.ready(p)
		o.mu.Unlock()
		if !ready {
			return all
		}
		all = append(all, o.take(p, togetherBytes)...)
	}
}

// TestEveryMessageOfASetIsCountedInItsBudget sends entries of which no size was known: several messages, as each is full.
func TestEveryMessageOfASetIsCountedInItsBudget(t *testing.T) {
	h := &holder{content: map[redoubt.Stamp]body{}}
	messages, bytes := 0, int64(0)
	s := New(Options{Node: "outpost", Peer: "secret", Journal: h, Conn: road{sent: func(msg []byte) {
		messages++
		bytes += int64(len(msg))
	}}})
	out, _ := s.out.set("S")
	s.out.fund(out, redoubt.LinkBudget{PerDay: 1 << 30})
	var refs []*ref
	for i := range byte(10) {
		h.content[redoubt.Stamp{i + 1}] = random(uint64(i), 30_000)
		refs = append(refs, &ref{stamp: redoubt.Stamp{i + 1}})
	}
	s.out.add(out, 10, make([]redoubt.Precedence, len(refs)), refs)
	if err := s.sendSome(t.Context(), 0, s.out.take(0, togetherBytes)); err != nil {
		t.Fatal(err)
	}
	if got := out.purse.spent; messages < 3 || bytes < 300_000 || got != bytes {
		t.Errorf("%d bytes are counted of %d in %d messages", got, bytes, messages)
	}
}

func TestAClockThatIsSetBackGivesNoBudgetAnew(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		today := redoubt.BudgetDay(time.Now())
		l := &ledger{spends: map[string]int64{}}
		s := following(l)
		for set, b := range map[string]redoubt.LinkBudget{ // what was on record when the clock went back by two days
			"SPENT": {PerDay: 10, Day: today + 2, Spent: 10},
			"LEFT":  {PerDay: 10, Day: today + 2, Spent: 3},
			"OLD":   {PerDay: 10, Day: today - 1, Spent: 10},
			"TODAY": {PerDay: 10, Day: today, Spent: 10},
		} {
			out, _ := s.out.set(set)
			s.out.fund(out, b)
			s.out.add(out, 1, []redoubt.Precedence{redoubt.Routine}, []*ref{{at: 1, stamp: redoubt.Stamp{set[0]}}})
		}
		goes := func(after time.Duration, want ...string) {
			t.Helper()
			s.out.renew(time.Now().Add(after))
			var got []string
			for _, r := range drain(s.out, redoubt.Routine) {
				got = append(got, r.set.set)
				s.out.spend(r.set, 1)
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("after %v %v is sent, want %v", after, got, want)
			}
		}
		goes(0, "LEFT", "OLD")
		if err := s.keepSpent(t.Context()); err != nil || l.spends["LEFT"] != today+2 || l.spends["OLD"] != today {
			t.Errorf("put on record of the days %v, %v; want %d and %d", l.spends, err, today+2, today)
		}
		goes(24*time.Hour, "TODAY")
		goes(48 * time.Hour)
		goes(72*time.Hour, "SPENT")
	})
}

// paused is a session with one entry that is paused, as its set's budget is spent.
func paused(t *testing.T) (*Session, *outgoing, *ref) {
	s := following(&ledger{})
	out, _ := s.out.set("S")
	s.out.fund(out, redoubt.LinkBudget{PerDay: 10, Day: redoubt.BudgetDay(time.Now())})
	s.out.add(out, 1, []redoubt.Precedence{redoubt.Routine}, []*ref{{at: 1, stamp: redoubt.Stamp{1}, size: 3 * segmentBytes}})
	r := s.out.take(redoubt.Routine, togetherBytes)[0]
	s.out.spend(out, 20)
	s.out.went(r, r.seq, segmentBytes)
	if !s.out.pause(redoubt.Routine, r, r.seq, segmentBytes) {
		t.Fatal("it is not paused")
	}
	return s, out, r
}

// TestAnOutcomeThatCrossesAPauseIsHeard has the peer settle an entry while it waits for another day's budget.
func TestAnOutcomeThatCrossesAPauseIsHeard(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		what  string
		state uint8
		goes  int // the precedence that it goes again by; -1: none
		from  int64
	}{
		{"nothing", 0, int(redoubt.Routine), segmentBytes},
		{"taken", taken, -1, 0},
		{"refused for good", refused, -1, 0},
		{"refused for now", refusedAt, int(redoubt.Routine), 0},
		{"its base is lacking", needsBase, int(redoubt.Immediate), 0},
	} {
		faketime.Test(t, func(t *testing.T) {
			s, out, r := paused(t)
			if got := s.out.underWay(); len(got) > 0 {
				t.Errorf("%s: on the road are %v", c.what, got)
			}
			if c.what != "nothing" {
				if err := s.heardOutcomes(encodeAck([]outcome{{Seq: r.seq, State: c.state}})); err != nil {
					t.Fatal(err)
				}
			}
			for p := range redoubt.Precedence(redoubt.Precedences) {
				if got := drain(s.out, p); len(got) > 0 {
					t.Errorf("%s: it goes on the same day", c.what)
				}
			}
			s.out.retry(time.Now().Add(day))
			s.out.renew(time.Now().Add(day))
			for p := range redoubt.Precedence(redoubt.Precedences) {
				got := drain(s.out, p)
				if want := int(p) == c.goes; (len(got) == 1) != want || len(got) > 1 || want && s.out.begins(r) != c.from {
					t.Errorf("%s: at precedence %d it goes %d times, from %d; want from %d at %d", c.what, p, len(got), s.out.begins(r), c.from, c.goes)
				}
			}
			if settled := c.goes < 0; s.out.putBy != 0 || (len(out.open) == 0) != settled || settled && len(s.out.sent) > 0 {
				t.Errorf("%s: %d are put by, %d open, %d sent", c.what, s.out.putBy, len(out.open), len(s.out.sent))
			}
		})
	}
}

// TestOnlyTheSendingThatGoesOnIsPaused has an entry that lacked its base go again by another precedence, while the first sending of it still
// believes that it goes on.
func TestOnlyTheSendingThatGoesOnIsPaused(t *testing.T) {
	s := following(&ledger{})
	out, _ := s.out.set("S")
	s.out.fund(out, redoubt.LinkBudget{PerDay: 10, Day: redoubt.BudgetDay(time.Now())})
	s.out.add(out, 1, []redoubt.Precedence{redoubt.Routine}, []*ref{{at: 1, stamp: redoubt.Stamp{1}, size: 3 * segmentBytes}})
	r := s.out.take(redoubt.Routine, togetherBytes)[0]
	first := r.seq
	if err := s.heardOutcomes(encodeAck([]outcome{{Seq: first, State: needsBase}})); err != nil {
		t.Fatal(err)
	}
	if again := s.out.take(redoubt.Immediate, togetherBytes); len(again) != 1 || again[0] != r || r.seq == first {
		t.Fatalf("%v goes again", again)
	}
	s.out.spend(out, 20)
	s.out.went(r, first, 5)
	if s.out.pause(redoubt.Routine, r, first, segmentBytes) || r.gone != 0 || r.from != 0 || s.out.bySeq(r.seq) != r {
		t.Errorf("the first sending still counts: %+v", r)
	}
	if !s.out.pause(redoubt.Immediate, r, r.seq, segmentBytes) {
		t.Error("the second is not paused")
	}
}

// TestASetThatWaitsForLongStopsNoOther has a set with more than may wait of it: its budget is spent, or the peer refuses all of it for now.
func TestASetThatWaitsForLongStopsNoOther(t *testing.T) {
	const many = maxQueued + 50_000
	for _, spent := range []bool{true, false} {
		faketime.Test(t, func(t *testing.T) {
			high, low := &ledgerSet{entries: many, urgency: redoubt.Routine}, &ledgerSet{urgency: redoubt.Flash}
			if spent {
				high.budget = redoubt.LinkBudget{PerDay: 10, Spent: 10, Day: redoubt.BudgetDay(time.Now())}
			}
			l := &ledger{sets: map[string]*ledgerSet{"HIGH": high, "LOW": low}, changed: make(chan struct{}, 1)}
			s := following(l)
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- s.follow(ctx) }()
			for range 10 { // what is read is sent, and what the peer refuses is put aside
				synctest.Wait()
				for _, r := range drain(s.out, redoubt.Routine) {
					s.out.later(r, time.Now())
				}
			}
			waits, _ := s.out.set("HIGH")
			if got := len(waits.open); got > maxOfSet+pageEntries || got < maxOfSet {
				t.Errorf("of the set that waits %d entries are known, want no more than a page beyond %d", got, maxOfSet)
			}
			low.entries = 3
			l.changed <- struct{}{}
			synctest.Wait()
			if got := drain(s.out, redoubt.Flash); len(got) != 3 {
				t.Errorf("spent %v: of another set %d entries are sent, want 3", spent, len(got))
			}
			var taken int
			for range many / maxOfSet * 4 { // when it may go on, all of it comes
				s.out.renew(time.Now().Add(24 * time.Hour))
				s.out.retry(time.Now().Add(time.Hour))
				all := drain(s.out, redoubt.Routine)
				taken += len(all)
				s.out.done(all...)
				synctest.Wait()
			}
			if taken != many {
				t.Errorf("spent %v: %d entries came of the set that waited, want %d", spent, taken, many)
			}
			if o := s.out; o.putBy != 0 || o.count != 3 {
				t.Errorf("%d are counted, %d of them put by; want 3, and none", o.count, o.putBy)
			}
			stop()
			if err := <-ended; err != context.Canceled {
				t.Error(err)
			}
		})
	}
}

func TestAnEntryThatIsToldOfAgainSinceItWasTakenIsLookedUpAgain(t *testing.T) {
	for _, c := range []struct {
		told  string
		again bool
	}{{"before it was taken", false}, {"since it was taken", true}, {"never again", false}} {
		o := newOutbox()
		out, _ := o.set("LOW")
		tell := func(at uint64) {
			o.add(out, at, []redoubt.Precedence{redoubt.Priority}, []*ref{{at: at, stamp: redoubt.Stamp{1}}})
		}
		tell(1)
		if c.told == "before it was taken" { // the look-up that follows sees what the journal told of
			tell(2)
		}
		r := drain(o, redoubt.Priority)[0]
		if c.again {
			tell(2)
		}
		o.pass(r)
		if got := drain(o, redoubt.Priority); len(got) == 1 != c.again {
			t.Errorf("told of %s: %d entries are looked up again", c.told, len(got))
		}
		o.pass(r) // nothing was told since
		if !o.quiet() || len(o.sent) > 0 || len(out.open) > 0 {
			t.Errorf("told of %s: it did not end", c.told)
		}
	}
}
