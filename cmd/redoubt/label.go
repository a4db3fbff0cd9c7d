package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/estate"
	"redoubt/label"
)

// labelCommand is everything that can be asked of markings without an estate.
func (a *app) labelCommand() *cobra.Command {
	c := &cobra.Command{Use: "label", Short: "Read, compare and convert markings",
		Long: "Reads, joins, compares and converts markings. It needs no estate: policies are built in, or SPIF files.",
		Example: `  redoubt label parse "TS//SI/TK//NF"
  redoubt label dominates SECRET "SECRET//REL TO USA, GBR"`}
	c.AddCommand(a.labelParse(), a.labelJoin(), a.labelDominates(), a.labelConvert(), a.labelToXML(), a.labelFromXML(), a.labelPolicies())
	return c
}

func policyFlag(c *cobra.Command, p *string) {
	c.Flags().StringVar(p, "policy", "USA", "marking `policy`: a built-in name or a SPIF file")
}

// policy finds a built-in policy, or reads a SPIF file.
func policy(name string) (*label.Policy, error) {
	p, err := label.Builtin(name)
	if err == nil {
		return p, nil
	}
	f, openErr := os.Open(name)
	if openErr != nil {
		return nil, &redoubt.Error{Kind: redoubt.Invalid, Err: err, Hint: "redoubt label policies"}
	}
	defer f.Close()
	p, err = label.ReadSPIF(f)
	if err != nil {
		return nil, &redoubt.Error{Object: name, Kind: redoubt.Invalid, Err: err}
	}
	return p, nil
}

// parse reads a marking as an error of ours.
func parse(p *label.Policy, marking string) (label.Label, error) {
	l, err := p.Parse(marking)
	if err != nil {
		return label.Label{}, &redoubt.Error{Kind: redoubt.Invalid, Err: err, Hint: "redoubt label parse MARKING --json tells every fault and its place"}
	}
	return l, nil
}

// parsedLabel is the JSON of label parse.
type parsedLabel struct {
	Policy         string       `json:"policy"`
	Banner         string       `json:"banner"`
	Portion        string       `json:"portion"`
	Classification string       `json:"classification"`
	Categories     []string     `json:"categories"`
	ReleasableTo   []string     `json:"releasable_to"` // ["ALL"] for everybody
	Marks          []string     `json:"marks"`
	Owners         []string     `json:"owners"`
	Errors         []labelFault `json:"errors"`
}

type labelFault struct {
	Offset int    `json:"offset"`
	Text   string `json:"text"`
	Reason string `json:"reason"`
}

func describe(p *label.Policy, l label.Label) parsedLabel {
	d := parsedLabel{Policy: p.Name(), Banner: l.Banner(), Portion: l.Portion(), Classification: l.Classification(),
		Categories: orEmpty(l.Categories()), ReleasableTo: orEmpty(l.ReleasableTo()), Marks: orEmpty(l.Marks()), Owners: orEmpty(l.Owners()), Errors: []labelFault{}}
	if l.ForAll() {
		d.ReleasableTo = []string{"ALL"}
	}
	if l.IsZero() {
		d.Portion = ""
	}
	return d
}

