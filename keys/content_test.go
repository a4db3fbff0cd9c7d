package keys

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"redoubt"
)

func testKey(fill byte) DataKey {
	d := DataKey{set: true}
	for i := range d.key {
		d.key[i] = fill
	}
	return d
}

var testBinding = Binding{Label: secretLabel, Bucket: "reports", Key: "2026/a", Version: []byte("0123456789abcdef")}

func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i>>8 + i>>16)
	}
	return p
}

// sizes around every edge of chunking.
var edgeSizes = []int{0, 1, 4096, ChunkBytes - 1, ChunkBytes, ChunkBytes + 1, 2*ChunkBytes - 1, 2 * ChunkBytes, 2*ChunkBytes + 1, 5*ChunkBytes + 17}

func TestContentComesBack(t *testing.T) {
	for _, n := range edgeSizes {
		plain := pattern(n)
		sealed := SealAll([]byte("head"), testKey(1), testBinding, plain)[4:]
		if int64(len(sealed)) != SealedSize(int64(n)) {
			t.Fatalf("%d bytes: got %d sealed, want %d", n, len(sealed), SealedSize(int64(n)))
		}
		got, err := OpenAll([]byte("head"), testKey(1), testBinding, sealed)
		if err != nil || !bytes.Equal(got[4:], plain) {
			t.Fatalf("%d bytes: OpenAll gave %d, %v", n, len(got), err)
		}
		o := NewOpener(testKey(1), testBinding, bytes.NewReader(sealed), int64(len(sealed)))
		if n <= 4096 { // it reads byte by byte, and each ReadAt opens its whole chunk
			if err := iotest.TestReader(io.NewSectionReader(o, 0, o.Size()), plain); err != nil {
				t.Errorf("%d bytes: %v", n, err)
			}
		}
		if err := iotest.TestReader(o.Range(0, -1), plain); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestEveryWayToSealAndToReadAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.OneOf(rapid.SampledFrom(edgeSizes), rapid.IntRange(0, 4*ChunkBytes)).Draw(t, "size")
		plain := pattern(n)
		var out bytes.Buffer
		s := NewSealer(testKey(1), testBinding, &out)
		if rapid.Bool().Draw(t, "readFrom") {
			r := io.Reader(bytes.NewReader(plain))
			if rapid.Bool().Draw(t, "data with EOF") {
				r = iotest.DataErrReader(r)
			}
			if m, err := s.ReadFrom(r); m != int64(n) || err != nil {
				t.Fatalf("got %d, %v, want %d", m, err, n)
			}
		} else {
			for rest := plain; len(rest) > 0; {
				m := rapid.IntRange(1, min(len(rest), 3*ChunkBytes)).Draw(t, "write")
				if w, err := s.Write(rest[:m]); w != m || err != nil {
					t.Fatal(w, err)
				}
				rest = rest[m:]
			}
		}
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Fatal(err)
		}
		if size, err := PlainSize(int64(out.Len())); size != int64(n) || err != nil {
			t.Fatalf("got size %d, %v, want %d", size, err, n)
		}
		o := NewOpener(testKey(1), testBinding, bytes.NewReader(out.Bytes()), int64(out.Len()))
		off := rapid.IntRange(0, n).Draw(t, "off")
		length := rapid.IntRange(0, n-off).Draw(t, "length")
		p := make([]byte, length)
		if m, err := o.ReadAt(p, int64(off)); m != length || err != nil && n > 0 && err != io.EOF || !bytes.Equal(p, plain[off:off+length]) {
			t.Fatalf("ReadAt %d+%d of %d: got %d, %v", off, length, n, m, err)
		}
		got, err := io.ReadAll(o.Range(int64(off), int64(length)))
		if err != nil || !bytes.Equal(got, plain[off:off+length]) {
			t.Fatalf("Range %d+%d of %d: got %d, %v", off, length, n, len(got), err)
		}
		r, at := o.Range(int64(off), int64(length)), 0
		for at < length { // in reads of all lengths, and not one more than it takes
			m, err := r.Read(p[at : at+rapid.IntRange(1, length-at).Draw(t, "read")])
			if at += m; err != nil || m == 0 || !bytes.Equal(p[:at], plain[off:off+at]) {
				t.Fatalf("Read of %d+%d at %d: got %d, %v", off, length, at, m, err)
			}
		}
		if length > 0 && r.cur != nil {
			t.Fatalf("all %d bytes are read, and the reader keeps its memory", length)
		}
		if m, err := r.Read(make([]byte, 1)); m != 0 || err != io.EOF {
			t.Fatalf("behind the end: %d, %v", m, err)
		}
		var w bytes.Buffer
		if m, err := o.Range(int64(off), int64(length)).WriteTo(&w); m != int64(length) || err != nil || !bytes.Equal(w.Bytes(), plain[off:off+length]) {
			t.Fatalf("WriteTo %d+%d of %d: got %d, %v", off, length, n, m, err)
		}
	})
}

