package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/estate"
	"redoubt/guard"
	"redoubt/guard/filter"
)

func (a *app) estateCommand() *cobra.Command {
	c := &cobra.Command{Use: "estate", Short: "Check, sign and plan the file that declares an estate",
		Example: `  redoubt estate show example > estate.yaml
  redoubt estate check estate.yaml
  redoubt estate sign estate.yaml --as officer --key officer.key`}
	c.AddCommand(a.estateCheck(), a.estatePlan(), a.estateShow(), a.estateSign())
	return c
}

// loadEstate reads an estate file; "example" is the built-in one.
func loadEstate(path string) (*estate.Estate, error) {
	if path == "example" {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return estate.Example(), nil
		}
	}
	return estate.Load(path)
}

// faultsOf tells an estate's faults, a line each with the file's name, and ends the command.
func (a *app) faultsOf(path string, err error) error {
	var faults estate.Faults
	if !errors.As(err, &faults) {
		return err
	}
	if a.json {
		if err := a.print(map[string]any{"ok": false, "faults": faults}); err != nil {
			return err
		}
		return exitError(exitFailed)
	}
	for _, f := range faults {
		fmt.Fprintf(a.out, "%s:%s\n", path, f)
		if f.Hint != "" {
			fmt.Fprintf(a.out, "    hint: %s\n", f.Hint)
		}
	}
	a.tell(fmt.Sprintf("%s has %s", path, counted(len(faults), "fault")), "correct them, then: redoubt estate check "+path)
	return exitError(exitFailed)
}

func (a *app) estateCheck() *cobra.Command {
	return a.jsonFlag(&cobra.Command{Use: "check FILE", Short: "Read an estate strictly and say every fault with its line",
		Example: "  redoubt estate check estate.yaml --json",
		Args:    exactly(1), RunE: func(_ *cobra.Command, args []string) error {
			e, err := loadEstate(args[0])
			if err == nil {
				err = releaseFaults(e)
			}
			if err != nil {
				return a.faultsOf(args[0], err)
			}
			signed, why := "signed by two officers", error(nil)
			if sigs, err := readSignatures(args[0]); err != nil {
				return err
			} else if why = estate.Verify(e, nil, sigs); why != nil {
				signed = "not yet in order to take effect: " + errors.Unwrap(why).Error()
			}
			if e.Exercise {
				signed = "an exercise: its officers' keys are made and used by redoubt up"
			}
			if a.json {
				return a.print(map[string]any{"ok": true, "faults": []string{}, "digest": e.Digest(), "signed": why == nil, "exercise": e.Exercise})
			}
			_, err = fmt.Fprintf(a.out, "%s is a good estate: %d nodes, %d people; %s\n", args[0], len(e.Nodes), len(e.People), signed)
			return err
		}})
}

