package main

import (
	"context"

	"github.com/spf13/cobra"

	"redoubt"
)

func (a *app) findCommand() *cobra.Command {
	var w who
	var q redoubt.FindObjects
	var maker, author, origin, bucket, since, until string
	c := &cobra.Command{Use: "find [TEXT] --as SUBJECT@NODE", Short: "Search every bucket of a node, and so every enclave below it, for what the subject may see",
		Long: `Finds current versions by text in their name or metadata, label, maker, author and time. Guards raise what is
lower, so the highest enclave has one view of all; each hit tells the enclave and the bucket that it lives in,
and where it is read here.`,
		Example: `  redoubt find weather --as ts-analyst@topsecret
  redoubt find --label-is SECRET --since 24h --as ts-analyst@topsecret --json
  redoubt find --maker outpost --as s-analyst@secret`, Args: between(0, 1)}
	c.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if q.Max < 1 {
			return usage(cmd, "--max wants 1 or more")
		}
		if q.Since, err = instant(cmd, since); err == nil {
			q.Until, err = instant(cmd, until)
		}
		if err != nil {
			return err
		}
		return a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			if len(args) == 1 {
				q.Text = args[0]
			}
			q.Maker, q.Author, q.Origin, q.Bucket = redoubt.NodeName(maker), redoubt.SubjectName(author), redoubt.NodeName(origin), redoubt.BucketName(bucket)
			all := []redoubt.Found{}
			most := q.Max
			for {
				q.Max = min(most-len(all), redoubt.MaxFindHits-1) + 1 // one more tells whether there is
				page, err := s.api.Find(ctx, q)
				if err != nil {
					return err
				}
				if all = append(all, page.Found...); page.Next == nil || len(all) > most {
					break
				}
				q.After = *page.Next
			}
			if len(all) > most {
				all = all[:most]
				a.say("the first %d: --max shows more", most)
			}
			if a.json {
				return a.print(map[string]any{"found": all})
			}
			t := a.table("LIVES AT", "READ HERE AS", "SIZE", "MODIFIED", "LABEL", "MADE BY", "AUTHOR")
			for _, f := range all {
				t.row(string(f.Origin)+" s3://"+string(f.There), place{f.Bucket, f.Key}.String(), bytesText(f.Bytes), f.Modified.Local().Format("2006-01-02 15:04"), f.Label, string(f.Maker), string(f.Author))
			}
			return t.flush()
		})(cmd, args)
	}
	w.flags(c)
	c.Flags().StringVar(&q.Label, "label-is", "", "`marking` that it has")
	c.Flags().StringVar(&maker, "maker", "", "`node` that made it")
	c.Flags().StringVar(&author, "author", "", "`subject` who wrote it")
	c.Flags().StringVar(&origin, "origin", "", "`enclave` that it is of")
	c.Flags().StringVar(&bucket, "bucket", "", "`bucket` of this node")
	c.Flags().StringVar(&since, "since", "", "`time` from which, RFC 3339, or a length such as 24h ago")
	c.Flags().StringVar(&until, "until", "", "`time` until which")
	c.Flags().IntVar(&q.Max, "max", 1000, "most that are shown")
	return a.jsonFlag(c)
}
