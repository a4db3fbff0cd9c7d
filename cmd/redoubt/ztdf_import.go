package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/client"
	"redoubt/label"
	"redoubt/ztdf"
)

// importOptions are what a file is believed by, and how its label is read.
type importOptions struct {
	who
	private, agreement string
	trust, policies    []string
	unbound            bool
}

func (a *app) ztdfImport() *cobra.Command {
	var o importOptions
	c := &cobra.Command{Use: "import FILE s3://BUCKET/KEY --kas-private PEM --trust PEM --as SUBJECT@NODE", Short: "Take a partner's file as a new version, under the label that its originator signed",
		Long: `Opens a ZTDF file with the private key that it was sealed to, believes its label if a key of --trust signed it, and
stores the content as a new version. The label is read under its own policy; one of another policy than the
node's needs --agreement, which converts it. The version is labelled with the join of that and the working label:
what is above the working label needs the role write-up, or --label. A file without a signed label is unmarked and
is refused, as is one that was changed anywhere; nothing of it is stored then. What OpenTDF's SDK signs are the
segments' tags alone, which bind nothing against who has the file's key: --accept-unbound takes such a file.`,
		Example: `  redoubt ztdf import plan.ztdf s3://reports/plan.txt --kas-private kas.key --trust gbr-signer.pem --label "SECRET//REL TO USA, GBR" --as s-analyst@secret
  redoubt ztdf import plan.ztdf s3://reports/plan.txt --kas-private kas.key --trust gbr-signer.pem --agreement gbr-usa.json --as s-analyst@secret`,
		Args: exactly(2), RunE: func(cmd *cobra.Command, args []string) error {
			p, err := parsePlace(args[1])
			if err == nil {
				err = wholeName(cmd, p, nil)
			}
			if err != nil {
				return err
			}
			file, err := os.Open(args[0])
			if err != nil {
				return &redoubt.Error{Object: args[0], Kind: redoubt.NotFound, Err: errors.New("no such file")}
			}
			defer file.Close()
			known, f, err := openZTDF(file, o)
			if err != nil {
				return err
			}
			return a.withSession(&o.who, func(ctx context.Context, s *session, _ []string) error {
				return a.importZTDF(ctx, s, p, f, known, o.agreement)
			})(cmd, args)
		}}
	o.objectFlags(c)
	f := c.Flags()
	f.StringVar(&o.private, "kas-private", "", "private key, PEM `file` (PKCS #8), that the file was sealed to")
	f.StringArrayVar(&o.trust, "trust", nil, "public key, PEM `file`, of who signs labels for the partner; may be given again")
	f.StringArrayVar(&o.policies, "policy", nil, "a `policy` to know, a name or a SPIF file; default: every built-in one")
	f.StringVar(&o.agreement, "agreement", "", "the agreement's `file`, or an equivalence, JSON, from the label's policy to the node's")
	f.BoolVar(&o.unbound, "accept-unbound", false, "take a file whose signature covers no digest of its payload, as OpenTDF's SDK makes them")
	required(c, "kas-private", "trust")
	return a.jsonFlag(c)
}

// openZTDF authenticates a file, and gives the policies that its label may be of.
func openZTDF(file *os.File, o importOptions) (known []*label.Policy, f *ztdf.File, err error) {
	opts := ztdf.Options{Unbound: o.unbound}
	if opts.Private, err = readPrivatePEM(o.private); err != nil {
		return nil, nil, err
	}
	for _, name := range o.trust {
		text, err := readPEM(name)
		if err != nil {
			return nil, nil, err
		}
		key, err := ztdf.ParsePublic(text)
		if err != nil {
			return nil, nil, named(err, name)
		}
		opts.Trust = append(opts.Trust, key)
	}
	names := o.policies
	if len(names) == 0 {
		names = label.BuiltinNames()
	}
	for _, n := range names {
		p, err := policy(n)
		if err != nil {
			return nil, nil, err
		}
		known = append(known, p)
	}
	opts.Policies = known
	st, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	f, err = ztdf.Open(file, st.Size(), opts)
	return known, f, named(err, file.Name())
}

// importJSON is the JSON of an import.
type importJSON struct {
	objectJSON
	Originator string   `json:"originator_label"` // as it was signed, in its own policy
	Signer     string   `json:"signer_sha256"`
	Whole      bool     `json:"digest_signed"` // the signature covers the payload's own digest
	Attributes []string `json:"attributes"`
}

// importZTDF stores the content under the label that the node is to give it.
func (a *app) importZTDF(ctx context.Context, s *session, at place, f *ztdf.File, known []*label.Policy, agreement string) error {
	info, err := s.api.Node(ctx)
	if err != nil {
		return err
	}
	l, err := importLabel(f.Label, info.Policy, s.minted.Label, known, agreement)
	if err != nil {
		return err
	}
	signer := spkiDigest(f.Signer)
	show := a.progress(at.String(), f.SizeBytes)
	defer show.end()
	out, err := s.objects.Put(ctx, client.Upload{Name: at.name(), Label: l.Banner(), ContentType: f.MIME, Meta: map[string]string{"ztdf-signer": signer},
		SizeBytes: f.SizeBytes, Body: f.Reader(), Progress: show.at})
	if err != nil {
		return err
	}
	if out.Label == "" {
		head, err := s.objects.Head(ctx, out.Name, out.Version)
		if err != nil {
			return err
		}
		out.Label = head.Label
	}
	if !f.Whole {
		a.say("the signature covers the segments' tags alone: who has the file's key could have put other content under them")
	}
	if a.json {
		return a.print(importJSON{objectDoc(out), f.Label.Banner(), signer, f.Whole, orEmpty(f.Attributes)})
	}
	a.say("%s was %s, signed by the key %s", at, f.Label.Banner(), signer)
	_, err = fmt.Fprintf(a.out, "%s  %s  %s  version %s\n", shown(at.String()), bytesText(out.SizeBytes), out.Label, out.Version)
	return err
}

// importLabel is the label that a version gets: the originator's, in the node's policy, and at least the working label.
func importLabel(l label.Label, nodePolicy, working string, known []*label.Policy, agreement string) (label.Label, error) {
	i := slices.IndexFunc(known, func(p *label.Policy) bool { return p.Name() == nodePolicy })
	if i < 0 {
		return label.Label{}, &redoubt.Error{Kind: redoubt.Invalid, Err: fmt.Errorf("the node's policy is %s, which is not known here", nodePolicy), Hint: "name its SPIF file too: --policy FILE"}
	}
	own := known[i]
	switch from := l.Policy(); {
	case from == own && agreement != "":
		return label.Label{}, &usageError{message: "the label is of the node's own policy: no agreement converts it", hint: "leave --agreement out"}
	case from != own && agreement == "":
		return label.Label{}, &redoubt.Error{Kind: redoubt.Denied, Rule: "agreement", Err: fmt.Errorf("no agreement says what %s of %s is in %s", l.Banner(), from.Name(), own.Name()),
			Hint: "name the agreement's file: --agreement FILE"}
	case from != own:
		var err error
		if l, err = convert(l, from, own, agreement); err != nil {
			return label.Label{}, err
		}
	}
	w, err := parse(own, working)
	if err != nil {
		return label.Label{}, err
	}
	if l.Dominates(w) {
		return l, nil
	}
	if l = label.Join(l, w); l.IsZero() {
		return label.Label{}, &redoubt.Error{Kind: redoubt.Denied, Rule: ztdf.RuleLabel, Err: errors.New("the label and the working label have no join")}
	}
	return l, nil
}
