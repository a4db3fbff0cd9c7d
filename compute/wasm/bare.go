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
	const head, custom, code = 8, 0, 10
	if len(module) < head {
		return nil, errModule
	}
	out, rest := append([]byte(nil), module[:head]...), module[head:]
	for len(rest) > 0 {
		id := rest[0]
		size, n := binary.Uvarint(rest[1:])
		if n <= 0 || size > uint64(len(rest)-1-n) {
			return nil, errModule
		}
		section := rest[:1+n+int(size)]
		rest = rest[len(section):]
		switch id {
		case custom:
		case code:
			count, m := binary.Uvarint(section[1+n:])
			if m <= 0 || count > size { // a function has a byte at least
				return nil, errModule
			}
			number := binary.AppendUvarint(nil, count)
			out = append(binary.AppendUvarint(append(out, code), uint64(len(number))+count*uint64(len(nothingOf))), number...)
			for range count {
				out = append(out, nothingOf...)
			}
		default:
			out = append(out, section...)
		}
	}
	return out, nil
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
