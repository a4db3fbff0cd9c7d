package s3

import (
	"net/http"
	"strings"
	"time"

	"redoubt"
)

// readWriteConditions reads If-Match and If-None-Match of a write; S3 knows no other there.
func (c *call) readWriteConditions() (redoubt.Conditions, error) {
	var cond redoubt.Conditions
	for _, name := range [...]string{"If-Modified-Since", "If-Unmodified-Since"} {
		if c.r.Header[name] != nil {
			return cond, notImplemented("The header " + name + " on a write")
		}
	}
	if err := readETags(c.r.Header["If-Match"], &cond.IfMatch); err != nil {
		return cond, err
	}
	if err := readETags(c.r.Header["If-None-Match"], &cond.IfNoneMatch); err != nil {
		return cond, err
	}
	if len(cond.IfNoneMatch) > 0 && (len(cond.IfNoneMatch) != 1 || cond.IfNoneMatch[0] != "*") {
		return cond, notImplemented("If-None-Match other than * on a write")
	}
	return cond, nil
}

// readConditions reads the four conditions of a read, or with prefix those of a copy's source.
func readConditions(h http.Header, prefix string) (cond redoubt.Conditions, err error) {
	if err = readETags(h[prefix+"If-Match"], &cond.IfMatch); err != nil {
		return cond, err
	}
	if err = readETags(h[prefix+"If-None-Match"], &cond.IfNoneMatch); err != nil {
		return cond, err
	}
	cond.IfModifiedSince = readDate(h[prefix+"If-Modified-Since"])
	cond.IfUnmodifiedSince = readDate(h[prefix+"If-Unmodified-Since"])
	return cond, nil
}

// readDate reads an HTTP date; RFC 9110 section 13.1.3 has a malformed one ignored.
func readDate(values []string) time.Time {
	if len(values) == 0 {
		return time.Time{}
	}
	t, err := http.ParseTime(values[0])
	if err != nil {
		t, _ = time.Parse(time.RFC3339, values[0]) // SDKs of old write it so in copy conditions
	}
	return t
}

// maxConditionETags bounds one condition; browsers and SDKs send one.
const maxConditionETags = 32

// readETags reads a list of entity tags, quoted or not, weak or not. A condition that names none is one that
// no version meets: what was to be done on a condition must not be done without.
func readETags(values []string, into *[]string) error {
	before := len(*into)
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			tag := strings.TrimPrefix(strings.TrimSpace(part), "W/")
			tag = strings.Trim(tag, `"`)
			if tag == "" {
				continue
			}
			if len(*into) == maxConditionETags {
				return errInvalidArgument.say("A condition lists too many entity tags.")
			}
			*into = append(*into, tag)
		}
	}
	if values != nil && len(*into) == before {
		*into = append(*into, "")
	}
	return nil
}
