package wasm

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// nothingOf is the body of a function that wazero need not compile any more: no locals, unreachable, end. It is valid whatever the function's type.
var nothingOf = []byte{3, 0, 0, 0x0b}

var errModule = errors.New("a module that is none")

// bare is a module without what its functions do, and without what means nothing to who runs it (custom sections). wazero checks every instruction of a
// module before it looks for what was compiled of it, which of a Go program takes longer than the program: so who runs it is given this, and what was
// compiled of the whole.
func bare(module []byte) ([]byte, error) {
	out := append([]byte(nil), module[:min(moduleHead, len(module))]...)
	err := sections(module, func(id byte, section, content []byte) error {
		switch id {
		case sectionCustom:
		case sectionCode:
			count, m := binary.Uvarint(content)
			if m <= 0 || count > uint64(len(content)) { // a function has a byte at least
				return errModule
			}
			number := binary.AppendUvarint(nil, count)
			out = append(binary.AppendUvarint(append(out, sectionCode), uint64(len(number))+count*uint64(len(nothingOf))), number...)
			for range count {
				out = append(out, nothingOf...)
			}
		default:
			out = append(out, section...)
		}
		return nil
	})
	return out, err
}

// Of the binary format, as far as it is read here.
const (
	moduleHead       = 8
	sectionCustom    = 0
	sectionType      = 1
	sectionImport    = 2
	sectionFunction  = 3
	sectionTable     = 4
	sectionMemory    = 5
	sectionGlobal    = 6
	sectionExport    = 7
	sectionElement   = 9
	sectionCode      = 10
	sectionData      = 11
	sectionDataCount = 12
)

// sections goes through those of a module: each whole, and its content.
func sections(module []byte, each func(id byte, section, content []byte) error) error {
	if len(module) < moduleHead {
		return errModule
	}
	for rest := module[moduleHead:]; len(rest) > 0; {
		size, n := binary.Uvarint(rest[1:])
		if n <= 0 || size > uint64(len(rest)-1-n) {
			return errModule
		}
		section := rest[:1+n+int(size)]
		if err := each(rest[0], section, section[1+n:]); err != nil {
			return err
		}
		rest = rest[len(section):]
	}
	return nil
}

// made is what a compiler makes of a module.
type made struct {
	bare []byte // the module, without its functions
	name string // of the file that wazero keeps what it compiled in, below its folder
	code []byte // the file
}

func (m made) size() int { return len(m.bare) + len(m.name) + len(m.code) }

func (m *made) same(as *made) bool {
	return m.name == as.name && bytes.Equal(m.bare, as.bare) && bytes.Equal(m.code, as.code)
}

// bytes is how it is kept.
func (m made) bytes() (all []byte) {
	for _, part := range [][]byte{m.bare, []byte(m.name), m.code} {
		all = append(binary.BigEndian.AppendUint64(all, uint64(len(part))), part...)
	}
	return all
}

// readMade is the other way.
func readMade(all []byte) (m made, err error) {
	var parts [3][]byte
	for i := range parts {
		if len(all) < 8 {
			return m, errFrame
		}
		n := binary.BigEndian.Uint64(all)
		if all = all[8:]; n > uint64(len(all)) {
			return m, errFrame
		}
		parts[i], all = all[:n:n], all[n:]
	}
	if len(all) > 0 || len(parts[1]) > 4096 {
		return m, errFrame
	}
	return made{bare: parts[0], name: string(parts[1]), code: parts[2]}, nil
}
