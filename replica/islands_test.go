package replica

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"redoubt"
)

func TestRunsAreTheSetsThatTheySay(t *testing.T) {
	const size = 60
	rapid.Check(t, func(t *rapid.T) {
		var s runs
		var model [size]bool
		for range rapid.IntRange(0, 12).Draw(t, "adds") {
			from := rapid.IntRange(0, size).Draw(t, "from")
			to := rapid.IntRange(0, size).Draw(t, "to")
			s.add(from, to)
			for i := from; i < to; i++ {
				model[i] = true
			}
		}
		upTo := rapid.IntRange(0, size).Draw(t, "up to")
		var has, lacks []int
		prefix := 0
		for i, b := range model {
			if b {
				has = append(has, i)
			} else if i < upTo {
				lacks = append(lacks, i)
			}
			if b && prefix == i {
				prefix++
			}
		}
		each := func(of runs) (out []int) {
			for i, r := range of {
				if r.from >= r.to || i > 0 && r.from <= of[i-1].to {
					t.Fatalf("%v is no set", of)
				}
				for at := r.from; at < r.to; at++ {
					out = append(out, at)
				}
			}
			return out
		}
		if got := each(s); !slices.Equal(got, has) || s.total() != len(has) || s.prefix() != prefix {
			t.Fatalf("%v is %v, from 0 %d", s, got, s.prefix())
		}
		if got := each(s.lacks(upTo)); !slices.Equal(got, lacks) {
			t.Fatalf("%v lacks %v of %d", s, got, upTo)
		}
		at := rapid.IntRange(0, len(has)).Draw(t, "at")
		n := rapid.IntRange(0, len(has)-at).Draw(t, "n")
		if got := each(s.within(at, n)); !slices.Equal(got, has[at:at+n]) {
			t.Fatalf("%d bytes at %d of %v are %v", n, at, s, got)
		}
	})
}

// disk is what KeepPart keeps of one segment, by the rules of redoubt.Arrivals.
type disk struct {
	t       interface{ Fatalf(string, ...any) }
	part    []byte
	islands []redoubt.Stretch
}

func (d *disk) keep(part redoubt.Stretch, islands []redoubt.Stretch) {
	if part.From == 0 {
		d.part, d.islands = nil, nil
	}
	if int64(len(d.part)) != part.From || len(part.Bytes) == 0 && len(islands) == 0 {
		d.t.Fatalf("a part of %d bytes goes on at %d with %d", len(d.part), part.From, len(part.Bytes))
	}
	d.part = append(d.part, part.Bytes...)
	d.islands = slices.DeleteFunc(d.islands, func(i redoubt.Stretch) bool { return i.From <= int64(len(d.part)) })
	for _, i := range islands {
		d.islands = append(d.islands, redoubt.Stretch{From: i.From, Bytes: bytes.Clone(i.Bytes)})
	}
	slices.SortFunc(d.islands, func(a, b redoubt.Stretch) int { return int(a.From - b.From) })
	at, total := int64(len(d.part))+1, 0
	for _, i := range d.islands {
		if i.From < at || len(i.Bytes) == 0 {
			d.t.Fatalf("an island of %d bytes at %d, where the one before, or the part, ends at %d", len(i.Bytes), i.From, at)
		}
		at, total = i.From+int64(len(i.Bytes)), total+len(i.Bytes)
	}
	if len(d.islands) > redoubt.MaxIslands || total > redoubt.MaxIslandBytes {
		d.t.Fatalf("%d islands of %d bytes", len(d.islands), total)
	}
}

