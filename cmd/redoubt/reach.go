package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/node"
)

// faces is where a node is reached, and what its certificate is verified by.
type faces struct {
	s3, api string
	caFile  string // "": in clear, on a loopback address
	roots   *x509.CertPool
}

// remote says where a node on another machine is. A node is looked for in the flags first, then in the state, then
// in the environment: `redoubt env` sets REDOUBT_API_URL too, and must not turn other nodes of the state away.
type remote struct {
	api, s3, ca string
	objects     bool // the command needs the S3 face
}

func (r *remote) flags(c *cobra.Command) {
	c.Flags().StringVar(&r.api, "api-url", "", "`URL` of a node that this state does not run; also REDOUBT_API_URL")
	if r.objects {
		c.Flags().StringVar(&r.s3, "s3-url", "", "`URL` of that node's S3; also REDOUBT_S3_URL")
	}
	c.Flags().StringVar(&r.ca, "ca", "", "`file` that redoubt node ca wrote on that node's machine; also REDOUBT_CA")
}

// named reports whether flags name a remote node.
func (r *remote) named() bool { return r.api != "" || r.s3 != "" }

// reach finds a node.
func (a *app) reach(name redoubt.NodeName, far remote) (faces, error) {
	if !far.named() {
		st, err := a.state()
		if err == nil && dirExists(st.NodeDir(name)) {
			return stateFaces(st, name)
		}
		if os.Getenv("REDOUBT_API_URL") == "" {
			if err == nil {
				err = &redoubt.Error{Object: "node " + string(name), Kind: redoubt.Unavailable, Err: errors.New("the state has no such node"),
					Hint: "redoubt status lists the nodes; one on another machine is named by --api-url"}
			}
			return faces{}, err
		}
	}
	f := faces{api: or(far.api, os.Getenv("REDOUBT_API_URL")), s3: or(far.s3, os.Getenv("REDOUBT_S3_URL"))}
	switch {
	case f.api == "":
		return f, &usageError{message: "--api-url is needed", hint: "redoubt status shows it, on the node's machine"}
	case far.objects && f.s3 == "":
		return f, &usageError{message: "--s3-url is needed", hint: "redoubt status shows it, on the node's machine"}
	case inClear(f.api) && (f.s3 == "" || inClear(f.s3)):
		return f, nil
	}
	file := or(far.ca, os.Getenv("REDOUBT_CA"))
	if file == "" {
		return f, &usageError{message: "--ca is needed: the certificate of the node's own authority", hint: "redoubt node ca " + string(name) + " prints it, on the node's machine"}
	}
	return f, f.trust(file)
}

// stateFaces are those of a node that the state runs.
func stateFaces(st node.State, name redoubt.NodeName) (faces, error) {
	r, err := st.Runtime(name)
	if err != nil {
		return faces{}, err
	}
	if r.State != node.Ready {
		if err := st.NotWiped(name); err != nil {
			return faces{}, err
		}
		return faces{}, &redoubt.Error{Object: "node " + string(name), Kind: redoubt.Unavailable, Err: errors.New("it is " + r.State), Hint: "redoubt up --detach"}
	}
	f := faces{s3: r.S3URL, api: r.APIURL}
	if inClear(f.s3) && inClear(f.api) {
		return f, nil
	}
	return f, f.trust(st.CAFile(name))
}

func (f *faces) trust(file string) error {
	cert, err := readCA(file)
	if err != nil {
		return err
	}
	if f.caFile, err = filepath.Abs(file); err != nil {
		return err
	}
	f.roots = x509.NewCertPool()
	f.roots.AddCert(cert)
	return nil
}

// maxCABytes bounds the certificate of a node's authority, which has 0.6 KiB.
const maxCABytes = 64 << 10

// readCA reads the certificate of a node's authority.
func readCA(file string) (*x509.Certificate, error) {
	bad := func(err error) error {
		return &redoubt.Error{Object: file, Kind: redoubt.Invalid, Err: err, Hint: "name the file that redoubt node ca wrote; of a node here, restart it: it writes its certificate anew"}
	}
	data, err := readLimited(file, maxCABytes)
	if err != nil {
		return nil, bad(err)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, bad(errors.New("it holds no certificate"))
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, bad(err)
	}
	return cert, nil
}

// fingerprint is what two people read to each other to compare certificates.
func fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

func inClear(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Scheme == "http"
}
