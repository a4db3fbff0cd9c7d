package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"redoubt"
	"redoubt/compute/kube"
	"redoubt/estate"
	"redoubt/guard/filter"
	"redoubt/node"
	"redoubt/sandbox"
	"redoubt/workers"
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

// checkClusters says whether the clusters that the estate gives to nodes can be used from this machine.
func checkClusters(ctx context.Context, d *diagnosis, e *estate.Estate) {
	if e == nil {
		return
	}
	for _, n := range e.Nodes {
		o, ok := workers.Cluster(e, n)
		if !ok {
			continue
		}
		within, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := kube.Check(within, o)
		cancel()
		switch {
		case err != nil:
			d.add("warn", "jobs", hintFor(err), "the cluster of node %s cannot be used: %s", n.Name, plain(err))
		case o.RuntimeClass == kube.NoRuntimeClass:
			d.add("warn", "jobs", "name gVisor's RuntimeClass in the estate (kubernetes, runtime_class)", "the cluster of node %s answers; its pods stand on its machines' own kernel", n.Name)
		default:
			d.add("ok", "jobs", "", "the cluster of node %s answers, and has RuntimeClass %s", n.Name, o.RuntimeClass)
		}
	}
}

// checkDrivers says what runs jobs on this machine.
func checkDrivers(d *diagnosis) {
	drivers, err := workers.Local(nil)
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
