package ztdf

import (
	"bytes"
	"encoding/binary"
	"io"

	"redoubt"
)

// The archive is read by rules of its own, not by a general zip reader, which looks for what it can use: here two stored
// members, their headers, the directory and its end lie one behind the other and cover the file, and what is said twice is
// said alike. So no reader sees another file in it than another reader does.

const (
	sigLocal      = 0x04034b50
	sigDescriptor = 0x08074b50
	sigCentral    = 0x02014b50
	sigEnd        = 0x06054b50
	sigEnd64      = 0x06064b50
	sigLocator    = 0x07064b50

	localBytes, centralBytes, endBytes, end64Bytes, locatorBytes = 30, 46, 22, 56, 20

	flagDescriptor, flagUTF8 = 1 << 3, 1 << 11
	extra64                  = 1
	maxNameBytes             = 64 // of a member, and of its extra field: the names have 15 and 9 bytes, the field 28
)

// member is one member of the archive.
type member struct {
	name       string
	flags      uint16
	crc        uint32
	size       uint64
	at         uint64 // of its local header
	start, end uint64 // of its bytes
}

// archive is where the two members lie.
type archive struct {
	r        io.ReaderAt
	manifest member
	payload  member
}

func badZip(format string, args ...any) error {
	return refused(redoubt.Invalid, RuleArchive, format, args...)
}

var le = binary.LittleEndian

// readArchive finds the two members.
func readArchive(r io.ReaderAt, size int64) (*archive, error) {
	if size < endBytes {
		return nil, badZip("the file is too short for a zip")
	}
	at := func(off uint64, n int) ([]byte, error) {
		b := make([]byte, n)
		if off > uint64(size) || uint64(n) > uint64(size)-off {
			return nil, badZip("a header lies outside the file")
		}
		if _, err := r.ReadAt(b, int64(off)); err != nil && err != io.EOF {
			return nil, badZip("it cannot be read: %w", err)
		}
		return b, nil
	}
	dir, dirEnd, err := directory(at, uint64(size))
	if err != nil {
		return nil, err
	}
	raw, err := at(dir, int(dirEnd-dir))
	if err != nil {
		return nil, err
	}
	var members []member
	for len(raw) > 0 {
		m, rest, err := central(raw)
		if err != nil {
			return nil, err
		}
		members, raw = append(members, m), rest
	}
	if len(members) != 2 {
		return nil, badZip("it has %d members, want %s and %s alone", len(members), manifestName, payloadName)
	}
	if members[0].at > members[1].at {
		members[0], members[1] = members[1], members[0]
	}
	if members[0].at != 0 {
		return nil, badZip("something stands before the first member")
	}
	for i, next := range []uint64{members[1].at, dir} {
		if err := local(at, &members[i], next); err != nil {
			return nil, err
		}
	}
	a := &archive{r: r, payload: members[0], manifest: members[1]}
	if a.payload.name == manifestName {
		a.payload, a.manifest = a.manifest, a.payload
	}
	if a.payload.name != payloadName || a.manifest.name != manifestName {
		return nil, badZip("its members are %q and %q, want %s and %s", clip(members[0].name), clip(members[1].name), manifestName, payloadName)
	}
	return a, nil
}

// directory finds the central directory: behind it stand the end record, or with zip64 three records, and nothing else.
func directory(at func(uint64, int) ([]byte, error), size uint64) (start, end uint64, err error) {
	e, err := at(size-endBytes, endBytes)
	if err != nil {
		return 0, 0, err
	}
	if le.Uint32(e) != sigEnd || le.Uint16(e[20:]) != 0 {
		return 0, 0, badZip("it does not end as a zip without a comment does")
	}
	if le.Uint16(e[4:]) != 0 && le.Uint16(e[4:]) != 0xffff || le.Uint16(e[6:]) != 0 && le.Uint16(e[6:]) != 0xffff {
		return 0, 0, badZip("it is part of a split archive")
	}
	n, m, length, start := uint64(le.Uint16(e[8:])), uint64(le.Uint16(e[10:])), uint64(le.Uint32(e[12:])), uint64(le.Uint32(e[16:]))
	end = size - endBytes
	if size >= endBytes+locatorBytes+end64Bytes {
		l, err := at(size-endBytes-locatorBytes, locatorBytes)
		if err != nil {
			return 0, 0, err
		}
		if le.Uint32(l) == sigLocator {
			end = size - endBytes - locatorBytes - end64Bytes
			z, err := at(end, end64Bytes)
			if err != nil {
				return 0, 0, err
			}
			if le.Uint32(l[4:]) != 0 || le.Uint64(l[8:]) != end || le.Uint32(l[16:]) != 1 || le.Uint32(z) != sigEnd64 || le.Uint64(z[4:]) != end64Bytes-12 ||
				le.Uint32(z[16:]) != 0 || le.Uint32(z[20:]) != 0 {
				return 0, 0, badZip("its zip64 records are not where they should be")
			}
			for i, v := range []*uint64{&n, &m, &length, &start} {
				if full := uint64(0xffff) | uint64(i/2)*0xffffffff; *v != full && *v != le.Uint64(z[24+8*i:]) {
					return 0, 0, badZip("its end is told twice, and not alike")
				}
				*v = le.Uint64(z[24+8*i:])
			}
		}
	}
	if n != 2 || m != 2 {
		return 0, 0, badZip("it has %d members, want %s and %s alone", m, manifestName, payloadName)
	}
	if length > 2*(centralBytes+2*maxNameBytes) || start > end || end-start != length {
		return 0, 0, badZip("its directory does not stand before its end")
	}
	return start, end, nil
}

