package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"redoubt"
)

// body is content in memory.
type body []byte

func (b body) Reader(off, n int64) io.Reader {
	if n < 0 {
		n = int64(len(b)) - off
	}
	return io.NewSectionReader(bytes.NewReader(b), off, n)
}
func (b body) Close() error { return nil }

// holder is a journal of versions in memory, that takes what it is given.
type holder struct {
	redoubt.Journal
	content map[redoubt.Stamp]body
	at      redoubt.Arrival
	part    []byte
	islands []redoubt.Stretch
	lost    error // instead of it
	kept    []byte
	calls   []string
	applied []byte
}

func (h *holder) Fetch(_ context.Context, _ redoubt.NodeName, set string, stamps []redoubt.Stamp) (items []redoubt.JournalItem, err error) {
	for _, s := range stamps {
		if c, ok := h.content[s]; ok {
			e := redoubt.JournalEntry{Kind: redoubt.EntryVersion, Stamp: s, Label: set, Made: set, Maker: "secret", SizeBytes: int64(len(c))}
			items = append(items, redoubt.JournalItem{Entry: e, Open: func() (redoubt.Content, error) { return c, nil }})
		}
	}
	return items, nil
}
func (h *holder) Begin(context.Context, redoubt.NodeName, redoubt.Received) (redoubt.Arrival, bool, *redoubt.Refusal, error) {
	h.calls = append(h.calls, "begin")
	return h.at, false, nil, nil
}
func (h *holder) Part(_ context.Context, _ redoubt.NodeName, at redoubt.Arrival) ([]byte, []redoubt.Stretch, error) {
	h.calls = append(h.calls, "read")
	if len(at.Islands) == 0 {
		h.islands = nil
	}
	return bytes.Clone(h.part), h.islands, h.lost
}
func (h *holder) Arriving(context.Context, redoubt.NodeName) ([]redoubt.Arrival, error) {
	return []redoubt.Arrival{h.at}, nil
}
func (h *holder) Keep(_ context.Context, _ redoubt.NodeName, _ redoubt.Received, content []byte) (*redoubt.Refusal, error) {
	h.calls = append(h.calls, "keep")
	h.kept = append(h.kept, content...)
	return nil, nil
}
func (h *holder) KeepPart(_ context.Context, _ redoubt.NodeName, _ redoubt.Received, part redoubt.Stretch, islands []redoubt.Stretch) (*redoubt.Refusal, error) {
	h.calls = append(h.calls, "part")
	h.part, h.islands = append(h.part[:part.From], part.Bytes...), append(h.islands, islands...)
	return nil, nil
}
func (h *holder) Apply(_ context.Context, _ redoubt.NodeName, in []redoubt.Received) (no []redoubt.Refusal, err error) {
	h.calls = append(h.calls, "apply")
	h.applied, err = io.ReadAll(in[0].Content)
	return nil, err
}

func random(seed uint64, n int) body {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range len(b) / 8 {
		binary.LittleEndian.PutUint64(b[8*i:], r.Uint64())
	}
	return b
}

var baseStamp, nextStamp = redoubt.Stamp{9}, redoubt.Stamp{10}

// both packs content against a base as who sends it does, and unpacks it as who receives it.
func both(t interface{ Fatal(...any) }, base, next body) (packed int) {
	h := &holder{content: map[redoubt.Stamp]body{baseStamp: base, nextStamp: next}}
	p := &packer{journal: h, peer: "secret", codecs: new(Codecs)}
	items, _ := h.Fetch(context.Background(), "", "S", []redoubt.Stamp{nextStamp})
	items[0].Entry.Base = baseStamp
	src, err := p.open(context.Background(), "S", &items[0], true)
	if err != nil {
		t.Fatal(err)
	}
	defer src.close()
	a := &arrival{set: "S", in: redoubt.Received{Entry: items[0].Entry}}
	var out []byte
	for off := int64(0); off < int64(len(next)); off += segmentBytes {
		packing, b, err := src.segment(off)
		if err != nil {
			t.Fatal(err)
		}
		again, b2, err := src.segment(off)
		if err != nil || again != packing || !bytes.Equal(b, b2) {
			t.Fatal("the same segment is packed in two ways")
		}
		if len(b) > maxSegment {
			t.Fatal("a segment is larger than one may be")
		}
		packed += len(b)
		plain, state, err := p.restore(context.Background(), a, packing, b, min(int64(len(next))-off, segmentBytes))
		if err != nil || state != taken {
			t.Fatal("an honest segment is not taken: ", state, err)
		}
		out = append(out, plain...)
	}
	if !bytes.Equal(out, next) {
		t.Fatal("it came out as something else")
	}
	return packed
}

