package guard_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"redoubt"
	"redoubt/faketime"
	"redoubt/guard"
)

// approvedAt is a source where one release is approved, under rules.
type approvedAt struct {
	redoubt.ReleaseSource
	rules string

	mu       sync.Mutex
	finished []string
}

func (s *approvedAt) ended() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.finished)
}

func (s *approvedAt) PendingReleases(ctx context.Context, _ redoubt.Credential, state redoubt.ReleaseState) ([]redoubt.ReleaseID, error) {
	if state == redoubt.ReleaseApproved && len(s.ended()) == 0 {
		return []redoubt.ReleaseID{"r"}, nil
	}
	<-ctx.Done()
	return nil, nil
}

func (s *approvedAt) FetchApproved(context.Context, redoubt.Credential, redoubt.ReleaseID) (redoubt.ReleasePackage, redoubt.Object, error) {
	return redoubt.ReleasePackage{
		Statement: redoubt.ReleaseStatement{ID: "r", From: "high", To: "low", Requester: "a", Rules: s.rules, SHA256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		Approvals: []redoubt.Signature{{Signer: "b"}, {Signer: "c"}},
	}, nothing{}, nil
}

func (s *approvedAt) FinishRelease(_ context.Context, _ redoubt.Credential, _ redoubt.ReleaseID, r *redoubt.ReleaseReceipt, refused string) error {
	if r != nil {
		refused = "taken"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished = append(s.finished, refused)
	return nil
}

// nothing is content without a byte.
type nothing struct{}

func (nothing) Version() redoubt.Version      { return redoubt.Version{} }
func (nothing) Reader(int64, int64) io.Reader { return eof{} }
func (nothing) Close() error                  { return nil }

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// answers is a target that has one answer.
type answers struct{ err error }

func (a answers) AcceptRelease(context.Context, redoubt.Credential, redoubt.ReleasePackage, io.Reader) (redoubt.ReleaseReceipt, error) {
	return redoubt.ReleaseReceipt{}, a.err
}

func (a answers) ReleaseTaken(context.Context, redoubt.Credential, redoubt.ReleasePublic) (redoubt.ReleaseReceipt, bool, error) {
	return redoubt.ReleaseReceipt{}, false, a.err
}

// TestAGuardThatGoesByOtherRulesRefusesNothingThatTheTargetMayHave: its source would have it refused for good, though it was taken before the
// guard ended and its estate was changed.
func TestAGuardThatGoesByOtherRulesRefusesNothingThatTheTargetMayHave(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			rules string
			err   error
			want  []string
		}{
			{"mine", nil, []string{"taken"}},
			{"mine", &redoubt.Error{Kind: redoubt.Denied, Rule: "a rule"}, []string{"a rule"}},
			{"others", nil, nil},
			{"others", errors.New("it is not asked"), nil},
		} {
			source := &approvedAt{rules: c.rules}
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			guard.NewReleaser(guard.ReleaserOptions{Rules: guard.Rules{Digest: "mine", High: "high", Low: "low"}, Source: source, Target: answers{c.err}}).Run(ctx)
			stop()
			if !slices.Equal(source.ended(), c.want) {
				t.Errorf("rules %s, target says %v: the source is told %q, want %q", c.rules, c.err, source.ended(), c.want)
			}
		}
	})
}
