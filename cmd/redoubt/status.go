package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"redoubt"
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
}

// estateStatus is the document of status --json and up --json.
type estateStatus struct {
	Nodes []nodeStatus `json:"nodes"`
	Links []struct{}   `json:"links"`
}

func (a *app) statusCommand() *cobra.Command {
	var file string
	c := &cobra.Command{Use: "status", Short: "The nodes of the state, where they are and how they do",
		Long: `Shows every node of the state. The range of a node is told in an exercise, or with --estate: the state of a real
estate keeps no marking that can be read without the node's passphrase.`,
		Example: "  redoubt status --json\n  redoubt status --estate /etc/redoubt/estate.yaml",
		Args:    exactly(0), RunE: func(*cobra.Command, []string) error {
			st, err := a.state()
			if err != nil {
				return err
			}
			var e *estate.Estate
			if file != "" {
				if e, err = loadEstate(file); err != nil {
					return a.faultsOf(file, err)
				}
			}
			doc, err := statusOf(st, e)
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

// statusOf gathers the status of all nodes; e, when known, gives ranges and nodes never started.
func statusOf(st node.State, e *estate.Estate) (estateStatus, error) {
	doc := estateStatus{Nodes: []nodeStatus{}, Links: []struct{}{}}
	if e == nil && st.HasExercise() {
		var err error
		if e, _, err = st.ExerciseEstate(); err != nil {
			return doc, err
		}
	}
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
	for _, name := range names {
		r, err := st.Runtime(name)
		if err != nil {
			return doc, err
		}
		s := nodeStatus{Name: name, Kind: "enclave", S3URL: r.S3URL, APIURL: r.APIURL, State: r.State, PID: r.PID}
		if e != nil {
			if n, ok := e.Node(name); ok {
				s.Kind, s.Range = n.Kind, n.Range
			}
		}
		doc.Nodes = append(doc.Nodes, s)
	}
	return doc, nil
}

func (a *app) statusTable(doc estateStatus) error {
	t := a.table("NODE", "STATE", "RANGE", "S3", "API", "PID")
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
		t.row(string(n.Name), n.State, span, dash(n.S3URL), dash(n.APIURL), pid)
	}
	return t.flush()
}
