package compute

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestWhatAProgramSaysInAnAnswerIsNotLogged: an answer whose trailer is no header is quoted by the library that reads it.
func TestWhatAProgramSaysInAnAnswerIsNotLogged(t *testing.T) {
	var said bytes.Buffer
	log.SetOutput(&said)
	defer log.SetOutput(io.Discard)
	p := NewProxy("SECRET", func(context.Context) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			if _, err := http.ReadRequest(bufio.NewReader(theirs)); err != nil {
				return
			}
			io.WriteString(theirs, "HTTP/1.1 200 OK\r\nTrailer: X-A\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nthe convoy leaves at noon\r\n\r\n")
		}()
		return ours, nil
	})
	defer p.Close()
	func() {
		defer func() { recover() }()
		_ = p.Call(httptest.NewRecorder(), httptest.NewRequest("GET", "/svc/x/", nil))
	}()
	if strings.Contains(said.String(), "convoy") {
		t.Errorf("the log has %q", said.String())
	}
}

// proxied has a program that answers with the given bytes asked through a server, and gives the connection's own words.
func proxied(t *testing.T, request, says string) string {
	t.Helper()
	p := NewProxy("SECRET", func(context.Context) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			if _, err := http.ReadRequest(bufio.NewReader(theirs)); err == nil {
				io.WriteString(theirs, says)
			}
		}()
		return ours, nil
	})
	defer p.Close()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Redoubt-Label", "SECRET")
		w.Header().Set("Content-Security-Policy", "sandbox")
		if err := p.Call(w, r); err != nil {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	defer srv.Close()
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, request)
	all, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

// TestAServiceSaysNothingForTheNode: nothing provisional, no trailer, no other protocol, and the node's own header stands.
func TestAServiceSaysNothingForTheNode(t *testing.T) {
	const plain, asks = "GET /svc/x/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "GET /svc/x/ HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, close\r\nUpgrade: own\r\n\r\n"
	for name, c := range map[string]struct{ request, says, code string }{
		"provisional":    {plain, "HTTP/1.1 103 Early Hints\r\nSet-Cookie: a=b\r\nRedoubt-Label: UNCLASSIFIED\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "200"},
		"a trailer":      {plain, "HTTP/1.1 200 OK\r\nTrailer: Set-Cookie, Redoubt-Label\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nSet-Cookie: a=b\r\nRedoubt-Label: UNCLASSIFIED\r\n\r\n", "200"},
		"unasked for":    {plain, "HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\nRedoubt-Label: UNCLASSIFIED\r\nSet-Cookie: a=b\r\n\r\n", "502"},
		"an own one":     {plain, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: own\r\n\r\nSet-Cookie: a=b", "502"},
		"as was asked":   {asks, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: own\r\n\r\nSet-Cookie: a=b", "502"},
		"nothing of all": {plain, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=b\r\nRedoubt-Label: UNCLASSIFIED\r\n\r\nok", "200"},
	} {
		got := proxied(t, c.request, c.says)
		if !strings.HasPrefix(got, "HTTP/1.1 "+c.code) || strings.Contains(got, "Cookie") || strings.Contains(got, "UNCLASSIFIED") || !strings.Contains(got, "Redoubt-Label: SECRET") || !strings.Contains(got, "Content-Security-Policy: sandbox") || c.code == "200" && !strings.Contains(got, "ok") {
			t.Errorf("%s: the caller has %q", name, got)
		}
	}
}
