package audit

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"redoubt"
)

// faults verifies and gives what was found.
func faults(t *testing.T, m *Memory, l *Log, trusted []Checkpoint) []Fault {
	t.Helper()
	var out []Fault
	s, err := Verify(context.Background(), m, m, l.Verifier(), trusted, func(f Fault) { out = append(out, f) })
	if (len(out) > 0) != errors.Is(err, redoubt.Corrupt) || s.Faults != len(out) {
		t.Fatalf("%d faults, and the error is %v", len(out), err)
	}
	return out
}

// checkFaults wants a fault of the given sort about the given entry (-1: any).
func checkFaults(t *testing.T, m *Memory, l *Log, trusted []Checkpoint, what string, entry int64) {
	t.Helper()
	found := faults(t, m, l, trusted)
	for _, f := range found {
		if f.What == what && (entry < 0 || f.Entry == entry) {
			return
		}
	}
	t.Fatalf("got %+v, want one of %s about %d", found, what, entry)
}

func TestEveryFlippedBitOfALogIsFoundAndNamed(t *testing.T) {
	m, l := newLog(t, 3)
	for n, e := range m.entries {
		for bit := range len(e) * 8 {
			e[bit/8] ^= 1 << (bit % 8)
			checkFaults(t, m, l, nil, FaultEntry, int64(n))
			e[bit/8] ^= 1 << (bit % 8)
		}
	}
	for at, data := range m.tiles {
		for bit := range len(data) * 8 {
			data[bit/8] ^= 1 << (bit % 8)
			checkFaults(t, m, l, nil, FaultTile, int64(bit/8/tlog.HashSize))
			data[bit/8] ^= 1 << (bit % 8)
		}
		_ = at
	}
	for _, c := range m.checkpoints {
		for bit := range len(c) * 8 {
			c[bit/8] ^= 1 << (bit % 8)
			checkFaults(t, m, l, nil, FaultCheckpoint, -1)
			c[bit/8] ^= 1 << (bit % 8)
		}
	}
	if found := faults(t, m, l, nil); len(found) != 0 {
		t.Errorf("the whole log: %+v", found)
	}
}

func TestChangesInALongerLogAreNamed(t *testing.T) {
	const size = 700
	m, l := newLog(t, size)
	for _, n := range []int{0, 255, 256, 511, 600, size - 1} {
		was := m.entries[n]
		m.entries[n] = testEntry(n + 1)
		checkFaults(t, m, l, nil, FaultEntry, int64(n))
		m.entries[n] = was
	}
	// Two entries exchanged, and one in place of another (a replay).
	m.entries[10], m.entries[20] = m.entries[20], m.entries[10]
	checkFaults(t, m, l, nil, FaultEntry, 10)
	checkFaults(t, m, l, nil, FaultEntry, 20)
	m.entries[10], m.entries[20] = m.entries[20], m.entries[10]
	for at, data := range m.tiles {
		data[len(data)-1] ^= 1
		checkFaults(t, m, l, nil, FaultTile, -1)
		data[len(data)-1] ^= 1
		delete(m.tiles, at)
		checkFaults(t, m, l, nil, FaultTile, -1)
		m.tiles[at] = data
	}
	if found := faults(t, m, l, nil); len(found) != 0 {
		t.Errorf("the whole log: %+v", found)
	}
}

func TestTruncationIsFound(t *testing.T) {
	m, l := newLog(t, 300)
	m.entries = m.entries[:290]
	checkFaults(t, m, l, nil, FaultMissing, 290)
	m.entries = nil
	checkFaults(t, m, l, nil, FaultMissing, 0)
}

func TestAnOlderLogPutBackIsFoundByATrustedCheckpoint(t *testing.T) {
	m, l := newLog(t, 100)
	kept := l.Checkpoint()
	older, ol := newLog(t, 60)
	if found := faults(t, older, ol, nil); len(found) != 0 {
		t.Fatalf("by itself an older log is whole: %+v", found)
	}
	checkFaults(t, older, ol, []Checkpoint{kept}, FaultRollback, 60)
	checkFaults(t, older, ol, []Checkpoint{kept}, FaultMissing, 60)
	if found := faults(t, m, l, []Checkpoint{ol.Checkpoint(), kept}); len(found) != 0 {
		t.Errorf("got %+v, want none", found)
	}
	// Dropping the newest checkpoint alone does not help.
	commit(older, 40)
	checkFaults(t, older, ol, []Checkpoint{kept}, FaultRollback, -1)
}

