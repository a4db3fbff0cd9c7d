package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/bundle"
	"redoubt/carry/parts"
)

func (a *app) bundleCommand() *cobra.Command {
	c := &cobra.Command{Use: "bundle", Short: "Carry what nodes have for one another by file, where no link reaches",
		Long: `A bundle is everything that one node has for another and the other has not acknowledged, in one file: signed by its
maker, sealed to the node that it is for, and numbered. Whoever carries it reads nothing. It works while the link is cut.`,
		Example: `  redoubt bundle export --from secret --for outpost --to stick/to-outpost.rbundle
  redoubt bundle inspect stick/to-outpost.rbundle
  redoubt bundle import stick/to-outpost.rbundle --at outpost --receipt stick/back.rbundle
  redoubt bundle import stick/back.rbundle --at secret`}
	c.AddCommand(a.bundleExport(), a.bundleInspect(), a.bundleImport())
	return c
}

func (a *app) bundleExport() *cobra.Command {
	w := crew{role: "admin", life: bulkLife}
	var q redoubt.ExportBundle
	var from, peer, to string
	var cut splitting
	c := &cobra.Command{Use: "export --from NODE --for NODE --to FILE", Short: "Write what a node has for another into a file",
		Long: `Writes all that the other node is to have and has not acknowledged. Exporting again before a receipt came writes the
same again, and more: a stick that is lost loses nothing. With --part-size the file is split, FILE.001 and on, so that
each part fits a medium; with --parity some parts may be lost or damaged. --receipt writes only what was taken.`,
		Example: `  redoubt bundle export --from secret --for outpost --to to-outpost.rbundle
  redoubt bundle export --from secret --for outpost --to to-outpost.rbundle --part-size 650MiB --parity 10%
  redoubt bundle export --from outpost --for secret --to back.rbundle --receipt --as admin`, Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.Receipt && q.Anew {
				return &usageError{message: "--receipt and --anew say different things", hint: "a receipt tells what was taken; --anew sends everything again"}
			}
			if q.Life < time.Second || q.Life > bundle.MaxLife {
				return &usageError{message: "a bundle is good for a second at least and for 732 days at most", hint: "--life 2160h is the default"}
			}
			plan, err := cut.parse()
			if err != nil {
				return err
			}
			q.Peer = redoubt.NodeName(peer)
			w.at = []string{from}
			var made redoubt.BundleExport
			err = a.each(cmd.Context(), w, func(s *session) error {
				made, err = a.exportTo(cmd.Context(), s, q, to, plan)
				return err
			})
			if err != nil {
				return interrupted(cmd.Context(), err)
			}
			return a.showExport(made, from, to, plan)
		}}
	c.Flags().StringVar(&from, "from", "", "`NODE` that writes it")
	c.Flags().StringVar(&peer, "for", "", "`NODE` that it is for")
	c.Flags().StringVar(&to, "to", "", "`file` to write")
	c.Flags().BoolVar(&q.Receipt, "receipt", false, "only what was taken of the other node's bundles")
	c.Flags().BoolVar(&q.Anew, "anew", false, "forget what the other node acknowledged: send everything, and number from 1")
	c.Flags().DurationVar(&q.Life, "life", redoubt.DefaultBundleLife, "how long it may be under way, a `time`")
	cut.flags(c)
	w.asFlags(c)
	required(c, "from", "for", "to")
	for _, name := range []string{"from", "for"} {
		_ = c.RegisterFlagCompletionFunc(name, completer(a.nodeNames).flag) // fails only for a flag that is not there
	}
	return a.jsonFlag(c)
}

// exportTo writes a bundle to a file, or to parts of one; nothing is left of what fails.
func (a *app) exportTo(ctx context.Context, s *session, q redoubt.ExportBundle, to string, plan splitPlan) (made redoubt.BundleExport, err error) {
	show := a.progress("writing "+to, 0)
	defer show.end()
	fill := func(w io.Writer) error {
		made, err = s.api.ExportBundle(ctx, q, io.MultiWriter(w, &counter{p: show}))
		if errors.Is(err, redoubt.NotFound) {
			err = &redoubt.Error{Object: string(s.node), Kind: redoubt.NotFound, Err: fmt.Errorf("it has no link with %s", q.Peer),
				Hint: "redoubt device list --as OFFICER@" + string(s.node) + " tells of its devices; bundles go between a device and its home"}
		}
		return err
	}
	if plan.partBytes == 0 {
		if err := writeStream(to, fill); err != nil {
			return made, err
		}
		return made, settle(to)
	}
	whole, err := os.CreateTemp(dirOf(to), ".redoubt-*")
	if err != nil {
		return made, &redoubt.Error{Object: to, Err: err, Hint: "name a file in a folder that exists"}
	}
	defer os.Remove(whole.Name())
	defer whole.Close()
	if err := fill(whole); err != nil {
		return made, err
	}
	return made, splitFile(ctx, whole, to, plan)
}