// TestOfASegmentNothingThatWasKeptComesTwice has pieces be seen in any order before they are whole, what came be kept now and then, and the session end at any
// time, of which the next goes on: what is kept are the bytes of the segment, and each piece has only what is not kept.
func TestOfASegmentNothingThatWasKeptComesTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 7))
		packed := random(r.Uint64(), 1+r.IntN(40_000))
		d := &disk{t: t}
		for range 30 {
			x := assembly{}
			if len(d.part) > 0 {
				x.put(0, d.part[segmentHead:])
				x.kept = len(d.part)
				for _, i := range d.islands {
					x.put(int(i.From)-segmentHead, i.Bytes)
					x.islands = append(x.islands, run{int(i.From) - segmentHead, int(i.From) - segmentHead + len(i.Bytes)})
				}
			}
			x.begin(len(packed))
			kept := max(len(d.part)-segmentHead, 0)
			for _, i := range d.islands {
				kept += len(i.Bytes)
			}
			if x.left() != len(packed)-kept {
				t.Fatalf("%d bytes are to come of %d of which %d are kept", x.left(), len(packed), kept)
			}
			var coming []byte // the sender's
			for _, l := range x.lacked {
				coming = append(coming, packed[l.from:l.to]...)
			}
			keep := func() {
				before := x.fresh()
				part, islands := x.unkept(headed(packedPlain, uint32(len(packed)), nil), true)
				if len(part.Bytes) == 0 && len(islands) == 0 {
					return
				}
				d.keep(part, islands)
				x.keptNow(part, islands)
				if x.fresh() >= before {
					t.Fatalf("%d bytes were not kept, and %d are not", before, x.fresh())
				}
			}
			for end := r.IntN(60); end > 0 && x.left() > 0; end-- {
				switch r.IntN(4) {
				case 0, 1:
					at := r.IntN(x.left())
					n := min(1+r.IntN(1500), x.left()-at)
					x.show(at, coming[x.filled+at:][:n])
				case 2:
					n := min(1+r.IntN(3000), x.left())
					x.piece(coming[x.filled:][:n])
				case 3:
					keep()
				}
			}
			if r.IntN(2) == 0 {
				keep()
			}
			for _, h := range x.have {
				if !bytes.Equal(x.b[h.from:h.to], packed[h.from:h.to]) {
					t.Fatalf("what is there from %d on is not of the segment", h.from)
				}
			}
			if x.left() == 0 && !bytes.Equal(x.b, packed) {
				t.Fatal("the segment came together as another")
			}
			whole := headed(packedPlain, uint32(len(packed)), packed)
			if !bytes.Equal(d.part, whole[:len(d.part)]) {
				t.Fatal("the part is not of the segment")
			}
			k := kept2(d)
			for _, i := range d.islands {
				if !bytes.Equal(i.Bytes, whole[i.From:][:len(i.Bytes)]) {
					t.Fatalf("the island at %d is not of the segment", i.From)
				}
			}
			if lacked, same := sameIslands(k, packed); same != (len(d.islands) > 0) || same && lacked.total() != len(packed)-(len(d.part)-segmentHead)-islandBytes(d) {
				t.Fatalf("the sender finds its own: %v, and that %v lack", same, lacked)
			}
		}
	})
}

func islandBytes(d *disk) (n int) {
	for _, i := range d.islands {
		n += len(i.Bytes)
	}
	return n
}

// kept2 is what a sender hears of a disk.
func kept2(d *disk) *kept {
	k := &kept{Arrival: redoubt.Arrival{Stamp: baseStamp, Part: int64(len(d.part))}}
	for _, i := range d.islands {
		k.Islands = append(k.Islands, redoubt.Island{From: i.From, SizeBytes: int64(len(i.Bytes)), Digest: sha256.Sum256(i.Bytes)})
	}
	if len(k.Islands) == 0 {
		return k
	}
	all := []kept{{Arrival: redoubt.Arrival{Stamp: baseStamp, Part: k.Part}}}
	_, body, err := decodeNote(noteApart([]kept{*k}))
	if err == nil {
		err = joinApart(all, body)
	}
	if err != nil {
		panic(err)
	}
	return &all[0]
}