// refused fails unless no way of reading gives any byte of a bad chunk and all say Corrupt.
func refused(t *testing.T, what string, k DataKey, b Binding, sealed []byte) {
	t.Helper()
	if got, err := OpenAll(nil, k, b, sealed); !errors.Is(err, redoubt.Corrupt) || got != nil {
		t.Errorf("%s: OpenAll gave %d bytes, %v", what, len(got), err)
	}
	o := NewOpener(k, b, bytes.NewReader(sealed), int64(len(sealed)))
	if _, err := io.ReadAll(o.Range(0, -1)); !errors.Is(err, redoubt.Corrupt) {
		t.Errorf("%s: Range gave %v", what, err)
	}
	if _, err := io.Copy(io.Discard, o.Range(0, -1)); !errors.Is(err, redoubt.Corrupt) {
		t.Errorf("%s: WriteTo gave %v", what, err)
	}
	if _, err := io.ReadFull(o.Range(0, -1), make([]byte, o.Size())); o.Size() > 0 && !errors.Is(err, redoubt.Corrupt) {
		t.Errorf("%s: a Read of all gave %v", what, err)
	}
	p := make([]byte, o.Size()+1)
	if _, err := o.ReadAt(p, 0); !errors.Is(err, redoubt.Corrupt) {
		t.Errorf("%s: ReadAt gave %v", what, err)
	}
}

func TestEveryTamperingIsRefused(t *testing.T) {
	plain := pattern(2*ChunkBytes + 100)
	sealed := SealAll(nil, testKey(1), testBinding, plain)
	chunk := func(i int) []byte { return sealed[i*sealedChunk : min(len(sealed), (i+1)*sealedChunk)] }
	other := SealAll(nil, testKey(1), Binding{Label: secretLabel, Bucket: "reports", Key: "2026/b", Version: testBinding.Version}, plain)
	short := SealAll(nil, testKey(1), testBinding, plain[:ChunkBytes])
	for what, bad := range map[string][]byte{
		"cut at a chunk":      sealed[:2*sealedChunk],
		"cut to one chunk":    sealed[:sealedChunk],
		"cut by a byte":       sealed[:len(sealed)-1],
		"a byte more":         append(slices.Clone(sealed), 0),
		"empty":               {},
		"chunks exchanged":    slices.Concat(chunk(1), chunk(0), chunk(2)),
		"first chunk twice":   slices.Concat(chunk(0), chunk(0), chunk(2)),
		"last chunk moved up": slices.Concat(chunk(0), chunk(2)),
		"of another object":   slices.Concat(chunk(0), other[sealedChunk:2*sealedChunk], chunk(2)),
		"end of another":      slices.Concat(chunk(0), short),
		"a chunk after":       slices.Concat(short, chunk(1)),
	} {
		refused(t, what, testKey(1), testBinding, bad)
	}
	for what, b := range map[string]Binding{
		"label":   {Label: []byte("USA:UNCLASSIFIED"), Bucket: "reports", Key: "2026/a", Version: testBinding.Version},
		"bucket":  {Label: secretLabel, Bucket: "report", Key: "s2026/a", Version: testBinding.Version},
		"key":     {Label: secretLabel, Bucket: "reports", Key: "2026/b", Version: testBinding.Version},
		"version": {Label: secretLabel, Bucket: "reports", Key: "2026/a", Version: []byte("0123456789abcdeg")},
		"shift":   {Label: secretLabel, Bucket: "reports", Key: "2026/a0", Version: []byte("123456789abcdef")},
		"zero":    {},
	} {
		refused(t, "another "+what, testKey(1), b, sealed)
	}
	refused(t, "another key", testKey(2), testBinding, sealed)
}

