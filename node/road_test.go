package node

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"redoubt"
	"redoubt/carry/diode"
	"redoubt/estate"
)

// TestAHalfThatRunsApartHasTheKeysOfItsOwnSideAlone, and needs nothing of the other enclave but the key that the estate pins.
func TestAHalfThatRunsApartHasTheKeysOfItsOwnSideAlone(t *testing.T) {
	spec := &estate.GuardSpec{Low: "low", High: "high", LowKey: "l", HighKey: "h", ReleaseKey: "r", Road: estate.Road{Listen: "10.9.0.2:4790", From: "10.9.0.1", Pace: 5_000_000}}
	for side, want := range map[string][]string{"": {"low_key", "high_key"}, HalfLow: {"low_key"}, HalfHigh: {"high_key", "release_key"}} {
		var got []string
		for _, k := range guardSecrets(side, spec) {
			got = append(got, k.field)
		}
		if !slices.Equal(got, want) {
			t.Errorf("the half %q has %q, want %q", side, got, want)
		}
	}
	for side, enclave := range map[string]redoubt.NodeName{HalfLow: "low", HalfHigh: "high"} {
		s := State{dir: t.TempDir()}
		g := &guardSide{side: side, declared: estate.Node{Name: "guard", Kind: estate.KindGuard, Guard: spec}, exercise: true, state: s, dir: s.NodeDir("guard"),
			trusts: map[redoubt.NodeName]redoubt.Trusted{}, tell: func([]redoubt.Trusted, []int) {}, seeds: map[redoubt.NodeName][]byte{enclave: []byte("seed")}}
		key := make([]byte, diode.KeyBytes)
		if err := g.openRoad(key); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(g.dir, roadFile)); err == nil {
			t.Error("the road's key, which was brought, is kept in the state")
		}
		if err := os.MkdirAll(s.NodeDir(enclave), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := writeJSON(filepath.Join(s.NodeDir(enclave), cardFile), Card{Node: enclave, API: "https://" + string(enclave)}); err != nil {
			t.Fatal(err)
		}
		if spec.Pins = nil; side == HalfHigh { // whose state has no card of the lower enclave's
			spec.Pins = map[string]estate.Pin{"low": {Key: "key of low"}}
		}
		c, err := g.half(side)
		if err != nil {
			t.Fatalf("%s: %v", side, err)
		}
		if c.Card.Node != enclave || c.Road != "10.9.0.2:4790" || c.Pace != 5_000_000 || (side == HalfLow) != (c.From == "10.9.0.1") || (side == HalfHigh) != (c.LowKey == "key of low") {
			t.Errorf("the half %s is told %+v", side, c)
		}
	}
}

// TestNeitherFormOfAGuardIsStartedAsTheOther: the estate says which it is.
func TestNeitherFormOfAGuardIsStartedAsTheOther(t *testing.T) {
	apart, one := estate.Road{Listen: "10.9.0.2:4790"}, estate.Road{Pace: 5_000_000}
	for _, c := range []struct {
		side string
		key  int
		road estate.Road
		fits bool
	}{
		{"", 0, one, true}, {HalfLow, 32, apart, true}, {HalfHigh, 32, apart, true},
		{"", 0, apart, false}, {HalfLow, 32, one, false}, {HalfHigh, 0, apart, false}, {"both", 32, apart, false},
	} {
		declared := estate.Node{Name: "guard", Guard: &estate.GuardSpec{Road: c.road}}
		if err := fitSide(Options{Side: c.side, RoadKey: make([]byte, c.key)}, nil, declared); (err == nil) != c.fits {
			t.Errorf("%q with %d bytes of key over %+v: %v", c.side, c.key, c.road, err)
		}
	}
}

// TestADatagramGoesWholeWhereItIsKnownTo: as long as the interface that it leaves by carries, and short where that is not known.
func TestADatagramGoesWholeWhereItIsKnownTo(t *testing.T) {
	for _, c := range []struct {
		road, from string
		want       int
	}{
		{"127.0.0.1:4790", "", homeAtOne}, {"[::1]:4790", "", homeAtOne}, {"10.9.0.2:4790", "", diode.DefaultDatagram}, {"10.9.0.2:4790", "192.0.2.77", diode.DefaultDatagram},
	} {
		if got := roadDatagram(HalfConfig{Road: c.road, From: c.from}); got != c.want {
			t.Errorf("to %s from %q: %d bytes, want %d", c.road, c.from, got, c.want)
		}
	}
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			ip, _, err := net.ParseCIDR(a.String())
			if err != nil || ip.To4() == nil {
				continue
			}
			if got := roadDatagram(HalfConfig{Road: "192.0.2.1:4790", From: ip.String()}); got > mostAtOne || got > i.MTU-28 || got < diode.MinDatagram {
				t.Errorf("from %s, whose interface carries %d: %d bytes", ip, i.MTU, got)
			}
		}
	}
}

func TestAHalfRunsOnAsManyProcessorsAsItHasUseFor(t *testing.T) {
	for _, c := range []struct {
		side, road        string
		all, queued, want int
	}{
		{HalfLow, "127.0.0.1:4000", 2, 0, 1}, {HalfLow, "127.0.0.1:4000", 1, 0, 1}, {HalfLow, "127.0.0.1:4000", 9, 0, 2}, {HalfLow, "10.9.0.2:4790", 8, 0, 8},
		{HalfHigh, "127.0.0.1:4000", 8, 64 << 20, 2}, {HalfHigh, "[::1]:4000", 2, queuedForOne, 1}, {HalfHigh, "127.0.0.1:4000", 2, queuedForOne - 1, 2}, {HalfHigh, "10.9.0.2:4790", 8, 64 << 20, 8},
		{HalfHigh, "", 4, 64 << 20, 4},
	} {
		if n := (HalfConfig{Side: c.side, Road: c.road}).Processors(c.all, c.queued); n != c.want {
			t.Errorf("the %s half at %q, with %d queued, has %d of %d, want %d", c.side, c.road, c.queued, n, c.all, c.want)
		}
	}
}
