package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/keys"
	"redoubt/node"
)

func (a *app) keyCommand() *cobra.Command {
	c := &cobra.Command{Use: "key", Short: "Keys of labels, erasure, backup recipients, the passphrase and the TPM",
		Long: `Every label has keys of its own. Rotating begins a new epoch and destroys the old ones; erasing a version destroys
its key, record and copies. Erasing all of a label or a bucket takes two officers.`,
		Example: `  redoubt key list --at secret --as officer
  redoubt key rotate SECRET --as officer@secret
  redoubt key erase s3://reports/spill.txt --version ID --reason "spill 7" --as officer@secret`}
	c.AddCommand(a.keyList(), a.keyRotate(), a.keyErase(), a.keyEraseAll(), a.keyApprove(), a.keyRecipient(), a.keyPasswd(), a.keySeal())
	return c
}

func (a *app) keyList() *cobra.Command {
	w := crew{role: "officer"}
	c := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "The keys of every label that the officer dominates", Example: "  redoubt key list --json --as officer@secret", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			type at struct {
				Node redoubt.NodeName    `json:"node"`
				Keys []redoubt.KeyStatus `json:"keys"`
			}
			all := []at{}
			err := a.each(cmd.Context(), w, func(s *session) error {
				k, err := s.api.Keys(cmd.Context())
				all = append(all, at{s.node, k})
				return err
			})
			if err != nil {
				return err
			}
			if a.json {
				return a.print(map[string]any{"nodes": all})
			}
			t := a.table("NODE", "LABEL", "EPOCH", "VERSIONS", "SIZE")
			for _, n := range all {
				for _, k := range n.Keys {
					t.row(string(n.Node), k.Label, fmt.Sprint(k.Epoch), fmt.Sprint(k.Versions), bytesText(k.Bytes))
				}
			}
			return t.flush()
		}}
	w.flags(c)
	return a.jsonFlag(c)
}

func (a *app) keyRotate() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "rotate MARKING --as OFFICER@NODE", Short: "Begin a new epoch of a label's key, re-wrap everything and destroy the old epochs",
		Example: "  redoubt key rotate SECRET --as officer@secret", Args: exactly(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			k, err := s.api.RotateKey(ctx, args[0])
			if err != nil {
				return err
			}
			if a.json {
				return a.print(k)
			}
			_, err = fmt.Fprintf(a.out, "%s  epoch %d  %d versions re-wrapped\n", k.Label, k.Epoch, k.Versions)
			return err
		})}
	w.flags(c)
	return a.jsonFlag(c)
}

func (a *app) keyErase() *cobra.Command {
	var w who
	var version, reason string
	c := &cobra.Command{Use: "erase s3://BUCKET/KEY --version ID --as OFFICER@NODE", Short: "Destroy one version for good, retention notwithstanding",
		Example: `  redoubt key erase s3://reports/spill.txt --version ID --reason "spill 7" --as officer@secret`, Args: exactly(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			p, err := parsePlace(args[0])
			if err != nil {
				return err
			}
			if err := s.api.EraseVersion(ctx, p.name(), redoubt.VersionID(version), reason); err != nil {
				return err
			}
			a.say("%s version %s is destroyed at %s", p, version, s.node)
			if a.json {
				return a.print(map[string]string{"bucket": string(p.bucket), "key": p.key, "version": version})
			}
			return nil
		})}
	w.flags(c)
	c.Flags().StringVar(&version, "version", "", "`ID` of the version (redoubt versions)")
	c.Flags().StringVar(&reason, "reason", "", "why, a `text`; it stays in the records")
	required(c, "version", "reason")
	return a.jsonFlag(c)
}

func (a *app) keyEraseAll() *cobra.Command {
	var w crew
	var marking, bucket, reason string
	c := &cobra.Command{Use: "erase-all --label-key MARKING | --bucket BUCKET --at NODE --as OFFICER", Short: "Propose to destroy everything under a label or in a bucket; another officer approves",
		Example: `  redoubt key erase-all --label-key SECRET --at secret --reason "end of exercise" --as officer
  redoubt key approve ID --as officer-2`, Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (marking == "") == (bucket == "") {
				return usage(cmd, "name --label-key or --bucket")
			}
			t, err := a.muster(w)
			if err != nil {
				return err
			}
			if len(t.nodes) != 1 {
				return usage(cmd, "name the one node: --at NODE")
			}
			change := redoubt.Change{Kind: redoubt.ChangeEraseLabel, Node: t.nodes[0], Label: marking, Reason: reason}
			if bucket != "" {
				change = redoubt.Change{Kind: redoubt.ChangeEraseBucket, Node: t.nodes[0], Bucket: redoubt.BucketName(bucket), Reason: reason}
			}
			return a.propose(cmd.Context(), w, change)
		}}
	w.flags(c)
	c.Flags().StringVar(&marking, "label-key", "", "`marking` whose key is destroyed")
	c.Flags().StringVar(&bucket, "bucket", "", "`bucket` that is destroyed")
	c.Flags().StringVar(&reason, "reason", "", "why, a `text`; it stays in the records")
	required(c, "reason")
	return a.jsonFlag(c)
}

