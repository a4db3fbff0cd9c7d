package redoubttest_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"redoubt"
	"redoubt/redoubttest"
	"redoubt/replica"
)

// applying is a journal whose Apply is another.
type applying struct {
	redoubt.Journal
	apply func(ctx context.Context, in []redoubt.Received, next func() ([]redoubt.Refusal, error)) ([]redoubt.Refusal, error)
}

func (a applying) Apply(ctx context.Context, peer redoubt.NodeName, in []redoubt.Received) ([]redoubt.Refusal, error) {
	return a.apply(ctx, in, func() ([]redoubt.Refusal, error) { return a.Journal.Apply(ctx, peer, in) })
}

// meetApplying is meet with an Apply of the device's that is another.
func meetApplying(home, device *redoubttest.Stack, apply func(context.Context, []redoubt.Received, func() ([]redoubt.Refusal, error)) ([]redoubt.Refusal, error)) (atDevice chan error, stop context.CancelFunc) {
	a, b := redoubttest.NewRoad(0)
	ctx, stop := context.WithCancel(context.Background())
	atDevice = make(chan error, 1)
	go func() {
		_ = replica.New(replica.Options{Estate: "example", Node: home.Name(), Peer: device.Name(), Journal: home, State: home, Conn: a}).Run(ctx)
	}()
	go func() {
		atDevice <- replica.New(replica.Options{Estate: "example", Node: device.Name(), Peer: home.Name(), Journal: applying{device, apply}, State: device, Conn: b}).Run(ctx)
	}()
	return atDevice, stop
}

func TestALargeEntryThatCannotBeTakenEndsTheSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		home, device := twoStacks(t)
		link(t, home, device, "SECRET")
		put(t, home, home.As(home.Mint("s-analyst", "")), "huge", noise(1, 9<<20), "")
		broken := errors.New("the disk is gone")
		ended, stop := meetApplying(home, device, func(ctx context.Context, in []redoubt.Received, next func() ([]redoubt.Refusal, error)) ([]redoubt.Refusal, error) {
			if in[0].Entry.Name.Key != "huge" {
				return next()
			}
			if _, err := io.Copy(io.Discard, in[0].Content); err != nil {
				return nil, err
			}
			return nil, broken // when the peer has nothing more to say
		})
		synctest.Wait()
		select {
		case err := <-ended:
			if !errors.Is(err, broken) {
				t.Errorf("the session ended with %v, want what Apply said", err)
			}
		default:
			t.Error("the session goes on, though an entry could not be taken")
		}
		stop()
		synctest.Wait()
	})
}

func TestALargeEntryIsMadeDurableWhileTheNextOneComes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		home, device := twoStacks(t)
		link(t, home, device, "SECRET")
		h, d := home.As(home.Mint("s-analyst", "")), device.As(device.Mint("s-analyst", ""))
		for _, key := range []string{"first", "second", "third", "fourth", "fifth", "sixth"} {
			put(t, home, h, key, noise(uint64(len(key)), 9<<20), "")
		}
		second := make(chan struct{})
		ended, stop := meetApplying(home, device, func(ctx context.Context, in []redoubt.Received, next func() ([]redoubt.Refusal, error)) ([]redoubt.Refusal, error) {
			refused, err := next()
			switch in[0].Entry.Name.Key {
			case "first": // its sync takes until the next one has come
				select {
				case <-second:
				case <-ctx.Done():
				}
			case "second":
				close(second)
			}
			return refused, err
		})
		synctest.Wait()
		same(t, home, device, h, d)
		if got := seen(t, device, d); len(got) != 6 {
			t.Errorf("the device shows %d versions, want 6", len(got))
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