// central reads one entry of the directory.
func central(b []byte) (m member, rest []byte, err error) {
	if len(b) < centralBytes || le.Uint32(b) != sigCentral {
		return m, nil, badZip("its directory is malformed")
	}
	nameLen, extraLen := int(le.Uint16(b[28:])), int(le.Uint16(b[30:]))
	if nameLen > maxNameBytes || extraLen > maxNameBytes || len(b) < centralBytes+nameLen+extraLen {
		return m, nil, badZip("a name or a field in its directory is too long")
	}
	if le.Uint16(b[32:]) != 0 || le.Uint16(b[34:]) != 0 && le.Uint16(b[34:]) != 0xffff {
		return m, nil, badZip("a member has a comment or lies elsewhere")
	}
	m = member{name: string(b[centralBytes : centralBytes+nameLen]), flags: le.Uint16(b[8:]), crc: le.Uint32(b[16:]), at: uint64(le.Uint32(b[42:]))}
	if m.flags&^(flagDescriptor|flagUTF8) != 0 {
		return m, nil, badZip("member %q is encrypted, or of a kind that is not read", clip(m.name))
	}
	if le.Uint16(b[10:]) != 0 {
		return m, nil, badZip("member %q is compressed", clip(m.name))
	}
	packed, size := uint64(le.Uint32(b[20:])), uint64(le.Uint32(b[24:]))
	err = wide(b[centralBytes+nameLen:centralBytes+nameLen+extraLen], &size, &packed, &m.at)
	if err == nil && packed != size {
		err = badZip("member %q has two sizes", clip(m.name))
	}
	m.size = size
	return m, b[centralBytes+nameLen+extraLen:], err
}

// wide takes the 64-bit values of a zip64 field in the place of those that are full; it is the only extra field that is read.
func wide(extra []byte, values ...*uint64) error {
	if len(extra) == 0 {
		for _, v := range values {
			if *v == 0xffffffff {
				return badZip("a size of 32 bits is full, and there is no other")
			}
		}
		return nil
	}
	if len(extra) < 4 || le.Uint16(extra) != extra64 || int(le.Uint16(extra[2:])) != len(extra)-4 {
		return badZip("a member has an extra field that is not read")
	}
	extra = extra[4:]
	for _, v := range values {
		if *v != 0xffffffff {
			continue
		}
		if len(extra) < 8 {
			return badZip("a zip64 field is too short")
		}
		*v, extra = le.Uint64(extra), extra[8:]
	}
	if len(extra) != 0 {
		return badZip("a zip64 field says more than is needed")
	}
	return nil
}

// local holds a member's own header against the directory, and finds where its bytes lie: they and what follows them end
// where the next thing begins.
func local(at func(uint64, int) ([]byte, error), m *member, next uint64) error {
	h, err := at(m.at, localBytes)
	if err != nil {
		return err
	}
	nameLen, extraLen := int(le.Uint16(h[26:])), int(le.Uint16(h[28:]))
	if le.Uint32(h) != sigLocal || nameLen != len(m.name) || extraLen > maxNameBytes {
		return badZip("the header of member %q is not where its directory says", clip(m.name))
	}
	rest, err := at(m.at+localBytes, nameLen+extraLen)
	if err != nil {
		return err
	}
	late := m.flags&flagDescriptor != 0 // sizes and sum follow the bytes
	crc, packed, size := le.Uint32(h[14:]), uint64(le.Uint32(h[18:])), uint64(le.Uint32(h[22:]))
	if late && size == 0xffffffff && packed == 0xffffffff && extraLen == 20 && le.Uint64(rest[nameLen+4:]) == 0 && le.Uint64(rest[nameLen+12:]) == 0 {
		size, packed = 0, 0 // room that was kept for what follows
	} else if err := wide(rest[nameLen:], &size, &packed); err != nil {
		return err
	}
	known := crc == m.crc && size == m.size && packed == m.size
	if string(rest[:nameLen]) != m.name || le.Uint16(h[6:]) != m.flags || le.Uint16(h[8:]) != 0 || !known && !(late && crc == 0 && size == 0 && packed == 0) {
		return badZip("the header of member %q says other than its directory", clip(m.name))
	}
	m.start = m.at + localBytes + uint64(nameLen+extraLen)
	if m.start > next || m.size > next-m.start {
		return badZip("member %q overlaps what follows it", clip(m.name))
	}
	m.end = m.start + m.size
	return trailer(at, m, next, late)
}

// trailer reads what stands between a member and the next thing: nothing, or sizes and sum where they come late.
func trailer(at func(uint64, int) ([]byte, error), m *member, next uint64, late bool) error {
	gap := next - m.end
	if !late && gap == 0 {
		return nil
	}
	if !late || gap != 12 && gap != 16 && gap != 20 && gap != 24 {
		return badZip("something stands behind member %q", clip(m.name))
	}
	d, err := at(m.end, int(gap))
	if err != nil {
		return err
	}
	if gap == 16 || gap == 24 {
		if le.Uint32(d) != sigDescriptor {
			return badZip("something stands behind member %q", clip(m.name))
		}
		d = d[4:]
	}
	want := le.AppendUint32(nil, m.crc)
	for range 2 {
		if len(d) == 12 {
			want = le.AppendUint32(want, uint32(m.size))
		} else {
			want = le.AppendUint64(want, m.size)
		}
	}
	if !bytes.Equal(d, want) || len(d) == 12 && m.size >= 1<<32 {
		return badZip("what stands behind member %q says other than its directory", clip(m.name))
	}
	return nil
}

// clip shortens what somebody else wrote, for an error.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
