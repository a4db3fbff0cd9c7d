package registry

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"

	"redoubt"
)

// ociError is an answer with a code of OCI Distribution 1.1. It stands around the cause where there is one.
type ociError struct {
	code    string
	status  int    // 0: that of the cause's Kind
	message string // "": that of the cause
	err     error
}

func (e *ociError) Error() string { return "registry: " + e.code }

// Unwrap gives the cause, and so its Kind. One without a cause is a malformed request.
func (e *ociError) Unwrap() error {
	if e.err == nil {
		return redoubt.Invalid
	}
	return e.err
}

// as gives err a code of its own, whatever its Kind; nil stays nil.
func as(code string, err error) error {
	if err == nil {
		return nil
	}
	return &ociError{code: code, err: err}
}

// unknown gives what cannot be found the code of what was asked for.
func unknown(code string, err error) error {
	if err == nil {
		return nil
	}
	switch redoubt.KindOf(err) {
	case redoubt.NotFound, redoubt.NoBucket, redoubt.MethodNotAllowed, redoubt.Erased:
		return &ociError{code: code, status: http.StatusNotFound, err: redoubt.NotFound}
	case redoubt.BadDigest: // something else lies under its name: what was asked for does not
		return &ociError{code: code, status: http.StatusNotFound, err: redoubt.NotFound}
	}
	return err
}

var (
	errTooMany       = &ociError{code: "TOOMANYREQUESTS", status: http.StatusTooManyRequests, message: "too many requests or uploads of this credential or label are under way"}
	errUploadUnknown = &ociError{code: "BLOB_UPLOAD_UNKNOWN", status: http.StatusNotFound, message: "no such upload: it was never begun by this credential, or has ended"}
)

// kinds is what a client is told of each Kind. It is exhaustive.
var kinds = map[redoubt.Kind]struct {
	code   string
	status int
}{
	redoubt.Internal:         {"UNKNOWN", http.StatusInternalServerError},
	redoubt.NotFound:         {"NAME_UNKNOWN", http.StatusNotFound},
	redoubt.Denied:           {"DENIED", http.StatusForbidden},
	redoubt.Unauthenticated:  {"UNAUTHORIZED", http.StatusUnauthorized},
	redoubt.Expired:          {"UNAUTHORIZED", http.StatusUnauthorized},
	redoubt.Invalid:          {"UNSUPPORTED", http.StatusBadRequest},
	redoubt.TooLarge:         {"SIZE_INVALID", http.StatusRequestEntityTooLarge},
	redoubt.Exists:           {"DENIED", http.StatusConflict},
	redoubt.Conflict:         {"DENIED", http.StatusConflict},
	redoubt.PreconditionFail: {"DENIED", http.StatusPreconditionFailed},
	redoubt.NotModified:      {"UNKNOWN", http.StatusNotModified},
	redoubt.RangeInvalid:     {"SIZE_INVALID", http.StatusRequestedRangeNotSatisfiable},
	redoubt.NotEmpty:         {"DENIED", http.StatusConflict},
	redoubt.Locked:           {"DENIED", http.StatusLocked},
	redoubt.QuotaExceeded:    {"DENIED", http.StatusForbidden}, // not 429, which clients would try again
	redoubt.DiskFull:         {"DENIED", http.StatusInsufficientStorage},
	redoubt.Erased:           {"NAME_UNKNOWN", http.StatusNotFound},
	redoubt.Corrupt:          {"UNKNOWN", http.StatusInternalServerError},
	redoubt.Unavailable:      {"UNKNOWN", http.StatusServiceUnavailable},
	redoubt.NotImplemented:   {"UNSUPPORTED", http.StatusNotImplemented},
	redoubt.BadDigest:        {"DIGEST_INVALID", http.StatusBadRequest},
	redoubt.NoBucket:         {"NAME_UNKNOWN", http.StatusNotFound},
	redoubt.MethodNotAllowed: {"UNSUPPORTED", http.StatusMethodNotAllowed},
}

// problem is an error as a client sees it (OCI Distribution 1.1, "Error Codes").
type problem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

type problems struct {
	Errors []problem `json:"errors"`
}

// told is what a client may be told of err, and the status. What does not exist has neither rule nor hint: the answer is the same, byte for
// byte, for what the caller may not know of.
func told(err error) (problem, int) {
	kind := redoubt.KindOf(err)
	row, ok := kinds[kind]
	if !ok {
		kind, row = redoubt.Internal, kinds[redoubt.Internal]
	}
	p, status := problem{Code: row.code, Message: kind.Error()}, row.status
	var e *redoubt.Error
	if kind != redoubt.NotFound && kind != redoubt.Internal && errors.As(err, &e) {
		if e.Rule != "" {
			p.Message += ": " + e.Rule
		}
		if e.Hint != "" {
			p.Message += "; hint: " + e.Hint
		}
	}
	var o *ociError
	if errors.As(err, &o) {
		p.Code = o.code
		if o.status != 0 {
			status = o.status
		}
		if o.message != "" {
			p.Message = o.message
		}
	}
	return p, status
}

// fail answers with an error; where an answer is under way, it is cut.
func (c *call) fail(err error) {
	p, status := told(err)
	c.g.logFailure(c.ctx, err, status)
	if c.started {
		panic(http.ErrAbortHandler)
	}
	h := c.w.Header()
	for _, name := range []string{"Content-Length", "Accept-Ranges", "Docker-Content-Digest", "Etag", labelHeader} {
		h.Del(name)
	}
	if status != http.StatusRequestedRangeNotSatisfiable {
		h.Del("Content-Range")
	}
	switch status {
	case http.StatusUnauthorized:
		h.Set("Www-Authenticate", `Basic realm="redoubt"`)
	case http.StatusTooManyRequests:
		h.Set("Retry-After", "5")
	}
	h.Set("Content-Type", "application/json")
	body, _ := json.Marshal(problems{Errors: []problem{p}}) // strings marshal
	c.begin(status)
	if c.r.Method != http.MethodHead {
		_, _ = c.w.Write(append(body, '\n')) // whoever is gone need not be told
	}
}

// logFailure logs faults of ours by kind and request: the cause may name what this log's readers may not know.
func (g *Registry) logFailure(ctx context.Context, err error, status int) {
	if status >= http.StatusInternalServerError {
		g.Log.LogAttrs(ctx, slog.LevelError, "registry request failed", slog.String("kind", redoubt.KindOf(err).Error()), slog.String("request", redoubt.RequestID(ctx)))
	}
}
