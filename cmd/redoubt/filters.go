package main

import (
	"context"
	"errors"
	"maps"
	"slices"

	"redoubt"
	"redoubt/estate"
	"redoubt/guard/filter"
	"redoubt/node"
	"redoubt/sandbox"
)

// checkFilters says which types a guard of this machine can release: those of which both filters are here, and whether the kernel walls them in.
func checkFilters(ctx context.Context, d *diagnosis, nodes []nodeStatus) {
	if !slices.ContainsFunc(nodes, func(n nodeStatus) bool { return n.Kind == estate.KindGuard && n.Half != node.HalfLow }) {
		return
	}
	all, err := filter.Available(ctx)
	if err != nil {
		d.add("fail", "filters", hintFor(err), "nothing can be walled in here, so nothing is released: %s", plain(err))
		return
	}
	lacking := map[string]bool{}
	for _, b := range all {
		if b.Err == nil {
			continue
		}
		lacking[b.Type] = true
		hint := ""
		if e, ok := errors.AsType[*redoubt.Error](b.Err); ok {
			hint = e.Hint
		}
		d.add("warn", "filters", hint, "%s is not released here: its filter %s is lacking", b.Type, b.Name)
	}
	types := 0
	for _, t := range filter.Types() {
		if !lacking[t] {
			types++
		}
	}
	d.add("ok", "filters", "", "%d of %d types have both filters here", types, len(filter.Types()))
}

// checkDrivers says what runs jobs on this machine.
func checkDrivers(d *diagnosis) {
	drivers, err := node.Drivers(nil)
	if err != nil {
		d.add("warn", "jobs", hintFor(err), "images cannot run here: %s", plain(err))
	}
	for _, name := range slices.Sorted(maps.Keys(drivers)) {
		if err := drivers[name].Available(); err != nil {
			hint := ""
			if e, ok := errors.AsType[*redoubt.Error](err); ok {
				hint = e.Hint
			}
			d.add("warn", "jobs", hint, "the driver %s cannot run here: %s", name, plain(err))
		} else {
			d.add("ok", "jobs", "", "the driver %s runs here", name)
			if c, ok := drivers[name].(interface{ Details() []sandbox.Mechanism }); ok {
				for _, m := range c.Details() {
					d.add("ok", "jobs", "", "%s: %s", m.Name, m.Detail)
				}
			}
		}
		drivers[name].Close()
	}
}