// counter counts what is written.
type counter struct {
	p *progress
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	c.p.at(c.n)
	return len(b), nil
}

func (a *app) showExport(made redoubt.BundleExport, from, to string, plan splitPlan) error {
	if a.json {
		return a.print(struct {
			From redoubt.NodeName `json:"from"`
			File string           `json:"file"`
			redoubt.BundleExport
		}{redoubt.NodeName(from), to, made})
	}
	where := to
	if plan.partBytes > 0 {
		where = to + ".001 and on"
	}
	a.say("bundle %d of %s for %s is in %s", made.Serial, from, made.Peer, where)
	if made.More {
		a.say("there is more: export again when its receipt has been imported here")
	}
	return nil
}

func (a *app) bundleInspect() *cobra.Command {
	c := &cobra.Command{Use: "inspect FILE...", Short: "What a bundle, or parts of one, tell without a key",
		Long: `Reads what stands in clear: estate, maker, recipients, their numbers, two times and the size. That is a claim: only the
node that a bundle is for verifies it. Of parts it tells which file they make, and which are missing.`,
		Example: "  redoubt bundle inspect to-outpost.rbundle --json\n  redoubt bundle inspect to-outpost.rbundle.0*", Args: between(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := openBundle(args)
			if err != nil {
				return err
			}
			defer files.close()
			view := inspection{}
			if files.split {
				report, err := parts.Join(cmd.Context(), files.given, io.Discard, nil)
				if report.Parts() == 0 {
					return err
				}
				view.Parts = partsOf(report, err)
			} else {
				sheet, err := bundle.Inspect(files.given[0].File, files.given[0].Size)
				if err != nil {
					return &redoubt.Error{Object: args[0], Kind: redoubt.KindOf(err), Rule: ruleOf(err), Err: errors.Unwrap(err), Hint: ownHint(err)}
				}
				view.sheet(sheet)
			}
			if a.json {
				return a.print(view)
			}
			_, err = fmt.Fprint(a.out, visible(view.text(time.Now())))
			return err
		}}
	return a.jsonFlag(c)
}

// inspection is what a file tells.
type inspection struct {
	Kind      string           `json:"kind,omitempty"`
	Estate    string           `json:"estate,omitempty"`
	Maker     redoubt.NodeName `json:"maker,omitempty"`
	To        []addressee      `json:"to,omitempty"`
	Created   time.Time        `json:"created,omitzero"`
	Expires   time.Time        `json:"expires,omitzero"`
	SizeBytes int64            `json:"size_bytes,omitempty"`
	ID        string           `json:"id,omitempty"`
	Verified  bool             `json:"verified"` // always false: it takes the node's keys
	Parts     *partsView       `json:"parts,omitempty"`
}

type addressee struct {
	Node     redoubt.NodeName `json:"node"`
	Serial   uint64           `json:"serial"`
	Previous string           `json:"previous,omitempty"`
}

func (v *inspection) sheet(s bundle.Sheet) {
	v.Kind, v.Estate, v.Maker, v.Created, v.Expires, v.SizeBytes, v.ID = s.Kind.String(), s.Estate, s.Maker, s.Created, s.Expires, s.FileBytes, hex.EncodeToString(s.ID[:])
	for _, t := range s.To {
		x := addressee{Node: t.Node, Serial: t.Serial}
		if t.Previous != [32]byte{} {
			x.Previous = hex.EncodeToString(t.Previous[:])
		}
		v.To = append(v.To, x)
	}
}

