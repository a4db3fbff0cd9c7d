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
