package s3

import (
	"crypto/fips140"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"net/http"
	"strconv"
	"strings"

	"github.com/minio/crc64nvme"

	"redoubt"
)

// sumAlgorithm is one of the checksums that S3 knows.
type sumAlgorithm uint8

const (
	sumNone sumAlgorithm = iota
	sumCRC32
	sumCRC32C
	sumCRC64NVME
	sumSHA1
	sumSHA256
	sumCount
)

// sumInfo says how each algorithm is called.
var sumInfo = [sumCount]struct {
	name    string // as in x-amz-sdk-checksum-algorithm
	header  string // canonical
	trailer string
	size    int // bytes
}{
	sumCRC32:     {"CRC32", "X-Amz-Checksum-Crc32", "x-amz-checksum-crc32", 4},
	sumCRC32C:    {"CRC32C", "X-Amz-Checksum-Crc32c", "x-amz-checksum-crc32c", 4},
	sumCRC64NVME: {"CRC64NVME", "X-Amz-Checksum-Crc64nvme", "x-amz-checksum-crc64nvme", 8},
	sumSHA1:      {"SHA1", "X-Amz-Checksum-Sha1", "x-amz-checksum-sha1", 20},
	sumSHA256:    {"SHA256", "X-Amz-Checksum-Sha256", "x-amz-checksum-sha256", 32},
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sumNamed finds an algorithm by its name; sumNone if there is none such.
func sumNamed(name string) sumAlgorithm {
	for a := sumCRC32; a < sumCount; a++ {
		if strings.EqualFold(sumInfo[a].name, name) {
			return a
		}
	}
	return sumNone
}

// of gives the algorithm's place in sums.
func (a sumAlgorithm) of(sums *redoubt.Checksums) *string {
	switch a {
	case sumCRC32:
		return &sums.CRC32
	case sumCRC32C:
		return &sums.CRC32C
	case sumCRC64NVME:
		return &sums.CRC64NVME
	case sumSHA1:
		return &sums.SHA1
	case sumSHA256:
		return &sums.SHA256
	}
	return new(string)
}

// plausible holds for base64 of the right length.
func (a sumAlgorithm) plausible(value string) bool {
	raw, err := base64.StdEncoding.Strict().DecodeString(value)
	return err == nil && len(raw) == sumInfo[a].size
}

// wantedSum is what a request says about the checksum of its content.
type wantedSum struct {
	algorithm sumAlgorithm
	value     string // base64; "" when it is to come in a trailer, or only to be computed
	trailer   bool
}

// readWantedSum reads x-amz-checksum-*, x-amz-trailer and x-amz-sdk-checksum-algorithm. One checksum at most.
func readWantedSum(h http.Header) (wantedSum, error) {
	var w wantedSum
	for a := sumCRC32; a < sumCount; a++ {
		v := h[sumInfo[a].header]
		if len(v) == 0 {
			continue
		}
		if len(v) > 1 || w.algorithm != sumNone {
			return w, errInvalidRequest.say("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
		}
		if !a.plausible(v[0]) {
			return w, errInvalidRequest.say("Value for " + sumInfo[a].trailer + " header is invalid.")
		}
		w.algorithm, w.value = a, v[0]
	}
	if err := unknownSum(h); err != nil {
		return w, err
	}
	if v := h["X-Amz-Trailer"]; len(v) > 0 {
		a := sumOfTrailer(strings.TrimSpace(v[0]))
		if len(v) > 1 || a == sumNone || w.algorithm != sumNone {
			return w, errInvalidRequest.say("The value specified in the x-amz-trailer header is not supported.")
		}
		w.algorithm, w.trailer = a, true
	}
	if v := h["X-Amz-Sdk-Checksum-Algorithm"]; len(v) > 0 {
		a := sumNamed(v[0])
		if len(v) > 1 || a == sumNone || w.algorithm != sumNone && w.algorithm != a {
			return w, errInvalidRequest.say("Value for x-amz-sdk-checksum-algorithm header is invalid.")
		}
		w.algorithm = a
	}
	return w, nil
}

// unknownSum refuses a checksum of an algorithm that is not offered: its sender would believe that it was compared.
func unknownSum(h http.Header) error {
next:
	for name := range h {
		if !strings.HasPrefix(name, "X-Amz-Checksum-") {
			continue
		}
		switch name {
		case "X-Amz-Checksum-Algorithm", "X-Amz-Checksum-Mode", "X-Amz-Checksum-Type":
			continue
		}
		for a := sumCRC32; a < sumCount; a++ {
			if sumInfo[a].header == name {
				continue next
			}
		}
		return notImplemented("The header " + strings.ToLower(name))
	}
	return nil
}

func sumOfTrailer(name string) sumAlgorithm {
	for a := sumCRC32; a < sumCount; a++ {
		if strings.EqualFold(sumInfo[a].trailer, name) {
			return a
		}
	}
	return sumNone
}

// summer computes one checksum.
type summer struct {
	algorithm sumAlgorithm
	crc32     uint32
	crc64     uint64
	h         hash.Hash // of SHA1 and SHA256
}

func newSummer(a sumAlgorithm) summer {
	s := summer{algorithm: a}
	switch a {
	case sumSHA1:
		s.h = newSHA1()
	case sumSHA256:
		s.h = sha256.New()
	}
	return s
}

func (s *summer) write(b []byte) {
	switch s.algorithm {
	case sumCRC32:
		s.crc32 = crc32.Update(s.crc32, crc32.IEEETable, b)
	case sumCRC32C:
		s.crc32 = crc32.Update(s.crc32, castagnoli, b)
	case sumCRC64NVME:
		s.crc64 = crc64nvme.Update(s.crc64, b)
	default:
		s.h.Write(b)
	}
}

// value is the checksum in base64.
func (s *summer) value() string {
	var b [sha256.Size]byte
	switch s.algorithm {
	case sumCRC32, sumCRC32C:
		return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(b[:0], s.crc32))
	case sumCRC64NVME:
		return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(b[:0], s.crc64))
	}
	return base64.StdEncoding.EncodeToString(s.h.Sum(b[:0]))
}

