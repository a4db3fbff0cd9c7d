package oci

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"redoubt/compute"
)

// Made counts the sandboxes that a driver has started for runs.
func Made(d *Driver) int { return int(d.made.Load()) }

// KillIdle ends the keepers of sandboxes that are kept, behind the driver's back.
func KillIdle(d *Driver) {
	d.pool.mu.Lock()
	defer d.pool.mu.Unlock()
	for _, b := range d.pool.idle {
		b.cmd.Process.Kill()
		<-b.ended
	}
}

// Dynamic reports whether the tests were built with cgo, as for the race detector: then nothing runs.
var Dynamic = dynamic

// WithoutGroups has a driver do without control groups, as where none may be had.
func WithoutGroups(d *Driver) { d.groups = &groups{why: "not in this test"} }

// TrustedWithoutGroups does so with a driver of runc.
func TrustedWithoutGroups(t *Trusted) { WithoutGroups(t.d) }

// GroupsOf gives the folders in which a driver makes control groups for memory: none, where none may be had.
func GroupsOf(d *Driver) string {
	if d.groups.v2 != "" {
		return d.groups.v2
	}
	return d.groups.v1["memory"]
}

// Weight gives the file that says what a control group of this name has of processors where others want them too, and what it says.
func Weight(d *Driver, name string) (file, want string) {
	if d.groups.v2 != "" {
		return filepath.Join(d.groups.v2, name, "cpu.weight.nice"), strconv.Itoa(niceness)
	}
	return filepath.Join(d.groups.v1["cpu"], name, "cpu.shares"), strconv.Itoa(niceShares)
}

// BeginTwice gives what a run says of a keeper that tells twice that the program has begun.
func BeginTwice() error {
	theirs, ours := net.Pipe()
	defer theirs.Close()
	defer ours.Close()
	go func() { // ends with the pipe
		w := newWire(theirs, maxFromNode)
		w.send(tellStarted, 0, nil)
		w.send(tellStarted, 0, nil)
		theirs.Close()
	}()
	r := &run{t: compute.Task{Timeout: time.Hour}, b: &box{wire: newWire(ours, maxFromKeep)}}
	_, err := r.serve(context.Background(), func() {}, func() {})
	r.timer.Stop()
	return err
}

// TakeAllUsers takes every range of users, and says whether one more is refused, and had again once one is given back.
func TakeAllUsers() error {
	var u users
	for range runcRanges {
		if _, err := u.take(); err != nil {
			return err
		}
	}
	if slot, err := u.take(); err == nil {
		return fmt.Errorf("%d is had twice", slot)
	}
	u.give(7)
	if slot, err := u.take(); slot != 7 || err != nil {
		return fmt.Errorf("got %d and %v", slot, err)
	}
	return nil
}
