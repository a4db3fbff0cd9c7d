package main

import (
	"redoubt"
	"redoubt/estate"
)

// declaredNodes gives the nodes of the state as the estate declares them; none where no estate is known.
func declaredNodes(e *estate.Estate, doc estateStatus) (out []estate.Node) {
	if e == nil {
		return nil
	}
	for _, n := range doc.Nodes {
		if declared, ok := e.Node(n.Name); ok && declared.Kind != estate.KindGuard {
			out = append(out, declared)
		}
	}
	return out
}

// checkShares finds labels that nothing keeps from filling the disk for all others, and shares that are larger than it.
func checkShares(d *diagnosis, nodes []estate.Node, diskBytes int64) {
	var named int64
	for _, n := range nodes {
		if !limited(n) {
			d.add("warn", "node "+string(n.Name), "quotas: {default: SIZE} in the estate", "it has labels without a share: who writes at one can fill the disk for every other")
		}
		for marking, bytes := range n.Quotas {
			if marking != redoubt.QuotaOfOthers {
				named += min(bytes, maxShares-named)
			}
		}
	}
	switch {
	case len(nodes) == 0:
	case diskBytes > 0 && named > diskBytes:
		d.add("warn", "shares", "name smaller quotas in the estate, or put the state on a larger disk", "the shares that are named add up to %s, and the disk has %s: one label can be refused for what another stores", bytesText(named), bytesText(diskBytes))
	default:
		d.add("ok", "shares", "", "those that are named add up to %s", bytesText(named))
	}
}

// maxShares is where a sum of shares ends: far above any disk, and no overflow.
const maxShares = 1 << 62

// limited reports whether every label of a node has a share: one that is named, or the default.
func limited(n estate.Node) bool {
	if n.Quotas[redoubt.QuotaOfOthers] > 0 {
		return true
	}
	return n.Floor().Equivalent(n.Ceiling()) && n.Quotas[n.Range.Floor]+n.Quotas[n.Range.Ceiling] > 0
}
