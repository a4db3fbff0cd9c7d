// Package client is the Go client of a node: its HTTP interface (docs/spec/api.md) and its S3 interface. The
// command line is written on it.
//
// Errors of the node come back as *redoubt.Error with the Kind, Rule and Hint that the node sent, so that
// errors.Is(err, redoubt.Denied) asks what a caller wants to know. Nothing is retried: who knows whether that is
// safe is the caller. It connects to the address that it was given and to nothing else: no proxy
// from the environment, no redirect.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"redoubt"
)

// Limits on what arrives.
const (
	maxAnswerBytes = 64 << 20 // one JSON document: every person of a large estate
	maxLineBytes   = 1 << 20  // one line of a stream: one audit record
	maxErrorBytes  = 64 << 10
)

// Client talks to one node's HTTP interface as one credential. It may be used by many goroutines at once.
type Client struct {
	base  *url.URL
	http  *http.Client
	token string
}

// New makes a client of the node at baseURL, trusting roots (nil: what the system trusts). token is the bearer;
// minting needs none. https is needed but on a loopback address.
func New(baseURL string, roots *x509.CertPool, token string) (*Client, error) {
	base, err := address(baseURL)
	if err != nil {
		return nil, err
	}
	return &Client{base: base, http: transport(roots), token: token}, nil
}

// With is the same client as another credential; the connections are shared.
func (c *Client) With(token string) *Client {
	d := *c
	d.token = token
	return &d
}

// AnswersWithin has every call fail to which the node, asked in full, does not begin to answer in time. It is called before any other. What a node is told to
// take as a whole it may take slowly: it has the time that slowTaking gives it, where that is more.
func (c *Client) AnswersWithin(d time.Duration) {
	c.http.Transport.(*http.Transport).ResponseHeaderTimeout = d
}

// slowTaking is how many bytes a second a node takes at least of what it verifies, opens and keeps before it answers.
const slowTaking = 4 << 20

// Close closes connections that are idle.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func address(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, &redoubt.Error{Op: "client", Kind: redoubt.Invalid, Err: fmt.Errorf("%q is not the address of a node", text)}
	}
	if u.Path == "" {
		u.Path = "/" // else JoinPath makes a path without one
	}
	if u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()) {
		return u, nil
	}
	return nil, &redoubt.Error{Op: "client", Kind: redoubt.Invalid, Err: fmt.Errorf("%s: want https (or http on a loopback address)", text)}
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func transport(roots *x509.CertPool) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialTLSContext:      dialTLS(roots, (&net.Dialer{Timeout: dialTimeout}).DialContext),
			IdleConnTimeout:     time.Minute,
			MaxIdleConnsPerHost: 16,
			DisableCompression:  true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// call sends in as JSON, if it is not nil, and reads the answer into out, if that is not nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	res, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if out == nil {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswerBytes+1))
	if err == nil && len(b) > maxAnswerBytes {
		err = errors.New("the answer is too large")
	}
	if err == nil {
		err = json.Unmarshal(b, out) // not strict: a newer node may say more
	}
	if err != nil {
		return &redoubt.Error{Op: method + " " + path, Kind: redoubt.Unavailable, Err: err}
	}
	return nil
}

// send gives a response of 2xx, whose body the caller closes, or the node's error.
func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	if in == nil {
		return c.request(ctx, method, path, "", nil)
	}
	b, err := json.Marshal(in)
	if err != nil {
		return nil, &redoubt.Error{Op: method + " " + path, Kind: redoubt.Invalid, Err: err}
	}
	return c.request(ctx, method, path, "application/json", bytes.NewReader(b))
}

// request sends a body as it is; see send.
func (c *Client) request(ctx context.Context, method, path, typ string, body io.Reader) (*http.Response, error) {
	return c.requestWith(ctx, method, path, typ, body, nil)
}

