package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"redoubt/estate"
	"redoubt/node"
)

// finding is one thing that doctor looked at.
type finding struct {
	Check  string `json:"check"`
	Level  string `json:"level"` // "ok", "warn" or "fail"
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

// diagnosis is the document of doctor --json.
type diagnosis struct {
	OK          bool         `json:"ok"`
	Findings    []finding    `json:"findings"`
	Sovereignty *sovereignty `json:"sovereignty,omitempty"`
}

func (d *diagnosis) add(level, check, hint, format string, args ...any) {
	d.Findings = append(d.Findings, finding{Check: check, Level: level, Detail: fmt.Sprintf(format, args...), Hint: hint})
}

// minFreeBytes is what a disk should have left: a few log segments and their compaction.
const minFreeBytes = 2 << 30

func (a *app) doctorCommand() *cobra.Command {
	var sovereign bool
	var estateFile string
	var h holder
	c := &cobra.Command{Use: "doctor", Short: "Check the whole estate on this machine",
		Long: `Looks at the state, its files' modes, the disk, the clock, the nodes and their TLS, and of nodes that are down at
what their start needs: the keyring (with --key-file or --tpm, whether that opens it) and the store's format. It says
by what each keyring is held. Of an exercise, or with --estate, it holds the labels' shares against the disk. It says
what to do about each fault, and changes nothing. With --sovereignty it also lists every address that a node listens on,
every address that one may dial, and every root of trust, each with its owner. A device dials its home and, while that
is not met, its neighbours: a running node tells whom, and where. The TCP connections that the system shows are held
against that. Of UDP the system shows no far end: there it is what the node tells.`,
		Example: "  redoubt doctor\n  redoubt doctor --sovereignty --json",
		Args:    exactly(0), RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := a.state()
			if err != nil {
				return err
			}
			var declared *estate.Estate
			if estateFile != "" {
				if declared, err = loadEstate(estateFile); err != nil {
					return a.faultsOf(estateFile, err)
				}
			}
			d, err := a.examine(cmd.Context(), st, declared, h, sovereign)
			if err != nil {
				return err
			}
			if a.json {
				err = a.print(d)
			} else {
				err = a.diagnosisText(d)
			}
			if err == nil && !d.OK {
				return exitError(exitFailed)
			}
			return err
		}}
	c.Flags().StringVar(&h.keyFile, "key-file", "", "key `file` to try on the keyrings of nodes that are down; none is changed")
	h.pathFlag(c, "have the TPM, or that at `PATH`, try the keyrings that it holds of nodes that are down; a wrong PIN counts")
	c.Flags().StringVar(&estateFile, "estate", "", "estate `file`, for the shares of its nodes' labels; an exercise's is known")
	c.Flags().BoolVar(&sovereign, "sovereignty", false, "list every address and every root of trust, each with its owner")
	return a.jsonFlag(c)
}

// examine looks at everything. declared is the estate of a state that holds none in clear; nil is the exercise's.
func (a *app) examine(ctx context.Context, st node.State, declared *estate.Estate, h holder, sovereign bool) (*diagnosis, error) {
	d := &diagnosis{}
	e, err := exerciseOf(st)
	if err != nil {
		d.add("fail", "estate", hintFor(err), "the exercise does not open: %s", plain(err))
	}
	if declared == nil {
		declared = e
	}
	if st.HasExercise() {
		d.add("warn", "exercise", "never put real material into it", "this is an exercise: the private keys of all its people, and what opens its keyrings, lie in the state")
	} else {
		d.add("ok", "keys", "", "no subject's key is kept in the state")
	}
	doc, err := statusOf(ctx, st, e)
	if err != nil {
		return nil, err
	}
	checkModes(d, st)
	checkDisk(d, st)
	_, size, _, _ := filesystem(st.Dir()) // a disk that cannot be asked, checkDisk tells of
	checkShares(d, declaredNodes(declared, doc), size)
	checkClock(d, st, doc)
	checkSeals(d, st, doc.Nodes)
	for _, n := range doc.Nodes {
		if n.State == node.Ready {
			checkNode(d, st, n)
		} else {
			checkStopped(d, st, n, a.trying(st, n.Name, h))
		}
	}
	checkFilters(ctx, d, doc.Nodes)
	checkDrivers(d)
	checkClusters(ctx, d, declared)
	checkTrusted(d, declared)
	if sovereign {
		if d.Sovereignty, err = sovereigntyOf(st, e, doc); err != nil {
			return nil, err
		}
		checkOutbound(d, doc.Nodes, d.Sovereignty)
	}
	d.OK = !slices.ContainsFunc(d.Findings, func(f finding) bool { return f.Level == "fail" })
	return d, nil
}

func (a *app) diagnosisText(d *diagnosis) error {
	for _, f := range d.Findings {
		fmt.Fprintf(a.out, "%-4s  %s: %s\n", f.Level, f.Check, f.Detail)
		if f.Hint != "" {
			fmt.Fprintf(a.out, "      hint: %s\n", f.Hint)
		}
	}
	if d.Sovereignty == nil {
		return nil
	}
	return a.sovereigntyText(d.Sovereignty)
}
