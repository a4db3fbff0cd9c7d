package estate

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"redoubt"
)

// person reads one of the people.
func (r *reader) person(n *yaml.Node, path string) {
	var p redoubt.Person
	r.mapping(n, path,
		field{"name", true, func(n *yaml.Node, path string) { p.Name = redoubt.SubjectName(r.name(n, path)) }},
		field{"clearance", true, func(n *yaml.Node, path string) { p.Clearance = r.text(n, path) }},
		field{"nation", true, func(n *yaml.Node, path string) { p.Nation = r.text(n, path) }},
		field{"roles", true, func(n *yaml.Node, path string) {
			r.list(n, path, MaxRoles, func(n *yaml.Node, path string) { p.Roles = r.role(n, path, p.Roles) })
		}},
		field{"expires", true, func(n *yaml.Node, path string) { p.Expires = r.instant(n, path) }},
		field{"public_key", false, func(n *yaml.Node, path string) { p.PublicKey = r.publicKey(n, path) }},
		field{"workload", false, func(n *yaml.Node, path string) { p.Workload = r.flag(n, path) }},
	)
	r.estate.People = append(r.estate.People, p)
}

func (r *reader) role(n *yaml.Node, path string, have []redoubt.Role) []redoubt.Role {
	role := redoubt.Role(r.text(n, path))
	switch {
	case role == "":
	case !slices.Contains(redoubt.Roles(), role):
		r.fault(n, path, "unknown role "+printable(string(role)), "the roles are "+listed(redoubt.Roles()))
	case slices.Contains(have, role):
		r.fault(n, path, "the role is given twice", "")
	default:
		return append(have, role)
	}
	return have
}

// instant reads a date, which lasts to the end of that day (UTC), or an RFC 3339 time.
func (r *reader) instant(n *yaml.Node, path string) time.Time {
	s := r.text(n, path)
	if s == "" {
		return time.Time{}
	}
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t.AddDate(0, 0, 1).Add(-time.Second)
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		r.fault(n, path, printable(s)+" is not a date", "write 2031-12-31 or 2031-12-31T18:00:00Z")
		return time.Time{}
	}
	return t.UTC()
}

func (r *reader) publicKey(n *yaml.Node, path string) string {
	s := r.text(n, path)
	if s == "" {
		return ""
	}
	if b, err := base64.StdEncoding.Strict().DecodeString(s); err != nil || len(b) != ed25519.PublicKeySize {
		r.fault(n, path, "is not an Ed25519 public key (32 bytes in base64)", "redoubt person key FILE makes a key and prints its public half")
		return ""
	}
	return s
}

// bucket reads a bucket of a node: its name alone, or a mapping with settings.
func (r *reader) bucket(n *yaml.Node, path string, node *Node) {
	var b redoubt.Bucket
	if n.Kind == yaml.ScalarNode {
		b.Name = redoubt.BucketName(r.bucketName(n, path))
	} else {
		r.mapping(n, path,
			field{"name", true, func(n *yaml.Node, path string) { b.Name = redoubt.BucketName(r.bucketName(n, path)) }},
			field{"default", false, func(n *yaml.Node, path string) { b.Default = r.text(n, path) }},
			field{"floor", false, func(n *yaml.Node, path string) { b.Floor = r.text(n, path) }},
			field{"ceiling", false, func(n *yaml.Node, path string) { b.Ceiling = r.text(n, path) }},
			field{"current", false, func(n *yaml.Node, path string) { b.Current = r.oneOf(n, path, "newest", "highest") }},
			field{"md5_etag", false, func(n *yaml.Node, path string) { b.MD5ETag = r.flag(n, path) }},
			field{"closed", false, func(n *yaml.Node, path string) { b.Closed = r.flag(n, path) }},
			field{"lock", false, func(n *yaml.Node, path string) { b.Lock = r.lock(n, path) }},
		)
	}
	node.Buckets = append(node.Buckets, b)
}

func (r *reader) lock(n *yaml.Node, path string) (l redoubt.LockSettings) {
	r.mapping(n, path,
		field{"enabled", true, func(n *yaml.Node, path string) { l.Enabled = r.flag(n, path) }},
		field{"mode", false, func(n *yaml.Node, path string) { l.Mode = r.oneOf(n, path, "GOVERNANCE", "COMPLIANCE") }},
		field{"days", false, func(n *yaml.Node, path string) { l.Days = int(r.number(n, path, 1, 36_500)) }},
		field{"years", false, func(n *yaml.Node, path string) { l.Years = int(r.number(n, path, 1, 100)) }},
	)
	period := l.Days > 0 || l.Years > 0
	switch {
	case l.Days > 0 && l.Years > 0:
		r.fault(n, path, "days and years together", "give one of the two")
	case period != (l.Mode != ""):
		r.fault(n, path, "a default retention has a mode and a period", "give mode and days (or years), or neither")
	case l.Mode != "" && !l.Enabled:
		r.fault(n, path, "a default retention needs enabled: true", "")
	}
	return l
}

func (r *reader) oneOf(n *yaml.Node, path string, words ...string) string {
	s := r.text(n, path)
	if s != "" && !slices.Contains(words, s) {
		r.fault(n, path, printable(s)+" is not known here", "want "+strings.Join(words, " or "))
		return ""
	}
	return s
}

// bucketName reads a name by the S3 rules without dots, which are for guards.
func (r *reader) bucketName(n *yaml.Node, path string) string {
	s := r.text(n, path)
	if s != "" && (len(s) < 3 || !validName(s)) {
		r.fault(n, path, printable(s)+" is not a bucket name", "bucket names have 3 to 63 of a-z, 0-9 and -; names with a dot belong to guards")
		return ""
	}
	return s
}

// units of a size, longest first.
var units = []struct {
	word  string
	bytes int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"PiB", 1 << 50},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"PB", 1e15}, {"B", 1},
}

// size reads a number of bytes, such as 10GiB.
func (r *reader) size(n *yaml.Node, path string) int64 {
	s := r.text(n, path)
	if s == "" {
		return 0
	}
	digits, unit := s, int64(1)
	for _, u := range units {
		if d, ok := strings.CutSuffix(s, u.word); ok {
			digits, unit = strings.TrimSpace(d), u.bytes
			break
		}
	}
	v, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || v <= 0 || v > math.MaxInt64/unit {
		r.fault(n, path, printable(s)+" is not a size", "write a whole number of bytes, or with a unit: 500MB, 10GiB")
		return 0
	}
	return v * unit
}

// duration reads a time span, such as 72h or 30m.
func (r *reader) duration(n *yaml.Node, path string, low, high time.Duration) time.Duration {
	s := r.text(n, path)
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < low || d > high || d%time.Second != 0 {
		r.fault(n, path, printable(s)+" is not a time between "+low.String()+" and "+high.String(), "write 72h, 30m or 90s")
		return 0
	}
	return d
}

func listed[T ~string](words []T) string {
	s := make([]string, len(words))
	for i, w := range words {
		s[i] = string(w)
	}
	return fmt.Sprint(strings.Join(s, ", "))
}
