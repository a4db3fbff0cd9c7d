package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/client"
)

func (a *app) bucketCommand() *cobra.Command {
	c := &cobra.Command{Use: "bucket", Short: "List, make, set and remove buckets",
		Long: `Bucket names and settings are known to everybody at the node, so they tell nothing; only the storage role makes,
sets and removes buckets.`,
		Example: `  redoubt bucket ls --as u-analyst@secret
  redoubt bucket create drafts --ceiling "SECRET//REL TO USA, GBR" --as admin@secret`}
	c.AddCommand(a.bucketLs(), a.bucketCreate(), a.bucketShow(), a.bucketSet(), a.bucketRm())
	return c
}

// bucketFlags are the settings of a bucket as flags.
type bucketFlags struct{ client.BucketSettings }

func (b *bucketFlags) flags(c *cobra.Command) {
	c.Flags().StringVar(&b.Default, "default", "", "`marking` joined with the working label of who writes")
	c.Flags().StringVar(&b.Floor, "floor", "", "lowest `marking` of a version; default: the node's")
	c.Flags().StringVar(&b.Ceiling, "ceiling", "", "highest `marking` of a version; default: the node's")
	c.Flags().StringVar(&b.Current, "current", "newest", "what a reader sees first: `newest|highest`")
	c.Flags().StringVar(&b.ETag, "etag", "opaque", "`opaque|md5`; md5 is for old clients that want it")
	c.Flags().BoolVar(&b.Closed, "closed", false, "need to know: only who holds a grant gets in")
}

func (a *app) listBuckets(ctx context.Context, s *session) error {
	all, err := s.objects.Buckets(ctx)
	if err != nil {
		return err
	}
	if a.json {
		return a.print(map[string]any{"buckets": append([]client.Bucket{}, all...)})
	}
	t := a.table("CREATED", "BUCKET")
	for _, b := range all {
		t.row(b.Created.Local().Format("2006-01-02 15:04"), string(b.Name))
	}
	return t.flush()
}

func (a *app) bucketLs() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "ls --as SUBJECT@NODE", Short: "The buckets of a node", Example: "  redoubt bucket ls --as admin@secret", Args: exactly(0),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, _ []string) error { return a.listBuckets(ctx, s) })}
	w.objectFlags(c)
	return a.jsonFlag(c)
}

func (a *app) bucketCreate() *cobra.Command {
	var w who
	var b bucketFlags
	var lock bool
	c := &cobra.Command{Use: "create BUCKET --as SUBJECT@NODE", Short: "Make a bucket", Example: `  redoubt bucket create drafts --default SECRET --as admin@secret`, Args: exactly(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			name := redoubt.BucketName(args[0])
			if err := s.objects.CreateBucket(ctx, name, b.BucketSettings, lock); err != nil {
				return storageHint(err)
			}
			a.say("made %s at %s", name, s.node)
			return a.showBucket(ctx, s, name)
		})}
	w.objectFlags(c)
	b.flags(c)
	c.Flags().BoolVar(&lock, "lock", false, "with S3 object lock: versions may be retained")
	return a.jsonFlag(c)
}

// storageHint says who may, where the node only says that this one may not.
func storageHint(err error) error {
	var e *redoubt.Error
	if !errors.As(err, &e) || e.Kind != redoubt.Denied || e.Hint != "" {
		return err
	}
	out := *e
	out.Hint = "buckets are made, set and removed by the storage role: in the example, --as admin@NODE"
	return &out
}

func (a *app) showBucket(ctx context.Context, s *session, name redoubt.BucketName) error {
	b, err := s.objects.BucketSettings(ctx, name)
	if err != nil {
		return err
	}
	if a.json {
		return a.print(struct {
			Name redoubt.BucketName `json:"name"`
			client.BucketSettings
		}{name, b})
	}
	_, err = fmt.Fprintf(a.out, "bucket     %s\ndefault    %s\nrange      %s to %s\ncurrent    %s\netag       %s\nclosed     %v\nread-only  %v\n",
		name, dash(b.Default), or(b.Floor, "the node's floor"), or(b.Ceiling, "the node's ceiling"), b.Current, b.ETag, b.Closed, b.ReadOnly)
	return err
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (a *app) bucketShow() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "show BUCKET --as SUBJECT@NODE", Short: "A bucket's settings", Example: "  redoubt bucket show reports --as u-analyst@secret", Args: exactly(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			return a.showBucket(ctx, s, redoubt.BucketName(args[0]))
		})}
	w.objectFlags(c)
	return a.jsonFlag(c)
}

func (a *app) bucketSet() *cobra.Command {
	var w who
	var want bucketFlags
	c := &cobra.Command{Use: "set BUCKET --as SUBJECT@NODE", Short: "Change some of a bucket's settings; the others stay",
		Example: `  redoubt bucket set drafts --default SECRET --current highest --as admin@secret
  redoubt bucket set drafts --closed=false --as admin@secret`, Args: exactly(1)}
	c.RunE = a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
		name := redoubt.BucketName(args[0])
		now, err := s.objects.BucketSettings(ctx, name)
		if err != nil {
			return err
		}
		for flag, apply := range map[string]func(){
			"default": func() { now.Default = want.Default }, "floor": func() { now.Floor = want.Floor }, "ceiling": func() { now.Ceiling = want.Ceiling },
			"current": func() { now.Current = want.Current }, "etag": func() { now.ETag = want.ETag }, "closed": func() { now.Closed = want.Closed },
		} {
			if c.Flags().Changed(flag) {
				apply()
			}
		}
		if err := s.objects.SetBucket(ctx, name, now); err != nil {
			return storageHint(err)
		}
		return a.showBucket(ctx, s, name)
	})
	w.objectFlags(c)
	want.flags(c)
	return a.jsonFlag(c)
}

func (a *app) bucketRm() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "rm BUCKET --as SUBJECT@NODE", Short: "Remove a bucket that its remover sees empty",
		Long:    "Removes a bucket. It decides on what the remover sees; versions above that stay readable to their readers.",
		Example: "  redoubt bucket rm drafts --as admin@secret", Args: exactly(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			if err := s.objects.DeleteBucket(ctx, redoubt.BucketName(args[0])); err != nil {
				return storageHint(err)
			}
			a.say("removed %s at %s", args[0], s.node)
			if a.json {
				return a.print(map[string]string{"removed": args[0]})
			}
			return nil
		})}
	w.objectFlags(c)
	return a.jsonFlag(c)
}
