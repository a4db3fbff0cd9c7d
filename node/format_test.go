package node

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"redoubt"
	"redoubt/estate"
)

func TestTheStoreFormatIsTheEngines(t *testing.T) {
	st, e, doc := exerciseOf(t, estate.ExampleText)
	if _, err := ReadStoreFormat(st, "secret"); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("before the first start: got %v", err)
	}
	_, stop := serve(t, Options{State: st, Name: "secret", Estate: e, Document: doc})
	want := StoreFormat{Node: "secret", Format: storeFormat, OldestReader: storeFormat, Program: storeFormat, Generation: 1}
	if got, err := ReadStoreFormat(st, "secret"); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if err := RollbackStore(st, "secret"); !errors.Is(err, redoubt.Unavailable) {
		t.Errorf("rolled back while it runs: %v", err)
	}
	if err := UpgradeStore(t.Context(), st, "secret", nil); !errors.Is(err, redoubt.Unavailable) {
		t.Errorf("upgraded while it runs: %v", err)
	}
	stop()
	if err := UpgradeStore(t.Context(), st, "secret", nil); err != nil {
		t.Errorf("an upgrade with nothing to do: %v", err)
	}
	if err := RollbackStore(st, "secret"); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("with nothing to go back to: %v", err)
	}
	if err := RollbackStore(st, "nowhere"); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("of no node: %v", err)
	}
}

// formatFile writes a format file as the engine does.
func formatFile(t *testing.T, st State, body string) {
	t.Helper()
	sum := sha256.Sum256([]byte(body))
	if err := os.WriteFile(filepath.Join(st.NodeDir("secret"), storeDir, "format"), []byte(body+"sum "+hex.EncodeToString(sum[:])+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAStoreGoesBackToWhereItsUpgradeFoundIt(t *testing.T) {
	st, e, doc := exerciseOf(t, estate.ExampleText)
	o := Options{State: st, Name: "secret", Estate: e, Document: doc}
	_, stop := serve(t, o)
	stop()
	dir := filepath.Join(st.NodeDir("secret"), storeDir)
	if err := os.CopyFS(filepath.Join(dir, "2"), os.DirFS(filepath.Join(dir, "1"))); err != nil {
		t.Fatal(err)
	}
	formatFile(t, st, "redoubt store\nformat 1\noldest-reader 1\ngeneration 2\nprevious 1 1\n")
	got, err := ReadStoreFormat(st, "secret")
	if err != nil || got.Generation != 2 || got.Previous != 1 || got.PreviousFormat != 1 {
		t.Fatalf("got %+v, %v", got, err)
	}
	if err := RollbackStore(st, "secret"); err != nil {
		t.Fatal(err)
	}
	if got, err = ReadStoreFormat(st, "secret"); err != nil || got.Generation != 1 || got.Previous != 0 {
		t.Errorf("after: got %+v, %v", got, err)
	}
	_, stop = serve(t, o)
	stop()
	if _, err := os.Stat(filepath.Join(dir, "2")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was rolled back is still there: %v", err)
	}
}

func TestAFormatFileIsReadStrictly(t *testing.T) {
	st, err := OpenState(filepath.Join(t.TempDir(), "state"))
	if err == nil {
		err = os.MkdirAll(filepath.Join(st.NodeDir("secret"), storeDir), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	formatFile(t, st, "redoubt store\nformat 9\noldest-reader 8\nanything\n")
	if f, err := ReadStoreFormat(st, "secret"); err != nil || f.Readable() || f.Format != 9 {
		t.Errorf("of a newer program: got %+v, %v", f, err)
	}
	for _, body := range []string{"", "redoubt store\n", "redoubt stove\nformat 1\noldest-reader 1\n", "redoubt store\nformat 1\noldest-reader 1\ngeneration x\n"} {
		formatFile(t, st, body)
		if _, err := ReadStoreFormat(st, "secret"); !errors.Is(err, redoubt.Corrupt) {
			t.Errorf("%q: got %v", body, err)
		}
	}
	path := filepath.Join(st.NodeDir("secret"), storeDir, "format")
	for _, text := range []string{"redoubt store\nformat 1\noldest-reader 1\ngeneration 1\nprevious 0 0\nsum 00\n", fmt.Sprintf("%5000d", 1)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadStoreFormat(st, "secret"); !errors.Is(err, redoubt.Corrupt) {
			t.Errorf("%.20q: got %v", text, err)
		}
	}
}
