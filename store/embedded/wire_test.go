package embedded

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"redoubt/store"
)

// docs/spec/store.md says what these bytes are. A test here that fails means another format: it needs
// a new format number and a step to it, not new vectors.

func sameBytes(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	plain := strings.Map(func(r rune) rune {
		if r == ' ' || r == '\n' || r == '\t' {
			return -1
		}
		return r
	}, want)
	if hex.EncodeToString(got) != plain {
		t.Errorf("%s: got\n%x\nwant\n%s", what, got, plain)
	}
}

func TestFormatFileIsAsSpecified(t *testing.T) {
	got := string(manifest{format: 1, oldestReader: 1, generation: 3, previous: 2, previousFormat: 1}.encode())
	want := `redoubt store
format 1
oldest-reader 1
generation 3
previous 2 1
sum f34fc1127842b54678b7adeae60feae8acea876daa11b95a01815a26e0ef93a9
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// fixedSegment is log segment 5 with keys of 0x11 and 0x22 bytes.
func fixedSegment(t *testing.T) *segment {
	t.Helper()
	h := header{kind: kindLog, sealed: true, id: 5, length: 0x3000, crc: 0x01020304}
	copy(h.metaKey[:], bytes.Repeat([]byte{0x11}, keyBytes))
	copy(h.blobKey[:], bytes.Repeat([]byte{0x22}, keyBytes))
	seg := &segment{kind: kindLog, id: 5, name: "00112233445566aa", header: h}
	if err := seg.ciphers(); err != nil {
		t.Fatal(err)
	}
	return seg
}

func TestSegmentHeaderIsAsSpecified(t *testing.T) {
	h := fixedSegment(t).header
	sameBytes(t, "header", h.encode(), `01 01 00 00 01020304 0000000000000005 0000000000003000`+
		strings.Repeat("11", 32)+strings.Repeat("22", 32)+strings.Repeat("00", 40))
	// One copy as it was once sealed, under the header key that comes from an engine key of 0x07 bytes.
	seal, err := deriveAEAD(bytes.Repeat([]byte{7}, keyBytes), "segment headers")
	if err != nil {
		t.Fatal(err)
	}
	for i, sealed := range []string{sealedHeader0, sealedHeader1} {
		b, err := hex.DecodeString(sealed)
		if err != nil || len(b) != 164 {
			t.Fatal(len(b), err)
		}
		aad := append([]byte("RDBTSEG1"+"00112233445566aa"), byte(i))
		plain, err := seal.Open(nil, nil, b[8:], aad)
		if err != nil || !bytes.Equal(plain, h.encode()) || string(b[:8]) != "RDBTSEG1" {
			t.Errorf("copy %d: got %x, %v", i, plain, err)
		}
	}
}

func TestFrameIsAsSpecified(t *testing.T) {
	seg := fixedSegment(t)
	var w frameWriter
	w.reset(seg, 0x2000, 9)
	data := bytes.Repeat([]byte{0xd1}, inlinePiece+1)
	loc := w.inline(0x77, data)
	w.set([]byte("key"), []byte("value"))
	w.delete([]byte("gone"))
	w.append([]byte("entry"))
	w.drop(300)
	w.link(changeLink, 0x77, loc)
	w.link(changeLink, 0x78, w.inline(0x78, nil))
	w.unlink(0x1234)
	w.link(changeMove, 0x79, location{size: 200_000, runs: []run{{6, 4096, 150_000}, {8, 4096, 50_000}}})
	sameBytes(t, "record", w.record, `00000000
		01 03 6b6579 05 76616c7565
		02 04 676f6e65
		03 05 656e747279
		07 ac02
		04 77 01 818002 01 05 a040 818002
		04 78 01 00 00
		05 b424
		06 79 00 c09a0c 02 06 8020 f09309 08 8020 d08603`)
	frame := w.finish()
	blobs := frame[frameHead : frameHead+inlinePiece+1+2*sealOverhead]
	if len(frame) != 9*framePage || bits8(frame[len(frame)-1]) < 2 {
		t.Errorf("frame of %d bytes that ends in %#x", len(frame), frame[len(frame)-1])
	}
	head := frame[:frameHead]
	sameBytes(t, "frame header", head, fmt.Sprintf("52444631 00009000 %08x 0000000000000009 0000000000000000 %08x",
		len(frame)-frameHead-len(blobs), crc32.Checksum(head[:28], crc32.MakeTable(crc32.Castagnoli))))
	sameBytes(t, "frame AAD", frameAAD(seg.id, 0x2000, head), "0000000000000005 0000000000002000"+hex.EncodeToString(head))
	sameBytes(t, "piece AAD", pieceAAD(0x77, 1), "0000000000000077 00000001")
	for i, piece := range [][]byte{blobs[:inlinePiece+sealOverhead], blobs[inlinePiece+sealOverhead:]} {
		plain, err := seg.blob.Open(nil, nil, piece, pieceAAD(0x77, uint32(i)))
		if err != nil || !bytes.Equal(plain, data[i*inlinePiece:min(len(data), (i+1)*inlinePiece)]) {
			t.Errorf("piece %d: %d bytes, %v", i, len(plain), err)
		}
	}
	plain, err := seg.meta.Open(nil, nil, frame[frameHead+len(blobs):], frameAAD(seg.id, 0x2000, head))
	if err != nil || binary.BigEndian.Uint32(plain) != crc32.Checksum(blobs, castagnoli) {
		t.Errorf("record: %v", err)
	}
	if changes, err := openFrame(seg.meta, seg.id, 0x2000, frame); err != nil || !bytes.Equal(changes, w.record[4:]) {
		t.Errorf("the frame reads back otherwise: %v", err)
	}
}

func bits8(b byte) (n int) {
	for ; b != 0; b &= b - 1 {
		n++
	}
	return n
}

func TestIndexKeysAndValuesAreAsSpecified(t *testing.T) {
	s := state{seq: 1, segment: 2, off: 3, appended: 4, nextRef: 5, blobs: 6, live: 7}
	loc := location{size: 300, inline: true, runs: []run{{2, 4128, 300}}}
	for _, c := range []struct {
		what string
		got  []byte
		want string
	}{
		{"catalogue key", userKey(nil, []byte("key")), "6b 6b6579"},
		{"append stream key", userKey(nil, store.AppendKey(258)), "6b ff 0000000000000102"},
		{"blob key", blobKey(nil, 258), "62 0000000000000102"},
		{"blob value", loc.append(nil), "01 ac02 01 02 a020 ac02"},
		{"reverse key", reverseKey(2, 4128), "72 0000000000000002 0000000000001020"},
		{"usage key", segmentKey(2), "73 0000000000000002"},
		{"usage value", encodeUsage(1, 2, 3), "0000000000000001 0000000000000002 0000000000000003"},
		{"state key", stateKey, "7a"},
		{"state value", s.encode(), "0000000000000001 0000000000000002 0000000000000003 0000000000000004 0000000000000005 0000000000000006 0000000000000007"},
		{"page AAD", pageAAD(0x0102, 3), "0000000000000102 0000000000000003"},
	} {
		sameBytes(t, c.what, c.got, c.want)
	}
}

func TestExtentsAreAsSpecified(t *testing.T) {
	fs := vfs.NewMem()
	e, err := Open("/store", testOptions(fs))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	s, err := e.Stage(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	content := make([]byte, 2*65564+1000)
	rand.NewChaCha8([32]byte{1}).Read(content)
	s.Write(content)
	if err := s.Finish(); err != nil {
		t.Fatal(err)
	}
	if err := e.Commit(context.Background(), &store.Batch{Links: []store.Staged{s}}); err != nil {
		t.Fatal(err)
	}
	loc, _, err := e.locate(e.idx, s.Ref())
	if err != nil || len(loc.runs) != 1 || loc.inline || loc.runs[0].off != 4096 {
		t.Fatalf("got %+v, %v", loc, err)
	}
	var want []byte
	for i, n := range []int{65564, 65564, 1000} {
		sum := binary.BigEndian.AppendUint64(nil, uint64(s.Ref()))
		sum = append(binary.BigEndian.AppendUint64(sum, uint64(i)), content[i*65564:i*65564+n]...)
		want = append(want, sum[16:]...)
		want = binary.BigEndian.AppendUint32(want, crc32.Checksum(sum, crc32.MakeTable(crc32.Castagnoli)))
	}
	got := make([]byte, len(want))
	if _, err := e.segs.get(loc.runs[0].segment).f.ReadAt(got, 4096); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the blocks of the extent are others")
	}
}

const goldenStore = "testdata/format1"

// What a node of format 1 once left when its power failed: one key in the index, one in the log only.
func TestAStoreOfFormat1Opens(t *testing.T) {
	if os.Getenv("UPDATE") != "" {
		writeGoldenStore(t)
	}
	fs := vfs.NewMem()
	err := filepath.WalkDir(goldenStore, func(path string, d os.DirEntry, err error) error {
		to := "/store" + strings.TrimPrefix(filepath.ToSlash(path), goldenStore)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return fs.MkdirAll(to, 0o700)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return replaceFile(fs, fs.PathDir(to), d.Name()+".copy", d.Name(), b)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"with the log applied again", "from the index"} {
		e, err := Open("/store", testOptions(fs))
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		for key, want := range map[string]string{"early": "in the index", "late": "in the log", "counter": "\x07\x00\x00\x00\x00\x00\x00\x00", "gone": ""} {
			if got, ok, err := e.Get([]byte(key)); err != nil || string(got) != want || ok != (want != "") {
				t.Errorf("%s: %s: got %q, %v, %v", when, key, got, ok, err)
			}
		}
		for n, want := range []string{"first entry", "second entry"} {
			if got, _, err := e.lookupUser(store.AppendKey(uint64(n))); err != nil || string(got) != want {
				t.Errorf("%s: entry %d: got %q, %v", when, n, got, err)
			}
		}
		if got, err := e.readBlob(1); err != nil || string(got) != goldenBlob {
			t.Errorf("%s: blob: got %q, %v", when, got, err)
		}
		if n, err := e.Check(context.Background(), func(fault string) { t.Error(fault) }); n != 0 || err != nil {
			t.Errorf("%s: Check: %d faults, %v", when, n, err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

const goldenBlob = "the content of a small blob"

func (e *Engine) lookupUser(key []byte) ([]byte, bool, error) {
	return lookup(e.idx, userKey(nil, key))
}

// writeGoldenStore makes a store anew, without the zeros that end its files.
func writeGoldenStore(t *testing.T) {
	mem := vfs.NewCrashableMem()
	e, err := Open("/store", testOptions(mem))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	commit := func(b *store.Batch) {
		if err := e.Commit(context.Background(), b); err != nil {
			t.Fatal(err)
		}
	}
	s, err := e.Stage(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	s.Write([]byte(goldenBlob))
	s.Finish()
	b := &store.Batch{Links: []store.Staged{s}}
	b.Set([]byte("early"), []byte("in the index"))
	b.Set([]byte("gone"), []byte("x"))
	b.Add([]byte("counter"), 3)
	b.Append([]byte("first entry"))
	commit(b)
	if err := e.flushIndex(); err != nil {
		t.Fatal(err)
	}
	b = new(store.Batch)
	b.Set([]byte("late"), []byte("in the log"))
	b.Delete([]byte("gone"))
	b.Add([]byte("counter"), 4)
	b.Append([]byte("second entry"))
	commit(b)
	disk := mem.CrashClone(vfs.CrashCloneCfg{})
	if err := os.RemoveAll(goldenStore); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"", "1/d", "1/i"} {
		dir := filepath.Join(goldenStore, filepath.FromSlash(sub))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		names, err := disk.List("/store/" + sub)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			b, err := readWhole(disk, "/store/"+sub+"/"+name, 1<<30)
			if err != nil || name == lockName {
				continue
			}
			if sub == "1/d" {
				b = bytes.TrimRight(b, "\x00")
			}
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// FuzzFormatFile looks for input that panics, and for a file with two spellings.
func FuzzFormatFile(f *testing.F) {
	f.Add(manifest{format: 1, oldestReader: 1, generation: 1}.encode())
	f.Fuzz(func(t *testing.T, in []byte) {
		if m, err := decodeManifest(in); err == nil && m.oldestReader <= formatNow && !bytes.Equal(m.encode(), in) {
			t.Fatal("two spellings of one format file")
		}
	})
}

// FuzzChanges looks for a record that panics, that takes more than it has, or whose places do not read back.
func FuzzChanges(f *testing.F) {
	f.Add([]byte("\x01\x03key\x05value\x00\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		for rest := in; len(rest) > 0; {
			c, next, err := nextChange(rest)
			if err != nil {
				return
			}
			if len(next) >= len(rest) || len(c.key)+len(c.value)+len(c.loc.runs) > len(rest) {
				t.Fatal("a change that takes nothing, or more than there is")
			}
			if c.kind == changeLink || c.kind == changeMove {
				if loc, err := decodeLocation(c.loc.append(nil)); err != nil || loc.size != c.loc.size || !sameRuns(loc.runs, c.loc.runs) {
					t.Fatalf("%+v reads back as %+v, %v", c.loc, loc, err)
				}
			}
			rest = next
		}
	})
}

// FuzzIndexFile looks for a file of pieces that panics, or that gives what was not sealed with its key.
func FuzzIndexFile(f *testing.F) {
	aead, err := newAEAD(bytes.Repeat([]byte{3}, keyBytes))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		fs := vfs.NewMem()
		if err := replaceFile(fs, "", "temp", "file", in); err != nil {
			t.Fatal(err)
		}
		file, err := fs.Open("file")
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		s := &streamFile{File: file, aead: aead, id: 7}
		if err := s.load(); err == nil && s.size > 0 && !strings.HasPrefix("first second", string(s.plain)) {
			t.Fatalf("%d bytes that nobody sealed", s.size)
		}
	})
}

const (
	sealedHeader0 = "5244425453454731515a82ea9c90ea1e4c1a0965fc32b34bae248a3f20f207cb6edf92cf728d3fc8adaaa73c2c63cf1d1a0255cb57ed1100cb2f6e553be3f67dc731ee745db45bb5e6280ef9551406578717133bfa28b41de557d7f4d0d34db40326a23f7fd57f9962b5533af924542347013e941dc90c68cdad055fd4cb4e3fd2eb90501dba68fa9ca05b50c1914f8016f4466ffe549c4729c5652f75932e132fdef02f"
	sealedHeader1 = "5244425453454731a573ee603be34c066138fdec05c27b53acb70f223a8a4c8b557f0151ebc725b7db7fdce88c934064e4274595a27d3fcb5a61b2f150a413622a0b9a93e83f44ef517347bec20f5044ffdd57647f007b7b17d7ff237d7ce52a65efa64c5ef6712e373dd8967f07bdda09064c44bb36607e1a45783dd176a89262faeafe4e9976983ceb1edffe1be4d7dfe33441268e42d312d034182bcb971a28f14d5a"
)
