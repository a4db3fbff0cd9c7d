package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/keys"
	"redoubt/node"
)

func (a *app) fsckCommand() *cobra.Command {
	w := crew{role: "admin"}
	var h holder
	c := &cobra.Command{Use: "fsck NODE", Short: "Read everything of a node back and say what does not verify",
		Long: `Has a running node open every record and every version. Of a node that is down it reads the store itself, for which
its passphrase or key file is needed (as for serve). It shows no name.`,
		Example: "  redoubt fsck secret --as admin", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			st, err := a.state()
			if err != nil {
				return err
			}
			name := redoubt.NodeName(args[0])
			r, err := st.Runtime(name)
			if err != nil {
				return err
			}
			var report redoubt.CheckReport
			if r.State == node.Ready {
				w.at = []string{args[0]}
				report, err = a.checkRunning(cmd.Context(), w)
			} else {
				report, err = a.checkStopped(cmd.Context(), st, name, h)
			}
			if err != nil {
				return err
			}
			if a.json {
				err = a.print(report)
			} else {
				for _, f := range report.Faults {
					fmt.Fprintln(a.out, f)
				}
				_, err = fmt.Fprintf(a.out, "%s: %s\n", name, counted(len(report.Faults), "fault"))
			}
			if err == nil && !report.OK {
				a.tell("the store of "+args[0]+" does not verify", "redoubt restore from the last backup, into a fresh state")
				return exitError(exitFailed)
			}
			return err
		}}
	w.flags(c)
	h.openFlags(c)
	return a.jsonFlag(c)
}

func (a *app) checkRunning(ctx context.Context, w crew) (report redoubt.CheckReport, err error) {
	err = a.each(ctx, w, func(s *session) error {
		began := time.Now()
		report, err = s.api.Check(ctx, func(done, total int64) {
			if total > 0 && time.Since(began) > progressAfter {
				a.say("%d of %d versions", done, total)
				began = time.Now()
			}
		})
		return err
	})
	return report, err
}

func (a *app) checkStopped(ctx context.Context, st node.State, name redoubt.NodeName, h holder) (redoubt.CheckReport, error) {
	report := redoubt.CheckReport{Node: name, Faults: []string{}}
	var unlock keys.Unlock
	if h.keyFile != "" || !st.HasExercise() {
		var err error
		if unlock, err = a.opening(st, name, h); err != nil {
			return report, err
		}
	}
	n, err := node.Check(ctx, st, name, unlock, func(fault string) { report.Faults = append(report.Faults, fault) })
	report.OK = n == 0
	return report, err
}

func (a *app) backupCommand() *cobra.Command {
	w := crew{role: "admin", life: bulkLife}
	var at, to, recipient string
	c := &cobra.Command{Use: "backup --at NODE --to FILE --recipient FILE|KEY", Short: "Write a whole enclave, from one moment and sealed to a recipient",
		Long: `Writes everything that the node holds, keys included, from one moment while it serves. It is sealed to a recipient
(redoubt key recipient): the administrator who makes it opens nothing by it.`,
		Example: `  redoubt key recipient backup.identity > backup.recipient
  redoubt backup --at secret --to secret.backup --recipient backup.recipient --as admin`, Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, err := recipientText(recipient)
			if err != nil {
				return err
			}
			w.at = []string{at}
			err = a.each(cmd.Context(), w, func(s *session) error {
				return writeStream(to, func(w io.Writer) error { return s.api.Backup(cmd.Context(), key, w) })
			})
			if err != nil {
				return err
			}
			st, err := os.Stat(to)
			if err != nil {
				return err
			}
			if a.json {
				return a.print(map[string]any{"node": at, "file": to, "size_bytes": st.Size()})
			}
			a.say("%s is in %s, %s", at, to, bytesText(st.Size()))
			return nil
		}}
	c.Flags().StringVar(&at, "at", "", "`NODE` to back up")
	c.Flags().StringVar(&to, "to", "", "`file` to write")
	c.Flags().StringVar(&recipient, "recipient", "", "public `key` to seal to, or a file with it")
	w.asFlags(c)
	required(c, "at", "to", "recipient")
	return a.jsonFlag(c)
}

const maxRecipientFileBytes = 16 << 10 // a recipient has 2.3 KiB

// recipientText is a public key as it stands, or from a file.
func recipientText(s string) (string, error) {
	if _, err := keys.ParseRecipient(s); err == nil {
		return s, nil
	}
	data, err := readLimited(s, maxRecipientFileBytes)
	line := strings.TrimSpace(string(data))
	if err == nil {
		_, err = keys.ParseRecipient(line)
	}
	if err != nil {
		return "", &redoubt.Error{Object: s, Kind: redoubt.Invalid, Err: errors.New("is no recipient"), Hint: "redoubt key recipient FILE makes a key pair and prints the recipient"}
	}
	return line, nil
}

func (a *app) restoreCommand() *cobra.Command {
	var identity, name string
	var h holder
	c := &cobra.Command{Use: "restore FILE --node NODE --identity FILE", Short: "Make a node of a state out of a backup",
		Long: `Makes a node's folder out of a backup, with the identity that it was sealed to. Nothing is left when it fails. The
keyring is held by a new passphrase, key file or TPM from then on; in the state of an exercise by a key file there. Start
the node with the estate afterwards.`,
		Example: `  redoubt restore secret.backup --node secret --identity backup.identity --state NEWDIR
  redoubt up estate.yaml --state NEWDIR`, Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := readIdentity(identity)
			if err != nil {
				return &redoubt.Error{Object: identity, Kind: redoubt.KindOf(err), Err: err, Hint: "name the file that redoubt key recipient made"}
			}
			in, err := os.Open(args[0])
			if err != nil {
				return &redoubt.Error{Object: args[0], Kind: redoubt.NotFound, Err: errors.Unwrap(err), Hint: "name a file that redoubt backup wrote"}
			}
			defer in.Close()
			st, release, err := a.lockState()
			if err != nil {
				return err
			}
			defer release()
			var unlock keys.Unlock
			if h.keyFile != "" || h.tpm != "" || !st.HasExercise() {
				if unlock, err = a.making(h, "New passphrase of node "+name); err != nil {
					return err
				}
			}
			info, err := in.Stat()
			if err != nil {
				return err
			}
			show := a.progress("restoring "+name, info.Size())
			err = node.Restore(cmd.Context(), st, redoubt.NodeName(name), id, &counting{r: in, p: show}, unlock)
			show.end()
			if err != nil {
				return interrupted(cmd.Context(), err)
			}
			a.say("%s is restored into %s; start it with its estate: redoubt up", name, st.Dir())
			return nil
		}}
	c.Flags().StringVar(&identity, "identity", "", "private key `file` that redoubt key recipient made")
	c.Flags().StringVar(&name, "node", "", "`NODE` to make")
	h.makeFlags(c)
	required(c, "identity", "node")
	return c
}
