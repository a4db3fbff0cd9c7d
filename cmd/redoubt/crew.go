package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/node"
)

// crew is one subject at several nodes: what officers and administrators do, they do for the estate.
type crew struct {
	as      string // SUBJECT or SUBJECT@NODE
	at      []string
	label   string
	keyFile string
	role    redoubt.SubjectName // who acts in an exercise when --as is not given; "" when it must be
	life    time.Duration       // of the credential; 0: commandLife
	// enclaves: without --at, enclaves alone. Their devices are told by them, and know people cut to their own range.
	enclaves bool
	far      remote // of the one node, when it is on another machine
}

func (w *crew) flags(c *cobra.Command) {
	w.asFlags(c)
	c.Flags().StringSliceVar(&w.at, "at", nil, "`NODE`s to act at; default: every running node of the state")
	c.Flags().StringVar(&w.label, "label", "", "working label, a `marking`; default: the highest that subject and node share")
}

// asFlags are flags for a command that says itself where it acts.
func (w *crew) asFlags(c *cobra.Command) {
	must := "act as `SUBJECT[@NODE]`"
	if w.role != "" {
		must += "; in an exercise " + string(w.role) + " by default"
	}
	c.Flags().StringVar(&w.as, "as", "", must)
	c.Flags().StringVar(&w.keyFile, "key", "", "the subject's private key `file`; an exercise keeps it in the state")
	w.far.flags(c)
	if w.role == "" {
		required(c, "as")
	}
}

// team is a crew that was found: who acts, with her key, and where.
type team struct {
	subject redoubt.SubjectName
	key     ed25519.PrivateKey
	nodes   []redoubt.NodeName
}

func (a *app) muster(w crew) (team, error) {
	name, at, one := strings.Cut(w.as, "@")
	if one && !slices.Contains(w.at, at) {
		w.at = append(w.at, at)
	}
	t := team{subject: redoubt.SubjectName(name)}
	if t.subject == "" {
		st, err := a.state()
		if err != nil && !w.far.named() {
			return team{}, err
		}
		if w.role == "" || err != nil || !st.HasExercise() {
			return team{}, &usageError{message: "--as is needed", hint: "such as --as officer"}
		}
		t.subject = w.role
	}
	for _, n := range w.at {
		t.nodes = append(t.nodes, redoubt.NodeName(n))
	}
	if w.far.named() && len(t.nodes) != 1 {
		return team{}, &usageError{message: "--api-url is of one node: name it", hint: "--at NODE, or --as SUBJECT@NODE"}
	}
	var err error
	if len(t.nodes) == 0 {
		if t.nodes, err = a.readyNodes(w.enclaves); err != nil {
			return team{}, err
		}
	}
	t.key, err = a.subjectKey(t.subject, w.keyFile)
	return t, err
}

// readyNodes are the nodes of the state that run and can be asked, which guards cannot; enclaves leaves devices out.
func (a *app) readyNodes(enclaves bool) ([]redoubt.NodeName, error) {
	st, err := a.state()
	if err != nil {
		return nil, err
	}
	all, err := st.Nodes()
	if err != nil {
		return nil, err
	}
	var ready []redoubt.NodeName
	for _, n := range all {
		if r, err := st.Runtime(n); err != nil {
			return nil, err
		} else if r.State == node.Ready && r.APIURL != "" && !(enclaves && len(r.Dials) > 0) {
			ready = append(ready, n)
		}
	}
	if len(ready) == 0 {
		return nil, &redoubt.Error{Object: st.Dir(), Kind: redoubt.Unavailable, Err: errors.New("no node is running"), Hint: "redoubt up --detach"}
	}
	return ready, nil
}

// each opens a session at every node in turn. It stops at the first error, and says where that was.
func (a *app) each(ctx context.Context, w crew, do func(s *session) error) error {
	t, err := a.muster(w)
	if err != nil {
		return err
	}
	for _, n := range t.nodes {
		at, err := a.reach(n, w.far)
		if err != nil {
			return err
		}
		s, err := dial(ctx, at, t.subject, n, t.key, who{label: w.label, life: w.life})
		if err != nil {
			return interrupted(ctx, err)
		}
		err = do(s)
		s.close()
		if err != nil {
			return interrupted(ctx, atNode(err, n))
		}
	}
	return nil
}

// atNode names the node in an error that does not.
func atNode(err error, n redoubt.NodeName) error {
	e, ok := err.(*redoubt.Error)
	if !ok {
		return fmt.Errorf("at %s: %w", n, err)
	}
	out := *e
	out.Object = strings.TrimSuffix("node "+string(n)+": "+e.Object, ": ")
	return &out
}
