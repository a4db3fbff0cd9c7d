package redoubttest

import (
	"context"
	"crypto/sha256"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"redoubt"
	"redoubt/client"
)

// fact is a version that must be there: it was acknowledged, or it was found after a crash and is what somebody had asked for.
type fact struct {
	key, label string
	size       int64
	sum        [sha256.Size]byte
	marker     bool
	by         int // the worker
	request    string
	checked    bool // its content was read back after a crash
}

// asked is what a worker had sent when the server died: it may have happened or not.
type asked struct {
	fact
	remove redoubt.VersionID // asked to remove this one
	upload string            // to complete or abort this one
}

// upload is a multipart upload that must be there.
type uploading struct {
	key   string
	parts [][]byte // acknowledged, in order
	began bool     // complete or abort was asked for, and not answered
}

// worker is one client with one credential. It asks one thing at a time.
type worker struct {
	wire
	n       int
	label   string
	rand    *rand.Rand
	pending *asked
	order   map[string][]redoubt.VersionID // own versions under a key, oldest first
	uploads map[string]*uploading
	last    string // the last acknowledged request that wrote
	keys    []string
}

// model is what the server has acknowledged.
type model struct {
	mu    sync.Mutex
	facts map[redoubt.VersionID]*fact
	gone  map[redoubt.VersionID]bool
	acked int
	dying atomic.Bool // the crash has begun
}

// The labels that workers write at, and who sees them.
var (
	crashLabels = []struct {
		who     redoubt.SubjectName
		marking string
		label   string
		sees    []string
	}{
		{"u-analyst", "", "UNCLASSIFIED", []string{"UNCLASSIFIED"}},
		{"gbr-liaison", "", "SECRET//REL TO USA, GBR", []string{"UNCLASSIFIED", "SECRET//REL TO USA, GBR"}},
		{"s-analyst", "", "SECRET", []string{"UNCLASSIFIED", "SECRET//REL TO USA, GBR", "SECRET"}},
		{"ts-analyst", "", "TOP SECRET//SI/TK", []string{"UNCLASSIFIED", "SECRET//REL TO USA, GBR", "SECRET", "TOP SECRET//SI/TK"}},
	}
	top = len(crashLabels) - 1
)

const crashBucket = "reports"

// maxVersions is how many versions a worker keeps under a key, so that an hour of it neither fills the disk nor is spent on lists.
const maxVersions = 20

// work asks for one thing after another until the server is gone. An answer that is neither the thing nor a broken
// connection is a fault.
func (w *worker) work(ctx context.Context, m *model) error {
	for ctx.Err() == nil {
		err := w.step(ctx, m)
		var refused errStatus
		switch {
		case err == nil:
		case errors.As(err, &refused) && refused.Status == http.StatusConflict:
			if w.pending != nil && w.uploads[w.pending.upload] != nil {
				w.uploads[w.pending.upload].began = false
			}
			w.pending = nil // the label's key was rotated twice meanwhile: it was not done, and must not be found
		case errors.As(err, &refused) && refused.Status >= 500 && m.dying.Load():
			return nil // its disk is gone; what was asked stays pending
		case answered(err):
			return fmt.Errorf("worker %d at %s: %w", w.n, w.label, err)
		default:
			return nil // the server is gone; what was asked stays pending
		}
	}
	return nil
}

func (w *worker) step(ctx context.Context, m *model) error {
	key := w.keys[w.rand.IntN(len(w.keys))]
	if len(w.order[key]) > maxVersions {
		return w.remove(ctx, m, key)
	}
	switch p := w.rand.IntN(100); {
	case p < 55:
		return w.put(ctx, m, key, w.rand.IntN(8<<10))
	case p < 68:
		return w.put(ctx, m, key, 100<<10+w.rand.IntN(200<<10)) // both sides of what is kept inline
	case p < 71:
		return w.put(ctx, m, key, 1<<20+w.rand.IntN(2<<20))
	case p < 82:
		return w.mark(ctx, m, key)
	case p < 90:
		return w.remove(ctx, m, key)
	}
	return w.multipart(ctx, m, key)
}

