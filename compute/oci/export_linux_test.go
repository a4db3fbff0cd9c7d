package oci

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
