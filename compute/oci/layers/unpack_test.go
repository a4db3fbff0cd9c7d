package layers

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// one is an entry of a layer. kind is a tar type; 0 is a file, or a folder where the name ends in a slash.
type one struct {
	name, content string
	kind          byte
	link          string
	mode          int64
	uid           int
}

func archive(t testing.TB, all ...one) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range all {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Linkname: e.link, Mode: e.mode, Uid: e.uid, Size: int64(len(e.content))}
		switch {
		case e.kind == 0 && strings.HasSuffix(e.name, "/"):
			h.Typeflag = tar.TypeDir
		case e.kind == 0:
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// unpackAll applies layers, and gives the image as the node has it after seal, and what was told.
func unpackAll(t testing.TB, spec Spec, packed ...[]byte) (image []byte, told Told, err error) {
	t.Helper()
	if spec.Limit == 0 {
		spec.Limit = 64 << 20
	}
	in, err := Header(spec)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range packed {
		in = append(in, l...)
	}
	var out bytes.Buffer
	if err := Unpack(bytes.NewReader(in), &out); err != nil {
		return nil, told, err
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(out.Bytes(), Begin); err != nil {
		t.Fatal(err)
	}
	told, size, err := Seal(f)
	if err != nil {
		t.Fatal(err)
	}
	image = make([]byte, size)
	_, err = f.ReadAt(image, 0)
	return image, told, err
}

// apply applies plain layers, and tells of each path what it is.
func apply(t testing.TB, layers ...[]byte) (map[string]string, error) {
	t.Helper()
	spec := Spec{}
	for _, l := range layers {
		spec.Layers = append(spec.Layers, Layer{Size: int64(len(l)), Media: "tar", DiffID: digest(l)})
	}
	image, _, err := unpackAll(t, spec, layers...)
	if err != nil {
		return nil, err
	}
	return describe(t, image), nil
}

// describe reads an image by the format's text, not by the code that wrote it.
func describe(t testing.TB, image []byte) map[string]string {
	t.Helper()
	le := binary.LittleEndian
	super := image[1024:]
	if le.Uint32(super) != 0xe0f5e1e2 || super[12] != 12 {
		t.Fatal("no superblock")
	}
	if int(le.Uint32(super[36:]))*4096 != len(image) {
		t.Fatalf("the superblock tells of %d blocks, and the image has %d bytes", le.Uint32(super[36:]), len(image))
	}
	meta := int(le.Uint32(super[40:])) * 4096
	all := map[string]string{}
	var walk func(at string, nid uint64)
	walk = func(at string, nid uint64) {
		p := image[meta+int(nid)*32:]
		format, mode, size, block := le.Uint16(p), le.Uint16(p[4:]), int(le.Uint64(p[8:])), int(le.Uint32(p[16:]))
		if format&1 != 1 {
			t.Fatalf("%s: a compact inode", at)
		}
		var data []byte
		switch format >> 1 {
		case 0:
			data = image[block*4096:][:size]
		case 2:
			data = p[64:][:size]
			if from := meta + int(nid)*32 + 64; from/4096 != (from+size-1)/4096 {
				t.Fatalf("%s: what stands behind its inode crosses a block", at)
			}
		default:
			t.Fatalf("%s: layout %d", at, format>>1)
		}
		word := fmt.Sprintf("%o %d/%d x%d", mode, le.Uint32(p[24:]), le.Uint32(p[28:]), le.Uint32(p[44:]))
		switch mode & 0o170000 {
		case 0o040000:
			last := ""
			for begin := 0; begin < size; begin += 4096 {
				b := data[begin:min(size, begin+4096)]
				n := int(le.Uint16(b[8:])) / 12
				for i := range n {
					from, to := int(le.Uint16(b[i*12+8:])), len(b)
					if i < n-1 {
						to = int(le.Uint16(b[(i+1)*12+8:]))
					}
					name := strings.TrimRight(string(b[from:to]), "\x00")
					if name <= last {
						t.Fatalf("%s: %q stands behind %q", at, name, last)
					}
					if last = name; name != "." && name != ".." {
						walk(path.Join(at, name), le.Uint64(b[i*12:]))
					}
				}
			}
			all[at] = word
		case 0o120000:
			all[at] = word + " -> " + string(data)
		default:
			all[at] = word + " " + string(data)
		}
	}
	walk("/", uint64(le.Uint16(super[14:])))
	return all
}

// same compares what an image has but its root.
func same(t *testing.T, got map[string]string, err error, want map[string]string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	delete(got, "/")
	if !maps.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", lines(got), lines(want))
	}
}

func lines(m map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "%s: %.100q\n", k, m[k])
	}
	return b.String()
}

