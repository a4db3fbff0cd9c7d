package redoubttest_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"redoubt"
	"redoubt/keys"
	"redoubt/redoubttest"
	"redoubt/store"
	"redoubt/store/embedded"
	"redoubt/store/memory"
)

var linearOps = flag.Int("linearizable.ops", 120, "operations of each client in a round of TestConcurrentClientsAreLinearizable")

// Two working labels, one above the other.
const (
	low  = 0 // UNCLASSIFIED
	high = 1 // SECRET
)

// linearIn is one request about one key, as the model knows it. Values are contents, and each is written once.
type linearIn struct {
	key   string
	by    int // low or high
	op    string
	value string // written, or of the version removed
	match string // If-Match: the value whose ETag it names; "*": any
	none  bool   // If-None-Match: *
}

// linearOut is what came back: "ok", "missing", "precondition" or "conflict", and the value read.
type linearOut struct{ status, value string }

// The state of a key is its versions and markers in their order, each "L=value" or "L!", L the label. What a
// reader sees of it is RULES 2.2, word for word: the newest version that it dominates and that
// no marker hides, and a marker hides only older versions whose label its own dominates.
func currentFor(state string, reader int) (value string, ok bool) {
	entries := strings.Fields(state)
	for i := len(entries) - 1; i >= 0; i-- {
		l := int(entries[i][0] - '0')
		if l > reader || entries[i][1] == '!' {
			continue
		}
		hidden := false
		for _, later := range entries[i+1:] {
			m := int(later[0] - '0')
			hidden = hidden || later[1] == '!' && m <= reader && m >= l
		}
		if !hidden {
			return entries[i][2:], true
		}
	}
	return "", false
}

// linearModel is the sequential specification.
var linearModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, op := range history {
			key := op.Input.(linearIn).key
			byKey[key] = append(byKey[key], op)
		}
		var out [][]porcupine.Operation
		for _, ops := range byKey {
			out = append(out, ops)
		}
		return out
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		ok, next := linearStep(state.(string), input.(linearIn), output.(linearOut))
		return ok, next
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

func linearStep(state string, in linearIn, out linearOut) (bool, string) {
	cur, there := currentFor(state, in.by)
	if in.op == "get" {
		if !there {
			return out.status == "missing", state
		}
		return out.status == "ok" && out.value == cur, state
	}
	if out.status == "conflict" { // a write that was overtaken while it came in: nothing happened
		return in.match != "" || in.none, state
	}
	if in.match != "" && !there {
		return out.status == "missing", state
	}
	if in.match != "" && in.match != "*" && in.match != cur || in.none && there {
		return out.status == "precondition", state
	}
	if out.status != "ok" {
		return false, state
	}
	switch in.op {
	case "put":
		return true, strings.TrimSpace(fmt.Sprintf("%s %d=%s", state, in.by, in.value))
	case "delete":
		return true, withoutHidden(fmt.Sprintf("%s %d!", state, in.by), in.by)
	case "remove":
		return true, strings.Join(slices.DeleteFunc(strings.Fields(state), func(e string) bool { return e == fmt.Sprintf("%d=%s", in.by, in.value) }), " ")
	}
	return false, state
}

// withoutHidden drops what can matter to no reader any more, so that orders that come to the same are one state. The last
// entry is a marker of label l, and markers are never removed here: nobody sees what of its own label lies under it. It
// stays itself only where it may hide something lower from a high reader.
func withoutHidden(state string, l int) string {
	entries := strings.Fields(state)
	var kept []string
	lower := false
	for _, e := range entries[:len(entries)-1] {
		if int(e[0]-'0') != l {
			kept, lower = append(kept, e), lower || int(e[0]-'0') < l
		}
	}
	if lower {
		kept = append(kept, entries[len(entries)-1])
	}
	return strings.Join(kept, " ")
}

// client is one of those who act at once. It knows the ETags of what it has written and read.
type client struct {
	s      *redoubttest.Stack
	minted redoubt.Minted
	by, id int
	r      *rand.Rand
	etags  map[string][]string // by key: "value etag"
	mine   map[string][]string // by key: "value version" that it made
	n      int
	since  func() int64
	ops    []porcupine.Operation
	faults []string
}

