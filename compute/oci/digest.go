package oci

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
)

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func newSum() hash.Hash { return sha256.New() }

// digested gives what it reads, and at its end an error where that is not what its digest says.
type digested struct {
	r    io.Reader
	want descriptor
	sum  hash.Hash
	n    int64
}

func (d *digested) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	d.sum.Write(p[:n])
	d.n += int64(n)
	if err == io.EOF && (d.n != d.want.Size || "sha256:"+hex.EncodeToString(d.sum.Sum(nil)) != d.want.Digest) {
		err = faultf("a layer of the image is not what its digest says: %s", d.want.Digest)
	}
	return n, err
}
