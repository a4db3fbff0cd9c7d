package ztdf

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// FuzzOpen gives the reader files that somebody else made: it never panics, and what it opens it gives out whole.
func FuzzOpen(f *testing.F) {
	private, trust := goldenKeys(f)
	golden, err := os.ReadFile(filepath.Join("testdata", "golden.ztdf"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	p := must(readArchive(bytes.NewReader(golden), int64(len(golden))))
	manifest, payload := golden[p.manifest.start:p.manifest.end], golden[p.payload.start:p.payload.end]
	f.Add(zipped(manifest, payload))
	f.Add(zip64(manifest, payload))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := open(data, Options{Private: private, Trust: []any{trust}})
		if err != nil {
			return
		}
		if n, err := io.Copy(io.Discard, file.Reader()); err != nil || n != file.SizeBytes || file.Label.IsZero() {
			t.Fatalf("%d bytes of %d, %v", n, file.SizeBytes, err)
		}
	})
}

// FuzzManifest gives the reader of manifests text whose sum is right, which FuzzOpen seldom finds.
func FuzzManifest(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "golden.ztdf"))
	if err != nil {
		f.Fatal(err)
	}
	p := must(readArchive(bytes.NewReader(golden), int64(len(golden))))
	private, trust := goldenKeys(f)
	manifest, payload := golden[p.manifest.start:p.manifest.end], golden[p.payload.start:p.payload.end]
	f.Add(manifest)
	f.Add([]byte(`{"schemaVersion":"4.3.0"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := open(zipped(text, payload), Options{Private: private, Trust: []any{trust}})
		if err == nil && file.Label.Banner() != relGBR {
			t.Fatalf("another label was read: %s", file.Label)
		}
	})
}
