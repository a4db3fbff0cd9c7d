package redoubt_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"redoubt"
)

var update = flag.Bool("update", false, "write testdata/journal.txt anew; read the difference before you commit it")

const journalVectors = "testdata/journal.txt"

// vectorSeed is of the key that signs the vectors' batch. It protects nothing.
var vectorSeed = bytes.Repeat([]byte{7}, ed25519.SeedSize)

// stampOf is a stamp of the vectors: a time, the maker's and the label set's four bytes.
func stampOf(n byte) (s redoubt.Stamp) {
	copy(s[:], []byte{0x18, 0x98, 0xb7, 0x05, 0, 0, 0, n, 0xaa, 0xbb, 0xcc, 0xdd, 1, 2, 3, 4})
	return s
}

// vectorEntries are one entry of each kind, the first with every field.
func vectorEntries() []redoubt.JournalEntry {
	name := redoubt.ObjectName{Bucket: "reports", Key: "2026/плани.txt"}
	version := redoubt.JournalEntry{Kind: redoubt.EntryVersion, Stamp: stampOf(1), Base: stampOf(0), Label: "label of the version", Made: "label that it was made at",
		Maker: "secret", Name: name, Author: "s-analyst", SizeBytes: 11 << 20, PartSizes: []int64{8 << 20, 3 << 20}, MD5: "0123456789abcdef0123456789abcdef-2",
		Attributes: redoubt.Attributes{ContentType: "text/plain", ContentEncoding: "gzip", ContentLanguage: "en", ContentDisposition: "inline", CacheControl: "no-store",
			Expires: "Sun, 01 Mar 2026 12:00:00 GMT", StorageClass: "STANDARD", Precedence: "flash", Meta: map[string]string{"b": "2", "a": "1"}},
		Checksums: redoubt.Checksums{CRC32: "AAAAAA==", CRC32C: "AAAAAQ==", CRC64NVME: "AAAAAAAAAAI=", SHA1: "sha1", SHA256: "sha256", Composite: true},
		Tags:      []redoubt.Tag{{Key: "k", Value: "v"}, {Key: "a", Value: ""}}, Hold: true,
		Retention: redoubt.Retention{Mode: "GOVERNANCE", Until: time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)}}
	copy(version.Content[:], bytes.Repeat([]byte{0xc0}, 32))
	marker := redoubt.JournalEntry{Kind: redoubt.EntryVersion, Stamp: stampOf(2), Base: stampOf(1), Label: "l", Made: "l", Maker: "secret", Name: name, Author: "s-analyst", Marker: true}
	removal := redoubt.JournalEntry{Kind: redoubt.EntryRemoval, Stamp: stampOf(3), Of: stampOf(1), Label: "l", Made: "l", Maker: "secret", Name: name}
	alteration := redoubt.JournalEntry{Kind: redoubt.EntryAlteration, Stamp: stampOf(4), Of: stampOf(1), Label: "l", Made: "l", Maker: "secret", Name: name,
		Tags: []redoubt.Tag{{Key: "seen", Value: "yes"}}}
	return []redoubt.JournalEntry{version, marker, removal, alteration}
}

func TestJournalEntriesAreThoseOfTheVectors(t *testing.T) {
	key := ed25519.NewKeyFromSeed(vectorSeed)
	var lines []string
	var canonical [][]byte
	for i, e := range vectorEntries() {
		b, err := e.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		canonical = append(canonical, b)
		lines = append(lines, fmt.Sprintf("entry %s %x", [...]string{"version", "marker", "removal", "alteration"}[i], b))
	}
	custody, err := redoubt.SealBatch("secret", canonical, func(m []byte) ([]byte, error) {
		lines = append(lines, fmt.Sprintf("signed batch %x", m))
		return ed25519.Sign(key, m), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range custody {
		b, err := custody[i].AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("custody %d %x", i, b))
	}
	head := "# The entries of vectorEntries in journal_vector_test.go in their canonical form, and their batch of the maker secret under the Ed25519 seed 07…07.\n"
	if *update {
		if err := os.WriteFile(journalVectors, []byte(head+strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(journalVectors)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSpace(strings.TrimPrefix(string(raw), head)), "\n")
	if !reflect.DeepEqual(lines, want) {
		t.Fatalf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	// The other way, from the file alone.
	var read [][]byte
	proofs := 0
	for _, line := range want {
		f := strings.Fields(line)
		b, err := hex.DecodeString(f[2])
		if err != nil {
			t.Fatal(err)
		}
		switch f[0] {
		case "entry":
			var e redoubt.JournalEntry
			if err := e.UnmarshalBinary(b); err != nil || !reflect.DeepEqual(e, vectorEntries()[len(read)]) {
				t.Errorf("%s is read as %+v, %v", f[1], e, err)
			}
			read = append(read, b)
		case "custody":
			var c redoubt.Custody
			if err := c.UnmarshalBinary(b); err != nil || !c.Covers(read[proofs]) || c.Covers(read[(proofs+1)%4]) ||
				!c.Signed("secret", key.Public().(ed25519.PublicKey)) || c.Signed("other", key.Public().(ed25519.PublicKey)) {
				t.Errorf("custody %s: %v", f[1], err)
			}
			proofs++
		}
	}
	if len(read) != 4 || proofs != 4 {
		t.Errorf("%d entries and %d custodies were read", len(read), proofs)
	}
}
