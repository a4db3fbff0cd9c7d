package replica

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"redoubt"
	"redoubt/faketime"
)

// ending is a journal of which a peer is told nothing more from some moment on.
type ending struct {
	redoubt.Journal
	sets  []string
	grown chan struct{}
}

func (e *ending) Changed() <-chan struct{} { return e.grown }

func (e *ending) Sets(context.Context, redoubt.NodeName) (sets []string, err error) {
	sets, e.sets = e.sets, nil // as if it had ended just behind this
	return sets, nil
}

func (e *ending) Inventory(context.Context, redoubt.NodeName, string, func(redoubt.Stamp) error) (uint64, error) {
	return 0, &redoubt.Error{Kind: redoubt.NotFound}
}

func (e *ending) Fetch(context.Context, redoubt.NodeName, string, []redoubt.Stamp) ([]redoubt.JournalItem, error) {
	return nil, &redoubt.Error{Kind: redoubt.NotFound}
}

// untold has nothing on record of any peer.
type untold struct{ redoubt.LinkState }

func (untold) Budget(context.Context, redoubt.NodeName, string) (b redoubt.LinkBudget, err error) {
	return b, nil
}
func (untold) Acknowledged(context.Context, redoubt.NodeName, string) (uint64, bool, error) {
	return 0, false, nil
}

// TestAMeetingOutlastsTheEndOfItsPeer has a peer end between the look at what there is for it and the reading: what it has to say of
// its end, that its keys are gone, comes over this meeting or never.
func TestAMeetingOutlastsTheEndOfItsPeer(t *testing.T) {
	for name, work := range map[string]func(s *Session, ctx context.Context) error{
		"as the journal is read": func(s *Session, ctx context.Context) error { return s.follow(ctx) },
		"as entries are sent": func(s *Session, ctx context.Context) error {
			out, _ := s.out.set("SET")
			s.out.fund(out, redoubt.LinkBudget{})
			s.out.begin(out, 0)
			s.out.add(out, 1, []redoubt.Precedence{redoubt.Routine}, []*ref{{at: 1, stamp: redoubt.Stamp{1}, size: 10}})
			_, _ = s.o.Journal.Sets(ctx, "peer")
			return s.send(ctx, redoubt.Routine)
		},
	} {
		t.Run(name, func(t *testing.T) {
			faketime.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				s := New(Options{Journal: &ending{sets: []string{"SET"}}, State: untold{}, Peer: "peer"})
				got := make(chan error, 1)
				go func() { got <- s.unlessEnded(ctx, work(s, ctx)) }()
				synctest.Wait()
				select {
				case err := <-got:
					t.Fatalf("the meeting would end: %v", err)
				default:
				}
				stop()
				if err := <-got; !errors.Is(err, context.Canceled) {
					t.Errorf("got %v when it was ended", err)
				}
			})
		})
	}
}

// TestWhatIsNotThereForAPeerThatIsMetEndsTheMeeting, at once or, where there was nothing at all for it, with what comes.
func TestWhatIsNotThereForAPeerThatIsMetEndsTheMeeting(t *testing.T) {
	fault := &redoubt.Error{Kind: redoubt.NotFound}
	s := New(Options{Journal: &ending{sets: []string{"SET"}}, Peer: "peer"})
	if err := s.unlessEnded(t.Context(), fault); !errors.Is(err, fault) {
		t.Errorf("got %v, want the fault", err)
	}
	faketime.Test(t, func(t *testing.T) {
		j := &ending{grown: make(chan struct{})}
		s := New(Options{Journal: j, Peer: "peer"})
		got := make(chan error, 1)
		go func() { got <- s.unlessEnded(t.Context(), fault) }()
		synctest.Wait()
		j.sets = []string{"SET"}
		close(j.grown)
		synctest.Wait()
		select {
		case err := <-got:
			if !errors.Is(err, fault) {
				t.Errorf("got %v, want the fault", err)
			}
		default:
			t.Error("it waits although there is something for the peer")
		}
	})
}
