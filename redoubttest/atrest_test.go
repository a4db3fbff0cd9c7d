package redoubttest_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"redoubt"
	"redoubt/label"
	"redoubt/redoubttest"
	"redoubt/store"
)

// forms are the ways in which a text could lie on a disk.
func forms(text string) [][]byte {
	out := [][]byte{[]byte(text)}
	var le, be []byte
	for _, u := range utf16.Encode([]rune(text)) {
		le, be = append(le, byte(u), byte(u>>8)), append(be, byte(u>>8), byte(u))
	}
	out = append(out, le, be)
	x := hex.EncodeToString([]byte(text))
	out = append(out, []byte(x), []byte(strings.ToUpper(x)))
	for shift := range 3 { // base64 of the text wherever it begins in what was encoded, without the ends that depend on its neighbours
		padded := append(make([]byte, shift), text...)
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			b := enc.EncodeToString(padded)
			from, to := (shift*8+5)/6, len(padded)*8/6
			out = append(out, []byte(b[from:to]))
		}
	}
	return out
}

// planted gives all that must not be found, each in all its forms.
func planted(texts []string) map[string][][]byte {
	out := map[string][][]byte{}
	for _, text := range texts {
		out[text] = forms(text)
	}
	return out
}

// grep reads every file under dir, and its name, for what was planted.
func grep(t *testing.T, dir string, wanted map[string][][]byte) (found []string, files int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		haystack := []byte(name)
		if d.Type().IsRegular() {
			files++
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			haystack = append(append(haystack, 0), b...)
		}
		for text, forms := range wanted {
			for i, form := range forms {
				if at := bytes.Index(haystack, form); at >= 0 {
					found = append(found, fmt.Sprintf("%q (form %d) in %s at %d", text, i, name, at))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found, files
}

func TestGrepFindsEveryForm(t *testing.T) {
	for i, form := range forms("zyzzyva-content") {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "f"), append([]byte("before "), form...), 0o600); err != nil {
			t.Fatal(err)
		}
		if found, _ := grep(t, dir, planted([]string{"zyzzyva-content"})); len(found) == 0 {
			t.Errorf("form %d is not found", i)
		}
	}
	dir := t.TempDir()
	for i, before := range []string{"", "a", "ab", "abc"} {
		text := base64.StdEncoding.EncodeToString([]byte(before + "zyzzyva-content" + "after"))
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if found, _ := grep(t, dir, planted([]string{"zyzzyva-content"})); len(found) == 0 {
			t.Errorf("base64 behind %d bytes is not found", i)
		}
	}
}

// TestNothingReadableIsOnDisk plants unusual texts wherever a subject can put one, at every label, and looks for each in
// every file of the node's state while it runs and after it has ended.
func TestNothingReadableIsOnDisk(t *testing.T) {
	d := newLasting(t)
	d.o.Buckets = []redoubt.Bucket{{Name: "zyzzyva-bucket", BucketSettings: redoubt.BucketSettings{Tags: []redoubt.Tag{{Key: "zyzzyva-bucket-tag", Value: "v"}}}}}
	d.o.People = []redoubt.Person{{Name: "zyzzyva-person", Clearance: "SECRET", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleAnalyst}}}
	var texts []string // each begins with "zyzzyva", which is what is looked for
	readable := []string{"zyzzyva", "UNCLASSIFIED", "SECRET", "TOP SECRET", "NOFORN", "REL TO", "SI/TK", "CONFIDENTIAL", "COMPLIANCE", "GOVERNANCE", "ts-analyst", "officer"}
	mark := marks(t)
	for _, m := range []string{"SECRET", "TOP SECRET//SI/TK", "SECRET//REL TO USA, GBR"} {
		readable = append(readable, string(canonical(t, mark(m))))
	}
	s := d.open(t, realTime())
	for i, who := range []struct{ who, marking string }{{"u-analyst", "UNCLASSIFIED"}, {"zyzzyva-person", "SECRET"}, {"gbr-liaison", "SECRET//REL TO USA, GBR"},
		{"ts-analyst", "TOP SECRET"}, {"ts-analyst", "TOP SECRET//SI/TK"}} {
		a := as2(s, redoubt.SubjectName(who.who), who.marking)
		text := func(what string) string {
			out := fmt.Sprintf("zyzzyva-%s-%d", what, i)
			texts = append(texts, out)
			return out
		}
		content := text("content")
		for _, size := range []int{100, 64 << 10, 300 << 10} { // in the log, in the log's blobs, in an extent
			body := bytes.Repeat([]byte(content+"\n"), size/len(content))
			res := s.Do(a, redoubttest.Request{Method: http.MethodPut, Bucket: "zyzzyva-bucket", Key: text("key") + fmt.Sprint(size), Body: body, Header: http.Header{
				"X-Amz-Meta-" + text("meta-name"): {text("meta-value")}, "X-Amz-Tagging": {text("tag") + "=" + text("tag-value")},
				"Content-Type": {text("type")}, "Content-Disposition": {text("disposition")}}})
			want(t, res, http.StatusOK, "")
		}
		upload := s.Do(a, redoubttest.Request{Method: http.MethodPost, Bucket: "zyzzyva-bucket", Key: text("upload"), Query: url.Values{"uploads": {""}}})
		want(t, upload, http.StatusOK, "")
		id := uploadPattern.FindStringSubmatch(string(upload.Body))[2]
		want(t, s.Do(a, redoubttest.Request{Method: http.MethodPut, Bucket: "zyzzyva-bucket", Key: fmt.Sprintf("zyzzyva-upload-%d", i),
			Query: url.Values{"uploadId": {id}, "partNumber": {"1"}}, Body: bytes.Repeat([]byte(text("part")), 9000)}), http.StatusOK, "")
		want(t, s.Do(a, redoubttest.Request{Method: http.MethodGet, Bucket: "zyzzyva-bucket", Key: text("asked-for")}), http.StatusNotFound, "")
		want(t, s.Do(a, redoubttest.Request{Method: http.MethodDelete, Bucket: "zyzzyva-bucket", Key: text("deleted")}), http.StatusNoContent, "")
	}
	officer := s.As(as2(s, "officer", ""))
	if _, err := s.Grant(t.Context(), officer, redoubt.Grant{Subject: "zyzzyva-person", Bucket: "zyzzyva-bucket", Prefix: "zyzzyva-grant"}); err != nil {
		t.Fatal(err)
	}
	if err := s.RevokePerson(t.Context(), officer, "zyzzyva-person", "zyzzyva-reason"); err != nil {
		t.Fatal(err)
	}
	if err := s.Compact(t.Context(), s.As(as2(s, "admin", ""))); err != nil {
		t.Fatal(err)
	}
	look := func(when string) {
		t.Helper()
		found, files := grep(t, d.dir, planted(readable))
		for _, f := range found {
			t.Errorf("%s: %s", when, f)
		}
		if files < 4 {
			t.Errorf("%s: only %d files were looked at", when, files)
		}
	}
	look("while it runs")
	s.Stop()
	look("after it has ended")
	engine := d.engine(t) // the texts are there, for who has the key: else nothing was tested
	defer closing(t, engine)
	plain := dump(t, engine)
	for _, text := range texts {
		kept := strings.Contains(text, "key-") || strings.Contains(text, "upload-") || strings.Contains(text, "meta-") || strings.Contains(text, "tag-")
		if kept && !bytes.Contains(bytes.ToLower(plain), []byte(strings.ToLower(text))) {
			t.Errorf("%q was not stored: the test plants nothing", text)
		}
		sealed := strings.Contains(text, "-content-") || strings.Contains(text, "-part-") || strings.Contains(text, "asked-for")
		if sealed && bytes.Contains(plain, []byte(text)) {
			t.Errorf("%q is readable with the engine's key alone", text)
		}
	}
	if audit := entries(t, engine); bytes.Contains(audit, []byte("zyzzyva-key")) || len(audit) == 0 {
		t.Error("the audit log names an object in clear, or is empty")
	}
}

