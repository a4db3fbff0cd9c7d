package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/client"
)

// changeAt is a change as one node sees it.
type changeAt struct {
	Node redoubt.NodeName `json:"node"`
	redoubt.Change
}

// sendChange sends a signed thing to every node and shows what became of it.
func (a *app) sendChange(ctx context.Context, w crew, send func(*session) (redoubt.Change, error), next string) error {
	out := []changeAt{}
	err := a.each(ctx, w, func(s *session) error {
		c, err := send(s)
		if err != nil {
			return err
		}
		out = append(out, changeAt{s.node, c})
		return nil
	})
	if a.json && err == nil {
		return a.print(map[string]any{"changes": out})
	}
	t := a.table() // also beside an error: what was done before it, was done
	for _, c := range out {
		t.row(string(c.Node), c.State, short(c.ID))
	}
	if err = errors.Join(err, t.flush()); err != nil {
		return err
	}
	if slices.ContainsFunc(out, func(c changeAt) bool { return c.State == "pending" }) && next != "" {
		a.say("%s", next)
	}
	return nil
}

// gatherChanges asks every node for what was proposed.
func (a *app) gatherChanges(ctx context.Context, w crew) ([]changeAt, error) {
	all := []changeAt{}
	err := a.each(ctx, w, func(s *session) error {
		changes, err := s.api.Changes(ctx)
		for _, c := range changes {
			all = append(all, changeAt{s.node, c})
		}
		return err
	})
	return all, err
}

// short is as much of a change's ID as people need: the beginning of one is enough wherever it is asked for.
func short(id string) string { return id[:min(12, len(id))] }

// about says what a change does, in a line.
func about(c redoubt.Change) string {
	switch {
	case c.Person != nil:
		return fmt.Sprintf("person %s: %s, %s, %s", c.Person.Name, c.Person.Clearance, c.Person.Nation, list(c.Person.Roles))
	case c.Label != "":
		return "destroy everything marked " + c.Label
	case c.Bucket != "":
		return "destroy the bucket " + string(c.Bucket)
	}
	return string(c.Kind)
}

func (a *app) personChanges() *cobra.Command {
	w := crew{role: "officer"}
	c := &cobra.Command{Use: "changes", Short: "What officers have proposed, and what became of it", Example: "  redoubt person changes --as officer-2", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.showChanges(cmd.Context(), w, false) }}
	w.flags(c)
	return a.jsonFlag(c)
}

// showChanges prints what was proposed, or only what still waits.
func (a *app) showChanges(ctx context.Context, w crew, pending bool) error {
	all, err := a.gatherChanges(ctx, w)
	if err != nil {
		return err
	}
	if pending {
		all = slices.DeleteFunc(all, func(c changeAt) bool { return c.State != "pending" })
	}
	if a.json {
		return a.print(map[string]any{"changes": all})
	}
	t := a.table("NODE", "STATE", "WHAT", "REASON", "BY", "ID")
	for _, c := range all {
		var by []string
		for _, s := range c.Signatures {
			by = append(by, string(s.Signer))
		}
		t.row(string(c.Node), c.State, about(c.Change), c.Reason, strings.Join(by, ", "), short(c.ID))
	}
	return t.flush()
}

func (a *app) personApprove() *cobra.Command {
	var w crew
	c := &cobra.Command{Use: "approve ID --as OFFICER", Short: "Sign a proposed change as the second officer, wherever it waits",
		Long:    "Reads the change from each node, checks that its ID is that of its content, shows it, and signs it with the\nofficer's own key. The beginning of an ID is enough.",
		Example: "  redoubt person approve 3f9a --as officer-2", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.approve(cmd.Context(), w, args[0]) }}
	w.flags(c)
	return a.jsonFlag(c)
}

// approve signs the change whose ID begins so, at every node where it waits.
func (a *app) approve(ctx context.Context, w crew, id string) error {
	all, err := a.gatherChanges(ctx, w)
	if err != nil {
		return err
	}
	var change *redoubt.Change
	var nodes []string
	for i := range all {
		c := &all[i]
		if c.State != "pending" || !strings.HasPrefix(c.ID, id) {
			continue
		}
		if redoubt.ChangeID(c.Change) != c.ID {
			return &redoubt.Error{Object: "node " + string(c.Node), Kind: redoubt.Corrupt, Err: errors.New("the change is not what its ID says: nothing was signed"), Hint: "redoubt audit verify"}
		}
		if change != nil && change.ID != c.ID {
			return &usageError{message: "several changes begin with " + id, hint: "redoubt person changes shows their IDs"}
		}
		change, nodes = &c.Change, append(nodes, string(c.Node))
	}
	if change == nil {
		return &redoubt.Error{Object: "change " + id, Kind: redoubt.NotFound, Err: errors.New("no such change waits"), Hint: "redoubt person changes --as OFFICER"}
	}
	a.say("signing: %s (%s)", about(*change), change.Reason)
	t, err := a.muster(w)
	if err != nil {
		return err
	}
	sig := client.SignChange(*change, t.subject, t.key)
	w.at, w.as = nodes, string(t.subject)
	return a.sendChange(ctx, w, func(s *session) (redoubt.Change, error) { return s.api.ApproveChange(ctx, change.ID, sig) }, "")
}
