package s3

import "context"

// Gatherer is a connection that can keep what is written to it, and send it in one piece: net/http sends a small answer
// in two, its head and the beginning of the content first, and whoever waits for it wakes twice.
type Gatherer interface {
	Gather()        // keep what is written from here on
	Release() error // send what was kept, and keep nothing more
}

type gathererKey struct{}

// WithGatherer tells the requests of a connection that it gathers. It is for http.Server's ConnContext.
func WithGatherer(ctx context.Context, g Gatherer) context.Context {
	return context.WithValue(ctx, gathererKey{}, g)
}

// GathererOf is the connection of a request, nil where it does not gather.
func GathererOf(ctx context.Context) Gatherer {
	g, _ := ctx.Value(gathererKey{}).(Gatherer)
	return g
}

// inOnePiece sends what write writes, with the head of the answer, at once where the connection can. On HTTP/2 a connection carries
// other answers beside this one, and is left alone.
func (c *call) inOnePiece(write func() error) (err error) {
	g := GathererOf(c.ctx)
	if g == nil || c.r.ProtoMajor != 1 {
		return write()
	}
	g.Gather()
	defer func() {
		if lost := g.Release(); err == nil {
			err = lost
		}
	}()
	if err := write(); err != nil {
		return err
	}
	return c.rc.Flush()
}