func orEmpty(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func (a *app) labelParse() *cobra.Command {
	var name string
	c := &cobra.Command{Use: "parse MARKING", Short: "Read a marking, long, short or as a portion, and say what it means",
		Example: `  redoubt label parse "S//REL TO USA, GBR"
  redoubt label parse "COSMIC TOP SECRET" --policy NATO --json`,
		Args: exactly(1), RunE: func(_ *cobra.Command, args []string) error {
			p, err := policy(name)
			if err != nil {
				return err
			}
			l, err := p.Parse(args[0])
			d := describe(p, l)
			var bad *label.ParseError
			if errors.As(err, &bad) {
				for _, f := range bad.Faults {
					d.Errors = append(d.Errors, labelFault{f.Offset, f.Text, f.Reason})
				}
			} else if err != nil {
				return err
			}
			if a.json {
				if err := a.print(d); err != nil {
					return err
				}
				if bad != nil {
					return exitError(exitFailed)
				}
				return nil
			}
			if bad != nil {
				return &redoubt.Error{Kind: redoubt.Invalid, Err: bad, Hint: "redoubt label policies lists the policies and their classifications"}
			}
			_, err = fmt.Fprintf(a.out, "banner          %s\nportion         %s\nclassification  %s\ncategories      %s\nreleasable to   %s\n",
				d.Banner, d.Portion, d.Classification, list(d.Categories), list(d.ReleasableTo))
			return err
		}}
	policyFlag(c, &name)
	return a.jsonFlag(c)
}

func (a *app) labelJoin() *cobra.Command {
	var name string
	c := &cobra.Command{Use: "join MARKING...", Short: "The least marking above all of the given ones: that of material derived from them",
		Example: `  redoubt label join "S//REL TO USA, GBR" "S//REL TO USA, AUS"`,
		Args:    between(1, -1), RunE: func(_ *cobra.Command, args []string) error {
			p, err := policy(name)
			if err != nil {
				return err
			}
			var all []label.Label
			for _, m := range args {
				l, err := parse(p, m)
				if err != nil {
					return err
				}
				all = append(all, l)
			}
			joined := label.RollUp(all)
			if a.json {
				return a.print(describe(p, joined))
			}
			_, err = fmt.Fprintln(a.out, joined.Banner())
			return err
		}}
	policyFlag(c, &name)
	return a.jsonFlag(c)
}

func (a *app) labelDominates() *cobra.Command {
	var name string
	c := &cobra.Command{Use: "dominates A B", Short: "Whether who works at A may read what is marked B; exits 0 for yes, 3 for no",
		Example: `  redoubt label dominates "TS//SI/TK" SECRET && echo may read`,
		Args:    exactly(2), RunE: func(_ *cobra.Command, args []string) error {
			p, err := policy(name)
			if err != nil {
				return err
			}
			x, err := parse(p, args[0])
			if err != nil {
				return err
			}
			y, err := parse(p, args[1])
			if err != nil {
				return err
			}
			yes := x.Dominates(y)
			word := map[bool]string{true: "dominates", false: "does not dominate"}[yes]
			if a.json {
				err = a.print(map[string]any{"a": x.Banner(), "b": y.Banner(), "dominates": yes})
			} else {
				_, err = fmt.Fprintf(a.out, "%s %s %s\n", x.Banner(), word, y.Banner())
			}
			if err == nil && !yes {
				return exitError(exitRefused)
			}
			return err
		}}
	policyFlag(c, &name)
	return a.jsonFlag(c)
}

func (a *app) labelConvert() *cobra.Command {
	var from, to, agreement string
	c := &cobra.Command{Use: "convert MARKING --from POLICY --to POLICY --agreement FILE", Short: "What a marking is in another policy, by an agreement",
		Long: `Converts a marking by the equivalence that an agreement states. Equivalence has one direction and is
never guessed: without an agreement nothing converts, but a marking within its own policy.`,
		Example: `  redoubt label convert "NATO SECRET" --from NATO --to USA --agreement nato-usa.json`,
		Args:    exactly(1), RunE: func(cmd *cobra.Command, args []string) error {
			p, err := policy(from)
			if err != nil {
				return err
			}
			q, err := policy(to)
			if err != nil {
				return err
			}
			l, err := parse(p, args[0])
			if err != nil {
				return err
			}
			if agreement == "" && p != q {
				return &redoubt.Error{Kind: redoubt.Denied, Rule: "agreement", Err: fmt.Errorf("no agreement says what a marking of %s is in %s", p.Name(), q.Name()),
					Hint: "name the agreement's file: --agreement FILE"}
			}
			if agreement != "" {
				if l, err = convert(l, p, q, agreement); err != nil {
					return err
				}
			}
			if a.json {
				return a.print(describe(q, l))
			}
			_, err = fmt.Fprintln(a.out, l.Banner())
			return err
		}}
	c.Flags().StringVar(&from, "from", "", "`policy` of the marking")
	c.Flags().StringVar(&to, "to", "", "`policy` to convert to")
	c.Flags().StringVar(&agreement, "agreement", "", "the agreement's `file`, or an equivalence, JSON")
	required(c, "from", "to")
	return a.jsonFlag(c)
}

func convert(l label.Label, from, to *label.Policy, file string) (label.Label, error) {
	by, err := conversion(from, to, file)
	if err != nil {
		return label.Label{}, err
	}
	out, err := by(l)
	if err != nil {
		return label.Label{}, &redoubt.Error{Kind: redoubt.Denied, Rule: "agreement", Err: err}
	}
	return out, nil
}

// conversion is what an agreement says, whose signatures are verified, or an equivalence alone, which nobody has signed.
func conversion(from, to *label.Policy, file string) (func(label.Label) (label.Label, error), error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, &redoubt.Error{Object: file, Kind: redoubt.NotFound, Err: err}
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, estate.MaxAgreementBytes+1))
	if err != nil {
		return nil, &redoubt.Error{Object: file, Kind: redoubt.Invalid, Err: err}
	}
	var head struct {
		Agreement json.RawMessage `json:"agreement"`
	}
	if json.Unmarshal(data, &head) != nil || head.Agreement == nil {
		eq, err := label.ReadEquivalence(bytes.NewReader(data), time.Now, from, to)
		if err != nil {
			return nil, &redoubt.Error{Object: file, Kind: redoubt.Invalid, Err: err, Hint: "it is an agreement that both sides have signed, or an equivalence as docs/spec/label.md tells"}
		}
		return eq.Convert, nil
	}
	s, err := estate.ReadAgreement(data, from, to)
	if err == nil {
		err = s.Verify()
	}
	if err != nil {
		return nil, err
	}
	return s.Conversion(from, to, time.Now)
}

func (a *app) labelPolicies() *cobra.Command {
	return a.jsonFlag(&cobra.Command{Use: "policies", Short: "The built-in marking policies", Example: "  redoubt label policies --json",
		Args: exactly(0), RunE: func(*cobra.Command, []string) error {
			type entry struct {
				Name            string   `json:"name"`
				Version         string   `json:"version"`
				ID              string   `json:"id"`
				Nation          string   `json:"nation"`
				Classifications []string `json:"classifications"`
			}
			var all []entry
			for _, name := range label.BuiltinNames() {
				p, err := label.Builtin(name)
				if err != nil {
					return err
				}
				all = append(all, entry{p.Name(), p.Version(), p.ID(), p.Nation(), p.Classifications()})
			}
			if a.json {
				return a.print(map[string]any{"policies": all})
			}
			t := a.table("POLICY", "VERSION", "CLASSIFICATIONS")
			for _, p := range all {
				t.row(p.Name, p.Version, list(p.Classifications))
			}
			return t.flush()
		}})
}
