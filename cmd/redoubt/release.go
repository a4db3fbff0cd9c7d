package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
)

func (a *app) releaseCommand() *cobra.Command {
	c := &cobra.Command{Use: "release", Short: "Let something out to a lower node, by two reviewers",
		Long: `What is to leave for a lower node, or for a wider audience in the same one, is asked for, filtered and rebuilt
by a guard, and signed by two different people with the role reviewer, neither of whom asked. What is marked
ORCON, PROPIN or FISA needs its originator's consent besides. What leaves is exactly what they saw; it appears
at the target as FROM.BUCKET, and leaves a receipt that anybody can verify.`,
		Example: `  redoubt release request s3://reports/plan.txt --from secret --to unclass --as-label UNCLASSIFIED --reason "press" --as s-analyst@secret
  redoubt release show ID --as reviewer@secret
  redoubt release approve ID --as reviewer@secret
  redoubt release approve ID --as reviewer-2@secret
  redoubt release consent ID --as s-analyst@secret
  redoubt release receipt ID --as s-analyst@secret > receipt.json
  redoubt release verify receipt.json --content plan.txt`}
	c.AddCommand(a.releaseRequest(), a.releaseLs(), a.releaseShow(), a.releaseApprove(), a.releaseConsent(), a.releaseDeny(), a.releaseWait(), a.releaseReceipt(), a.releaseVerify())
	return c
}

// errReleaseRefused is a release that ended otherwise than it was waited for: exit 3.
func errReleaseEnded(r redoubt.Release) error {
	return &redoubt.Error{Object: "release " + string(r.ID), Kind: redoubt.Denied, Err: fmt.Errorf("it is %s: %s", r.State, dash(r.Why)), Hint: "redoubt release show " + string(r.ID) + " tells what was found"}
}

func (a *app) releaseRequest() *cobra.Command {
	var w who
	var from, to string
	var q redoubt.RequestRelease
	var version string
	var wait bool
	var after string
	c := &cobra.Command{Use: "request s3://BUCKET/KEY --from NODE --to NODE --as-label MARKING --reason TEXT --as SUBJECT@NODE", Short: "Ask for one version to be released",
		Long: `Asks for the version that is current for the subject, or for --version. The guard between the two nodes takes
it through its pipeline; then two reviewers are asked. Metadata and tags stay behind but for what --keep
names; --key-there gives it another name.`,
		Example: `  redoubt release request s3://reports/plan.txt --from secret --to unclass --as-label UNCLASSIFIED --reason "press" --as s-analyst@secret --wait
  redoubt release request s3://reports/plan.txt --from secret --to secret --as-label "SECRET//REL TO USA, GBR" --reason "liaison" --as s-analyst@secret --json`, Args: exactly(1),
		RunE: a.withPlace(&w, wholeName, func(ctx context.Context, s *session, p place, _ []string) error {
			if redoubt.NodeName(from) != s.node {
				return &usageError{message: "a release is asked for where the version is: --from " + string(s.node), hint: "--as " + string(s.subject) + "@" + from}
			}
			if after != "" {
				var err error
				if q.After, err = time.Parse(time.RFC3339, after); err != nil {
					return &usageError{message: after + " is not a time", hint: "such as 2031-12-31T18:00:00Z"}
				}
			}
			q.Name, q.Version, q.To = redoubt.ObjectName{Bucket: p.bucket, Key: p.key}, redoubt.VersionID(version), redoubt.NodeName(to)
			r, err := s.api.RequestRelease(ctx, q)
			if err != nil {
				return err
			}
			if wait {
				if r, err = a.awaitRelease(ctx, s, r.ID, redoubt.ReleaseReview); err != nil {
					return err
				}
			}
			if a.json {
				return a.print(r)
			}
			a.say("%s of %s; two reviewers: redoubt release approve %s --as REVIEWER@%s", r.State, p, r.ID, s.node)
			if len(r.ConsentFor) > 0 {
				a.say("and its originator, for %s, once it is in review: redoubt release consent %s --as %s@%s", strings.Join(r.ConsentFor, ", "), r.ID, r.Originator, s.node)
			}
			_, err = fmt.Fprintln(a.out, r.ID)
			return err
		})}
	w.flags(c)
	c.Flags().StringVar(&from, "from", "", "`NODE` that it leaves")
	c.Flags().StringVar(&to, "to", "", "`NODE` that it goes to; the same for another label within it")
	c.Flags().StringVar(&q.Label, "as-label", "", "`marking` that it is to have there")
	c.Flags().StringVar(&q.Reason, "reason", "", "`text` for the reviewers and the audit log")
	c.Flags().StringVar(&version, "version", "", "`version` to release; default: the current one")
	c.Flags().StringVar(&q.Key, "key-there", "", "`key` under which it is to appear; default: the same")
	c.Flags().StringSliceVar(&q.Keep, "keep", nil, "`names` of user metadata that leave too; they are reviewed")
	c.Flags().DurationVar(&q.Life, "life", 0, "`time` until the request dies, 168h at most")
	c.Flags().StringVar(&after, "after", "", "`time` before which it does not leave, RFC 3339: a declassification approved ahead")
	c.Flags().BoolVar(&wait, "wait", false, "wait until the guard has rebuilt or refused it")
	required(c, "from", "to", "as-label", "reason")
	return a.jsonFlag(c)
}