// content is random, so that a digest tells what was meant.
func (w *worker) content(n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += 8 {
		v := w.rand.Uint64()
		for j := i; j < min(n, i+8); j++ {
			b[j] = byte(v)
			v >>= 8
		}
	}
	return b
}

// will notes what is about to be asked.
func (w *worker) will(a asked) {
	a.by, a.label = w.n, w.label
	w.pending = &a
}

// did notes what was acknowledged.
func (w *worker) did(m *model, id redoubt.VersionID, r Response) {
	a := w.pending
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acked++
	w.pending, w.last = nil, r.Header.Get("X-Amz-Request-Id")
	if a.upload != "" {
		delete(w.uploads, a.upload)
	}
	if a.remove != "" {
		delete(m.facts, a.remove)
		m.gone[a.remove] = true
		w.order[a.key] = slices.DeleteFunc(w.order[a.key], func(v redoubt.VersionID) bool { return v == a.remove })
		return
	}
	if id == "" {
		return
	}
	f := a.fact
	f.request = w.last
	m.facts[id] = &f
	w.order[a.key] = append(w.order[a.key], id)
}

func (w *worker) put(ctx context.Context, m *model, key string, n int) error {
	body := w.content(n)
	w.will(asked{fact: fact{key: key, size: int64(n), sum: sha256.Sum256(body)}})
	r, err := w.want(ctx, Request{Method: http.MethodPut, Bucket: crashBucket, Key: key, Body: body}, http.StatusOK)
	if err == nil {
		w.did(m, r.version(), r)
	}
	return err
}

func (w *worker) mark(ctx context.Context, m *model, key string) error {
	w.will(asked{fact: fact{key: key, marker: true}})
	r, err := w.want(ctx, Request{Method: http.MethodDelete, Bucket: crashBucket, Key: key}, http.StatusNoContent)
	if err == nil {
		w.did(m, r.version(), r)
	}
	return err
}

func (w *worker) remove(ctx context.Context, m *model, key string) error {
	own := w.order[key]
	if len(own) < 3 {
		return nil
	}
	id := own[w.rand.IntN(len(own))]
	w.will(asked{fact: fact{key: key}, remove: id})
	r, err := w.want(ctx, Request{Method: http.MethodDelete, Bucket: crashBucket, Key: key, Query: query("versionId", string(id))}, http.StatusNoContent)
	if err == nil {
		w.did(m, "", r)
	}
	return err
}

// multipart carries an upload one step on: some are left lying over a crash, and go on after it.
func (w *worker) multipart(ctx context.Context, m *model, key string) error {
	for id, u := range w.uploads {
		switch {
		case len(u.parts) == 0:
			return w.part(ctx, m, id, u, 5<<20)
		case len(u.parts) == 1:
			return w.part(ctx, m, id, u, 1+w.rand.IntN(200<<10))
		case w.rand.IntN(5) == 0:
			w.will(asked{fact: fact{key: u.key}, upload: id})
			u.began = true
			r, err := w.want(ctx, Request{Method: http.MethodDelete, Bucket: crashBucket, Key: u.key, Query: query("uploadId", id)}, http.StatusNoContent)
			if err == nil {
				w.did(m, "", r)
			}
			return err
		}
		return w.complete(ctx, m, id, u)
	}
	r, err := w.want(ctx, Request{Method: http.MethodPost, Bucket: crashBucket, Key: key, Query: query("uploads", "")}, http.StatusOK)
	if err != nil {
		return err
	}
	var made struct{ UploadId string }
	if err := xml.Unmarshal(r.Body, &made); err != nil {
		return errStatus{r}
	}
	w.uploads[made.UploadId] = &uploading{key: key}
	return nil
}

