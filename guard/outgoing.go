package guard

import (
	"bytes"
	"io"
	"os"
	"sync/atomic"
	"time"

	"redoubt"
)

// Outgoing is a bundle as a feeder holds it.
type Outgoing struct {
	*contents
	Mark redoubt.BundleMark
	of   uint64 // the number whose content it has; 0: its own
	at   time.Time
	step int
}

// contents is a bundle as it comes: in memory as far as it is no longer than maxInMemory, and else in a file that has no name.
type contents struct {
	dir  string
	room func(n int) []byte
	buf  []byte
	file *os.File
	size int64
	came atomic.Bool // something of it did
}

const (
	maxInMemory = 32 << 20
	firstBytes  = 512 << 10
	maxRaised   = 16 << 20 // what most have at most, but for a little: there is room for that next, and from there on memory grows by stepBytes
	stepBytes   = 2 << 20
)

// Size is how many bytes there are.
func (c *contents) Size() int64 { return c.size }

func (c *contents) Write(p []byte) (int, error) {
	c.came.Store(true)
	if c.file == nil && len(c.buf)+len(p) <= maxInMemory {
		c.buf = append(c.buf, p...)
		c.size += int64(len(p))
		return len(p), nil
	}
	if err := c.spill(); err != nil {
		return 0, err
	}
	n, err := c.file.Write(p)
	c.size += int64(n)
	return n, diskFault(c.dir, err)
}

// ReadFrom reads to the end of r, into memory as long as that is enough.
func (c *contents) ReadFrom(r io.Reader) (total int64, err error) {
	for c.file == nil && err == nil {
		if len(c.buf) == cap(c.buf) {
			if len(c.buf) >= maxInMemory {
				break
			}
			size := firstBytes
			if len(c.buf) > 0 {
				size = min(max(maxRaised, len(c.buf))+stepBytes, maxInMemory)
			}
			grown := c.room(size)[:len(c.buf)]
			copy(grown, c.buf)
			c.buf = grown
		}
		var n int
		n, err = r.Read(c.buf[len(c.buf):min(cap(c.buf), maxInMemory)])
		if c.buf = c.buf[:len(c.buf)+n]; n > 0 {
			c.came.Store(true)
		}
		c.size, total = c.size+int64(n), total+int64(n)
	}
	if err == nil {
		var n int64
		n, err = io.Copy(struct{ io.Writer }{c}, r)
		return total + n, err
	}
	if err == io.EOF {
		err = nil
	}
	return total, err
}

// spill moves what came to a file.
func (c *contents) spill() error {
	if c.file != nil {
		return nil
	}
	file, err := os.CreateTemp(c.dir, "*"+partExt)
	if err == nil {
		err = os.Remove(file.Name())
	}
	if err == nil {
		_, err = file.Write(c.buf)
	}
	if err != nil {
		return diskFault(c.dir, err)
	}
	c.file, c.buf = file, nil
	return nil
}

// ReadAt reads what came.
func (c *contents) ReadAt(p []byte, at int64) (int, error) {
	if c.file != nil {
		return c.file.ReadAt(p, at)
	}
	return bytes.NewReader(c.buf).ReadAt(p, at)
}

// Bytes is what came, where that is in memory.
func (c *contents) Bytes() (b []byte, is bool) { return c.buf, c.file == nil }

func (c *contents) holds() (memory, file int64) {
	if c.file != nil {
		return 0, c.size
	}
	return int64(cap(c.buf)), 0
}

// close gives the memory back, to be used again.
func (c *contents) close() []byte {
	buf := c.buf
	c.buf = nil
	if c.file != nil {
		c.file.Close()
	}
	return buf
}
