package parts

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"redoubt"
)

func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func split(t rapid.TB, file []byte, partBytes int64, parity float64) (Layout, [][]byte) {
	t.Helper()
	l, err := Plan(int64(len(file)), partBytes, parity)
	if err != nil {
		t.Fatal(err)
	}
	bufs := make([]bytes.Buffer, l.Parts())
	to := make([]io.Writer, l.Parts())
	for i := range bufs {
		to[i] = &bufs[i]
	}
	if err := Split(context.Background(), bytes.NewReader(file), l, to, nil); err != nil {
		t.Fatal(err)
	}
	out := make([][]byte, len(bufs))
	for i := range bufs {
		out[i] = bufs[i].Bytes()
		if int64(len(out[i])) != l.PartBytes() || l.PartBytes() > partBytes {
			t.Fatalf("part %d has %d bytes, planned %d, at most %d", i, len(out[i]), l.PartBytes(), partBytes)
		}
	}
	return l, out
}

func parts(all ...[]byte) (out []Part) {
	for i, b := range all {
		if b != nil {
			out = append(out, Part{Name: fmt.Sprint(i + 1), File: bytes.NewReader(b), Size: int64(len(b))})
		}
	}
	return out
}

func TestAnyPartsAsManyAsThereIsParityMayBeLostOrDamagedAtEachPlace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		file := noise(rapid.Uint64().Draw(t, "seed"), rapid.IntRange(1, 3<<20).Draw(t, "size"))
		l, all := split(t, file, rapid.Int64Range(MinPartBytes+3*sealedBlock, 1<<20).Draw(t, "part"), rapid.SampledFrom([]float64{0.1, 0.5, 1}).Draw(t, "parity"))
		spare := l.Parity
		lost := rapid.IntRange(0, spare).Draw(t, "lost")
		order := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 2))
		at := order.Perm(l.Parts())
		for _, i := range at[:lost] {
			all[i] = nil
		}
		for stripe := range l.stripes { // at each place, the rest of what may be lost, wherever
			for _, n := range order.Perm(len(at) - lost)[:order.IntN(spare-lost+1)] {
				all[at[lost+n]][blockAt(stripe)+order.Int64N(sealedBlock)] ^= 1 << order.IntN(8)
			}
		}
		for _, i := range at[lost:] { // and one of the two heads of each
			if order.IntN(2) == 0 {
				all[i][order.IntN(headBytes)] ^= 0x40
			} else {
				all[i][len(all[i])-1-order.IntN(headBytes)] ^= 0x40
			}
		}
		given := parts(all...)
		order.Shuffle(len(given), func(i, j int) { given[i], given[j] = given[j], given[i] })
		var out bytes.Buffer
		report, err := Join(context.Background(), given, &out, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), file) || len(report.Missing) != lost {
			t.Fatalf("%d bytes of %d are the file; %+v", out.Len(), len(file), report)
		}
	})
}

func TestMoreLossThanParityIsSaidAndNeverGuessed(t *testing.T) {
	file := noise(1, 1<<20)
	l, all := split(t, file, 200<<10, 0.2)
	if l.Parity < 1 || l.Data < 3 {
		t.Fatalf("%+v is not what is to be tested", l)
	}
	missing := slices.Clone(all)
	for i := range l.Parity + 1 {
		missing[i] = nil
	}
	if _, err := Join(context.Background(), parts(missing...), io.Discard, nil); redoubt.KindOf(err) != redoubt.NotFound {
		t.Errorf("too many parts gone: %v", err)
	}
	for i := range l.Parity + 1 {
		all[i][blockAt(1)] ^= 1
	}
	var out bytes.Buffer
	if _, err := Join(context.Background(), parts(all...), &out, nil); redoubt.KindOf(err) != redoubt.Corrupt || !bytes.HasPrefix(file, out.Bytes()) {
		t.Errorf("too many blocks gone: %v", err)
	}
	// A second copy of the same part, with damage elsewhere, makes up for it.
	again := bytes.Clone(all[0])
	again[blockAt(1)] ^= 1
	again[blockAt(0)] ^= 1
	out.Reset()
	if _, err := Join(context.Background(), append(parts(all...), parts(again)...), &out, nil); err != nil || !bytes.Equal(out.Bytes(), file) {
		t.Errorf("with another copy: %v", err)
	}
}