func TestLayersLieOverOneAnother(t *testing.T) {
	got, err := apply(t,
		archive(t, one{name: "a", content: "low"}, one{name: "d/"}, one{name: "d/x", content: "x"}, one{name: "d/y", content: "y"}, one{name: "gone", content: "g"},
			one{name: "o/"}, one{name: "o/1", content: "1"}, one{name: "was-dir/"}, one{name: "was-dir/f", content: "f"}, one{name: "was-file", content: "w"}),
		archive(t, one{name: "a", content: "high", mode: 0o600, uid: 5}, one{name: "d/.wh.x"}, one{name: ".wh.gone"}, one{name: "o/"}, one{name: "o/2", content: "2"}, one{name: "o/.wh..wh..opq"},
			one{name: "was-dir", content: "now a file"}, one{name: "was-file/", mode: 0o700}, one{name: "was-file/in", content: "in"}, one{name: "made/up/f", content: "f"}),
	)
	same(t, got, err, map[string]string{
		"/a": "100600 5/0 x1 high", "/d": "40644 0/0 x2", "/d/y": "100644 0/0 x1 y", "/o": "40644 0/0 x2", "/o/2": "100644 0/0 x1 2", "/was-dir": "100644 0/0 x1 now a file",
		"/was-file": "40700 0/0 x2", "/was-file/in": "100644 0/0 x1 in", "/made": "40755 0/0 x3", "/made/up": "40755 0/0 x2", "/made/up/f": "100644 0/0 x1 f",
	})
}

func TestAWhiteoutHidesWhatLiesBelowWhereverItStands(t *testing.T) {
	low := archive(t, one{name: "d/"}, one{name: "d/old", content: "o"})
	want := map[string]string{"/d": "40644 0/0 x2", "/d/new": "100644 0/0 x1 n"}
	for _, high := range [][]byte{
		archive(t, one{name: ".wh.d"}, one{name: "d/"}, one{name: "d/new", content: "n"}),
		archive(t, one{name: "d/"}, one{name: "d/new", content: "n"}, one{name: ".wh.d"}),
		archive(t, one{name: "d/"}, one{name: "d/new", content: "n"}, one{name: "d/.wh..wh..opq"}),
	} {
		got, err := apply(t, low, high)
		same(t, got, err, want)
	}
	got, err := apply(t, archive(t, one{name: "a", content: "x"}), archive(t, one{name: "b", kind: tar.TypeLink, link: "a"}, one{name: ".wh.a"}))
	same(t, got, err, map[string]string{"/b": "100644 0/0 x1 x"})
}

func TestLinksAreFollowedWithinTheImageAlone(t *testing.T) {
	got, err := apply(t,
		archive(t, one{name: "usr/lib/"}, one{name: "lib", kind: tar.TypeSymlink, link: "usr/lib"}, one{name: "up", kind: tar.TypeSymlink, link: "../../../.."}, one{name: "abs", kind: tar.TypeSymlink, link: "/usr"}),
		archive(t, one{name: "lib/so", content: "s"}, one{name: "up/top", content: "t"}, one{name: "/abs/in", content: "i"}, one{name: "./dot", content: "d"}, one{name: "hard", kind: tar.TypeLink, link: "/abs/in"}),
	)
	same(t, got, err, map[string]string{
		"/usr": "40755 0/0 x3", "/usr/lib": "40644 0/0 x2", "/lib": "120777 0/0 x1 -> usr/lib", "/up": "120777 0/0 x1 -> ../../../..", "/abs": "120777 0/0 x1 -> /usr",
		"/usr/lib/so": "100644 0/0 x1 s", "/top": "100644 0/0 x1 t", "/usr/in": "100644 0/0 x2 i", "/hard": "100644 0/0 x2 i", "/dot": "100644 0/0 x1 d",
	})
}

