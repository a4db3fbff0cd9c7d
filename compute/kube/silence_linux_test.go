package kube

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"redoubt/faketime"
)

// joined is an instance whose pod is what exec does. Nobody follows it.
func joined(t *testing.T, exec func(ctx context.Context, in io.Reader, out io.Writer) error) *instance {
	d := &Driver{exec: func(ctx context.Context, _, _, _ string, _ []string, in io.Reader, out, _ io.Writer) error {
		return exec(ctx, in, out)
	}}
	i := &instance{d: d, p: &pod{d: d, space: &space{}}, key: "key", joining: make(chan struct{}, 1), stood: rate.NewLimiter(rate.Every(time.Minute), mostStreams)}
	i.ctx, i.stop = context.WithCancel(t.Context())
	return i
}

// A program may stop the process that its node speaks through. What was begun for a stream that was given up does not stay, and its program cannot have
// the node begin more and more of them.
func TestAStreamThatIsGivenUpLeavesNothing(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		var open, begun atomic.Int32
		i := joined(t, func(ctx context.Context, in io.Reader, _ io.Writer) error {
			open.Add(1)
			begun.Add(1)
			defer open.Add(-1)
			go io.Copy(io.Discard, in)
			<-ctx.Done() // it hears, and never says a word
			return ctx.Err()
		})
		for n := 0; ; n++ {
			_, err := i.ask(t.Context(), http.MethodGet, watchPath, nil)
			if errors.Is(err, errWorn) {
				break
			}
			if synctest.Wait(); err == nil || open.Load() != 0 || n > 10*mostStreams {
				t.Fatalf("after %d streams %d are open, %v", n+1, open.Load(), err)
			}
		}
		if got := begun.Load(); got <= mostStreams || got > 2*mostStreams {
			t.Errorf("%d were begun, want one more than %d and what time allows", got, mostStreams)
		}
		i.stop()
		i.streams.Wait()
	})
}

// A cluster that is out of reach wears out nothing: its service is not asked, and runs on.
func TestAClusterOutOfReachWearsNoInstanceOut(t *testing.T) {
	i := joined(t, func(context.Context, io.Reader, io.Writer) error { return errors.New("connection refused") })
	for range 2 * mostStreams {
		if _, err := i.ask(t.Context(), http.MethodGet, watchPath, nil); err == nil || errors.Is(err, errWorn) {
			t.Fatal(err)
		}
	}
	i.stop()
	i.streams.Wait()
}

// listener takes the connections that it is given.
type listener chan net.Conn

func (l listener) Accept() (net.Conn, error) {
	c, ok := <-l
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (l listener) Close() error {
	close(l)
	return nil
}

func (l listener) Addr() net.Addr { return &net.UnixAddr{Name: keeperSocket} }

// A node may go without the end of its stream being told: nobody ends a pod then but its keeper.
func TestANodeThatFallsSilentWatchesNoMore(t *testing.T) {
	for name, reads := range map[string]bool{"what it is sent goes nowhere": true, "it takes nothing": false} {
		t.Run(name, func(t *testing.T) {
			faketime.Test(t, func(t *testing.T) {
				k, l := newKeeper(alone), make(listener)
				k.key = "key"
				served := make(chan error, 1)
				go func() { served <- k.serve(l) }()
				within, stop := context.WithCancel(t.Context()) // the stream, both ways
				defer stop()
				i := joined(t, func(ctx context.Context, in io.Reader, out io.Writer) error {
					near, far := net.Pipe()
					defer near.Close()
					l <- far
					go func() {
						piece := make([]byte, 1<<10)
						for {
							n, err := in.Read(piece)
							if err != nil || within.Err() != nil {
								return
							}
							near.Write(piece[:n])
						}
					}()
					piece := make([]byte, 1<<10)
					for within.Err() == nil || reads {
						n, err := near.Read(piece)
						if err != nil {
							return err
						}
						if within.Err() == nil {
							out.Write(piece[:n])
						}
					}
					<-ctx.Done()
					return ctx.Err()
				})
				res, err := i.ask(i.ctx, http.MethodGet, watchPath, nil)
				if err != nil || res.StatusCode != http.StatusOK {
					t.Fatal(res, err)
				}
				go io.Copy(io.Discard, res.Body)
				time.Sleep(3 * alone)
				select {
				case err := <-served:
					t.Fatalf("it has ended while it was watched: %v", err)
				default:
				}
				stop()
				began := time.Now()
				<-k.left
				if took := time.Since(began); took < alone || took > alone+5*silence {
					t.Errorf("it ended after %s", took)
				}
				<-served
				i.stop()
				i.streams.Wait()
			})
		})
	}
}
