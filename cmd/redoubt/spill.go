package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/client"
)

func (a *app) regradeCommand() *cobra.Command {
	var w who
	var q redoubt.Regrade
	var version string
	c := &cobra.Command{Use: "regrade s3://BUCKET/KEY --to MARKING --reason TEXT --as OFFICER@NODE", Short: "Give a version a higher label, at once: by a security officer",
		Long: `Writes the version anew under the higher label and erases the old one with its keys, here and on every node
that took it. Releases of it that are open end, and what a guard rebuilt of it is erased too. The version that it
is then is the newest under its name: one that was written over or deleted is seen again by who may read it, and
the command says so. What is to become lower, or open to more, is released instead, by two reviewers: redoubt
release request, to the same node.`,
		Example: "  redoubt regrade s3://reports/plan.txt --to SECRET --reason \"names a source\" --as officer@secret", Args: exactly(1),
		RunE: a.withPlace(&w, wholeName, func(ctx context.Context, s *session, p place, _ []string) error {
			q.Name, q.Version = redoubt.ObjectName{Bucket: p.bucket, Key: p.key}, redoubt.VersionID(version)
			out, err := s.api.Upgrade(ctx, q)
			if err != nil && ctx.Err() != nil {
				return &halfDone{message: "interrupted; the version may have its new label, and the old one goes", hint: fmt.Sprintf("redoubt versions %s --as SUBJECT@%s", p, s.node)}
			}
			if err != nil {
				return err
			}
			if out.Over != "" {
				a.say("it is the newest under its name now: who reads %s sees it, and saw %s before; to have that seen again: redoubt get --version, then redoubt put; or redoubt rm, where it was deleted", out.Label, out.Over)
			}
			if a.json {
				return a.print(out)
			}
			a.say("%s is %s; the version that was lower is erased: %s", p, out.Label, out.Erased)
			_, err = fmt.Fprintln(a.out, out.Version)
			return err
		})}
	w.flags(c)
	c.Flags().StringVar(&q.Label, "to", "", "`marking` that it is to have")
	c.Flags().StringVar(&q.Reason, "reason", "", "`text` for the audit log")
	c.Flags().StringVar(&version, "version", "", "`version`; default: the current one")
	required(c, "to", "reason")
	return a.jsonFlag(c)
}

func (a *app) spillCommand() *cobra.Command {
	c := &cobra.Command{Use: "spill", Short: "Clean up what was labelled too low: find every copy, erase it, and say what is proven gone",
		Example: `  redoubt spill report s3://reports/plan.txt --reason "holds SECRET" --as officer@unclass
  redoubt spill show ID --as officer@unclass`}
	c.AddCommand(a.spillReport(), a.spillShow(), a.spillLs())
	return c
}

