package api

import (
	"context"
	"errors"
	"net/http"

	"redoubt"
)

// kinds is what a client is told of each Kind: a stable name and a status of RFC 9110 (423, 507: RFC 4918). It is exhaustive.
var kinds = map[redoubt.Kind]struct {
	name   string
	status int
}{
	redoubt.Internal:         {"internal", http.StatusInternalServerError},
	redoubt.NotFound:         {"not-found", http.StatusNotFound},
	redoubt.Denied:           {"denied", http.StatusForbidden},
	redoubt.Unauthenticated:  {"unauthenticated", http.StatusUnauthorized},
	redoubt.Expired:          {"expired", http.StatusUnauthorized},
	redoubt.Invalid:          {"invalid", http.StatusBadRequest},
	redoubt.TooLarge:         {"too-large", http.StatusRequestEntityTooLarge},
	redoubt.Exists:           {"exists", http.StatusConflict},
	redoubt.Conflict:         {"conflict", http.StatusConflict},
	redoubt.PreconditionFail: {"precondition-failed", http.StatusPreconditionFailed},
	redoubt.NotModified:      {"not-modified", http.StatusNotModified},
	redoubt.RangeInvalid:     {"range-invalid", http.StatusRequestedRangeNotSatisfiable},
	redoubt.NotEmpty:         {"not-empty", http.StatusConflict},
	redoubt.Locked:           {"locked", http.StatusLocked},
	redoubt.QuotaExceeded:    {"quota-exceeded", http.StatusTooManyRequests},
	redoubt.DiskFull:         {"disk-full", http.StatusInsufficientStorage},
	redoubt.Erased:           {"erased", http.StatusGone},
	redoubt.Corrupt:          {"corrupt", http.StatusInternalServerError},
	redoubt.Unavailable:      {"unavailable", http.StatusServiceUnavailable},
	redoubt.NotImplemented:   {"not-implemented", http.StatusNotImplemented},
	redoubt.BadDigest:        {"bad-digest", http.StatusBadRequest},
	redoubt.NoBucket:         {"no-bucket", http.StatusNotFound},
	redoubt.MethodNotAllowed: {"method-not-allowed", http.StatusMethodNotAllowed},
}

// problem is an error as a client sees it.
type problem struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
	Rule    string `json:"rule,omitempty"` // that refused, for who may know
	Hint    string `json:"hint,omitempty"` // what to do next
}

type problemBody struct {
	Error problem `json:"error"`
}

// told is what a client may be told of err, and the status. What does not exist has neither rule nor
// hint: the answer is the same, byte for byte, for what the caller may not know of.
func told(err error) (problem, int) {
	kind := redoubt.KindOf(err)
	row, ok := kinds[kind]
	if !ok {
		kind, row = redoubt.Internal, kinds[redoubt.Internal]
	}
	p := problem{Kind: row.name, Message: kind.Error()}
	var e *redoubt.Error
	if kind != redoubt.NotFound && kind != redoubt.Internal && errors.As(err, &e) {
		p.Rule, p.Hint = e.Rule, e.Hint
	}
	return p, row.status
}

// fail answers with an error, before anything else was written.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	p, status := told(err)
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	s.logFailure(r.Context(), err, status)
	if status == http.StatusNotModified {
		w.WriteHeader(status)
		return
	}
	_ = answer(w, status, problemBody{p})
}

// logFailure logs faults of ours by kind and request: the cause may name what this log's readers may not know.
func (s *server) logFailure(ctx context.Context, err error, status int) {
	if status >= http.StatusInternalServerError {
		s.Log.ErrorContext(ctx, "request failed", "kind", redoubt.KindOf(err).Error(), "request", redoubt.RequestID(ctx))
	}
}
