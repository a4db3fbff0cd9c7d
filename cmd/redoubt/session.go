package main

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/client"
	"redoubt/node"
)

// who says as whom, where and at which label a command acts: SUBJECT@NODE.
type who struct {
	as      string
	label   string
	keyFile string
	life    time.Duration
}

// commandLife is how long the credential of a single command lives: as long as a large object may take.
const commandLife = time.Hour

// flags gives a command --as, --label and --key.
func (w *who) flags(c *cobra.Command) {
	c.Flags().StringVar(&w.as, "as", "", "act as `SUBJECT@NODE`")
	c.Flags().StringVar(&w.label, "label", "", "working label, a `marking`; default: the highest that subject and node share")
	c.Flags().StringVar(&w.keyFile, "key", "", "the subject's private key `file`; an exercise keeps it in the state")
	required(c, "as")
}

func (w *who) parts() (redoubt.SubjectName, redoubt.NodeName, error) {
	subject, name, ok := strings.Cut(w.as, "@")
	if !ok || subject == "" || name == "" {
		return "", "", &usageError{message: "--as wants SUBJECT@NODE, got " + w.as, hint: "such as --as s-analyst@secret; redoubt status lists the nodes"}
	}
	return redoubt.SubjectName(subject), redoubt.NodeName(name), nil
}

// session is one subject at one node, with a credential made for this call.
type session struct {
	subject redoubt.SubjectName
	node    redoubt.NodeName
	runtime node.Runtime
	caFile  string
	minted  redoubt.Minted
	key     ed25519.PrivateKey
	roots   *x509.CertPool
	api     *client.Client
	objects *client.Objects
}

// open asks the node for a credential with the subject's own key. The caller closes the session.
func (a *app) open(ctx context.Context, w who) (*session, error) {
	subject, name, err := w.parts()
	if err != nil {
		return nil, err
	}
	st, err := a.state()
	if err != nil {
		return nil, err
	}
	key, err := subjectKey(st, subject, w.keyFile)
	if err != nil {
		return nil, err
	}
	return dial(ctx, st, subject, name, key, w)
}

// subjectKey is the key of a file, or of the exercise.
func subjectKey(st node.State, subject redoubt.SubjectName, file string) (ed25519.PrivateKey, error) {
	if file != "" {
		return readKey(file)
	}
	return st.SubjectKey(subject)
}

// dial opens a session with a key at hand.
func dial(ctx context.Context, st node.State, subject redoubt.SubjectName, name redoubt.NodeName, key ed25519.PrivateKey, w who) (*session, error) {
	r, err := st.Runtime(name)
	if err != nil {
		return nil, err
	}
	if r.State != node.Ready {
		hint := "redoubt up --detach"
		if _, err := os.Stat(st.NodeDir(name)); err != nil {
			hint = "redoubt status lists the nodes"
		}
		return nil, &redoubt.Error{Object: "node " + string(name), Kind: redoubt.Unavailable, Err: errors.New("it is " + r.State), Hint: hint}
	}
	s := &session{subject: subject, node: name, runtime: r, caFile: st.CAFile(name), key: key}
	if inClear(r.S3URL) && inClear(r.APIURL) {
		s.caFile = ""
	} else if s.roots, _, err = caOf(st, name); err != nil {
		return nil, err
	}
	if s.api, err = client.New(r.APIURL, s.roots, ""); err != nil {
		return nil, err
	}
	life := w.life
	if life == 0 {
		life = commandLife
	}
	if s.minted, err = s.api.Mint(ctx, key, subject, name, w.label, life); err != nil {
		s.close()
		return nil, mintHint(err, subject, name)
	}
	s.api = s.api.With(s.minted.Token)
	if s.objects, err = client.NewObjects(r.S3URL, s.roots, s.minted); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func inClear(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Scheme == "http"
}

// mintHint says what a refused credential may be about: the node itself tells a stranger nothing.
func mintHint(err error, subject redoubt.SubjectName, name redoubt.NodeName) error {
	var e *redoubt.Error
	if !errors.As(err, &e) || e.Hint != "" {
		return err
	}
	out := *e
	out.Object = string(subject) + "@" + string(name)
	switch e.Kind {
	case redoubt.Unauthenticated:
		out.Hint = "the subject is not known at this node, was revoked, or has another key; redoubt doctor looks at the clock"
	case redoubt.Denied:
		out.Hint = "the label must be within the subject's clearance and the node's range: redoubt status; redoubt estate show"
	}
	return &out
}

func (s *session) close() {
	if s.api != nil {
		s.api.Close()
	}
	if s.objects != nil {
		s.objects.Close()
	}
}

// place is s3://BUCKET/KEY.
type place struct {
	bucket redoubt.BucketName
	key    string
}

func (p place) String() string { return "s3://" + string(p.bucket) + "/" + p.key }

func (p place) name() redoubt.ObjectName { return redoubt.ObjectName{Bucket: p.bucket, Key: p.key} }

// parsePlace reads s3://BUCKET/KEY; KEY may be empty.
func parsePlace(s string) (place, error) {
	rest, ok := strings.CutPrefix(s, "s3://")
	bucket, key, _ := strings.Cut(rest, "/")
	if !ok || bucket == "" {
		return place{}, &usageError{message: s + " is not s3://BUCKET/KEY", hint: "redoubt ls --as SUBJECT@NODE lists the buckets"}
	}
	return place{redoubt.BucketName(bucket), key}, nil
}

func versionID(s string) redoubt.VersionID { return redoubt.VersionID(s) }

func nodeName(s string) redoubt.NodeName { return redoubt.NodeName(s) }
