package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"path/filepath"
	"time"

	"redoubt"
	"redoubt/keys"
	"redoubt/node"
	"redoubt/tpm"
)

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
	free, _, kind, err := filesystem(st.Dir())
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

// checkStopped looks at what the start of a node that is down needs.
func checkStopped(d *diagnosis, st node.State, n nodeStatus, unlock keys.Unlock) {
	name := "node " + string(n.Name)
	if err := st.NotWiped(n.Name); errors.Is(err, redoubt.Erased) {
		d.add("warn", name, hintFor(err), "is %s: the device was wiped by order of its home", n.State)
		return
	}
	hint := "redoubt up --detach"
	if n.State == node.Failed {
		hint = "redoubt serve " + string(n.Name) + " shows why; its log is " + st.LogFile(n.Name)
	}
	d.add("warn", name, hint, "is %s", n.State)
	if n.PID != 0 {
		return // it starts: its keyring is in use
	}
	if err := node.Inspect(st, n.Name, unlock); err != nil {
		d.add("fail", name, hintFor(err), "would not start: %s", plain(err))
		return
	}
	d.add("ok", name, "", "its keyring and its store's format are in order")
}

// trying is what h gives to try on the keyring of a node that is down; nil to look at it only.
func (a *app) trying(st node.State, name redoubt.NodeName, h holder) keys.Unlock {
	switch {
	case h.tpm != "" && sealedByTPM(st, name, false):
		return tpm.Seal{Chip: *h.chip(), PIN: a.pin}
	case h.keyFile != "":
		return keys.KeyFile(h.keyFile)
	}
	return nil
}

// checkNode asks a node's faces for their certificate, as a client would.
func checkNode(d *diagnosis, st node.State, n nodeStatus) {
	name := "node " + string(n.Name)
	if n.APIURL == "" && n.S3URL == "" { // a guard, which listens nowhere
		switch {
		case n.Half != "" && len(n.halves) == 1:
			d.add("ok", name, "", "%s", whichHalves(n.Half))
		case n.Half != "":
			d.add("warn", name, "its log is "+st.LogFile(n.Name), "the guard's %s half, which is to run here, does not; how the other does is not known here", n.Half)
		case len(n.halves) == 2:
			d.add("ok", name, "", "the guard and both halves of its raise run")
		default:
			d.add("warn", name, "its log is "+st.LogFile(n.Name), "%d of the 2 halves of its raise run", len(n.halves))
		}
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
