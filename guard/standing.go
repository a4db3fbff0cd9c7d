package guard

import (
	"os"
	"path/filepath"

	"redoubt"
)

// Standing is what one half of a raise knows of itself, as its own folder tells. How the other half does it does not know: nothing comes back.
type Standing struct {
	Made  uint64 `json:"made,omitempty"`  // of the low half: the last number that was handed to it
	Sent  uint64 `json:"sent,omitempty"`  // and that it sent
	Kept  int    `json:"kept,omitempty"`  // bundles that were sent, and are sent again
	Taken uint64 `json:"taken,omitempty"` // of the high half: the last number that its enclave took

	Waiting      int   `json:"waiting"` // bundles: to be sent, or to be taken
	WaitingBytes int64 `json:"waiting_bytes"`
	Refused      int   `json:"refused,omitempty"` // that the higher enclave refused, and that are set aside
}

// LowStanding is how the low half does whose folder dir is, also while it runs. NotFound: none ever ran there.
func LowStanding(dir string) (out Standing, err error) {
	if _, err := standingSpool(dir); err != nil {
		return out, err
	}
	var n note
	if err := record(dir, noteName, &n); err != nil {
		return out, err
	}
	out.Made, out.Sent = n.Have.Serial, n.Sent
	for _, serial := range n.lacking() {
		if serial <= n.Sent {
			out.Kept++
		} else {
			out.Waiting++
		}
	}
	return out, nil
}

// HighStanding is how the high half does.
func HighStanding(dir string, high redoubt.NodeName) (out Standing, err error) {
	s, err := standingSpool(dir)
	if err != nil {
		return out, err
	}
	var last redoubt.BundleMark
	if err := record(dir, takenName, &last); err != nil {
		return out, err
	}
	all, err := s.all(high)
	if err != nil {
		return out, err
	}
	out.Taken, out.Waiting = last.Serial, len(all)
	for _, b := range all {
		out.WaitingBytes += b.bytes
	}
	refused, err := filepath.Glob(filepath.Join(dir, refusedName, "*"+bundleExt))
	out.Refused = len(refused)
	return out, err
}

func standingSpool(dir string) (spool, error) {
	if _, err := os.Stat(dir); err != nil {
		return spool{}, &redoubt.Error{Op: "guard.Standing", Object: dir, Kind: redoubt.NotFound, Err: err}
	}
	return openSpoolAsIs(dir)
}
