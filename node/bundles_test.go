package node

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"redoubt"
	"redoubt/keys"
	"redoubt/replica"
)

func TestALeaseThatComesInABundleIsTheHomesAndTheNewestCounts(t *testing.T) {
	dir := t.TempDir()
	ring, err := keys.Create(filepath.Join(dir, "keyring"), keys.KeyFile(filepath.Join(dir, "key")), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	home := ed25519.NewKeyFromSeed(make([]byte, 32))
	d := &deviceSide{dir: dir, ring: ring, name: "outpost", home: "secret", homeKey: home.Public().(ed25519.PublicKey),
		clock: func() time.Time { return now }, log: slog.New(slog.DiscardHandler), ran: time.Now()}
	note := func(issued time.Time, by ed25519.PrivateKey) replica.Note {
		l := redoubt.Lease{Device: "outpost", Home: "secret", DeviceKey: d.publicKey(), HomeKey: base64.StdEncoding.EncodeToString(by.Public().(ed25519.PublicKey)),
			Issued: issued, Expires: issued.Add(time.Hour)}
		l.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(by, redoubt.LeaseMessage(l)))
		body, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		return replica.Note{Kind: noteLease, Body: body}
	}
	p := &peers{device: d}
	tell := func(from redoubt.NodeName, n replica.Note, want time.Time) {
		t.Helper()
		if err := p.notedByFile(context.Background(), from, n); err != nil {
			t.Fatal(err)
		}
		if got := d.lease().Issued; !got.Equal(want) {
			t.Errorf("the lease is of %v, want %v", got, want)
		}
	}
	tell("secret", note(now, home), now)
	tell("secret", note(now.Add(time.Minute), home), now.Add(time.Minute))
	tell("secret", note(now, home), now.Add(time.Minute)) // an older stick
	tell("ship", note(now.Add(time.Hour), home), now.Add(time.Minute))
	tell("secret", replica.Note{Kind: "of a later version"}, now.Add(time.Minute))
	tell("secret", replica.Note{Kind: noteWipe, Body: []byte("now")}, now.Add(time.Minute)) // it is told at a meeting, and nowhere else
	forged := ed25519.NewKeyFromSeed(append(make([]byte, 31), 1))
	if err := p.notedByFile(context.Background(), "secret", note(now.Add(time.Hour), forged)); !errors.Is(err, redoubt.Denied) {
		t.Errorf("a lease of another's: %v", err)
	}
	if err := (&peers{}).notedByFile(context.Background(), "outpost", note(now, forged)); err != nil {
		t.Errorf("what a device says to an enclave is of no account: %v", err)
	}
}
