package main

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/ztdf"
)

func (a *app) releaseConsent() *cobra.Command {
	var w who
	var digest string
	c := &cobra.Command{Use: "consent ID --as AUTHOR@NODE", Short: "Sign, as the originator, that exactly these bytes may leave",
		Long: `What is marked ORCON, PROPIN or FISA leaves by its originator's consent alone: of who wrote the version, or of a
copy whom it was copied from. Fetches the bytes that would leave, holds them against the digest, and signs it
with name, type, metadata, label, target and expiry, for this one release. Look at them first: redoubt release
show. A consent is no review: two reviewers sign besides, neither of whom is the originator, before or after.
redoubt release deny takes it back while it has not left.`,
		Example: "  redoubt release show ID --as s-analyst@secret\n  redoubt release consent ID --sha256 HEX --as s-analyst@secret", Args: exactly(1),
		RunE: a.withSession(&w, func(ctx context.Context, s *session, args []string) error {
			r, err := a.signRelease(ctx, s, w, redoubt.ReleaseID(args[0]), digest, redoubt.ConsentMessage, s.api.ConsentRelease)
			if err != nil {
				return err
			}
			if a.json {
				return a.print(r)
			}
			a.say("consented to sha256 %s as %s for %s; reviewers: %d of 2", r.Statement.SHA256, r.Statement.Label, r.Statement.To, len(r.Approvals))
			_, err = fmt.Fprintln(a.out, r.State)
			return err
		})}
	w.flags(c)
	c.Flags().StringVar(&digest, "sha256", "", "`digest` that was looked at, hex")
	return a.jsonFlag(c)
}

// signRelease has the subject sign what would leave, once the bytes were held against the digest.
func (a *app) signRelease(ctx context.Context, s *session, w who, id redoubt.ReleaseID, digest string, message func(redoubt.ReleasePublic) []byte,
	give func(context.Context, redoubt.ReleaseID, string) (redoubt.Release, error)) (redoubt.Release, error) {
	r, err := s.api.Release(ctx, id)
	if err != nil {
		return r, err
	}
	if r.Statement == nil || r.State != redoubt.ReleaseReview {
		return r, errReleaseEnded(r)
	}
	if _, err := rebuilt(ctx, s, r); err != nil {
		return r, err
	}
	if digest != "" && !strings.EqualFold(digest, r.Statement.SHA256) {
		return r, &redoubt.Error{Object: "release " + string(r.ID), Kind: redoubt.Denied, Err: errors.New("what would leave is not what was looked at"), Hint: "redoubt release show " + string(r.ID)}
	}
	if !slices.Equal(r.ConsentFor, r.Statement.Consent) || r.Originator != r.Statement.Originator { // what is shown of it is what is signed
		return r, &redoubt.Error{Object: "release " + string(r.ID), Kind: redoubt.Corrupt, Err: errors.New("the statement names another originator than the release: nothing was signed"), Hint: "redoubt audit verify"}
	}
	key, err := a.subjectKey(s.subject, w.keyFile)
	if err != nil {
		return r, err
	}
	return give(ctx, r.ID, base64.StdEncoding.EncodeToString(ed25519.Sign(key, message(r.Statement.Public()))))
}

// awaits says of a release in review whose consent it lacks; "": of nobody.
func awaits(r redoubt.Release) string {
	if !r.AwaitsConsent() {
		return ""
	}
	return fmt.Sprintf("awaits the consent of %s (%s): redoubt release consent %s --as %s@%s", r.Originator, strings.Join(r.ConsentFor, ", "), r.ID, r.Originator, r.From)
}

func (a *app) ztdfConsent() *cobra.Command {
	var w who
	var q redoubt.ConsentExport
	var kasKey, version string
	var life time.Duration
	c := &cobra.Command{Use: "consent s3://BUCKET/KEY --nation NATION --kas-key PEM --as AUTHOR@NODE", Short: "Sign, as the originator, that one version may leave once, for one nation and key",
		Long: `What is marked ORCON, PROPIN or FISA is exported by its originator's consent alone: of who wrote the version, or of
a copy whom it was copied from. Reads the version that is current for the subject, or --version, and signs its
digest with nation, key and expiry. A reviewer's ztdf export with the same nation and key uses the consent up;
it dies when the version is written over. It needs no role, and the audience must contain the nation all the same.`,
		Example: `  redoubt ztdf consent s3://reports/plan.txt --nation GBR --kas-key gbr-kas.pem --life 24h --as s-analyst@secret`, Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readPEM(kasKey)
			if err != nil {
				return err
			}
			key, err := ztdf.ParsePublic(text)
			if err != nil {
				return named(err, kasKey)
			}
			q.KAS = spkiDigest(key)
			return a.withPlace(&w, wholeName, func(ctx context.Context, s *session, p place, _ []string) error {
				q.Name, q.Version, q.Expires = p.name(), redoubt.VersionID(version), time.Now().Add(life).UTC().Truncate(time.Second)
				return a.consentExport(ctx, s, w, q)
			})(cmd, args)
		}}
	w.objectFlags(c)
	f := c.Flags()
	f.StringVar(&q.Nation, "nation", "", "`nation` that it is for, by its code in the node's policy")
	f.StringVar(&kasKey, "kas-key", "", "the partner's public key, PEM `file`")
	f.StringVar(&version, "version", "", "`version` to consent to; default: the current one")
	f.DurationVar(&life, "life", redoubt.MaxReleaseLife, "`time` until the consent dies, 168h at most")
	required(c, "nation", "kas-key")
	return a.jsonFlag(c)
}

// consentExport reads what is to leave, asks the node what is to be signed, holds that against what was read, and signs it.
func (a *app) consentExport(ctx context.Context, s *session, w who, q redoubt.ConsentExport) error {
	object, body, err := s.objects.Get(ctx, q.Name, q.Version)
	if err != nil {
		return err
	}
	defer body.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, body)
	if err != nil {
		return interrupted(ctx, err)
	}
	q.Version, q.SHA256 = object.Version, hex.EncodeToString(sum.Sum(nil))
	out, err := s.api.ConsentExport(ctx, q)
	if err != nil {
		return named(err, q.Name.String())
	}
	if out.Node != s.node || out.Bucket != q.Name.Bucket || out.Key != q.Name.Key || out.Version != q.Version || out.SHA256 != q.SHA256 || out.SizeBytes != n || out.Nation != q.Nation || out.KAS != q.KAS ||
		out.Originator != s.subject || out.Label != object.Label || !out.Expires.Equal(q.Expires) {
		return &redoubt.Error{Object: q.Name.String(), Kind: redoubt.Corrupt, Err: errors.New("the node would have something else signed than what was read and asked: nothing was signed"), Hint: "try again; redoubt audit verify"}
	}
	key, err := a.subjectKey(s.subject, w.keyFile)
	if err != nil {
		return err
	}
	q.Sig = base64.StdEncoding.EncodeToString(ed25519.Sign(key, redoubt.ExportConsentMessage(out)))
	if out, err = s.api.ConsentExport(ctx, q); err != nil {
		return named(err, q.Name.String())
	}
	if a.json {
		return a.print(out)
	}
	a.say("consented to sha256 %s, %s, for %s and the key %s until %s", out.SHA256, out.Label, out.Nation, out.KAS, out.Expires.Local().Format("2006-01-02 15:04"))
	_, err = fmt.Fprintln(a.out, out.Version)
	return err
}
