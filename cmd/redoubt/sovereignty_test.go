package main

import (
	"strings"
	"testing"

	"redoubt"
)

// A connection over TCP shows its far end: it is held against what the node tells.
func TestAConnectionThatTheNodeTellsOfIsNoFaultAndAnyOtherIs(t *testing.T) {
	n := nodeStatus{Name: "outpost", PID: 1, told: true, trusts: []redoubt.Trusted{
		{Node: "secret", As: redoubt.TrustedHome, Dials: []string{"10.0.0.1:4000", "10.0.0.2:4000"}},
		{Node: "picket", As: redoubt.TrustedNeighbour, Dials: []string{"[::ffff:10.0.0.3]:4000"}},
	}}
	diagnose := func(n nodeStatus, dials ...string) (diagnosis, *sovereignty) {
		var d diagnosis
		s := &sovereignty{Outbound: outboundOf(n, dials)}
		checkOutbound(&d, []nodeStatus{n}, s)
		return d, s
	}
	d, s := diagnose(n, "10.0.0.3:4000", "10.0.0.3:4000")
	if len(d.Findings) != 1 || d.Findings[0].Level != "ok" || !strings.Contains(d.Findings[0].Detail, "TCP connections to 1 of them") {
		t.Errorf("a connection to a neighbour: %+v", d.Findings)
	}
	if len(s.Outbound) != 3 || !s.Outbound[2].Seen || s.Outbound[2].Owner != "device picket, a neighbour" || s.Outbound[0].Seen || s.Outbound[1].Seen {
		t.Errorf("lists %+v", s.Outbound)
	}
	d, s = diagnose(n, "10.0.0.1:4000", "203.0.113.9:443")
	if len(d.Findings) != 1 || d.Findings[0].Level != "fail" {
		t.Errorf("a connection to a stranger: %+v", d.Findings)
	}
	if last := s.Outbound[len(s.Outbound)-1]; len(s.Outbound) != 4 || last.Told || last.Address != "203.0.113.9:443" || last.knownBy() != "a TCP connection alone" {
		t.Errorf("lists %+v", s.Outbound)
	}
	// One that has not answered is neither cleared nor accused.
	d, s = diagnose(nodeStatus{Name: "outpost", PID: 1}, "10.0.0.1:4000")
	if len(s.Outbound) != 1 || d.Findings[0].Level != "warn" || !strings.Contains(d.Findings[0].Detail, "has not told") || d.Findings[len(d.Findings)-1].Level == "fail" {
		t.Errorf("a node that has not told: %+v, %+v", d.Findings, s.Outbound)
	}
}

// What jobs may connect to is among what a node dials, and is believed by no key.
func TestADestinationIsDialledAndNotBelieved(t *testing.T) {
	n := nodeStatus{Name: "secret", PID: 1, told: true, trusts: []redoubt.Trusted{{Node: "secret", As: redoubt.TrustedDestination, Dials: []string{"192.0.2.7:443"}}}}
	if all := outboundOf(n, []string{"192.0.2.7:443"}); len(all) != 1 || !all[0].Told || !all[0].Seen || all[0].Owner != "what jobs of node secret may connect to, by the estate" {
		t.Errorf("lists %+v", all)
	}
	if roots := trustRoots(n); len(roots) != 0 {
		t.Errorf("believes %+v", roots)
	}
}