// releaseFaults has the guards' own readers read what releases are held to: with what they do not take, nothing would leave. It is an error of
// estate.Faults.
func releaseFaults(e *estate.Estate) error {
	var faults estate.Faults
	for _, n := range e.Nodes {
		if n.Guard == nil || n.Guard.Release == nil {
			continue
		}
		at, rules := string(n.Name)+".release.", n.Guard.Release
		for _, typ := range slices.Sorted(maps.Keys(rules.Schemas)) {
			if err := filter.CheckSchema(typ, []byte(rules.Schemas[typ])); err != nil {
				faults = append(faults, estate.Fault{Path: at + "schemas[" + typ + "]", Message: err.Error(), Hint: "docs/filters.md says what a schema may have"})
			}
		}
		if _, err := guard.NewWords(rules.Words, e.MarkingPolicy()); err != nil {
			faults = append(faults, estate.Fault{Path: at + "words", Message: plain(err)})
		}
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

func (a *app) estatePlan() *cobra.Command {
	return a.jsonFlag(&cobra.Command{Use: "plan FILE", Short: "What `up` would change in the state",
		Long: `Compares the file with the exercise that the state holds and says each step that up would take. A state
that holds a real estate is sealed node by node; there the node itself compares when it starts.`,
		Example: "  redoubt estate plan estate.yaml",
		Args:    exactly(1), RunE: func(_ *cobra.Command, args []string) error {
			e, err := loadEstate(args[0])
			if err != nil {
				return a.faultsOf(args[0], err)
			}
			var was *estate.Estate
			if st, err := a.state(); err == nil && st.HasExercise() {
				if was, _, err = st.ExerciseEstate(); err != nil {
					return err
				}
			} else if err != nil && !errors.Is(err, redoubt.NotFound) {
				return err
			}
			steps := estate.Plan(was, e)
			refused := false
			for _, s := range steps {
				refused = refused || s.Do == "refuse"
			}
			if a.json {
				if steps == nil {
					steps = []estate.Step{}
				}
				err = a.print(map[string]any{"steps": steps, "refused": refused})
			} else {
				for _, s := range steps {
					line := s.String()
					if s.Restart {
						line += " [at restart]"
					}
					fmt.Fprintln(a.out, line)
				}
				if len(steps) == 0 {
					a.say("nothing would change")
				}
			}
			if err == nil && refused {
				a.tell("a step that reads refuse cannot be done by a file", "redoubt up ESTATE.yaml --state NEWDIR begins a new state")
				return exitError(exitRefused)
			}
			return err
		}})
}

func (a *app) estateShow() *cobra.Command {
	return a.jsonFlag(&cobra.Command{Use: "show [FILE]", Short: "Print an estate: a file, `example`, or what the state holds",
		Example: `  redoubt estate show example > estate.yaml
  redoubt estate show --json`,
		Args: between(0, 1), RunE: func(_ *cobra.Command, args []string) error {
			var e *estate.Estate
			var err error
			if len(args) == 1 {
				if e, err = loadEstate(args[0]); err != nil {
					return a.faultsOf(args[0], err)
				}
			} else {
				st, err := a.state()
				if err != nil {
					return err
				}
				if e, _, err = st.ExerciseEstate(); err != nil {
					return err
				}
			}
			if a.json {
				return a.print(e)
			}
			_, err = a.out.Write(e.Document().Text)
			return err
		}})
}

func (a *app) estateSign() *cobra.Command {
	var as, keyFile string
	c := &cobra.Command{Use: "sign FILE --as OFFICER --key KEYFILE", Short: "Sign an estate as one of its security officers, into FILE.sig",
		Long: `Signs the digest of what the file declares; comments and layout do not count. An estate takes effect with
the signatures of two different officers: at first its own, later those of the estate in force.`,
		Example: `  redoubt estate sign estate.yaml --as officer --key officer.key
  redoubt estate sign estate.yaml --as officer-2 --key officer-2.key`,
		Args: exactly(1), RunE: func(_ *cobra.Command, args []string) error {
			e, err := estate.Load(args[0])
			if err != nil {
				return a.faultsOf(args[0], err)
			}
			key, err := readKey(keyFile)
			if err != nil {
				return err
			}
			defer clear(key)
			sigs, err := readSignatures(args[0])
			if err != nil {
				return err
			}
			if sigs, err = estate.Sign(e, sigs, redoubt.SubjectName(as), key); err != nil {
				return err
			}
			data, err := json.MarshalIndent(sigs, "", "  ")
			if err != nil {
				return err
			}
			if err := replaceFile(args[0]+".sig", append(data, '\n'), 0o644); err != nil {
				return err
			}
			if err := estate.Verify(e, nil, sigs); err != nil {
				a.say("%s has signed; %v", as, errors.Unwrap(err))
				return nil
			}
			a.say("%s has signed; two officers have, so the estate may take effect", as)
			return nil
		}}
	c.Flags().StringVar(&as, "as", "", "security `officer` of the estate")
	c.Flags().StringVar(&keyFile, "key", "", "the officer's private key `file`")
	required(c, "as", "key")
	return c
}

// readSignatures reads FILE.sig; none there is no error.
func readSignatures(path string) (estate.Signatures, error) {
	data, err := readLimited(path+".sig", estate.MaxSignatureFileBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return estate.Signatures{}, nil
	}
	if err != nil {
		return estate.Signatures{}, err
	}
	return estate.ReadSignatures(data)
}
