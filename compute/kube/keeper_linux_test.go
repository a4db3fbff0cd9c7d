package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/compute/computetest"
	"redoubt/faketime"
)

// told is what a keeper answers a request with a key.
func told(h http.HandlerFunc, method, path, key string, body []byte) int {
	w, r := httptest.NewRecorder(), httptest.NewRequest(method, path, bytes.NewReader(body))
	r.Header.Set(keyHeader, key)
	h(w, r)
	return w.Code
}

// A program can reach its keeper's socket, and gets nothing from it.
func TestAKeeperObeysWhoBeganIt(t *testing.T) {
	k := newKeeper(alone)
	known := k.known(func(http.ResponseWriter, *http.Request) {})
	if got := told(known, "GET", watchPath, "", nil); got != http.StatusForbidden {
		t.Errorf("before it has begun: %d", got)
	}
	for name, bad := range map[string]string{"nothing": "", "no program": `{"args":[],"port":80}`, "no port": `{"args":["eA=="]}`, "a port too far": `{"args":["eA=="],"port":65536}`} {
		if got := told(k.begin, "POST", beginPath, "one", []byte(bad)); got != http.StatusBadRequest {
			t.Errorf("%s: %d", name, got)
		}
	}
	b, err := json.Marshal(task{Args: raw([]string{"/bin/true"}), Dir: "/", Port: 80})
	if err != nil {
		t.Fatal(err)
	}
	if got := told(k.begin, "POST", beginPath, "", b); got != http.StatusBadRequest {
		t.Errorf("without a key: %d", got)
	}
	if got := told(k.begin, "POST", beginPath, "one", b); got != http.StatusOK {
		t.Errorf("the first: %d", got)
	}
	for key, want := range map[string]int{"one": http.StatusOK, "two": http.StatusForbidden, "": http.StatusForbidden} {
		if got := told(known, "GET", watchPath, key, nil); got != want {
			t.Errorf("%q: got %d, want %d", key, got, want)
		}
	}
	if got := told(k.begin, "POST", beginPath, "one", b); got != http.StatusForbidden {
		t.Errorf("a second program: %d", got)
	}
	<-k.ended
}

// Whoever reaches the socket is asked for the key, whatever is asked for.
func TestAKeeperAnswersNothingWithoutItsKey(t *testing.T) {
	program, err := net.Listen("tcp", "127.0.0.1:0") // what the keeper would connect with
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	k, l := newKeeper(alone), make(listener)
	served := make(chan error, 1)
	go func() { served <- k.serve(l) }()
	near, far := net.Pipe()
	l <- far
	h := &http.Transport{Protocols: new(http.Protocols), DialContext: func(context.Context, string, string) (net.Conn, error) { return near, nil }}
	h.Protocols.SetUnencryptedHTTP2(true)
	c, err := h.NewClientConn(t.Context(), "http", "keeper:80")
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path, key string, body []byte) int {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context()) // some answers have no end
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, method, "http://keeper"+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(keyHeader, key)
		res, err := c.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res.StatusCode
	}
	begin, err := json.Marshal(task{Args: raw([]string{"/bin/true"}), Dir: "/", Port: program.Addr().(*net.TCPAddr).Port})
	if err != nil {
		t.Fatal(err)
	}
	routes := map[string]string{connectPath: "POST", watchPath: "GET"}
	for path, method := range routes {
		if got := ask(method, path, "", nil); got != http.StatusForbidden {
			t.Errorf("%s before it has begun: %d", path, got)
		}
	}
	if got := ask("POST", beginPath, "one", begin); got != http.StatusOK {
		t.Fatalf("begin: %d", got)
	}
	routes[beginPath] = "POST"
	for path, method := range routes {
		for _, key := range []string{"", "two", "on", "ones"} {
			if got := ask(method, path, key, begin); got != http.StatusForbidden {
				t.Errorf("%s with the key %q: %d", path, key, got)
			}
		}
	}
	for _, path := range []string{connectPath, watchPath} {
		if got := ask(routes[path], path, "one", nil); got != http.StatusOK {
			t.Errorf("%s with its key: %d", path, got)
		}
	}
	<-k.ended
	c.Close()
	k.mu.Lock()
	k.lonely.Reset(0)
	k.mu.Unlock()
	<-served
}

// A body is read of who may begin something alone.
func TestAKeeperThatHasBegunReadsNothingMoreToBegin(t *testing.T) {
	k := newKeeper(alone)
	k.key = "one"
	w, r := httptest.NewRecorder(), httptest.NewRequest("POST", beginPath, unread{t})
	r.Header.Set(keyHeader, "two")
	if k.begin(w, r); w.Code != http.StatusForbidden {
		t.Errorf("got %d", w.Code)
	}
}

type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("it is read")
	return 0, io.EOF
}

