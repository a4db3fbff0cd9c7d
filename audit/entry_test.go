package audit

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"redoubt"
)

var day = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

// fullEntry has every field set.
func fullEntry() Entry {
	return Entry{Time: day, Subject: "ts-analyst", Credential: "AKIA0123", Action: "GetObject", Rule: "label dominates", Allow: true,
		Label: "USA:SECRET//REL TO USA, GBR", Working: "USA:TOP SECRET//SI", Name: [16]byte{1, 2, 3}, Bucket: [16]byte{4, 5, 6},
		Kind: "ok", Bytes: 1 << 40, Count: 3, Request: "req-1", Source: "192.0.2.1:5000", Detail: "range 0-9 · ü", Version: []byte{0, 255, 10}}
}

func TestEntryWireFormat(t *testing.T) {
	for _, g := range []struct {
		file  string
		entry Entry
	}{{"testdata/full.hex", fullEntry()}, {"testdata/zero.hex", Entry{}}} {
		got := hex.EncodeToString(g.entry.Append(nil)) + "\n"
		if os.Getenv("UPDATE_GOLDEN") != "" {
			os.MkdirAll("testdata", 0o755)
			os.WriteFile(g.file, []byte(got), 0o644)
		}
		want, err := os.ReadFile(g.file)
		if err != nil || got != string(want) {
			t.Errorf("%s: got %s, want %s (%v)", g.file, got, want, err)
		}
	}
}

func TestAnEntryComesBack(t *testing.T) {
	e := fullEntry()
	got, err := ParseEntry(e.Append([]byte("head"))[4:])
	if err != nil || !reflect.DeepEqual(got, e) {
		t.Errorf("got %+v, %v, want %+v", got, err, e)
	}
	zero := Entry{}
	got, err = ParseEntry(zero.Append(nil))
	if err != nil || got.Allow || got.Count != 1 {
		t.Errorf("the zero entry: got %+v, %v, want a denial that counts 1", got, err)
	}
}

func TestAppendNeverFailsAndAlwaysParses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
			rapid.Map(rapid.IntRange(0, 40000), func(n int) string { return strings.Repeat("é", n) }))
		e := Entry{Time: time.Unix(rapid.Int64().Draw(t, "s"), rapid.Int64().Draw(t, "ns")), Subject: text.Draw(t, "subject"),
			Credential: text.Draw(t, "credential"), Action: text.Draw(t, "action"), Rule: text.Draw(t, "rule"), Label: text.Draw(t, "label"),
			Working: text.Draw(t, "working"), Kind: text.Draw(t, "kind"), Request: text.Draw(t, "request"), Source: text.Draw(t, "source"),
			Detail: text.Draw(t, "detail"), Bytes: rapid.Int64().Draw(t, "bytes"), Count: rapid.Uint32().Draw(t, "count"),
			Version: rapid.SliceOf(rapid.Byte()).Draw(t, "version"), Allow: rapid.Bool().Draw(t, "allow")}
		b := e.Append(nil)
		if len(b) > MaxEntryBytes {
			t.Fatalf("%d bytes", len(b))
		}
		got, err := ParseEntry(b)
		if err != nil {
			t.Fatal(err)
		}
		if again := got.Append(nil); !bytes.Equal(again, b) {
			t.Fatal("two encodings of one entry")
		}
		if got.Allow != e.Allow {
			t.Fatal("the decision changed")
		}
		if utf8.ValidString(e.Subject) && printable(e.Subject) && len(e.Subject) <= MaxSubjectBytes && got.Subject != e.Subject {
			t.Fatal("the subject changed")
		}
		if got.Label != e.Label && got.Label != tooLong && len(e.Label) <= MaxLabelBytes && printable(e.Label) {
			t.Fatal("the label changed")
		}
	})
}