func TestIslandsThatLieAreSentAgain(t *testing.T) {
	packed := random(1, 1000)
	honest := kept2(&disk{part: headed(packedPlain, 1000, packed[:100]), islands: []redoubt.Stretch{{From: segmentHead + 200, Bytes: packed[200:300]}, {From: segmentHead + 300, Bytes: packed[300:350]}}})
	if lacked, same := sameIslands(honest, packed); !same || !slices.Equal(lacked, runs{{100, 200}, {350, 1000}}) {
		t.Fatalf("honest islands: %v, %v lack", same, lacked)
	}
	for what, lie := range map[string]func(k *kept){
		"another digest":       func(k *kept) { k.of[3] ^= 1 },
		"another place":        func(k *kept) { k.Islands[0].From-- },
		"another length":       func(k *kept) { k.Islands[1].SizeBytes++ },
		"a longer first":       func(k *kept) { k.Islands[0].SizeBytes = 150; k.Islands = k.Islands[:1] },
		"beyond the segment":   func(k *kept) { k.Islands[1].SizeBytes = 10_000 },
		"behind the segment":   func(k *kept) { k.Islands[1].From = 5000 },
		"none":                 func(k *kept) { k.Islands = nil },
		"of another beginning": func(k *kept) { k.of = islandsDigest(nil) },
	} {
		k := *honest
		k.Islands = slices.Clone(honest.Islands)
		lie(&k)
		if _, same := sameIslands(&k, packed); same {
			t.Errorf("%s is believed", what)
		}
	}
}

// ahead is a road of which a test says what has come and cannot be given.
type ahead struct {
	Conn
	coming [redoubt.Precedences][]come
}

// come is a stretch of a message.
type come struct {
	n, length, at int
	data          []byte
}

func (a *ahead) Coming(p redoubt.Precedence, each func(n, length, at int, data []byte)) {
	for _, c := range a.coming[p] {
		each(c.n, c.length, c.at, c.data)
	}
}

// islanded is a receiver of segment 7, of 1000 bytes, of which 100 and two islands are kept.
func islanded(t *testing.T, msgs ...[]byte) (s *Session, h *holder, road *ahead, err error) {
	packed := random(1, 1000)
	h = &holder{part: headed(packedPlain, 1000, packed[:100]), islands: []redoubt.Stretch{{From: segmentHead + 200, Bytes: packed[200:300]}, {From: segmentHead + 900, Bytes: packed[900:]}}}
	h.at = redoubt.Arrival{Set: "S", Part: int64(len(h.part)), Digest: [32]byte(partDigest(packedPlain, packed, 100))}
	for _, i := range h.islands {
		h.at.Islands = append(h.at.Islands, redoubt.Island{From: i.From, SizeBytes: int64(len(i.Bytes)), Digest: sha256.Sum256(i.Bytes)})
	}
	road = new(ahead)
	s = New(Options{Node: "outpost", Peer: "secret", Journal: h, Conn: road})
	s.islands = true
	for _, m := range append([][]byte{openedWith(t, 40<<10, 0)}, msgs...) {
		if err == nil {
			err = s.serve(t.Context(), redoubt.Routine, m)
		}
	}
	return s, h, road, err
}

func goesOn(h *holder) segment {
	return segment{Seq: 7, Packing: packedPlain, Bytes: 1000, Skip: 100, Islands: true, Of: islandsDigest(h.at.Islands)}
}

func TestASegmentGoesOnBetweenItsIslands(t *testing.T) {
	packed := random(1, 1000)
	_, h, _, _ := islanded(t)
	missing := slices.Concat(packed[100:200], packed[300:900])
	s, _, _, err := islanded(t, goesOn(h).encode(), appendPiece(nil, 7, missing[:250]), appendPiece(nil, 7, missing[250:699]))
	if err != nil {
		t.Fatal(err)
	}
	a := s.begun[redoubt.Routine]
	if left := a.come.left(); left != 1 || !slices.Equal(a.come.have, runs{{0, 899}, {900, 1000}}) {
		t.Errorf("%d bytes are to come, %v are there", left, a.come.have)
	}
	if err := s.serve(t.Context(), redoubt.Routine, appendPiece(nil, 7, missing[698:])); !errors.Is(err, errMessage) {
		t.Errorf("a byte over: %v", err)
	}
}

