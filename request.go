package redoubt

import "context"

type requestKey struct{}

// WithRequest puts a front end's random request ID into the context, so that the
// audit log and the answer name the same request.
func WithRequest(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestKey{}, id)
}

// RequestID is the ID that WithRequest put there, or "".
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestKey{}).(string)
	return id
}
