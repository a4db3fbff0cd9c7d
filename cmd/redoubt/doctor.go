package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/estate"
	"redoubt/node"
)

// finding is one thing that doctor looked at.
type finding struct {
	Check  string `json:"check"`
	Level  string `json:"level"` // "ok", "warn" or "fail"
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

// sovereignty is everything that the estate's processes listen on, dial and trust, each with its owner.
type sovereignty struct {
	Outbound  []outbound `json:"outbound"` // none: nothing here dials
	Listeners []listener `json:"listeners"`
	Roots     []root     `json:"roots"`
}

type outbound struct {
	Node    string `json:"node"`
	Address string `json:"address"`
	Owner   string `json:"owner"`
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

// diagnosis is the document of doctor --json.
type diagnosis struct {
	OK          bool         `json:"ok"`
	Findings    []finding    `json:"findings"`
	Sovereignty *sovereignty `json:"sovereignty,omitempty"`
}

func (d *diagnosis) add(level, check, hint, format string, args ...any) {
	d.Findings = append(d.Findings, finding{Check: check, Level: level, Detail: fmt.Sprintf(format, args...), Hint: hint})
}

// minFreeBytes is what a disk should have left: a few log segments and their compaction.
const minFreeBytes = 2 << 30

func (a *app) doctorCommand() *cobra.Command {
	var sovereign bool
	c := &cobra.Command{Use: "doctor", Short: "Check the whole estate on this machine",
		Long: `Looks at the state, its files' modes, the disk, the clock, the keys, the nodes and their TLS, and says what to do
about each fault. With --sovereignty it also lists every address that a node listens on, every connection that a
node has opened itself (there is none: no node dials), and every root of trust with its owner.`,
		Example: "  redoubt doctor\n  redoubt doctor --sovereignty --json",
		Args:    exactly(0), RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := a.state()
			if err != nil {
				return err
			}
			d, err := examine(cmd.Context(), st, sovereign)
			if err != nil {
				return err
			}
			if a.json {
				err = a.print(d)
			} else {
				err = a.diagnosisText(d)
			}
			if err == nil && !d.OK {
				return exitError(exitFailed)
			}
			return err
		}}
	c.Flags().BoolVar(&sovereign, "sovereignty", false, "list every address and every root of trust, each with its owner")
	return a.jsonFlag(c)
}

func examine(ctx context.Context, st node.State, sovereign bool) (*diagnosis, error) {
	d := &diagnosis{}
	var e *estate.Estate
	if st.HasExercise() {
		var err error
		if e, _, err = st.ExerciseEstate(); err != nil {
			d.add("fail", "estate", "restore the folder .exercise of the state from its backup", "the exercise does not open: %s", plain(err))
		}
		d.add("warn", "exercise", "never put real material into it", "this is an exercise: the private keys of all its people, and what opens its keyrings, lie in the state")
	} else {
		d.add("ok", "keys", "", "no subject's key is kept in the state")
	}
	doc, err := statusOf(ctx, st, e)
	if err != nil {
		return nil, err
	}
	checkModes(d, st)
	checkDisk(d, st)
	checkClock(d, st, doc)
	for _, n := range doc.Nodes {
		checkNode(d, st, n)
	}
	if sovereign {
		if d.Sovereignty, err = sovereigntyOf(st, e, doc); err != nil {
			return nil, err
		}
		if n := len(d.Sovereignty.Outbound); n > 0 {
			d.add("fail", "outbound", "redoubt down; then find out who asked for it", "%d connections were opened by a node", n)
		} else {
			d.add("ok", "outbound", "", "no node has opened a connection; there is no code to: no update check, no telemetry, no licence server")
		}
	}
	d.OK = !slices.ContainsFunc(d.Findings, func(f finding) bool { return f.Level == "fail" })
	return d, nil
}

// checkModes finds what others on the machine could read.
func checkModes(d *diagnosis, st node.State) {
	open := 0
	err := filepath.WalkDir(st.Dir(), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a running node renames and removes files
		}
		if err != nil {
			return err
		}
		if info, err := e.Info(); err == nil && info.Mode().Perm()&0o077 != 0 && info.Mode()&fs.ModeSocket == 0 {
			open++
			if open <= 3 {
				d.add("warn", "modes", "chmod go= "+path, "%s has mode %v", path, info.Mode().Perm())
			}
		}
		return nil
	})
	switch {
	case err != nil:
		d.add("fail", "modes", "run doctor as the owner of the state", "the state cannot be read: %v", err)
	case open > 3:
		d.add("warn", "modes", "chmod -R go= "+st.Dir(), "%d files of the state have modes for others; the state's own 0700 keeps them out", open)
	case open == 0:
		d.add("ok", "modes", "", "nothing in the state may be read by others")
	}
}