// releaseEvery is how often a release that is waited for is looked at.
const releaseEvery = 200 * time.Millisecond

// awaitRelease waits until a release has come to a state, or beyond it. One that ended otherwise is an error.
func (a *app) awaitRelease(ctx context.Context, s *session, id redoubt.ReleaseID, want redoubt.ReleaseState) (redoubt.Release, error) {
	told := false
	order := map[redoubt.ReleaseState]int{redoubt.ReleaseRequested: 0, redoubt.ReleaseReview: 1, redoubt.ReleaseApproved: 2, redoubt.ReleaseReleased: 3}
	for {
		r, err := s.api.Release(ctx, id)
		if err != nil {
			return r, err
		}
		at, going := order[r.State]
		if !going {
			return r, errReleaseEnded(r)
		}
		if at >= order[want] {
			return r, nil
		}
		if text := awaits(r); text != "" && !told {
			told = true
			a.say("%s", text)
		}
		select {
		case <-time.After(releaseEvery):
		case <-ctx.Done():
			return r, ctx.Err()
		}
	}
}

func (a *app) releaseWait() *cobra.Command {
	var w who
	var state string
	c := &cobra.Command{Use: "wait ID --as SUBJECT@NODE", Short: "Wait until a release has come to a state; exit 3 when it ends otherwise",
		Example: "  redoubt release wait ID --for released --as s-analyst@secret", Args: exactly(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			want := redoubt.ReleaseState(state)
			if want != redoubt.ReleaseReview && want != redoubt.ReleaseApproved && want != redoubt.ReleaseReleased {
				return &usageError{message: "no state " + state + " is waited for", hint: "review, approved or released"}
			}
			r, err := a.awaitRelease(ctx, s, redoubt.ReleaseID(args[0]), want)
			if err != nil {
				return err
			}
			if a.json {
				return a.print(r)
			}
			_, err = fmt.Fprintln(a.out, r.State)
			return err
		})}
	w.flags(c)
	c.Flags().StringVar(&state, "for", string(redoubt.ReleaseReleased), "`state`: review, approved or released")
	return a.jsonFlag(c)
}

func (a *app) releaseLs() *cobra.Command {
	var w who
	var q redoubt.ListReleases
	var state string
	c := &cobra.Command{Use: "ls --as SUBJECT@NODE", Short: "The releases of a node that the subject may know of, newest first",
		Example: "  redoubt release ls --in review --as reviewer@secret", Args: exactly(0),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, _ []string) error {
			q.State = redoubt.ReleaseState(state)
			if state != "" && !slices.Contains(releaseStates, q.State) { // else a typing error looks like an empty queue
				return &usageError{message: "no release is in state " + state, hint: "one of " + list(releaseStates)}
			}
			all, err := s.api.Releases(ctx, q)
			if err != nil {
				return err
			}
			if a.json {
				return a.print(map[string]any{"releases": all})
			}
			if len(all) == q.Max {
				a.say("the newest %d; --max shows more", q.Max)
			}
			t := a.table("ID", "STATE", "NAME", "LABEL", "TO", "AS", "BY", "ASKED", "SIGNED")
			for _, r := range all {
				t.row(string(r.ID), string(r.State), place{r.Name.Bucket, r.Name.Key}.String(), r.Label, string(r.To), r.As, string(r.By), r.Made.Local().Format("2006-01-02 15:04"), signatures(r))
			}
			return t.flush()
		})}
	w.flags(c)
	c.Flags().StringVar(&state, "in", "", "`state`: "+list(releaseStates))
	c.Flags().IntVar(&q.Max, "max", 100, "most that are shown, `1000` at most")
	return a.jsonFlag(c)
}

var releaseStates = []redoubt.ReleaseState{redoubt.ReleaseRequested, redoubt.ReleaseReview, redoubt.ReleaseApproved, redoubt.ReleaseReleased, redoubt.ReleaseRefused, redoubt.ReleaseDenied, redoubt.ReleaseDead}

