package registry

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"redoubt"
	"redoubt/compute/image"
)

// Options is what a registry is made of. The services and Auth must be given.
type Options struct {
	Objects redoubt.ObjectService
	Lists   redoubt.ListService
	Uploads redoubt.UploadService
	Auth    redoubt.Authenticator
	Clock   func() time.Time // of credentials; nil: time.Now
	Log     *slog.Logger     // nil: nothing is logged
}

// Limits on what arrives. Those that count are of one label or one credential, never of all together: else who is refused would learn what is
// done above (RULES 3.3).
const (
	maxQueryBytes    = 4 << 10 // a digest, a repository and a tag, escaped
	maxAuthBytes     = 8 << 10 // a token has 100
	maxRequests      = 64      // under way for one credential: a client pulls a few layers at a time
	maxSessions      = 16      // uploads that one credential has begun
	maxLabelSessions = 64      // uploads that one working label has begun: each may hold MinPartBytes in memory
	maxReading       = 4       // manifests that are taken apart at once: others wait
	maxPage          = redoubt.MaxListKeys
	maxReferrers     = 100     // of one page: each is a manifest that is read
	maxReferrerBytes = 4 << 20 // of one page

	// sessionLife is how long an upload waits for its next request: a link may be down meanwhile.
	sessionLife = time.Hour
	// A client moves progressBytes within each stall, as in S3.
	stall         = 30 * time.Second
	progressBytes = 1 << 10
)

// Registry is a node's. It serves many requests at once; Close ends it.
type Registry struct {
	Options
	reading chan struct{}

	mu       sync.Mutex // guards what follows
	sessions map[string]*session
	busy     map[string]int // requests under way, by credential
	closed   bool
	ending   sync.WaitGroup // sessions that end by themselves
}

// New makes a registry.
func New(o Options) *Registry {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Registry{Options: o, reading: make(chan struct{}, maxReading), sessions: map[string]*session{}, busy: map[string]int{}}
}

// RequestHeader carries the random ID of every request, which "redoubt why" explains.
const RequestHeader = "Redoubt-Request"

// call is one request under way. It has one goroutine and dies with the request.
type call struct {
	g       *Registry
	w       http.ResponseWriter
	r       *http.Request
	ctx     context.Context
	rc      *http.ResponseController
	who     redoubt.Credential
	started bool // the answer is under way

	// Of the path:
	repo image.Repository
	rest string // a digest, a tag or a session's ID
}

// Serves says whether a path is a registry's. /v2/models and /v2/health are not.
func Serves(path string) bool {
	rest, ok := strings.CutPrefix(path, "/v2/")
	first, _, _ := strings.Cut(rest, "/")
	return path == "/v2" || ok && !redoubt.ReservedRepository(first)
}

// ServeHTTP answers one request.
func (g *Registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{g: g, w: w, r: r, rc: http.NewResponseController(w)}
	var id [15]byte
	rand.Read(id[:])
	name := base32.StdEncoding.EncodeToString(id[:])
	c.ctx = redoubt.WithRequest(r.Context(), name)
	h := w.Header()
	h.Set(RequestHeader, name)
	h.Set("Docker-Distribution-Api-Version", "registry/2.0")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	defer c.rescue()
	if err := c.serve(); err != nil {
		c.fail(err)
	}
}

// serve is the walk of every request.
func (c *call) serve() error {
	if err := c.authenticate(); err != nil {
		return err
	}
	if !c.g.begin(c.who.ID) {
		return errTooMany
	}
	defer c.g.end(c.who.ID)
	if len(c.r.URL.RawQuery) > maxQueryBytes {
		return &redoubt.Error{Op: "registry", Kind: redoubt.TooLarge, Rule: "the query is too long"}
	}
	handle, err := c.route()
	if err != nil {
		return err
	}
	if c.r.Body != nil {
		c.r.Body = io.NopCloser(&progressReader{r: c.r.Body, rc: c.rc})
	}
	return handle(c)
}

// rescue turns a panic into a 500 that tells nothing; what was panicked with may hold content.
func (c *call) rescue() {
	v := recover()
	if v == nil {
		return
	}
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(http.ErrAbortHandler)
	}
	c.g.Log.LogAttrs(c.ctx, slog.LevelError, "registry handler panicked", slog.String("request", redoubt.RequestID(c.ctx)),
		slog.String("type", fmt.Sprintf("%T", v)), slog.String("stack", string(debug.Stack())))
	if c.started {
		panic(http.ErrAbortHandler)
	}
	c.fail(redoubt.Internal)
}

// begin counts a request of a credential in; false: it has too many.
func (g *Registry) begin(credential string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy[credential] >= maxRequests {
		return false
	}
	g.busy[credential]++
	return true
}

func (g *Registry) end(credential string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy[credential]--; g.busy[credential] == 0 {
		delete(g.busy, credential)
	}
}

// authenticate proves who asks. Docker's clients first ask /v2/ without saying who they are, to learn how to: that is no failure, and not on
// record; everything else is.
func (c *call) authenticate() error {
	given := c.r.Header.Values("Authorization")
	if len(given) == 0 && c.r.URL.Path == "/v2/" {
		return errUnauthorized
	}
	token := ""
	if len(given) == 1 && len(given[0]) <= maxAuthBytes {
		token = tokenOf(given[0])
	}
	if token == "" {
		c.g.Auth.Refused(c.ctx, c.r.RemoteAddr, "no token")
		return errUnauthorized
	}
	who, err := c.g.Auth.Bearer(c.ctx, token)
	if err != nil {
		c.g.Auth.Refused(c.ctx, c.r.RemoteAddr, redoubt.KindOf(err).Error())
		return err
	}
	c.who = who
	return nil
}