// The program may connect with its keeper, and not as often as it likes at once.
func TestConnectionsWithAKeeperAreBounded(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		k, l := newKeeper(alone), make(listener)
		served := make(chan error, 1)
		go func() { served <- k.serve(l) }()
		var ours []net.Conn
		connect := func() bool {
			near, far := net.Pipe()
			synctest.Wait()
			select {
			case l <- far:
				ours = append(ours, near)
				return true
			default:
				return false
			}
		}
		for n := range keeperJoined {
			if !connect() {
				t.Fatalf("number %d is not taken", n+1)
			}
		}
		if connect() {
			t.Error("one too many is taken")
		}
		ours[0].Close()
		if !connect() {
			t.Error("none is taken when another has ended")
		}
		<-k.left
		<-served
	})
}

// A pod whose node has gone ends by itself.
func TestAKeeperThatNobodyWatchesEnds(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		k := newKeeper(alone)
		left := func() bool {
			synctest.Wait()
			select {
			case <-k.left:
				return true
			default:
				return false
			}
		}
		watch := func() (end func()) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				k.watch(httptest.NewRecorder(), httptest.NewRequest("GET", watchPath, nil).WithContext(ctx))
			}()
			synctest.Wait()
			return func() { cancel(); <-done }
		}
		time.Sleep(alone - time.Second)
		first := watch()
		time.Sleep(2 * alone)
		second := watch() // the stream of the first has broken, and it has not been told yet
		first()
		time.Sleep(2 * alone)
		if left() {
			t.Error("it has ended while it was watched")
		}
		second()
		time.Sleep(alone - time.Second)
		if left() {
			t.Error("it has ended too soon")
		}
		time.Sleep(2 * time.Second)
		if !left() {
			t.Error("it goes on")
		}
	})
}

func TestWordsThatNobodyIsToldAreBounded(t *testing.T) {
	w := words{news: make(chan struct{}, 1)}
	for range maxWords/1000 + 10 {
		w.Write(bytes.Repeat([]byte("x"), 1000))
	}
	w.Write([]byte("the last"))
	if got := w.take(); len(got) != maxWords || !bytes.HasSuffix(got, []byte("the last")) {
		t.Errorf("%d bytes are kept", len(got))
	}
}

// keeper has a false one answer, which says what it likes.
func (c *cluster) keeper(t *testing.T, watch, begin http.HandlerFunc) {
	l, err := net.Listen("unix", t.TempDir()+"/keeper")
	if err != nil {
		t.Fatal(err)
	}
	m := http.NewServeMux()
	m.HandleFunc(beginPath, begin)
	m.HandleFunc(watchPath, watch)
	s := &http.Server{Handler: m, Protocols: new(http.Protocols)}
	s.Protocols.SetUnencryptedHTTP2(true)
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	c.join = func(ctx context.Context, _ string, in io.Reader, out io.Writer) error {
		return join(l.Addr().String(), in, out)
	}
}

func TestWhatAKeeperSaysIsHeldToItsForm(t *testing.T) {
	well := func(http.ResponseWriter, *http.Request) {}
	wait := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for name, x := range map[string]struct {
		watch, begin http.HandlerFunc
		want         string
	}{
		"rubbish": {func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "rubbish, and long enough for a frame")
		}, well, "makes no sense"},
		"a frame too long":  {func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte{0, 0xff, 0, 0, sayOut}) }, well, "makes no sense"},
		"another kind":      {func(w http.ResponseWriter, _ *http.Request) { (&frames{w: w}).write(sayFile, nil) }, well, "makes no sense"},
		"an end that is no": {func(w http.ResponseWriter, _ *http.Request) { (&frames{w: w}).write(sayExit, []byte("{")) }, well, "makes no sense"},
		"no exit code": {func(w http.ResponseWriter, _ *http.Request) {
			(&frames{w: w}).writeJSON(sayExit, ending{Code: 1 << 20})
		}, well, "there is none of"},
		"refused to watch": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, well, "makes no sense"},
		"a flood of a fault": {wait, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(faultHeader, "1")
			w.WriteHeader(http.StatusInternalServerError)
			w.Write(bytes.Repeat([]byte("\x1b[31m"), 1<<20))
		}, "cannot be begun: "},
	} {
		c := newCluster()
		c.agents(t)
		c.keeper(t, x.watch, x.begin)
		s, _, _ := computetest.Programs{Load: func(_ *testing.T, r *computetest.Run, _ []byte) redoubt.SubmitJob { return withImage(r, "/true") }, GOOS: "linux", GOARCH: "amd64"}.Service(t)
		_, err := c.driver(t, nil).Begin(t.Context(), s)
		if got := computetest.Told(err); !strings.Contains(got, x.want) || strings.Contains(got, "\x1b") || len(got) > 1000 {
			t.Errorf("%s: got %.200q, want %q", name, got, x.want)
		}
	}
}
