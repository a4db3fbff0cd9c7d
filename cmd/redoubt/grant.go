package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
)

func (a *app) grantCommand() *cobra.Command {
	c := &cobra.Command{Use: "grant", Short: "Need to know: let a subject into a closed bucket, or keep one out",
		Long: "A grant never widens what a label allows: it opens a bucket that is closed by default, or with --deny keeps\nsomebody out of one. A bucket's policy document gives grants too. Grants are on record at the node's ceiling: to see and to give\nthem an officer works there, as she does without --label.",
		Example: `  redoubt grant ls --as officer@secret
  redoubt grant add s-analyst s3://reports/desk/ --as officer@secret`}
	c.AddCommand(a.grantLs(), a.grantAdd(), a.grantRm())
	return c
}

func (a *app) grantLs() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "ls --as OFFICER@NODE", Short: "The grants that stand", Example: "  redoubt grant ls --as officer@secret", Args: exactly(0),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, _ []string) error {
			all, err := s.api.Grants(ctx)
			if err != nil {
				return err
			}
			if a.json {
				return a.print(map[string]any{"grants": all})
			}
			t := a.table("ID", "SUBJECT", "DOES", "ACTIONS", "WHERE", "UNTIL")
			for _, g := range all {
				does, actions, until := "lets in", "reading and writing", "removed"
				if g.Deny {
					does = "keeps out"
				}
				if len(g.Actions) > 0 {
					actions = list(g.Actions)
				}
				if !g.Expires.IsZero() {
					until = g.Expires.Local().Format("2006-01-02 15:04")
				}
				t.row(g.ID, string(g.Subject), does, actions, place{g.Bucket, g.Prefix}.String(), until)
			}
			return t.flush()
		})}
	w.flags(c)
	return a.jsonFlag(c)
}

func (a *app) grantAdd() *cobra.Command {
	var w who
	var actions []string
	var deny bool
	var life time.Duration
	c := &cobra.Command{Use: "add SUBJECT|'*' s3://BUCKET[/PREFIX] --as OFFICER@NODE", Short: "Grant or deny need to know",
		Example: `  redoubt grant add s-analyst s3://reports/desk/ --as officer@secret
  redoubt grant add '*' s3://reports/personal/ --deny --as officer@secret`, Args: exactly(2),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			p, err := parsePlace(args[1])
			if err != nil {
				return err
			}
			g := redoubt.Grant{Subject: redoubt.SubjectName(args[0]), Bucket: p.bucket, Prefix: p.key, Deny: deny}
			for _, action := range actions {
				g.Actions = append(g.Actions, redoubt.Action(action))
			}
			if life > 0 {
				g.Expires = time.Now().Add(life).UTC().Truncate(time.Second)
			}
			if g, err = s.api.Grant(ctx, g); err != nil {
				return err
			}
			if a.json {
				return a.print(g)
			}
			_, err = fmt.Fprintln(a.out, g.ID)
			return err
		})}
	w.flags(c)
	c.Flags().StringSliceVar(&actions, "action", nil, "S3 `actions`, such as GetObject; default: reading and writing. BypassGovernanceRetention is given by its name alone")
	c.Flags().BoolVar(&deny, "deny", false, "keep out instead of letting in")
	c.Flags().DurationVar(&life, "for", 0, "how `long`; default: until it is removed")
	return a.jsonFlag(c)
}

func (a *app) grantRm() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "rm ID --as OFFICER@NODE", Short: "End a grant", Example: "  redoubt grant rm ID --as officer@secret", Args: exactly(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			if err := s.api.RevokeGrant(ctx, strings.TrimSpace(args[0])); err != nil {
				return err
			}
			a.ended(ctx, s, "the grant has ended")
			if a.json {
				return a.print(map[string]string{"removed": args[0]})
			}
			return nil
		})}
	w.flags(c)
	return a.jsonFlag(c)
}