func checkDisk(d *diagnosis, st node.State) {
	free, kind, err := filesystem(st.Dir())
	if err != nil {
		d.add("warn", "disk", "", "the file system cannot be asked: %v", err)
		return
	}
	switch kind {
	case "tmpfs":
		d.add("warn", "disk", "put the state on a disk: --state DIR", "the state is in memory (tmpfs): a restart of the machine loses it")
	case "nfs", "cifs", "vfat", "fuse":
		d.add("warn", "disk", "put the state on a local ext4 or xfs", "the state is on %s, which may keep neither modes nor syncs", kind)
	default:
		d.add("ok", "disk", "", "the state is on %s", kind)
	}
	if free < minFreeBytes {
		d.add("fail", "space", "make room: writes are refused before the disk is full", "%s are left on the disk", bytesText(free))
		return
	}
	d.add("ok", "space", "", "%s are free", bytesText(free))
}

// checkClock looks for a clock that nobody keeps, or that went back.
func checkClock(d *diagnosis, st node.State, doc estateStatus) {
	for _, n := range doc.Nodes {
		if r, err := st.Runtime(n.Name); err == nil && r.Started.After(time.Now().Add(time.Minute)) {
			d.add("fail", "clock", "set the clock, then restart the nodes", "node %s says it started at %s, which is yet to come", n.Name, r.Started.Format(time.RFC3339))
			return
		}
	}
	if synced, known := clockSynced(); known && !synced {
		d.add("warn", "clock", "run a time service: credentials and retention go by the clock", "no time service keeps the clock; it reads %s", time.Now().UTC().Format(time.RFC3339))
		return
	}
	d.add("ok", "clock", "", "it reads %s", time.Now().UTC().Format(time.RFC3339))
}

// checkNode asks a node's faces for their certificate, as a client would.
func checkNode(d *diagnosis, st node.State, n nodeStatus) {
	name := "node " + string(n.Name)
	if n.State != node.Ready {
		d.add("warn", name, "redoubt up --detach", "is %s", n.State)
		return
	}
	cert, err := readCA(st.CAFile(n.Name))
	if err != nil {
		d.add("fail", name, "restart the node: it writes its certificate anew", "%v", err)
		return
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	for _, address := range []string{n.S3URL, n.APIURL} {
		u, err := url.Parse(address)
		if err != nil || u.Scheme == "http" {
			d.add("warn", name, "leave tls out of the estate to turn it on", "%s is in clear, as the estate says", address)
			continue
		}
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", u.Host, &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13})
		if err != nil {
			d.add("fail", name, "redoubt status; the node's log says more: "+st.LogFile(n.Name), "%s does not answer: %v", address, err)
			continue
		}
		cs := c.ConnectionState()
		c.Close()
		d.add("ok", name, "", "%s answers over %s with %v", address, tls.VersionName(cs.Version), cs.CurveID)
	}
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
			for _, addr := range dials {
				s.Outbound = append(s.Outbound, outbound{string(n.Name), addr, "node " + string(n.Name)})
			}
		}
		if cert, err := readCA(st.CAFile(n.Name)); err == nil {
			s.Roots = append(s.Roots, root{"TLS authority of node " + string(n.Name), "node " + string(n.Name) + ", key sealed in its state", fingerprint(cert), cert.NotAfter.UTC().Format(time.RFC3339)})
		}
		holder := "its passphrase or key file, outside the state"
		if e != nil {
			holder = "a key file in the state: an exercise"
		}
		if n.State != node.Stopped || dirExists(st.NodeDir(n.Name)) {
			s.Roots = append(s.Roots, root{What: "keyring of node " + string(n.Name), Owner: holder})
		}
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

func dirExists(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

func faceAt(n nodeStatus, address string) string {
	for face, u := range map[string]string{"s3": n.S3URL, "api": n.APIURL} {
		if p, err := url.Parse(u); err == nil && p.Host == address {
			return face
		}
	}
	return "unknown"
}

func (a *app) diagnosisText(d *diagnosis) error {
	for _, f := range d.Findings {
		fmt.Fprintf(a.out, "%-4s  %s: %s\n", f.Level, f.Check, f.Detail)
		if f.Hint != "" {
			fmt.Fprintf(a.out, "      hint: %s\n", f.Hint)
		}
	}
	if s := d.Sovereignty; s != nil {
		fmt.Fprintf(a.out, "\noutbound addresses: ")
		if len(s.Outbound) == 0 {
			fmt.Fprintln(a.out, "none")
		}
		for _, o := range s.Outbound {
			fmt.Fprintf(a.out, "\n  %s by %s", o.Address, o.Owner)
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
	return nil
}