func (a *app) spillReport() *cobra.Command {
	var w who
	var q redoubt.Spill
	var version, file string
	var spare []string
	var look bool
	c := &cobra.Command{Use: "report s3://BUCKET/KEY --reason TEXT --as OFFICER@NODE", Short: "Find and erase a version, every copy of its content, and what jobs made of it",
		Long: `Takes the version out at once, then finds every version of the same content in every bucket of the node, whatever its
label (of what is empty there is none), and takes them out too, with what a guard rebuilt of them; their open releases
end. Uploads in progress that hold a part as long as the content and equal to it, or any shorter one, are ended,
whoever began them. The keys that opened all of it are destroyed; the same happens on every node that took a copy,
when it is met next.

What jobs made after they had opened any of it is taken for it and goes too: outputs, logs, what was compiled of it as
a module, what other jobs made of those, and copies of them. Jobs and instances of services that run and have opened
it are ended, with what they have written. To keep what you have looked at and found clean, list with --find-only
first, then name its versions with --spare; what was made of it alone is then not followed. So is a copy kept that
lies at a label above that of the version, say because the version was taken from it. What only may be derived (of a
job that opened more than is known, or what is no longer here, or ran another image of the repository; or of the bytes
of a derivative, copied by hand) is listed and left: look at it, and report it if it is, or keep it with --spare, also
afterwards.

The report says of each copy and each node what is proven gone and what is not yet, and is signed by the node; spill
show brings it up to now. A node that copies are carried to is clean when it has acknowledged their erasure, and no
sooner: a device that ended and was not wiped, a partner whose agreement is over, and what has no link any more are
told of none. What came later under the same name is listed and left: look at it. Releases that left, or may have, are
traced at the node that took them; files that left for a partner are listed, and nobody takes them back. What is
interrupted the node goes on with; the same command shows the same report. What a service on a Kubernetes cluster has
read it serves for up to an hour more: service rm ends it sooner. With --find-only nothing is erased.

Backups that were made before the report hold the version and its keys, and no report reaches them: destroy them, or
report again on a node that was restored from one.

What was erased before it was reported here, say below a guard, by a partner or with key erase, is reported by its name
here or by its ID, listed as gone, and traced all the same.`,
		Example: `  redoubt spill report s3://reports/plan.txt --reason "holds SECRET" --as officer@unclass --out report.json
  redoubt spill report s3://reports/plan.txt --reason "check" --find-only --as officer@unclass
  redoubt spill report s3://reports/plan.txt --version VERSION --reason "holds SECRET" --spare VERSION2 --as officer@unclass`, Args: exactly(1),
		RunE: a.withPlace(&w, wholeName, func(ctx context.Context, s *session, p place, _ []string) error {
			q.Name, q.Version, q.Erase = redoubt.ObjectName{Bucket: p.bucket, Key: p.key}, redoubt.VersionID(version), !look
			for _, v := range spare {
				q.Spare = append(q.Spare, redoubt.VersionID(v))
			}
			out, err := s.api.ReportSpill(ctx, q)
			if err != nil && ctx.Err() != nil && q.Erase {
				return &halfDone{message: "interrupted; if the report has begun, the node goes on with it and erases what it finds", hint: fmt.Sprintf("redoubt spill ls --as %s", w.as)}
			}
			var e *redoubt.Error
			if errors.As(err, &e) && e.Kind == redoubt.NotFound { // the node gives no hint about what is not there
				e.Hint = "redoubt spill ls lists the reports; what one has taken out, and what was deleted, is reported by its --version: redoubt versions lists what a delete left"
			}
			if err != nil {
				return err
			}
			return a.showSpill(out, file)
		})}
	w.flags(c)
	c.Flags().StringVar(&version, "version", "", "`version`; default: the current one")
	c.Flags().StringVar(&q.Reason, "reason", "", "`text` for the report and the audit log")
	c.Flags().StringArrayVar(&spare, "spare", nil, "`version` that was listed as derived, as what may be or as a copy above, and stays; repeat it for more; needs --version")
	c.Flags().BoolVar(&look, "find-only", false, "find, and erase nothing")
	c.Flags().StringVar(&file, "out", "", "`file` to write the signed report to, as JSON")
	required(c, "reason")
	return a.jsonFlag(c)
}

func (a *app) spillShow() *cobra.Command {
	var w who
	var file string
	c := &cobra.Command{Use: "show ID --as OFFICER@NODE", Short: "How a report stands now: what has gone since", Example: "  redoubt spill show ID --as officer@unclass", Args: exactly(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			out, err := s.api.Spill(ctx, args[0])
			if e, ok := errors.AsType[*redoubt.Error](err); ok && e.Kind == redoubt.NotFound {
				e.Hint = "redoubt spill ls lists the reports"
			}
			if err != nil {
				return err
			}
			return a.showSpill(out, file)
		})}
	w.flags(c)
	c.Flags().StringVar(&file, "out", "", "`file` to write the signed report to, as JSON")
	return a.jsonFlag(c)
}

func (a *app) spillLs() *cobra.Command {
	var w who
	var erased bool
	c := &cobra.Command{Use: "ls --as OFFICER@NODE", Short: "The reports of a node", Long: `Lists the reports. With --erased it lists what was erased where it came from (below a guard, by a partner, at home or on
a device) and that no report here erases. An erasure does not say whether it was of a spill: if it was, redoubt spill
report of the version finds what was copied and made of it here; with --find-only it erases nothing.`,
		Example: `  redoubt spill ls --as officer@unclass
  redoubt spill ls --erased --as officer@secret`, Args: exactly(0),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, _ []string) error {
			if erased {
				return a.listErased(ctx, s.api)
			}
			return a.listSpills(ctx, s.api)
		})}
	w.flags(c)
	c.Flags().BoolVar(&erased, "erased", false, "what was erased where it came from, and by no report here")
	return a.jsonFlag(c)
}

