package node

import (
	"crypto/ed25519"
	"encoding/json"
	"net/netip"
	"testing"

	"redoubt"
)

func TestADeviceTellsEveryAddressThatItDialsAndEveryKeyThatItBelieves(t *testing.T) {
	key := func(b byte) ed25519.PublicKey {
		k := make(ed25519.PublicKey, ed25519.PublicKeySize)
		k[0] = b
		return k
	}
	d := &deviceSide{name: "outpost", home: "secret", homeKey: key(1), addresses: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:4000"), netip.MustParseAddrPort("10.0.0.2:4000")}}
	d.kept = enrolment{API: "https://home.example", Authority: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		Neighbours: []redoubt.Neighbour{{Device: "picket", Key: key(2), Bound: "SECRET", Addresses: []string{"10.0.0.3:4000"}}, {Device: "patrol", Key: key(3), Bound: "SECRET"}},
		Makers:     makersKeys{"secret": {key(1)}, "outpost": {key(9)}, "picket": {key(4), key(2)}}}
	p := &peers{device: d}
	got, _ := json.Marshal(p.trusts())
	want, _ := json.Marshal([]redoubt.Trusted{
		{Node: "secret", As: "home", Fingerprint: keyPrint(key(1)), Dials: []string{"10.0.0.1:4000", "10.0.0.2:4000"}},
		{Node: "secret", As: "interface", Fingerprint: keyPrint([]byte{0, 0, 0}), Dials: []string{"home.example:443"}},
		{Node: "picket", As: "neighbour", Fingerprint: keyPrint(key(2)), Dials: []string{"10.0.0.3:4000"}},
		{Node: "patrol", As: "neighbour", Fingerprint: keyPrint(key(3))},
		{Node: "picket", As: "maker", Fingerprint: keyPrint(key(4))},
	})
	if string(got) != string(want) {
		t.Errorf("got %s\nwant %s", got, want)
	}
	d.kept.Neighbours, d.kept.Makers = nil, nil // as its home tells while it runs
	if now := p.trusts(); len(now) != 2 {
		t.Errorf("after its home told of no neighbour it tells of %+v", now)
	}
}
