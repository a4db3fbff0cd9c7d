package filter

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"redoubt"
	"redoubt/guard"
)

// Limits on archives.
const (
	MaxMembers     = 200                     // of an archive and those in it together
	MaxUnpacked    = redoubt.MaxReleaseBytes // bytes of all of them together
	MaxArchives    = 2                       // in one another
	maxNameBytes   = 512                     // of a member's path
	utf8Name       = 1 << 11                 // flag: the name is UTF-8
	endOfDirectory = 22                      // bytes of the record that ends an archive without a comment
)

// The steps of our own on an archive.
const (
	zipOpen  = "zip: open"
	zipBuild = "zip: build"
)

// archive is the first filter of archives: a worker takes it apart, each member goes through both filters of its own type, and another worker
// puts together what came out.
type archive struct {
	pool *pool
	pair func(mediaType string) (guard.Pair, error)
}

func (a archive) Name() string { return OwnName }

// budget is what an archive and those in it may use together.
type budget struct {
	members int
	bytes   int64
	rebuilt int64 // bytes of what the filters of members wrote: a picture of one colour is thousands of times as long with noise in it
}

func (a archive) Clean(ctx context.Context, in guard.Content) ([]byte, []redoubt.Finding, error) {
	return a.clean(ctx, in, 1, &budget{MaxMembers, MaxUnpacked, MaxUnpacked})
}

func (a archive) clean(ctx context.Context, in guard.Content, depth int, left *budget) ([]byte, []redoubt.Finding, error) {
	fail := func(seen []redoubt.Finding, err error) ([]byte, []redoubt.Finding, error) {
		return nil, seen, denied(OwnName, err)
	}
	if depth > MaxArchives {
		return fail(nil, refuse("release it by itself", "more than %d archives in one another", MaxArchives))
	}
	schemas, err := memberSchemas(in.Schema)
	if err != nil {
		return fail(nil, err)
	}
	framed, seen, err := ask(ctx, a.pool, zipOpen, nil, in.Bytes)
	if err != nil {
		return fail(seen, err)
	}
	members, err := readMembers(framed)
	if err != nil {
		return fail(seen, err)
	}
	for i, m := range members {
		left.members--
		if left.bytes -= int64(len(m.content)); left.members < 0 || left.bytes < 0 {
			return fail(seen, refuse("release it in parts", "more than %d members or %d bytes", MaxMembers, int64(MaxUnpacked)))
		}
		out, more, err := a.member(ctx, m, schemas, depth, left)
		for _, f := range more {
			f.Detail = clip(fmt.Sprintf("%s: %s", m.name, f.Detail))
			seen = append(seen, f)
		}
		seen = seen[:min(len(seen), redoubt.MaxReleaseReport+1)] // one too many: that there were more is told
		if err != nil {
			return fail(seen, inMember(m.name, err))
		}
		if left.rebuilt -= int64(len(out)); left.rebuilt < 0 {
			return fail(seen, refuse("release it in parts", "its members have more than %d bytes when they are written anew", int64(MaxUnpacked)))
		}
		members[i].content = out
	}
	out, more, err := ask(ctx, a.pool, zipBuild, nil, writeMembers(members))
	if err != nil {
		return fail(seen, err)
	}
	return out, append(seen, more...), nil
}

// member sends one through both filters of its type.
func (a archive) member(ctx context.Context, m member, schemas map[string]json.RawMessage, depth int, left *budget) ([]byte, []redoubt.Finding, error) {
	mediaType := guard.MemberType(m.name)
	if mediaType == "" {
		return nil, nil, refuse("leave it out, or name it as what it is", "a member of a type that is not released")
	}
	pair, err := a.pair(mediaType)
	if err != nil {
		return nil, nil, err
	}
	c := guard.Content{Type: mediaType, Bytes: m.content}
	switch mediaType {
	case JSON, XML, CSV:
		if c.Schema, err = schemaFor(m.name, schemas); err != nil {
			return nil, nil, err
		}
	}
	var seen []redoubt.Finding
	if mediaType == ZIP {
		c.Bytes, seen, err = a.clean(ctx, c, depth+1, left)
	} else {
		c.Bytes, seen, err = pair.First.Clean(ctx, c)
	}
	if err != nil {
		return nil, seen, err
	}
	out, more, err := pair.Second.Clean(ctx, c)
	return out, append(seen, more...), err
}

