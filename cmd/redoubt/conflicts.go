package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"redoubt"
)

func (a *app) conflictsCommand() *cobra.Command {
	c := &cobra.Command{Use: "conflicts", Short: "What nodes that were cut off from one another wrote under one name",
		Long: `When a device and its home write under one name while they cannot meet, both versions stand and every node shows
the same current one, the newest. Nothing is lost; somebody who knows says which is to stay current.`,
		Example: `  redoubt conflicts ls --as s-analyst@secret
  redoubt conflicts resolve s3://reports/plan.txt --keep VERSION --as s-analyst@secret`}
	c.AddCommand(a.conflictsLs(), a.conflictsResolve())
	return c
}

func (a *app) conflictsLs() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "ls --as SUBJECT@NODE", Short: "The conflicts that the subject may see", Example: "  redoubt conflicts ls --as s-analyst@outpost --json", Args: exactly(0),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, _ []string) error {
			all, err := s.api.Conflicts(ctx)
			if err != nil {
				return err
			}
			if a.json {
				return a.print(map[string]any{"conflicts": all})
			}
			t := a.table("NAME", "LABEL", "NODE", "AUTHOR", "MODIFIED", "SIZE", "CURRENT", "VERSION")
			for _, c := range all {
				for _, v := range c.Versions {
					size, current := bytesText(v.Bytes), ""
					if v.Marker {
						size = "deleted"
					}
					if v.Current {
						current = "yes"
					}
					t.row(place{c.Bucket, c.Key}.String(), c.Label, string(v.Node), string(v.Author), v.Modified.Local().Format("2006-01-02 15:04:05"), size, current, string(v.ID))
				}
			}
			return t.flush()
		})}
	w.flags(c)
	return a.jsonFlag(c)
}

func (a *app) conflictsResolve() *cobra.Command {
	var w who
	var keep string
	c := &cobra.Command{Use: "resolve s3://BUCKET/KEY [--keep VERSION] --as SUBJECT@NODE", Short: "Settle a conflict: one version's content becomes the newest, on every node",
		Long: `Writes a new version on top of those in conflict, with the content of the one kept; without --keep of the current
one. It is a write like any other, at the label that the versions have. The others stay readable by their IDs.`,
		Example: "  redoubt conflicts resolve s3://reports/plan.txt --keep VERSION --as s-analyst@secret", Args: exactly(1),
		RunE: a.withPlace(&w, wholeName, func(ctx context.Context, s *session, p place, _ []string) error {
			id, err := s.api.ResolveConflict(ctx, p.bucket, p.key, redoubt.VersionID(keep))
			if err != nil {
				return err
			}
			if a.json {
				return a.print(map[string]any{"version": id})
			}
			_, err = fmt.Fprintln(a.out, id)
			return err
		})}
	w.flags(c)
	c.Flags().StringVar(&keep, "keep", "", "the `version` whose content stays current; default: the one that is")
	return a.jsonFlag(c)
}

// wholeName refuses a bucket alone where one object is meant.
func wholeName(c *cobra.Command, p place, _ []string) error {
	if p.key == "" {
		return usage(c, "name an object: s3://"+string(p.bucket)+"/KEY")
	}
	return nil
}
