package compute

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"time"

	"redoubt"
)

// ProxyCalls is how many requests a program is passed at once.
const ProxyCalls = 64

// Proxy passes requests to a service on to a program that answers HTTP/1.1, by connections that its driver makes. The credential stays here, and what is
// the node's to say of an answer the program does not.
type Proxy struct {
	transport *http.Transport
	proxy     httputil.ReverseProxy
}

// failure is why the program did not answer.
type failure struct{ error }

// NewProxy makes one for an instance that serves the label whose banner is at. dial connects with the program.
func NewProxy(at string, dial func(ctx context.Context) (net.Conn, error)) *Proxy {
	t := &http.Transport{MaxIdleConnsPerHost: ProxyCalls, IdleConnTimeout: 30 * time.Second, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
	return &Proxy{transport: t, proxy: httputil.ReverseProxy{
		Transport: t,
		Rewrite: func(p *httputil.ProxyRequest) {
			prefix, rest := p.In.URL.Path, "/"
			if of, ok := strings.CutPrefix(p.In.URL.Path, redoubt.ServicePath); ok {
				name, more, _ := strings.Cut(of, "/")
				prefix, rest = redoubt.ServicePath+name, "/"+more
			}
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.URL.Path, p.Out.URL.RawPath, p.Out.Host = "http", "service", rest, "", p.In.Host
			p.SetXForwarded()
			h := p.Out.Header
			for name := range h {
				if strings.Contains(name, "_") { // many take it for the one with "-"
					delete(h, name)
				}
			}
			h.Del("Authorization")
			h.Del("Cookie")
			h.Del("Connection") // the connection stays what it is
			h.Del("Upgrade")
			h.Set("X-Forwarded-Prefix", prefix)
			h.Set(redoubt.ServiceLabelHeader, at)
		},
		ModifyResponse: func(res *http.Response) error {
			if res.StatusCode < http.StatusOK { // 101: the proxy would hand the caller's connection over
				return errors.Join(errors.New("it answered that the protocol changes"), res.Body.Close())
			}
			own := http.Header{}
			if n := res.Header["Content-Length"]; n != nil {
				own["Content-Length"] = n // which the transport has held it to
			}
			AnswerHeader(own, res.Header)
			res.Header = own
			return nil
		},
		ErrorLog:     log.New(io.Discard, "", 0), // what became of a request its answer says
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { panic(failure{err}) },
	}}
}

// Answers asks once whether the program is up: whether it answers 200 at a path, or anything at all where health is "".
func (p *Proxy) Answers(ctx context.Context, health string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	path := health
	if path == "" {
		path = "/"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://service"+path, nil)
	if err != nil {
		return false
	}
	res, err := p.transport.RoundTrip(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10) // so that the connection is of further use
	return health == "" || res.StatusCode == http.StatusOK
}

// Call has the program answer one request. What a driver bounds a body by is http.MaxBytesReader.
func (p *Proxy) Call(w http.ResponseWriter, r *http.Request) (err error) {
	body := &arriving{ReadCloser: r.Body}
	if r.Body != nil {
		r.Body = body
	}
	defer func() {
		switch p := recover().(type) {
		case nil:
		case failure:
			switch err = body.fault(); {
			case err != nil:
			case r.Context().Err() != nil:
				err = &redoubt.Error{Op: "Call", Kind: redoubt.Unavailable, Hint: "it did not answer in time; --timeout gives it more"}
			default:
				err = &redoubt.Error{Op: "Call", Kind: redoubt.Internal, Err: p.error, Hint: "the service did not answer: redoubt service logs tells what it said"}
			}
		default:
			panic(p)
		}
	}()
	p.proxy.ServeHTTP(&answer{ResponseWriter: w}, r)
	return nil
}

// answer is what an answer is written to: one, with the header that ModifyResponse made. What is provisional (1xx), trailers, and the connection itself
// are no service's to have.
type answer struct {
	http.ResponseWriter
	header http.Header // the proxy's, until the answer begins; it clears what it is given where something provisional comes
	begun  bool
}

// Header implements http.ResponseWriter. After the answer has begun nothing more of a header is heard: those are trailers.
func (a *answer) Header() http.Header {
	if a.header == nil {
		a.header = http.Header{}
	}
	return a.header
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(code int) {
	if code < http.StatusOK || a.begun {
		return
	}
	a.begun = true
	to := a.ResponseWriter.Header()
	for name, values := range a.header {
		if _, said := to[name]; !said && name != "Trailer" {
			to[name] = values
		}
	}
	a.header = nil
	a.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (a *answer) Write(b []byte) (int, error) {
	if !a.begun {
		a.WriteHeader(http.StatusOK)
	}
	return a.ResponseWriter.Write(b)
}

// FlushError has what was written go to the caller.
func (a *answer) FlushError() error { return http.NewResponseController(a.ResponseWriter).Flush() }

// Close ends connections that no request uses.
func (p *Proxy) Close() { p.transport.CloseIdleConnections() }

// arriving is the body of a request, and keeps why it did not arrive whole.
type arriving struct {
	io.ReadCloser
	mu  sync.Mutex // the transport may read on when it has given up
	err error
}

func (a *arriving) Read(b []byte) (int, error) {
	n, err := a.ReadCloser.Read(b)
	if err != nil && err != io.EOF {
		a.mu.Lock()
		a.err = err
		a.mu.Unlock()
	}
	return n, err
}

func (a *arriving) fault() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if large, ok := errors.AsType[*http.MaxBytesError](a.err); ok {
		return &redoubt.Error{Op: "Call", Kind: redoubt.TooLarge, Hint: fmt.Sprintf("a request to it has at most %d KiB: put more into an object, and name that", large.Limit>>10)}
	}
	if a.err != nil {
		return &redoubt.Error{Op: "Call", Kind: redoubt.Invalid, Hint: "the body did not arrive whole"}
	}
	return nil
}