// TestWhatIsMadeOfABaseComesOutAsItWas edits content in any way and sends it as a difference.
func TestWhatIsMadeOfABaseComesOutAsItWas(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		base := random(rapid.Uint64().Draw(r, "seed"), rapid.IntRange(1, 3<<20).Draw(r, "size"))
		if rapid.Bool().Draw(r, "dull") {
			clear(base[len(base)/3:])
		}
		next := slices.Clone(base)
		for range rapid.IntRange(0, 5).Draw(r, "edits") {
			at := rapid.IntRange(0, len(next)).Draw(r, "at")
			n := rapid.IntRange(0, 200_000).Draw(r, "n")
			switch rapid.IntRange(0, 2).Draw(r, "edit") {
			case 0:
				next = slices.Insert(next, at, random(uint64(n), n)...)
			case 1:
				next = slices.Delete(next, at, min(at+n, len(next)))
			default: // what is there is moved
				end := min(at+n, len(next))
				moved := slices.Clone(next[at:end])
				next = append(slices.Delete(next, at, end), moved...)
			}
		}
		h := &holder{content: map[redoubt.Stamp]body{baseStamp: base}}
		p := &packer{journal: h, peer: "secret", codecs: new(Codecs)}
		b := &baseline{content: base, size: int64(len(base))}
		if err := b.index(); err != nil {
			r.Fatal(err)
		}
		next = next[:min(len(next), segmentBytes)]
		src := &source{p: p, base: b}
		packed, err := src.chunked(next)
		if err != nil {
			r.Fatal(err)
		}
		a := &arrival{set: "S", in: redoubt.Received{Entry: redoubt.JournalEntry{Base: baseStamp}}}
		plain, state, err := p.restore(context.Background(), a, packedChunks, packed, int64(len(next)))
		if err != nil || state != taken || !bytes.Equal(plain, next) {
			r.Fatalf("%d bytes of %d bytes came out, state %d, %v", len(plain), len(next), state, err)
		}
	})
}

func TestALargeVersionIsMadeOfItsBaseAcrossSegments(t *testing.T) {
	base := random(1, 20<<20)
	next := slices.Concat(base[:5<<20], random(2, 100_000), base[5<<20:12<<20], base[13<<20:], base[:1<<20])
	if n := both(t, base, next); n > 110_000 {
		t.Errorf("100,000 new bytes in 20 MiB are packed in %d", n)
	}
	both(t, random(3, 100), random(4, 9<<20))                        // nothing is common
	both(t, random(3, 20<<20), random(3, 20<<20)[:3<<20])            // small, of a large base
	both(t, make(body, 10<<20), make(body, 17<<20+1))                // all is common
	both(t, random(5, 2<<20), append(random(5, 2<<20), 1, 2, 3))     // one segment, with a dictionary
	both(t, slices.Repeat(random(6, 50_000), 200), random(6, 9<<20)) // the base repeats itself
}

// bomb is zstd of a lot of zeros.
func bomb(t testing.TB, n int) []byte {
	enc, err := newEncoder(maxWholeBytes)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	return enc.EncodeAll(make([]byte, n), nil)
}