var linearKeys = []string{"one", "two", "three"}

const padTo = 150 << 10 // beyond what waits in memory: such a write takes its place when it begins

func (c *client) step() {
	in := linearIn{key: pick(c.r, linearKeys), by: c.by}
	req := redoubttest.Request{Method: http.MethodPut, Bucket: "reports", Key: in.key, Header: http.Header{}, Query: url.Values{}}
	made := ""
	switch x := c.r.IntN(20); {
	case x < 8:
		in.op, req.Method = "get", http.MethodGet
	case x < 11:
		in.op, req.Method = "delete", http.MethodDelete
	case x == 11 && len(c.mine[in.key]) > 0:
		in.op, req.Method = "remove", http.MethodDelete
		last := len(c.mine[in.key]) - 1
		in.value, made, _ = strings.Cut(c.mine[in.key][last], " ")
		c.mine[in.key] = c.mine[in.key][:last]
		req.Query.Set("versionId", made)
	default:
		in.op = "put"
		c.n++
		in.value = fmt.Sprintf("c%d-%d", c.id, c.n)
		req.Body = []byte(in.value + ".")
		if c.r.IntN(12) == 0 {
			req.Body = append(req.Body, bytes.Repeat([]byte("x"), padTo)...)
		}
		switch {
		case x >= 18:
			in.none = true
			req.Header.Set("If-None-Match", "*")
		case x >= 15 && len(c.etags[in.key]) > 0:
			known := c.etags[in.key]
			var etag string
			in.match, etag, _ = strings.Cut(known[len(known)-1], " ")
			req.Header.Set("If-Match", `"`+etag+`"`)
		}
	}
	call := c.since()
	res := c.s.Do(c.minted, req)
	op := porcupine.Operation{ClientId: c.id, Input: in, Call: call, Return: c.since()}
	out := linearOut{}
	switch res.Status {
	case http.StatusOK, http.StatusNoContent:
		out.status = "ok"
	case http.StatusNotFound:
		out.status = "missing"
	case http.StatusPreconditionFailed:
		out.status = "precondition"
	case http.StatusConflict:
		out.status = "conflict"
	default:
		c.faults = append(c.faults, fmt.Sprintf("%+v: %d %s", in, res.Status, res.Body))
		return
	}
	if in.op == "get" && out.status == "ok" {
		out.value, _, _ = strings.Cut(string(res.Body), ".")
	}
	if etag := strings.Trim(res.Header.Get("Etag"), `"`); etag != "" && out.status == "ok" {
		value := in.value
		if in.op == "get" {
			value = out.value
		}
		c.etags[in.key] = append(c.etags[in.key], value+" "+etag)
		if in.op == "put" {
			c.mine[in.key] = append(c.mine[in.key], in.value+" "+res.Header.Get("X-Amz-Version-Id"))
		}
	}
	op.Output = out
	c.ops = append(c.ops, op)
}

// play lets clients act at once and gives what they saw.
func play(t *testing.T, s *redoubttest.Stack, clients []*client, ops int) {
	t.Helper()
	var wg sync.WaitGroup
	for _, c := range clients {
		c.s = s
		c.minted = s.Mint([]redoubt.SubjectName{low: "u-analyst", high: "s-analyst"}[c.by], "")
	}
	for _, c := range clients {
		wg.Go(func() {
			for range ops {
				c.step()
			}
		})
	}
	wg.Wait()
}

func newClients(seed uint64) []*client {
	start := time.Now()
	var out []*client
	for i := range 6 {
		out = append(out, &client{by: i % 2, id: i, r: rand.New(rand.NewPCG(seed, uint64(i))), etags: map[string][]string{}, mine: map[string][]string{},
			since: func() int64 { return int64(time.Since(start)) }})
	}
	return out
}

func checkLinear(t *testing.T, clients []*client) {
	t.Helper()
	var history []porcupine.Operation
	for _, c := range clients {
		for _, f := range c.faults {
			t.Error(f)
		}
		history = append(history, c.ops...)
	}
	if len(history) < 100 {
		t.Fatalf("only %d operations were recorded", len(history))
	}
	result, info := porcupine.CheckOperationsVerbose(linearModel, history, time.Minute)
	if result == porcupine.Ok {
		return
	}
	path := filepath.Join(t.ArtifactDir(), "history.html")
	if err := porcupine.VisualizePath(linearModel, info, path); err != nil {
		t.Error(err)
	}
	t.Errorf("%d operations: %v; see %s", len(history), result, path)
}

