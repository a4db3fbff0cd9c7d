package ztdf

import (
	"archive/zip"
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"hash/crc32"
	"strings"
	"testing"

	"redoubt"
)

var strangerEd = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))

func signedWithKey(k ed25519.PrivateKey, header, body string) string {
	text := b64url.EncodeToString([]byte(header)) + "." + body
	return text + "." + b64url.EncodeToString(ed25519.Sign(k, []byte(text)))
}

func signedWith(header, body string) string { return signedWithKey(strangerEd, header, body) }
func signedBy(header, body string) string   { return signedWithKey(edKey(), header, body) }

// swapHeader keeps content and signature of a JWS under another header.
func swapHeader(p *parts, header string) string {
	s := strings.Split(p.m.Assertions[0].Binding.Signature, ".")
	return b64url.EncodeToString([]byte(header)) + "." + s[1] + "." + s[2]
}

// entry is one member as a test writes it.
type entry struct {
	name, body string
	method     uint16
}

func archiveOf(t *testing.T, comment string, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, e := range entries {
		w := must(z.CreateHeader(&zip.FileHeader{Name: e.name, Method: e.method}))
		must(w.Write([]byte(e.body)))
	}
	must(0, z.SetComment(comment))
	must(0, z.Close())
	return b.Bytes()
}

func TestTheArchiveIsTwoStoredMembersAndNothingElse(t *testing.T) {
	data := written(t, content(t, "the plan"))
	p := takeApart(t, data)
	m, pl := entry{name: manifestName, body: string(must(encode(p.m)))}, entry{name: payloadName, body: string(p.payload)}
	with := func(e entry, change func(*entry)) entry { change(&e); return e }
	splice := func(at int, what string) []byte { return append(append(bytes.Clone(data[:at]), what...), data[at:]...) }
	end := bytes.LastIndex(data, []byte("PK\x05\x06"))
	dir := bytes.Index(data, []byte("PK\x01\x02"))
	for what, one := range map[string]struct {
		data []byte
		why  string
	}{
		"nothing":                       {nil, "too short"},
		"no zip":                        {bytes.Repeat([]byte("x"), 100), "does not end"},
		"one member":                    {archiveOf(t, "", pl), "1 members"},
		"three members":                 {archiveOf(t, "", pl, m, entry{name: "x"}), "3 members"},
		"the payload twice":             {archiveOf(t, "", pl, pl), "its members are"},
		"the manifest twice":            {archiveOf(t, "", m, m), "its members are"},
		"another name":                  {archiveOf(t, "", pl, with(m, func(e *entry) { e.name = "manifest.json" })), "its members are"},
		"a path":                        {archiveOf(t, "", pl, with(m, func(e *entry) { e.name = "../" + manifestName })), "its members are"},
		"an absolute path":              {archiveOf(t, "", pl, with(m, func(e *entry) { e.name = "/" + manifestName })), "its members are"},
		"a folder":                      {archiveOf(t, "", pl, entry{name: "0.manifest.json/"}), "its members are"},
		"a name in capitals":            {archiveOf(t, "", pl, with(m, func(e *entry) { e.name = "0.Manifest.json" })), "its members are"},
		"a name that is long":           {archiveOf(t, "", pl, with(m, func(e *entry) { e.name = strings.Repeat("x", maxNameBytes+1) })), ""},
		"a bomb":                        {archiveOf(t, "", pl, entry{manifestName, strings.Repeat(" ", 1<<20), zip.Deflate}), "compressed"},
		"a comment":                     {archiveOf(t, "x", pl, m), "does not end"},
		"a zip in the comment":          {archiveOf(t, string(data), pl, m), ""},
		"something before it":           {append([]byte("x"), data...), ""},
		"something behind it":           {append(bytes.Clone(data), 'x'), "does not end"},
		"something between the members": {splice(dir, "x"), ""},
		"something before the end":      {splice(end, "x"), "directory"},
		"two zips one behind the other": {append(bytes.Clone(data), data...), ""},
		"the end cut off":               {data[:len(data)-1], "does not end"},
	} {
		_, err := open(one.data, options())
		wantRefused(t, what, err, RuleArchive, one.why)
	}
	for _, order := range [][]entry{{m, pl}, {pl, m}} {
		if _, err := open(archiveOf(t, "", order...), options()); err != nil {
			t.Errorf("%s first: %v", order[0].name, err)
		}
	}
}

