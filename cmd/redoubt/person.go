package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/client"
)

func (a *app) personCommand() *cobra.Command {
	c := &cobra.Command{Use: "person", Short: "People, their clearances and keys: what two officers decide",
		Long: `People are cleared, changed and given roles by two security officers: one proposes, another approves, each
with her own key. Revoking takes one officer and effect at once. All of it is on record at a node's ceiling: to see it, to
propose and to approve, an officer works there, as she does without --label.`,
		Example: `  redoubt person add n-analyst --clearance SECRET --nation USA --role analyst --expires 2031-12-31 --reason "joins the desk" --as officer
  redoubt person approve ID --as officer-2
  redoubt person revoke n-analyst --reason "left" --as officer`}
	c.AddCommand(a.personLs(), a.personShow(), a.personAdd(), a.personSet(), a.personChanges(), a.personApprove(), a.personRevoke(), a.personKey())
	return c
}

// peopleAt is the people of one node.
type peopleAt struct {
	Node   redoubt.NodeName `json:"node"`
	People []redoubt.Person `json:"people"`
}

func (a *app) gatherPeople(ctx context.Context, w crew, name string) ([]peopleAt, error) {
	all := []peopleAt{}
	err := a.each(ctx, w, func(s *session) error {
		people, err := s.api.People(ctx)
		if err != nil {
			return err
		}
		if name != "" {
			people = slices.DeleteFunc(people, func(p redoubt.Person) bool { return string(p.Name) != name })
		}
		all = append(all, peopleAt{s.node, people})
		return nil
	})
	return all, err
}

func (a *app) personLs() *cobra.Command {
	w := crew{role: "officer"}
	var pending bool
	c := &cobra.Command{Use: "ls", Short: "Everybody, as each node knows them, or what waits for a second officer",
		Example: "  redoubt person ls --at secret --as officer\n  redoubt person ls --pending --as officer-2", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if pending {
				return a.showChanges(cmd.Context(), w, true)
			}
			all, err := a.gatherPeople(cmd.Context(), w, "")
			if err != nil {
				return err
			}
			return a.showPeople(all)
		}}
	w.flags(c)
	c.Flags().BoolVar(&pending, "pending", false, "the changes that wait for another officer, instead of people")
	return a.jsonFlag(c)
}

func (a *app) showPeople(all []peopleAt) error {
	if a.json {
		return a.print(map[string]any{"nodes": all})
	}
	t := a.table("NODE", "NAME", "CLEARANCE", "NATION", "ROLES", "EXPIRES", "STATE")
	for _, n := range all {
		for _, p := range n.People {
			state := "cleared"
			if p.Revoked {
				state = "revoked"
			}
			t.row(string(n.Node), string(p.Name), p.Clearance, p.Nation, list(p.Roles), p.Expires.Format(time.DateOnly), state)
		}
	}
	return t.flush()
}

func (a *app) personShow() *cobra.Command {
	w := crew{role: "officer"}
	c := &cobra.Command{Use: "show NAME", Short: "One person, as each node knows her", Example: "  redoubt person show s-analyst --as officer --json", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := a.gatherPeople(cmd.Context(), w, args[0])
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(all, func(n peopleAt) bool { return len(n.People) > 0 }) {
				return &redoubt.Error{Object: args[0], Kind: redoubt.NotFound, Hint: "redoubt person ls --as OFFICER"}
			}
			return a.showPeople(all)
		}}
	w.flags(c)
	return a.jsonFlag(c)
}

// personFlags are what can be said of a person.
type personFlags struct {
	clearance, nation, expires, publicKey, reason string
	roles                                         []string
	workload                                      bool
}

func (f *personFlags) flags(c *cobra.Command) {
	c.Flags().StringVar(&f.clearance, "clearance", "", "a `marking`")
	c.Flags().StringVar(&f.nation, "nation", "", "a `trigraph`")
	c.Flags().StringSliceVar(&f.roles, "role", nil, "`roles`: analyst, officer, reviewer, admin, storage, write-up")
	c.Flags().StringVar(&f.expires, "expires", "", "`date` on which the clearance ends")
	c.Flags().StringVar(&f.publicKey, "public-key", "", "Ed25519 public `key`, base64 (redoubt person key FILE prints it)")
	c.Flags().BoolVar(&f.workload, "workload", false, "a program, not a person")
	c.Flags().StringVar(&f.reason, "reason", "", "why, a `text`; it stays in the records")
}

// apply sets what was given.
func (f *personFlags) apply(c *cobra.Command, p *redoubt.Person) error {
	changed := c.Flags().Changed
	if changed("clearance") {
		p.Clearance = f.clearance
	}
	if changed("nation") {
		p.Nation = strings.ToUpper(f.nation)
	}
	if changed("public-key") {
		p.PublicKey = f.publicKey
	}
	if changed("workload") {
		p.Workload = f.workload
	}
	if changed("role") {
		p.Roles = nil
		for _, r := range f.roles {
			if !slices.Contains(redoubt.Roles(), redoubt.Role(r)) {
				return usage(c, "there is no role "+r)
			}
			p.Roles = append(p.Roles, redoubt.Role(r))
		}
	}
	if changed("expires") {
		t, err := time.Parse(time.DateOnly, f.expires)
		if err != nil {
			return usage(c, "--expires wants a date such as 2031-12-31")
		}
		p.Expires = t.AddDate(0, 0, 1).Add(-time.Second)
	}
	return nil
}

