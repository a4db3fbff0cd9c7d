package replica

import (
	"bytes"
	"encoding/hex"
	goflag "flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"redoubt"
)

var update = goflag.Bool("update", false, "write testdata/messages.txt anew; read the difference before you commit it")

const vectorFile = "testdata/messages.txt"

// vectors are one message of each kind: its encoding, and what its decoder has to give.
func vectors() []vector {
	fill := func(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }
	h := hello{Estate: "example", Node: "secret", Life: [16]byte{1, 2}, RemembersOf: [16]byte{3},
		Kept: []kept{{Arrival: redoubt.Arrival{Set: "SET", Stamp: redoubt.Stamp{4}, Whole: segmentBytes, Part: 4097, Digest: [32]byte(fill(7, 32))}}}, Proof: []byte("lease")}
	o := opening{Set: "SET", Parcel: parcel{Seq: 7, Entry: []byte("entry"), Custody: []byte("custody")}, From: segmentBytes}
	s := segment{Seq: 7, Packing: packedChunks, Bytes: 8192, Skip: 4092}
	w := segment{Seq: 7, Packing: packedZstd, Bytes: 8192, Skip: 4092, Islands: true, Of: [16]byte(fill(10, 16))}
	x := []islandsOf{{Stamp: redoubt.Stamp{4}, Of: [16]byte(fill(10, 16)), Islands: []redoubt.Island{{From: 5000, SizeBytes: 1400}, {From: 6400, SizeBytes: 300}}}}
	q := inquiry{Set: "SET", Stamps: []redoubt.Stamp{{1}, {2}, {3}}}
	i := items{Set: "SET", Signature: fill(5, 64), Parcels: []parcel{
		{Seq: 1, Entry: []byte("entry"), Custody: []byte{}, Packing: packedNone, Content: []byte{}},
		{Seq: 258, Entry: []byte("other"), Custody: []byte("custody"), Packing: packedDelta, Content: []byte("packed")}}}
	b := begin{Set: "SET", Parcel: parcel{Seq: 7, Entry: []byte("entry"), Custody: []byte("custody"), Packing: packedZstd}, Bytes: 9 << 20}
	a := []outcome{{Seq: 1, State: taken}, {Seq: 2, State: refused, Kind: redoubt.Denied, Rule: "bound"}, {Seq: 3, State: refusedAt, Kind: redoubt.NoBucket, Rule: ""}, {Seq: 4, State: needsBase}}
	r := spans{Set: "SET", First: true, Spans: []span{{To: redoubt.Stamp{9}, Count: 65, Fingerprint: [16]byte(fill(6, 16))},
		{From: redoubt.Stamp{9}, Listed: true, Stamps: []redoubt.Stamp{{9, 1}, {9, 2}}}}}
	m := manifest{Life: [16]byte{1}, RemembersOf: [16]byte{2}, Took: 3, Lacking: true, Tickets: [][]byte{fill(8, 101)}}
	k := mark{Set: "SET", Ticket: fill(9, 101)}
	return []vector{
		{"hello", h.encode(), h, func(x []byte) (any, error) { return decodeHello(x) }},
		{"items", i.encode(), i, func(x []byte) (any, error) { return decodeItems(x) }},
		{"open", o.encode(), o, func(x []byte) (any, error) { return decodeOpening(x) }},
		{"segment", s.encode(), s, func(x []byte) (any, error) { return decodeSegment(x) }},
		{"segment-islands", w.encode(), w, func(x []byte) (any, error) { return decodeSegment(x) }},
		{"piece", appendPiece(nil, 7, []byte("content")), "7 content", func(x []byte) (any, error) { n, c, err := decodePiece(x); return fmt.Sprintf("%d %s", n, c), err }},
		{"ack", encodeAck(a), a, func(x []byte) (any, error) { return decodeAck(x) }},
		{"ranges", r.encode(msgRanges), r, func(x []byte) (any, error) { return decodeSpans(msgRanges, x) }},
		{"answer", r.encode(msgAnswer), r, func(x []byte) (any, error) { return decodeSpans(msgAnswer, x) }},
		{"ask", q.encode(), q, func(x []byte) (any, error) { return decodeInquiry(x) }},
		{"lacking", encodeLacking(q.Stamps, q.Stamps[2:]), []bool{false, false, true}, func(x []byte) (any, error) { return decodeLacking(x, 3) }},
		{"note", encodeNote("lease", []byte("body")), "lease body", func(x []byte) (any, error) { k, v, err := decodeNote(x); return fmt.Sprintf("%s %s", k, v), err }},
		{"note-islands", encodeApart(x), x, func(x []byte) (any, error) { _, body, _ := decodeNote(x); return decodeApart(body) }},
		{"manifest", m.encode(), m, func(x []byte) (any, error) { return decodeManifest(x) }},
		{"begin", b.encode(), b, func(x []byte) (any, error) { return decodeBegin(x) }},
		{"ticket", k.encode(), k, func(x []byte) (any, error) { return decodeMark(x) }},
	}
}

type vector struct {
	name string
	made []byte
	want any
	read func([]byte) (any, error)
}

func TestMessagesAreThoseOfTheVectors(t *testing.T) {
	all := vectors()
	head := "# One message of each kind of docs/spec/replica.md and, from manifest on, of a bundle's content (docs/spec/bundle.md); what they say is in vector_test.go.\n"
	if *update {
		out := head
		for _, v := range all {
			out += fmt.Sprintf("%s %x\n", v.name, v.made)
		}
		if err := os.WriteFile(vectorFile, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(strings.TrimPrefix(string(raw), head)), "\n")
	if len(lines) != len(all) {
		t.Fatalf("%d messages, want %d", len(lines), len(all))
	}
	for i, line := range lines {
		name, text, _ := strings.Cut(line, " ")
		msg, err := hex.DecodeString(text)
		if err != nil || name != all[i].name {
			t.Fatalf("line %d: %q, %v", i, name, err)
		}
		if !bytes.Equal(msg, all[i].made) {
			t.Errorf("%s is written as\n%x, want\n%x", name, all[i].made, msg)
		}
		got, err := all[i].read(msg)
		if err != nil || !reflect.DeepEqual(got, all[i].want) {
			t.Errorf("%s is read as\n%#v, %v, want\n%#v", name, got, err, all[i].want)
		}
	}
}
