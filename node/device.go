package node

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"redoubt"
	"redoubt/client"
	"redoubt/estate"
	"redoubt/keys"
	"redoubt/replica"
)

// Invitation is the file that brings a device to its home: where the home is, whom to believe, and a token that lets
// one device enrol, once. Whoever has it may enrol as that device.
type Invitation struct {
	redoubt.Invitation
	API       string   `json:"api_url"`
	Authority string   `json:"authority"` // the certificate of the home's authority, PEM
	Peers     []string `json:"peers"`     // addresses where the home meets its devices, UDP and TCP
}

// invitationFile is where a device looks for an invitation at its first start; it is removed when it was used.
const invitationFile = "invitation.json"

// WriteInvitation makes path (mode 0600).
func WriteInvitation(path string, inv Invitation) error { return writeJSON(path, inv) }

// ReadInvitation reads one strictly.
func ReadInvitation(path string) (inv Invitation, err error) { return inv, readJSON(path, &inv) }

// InvitationPath is where `up` leaves an invitation for a device on this machine.
func (s State) InvitationPath(name redoubt.NodeName) string {
	return filepath.Join(s.NodeDir(name), invitationFile)
}

// Enrolled says whether a device has been enrolled. Its enrolment is sealed; that there is one shows.
func (s State) Enrolled(name redoubt.NodeName) bool {
	_, err := os.Stat(filepath.Join(s.NodeDir(name), enrolmentFile))
	return err == nil
}

// enrolment is what a device keeps of its home, sealed under its keyring.
type enrolment struct {
	Lease        redoubt.Lease       `json:"lease"`
	IDKeys       []byte              `json:"id_keys"`
	Recipient    string              `json:"recipient,omitempty"` // of the home
	API          string              `json:"api_url"`
	Authority    string              `json:"authority"`
	Peers        []string            `json:"peers"`
	Makers       makersKeys          `json:"makers,omitempty"`
	MakersAt     time.Time           `json:"makers_at,omitzero"` // when the home said so
	Neighbours   []redoubt.Neighbour `json:"neighbours,omitempty"`
	NeighboursAt time.Time           `json:"neighbours_at,omitzero"`
	RanSecs      int64               `json:"ran_seconds"`   // under this lease, whatever a clock said
	TPM          *tpmMark            `json:"tpm,omitempty"` // when the lease was taken
}

const (
	enrolmentFile    = "enrolment"
	purposeEnrolment = "enrolment"
	enrolTimeout     = 30 * time.Second
	wipedPatience    = 10 * time.Second // for the home to hear that the keys are gone
	leaseTick        = 10 * time.Second // how often the lease is looked at and the run time kept
)

// deviceSide is a device's enrolment and lease.
type deviceSide struct {
	dir       string
	ring      *keys.Keyring
	name      redoubt.NodeName
	home      redoubt.NodeName
	homeKey   ed25519.PublicKey
	addresses []netip.AddrPort
	clock     func() time.Time // of the enclave: it never goes back
	chip      *chip            // nil: no TPM seals the device
	log       *slog.Logger
	forget    func() // clears what else proves us to peers
	erase     func() // ends the node

	mu     sync.Mutex
	kept   enrolment
	coming homesWord // makers of which not all have come
	ran    time.Time // up to when RanSecs counts, monotonic
}