var errUnauthorized = &redoubt.Error{Op: "registry", Kind: redoubt.Unauthenticated,
	Hint: "log in with any name, and as the password the REDOUBT_TOKEN that redoubt env prints"}

// tokenOf is the token in an Authorization header: the password of Basic, whatever the name beside it, or that of Bearer.
func tokenOf(header string) string {
	scheme, value, _ := strings.Cut(header, " ")
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		return value
	case strings.EqualFold(scheme, "Basic"):
		raw, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			return ""
		}
		_, password, _ := strings.Cut(string(raw), ":")
		return password
	}
	return ""
}

type handler func(c *call) error

// methods of one path.
type methods map[string]handler

var (
	ofBase      = methods{"GET": (*call).base, "HEAD": (*call).base}
	ofManifest  = methods{"GET": (*call).getManifest, "HEAD": (*call).getManifest, "PUT": (*call).putManifest, "DELETE": (*call).deleteManifest}
	ofBlob      = methods{"GET": (*call).getBlob, "HEAD": (*call).headBlob, "DELETE": (*call).deleteBlob}
	ofUploads   = methods{"POST": (*call).startUpload}
	ofUpload    = methods{"GET": (*call).statUpload, "PATCH": (*call).patchUpload, "PUT": (*call).finishUpload, "DELETE": (*call).cancelUpload}
	ofTags      = methods{"GET": (*call).listTags}
	ofReferrers = methods{"GET": (*call).listReferrers}
)

// route finds what a request is for. A path is read from its end, since "blobs" and "manifests" may be parts of a repository's name.
func (c *call) route() (handler, error) {
	rest := strings.TrimPrefix(c.r.URL.Path, "/v2")
	if rest == "" || rest == "/" {
		return c.pick(ofBase)
	}
	seg := strings.Split(strings.TrimPrefix(rest, "/"), "/")
	last := func(n int) string { // the n-th from the right, from 1
		if n > len(seg) {
			return ""
		}
		return seg[len(seg)-n]
	}
	var of methods
	cut := 2
	switch {
	case last(1) == "list" && last(2) == "tags":
		of = ofTags
	case last(1) == "uploads" && last(2) == "blobs":
		of = ofUploads
	case last(2) == "uploads" && last(3) == "blobs" && last(1) == "":
		of, cut = ofUploads, 3
	case last(2) == "uploads" && last(3) == "blobs":
		of, cut, c.rest = ofUpload, 3, last(1)
	case last(2) == "blobs":
		of, c.rest = ofBlob, last(1)
	case last(2) == "manifests":
		of, c.rest = ofManifest, last(1)
	case last(2) == "referrers":
		of, c.rest = ofReferrers, last(1)
	default:
		return nil, &ociError{code: "UNSUPPORTED", status: http.StatusNotFound, message: "there is no such operation"}
	}
	var err error
	if c.repo, err = image.ParseRepository(strings.Join(seg[:max(0, len(seg)-cut)], "/")); err != nil {
		return nil, as("NAME_INVALID", err)
	}
	return c.pick(of)
}

func (c *call) pick(of methods) (handler, error) {
	if handle, ok := of[c.r.Method]; ok {
		return handle, nil
	}
	return nil, redoubt.MethodNotAllowed
}

// base says that this is a registry, to who is known here.
func (c *call) base() error {
	c.w.Header().Set("Content-Type", "application/json")
	c.begin(http.StatusOK)
	_, _ = io.WriteString(c.w, "{}\n")
	return nil
}

// digest reads the rest of the path as a digest.
func (c *call) digest() (image.Digest, error) {
	d, err := image.ParseDigest(c.rest)
	return d, as("DIGEST_INVALID", err)
}

// begin sends status and headers.
func (c *call) begin(status int) {
	c.started = true
	c.w.WriteHeader(status)
}

// objects is what the caller sees of the node's objects, for package image to read. What it opens is on record as reads of hers.
type objects struct {
	c      *call
	action redoubt.Action // "": GetObject
}

func (o objects) Object(ctx context.Context, name redoubt.ObjectName) (redoubt.Version, redoubt.Content, error) {
	opened, err := o.c.g.Objects.GetObject(ctx, o.c.who, redoubt.ReadObject{Name: name, Action: o.action})
	if err != nil {
		return redoubt.Version{}, nil, err
	}
	return opened.Version(), opened, nil
}

// progressReader holds a client to moving progressBytes within each stall.
type progressReader struct {
	r     io.Reader
	rc    *http.ResponseController
	since int64
	armed bool
}

func (p *progressReader) Read(b []byte) (int, error) {
	if !p.armed || p.since >= progressBytes {
		p.armed, p.since = true, 0
		_ = p.rc.SetReadDeadline(time.Now().Add(stall)) // a recorder in a test has no deadline
	}
	n, err := p.r.Read(b)
	p.since += int64(n)
	if err == io.EOF {
		_ = p.rc.SetReadDeadline(time.Time{}) // else net/http's own read behind us would time out
	}
	return n, err
}
