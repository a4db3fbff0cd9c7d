package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"redoubt"
	"redoubt/estate"
	"redoubt/label"
)

// completer gives what a word may become. It asks no node and needs no key: what it knows is the state's folders and,
// of an exercise, its estate.
type completer func() []string

// completions walks the tree and gives flags and arguments what completes them, by their names in the usage lines.
func (a *app) completions(root *cobra.Command) {
	fixed := func(words ...string) completer { return func() []string { return words } }
	words := map[string]completer{ // of flags, by what their usage says that they want
		"NODE": a.nodeNames, "node": a.nodeNames, "enclave": a.nodeNames, "marking": a.markings, "policy": label.BuiltinNames, "subject": a.people, "officer": a.people, "bucket": a.buckets,
	}
	flags := map[string]completer{
		"as": a.desks, "role": func() []string { return texts(redoubt.Roles()) },
		"client": fixed(slices.Sorted(maps.Keys(envForms))...), "format": fixed("ocsf", "cef", "syslog"), "outcome": fixed("allow", "deny"),
		"precedence": fixed("flash", "immediate", "priority", "routine"), "current": fixed("newest", "highest"), "etag": fixed("opaque", "md5"),
	}
	args := map[string]completer{"NODE": a.nodeNames, "DEVICE": a.deviceNames, "SUBJECT@NODE": a.desks, "MARKING": a.markings, "BUCKET": a.buckets, "SUBJECT": a.people}
	named := map[string]completer{"person": a.people, "agreement": a.agreements} // what a NAME is, by the noun
	walk(root, func(c *cobra.Command) {
		c.Flags().VisitAll(func(flag *pflag.Flag) {
			word, _ := pflag.UnquoteUsage(flag)
			f := words[word]
			if f == nil {
				f = flags[flag.Name]
			}
			if f != nil {
				_ = c.RegisterFlagCompletionFunc(flag.Name, f.flag) // fails only for a flag that is not there
			}
		})
		want := strings.Fields(c.Use)[1:]
		c.ValidArgsFunction = func(_ *cobra.Command, given []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(given) >= len(want) || strings.Contains(want[min(len(given), len(want)-1)], "--") {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			word := strings.TrimSuffix(strings.Trim(want[len(given)], "[]"), "...")
			if strings.HasPrefix(word, "s3://") {
				return begins(a.places(), typed), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
			}
			if word == "NAME" {
				return begins(named[c.Parent().Name()].now(), typed), cobra.ShellCompDirectiveNoFileComp
			}
			if f, ok := args[strings.Split(word, "|")[0]]; ok {
				return begins(f(), typed), cobra.ShellCompDirectiveNoFileComp
			}
			if fixed := strings.Split(word, "|"); len(fixed) > 1 && word == strings.ToLower(word) { // such as on|off
				return begins(fixed, typed), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveDefault // a file
		}
	})
}

// now is what it gives; of none nothing.
func (f completer) now() []string {
	if f == nil {
		return nil
	}
	return f()
}

func (f completer) flag(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	return begins(f(), typed), cobra.ShellCompDirectiveNoFileComp
}

// walk visits the commands that do something.
func walk(c *cobra.Command, visit func(*cobra.Command)) {
	if !c.HasSubCommands() {
		visit(c)
	}
	for _, sub := range c.Commands() {
		walk(sub, visit)
	}
}

func begins(words []string, typed string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(w string) bool { return !strings.HasPrefix(w, typed) })
}

// exercise is the estate of an exercise, or one that is empty.
func (a *app) exercise() *estate.Estate {
	st, err := a.state()
	if err == nil {
		if e, err := exerciseOf(st); err == nil && e != nil {
			return e
		}
	}
	return &estate.Estate{}
}

func (a *app) deviceNames() (names []string) {
	for _, n := range a.exercise().Nodes {
		if n.Kind == estate.KindDevice {
			names = append(names, string(n.Name))
		}
	}
	return names
}

func (a *app) nodeNames() []string {
	st, err := a.state()
	if err != nil {
		return nil
	}
	names, err := st.Nodes()
	if err != nil {
		return nil
	}
	return texts(names)
}

func (a *app) people() (names []string) {
	for _, p := range a.exercise().People {
		names = append(names, string(p.Name))
	}
	return names
}

// agreements are those of the exercise.
func (a *app) agreements() (names []string) {
	e := a.exercise()
	for _, n := range e.Nodes {
		for _, p := range e.Partners(n.Name) {
			names = append(names, p.Agreement.Agreement.Name)
		}
	}
	return names
}

// desks are SUBJECT@NODE: at a guard works nobody.
func (a *app) desks() (all []string) {
	nodes := slices.DeleteFunc(slices.Clone(a.exercise().Nodes), func(n estate.Node) bool { return n.Kind == estate.KindGuard })
	for _, p := range a.people() {
		for _, n := range nodes {
			all = append(all, p+"@"+string(n.Name))
		}
	}
	return all
}

func (a *app) buckets() (names []string) {
	for _, n := range a.exercise().Nodes {
		for _, b := range n.Buckets {
			names = append(names, string(b.Name))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (a *app) places() (all []string) {
	for _, b := range a.buckets() {
		all = append(all, "s3://"+b+"/")
	}
	return all
}

// markings are the bounds of the exercise's nodes, and where its people work there by default.
func (a *app) markings() (all []string) {
	e := a.exercise()
	for _, n := range e.Nodes {
		all = append(all, n.Range.Floor, n.Range.Ceiling)
		for _, p := range e.People {
			c, err := e.MarkingPolicy().Clearance(p.Clearance, p.Nation)
			if err != nil {
				continue
			}
			if l := label.Meet(c, n.Ceiling()); l.Dominates(n.Floor()) && l.Rank() > n.Floor().Rank() {
				all = append(all, l.Banner())
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
