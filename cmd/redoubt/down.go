package main

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/node"
)

func (a *app) downCommand() *cobra.Command {
	return &cobra.Command{Use: "down [NODE...]", Short: "Stop the nodes of the state cleanly",
		Long:    "Stops every node of the state, or those named: requests in progress finish first. It returns when they have ended.",
		Example: "  redoubt down\n  redoubt down secret --state /var/lib/redoubt",
		Args:    between(0, -1), RunE: func(cmd *cobra.Command, args []string) error {
			st, err := a.state()
			if err != nil {
				return err
			}
			names, err := st.Nodes()
			if err != nil {
				return err
			}
			if len(args) > 0 {
				names = nil
				for _, n := range args {
					names = append(names, redoubt.NodeName(n))
				}
			}
			return a.stop(cmd.Context(), st, names)
		}}
}

// stop ends nodes, all at once, and waits for them. A node holds its lock until it has closed everything.
func (a *app) stop(ctx context.Context, st node.State, names []redoubt.NodeName) error {
	var running []redoubt.NodeName
	for _, name := range names {
		r, err := st.Runtime(name)
		if err != nil {
			return err
		}
		if r.PID == 0 {
			continue
		}
		if err := syscall.Kill(r.PID, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
			return &redoubt.Error{Object: string(name), Err: err}
		}
		running = append(running, name)
	}
	deadline := time.Now().Add(stopPatience)
	for _, name := range running {
		for {
			r, err := st.Runtime(name)
			if err != nil {
				return err
			}
			if r.PID == 0 {
				a.say("%s stopped", name)
				break
			}
			if time.Now().After(deadline) {
				return &redoubt.Error{Object: string(name), Kind: redoubt.Unavailable, Err: errors.New("it has not stopped yet"), Hint: "redoubt status; then redoubt down again"}
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	if len(running) == 0 {
		a.say("nothing was running")
	}
	return nil
}