// signatures says who has signed of those who must.
func signatures(r redoubt.Release) string {
	text := fmt.Sprintf("%d of 2", len(r.Approvals))
	switch {
	case r.Consent != nil:
		text += ", consent"
	case len(r.ConsentFor) > 0:
		text += ", awaits " + string(r.Originator)
	}
	return text
}

func (a *app) releaseShow() *cobra.Command {
	var w who
	var file string
	var all bool
	c := &cobra.Command{Use: "show ID --as SUBJECT@NODE", Short: "Everything about a release, and the exact bytes that would leave",
		Long: `Shows what was asked for, what the guard found, and what a reviewer signs: the name, type, metadata, label,
target and digest, and the rebuilt content itself: text with what cannot be seen made visible, an image drawn
in the terminal, anything else in hexadecimal. --content writes the bytes to a file to look at them with
another program. Of a release that has ended the content is not kept any more.`,
		Example: `  redoubt release show ID --as reviewer@secret
  redoubt release show ID --as reviewer@secret --content page.pdf`, Args: exactly(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			r, err := s.api.Release(ctx, redoubt.ReleaseID(args[0]))
			if err != nil {
				return err
			}
			var content []byte
			if r.Dropped && file != "" {
				return &redoubt.Error{Object: "release " + string(r.ID), Kind: redoubt.NotFound, Err: fmt.Errorf("it is %s: what was rebuilt is not kept any more", r.State), Hint: "its digest stays: redoubt release show " + string(r.ID)}
			}
			if r.Statement != nil && !r.Dropped && (file != "" || !a.json) {
				if content, err = rebuilt(ctx, s, r); err != nil {
					return err
				}
			}
			if file != "" && r.Statement == nil {
				return errReleaseEnded(r)
			}
			if file != "" {
				if err := os.WriteFile(file, content, 0o600); err != nil {
					return err
				}
			}
			if a.json {
				return a.print(r)
			}
			return a.showRelease(r, content, all)
		})}
	w.flags(c)
	c.Flags().StringVar(&file, "content", "", "`file` to write the exact bytes to")
	c.Flags().BoolVar(&all, "all", false, "show all of a long content")
	return a.jsonFlag(c)
}

// rebuilt fetches the bytes that would leave, and holds them against what is signed.
func rebuilt(ctx context.Context, s *session, r redoubt.Release) ([]byte, error) {
	body, err := s.api.OpenRebuilt(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	content, err := io.ReadAll(io.LimitReader(body, redoubt.MaxReleaseBytes+1))
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != r.Statement.SHA256 {
		return nil, &redoubt.Error{Object: "release " + string(r.ID), Kind: redoubt.Corrupt, Err: errors.New("the bytes are not those that the statement names: nothing was signed"), Hint: "redoubt audit verify"}
	}
	return content, nil
}

func (a *app) showRelease(r redoubt.Release, content []byte, all bool) error {
	t := a.table()
	row := func(what, value string) {
		if value != "" {
			t.row(what, value)
		}
	}
	row("release", string(r.ID))
	row("state", strings.TrimSuffix(string(r.State)+", "+r.Why, ", "))
	row("asked by", fmt.Sprintf("%s, %s: %s", r.By, r.Made.Local().Format("2006-01-02 15:04"), r.Reason))
	row("source", fmt.Sprintf("%s at %s, %s, version %s", place{r.Name.Bucket, r.Name.Key}, r.From, r.Label, r.Version))
	for _, f := range r.Findings {
		row("found", strings.TrimSuffix(fmt.Sprintf("%s: %s: %s", f.Step, f.Rule, f.Detail), ": "))
	}
	if st := r.Statement; st != nil {
		t.row("")
		row("what leaves", fmt.Sprintf("s3://%s/%s at %s", st.Bucket, st.Key, st.To))
		row("label there", st.Label)
		row("type", fmt.Sprintf("%s, %d bytes", st.ContentType, st.SizeBytes))
		for _, name := range slices.Sorted(maps.Keys(st.Meta)) {
			row("metadata "+name, st.Meta[name])
		}
		row("sha256", st.SHA256)
		if !st.After.IsZero() {
			row("leaves from", st.After.Local().Format("2006-01-02 15:04"))
		}
		row("dies", st.Expires.Local().Format("2006-01-02 15:04"))
	}
	for _, s := range r.Approvals {
		row("signed by", string(s.Signer))
	}
	switch {
	case r.Consent != nil:
		row("consent", string(r.Consent.Signer)+", for "+strings.Join(r.ConsentFor, ", "))
	case r.AwaitsConsent():
		row("consent", awaits(r))
	case len(r.ConsentFor) > 0:
		row("consent", "of "+string(r.Originator)+", for "+strings.Join(r.ConsentFor, ", ")+": not given")
	}
	row("denied by", string(r.DeniedBy))
	if r.Receipt != nil {
		row("taken", r.Receipt.Taken.Local().Format("2006-01-02 15:04:05")+" by "+string(r.Receipt.Node))
	}
	if err := t.flush(); err != nil || r.Statement == nil {
		return err
	}
	fmt.Fprintln(a.out)
	if r.Dropped {
		_, err := fmt.Fprintf(a.out, "It is %s: the content is not kept any more.\n", r.State)
		return err
	}
	return a.showContent(r.Statement.ContentType, content, all)
}

func (a *app) releaseApprove() *cobra.Command {
	var w who
	var digest string
	c := &cobra.Command{Use: "approve ID --as REVIEWER@NODE", Short: "Sign, with the reviewer's own key, that exactly these bytes may leave",
		Long: `Fetches the bytes that would leave, holds them against the digest, and signs the digest with name, type,
metadata, label, target and expiry. Look at them first: redoubt release show. With --sha256 nothing else than
what was looked at is signed. The second signature sends it off, or the originator's consent where that is
awaited.`,
		Example: "  redoubt release approve ID --as reviewer@secret\n  redoubt release approve ID --sha256 HEX --as reviewer-2@secret", Args: exactly(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			r, err := a.signRelease(ctx, s, w, redoubt.ReleaseID(args[0]), digest, redoubt.ReleaseMessage, s.api.ApproveRelease)
			if err != nil {
				return err
			}
			if a.json {
				return a.print(r)
			}
			a.say("signed sha256 %s as %s for %s: %s", r.Statement.SHA256, r.Statement.Label, r.Statement.To, signatures(r))
			if text := awaits(r); text != "" {
				a.say("%s", text)
			}
			_, err = fmt.Fprintln(a.out, r.State)
			return err
		})}
	w.flags(c)
	c.Flags().StringVar(&digest, "sha256", "", "`digest` that was looked at, hex")
	return a.jsonFlag(c)
}

