package filter

import (
	"errors"
	"slices"
	"testing"
	"time"

	"redoubt"
	"redoubt/guard"
	"redoubt/sandbox"
)

// script is a second filter that a shell's script is: what one would do that was taken over.
func script(s string, change func(*sandbox.Program)) others {
	p := sandbox.Program{Name: "script", Path: "/bin/sh", Args: []string{"-c", s}, ReadOnly: append(sandbox.Libraries(), "/usr/bin", "/dev/null", "/usr/lib/python3.11", "/usr/lib/python3.13")}
	if change != nil {
		change(&p)
	}
	return others{base: "script", pools: []*pool{newPool(p, 0)}, agree: same}
}

func TestAFilterThatMisbehavesRefuses(t *testing.T) {
	for name, f := range map[string]others{
		"it crashes":           script("exec python3 -I -S -c 'import ctypes; ctypes.string_at(0)'", nil),
		"it fails":             script("cat; exit 1", nil),
		"it hangs":             script("sleep 1000", func(p *sandbox.Program) { p.Limits.Wall = 300 * time.Millisecond }),
		"it burns time":        script("while :; do :; done", func(p *sandbox.Program) { p.Limits.CPU = time.Second }),
		"it eats memory":       script("python3 -I -S -c 'b = bytearray(1 << 30); print(len(b))'", func(p *sandbox.Program) { p.Limits.Memory = 128 << 20 }),
		"it writes too much":   script("cat /dev/zero || while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done", func(p *sandbox.Program) { p.Limits.Output = 1 << 20 }),
		"it opens a file":      script("cat /etc/passwd", nil),
		"it opens the network": script("python3 -I -S -c 'import socket; socket.create_connection((\"127.0.0.1\", 1))'", nil),
		"it writes nothing":    script("cat >/dev/null", nil),
		"it writes more":       script("cat; echo more", nil),
		"it writes less":       script("head -c 3", nil),
		"it is not there":      script("", func(p *sandbox.Program) { p.Path = "/no/such" }),
	} {
		out, _, err := f.Clean(t.Context(), guard.Content{Type: Text, Bytes: []byte("content")})
		if err == nil || out != nil {
			t.Errorf("%s: got %.40q and %v", name, out, err)
		}
	}
	if out, _, err := script("cat", nil).Clean(t.Context(), guard.Content{Type: Text, Bytes: []byte("content")}); err != nil || string(out) != "content" {
		t.Errorf("one that behaves: got %q and %v", out, err)
	}
}

// What our own worker replies is believed no more than what another's program writes.
func TestAWorkersReplyIsHeldForHostile(t *testing.T) {
	many := make([]redoubt.Finding, redoubt.MaxReleaseReport+1)
	big, err := head(reply{Findings: many})
	if err != nil {
		t.Fatal(err)
	}
	fatal, err := head(reply{Findings: []redoubt.Finding{{Step: "words", Rule: "x", Fatal: true}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]string{
		"nothing": "", "no head": "abc", "a long head": "\xff\xff\xff\xffx", "no JSON": "\x00\x00\x00\x02xx", "unknown words": "\x00\x00\x00\x07{\"a\":1}content", "no content": "\x00\x00\x00\x02{}", "many findings": string(big) + "content",
	} {
		p := newPool(sandbox.Program{Name: "liar", Path: "/bin/sh", Args: []string{"-c", "cat >/dev/null; cat /reply"}, Files: map[string][]byte{"/reply": []byte(r)},
			ReadOnly: append(sandbox.Libraries(), "/usr/bin", "/dev/null")}, 0)
		if out, _, err := ask(t.Context(), p, Text, nil, []byte("content")); err == nil {
			t.Errorf("%s: got %q", name, out)
		}
	}
	p := newPool(sandbox.Program{Name: "liar", Path: "/bin/sh", Args: []string{"-c", "cat >/dev/null; cat /reply"}, Files: map[string][]byte{"/reply": append(fatal, 'x')},
		ReadOnly: append(sandbox.Libraries(), "/usr/bin", "/dev/null")}, 0)
	_, seen, err := ask(t.Context(), p, Text, nil, []byte("content"))
	if err != nil || len(seen) != 1 || seen[0].Fatal || seen[0].Step != "filter "+OwnName {
		t.Errorf("got %v and %v, want a finding of the worker's own step that ends nothing", seen, err)
	}
}

func TestATypeThatLacksAFilterIsRefusedWithItsPackage(t *testing.T) {
	was := kinds
	defer func() { kinds = was }()
	kinds = slices.Clone(kinds)
	kinds[0].tools = []tool{{base: "none", pkg: "no-such-package", path: "/no/such/program"}}
	s, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = s.Pair(kinds[0].mediaType)
	var e *redoubt.Error
	if !errors.As(err, &e) || e.Kind != redoubt.Denied || e.Hint != "apt-get install no-such-package" {
		t.Errorf("got %v with hint %q", err, hintOf(err))
	}
	all, err := Available(t.Context())
	if err != nil || all[1].Err == nil {
		t.Errorf("got %v and %v, want the missing one told", all, err)
	}
}

// The parsers of our own, without walls: a fuzzer's worker lives long.
func FuzzClean(f *testing.F) {
	for _, s := range []string{"text \u200b", `{"id":"x","n":1.50}`, "id\nx\n", "<a b='c'>d</a>", "\x89PNG\r\n\x1a\n", "\xff\xd8\xff\xe0\x00\x02\xff\xd9", "%PDF-1.4\n/JS#41 stream\nendstream\n%%EOF\n", "PK\x05\x06"} {
		f.Add(s)
	}
	schema := []byte(`{"type":"object","additionalProperties":false,"properties":{"id":{"type":"string","maxLength":9},"n":{"type":"number","minimum":0,"maximum":9}}}`)
	columns := []byte(`{"rows":9,"columns":[{"name":"id","type":"string","max":9}]}`)
	xsd := []byte(`<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"><xs:element name="a"><xs:complexType><xs:simpleContent><xs:extension base="xs:boolean"><xs:attribute name="b" type="xs:date"/></xs:extension></xs:simpleContent></xs:complexType></xs:element></xs:schema>`)
	f.Fuzz(func(t *testing.T, in string) {
		if len(in) > 64<<10 {
			return
		}
		for do, schema := range map[string][]byte{Text: nil, JSON: schema, CSV: columns, XML: xsd, pdfLook: nil, zipOpen: nil} {
			out, err := doers[do]([]byte(in), schema, newNotes(""))
			if err != nil || do == pdfLook || do == zipOpen {
				continue
			}
			again, err := doers[do](out, schema, newNotes(""))
			if err != nil || string(again) != string(out) {
				t.Errorf("%s: %q leaves as %q, and that as %q (%v)", do, in, out, again, err)
			}
		}
		_, _ = readSegments([]byte(in))
		_, _ = readChunks([]byte(in))
		_, _ = readMembers([]byte(in))
		_, _ = compile([]byte(in))
		_, _ = readXSD([]byte(in))
		_, _ = readTable([]byte(in))
	})
}