func TestWhatAnImageMayNotHoldIsLeftOutOrRefused(t *testing.T) {
	l := archive(t, one{name: "null", kind: tar.TypeChar}, one{name: "disk", kind: tar.TypeBlock}, one{name: "pipe", kind: tar.TypeFifo}, one{name: "su", content: "s", mode: 0o6755}, one{name: "tmp/", mode: 0o1777})
	got, err := apply(t, l)
	same(t, got, err, map[string]string{"/su": "100755 0/0 x1 s", "/tmp": "41777 0/0 x2"})
	_, told, err := unpackAll(t, Spec{Layers: []Layer{{Size: int64(len(l)), DiffID: digest(l)}}}, l)
	if err != nil || !slices.Equal(told.Left, []string{"null", "disk", "pipe"}) {
		t.Errorf("got %q and %v", told.Left, err)
	}
	loop := []one{{name: "a", kind: tar.TypeSymlink, link: "b"}, {name: "b", kind: tar.TypeSymlink, link: "a"}, {name: "a/x"}}
	for what, l := range map[string][]byte{
		"out":           archive(t, one{name: "../x"}),
		"out again":     archive(t, one{name: "a/../../x"}),
		"a loop":        archive(t, loop...),
		"hard out":      archive(t, one{name: "h", kind: tar.TypeLink, link: "../etc/passwd"}),
		"hard nowhere":  archive(t, one{name: "h", kind: tar.TypeLink, link: "etc/passwd"}),
		"hard folder":   archive(t, one{name: "d/"}, one{name: "h", kind: tar.TypeLink, link: "d"}),
		"empty link":    archive(t, one{name: "l", kind: tar.TypeSymlink}),
		"deep":          archive(t, one{name: strings.Repeat("d/", maxImageDepth+1)}),
		"long name":     archive(t, one{name: strings.Repeat("n", 256)}),
		"long target":   archive(t, one{name: "l", kind: tar.TypeSymlink, link: strings.Repeat("t", 4096)}),
		"not a tar":     bytes.Repeat([]byte("x"), 1024),
		"cut":           archive(t, one{name: "f", content: strings.Repeat("f", 4096)})[:2048],
		"through links": archive(t, one{name: "l", kind: tar.TypeSymlink, link: strings.Repeat("d/", 300)}, one{name: "l/x"}),
	} {
		if got, err := apply(t, l); err == nil {
			t.Errorf("%s: got %v, want it refused", what, got)
		}
	}
	if got, err := apply(t, archive(t, one{name: strings.Repeat("n", 255)}, one{name: "l", kind: tar.TypeSymlink, link: strings.Repeat("t", 4095)}, one{name: strings.Repeat("d/", maxImageDepth)})); err != nil || len(got) != maxImageDepth+3 {
		t.Errorf("at the limits: %d files and %v", len(got), err)
	}
}