func TestStepsThatLieAreRefused(t *testing.T) {
	base := random(1, 1000)
	u := func(n ...uint64) (b []byte) {
		for _, x := range n {
			b = binary.AppendUvarint(b, x)
		}
		return b
	}
	for what, packed := range map[string][]byte{
		"nothing":                             nil,
		"no steps":                            u(0),
		"a copy beyond the base":              u(1, 0, 500, 501),
		"a copy from beyond its end":          u(1, 0, 500, 1<<40),
		"a copy of a negative offset":         u(1, 0, 500, 1<<64-1),
		"a copy longer than the content":      u(1, 0, 501, 0),
		"a copy longer than the base":         u(1, 0, 1<<40, 0),
		"copies that are too little":          u(1, 0, 499, 0),
		"copies that are too much":            u(2, 0, 300, 0, 0, 300, 0),
		"overlapping copies, too much":        u(3, 0, 250, 0, 0, 250, 100, 0, 1, 0),
		"a step of nothing":                   u(2, 0, 0, 0, 500, 0),
		"more steps than there may be":        u(maxSteps + 1),
		"fewer than it says":                  u(3, 0, 250, 0, 0, 250, 0),
		"a number not in shortest form":       {0x81, 0x00, 0x00, 0xf4, 0x03, 0x00},
		"something behind":                    append(u(1, 0, 500, 0), 7),
		"bytes of its own that are not there": u(1, 500, 0),
		"a bomb":                              append(u(1, 500, 0), bomb(t, 64<<20)...),
		"a bomb that says what it is":         append(u(1, 500, 0), bomb(t, maxWholeBytes+1)...),
	} {
		h := &holder{content: map[redoubt.Stamp]body{baseStamp: base}}
		p := &packer{journal: h, peer: "secret", codecs: new(Codecs)}
		a := &arrival{set: "S", in: redoubt.Received{Entry: redoubt.JournalEntry{Base: baseStamp}}}
		if plain, state, err := p.restore(context.Background(), a, packedChunks, packed, 500); err != nil || state != refused {
			t.Errorf("%s: %d bytes, state %d, %v; want it refused", what, len(plain), state, err)
		}
		delete(h.content, baseStamp)
		a.base = nil
		if _, state, err := p.restore(context.Background(), a, packedChunks, packed, 500); err != nil || state != needsBase {
			t.Errorf("%s, without a base: state %d, %v", what, state, err)
		}
	}
	good := u(2, 0, 250, 700, 0, 250, 0)
	h := &holder{content: map[redoubt.Stamp]body{baseStamp: base}}
	a := &arrival{set: "S", in: redoubt.Received{Entry: redoubt.JournalEntry{Base: baseStamp}}}
	plain, state, err := (&packer{journal: h, peer: "secret", codecs: new(Codecs)}).restore(context.Background(), a, packedChunks, good, 500)
	if err != nil || state != taken || !bytes.Equal(plain, append(slices.Clone(base[700:950]), base[:250]...)) {
		t.Errorf("what is well formed: state %d, %v", state, err)
	}
}

// receiving is a session that a hostile peer speaks to.
func receiving(h *holder) *Session {
	return New(Options{Node: "outpost", Peer: "secret", Journal: h})
}

func opened(t testing.TB, size, from int64) []byte {
	return opening{Set: "S", Parcel: parcel{Seq: 7, Entry: entryOf(t, "S", size), Custody: make([]byte, 99)}, From: from}.encode()
}

