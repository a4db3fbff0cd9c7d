package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/label"
)

func (a *app) labelToXML() *cobra.Command {
	var name, created string
	var alternative bool
	c := &cobra.Command{Use: "to-xml MARKING", Short: "Write a marking as a STANAG 4774 confidentiality label",
		Example: `  redoubt label to-xml "SECRET//REL TO USA, GBR" > label.xml
  redoubt label to-xml --policy GBR --alternative "SECRET//REL TO GBR, USA"`,
		Args: exactly(1), RunE: func(cmd *cobra.Command, args []string) error {
			p, err := policy(name)
			if err != nil {
				return err
			}
			l, err := parse(p, args[0])
			if err != nil {
				return err
			}
			when := time.Now().UTC().Truncate(time.Second)
			if created != "" {
				if when, err = time.Parse(time.RFC3339, created); err != nil {
					return usage(cmd, "--created wants a time such as 2031-12-31T18:00:00Z")
				}
			}
			kind := label.Originator4774
			if alternative {
				kind = label.Alternative4774
			}
			xml, err := l.To4774(label.Options4774{Kind: kind, Created: when})
			if err != nil {
				return &redoubt.Error{Kind: redoubt.Invalid, Err: err}
			}
			_, err = fmt.Fprintf(a.out, "%s\n", xml)
			return err
		}}
	policyFlag(c, &name)
	c.Flags().BoolVar(&alternative, "alternative", false, "write it as an alternative label: what a partner's version has as redoubt-originator-label")
	c.Flags().StringVar(&created, "created", "", "`time` of creation, RFC 3339; default now")
	return c
}

func (a *app) labelFromXML() *cobra.Command {
	var names []string
	c := &cobra.Command{Use: "from-xml [FILE]", Short: "Read a STANAG 4774 confidentiality label, strictly",
		Example: `  redoubt label from-xml label.xml
  redoubt label to-xml SECRET | redoubt label from-xml --json`,
		Args: between(0, 1), RunE: func(_ *cobra.Command, args []string) error {
			var known []*label.Policy
			for _, n := range names {
				p, err := policy(n)
				if err != nil {
					return err
				}
				known = append(known, p)
			}
			in := a.in
			if len(args) == 1 && args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return &redoubt.Error{Object: args[0], Kind: redoubt.NotFound, Err: err}
				}
				defer f.Close()
				in = f
			}
			l, _, err := label.Read4774(io.Reader(in), known...)
			if err != nil {
				return &redoubt.Error{Kind: redoubt.Invalid, Err: err, Hint: "a label of another policy needs that policy: --policy FILE"}
			}
			if a.json {
				return a.print(describe(l.Policy(), l))
			}
			_, err = fmt.Fprintln(a.out, l.Banner())
			return err
		}}
	c.Flags().StringArrayVar(&names, "policy", nil, "a `policy` to know, a name or a SPIF file; default: every built-in one")
	return a.jsonFlag(c)
}
