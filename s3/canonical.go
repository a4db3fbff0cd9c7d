package s3

import (
	"slices"
	"strconv"
	"strings"
	"sync"
)

// pathPool holds scratch buffers for canonical forms.
var pathPool = sync.Pool{New: func() any { b := make([]byte, 0, 2<<10); return &b }}

// appendCanonical writes the canonical request of SigV4.
func (c *call) appendCanonical(b []byte, path string) []byte {
	b = append(b, c.r.Method...)
	b = append(append(b, '\n'), path...)
	b = append(b, '\n')
	b = c.query.appendCanonical(b)
	b = append(b, '\n')
	for _, name := range c.sig.signed {
		b = append(append(b, name...), ':')
		b = c.appendHeader(b, name)
		b = append(b, '\n')
	}
	b = append(b, '\n')
	for i, name := range c.sig.signed {
		if i > 0 {
			b = append(b, ';')
		}
		b = append(b, name...)
	}
	return append(append(b, '\n'), c.sig.content...)
}

// appendCanonical writes the parameters escaped and sorted, without the signature itself.
func (q query) appendCanonical(b []byte) []byte {
	if len(q) == 0 {
		return b
	}
	pairs := make([]string, 0, len(q))
	var scratch [256]byte
	for _, p := range q {
		if p.name == "X-Amz-Signature" {
			continue
		}
		e := appendURI(scratch[:0], p.name, true)
		e = append(e, '=')
		e = appendURI(e, p.value, true)
		pairs = append(pairs, string(e))
	}
	// "=" sorts after some characters of names, so names are compared first.
	slices.SortFunc(pairs, func(x, y string) int {
		xn, xv, _ := cut(x, '=')
		yn, yv, _ := cut(y, '=')
		if d := strings.Compare(xn, yn); d != 0 {
			return d
		}
		return strings.Compare(xv, yv)
	})
	for i, p := range pairs {
		if i > 0 {
			b = append(b, '&')
		}
		b = append(b, p...)
	}
	return b
}

// appendHeader writes the values of a header, trimmed, inner blanks folded, joined by commas.
func (c *call) appendHeader(b []byte, name string) []byte {
	switch name {
	case "host":
		return append(b, c.r.Host...)
	case "content-length":
		return strconv.AppendInt(b, max(c.r.ContentLength, 0), 10)
	case "transfer-encoding":
		return append(b, strings.Join(c.r.TransferEncoding, ",")...)
	}
	for i, v := range c.values(name) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendFolded(b, v)
	}
	return b
}

// values looks a lower-case name up without allocating its canonical form.
func (c *call) values(name string) []string {
	var buf [64]byte
	if len(name) > len(buf) {
		return c.r.Header.Values(name)
	}
	upper := true
	for i := 0; i < len(name); i++ {
		ch := name[i]
		if upper && 'a' <= ch && ch <= 'z' {
			ch -= 'a' - 'A'
		}
		buf[i] = ch
		upper = ch == '-'
	}
	return c.r.Header[string(buf[:len(name)])]
}

func appendFolded(b []byte, v string) []byte {
	v = strings.Trim(v, " \t")
	if !strings.Contains(v, "  ") {
		return append(b, v...)
	}
	space := false
	for i := 0; i < len(v); i++ {
		if v[i] == ' ' && space {
			continue
		}
		space = v[i] == ' '
		b = append(b, v[i])
	}
	return b
}
