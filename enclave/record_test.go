package enclave

import (
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"redoubt"
	"redoubt/keys"
)

func sample() *record {
	return &record{
		id: makeVersionID(1772323200000000001, 0x01020304, 0x0a0b0c0d), made: 3, size: 70000, md5: []byte("0123456789abcdef"), md5Parts: 2,
		author: "s-analyst", maker: "secret", parts: true, hold: true,
		attrs:     redoubt.Attributes{ContentType: "text/plain", Meta: map[string]string{"b": "2", "a": "1"}, Precedence: "flash"},
		sums:      redoubt.Checksums{CRC32: "AAAAAA==", Composite: true},
		tags:      []redoubt.Tag{{Key: "k", Value: "v"}},
		retention: redoubt.Retention{Mode: "GOVERNANCE", Until: time.Unix(1800000000, 0).UTC()},
		pieces:    []piece{{ref: 7, size: 70000, wrapped: keys.Wrapped{1, 2}, bound: versionID{9}}},
	}
}

func TestRecordWireFormat(t *testing.T) {
	got := hex.EncodeToString(sample().encode(nil))
	want := "011e" + "18988e8f6b2f0001" + "01020304" + "0a0b0c0d" + "03" + "f0a204" + hex.EncodeToString([]byte("0123456789abcdef")) + "02" +
		"09" + hex.EncodeToString([]byte("s-analyst")) + "06" + hex.EncodeToString([]byte("secret")) +
		"0a" + hex.EncodeToString([]byte("text/plain")) + "00000000000005" + hex.EncodeToString([]byte("flash")) +
		"08" + hex.EncodeToString([]byte("AAAAAA==")) + "00000000" +
		"02" + "0161" + "0131" + "0162" + "0132" + "01" + "016b" + "0176" +
		"0a" + hex.EncodeToString([]byte("GOVERNANCE")) + "80c8ceb40d" +
		"01" + "07" + "f0a204" + "0102" + strings.Repeat("00", 62) + "09" + strings.Repeat("00", 15) + "00"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestRecordsComeBack(t *testing.T) {
	r := sample()
	got, err := decodeRecord(r.encode(nil))
	r.stored = len(r.encode(nil))
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestDamagedRecordsAreRefusedNotGuessed(t *testing.T) {
	whole := sample().encode(nil)
	for n := range whole {
		if _, err := decodeRecord(whole[:n]); err == nil {
			t.Errorf("the first %d bytes were taken for a record", n)
		}
	}
	if _, err := decodeRecord(append(whole, 0)); err == nil {
		t.Error("a trailing byte was taken")
	}
	whole[0]++
	if _, err := decodeRecord(whole); err == nil {
		t.Error("another format was taken")
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(sample().encode(nil))
	hashed := sample()
	hashed.hashed([32]byte{1})
	f.Add(hashed.encode(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeRecord(b); err == nil {
			if _, err := decodeRecord(r.encode(nil)); err != nil {
				t.Errorf("what was read does not read back: %v", err)
			}
		}
	})
}

func TestVersionTokensTellNothingAndComeBack(t *testing.T) {
	ids, err := newOpaque(make([]byte, 32), append(make([]byte, 31), 1))
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		id := makeVersionID(rapid.Int64Min(0).Draw(t, "time"), rapid.Uint32().Draw(t, "maker"), rapid.Uint32().Draw(t, "tag"))
		token := ids.token(id)
		if back, ok := ids.parse(token); !ok || back != id {
			t.Fatalf("%s came back as %x", token, back)
		}
		if etag := ids.tag(id); !strings.Contains(etag, "-") || strings.Contains(etag, token) {
			t.Fatalf("the ETag %s can be taken for an MD5 or for the version", etag)
		}
	})
	for _, made := range []string{"", "null", strings.Repeat("a", 25), strings.Repeat("A", 26), strings.Repeat("1", 26), strings.Repeat("a", 27)} {
		if _, ok := ids.parse(made); ok {
			t.Errorf("%q was taken for a version ID", made)
		}
	}
}

func TestListsStartBehindWhatWasShown(t *testing.T) {
	for _, c := range []struct{ after, prefix, delimiter, want string }{
		{"", "", "", ""},
		{"", "p/", "", "p/"},
		{"a", "", "", "a\x00\x00"},
		{"a", "p", "", "p"},
		{"p/x", "p/", "/", "p/x\x00\x00"},
		{"p/x/", "p/", "/", "p/x0"},
	} {
		if got := string(startOf(c.after, c.prefix, c.delimiter)); got != c.want {
			t.Errorf("after %q under %q: got %q, want %q", c.after, c.prefix, got, c.want)
		}
	}
}

func TestJoinedCRCsAreThoseOfTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		algorithm := rapid.SampledFrom([]string{"CRC32", "CRC32C", "CRC64NVME"}).Draw(t, "algorithm")
		var parts []*partRecord
		var whole []byte
		for range rapid.IntRange(1, 5).Draw(t, "parts") {
			b := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "part")
			whole = append(whole, b...)
			parts = append(parts, &partRecord{Size: int64(len(b)), Sums: sumOf(algorithm, b)})
		}
		got, err := joinSums(algorithm, false, parts)
		if want := sumOf(algorithm, whole); err != nil || got != want {
			t.Fatalf("got %+v, want %+v (%v)", got, want, err)
		}
	})
}

func sumOf(algorithm string, b []byte) redoubt.Checksums {
	s := newSums(algorithm, strings.NewReader(string(b)))
	buf := make([]byte, 64)
	for {
		if _, err := s.Read(buf); err != nil {
			return s.result()
		}
	}
}
