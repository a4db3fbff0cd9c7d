package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/carry/diode"
)

func (a *app) diodeCommand() *cobra.Command {
	c := &cobra.Command{Use: "diode", Short: "Send bundles one way, as datagrams of which some may be lost",
		Long: `Carries bundles over a road that nothing comes back on. The sender paces datagrams with parity across them and knows nothing
of what arrives; the receiver puts whole files together and tells what is missing to its own operator only. Both handle sealed
files and hold no node's key. That nothing comes back is for hardware to see to: these commands only do not need it.`,
		Example: `  redoubt bundle export --from secret --for outpost --to out/1.rbundle
  redoubt diode receive --listen 10.0.9.2:4790 --to in --import --at outpost     # at the far side
  redoubt diode send out --to 10.0.9.2:4790 --rate 10Mbit
  redoubt diode status in`}
	c.AddCommand(a.diodeSend(), a.diodeReceive(), a.diodeStatus(), a.diodeKey())
	return c
}

func (a *app) diodeStatus() *cobra.Command {
	return a.jsonFlag(&cobra.Command{Use: "status DIR", Short: "Which bundles are whole, on their way and missing in a folder that is received into",
		Long: `Tells by the numbers of the bundles what came: also of files that were imported and moved away, and while a receiver runs.
What is missing is sent again when somebody at the sending side says so; nothing here asks for it.`,
		Example: "  redoubt diode status in\n  redoubt diode status in --json", Args: exactly(1),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := diode.Status(args[0])
			if err != nil {
				return err
			}
			if a.json {
				r.Numberings, r.Partial = append([]diode.Numbering{}, r.Numberings...), append([]diode.Partial{}, r.Partial...)
				return a.print(r)
			}
			_, err = fmt.Fprint(a.out, statusText(r))
			return err
		}})
}

func statusText(r diode.Report) string {
	var out strings.Builder
	again := false
	for _, n := range r.Numberings {
		ended := ""
		if n.Ended {
			ended = ", ended: a later numbering has begun"
		}
		fmt.Fprintf(&out, "%s for %s, numbering %s%s\n", n.Maker, n.For, n.Numbering[:8], ended)
		fmt.Fprintf(&out, "  whole    %s\n", dash(diode.SpanText(n.Whole)))
		fmt.Fprintf(&out, "  missing  %s\n", dash(diode.SpanText(n.Missing)))
		again = again || len(n.Missing) > 0 && !n.Ended
	}
	for _, p := range r.Partial {
		fmt.Fprintf(&out, "%s\n  %.1f %%, %d datagrams lacking at least; of %d blocks missing: %s\n", partialName(p), p.Percent, p.Shards, p.Blocks, dash(diode.SpanText(p.MissingBlocks)))
		again = true
	}
	if len(r.Numberings) == 0 && len(r.Partial) == 0 {
		return "no bundle has come\n"
	}
	if again {
		out.WriteString("what is missing is sent again by who is at the other side: redoubt diode send DIR --only NUMBERS\n")
	}
	return out.String()
}

func partialName(p diode.Partial) string {
	if p.Kind == "receipt" {
		return fmt.Sprintf("receipt of %s for %s", p.Maker, p.For)
	}
	return fmt.Sprintf("bundle %d of %s for %s", p.Number, p.Maker, p.For)
}

func (a *app) diodeKey() *cobra.Command {
	return &cobra.Command{Use: "key FILE", Short: "Make the key that both sides of a diode share",
		Long: `Makes a file to be carried to the other side. With it the receiver drops whatever somebody between the two makes up. It opens
nothing and signs nothing: whoever has it can hold up a transfer, and no more.`,
		Example: "  redoubt diode key diode.key", Args: exactly(1),
		RunE: func(_ *cobra.Command, args []string) error {
			key := make([]byte, diode.KeyBytes)
			rand.Read(key)
			return newFile(args[0], []byte(base64.StdEncoding.EncodeToString(key)+"\n"))
		}}
}

// diodeKeyFile reads the shared key; no name, no key.
func diodeKeyFile(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	hint := "redoubt diode key FILE makes one"
	st, err := os.Stat(path)
	if err != nil {
		return nil, &redoubt.Error{Object: path, Kind: redoubt.NotFound, Err: errors.New("no key file there"), Hint: hint}
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, &redoubt.Error{Object: path, Kind: redoubt.Denied, Rule: "key-file-mode", Err: fmt.Errorf("mode %v lets others read the key", st.Mode().Perm()), Hint: "chmod 600 " + path}
	}
	text, err := readLimited(path, maxKeyFileBytes)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSuffix(string(text), "\n"))
	if err != nil || len(key) != diode.KeyBytes {
		return nil, &redoubt.Error{Object: path, Kind: redoubt.Invalid, Err: errors.New("is not a diode's key"), Hint: hint}
	}
	return key, nil
}

// line prints v as one JSON document on one line: a command that goes on prints one for each bundle.
func (a *app) line(v any) error {
	e := json.NewEncoder(jsonWriter{a.out}) // which writes a document at once
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