func (v *inspection) text(now time.Time) string {
	if v.Parts != nil {
		return v.Parts.text()
	}
	out := fmt.Sprintf("%s of %s, estate %s, %s\n", v.Kind, v.Maker, v.Estate, bytesText(v.SizeBytes))
	for _, t := range v.To {
		out += fmt.Sprintf("  for %s: number %d\n", t.Node, t.Serial)
	}
	state := "good until "
	if !now.Before(v.Expires) {
		state = "expired at "
	}
	out += fmt.Sprintf("  made %s, %s%s\n", v.Created.Local().Format("2006-01-02 15:04:05"), state, v.Expires.Local().Format("2006-01-02 15:04"))
	return out + "  not verified: the node that it is for does so when it is imported\n"
}

func (a *app) bundleImport() *cobra.Command {
	w := crew{role: "admin", life: bulkLife}
	var at, receipt string
	c := &cobra.Command{Use: "import FILE... --at NODE", Short: "Have a node take a bundle, or put one together from its parts",
		Long: `The node copies the file, verifies all of it, and takes what it may: each version is decided anew, as over a link. A
bundle that is refused changes nothing; one that was interrupted is imported again. With --receipt it writes the
receipt that tells the maker what was taken. Of a split bundle name one part, and the others are found beside it.`,
		Example: `  redoubt bundle import to-outpost.rbundle --at outpost --receipt back.rbundle
  redoubt bundle import /media/disc1/b.rbundle.001 /media/disc2/b.rbundle.002 --at outpost`, Args: between(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := openBundle(args)
			if err != nil {
				return err
			}
			defer files.close()
			w.at = []string{at}
			var taken redoubt.BundleImport
			err = a.each(cmd.Context(), w, func(s *session) error {
				if taken, err = a.importFrom(cmd.Context(), s, files); err != nil || receipt == "" {
					return err
				}
				return writeStream(receipt, func(w io.Writer) error {
					_, err := s.api.ExportBundle(cmd.Context(), redoubt.ExportBundle{Peer: taken.Peer, Receipt: true}, w)
					return err
				})
			})
			if err != nil {
				return interrupted(cmd.Context(), err)
			}
			return a.showImport(taken, at, receipt)
		}}
	c.Flags().StringVar(&at, "at", "", "`NODE` that takes it")
	c.Flags().StringVar(&receipt, "receipt", "", "`file` to write the receipt to")
	w.asFlags(c)
	required(c, "at")
	return a.jsonFlag(c)
}

func (a *app) importFrom(ctx context.Context, s *session, files *bundleFiles) (redoubt.BundleImport, error) {
	show := a.progress("sending "+files.given[0].Name, files.size)
	defer show.end()
	r, done := files.reader(ctx)
	taken, err := s.api.ImportBundle(ctx, &counting{r: r, p: show}, func(at, total int64) {
		show.at(at) // what the node takes of it, once it has all of it
	})
	if fault := done(); fault != nil && ctx.Err() == nil {
		return taken, fault // why the file ended early
	}
	return taken, err
}

func (a *app) showImport(t redoubt.BundleImport, at, receipt string) error {
	if a.json {
		return a.print(struct {
			At redoubt.NodeName `json:"at"`
			redoubt.BundleImport
		}{redoubt.NodeName(at), t})
	}
	what := fmt.Sprintf("bundle %d", t.Serial)
	if t.Receipt {
		what = "the receipt"
	}
	a.say("%s of %s is imported at %s", what, t.Peer, at)
	if t.Missing > 0 {
		a.say("%d bundles before it were never imported: nothing is lost, for this one holds what they held. Find out where they are;", t.Missing)
		a.say("they are sealed to %s, and are refused if they turn up", at)
	}
	for _, c := range t.Counts {
		line := fmt.Sprintf("  %s: %d entries, %s", c.Label, c.Entries, bytesText(c.Bytes))
		for rule, n := range c.Refused {
			line += fmt.Sprintf(", %d refused by %s", n, rule)
		}
		if c.Waiting > 0 {
			line += fmt.Sprintf(", %d wait: %s is told by the receipt, and sends them again", c.Waiting, t.Peer)
		}
		a.say("%s", line)
	}
	if !t.Receipt {
		a.say("hint: %s", cmp.Or(receiptHint(receipt, t.Peer), fmt.Sprintf("redoubt bundle export --from %s --for %s --to FILE takes the answer back", at, t.Peer)))
	}
	return nil
}

func receiptHint(receipt string, maker redoubt.NodeName) string {
	if receipt == "" {
		return ""
	}
	return fmt.Sprintf("redoubt bundle import %s --at %s", receipt, maker)
}
