package carry

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"redoubt"
)

func TestSpansAreASetOfBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const top = 64
		var s spans
		var model [top]bool
		dropped := uint64(0)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			from := rapid.Uint64Range(0, top-1).Draw(t, "from")
			to := rapid.Uint64Range(from+1, top).Draw(t, "to")
			if rapid.IntRange(0, 5).Draw(t, "drop") == 0 {
				dropped = max(dropped, from)
				s.drop(from)
				for i := range from {
					model[i] = false
				}
				continue
			}
			s.add(from, to)
			for i := from; i < to; i++ {
				model[i] = true
			}
		}
		for i := range uint64(top) {
			if s.has(i, i+1) != model[i] {
				t.Fatalf("byte %d: got %v in %v", i, !model[i], s)
			}
			reach := i
			for reach < top && model[reach] {
				reach++
			}
			if got := s.prefix(i); got != reach {
				t.Fatalf("prefix(%d): got %d, want %d, in %v", i, got, reach, s)
			}
		}
		for i := 1; i < len(s); i++ {
			if s[i-1].to >= s[i].from || s[i].from >= s[i].to {
				t.Fatalf("stretches touch: %v", s)
			}
		}
	})
}

func TestTheReplayWindowTakesEachNumberOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r received
		taken := map[uint64]bool{}
		at, now := uint64(rapid.IntRange(0, 10).Draw(t, "start")), time.Unix(0, 0)
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			number := at
			switch rapid.IntRange(0, 3).Draw(t, "how") {
			case 0:
				number = uint64(max(0, int64(at)-rapid.Int64Range(0, 2*replayBits).Draw(t, "back")))
			case 1:
				number = at + rapid.Uint64Range(0, 2*replayBits).Draw(t, "ahead")
			default:
				number = at + 1
			}
			fresh := r.fresh(number)
			if fresh && taken[number] {
				t.Fatalf("number %d was taken twice", number)
			}
			if inWindow := !r.any || number+replayBits > r.largest; !fresh && inWindow && !taken[number] {
				t.Fatalf("number %d, %d behind, was refused and never came", number, r.largest-number)
			}
			if fresh {
				r.add(number, now)
				taken[number] = true
				at = max(at, number)
			}
		}
		a := r.ack(now, now, true, make([]byte, 0, ackBits/8))
		for i := range uint64(min(ackBits, a.largest+1)) {
			said := int(i/8) < len(a.bits) && a.bits[i/8]>>(i%8)&1 == 1
			if said != taken[a.largest-i] {
				t.Fatalf("number %d: acknowledged %v, taken %v", a.largest-i, said, taken[a.largest-i])
			}
		}
	})
}

func TestEachDatagramIsReportedInSeveralACKs(t *testing.T) {
	var r received
	now := time.Unix(0, 0)
	reports := map[uint64]int{}
	for n := range uint64(200) {
		r.add(n, now)
		if n%3 == 2 {
			a := r.ack(now, now, false, make([]byte, 0, ackBits/8))
			if n > 20 && len(a.bits) > 3 {
				t.Fatalf("an ACK in a row that loses nothing has %d bytes of bitmap", len(a.bits))
			}
			for i := range uint64(len(a.bits) * 8) {
				if a.bits[i/8]>>(i%8)&1 == 1 {
					reports[a.largest-i]++
				}
			}
		}
	}
	for n := uint64(0); n < 180; n++ {
		if reports[n] < ackRepeats {
			t.Errorf("number %d was reported %d times, want %d", n, reports[n], ackRepeats)
		}
	}
}

