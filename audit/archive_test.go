package audit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"redoubt"
)

// archived is an archive of entries from to to-1.
func archived(t tester, l *Log, from, to uint64) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := l.WriteArchive(context.Background(), &out, from, to); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func readArchive(b []byte, l *Log, trusted ...Checkpoint) (Archive, error) {
	return ReadArchive(context.Background(), bytes.NewReader(b), l.Verifier(), trusted, nil)
}

// letGo drops what an archive holds, with the record of it, as an enclave does.
func letGo(t tester, m *Memory, l *Log, from, to uint64) {
	t.Helper()
	e := Entry{Time: day, Action: string(redoubt.ActionConfirmArchive), Allow: true, Kind: "ok", Detail: Archived{From: from, To: to}.String()}
	m.Commit(context.Background(), [][]byte{e.Append(nil)})
	m.Drop(to)
	advance(t, l)
}

func TestAnArchiveGivesBackItsEntriesAndVerifiesAlone(t *testing.T) {
	m, l := newLog(t, 1000)
	early := l.Checkpoint()
	commit(m, 500)
	advance(t, l)
	for _, c := range [][2]uint64{{0, 256}, {0, 1280}, {256, 512}, {1024, 1280}} {
		var got [][]byte
		b := archived(t, l, c[0], c[1])
		a, err := ReadArchive(context.Background(), bytes.NewReader(b), l.Verifier(), []Checkpoint{early, l.Checkpoint()}, func(n uint64, e []byte) error {
			if n != c[0]+uint64(len(got)) {
				t.Fatalf("entry %d came for %d", n, c[0]+uint64(len(got)))
			}
			got = append(got, e)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if a.From != c[0] || a.To != c[1] || a.Root != plainRoot(t, m, int(c[1])) || a.After.Size != 1500 || a.Origin != origin {
			t.Fatalf("got %+v of %v", a, c)
		}
		if want := c[0] >= 1000; (a.Before.Size == 1000) != want {
			t.Fatalf("the checkpoint before %d is of size %d", c[0], a.Before.Size)
		}
		for i, e := range got {
			if !bytes.Equal(e, m.entries[int(c[0])+i]) {
				t.Fatalf("entry %d came back different", int(c[0])+i)
			}
		}
		if len(got) != int(c[1]-c[0]) {
			t.Fatalf("%d entries of %d", len(got), c[1]-c[0])
		}
	}
}

func TestEveryFlippedBitOfAnArchiveIsFound(t *testing.T) {
	m, l := newLog(t, 300)
	commit(m, 300)
	advance(t, l)
	good := archived(t, l, 256, 512)
	if _, err := readArchive(good, l); err != nil {
		t.Fatal(err)
	}
	ends := func(i int) bool { return i < 8*600 || i >= (len(good)-600)*8 } // head and signature, bit by bit
	for i := 0; i < len(good)*8; i++ {
		if !ends(i) && (i%8 != i/8%8 || testing.Short() && i%7 != 0) {
			continue // one bit of each byte of the entries
		}
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := readArchive(bad, l); !errors.Is(err, redoubt.Corrupt) {
			t.Fatalf("bit %d of byte %d flipped: %v", i%8, i/8, err)
		}
	}
	for n := 0; n < len(good); n += 1 + n/50 {
		if _, err := readArchive(good[:n], l); !errors.Is(err, redoubt.Corrupt) {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
	}
	if _, err := readArchive(append(bytes.Clone(good), 0), l); !errors.Is(err, redoubt.Corrupt) {
		t.Fatalf("a byte more: %v", err)
	}
}

func TestASecondSpellingOfAnArchiveIsRefused(t *testing.T) {
	m, l := newLog(t, 300)
	good := archived(t, l, 0, 256)
	at := bytes.LastIndexByte(good, '=') - 1 // the last character of the signature, whose last two bits say nothing
	spellings := 0
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		other := bytes.Clone(good)
		other[at] = c
		if _, err := readArchive(other, l); err == nil {
			spellings++
		}
	}
	if spellings != 1 {
		t.Fatalf("the signature has %d spellings", spellings)
	}
	commit(m, 300) // another archive of the log lends its signature
	advance(t, l)
	lent := archived(t, l, 256, 512)
	begins := func(b []byte) int { return bytes.LastIndex(b, []byte(archiveNote)) - 2 }
	if _, err := readArchive(append(good[:begins(good):begins(good)], lent[begins(lent):]...), l); !errors.Is(err, redoubt.Corrupt) {
		t.Fatalf("the signature of another archive: %v", err)
	}
}

// TestAnArchiveIsHeldAgainstTheTreeWhoeverSignedIt: the log's own key does not make entries what they were not.
func TestAnArchiveIsHeldAgainstTheTreeWhoeverSignedIt(t *testing.T) {
	m, l := newLog(t, 600)
	forged := func(change func(h *archiveHead)) []byte {
		h, err := l.archiveHead(256, 512)
		if err != nil {
			t.Fatal(err)
		}
		change(h)
		sum := sha256.New()
		b := h.encode()
		for n := h.from; n < h.to; n++ {
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(m.entries[n]))), m.entries[n]...)
		}
		sum.Write(b)
		signed, err := note.Sign(&note.Note{Text: archiveText(h, sum)}, l.signer)
		if err != nil {
			t.Fatal(err)
		}
		return append(binary.BigEndian.AppendUint16(b, uint16(len(signed))), signed...)
	}
	if _, err := readArchive(forged(func(*archiveHead) {}), l); err != nil {
		t.Fatalf("nothing was changed: %v", err)
	}
	for name, change := range map[string]func(*archiveHead){
		"the edge":             func(h *archiveHead) { h.edge.levels[1][0][3] ^= 1 },
		"the proof":            func(h *archiveHead) { h.afterProof[0][0] ^= 1 },
		"a checkpoint too old": func(h *archiveHead) { _, old := newLog(t, 300); h.after = old.Checkpoint().Note },
		"another place":        func(h *archiveHead) { h.from, h.to, h.edge = 0, 256, &edge{} },
	} {
		if _, err := readArchive(forged(change), l); !errors.Is(err, redoubt.Corrupt) {
			t.Fatalf("%s: got %v, want corrupt", name, err)
		}
	}
	m.entries[300] = testEntry(9999)
	if _, err := readArchive(forged(func(*archiveHead) {}), l); !errors.Is(err, redoubt.Corrupt) {
		t.Fatalf("another entry: got %v, want corrupt", err)
	}
}