func (w *worker) part(ctx context.Context, m *model, id string, u *uploading, n int) error {
	body := w.content(n)
	_, err := w.want(ctx, Request{Method: http.MethodPut, Bucket: crashBucket, Key: u.key, Body: body,
		Query: query("uploadId", id, "partNumber", strconv.Itoa(len(u.parts)+1))}, http.StatusOK)
	if err == nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		u.parts = append(u.parts, body)
		m.acked++
	}
	return err
}

type partList struct {
	Part []struct {
		PartNumber int
		ETag       string
		Size       int64
	}
}

func (w *worker) parts(ctx context.Context, key, id string) (partList, error) {
	var l partList
	r, err := w.want(ctx, Request{Method: http.MethodGet, Bucket: crashBucket, Key: key, Query: query("uploadId", id)}, http.StatusOK)
	if err == nil {
		err = xml.Unmarshal(r.Body, &l)
	}
	return l, err
}

func (w *worker) complete(ctx context.Context, m *model, id string, u *uploading) error {
	l, err := w.parts(ctx, u.key, id)
	if err != nil {
		return err
	}
	var doc strings.Builder
	doc.WriteString("<CompleteMultipartUpload>")
	sum, size := sha256.New(), 0
	for i, p := range u.parts {
		if i >= len(l.Part) {
			return errStatus{Response{Status: 500, Body: fmt.Appendf(nil, "part %d of %d is gone", i+1, len(u.parts))}}
		}
		fmt.Fprintf(&doc, "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", i+1, l.Part[i].ETag)
		sum.Write(p)
		size += len(p)
	}
	doc.WriteString("</CompleteMultipartUpload>")
	w.will(asked{fact: fact{key: u.key, size: int64(size), sum: [sha256.Size]byte(sum.Sum(nil))}, upload: id})
	u.began = true
	r, err := w.want(ctx, Request{Method: http.MethodPost, Bucket: crashBucket, Key: u.key, Query: query("uploadId", id), Body: []byte(doc.String())}, http.StatusOK)
	if err == nil {
		w.did(m, r.version(), r)
	}
	return err
}

// seen is what a credential is shown of the bucket.
func seen(ctx context.Context, o *client.Objects) (list []client.Object, err error) {
	err = o.Versions(ctx, crashBucket, "", func(v client.Object) error { list = append(list, v); return nil })
	return list, err
}

// shownAs says whether those who see a label, and nobody else, are shown a version.
func shownAs(ctx context.Context, objects []*client.Objects, id redoubt.VersionID, label string) (bool, error) {
	for i, l := range crashLabels {
		list, err := seen(ctx, objects[i])
		if err != nil {
			return false, err
		}
		if is := slices.ContainsFunc(list, func(v client.Object) bool { return v.Version == id }); is != slices.Contains(l.sees, label) {
			return false, nil
		}
	}
	return true, nil
}

// check compares what the server shows with what it acknowledged, and takes up what it did without having been
// able to say so.
func (m *model) check(ctx context.Context, t *testing.T, workers []*worker, objects []*client.Objects, all bool) {
	t.Helper()
	high, err := seen(ctx, objects[top])
	if err != nil {
		t.Fatalf("listing: %v", err)
	}
	found := map[redoubt.VersionID]client.Object{}
	for _, v := range high {
		if _, twice := found[v.Version]; twice {
			t.Errorf("version %s is listed twice", v.Version)
		}
		found[v.Version] = v
	}
	for _, w := range workers {
		if a := w.pending; a != nil && a.remove != "" {
			if _, there := found[a.remove]; !there {
				w.did(m, "", Response{})
			}
		}
	}
	for id, f := range m.facts {
		v, there := found[id]
		if !there {
			t.Errorf("lost: version %s of %s at %s (marker %t, %d bytes), acknowledged by request %s", id, f.key, f.label, f.marker, f.size, f.request)
			continue
		}
		if v.Name.Key != f.key || v.Marker != f.marker || !v.Marker && v.SizeBytes != f.size {
			t.Errorf("version %s: listed as %+v, want %+v", id, v, f)
		}
	}
	for id, v := range found {
		if m.gone[id] {
			t.Errorf("version %s of %s was removed, and is back", id, v.Name.Key)
		} else if m.facts[id] == nil {
			m.adopt(ctx, t, workers, objects, v)
		}
	}
	for _, w := range workers {
		w.pending = nil
	}
	m.readBack(ctx, t, objects[top], all)
	m.views(ctx, t, workers, objects)
}