// TestAStreamIsPutTogetherFromPiecesInAnyOrder cuts messages into pieces that overlap and repeat.
func TestAStreamIsPutTogetherFromPiecesInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var out outgoing
		out.limit = streamWindow
		var want [][]byte
		for i := range rapid.IntRange(1, 6).Draw(t, "messages") {
			msg := bytes.Repeat([]byte{byte(i + 1)}, rapid.IntRange(1, 9000).Draw(t, "size"))
			want = append(want, msg)
			out.put(msg)
		}
		var pieces []span
		for at := uint64(0); at < out.end; {
			to := min(out.end, at+rapid.Uint64Range(1, 900).Draw(t, "length"))
			from := at - min(at, rapid.Uint64Range(0, 50).Draw(t, "overlap"))
			pieces = append(pieces, span{from, to}, span{from, to})
			at = to
		}
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 0))
		r.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
		var in incoming
		in.init()
		var got [][]byte
		for _, s := range pieces {
			if taken, err := in.put(s.from, out.appendBytes(nil, s)); err != nil || !taken {
				t.Fatalf("piece %v: %v, %v", s, taken, err)
			}
			for msg := in.receive(); msg != nil; msg = in.receive() {
				got = append(got, msg)
			}
		}
		if !slices.EqualFunc(got, want, bytes.Equal) {
			t.Fatalf("%d messages came of %d, or not the same", len(got), len(want))
		}
		if in.buf != nil || in.whole != nil || len(in.got) != 0 {
			t.Fatalf("%d bytes and %v are kept when all is read", len(in.whole), in.got)
		}
	})
}

// TestAStreamThatFlowsAsksForNoMoreMemory has pieces come in order that never end where a message does.
func TestAStreamThatFlowsAsksForNoMoreMemory(t *testing.T) {
	out := outgoing{limit: 64 * streamWindow}
	in := &incoming{}
	in.init()
	const size, piece = 48 << 10, 8900
	buffers, last := 0, (*byte)(nil)
	for n := 0; n < 200; n++ {
		out.put(bytes.Repeat([]byte{byte(n + 1)}, size))
	}
	got := 0
	for at := uint64(0); at+piece < out.end; at += piece {
		in.told = in.limit()
		if taken, err := in.put(at, out.appendBytes(nil, span{at, at + piece})); err != nil || !taken {
			t.Fatalf("at %d: %v, %v", at, taken, err)
		}
		for msg := in.receive(); msg != nil; msg = in.receive() {
			if got++; len(msg) != size || msg[0] != byte(got) || msg[size-1] != byte(got) {
				t.Fatalf("message %d is not the one that was sent", got)
			}
		}
		if len(in.whole) > 3*size {
			t.Fatalf("%d bytes are kept for messages of %d", len(in.whole), size)
		}
		if len(in.whole) > 0 && &in.whole[0] != last {
			last = &in.whole[0]
			buffers++
		}
	}
	if got < 199 || buffers > 8 {
		t.Errorf("%d messages came by way of %d buffers, want 199 and a few", got, buffers)
	}
}

func TestAPeerThatSendsTooMuchOrNonsenseIsFound(t *testing.T) {
	fresh := func() *incoming { in := &incoming{}; in.init(); return in }
	if _, err := fresh().put(streamWindow-1, []byte{1}); err != nil {
		t.Errorf("the last byte of the window: %v", err)
	}
	if _, err := fresh().put(streamWindow, []byte{1}); !errors.Is(err, errWindow) {
		t.Errorf("a byte beyond the window: got %v", err)
	}
	if _, err := fresh().put(0, []byte{0, 0x10, 0, 0}); err != nil {
		t.Errorf("a message of MaxMessage: %v", err)
	}
	if _, err := fresh().put(0, []byte{0, 0x10, 0, 1}); !errors.Is(err, errMessage) {
		t.Errorf("a message of MaxMessage+1: got %v", err)
	}
	if _, err := fresh().put(0, []byte{0, 0, 0, 0}); !errors.Is(err, errMessage) {
		t.Errorf("an empty message: got %v", err)
	}
	in := fresh()
	for i := range uint64(maxGaps) {
		if taken, err := in.put(10+2*i, []byte{1}); !taken || err != nil {
			t.Fatalf("gap %d: %v, %v", i, taken, err)
		}
	}
	if taken, err := in.put(10+2*maxGaps, []byte{1}); taken || err != nil {
		t.Errorf("one gap too many: %v, %v", taken, err)
	}
	if taken, err := in.put(0, []byte{0, 0, 0, 9}); !taken || err != nil {
		t.Errorf("what fills the first gap: %v, %v", taken, err)
	}
}

func TestFlashIsSentTwiceAndTheRestOnce(t *testing.T) {
	for p := range redoubt.Precedence(redoubt.Precedences) {
		o := outgoing{precedence: p, limit: streamWindow}
		o.put(make([]byte, 5000))
		times := map[span]int{}
		for s := o.take(1000, everything, 0); s != nil; s = o.take(1000, everything, 0) {
			times[s.span]++
		}
		want := 1
		if p == redoubt.Flash {
			want = 2
		}
		for s, n := range times {
			if n != want {
				t.Errorf("%v: %v was sent %d times, want %d", p, s, n, want)
			}
		}
	}
}

