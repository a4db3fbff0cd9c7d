package diode

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"redoubt"
	"redoubt/bundle"
)

// TestATaggedBundleGoesBareOrNotAtAll: none of its blocks is known by a digest. Every one goes bare.
func TestATaggedBundleGoesBareOrNotAtAll(t *testing.T) {
	file, err := os.ReadFile(filepath.Join("..", "..", "bundle", "testdata", "vector", "tagged.rbundle"))
	if err != nil {
		t.Fatal(err)
	}
	for _, bare := range []bool{false, true} {
		p := barePlan()
		p.Bare = bare
		s, err := NewSender(new(bytes.Buffer), p)
		if err != nil {
			t.Fatal(err)
		}
		l, err := s.Load(context.Background(), bytes.NewReader(file), int64(len(file)), nil, nil)
		if bare && (err != nil || !l.bare()) {
			t.Errorf("bare: %v", err)
		}
		if e, ok := errors.AsType[*redoubt.Error](err); !bare && (!ok || e.Rule != bundle.RuleFormat) {
			t.Errorf("not bare: %v", err)
		}
	}
	if bundle.MaxTaggedBytes > MaxBare {
		t.Error("a tagged bundle may be too long to be sent")
	}
}
