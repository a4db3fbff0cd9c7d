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