func TestEveryFlippedBitOfContentIsRefused(t *testing.T) {
	for _, n := range []int{0, 1, 33} {
		sealed := SealAll(nil, testKey(1), testBinding, pattern(n))
		for bit := range len(sealed) * 8 {
			bad := slices.Clone(sealed)
			bad[bit/8] ^= 1 << (bit % 8)
			refused(t, "flipped", testKey(1), testBinding, bad)
		}
	}
}

func TestABadChunkGivesNothingAndTheOthersStayReadable(t *testing.T) {
	plain := pattern(3 * ChunkBytes)
	sealed := SealAll(nil, testKey(1), testBinding, plain)
	sealed[sealedChunk+5000] ^= 1
	o := NewOpener(testKey(1), testBinding, bytes.NewReader(sealed), int64(len(sealed)))
	p := bytes.Repeat([]byte{0xee}, len(plain))
	n, err := o.ReadAt(p, 0)
	if n != ChunkBytes || !errors.Is(err, redoubt.Corrupt) {
		t.Errorf("got %d, %v, want the first chunk and Corrupt", n, err)
	}
	for i, c := range p[ChunkBytes:] {
		if c != 0 && c != 0xee {
			t.Fatalf("byte %d of the bad chunk was handed out", i)
		}
	}
	if n, err := o.ReadAt(p[:100], 2*ChunkBytes+5); n != 100 || err != nil {
		t.Errorf("got %d, %v for a good chunk", n, err)
	}
}

func TestTheZeroDataKeyDoesNothing(t *testing.T) {
	s := NewSealer(DataKey{}, testBinding, io.Discard)
	if _, err := s.Write([]byte("x")); err == nil {
		t.Error("it sealed")
	}
	if err := s.Close(); err == nil {
		t.Error("it closed")
	}
	if _, err := s.Write([]byte("x")); err == nil {
		t.Error("a closed sealer wrote")
	}
	sealed := SealAll(nil, testKey(0), testBinding, nil)
	if _, err := OpenAll(nil, DataKey{}, testBinding, sealed); err == nil {
		t.Error("it opened")
	}
	if _, err := NewOpener(DataKey{}, testBinding, bytes.NewReader(sealed), int64(len(sealed))).ReadAt(nil, 0); err == nil {
		t.Error("it opened")
	}
	defer func() {
		if recover() == nil {
			t.Error("SealAll sealed without a key")
		}
	}()
	SealAll(nil, DataKey{}, testBinding, nil)
}

func TestSizesOfContent(t *testing.T) {
	for _, n := range []int64{0, 1, ChunkBytes, ChunkBytes + 1, MaxPlainBytes - 1, MaxPlainBytes} {
		if got, err := PlainSize(SealedSize(n)); got != n || err != nil {
			t.Errorf("%d: got %d, %v", n, got, err)
		}
	}
	for _, n := range []int64{-1, MaxPlainBytes + 1, 1<<63 - 1} {
		if got := SealedSize(n); got != -1 {
			t.Errorf("%d: got %d, want -1", n, got)
		}
	}
	for _, n := range []int64{-1, 0, 27, sealedChunk + 1, sealedChunk + 28, 1<<63 - 1, SealedSize(MaxPlainBytes) + 1} {
		if got, err := PlainSize(n); err == nil {
			t.Errorf("%d: got %d, want an error", n, got)
		}
	}
	o := NewOpener(testKey(1), testBinding, strings.NewReader(""), SealedSize(100))
	for _, r := range [][2]int64{{-1, 5}, {101, 0}, {0, 101}, {100, 1}, {50, 1<<63 - 1}} {
		if _, err := o.Range(r[0], r[1]).Read(make([]byte, 1)); !errors.Is(err, redoubt.RangeInvalid) {
			t.Errorf("%v: got %v, want RangeInvalid", r, err)
		}
	}
	r := o.Range(0, 10)
	r.Close()
	if _, err := r.Read(make([]byte, 1)); err == nil {
		t.Error("a closed range was read")
	}
}

