package oci

// Made counts the sandboxes that a driver has started for runs.
func Made(d *Driver) int { return int(d.made.Load()) }
