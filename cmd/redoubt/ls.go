package main

import (
	"context"
	"fmt"
	"sync"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/client"
)

func (a *app) lsCommand() *cobra.Command {
	var w who
	var recursive, noLabels bool
	c := &cobra.Command{Use: "ls [s3://BUCKET[/PREFIX]] --as SUBJECT@NODE", Short: "List buckets, or what the subject sees in one, with labels",
		Long: `Lists the buckets, or the objects under a prefix as this credential sees them: what its label does not dominate is
neither shown nor counted. The label of each is asked for singly; --no-labels leaves them out and is faster.`,
		Example: `  redoubt ls --as u-analyst@unclass
  redoubt ls s3://reports --as gbr-liaison@secret
  redoubt ls s3://imagery --recursive --json --as ts-analyst@topsecret`,
		Args: between(0, 1), RunE: func(cmd *cobra.Command, args []string) error {
			var p place
			if len(args) == 1 {
				var err error
				if p, err = parsePlace(args[0]); err != nil {
					return err
				}
			}
			s, err := a.open(cmd.Context(), w)
			if err != nil {
				return interrupted(cmd.Context(), err)
			}
			defer s.close()
			if len(args) == 0 {
				return a.listBuckets(cmd.Context(), s)
			}
			return a.listObjects(cmd.Context(), s, p, recursive, !noLabels)
		}}
	w.objectFlags(c)
	c.Flags().BoolVarP(&recursive, "recursive", "r", false, "list everything under the prefix, not folder by folder")
	c.Flags().BoolVar(&noLabels, "no-labels", false, "do not ask for labels")
	return a.jsonFlag(c)
}

// labelWorkers ask for labels at once: a listing has none.
const labelWorkers = 8

func (a *app) listObjects(ctx context.Context, s *session, p place, recursive, labels bool) error {
	delimiter := "/"
	if recursive {
		delimiter = ""
	}
	objects, prefixes := []client.Object{}, []string{}
	err := s.objects.List(ctx, p.bucket, p.key, delimiter,
		func(o client.Object) error { objects = append(objects, o); return nil },
		func(prefix string) error { prefixes = append(prefixes, prefix); return nil })
	if err == nil && labels {
		err = headAll(ctx, s, objects)
	}
	if err != nil {
		return interrupted(ctx, err)
	}
	if a.json {
		docs := []objectJSON{}
		for _, o := range objects {
			docs = append(docs, objectDoc(o))
		}
		return a.print(map[string]any{"label": s.minted.Label, "objects": docs, "prefixes": prefixes})
	}
	t := a.table("SIZE", "MODIFIED", "LABEL", "KEY")
	for _, prefix := range prefixes {
		t.row("-", "-", "-", prefix)
	}
	for _, o := range objects {
		t.row(bytesText(o.SizeBytes), o.Modified.Local().Format("2006-01-02 15:04"), dash(o.Label), o.Name.Key)
	}
	a.say("as %s, working at %s:", s.subject, s.minted.Label)
	return t.flush()
}

// headAll fills in what a listing does not tell. What has gone since stays without a label.
func headAll(ctx context.Context, s *session, objects []client.Object) error {
	next := make(chan *client.Object)
	var wg sync.WaitGroup
	for range labelWorkers {
		wg.Go(func() {
			for o := range next {
				if head, err := s.objects.Head(ctx, o.Name, o.Version); err == nil {
					o.Label, o.ContentType, o.Version = head.Label, head.ContentType, head.Version
				}
			}
		})
	}
	for i := range objects {
		if !objects[i].Marker {
			next <- &objects[i]
		}
	}
	close(next)
	wg.Wait()
	return ctx.Err()
}

func (a *app) versionsCommand() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "versions s3://BUCKET/KEY --as SUBJECT@NODE", Short: "Every version and delete marker under a key that the subject may know of",
		Example: "  redoubt versions s3://reports/report.pdf --as ts-analyst@topsecret",
		Args:    exactly(1), RunE: a.withPlace(&w, nil, func(ctx context.Context, s *session, p place, _ []string) error {
			all := []client.Object{}
			err := s.objects.Versions(ctx, p.bucket, p.key, func(o client.Object) error {
				all = append(all, o)
				return nil
			})
			if err == nil {
				err = headAll(ctx, s, all)
			}
			if err != nil {
				return err
			}
			if a.json {
				docs := []objectJSON{}
				for _, o := range all {
					docs = append(docs, objectDoc(o))
				}
				return a.print(map[string]any{"label": s.minted.Label, "versions": docs})
			}
			t := a.table("SIZE", "MODIFIED", "LABEL", "CURRENT", "KEY", "VERSION")
			for _, o := range all {
				size := bytesText(o.SizeBytes)
				if o.Marker {
					size = "deleted"
				}
				t.row(size, o.Modified.Local().Format("2006-01-02 15:04:05"), dash(o.Label), map[bool]string{true: "yes", false: ""}[o.Latest], o.Name.Key, string(o.Version))
			}
			return t.flush()
		})}
	w.objectFlags(c)
	return a.jsonFlag(c)
}

func (a *app) rmCommand() *cobra.Command {
	var w who
	var version string
	var recursive bool
	c := &cobra.Command{Use: "rm s3://BUCKET/KEY --as SUBJECT@NODE", Short: "Delete an object: write a marker, or remove one version by its ID",
		Long: `Without --version it writes a delete marker at the working label. The marker hides what that label dominates and
nothing above it; every version stays readable by its ID.`,
		Example: `  redoubt rm s3://reports/old.txt --as s-analyst@secret
  redoubt rm s3://reports/drafts/ --recursive --as s-analyst@secret
  redoubt rm s3://reports/old.txt --version ID --as s-analyst@secret`,
		Args: exactly(1), RunE: a.withPlace(&w, func(c *cobra.Command, p place, _ []string) error { return w.oneOrAll(c, p, version, recursive) },
			func(ctx context.Context, s *session, p place, _ []string) error {
				return a.remove(ctx, s, p, version, recursive)
			})}
	w.objectFlags(c)
	c.Flags().StringVar(&version, "version", "", "`ID` of a version to remove for good")
	c.Flags().BoolVarP(&recursive, "recursive", "r", false, "delete everything under the prefix that the subject sees")
	return a.jsonFlag(c)
}

// deletedJSON is one deletion.
type deletedJSON struct {
	Key     string `json:"key"`
	Version string `json:"version"` // of the marker written, or the version removed
	Marker  bool   `json:"delete_marker"`
}

func (a *app) remove(ctx context.Context, s *session, p place, version string, recursive bool) error {
	keys := []string{p.key}
	if recursive {
		keys = nil
		err := s.objects.List(ctx, p.bucket, p.key, "", func(o client.Object) error {
			keys = append(keys, o.Name.Key)
			return nil
		}, nil)
		if err != nil {
			return interrupted(ctx, err)
		}
	}
	done := []deletedJSON{}
	for _, key := range keys {
		at := place{p.bucket, key}
		d, err := s.objects.Delete(ctx, at.name(), redoubt.VersionID(version))
		if err != nil {
			return interrupted(ctx, err)
		}
		done = append(done, deletedJSON{key, string(d.ID), d.Marker})
		if !a.json {
			what := "removed version"
			if d.Marker && version == "" {
				what = "hidden by marker"
			}
			fmt.Fprintf(a.out, "%s  %s %s\n", cell(at.String()), what, d.ID)
		}
	}
	if a.json {
		return a.print(map[string]any{"deleted": done})
	}
	return nil
}
