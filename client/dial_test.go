package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// tallied counts the writes to a connection.
type tallied struct {
	net.Conn
	mu     sync.Mutex
	writes int
}

func (c *tallied) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes++
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func TestWhatIsWrittenAtOnceLeavesAtOnceAndArrivesAsItWas(t *testing.T) {
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	near, far := net.Pipe()
	under := &tallied{Conn: near}
	g := &gathering{Conn: under}
	c := &wholeConn{Conn: tls.Client(g, &tls.Config{InsecureSkipVerify: true}), under: g}
	peer := tls.Server(far, &tls.Config{Certificates: srv.TLS.Certificates, SessionTicketsDisabled: true})
	want := make([]byte, 0, 4<<20)
	sizes := []int{1, tlsRecord, tlsRecord + 1, writeBytes, 0, 3*writeBytes + 7, 5}
	for i, n := range sizes {
		want = append(want, bytes.Repeat([]byte{byte(i + 1)}, n)...)
	}
	var got []byte
	var bad error
	var reading sync.WaitGroup
	reading.Go(func() { got, bad = io.ReadAll(peer) })
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	at := 0
	for _, n := range sizes {
		under.writes = 0
		if m, err := c.Write(want[at : at+n]); m != n || err != nil {
			t.Fatalf("of %d bytes %d were written: %v", n, m, err)
		}
		if at += n; n > tlsRecord && n <= writeBytes && under.writes != 1 {
			t.Errorf("%d bytes left by %d writes, want 1", n, under.writes)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if reading.Wait(); bad != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes arrived, want %d: %v", len(got), len(want), bad)
	}
}

// sizedBody is a body as a raise has it: it is read piece by piece, and its length is told before.
type sizedBody struct{ *io.SectionReader }

func (b sizedBody) BytesInAll() int64          { return b.Size() }
func (b sizedBody) Read(p []byte) (int, error) { return b.SectionReader.Read(p) }

func TestABodyLeavesByLargeWrites(t *testing.T) {
	const size = 8 * writeBytes
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n, err := io.Copy(io.Discard, r.Body); n != size || err != nil {
			t.Errorf("%d bytes came, want %d: %v", n, size, err)
		}
	}))
	defer srv.Close()
	roots := srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	for name, body := range map[string]func(b []byte) io.Reader{
		"whole": func(b []byte) io.Reader { return bytes.NewReader(b) },
		"sized": func(b []byte) io.Reader { return sizedBody{io.NewSectionReader(bytes.NewReader(b), 0, size)} },
	} {
		c, err := New(srv.URL, roots, "")
		if err != nil {
			t.Fatal(err)
		}
		var conn *tallied
		c.http.Transport.(*http.Transport).DialTLSContext = dialTLS(roots, func(ctx context.Context, network, addr string) (net.Conn, error) {
			raw, err := new(net.Dialer).DialContext(ctx, network, addr)
			conn = &tallied{Conn: raw}
			return conn, err
		})
		res, err := c.request(t.Context(), "POST", "/", "application/octet-stream", body(make([]byte, size)))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		conn.mu.Lock()
		if conn.writes > size/writeBytes+6 { // and the greeting, the head, the first piece and the end
			t.Errorf("%s: %d bytes left by %d writes", name, size, conn.writes)
		}
		conn.mu.Unlock()
		c.Close()
	}
}

func TestABodyOfAnyLengthArrivesWhole(t *testing.T) {
	var came [][]byte
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		came = append(came, b)
	}))
	defer srv.Close()
	c, err := New(srv.URL, srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, "")
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range []int{0, 1, writeBytes - 1, writeBytes, writeBytes + 1, 3*writeBytes + 12345} {
		want := bytes.Repeat([]byte("0123456"), n/7+1)[:n]
		res, err := c.request(context.Background(), "POST", "/", "application/octet-stream", bytes.NewReader(want))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if !bytes.Equal(came[i], want) {
			t.Errorf("of %d bytes %d arrived", n, len(came[i]))
		}
	}
}