func (a *app) keyApprove() *cobra.Command {
	var w crew
	c := &cobra.Command{Use: "approve ID --as OFFICER", Short: "Sign a proposed erasure as the second officer", Example: "  redoubt key approve 3f9a --as officer-2", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.approve(cmd.Context(), w, args[0]) }}
	w.flags(c)
	return a.jsonFlag(c)
}

func (a *app) keyRecipient() *cobra.Command {
	return a.jsonFlag(&cobra.Command{Use: "recipient FILE", Short: "Make a key pair for backups: the private half in FILE, the public half printed",
		Long:    "Makes a post-quantum key pair (ML-KEM-1024 with P-384). Keep FILE away from the nodes: whoever has it opens\nevery backup that was sealed to it. When FILE is there, its public half is printed.",
		Example: "  redoubt key recipient backup.identity > backup.recipient", Args: exactly(1),
		RunE: func(_ *cobra.Command, args []string) error {
			id, err := readIdentity(args[0])
			if errors.Is(err, os.ErrNotExist) {
				if id, err = keys.NewIdentity(); err != nil {
					return err
				}
				secret, err := id.Secret()
				if err != nil {
					return err
				}
				defer clear(secret)
				if err := newFile(args[0], append(secret, '\n')); err != nil {
					return err
				}
			} else if err != nil {
				return err
			}
			if a.json {
				return a.print(map[string]string{"recipient": id.Recipient().String(), "file": args[0]})
			}
			_, err = fmt.Fprintln(a.out, id.Recipient())
			return err
		}})
}

// readIdentity reads the private half of a backup's recipient.
func readIdentity(path string) (*keys.Identity, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, &redoubt.Error{Object: path, Kind: redoubt.Denied, Rule: "key-file-mode", Err: fmt.Errorf("mode %v lets others read the key", st.Mode().Perm()), Hint: "chmod 600 " + path}
	}
	line, err := passphraseFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(line)
	return keys.ParseIdentity(line)
}

func (a *app) keyPasswd() *cobra.Command {
	var h holder
	var newKeyFile, newPassFile string
	c := &cobra.Command{Use: "passwd NODE", Short: "Change the passphrase or key file that opens a stopped node's keyring",
		Long: `Draws a new root key and has the new passphrase or key file hold it; the old one no longer opens the keyring. Nothing
else is written anew. What a TPM kept of an earlier seal is destroyed. The node must be down.`,
		Example: `  redoubt key passwd secret --new-passphrase-file /run/new --state /var/lib/redoubt
  redoubt key passwd secret --new-key-file /media/token/secret.key`, Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			st, err := a.state()
			if err != nil {
				return err
			}
			var now, next keys.Unlock
			if h.keyFile != "" || !st.HasExercise() {
				if now, err = a.opening(st, redoubt.NodeName(args[0]), h); err != nil {
					return err
				}
			}
			switch {
			case newKeyFile != "":
				next = keys.KeyFile(newKeyFile)
			case newPassFile != "":
				next = keys.Passphrase(func() ([]byte, error) { return passphraseFile(newPassFile) })
			default:
				next = keys.Passphrase(func() ([]byte, error) { return a.askTwice("New passphrase", "--new-passphrase-file FILE") })
			}
			if err := node.ChangeUnlock(st, redoubt.NodeName(args[0]), now, next); err != nil {
				return err
			}
			a.say("the keyring of %s opens by the new one only", args[0])
			return nil
		}}
	h.openFlags(c)
	c.Flags().StringVar(&newKeyFile, "new-key-file", "", "key `file` that opens it from now on; made when it is not there")
	c.Flags().StringVar(&newPassFile, "new-passphrase-file", "", "`file` with the new passphrase; default: asked for twice")
	return c
}
