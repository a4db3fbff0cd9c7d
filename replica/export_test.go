package replica

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"redoubt"
)

// lender is a journal whose content stands in memory that is used for something else once it is given back.
type lender struct {
	redoubt.Journal
	sizes    []int
	released int
}

// lent is content in such memory.
type lent struct{ body }

func (l lent) Whole() []byte { return l.body }

// lentContent is what stands under a stamp.
func lentContent(stamp byte, size int) []byte {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{stamp}).Read(b)
	return b
}

func (l *lender) Fetch(_ context.Context, _ redoubt.NodeName, set string, stamps []redoubt.Stamp) (out []redoubt.JournalItem, _ error) {
	for _, s := range stamps {
		content := lentContent(s[0], l.sizes[s[0]-1])
		item := redoubt.JournalItem{Entry: redoubt.JournalEntry{Kind: redoubt.EntryVersion, Stamp: s, Label: set, Made: set, Maker: "secret", SizeBytes: int64(len(content))}}
		item.Open = func() (redoubt.Content, error) { return lent{content}, nil }
		item.Release = func() { l.released++; clear(content) }
		out = append(out, item)
	}
	return out, nil
}

// TestMemoryOfContentIsGivenBackBehindWhatWasWrittenOfIt: small content, which waits for others, and large.
func TestMemoryOfContentIsGivenBackBehindWhatWasWrittenOfIt(t *testing.T) {
	l := &lender{sizes: []int{1000, 20_000, togetherBytes + 1, 100_000, 7, 200_000, 3 * togetherBytes, 50}}
	var stamps []redoubt.Stamp
	for i := range l.sizes {
		stamps = append(stamps, redoubt.Stamp{byte(i + 1)})
	}
	p := newPost(t)
	p.Bundles.o.Journal = l
	var file bytes.Buffer
	x := &exporter{b: p.Bundles, peer: "outpost", frames: &frameWriter{w: &file}, counts: newCounts(),
		packer: &packer{journal: l, peer: "outpost", codecs: new(Codecs)}}
	if err := x.entries(context.Background(), "S", stamps); err != nil {
		t.Fatal(err)
	}
	if l.released != len(stamps) {
		t.Errorf("%d of %d were given back", l.released, len(stamps))
	}
	got := map[uint64][]byte{}
	for f := (&frameReader{r: &file}); file.Len() > 0; {
		msg, err := f.next()
		if err != nil {
			t.Fatal(err)
		}
		switch msg[0] {
		case msgItems:
			m, err := decodeItems(msg)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range m.Parcels {
				got[p.Seq] = bytes.Clone(p.Content)
			}
		case msgPiece:
			seq, piece, err := decodePiece(msg)
			if err != nil {
				t.Fatal(err)
			}
			got[seq] = append(got[seq], piece...)
		}
	}
	for i, size := range l.sizes {
		if !bytes.Equal(got[uint64(i+1)], lentContent(byte(i+1), size)) {
			t.Errorf("of %d bytes %d were written, or other ones", size, len(got[uint64(i+1)]))
		}
	}
}
