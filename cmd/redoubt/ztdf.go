package main

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/ztdf"
)

// maxPEMBytes bounds a file of one key: RSA of 8,192 bits has 6.4 KiB.
const maxPEMBytes = 16 << 10

func (a *app) ztdfCommand() *cobra.Command {
	c := &cobra.Command{Use: "ztdf", Short: "One version as a file for a partner who has something else, and back",
		Long: `A ZTDF file (TDF 4.3) holds one version, sealed to the key of a partner's key access service, with its STANAG 4774
label signed by its originator. What leaves so has left the estate: only a reviewer lets it out, for a nation
that may read it already, and the node has it on record first. What comes in is believed by the public key of
who signs for the partner, which you have from the partner himself; a key in the file is never looked at.`,
		Example: `  redoubt ztdf export s3://reports/plan.txt --to plan.ztdf --nation GBR --kas-key gbr-kas.pem --kas-url https://kas.gbr.example --reason "exercise" --as reviewer@secret
  redoubt ztdf consent s3://reports/plan.txt --nation GBR --kas-key gbr-kas.pem --as s-analyst@secret
  redoubt ztdf import plan.ztdf s3://reports/plan.txt --kas-private kas.key --trust gbr-signer.pem --as s-analyst@secret
  redoubt ztdf signer --as reviewer@secret > usa-signer.pem`}
	c.AddCommand(a.ztdfExport(), a.ztdfConsent(), a.ztdfImport(), a.ztdfSigner())
	return c
}

// exportOptions are what an export is made with.
type exportOptions struct {
	who
	to, kasKey, kasURL, kasKID, namespace, signKey string
	version                                        string
	redoubt.ExportVersion
}

func (a *app) ztdfExport() *cobra.Command {
	var o exportOptions
	c := &cobra.Command{Use: "export s3://BUCKET/KEY --to FILE --nation NATION --kas-key PEM --kas-url URL --reason TEXT --as SUBJECT@NODE", Short: "Let one version leave the estate, sealed to a partner's key",
		Long: `Writes the version that is current for the subject, or --version. It needs the role reviewer, and the version's
audience must contain the nation (exit 3 otherwise): a release gives it a wider one first. ORCON, PROPIN and FISA
leave by their originator's consent to this nation and this key (redoubt ztdf consent), which is used up; FGI and
other owners' material does not leave. The node records digest, nation and reason before it gives the content; the
file is sealed here. It is signed with the subject's own key, or with --sign-key.`,
		Example: `  redoubt ztdf export s3://reports/plan.txt --to plan.ztdf --nation GBR --kas-key gbr-kas.pem --kas-url https://kas.gbr.example --reason "exercise" --as reviewer@secret --json`,
		Args:    exactly(1), RunE: func(cmd *cobra.Command, args []string) error {
			content, err := a.exportContent(o) // what is wrong on this side is said before the node is asked
			if err != nil {
				return err
			}
			return a.withPlace(&o.who, wholeName, func(ctx context.Context, s *session, p place, _ []string) error {
				o.Name, o.Version, o.KAS = p.name(), redoubt.VersionID(o.version), spkiDigest(content.To.Key)
				return a.export(ctx, s, o, content)
			})(cmd, args)
		}}
	o.flags(c)
	f := c.Flags()
	f.StringVar(&o.to, "to", "", "`file` to write, a new one")
	f.StringVar(&o.Nation, "nation", "", "`nation` that it is for, by its code in the node's policy")
	f.StringVar(&o.Reason, "reason", "", "`text` for the audit log")
	f.StringVar(&o.kasKey, "kas-key", "", "the partner's public key, PEM `file`: P-256, P-384, or RSA of 3072 bits or more")
	f.StringVar(&o.kasURL, "kas-url", "", "`URL` of the partner's key access service")
	f.StringVar(&o.kasKID, "kas-kid", "", "`name` that the service has for the key; default: its digest")
	f.StringVar(&o.namespace, "namespace", "", "`URL` that the attributes stand under; default: the service's scheme and host")
	f.StringVar(&o.signKey, "sign-key", "", "private key, PEM `file` (PKCS #8), that signs the label; default: the subject's own")
	f.StringVar(&o.version, "version", "", "`version` to export; default: the current one")
	required(c, "to", "nation", "reason", "kas-key", "kas-url")
	return a.jsonFlag(c)
}

// exportContent is what of a file is known before the node is asked.
func (a *app) exportContent(o exportOptions) (c ztdf.Content, err error) {
	if _, err := os.Lstat(o.to); err == nil {
		return c, &redoubt.Error{Object: o.to, Kind: redoubt.Exists, Hint: "choose another name; an export is never written over"}
	}
	text, err := readPEM(o.kasKey)
	if err != nil {
		return c, err
	}
	c.To = ztdf.Recipient{URL: o.kasURL, KID: o.kasKID}
	if c.To.Key, err = ztdf.ParsePublic(text); err != nil {
		return c, named(err, o.kasKey)
	}
	if err := c.To.Check(); err != nil {
		return c, err
	}
	c.Sign, err = a.signer(o.who, o.signKey)
	return c, err
}

// signer is the key that signs labels.
func (a *app) signer(w who, file string) (crypto.Signer, error) {
	if file != "" {
		key, err := readPrivatePEM(file)
		if err != nil {
			return nil, err
		}
		return key.(crypto.Signer), nil // ParsePrivate gives none that does not sign
	}
	subject, _, err := w.parts()
	if err != nil {
		return nil, err
	}
	return a.subjectKey(subject, w.keyFile)
}

