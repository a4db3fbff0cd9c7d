package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/carry/diode"
	"redoubt/guard"
	"redoubt/node"
)

func (a *app) guardCommand() *cobra.Command {
	c := &cobra.Command{Use: "guard", Short: "What joins enclaves of different levels: how raises do, and what a guard is known by",
		Long: `A guard raises everything in the lower enclave's buckets to the higher one by itself, where it appears as
ORIGIN.BUCKET, and takes what two reviewers signed the other way (redoubt release). Nothing comes back from
above: a number that is lost on the way shows at the higher enclave as a gap, and a person at the lower one
feeds it again.`,
		Example: `  redoubt guard status --as ts-analyst@secret
  redoubt guard refeed unclass-secret 5-6`}
	c.AddCommand(a.guardStatus(), a.guardRefeed(), a.guardKey(), a.guardIntroduce())
	return c
}

func (a *app) guardStatus() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "status [GUARD | --as SUBJECT@NODE]", Short: "The raises that a node is an end of: how far they are, and what is lacking",
		Long: `With --as, asks an enclave for the raises that it is an end of: below, what it handed over, and how many versions it
passed over since they did not read; above, what it took and which numbers are lacking. With a guard's name, looks at the
halves of that guard that this machine runs: what they have sent or handed over, and what waits. Of a half on another
machine nothing is known here: nothing tells of it.`,
		Example: "  redoubt guard status --as s-analyst@secret --json\n  redoubt guard status unclass-secret", Args: between(0, 1)}
	asked := a.withSession(&w, func(ctx context.Context, s *session, _ []string) error {
		all, err := s.api.Raises(ctx)
		if err != nil {
			return err
		}
		if a.json {
			return a.print(map[string]any{"raises": all})
		}
		t := a.table("WITH", "WAY", "NUMBER", "MADE", "LACKING", "WAITS")
		for _, r := range all {
			way, waits := "from there", r.Blocked
			if r.Way == "up" {
				way = "to there"
				if r.Awaiting && waits == "" {
					waits = "the guard has not said that it has it"
				}
			}
			made := "-"
			if !r.At.IsZero() {
				made = r.At.Local().Format("2006-01-02 15:04")
			}
			t.row(string(r.Peer), way, strconv.FormatUint(r.Serial, 10), made, dash(diode.SpanText(r.Gaps)), dash(waits))
		}
		err = t.flush()
		for _, r := range all {
			if r.Unread > 0 && err == nil {
				a.passedOver(s.node, r)
			}
		}
		return err
	})
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if (w.as == "") != (len(args) == 1) {
			return &usageError{message: "name a guard of this machine, or --as SUBJECT@NODE for what an enclave knows", hint: "redoubt guard status unclass-secret"}
		}
		if len(args) == 1 {
			return a.guardHere(redoubt.NodeName(args[0]))
		}
		return asked(cmd, args)
	}
	c.Flags().StringVar(&w.as, "as", "", "act as `SUBJECT@NODE`")
	w.moreFlags(c)
	return a.jsonFlag(c)
}

// passedOver says what to do about what was not raised, for it did not read or is larger than a bundle.
func (a *app) passedOver(low redoubt.NodeName, r redoubt.RaiseStatus) {
	a.tell(fmt.Sprintf("not raised to %s: %s, which did not read, or has more than a bundle may (1 TiB); what came after was", r.Peer, counted(r.Unread, "version")),
		fmt.Sprintf("redoubt fsck %s names what is damaged; when it reads again: redoubt guard refeed GUARD --anew --as ADMIN@%s", low, low))
}

func (a *app) guardRefeed() *cobra.Command {
	var w who
	var anew bool
	c := &cobra.Command{Use: "refeed GUARD [NUMBERS]", Short: "Send numbers again that the higher enclave lacks",
		Long: `Has the guard's low half ask the lower enclave again for what was in bundles: the numbers that redoubt guard status
shows as lacking at the higher enclave. It comes as new numbers, which say that the old ones are void. It runs where the
guard does. Of what is too long ago (4,096 bundles, a million versions) all is raised anew, by the lower node's
administrator: --anew. What is there already is not taken twice.`,
		Example: "  redoubt guard refeed unclass-secret 5-6,9\n  redoubt guard refeed unclass-secret --anew --as admin@unclass", Args: between(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if anew == (len(args) == 2) || anew != (w.as != "") {
				return &usageError{message: "name numbers, or --anew with --as ADMIN@LOW", hint: "redoubt guard status at the higher enclave shows what is lacking"}
			}
			st, err := a.state()
			if err != nil {
				return err
			}
			high, err := highOf(st, redoubt.NodeName(args[0]))
			if err != nil {
				return err
			}
			if anew {
				return a.withSession(&w, func(ctx context.Context, s *session, _ []string) error { return s.api.RaiseAnew(ctx, high) })(cmd, args)
			}
			spans, err := diode.ParseSpans(args[1])
			if err != nil {
				return &usageError{message: err.Error(), hint: "redoubt guard refeed " + args[0] + " 5-6,9"}
			}
			if err := guard.AskRefeed(filepath.Join(st.NodeDir(redoubt.NodeName(args[0])), node.HalfLow), spans); err != nil {
				return err
			}
			a.say("the guard's low half sends what was in %s again", args[1])
			return nil
		}}
	c.Flags().BoolVar(&anew, "anew", false, "raise everything anew, by the lower node's administrator")
	c.Flags().StringVar(&w.as, "as", "", "with --anew: act as `SUBJECT@NODE`")
	w.moreFlags(c)
	return c
}