func TestAForkIsFound(t *testing.T) {
	m, l := newLog(t, 100)
	fork := &Memory{}
	fl := openLog(t, fork)
	commit(fork, 50)
	fork.Commit(context.Background(), [][]byte{testEntry(1000)})
	kept := advance(t, fl) // size 51, another 50th entry
	checkFaults(t, m, l, []Checkpoint{kept}, FaultFork, -1)
	commit(fork, 49)
	kept = advance(t, fl) // the same size, another root
	checkFaults(t, m, l, []Checkpoint{kept}, FaultFork, -1)
	// A log rewritten whole, tiles and all, with the old checkpoints left.
	m2, _ := newLog(t, 100)
	m2.entries[7] = testEntry(8)
	rewritten := &Memory{entries: m2.entries}
	advance(t, openLog(t, rewritten))
	m2.tiles = rewritten.tiles
	checkFaults(t, m2, l, nil, FaultFork, -1)
}

func TestALogWithoutCheckpointsIsNotWhole(t *testing.T) {
	m, l := newLog(t, 5)
	m.sizes, m.checkpoints = nil, nil
	checkFaults(t, m, l, nil, FaultCheckpoint, -1)
	if _, err := Verify(context.Background(), m, m, nil, nil, nil); err == nil {
		t.Error("verified by nobody's key")
	}
	checkFaults(t, m, l, []Checkpoint{{Size: 5}}, FaultCheckpoint, -1)
}

func TestVerifyStopsWithItsContext(t *testing.T) {
	m, l := newLog(t, 5)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Verify(ctx, m, m, l.Verifier(), nil, nil); !errors.Is(err, redoubt.Unavailable) {
		t.Errorf("got %v", err)
	}
}

func TestAnExportVerifiesByItself(t *testing.T) {
	for _, n := range []int{0, 1, 256, 700} {
		_, l := newLog(t, n)
		dir := t.TempDir()
		if err := l.ExportTo(context.Background(), dir); err != nil {
			t.Fatal(err)
		}
		if err := l.ExportTo(context.Background(), dir); !errors.Is(err, redoubt.Exists) {
			t.Errorf("exported twice: %v", err)
		}
		d, err := OpenDirectory(dir)
		if err != nil {
			t.Fatal(err)
		}
		if d.Len() != uint64(n) {
			t.Fatalf("got %d entries, want %d", d.Len(), n)
		}
		s, err := Verify(context.Background(), d, d, l.Verifier(), []Checkpoint{l.Checkpoint()}, nil)
		if err != nil || s.Covered != uint64(n) {
			t.Fatalf("%d entries: %+v, %v", n, s, err)
		}
		filepath.WalkDir(dir, func(path string, f os.DirEntry, err error) error {
			if err != nil || f.IsDir() {
				return err
			}
			data, _ := os.ReadFile(path)
			os.WriteFile(path, bytes.Replace(data, data[len(data)-1:], []byte{data[len(data)-1] ^ 1}, 1), 0o600)
			if d, err := OpenDirectory(dir); err == nil {
				if _, err = Verify(context.Background(), d, d, l.Verifier(), nil, nil); err == nil {
					t.Errorf("%d entries: a change in %s was not found", n, path)
				}
			}
			return os.WriteFile(path, data, 0o600)
		})
	}
}

func TestADirectoryServesAsTiles(t *testing.T) {
	m := &Memory{}
	dir := t.TempDir()
	d, err := OpenDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		l, err := NewLog(context.Background(), origin, testSigner(), m, d, testClock())
		if err != nil {
			t.Fatal(err)
		}
		commit(m, 200)
		advance(t, l)
		if _, err := Verify(context.Background(), m, d, l.Verifier(), nil, nil); err != nil {
			t.Fatal(err)
		}
	}
}
