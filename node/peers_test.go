package node

import (
	"errors"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"
	"weak"

	"redoubt"
	"redoubt/carry"
	"redoubt/replica"
)

// heldConn is a connection with what had come over it.
type heldConn struct {
	carry.Conn
	come []byte
}

// TestAMeetingThatIsOverHoldsNothingOfWhatCame: a home has a last meeting with each of its devices, and each may have left in the middle of large versions.
func TestAMeetingThatIsOverHoldsNothingOfWhatCame(t *testing.T) {
	conn := &heldConn{come: make([]byte, 1<<20)}
	m := &meeting{conn: conn, session: replica.New(replica.Options{Conn: conn, Rate: func() float64 { return float64(len(conn.come)) }})}
	held, met := weak.Make(conn), weak.Make(m.session)
	conn = nil
	at := time.Date(2026, 3, 1, 12, 0, 30, 0, time.UTC)
	m.end(at)
	runtime.GC()
	if held.Value() != nil || met.Value() != nil {
		t.Error("the connection or the session is held")
	}
	p, s := &peers{meetings: map[redoubt.NodeName]*meeting{"outpost": m}}, redoubt.LinkStatus{Peer: "outpost"}
	p.describe(&s, func(string) bool { return true }, true)
	if !s.LastContact.Equal(at.Truncate(contactGrain)) || s.State == "up" {
		t.Errorf("told %+v", s)
	}
}

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