// adopt finds who asked for a version that nobody was told of. There is one who did, or it is garbage. Of markers of one key that several had asked for
// it is one at whose label it is: that who is shown it tells.
func (m *model) adopt(ctx context.Context, t *testing.T, workers []*worker, objects []*client.Objects, v client.Object) {
	t.Helper()
	for _, w := range workers {
		a := w.pending
		if a == nil || a.remove != "" || a.key != v.Name.Key || a.marker != v.Marker || !v.Marker && a.size != v.SizeBytes {
			continue
		}
		if !v.Marker {
			sum, label, err := digest(ctx, objects[top], v)
			if err != nil {
				t.Errorf("version %s of %s, which nobody was told of, does not read: %v", v.Version, v.Name.Key, err)
				return
			}
			if sum != a.sum || label != a.label {
				continue
			}
		} else if at, err := shownAs(ctx, objects, v.Version, w.label); err != nil {
			t.Errorf("listing: %v", err)
			return
		} else if !at {
			continue
		}
		w.did(m, v.Version, Response{})
		m.facts[v.Version].checked = !v.Marker
		return
	}
	t.Errorf("nobody asked for version %s of %s (marker %t, %d bytes)", v.Version, v.Name.Key, v.Marker, v.SizeBytes)
}

// digest reads a version to its end.
func digest(ctx context.Context, o *client.Objects, v client.Object) (sum [sha256.Size]byte, label string, err error) {
	got, r, err := o.Get(ctx, v.Name, v.Version)
	if err != nil {
		return sum, "", err
	}
	defer r.Close()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return sum, "", err
	}
	return [sha256.Size]byte(h.Sum(nil)), got.Label, nil
}

// sample is how many versions that were read after an earlier crash are read again after this one.
const sample = 25

// readBack reads what was not read after a crash yet, and some of what was.
func (m *model) readBack(ctx context.Context, t *testing.T, o *client.Objects, all bool) {
	t.Helper()
	again := 0
	for id, f := range m.facts { // in no order: another sample each time
		if f.marker || f.checked && !all {
			if again++; f.marker || again > sample {
				continue
			}
		}
		sum, label, err := digest(ctx, o, client.Object{Name: redoubt.ObjectName{Bucket: crashBucket, Key: f.key}, Version: id})
		switch {
		case err != nil:
			t.Errorf("version %s of %s at %s: %v", id, f.key, f.label, err)
		case sum != f.sum:
			t.Errorf("version %s of %s at %s (%d bytes): not the content that was acknowledged by request %s", id, f.key, f.label, f.size, f.request)
		case label != f.label:
			t.Errorf("version %s of %s: label %s, want %s", id, f.key, label, f.label)
		}
		f.checked = true
	}
}

