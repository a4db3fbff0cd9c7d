package node

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"redoubt"
	"redoubt/estate"
	"redoubt/keys"
	"redoubt/tpm"
	"redoubt/tpm/tpmtest"
)

// field is a device's folder, with a lease of an hour that began at a clock that stands still.
type field struct {
	t      *testing.T
	dir    string
	ring   *keys.Keyring
	now    time.Time
	issued int // leases
}

func newField(t *testing.T) *field {
	t.Helper()
	dir := t.TempDir()
	ring, err := keys.Create(filepath.Join(dir, "keyring"), keys.KeyFile(filepath.Join(dir, "key")), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ring.Close() })
	return &field{t: t, dir: dir, ring: ring, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
}

// lease is one that the home gives now.
func (f *field) lease(d *deviceSide) redoubt.Lease {
	home := ed25519.NewKeyFromSeed(make([]byte, 32))
	f.issued++
	from := f.now.Add(time.Duration(f.issued) * time.Second)
	l := redoubt.Lease{Device: "outpost", Home: "secret", DeviceKey: d.publicKey(), HomeKey: base64.StdEncoding.EncodeToString(home.Public().(ed25519.PublicKey)), Issued: from, Expires: from.Add(time.Hour)}
	l.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(home, redoubt.LeaseMessage(l)))
	return l
}

// enrolled is the device as it is after it was enrolled at c.
func (f *field) enrolled(c *chip) *deviceSide {
	f.t.Helper()
	d := &deviceSide{dir: f.dir, ring: f.ring, name: "outpost", home: "secret", chip: c, clock: func() time.Time { return f.now }, log: slog.New(slog.DiscardHandler), ran: time.Now()}
	if err := d.take(f.lease(d)); err != nil {
		f.t.Fatal(err)
	}
	return d
}

// start starts it at c.
func (f *field) start(c *chip) (*deviceSide, error) {
	return openDevice(context.Background(), f.dir, f.ring, estate.Node{Name: "outpost", Home: "secret"}, nil, func() time.Time { return f.now }, c, slog.New(slog.DiscardHandler))
}

func (f *field) wantLapsed(c *chip, want bool, what string) {
	f.t.Helper()
	d, err := f.start(c)
	if err != nil {
		f.t.Fatalf("%s: %v", what, err)
	}
	if got := d.lapsed(); got != want {
		f.t.Errorf("%s: the lease has ended: %v, want %v, after %v", what, got, want, d.used())
	}
}

// copyOf keeps a device's enrolment, for putting it back.
func (f *field) copyOf() (putBack func()) {
	f.t.Helper()
	path := filepath.Join(f.dir, enrolmentFile)
	data, err := os.ReadFile(path)
	if err != nil {
		f.t.Fatal(err)
	}
	return func() {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
}

func TestADiskThatIsPutBackWinsNoTimeOfALease(t *testing.T) {
	f := newField(t)
	powered := 1000 * time.Hour
	c := &chip{id: "the chip", clock: func() (time.Duration, error) { return powered, nil }}
	d := f.enrolled(c)
	putBack := f.copyOf()
	powered += 30 * time.Minute // and the machine's clock says nothing of it
	f.wantLapsed(c, false, "half of it is over")
	putBack()
	powered += 29 * time.Minute
	f.wantLapsed(c, false, "nearly all of it is")
	putBack()
	powered += 2 * time.Minute
	f.wantLapsed(c, true, "all of it is, and the disk says otherwise")
	f.wantLapsed(nil, true, "what the TPM counted is kept")
	if err := d.take(f.lease(d)); err != nil {
		t.Fatal(err)
	}
	f.wantLapsed(c, false, "another lease")
}

func TestWithoutThePutBackDiskTheSameIsCountedByItself(t *testing.T) {
	f := newField(t)
	f.enrolled(nil)
	putBack := f.copyOf()
	for range 5 {
		f.wantLapsed(nil, false, "ten seconds a start")
	}
	d, err := f.start(nil)
	if err != nil || d.used() < 50*time.Second { // what the last one paid is yet to be used
		t.Errorf("six starts cost %v, %v", d.used(), err)
	}
	putBack() // this is what a TPM is for
	if d, err = f.start(nil); err != nil || d.used() > 20*time.Second {
		t.Errorf("without a TPM a disk that is put back costs %v, %v", d.used(), err)
	}
}

func TestALeaseThatWasNotTakenUnderThisTPMHasEnded(t *testing.T) {
	for what, was := range map[string]*chip{
		"none":                 nil,
		"another":              {id: "another", clock: func() (time.Duration, error) { return 119 * time.Minute, nil }},
		"one of a later clock": {id: "the chip", clock: func() (time.Duration, error) { return 3 * time.Hour, nil }},
	} {
		f := newField(t)
		f.enrolled(was)
		c := &chip{id: "the chip", clock: func() (time.Duration, error) { return 2 * time.Hour, nil }}
		f.wantLapsed(c, true, what)
		f.wantLapsed(c, true, what+", again")
	}
}

func TestATPMThatDoesNotAnswerStartsNoDeviceAndTakesNoLease(t *testing.T) {
	f := newField(t)
	broken := errors.New("no answer")
	var err error
	c := &chip{id: "the chip", clock: func() (time.Duration, error) { return time.Hour, err }}
	d := f.enrolled(c)
	err = broken
	if _, got := f.start(c); !errors.Is(got, broken) {
		t.Errorf("got %v", got)
	}
	before := d.lease()
	if got := d.take(f.lease(d)); !errors.Is(got, broken) || d.lease() != before {
		t.Errorf("got %v, and the lease of %v", got, d.lease().Issued)
	}
}

func TestADeviceThatATPMSealsNeedsItNamed(t *testing.T) {
	m := tpmtest.Start(t)
	f := newField(t)
	here := &tpm.Chip{Path: m.Path}
	if c, err := sealingChip(f.dir, here); c != nil || err != nil {
		t.Errorf("a key file holds it: got %v, %v", c, err)
	}
	recovery := keys.KeyFile(filepath.Join(f.dir, "recovery"))
	if err := f.ring.ChangeUnlock(keys.Several(tpm.Seal{Chip: *here, PCRs: tpm.DefaultPCRs}, recovery)); err != nil {
		t.Fatal(err)
	}
	if _, err := sealingChip(f.dir, nil); !errors.Is(err, redoubt.Unavailable) {
		t.Errorf("a TPM holds it and is not named: got %v, want Unavailable", err)
	}
	c, err := sealingChip(f.dir, here)
	if err != nil {
		t.Fatal(err)
	}
	f.wantLapsedAfter(c, false, m.Off, m.On)

	// Another TPM that the keyring is sealed to with the recovery: its clock says nothing of the lease.
	other := tpmtest.Start(t)
	if err := f.ring.ChangeUnlock(keys.Several(tpm.Seal{Chip: tpm.Chip{Path: other.Path}, PCRs: tpm.DefaultPCRs}, recovery)); err != nil {
		t.Fatal(err)
	}
	if c, err = sealingChip(f.dir, &tpm.Chip{Path: other.Path}); err != nil {
		t.Fatal(err)
	}
	f.wantLapsed(c, true, "another TPM")
}

// wantLapsedAfter enrols at c, and does things to the machine before the device starts again.
func (f *field) wantLapsedAfter(c *chip, want bool, do ...func() error) {
	f.t.Helper()
	f.enrolled(c)
	for _, step := range do {
		if err := step(); err != nil {
			f.t.Fatal(err)
		}
	}
	f.wantLapsed(c, want, "after the machine was off")
}
