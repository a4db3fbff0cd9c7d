package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/keys"
	"redoubt/node"
)

func (a *app) stateCommand() *cobra.Command {
	c := &cobra.Command{Use: "state", Aliases: []string{"store"}, Short: "The format of a stopped node's store: show, upgrade, go back",
		Long: `A store has a format. A newer program upgrades an older store when it opens it: into a folder of its own, and what was
before is kept beside it until the next upgrade. A program refuses a store that is too new for it.

Without --yes, upgrade and rollback say what they would do and do nothing.`,
		Example: `  redoubt state show secret
  redoubt state upgrade secret --yes
  redoubt state rollback secret --yes`}
	c.AddCommand(a.stateShow(), a.stateUpgrade(), a.stateRollback())
	return c
}

// statePlan is the JSON of the verbs of state.
type statePlan struct {
	node.StoreFormat
	Readable bool   `json:"readable"` // by this program
	Upgrade  string `json:"upgrade"`  // what an upgrade would do, or did
	Rollback string `json:"rollback"` // what a rollback would do, or did
	Done     bool   `json:"done"`
}

func planState(f node.StoreFormat) statePlan {
	p := statePlan{StoreFormat: f, Readable: f.Readable(), Upgrade: "nothing: the store has this program's format", Rollback: "nothing: no earlier state is kept"}
	switch {
	case !f.Readable():
		p.Upgrade = "nothing: the store is too new for this program"
		p.Rollback = "nothing: only the program that upgraded the store knows what it kept"
	case f.Old():
		p.Upgrade = fmt.Sprintf("from format %d to %d, keeping generation %d", f.Format, f.Program, f.Generation)
	}
	if f.Previous != 0 {
		p.Rollback = fmt.Sprintf("from generation %d (format %d) to generation %d (format %d); whatever was written since is lost", f.Generation, f.Format, f.Previous, f.PreviousFormat)
	}
	return p
}

func (a *app) showState(p statePlan) error {
	if a.json {
		return a.print(p)
	}
	_, err := fmt.Fprintf(a.out, "node         %s\nformat       %d, read from format %d on; this program's is %d\ngeneration   %d\nupgrade      %s\nrollback     %s\n",
		p.Node, p.Format, p.OldestReader, p.Program, p.Generation, p.Upgrade, p.Rollback)
	return err
}

func (a *app) stateShow() *cobra.Command {
	return a.jsonFlag(&cobra.Command{Use: "show NODE", Short: "A store's format, and what upgrade and rollback would do", Example: "  redoubt state show secret --json", Args: exactly(1),
		RunE: func(_ *cobra.Command, args []string) error {
			st, err := a.state()
			if err != nil {
				return err
			}
			f, err := node.ReadStoreFormat(st, redoubt.NodeName(args[0]))
			if err != nil {
				return err
			}
			return a.showState(planState(f))
		}})
}

// changeState is upgrade and rollback: say what there is to do, and with yes do it.
func (a *app) changeState(name redoubt.NodeName, yes bool, wanted func(node.StoreFormat) bool, do func(node.State) error) error {
	st, err := a.state()
	if err != nil {
		return err
	}
	f, err := node.ReadStoreFormat(st, name)
	if err != nil {
		return err
	}
	if r, err := st.Runtime(name); err != nil {
		return err
	} else if r.PID != 0 {
		return &redoubt.Error{Object: "node " + string(name), Kind: redoubt.Unavailable, Err: fmt.Errorf("it is %s", r.State), Hint: "redoubt down " + string(name)}
	}
	p := planState(f)
	switch {
	case !wanted(f):
	case !yes:
		a.say("nothing was done; add --yes to do it")
	default:
		if err := do(st); err != nil {
			return err
		}
		if p.StoreFormat, err = node.ReadStoreFormat(st, name); err != nil {
			return err
		}
		p.Done = true
		a.say("done; this is what it did:")
	}
	return a.showState(p)
}

func (a *app) stateUpgrade() *cobra.Command {
	var yes bool
	var h holder
	c := &cobra.Command{Use: "upgrade NODE", Short: "Bring a stopped node's store to this program's format",
		Long:    "Does what the node's next start would do, and nothing else: for whoever wants to know beforehand that it works. The\nnode's passphrase or key file is needed, as for serve.",
		Example: "  redoubt state upgrade secret --yes", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := redoubt.NodeName(args[0])
			return a.changeState(name, yes, func(f node.StoreFormat) bool { return f.Readable() && f.Old() }, func(st node.State) error {
				var unlock keys.Unlock
				if h.keyFile != "" || !st.HasExercise() {
					var err error
					if unlock, err = a.opening(st, name, h); err != nil {
						return err
					}
				}
				return node.UpgradeStore(cmd.Context(), st, name, unlock)
			})
		}}
	c.Flags().BoolVar(&yes, "yes", false, "do it")
	h.openFlags(c)
	return a.jsonFlag(c)
}

func (a *app) stateRollback() *cobra.Command {
	var yes bool
	c := &cobra.Command{Use: "rollback NODE", Short: "Return a stopped node's store to where its last upgrade found it",
		Long: `Takes back an upgrade, for the older program to go on. Whatever was written since is lost, and the audit log ends
earlier than checkpoints that were kept: audit verify --kept says so, rightly. Keys stay as they are: what was rotated or
erased since does not open.`,
		Example: "  redoubt state rollback secret --yes", Args: exactly(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name := redoubt.NodeName(args[0])
			return a.changeState(name, yes, func(f node.StoreFormat) bool { return f.Previous != 0 }, func(st node.State) error { return node.RollbackStore(st, name) })
		}}
	c.Flags().BoolVar(&yes, "yes", false, "do it")
	return a.jsonFlag(c)
}
