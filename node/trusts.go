package node

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"maps"
	"net"
	"net/url"
	"slices"

	"redoubt"
)

// trusts is whom the node believes by a key and where it dials whom, as it stands now: what a home tells of neighbours and makers
// changes while the node runs. It covers every address that the node may dial, cut or silent as it may be.
func (p *peers) trusts() []redoubt.Trusted {
	if p.device != nil {
		return p.device.trusts()
	}
	var all []redoubt.Trusted
	links := p.cloud.Links()
	for _, name := range sortedNames(links) {
		as := redoubt.TrustedDevice
		switch links[name].Raise {
		case redoubt.RaisedAway:
			continue // nothing of it is believed
		case redoubt.RaisedHere:
			as = redoubt.TrustedLower
		}
		all = append(all, redoubt.Trusted{Node: name, As: as, Fingerprint: keyPrint(links[name].Key)})
	}
	return withMakers(all, p.name, p.cloud.Makers())
}

func (d *deviceSide) trusts() []redoubt.Trusted {
	d.mu.Lock()
	defer d.mu.Unlock()
	home := redoubt.Trusted{Node: d.home, As: redoubt.TrustedHome, Fingerprint: keyPrint(d.homeKey)}
	for _, a := range d.addresses {
		home.Dials = append(home.Dials, a.String())
	}
	all := []redoubt.Trusted{home, {Node: d.home, As: redoubt.TrustedInterface, Fingerprint: certificatePrint(d.kept.Authority), Dials: dialledBy(d.kept.API)}}
	for _, n := range d.kept.Neighbours {
		all = append(all, redoubt.Trusted{Node: n.Device, As: redoubt.TrustedNeighbour, Fingerprint: keyPrint(n.Key), Dials: slices.Clone(n.Addresses)})
	}
	return withMakers(all, d.name, d.kept.Makers)
}

// withMakers adds the keys of makers that are not among all, but for those of self.
func withMakers(all []redoubt.Trusted, self redoubt.NodeName, makers map[redoubt.NodeName][]ed25519.PublicKey) []redoubt.Trusted {
	type held struct {
		node redoubt.NodeName
		key  string
	}
	there := map[held]bool{}
	for _, t := range all {
		there[held{t.Node, t.Fingerprint}] = true
	}
	for _, name := range slices.Sorted(maps.Keys(makers)) {
		for _, k := range makers[name] {
			if print := keyPrint(k); name != self && name != "" && !there[held{name, print}] {
				all = append(all, redoubt.Trusted{Node: name, As: redoubt.TrustedMaker, Fingerprint: print})
			}
		}
	}
	return all
}

func keyPrint(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:])
}

// certificatePrint is that of the certificate in a PEM text; of none, "".
func certificatePrint(text string) string {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return ""
	}
	return keyPrint(block.Bytes)
}

// dialledBy is the address behind an HTTPS URL.
func dialledBy(base string) []string {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" {
		return nil
	}
	if u.Port() == "" {
		return []string{net.JoinHostPort(u.Hostname(), "443")}
	}
	return []string{u.Host}
}
