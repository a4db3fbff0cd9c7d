package filter

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"redoubt"
	"redoubt/guard"
)

// swells is a filter of pictures of one colour, as their members are written anew: what comes out has noise in it.
type swells struct{ bytes int }

func (swells) Name() string { return "swells" }

func (s swells) Clean(context.Context, guard.Content) ([]byte, []redoubt.Finding, error) {
	return make([]byte, s.bytes), nil, nil
}

// TestWhatMembersAreWrittenAnewAsHasALimit: 200 of them are held at once, outside of every sandbox.
func TestWhatMembersAreWrittenAnewAsHasALimit(t *testing.T) {
	s, err := New(Options{})
	if err == nil && s.lacking[ZIP] != nil {
		err = s.lacking[ZIP]
	}
	if err != nil {
		if os.Getuid() == 0 {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Cleanup(s.Close)
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := range 3 {
		if f, err := w.Create(fmt.Sprintf("%d.png", i)); err != nil {
			t.Fatal(err)
		} else if _, err := f.Write([]byte("white")); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	a := s.pairs[ZIP].First.(archive)
	for size, passes := range map[int]bool{1 << 20: true, MaxUnpacked/3 + 1: false} {
		asked := 0
		a.pair = func(string) (guard.Pair, error) {
			asked++
			return guard.Pair{First: swells{1}, Second: swells{size}}, nil
		}
		_, _, err := a.Clean(t.Context(), guard.Content{Type: ZIP, Bytes: b.Bytes()})
		if (err == nil) != passes || err != nil && !strings.Contains(hintOf(err), "written anew") || asked != 3 {
			t.Errorf("three members of %d bytes each: got %v (%s) after %d", size, err, hintOf(err), asked)
		}
	}
}
