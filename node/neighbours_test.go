package node

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"redoubt"
	"redoubt/enclave"
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
		_, err = d.checkNeighbour(shownLease(parsed), parsed.PublicKey, "patrol")
		return err
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
	if _, err := d.checkNeighbour(shownLease(parsed), parsed.PublicKey, "patrol"); !errors.Is(err, redoubt.Denied) {
		t.Errorf("a certificate without a lease: %v", err)
	}
}

func TestWhatAHomeSaysOfMakersIsTakenWholeAndNeverAnOlderWord(t *testing.T) {
	dir := t.TempDir()
	ring, err := keys.Create(filepath.Join(dir, "keyring"), keys.KeyFile(filepath.Join(dir, "key")), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	d := &deviceSide{dir: dir, ring: ring}
	p := &peers{cloud: new(enclave.Enclave)}
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tell := func(w homesWord) {
		t.Helper()
		body, err := json.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.toldMakers(p, body); err != nil {
			t.Fatal(err)
		}
	}
	key := func(b byte) []ed25519.PublicKey {
		return []ed25519.PublicKey{bytes.Repeat([]byte{b}, ed25519.PublicKeySize)}
	}
	tell(homesWord{Issued: at, More: true, Makers: makersKeys{"a": key(1)}})
	if len(d.kept.Makers) != 0 {
		t.Error("half a word was taken")
	}
	tell(homesWord{Issued: at, Makers: makersKeys{"a": key(2), "b": key(3)}})
	if len(d.kept.Makers) != 2 || len(d.kept.Makers["a"]) != 2 {
		t.Errorf("of two notes %v is kept", d.kept.Makers)
	}
	tell(homesWord{Issued: at.Add(-time.Hour), Makers: makersKeys{"captured": key(4)}})
	tell(homesWord{Issued: at, Makers: makersKeys{"captured": key(4)}})
	if len(d.kept.Makers) != 2 {
		t.Error("a word that lay in a bundle took the place of a newer one")
	}
	tell(homesWord{Issued: at.Add(time.Hour), Makers: makersKeys{"b": key(3)}})
	if len(d.kept.Makers) != 1 {
		t.Errorf("after a newer word %v is kept", d.kept.Makers)
	}
	for _, bad := range []string{"", "{", `{"issued":"2027-01-01T00:00:00Z"} {}`, `{"surprise":1}`, "[]"} {
		if err := d.toldMakers(p, []byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
