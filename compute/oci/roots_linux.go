package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"redoubt/compute/image"
	"redoubt/compute/oci/layers"
	"redoubt/sandbox"
)

// root is an unpacked image: a file in memory that nobody can change.
type root struct {
	file  *os.File
	bytes int64
	told  layers.Told

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

// unpack has a process that is walled in make one file system of an image's layers.
func (d *Driver) unpack(ctx context.Context, im *image.Image) (*root, error) {
	head, err := layers.Header(unpackSpec(im, d.o.ImageBytes))
	if err != nil {
		return nil, &fault{err.Error()}
	}
	f, err := memfile("image", nil)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(layers.Begin, io.SeekStart); err != nil {
		return nil, err
	}
	p, err := sandbox.Start(sandbox.Program{Name: unpackWorker, Worker: unpackWorker, Limits: sandbox.Limits{
		Memory: 768 << 20, CPU: 30 * time.Minute, Wall: 30 * time.Minute, Output: d.o.ImageBytes + layers.MaxFiles*256, Processes: 64,
	}})
	if err != nil {
		return nil, err
	}
	defer p.Kill()
	in := &blobs{ctx: ctx, im: im}
	err = p.Stream(ctx, io.MultiReader(bytes.NewReader(head), in), f)
	err = errors.Join(err, in.Close())
	var x *sandbox.Exit
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.As(err, &x) && x.Code == 1 && x.Killed == "":
		return nil, faultf("the image cannot be unpacked: %.500s", x.Stderr)
	case errors.As(err, &x):
		return nil, faultf("the image cannot be unpacked: it takes more memory or time than an image may")
	case err != nil:
		return nil, faulty(im.Reference.String(), err)
	}
	r := &root{}
	if r.told, r.bytes, err = layers.Seal(f); err != nil {
		return nil, fmt.Errorf("what was unpacked is malformed: %w", err)
	}
	r.file, err = sealed(f)
	return r, err
}
