package enclave

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"

	"redoubt"
	"redoubt/store"
)

// rec is the record of a version.
func (w *world) rec(v redoubt.Version) *record {
	w.t.Helper()
	b, err := w.bucket("test", v.Name.Bucket)
	if err != nil {
		w.t.Fatal(err)
	}
	f, err := w.byID(w.engine, b, v.Label, v.Name.Key, v.ID)
	if err != nil || f.rec == nil {
		w.t.Fatalf("%s: no record, %v", v.Name, err)
	}
	return f.rec
}

// putHashed puts content with what it is said to have been hashed to on the way.
func (w *world) putHashed(who redoubt.Credential, key, content string, sum [32]byte, sums redoubt.Checksums) redoubt.Version {
	w.t.Helper()
	v, err := w.PutObject(context.Background(), who, redoubt.PutObject{Name: named(key), SizeBytes: int64(len(content)), Body: strings.NewReader(content),
		Finish: func() (redoubt.Checksums, string, error) { return sums, "", nil }, Digest: func() ([32]byte, bool) { return sum, true }})
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

func sumText(content string) (sum [32]byte, text string) {
	sum = sha256.Sum256([]byte(content))
	return sum, base64.StdEncoding.EncodeToString(sum[:])
}

// TestWhatWasHashedOnItsWayInIsNotHashedAgain: a peer is told what it was hashed to, though that were wrong; and that is refused there.
func TestWhatWasHashedOnItsWayInIsNotHashedAgain(t *testing.T) {
	p := openPair(t, "SECRET", nil)
	who := p.home.as("s-analyst", "")
	const content = "the content of a version"
	sum, text := sumText(content)
	v := p.home.putHashed(who, "a", content, sum, redoubt.Checksums{CRC32: "AAAAAA=="})
	if r := p.home.rec(v); !bytes.Equal(r.digest, sum[:]) || r.sums != v.Checksums || v.Checksums.SHA256 != "" {
		t.Errorf("kept %x with %+v; shown %+v", r.digest, r.sums, v.Checksums)
	}
	v = p.home.putHashed(who, "b", content, sum, redoubt.Checksums{SHA256: text})
	if r := p.home.rec(v); r.digest != nil { // it is kept once
		t.Errorf("beside the same checksum %x is kept", r.digest)
	}
	v = p.home.put(who, "c", content, "")
	if r := p.home.rec(v); r.digest != nil {
		t.Errorf("of what nobody hashed %x is kept", r.digest)
	}
	wrong := p.home.putHashed(who, "d", content, [32]byte{1}, redoubt.Checksums{})
	moved, refused := carry(t, p.home, p.device)
	if moved < 4 || len(refused) != 1 || refused[0].Kind != redoubt.BadDigest || refused[0].Rule != ruleContent || refused[0].Later {
		t.Errorf("%d came, refused %+v", moved, refused)
	}
	there := p.device.as("s-analyst", "")
	for key, want := range map[string]string{"a": content, "b": content, "c": content, "d": ""} {
		if got := p.device.get(there, key); got != want {
			t.Errorf("%s came as %q", key, got)
		}
	}
	if got := p.home.get(who, "d"); got != content || !bytes.Equal(p.home.rec(wrong).digest, append([]byte{1}, make([]byte, 31)...)) {
		t.Errorf("at home it is %q", got)
	}
}

// TestWhatCameFromAPeerIsKnownByWhatItsMakerSigned, and goes on with that; a checksum that says something else is not believed.
func TestWhatCameFromAPeerIsKnownByWhatItsMakerSigned(t *testing.T) {
	p := openPair(t, "SECRET", nil)
	content := noise(200_000)
	sum, _ := sumText(content)
	_, other := sumText("something else")
	p.home.put(p.home.as("s-analyst", ""), "a", content, "")
	p.home.putHashed(p.home.as("s-analyst", ""), "b", content, sum, redoubt.Checksums{SHA256: other})
	if _, refused := carry(t, p.home, p.device); len(refused) > 0 {
		t.Fatal(refused)
	}
	for _, key := range []string{"a", "b"} {
		v, err := p.device.HeadObject(context.Background(), p.device.as("s-analyst", ""), redoubt.ReadObject{Name: named(key)})
		if err != nil {
			t.Fatal(err)
		}
		r := p.device.rec(v)
		if got, ok := r.contentSum(); !bytes.Equal(r.digest, sum[:]) || !ok || got != sum {
			t.Errorf("%s is known by %x", v.Name, r.digest)
		}
	}
}

// TestADigestGoesWithTheContent, and with nothing else: a copy, an upgrade and a settled conflict have the same content as what they are made of.
func TestADigestGoesWithTheContent(t *testing.T) {
	ctx := context.Background()
	c := openChain(t)
	w := c.ts
	who := w.as("s-analyst", "")
	for _, content := range []string{"small", noise(100_000)} {
		sum, text := sumText(content)
		has := func(what string, v redoubt.Version, want []byte) {
			t.Helper()
			r := w.rec(v)
			got, ok := r.contentSum()
			if !bytes.Equal(r.digest, want) || !ok || got != sum {
				t.Errorf("%s: %x is kept, want %x; known %x, %v", what, r.digest, want, got, ok)
			}
		}
		v := w.putHashed(who, "a", content, sum, redoubt.Checksums{})
		has("put", v, sum[:])
		for algorithm, want := range map[string][]byte{"": sum[:], "CRC32": sum[:], "SHA256": nil} {
			copied, err := w.CopyObject(ctx, who, redoubt.CopyObject{Source: v.Name, Target: named("copy"), SumAlgorithm: algorithm})
			if err != nil {
				t.Fatal(err)
			}
			has("a copy with "+algorithm, copied, want)
		}
		stated := w.putHashed(who, "b", content, sum, redoubt.Checksums{SHA256: text})
		copied, err := w.CopyObject(ctx, who, redoubt.CopyObject{Source: stated.Name, Target: named("copy"), SumAlgorithm: "CRC32"})
		if err != nil || copied.Checksums.SHA256 != "" {
			t.Fatalf("%+v, %v", copied, err)
		}
		has("a copy of what had a checksum", copied, sum[:])
		if err := w.alterAs(who, "a", redoubt.AlterObject{Tags: to([]redoubt.Tag{{Key: "k", Value: "v"}})}); err != nil {
			t.Fatal(err)
		}
		has("what was altered", v, sum[:])
		up, err := w.Upgrade(ctx, w.spillOfficer(), redoubt.Regrade{Name: v.Name, Version: v.ID, Label: "TOP SECRET", Reason: "too low"})
		if err != nil {
			t.Fatal(err)
		}
		v.ID, v.Label = up.Version, parsed(t, "TOP SECRET")
		has("what was upgraded", v, sum[:])
		if err := w.del(w.as("s-analyst", ""), "b", ""); err != nil {
			t.Fatal(err)
		}
		if r := w.rec(w.put(who, "a", "other content", "")); r.digest != nil {
			t.Errorf("what is put over it has %x", r.digest)
		}
	}
}

func TestASettledConflictKeepsItsDigest(t *testing.T) {
	p := openPair(t, "SECRET", nil)
	at, there := p.home.as("s-analyst", ""), p.device.as("s-analyst", "")
	sum, _ := sumText("from home")
	mine := p.home.putHashed(at, "plan", "from home", sum, redoubt.Checksums{})
	p.device.put(there, "plan", "from the device", "")
	for range 2 {
		carry(t, p.home, p.device)
		carry(t, p.device, p.home)
	}
	v, err := p.home.ResolveConflict(context.Background(), at, named("plan"), mine.ID)
	if err != nil {
		t.Fatal(err)
	}
	if r := p.home.rec(v); !bytes.Equal(r.digest, sum[:]) {
		t.Errorf("kept %x", r.digest)
	}
}

// TestADigestIsChargedToNobody: one node keeps it of a version and another not, and both charge the same.
func TestADigestIsChargedToNobody(t *testing.T) {
	for _, joins := range []bool{false, true} {
		r := sample()
		r.pieces = append(r.pieces, piece{ref: 8, size: 1, joins: joins}, piece{ref: 9, size: 1})
		without := r.cost("k", len(r.encode(nil)))
		r.hashed([32]byte{1})
		back, err := decodeRecord(r.encode(nil))
		if err != nil || back.charge("k") != without || r.cost("k", len(r.encode(nil))) != without {
			t.Errorf("with a digest %d, %v; without %d", back.charge("k"), err, without)
		}
	}
}

// TestRecordWireFormatWithADigest: of the third format is what has one, and nothing else.
func TestRecordWireFormatWithADigest(t *testing.T) {
	r := sample()
	without := hex.EncodeToString(r.encode(nil))
	r.hashed([32]byte{0xab, 31: 0xcd})
	whole := r.encode(nil)
	want := "03" + without[2:len(without)-2] + "00" + "00" + "ab" + strings.Repeat("00", 30) + "cd"
	if got := hex.EncodeToString(whole); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	got, err := decodeRecord(whole)
	r.stored = len(whole)
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("got %+v, %v", got, err)
	}
	for n := range whole {
		if _, err := decodeRecord(whole[:n]); err == nil {
			t.Errorf("the first %d bytes were taken for a record", n)
		}
	}
	if _, err := decodeRecord(append(bytes.Clone(whole), 0)); err == nil {
		t.Error("a trailing byte was taken")
	}
	for _, format := range []byte{0, 1, 2, 4} {
		bad := bytes.Clone(whole)
		if bad[0] = format; reflect.DeepEqual(whole, bad) {
			t.Fatal("no change")
		}
		if _, err := decodeRecord(bad); err == nil {
			t.Errorf("as of format %d it was taken", format)
		}
	}
	r.pieces = append(r.pieces, piece{ref: store.BlobRef(8), size: 1, joins: true})
	r.stored = len(r.encode(nil))
	if got, err := decodeRecord(r.encode(nil)); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("with a piece that goes on: %+v, %v", got, err)
	}
}