// TestNothingErasedCanBeOpened erases versions by EraseVersion and then holds all that there is: the state as it is, a copy of the state
// from before, the engine's key, and the keyring as it is now.
func TestNothingErasedCanBeOpened(t *testing.T) {
	d := newLasting(t)
	clock := realTime()
	s := d.open(t, clock)
	h := as2(s, "s-analyst", "SECRET")
	sizes := map[string]int{"small": 1 << 10, "middle": 100 << 10, "large": 3 << 20}
	ids := map[string]string{}
	for name, size := range sizes {
		for _, fate := range []string{"erased", "kept"} {
			body := bytes.Repeat([]byte("zyzzyva-"+fate+"-"+name+"\n"), size/20)
			res := s.Do(h, redoubttest.Request{Method: http.MethodPut, Bucket: "reports", Key: "zyzzyva-" + fate + "-" + name, Body: body,
				Header: http.Header{"X-Amz-Meta-Note": {"zyzzyva-" + fate + "-note"}}})
			want(t, res, http.StatusOK, "")
			ids[fate+"-"+name] = res.Header.Get("X-Amz-Version-Id")
		}
	}
	s.Stop()
	before := &lasting{dir: t.TempDir(), engineKey: d.engineKey, opened: 40}
	if err := os.CopyFS(before.dir, os.DirFS(d.dir)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{before.ring(), filepath.Join(before.dir, "unlock")} {
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	blobs := sealedBlobs(t, d)

	reads := func(d *lasting, fate string) (got []int) {
		t.Helper()
		s := d.open(t, clock)
		defer s.Stop()
		h := as2(s, "s-analyst", "SECRET")
		for name := range sizes {
			res := s.Do(h, redoubttest.Request{Method: http.MethodGet, Bucket: "reports", Key: "zyzzyva-" + fate + "-" + name, Query: versionQuery(ids[fate+"-"+name])})
			if res.Status == http.StatusOK != strings.Contains(string(res.Body), "zyzzyva-"+fate+"-"+name+"\n") {
				t.Errorf("%s %s: status %d does not go with its body", fate, name, res.Status)
			}
			got = append(got, res.Status)
		}
		slices.Sort(got)
		return got
	}
	if got := reads(before, "erased"); !slices.Equal(got, []int{200, 200, 200}) {
		t.Fatalf("the copy with the keyring of its time answers %v: it is no copy", got)
	}

	s = d.open(t, clock)
	officer := s.As(as2(s, "officer", ""))
	for name := range sizes {
		key := redoubt.ObjectName{Bucket: "reports", Key: "zyzzyva-erased-" + name}
		if err := s.EraseVersion(t.Context(), officer, key, redoubt.VersionID(ids["erased-"+name]), "spill"); err != nil {
			t.Fatal(err)
		}
	}
	s.Stop()
	if got := reads(d, "kept"); !slices.Equal(got, []int{200, 200, 200}) {
		t.Errorf("what was kept answers %v", got)
	}
	if got := reads(d, "erased"); !slices.Equal(got, []int{404, 404, 404}) {
		t.Errorf("what was erased answers %v", got)
	}

	// The state as it is, with the engine's key.
	engine := d.engine(t)
	plain := append(dump(t, engine), entries(t, engine)...)
	closing(t, engine)
	for _, text := range []string{"zyzzyva-erased-small", "zyzzyva-erased-middle", "zyzzyva-erased-large", "zyzzyva-erased-note"} {
		if bytes.Contains(plain, []byte(text)) {
			t.Errorf("%q is still in the store", text)
		}
	}
	if !bytes.Contains(plain, []byte("zyzzyva-kept-large")) {
		t.Error("what was kept is not in the store: the test looks in the wrong place")
	}
	// Sealed content that lay in an extent as it is must be gone from every file, sealed as it was.
	after := sealedBlobs(t, d)
	for ref, sealed := range blobs {
		if _, kept := after[ref]; kept || len(sealed) < 1<<20 {
			continue
		}
		if found, _ := grep(t, d.state(), map[string][][]byte{"sealed content": {sealed[5000:5064]}}); len(found) != 0 {
			t.Errorf("the sealed bytes of erased content lie on the disk: %v", found)
		}
		if found, _ := grep(t, filepath.Join(before.dir, "state"), map[string][][]byte{"sealed content": {sealed[5000:5064]}}); len(found) == 0 {
			t.Error("the sealed bytes are not in the copy from before either: the test looks in the wrong place")
		}
	}
	if len(after) != len(blobs)-len(sizes) {
		t.Errorf("%d blobs are left of %d, want %d fewer", len(after), len(blobs), len(sizes))
	}

	// The state from before, with the keyring as it is now.
	ring, err := os.ReadFile(d.ring())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(before.ring(), ring, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, status := range reads(before, "erased") {
		if status == http.StatusOK {
			t.Error("the keyring as it is now opens erased content in a copy of the disk from before")
		}
	}
}

func as2(s *redoubttest.Stack, who redoubt.SubjectName, marking string) redoubt.Minted {
	return s.MintFor(who, marking, redoubt.DefaultCredentialLife)
}

func canonical(t *testing.T, l label.Label) []byte {
	t.Helper()
	b, err := l.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func closing(t *testing.T, e store.Engine) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// dump is all that the engine's key opens.
func dump(t *testing.T, e store.Engine) []byte {
	t.Helper()
	view := e.View()
	defer view.Close()
	var out bytes.Buffer
	if err := store.Dump(t.Context(), view, e, &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// entries is the append stream, which the audit log is.
func entries(t *testing.T, e store.Engine) (out []byte) {
	t.Helper()
	view := e.View()
	defer view.Close()
	it := view.Scan(store.AppendKey(0), nil)
	defer it.Close()
	for it.Next() {
		out = append(append(out, it.Value()...), '\n')
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// sealedBlobs reads every blob of a state that nobody has open, as the caller of the store sealed it.
func sealedBlobs(t *testing.T, d *lasting) map[store.BlobRef][]byte {
	t.Helper()
	e := d.engine(t)
	defer closing(t, e)
	view := e.View()
	defer view.Close()
	out := map[store.BlobRef][]byte{}
	err := view.(store.Archive).EachBlob(t.Context(), func(ref store.BlobRef, size int64) error {
		b, err := e.OpenBlob(ref)
		if err != nil {
			return err
		}
		defer b.Close()
		out[ref] = make([]byte, size)
		if n, err := b.ReadAt(out[ref], 0); int64(n) < size {
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
