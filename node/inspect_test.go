package node

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"redoubt"
	"redoubt/estate"
	"redoubt/keys"
)

func TestInspectFindsWhatAStartWouldStumbleOver(t *testing.T) {
	st, e, doc := exerciseOf(t, estate.ExampleText)
	if err := Inspect(st, "secret", nil); err != nil {
		t.Errorf("before the first start: %v", err)
	}
	_, stop := serve(t, Options{State: st, Name: "secret", Estate: e, Document: doc})
	stop()
	if err := Inspect(st, "secret", nil); err != nil {
		t.Errorf("a healthy one: %v", err)
	}
	dir := st.NodeDir("secret")
	for what, c := range map[string]struct {
		file  string
		spoil func(path string) error
		want  error
	}{
		"the key of another":    {"key", func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte{7}, keys.KeyFileBytes), 0o600) }, redoubt.Denied},
		"a key that others see": {"key", func(p string) error { return os.Chmod(p, 0o644) }, redoubt.Denied},
		"no key":                {"key", os.Remove, nil}, // as in a real estate
		"a damaged keyring": {"keyring", func(p string) error {
			b, err := os.ReadFile(p)
			b[len(b)/2] ^= 1
			return errors.Join(err, os.WriteFile(p, b, 0o600))
		}, redoubt.Corrupt},
		"no keyring":        {"keyring", os.Remove, redoubt.Corrupt},
		"a damaged format":  {"store/format", func(p string) error { return os.Truncate(p, 20) }, redoubt.Corrupt},
		"a damaged runtime": {"runtime.json", func(p string) error { return os.Truncate(p, 1) }, nil},
		"a store of tomorrow": {"store/format", func(string) error {
			formatFile(t, st, "redoubt store\nformat 9\noldest-reader 9\n")
			return nil
		}, redoubt.Invalid},
	} {
		path := filepath.Join(dir, c.file)
		before, err := os.ReadFile(path)
		if err == nil {
			err = c.spoil(path)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := Inspect(st, "secret", nil); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: got %v, want %v", what, err, c.want)
		}
		if r, err := st.Runtime("secret"); err != nil || r.PID != 0 {
			t.Errorf("%s: got %+v, %v", what, r, err)
		}
		os.Remove(path)
		if err := os.WriteFile(path, before, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
