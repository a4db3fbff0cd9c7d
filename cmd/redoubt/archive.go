package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"redoubt"
	"redoubt/audit"
	"redoubt/keys"
)

func (a *app) auditArchive() *cobra.Command {
	w := who{life: bulkLife}
	var before, to, recipient, confirm string
	var keep time.Duration
	c := &cobra.Command{Use: "archive --as OFFICER@NODE {--keep DURATION --to FILE --recipient KEY | --confirm FILE}", Short: "Move old entries of a node's log into a signed, sealed file, in two steps",
		Long: `Writes the entries that are older than --before or --keep say to a file: whole tiles of 256 entries, signed by
the node's log and sealed to a recipient (redoubt key recipient). The log keeps all of them. Copy the file to where
it is to stay, have audit verify --archive read the copy there, and then --confirm the copy: only now does the log
let go of what is in it, and has its SHA-256 on record. What is confirmed is the file that was written last, byte
for byte. It takes a security officer at the node's ceiling; the estate may say how long the log is kept at least
(audit: {keep: 720h}).`,
		Example: `  redoubt key recipient archive.identity > archive.recipient
  redoubt audit archive --keep 2160h --to q1.archive --recipient archive.recipient --as officer@secret
  redoubt audit verify --archive /media/vault/q1.archive --identity archive.identity --node secret --as officer
  redoubt audit archive --confirm /media/vault/q1.archive --as officer@secret`, Args: exactly(0)}
	c.RunE = a.withSession(&w, func(ctx context.Context, s *session, _ []string) error {
		switch writes := to != "" || recipient != "" || before != "" || c.Flags().Changed("keep"); {
		case confirm != "" && writes:
			return usage(c, "--confirm stands alone: it names what was written before")
		case confirm != "":
			return a.confirmArchive(ctx, s, confirm)
		case to == "" || recipient == "" || (before == "") != c.Flags().Changed("keep"):
			return usage(c, "name --to, --recipient, and one of --before and --keep; or --confirm")
		}
		limit := time.Now().Add(-keep)
		if before != "" {
			var err error
			if limit, err = date(c, before); err != nil {
				return err
			}
		}
		return a.writeArchive(ctx, s, limit, to, recipient)
	})
	w.flags(c)
	c.Flags().StringVar(&before, "before", "", "archive what is older than this `date` (2031-12-31) or time (RFC 3339)")
	c.Flags().DurationVar(&keep, "keep", 0, "archive what is older than this `duration`, such as 2160h")
	c.Flags().StringVar(&to, "to", "", "`file` to write")
	c.Flags().StringVar(&recipient, "recipient", "", "public `key` to seal to, or a file with it")
	c.Flags().StringVar(&confirm, "confirm", "", "the `file` that is durable now, or its SHA-256: the log lets go of what is in it")
	return a.jsonFlag(c)
}

// date is a day, from its beginning in UTC, or a time.
func date(c *cobra.Command, s string) (time.Time, error) {
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, usage(c, s+" is neither a date such as 2031-12-31 nor a time such as 2031-12-31T18:00:00Z")
	}
	return t, nil
}

func (a *app) writeArchive(ctx context.Context, s *session, before time.Time, to, recipient string) error {
	key, err := recipientText(recipient)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(to); err == nil {
		return &redoubt.Error{Object: to, Kind: redoubt.Exists, Hint: "name a new file: an archive that is not confirmed may be the only one"}
	}
	if err := writeStream(to, func(w io.Writer) error { return s.api.ArchiveAudit(ctx, before, key, w) }); err != nil {
		return err
	}
	digest, size, err := settledDigest(to)
	if err != nil {
		return err
	}
	if a.json {
		return a.print(map[string]any{"node": s.node, "file": to, "sha256": digest, "size_bytes": size})
	}
	a.say("%s holds what was old in the log of %s, %s; the log still has all of it", to, s.node, bytesText(size))
	a.say("when the file is where it is to stay: redoubt audit archive --confirm %s --as %s@%s", to, s.subject, s.node)
	_, err = fmt.Fprintln(a.out, digest)
	return err
}

// settledDigest makes a file durable where it lies, and gives the SHA-256 of what it reads back.
func settledDigest(path string) (digest string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, &redoubt.Error{Object: path, Kind: redoubt.NotFound, Err: errors.Unwrap(err), Hint: "name the file that audit archive wrote, or its SHA-256"}
	}
	defer f.Close()
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", 0, err
	}
	defer dir.Close()
	sum := sha256.New()
	if err := errors.Join(f.Sync(), dir.Sync()); err != nil {
		return "", 0, err
	}
	if size, err = io.Copy(sum, f); err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(sum.Sum(nil)), size, nil
}

