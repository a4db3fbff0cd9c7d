package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/audit"
)

func (a *app) auditVerify() *cobra.Command {
	w := crew{role: "officer"}
	var nodes []string
	var kept, verifier string
	var archives archiveFlags
	c := &cobra.Command{Use: "verify [--node NODE] [--archive FILE…]", Short: "Read the whole log back and compare it with its tree and checkpoints",
		Long: `Has every running node, or those of --node, verify its log: one flipped bit, a truncation and a fork are found. With
--kept FILE the checkpoints of earlier runs are compared too, and the new ones are added: keep that file where the
node's administrator cannot reach it, for a log that was rewritten whole is found by nothing else.

With --archive, archives of one node's log are verified as well: each by itself, against each other, and with the
running log, which they must reach without a gap. With --verifier KEY, which an earlier run printed, no node is
asked.`,
		Example: `  redoubt audit verify --node secret --kept /media/audit/checkpoints.json --as officer
  redoubt audit verify --archive q1.archive,q2.archive --identity archive.identity --node secret --as officer`, Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			w.at = append(w.at, nodes...)
			trusted, err := readKept(kept)
			if err != nil {
				return err
			}
			v := verification{OK: true, Nodes: []redoubt.AuditReport{}}
			switch {
			case verifier != "" && len(archives.files) == 0:
				return usage(cmd, "--verifier is for --archive")
			case verifier != "":
				if err := v.offline(cmd, &archives, verifier, trusted); err != nil {
					return err
				}
				return a.showVerified(v)
			}
			err = a.each(cmd.Context(), w, func(s *session) error { return v.node(cmd, s, &archives, trusted) })
			if err == nil && kept != "" {
				err = writeKept(kept, trusted)
			}
			if err != nil {
				return err
			}
			return a.showVerified(v)
		}}
	w.flags(c)
	c.Flags().StringSliceVar(&nodes, "node", nil, "`NODE`s to verify; default: every running node")
	c.Flags().StringVar(&kept, "kept", "", "`file` of checkpoints to compare with and to add to")
	c.Flags().StringVar(&verifier, "verifier", "", "the log's `key`, as verify prints it: archives are verified without a node")
	archives.flags(c, "verify these too: ")
	return a.jsonFlag(c)
}

// verification is what audit verify found.
type verification struct {
	OK       bool                  `json:"ok"`
	Nodes    []redoubt.AuditReport `json:"nodes"`
	Archives []archiveJSON         `json:"archives,omitempty"`
	Gaps     []string              `json:"gaps,omitempty"`
}

// node has a node verify its log, and the archives with it.
func (v *verification) node(cmd *cobra.Command, s *session, archives *archiveFlags, trusted map[redoubt.NodeName][]string) error {
	r, err := s.api.VerifyAudit(cmd.Context(), trusted[s.node])
	if err == nil && len(archives.files) > 0 {
		r, err = v.withArchives(cmd, s, archives, trusted[s.node], r)
	}
	if err != nil {
		return err
	}
	v.Nodes, v.OK = append(v.Nodes, r), v.OK && r.OK
	if r.OK {
		trusted[s.node] = append(trusted[s.node], r.Checkpoint)
	}
	return nil
}

// withArchives verifies archives of the node that gave the report, and has the node verify its log once more, against theirs.
func (v *verification) withArchives(cmd *cobra.Command, s *session, archives *archiveFlags, kept []string, r redoubt.AuditReport) (redoubt.AuditReport, error) {
	if len(v.Nodes) > 0 {
		return r, usage(cmd, "--archive is of one node: name it with --node")
	}
	if r.VerifierKey == "" {
		return r, &redoubt.Error{Kind: redoubt.Denied, Hint: "archives hold every label's entries: work at the node's ceiling"}
	}
	key, err := audit.NewVerifier(r.VerifierKey)
	if err != nil {
		return r, err
	}
	var marks []string
	if v.Archives, v.Gaps, marks, err = archives.verify(cmd, key, append(slices.Clone(kept), r.Checkpoint), &r); err != nil {
		return r, err
	}
	v.settle()
	return s.api.VerifyAudit(cmd.Context(), append(slices.Clone(kept), marks...))
}

// offline verifies archives with nothing but a log's key and what was kept of it.
func (v *verification) offline(cmd *cobra.Command, archives *archiveFlags, verifier string, trusted map[redoubt.NodeName][]string) (err error) {
	key, err := audit.NewVerifier(verifier)
	if err != nil {
		return usage(cmd, "--verifier wants the key that audit verify prints")
	}
	node := redoubt.NodeName(strings.TrimPrefix(key.Name(), "redoubt/"))
	v.Archives, v.Gaps, _, err = archives.verify(cmd, key, trusted[node], nil)
	v.settle()
	return err
}

// settle takes what the archives came to.
func (v *verification) settle() {
	v.OK = v.OK && len(v.Gaps) == 0
	for _, f := range v.Archives {
		v.OK = v.OK && f.OK
	}
}

func (a *app) showVerified(v verification) error {
	show := a.tableVerified
	if a.json {
		show = func(v verification) error { return a.print(v) }
	}
	err := show(v)
	if err == nil && !v.OK {
		return exitError(exitFailed)
	}
	return err
}

func (a *app) tableVerified(v verification) error {
	word := map[bool]string{true: "verified", false: "DOES NOT VERIFY"}
	t := a.table()
	for _, r := range v.Nodes {
		entries := fmt.Sprint(r.Entries, " entries")
		if r.KeptFrom > 0 {
			entries += fmt.Sprintf(", kept from %d, %d archives on record", r.KeptFrom, len(r.Archives))
		}
		t.row(string(r.Node), word[r.OK], entries, "key "+r.VerifierKey)
	}
	for _, f := range v.Archives {
		entries := "-"
		if f.OK {
			entries = fmt.Sprintf("entries %d to %d", f.From, f.To-1)
		}
		t.row(f.File, word[f.OK], entries, "sha256 "+f.SHA256)
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, r := range v.Nodes {
		for _, f := range r.Faults {
			fmt.Fprintf(a.out, "%s: %s\n", r.Node, f)
		}
		for _, x := range r.Archives {
			fmt.Fprintf(a.out, "%s: entries %d to %d are archived, sha256 %s\n", r.Node, x.From, x.To-1, x.SHA256)
		}
	}
	for _, f := range v.Archives {
		switch {
		case !f.OK:
			fmt.Fprintf(a.out, "%s: %s\n", f.File, f.Fault)
		case len(v.Nodes) > 0 && !f.Recorded:
			fmt.Fprintf(a.out, "%s: the log has another file on record for these entries, or none yet\n", f.File)
		}
	}
	for _, g := range v.Gaps {
		fmt.Fprintln(a.out, g)
	}
	return nil
}