func TestWhoGoesOnFromIslandsThatWereNotToldEndsTheSession(t *testing.T) {
	for what, lie := range map[string]func(h *holder, m *segment){
		"another digest":            func(_ *holder, m *segment) { m.Of[0] ^= 1 },
		"another part":              func(_ *holder, m *segment) { m.Skip = 99 },
		"no part":                   func(_ *holder, m *segment) { m.Skip = 0 },
		"another packing":           func(_ *holder, m *segment) { m.Packing = packedZstd },
		"a shorter segment":         func(_ *holder, m *segment) { m.Bytes = 950 },
		"no islands":                func(h *holder, _ *segment) { h.at.Islands = nil },
		"no islands, and of none":   func(h *holder, m *segment) { h.at.Islands = nil; m.Of = islandsDigest(nil) },
		"a disk that reaches out":   func(h *holder, _ *segment) { h.islands[1].From++ },
		"a disk that lies together": func(h *holder, _ *segment) { h.islands[0].From = segmentHead + 100 },
	} {
		s, h, _, err := islanded(t)
		if err != nil {
			t.Fatal(err)
		}
		m := goesOn(h)
		lie(h, &m)
		err = s.serve(t.Context(), redoubt.Routine, openedWith(t, 40<<10, 0))
		if err == nil {
			err = s.serve(t.Context(), redoubt.Routine, m.encode())
		}
		if !errors.Is(err, errMessage) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestWhoGoesOnFromThePartAloneHasTheIslandsForgotten: they are not what it sends.
func TestWhoGoesOnFromThePartAloneHasTheIslandsForgotten(t *testing.T) {
	packed := random(2, 1000)
	copy(packed, random(1, 1000)[:100])
	s, h, _, err := islanded(t, segment{Seq: 7, Packing: packedPlain, Bytes: 1000, Skip: 100}.encode(), appendPiece(nil, 7, packed[100:800]))
	if err != nil {
		t.Fatal(err)
	}
	if len(h.islands) > 0 {
		t.Errorf("%d islands are kept that what comes does not go on from", len(h.islands))
	}
	if err := s.keepPart(t.Context(), s.begun[redoubt.Routine], leastPart); err != nil {
		t.Fatal(err)
	}
	if want := headed(packedPlain, 1000, packed[:800]); !bytes.Equal(h.part, want) || len(h.islands) > 0 {
		t.Errorf("%d bytes and %d islands are kept, want the part alone", len(h.part), len(h.islands))
	}
}

// TestWhatIsSeenOfPiecesLiesWhereItBelongs has some of four messages be there.
func TestWhatIsSeenOfPiecesLiesWhereItBelongs(t *testing.T) {
	packed := random(1, 1000)
	missing := slices.Concat(packed[100:200], packed[300:900])
	first, second := appendPiece(nil, 7, missing[:150]), appendPiece(nil, 7, missing[150:400])
	stranger, opens := appendPiece(nil, 8, missing[150:400]), openedWith(t, 40<<10, 0)
	seq := binary.BigEndian.AppendUint64([]byte{msgPiece}, 7)
	ack := encodeAck([]outcome{{Seq: 1}})
	kept := runs{{0, 100}, {200, 300}, {900, 1000}}
	with := func(more ...run) runs {
		out := slices.Clone(kept)
		for _, r := range more {
			out.add(r.from, r.to)
		}
		return out
	}
	for what, c := range map[string]struct {
		coming []come
		want   runs
	}{
		"nothing":                         {nil, kept},
		"a head":                          {[]come{{0, 159, 0, first[:9]}}, kept},
		"some of the first":               {[]come{{0, 159, 0, nil}, {0, 159, 0, first[:59]}, {0, 159, 109, first[109:119]}}, with(run{100, 150}, run{300, 310})},
		"over an island":                  {[]come{{0, 159, 0, first[:9]}, {0, 159, 59, first[59:139]}}, with(run{150, 200}, run{300, 330})},
		"the second behind the first":     {[]come{{0, 159, 0, first[:20]}, {1, 259, 0, second[:109]}}, with(run{100, 111}, run{350, 450})},
		"the second, and what is between": {[]come{{0, 159, 0, first[:9]}, {1, len(ack), 0, ack}, {2, 259, 0, second[:19]}}, with(run{350, 360})},
		"a head that is cut":              {[]come{{0, 159, 0, first[:8]}, {0, 159, 20, first[20:40]}}, kept},
		"no head":                         {[]come{{0, 159, 20, first[20:40]}, {1, 259, 0, second}}, kept},
		"no head in the second":           {[]come{{0, 159, 0, first[:10]}, {1, 259, 10, second[10:]}, {2, 10, 0, append(seq, 'x')}}, with(run{100, 101})},
		"of another entry":                {[]come{{0, 159, 0, first[:10]}, {1, 259, 0, stranger}, {2, 259, 0, second}}, with(run{100, 101})},
		"the next entry":                  {[]come{{0, 159, 0, first[:10]}, {1, len(opens), 0, opens}, {2, 259, 0, second}}, with(run{100, 101})},
		"more than there is to come":      {[]come{{0, 159, 0, first[:10]}, {1, 9 + 551, 0, append(seq, packed[:551]...)}}, with(run{100, 101})},
		"as much as is to come":           {[]come{{0, 159, 0, first[:10]}, {1, 9 + 550, 0, append(slices.Clip(seq), missing[150:]...)}}, with(run{100, 101}, run{350, 900})},
	} {
		_, h, _, _ := islanded(t)
		s, _, road, err := islanded(t, goesOn(h).encode())
		if err != nil {
			t.Fatal(err)
		}
		road.coming[redoubt.Routine] = c.coming
		a := s.begun[redoubt.Routine]
		before := a.come.have.total()
		if news := s.look(); !slices.Equal(a.come.have, c.want) || news != c.want.total()-before {
			t.Errorf("%s: %v are there, want %v; %d are new", what, a.come.have, c.want, news)
		}
		for _, r := range a.come.have {
			if !bytes.Equal(a.come.b[r.from:r.to], packed[r.from:r.to]) {
				t.Errorf("%s: what lies from %d on is not what was sent", what, r.from)
			}
		}
		if news := s.look(); news != 0 {
			t.Errorf("%s: %d bytes are new again", what, news)
		}
	}
}

// TestIslandsAreKeptForAPeerThatKnowsThem and for no other: it would send all of it again.
func TestIslandsAreKeptForAPeerThatKnowsThem(t *testing.T) {
	piece := appendPiece(nil, 7, bytes.Repeat([]byte("y"), 40_000))
	for _, knows := range []bool{false, true} {
		h, road := new(holder), new(ahead)
		s := New(Options{Node: "outpost", Peer: "secret", Journal: h, Conn: road})
		s.islands = knows
		for _, m := range [][]byte{openedWith(t, 40_000, 0), segment{Seq: 7, Packing: packedPlain, Bytes: 40_000}.encode()} {
			if err := s.serve(t.Context(), redoubt.Routine, m); err != nil {
				t.Fatal(err)
			}
		}
		road.coming[redoubt.Routine] = []come{{0, len(piece), 0, piece[:5009]}, {0, len(piece), 6009, piece[6009:16_009]}, {0, len(piece), 20_009, piece[20_009:20_109]}}
		s.look()
		if err := s.keepParts(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		var islands []string
		for _, i := range h.islands {
			islands = append(islands, strings.Repeat("y", len(i.Bytes)))
		}
		if want := map[bool][]int{false: {}, true: {10_000}}[knows]; len(h.part) != segmentHead+5000 || len(islands) != len(want) || knows && (len(islands[0]) != want[0] || h.islands[0].From != segmentHead+6000) {
			t.Errorf("where the peer knows of islands: %v, %d bytes and %d islands are kept", knows, len(h.part), len(islands))
		}
		s.endArrival(t.Context(), s.begun[redoubt.Routine])
	}
}

// TestASegmentThatIsAnnouncedTakesNoMemory: its message has 18 bytes, and it may be of 8 MiB.
func TestASegmentThatIsAnnouncedTakesNoMemory(t *testing.T) {
	s := receiving(new(holder))
	for _, m := range [][]byte{openedWith(t, segmentBytes, 0), segment{Seq: 7, Packing: packedPlain, Bytes: segmentBytes}.encode()} {
		if err := s.serve(t.Context(), redoubt.Routine, m); err != nil {
			t.Fatal(err)
		}
	}
	if n := cap(s.begun[redoubt.Routine].come.b); n > 0 {
		t.Errorf("%d bytes are held for it", n)
	}
	if err := s.serve(t.Context(), redoubt.Routine, appendPiece(nil, 7, []byte("x"))); err != nil {
		t.Fatal(err)
	}
	if n := cap(s.begun[redoubt.Routine].come.b); n > firstRoom {
		t.Errorf("%d bytes are held for one that came", n)
	}
}

// TestNoMoreIslandsAreKeptThanMayBe has many come, or large ones, some at a time.
func TestNoMoreIslandsAreKeptThanMayBe(t *testing.T) {
	for _, c := range []struct{ size, count, want, bytes int }{
		{300, 50, redoubt.MaxIslands, 300 * redoubt.MaxIslands},
		{100 << 10, 4, 3, redoubt.MaxIslandBytes},
		{leastIsland, 3, 3, 3 * leastIsland},
		{leastIsland - 1, 3, 0, 0},
	} {
		d, x := &disk{t: t}, assembly{}
		x.begin(1 << 20)
		x.piece(make([]byte, 100))
		for i := range c.count {
			x.show(1000+i*(c.size+1000), make([]byte, c.size))
			if part, islands := x.unkept(headed(packedPlain, 1<<20, nil), true); i%3 != 1 && len(part.Bytes)+len(islands) > 0 {
				d.keep(part, islands)
				x.keptNow(part, islands)
			}
		}
		if len(d.islands) != c.want || islandBytes(d) != c.bytes {
			t.Errorf("of %d islands of %d bytes %d are kept, of %d; want %d, of %d", c.count, c.size, len(d.islands), islandBytes(d), c.want, c.bytes)
		}
	}
}

// TestTheEndOfASessionKeepsWhatALossHeldUpToTheLast has it come when nobody looks any more.
func TestTheEndOfASessionKeepsWhatALossHeldUpToTheLast(t *testing.T) {
	h, road := new(holder), new(ahead)
	s := New(Options{Node: "outpost", Peer: "secret", Journal: h, Conn: road})
	s.islands = true
	for _, m := range [][]byte{openedWith(t, 40_000, 0), segment{Seq: 7, Packing: packedPlain, Bytes: 40_000}.encode()} {
		if err := s.serve(t.Context(), redoubt.Routine, m); err != nil {
			t.Fatal(err)
		}
	}
	piece := appendPiece(nil, 7, make([]byte, 40_000))
	road.coming[redoubt.Routine] = []come{{0, len(piece), 0, piece[:309]}, {0, len(piece), 2009, piece[2009:2409]}}
	s.endArrivals(t.Context())
	if len(h.part) != segmentHead+300 || len(h.islands) != 1 || len(h.islands[0].Bytes) != 400 {
		t.Errorf("%d bytes and %d islands are kept", len(h.part), len(h.islands))
	}
}
