package s3

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"redoubt"
	"redoubt/label"
)

// Options is what a front end is made of. The services, Auth and Region must be given.
type Options struct {
	Objects redoubt.ObjectService
	Lists   redoubt.ListService
	Uploads redoubt.UploadService
	Buckets redoubt.BucketService
	Auth    redoubt.Authenticator
	Policy  *label.Policy    // to tell whether a label repeated by a copy is the source's own; nil: never
	Region  string           // that signatures must name
	Domain  string           // base of virtual-host names, BUCKET.Domain; "": path style only
	Clock   func() time.Time // for signatures and expiry; nil: time.Now
	Log     *slog.Logger     // nil: nothing is logged
	Limits  Limits

	// UnsignedInClear lets content that no signature covers come without TLS: only
	// for a listener on a loopback address that the estate runs in clear.
	UnsignedInClear bool
}

// handler is immutable once made.
type handler struct {
	objects         redoubt.ObjectService
	lists           redoubt.ListService
	uploads         redoubt.UploadService
	buckets         redoubt.BucketService
	auth            redoubt.Authenticator
	policy          *label.Policy
	region          string
	domain          string // ".example.net", or ""
	clock           func() time.Time
	log             *slog.Logger
	limits          Limits
	unsignedInClear bool
	wantsMD5        func(context.Context, redoubt.BucketName) bool
}

// md5Asker is what a BucketService may offer besides: whether a bucket is set to MD5 ETags, asked
// on every PUT, without a decision or a record: bucket settings are known at the node's floor.
type md5Asker interface {
	BucketMD5ETag(ctx context.Context, name redoubt.BucketName) bool
}

// New makes the handler. It may be called from many goroutines at once and keeps nothing of a request.
func New(o Options) http.Handler {
	s := &handler{
		objects: o.Objects, lists: o.Lists, uploads: o.Uploads, buckets: o.Buckets, auth: o.Auth,
		policy: o.Policy, region: o.Region, clock: o.Clock, log: o.Log,
		limits: o.Limits.withDefaults(), unsignedInClear: o.UnsignedInClear,
		wantsMD5: func(context.Context, redoubt.BucketName) bool { return false },
	}
	if o.Domain != "" {
		s.domain = "." + o.Domain
	}
	if s.clock == nil {
		s.clock = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if asker, ok := o.Buckets.(md5Asker); ok {
		s.wantsMD5 = asker.BucketMD5ETag
	}
	return s
}

// call is one request under way. It has one goroutine and dies with the request.
type call struct {
	s         *handler
	w         http.ResponseWriter
	r         *http.Request
	ctx       context.Context
	rc        *http.ResponseController
	op        *operation
	bucket    redoubt.BucketName
	key       string
	query     query
	form      form
	who       redoubt.Credential
	sig       signature
	requestID string
	hostID    string
	vals      []string // backing of the response headers: one allocation for all
	started   bool     // the answer is under way
	quick     bool     // the client took the last step of it quickly
	marker    bool     // the request names a version, which may be a marker
}

// ServeHTTP answers one request.
func (s *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{s: s, w: w, r: r, ctx: r.Context(), rc: http.NewResponseController(w), vals: make([]string, 0, 24)}
	c.nameRequest()
	defer s.rescue(c)
	if err := s.serve(c); err != nil {
		s.fail(c, err)
	}
}

// serve is the walk of every request.
func (s *handler) serve(c *call) error {
	c.allowContinue()
	if err := c.parseTarget(); err != nil {
		return err
	}
	if c.r.Method == http.MethodOptions {
		return s.preflight(c)
	}
	if err := c.route(); err != nil {
		return s.refusedUnlessKnown(c, err)
	}
	s.answerCORS(c)
	if c.op.authless {
		return c.op.handle(s, c) // a POST form: it proves itself by its policy
	}
	if err := s.authenticate(c); err != nil {
		return err
	}
	if c.op.handle == nil {
		return notImplemented(c.op.name)
	}
	if err := refuseUnoffered(c.r.Header); err != nil {
		return err
	}
	if err := c.misplacedLabel(); err != nil {
		return err
	}
	return c.op.handle(s, c)
}

// refusedUnlessKnown keeps what is offered from whoever has not said who they are.
func (s *handler) refusedUnlessKnown(c *call, err error) error {
	if authErr := s.authenticate(c); authErr != nil {
		return authErr
	}
	return err
}

// rescue turns a panic into a 500 that tells nothing; what was panicked with may hold content.
func (s *handler) rescue(c *call) {
	v := recover()
	if v == nil {
		return
	}
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(http.ErrAbortHandler)
	}
	s.logPanic(c, v)
	if c.started {
		panic(http.ErrAbortHandler)
	}
	for name := range c.w.Header() {
		delete(c.w.Header(), name)
	}
	c.set("X-Amz-Request-Id", c.requestID)
	c.set("X-Amz-Id-2", c.hostID)
	c.failed(kindAnswer[redoubt.Internal])
}

