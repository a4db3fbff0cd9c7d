package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
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
	Outbound  []outbound `json:"outbound"`
	Listeners []listener `json:"listeners"`
	Roots     []root     `json:"roots"`
}

// outbound is an address that a node may dial, or that the system shows a connection of the node's to.
type outbound struct {
	Node    string `json:"node"`
	Address string `json:"address"`
	Owner   string `json:"owner"`
	Told    bool   `json:"told"` // the node tells of it
	Seen    bool   `json:"seen"` // the system shows a TCP connection; a UDP socket shows no far end

	judged bool // the node has told whom it dials
}

// counts are of the addresses that nodes tell of, of those among them that a connection is seen to, and of those that one is seen to
// though its node, which has told whom it dials, does not tell of them.
func (s *sovereignty) counts() (told, seen, undeclared int) {
	for _, o := range s.Outbound {
		switch {
		case o.Told && o.Seen:
			told, seen = told+1, seen+1
		case o.Told:
			told++
		case o.judged:
			undeclared++
		}
	}
	return told, seen, undeclared
}

// outboundOf holds the far ends of the connections that a node opened against what it tells that it dials.
func outboundOf(n nodeStatus, dials []string) (all []outbound) {
	seen := map[string]bool{}
	for _, addr := range dials {
		seen[plainAddress(addr)] = true
	}
	for _, t := range n.trusts {
		for _, addr := range t.Dials {
			at := plainAddress(addr)
			all = append(all, outbound{string(n.Name), addr, ownerOf(t), true, seen[at], true})
			seen[at] = false
		}
	}
	for _, addr := range slices.Compact(slices.Sorted(slices.Values(dials))) {
		if seen[plainAddress(addr)] {
			all = append(all, outbound{string(n.Name), addr, "unknown: node " + string(n.Name) + " does not tell of it", false, true, n.told})
		}
	}
	return all
}

// plainAddress is an address in the one spelling that two are compared in.
func plainAddress(s string) string {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return s
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()
}

// ownerOf is whose a key is, and the place behind it.
func ownerOf(t redoubt.Trusted) string {
	switch t.As {
	case redoubt.TrustedHome:
		return "enclave " + string(t.Node) + ", its home"
	case redoubt.TrustedInterface:
		return "enclave " + string(t.Node) + ", its home's interface"
	case redoubt.TrustedSide:
		return "enclave " + string(t.Node) + ", which it joins"
	case redoubt.TrustedRoad:
		return "the other half of guard " + string(t.Node) + ", over a road that nothing comes back on"
	case redoubt.TrustedLower:
		return "enclave " + string(t.Node) + ", which is raised from"
	case redoubt.TrustedPartner:
		return "partner " + string(t.Node) + ", another estate's gateway, by an agreement"
	case redoubt.TrustedDevice:
		return "device " + string(t.Node)
	case redoubt.TrustedNeighbour:
		return "device " + string(t.Node) + ", a neighbour"
	case redoubt.TrustedDestination:
		return "what jobs of node " + string(t.Node) + " may connect to, by the estate"
	case redoubt.TrustedCluster:
		return "the cluster of node " + string(t.Node) + ", by the estate"
	}
	return "node " + string(t.Node)
}

// trustRoots are the keys that a node believes others by.
func trustRoots(n nodeStatus) (all []root) {
	for _, t := range n.trusts {
		if t.Fingerprint == "" {
			continue
		}
		what := map[string]string{
			redoubt.TrustedHome:      "key of its home, for people, ended rights and leases",
			redoubt.TrustedInterface: "TLS authority of its home, for enrolment and another lease",
			redoubt.TrustedDevice:    "key of a device, for the device's work",
			redoubt.TrustedNeighbour: "key of a neighbour, beside a lease of their home's",
			redoubt.TrustedRoad:      "key of the road between a guard's halves, which both have",
			redoubt.TrustedSide:      "TLS authority of an enclave that it joins",
			redoubt.TrustedLower:     "key of a lower enclave, for what a guard raises",
			redoubt.TrustedPartner:   "key or TLS authority of a partner's gateway, for what an agreement gives",
			redoubt.TrustedCluster:   "certificate authority of its cluster's API server",
			redoubt.TrustedMaker:     "key of a maker, for its work when another passes it on",
		}[t.As]
		all = append(all, root{What: "node " + string(n.Name) + " believes: " + cmp.Or(what, t.As), Owner: ownerOf(t), Fingerprint: t.Fingerprint})
	}
	return all
}

