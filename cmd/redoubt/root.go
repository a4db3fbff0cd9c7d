package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"redoubt/node"
)

// app is what every command works with.
type app struct {
	self     string // argv[0], for starting ourselves again
	in       io.Reader
	out, err io.Writer
	stateDir string
	json     bool
}

// run is main with everything handed in; it gives the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errw io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{self: args[0], in: in, out: out, err: errw}
	root := a.root()
	root.SetArgs(args[1:])
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errw)
	err := root.ExecuteContext(ctx)
	return a.report(err)
}

// root is the whole tree of commands.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "redoubt",
		Short: "A nation's own cloud for every classification level",
		Long: `Redoubt keeps labelled objects at every classification level behind S3, in one binary that
belongs to whoever runs it. An estate is declared in one file; each of its nodes is one process.`,
		Example: `  redoubt up --detach                        # start the built-in example estate
  eval "$(redoubt env s-analyst@secret)"     # be an analyst, with any S3 client
  redoubt put report.pdf s3://reports/report.pdf --as s-analyst@secret
  redoubt ls s3://reports --as gbr-liaison@secret
  redoubt down`,
		Version:       build(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate("{{.Version}}\n") // all that the command version says
	state := os.Getenv("REDOUBT_STATE")
	if state == "" {
		state = ".redoubt"
	}
	root.PersistentFlags().StringVar(&a.stateDir, "state", state, "`directory` of the state; also REDOUBT_STATE")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usage(c, err.Error()) })
	root.AddGroup(&cobra.Group{ID: "run", Title: "Running an estate:"}, &cobra.Group{ID: "data", Title: "Objects:"},
		&cobra.Group{ID: "work", Title: "Jobs and services:"}, &cobra.Group{ID: "rule", Title: "People, labels and keys:"}, &cobra.Group{ID: "look", Title: "Looking after it:"})
	for _, g := range []struct {
		id   string
		cmds []*cobra.Command
	}{
		{"run", []*cobra.Command{a.upCommand(), a.downCommand(), a.statusCommand(), a.serveCommand(), a.nodeCommand(), a.estateCommand(), a.deviceCommand(), a.linkCommand(), a.guardCommand(), a.agreementCommand()}},
		{"data", []*cobra.Command{a.envCommand(), a.putCommand(), a.getCommand(), a.lsCommand(), a.rmCommand(), a.versionsCommand(), a.findCommand(), a.conflictsCommand(), a.bundleCommand(), a.diodeCommand(), a.bucketCommand()}},
		{"work", []*cobra.Command{a.jobCommand(), a.scheduleCommand(), a.serviceCommand()}},
		{"rule", []*cobra.Command{a.labelCommand(), a.personCommand(), a.grantCommand(), a.keyCommand(), a.releaseCommand(), a.ztdfCommand(), a.regradeCommand(), a.spillCommand()}},
		{"look", []*cobra.Command{a.auditCommand(), a.whyCommand(), a.fsckCommand(), a.backupCommand(), a.restoreCommand(), a.stateCommand(), a.doctorCommand(), a.versionCommand()}},
	} {
		for _, c := range g.cmds {
			c.GroupID = g.id
			root.AddCommand(c)
		}
	}
	strict(root)
	a.completions(root)
	return root
}

// strict makes a noun without a verb, or with a wrong one, a usage error instead of a page of help and exit 0.
func strict(c *cobra.Command) {
	if c.HasSubCommands() && c.HasParent() && c.RunE == nil {
		c.Args = cobra.ArbitraryArgs
		c.RunE = func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(c, "say what to do: "+verbs(c))
			}
			return usage(c, fmt.Sprintf("%s has no %q: %s", c.CommandPath(), args[0], verbs(c)))
		}
	}
	for _, sub := range c.Commands() {
		strict(sub)
	}
}

func verbs(c *cobra.Command) string {
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return strings.Join(names, ", ")
}

// state finds the state that --state names.
func (a *app) state() (node.State, error) { return node.FindState(a.stateDir) }

// lockState makes the state that --state names, or finds it, and takes it for this command alone.
func (a *app) lockState() (st node.State, release func(), err error) {
	if st, err = node.OpenState(a.stateDir); err == nil {
		release, err = st.Lock()
	}
	return st, release, err
}

// jsonFlag gives a command --json.
func (a *app) jsonFlag(c *cobra.Command) *cobra.Command {
	c.Flags().BoolVar(&a.json, "json", false, "print one JSON document")
	return c
}

// print writes v as the one JSON document.
func (a *app) print(v any) error {
	e := json.NewEncoder(jsonWriter{a.out}) // which writes a document at once
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// say talks to the person at the terminal, and lets nothing that it repeats steer that.
func (a *app) say(format string, args ...any) {
	fmt.Fprintln(a.err, visible(fmt.Sprintf(format, args...)))
}

// exactly takes n arguments, named in the usage line.
func exactly(n int) cobra.PositionalArgs { return between(n, n) }

func between(low, high int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < low || high >= 0 && len(args) > high {
			return usage(c, fmt.Sprintf("%d arguments; want: %s", len(args), c.UseLine()))
		}
		return nil
	}
}
