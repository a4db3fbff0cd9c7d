package kube

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// A service's pod has a keeper, which starts the program, connects requests with it and tells what it says. The node speaks HTTP/2 with it, over exec
// streams that the API server joins with the keeper's socket; one that breaks takes the requests with it that it carried, and no more.

const (
	keeperSocket  = "@redoubt-keeper" // of Linux's abstract names: no file, which the program could remove
	keeperStreams = 4 * 64            // connections with the program and what else is asked, at once
	keeperWindow  = 64 << 10          // bytes of a connection that wait for the program
	keeperJoined  = 16                // connections at once: the node has one, beside those that it has given up; the program may make others
	alone         = 5 * time.Minute   // without its node a keeper ends itself, and with it the pod
	maxWords      = 256 << 10         // of the program's, that wait to be told
	lastWords     = time.Second       // the program's children may hold its output open for ever
	dialTime      = 5 * time.Second   // connecting with the program may take
	beginPath     = "/begin"          // POST of a task: have it run
	connectPath   = "/connect"        // POST: the body goes to the program's port, and what comes from there is the answer
	watchPath     = "/watch"          // GET: frames of what the program says, and how it ended
	keyHeader     = "Authorization"   // of each request. The first begin sets it; the program, which may reach the socket, does not know it
	faultHeader   = "Redoubt-Fault"   // of an answer to begin: the fault is the program's own
)

// asksNot says in a keeper's environment that the kernel has no way for it to be asked for sockets. It is then in a network namespace of its own, with
// nothing but loopback.
const asksNot = "REDOUBT_ASKS_NOT"

// keeper keeps one program.
type keeper struct {
	outside bool // it is in a pod, where processes are counted
	asks    bool // sockets of the program are asked for

	words words
	ended chan struct{} // closed when the program has ended
	end   ending

	mu       sync.Mutex
	key      string
	port     int
	program  *os.Process        // nil before it has begun
	unwatch  context.CancelFunc // ends who watches
	watchers int
	alone    time.Duration // nobody may have watched
	lonely   *time.Timer
	left     chan struct{} // closed when nobody has watched for too long
}

func newKeeper(alone time.Duration) *keeper {
	k := &keeper{ended: make(chan struct{}), unwatch: func() {}, alone: alone, left: make(chan struct{})}
	k.words.news = make(chan struct{}, 1)
	k.lonely = time.AfterFunc(alone, func() { close(k.left) })
	return k
}

// keepProgram is the keeper's process. Its socket was handed to it.
func keepProgram() error {
	l, err := net.FileListener(os.NewFile(3, "socket"))
	if err != nil {
		return err
	}
	k := newKeeper(alone)
	k.outside, k.asks = true, os.Getenv(asksNot) == ""
	return k.serve(l)
}

// serve answers the node until it has left. The program ends with it.
func (k *keeper) serve(l net.Listener) error {
	defer k.stop()
	m := http.NewServeMux()
	m.HandleFunc("POST "+beginPath, k.begin)
	m.HandleFunc("POST "+connectPath, k.known(k.connect))
	m.HandleFunc("GET "+watchPath, k.known(k.watch))
	s := &http.Server{Handler: m, Protocols: new(http.Protocols), ReadHeaderTimeout: patience, MaxHeaderBytes: 8 << 10,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: keeperStreams, MaxReceiveBufferPerStream: keeperWindow, MaxReceiveBufferPerConnection: keeperStreams * keeperWindow,
			SendPingTimeout: silence, PingTimeout: silence, WriteByteTimeout: silence}} // a node that went without a word watches no more
	s.Protocols.SetUnencryptedHTTP2(true)
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(netutil.LimitListener(l, keeperJoined)) }()
	select {
	case err := <-failed:
		return err
	case <-k.left:
		return errors.Join(errors.New("nobody has asked for what it keeps"), s.Close(), ignore(<-failed, http.ErrServerClosed))
	}
}

// stop ends the program, if one has begun.
func (k *keeper) stop() {
	k.mu.Lock()
	p := k.program
	k.mu.Unlock()
	if p != nil {
		p.Kill()
		<-k.ended
	}
}

func ignore(err, which error) error {
	if errors.Is(err, which) {
		return nil
	}
	return err
}

// known passes on who knows the key.
func (k *keeper) known(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		k.mu.Lock()
		ok := k.key != "" && subtle.ConstantTimeCompare([]byte(r.Header.Get(keyHeader)), []byte(k.key)) == 1
		k.mu.Unlock()
		if !ok {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		h(w, r)
	}
}