func TestFieldsAtTheirLimits(t *testing.T) {
	for i, f := range (&Entry{}).fields() {
		for extra, kept := range map[int]bool{0: true, 1: false} {
			e := Entry{}
			text := strings.Repeat("x", f.most+extra)
			*e.fields()[i].text = text
			got, err := ParseEntry(e.Append(nil))
			if err != nil {
				t.Fatal(err)
			}
			if back := *got.fields()[i].text; (back == text) != kept {
				t.Errorf("field %d with %d bytes: %d came back", i, len(text), len(back))
			}
		}
	}
	e := Entry{Label: strings.Repeat("SECRET//REL TO ", 1000)}
	if got, _ := ParseEntry(e.Append(nil)); got.Label != tooLong {
		t.Errorf("a label too long became %.40q: it must not read as a lower one", got.Label)
	}
	long := Entry{Version: make([]byte, MaxVersionBytes+1)}
	if got, _ := ParseEntry(long.Append(nil)); len(got.Version) != MaxVersionBytes {
		t.Errorf("got %d bytes of version", len(got.Version))
	}
}

func TestParseEntryIsStrict(t *testing.T) {
	e := fullEntry()
	whole := e.Append(nil)
	for n := range len(whole) {
		if _, err := ParseEntry(whole[:n]); !errors.Is(err, redoubt.Corrupt) {
			t.Fatalf("cut to %d bytes: got %v", n, err)
		}
	}
	change := func(at int, b ...byte) []byte {
		c := bytes.Clone(whole)
		copy(c[at:], b)
		return c
	}
	for what, bad := range map[string][]byte{
		"trailing byte": append(bytes.Clone(whole), 0), "version": change(0, 2), "flag": change(1, 3), "negative time": change(2, 0xff),
		"far time": change(2, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), "negative size": change(10, 0x80), "count 0": change(18, 0, 0, 0, 0),
		"control": change(entryFixed+2, 10), "not UTF-8": change(entryFixed+2, 0xff), "nil": nil,
	} {
		if _, err := ParseEntry(bad); !errors.Is(err, redoubt.Corrupt) {
			t.Errorf("%s: got %v, want Corrupt", what, err)
		}
	}
}

func TestNamesFindTheirObjectAndTellNothing(t *testing.T) {
	key := bytes.Repeat([]byte{1}, 32)
	a, err := NewNamer(key)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := NewNamer(bytes.Repeat([]byte{2}, 32))
	if a.Name("b", "k") != a.Name("b", "k") || a.Name("b", "k") == b.Name("b", "k") {
		t.Error("a name is not a function of key and name")
	}
	seen := map[[16]byte]string{}
	for _, n := range [][2]string{{"b", "k"}, {"bk", ""}, {"", "bk"}, {"b", ""}, {"b", "k2"}, {"c", "k"}, {"b", strings.Repeat("k", 1024)}} {
		got := a.Name(n[0], n[1])
		if was, ok := seen[got]; ok {
			t.Errorf("%q and %s have one name", n, was)
		}
		seen[got] = n[0] + "/" + n[1]
	}
	if _, ok := seen[a.Bucket("b")]; ok {
		t.Error("a bucket is named as an object")
	}
	if _, err := NewNamer(key[:31]); !errors.Is(err, redoubt.Invalid) {
		t.Errorf("a short key: %v", err)
	}
}

func FuzzParseEntry(f *testing.F) {
	e := fullEntry()
	f.Add(e.Append(nil))
	f.Add((&Entry{}).Append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		e, err := ParseEntry(in)
		if err == nil && !bytes.Equal(e.Append(nil), in) {
			t.Fatal("two encodings of one entry")
		}
	})
}

func BenchmarkAppendEntry(b *testing.B) {
	e := fullEntry()
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		e.Append(buf)
	}
}

func BenchmarkParseEntry(b *testing.B) {
	e := fullEntry()
	buf := e.Append(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseEntry(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkName(b *testing.B) {
	n, _ := NewNamer(make([]byte, 32))
	b.ReportAllocs()
	for b.Loop() {
		n.Name("reports", "2026/03/summary.pdf")
	}
}