// openDevice opens a device's enrolment, or enrols it by the invitation that lies in its folder.
func openDevice(ctx context.Context, dir string, ring *keys.Keyring, declared estate.Node, invited *Invitation, clock func() time.Time, chip *chip, log *slog.Logger) (*deviceSide, error) {
	d := &deviceSide{dir: dir, ring: ring, name: declared.Name, home: declared.Home, clock: clock, chip: chip, log: log, ran: time.Now()}
	plain, err := ring.OpenFile(filepath.Join(dir, enrolmentFile), purposeEnrolment)
	switch {
	case errors.Is(err, redoubt.NotFound):
		err = d.enrol(ctx, invited, filepath.Join(dir, invitationFile))
	case err == nil:
		err = json.Unmarshal(plain, &d.kept)
	}
	if err == nil {
		d.homeKey, err = d.checkLease(d.kept.Lease)
	}
	if err == nil {
		d.addresses, err = parseAddresses(d.kept.Peers)
	}
	if err == nil {
		err = d.countByTPM()
	}
	if err == nil { // paid before anything is served: pulling the power wins no time
		d.kept.RanSecs += int64(leaseTick / time.Second)
		d.ran = time.Now().Add(leaseTick)
		err = d.keep()
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

// checkLease says whose lease it is: this device's, from its home, signed by the key that it enrolled with.
func (d *deviceSide) checkLease(l redoubt.Lease) (ed25519.PublicKey, error) {
	bad := &redoubt.Error{Op: "node.checkLease", Object: string(d.name), Kind: redoubt.Denied, Rule: "lease-of-its-home (4.3)"}
	key, err := base64.StdEncoding.Strict().DecodeString(l.HomeKey)
	if err != nil || len(key) != ed25519.PublicKeySize || d.homeKey != nil && !d.homeKey.Equal(ed25519.PublicKey(key)) {
		return nil, bad
	}
	if !l.Expires.After(l.Issued) || !d.signed(l, key, d.name, d.publicKey()) {
		return nil, bad
	}
	return key, nil
}

// signed says whether a lease is of a device and its key, from the home of this one, by homeKey.
func (d *deviceSide) signed(l redoubt.Lease, homeKey ed25519.PublicKey, device redoubt.NodeName, deviceKey string) bool {
	sig, err := base64.StdEncoding.Strict().DecodeString(l.Signature)
	return err == nil && l.Device == device && l.Home == d.home && l.DeviceKey == deviceKey && ed25519.Verify(homeKey, redoubt.LeaseMessage(l), sig)
}

func (d *deviceSide) publicKey() string {
	signer, err := d.ring.Signer()
	if err != nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(signer.Public().(ed25519.PublicKey))
}

// enrol takes the device to its home: its key goes, a lease comes back.
func (d *deviceSide) enrol(ctx context.Context, invited *Invitation, path string) (err error) {
	var inv Invitation
	if invited != nil {
		inv = *invited
	} else if inv, err = ReadInvitation(path); errors.Is(err, redoubt.NotFound) {
		return &redoubt.Error{Op: "node.enrol", Object: string(d.name), Kind: redoubt.Denied, Err: errors.New("the device is not enrolled"),
			Hint: fmt.Sprintf("an officer of its home makes an invitation: redoubt device enrol %s --as OFFICER@%s --to FILE; then: redoubt serve %s --invitation FILE", d.name, d.home, d.name)}
	}
	if err != nil {
		return err
	}
	if inv.Device != d.name || inv.Home != d.home {
		return &redoubt.Error{Op: "node.enrol", Object: path, Kind: redoubt.Invalid, Err: fmt.Errorf("the invitation is for %s at %s", inv.Device, inv.Home)}
	}
	signer, err := d.ring.Signer()
	if err != nil {
		return err
	}
	id, err := d.ring.BundleIdentity()
	if err != nil {
		return err
	}
	req := redoubt.EnrolRequest{Device: d.name, Token: inv.Token, Key: d.publicKey(), Recipient: id.Recipient().String()}
	sig, err := signer.Sign(nil, redoubt.EnrolMessage(req), crypto.Hash(0))
	if err != nil {
		return err
	}
	req.Signature = base64.StdEncoding.EncodeToString(sig)
	c, err := homeClient(inv.API, inv.Authority)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	d.kept = enrolment{API: inv.API, Authority: inv.Authority, Peers: inv.Peers}
	given, err := c.EnrolDevice(ctx, req)
	if err != nil {
		return err
	}
	d.kept.Lease, d.kept.IDKeys, d.kept.Recipient = given.Lease, given.IDKeys, given.Recipient
	if d.kept.TPM, err = d.chip.mark(); err != nil {
		return err
	}
	if _, err := d.checkLease(d.kept.Lease); err != nil {
		return err
	}
	if err := d.keep(); err != nil {
		return err
	}
	d.log.Info("enrolled", slog.String("home", string(d.home)))
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func homeClient(api, authority string) (*client.Client, error) {
	roots := x509.NewCertPool()
	block, _ := pem.Decode([]byte(authority))
	if block == nil {
		return nil, &redoubt.Error{Op: "node.homeClient", Kind: redoubt.Invalid, Err: errors.New("the home's certificate is not PEM")}
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, &redoubt.Error{Op: "node.homeClient", Kind: redoubt.Invalid, Err: err}
	}
	roots.AddCert(cert)
	return client.New(api, roots, "")
}

// keep seals what is kept. mu is held, or nobody else has d yet.
func (d *deviceSide) keep() error {
	plain, err := json.Marshal(d.kept)
	if err != nil {
		return err
	}
	return d.ring.SealFile(filepath.Join(d.dir, enrolmentFile), purposeEnrolment, plain)
}

func (d *deviceSide) lease() redoubt.Lease {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.kept.Lease
}

// lapsed says whether the lease has ended: by the clock, which never goes back, or by the time that the device has run
// under it, which counts when the clock stood still or was set back.
func (d *deviceSide) lapsed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.clock().Before(d.kept.Lease.Expires) || d.used() >= d.kept.Lease.Life()
}

// used is how long the device has run under its lease. mu is held.
func (d *deviceSide) used() time.Duration {
	return time.Duration(d.kept.RanSecs)*time.Second + time.Since(d.ran)
}

var errLapsed = errors.New("the device's lease has ended")

// watch keeps count of the run time, and returns errLapsed when the lease has ended.
func (d *deviceSide) watch(ctx context.Context) error {
	tick := time.NewTicker(leaseTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if d.lapsed() {
			return &redoubt.Error{Op: "node.lease", Object: string(d.name), Kind: redoubt.Expired, Err: errLapsed,
				Hint: "bring it where its home can be reached, and start it again"}
		}
		d.mu.Lock()
		if n := int64(time.Since(d.ran) / time.Second); n > 0 {
			d.kept.RanSecs += n
			d.ran = d.ran.Add(time.Duration(n) * time.Second)
		}
		err := d.keep()
		d.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// renew asks the home for a lease when the last one has ended: the one thing that a locked device does.
func (d *deviceSide) renew(ctx context.Context) error {
	if !d.lapsed() {
		return nil
	}
	signer, err := d.ring.Signer()
	if err != nil {
		return err
	}
	req := redoubt.EnrolRequest{Device: d.name, Token: d.kept.Lease.Signature, Key: d.publicKey()}
	sig, err := signer.Sign(nil, redoubt.EnrolMessage(req), crypto.Hash(0))
	if err != nil {
		return err
	}
	req.Signature = base64.StdEncoding.EncodeToString(sig)
	c, err := homeClient(d.kept.API, d.kept.Authority)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	l, err := c.RenewDevice(ctx, req)
	if err != nil {
		return &redoubt.Error{Op: "node.renew", Object: string(d.name), Kind: redoubt.Expired, Err: errors.Join(errLapsed, err),
			Hint: "bring it where its home can be reached, and start it again; its data stays sealed until then"}
	}
	return d.take(l)
}

// take makes a newer lease the device's.
func (d *deviceSide) take(l redoubt.Lease) error {
	if _, err := d.checkLease(l); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !l.Issued.After(d.kept.Lease.Issued) {
		return nil // an older one says nothing new
	}
	mark, err := d.chip.mark()
	if err != nil {
		return err // the lease that it has goes on
	}
	d.kept.Lease, d.kept.RanSecs, d.kept.TPM, d.ran = l, 0, mark, time.Now()
	return d.keep()
}

// noted takes what the home has to say when it is met.
func (d *deviceSide) noted(ctx context.Context, p *peers, s *replica.Session, kind string, body []byte) error {
	if kind == noteWipe {
		p.work.Go(func() { d.wipe(ctx, s, string(body) == "now") })
		return nil
	}
	return d.told(ctx, p, kind, body)
}

// told takes what the home has to say, over a link or in a bundle.
func (d *deviceSide) told(ctx context.Context, p *peers, kind string, body []byte) error {
	switch kind {
	case noteLease:
		var l redoubt.Lease
		if err := json.Unmarshal(body, &l); err != nil {
			return err
		}
		return d.take(l)
	case noteNeighbours:
		return d.toldNeighbours(ctx, p, body)
	case noteMakers:
		return d.toldMakers(p, body)
	}
	return nil // a kind that a later version knows
}

// makersKeys is whose entries are taken by which keys, as enclave.SetMakers has it.
type makersKeys = map[redoubt.NodeName][]ed25519.PublicKey

// whole is what of it are keys.
func whole(in makersKeys) makersKeys {
	out := make(makersKeys, len(in))
	for name, keys := range in {
		for _, k := range keys {
			if len(k) == ed25519.PublicKeySize {
				out[name] = append(out[name], k)
			}
		}
	}
	return out
}

// wipe hands over what the home has not, unless it is to be at once, destroys the keys, tells the home and ends the node.
func (d *deviceSide) wipe(ctx context.Context, s *replica.Session, now bool) {
	if !now {
		if err := s.HandedOver(ctx); err != nil {
			return // the order is told again at the next meeting
		}
	}
	d.log.Warn("the home ordered the keys destroyed")
	if err := d.destroy(); err != nil {
		d.log.Error("the keys could not be destroyed", slog.String("why", reason(err)))
		return
	}
	d.forget()
	if err := s.Tell(ctx, noteWiped, nil); err == nil {
		select { // the home that has heard it ends the meeting: until then it is on its way
		case <-ctx.Done():
		case <-time.After(wipedPatience):
		}
	}
	d.erase()
}