// highOf is a guard's higher enclave, as what the guard left in its state tells: no marking of an estate lies open in a state.
func highOf(st node.State, name redoubt.NodeName) (redoubt.NodeName, error) {
	if err := hasNode(st, name); err != nil {
		return "", err
	}
	r, err := st.Runtime(name)
	if err == nil && r.High == "" {
		err = &redoubt.Error{Object: "node " + string(name), Kind: redoubt.NotFound, Err: errors.New("it is no guard, or never ran"), Hint: "redoubt status lists the nodes"}
	}
	return r.High, err
}

func (a *app) guardKey() *cobra.Command {
	var h holder
	var low, high, half string
	c := &cobra.Command{Use: "key GUARD --low NODE --high NODE", Short: "Make a guard's keys, and print the public halves for the estate",
		Long: `A guard comes to each of its two enclaves by a key of its own, which the estate names and two officers sign. This makes
them in the guard's state, at its first call, and prints low_key and high_key. What it is to pin of its enclaves
redoubt node card prints on their machines: bring the enclaves up first, then issue the estate with the guard.

A guard whose halves run apart has the keys of each on its own machine, and none is carried: --half low prints low_key, and
--half high prints high_key and release_key, by which the high half brings releases to the lower enclave.`,
		Example: "  redoubt guard key low-high --low unclass --high secret --state /var/lib/redoubt\n  redoubt guard key low-high --low unclass --high secret --half low", Args: exactly(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if half != "" && half != node.HalfLow && half != node.HalfHigh {
				return &usageError{message: "--half is low or high"}
			}
			st, err := node.OpenState(a.stateDir)
			if err != nil {
				return err
			}
			name := redoubt.NodeName(args[0])
			unlock, err := a.opening(st, name, h)
			if err != nil {
				return err
			}
			keys, err := node.GuardKeys(st, name, redoubt.NodeName(low), redoubt.NodeName(high), half, unlock)
			if err != nil {
				return err
			}
			if a.json {
				return a.print(keys)
			}
			t := a.table()
			for _, field := range []string{"low_key", "high_key", "release_key"} {
				if key, ok := keys[field]; ok {
					t.row(field+":", key)
				}
			}
			return t.flush()
		}}
	h.makeFlags(c)
	c.Flags().StringVar(&low, "low", "", "its lower `enclave`")
	c.Flags().StringVar(&high, "high", "", "its higher `enclave`")
	c.Flags().StringVar(&half, "half", "", "of a guard whose halves run apart: `low or high`, the one that runs here")
	required(c, "low", "high")
	return a.jsonFlag(c)
}

func (a *app) guardIntroduce() *cobra.Command {
	return &cobra.Command{Use: "introduce GUARD CARD...", Short: "Tell a guard where its enclaves are, by cards from their machines",
		Example: "  redoubt guard introduce low-high low.card high.card", Args: between(2, 3),
		RunE: func(_ *cobra.Command, args []string) error {
			st, err := node.OpenState(a.stateDir)
			if err != nil {
				return err
			}
			for _, path := range args[1:] {
				c, err := node.ReadCard(path)
				if err != nil {
					return err
				}
				if err := st.Introduce(redoubt.NodeName(args[0]), c); err != nil {
					return err
				}
				a.say("%s knows %s at %s", args[0], c.Node, c.API)
			}
			return nil
		}}
}

func (a *app) nodeCard() *cobra.Command {
	return a.jsonFlag(&cobra.Command{Use: "card NODE", Short: "What a guard is told of an enclave, and what the estate pins of it",
		Long: `Prints a document with the node's public keys, its authority's certificate and its address: redoubt guard
introduce takes it on the guard's machine. Its pin, for the estate, is told beside it.`,
		Example: "  redoubt node card secret > secret.card", Args: exactly(1),
		RunE: func(_ *cobra.Command, args []string) error {
			st, err := a.state()
			if err != nil {
				return err
			}
			if err := hasNode(st, redoubt.NodeName(args[0])); err != nil {
				return err
			}
			card, err := st.Card(redoubt.NodeName(args[0]))
			if err != nil {
				return err
			}
			pin, err := card.Pin()
			if err != nil {
				return err
			}
			a.say("pins:\n  %s:\n    key: %s\n    recipient: %s\n    ca: %s", card.Node, pin.Key, pin.Recipient, pin.CA)
			return a.print(card)
		}})
}