// views: every credential is shown exactly the labels that it dominates, the versions of one worker in their order,
// and the lowest reader the newest of what it may see.
func (m *model) views(ctx context.Context, t *testing.T, workers []*worker, objects []*client.Objects) {
	t.Helper()
	for i, l := range crashLabels {
		list, err := seen(ctx, objects[i])
		if err != nil {
			t.Fatal(err)
		}
		place := map[redoubt.VersionID]int{}
		for n, v := range list {
			place[v.Version] = n
			if f := m.facts[v.Version]; f != nil && !slices.Contains(l.sees, f.label) {
				t.Errorf("%s is shown version %s, which is at %s", l.label, v.Version, f.label)
			}
		}
		want := 0
		for _, f := range m.facts {
			if slices.Contains(l.sees, f.label) {
				want++
			}
		}
		if len(list) != want {
			t.Errorf("%s is shown %d versions, want %d", l.label, len(list), want)
		}
		for _, w := range workers {
			if w.label != l.label {
				continue
			}
			for key, ids := range w.order {
				for j := 1; j < len(ids); j++ {
					if place[ids[j]] > place[ids[j-1]] {
						t.Errorf("%s: version %s was made after %s and is listed as older", key, ids[j], ids[j-1])
					}
				}
			}
		}
	}
	for _, w := range workers {
		if w.label != crashLabels[0].label {
			continue
		}
		for key, ids := range w.order {
			if strings.HasPrefix(key, "shared/") || len(ids) == 0 {
				continue
			}
			newest := m.facts[ids[len(ids)-1]]
			got, err := objects[0].Head(ctx, redoubt.ObjectName{Bucket: crashBucket, Key: key}, "")
			switch {
			case newest.marker && !errors.Is(err, redoubt.NotFound):
				t.Errorf("%s was deleted: got %+v, %v", key, got, err)
			case !newest.marker && (err != nil || got.Version != ids[len(ids)-1]):
				t.Errorf("%s: current is %s, %v; want %s", key, got.Version, err, ids[len(ids)-1])
			}
		}
	}
}

// uploads checks what is left of multipart uploads, and gives the bytes that lie in parts by label.
func (m *model) uploads(ctx context.Context, t *testing.T, workers []*worker) map[string]int64 {
	t.Helper()
	for _, w := range workers {
		for id, u := range w.uploads {
			l, err := w.parts(ctx, u.key, id)
			var refused errStatus
			if errors.As(err, &refused) && refused.Status == http.StatusNotFound && u.began {
				delete(w.uploads, id) // completed or aborted; a version of it was looked for above
				continue
			}
			if err != nil || len(l.Part) < len(u.parts) {
				t.Errorf("upload %s of %s at %s: %d parts, %v; %d were acknowledged", id, u.key, w.label, len(l.Part), err, len(u.parts))
				continue
			}
			for i, p := range u.parts {
				if l.Part[i].PartNumber != i+1 || l.Part[i].Size != int64(len(p)) {
					t.Errorf("upload %s: part %d is %+v, want %d bytes", id, i+1, l.Part[i], len(p))
				}
			}
			u.began = false
		}
	}
	bytes := map[string]int64{}
	for _, l := range crashLabels {
		i := slices.IndexFunc(workers, func(w *worker) bool { return w.label == l.label })
		w := workers[i]
		r, err := w.want(ctx, Request{Method: http.MethodGet, Bucket: crashBucket, Query: query("uploads", "")}, http.StatusOK)
		if err != nil {
			t.Fatal(err)
		}
		var list struct {
			Upload []struct{ Key, UploadId string }
		}
		if err := xml.Unmarshal(r.Body, &list); err != nil {
			t.Fatal(err)
		}
		for _, u := range list.Upload {
			parts, err := w.parts(ctx, u.Key, u.UploadId)
			if err != nil {
				t.Errorf("upload %s of %s at %s is listed, and its parts are not: %v", u.UploadId, u.Key, l.label, err)
			}
			for _, p := range parts.Part {
				bytes[l.label] += p.Size
			}
		}
	}
	return bytes
}

// recount compares the counters with the versions and parts that are there.
func (m *model) recount(ctx context.Context, t *testing.T, admin *client.Client, parts map[string]int64) {
	t.Helper()
	type count struct{ versions, bytes int64 }
	want := map[string]count{}
	for _, f := range m.facts {
		c := want[f.label]
		want[f.label] = count{c.versions + 1, c.bytes + f.size}
	}
	for label, n := range parts {
		c := want[label]
		want[label] = count{c.versions, c.bytes + n}
	}
	usage, err := admin.Usage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range usage {
		if got := (count{u.Versions, u.Bytes}); got != want[u.Label] {
			t.Errorf("counters at %s: got %+v, a recount gives %+v", u.Label, got, want[u.Label])
		}
		delete(want, u.Label)
	}
	for label, c := range want {
		if c != (count{}) {
			t.Errorf("counters at %s are missing, a recount gives %+v", label, c)
		}
	}
}