// begin starts the program, once.
func (k *keeper) begin(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	first := k.key == ""
	k.mu.Unlock()
	if !first { // nothing is read for who may be the program
		http.Error(w, "it has begun", http.StatusForbidden)
		return
	}
	var t task
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxTask))
	if err != nil || json.Unmarshal(b, &t) != nil || len(t.Args) == 0 || t.Port < 1 || t.Port > 65535 || r.Header.Get(keyHeader) == "" {
		http.Error(w, errFrame.Error(), http.StatusBadRequest)
		return
	}
	k.mu.Lock()
	if first = k.key == ""; first {
		k.key, k.port = r.Header.Get(keyHeader), t.Port
	}
	k.mu.Unlock()
	if !first {
		http.Error(w, "it has begun", http.StatusForbidden)
		return
	}
	out, in, err := os.Pipe()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	c, fault, err := k.launch(t, in)
	in.Close()
	if err != nil || fault != "" {
		out.Close()
		if fault != "" {
			w.Header().Set(faultHeader, "1")
			err = errors.New(fault)
		}
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	k.mu.Lock()
	k.program = c.Process
	k.mu.Unlock()
	go k.follow(c, out, t.Processes)
}

// follow waits for the program's end.
func (k *keeper) follow(c *exec.Cmd, out *os.File, processes int) {
	defer close(k.ended)
	defer out.Close()
	said := make(chan struct{})
	go func() {
		defer close(said)
		io.Copy(&k.words, out)
	}()
	ended, crowded := make(chan struct{}), make(chan bool, 1)
	go func() { crowded <- k.outside && crowd(processes, ended) }()
	gone := make(chan struct{})
	go func() { c.Wait(); close(gone) }()
	select {
	case <-gone:
		close(ended)
		k.end = endingOf(c.ProcessState)
	case many := <-crowded:
		if !many { // nobody counts
			<-gone
			k.end = endingOf(c.ProcessState)
			break
		}
		k.end = ending{Code: -1, Crowded: true} // the node ends the pod
	}
	out.SetReadDeadline(time.Now().Add(lastWords))
	<-said
}

// connect joins a stream with the program's port.
func (k *keeper) connect(w http.ResponseWriter, r *http.Request) {
	c, err := k.dial(r.Context())
	if err != nil {
		http.Error(w, "nobody listens there", http.StatusBadGateway)
		return
	}
	defer c.Close()
	defer context.AfterFunc(r.Context(), func() { c.Close() })()
	flush := http.NewResponseController(w).Flush
	if flush() != nil {
		return
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		io.Copy(c, r.Body)
		if t, ok := c.(*net.TCPConn); ok {
			t.CloseWrite()
		}
	}()
	piece := make([]byte, 32<<10)
	for {
		n, err := c.Read(piece)
		if n > 0 {
			if _, err := w.Write(piece[:n]); err != nil || flush() != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	c.Close()
	r.Body.Close()
	<-sent
}

// dial connects with the program, which may listen on one loopback address alone.
func (k *keeper) dial(ctx context.Context) (c net.Conn, err error) {
	d := net.Dialer{Timeout: dialTime}
	for _, host := range []string{"127.0.0.1", "::1"} {
		if c, err = d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(k.port))); err == nil {
			return c, nil
		}
	}
	return nil, err
}

// watch tells what the program says until it has ended. Who watched before watches no more: its stream has broken.
func (k *keeper) watch(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	k.mu.Lock()
	k.unwatch()
	k.unwatch = cancel
	k.watchers++
	k.lonely.Stop()
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.watchers--; k.watchers == 0 {
			k.lonely.Reset(k.alone)
		}
	}()
	flush := http.NewResponseController(w).Flush
	f := &frames{w: w}
	for ended := false; ; {
		for text := k.words.take(); len(text) > 0; {
			n := min(len(text), maxPiece)
			if f.write(sayOut, text[:n]) != nil {
				return
			}
			text = text[n:]
		}
		if ended {
			f.writeJSON(sayExit, k.end)
			return
		}
		if flush() != nil {
			return
		}
		select {
		case <-k.words.news:
		case <-k.ended:
			ended = true // once more, for its last words
		case <-ctx.Done():
			return
		}
	}
}

// words are what the program said and nobody was told. Of too many the last are kept: a program never waits for who hears it.
type words struct {
	mu   sync.Mutex
	text []byte
	news chan struct{}
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	w.text = append(w.text, p...)
	if over := len(w.text) - maxWords; over > 0 {
		w.text = append(w.text[:0:0], w.text[over:]...)
	}
	w.mu.Unlock()
	select {
	case w.news <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (w *words) take() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := w.text
	w.text = nil
	return text
}

// join joins two streams with the keeper until either side ends.
func join(socket string, in io.Reader, out io.Writer) error {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return fmt.Errorf("there is no keeper: %w", err)
	}
	defer c.Close()
	go func() {
		io.Copy(c, in)
		c.Close()
	}()
	_, err = io.Copy(out, c)
	return ignore(err, net.ErrClosed)
}
