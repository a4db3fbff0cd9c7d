package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"slices"
	"time"

	"redoubt"
	"redoubt/estate"
	"redoubt/node"
	"redoubt/tpm"
)

// sovereignty is everything that the estate's processes listen on, dial and trust, each with its owner.
type sovereignty struct {
	Outbound  []outbound `json:"outbound"` // a device dials its home, and nothing else dials
	Listeners []listener `json:"listeners"`
	Roots     []root     `json:"roots"`
}

type outbound struct {
	Node    string `json:"node"`
	Address string `json:"address"`
	Owner   string `json:"owner"`

	home bool // of a device: declared, and what a device is for
}

// undeclared counts what nobody declared.
func (s *sovereignty) undeclared() (n int) {
	for _, o := range s.Outbound {
		if !o.home {
			n++
		}
	}
	return n
}

type listener struct {
	Node    string `json:"node"`
	Address string `json:"address"`
	Face    string `json:"face"`
	Owner   string `json:"owner"`
}

type root struct {
	What        string `json:"what"`
	Owner       string `json:"owner"`
	Fingerprint string `json:"fingerprint,omitempty"` // SHA-256, hex
	Expires     string `json:"expires,omitempty"`
}

func sovereigntyOf(st node.State, e *estate.Estate, doc estateStatus) (*sovereignty, error) {
	s := &sovereignty{Outbound: []outbound{}, Listeners: []listener{}, Roots: []root{}}
	for _, n := range doc.Nodes {
		if n.PID != 0 {
			listens, dials, err := sockets(n.PID)
			if err != nil {
				return nil, err
			}
			for _, addr := range listens {
				s.Listeners = append(s.Listeners, listener{string(n.Name), addr, faceAt(n, addr), "node " + string(n.Name)})
			}
			for _, addr := range n.Dials {
				s.Outbound = append(s.Outbound, outbound{string(n.Name), addr, "home of device " + string(n.Name), true})
			}
			for _, addr := range dials {
				if slices.Contains(n.Dials, addr) {
					continue
				}
				s.Outbound = append(s.Outbound, outbound{string(n.Name), addr, "node " + string(n.Name), false})
			}
		}
		if cert, err := readCA(st.CAFile(n.Name)); err == nil {
			s.Roots = append(s.Roots, root{"TLS authority of node " + string(n.Name), "node " + string(n.Name) + ", key sealed in its state", fingerprint(cert), cert.NotAfter.UTC().Format(time.RFC3339)})
		}
		s.Roots = append(s.Roots, keyringRoots(st, n)...)
	}
	if e != nil {
		for _, p := range e.People {
			if slices.Contains(p.Roles, redoubt.RoleOfficer) {
				sum := sha256.Sum256([]byte(p.PublicKey))
				s.Roots = append(s.Roots, root{"signature of a security officer", string(p.Name), hex.EncodeToString(sum[:]), p.Expires.Format(time.RFC3339)})
			}
		}
	}
	s.Roots = append(s.Roots, root{What: "certificates of the operating system", Owner: "nobody: never consulted"})
	return s, nil
}

// keyringRoots are what a node's keyring rests on.
func keyringRoots(st node.State, n nodeStatus) []root {
	if n.Wiped || n.State == node.Stopped && !dirExists(st.NodeDir(n.Name)) {
		return nil
	}
	keyring := root{What: "keyring of node " + string(n.Name), Owner: "its passphrase or key file, outside the state"}
	if st.HasExercise() {
		keyring.Owner = "a key file in the state: an exercise"
		return []root{keyring}
	}
	ways, err := st.Sealing(n.Name)
	if err != nil {
		return []root{keyring}
	}
	roots := []root{keyring}
	for _, w := range ways {
		if seal, err := tpm.Describe(w.Envelope); w.Method == tpm.Method && err == nil {
			roots = append(roots, root{What: fmt.Sprintf("TPM 2.0 (%s) that holds that keyring", seal.Maker), Owner: "who has this machine; its maker is trusted", Fingerprint: seal.Chip})
		}
	}
	switch {
	case len(roots) == 2 && len(ways) == 1:
		roots[0].Owner = "the machine's TPM alone"
	case len(roots) == 2:
		roots[0].Owner = "the machine's TPM, or its recovery, outside the state"
	}
	return roots
}

func dirExists(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

func faceAt(n nodeStatus, address string) string {
	switch {
	case slices.Contains(n.Peers, address):
		return "peers"
	case address == n.from && address != "":
		return "link"
	}
	for face, u := range map[string]string{"s3": n.S3URL, "api": n.APIURL} {
		if p, err := url.Parse(u); err == nil && p.Host == address {
			return face
		}
	}
	return "unknown"
}

func (a *app) sovereigntyText(s *sovereignty) error {
	fmt.Fprintf(a.out, "\noutbound addresses: ")
	if len(s.Outbound) == 0 {
		fmt.Fprintln(a.out, "none")
	}
	for _, o := range s.Outbound {
		what := "declared nowhere"
		if o.home {
			what = o.Owner
		}
		fmt.Fprintf(a.out, "\n  %s, %s: dialled by node %s", o.Address, what, o.Node)
	}
	fmt.Fprintln(a.out, "\nlisteners:")
	t := a.table("ADDRESS", "FACE", "OWNER")
	for _, l := range s.Listeners {
		t.row(l.Address, l.Face, l.Owner)
	}
	if err := t.flush(); err != nil {
		return err
	}
	fmt.Fprintln(a.out, "\nroots of trust:")
	t = a.table("WHAT", "OWNER", "SHA-256", "UNTIL")
	for _, r := range s.Roots {
		t.row(r.What, r.Owner, dash(r.Fingerprint[:min(16, len(r.Fingerprint))]), dash(r.Expires))
	}
	return t.flush()
}