func (a *app) releaseDeny() *cobra.Command {
	var w who
	var reason string
	c := &cobra.Command{Use: "deny ID --as SUBJECT@NODE", Short: "End a release: a reviewer's or its originator's no, or its requester's withdrawal",
		Example: "  redoubt release deny ID --reason \"names a source\" --as reviewer@secret", Args: exactly(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			r, err := s.api.DenyRelease(ctx, redoubt.ReleaseID(args[0]), reason)
			if err != nil {
				return err
			}
			if a.json {
				return a.print(r)
			}
			_, err = fmt.Fprintln(a.out, r.State)
			return err
		})}
	w.flags(c)
	c.Flags().StringVar(&reason, "reason", "", "`text` for who asked, and the audit log")
	return a.jsonFlag(c)
}

func (a *app) releaseReceipt() *cobra.Command {
	var w who
	c := &cobra.Command{Use: "receipt ID --as SUBJECT@NODE", Short: "The receipt of a release: digest, label, target, and signatures without names",
		Example: "  redoubt release receipt ID --as s-analyst@secret > receipt.json", Args: exactly(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			r, err := s.api.Release(ctx, redoubt.ReleaseID(args[0]))
			if err != nil {
				return err
			}
			if r.Receipt == nil {
				return errReleaseEnded(r)
			}
			return a.print(r.Receipt)
		})}
	w.flags(c)
	return a.jsonFlag(c)
}

func (a *app) releaseVerify() *cobra.Command {
	var content, key string
	c := &cobra.Command{Use: "verify RECEIPT", Short: "Verify a receipt, offline: who has it needs nothing else",
		Long: `Checks both reviewers' signatures, the originator's consent where there is one, and the node's, and with
--content that a file is what was released. The node's key is the one that is known to be its own: --node-key
gives it, else it is the one of this state; without either the receipt is whole, and not known to be of that
node, which is said and is exit 1.`,
		Example: "  redoubt release verify receipt.json --content plan.txt\n  redoubt release verify receipt.json --node-key BASE64 --json", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.verifyReceipt(args[0], content, key) }}
	c.Flags().StringVar(&content, "content", "", "`file` that was released")
	c.Flags().StringVar(&key, "node-key", "", "the target's public `key`, Ed25519 in base64, as redoubt node card prints it")
	return a.jsonFlag(c)
}
