package wasm

import "encoding/binary"

// warmBytes of a memory are there from the start: the kernel takes longer to find them page by page as a program begins than its beginning takes.
const warmBytes = 4 << 20

// beside is what instantiating a module may make beside its memory where nobody waits for it yet: tables, globals, and what holds its segments and imports.
const beside = 4 << 20

// What instantiating makes of each, in bytes, with room to spare.
const (
	ofEntry   = 8 // of a table; and of a byte of the section of elements, whose passive ones are made a list of
	ofThing   = 128
	ofSegment = 24
)

// early reports whether a module may be instantiated before it is known what for. Nothing of it runs by that, so it has no start function, and what that
// takes is known before, since a worker that stands ready has no slot: of its memory what is there anyway (warmBytes) and as much more as it has bytes of
// data, and little beside. What is not understood here may take anything.
func early(module []byte) bool {
	var made, data, end uint64
	err := sections(module, func(id byte, _, content []byte) error {
		c := cursor{rest: content}
		switch id {
		case sectionCustom, sectionType, sectionFunction, sectionMemory, sectionExport, sectionCode, sectionDataCount: // what these say is there when the module is loaded, but for memory, which is empty
			return nil
		case sectionImport, sectionGlobal:
			made += ofThing * c.count()
			if c.bad {
				return errModule
			}
			return nil
		case sectionElement:
			made += ofEntry * uint64(len(content))
			return nil
		case sectionTable:
			for range c.count() {
				made += ofThing + ofEntry*c.table()
			}
		case sectionData:
			for range c.count() {
				at, n := c.segment()
				made, data, end = made+ofSegment, data+n, max(end, at+n)
			}
		default: // a start function, and what is of later versions
			return errModule
		}
		if c.bad || len(c.rest) > 0 {
			return errModule
		}
		return nil
	})
	return err == nil && made <= beside && end <= warmBytes+data
}

// weight is how much memory a worker may hold by loading a module, beside its own: what it is given, and what wazero makes of each part of that, with room to
// spare. 900 kB of empty types are 160 MB to it. false: it is not known.
func (m *made) weight() (bytes int, known bool) {
	w := uint64(m.size())
	err := sections(m.bare, func(id byte, _, content []byte) error {
		c := cursor{rest: content}
		switch id {
		case sectionType:
			w += 256 * uint64(len(content))
		case sectionElement:
			w += 64 * uint64(len(content))
		case sectionImport, sectionTable, sectionGlobal, sectionExport:
			w += 512 * c.count()
		case sectionFunction, sectionData:
			w += 128 * c.count()
		}
		if c.bad {
			return errModule
		}
		return nil
	})
	return int(w), err == nil
}

// cursor reads what a section holds. Where that is not there, or is not understood, it is bad, and gives nothing any more.
type cursor struct {
	rest []byte
	bad  bool
}

func (c *cursor) take(n uint64) []byte {
	if c.bad || n > uint64(len(c.rest)) {
		c.bad, c.rest = true, nil
		return nil
	}
	taken := c.rest[:n]
	c.rest = c.rest[n:]
	return taken
}

func (c *cursor) byte() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

// number is one of 32 bits.
func (c *cursor) number() uint64 {
	v, n := binary.Uvarint(c.rest)
	if n <= 0 || v >= 1<<32 {
		c.bad = true
	}
	if c.take(uint64(max(n, 0))); c.bad {
		return 0
	}
	return v
}

// count is how many there are of what has a byte at least.
func (c *cursor) count() uint64 {
	n := c.number()
	if n > uint64(len(c.rest)) {
		c.bad = true
		return 0
	}
	return n
}

// table is the size that one begins with.
func (c *cursor) table() uint64 {
	if of := c.byte(); of != 0x70 && of != 0x6f { // of functions, or of what is outside; one with another beginning may be full of it
		c.bad = true
	}
	limits := c.byte()
	size := c.number()
	switch limits {
	case 0:
	case 1:
		c.number()
	default:
		c.bad = true
	}
	return size
}

// segment is where one of data goes to, and how much it is. One that is passive goes nowhere.
func (c *cursor) segment() (at, n uint64) {
	switch c.number() {
	case 0:
	case 1:
		return 0, uint64(len(c.take(c.number())))
	case 2:
		if c.number() != 0 {
			c.bad = true
		}
	default:
		c.bad = true
	}
	if c.byte() != 0x41 { // i32.const
		c.bad = true
	}
	at = c.place()
	if c.byte() != 0x0b { // end
		c.bad = true
	}
	return at, uint64(len(c.take(c.number())))
}

// place is the operand of i32.const, where that is not negative.
func (c *cursor) place() (at uint64) {
	for shift := 0; shift < 35; shift += 7 {
		b := c.byte()
		at |= uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			c.bad = c.bad || b&0x40 != 0 || at >= 1<<31
			return at
		}
	}
	c.bad = true
	return 0
}
