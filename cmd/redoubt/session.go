package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/client"
)

// who says as whom, where and at which label a command acts: SUBJECT@NODE.
type who struct {
	as      string
	label   string
	keyFile string
	life    time.Duration // of the credential; 0: commandLife
	far     remote
}

// How long a command's credential lives. A subject may hold 1,024 (identity.MaxLiveCredentials), so a single command's
// is short: a command that takes longer renews it.
const (
	commandLife = 10 * time.Minute
	bulkLife    = time.Hour // of what moves many objects, or a whole enclave
)

// flags gives a command --as and what goes with it, for the node's HTTP interface.
func (w *who) flags(c *cobra.Command) {
	c.Flags().StringVar(&w.as, "as", "", "act as `SUBJECT@NODE`")
	required(c, "as")
	w.moreFlags(c)
}

// objectFlags are flags, for the node's S3 interface.
func (w *who) objectFlags(c *cobra.Command) {
	w.far.objects = true
	w.flags(c)
}

// moreFlags are those beside --as.
func (w *who) moreFlags(c *cobra.Command) {
	c.Flags().StringVar(&w.label, "label", "", "working label, a `marking`; default: the highest that subject and node share")
	c.Flags().StringVar(&w.keyFile, "key", "", "the subject's private key `file`; an exercise keeps it in the state")
	w.far.flags(c)
}

func (w *who) parts() (redoubt.SubjectName, redoubt.NodeName, error) {
	subject, name, ok := strings.Cut(w.as, "@")
	if !ok || subject == "" || name == "" {
		return "", "", &usageError{message: "want SUBJECT@NODE, got " + w.as, hint: "such as s-analyst@secret; redoubt status lists the nodes"}
	}
	return redoubt.SubjectName(subject), redoubt.NodeName(name), nil
}

// session is one subject at one node, with a credential made for this call.
type session struct {
	subject redoubt.SubjectName
	node    redoubt.NodeName
	at      faces
	minted  redoubt.Minted
	api     *client.Client
	objects *client.Objects // for commands with objectFlags
}

// open asks the node for a credential with the subject's own key. The caller closes the session.
func (a *app) open(ctx context.Context, w who) (*session, error) {
	subject, name, err := w.parts()
	if err != nil {
		return nil, err
	}
	at, err := a.reach(name, w.far)
	if err != nil {
		return nil, err
	}
	key, err := a.subjectKey(subject, w.keyFile)
	if err != nil {
		return nil, err
	}
	return dial(ctx, at, subject, name, key, w)
}

// subjectKey is the key of a file, or of the exercise that the state holds.
func (a *app) subjectKey(subject redoubt.SubjectName, file string) (ed25519.PrivateKey, error) {
	if file != "" {
		return readKey(file)
	}
	st, err := a.state()
	if errors.Is(err, redoubt.NotFound) {
		return nil, &usageError{message: "--key is needed", hint: "the file that redoubt person key made; only the state of an exercise keeps keys"}
	}
	if err != nil {
		return nil, err
	}
	return st.SubjectKey(subject)
}

// dial opens a session with a key at hand.
func dial(ctx context.Context, at faces, subject redoubt.SubjectName, name redoubt.NodeName, key ed25519.PrivateKey, w who) (*session, error) {
	s := &session{subject: subject, node: name, at: at}
	anybody, err := client.New(at.api, at.roots, "")
	if err != nil {
		return nil, err
	}
	life := w.life
	if life == 0 {
		life = commandLife
	}
	if s.minted, err = anybody.Mint(ctx, key, subject, name, w.label, life); err != nil {
		anybody.Close()
		return nil, mintHint(err, subject, name)
	}
	s.api = anybody.With(s.minted.Token)
	if at.s3 == "" {
		return s, nil
	}
	if s.objects, err = client.NewObjects(at.s3, at.roots, s.minted); err != nil {
		s.close()
		return nil, err
	}
	s.objects.Renew(life/2, func(ctx context.Context) (redoubt.Minted, error) {
		return anybody.Mint(ctx, key, subject, name, s.minted.Label, life)
	})
	return s, nil
}

// mintHint says what a refused credential may be about: the node itself tells a stranger nothing.
func mintHint(err error, subject redoubt.SubjectName, name redoubt.NodeName) error {
	var e *redoubt.Error
	if !errors.As(err, &e) || e.Hint != "" {
		return err
	}
	out := *e
	out.Object = string(subject) + "@" + string(name)
	switch e.Kind {
	case redoubt.Unauthenticated:
		out.Hint = "the subject is not known at this node, was revoked, or has another key; redoubt doctor looks at the clock"
	case redoubt.Denied:
		out.Hint = "the label must be within the subject's clearance and the node's range: redoubt status; redoubt estate show"
	}
	return &out
}

func (s *session) close() {
	s.api.Close()
	if s.objects != nil {
		s.objects.Close()
	}
}

// withSession runs a command as somebody.
func (a *app) withSession(w *who, do func(ctx context.Context, s *session, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		s, err := a.open(cmd.Context(), *w)
		if err != nil {
			return interrupted(cmd.Context(), err)
		}
		defer s.close()
		return interrupted(cmd.Context(), do(cmd.Context(), s, args))
	}
}

// withPlace is withSession for a command whose first argument is s3://BUCKET/KEY. check, when not nil, refuses what
// cannot mean anything before anybody is asked.
func (a *app) withPlace(w *who, check func(*cobra.Command, place, []string) error, do func(ctx context.Context, s *session, p place, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		p, err := parsePlace(args[0])
		if err == nil && check != nil {
			err = check(cmd, p, args)
		}
		if err != nil {
			return err
		}
		return a.withSession(w, func(ctx context.Context, s *session, args []string) error { return do(ctx, s, p, args) })(cmd, args)
	}
}

// interrupted tells Ctrl-C from a fault.
func interrupted(ctx context.Context, err error) error {
	var half *halfDone // says what was left, and that it was interrupted
	if err != nil && ctx.Err() != nil && !errors.Is(err, client.ErrPartsLeft) && !errors.As(err, &half) {
		return ctx.Err()
	}
	return err
}