func TestAnArchiveOfAnotherLogOrAForkIsNamed(t *testing.T) {
	m, l := newLog(t, 600)
	b := archived(t, l, 0, 512)
	other, err := NewLog(context.Background(), "redoubt.example/topsecret", testSigner(), &Memory{}, &Memory{}, testClock())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readArchive(b, other); !errors.Is(err, redoubt.Corrupt) || !strings.Contains(err.Error(), origin) {
		t.Fatalf("another node's: %v", err)
	}
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32)) // the same name, another key
	if other, err = NewLog(context.Background(), origin, key, &Memory{}, &Memory{}, testClock()); err != nil {
		t.Fatal(err)
	}
	if _, err := readArchive(b, other); !errors.Is(err, redoubt.Corrupt) {
		t.Fatalf("another key's: %v", err)
	}

	// The same node, with another past: checkpoints that others kept tell.
	twin := &Memory{}
	commit(twin, 100)
	twin.entries[50] = testEntry(9999)
	forked := openLog(t, twin)
	fork := advance(t, forked)
	if _, err := readArchive(b, l, fork); !errors.Is(err, redoubt.Corrupt) || !strings.Contains(err.Error(), "forked") {
		t.Fatalf("a fork within the archive: %v", err)
	}
	commit(twin, 500)
	if fork = advance(t, forked); fork.Size != l.Checkpoint().Size {
		t.Fatal("the twin is of another size")
	}
	if _, err := readArchive(b, l, fork); !errors.Is(err, redoubt.Corrupt) || !strings.Contains(err.Error(), "forked") {
		t.Fatalf("a fork at the checkpoint after: %v", err)
	}
	_ = m
}

func TestAnArchiveOfAlteredEntriesIsNotWritten(t *testing.T) {
	m, l := newLog(t, 600)
	m.entries[300][5] ^= 1
	var out bytes.Buffer
	if err := l.WriteArchive(context.Background(), &out, 256, 512); !errors.Is(err, redoubt.Corrupt) {
		t.Fatalf("got %v, want corrupt", err)
	}
	if _, err := readArchive(out.Bytes(), l); !errors.Is(err, redoubt.Corrupt) {
		t.Fatalf("what was written reads as an archive: %v", err)
	}
	for _, c := range [][2]uint64{{0, 255}, {1, 256}, {256, 256}, {512, 256}, {512, 768}} {
		if err := l.WriteArchive(context.Background(), &out, c[0], c[1]); !errors.Is(err, redoubt.Invalid) {
			t.Fatalf("%v: got %v, want invalid", c, err)
		}
	}
}

