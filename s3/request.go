package s3

import (
	"net/http"
	"strings"
	"unicode/utf8"

	"redoubt"
)

// param is one parameter of the query, decoded.
type param struct{ name, value string }

// query is the decoded query in the order sent. It is short, so a scan beats a map.
type query []param

func (q query) get(name string) string {
	v, _ := q.find(name)
	return v
}

func (q query) has(name string) bool {
	_, ok := q.find(name)
	return ok
}

// hasHeader says whether a header stands in the query, in whatever case: there it has none, as hoist takes it.
func (q query) hasHeader(name string) bool {
	for i := range q {
		if strings.EqualFold(q[i].name, name) {
			return true
		}
	}
	return false
}

func (q query) find(name string) (string, bool) {
	for i := range q {
		if q[i].name == name {
			return q[i].value, true
		}
	}
	return "", false
}

// parseQuery decodes a raw query strictly: a broken escape, a repeated name, bad UTF-8 or NUL is an error.
func parseQuery(raw string) (query, error) {
	if raw == "" {
		return nil, nil
	}
	if len(raw) > maxQueryBytes {
		return nil, errInvalidURI.say("The query is too long.")
	}
	q := make(query, 0, strings.Count(raw, "&")+1)
	for raw != "" {
		var pair string
		pair, raw, _ = cut(raw, '&')
		if pair == "" {
			continue
		}
		name, value, _ := cut(pair, '=')
		name, ok1 := unescape(name)
		value, ok2 := unescape(value)
		if !ok1 || !ok2 || !validText(name) || !validText(value) {
			return nil, errInvalidURI
		}
		if q.has(name) {
			return nil, invalid(name, value, "A query parameter is repeated.")
		}
		if len(q) == maxQueryParams {
			return nil, errInvalidURI.say("The query has too many parameters.")
		}
		q = append(q, param{name, value})
	}
	return q, nil
}

// cut is strings.Cut for one byte.
func cut(s string, sep byte) (before, after string, found bool) {
	if i := strings.IndexByte(s, sep); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// unescape decodes %XX and "+" of a query.
func unescape(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s, true
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '+':
			b = append(b, ' ')
		case '%':
			if i+2 >= len(s) {
				return "", false
			}
			hi, lo := fromHex(s[i+1]), fromHex(s[i+2])
			if hi < 0 || lo < 0 {
				return "", false
			}
			b = append(b, byte(hi<<4|lo))
			i += 2
		default:
			b = append(b, c)
		}
	}
	return string(b), true
}

func fromHex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// validText holds for UTF-8 without NUL.
func validText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// parseTarget finds bucket, key and query, and holds the request to the limits of its head.
func (c *call) parseTarget() error {
	if err := checkHeaderSize(c.r.Header); err != nil {
		return err
	}
	path := c.r.URL.Path
	if path == "" || path[0] != '/' || !validText(path) {
		return errInvalidURI
	}
	var err error
	if c.query, err = parseQuery(c.r.URL.RawQuery); err != nil {
		return err
	}
	bucket, key := c.virtualHost(), path[1:]
	if bucket == "" {
		bucket, key, _ = cut(path[1:], '/')
	}
	c.bucket, c.key = redoubt.BucketName(bucket), key
	if bucket == "" && key != "" {
		return errInvalidBucketName
	}
	if bucket != "" && !plausibleBucket(bucket) {
		return errInvalidBucketName
	}
	return checkKey(key)
}

// checkKey holds a key to its length; any UTF-8 without NUL is a key, "a/../b" too.
func checkKey(key string) error {
	if len(key) > redoubt.MaxKeyBytes {
		return errKeyTooLong
	}
	if !validText(key) {
		return errInvalidURI
	}
	return nil
}

// plausibleBucket holds for what may be a bucket's name at all; which of them may be made, the service says.
func plausibleBucket(name string) bool {
	if len(name) > maxBucketNameBytes || len(name) < 3 {
		return false
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// virtualHost gives the bucket that the Host header names, or "".
func (c *call) virtualHost() string {
	if c.s.domain == "" {
		return ""
	}
	host := c.r.Host
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(c.s.domain, host[i:]) {
		host = host[:i]
	}
	if n := len(host) - len(c.s.domain); n > 0 && strings.EqualFold(host[n:], c.s.domain) {
		return strings.ToLower(host[:n])
	}
	return ""
}

// headerName holds for a name of letters, digits, "-", "_" and ".". What stands for a header elsewhere is held to that: a label
// header with another character in its name must not pass for one that is not known.
func headerName(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return s != ""
}

// headerValue holds for what could have come in a header: no control character but a tab.
func headerValue(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) < 0
}

const notAHeader = "What stands for a header could not be one."

func checkHeaderSize(h http.Header) error {
	n := 0
	for name, values := range h {
		for _, v := range values {
			n += len(name) + len(v)
		}
	}
	if n > maxHeaderBytes {
		return errHeaderTooLarge
	}
	return nil
}

// header gives the single value of a header, in canonical form; the first when it is repeated.
func (c *call) header(name string) string {
	if v := c.r.Header[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// single gives the value of a header that must not be repeated.
func (c *call) single(name string) (string, error) {
	v := c.r.Header[name]
	if len(v) > 1 {
		return "", invalid(name, v[1], "The header is repeated.")
	}
	if len(v) == 0 {
		return "", nil
	}
	return v[0], nil
}
