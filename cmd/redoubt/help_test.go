package main

import (
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// words splits a line as a shell does, up to what ends a command.
func words(line string) (out []string) {
	var word strings.Builder
	var quote rune
	started := false
	end := func() {
		if started {
			out = append(out, word.String())
		}
		word.Reset()
		started = false
	}
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, started = r, true
		case r == ' ':
			end()
		case strings.ContainsRune("|>)&#", r):
			end()
			return out
		default:
			word.WriteRune(r)
			started = true
		}
	}
	end()
	return out
}

var calls = regexp.MustCompile(`(?:^|[ (])redoubt `)

// examples gives every command with a line of its help that calls redoubt, from there on.
func examples(c *cobra.Command, each func(c *cobra.Command, args []string)) {
	for _, line := range strings.Split(strings.ReplaceAll(c.Example, "\\\n", ""), "\n") {
		for _, at := range calls.FindAllStringIndex(line, -1) {
			each(c, words(line[at[1]:]))
		}
	}
	for _, sub := range c.Commands() {
		examples(sub, each)
	}
}

func TestExamplesAreTrueAsTyped(t *testing.T) {
	a := &app{self: "redoubt", out: io.Discard, err: io.Discard}
	with := map[*cobra.Command]bool{}
	examples(a.root(), func(of *cobra.Command, args []string) {
		with[of] = true
		c, rest, err := a.root().Find(args) // a tree of its own: flags keep what they were given
		if err == nil {
			c.InitDefaultHelpFlag()
			err = c.ParseFlags(rest)
		}
		if err == nil {
			err = c.ValidateArgs(c.Flags().Args())
		}
		if err == nil && c.PreRunE != nil {
			err = c.PreRunE(c, c.Flags().Args())
		}
		if err != nil || c.HasSubCommands() || c.RunE == nil {
			t.Errorf("the help of %q has: redoubt %q: %v", of.CommandPath(), args, err)
		}
	})
	walk(a.root(), func(c *cobra.Command) {
		if c.Short == "" || c.Example == "" {
			t.Errorf("%q has no example", c.CommandPath())
		}
	})
	if len(with) < 40 {
		t.Errorf("only %d commands have an example", len(with))
	}
}

func TestHelpFitsItsTerminal(t *testing.T) {
	a := &app{self: "redoubt", out: io.Discard, err: io.Discard}
	walk(a.root(), func(c *cobra.Command) {
		for _, line := range strings.Split(c.Long, "\n") {
			if n := len([]rune(line)); n > 125 {
				t.Errorf("%q: a line of its help has %d columns", c.CommandPath(), n)
			}
		}
		if u := c.Flags().FlagUsages(); strings.Contains(u, " string ") || strings.Contains(u, " strings ") {
			t.Errorf("%q: a flag does not say what it wants:\n%s", c.CommandPath(), u)
		}
	})
}
