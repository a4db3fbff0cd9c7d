package label

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func FuzzParse(f *testing.F) {
	golden, err := os.ReadFile(goldenFile)
	if err != nil {
		f.Fatal(err)
	}
	for _, line := range strings.Split(string(golden), "\n") {
		if name, marking, ok := strings.Cut(line, " "); ok && name != "" && name != "#" {
			f.Add(name, marking)
		}
	}
	f.Fuzz(func(t *testing.T, name, marking string) {
		p, err := Builtin(name)
		if err != nil {
			return
		}
		l, err := p.Parse(marking)
		if err != nil {
			if _, ok := err.(*ParseError); !ok || !l.IsZero() {
				t.Fatalf("%q: got %s, %T", marking, l, err)
			}
			return
		}
		if err := l.Valid(); err != nil {
			t.Fatalf("%q was read and is not valid: %v", marking, err)
		}
		for _, s := range []string{l.Banner(), l.Portion()} {
			if got, err := p.Parse(s); err != nil || got != l {
				t.Fatalf("%q became %q, and that %s: %v", marking, s, got, err)
			}
		}
		text, err := l.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseText(text); err != nil || got != l {
			t.Fatalf("%q became %q, and that %s: %v", marking, text, got, err)
		}
	})
}

func FuzzReadSPIF(f *testing.F) {
	f.Add([]byte(miniature))
	for _, name := range []string{"testdata/spif/uk-demo.xml", "testdata/spif/tlp.xml", "policies/fra.xml", "policies/gbr.xml"} {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ReadSPIF(bytes.NewReader(data))
		if err != nil {
			return
		}
		low := p.Lowest()
		text, err := low.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseText(text, p); err != nil || got != low {
			t.Fatalf("lowest label %q reads back as %s: %v", text, got, err)
		}
		for i, c := range p.classes {
			l, err := p.read(c.name, nil, false)
			if c.foreign {
				continue
			}
			if err != nil || int(l.class) != i {
				t.Fatalf("classification %q reads as %s: %v", c.name, l, err)
			}
			for j := range p.cats {
				l := l
				l.cats = p.cats[j].implies
				l.spell(spellPlain)
				if got, err := p.read(l.Banner(), nil, false); err != nil || !got.Equivalent(l) {
					t.Fatalf("%q reads back as %q: %v", l.Banner(), got.Banner(), err)
				}
			}
		}
	})
}

func Fuzz4774(f *testing.F) {
	f.Add([]byte(nato4774))
	for _, name := range []string{"usa-originator", "nato-alternative", "gbr-metadata"} {
		data, err := os.ReadFile("testdata/golden/4774-" + name + ".xml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l, meta, err := Read4774(bytes.NewReader(data))
		if err != nil {
			return
		}
		doc, err := l.To4774(meta)
		if err != nil {
			t.Fatalf("%s was read and cannot be written: %v", l, err)
		}
		got, again, err := Read4774(bytes.NewReader(doc))
		if err != nil || got != l || again != meta {
			t.Fatalf("%s %+v reads back as %s %+v: %v\n%s", l, meta, got, again, err, doc)
		}
		text, err := l.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseText(text); err != nil || got != l {
			t.Fatalf("%q reads back as %s: %v", text, got, err)
		}
	})
}