func TestFailuresBelowAreKept(t *testing.T) {
	s := NewSealer(testKey(1), testBinding, iotest.TruncateWriter(io.Discard, 0))
	s.Close()
	bad := &brokenWriter{}
	s = NewSealer(testKey(1), testBinding, bad)
	if _, err := s.Write(pattern(3 * ChunkBytes)); !errors.Is(err, errDisk) {
		t.Errorf("got %v", err)
	}
	if err := s.Close(); !errors.Is(err, errDisk) {
		t.Errorf("Close after a failure: got %v", err)
	}
	o := NewOpener(testKey(1), testBinding, brokenReader{}, SealedSize(10))
	if _, err := o.ReadAt(make([]byte, 10), 0); !errors.Is(err, errDisk) || errors.Is(err, redoubt.Corrupt) {
		t.Errorf("got %v, want the disk's error", err)
	}
}

type brokenWriter struct{}

func (*brokenWriter) Write(p []byte) (int, error) { return 0, errDisk }

type brokenReader struct{}

func (brokenReader) ReadAt(p []byte, off int64) (int, error) { return 0, errDisk }

func FuzzOpenAll(f *testing.F) {
	f.Add(SealAll(nil, testKey(1), testBinding, []byte("content")))
	f.Fuzz(func(t *testing.T, sealed []byte) {
		got, err := OpenAll(nil, testKey(1), testBinding, sealed)
		if err == nil && int64(len(got))+ChunkOverhead > int64(len(sealed)) {
			t.Fatal("more came out than went in")
		}
	})
}

func BenchmarkSealStream(b *testing.B) {
	plain := pattern(64 << 20)
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		s := NewSealer(testKey(1), testBinding, io.Discard)
		s.Write(plain)
		s.Close()
	}
}

func BenchmarkSealReadFrom(b *testing.B) {
	plain := pattern(64 << 20)
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		s := NewSealer(testKey(1), testBinding, io.Discard)
		s.ReadFrom(bytes.NewReader(plain))
		s.Close()
	}
}

func BenchmarkOpenStream(b *testing.B) {
	sealed := SealAll(nil, testKey(1), testBinding, pattern(64<<20))
	o := NewOpener(testKey(1), testBinding, bytes.NewReader(sealed), int64(len(sealed)))
	b.SetBytes(o.Size())
	for b.Loop() {
		if _, err := o.Range(0, -1).WriteTo(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen4KiB(b *testing.B) {
	sealed := SealAll(nil, testKey(1), testBinding, pattern(4<<10))
	buf := make([]byte, 0, 8<<10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := OpenAll(buf, testKey(1), testBinding, sealed); err != nil {
			b.Fatal(err)
		}
	}
}

func TestAKeyAtHandIsWrappedUnderTheCurrentEpoch(t *testing.T) {
	dir := t.TempDir()
	k, err := Create(filepath.Join(dir, "ring"), KeyFile(filepath.Join(dir, "key")), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	label := []byte("USA@1 SECRET")
	d, old, err := k.NewDataKey(label)
	if err != nil {
		t.Fatal(err)
	}
	epoch, err := k.Rotate(label)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.DestroyEpoch(label, old.Epoch()); err != nil {
		t.Fatal(err)
	}
	w, err := k.Wrap(label, d)
	if err != nil || w.Epoch() != epoch {
		t.Fatalf("got epoch %d, %v, want %d", w.Epoch(), err, epoch)
	}
	if got, err := k.DataKey(label, w); err != nil || got != d {
		t.Errorf("another key came back (%v)", err)
	}
	if _, err := k.Wrap(label, DataKey{}); err == nil {
		t.Error("the zero key was wrapped")
	}
}