func TestAnImageIsBounded(t *testing.T) {
	l := archive(t, one{name: "a", content: strings.Repeat("a", 40<<10)}, one{name: "b", content: strings.Repeat("b", 40<<10)})
	spec := func(limit int64) Spec {
		return Spec{Limit: limit, Layers: []Layer{{Size: int64(len(l)), DiffID: digest(l)}}}
	}
	if _, _, err := unpackAll(t, spec(84<<10+blockSize), l); err != nil {
		t.Error(err)
	}
	if _, _, err := unpackAll(t, spec(80<<10+blockSize-1), l); err == nil {
		t.Error("an image that is too large is taken")
	}
	u := &unpacker{out: newBlocks(io.Discard), copying: make([]byte, 1), limit: 1 << 20, root: newDir(nil, -1), files: MaxFiles}
	if err := u.archive(tar.NewReader(bytes.NewReader(l)), 0); err == nil {
		t.Error("more files than there may be are taken")
	}
	b := &boundedReader{r: zeroReader{}, left: 1 << 20}
	if n, err := io.Copy(io.Discard, b); err == nil || n != 1<<20 {
		t.Errorf("%d bytes and %v: what unpacks without end is taken", n, err)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { return len(p), nil }

func TestCompressionsAndDigests(t *testing.T) {
	plain := archive(t, one{name: "f", content: strings.Repeat("content ", 1000)})
	var z, g bytes.Buffer
	zw, err := zstd.NewWriter(&z)
	if err != nil {
		t.Fatal(err)
	}
	for w, out := range map[io.WriteCloser]string{zw: "zstd", gzip.NewWriter(&g): "gzip"} {
		if _, err := w.Write(plain); err != nil {
			t.Fatal(out, err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(out, err)
		}
	}
	for media, packed := range map[string][]byte{"application/vnd.oci.image.layer.v1.tar": plain, "application/vnd.oci.image.layer.v1.tar+gzip": g.Bytes(), "application/vnd.oci.image.layer.v1.tar+zstd": z.Bytes(), "application/vnd.docker.image.rootfs.diff.tar.gzip": g.Bytes()} {
		spec := Spec{Layers: []Layer{{Size: int64(len(packed)), Media: media, DiffID: digest(plain)}}}
		image, _, err := unpackAll(t, spec, packed)
		if err != nil {
			t.Errorf("%s: %v", media, err)
		} else if got := describe(t, image)["/f"]; !strings.HasSuffix(got, "content content ") {
			t.Errorf("%s: got %.80q", media, got)
		}
		spec.Layers[0].DiffID = digest(nil)
		if _, _, err := unpackAll(t, spec, packed); err == nil {
			t.Errorf("%s: a layer that unpacks to something else is taken", media)
		}
		spec.Layers[0].DiffID = digest(plain)
		spec.Layers[0].Size++
		if _, _, err := unpackAll(t, spec, packed); err == nil {
			t.Errorf("%s: a layer that is too short is taken", media)
		}
		spec.Layers[0].Size -= 2
		if _, _, err := unpackAll(t, spec, packed); err == nil {
			t.Errorf("%s: a layer that is cut is taken", media)
		}
	}
}

func TestALargeFolderAndLongLinksAreWrittenAsTheFormatSays(t *testing.T) {
	var all []one
	want := map[string]string{"/many": "40755 0/0 x2"}
	for i := range 3000 {
		name := fmt.Sprintf("many/%s-%04d", strings.Repeat("n", i%200), i)
		all = append(all, one{name: name, content: fmt.Sprint(i)})
		want["/"+name] = fmt.Sprintf("100644 0/0 x1 %d", i)
	}
	for _, n := range []int{1, 2047, 2048, 2049, 4000} {
		name := fmt.Sprintf("link-%d", n)
		all = append(all, one{name: name, kind: tar.TypeSymlink, link: strings.Repeat("t", n)})
		want["/"+name] = "120777 0/0 x1 -> " + strings.Repeat("t", n)
	}
	got, err := apply(t, archive(t, all...))
	same(t, got, err, want)
}

func TestAUserIsFoundInTheImage(t *testing.T) {
	l := archive(t, one{name: "etc/passwd", content: "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\nbad:x:-1:0:::\nshort\n"},
		one{name: "etc/group", content: "root:x:0:\nwheel:x:10:app,root\nstaff:x:50:other\n"})
	for user, want := range map[string]Told{
		"": {Home: "/root"}, "root": {Home: "/root", Groups: []uint32{10}}, "app": {UID: 1000, GID: 1001, Groups: []uint32{10}, Home: "/home/app"},
		"1000": {UID: 1000, GID: 1001, Groups: []uint32{10}, Home: "/home/app"}, "7": {UID: 7, Home: "/"}, "app:staff": {UID: 1000, GID: 50, Home: "/home/app"}, "7:8": {UID: 7, GID: 8, Home: "/"},
	} {
		if user == "" {
			want.Groups = []uint32{10}
		}
		_, told, err := unpackAll(t, Spec{User: user, Layers: []Layer{{Size: int64(len(l)), DiffID: digest(l)}}}, l)
		if err != nil || fmt.Sprint(told) != fmt.Sprint(want) {
			t.Errorf("%q: got %+v and %v, want %+v", user, told, err, want)
		}
	}
	for _, user := range []string{"nobody", "app:nobody", "-1", "99999999999"} {
		if _, told, err := unpackAll(t, Spec{User: user, Layers: []Layer{{Size: int64(len(l)), DiffID: digest(l)}}}, l); err == nil {
			t.Errorf("%q: got %+v, want it refused", user, told)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, one{name: "a/b", content: "c"}, one{name: "l", kind: tar.TypeSymlink, link: "../a"}, one{name: "l/x", content: "y"}), archive(f, one{name: "a/.wh.b"}, one{name: ".wh..wh..opq"}))
	f.Add(archive(f, one{name: "h", content: "x"}, one{name: "k", kind: tar.TypeLink, link: "h"}), archive(f, one{name: ".wh.h"}))
	f.Fuzz(func(t *testing.T, low, high []byte) {
		if got, err := apply(t, low, high); err == nil {
			for name := range got {
				if path.Clean(name) != name || !strings.HasPrefix(name, "/") {
					t.Fatalf("an image with %q", name)
				}
			}
		}
	})
}