func TestOnlyWholeTilesOfOlderEntriesAreArchivable(t *testing.T) {
	m, l := newLog(t, 1000)
	at := func(i int) time.Time { return day.Add(time.Duration(i) * time.Second) } // entry i's time
	for _, c := range []struct {
		before   time.Time
		from, to uint64
	}{{at(256), 0, 256}, {at(511), 0, 256}, {at(512), 0, 512}, {at(5000), 0, 768}} {
		from, to, err := l.Archivable(context.Background(), c.before)
		if err != nil || from != c.from || to != c.to {
			t.Fatalf("before %v: got %d to %d, %v; want %d to %d", c.before, from, to, err, c.from, c.to)
		}
	}
	if _, _, err := l.Archivable(context.Background(), at(255)); !errors.Is(err, redoubt.PreconditionFail) {
		t.Fatalf("less than a tile: %v", err)
	}
	commit(m, 100) // not covered by a checkpoint yet
	letGo(t, m, l, 0, 256)
	if from, to, err := l.Archivable(context.Background(), at(600)); err != nil || from != 256 || to != 512 {
		t.Fatalf("after a drop: got %d to %d, %v", from, to, err)
	}
}

func TestALogThatWasArchivedStillVerifiesAndItsFaultsAreFound(t *testing.T) {
	m, l := newLog(t, 1000)
	old := l.Checkpoint()
	letGo(t, m, l, 0, 768)
	commit(m, 300)
	advance(t, l)
	verify := func(trusted ...Checkpoint) (Summary, []Fault) {
		var faults []Fault
		sum, _ := Verify(context.Background(), m, m, l.Verifier(), trusted, func(f Fault) { faults = append(faults, f) })
		return sum, faults
	}
	young := &Memory{}
	commit(young, 300)
	inside := advance(t, openLog(t, young)) // a checkpoint within what is archived, within a tile
	sum, faults := verify(old, inside)
	if len(faults) > 0 || sum.First != 768 || sum.Entries != 1301 {
		t.Fatalf("got %+v, %v", sum, faults)
	}
	if p, err := l.ProveConsistency(old); err != nil || len(p.Hashes) == 0 {
		t.Fatalf("an old checkpoint: %v", err)
	}
	if _, err := l.Prove(900); err != nil {
		t.Fatalf("a kept entry: %v", err)
	}

	for tile, data := range m.tiles { // every tile is still held against the root
		if tile.L > 1 {
			continue
		}
		data[9] ^= 4
		_, faults := verify(old)
		if len(faults) == 0 || tile.L == 0 && tile.N < 3 && (faults[0].What != FaultTile || faults[0].Tile.N != tile.N) {
			t.Fatalf("a flipped bit of tile %s is not found and named: %v", tile.Path(), faults)
		}
		data[9] ^= 4
	}
	m.Drop(1024) // without a record
	if _, faults := verify(); len(faults) != 1 || faults[0].What != FaultMissing {
		t.Fatalf("entries dropped without a record: %v", faults)
	}
}

func TestAForkOfArchivedEntriesIsFound(t *testing.T) {
	m, l := newLog(t, 600)
	twin := &Memory{}
	commit(twin, 400)
	twin.entries[50] = testEntry(9999)
	fork := advance(t, openLog(t, twin))
	letGo(t, m, l, 0, 512)
	var faults []Fault
	Verify(context.Background(), m, m, l.Verifier(), []Checkpoint{fork}, func(f Fault) { faults = append(faults, f) })
	if len(faults) != 1 || faults[0].What != FaultFork {
		t.Fatalf("got %v, want a fork", faults)
	}
}

