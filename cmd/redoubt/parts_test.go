package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"redoubt"
)

func TestSizesAndSharesAreReadAsMediaHaveThem(t *testing.T) {
	for text, want := range map[string]int64{"650MiB": 650 << 20, "1TiB": 1 << 40, "25GB": 25e9, "80KB": 80_000, "1B": 1} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "650", "MiB", "-1MiB", "1.5GiB", "1 GiB", "1gib", "1234567890MiB", "999999999TiB"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q is read as %d", text, got)
		}
	}
	for _, c := range []struct {
		in   splitting
		want splitPlan
		ok   bool
	}{
		{splitting{}, splitPlan{}, true},
		{splitting{"650MiB", ""}, splitPlan{650 << 20, 0}, true},
		{splitting{"650MiB", "10%"}, splitPlan{650 << 20, 0.1}, true},
		{splitting{"650MiB", "200%"}, splitPlan{650 << 20, 2}, true},
		{splitting{"", "10%"}, splitPlan{}, false},
		{splitting{"650MiB", "10"}, splitPlan{}, false},
		{splitting{"650MiB", "201%"}, splitPlan{}, false},
		{splitting{"650MiB", "-1%"}, splitPlan{}, false},
		{splitting{"650MiB", "NaN%"}, splitPlan{}, false},
	} {
		if got, err := c.in.parse(); (err == nil) != c.ok || c.ok && got != c.want {
			t.Errorf("%+v: %+v, %v", c.in, got, err)
		}
	}
}

func TestPartsAreFoundBesideOneAndMakeTheFile(t *testing.T) {
	dir := t.TempDir()
	content := bytes.Repeat([]byte("a bundle"), 40_000)
	whole, err := os.Create(filepath.Join(dir, "whole"))
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	if _, err := whole.Write(content); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(dir, "b.rbundle")
	if err := splitFile(context.Background(), whole, to, splitPlan{100 << 10, 0.2}); err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{"b.rbundle.txt": "x", "other.001": "x", "b.rbundle.0001": "x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(partName(to, 0)); err != nil {
		t.Fatal(err)
	}
	names := siblings(partName(to, 1))
	if len(names) < 5 || slices.ContainsFunc(names, func(n string) bool {
		return !strings.HasPrefix(filepath.Base(n), "b.rbundle.0") || len(filepath.Ext(n)) != 4
	}) {
		t.Fatalf("beside one part lie %q", names)
	}
	files, err := openBundle([]string{partName(to, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer files.close()
	if !files.split || files.size != int64(len(content)) {
		t.Errorf("%d bytes in parts: %v", files.size, files.split)
	}
	r, done := files.reader(context.Background())
	got, err := io.ReadAll(r)
	if fault := done(); err != nil || fault != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v, %v", len(got), err, fault)
	}
	r, done = files.reader(context.Background()) // who stops reading is no fault of the parts
	if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if err := done(); err != nil {
		t.Errorf("unread: %v", err)
	}
	// One part more than may be lost.
	if err := os.Remove(partName(to, 2)); err != nil {
		t.Fatal(err)
	}
	few, err := openBundle([]string{partName(to, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer few.close()
	r, done = few.reader(context.Background())
	if _, err := io.ReadAll(r); err == nil {
		t.Error("too few parts were read to an end")
	}
	if err := done(); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("too few parts: %v", err)
	}
}

func TestASplitThatFailsLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	whole, err := os.Create(filepath.Join(t.TempDir(), "whole"))
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	if _, err := whole.Write(make([]byte, 300_000)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if err := splitFile(ctx, whole, filepath.Join(dir, "b"), splitPlan{100 << 10, 0}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "b.003"), 0o700); err != nil { // a name that is taken
		t.Fatal(err)
	}
	if err := splitFile(context.Background(), whole, filepath.Join(dir, "b"), splitPlan{100 << 10, 0}); err == nil {
		t.Error("a part replaced a folder")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left are %v, %v", left, err)
	}
}
