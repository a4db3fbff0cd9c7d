package s3

import (
	"net/http"
	"strconv"
	"strings"

	"redoubt"
)

// span is the part of a version's content that is asked for.
type span struct {
	off, n  int64
	partial bool // answered with 206 and Content-Range
	parts   int  // of the version, when a part number was asked for
}

func (p span) status() int {
	if p.partial {
		return http.StatusPartialContent
	}
	return http.StatusOK
}

func (p span) contentRange(size int64) string {
	b := append(make([]byte, 0, 48), "bytes "...)
	b = strconv.AppendInt(b, p.off, 10)
	b = strconv.AppendInt(append(b, '-'), p.off+p.n-1, 10)
	return string(strconv.AppendInt(append(b, '/'), size, 10))
}

// span reads Range, If-Range and partNumber against a version.
func (c *call) span(v *redoubt.Version) (span, error) {
	whole := span{n: v.SizeBytes}
	ranges := c.header("Range")
	if number, ok := c.query.find("partNumber"); ok {
		if ranges != "" {
			return whole, errInvalidRequest.say("Cannot specify both Range header and partNumber query parameter")
		}
		return partSpan(v, number)
	}
	if ranges == "" || !c.rangeHolds(v) {
		return whole, nil
	}
	part, ok, err := parseRange(ranges, v.SizeBytes)
	if err != nil {
		c.set("Content-Range", "bytes */"+strconv.FormatInt(v.SizeBytes, 10))
		return whole, errInvalidRange.with("RangeRequested", ranges).with("ActualObjectSize", strconv.FormatInt(v.SizeBytes, 10))
	}
	if !ok {
		return whole, nil
	}
	return part, nil
}

// rangeHolds evaluates If-Range: on a version that has changed, all of it is sent.
func (c *call) rangeHolds(v *redoubt.Version) bool {
	cond := c.header("If-Range")
	if cond == "" {
		return true
	}
	if t, err := http.ParseTime(cond); err == nil {
		return v.Modified.Unix() == t.Unix()
	}
	return strings.Trim(cond, `"`) == v.ETag
}

// parseRange reads one byte range. A malformed or a multiple one is ignored (ok false), as S3 does; one
// that lies outside is an error.
func parseRange(s string, size int64) (part span, ok bool, err error) {
	spec, found := strings.CutPrefix(s, "bytes=")
	if !found || strings.IndexByte(spec, ',') >= 0 {
		return part, false, nil
	}
	first, last, found := cut(strings.TrimSpace(spec), '-')
	if !found {
		return part, false, nil
	}
	if first == "" {
		n, ok := parseDigits(last)
		if !ok {
			return part, false, nil
		}
		if n == 0 || size == 0 {
			return part, false, errInvalidRange
		}
		n = min(n, size)
		return span{off: size - n, n: n, partial: true}, true, nil
	}
	off, ok := parseDigits(first)
	if !ok {
		return part, false, nil
	}
	end := size - 1
	if last != "" {
		if end, ok = parseDigits(last); !ok || end < off {
			return part, false, nil
		}
		end = min(end, size-1)
	}
	if off >= size {
		return part, false, errInvalidRange
	}
	return span{off: off, n: end - off + 1, partial: true}, true, nil
}

// parseDigits reads digits alone; a number too large to hold is as large as can be.
func parseDigits(s string) (int64, bool) {
	if s == "" {
		return 0, false
	}
	var n int64
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		if n > (1<<62)/10 {
			n = 1 << 62
			continue
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

// partSpan is what one part of a multipart upload covers; any other object is its own part 1.
func partSpan(v *redoubt.Version, number string) (span, error) {
	n, err := partNumber(number)
	if err != nil {
		return span{}, err
	}
	sizes := v.PartSizes
	if sizes == nil {
		if n != 1 {
			return span{}, errInvalidPartNumber
		}
		return span{n: v.SizeBytes, partial: v.SizeBytes > 0}, nil
	}
	if n > len(sizes) {
		return span{}, errInvalidPartNumber.with("ActualPartCount", strconv.Itoa(len(sizes))).with("PartNumberRequested", number)
	}
	part := span{n: sizes[n-1], partial: sizes[n-1] > 0, parts: len(sizes)}
	for _, size := range sizes[:n-1] {
		part.off += size
	}
	return part, nil
}

// partNumber reads 1 to MaxParts.
func partNumber(s string) (int, error) {
	n, ok := parseDigits(s)
	if !ok || n < 1 || n > redoubt.MaxParts {
		return 0, invalid("partNumber", s, "Part number must be an integer between 1 and 10000, inclusive")
	}
	return int(n), nil
}
