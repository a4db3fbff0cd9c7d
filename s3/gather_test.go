package s3

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"redoubt"
	"redoubt/faketime"
)

// gathering is a connection that counts what reaches its client, and in how many pieces.
type gathering struct {
	net.Conn
	mu     sync.Mutex
	keep   bool
	kept   []byte
	pieces int
}

func (g *gathering) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.keep {
		g.kept = append(g.kept, p...)
		return len(p), nil
	}
	g.pieces++
	return g.Conn.Write(p)
}

func (g *gathering) Gather() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.keep = true
}

func (g *gathering) Release() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	kept := g.kept
	g.keep, g.kept, g.pieces = false, nil, g.pieces+1
	_, err := g.Conn.Write(kept)
	return err
}

type gatheringListener struct {
	net.Listener
	made chan *gathering
}

func (l gatheringListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g := &gathering{Conn: c}
	l.made <- g
	return g, nil
}

func TestASmallAnswerGoesOutInOnePiece(t *testing.T) {
	fk := newFake()
	srv := httptest.NewUnstartedServer(New(optionsOf(fk)))
	made := make(chan *gathering, 1)
	srv.Listener = gatheringListener{srv.Listener, made}
	srv.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return WithGatherer(ctx, c.(*gathering)) }
	srv.Start()
	defer srv.Close()
	if _, err := fk.CreateBucket(t.Context(), redoubt.Credential{}, "reports", redoubt.BucketSettings{}); err != nil {
		t.Fatal(err)
	}
	s := &site{fk, t, srv.URL, srv.Client()}
	s.do("LOW", "PUT", "/reports/k", nil).want(t, 200, "")
	conn := <-made // the client keeps one connection
	for _, size := range []int{0, 1, 4096, 7 << 10, oneAnswer, oneAnswer + 1, smallCopy + 1} {
		content := bytes.Repeat([]byte("r"), size)
		s.do("LOW", "PUT", "/reports/k", content).want(t, 200, "")
		before := conn.count()
		a := s.do("LOW", "GET", "/reports/k", nil)
		if a.status != 200 || a.body != string(content) {
			t.Fatalf("%d bytes: got %d and %d bytes", size, a.status, len(a.body))
		}
		if pieces := conn.count() - before; size <= oneAnswer && pieces != 1 || size > oneAnswer && pieces < 2 {
			t.Errorf("%d bytes: went out in %d pieces", size, pieces)
		}
	}
	s.do("LOW", "GET", "/reports/none", nil).want(t, 404, "NoSuchKey")
	s.do("LOW", "GET", "/reports/k", nil).want(t, 200, "")
}

func (g *gathering) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pieces
}

// taker is a client that takes each write in the time that it is given.
type taker struct {
	http.ResponseWriter
	takes time.Duration
	sizes []int
}

func (w *taker) Write(p []byte) (int, error) {
	time.Sleep(w.takes)
	w.sizes = append(w.sizes, len(p))
	return len(p), nil
}

func TestOnlyAQuickClientIsGivenLargeSteps(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		w := &taker{ResponseWriter: httptest.NewRecorder()}
		c := &call{s: &handler{limits: Limits{}.withDefaults()}, w: w, rc: http.NewResponseController(w)}
		answer := make([]byte, writeStep+2*largeStep)
		if err := c.writeAll(answer); err != nil {
			t.Fatal(err)
		}
		w.takes = quickStep
		if err := c.writeAll(answer); err != nil {
			t.Fatal(err)
		}
		want := []int{writeStep, largeStep, largeStep, largeStep, writeStep, writeStep, writeStep}
		if !slices.Equal(w.sizes, want) {
			t.Errorf("got steps of %v, want %v", w.sizes, want)
		}
	})
}
