package oci

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"redoubt/compute"
	"redoubt/sandbox"
)

// root is an unpacked image: a file in memory that nobody can change.
type root struct {
	file  *os.File
	bytes int64
	told  unpacked

	key  string
	used int // runs
	last time.Time
}

// roots keeps unpacked images, by share and digest: one that was unpacked for one share is never used for another, so that how soon a job begins
// tells nothing across labels.
type roots struct {
	limit int64

	mu    sync.Mutex // guards what follows
	all   map[string]*root
	being map[string]chan struct{} // unpacked by somebody just now
	bytes int64
	shut  bool
}

func newRoots(limit int64) *roots {
	return &roots{limit: limit, all: map[string]*root{}, being: map[string]chan struct{}{}}
}

// get gives a root that stays until it is put back, made by unpack where there is none.
func (c *roots) get(ctx context.Context, key string, unpack func() (*root, error)) (*root, error) {
	for {
		c.mu.Lock()
		if r := c.all[key]; r != nil {
			r.used++
			c.mu.Unlock()
			return r, nil
		}
		busy := c.being[key]
		if busy == nil {
			break
		}
		c.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	busy := make(chan struct{})
	c.being[key] = busy
	c.mu.Unlock()
	r, err := unpack()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.being, key)
	close(busy)
	if err != nil {
		return nil, err
	}
	r.key, r.used = key, 1
	c.all[key] = r
	c.bytes += r.bytes
	c.shrink()
	return r, nil
}

func (c *roots) put(r *root) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.used--
	r.last = time.Now()
	c.shrink()
}

// shrink drops what was used longest ago until the rest fits. What is in use stays.
func (c *roots) shrink() {
	for c.bytes > c.limit || c.shut {
		var oldest *root
		for _, r := range c.all {
			if r.used == 0 && (oldest == nil || r.last.Before(oldest.last)) {
				oldest = r
			}
		}
		if oldest == nil {
			return
		}
		delete(c.all, oldest.key)
		c.bytes -= oldest.bytes
		oldest.file.Close()
	}
}

func (c *roots) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shut = true
	c.shrink()
}

// unpackImage has a process that is walled in make one file system of an image's layers.
func (d *Driver) unpackImage(ctx context.Context, t compute.Task, im *image) (*root, error) {
	spec := im.unpackSpec(d.o.ImageBytes)
	head, err := header(spec)
	if err != nil {
		return nil, err
	}
	f, err := memfile("image", nil)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(blockSize, io.SeekStart); err != nil {
		return nil, err
	}
	p, err := sandbox.Start(sandbox.Program{Name: unpackWorker, Worker: unpackWorker, Limits: sandbox.Limits{
		Memory: 768 << 20, CPU: 30 * time.Minute, Wall: 30 * time.Minute, Output: d.o.ImageBytes + maxImageFiles*256, Processes: 64,
	}})
	if err != nil {
		return nil, err
	}
	defer p.Kill()
	in := &layers{ctx: ctx, images: d.o.Images, task: t, im: im}
	err = p.Stream(ctx, io.MultiReader(head, in), f)
	err = errors.Join(err, in.Close())
	var own *fault
	var x *sandbox.Exit
	switch {
	case errors.As(err, &own):
		return nil, own
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.As(err, &x) && x.Code == 1 && x.Killed == "":
		return nil, faultf("the image cannot be unpacked: %.500s", x.Stderr)
	case errors.As(err, &x):
		return nil, faultf("the image cannot be unpacked: it takes more memory or time than an image may: %v", err)
	case err != nil:
		return nil, err
	}
	r := &root{}
	if r.bytes, err = seal(f, &r.told); err != nil {
		return nil, fmt.Errorf("what was unpacked is malformed: %w", err)
	}
	r.file, err = sealed(f)
	return r, err
}

// seal puts the superblock where it belongs, and reads what was told behind it.
func seal(f *os.File, told *unpacked) (bytes int64, err error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	var n [4]byte
	if _, err := f.ReadAt(n[:], end-4); err != nil {
		return 0, err
	}
	size := int64(binary.BigEndian.Uint32(n[:]))
	bytes = end - 4 - size - superBytes
	if size > maxUnpackSpec || bytes < blockSize {
		return 0, errors.New("no superblock")
	}
	tail := make([]byte, superBytes+size)
	if _, err := f.ReadAt(tail, bytes); err != nil {
		return 0, err
	}
	if err := json.Unmarshal(tail[superBytes:], told); err != nil {
		return 0, err
	}
	if _, err := f.WriteAt(tail[:superBytes], superAt); err != nil {
		return 0, err
	}
	return bytes, unix.Ftruncate(int(f.Fd()), bytes)
}
