package redoubttest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"redoubt/store/storetest"
)

// ext4Shutdown is EXT4_IOC_SHUTDOWN: the file system stops at once. With noLogFlush nothing more of it reaches the disk, neither
// what lies in the page cache nor the journal's open transaction: what a power failure leaves, without the power failure.
const (
	ext4Shutdown = 0x8004587D
	noLogFlush   = 2
)

// disk is an ext4 file system on a loop device whose image lies on another one. Stopping the outer one loses what the
// inner one wrote and did not flush: so the outer page cache is the volatile cache of a disk, which writes what it likes, in any
// order, and keeps for certain only what was there when it was told to flush.
type disk struct {
	t     *testing.T
	image string
	outer string // mount points
	inner string
	up    []string // mounted, the last first to go
}

// newDisk makes and mounts a file system of so many MiB, or skips and says why.
func newDisk(t *testing.T, mib int64) *disk {
	t.Helper()
	for _, tool := range []string{"mkfs.ext4", "mount", "umount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("no loop devices here: ", err)
	}
	d := &disk{t: t, image: filepath.Join(t.TempDir(), "image"), outer: t.TempDir(), inner: t.TempDir()}
	t.Cleanup(d.unmount)
	if err := errors.Join(makeImage(d.image, mib+mib/4+64), d.mount(d.image, d.outer)); err != nil {
		t.Skip("a loop device cannot be mounted here: ", err)
	}
	if err := errors.Join(makeImage(filepath.Join(d.outer, "image"), mib), d.mount(filepath.Join(d.outer, "image"), d.inner)); err != nil {
		t.Fatal(err)
	}
	return d
}

func makeImage(path string, mib int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(mib<<20), f.Close()); err != nil {
		return err
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", path).CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	return nil
}

func (d *disk) mount(image, at string) error {
	if out, err := exec.Command("mount", "-o", "loop", image, at).CombinedOutput(); err != nil {
		return fmt.Errorf("mount: %w: %s", err, out)
	}
	d.up = append(d.up, at)
	return nil
}

// unmount unmounts both. Whoever had files open has ended; the kernel may take a moment to notice.
func (d *disk) unmount() {
	for len(d.up) > 0 {
		at := d.up[len(d.up)-1]
		d.up = d.up[:len(d.up)-1]
		out, err := exec.Command("umount", at).CombinedOutput()
		for end := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			out, err = exec.Command("umount", at).CombinedOutput()
		}
		if err != nil {
			d.t.Errorf("umount: %v: %s", err, out)
		}
	}
}

// cut is the power failure: from here on nothing is written.
func (d *disk) cut() error {
	f, err := os.Open(d.outer)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetPointerInt(int(f.Fd()), ext4Shutdown, noLogFlush)
}

// back is the disk after the power came back: what had been flushed, and whatever else had made it.
func (d *disk) back() error {
	d.unmount()
	return errors.Join(d.mount(d.image, d.outer), d.mount(filepath.Join(d.outer, "image"), d.inner))
}

func TestSoakPowerFailureKeepsWhatWasAcknowledged(t *testing.T) {
	storetest.InOwnMounts(t, func(t *testing.T) {
		for _, kind := range []string{kindEngine, kindNode} {
			t.Run(kind, func(t *testing.T) { powerFails(t, kind) })
		}
	})
}

func powerFails(t *testing.T, kind string) {
	d := newDisk(t, 3072)
	c := newCrashes(t, kind, d.inner)
	c.share = 2
	c.rounds(3*time.Second, func() {
		if err := d.cut(); err != nil {
			t.Fatal(err)
		}
		c.kill()
		if err := d.back(); err != nil {
			t.Fatal(err)
		}
	})
}