// checkOutbound says what is known of where the nodes' connections lead, and by what.
func checkOutbound(d *diagnosis, nodes []nodeStatus, s *sovereignty) {
	told, seen, undeclared := s.counts()
	for _, n := range nodes {
		if n.PID != 0 && !n.told {
			d.add("warn", "outbound", "redoubt status; then ask again", "node %s runs and has not told whom it dials and believes: what it opens over UDP is unknown, and its keys are not listed", n.Name)
		} else if n.PID == 0 {
			d.add("warn", "outbound", "redoubt up", "node %s is down: whom it would dial and believes is not listed", n.Name)
		}
	}
	if undeclared > 0 {
		d.add("fail", "outbound", "redoubt down; then find out who asked for it", "%d connections were opened by a node to what it does not tell of: neither its home, nor a neighbour, nor a partner, nor an enclave that it joins, nor what jobs may connect to", undeclared)
		return
	}
	d.add("ok", "outbound", "", "nodes that run and answer tell of %d addresses, each of a home, a neighbour, a partner, an enclave that a guard joins or what the estate lets jobs connect to; they are seen to have TCP connections to %d of them, and to nothing else; of UDP no far end shows, so there it is their word", told, seen)
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
			var listens, dials []string
			for _, pid := range append([]int{n.PID}, n.halves...) {
				l, d, err := sockets(pid)
				if err != nil && pid == n.PID {
					return nil, err
				}
				listens, dials = append(listens, l...), append(dials, d...)
			}
			for _, addr := range listens {
				s.Listeners = append(s.Listeners, listener{string(n.Name), addr, faceAt(n, addr), "node " + string(n.Name)})
			}
			s.Outbound = append(s.Outbound, outboundOf(n, dials)...)
		}
		if cert, err := readCA(st.CAFile(n.Name)); err == nil {
			s.Roots = append(s.Roots, root{"TLS authority of node " + string(n.Name), "node " + string(n.Name) + ", key sealed in its state", fingerprint(cert), cert.NotAfter.UTC().Format(time.RFC3339)})
		}
		s.Roots = append(s.Roots, keyringRoots(st, n)...)
		s.Roots = append(s.Roots, trustRoots(n)...)
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
	case len(n.halves) > 0:
		return "raise" // the road between the halves
	}
	for face, u := range map[string]string{"s3": n.S3URL, "api": n.APIURL} {
		if p, err := url.Parse(u); err == nil && p.Host == address {
			return face
		}
	}
	return "unknown"
}

// knownBy is by what an address is known.
func (o outbound) knownBy() string {
	switch {
	case o.Told && o.Seen:
		return "what the node tells, and a TCP connection"
	case o.Told:
		return "what the node tells"
	}
	return "a TCP connection alone"
}

func (a *app) sovereigntyText(s *sovereignty) error {
	fmt.Fprintln(a.out, "\noutbound addresses:")
	t := a.table("ADDRESS", "DIALLED BY", "OWNER", "KNOWN BY")
	for _, o := range s.Outbound {
		t.row(o.Address, "node "+o.Node, o.Owner, o.knownBy())
	}
	if err := t.flush(); err != nil {
		return err
	}
	fmt.Fprintln(a.out, "\nlisteners:")
	t = a.table("ADDRESS", "FACE", "OWNER")
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
