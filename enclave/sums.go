package enclave

import (
	"crypto/fips140"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"hash/crc32"
	"io"

	"github.com/minio/crc64nvme"

	"redoubt"
)

// summed computes one S3 checksum of what is read through it.
type summed struct {
	r         io.Reader
	algorithm string
	h         hash.Hash
}

// newSums gives nil for no algorithm, and for one that is not known.
func newSums(algorithm string, r io.Reader) *summed {
	s := &summed{r: r, algorithm: algorithm}
	switch algorithm {
	case "CRC32":
		s.h = crc32.NewIEEE()
	case "CRC32C":
		s.h = crc32.New(crc32.MakeTable(crc32.Castagnoli))
	case "CRC64NVME":
		s.h = crc64nvme.New()
	case "SHA1":
		// A transfer checksum that S3 clients ask for, not a security function.
		fips140.WithoutEnforcement(func() { s.h = sha1.New() })
	case "SHA256":
		s.h = sha256.New()
	default:
		return nil
	}
	return s
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	fips140.WithoutEnforcement(func() { s.h.Write(p[:n]) })
	return n, err
}

func (s *summed) result() redoubt.Checksums {
	var sum []byte
	fips140.WithoutEnforcement(func() { sum = s.h.Sum(nil) })
	return checksum(s.algorithm, sum)
}

// checksum is one sum as S3 writes it.
func checksum(algorithm string, sum []byte) (c redoubt.Checksums) {
	text := base64.StdEncoding.EncodeToString(sum)
	switch algorithm {
	case "CRC32":
		c.CRC32 = text
	case "CRC32C":
		c.CRC32C = text
	case "CRC64NVME":
		c.CRC64NVME = text
	case "SHA1":
		c.SHA1 = text
	case "SHA256":
		c.SHA256 = text
	}
	return c
}

// joinSums makes the checksum of a multipart version from those of its parts: over their digests (S3's COMPOSITE), or,
// for CRCs, of the whole content (FULL_OBJECT).
func joinSums(algorithm string, composite bool, parts []*partRecord) (redoubt.Checksums, error) {
	digests := make([][]byte, len(parts))
	for i, p := range parts {
		d, err := base64.StdEncoding.DecodeString(p.sum(algorithm))
		if err != nil || len(d) == 0 {
			return redoubt.Checksums{}, nil // not every part has one
		}
		digests[i] = d
	}
	if composite {
		s := newSums(algorithm, nil)
		if s == nil {
			return redoubt.Checksums{}, nil
		}
		for _, d := range digests {
			fips140.WithoutEnforcement(func() { s.h.Write(d) })
		}
		c := s.result()
		c.Composite = true
		return c, nil
	}
	poly, bits := uint64(0), 0
	switch algorithm {
	case "CRC32":
		poly, bits = crc32.IEEE, 32
	case "CRC32C":
		poly, bits = crc32.Castagnoli, 32
	case "CRC64NVME":
		poly, bits = 0x9A6C9329AC4BC9B5, 64 // reflected, as crc64nvme computes it
	default:
		return redoubt.Checksums{}, nil // a hash of the whole cannot be made from those of its parts
	}
	var sum uint64
	for i, d := range digests {
		var next uint64
		for _, b := range d {
			next = next<<8 | uint64(b)
		}
		if i == 0 {
			sum = next
			continue
		}
		sum = joinCRC(poly, bits, sum, next, parts[i].Size)
	}
	out := make([]byte, 0, 8)
	for shift := bits - 8; shift >= 0; shift -= 8 {
		out = append(out, byte(sum>>shift))
	}
	return checksum(algorithm, out), nil
}

func (p *partRecord) sum(algorithm string) string {
	switch algorithm {
	case "CRC32":
		return p.Sums.CRC32
	case "CRC32C":
		return p.Sums.CRC32C
	case "CRC64NVME":
		return p.Sums.CRC64NVME
	case "SHA1":
		return p.Sums.SHA1
	case "SHA256":
		return p.Sums.SHA256
	}
	return ""
}

// joinCRC gives the CRC of two contents one behind the other from their CRCs and the
// length of the second: the first CRC is carried over n zero bytes, each a linear map over
// GF(2), by squaring. poly is reflected.
func joinCRC(poly uint64, bits int, first, second uint64, n int64) uint64 {
	step := make([]uint64, bits) // one zero bit
	step[0] = poly
	for i := 1; i < bits; i++ {
		step[i] = 1 << (i - 1)
	}
	apply := func(m []uint64, v uint64) (out uint64) {
		for i := 0; v != 0; i, v = i+1, v>>1 {
			if v&1 != 0 {
				out ^= m[i]
			}
		}
		return out
	}
	square := func(m []uint64) []uint64 {
		out := make([]uint64, bits)
		for i := range out {
			out[i] = apply(m, m[i])
		}
		return out
	}
	for range 3 { // bits to bytes
		step = square(step)
	}
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			first = apply(step, first)
		}
		step = square(step)
	}
	return first ^ second
}