// realTime is a wall clock that does not go back.
func realTime() func() time.Time {
	start := time.Now()
	wall := start.Round(0)
	return func() time.Time { return wall.Add(time.Since(start)) }
}

// TestConcurrentClientsAreLinearizable has clients at two labels write, read, delete and remove the same few names at once,
// with and without conditions, the high ones reading low. There must be one order of all that explains every answer.
func TestConcurrentClientsAreLinearizable(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		for seed := range uint64(3) {
			s := redoubttest.New(t, redoubttest.Options{Seed: seed, Engine: memory.Open(), Time: realTime()})
			clients := newClients(seed)
			play(t, s, clients, *linearOps)
			checkLinear(t, clients)
		}
	})
	t.Run("embedded, with a reopening between", func(t *testing.T) {
		d := newLasting(t)
		clients := newClients(9)
		clock := realTime()
		for range 3 {
			s := d.open(t, clock)
			play(t, s, clients, *linearOps/2)
			s.Stop()
		}
		checkLinear(t, clients)
	})
}

// lasting is the state of an enclave that is opened more than once.
type lasting struct {
	dir       string
	engineKey []byte
	opened    uint64
	o         redoubttest.Options
}

func newLasting(t *testing.T) *lasting {
	t.Helper()
	d := &lasting{dir: t.TempDir(), engineKey: bytes.Repeat([]byte{7}, 32)}
	ring, err := keys.Create(d.ring(), d.unlock(), redoubttest.NewRand(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := ring.Close(); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *lasting) ring() string        { return filepath.Join(d.dir, "ring") }
func (d *lasting) state() string       { return filepath.Join(d.dir, "state") }
func (d *lasting) unlock() keys.Unlock { return keys.KeyFile(filepath.Join(d.dir, "unlock")) }

// engine opens the store alone.
func (d *lasting) engine(t *testing.T) store.Engine {
	t.Helper()
	e, err := embedded.Open(d.state(), embedded.Options{Key: d.engineKey, SegmentBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// open starts the enclave on it.
func (d *lasting) open(t *testing.T, clock func() time.Time) *redoubttest.Stack {
	t.Helper()
	ring, err := keys.Open(d.ring(), d.unlock())
	if err != nil {
		t.Fatal(err)
	}
	o := d.o
	o.Seed, o.Session, o.Engine, o.Keys, o.Time = 1, d.opened, d.engine(t), ring, clock
	d.opened++
	return redoubttest.New(t, o)
}

// TestTheModelRefuses: a specification that takes everything would prove nothing.
func TestTheModelRefuses(t *testing.T) {
	at := func(n int64, in linearIn, out linearOut) porcupine.Operation {
		in.key = "k"
		return porcupine.Operation{Input: in, Output: out, Call: 2 * n, Return: 2*n + 1}
	}
	put := func(n int64, by int, v string) porcupine.Operation {
		return at(n, linearIn{by: by, op: "put", value: v}, linearOut{status: "ok"})
	}
	get := func(n int64, by int, status, v string) porcupine.Operation {
		return at(n, linearIn{by: by, op: "get"}, linearOut{status, v})
	}
	del := func(n int64, by int) porcupine.Operation {
		return at(n, linearIn{by: by, op: "delete"}, linearOut{status: "ok"})
	}
	for _, c := range []struct {
		name    string
		history []porcupine.Operation
		want    bool
	}{
		{"a low reader sees a high version", []porcupine.Operation{put(0, high, "h"), get(1, low, "ok", "h")}, false},
		{"a high reader sees the newest", []porcupine.Operation{put(0, high, "h"), put(1, low, "l"), get(2, high, "ok", "l")}, true},
		{"a high reader sees what is older", []porcupine.Operation{put(0, high, "h"), put(1, low, "l"), get(2, high, "ok", "h")}, false},
		{"a low delete hides a high version", []porcupine.Operation{put(0, high, "h"), del(1, low), get(2, high, "missing", "")}, false},
		{"a low delete uncovers a high version", []porcupine.Operation{put(0, high, "h"), put(1, low, "l"), del(2, low), get(3, high, "ok", "h")}, true},
		{"a high delete hides a low version from the high", []porcupine.Operation{put(0, low, "l"), del(1, high), get(2, high, "missing", "")}, true},
		{"a high delete hides a low version from the low", []porcupine.Operation{put(0, low, "l"), del(1, high), get(2, low, "missing", "")}, false},
		{"an acknowledged write is lost", []porcupine.Operation{put(0, low, "a"), get(1, low, "missing", "")}, false},
		{"two make what must not exist", []porcupine.Operation{
			at(0, linearIn{by: low, op: "put", value: "a", none: true}, linearOut{status: "ok"}),
			at(1, linearIn{by: low, op: "put", value: "b", none: true}, linearOut{status: "ok"})}, false},
		{"a high version does not stop a low condition", []porcupine.Operation{put(0, high, "h"),
			at(1, linearIn{by: low, op: "put", value: "b", none: true}, linearOut{status: "ok"})}, true},
		{"a removed version uncovers the one before", []porcupine.Operation{put(0, low, "a"), put(1, low, "b"),
			at(2, linearIn{by: low, op: "remove", value: "b"}, linearOut{status: "ok"}), get(3, low, "ok", "a")}, true},
	} {
		if got := porcupine.CheckOperations(linearModel, c.history); got != c.want {
			t.Errorf("%s: the model says %v, want %v", c.name, got, c.want)
		}
	}
}

// hooked is an engine that calls what a test hangs in before it reads.
type hooked struct {
	store.Restorer
	mu       sync.Mutex
	get      func(key []byte) // before a read
	after    func(key []byte) // after it
	openBlob func(store.BlobRef)
}

// take gives what hangs in a hook.
func (h *hooked) take(hook *func(key []byte)) func(key []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return *hook
}

func (h *hooked) Get(key []byte) ([]byte, bool, error) {
	if f := h.take(&h.get); f != nil {
		f(key)
	}
	if f := h.take(&h.after); f != nil {
		defer f(key)
	}
	return h.Restorer.Get(key)
}

func (h *hooked) OpenBlob(ref store.BlobRef) (store.Blob, error) {
	h.mu.Lock()
	f := h.openBlob
	h.openBlob = nil
	h.mu.Unlock()
	if f != nil {
		f(ref)
	}
	return h.Restorer.OpenBlob(ref)
}

// hookedView calls the same hook.
type hookedView struct {
	store.Archive
	h *hooked
}

func (h *hooked) View() store.View { return hookedView{h.Restorer.View().(store.Archive), h} }

func (v hookedView) Get(key []byte) ([]byte, bool, error) {
	if f := v.h.take(&v.h.get); f != nil {
		f(key)
	}
	return v.Archive.Get(key)
}

// TestAReadSeesOneMoment: between reading the head of one label and that of another, a high write and a low delete
// are acknowledged. There was no moment at which a high reader would have found nothing.
func TestAReadSeesOneMoment(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		engine := &hooked{Restorer: memory.Open()}
		s := redoubttest.New(t, redoubttest.Options{Engine: engine, Time: realTime()})
		u, h := s.Mint("u-analyst", ""), s.Mint("s-analyst", "")
		req := func(method, body string) redoubttest.Request {
			return redoubttest.Request{Method: method, Bucket: "reports", Key: "one", Body: []byte(body)}
		}
		if res := s.Do(u, req(http.MethodPut, "low")); res.Status != http.StatusOK {
			t.Fatalf("put: %d %s", res.Status, res.Body)
		}
		if res := s.Do(h, req(http.MethodPut, "first")); res.Status != http.StatusOK {
			t.Fatalf("put: %d %s", res.Status, res.Body)
		}
		if res := s.Do(h, redoubttest.Request{Method: http.MethodDelete, Bucket: "reports", Key: "one", Query: url.Values{"versionId": {
			s.Do(h, req(http.MethodHead, "")).Header.Get("X-Amz-Version-Id")}}}); res.Status != http.StatusNoContent {
			t.Fatalf("delete: %d %s", res.Status, res.Body)
		}
		reads := 0
		engine.mu.Lock()
		engine.get = func(key []byte) {
			if key[0] != 'h' || !bytes.Contains(key, []byte("one\x00")) {
				return
			}
			if reads++; reads != 2 {
				return
			}
			engine.mu.Lock()
			engine.get = nil
			engine.mu.Unlock()
			if res := s.Do(h, req(http.MethodPut, "high")); res.Status != http.StatusOK {
				t.Errorf("put: %d %s", res.Status, res.Body)
			}
			if res := s.Do(u, req(http.MethodDelete, "")); res.Status != http.StatusNoContent {
				t.Errorf("delete: %d %s", res.Status, res.Body)
			}
		}
		engine.mu.Unlock()
		if res := s.Do(h, req(method, "")); res.Status != http.StatusOK {
			t.Errorf("%s: got %d, want 200: a high reader always had something to see", method, res.Status)
		}
		if reads < 2 {
			t.Errorf("%s read %d heads: the test did not come between", method, reads)
		}
	}
}

// TestAHoldKeepsAVersionFromExpiry: a legal hold is acknowledged after lifecycle has looked at a version and before it removes it.
func TestAHoldKeepsAVersionFromExpiry(t *testing.T) {
	engine := &hooked{Restorer: memory.Open()}
	s := redoubttest.New(t, redoubttest.Options{Engine: engine, Buckets: []redoubt.Bucket{{Name: "locked", BucketSettings: redoubt.BucketSettings{
		Lock: redoubt.LockSettings{Enabled: true}, Lifecycle: []redoubt.LifecycleRule{{NoncurrentDays: 1}}}}}})
	u := s.MintFor("u-analyst", "", redoubt.MaxCredentialLife)
	old := s.Do(u, redoubttest.Request{Method: http.MethodPut, Bucket: "locked", Key: "one", Body: []byte("evidence")})
	s.Do(u, redoubttest.Request{Method: http.MethodPut, Bucket: "locked", Key: "one", Body: []byte("newer")})
	version := url.Values{"versionId": {old.Header.Get("X-Amz-Version-Id")}}
	s.Clock.Add(3 * 24 * time.Hour)
	came := false
	engine.mu.Lock()
	engine.after = func(key []byte) {
		if key[0] != 'v' || !bytes.Contains(key, []byte("one\x00")) {
			return
		}
		engine.mu.Lock()
		engine.after = nil
		engine.mu.Unlock()
		came = true
		hold := url.Values{"legal-hold": {""}, "versionId": version["versionId"]}
		res := s.Do(u, redoubttest.Request{Method: http.MethodPut, Bucket: "locked", Key: "one", Query: hold, Body: []byte("<LegalHold><Status>ON</Status></LegalHold>")})
		if res.Status != http.StatusOK {
			t.Errorf("hold: %d %s", res.Status, res.Body)
		}
	}
	engine.mu.Unlock()
	if err := s.Expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !came {
		t.Fatal("the test did not come between")
	}
	res := s.Do(u, redoubttest.Request{Method: http.MethodGet, Bucket: "locked", Key: "one", Query: version})
	if res.Status != http.StatusOK || string(res.Body) != "evidence" {
		t.Errorf("got %d %q, want what the hold was put on", res.Status, res.Body)
	}
}

// TestAReadKeepsWhatItFound: the version that a GET found is removed before its content is opened. The reader must
// get it, or the one before it, and not that there is none.
func TestAReadKeepsWhatItFound(t *testing.T) {
	engine := &hooked{Restorer: memory.Open()}
	s := redoubttest.New(t, redoubttest.Options{Engine: engine, Time: realTime()})
	u := s.Mint("u-analyst", "")
	at := redoubttest.Request{Method: http.MethodPut, Bucket: "reports", Key: "one", Body: []byte("before")}
	s.Do(u, at)
	at.Body = []byte("after")
	last := s.Do(u, at)
	came := false
	engine.mu.Lock()
	engine.openBlob = func(store.BlobRef) {
		came = true
		res := s.Do(u, redoubttest.Request{Method: http.MethodDelete, Bucket: "reports", Key: "one", Query: url.Values{"versionId": {last.Header.Get("X-Amz-Version-Id")}}})
		if res.Status != http.StatusNoContent {
			t.Errorf("delete: %d %s", res.Status, res.Body)
		}
	}
	engine.mu.Unlock()
	res := s.Do(u, redoubttest.Request{Method: http.MethodGet, Bucket: "reports", Key: "one"})
	if got := string(res.Body); res.Status != http.StatusOK || got != "before" && got != "after" {
		t.Errorf("got %d %q, want one of the two versions", res.Status, got)
	}
	if !came {
		t.Error("the test did not come between")
	}
}

// meanwhile is a body that does something when it has given its first part.
type meanwhile struct {
	first, rest io.Reader
	do          func()
}

func (m *meanwhile) Read(p []byte) (int, error) {
	if n, err := m.first.Read(p); err == nil {
		return n, nil
	}
	if m.do != nil {
		m.do()
		m.do = nil
	}
	return m.rest.Read(p)
}

// TestALargeWriteIsTheNewestWhenItIsAcknowledged: a small conditional write comes and goes while a large one comes in. The small one
// came after what it compared with, and so the large one after it.
func TestALargeWriteIsTheNewestWhenItIsAcknowledged(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{Time: realTime()})
	u := s.Mint("u-analyst", "")
	first := s.Do(u, redoubttest.Request{Method: http.MethodPut, Bucket: "reports", Key: "one", Body: []byte("first")})
	size := int64(padTo + 3)
	body := &meanwhile{first: bytes.NewReader(make([]byte, padTo)), rest: strings.NewReader("end"), do: func() {
		res := s.Do(u, redoubttest.Request{Method: http.MethodPut, Bucket: "reports", Key: "one", Body: []byte("small"), Header: http.Header{"If-Match": {first.Header.Get("Etag")}}})
		if res.Status != http.StatusOK {
			t.Errorf("put: %d %s", res.Status, res.Body)
		}
	}}
	v, err := s.PutObject(t.Context(), s.As(u), redoubt.PutObject{Name: redoubt.ObjectName{Bucket: "reports", Key: "one"}, SizeBytes: size, Body: body})
	if err != nil {
		t.Fatal(err)
	}
	get := s.Do(u, redoubttest.Request{Method: http.MethodGet, Bucket: "reports", Key: "one"})
	if got := get.Header.Get("X-Amz-Version-Id"); got != string(v.ID) || int64(len(get.Body)) != size {
		t.Errorf("after the large write %s the reader got %s of %d bytes", v.ID, got, len(get.Body))
	}
}

// TestAnAcknowledgedConditionalWriteIsSeen: a large write takes its place in the order when it begins. One that was to make what did
// not exist must not be acknowledged where a delete that came between hides it.
func TestAnAcknowledgedConditionalWriteIsSeen(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{Time: realTime()})
	u := s.Mint("u-analyst", "")
	one := redoubttest.Request{Method: http.MethodPut, Bucket: "reports", Key: "one", Body: []byte("first")}
	s.Do(u, one)
	body := &meanwhile{first: bytes.NewReader(make([]byte, padTo)), rest: strings.NewReader("end"), do: func() {
		if res := s.Do(u, redoubttest.Request{Method: http.MethodDelete, Bucket: "reports", Key: "one"}); res.Status != http.StatusNoContent {
			t.Errorf("delete: %d %s", res.Status, res.Body)
		}
	}}
	_, err := s.PutObject(t.Context(), s.As(u), redoubt.PutObject{Name: redoubt.ObjectName{Bucket: "reports", Key: "one"},
		If: redoubt.Conditions{IfNoneMatch: []string{"*"}}, SizeBytes: -1, Body: body})
	get := s.Do(u, redoubttest.Request{Method: http.MethodHead, Bucket: "reports", Key: "one"})
	if err == nil && get.Status != http.StatusOK {
		t.Errorf("the write was acknowledged, and then there is nothing (%d)", get.Status)
	}
	if err != nil && !errors.Is(err, redoubt.Conflict) {
		t.Errorf("got %v, want a conflict or a success", err)
	}
}
