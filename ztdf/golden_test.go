package ztdf

import (
	"bytes"
	"crypto"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the golden file anew")

// goldenKeys are the keys of the golden file: made for it, and of no other use.
func goldenKeys(t testing.TB) (private, trust any) {
	t.Helper()
	read := func(name string) []byte { return must(os.ReadFile(filepath.Join("testdata", name))) }
	return must(ParsePrivate(read("kas.key"))), must(ParsePublic(read("signer.pub")))
}

// TestTheGoldenFileIsStillRead: what was written once is read by every later version.
func TestTheGoldenFileIsStillRead(t *testing.T) {
	name := filepath.Join("testdata", "golden.ztdf")
	if *update {
		c := content(t, "the plan\n")
		c.Attributes = must(Attributes("https://kas.example.mil", "SECRET", nil, []string{"USA", "GBR"}))
		c.To.Key = must(ParsePublic(must(os.ReadFile(filepath.Join("testdata", "kas.pub")))))
		c.Sign = must(ParsePrivate(must(os.ReadFile(filepath.Join("testdata", "signer.key"))))).(crypto.Signer)
		must(0, os.WriteFile(name, written(t, c), 0o644))
	}
	private, trust := goldenKeys(t)
	data := must(os.ReadFile(name))
	f, err := open(data, Options{Private: private, Trust: []any{trust}})
	if err != nil {
		t.Fatal(err)
	}
	got := must(io.ReadAll(f.Reader()))
	if !bytes.Equal(got, []byte("the plan\n")) || f.Label.Banner() != relGBR || !f.Whole || len(f.Attributes) != 3 || f.MIME != "text/plain" {
		t.Errorf("it is %q, %+v", got, f)
	}
}
