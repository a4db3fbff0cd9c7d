package embedded_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"redoubt/store"
	"redoubt/store/embedded"
	"redoubt/store/storetest"
)

// TestPowerLossOnARealFileSystem cuts ext4 off from its disk, without its journal being written out,
// while writers commit. What is mounted again is what a power loss leaves.
func TestPowerLossOnARealFileSystem(t *testing.T) {
	storetest.InOwnMounts(t, powerLossOnARealFileSystem)
}

func powerLossOnARealFileSystem(t *testing.T) {
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skip("needs mkfs.ext4")
	}
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if out, err := exec.Command("truncate", "-s", "2G", image).CombinedOutput(); err != nil {
		t.Skipf("no image: %v %s", err, out)
	}
	if out, err := exec.Command(mkfs, "-q", image).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4: %v %s", err, out)
	}
	mount := func() ([]byte, error) {
		return exec.Command("mount", "-o", "loop", image, dir).CombinedOutput()
	}
	umount := func() { // fails where a file is left open
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	}
	if out, err := mount(); err != nil {
		t.Skipf("no loop mount here: %v %s", err, out)
	}
	t.Cleanup(umount)
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	open := func() *embedded.Engine {
		e, err := embedded.Open(filepath.Join(dir, "store"), embedded.Options{Key: testKey, SegmentBytes: 1 << 20, ReserveBytes: -1})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	acked := map[string]store.BlobRef{}
	for round := range rounds {
		e := open()
		var mu sync.Mutex
		var wg sync.WaitGroup
		reached := make(chan struct{})
		for w := range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					s, err := e.Stage(context.Background())
					if err != nil {
						return
					}
					s.Write(blobContent(w*100+i, 1000+i%5*50_000))
					if s.Finish() != nil {
						s.Discard()
						return
					}
					key := fmt.Sprintf("%d/%d/%d", round, w, i)
					b := &store.Batch{Links: []store.Staged{s}}
					b.Set([]byte(key), fmt.Appendf(nil, "%d", s.Ref()))
					if e.Commit(context.Background(), b) != nil {
						s.Discard() // what it holds would keep the file system from being unmounted
						return
					}
					mu.Lock()
					acked[key] = s.Ref()
					mu.Unlock()
					if w == 0 && i == 60+round*10 {
						close(reached)
					}
				}
			})
		}
		ended := make(chan struct{})
		go func() { wg.Wait(); close(ended) }()
		select {
		case <-reached:
		case <-ended:
			t.Fatalf("round %d: the writers ended before the power was lost", round)
		}
		shutdown(t, dir)
		<-ended
		e.Close()
		umount()
		if out, err := mount(); err != nil {
			t.Fatalf("round %d: mount again: %v %s", round, err, out)
		}
		e = open()
		for key, ref := range acked {
			var r, w, i int
			fmt.Sscanf(key, "%d/%d/%d", &r, &w, &i)
			if v, ok, err := e.Get([]byte(key)); !ok || err != nil || string(v) != fmt.Sprint(ref) {
				t.Fatalf("round %d: %s was acknowledged: got %q, %v, %v", round, key, v, ok, err)
			}
			b, err := e.OpenBlob(ref)
			if err != nil {
				t.Fatalf("round %d: blob of %s: %v", round, key, err)
			}
			got := make([]byte, b.Size())
			b.ReadAt(got, 0)
			b.Close()
			if string(got) != string(blobContent(w*100+i, 1000+i%5*50_000)) {
				t.Fatalf("round %d: blob of %s reads back different", round, key)
			}
		}
		if n, err := e.Check(context.Background(), func(f string) { t.Error(f) }); n > 0 || err != nil {
			t.Fatalf("round %d: check: %d faults, %v", round, n, err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d acknowledged commits, none lost", len(acked))
}

// shutdown is EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH.
func shutdown(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	flags := uint32(2)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), 0x8004587D, uintptr(unsafe.Pointer(&flags))); errno != 0 {
		t.Skipf("shutdown ioctl: %v", errno)
	}
}