func TestASecondCopyThatIsNoLongerNeededIsNotSent(t *testing.T) {
	o := outgoing{precedence: redoubt.Flash, limit: streamWindow}
	o.put(make([]byte, 500))
	s := o.take(1000, everything, 0)
	o.arrived(s.span)
	if again := o.take(1000, everything, 0); again != nil {
		t.Errorf("%v was sent again after it arrived", again.span)
	}
}

func TestAHigherPrecedenceGoesNext(t *testing.T) {
	var b outbox
	b.init(streamWindow)
	b[redoubt.Routine].put(make([]byte, 100_000))
	for range 10 {
		if p, ok := b.pick(1200, allOfIt, 0); !ok || p != redoubt.Routine {
			t.Fatalf("got %v, %v", p, ok)
		}
		b[redoubt.Routine].take(1200, everything, 0)
		b.sent(redoubt.Routine, 1200)
	}
	b[redoubt.Flash].put(make([]byte, 100))
	if p, _ := b.pick(1200, allOfIt, 0); p != redoubt.Flash {
		t.Errorf("after FLASH was queued %v goes next", p)
	}
}

// A hop that drops what is above its rate, without a line, is not sent at ever more.
func TestAHopThatDropsInsteadOfQueuingIsNotFlooded(t *testing.T) {
	const rate, trip, size = 250_000.0, 50 * time.Millisecond, 1500
	p := newPacer(trip)
	clock := time.Unix(0, 0)
	now, sent, tokens, last := clock, uint64(0), 0.0, clock
	most := 0.0
	for now.Sub(clock) < 2*time.Minute {
		p.sent(now, size)
		sent += size
		tokens = min(tokens+rate*now.Sub(last).Seconds(), 10*size)
		last = now
		if tokens >= size {
			tokens -= size
			m := mark{uint32(now.Sub(clock).Microseconds()), now, sent}
			p.arrived(now.Add(trip), now, clock, m, 0, 1, size, false)
		} else {
			p.missed(1)
		}
		now = now.Add(time.Duration(size / p.pacing() * float64(time.Second)))
		if now.Sub(clock) > time.Minute {
			most = max(most, p.pacing())
		}
	}
	if most > 1.5*rate {
		t.Errorf("a hop of %.0f bytes a second is sent at %.0f", rate, most)
	}
	if p.rate < 0.5*rate {
		t.Errorf("a hop of %.0f bytes a second is used at %.0f", rate, p.rate)
	}
}

// Two peers on a busy machine greet one another, a few datagrams now and then, which wait for their receiver to run. That says nothing of what the hop between
// them passes: what comes after is sent as on any other.
func TestAGreetingAmongTheBusyIsNotTakenForASlowHop(t *testing.T) {
	const rate, trip, size, busy = 3_000_000.0, 2 * time.Millisecond, 1500, 8 * time.Millisecond
	p := newPacer(trip)
	clock := time.Unix(0, 0)
	now, sent, free := clock, uint64(0), clock
	send := func(held time.Duration, limited bool) {
		p.sent(now, size)
		sent += size
		if free = free.Add(time.Duration(size / rate * float64(time.Second))); free.Before(now) {
			free = now
		}
		came := free.Add(held)
		p.arrived(came.Add(trip), now, clock, mark{uint32(came.Sub(clock).Microseconds()), now, sent}, 0, 1, size, limited)
	}
	send(0, true)
	for range 60 {
		now = now.Add(50 * time.Millisecond)
		send(busy, true)
	}
	for end := now.Add(2 * time.Second); now.Before(end); now = now.Add(time.Duration(size / p.pacing() * float64(time.Second))) {
		send(0, false)
	}
	if p.rate < 0.7*rate || p.rate > 1.3*rate {
		t.Errorf("2 s after a greeting a hop of %.0f bytes a second is used at %.0f", rate, p.rate)
	}
}