// TestEveryByteOfTheFileMatters changes each byte of a file in turn: none may be changed without a refusal but those that no reader goes by.
func TestEveryByteOfTheFileMatters(t *testing.T) {
	data := written(t, content(t, "the plan"))
	idle := map[int]bool{}
	for _, sig := range []string{"PK\x03\x04", "PK\x01\x02"} {
		for at := 0; ; {
			i := bytes.Index(data[at:], []byte(sig))
			if i < 0 {
				break
			}
			at += i + 4
			// Versions and times are looked at by nobody, nor are attributes of a file system.
			first, times := at, at+6
			if sig == "PK\x01\x02" {
				for j := range 4 {
					idle[first+j] = true
				}
				times = at + 8
				for j := 32; j < 38; j++ {
					idle[at+j] = true
				}
			} else {
				idle[first], idle[first+1] = true, true
			}
			for j := range 4 {
				idle[times+j] = true
			}
		}
	}
	for i := range data {
		if idle[i] {
			continue
		}
		changed := bytes.Clone(data)
		changed[i] ^= 0x04
		if _, err := open(changed, options()); err == nil {
			t.Errorf("byte %d (%q) was changed, and the file was read", i, data[max(0, i-8):min(len(data), i+8)])
		}
	}
}

func TestZip64IsReadToo(t *testing.T) {
	p := takeApart(t, written(t, content(t, "the plan")))
	data := zip64(must(encode(p.m)), p.payload)
	if _, err := open(data, options()); err != nil {
		t.Fatal(err)
	}
	for i := range data { // whatever is changed, nothing else is read in it
		changed := bytes.Clone(data)
		changed[i] ^= 0x10
		if f, err := open(changed, options()); err == nil && f.SizeBytes != int64(len("the plan")) {
			t.Errorf("byte %d: %d bytes", i, f.SizeBytes)
		}
	}
}

// zip64 is the archive as a writer makes it that knows no sizes beforehand.
func zip64(manifest, payload []byte) (out []byte) {
	u16, u32, u64 := le.AppendUint16, le.AppendUint32, le.AppendUint64
	var central []byte
	for _, m := range []struct {
		name string
		data []byte
	}{{payloadName, payload}, {manifestName, manifest}} {
		at, n, crc := uint64(len(out)), uint64(len(m.data)), crc32.ChecksumIEEE(m.data)
		out = u16(u16(u16(u32(out, sigLocal), 45), flagDescriptor), 0)
		out = u32(u32(u32(u32(out, 0), 0), 0xffffffff), 0xffffffff)
		out = append(u16(u16(out, uint16(len(m.name))), 20), m.name...)
		out = u64(u64(u16(u16(out, 1), 16), 0), 0)
		out = append(out, m.data...)
		out = u64(u64(u32(u32(out, sigDescriptor), crc), n), n)
		central = u16(u16(u16(u16(u32(central, sigCentral), 45), 45), flagDescriptor), 0)
		central = u32(u32(u32(u32(central, 0), crc), 0xffffffff), 0xffffffff)
		central = u16(u16(u16(u16(u16(central, uint16(len(m.name))), 28), 0), 0), 0)
		central = append(u32(u32(central, 0), 0xffffffff), m.name...)
		central = u64(u64(u64(u16(u16(central, 1), 24), n), n), at)
	}
	dir := uint64(len(out))
	out = append(out, central...)
	end := uint64(len(out))
	out = u32(u32(u16(u16(u64(u32(out, sigEnd64), 44), 45), 45), 0), 0)
	out = u64(u64(u64(u64(out, 2), 2), uint64(len(central))), dir)
	out = u32(u64(u32(u32(out, sigLocator), 0), end), 1)
	out = u16(u16(u16(u16(u32(out, sigEnd), 0), 0), 0xffff), 0xffff)
	return u16(u32(u32(out, 0xffffffff), 0xffffffff), 0)
}

