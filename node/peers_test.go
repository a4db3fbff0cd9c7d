package node

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
)

func TestADeviceHasASocketForEachWayOut(t *testing.T) {
	at := netip.MustParseAddrPort
	routes := map[netip.AddrPort]string{at("192.0.2.1:1"): "10.0.0.1", at("192.0.2.2:1"): "10.0.0.1", at("198.51.100.1:1"): "10.9.0.1"}
	source := func(home netip.AddrPort) (netip.Addr, error) {
		if a, ok := routes[home]; ok {
			return netip.ParseAddr(a)
		}
		return netip.Addr{}, errors.New("no route")
	}
	for _, c := range []struct {
		homes []netip.AddrPort
		want  []string
	}{
		{nil, nil},
		{[]netip.AddrPort{at("203.0.113.1:1")}, nil},
		{[]netip.AddrPort{at("192.0.2.1:1"), at("192.0.2.2:1")}, nil},
		{[]netip.AddrPort{at("203.0.113.1:1"), at("192.0.2.1:1"), at("198.51.100.1:1"), at("192.0.2.2:1")}, []string{"10.9.0.1"}},
	} {
		var got []string
		for _, a := range otherSources(c.homes, source) {
			got = append(got, a.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v: got %v beside the first, want %v", c.homes, got, c.want)
		}
	}
	if a, err := sourceTo(at("127.0.0.1:9")); err != nil || !a.IsLoopback() {
		t.Errorf("to this machine itself: %v, %v", a, err)
	}
}