// inMember says which member an error is of.
func inMember(name string, err error) error {
	var r *refusal
	if errors.As(err, &r) {
		return refuse(r.Hint, "%s: %s", name, r.Rule)
	}
	var e *redoubt.Error
	if errors.As(err, &e) && e.Kind == redoubt.Denied {
		if e.Rule == ruleContent {
			return refuse("", "%s: %s", name, e.Hint)
		}
		return refuse(e.Hint, "%s: %s", name, e.Rule)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// memberSchemas reads the schema of an archive: an object of patterns (as of path.Match) and the schema that members of such a name meet,
// which for XML is a string.
func memberSchemas(schema []byte) (m map[string]json.RawMessage, err error) {
	if len(schema) == 0 {
		return nil, nil
	}
	if len(schema) > MaxSchemaBytes {
		return nil, refuse("", "the schema has %d bytes, and %d may be", len(schema), MaxSchemaBytes)
	}
	if err := json.Unmarshal(schema, &m); err != nil {
		return nil, refuse(schemaOpen, "the schema: %v", err)
	}
	return m, nil
}

// schemaFor finds the one schema of a member.
func schemaFor(name string, schemas map[string]json.RawMessage) (found []byte, err error) {
	for pattern, s := range schemas {
		if ok, err := path.Match(pattern, name); err != nil || !ok {
			continue
		}
		if found != nil {
			return nil, refuse("", "two schemas are of it")
		}
		found = schemaText(s)
	}
	if found == nil {
		return nil, refuse(noSchema+": {\"*.json\": ...}", "none of the archive's schemas is of it")
	}
	return found, nil
}

// schemaText is a schema as its type reads it: XML's is a string.
func schemaText(s json.RawMessage) []byte {
	var text string
	if json.Unmarshal(s, &text) == nil {
		return []byte(text)
	}
	return s
}

// member is a file of an archive.
type member struct {
	name    string
	content []byte
}

// writeMembers puts members one after another, each with its lengths.
func writeMembers(all []member) (b []byte) {
	for _, m := range all {
		b = binary.BigEndian.AppendUint32(b, uint32(len(m.name)))
		b = binary.BigEndian.AppendUint32(b, uint32(len(m.content)))
		b = append(append(b, m.name...), m.content...)
	}
	return b
}

func readMembers(b []byte) (all []member, err error) {
	for len(b) > 0 {
		if len(b) < 8 || len(all) > MaxMembers {
			return nil, errors.New("members that are none")
		}
		n, size := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
		if n > maxNameBytes || uint64(n)+uint64(size)+8 > uint64(len(b)) {
			return nil, errors.New("members that are none")
		}
		all = append(all, member{string(b[8 : 8+n]), b[8+n : 8+n+size]})
		b = b[8+n+size:]
	}
	return all, nil
}

// openZIP takes an archive apart: members in the order of their names.
func openZIP(in, _ []byte, n *notes) ([]byte, error) {
	if err := wholeZIP(in); err != nil {
		return nil, err
	}
	r, err := zip.NewReader(bytes.NewReader(in), int64(len(in)))
	if err != nil {
		return nil, refuse("", "it is no ZIP archive: %v", err)
	}
	left := int64(MaxUnpacked)
	seen := map[string]bool{}
	var all []member
	for _, f := range r.File {
		name, err := memberName(f, n)
		if err != nil {
			return nil, err
		}
		if name == "" {
			continue
		}
		if folded := strings.ToLower(norm.NFKC.String(name)); seen[folded] {
			return nil, refuse("", "the name %q stands twice", clip(name))
		} else {
			seen[folded] = true
		}
		if len(all) == MaxMembers {
			return nil, refuse("release it in parts", "more than %d members", MaxMembers)
		}
		m, err := f.Open()
		if err != nil {
			return nil, refuse("", "%q cannot be opened: %v", clip(name), err)
		}
		content, err := io.ReadAll(io.LimitReader(m, left+1))
		if err != nil {
			return nil, refuse("", "%q cannot be unpacked: %v", clip(name), err)
		}
		if left -= int64(len(content)) + 8 + maxNameBytes; left < 0 {
			return nil, refuse("release it in parts", "it has more than %d bytes when it is unpacked", int64(MaxUnpacked))
		}
		all = append(all, member{name, content})
	}
	if len(all) == 0 {
		return nil, refuse("", "it has no members")
	}
	for name := range seen { // a file that is a folder of another, too
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if seen[dir] {
				return nil, refuse("", "%q is a file and a folder", clip(dir))
			}
		}
	}
	slices.SortFunc(all, func(a, b member) int { return strings.Compare(a.name, b.name) })
	return writeMembers(all), nil
}

// wholeZIP finds that an archive is one from its first byte to its last.
func wholeZIP(b []byte) error {
	if !bytes.HasPrefix(b, []byte("PK\x03\x04")) {
		return refuse("", "it does not begin as a ZIP archive does, or has no members")
	}
	end := len(b) - endOfDirectory
	if end < 0 || !bytes.HasPrefix(b[end:], []byte("PK\x05\x06")) || binary.LittleEndian.Uint16(b[end+20:]) != 0 {
		return refuse("take off what follows the archive", "it does not end as a ZIP archive without a comment does")
	}
	size, at := binary.LittleEndian.Uint32(b[end+12:]), binary.LittleEndian.Uint32(b[end+16:])
	if uint64(size)+uint64(at) != uint64(end) {
		return refuse("", "its directory is not where it says")
	}
	return nil
}

// memberName is the path that a member leaves under; "" for a folder, which leaves by what is in it.
func memberName(f *zip.File, n *notes) (string, error) {
	name := f.Name
	switch {
	case f.Flags&1 != 0:
		return "", refuse("release it unencrypted", "the member %q is encrypted", clip(name))
	case f.Method != zip.Store && f.Method != zip.Deflate:
		return "", refuse("pack it with deflate", "the member %q is packed with method %d", clip(name), f.Method)
	case strings.HasSuffix(name, "/") && f.UncompressedSize64 == 0:
		n.add("folders were taken out", clip(name))
		name = strings.TrimSuffix(name, "/")
	case !f.Mode().IsRegular():
		return "", refuse("", "the member %q is no file (%v)", clip(name), f.Mode().Type())
	}
	clean, err := cleanString(name, newNotes(""), "")
	if err != nil {
		return "", refuse("", "the name of a member: %v", err)
	}
	if clean != name || len(name) > maxNameBytes || path.Clean(name) != name || path.IsAbs(name) || name == "." || name == ".." || strings.HasPrefix(name, "../") || strings.ContainsAny(name, "\\:*?\"<>|") {
		return "", refuse("give it a plain path within the archive", "the name %q", clip(name))
	}
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, ".") || strings.HasPrefix(part, "-") || strings.HasSuffix(part, ".") || strings.HasSuffix(part, " ") || strings.HasPrefix(part, " ") {
			return "", refuse("give it a plain path within the archive", "the name %q", clip(name))
		}
	}
	if f.Mode().IsDir() {
		return "", nil
	}
	if f.Comment != "" || len(f.Extra) > 0 {
		n.add("what archives say beside names and contents was taken out", clip(name))
	}
	return name, nil
}