// requestWith is request with more headers.
func (c *Client) requestWith(ctx context.Context, method, path, typ string, body io.Reader, more http.Header) (*http.Response, error) {
	op := method + " " + path
	req, err := http.NewRequestWithContext(ctx, method, c.base.String(), body)
	if err != nil {
		return nil, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Err: err}
	}
	req.URL = c.base.JoinPath(path)
	if sized, ok := body.(interface{ BytesInAll() int64 }); ok { // in one piece then, and not in chunks with a length before each
		req.ContentLength = sized.BytesInAll()
	}
	if body != nil {
		req.Header.Set("Content-Type", typ)
	}
	maps.Copy(req.Header, more)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	do := c.http
	usual, slow := do.Transport.(*http.Transport), time.Duration(req.ContentLength/slowTaking)*time.Second
	if usual.ResponseHeaderTimeout > 0 && slow > usual.ResponseHeaderTimeout {
		patient := usual.Clone() // with a connection of its own, which ends with the request
		patient.ResponseHeaderTimeout = slow
		patient.DisableKeepAlives = true
		do = &http.Client{Transport: patient, CheckRedirect: do.CheckRedirect}
	}
	res, err := do.Do(req)
	if err != nil {
		return nil, unreachable(op, err)
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		defer res.Body.Close()
		return nil, refusal(op, res)
	}
	return res, nil
}

// unreachable is a request that had no answer.
func unreachable(op string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return &redoubt.Error{Op: op, Kind: redoubt.Unavailable, Err: err}
	}
	var cert *tls.CertificateVerificationError
	hint := "is the node up? try: redoubt status"
	if errors.As(err, &cert) {
		hint = "the node's certificate is not one that this client was told to trust"
	}
	return &redoubt.Error{Op: op, Kind: redoubt.Unavailable, Hint: hint, Err: err}
}

// names is what the node calls each Kind; the table of docs/spec/api.md read backwards.
var names = map[string]redoubt.Kind{
	"internal": redoubt.Internal, "not-found": redoubt.NotFound, "denied": redoubt.Denied,
	"unauthenticated": redoubt.Unauthenticated, "expired": redoubt.Expired, "invalid": redoubt.Invalid,
	"too-large": redoubt.TooLarge, "exists": redoubt.Exists, "conflict": redoubt.Conflict,
	"precondition-failed": redoubt.PreconditionFail, "not-modified": redoubt.NotModified,
	"range-invalid": redoubt.RangeInvalid, "not-empty": redoubt.NotEmpty, "locked": redoubt.Locked,
	"quota-exceeded": redoubt.QuotaExceeded, "disk-full": redoubt.DiskFull, "erased": redoubt.Erased,
	"corrupt": redoubt.Corrupt, "unavailable": redoubt.Unavailable, "not-implemented": redoubt.NotImplemented,
	"bad-digest": redoubt.BadDigest, "no-bucket": redoubt.NoBucket, "method-not-allowed": redoubt.MethodNotAllowed,
}

// problem is an error as the node writes it.
type problem struct {
	Kind string `json:"kind"`
	Rule string `json:"rule"`
	Hint string `json:"hint"`
}

func (p problem) err(op, request string) error {
	e := &redoubt.Error{Op: op, Kind: names[p.Kind], Rule: p.Rule, Hint: p.Hint} // an unknown name is Internal
	if request != "" {
		e.Err = requestID(request)
	}
	return e
}

// requestID is the cause of an error that a node sent: which request it was, for "redoubt why".
type requestID string

func (r requestID) Error() string { return "request " + string(r) }

// refusal reads the error that a node answered.
func refusal(op string, res *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(res.Body, maxErrorBytes))
	request := res.Header.Get("Redoubt-Request")
	var in struct {
		Error problem `json:"error"`
	}
	if typ, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); typ == "application/json" && json.Unmarshal(b, &in) == nil && in.Error.Kind != "" {
		return in.Error.err(op, request)
	}
	return &redoubt.Error{Op: op, Kind: kindOfStatus(res.StatusCode), Err: fmt.Errorf("the answer is %s", strings.ToLower(res.Status))}
}

// kindOfStatus is for answers that are not a node's own: of a proxy, say.
func kindOfStatus(status int) redoubt.Kind {
	switch status {
	case http.StatusBadRequest, http.StatusLengthRequired:
		return redoubt.Invalid
	case http.StatusConflict:
		return redoubt.Conflict
	case http.StatusNotFound:
		return redoubt.NotFound
	case http.StatusForbidden:
		return redoubt.Denied
	case http.StatusUnauthorized:
		return redoubt.Unauthenticated
	case http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
		return redoubt.Unavailable
	case http.StatusPreconditionFailed:
		return redoubt.PreconditionFail
	case http.StatusNotModified:
		return redoubt.NotModified
	case http.StatusRequestedRangeNotSatisfiable:
		return redoubt.RangeInvalid
	case http.StatusMethodNotAllowed:
		return redoubt.MethodNotAllowed
	}
	return redoubt.Internal
}
