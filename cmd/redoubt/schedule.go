package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
)

func (a *app) scheduleCommand() *cobra.Command {
	c := &cobra.Command{Use: "schedule", Short: "Start jobs at times, or on new versions",
		Long: `A schedule starts jobs as the subject that made it, at the label that it was made at: at times (--cron, UTC), or for
each new version under a prefix (--on) that this label dominates. A job learns what started it by REDOUBT_BUCKET,
REDOUBT_KEY and REDOUBT_VERSION. A time that passed while the node did not run starts one job.`,
		Example: `  redoubt schedule put nightly --cron "30 2 * * *" --wasm words.wasm --in s3://reports --out s3://reports/words/ --as s-analyst@secret
  redoubt schedule put ingest --on s3://imagery/raw/ --wasm thumb.wasm --in s3://imagery/raw/ --out s3://imagery/small/ --as s-analyst@secret
  redoubt schedule ls --as s-analyst@secret
  redoubt schedule rm nightly --as s-analyst@secret`}
	c.AddCommand(a.schedulePut(), a.scheduleLs(), a.scheduleRm())
	return c
}

func (a *app) schedulePut() *cobra.Command {
	var w who
	var j jobSpec
	var cron, on string
	c := &cobra.Command{Use: "put NAME (--cron TIMES | --on s3://BUCKET/PREFIX) (--wasm FILE | --image REF) --as SUBJECT@NODE [-- ARGS]", Short: "Make a schedule, or replace one",
		Example: `  redoubt schedule put nightly --cron "30 2 * * *" --wasm words.wasm --in s3://reports --out s3://reports/words/ --as s-analyst@secret -- --top 10`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("want the schedule's NAME")
			}
			return nil
		},
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			in := redoubt.Schedule{Name: redoubt.ScheduleName(args[0]), Cron: cron}
			if on != "" {
				p, err := parsePlace(on)
				if err != nil {
					return err
				}
				in.On = &redoubt.JobInput{Bucket: p.bucket, Prefix: p.key}
			}
			if err := j.read(args[1:]); err != nil {
				return err
			}
			if err := j.put(ctx, a, s); err != nil {
				return err
			}
			in.Job = j.q
			out, err := s.api.PutSchedule(ctx, in)
			if err != nil {
				return err
			}
			if a.json {
				return a.print(out)
			}
			if !out.Next.IsZero() {
				a.say("first at %s", out.Next.Format(time.RFC3339))
			}
			return nil
		})}
	w.flags(c)
	j.flags(c)
	c.Flags().StringVar(&cron, "cron", "", "`times` in UTC, five fields: minute, hour, day of month, month, day of week")
	c.Flags().StringVar(&on, "on", "", "start one for each new version here, `s3://BUCKET/PREFIX`")
	return a.jsonFlag(c)
}

func (a *app) scheduleLs() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "ls --as SUBJECT@NODE", Short: "The schedules that the subject may know of", Example: "  redoubt schedule ls --as s-analyst@secret --json", Args: exactly(0),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, _ []string) error {
			all, err := s.api.Schedules(ctx)
			if err != nil {
				return err
			}
			if a.json {
				return a.print(map[string]any{"schedules": all})
			}
			t := a.table("NAME", "BY", "LABEL", "STARTS", "NEXT", "LAST", "LAST JOB", "FAULT")
			at := func(x time.Time) string {
				if x.IsZero() {
					return ""
				}
				return x.Local().Format("2006-01-02 15:04")
			}
			for _, x := range all {
				starts := x.Cron
				if x.On != nil {
					starts = "on " + place{x.On.Bucket, x.On.Prefix}.String()
				}
				t.row(string(x.Name), string(x.By), x.Label, starts, at(x.Next), at(x.Last), string(x.LastJob), x.Fault)
			}
			return t.flush()
		})}
	w.flags(c)
	return a.jsonFlag(c)
}

func (a *app) scheduleRm() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "rm NAME --as SUBJECT@NODE", Short: "End a schedule; what it has started goes on", Example: "  redoubt schedule rm nightly --as s-analyst@secret", Args: exactly(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			return s.api.RemoveSchedule(ctx, redoubt.ScheduleName(args[0]))
		})}
	w.flags(c)
	return c
}