// logPanic says where a fault is. What was panicked with may hold content, so only its type is said.
func (s *handler) logPanic(c *call, v any) {
	s.log.LogAttrs(c.ctx, slog.LevelError, "s3 handler panicked", slog.String("op", c.opName()), slog.String("request", c.requestID),
		slog.String("type", fmt.Sprintf("%T", v)), slog.String("stack", string(debug.Stack())))
}

func (c *call) opName() string {
	if c.op == nil {
		return ""
	}
	return c.op.name
}

// nameRequest gives the request random names: a counter would count what others do.
func (c *call) nameRequest() {
	var raw [32]byte
	rand.Read(raw[:])
	var id [16]byte
	for i, b := range raw[:8] {
		id[2*i], id[2*i+1] = upperHex[b>>4], upperHex[b&15]
	}
	c.requestID = string(id[:])
	c.hostID = base64.StdEncoding.EncodeToString(raw[8:])
	c.ctx = redoubt.WithRequest(c.ctx, c.requestID)
	c.set("X-Amz-Request-Id", c.requestID)
	c.set("X-Amz-Id-2", c.hostID)
}

// resource is what the client itself asked for, as it sent it.
func (c *call) resource() string {
	path, _, _ := cut(c.r.RequestURI, '?')
	return path
}

// set puts one response header; name is in canonical form.
func (c *call) set(name, value string) {
	c.vals = append(c.vals, value)
	n := len(c.vals)
	c.w.Header()[name] = c.vals[n-1 : n : n]
}

// setSome puts a response header only if it has a value.
func (c *call) setSome(name, value string) {
	if value != "" {
		c.set(name, value)
	}
}

// begin sends status and headers. The answer must move within the stall limit.
func (c *call) begin(status int) {
	c.started = true
	_ = c.rc.SetWriteDeadline(time.Now().Add(c.s.limits.Stall)) // a recorder in a test has no deadline
	c.w.WriteHeader(status)
}

// respondXML sends a document; the caller releases x afterwards.
func (c *call) respondXML(status int, x *xmlWriter) {
	c.set("Content-Type", "application/xml")
	c.set("Content-Length", strconv.Itoa(len(x.b)))
	c.begin(status)
	_ = c.writeAll(x.b)
}

// done answers with headers alone.
func (c *call) done(status int) error {
	if status != http.StatusNoContent {
		c.set("Content-Length", "0")
	}
	c.begin(status)
	return nil
}

// Steps of an answer: how much is written under one deadline. A client that took a step quickly is given larger ones, which wake it
// less often; one that is slow has no less time for its bytes than before.
const (
	writeStep = 256 << 10
	largeStep = 512 << 10
	quickStep = time.Second
)

// writeAll sends b; each step of it must be taken within the stall limit.
func (c *call) writeAll(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), writeStep)
		if c.quick {
			n = min(len(b), largeStep)
		}
		start := time.Now()
		_ = c.rc.SetWriteDeadline(start.Add(c.s.limits.Stall))
		if _, err := c.w.Write(b[:n]); err != nil {
			return err
		}
		c.quick = time.Since(start) < quickStep
		b = b[n:]
	}
	return nil
}

// allowContinue renews the write deadline that an earlier request on the connection may have
// left behind, before net/http writes 100 Continue.
func (c *call) allowContinue() {
	if c.r.Header["Expect"] != nil {
		_ = c.rc.SetWriteDeadline(time.Now().Add(c.s.limits.Stall))
	}
}

// progressReader holds a client to moving ProgressBytes within each Stall.
// The deadlines are those of the connection, so they follow the machine's clock, not Options.Clock.
type progressReader struct {
	r     io.Reader
	rc    *http.ResponseController
	lim   Limits
	since int64
	armed bool
}

func (p *progressReader) Read(b []byte) (int, error) {
	if !p.armed || p.since >= p.lim.ProgressBytes {
		p.armed, p.since = true, 0
		_ = p.rc.SetReadDeadline(time.Now().Add(p.lim.Stall))
	}
	n, err := p.r.Read(b)
	p.since += int64(n)
	if err == io.EOF {
		_ = p.rc.SetReadDeadline(time.Time{}) // else net/http's own read behind us would time out
	}
	return n, err
}