func TestGapsAndRepeatsBetweenArchivesAreNamed(t *testing.T) {
	a := func(from, to uint64) Archive { return Archive{From: from, To: to} }
	for _, c := range []struct {
		archives []Archive
		end      uint64
		want     []ArchiveGap
	}{
		{[]Archive{a(256, 512), a(0, 256)}, 512, nil},
		{[]Archive{a(0, 256), a(512, 768)}, 768, []ArchiveGap{{From: 256, To: 512}}},
		{[]Archive{a(0, 256)}, 768, []ArchiveGap{{From: 256, To: 768}}},
		{[]Archive{a(0, 512), a(256, 768)}, 768, []ArchiveGap{{From: 256, To: 512, Twice: true}}},
		{[]Archive{a(0, 512)}, 0, nil},
		{nil, 512, nil},
	} {
		got := Gaps(c.archives, c.end)
		if len(got) != len(c.want) {
			t.Fatalf("%v: got %v, want %v", c.archives, got, c.want)
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Fatalf("%v: got %v, want %v", c.archives, got, c.want)
			}
		}
	}
}

func TestASearchOfAnArchiveObeysWhatItsReaderSees(t *testing.T) {
	m := &Memory{}
	l := openLog(t, m)
	for i := range 256 {
		e := Entry{Time: day, Subject: "s", Action: "GetObject", Kind: "ok", Label: []string{"low", "high"}[i%2], Working: "low"}
		m.Commit(context.Background(), [][]byte{e.Append(nil)})
	}
	advance(t, l)
	b := archived(t, l, 0, 256)
	low := func(text string) bool { return text == "low" }
	found, err := SearchArchive(context.Background(), bytes.NewReader(b), l.Verifier(), Query{Visible: low})
	if err != nil || len(found) != 128 || found[1].Numbered {
		t.Fatalf("%d found, %v", len(found), err)
	}
	found, err = SearchArchive(context.Background(), bytes.NewReader(b), l.Verifier(), Query{Visible: low, Numbers: true, Max: 2})
	if err != nil || len(found) != 2 || found[1].Number != 2 {
		t.Fatalf("%d found, %v", len(found), err)
	}
	if _, err := SearchArchive(context.Background(), bytes.NewReader(b), l.Verifier(), Query{}); !errors.Is(err, redoubt.Denied) {
		t.Fatalf("nobody named: %v", err)
	}
	b[len(b)-1] ^= 1
	if found, err := SearchArchive(context.Background(), bytes.NewReader(b), l.Verifier(), Query{Visible: low}); len(found) > 0 || !errors.Is(err, redoubt.Corrupt) {
		t.Fatalf("a damaged archive shows %d entries, %v", len(found), err)
	}
}

func TestALogThatWasArchivedIsExportedSearchedAndStarted(t *testing.T) {
	m, l := newLog(t, 700)
	letGo(t, m, l, 0, 512)
	dir := filepath.Join(t.TempDir(), "export")
	if err := l.ExportTo(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	d, err := OpenDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	if sum, err := Verify(context.Background(), d, d, l.Verifier(), nil, nil); err != nil || sum.First != 512 || sum.Entries != 701 {
		t.Fatalf("got %+v, %v", sum, err)
	}
	if err := os.WriteFile(filepath.Join(dir, firstName), []byte("0512\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDirectory(dir); !errors.Is(err, redoubt.Corrupt) {
		t.Fatalf("a second spelling of the first entry: %v", err)
	}
	n := 0
	for f, err := range Search(context.Background(), m, Query{Visible: func(string) bool { return true }, Numbers: true}) {
		if err != nil || f.Number < 512 {
			t.Fatalf("found %d, %v", f.Number, err)
		}
		n++
	}
	if n != 189 {
		t.Fatalf("%d found, want 189", n)
	}
	if _, err := NewRecorder(context.Background(), "node", m, m.Commit, testClock()); err != nil {
		t.Fatalf("a session after the log was archived: %v", err)
	}
	if _, err := NewLog(context.Background(), origin, testSigner(), m, m, testClock()); err != nil {
		t.Fatal(err)
	}
}

func FuzzReadArchive(f *testing.F) {
	_, l := newLog(f, 300)
	good := archived(f, l, 0, 256)
	f.Add(good)
	f.Add(good[:2000])
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := readArchive(b, l); err == nil && !bytes.Equal(b, good) {
			t.Fatal("something else reads as the archive")
		}
		if h, err := decodeArchiveHead(b); err == nil && !bytes.Equal(h.encode()[len(archiveMagic)+4:], b) {
			t.Fatal("a head with two spellings")
		}
	})
}
