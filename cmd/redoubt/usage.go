package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"redoubt"
)

func (a *app) nodeUsage() *cobra.Command {
	w := crew{role: "admin"}
	c := &cobra.Command{Use: "usage", Short: "What every label stores, and what is charged to its share",
		Long: `VERSIONS and CONTENT are of what carries the label. CHARGED is all that was written by those who work at it, at that label
or above: content, records and names. Over QUOTA it is refused; deleting by version frees, but for what was written up.`,
		Example: "  redoubt node usage --at secret\n  redoubt node usage --as admin@secret --json", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			type at struct {
				Node  redoubt.NodeName     `json:"node"`
				Usage []redoubt.LabelUsage `json:"usage"`
			}
			all := []at{}
			err := a.each(cmd.Context(), w, func(s *session) error {
				u, err := s.api.Usage(cmd.Context())
				all = append(all, at{s.node, u})
				return err
			})
			if err != nil {
				return err
			}
			if a.json {
				return a.print(map[string]any{"nodes": all})
			}
			t := a.table("NODE", "LABEL", "VERSIONS", "CONTENT", "CHARGED", "QUOTA")
			for _, n := range all {
				for _, u := range n.Usage {
					quota := "-"
					if u.QuotaBytes > 0 {
						quota = bytesText(u.QuotaBytes)
					}
					t.row(string(n.Node), u.Label, fmt.Sprint(u.Versions), bytesText(u.Bytes), bytesText(u.ChargedBytes), quota)
				}
			}
			return t.flush()
		}}
	w.flags(c)
	return a.jsonFlag(c)
}