func (a *app) personAdd() *cobra.Command {
	w := crew{enclaves: true}
	var f personFlags
	c := &cobra.Command{Use: "add NAME --as OFFICER", Short: "Propose a person at every running enclave; another officer approves",
		Long: `Proposes a person for the whole estate: the change is signed once and sent to every running enclave, or the
nodes of --at; enclaves tell their devices. Nothing takes effect before another officer approves. In an exercise a
person without --public-key is given a key, which the state keeps.`,
		Example: `  redoubt person add n-analyst --clearance SECRET --nation USA --role analyst --expires 2031-12-31 --reason "joins the desk" --as officer`,
		Args:    exactly(1)}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		p := redoubt.Person{Name: redoubt.SubjectName(args[0])}
		if err := f.apply(c, &p); err != nil {
			return err
		}
		if p.PublicKey == "" {
			key, err := a.exerciseKey(p.Name)
			if err != nil {
				return err
			}
			p.PublicKey = key
		}
		return a.propose(cmd.Context(), w, redoubt.Change{Kind: redoubt.ChangePerson, Person: &p, Reason: f.reason})
	}
	w.flags(c)
	f.flags(c)
	required(c, "clearance", "nation", "role", "expires", "reason")
	return a.jsonFlag(c)
}

func (a *app) personSet() *cobra.Command {
	w := crew{enclaves: true}
	var f personFlags
	c := &cobra.Command{Use: "set NAME --as OFFICER", Short: "Propose a change of a person; what is not named stays",
		Example: `  redoubt person set s-analyst --clearance "TOP SECRET" --reason "new duty" --as officer`, Args: exactly(1)}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		all, err := a.gatherPeople(cmd.Context(), w, args[0])
		if err != nil {
			return err
		}
		for _, n := range all {
			if len(n.People) == 0 {
				continue
			}
			p := n.People[0]
			p.Revoked = false
			if err := f.apply(c, &p); err != nil {
				return err
			}
			return a.propose(cmd.Context(), w, redoubt.Change{Kind: redoubt.ChangePerson, Person: &p, Reason: f.reason})
		}
		return &redoubt.Error{Object: args[0], Kind: redoubt.NotFound, Hint: "redoubt person ls --as OFFICER"}
	}
	w.flags(c)
	f.flags(c)
	required(c, "reason")
	return a.jsonFlag(c)
}

func (a *app) personRevoke() *cobra.Command {
	w := crew{enclaves: true}
	var reason string
	c := &cobra.Command{Use: "revoke NAME --as OFFICER", Short: "End a person's access everywhere, at once and for good",
		Long:    "Takes one officer, at whatever label she works. Below a node's ceiling she is not told whether there was anybody\nof that name.",
		Example: `  redoubt person revoke n-analyst --reason "left" --as officer`, Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var at []redoubt.NodeName
			err := a.each(cmd.Context(), w, func(s *session) error {
				err := s.api.RevokePerson(cmd.Context(), redoubt.SubjectName(args[0]), reason)
				if err == nil {
					at = append(at, s.node)
					a.ended(cmd.Context(), s, args[0]+" is revoked")
				}
				return err
			})
			if err == nil && a.json {
				err = a.print(map[string]any{"revoked": args[0], "nodes": at})
			}
			return err
		}}
	w.flags(c)
	c.Flags().StringVar(&reason, "reason", "", "why, a `text`; it stays in the records")
	required(c, "reason")
	return a.jsonFlag(c)
}

// ended says what an officer ended at a node: below the node's ceiling she is not told whether it was there.
func (a *app) ended(ctx context.Context, s *session, what string) {
	info, err := s.api.Node(ctx)
	if err != nil || info.Range.Ceiling != s.minted.Label {
		what += ", if it was there to be ended,"
	}
	a.say("%s at %s", what, s.node)
}

func (a *app) personKey() *cobra.Command {
	return a.jsonFlag(&cobra.Command{Use: "key FILE", Short: "Make a private key, or read one, and print its public half",
		Long:    "Makes an Ed25519 key in a new file that only its owner may read, and prints the public key for the estate or\nperson add. When the file is there, its public key is printed.",
		Example: "  redoubt person key officer.key", Args: exactly(1),
		RunE: func(_ *cobra.Command, args []string) error {
			key, err := makeKey(args[0])
			if errors.Is(err, redoubt.Exists) {
				key, err = readKey(args[0])
			}
			if err != nil {
				return err
			}
			if a.json {
				return a.print(map[string]string{"public_key": publicText(key), "file": args[0]})
			}
			_, err = fmt.Fprintln(a.out, publicText(key))
			return err
		}})
}

// exerciseKey makes a key for a new person of an exercise and keeps it in the state.
func (a *app) exerciseKey(name redoubt.SubjectName) (string, error) {
	st, err := a.state()
	if err != nil {
		return "", err
	}
	if !st.HasExercise() {
		return "", &usageError{message: "--public-key is needed", hint: "redoubt person key FILE makes a key and prints its public half"}
	}
	return st.MakeSubjectKey(name)
}

// proposeLife is how long a proposal waits for the second officer.
const proposeLife = 7 * 24 * time.Hour

// propose signs a change once and sends it to every node.
func (a *app) propose(ctx context.Context, w crew, change redoubt.Change) error {
	t, err := a.muster(w)
	if err != nil {
		return err
	}
	change.Made = time.Now().UTC().Truncate(time.Second)
	change.Expires = change.Made.Add(proposeLife)
	change.Signatures = []redoubt.Signature{client.SignChange(change, t.subject, t.key)}
	change.ID = redoubt.ChangeID(change)
	return a.sendChange(ctx, w, func(s *session) (redoubt.Change, error) { return s.api.ProposeChange(ctx, change) },
		"another officer approves it: redoubt person approve "+short(change.ID)+" --as OFFICER")
}