// buildZIP puts members together: names and contents, and nothing else.
func buildZIP(in, _ []byte, _ *notes) ([]byte, error) {
	all, err := readMembers(in)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, m := range all {
		var packed bytes.Buffer
		p, err := flate.NewWriter(&packed, flate.DefaultCompression)
		if err != nil {
			return nil, err
		}
		_, err = p.Write(m.content)
		if err = errors.Join(err, p.Close()); err != nil {
			return nil, err
		}
		// Lengths stand before the content, for who reads it as a stream.
		f, err := w.CreateRaw(&zip.FileHeader{Name: m.name, Method: zip.Deflate, Flags: utf8Name, CRC32: crc32.ChecksumIEEE(m.content),
			CompressedSize64: uint64(packed.Len()), UncompressedSize64: uint64(len(m.content))})
		if err != nil {
			return nil, err
		}
		if _, err := f.Write(packed.Bytes()); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// trimZIP takes off the zero bytes that bsdtar fills its last block with, as for a tape.
func trimZIP(out []byte) []byte {
	end := bytes.LastIndex(out, []byte("PK\x05\x06")) + endOfDirectory
	if end < endOfDirectory || end > len(out) || len(bytes.Trim(out[end:], "\x00")) > 0 {
		return out
	}
	return out[:end]
}

// sameZIP agrees where two archives have the same names and contents, and the second nothing else that says something.
func sameZIP(_ context.Context, in, out []byte) error {
	if err := wholeZIP(out); err != nil {
		return fmt.Errorf("what came out: %w", errors.New(err.Error()))
	}
	differ := refuse("", "the two code bases do not agree on it")
	a, errA := zip.NewReader(bytes.NewReader(in), int64(len(in)))
	b, errB := zip.NewReader(bytes.NewReader(out), int64(len(out)))
	if errA != nil || errB != nil || len(a.File) != len(b.File) || b.Comment != "" {
		return differ
	}
	for i := range a.File {
		x, y := a.File[i], b.File[i]
		if x.Name != y.Name || y.Comment != "" || !y.Mode().IsRegular() || x.UncompressedSize64 != y.UncompressedSize64 {
			return differ
		}
		same, err := sameMember(x, y)
		if err != nil || !same {
			return differ
		}
	}
	return nil
}

func sameMember(x, y *zip.File) (bool, error) {
	a, err := x.Open()
	if err != nil {
		return false, err
	}
	defer a.Close()
	b, err := y.Open()
	if err != nil {
		return false, err
	}
	defer b.Close()
	p, err := io.ReadAll(io.LimitReader(a, MaxUnpacked+1))
	if err != nil {
		return false, err
	}
	q, err := io.ReadAll(io.LimitReader(b, MaxUnpacked+1))
	return bytes.Equal(p, q), err
}
