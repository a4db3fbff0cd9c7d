package replica

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"redoubt"
)

// holding is a journal that has one version.
type holding struct {
	redoubt.Journal
	content []byte
}

func (h holding) Fetch(context.Context, redoubt.NodeName, string, []redoubt.Stamp) ([]redoubt.JournalItem, error) {
	open := func() (redoubt.Content, error) { return body(h.content), nil }
	return []redoubt.JournalItem{{Entry: redoubt.JournalEntry{SizeBytes: int64(len(h.content))}, Open: open}}, nil
}

// TestADifferenceReachesAllOfItsBase: what is new stands in front, and what was at the base's beginning at the end.
func TestADifferenceReachesAllOfItsBase(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for _, n := range []int{4 << 10, 40 << 10, 100 << 10, 1 << 20, 2 << 20, 4 << 20} {
		content := make([]byte, n+n/2)
		for i := range content {
			content[i] = byte(r.UintN(256))
		}
		base := content[n/2:]
		content = append(bytes.Clone(content[:n/2]), base[:n/2]...)
		p := &packer{journal: holding{content: base}, codecs: new(Codecs)}
		entry := &redoubt.JournalEntry{SizeBytes: int64(n), Base: redoubt.Stamp{1}}
		packing, packed, err := p.compress(context.Background(), "S", entry, content, true)
		if err != nil || packing != packedDelta || len(packed) > n/2+n/20+200 {
			t.Errorf("%d bytes, half of them the base's: packing %d, %d bytes, %v", n, packing, len(packed), err)
		}
		if plain, state, err := p.expand(context.Background(), "S", entry, packing, packed); err != nil || state != taken || !bytes.Equal(plain, content) {
			t.Errorf("%d bytes: unpacked it is not what it was: state %d, %v", n, state, err)
		}
	}
}

func TestOnAQuickRoadNoTimeIsSpentOnWhatDoesNotShrink(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	noise := make([]byte, 512<<10)
	for i := range noise {
		noise[i] = byte(r.UintN(256))
	}
	twice := bytes.Repeat(noise, 2) // nothing shrinks of it but as a whole
	words := bytes.Repeat([]byte("a report of what was seen at the ford, and by whom; "), 20_000)
	mixed := append(bytes.Clone(words[:900<<10]), noise[:100<<10]...)
	const unknown, slow, quick = 0, quickRoad - 1, quickRoad
	for _, c := range []struct {
		name    string
		content []byte
		rate    float64
		want    uint8
	}{
		{"repeats, rate not known", twice, unknown, packedZstd},
		{"repeats, slow", twice, slow, packedZstd},
		{"repeats, quick", twice, quick, packedPlain},
		{"words, slow", words, slow, packedZstd},
		{"words, quick", words, quick, packedZstd},
		{"words and noise, quick", mixed, quick, packedZstd},
		{"a few words, quick", words[:4<<10], quick, packedZstd},
		{"a little noise, quick", noise[:4<<10], quick, packedPlain},
		{"noise, slow", noise, slow, packedPlain},
		{"nothing, quick", nil, quick, packedPlain},
	} {
		p := &packer{codecs: new(Codecs), rate: func() float64 { return c.rate }}
		entry := &redoubt.JournalEntry{SizeBytes: int64(len(c.content))}
		packing, packed, err := p.compress(context.Background(), "S", entry, c.content, false)
		if err != nil || packing != c.want {
			t.Errorf("%s: packing %d, %v; want %d", c.name, packing, err, c.want)
			continue
		}
		plain, state, err := p.expand(context.Background(), "S", entry, packing, packed)
		if err != nil || state != taken || !bytes.Equal(plain, c.content) {
			t.Errorf("%s: unpacked it is not what it was: state %d, %v", c.name, state, err)
		}
	}
	if packing, _, err := (&packer{codecs: new(Codecs)}).compress(context.Background(), "S", &redoubt.JournalEntry{}, twice, false); err != nil || packing != packedZstd {
		t.Errorf("without a rate: packing %d, %v", packing, err)
	}
}