// exportJSON is the JSON of an export.
type exportJSON struct {
	File       string            `json:"file"`
	Version    redoubt.VersionID `json:"version"`
	Label      string            `json:"label"`
	Nation     string            `json:"nation"`
	SizeBytes  int64             `json:"size_bytes"`
	SHA256     string            `json:"sha256"` // of the content, as it is on record
	FileSHA256 string            `json:"file_sha256"`
	Wrapping   string            `json:"wrapping"`
	KID        string            `json:"kid"`
	Signer     string            `json:"signer_sha256"`
	Attributes []string          `json:"attributes"`
}

// export asks the node, seals what it gives, and holds it against the digest that is on record.
func (a *app) export(ctx context.Context, s *session, o exportOptions, c ztdf.Content) error {
	ns := o.namespace
	if u, err := url.Parse(o.kasURL); ns == "" && err == nil {
		ns = u.Scheme + "://" + u.Host
	}
	if _, err := ztdf.Attributes(ns, "x", nil, nil); err != nil {
		return err
	}
	told, body, err := s.api.ExportVersion(ctx, o.ExportVersion)
	if err != nil {
		return named(err, o.Name.String())
	}
	defer body.Close()
	if c.Attributes, err = ztdf.Attributes(ns, told.Classification, told.Categories, told.ReleasableTo); err != nil {
		return err
	}
	show := a.progress("s3://"+o.Name.String(), told.SizeBytes)
	defer show.end()
	content, file := sha256.New(), sha256.New()
	c.Body, c.MIME, c.Label = io.TeeReader(&counting{r: body, p: show}, content), told.ContentType, []byte(told.XML)
	var w ztdf.Written
	err = writeNew(o.to, func(f io.Writer) error {
		if w, err = ztdf.Write(io.MultiWriter(f, file), c); err != nil {
			return err
		}
		if got := hex.EncodeToString(content.Sum(nil)); w.SizeBytes != told.SizeBytes || got != told.SHA256 {
			return &redoubt.Error{Op: "export", Object: o.Name.String(), Kind: redoubt.BadDigest, Err: errors.New("what came is not what the node has on record"), Hint: "nothing was written; try again"}
		}
		return nil
	})
	if err != nil {
		return err
	}
	doc := exportJSON{File: o.to, Version: told.Version, Label: told.Label, Nation: told.Nation, SizeBytes: w.SizeBytes, SHA256: told.SHA256, FileSHA256: hex.EncodeToString(file.Sum(nil)),
		Wrapping: w.Wrapping, KID: w.KID, Signer: spkiDigest(c.Sign.Public()), Attributes: c.Attributes}
	if a.json {
		return a.print(doc)
	}
	a.say("%s  %s  %s  for %s, to %s", place{o.Name.Bucket, o.Name.Key}, bytesText(w.SizeBytes), told.Label, told.Nation, o.to)
	a.say("signed by the key %s: the partner needs its public half (redoubt ztdf signer)", doc.Signer)
	return nil
}

func (a *app) ztdfSigner() *cobra.Command {
	var w who
	var file string
	c := &cobra.Command{Use: "signer --as SUBJECT@NODE [--sign-key PEM]", Short: "The public key that a partner needs to believe a label",
		Long:    "Prints the public half of the key that ztdf export signs with, in PEM. The partner has to have it from you, and\nnot with the file.",
		Example: `  redoubt ztdf signer --as reviewer@secret > usa-signer.pem`, Args: exactly(0), RunE: func(*cobra.Command, []string) error {
			key, err := a.signer(w, file)
			if err != nil {
				return err
			}
			der, err := x509.MarshalPKIXPublicKey(key.Public())
			if err != nil {
				return err
			}
			_, err = a.out.Write(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
			return err
		}}
	w.flags(c)
	c.Flags().StringVar(&file, "sign-key", "", "private key, PEM `file` (PKCS #8); default: the subject's own")
	return c
}

// spkiDigest is the SHA-256 of a public key as it stands in its PEM.
func spkiDigest(key any) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// readPEM reads a file of one key.
func readPEM(file string) ([]byte, error) {
	text, err := readLimited(file, maxPEMBytes)
	if errors.Is(err, os.ErrNotExist) {
		err = &redoubt.Error{Object: file, Kind: redoubt.NotFound, Err: errors.New("no key file there")}
	}
	return text, err
}

// readPrivatePEM reads a private key; Denied: others may read the file.
func readPrivatePEM(file string) (any, error) {
	if st, err := os.Stat(file); err == nil && st.Mode().Perm()&0o077 != 0 {
		return nil, &redoubt.Error{Object: file, Kind: redoubt.Denied, Rule: "key-file-mode", Err: fmt.Errorf("mode %v lets others read the key", st.Mode().Perm()), Hint: "chmod 600 " + file}
	}
	text, err := readPEM(file)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	key, err := ztdf.ParsePrivate(text)
	return key, named(err, file)
}

// named puts the name of a file to an error about it.
func named(err error, file string) error {
	var e *redoubt.Error
	if errors.As(err, &e) {
		out := *e
		out.Object = file
		return &out
	}
	return err
}

// writeNew makes a file of mode 0600 by do, durable on return: whole, or not at all. It replaces none.
func writeNew(file string, do func(io.Writer) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".redoubt-*")
	if err != nil {
		return &redoubt.Error{Object: file, Err: err, Hint: "name a file in a folder that exists"}
	}
	defer os.Remove(tmp.Name()) // the other name of what was linked
	err = do(tmp)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err = os.Link(tmp.Name(), file); errors.Is(err, os.ErrExist) {
		err = &redoubt.Error{Object: file, Kind: redoubt.Exists, Hint: "choose another name; an export is never written over"}
	}
	return err
}