func TestADatagramIsLostWhenOvertakenOrOverdue(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(0, 0).Add(time.Duration(ms) * time.Millisecond) }
	lost := func(reorder uint64, answeredBy time.Time, acked uint64) (n int) {
		f := flight{reorder: reorder}
		for i := range 10 {
			f.add(sent{at: at(100 * i), size: 100, eliciting: true})
		}
		if _, err := f.ack(ack{largest: acked, bits: []byte{1}}, at(1000)); err != nil {
			t.Fatal(err)
		}
		f.overtaken(answeredBy, func(*sent) { n++ })
		if f.bytes != 100*f.waiting || f.waiting != 9-n {
			t.Errorf("%d bytes and %d datagrams under way after %d were lost", f.bytes, f.waiting, n)
		}
		return n
	}
	for _, c := range []struct {
		reorder    uint64
		answeredBy int
		acked      uint64
		want       int
	}{
		{3, 0, 9, 7},      // 0 to 6
		{3, 0, 2, 0},      // two later ones are not enough
		{256, 0, 9, 0},    // a path that reorders
		{256, 450, 9, 5},  // but five are overdue
		{256, 5000, 4, 4}, // nothing that no later one overtook
	} {
		if got := lost(c.reorder, at(c.answeredBy), c.acked); got != c.want {
			t.Errorf("%+v: %d were lost", c, got)
		}
	}
}

// What a link with one path may send.
const everything = lostOnes | newOnes | copiesOf | copiesAll

var allOfIt = [redoubt.Precedences]portion{everything, everything, everything, everything}

func TestALaneProvesABoundedNumberOfStrangers(t *testing.T) {
	now := time.Unix(1000, 0)
	w := newWay(path{}, 0, time.Second, now)
	for i := range maxStrangers {
		if s := w.stranger(path{socket: i + 1}, now); s == nil {
			t.Fatalf("no room for stranger %d", i)
		} else {
			s.challenged = now.Add(time.Duration(i) * time.Second)
		}
	}
	if s := w.stranger(path{socket: 100}, now.Add(challengeLife)); s != nil {
		t.Errorf("there is room for one too many while all may yet answer")
	}
	if s := w.stranger(path{socket: 2}, now.Add(challengeLife)); s == nil || s.challenged != now.Add(time.Second) {
		t.Errorf("one that is known is %+v", s)
	}
	s := w.stranger(path{socket: 100}, now.Add(challengeLife+1))
	if s == nil || len(w.strangers) != maxStrangers {
		t.Fatalf("the first to be challenged did not make room: %+v", w.strangers)
	}
	s.challenged = now.Add(challengeLife)
	if w.stranger(path{socket: 1}, now.Add(challengeLife+1)) != nil {
		t.Error("it was not the first that made room")
	}
}

func TestOnlyPathsWithoutACommonEndAreUsedAtTheSameTime(t *testing.T) {
	host := func(n byte) netip.AddrPort { return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, n}), 1) }
	now := time.Unix(0, 0)
	for _, c := range []struct {
		name  string
		paths []path
		down  int // place of one that is not up, or -1
		inUse int // of the one in use before
		want  int // a bit for each place
	}{
		{"one", []path{{0, host(1)}}, -1, 0, 0b1},
		{"one socket, two hosts", []path{{0, host(1)}, {0, host(2)}}, -1, 0, 0b01},
		{"and it stays with that in use", []path{{0, host(1)}, {0, host(2)}}, -1, 1, 0b10},
		{"two sockets, one host", []path{{0, host(1)}, {1, host(1)}}, -1, 0, 0b01},
		{"two ports of one host", []path{{0, host(1)}, {1, netip.AddrPortFrom(host(1).Addr(), 2)}}, -1, 0, 0b01},
		{"two sockets, two hosts", []path{{0, host(1)}, {1, host(1)}, {0, host(2)}, {1, host(2)}}, -1, 0, 0b1001},
		{"where the one in use stands against two", []path{{0, host(1)}, {1, host(1)}, {0, host(2)}}, -1, 0, 0b110},
		{"where one is down", []path{{0, host(1)}, {1, host(2)}}, 0, 0, 0b10},
		{"where all are down", []path{{0, host(1)}}, 0, 0, 0},
	} {
		var s ways
		for i, p := range c.paths {
			w := newWay(p, i, time.Second, now)
			w.proved, w.inUse = true, i == c.inUse
			if i == c.down {
				w.state = Down
			}
			s.add(w)
		}
		if got := s.mostApart(); got != c.want {
			t.Errorf("%s: got %04b, want %04b", c.name, got, c.want)
		}
	}
}