func TestTheManifestIsOneDocumentWithoutRepetition(t *testing.T) {
	p := takeApart(t, written(t, content(t, "the plan")))
	good := string(must(encode(p.m)))
	for what, one := range map[string]struct{ text, why string }{
		"no JSON":               {"x", "manifest"},
		"an array":              {"[]", "manifest"},
		"a field twice":         {strings.Replace(good, `"schemaVersion"`, `"schemaVersion":"4.3.0","schemaVersion"`, 1), "twice"},
		"a field twice, deep":   {strings.Replace(good, `"isEncrypted":true`, `"isEncrypted":false,"isEncrypted":true`, 1), "twice"},
		"a field in capitals":   {strings.Replace(good, `"payload"`, `"Payload"`, 1), `"Payload"`},
		"a field escaped twice": {strings.Replace(good, `"url"`, `"\u0075rl":"x","url"`, 1), "twice"},
		"an unknown field":      {strings.Replace(good, `{`, `{"x":1,`, 1), `"x"`},
		"a field out of place":  {strings.Replace(good, `{`, `{"alg":"none",`, 1), `"alg"`},
		"something behind it":   {good + "{}", "behind it"},
		"no UTF-8":              {strings.Replace(good, "text/plain", "text/\xff", 1), "UTF-8"},
		"a number that is none": {strings.Replace(good, `"segmentSize":8`, `"segmentSize":8.5`, 1), "segmentSize"},
		"too deep":              {strings.Repeat(`{"payload":`, maxDepth+1) + "1" + strings.Repeat("}", maxDepth+1), "nested"},
	} {
		if one.text == good {
			t.Fatalf("%s: nothing was changed", what)
		}
		_, err := open(zipped([]byte(one.text), p.payload), options())
		wantRefused(t, what, err, RuleManifest, one.why)
	}
}

func TestLimitsHoldAtNAndNotBeyond(t *testing.T) {
	data := written(t, content(t, "the plan"))
	for what, one := range map[string]struct {
		n      int
		change func(p *parts, n int)
	}{
		"bytes of the manifest": {MaxManifestBytes, nil},
		"key access objects":    {MaxKeyAccess, func(p *parts, n int) { p.m.Encryption.KeyAccess = repeat(p.m.Encryption.KeyAccess[0], n) }},
		"assertions": {MaxAssertions, func(p *parts, n int) {
			for i := range n - 1 {
				p.m.Assertions = append(p.m.Assertions, assertion{ID: string(rune('a' + i)), Type: "other", Scope: "payload"})
			}
		}},
		"bytes of a statement": {MaxStatementBytes, func(p *parts, n int) {
			p.m.Assertions = append(p.m.Assertions, assertion{ID: "x", Type: "other", Statement: statement{Value: strings.Repeat("x", n)}})
		}},
		"bytes of an identifier": {MaxTextBytes, func(p *parts, n int) { p.m.Encryption.KeyAccess[0].KID = strings.Repeat("x", n) }},
		"attributes": {MaxAttributes, func(p *parts, n int) {
			var o policyObject
			o.Body.Attributes = repeat(attribute{Attribute: "https://x/attr/a/value/b"}, n)
			p.rebind(b64.EncodeToString(must(json.Marshal(o)))).resign(edKey(), true)
		}},
		"bytes of a segment": {MaxSegmentBytes, func(p *parts, n int) {
			p.payload = must(gcm(p.key)).Seal(nil, nil, make([]byte, n), nil)
			p.m.Encryption.Integrity.Segments = []segment{{Hash: b64.EncodeToString(p.payload[len(p.payload)-tagBytes:]), Size: int64(n), SealedBytes: int64(n + overhead)}}
			p.reroot().resign(edKey(), true)
		}},
		"segments": {MaxSegments, func(p *parts, n int) {
			aead, in := must(gcm(p.key)), &p.m.Encryption.Integrity
			in.Segments, p.payload = nil, nil
			for range n {
				p.payload = append(p.payload, aead.Seal(nil, nil, []byte("x"), nil)...)
				in.Segments = append(in.Segments, segment{Hash: b64.EncodeToString(p.payload[len(p.payload)-tagBytes:]), Size: 1, SealedBytes: 1 + overhead})
			}
			p.reroot().resign(edKey(), true)
		}},
	} {
		for over := range 2 {
			p := takeApart(t, data)
			text := []byte(nil)
			if one.change == nil {
				text = must(encode(p.m))
				text = append(text, bytes.Repeat([]byte(" "), one.n+over-len(text))...)
			} else {
				one.change(p, one.n+over)
				text = must(encode(p.m))
			}
			_, err := open(zipped(text, p.payload), options())
			if (err == nil) != (over == 0) {
				t.Errorf("%d %s: got %v", one.n+over, what, err)
			}
			if k := redoubt.KindOf(err); over == 1 && k != redoubt.Invalid && k != redoubt.Denied && k != redoubt.TooLarge {
				t.Errorf("%d %s: got %v", one.n+over, what, err)
			}
		}
	}
}