func (a *app) confirmArchive(ctx context.Context, s *session, confirm string) error {
	digest := strings.ToLower(confirm)
	if raw, err := hex.DecodeString(digest); err != nil || len(raw) != sha256.Size {
		if digest, _, err = settledDigest(confirm); err != nil {
			return err
		}
	}
	done, err := s.api.ConfirmArchive(ctx, digest)
	if err != nil {
		return err
	}
	if a.json {
		return a.print(done)
	}
	_, err = fmt.Fprintf(a.out, "%s: entries %d to %d are archived, the log is kept from %d\n", s.node, done.From, done.To-1, done.To)
	return err
}

// archiveFlags name archives, and the key that opens them.
type archiveFlags struct {
	files    []string
	identity string
}

func (f *archiveFlags) flags(c *cobra.Command, use string) {
	c.Flags().StringSliceVar(&f.files, "archive", nil, use+"`FILE`s that audit archive wrote")
	c.Flags().StringVar(&f.identity, "identity", "", "private key `file` (redoubt key recipient) that opens the archives")
}

// each opens every file with the identity.
func (f *archiveFlags) each(c *cobra.Command, do func(file string, opened io.Reader) error) error {
	if f.identity == "" {
		return usage(c, "--archive wants --identity: the private key that opens the archives")
	}
	id, err := readIdentity(f.identity)
	if err != nil {
		return &redoubt.Error{Object: f.identity, Kind: redoubt.KindOf(err), Err: err, Hint: "name the file that redoubt key recipient made"}
	}
	for _, file := range f.files {
		if err := openArchive(file, id, do); err != nil {
			return err
		}
	}
	return nil
}

func openArchive(file string, id *keys.Identity, do func(file string, opened io.Reader) error) error {
	in, err := os.Open(file)
	if err != nil {
		return &redoubt.Error{Object: file, Kind: redoubt.NotFound, Err: errors.Unwrap(err), Hint: "name a file that audit archive wrote"}
	}
	defer in.Close()
	opened, err := keys.OpenWith(id, in)
	if err != nil {
		opened = broken{err} // told like any other fault of the file
	}
	return do(file, opened)
}

// broken is a reader that fails.
type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

// archiveJSON is an archive as audit verify tells of it.
type archiveJSON struct {
	File     string    `json:"file"`
	OK       bool      `json:"ok"`
	Fault    string    `json:"fault,omitempty"`
	From     uint64    `json:"from"`
	To       uint64    `json:"to"`
	Oldest   time.Time `json:"oldest,omitzero"`
	Newest   time.Time `json:"newest,omitzero"`
	SHA256   string    `json:"sha256"`
	Recorded bool      `json:"recorded"` // the running log has this very file on record
}

// verifyArchives reads archives against the log that v verifies, the checkpoints that were kept and each other. It gives the
// archives' own checkpoints, for a running log to be compared with.
func (f *archiveFlags) verify(c *cobra.Command, v note.Verifier, kept []string, live *redoubt.AuditReport) (all []archiveJSON, gaps, marks []string, err error) {
	trusted := []audit.Checkpoint{}
	for _, text := range kept {
		mark, err := audit.ParseCheckpoint([]byte(text), v)
		if err != nil {
			return nil, nil, nil, err
		}
		trusted = append(trusted, mark)
	}
	var good []audit.Archive
	err = f.each(c, func(file string, opened io.Reader) error {
		out := archiveJSON{File: file}
		archive, fault := audit.ReadArchive(c.Context(), opened, v, trusted, nil)
		if c.Context().Err() != nil {
			return c.Context().Err()
		}
		var err error
		if out.SHA256, _, err = settledDigest(file); err != nil {
			return err
		}
		if fault != nil {
			out.Fault = fault.Error()
		} else {
			good = append(good, archive)
			out.OK, out.From, out.To, out.Oldest, out.Newest = true, archive.From, archive.To, archive.Oldest, archive.Newest
			marks = append(marks, string(archive.After.Note))
		}
		if live != nil {
			for _, r := range live.Archives {
				out.Recorded = out.Recorded || r.SHA256 == out.SHA256 && r.From == out.From && r.To == out.To
			}
		}
		all = append(all, out)
		return nil
	})
	end := uint64(0)
	if live != nil {
		end = live.KeptFrom
	}
	for _, g := range audit.Gaps(good, end) {
		gaps = append(gaps, g.String())
	}
	return all, gaps, marks, err
}
