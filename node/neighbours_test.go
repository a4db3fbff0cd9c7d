package node

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"redoubt"
	"redoubt/keys"
)

func TestANeighbourShowsALeaseThatStands(t *testing.T) {
	dir := t.TempDir()
	ring, err := keys.Create(filepath.Join(dir, "keyring"), keys.KeyFile(filepath.Join(dir, "key")), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	home := ed25519.NewKeyFromSeed(make([]byte, 32))
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	d := &deviceSide{name: "outpost", home: "secret", homeKey: home.Public().(ed25519.PublicKey), clock: func() time.Time { return now }, ring: ring}
	signed := func(by ed25519.PrivateKey, change func(*redoubt.Lease)) redoubt.Lease {
		l := redoubt.Lease{Device: "patrol", Home: "secret", DeviceKey: d.publicKey(), HomeKey: base64.StdEncoding.EncodeToString(d.homeKey), Issued: now.Add(-time.Hour), Expires: now.Add(time.Hour)}
		if change != nil {
			change(&l)
		}
		l.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(by, redoubt.LeaseMessage(l)))
		return l
	}
	check := func(l redoubt.Lease) error {
		cert, err := leased(ring, l)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := x509.ParseCertificate(cert.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return d.checkNeighbour(parsed, "patrol")
	}
	if err := check(signed(home, nil)); err != nil {
		t.Errorf("a lease that stands: %v", err)
	}
	stranger := ed25519.NewKeyFromSeed([]byte("another home's key of 32 bytes.."))
	altered := signed(home, nil)
	altered.Expires = altered.Expires.Add(time.Hour)
	for what, l := range map[string]redoubt.Lease{
		"one that another signed": signed(stranger, nil),
		"one of another home's key": signed(stranger, func(l *redoubt.Lease) {
			l.HomeKey = base64.StdEncoding.EncodeToString(stranger.Public().(ed25519.PublicKey))
		}),
		"one of another home":              signed(home, func(l *redoubt.Lease) { l.Home = "topsecret" }),
		"one of another device":            signed(home, func(l *redoubt.Lease) { l.Device = "other" }),
		"one of another key":               signed(home, func(l *redoubt.Lease) { l.DeviceKey = base64.StdEncoding.EncodeToString(d.homeKey) }),
		"one that was made longer":         altered,
		"one that has ended":               signed(home, func(l *redoubt.Lease) { l.Expires = now }),
		"one that begins after tomorrow's": signed(home, func(l *redoubt.Lease) { l.Issued, l.Expires = now.Add(24*time.Hour), now.Add(48*time.Hour) }),
	} {
		if err := check(l); !errors.Is(err, redoubt.Denied) && !errors.Is(err, redoubt.Expired) {
			t.Errorf("%s: %v, want it refused", what, err)
		}
	}
	plain, err := linkCertificate(ring, now)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(plain.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := d.checkNeighbour(parsed, "patrol"); !errors.Is(err, redoubt.Denied) {
		t.Errorf("a certificate without a lease: %v", err)
	}
}
