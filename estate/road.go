package estate

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Road is the one-way road between the halves of a guard: datagrams that go up. The zero Road is on one machine, over its loopback.
type Road struct {
	Listen string `json:"listen,omitempty"` // ADDRESS:PORT of the high half; with it the halves run apart, each by itself
	From   string `json:"from,omitempty"`   // the address that the low half sends from; none: as the machine's routes say
	Pace   int64  `json:"pace,omitempty"`   // bits a second; 0: as the guard chooses
	Hold   int64  `json:"hold,omitempty"`   // bytes of disk that one bundle may take at the high half; 0: as its disk says
}

// Apart says whether the halves run each by itself, on a machine of its own.
func (r Road) Apart() bool { return r.Listen != "" }

// The paces of a road.
const (
	MinPace = 1_000_000
	MaxPace = 10_000_000_000
)

// What a road may be told to hold: no less than what comes together in memory, and no more than any disk has.
const (
	MinHold = 1 << 30
	MaxHold = 1 << 50
)

var paceUnits = []struct {
	word string
	bits int64
}{{"kbit", 1e3}, {"Mbit", 1e6}, {"Gbit", 1e9}}

// pace reads bits a second, such as 800Mbit.
func (r *reader) pace(n *yaml.Node, path string) int64 {
	s := r.text(n, path)
	for _, u := range paceUnits {
		digits, ok := strings.CutSuffix(s, u.word)
		if !ok {
			continue
		}
		if v, err := strconv.ParseInt(digits, 10, 32); err == nil && v >= 1 && v*u.bits >= MinPace && v*u.bits <= MaxPace {
			return v * u.bits
		}
	}
	if s != "" {
		r.fault(n, path, printable(s)+" is not a pace", "write 1Mbit to 10Gbit, each of a second: 800Mbit")
	}
	return 0
}

func (r *reader) road(n *yaml.Node, path string) (road Road) {
	r.mapping(n, path,
		field{"listen", false, func(n *yaml.Node, p string) {
			if road.Listen = r.text(n, p); road.Listen == "" {
				return
			}
			at, err := netip.ParseAddrPort(road.Listen)
			if err != nil || at.Port() == 0 || !single(at.Addr()) {
				r.fault(n, p, printable(road.Listen)+" is not an address and a port that one machine has", "write 10.9.0.2:4790")
				road.Listen = ""
			}
		}},
		field{"from", false, func(n *yaml.Node, p string) {
			if road.From = r.text(n, p); road.From == "" {
				return
			}
			if from, err := netip.ParseAddr(road.From); err != nil || !single(from) {
				r.fault(n, p, printable(road.From)+" is not an address that one machine has", "write 10.9.0.1")
				road.From = ""
			}
		}},
		field{"pace", false, func(n *yaml.Node, p string) { road.Pace = r.pace(n, p) }},
		field{"hold", false, func(n *yaml.Node, p string) {
			if road.Hold = r.size(n, p); road.Hold != 0 && (road.Hold < MinHold || road.Hold > MaxHold) {
				r.fault(n, p, "the high half holds 1GiB to 1024TiB", "write what the largest version has, and an eighth more: 2TiB")
				road.Hold = 0
			}
		}})
	return road
}

// single says whether an address is one machine's.
func single(a netip.Addr) bool { return !a.IsUnspecified() && !a.IsMulticast() && a.Zone() == "" }

// checkRoad looks at the road of a guard, and at the keys that its halves have where they run apart.
func (r *reader) checkRoad(n *Node, path string) {
	g := n.Guard
	switch {
	case g.Road.Apart() && r.estate.Exercise:
		r.faultAt(path+".road.listen", "in an exercise both halves of a guard run on one machine, for one state holds all its keys", "remove listen, or see to a real estate")
	case g.Road.Apart() && n.Machine != "":
		r.faultAt(path+".machine", "the halves of the guard run apart, so it is on no one machine", "remove machine")
	case !g.Road.Apart() && g.Road.From != "":
		r.faultAt(path+".road.from", "is of a road that leads to another machine", "add listen, or remove from")
	case !g.Road.Apart() && g.ReleaseKey != "":
		r.faultAt(path+".release_key", "is of a guard whose halves run apart: one that runs on one machine releases by low_key", "add road: {listen: ADDRESS:PORT}, or remove release_key")
	case g.ReleaseKey != "" && (g.ReleaseKey == g.LowKey || g.ReleaseKey == g.HighKey):
		r.faultAt(path+".release_key", "is another of the guard's keys", "redoubt guard key prints each")
	case g.ReleaseKey != "" && !validName(string(n.Name)+releaseSuffix):
		r.faultAt(path+".name", "is too long: who brings releases is named NAME"+releaseSuffix, fmt.Sprintf("names have %d letters at most", MaxNameLength))
	}
	if at, err := netip.ParseAddrPort(g.Road.Listen); err == nil && g.Road.From != "" {
		if from, err := netip.ParseAddr(g.Road.From); err == nil && (from.Unmap().Is4() != at.Addr().Unmap().Is4() || from.IsLoopback() != at.Addr().IsLoopback()) {
			r.faultAt(path+".road.from", "does not lead to "+g.Road.Listen, "both are of IPv4 or of IPv6, and both of this machine alone or neither")
		}
	}
}
