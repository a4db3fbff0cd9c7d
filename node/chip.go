package node

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"redoubt"
	"redoubt/keys"
	"redoubt/tpm"
)

// chip is the TPM that seals a device: its clock counts beside the device's own count, and does not go back with the
// disk. All methods of a nil chip say that there is none.
type chip struct {
	id    string // of the storage root key that the keyring is sealed under
	clock func() (time.Duration, error)
}

// tpmMark is where a TPM's clock stood when a lease was taken.
type tpmMark struct {
	Chip    string `json:"chip"`
	ClockMS int64  `json:"clock_ms"`
}

// sealingChip is the TPM at c if the keyring is sealed by one; nil if not.
func sealingChip(dir string, c *tpm.Chip) (*chip, error) {
	ways, err := keys.Sealing(filepath.Join(dir, "keyring"))
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(ways, func(w keys.Way) bool { return w.Method == tpm.Method })
	if i < 0 {
		return nil, nil
	}
	d, err := tpm.Describe(ways[i].Envelope)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, &redoubt.Error{Op: "node.sealingChip", Object: dir, Kind: redoubt.Unavailable, Err: errors.New("a TPM seals the device and counts its lease, and is not named"), Hint: "name it: --tpm"}
	}
	return &chip{id: d.Chip, clock: c.Clock}, nil
}

// mark reads the clock for a lease that is taken now; nil without a TPM.
func (c *chip) mark() (*tpmMark, error) {
	if c == nil {
		return nil, nil
	}
	now, err := c.clock()
	if err != nil {
		return nil, &redoubt.Error{Op: "node.chip", Kind: redoubt.KindOf(err), Err: fmt.Errorf("the TPM that seals the device counts its lease: %w", err),
			Hint: "without that TPM: redoubt key seal seals it to this machine's, redoubt key passwd to none"}
	}
	return &tpmMark{Chip: c.id, ClockMS: now.Milliseconds()}, nil
}

// countByTPM takes as run under the lease at least the time that the TPM had power since the lease was taken. A lease
// that was taken without this TPM, or that it does not know how long ago, has ended: so an enrolment that is put back from before the device
// was sealed wins nothing. Nobody else has d yet.
func (d *deviceSide) countByTPM() error {
	now, err := d.chip.mark()
	if err != nil || now == nil {
		return err
	}
	then := d.kept.TPM
	if then == nil || then.Chip != now.Chip || then.ClockMS > now.ClockMS {
		d.log.Warn("the lease was not taken under this TPM: it has ended", slog.Bool("marked", then != nil))
		d.kept.RanSecs = max(d.kept.RanSecs, int64(d.kept.Lease.Life()/time.Second)+1)
		return nil
	}
	d.kept.RanSecs = max(d.kept.RanSecs, (now.ClockMS-then.ClockMS)/1000)
	return nil
}
