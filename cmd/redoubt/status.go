package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/client"
	"redoubt/estate"
	"redoubt/node"
)

// nodeStatus is one node as status shows it.
type nodeStatus struct {
	Name   redoubt.NodeName `json:"name"`
	Kind   string           `json:"kind"`
	Range  redoubt.Range    `json:"range"`
	S3URL  string           `json:"s3_url"`
	APIURL string           `json:"api_url"`
	State  string           `json:"state"`
	PID    int              `json:"pid"`
	Peers  []string         `json:"peers,omitempty"`     // where its devices meet it
	Dials  []string         `json:"dials,omitempty"`     // of a device: its home's addresses
	Sealed []string         `json:"sealed_by,omitempty"` // what opens its keyring, any one: passphrase, key-file, tpm2
	Wiped  bool             `json:"wiped,omitempty"`     // by order of its home: it does not start any more
	Half   string           `json:"half,omitempty"`      // of a guard whose halves run apart: the one that runs here. Nothing is known here of the other

	from   string            // that it dials from
	halves []int             // of a guard: the processes of its raise
	told   bool              // it has been asked, and said whom it believes and dials:
	trusts []redoubt.Trusted // these
}

// estateStatus is the document of status --json and up --json.
type estateStatus struct {
	Nodes []nodeStatus `json:"nodes"`
	Links []linkName   `json:"links"`
}

// linkName is a link as the estate declares it; how it does is for who may know: redoubt link status.
type linkName struct {
	Device redoubt.NodeName `json:"device"`
	Home   redoubt.NodeName `json:"home"`
}

func (a *app) statusCommand() *cobra.Command {
	var file string
	c := &cobra.Command{Use: "status", Short: "The nodes of the state, where they are and how they do",
		Long: `Shows every node of the state. A running node tells its range itself. That of one that is down is told in an
exercise, or with --estate: the state of a real estate keeps no marking that can be read without the node's passphrase.`,
		Example: "  redoubt status --json\n  redoubt status --estate /etc/redoubt/estate.yaml",
		Args:    exactly(0), RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := a.state()
			if err != nil {
				return err
			}
			e, err := exerciseOf(st)
			if err != nil {
				a.tell(plain(err), hintFor(err)) // and the nodes are shown nonetheless
			}
			if file != "" {
				if e, err = loadEstate(file); err != nil {
					return a.faultsOf(file, err)
				}
			}
			doc, err := statusOf(cmd.Context(), st, e)
			if err != nil {
				return err
			}
			if a.json {
				return a.print(doc)
			}
			return a.statusTable(doc)
		}}
	c.Flags().StringVar(&file, "estate", "", "estate `file`, for the ranges of its nodes")
	return a.jsonFlag(c)
}

// exerciseOf is the exercise that the state holds; nil for none, and beside an error.
func exerciseOf(st node.State) (*estate.Estate, error) {
	if !st.HasExercise() {
		return nil, nil
	}
	e, _, err := st.ExerciseEstate()
	return e, err
}

// askTimeout is how long a node may take to say what it is: it is on this machine.
const askTimeout = 3 * time.Second

// statusOf gathers the status of all nodes; e, when known, gives the nodes never started and the ranges of those down.
func statusOf(ctx context.Context, st node.State, e *estate.Estate) (estateStatus, error) {
	doc := estateStatus{Nodes: []nodeStatus{}, Links: []linkName{}}
	names, err := st.Nodes()
	if err != nil {
		return doc, err
	}
	if e != nil {
		names = names[:0]
		for _, n := range e.Nodes {
			names = append(names, n.Name)
		}
	}
	var asking sync.WaitGroup
	defer asking.Wait()                        // before the nodes are read, or left
	doc.Nodes = make([]nodeStatus, len(names)) // filled in by many
	for i, name := range names {
		r, err := st.Runtime(name)
		if err != nil {
			return doc, err
		}
		s := nodeStatus{Name: name, Kind: "enclave", S3URL: r.S3URL, APIURL: r.APIURL, State: r.State, PID: r.PID, Peers: r.Peers, Dials: r.Dials, from: r.From}
		if ways, err := st.Sealing(name); err == nil { // not made yet, or damaged: doctor says
			s.Sealed = methodsOf(ways)
		}
		s.Wiped = errors.Is(st.NotWiped(name), redoubt.Erased)
		if r.High != "" {
			s.Kind, s.Half = estate.KindGuard, r.Half
		}
		if e != nil {
			if n, ok := e.Node(name); ok {
				s.Kind, s.Range = n.Kind, n.Range
				if n.Kind == estate.KindDevice {
					doc.Links = append(doc.Links, linkName{name, n.Home})
				}
			}
		}
		if r.State == node.Ready && r.APIURL == "" { // a guard: what it dials stands with what it tells of itself
			s.told, s.trusts, s.halves = true, r.Trusts, r.Halves
		}
		doc.Nodes[i] = s
		if r.State == node.Ready && r.APIURL != "" {
			asking.Go(func() {
				if info, err := whatIs(ctx, st, name, r); err == nil {
					doc.Nodes[i].Kind, doc.Nodes[i].Range = info.Kind, info.Range
					doc.Nodes[i].told, doc.Nodes[i].trusts = true, info.Trusts
				}
			})
		}
	}
	return doc, nil
}

// whatIs asks a running node what it is, as the owner of its state (ADR 9).
func whatIs(ctx context.Context, st node.State, name redoubt.NodeName, r node.Runtime) (redoubt.NodeInfo, error) {
	at, err := stateFaces(st, name)
	if err != nil {
		return redoubt.NodeInfo{}, err
	}
	c, err := client.New(at.api, at.roots, r.Token)
	if err != nil {
		return redoubt.NodeInfo{}, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return c.Node(ctx)
}

func (a *app) statusTable(doc estateStatus) error {
	t := a.table("NODE", "STATE", "RANGE", "S3", "API", "PID", "SEALED BY")
	for _, n := range doc.Nodes {
		span := "sealed"
		if n.Range.Ceiling != "" {
			span = n.Range.Floor + " to " + n.Range.Ceiling
		}
		if n.Range.Floor == n.Range.Ceiling && n.Range.Floor != "" {
			span = n.Range.Floor
		}
		pid := "-"
		if n.PID != 0 {
			pid = strconv.Itoa(n.PID)
		}
		state := n.State
		if n.Wiped {
			state += ", wiped"
		}
		if n.Half != "" {
			state += ", " + n.Half + " half"
		}
		t.row(string(n.Name), state, span, dash(n.S3URL), dash(n.APIURL), pid, dash(strings.Join(n.Sealed, " or ")))
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, n := range doc.Nodes {
		if n.Half != "" {
			fmt.Fprintf(a.out, "%s: %s\n", n.Name, whichHalves(n.Half))
		}
	}
	return nil
}

// whichHalves says which halves of a guard run on this machine, and what that tells of the others.
func whichHalves(half string) string {
	if half == "" {
		return "both halves run here"
	}
	return "its " + half + " half runs here; how the other does is not known here, for nothing tells of it"
}