func TestAPartOfAnotherFileIsNotUsed(t *testing.T) {
	file := noise(2, 1<<20)
	_, all := split(t, file, 300<<10, 0.3)
	_, other := split(t, noise(3, 1<<20), 300<<10, 0.3)
	var out bytes.Buffer
	report, err := Join(context.Background(), append(parts(all[1:]...), parts(other[0], []byte("a letter"))...), &out, nil)
	if err != nil || !bytes.Equal(out.Bytes(), file) || len(report.Foreign) != 2 {
		t.Errorf("%+v, %v", report, err)
	}
	swapped := slices.Clone(all) // blocks that come to lie elsewhere are not taken for what belongs there
	one, two := bytes.Clone(all[0]), all[0]
	copy(one[blockAt(0):blockAt(1)], two[blockAt(1):blockAt(2)])
	swapped[0] = one
	out.Reset()
	if report, err := Join(context.Background(), parts(swapped...), &out, nil); err != nil || !bytes.Equal(out.Bytes(), file) || report.Repaired != 1 {
		t.Errorf("a block in another's place: %+v, %v", report, err)
	}
}

func TestAPlanKeepsItsLimits(t *testing.T) {
	for name, c := range map[string]struct {
		file, part int64
		parity     float64
	}{
		"nothing":             {0, 1 << 20, 0.1},
		"too large":           {MaxFileBytes + 1, 1 << 40, 0},
		"a part too small":    {1 << 20, MinPartBytes - 1, 0.1},
		"less than nothing":   {1 << 20, 1 << 20, -0.1},
		"more than twice":     {1 << 20, 1 << 20, 2.1},
		"more parts than 256": {257 * BlockBytes, MinPartBytes, 0},
	} {
		if _, err := Plan(c.file, c.part, c.parity); redoubt.KindOf(err) != redoubt.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l, err := Plan(256*BlockBytes, MinPartBytes, 0); err != nil || l.Parts() != MaxParts || l.PartBytes() != MinPartBytes {
		t.Errorf("256 parts: %+v, %v", l, err)
	}
	if l, err := Plan(6<<30, 650<<20, 0.1); err != nil || l.Data != 10 || l.Parity != 1 {
		t.Errorf("6 GiB on discs: %+v, %v", l, err)
	}
}

func TestAWriterThatFailsIsToldOf(t *testing.T) {
	file := noise(4, 300_000)
	l, err := Plan(int64(len(file)), 200<<10, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	full := errors.New("the medium is full")
	for at := range int64(l.Parts()) * (2 + 2*l.stripes) {
		left := at
		w := writer(func(p []byte) (int, error) {
			if left--; left < 0 {
				return 0, full
			}
			return len(p), nil
		})
		to := make([]io.Writer, l.Parts())
		for i := range to {
			to[i] = w
		}
		if err := Split(context.Background(), bytes.NewReader(file), l, to, nil); !errors.Is(err, full) {
			t.Errorf("a write that fails at %d: %v", at, err)
		}
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// TestPartsAreAsSpecified holds a part against docs/spec/parts.md, byte by byte.
func TestPartsAreAsSpecified(t *testing.T) {
	h := head{Set: [16]byte{1, 2, 3}, Index: 2, Layout: newLayout(2, 1, 70_000)}
	b := h.encode()
	if string(b[:8]) != "RDBTPART" || binary.BigEndian.Uint16(b[8:]) != 1 || !bytes.Equal(b[10:26], h.Set[:]) ||
		!bytes.Equal(b[26:40], []byte{0, 2, 0, 2, 0, 1, 0, 0, 0, 0, 0, 1, 0x11, 0x70}) || len(b) != 44 {
		t.Errorf("a head is %x", b)
	}
	got, err := decodeHead(b)
	if err != nil || got != h {
		t.Errorf("read as %+v, %v", got, err)
	}
}

func FuzzJoin(f *testing.F) {
	file := noise(5, 100_000)
	_, all := split(f, file, MinPartBytes, 0.5)
	f.Add(all[0][:headBytes], 10, byte(1))
	f.Add(all[1][:headBytes], 70_000, byte(0))
	f.Fuzz(func(t *testing.T, h []byte, at int, with byte) {
		bad := bytes.Clone(all[0])
		copy(bad, h)
		if at >= 0 && at < len(bad) {
			bad[at] ^= with
		}
		var out bytes.Buffer
		if _, err := Join(context.Background(), parts(all[1], all[2], bad), &out, nil); err != nil || !bytes.Equal(out.Bytes(), file) {
			t.Errorf("two whole parts and a bad one give %d bytes, %v", out.Len(), err)
		}
		_, _ = Join(context.Background(), parts(h, bad), io.Discard, nil)
	})
}

func BenchmarkSplit(b *testing.B) {
	file := noise(6, 64<<20)
	l, err := Plan(int64(len(file)), 7<<20, 0.1)
	if err != nil {
		b.Fatal(err)
	}
	to := make([]io.Writer, l.Parts())
	for i := range to {
		to[i] = io.Discard
	}
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		if err := Split(context.Background(), bytes.NewReader(file), l, to, nil); err != nil {
			b.Fatal(err)
		}
	}
}
