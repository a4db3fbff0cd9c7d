package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"

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
}

func (w *crew) flags(c *cobra.Command) {
	must := "act as `SUBJECT[@NODE]`"
	if w.role != "" {
		must += "; in an exercise " + string(w.role) + " by default"
	}
	c.Flags().StringVar(&w.as, "as", "", must)
	c.Flags().StringSliceVar(&w.at, "at", nil, "`NODE`s to act at; default: every running node of the state")
	c.Flags().StringVar(&w.label, "label", "", "working label, a `marking`; default: the highest that subject and node share")
	c.Flags().StringVar(&w.keyFile, "key", "", "the subject's private key `file`; an exercise keeps it in the state")
	if w.role == "" {
		required(c, "as")
	}
}

// muster finds who acts, with her key, and where.
func (a *app) muster(w crew) (node.State, redoubt.SubjectName, ed25519.PrivateKey, []redoubt.NodeName, error) {
	fail := func(err error) (node.State, redoubt.SubjectName, ed25519.PrivateKey, []redoubt.NodeName, error) {
		return node.State{}, "", nil, nil, err
	}
	st, err := a.state()
	if err != nil {
		return fail(err)
	}
	name, at, one := strings.Cut(w.as, "@")
	if one {
		w.at = append(w.at, at)
	}
	subject := redoubt.SubjectName(name)
	if subject == "" {
		if w.role == "" || !st.HasExercise() {
			return fail(&usageError{message: "--as is needed", hint: "such as --as officer"})
		}
		subject = w.role
	}
	key, err := subjectKey(st, subject, w.keyFile)
	if err != nil {
		return fail(err)
	}
	var nodes []redoubt.NodeName
	for _, n := range w.at {
		nodes = append(nodes, redoubt.NodeName(n))
	}
	if len(nodes) == 0 {
		if nodes, err = readyNodes(st); err != nil {
			return fail(err)
		}
	}
	return st, subject, key, nodes, nil
}

func readyNodes(st node.State) ([]redoubt.NodeName, error) {
	all, err := st.Nodes()
	if err != nil {
		return nil, err
	}
	var ready []redoubt.NodeName
	for _, n := range all {
		if r, err := st.Runtime(n); err != nil {
			return nil, err
		} else if r.State == node.Ready {
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
	st, subject, key, nodes, err := a.muster(w)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		s, err := dial(ctx, st, subject, n, key, who{label: w.label})
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