// unenforced is a hash that FIPS 140-3 does not approve of, run outside the enforcement of
// GODEBUG=fips140=only. S3 clients send MD5 and SHA-1 as checksums against
// accidents; nothing here relies on them for protection.
type unenforced struct{ hash.Hash }

func newMD5() hash.Hash { return newUnenforced(md5.New) }

func newSHA1() hash.Hash { return newUnenforced(sha1.New) }

func newUnenforced(f func() hash.Hash) hash.Hash {
	var u unenforced
	fips140.WithoutEnforcement(func() { u.Hash = f() })
	return u
}

func (u unenforced) Write(b []byte) (n int, err error) {
	fips140.WithoutEnforcement(func() { n, err = u.Hash.Write(b) })
	return
}

func (u unenforced) Sum(b []byte) (sum []byte) {
	fips140.WithoutEnforcement(func() { sum = u.Hash.Sum(b) })
	return
}

// setChecksums answers with the checksums that a version has.
func (c *call) setChecksums(sums *redoubt.Checksums, parts int) {
	some := false
	for a := sumCRC32; a < sumCount; a++ {
		if v := *a.of(sums); v != "" {
			c.set(sumInfo[a].header, composed(v, sums.Composite, parts))
			some = true
		}
	}
	if some {
		c.set("X-Amz-Checksum-Type", sumType(sums))
	}
}

// composed gives a composite checksum the number of parts that S3 ends it with.
func composed(value string, composite bool, parts int) string {
	if !composite || parts == 0 || strings.Contains(value, "-") {
		return value
	}
	return value + "-" + strconv.Itoa(parts)
}

func sumType(sums *redoubt.Checksums) string {
	if sums.Composite {
		return "COMPOSITE"
	}
	return "FULL_OBJECT"
}

// xmlChecksums writes the checksums as elements.
func xmlChecksums(x *xmlWriter, sums *redoubt.Checksums, parts int) {
	for a := sumCRC32; a < sumCount; a++ {
		if v := *a.of(sums); v != "" {
			x.text("Checksum"+sumInfo[a].name, composed(v, sums.Composite, parts))
		}
	}
}

func hasChecksum(sums *redoubt.Checksums) bool {
	return sums.CRC32 != "" || sums.CRC32C != "" || sums.CRC64NVME != "" || sums.SHA1 != "" || sums.SHA256 != ""
}
