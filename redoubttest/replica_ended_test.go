package redoubttest_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"redoubt"
	"redoubt/redoubttest"
	"redoubt/replica"
)

// endingThen is a journal whose peer is ended just behind the first look at what there is for it.
type endingThen struct {
	redoubt.Journal
	once sync.Once
	end  func()
}

func (e *endingThen) Sets(ctx context.Context, peer redoubt.NodeName) ([]string, error) {
	sets, err := e.Journal.Sets(ctx, peer)
	e.once.Do(e.end)
	return sets, err
}

// TestAPeerThatIsEndedIsStillHeard: a device that is ordered wiped says over this meeting that its keys are gone, or never.
func TestAPeerThatIsEndedIsStillHeard(t *testing.T) {
	bubble(t, func(t *testing.T) {
		home, device := twoStacks(t)
		link(t, home, device, "SECRET")
		put(t, home, home.As(home.Mint("s-analyst", "")), "a", "content", "")
		a, b := redoubttest.NewRoad(0)
		j := &endingThen{Journal: home, end: func() {
			ended := redoubt.Link{Peer: device.Name(), Key: device.JournalKey(), Bound: home.Label("SECRET"), Ending: redoubt.NotesOnly}
			if err := home.SetLinks(context.Background(), []redoubt.Link{ended}); err != nil {
				t.Error(err)
			}
		}}
		heard, over := make(chan string, 1), make(chan error, 2)
		ctx, stop := context.WithCancel(context.Background())
		atHome := replica.New(replica.Options{Estate: "example", Node: home.Name(), Peer: device.Name(), Journal: j, State: home, Conn: a,
			Noted: func(_ context.Context, _ *replica.Session, kind string, _ []byte) error { heard <- kind; return nil }})
		atDevice := replica.New(replica.Options{Estate: "example", Node: device.Name(), Peer: home.Name(), Journal: device, State: device, Conn: b})
		for _, s := range []*replica.Session{atHome, atDevice} {
			go func() { over <- s.Run(ctx) }()
		}
		time.Sleep(time.Minute)
		if err := atDevice.Tell(ctx, "wiped", nil); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		select {
		case kind := <-heard:
			if kind != "wiped" {
				t.Errorf("heard %q", kind)
			}
		case err := <-over:
			t.Errorf("the meeting ended: %v", err)
			over <- nil
		default:
			t.Error("the home heard nothing")
		}
		stop()
		<-over
		<-over
	})
}
