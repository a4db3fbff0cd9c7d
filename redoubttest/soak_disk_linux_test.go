package redoubttest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ext4Shutdown is EXT4_IOC_SHUTDOWN: the file system stops at once. With noLogFlush nothing more of it reaches the disk, neither
// what lies in the page cache nor the journal's open transaction: what a power failure leaves, without the power failure.
const (
	ext4Shutdown = 0x8004587D
	noLogFlush   = 2
)

// disk is an ext4 file system on a loop device.
type disk struct {
	t      *testing.T
	image  string
	mount  string
	placed bool
}

// newDisk makes and mounts a file system of so many MiB, or skips and says why.
func newDisk(t *testing.T, mib int64) *disk {
	t.Helper()
	mustRoot(t, "a loop device")
	for _, tool := range []string{"mkfs.ext4", "mount", "umount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("no loop devices here: ", err)
	}
	d := &disk{t: t, image: filepath.Join(t.TempDir(), "image"), mount: t.TempDir()}
	f, err := os.Create(d.image)
	if err == nil {
		err = f.Truncate(mib << 20)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", d.image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	if err := d.up(); err != nil {
		t.Skip("a loop device cannot be mounted here: ", err)
	}
	t.Cleanup(d.down)
	return d
}

func (d *disk) up() error {
	if out, err := exec.Command("mount", "-o", "loop", d.image, d.mount).CombinedOutput(); err != nil {
		return fmt.Errorf("mount: %w: %s", err, out)
	}
	d.placed = true
	return nil
}

// down unmounts. Whoever had files open has ended; the kernel may take a moment to notice.
func (d *disk) down() {
	if !d.placed {
		return
	}
	d.placed = false
	var out []byte
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if out, err = exec.Command("umount", d.mount).CombinedOutput(); err == nil {
			return
		}
	}
	d.t.Errorf("umount: %v: %s", err, out)
}

// cut loses everything that was not synced.
func (d *disk) cut() error {
	f, err := os.Open(d.mount)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetPointerInt(int(f.Fd()), ext4Shutdown, noLogFlush)
}

func TestSoakPowerFailureKeepsWhatWasAcknowledged(t *testing.T) {
	for _, kind := range []string{kindEngine, kindNode} {
		t.Run(kind, func(t *testing.T) {
			d := newDisk(t, 4096)
			c := newCrashes(t, kind, d.mount)
			t.Cleanup(func() { c.kill() }) // before the file system is unmounted
			c.share = 2
			c.rounds(3*time.Second, func() {
				if err := d.cut(); err != nil {
					t.Fatal(err)
				}
				c.kill()
				d.down()
				if err := d.up(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}