func TestSegmentsOutOfOrderEndTheSession(t *testing.T) {
	const size = 20 << 20
	seg := segment{Seq: 7, Packing: packedPlain, Bytes: 1 << 20}
	custody, err := (&redoubt.Custody{Count: 1}).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	open := opening{Set: "S", Parcel: parcel{Seq: 7, Entry: entryOf(t, "S", size), Custody: custody}}.encode()
	from := func(from int64, size int64) []byte {
		return opening{Set: "S", Parcel: parcel{Seq: 7, Entry: entryOf(t, "S", size), Custody: custody}, From: from}.encode()
	}
	other, skips := seg, seg
	other.Seq, skips.Skip = 8, 100
	kept := &holder{at: redoubt.Arrival{Whole: segmentBytes, Part: segmentHead + 100}, part: headed(packedPlain, 200, make([]byte, 100))}
	for what, c := range map[string]struct {
		h    *holder
		msgs [][]byte
	}{
		"a segment of nothing":                  {new(holder), [][]byte{seg.encode()}},
		"a piece of nothing":                    {new(holder), [][]byte{appendPiece(nil, 7, []byte("x"))}},
		"a segment of another":                  {new(holder), [][]byte{open, other.encode()}},
		"a segment in a segment":                {new(holder), [][]byte{open, seg.encode(), seg.encode()}},
		"a piece before its segment":            {new(holder), [][]byte{open, appendPiece(nil, 7, []byte("x"))}},
		"a piece of another":                    {new(holder), [][]byte{open, seg.encode(), appendPiece(nil, 8, []byte("x"))}},
		"pieces that are too many":              {new(holder), [][]byte{open, seg.encode(), appendPiece(nil, 7, make([]byte, 1<<20+1))}},
		"what goes on from what is not kept":    {new(holder), [][]byte{from(segmentBytes, size)}},
		"what goes on from beyond its end":      {kept, [][]byte{from(3*segmentBytes, size)}},
		"what goes on, too large to be kept":    {kept, [][]byte{from(segmentBytes, maxKeptBytes+1)}},
		"a part that is not kept":               {new(holder), [][]byte{open, skips.encode()}},
		"a part of another length":              {kept, [][]byte{from(segmentBytes, size), segment{Seq: 7, Packing: packedPlain, Bytes: 200, Skip: 99}.encode()}},
		"a part of a segment of another length": {kept, [][]byte{from(segmentBytes, size), segment{Seq: 7, Packing: packedPlain, Bytes: 201, Skip: 100}.encode()}},
		"a part of another packing":             {kept, [][]byte{from(segmentBytes, size), segment{Seq: 7, Packing: packedZstd, Bytes: 200, Skip: 100}.encode()}},
		"an answer that nobody asked for":       {new(holder), [][]byte{encodeLacking(nil, nil), encodeLacking(nil, nil)}},
	} {
		s, err := receiving(c.h), error(nil)
		for i, m := range c.msgs {
			if err = s.serve(context.Background(), redoubt.Routine, m); err != nil && i < len(c.msgs)-1 {
				t.Errorf("%s: message %d: %v", what, i, err)
			}
		}
		if !errors.Is(err, errMessage) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestOfAPartNothingIsReadBeforeItIsGoneOnWith has a peer say hello and open a version again and again: small messages cause no large read.
func TestOfAPartNothingIsReadBeforeItIsGoneOnWith(t *testing.T) {
	part := headed(packedPlain, 200, make([]byte, 100))
	h := &holder{at: redoubt.Arrival{Set: "S", Whole: segmentBytes, Part: int64(len(part)), Digest: [32]byte(partDigest(packedPlain, make([]byte, 200), 100))}, part: part}
	s := receiving(h)
	if told, err := s.tellKept(t.Context()); err != nil || len(told) != 1 || !reflect.DeepEqual(told[0].Arrival, h.at) {
		t.Errorf("told %+v, %v; want %+v", told, err, h.at)
	}
	for range 3 {
		if err := s.serve(t.Context(), redoubt.Routine, openedWith(t, 20<<20, segmentBytes)); err != nil {
			t.Fatal(err)
		}
	}
	if slices.Contains(h.calls, "read") {
		t.Errorf("the part is read: %v", h.calls)
	}
	for _, msg := range [][]byte{segment{Seq: 7, Packing: packedPlain, Bytes: 200, Skip: 100}.encode(), appendPiece(nil, 7, make([]byte, 50))} {
		if err := s.serve(t.Context(), redoubt.Routine, msg); err != nil {
			t.Fatal(err)
		}
	}
	if a := s.begun[redoubt.Routine]; !slices.Contains(h.calls, "read") || len(a.come.b) != 150 {
		t.Errorf("%d bytes are there of the segment, by %v; want 150", len(a.come.b), h.calls)
	}
}

func TestAPartThatCannotBeReadCostsItsVersionAWaitAndNotTheLink(t *testing.T) {
	h := &holder{at: redoubt.Arrival{Whole: segmentBytes, Part: segmentHead + 100}, lost: &redoubt.Error{Op: "Part", Kind: redoubt.Corrupt}}
	s := receiving(h)
	if _, err := s.tellKept(t.Context()); err != nil {
		t.Errorf("the peer is not greeted: %v", err)
	}
	half := segmentBytes / 2
	for i, msg := range [][]byte{
		openedWith(t, 20<<20, segmentBytes),
		segment{Seq: 7, Packing: packedPlain, Bytes: segmentBytes, Skip: 100}.encode(),
		appendPiece(nil, 7, make([]byte, half)), appendPiece(nil, 7, make([]byte, half-100)), // under way before the peer hears of it
		segment{Seq: 7, Packing: packedPlain, Bytes: 4 << 20}.encode(),
		appendPiece(nil, 7, make([]byte, 50)),
	} {
		if err := s.serve(t.Context(), redoubt.Routine, msg); err != nil {
			t.Fatalf("message %d ends the session: %v", i, err)
		}
	}
	if got := s.acks.take(); len(got) != 1 || got[0].Seq != 7 || got[0].State != refusedAt {
		t.Errorf("the peer is told %+v, want that it is refused for now", got)
	}
	h.at = redoubt.Arrival{} // it comes again, from its beginning
	small := random(1, 40<<10)
	for _, msg := range [][]byte{openedWith(t, int64(len(small)), 0), segment{Seq: 7, Packing: packedPlain, Bytes: uint32(len(small))}.encode(), appendPiece(nil, 7, small)} {
		if err := s.serve(t.Context(), redoubt.Routine, msg); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.settleAll(); err != nil || !bytes.Equal(h.applied, small) {
		t.Errorf("%d bytes are applied, %v", len(h.applied), err)
	}
}

// openedWith opens a version whose custody is well formed.
func openedWith(t testing.TB, size, from int64) []byte {
	custody, err := (&redoubt.Custody{Count: 1}).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return opening{Set: "S", Parcel: parcel{Seq: 7, Entry: entryOf(t, "S", size), Custody: custody}, From: from}.encode()
}

func TestWhatIsTooLargeToBeKeptGoesStraightOn(t *testing.T) {
	h := new(holder)
	s := receiving(h)
	content := random(1, 2*segmentBytes+5)
	custody, err := (&redoubt.Custody{Count: 1}).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	serve := func(msg []byte) {
		t.Helper()
		if err := s.serve(context.Background(), redoubt.Routine, msg); err != nil {
			t.Fatal(err)
		}
	}
	serve(opening{Set: "S", Parcel: parcel{Seq: 7, Entry: entryOf(t, "S", int64(len(content))), Custody: custody}}.encode())
	s.pass(context.Background(), s.begun[redoubt.Routine])
	for part := range slices.Chunk(content, segmentBytes) {
		serve(segment{Seq: 7, Packing: packedPlain, Bytes: uint32(len(part))}.encode())
		serve(appendPiece(nil, 7, part))
	}
	if !bytes.Equal(h.applied, content) || !slices.Equal(h.calls, []string{"begin", "apply"}) {
		t.Errorf("%d bytes were applied, by %v", len(h.applied), h.calls)
	}
	if got := s.acks.take(); len(got) != 1 || got[0].Seq != 7 || got[0].State != taken {
		t.Errorf("acknowledged %+v", got)
	}
}

func TestABeginningThatLiesIsNotGoneOnWith(t *testing.T) {
	packed := random(1, 1000)
	true500 := kept{Arrival: redoubt.Arrival{Part: segmentHead + 500}}
	copy(true500.Digest[:], partDigest(packedZstd, packed, 500))
	if skip, same := sameBeginning(&true500, packedZstd, packed); !same || skip != 500 {
		t.Fatalf("an honest beginning: %d, %v", skip, same)
	}
	for what, lie := range map[string]func(k *kept){
		"another digest":        func(k *kept) { k.Digest[3] ^= 1 },
		"another length":        func(k *kept) { k.Part-- },
		"longer than there is":  func(k *kept) { k.Part = segmentHead + 1001 },
		"shorter than its head": func(k *kept) { k.Part = 1 },
		"nothing":               func(k *kept) { *k = kept{} },
	} {
		k := true500
		lie(&k)
		if _, same := sameBeginning(&k, packedZstd, packed); same {
			t.Errorf("%s is gone on with", what)
		}
	}
	if _, same := sameBeginning(&true500, packedPlain, packed); same {
		t.Error("what was packed otherwise is gone on with")
	}
}

// FuzzSteps looks for steps that make something else than what they say, or that their reader falls over.
func FuzzSteps(f *testing.F) {
	f.Add([]byte{1, 0, 100, 0}, uint16(100), uint16(100))
	f.Add([]byte{2, 3, 50, 0, 0, 47, 50}, uint16(100), uint16(100))
	f.Add([]byte{0x81, 0x00}, uint16(1), uint16(1))
	f.Fuzz(func(t *testing.T, in []byte, size, of uint16) {
		all, literals, rest, err := decodeSteps(in, int64(size), int64(of))
		if err != nil {
			return
		}
		if again := encodeSteps(all); !bytes.Equal(again, in[:len(in)-len(rest)]) {
			t.Fatalf("%x is read as %x", in, again)
		}
		b := &baseline{content: make(body, of), size: int64(of)}
		if out, err := b.make(all, make([]byte, literals), int64(size)); err != nil || len(out) != int(size) {
			t.Fatalf("%d bytes, %v; want %d", len(out), err, size)
		}
	})
}

// FuzzLargeMessages looks for messages of which two mean the same.
func FuzzLargeMessages(f *testing.F) {
	f.Add(opened(f, 9<<20, segmentBytes))
	f.Add(segment{Seq: 1, Packing: packedChunks, Bytes: 9, Skip: 3}.encode())
	f.Add(segment{Seq: 1, Packing: packedZstd, Bytes: 9, Skip: 3, Islands: true, Of: [16]byte{5}}.encode())
	f.Add(inquiry{Set: "S", Stamps: []redoubt.Stamp{{1}, {2}}}.encode())
	f.Add(hello{Estate: "example", Node: "n", Life: [16]byte{1}, Kept: []kept{{Arrival: redoubt.Arrival{Set: "S", Stamp: baseStamp, Whole: segmentBytes, Part: 9}}}}.encode())
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) == 0 {
			return
		}
		var again []byte
		switch in[0] {
		case msgOpen:
			if m, err := decodeOpening(in); err == nil {
				again = m.encode()
			}
		case msgSegment, msgIslands:
			if m, err := decodeSegment(in); err == nil {
				again = m.encode()
			}
		case msgAsk:
			if m, err := decodeInquiry(in); err == nil {
				again = m.encode()
			}
		case msgHello:
			if m, err := decodeHello(in); err == nil {
				again = m.encode()
			}
		case msgLacking:
			asked := stamps([]uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11})
			if lacks, err := decodeLacking(in, len(asked)); err == nil {
				var l []redoubt.Stamp
				for i := range lacks {
					if lacks[i] {
						l = append(l, asked[i])
					}
				}
				again = encodeLacking(asked, l)
			}
		}
		if again != nil && !bytes.Equal(again, in) {
			t.Fatalf("%x is read as %x", in, again)
		}
	})
}