// listSpills lists the reports, and says in text how many erasures none of them is of.
func (a *app) listSpills(ctx context.Context, api *client.Client) error {
	all, err := api.Spills(ctx)
	if err != nil {
		return err
	}
	if a.json {
		return a.print(map[string]any{"spills": all})
	}
	_, gone, err := api.ErasedElsewhere(ctx)
	if err != nil {
		return err
	}
	t := a.table("ID", "MADE", "NAME", "COPIES", "PROVEN GONE", "BY", "REASON")
	for _, r := range all {
		t.row(r.ID, r.Made.Local().Format("2006-01-02 15:04"), place{r.Name.Bucket, r.Name.Key}.String(), strconv.Itoa(len(r.Copies)), yesNo(r.Proven), string(r.By), r.Reason)
	}
	if gone > 0 {
		a.say("erased where it came from, and by no report here: %d versions; redoubt spill ls --erased lists them", gone)
	}
	return t.flush()
}

func (a *app) listErased(ctx context.Context, api *client.Client) error {
	newest, all, err := api.ErasedElsewhere(ctx)
	if err != nil {
		return err
	}
	if a.json {
		return a.print(map[string]any{"erased": newest, "all": all})
	}
	t := a.table("CAME", "FROM", "NAME", "VERSION", "LABEL", "BYTES")
	for _, x := range newest {
		t.row(x.At.Local().Format("2006-01-02 15:04"), string(x.From), place{x.Name.Bucket, x.Name.Key}.String(), string(x.Version), x.Label, strconv.FormatInt(x.Bytes, 10))
	}
	if all > len(newest) {
		a.say("these are the newest %d of %d: what a report erases makes room for the next", len(newest), all)
	}
	return t.flush()
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "not yet"
}

// derivation is what a copy is to the report: of what is derived, what made it of what.
func derivation(r *redoubt.SpillReport, c redoubt.SpillCopy) string {
	switch {
	case c.Above:
		return c.Relation + ": at a label above, where it may belong"
	case c.From == "":
		return c.Relation
	case c.Job == "" && c.From == r.Version:
		return c.Relation + ": it holds what was spilled, and was written elsewhere after the report"
	case c.Job == "":
		return fmt.Sprintf("%s: it holds what %s does, which was made of it", c.Relation, c.From)
	}
	return fmt.Sprintf("%s: made by job %s from %s", c.Relation, c.Job, c.From)
}

// showSpill prints a report, and writes it where it is asked for.
func (a *app) showSpill(r redoubt.SpillReport, file string) error {
	if file != "" {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		was := a.out
		a.out = f
		err = a.print(r)
		a.out = was
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	if a.json {
		return a.print(r)
	}
	t := a.table("COPY", "VERSION", "LABEL", "MADE BY", "WHAT", "GONE HERE")
	for _, c := range r.Copies {
		gone := yesNo(c.Gone)
		if c.Spared {
			gone = "spared"
		}
		t.row(place{c.Bucket, c.Key}.String(), string(c.Version), c.Label, string(c.Maker), derivation(&r, c), gone)
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, x := range r.Readers {
		if x.Ended {
			a.say("job %s of %s had read it and ran: it is ended, with what it had written (MAX %s)", x.Job, x.By, x.Max)
		} else {
			a.say("job %s of %s has read it, and runs (MAX %s)", x.Job, x.By, x.Max)
		}
	}
	t = a.table("NODE", "HAD", "MAY HAVE", "GONE", "NOT KNOWN")
	for _, p := range r.Peers {
		t.row(string(p.Node), strconv.Itoa(p.Had), strconv.Itoa(p.May), strconv.Itoa(p.Gone), dash(p.Why))
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, l := range r.Releases {
		if l.Why != "" {
			a.say("release %s of s3://%s/%s at %s: %s; redoubt spill report there too, if it is there", l.ID, l.Bucket, shown(l.Key), l.To, l.Why)
			continue
		}
		a.say("released: s3://%s/%s at %s (%s): redoubt spill report there too", l.Bucket, shown(l.Key), l.To, l.ID)
	}
	if slices.ContainsFunc(r.Copies, func(c redoubt.SpillCopy) bool { return c.Gone }) {
		a.say("not covered: backups from before the report, which hold it and its keys; destroy them, or report again on what is restored from one")
	}
	for _, x := range r.Exports {
		a.say("it left as a file for %s, by %s at %s: what became of that is not known here", x.Nation, x.By, x.At.Local().Format("2006-01-02 15:04"))
	}
	if r.Why != "" {
		a.say("%s", r.Why)
	}
	a.say("report %s: %s", r.ID, strings.Replace("proven gone: "+yesNo(r.Proven), "proven gone: yes", "all of it is proven gone", 1))
	return nil
}
