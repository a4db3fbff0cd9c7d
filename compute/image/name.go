package image

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	"redoubt"
)

// MaxTagBytes bounds a tag (OCI Distribution 1.1).
const MaxTagBytes = 128

// Digest is a SHA-256. The zero Digest is nothing's.
type Digest [sha256.Size]byte

// DigestOf is the digest of b.
func DigestOf(b []byte) Digest { return sha256.Sum256(b) }

// ParseDigest reads sha256:HEX, 64 hex digits in lower case.
func ParseDigest(s string) (d Digest, err error) {
	digits, ok := strings.CutPrefix(s, "sha256:")
	if !ok {
		return d, invalid("digest", "a digest here is sha256: and 64 hex digits")
	}
	return parseHex(digits)
}

func parseHex(digits string) (d Digest, err error) {
	if len(digits) != 2*len(d) || strings.ToLower(digits) != digits {
		return d, invalid("digest", "a digest here is sha256: and 64 hex digits, in lower case")
	}
	if _, err := hex.Decode(d[:], []byte(digits)); err != nil {
		return Digest{}, invalid("digest", "a digest here is sha256: and 64 hex digits")
	}
	return d, nil
}

// Hex is the digest without its algorithm.
func (d Digest) Hex() string { return hex.EncodeToString(d[:]) }

func (d Digest) String() string { return "sha256:" + d.Hex() }

// IsZero reports whether d is no digest.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText and UnmarshalText are String and ParseDigest.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (d *Digest) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDigest(string(b))
	return err
}

// Repository is where images lie: a name within a bucket.
type Repository struct {
	Bucket redoubt.BucketName
	Name   string // one or more components, with slashes between
}

var tagForm = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]*$`)

// ParseRepository reads BUCKET/NAME.
func ParseRepository(s string) (Repository, error) {
	bucket, name, _ := strings.Cut(s, "/")
	if redoubt.ReservedRepository(bucket) {
		return Repository{}, invalid("repository", "no images lie in a bucket called %s: use another", bucket)
	}
	if !redoubt.ValidRepository(s) {
		return Repository{}, invalid("repository", "a repository is BUCKET/NAME, each of a-z and 0-9, with single . _ or - within")
	}
	return Repository{Bucket: redoubt.BucketName(bucket), Name: name}, nil
}

func (r Repository) String() string { return string(r.Bucket) + "/" + r.Name }

// ValidTag says whether s can be a tag.
func ValidTag(s string) bool { return len(s) <= MaxTagBytes && tagForm.MatchString(s) }

func (r Repository) object(rest string) redoubt.ObjectName {
	return redoubt.ObjectName{Bucket: r.Bucket, Key: r.Name + "/" + rest}
}

// Blob is where a blob lies that came whole, with its digest.
func (r Repository) Blob(d Digest) redoubt.ObjectName { return r.object("_blobs/sha256/" + d.Hex()) }

// Link is where stands, of a blob that came before its digest was known, under which ID its content lies.
func (r Repository) Link(d Digest) redoubt.ObjectName { return r.object("_links/sha256/" + d.Hex()) }

// Data is where the content of such a blob lies. An ID is 32 hex digits.
func (r Repository) Data(id string) redoubt.ObjectName { return r.object("_data/" + id) }

// Holder is the repository, as text, among whose blobs and manifests a version lies; "": none.
func Holder(n redoubt.ObjectName) string {
	for _, kind := range []string{"/_blobs/", "/_data/", manifests} {
		if name, _, within := strings.Cut(n.Key, kind); within {
			return Repository{Bucket: n.Bucket, Name: name}.String()
		}
	}
	return ""
}

// IsManifest says whether a manifest may lie under a key.
func IsManifest(key string) bool { return strings.Contains(key, manifests) }

const manifests = "/_manifests/"

// Manifest is where a manifest lies.
func (r Repository) Manifest(d Digest) redoubt.ObjectName {
	return r.object("_manifests/sha256/" + d.Hex())
}

// Tags is what the key of every tag begins with.
func (r Repository) Tags() string { return r.Name + "/_tags/" }

// Tag is where stands which manifest a tag means: sha256:HEX and nothing else.
func (r Repository) Tag(tag string) redoubt.ObjectName { return r.object("_tags/" + tag) }

// Referrers is what the keys begin with that say which manifests refer to subject.
func (r Repository) Referrers(subject Digest) string {
	return r.Name + "/_referrers/sha256/" + subject.Hex() + "/"
}

// Referrer is the key that says that the manifest d refers to subject. Nothing is kept under it.
func (r Repository) Referrer(subject, d Digest) redoubt.ObjectName {
	return redoubt.ObjectName{Bucket: r.Bucket, Key: r.Referrers(subject) + d.Hex()}
}

// ReferrerOf reads such a key back.
func (r Repository) ReferrerOf(subject Digest, key string) (Digest, bool) {
	digits, ok := strings.CutPrefix(key, r.Referrers(subject))
	if !ok {
		return Digest{}, false
	}
	d, err := parseHex(digits)
	return d, err == nil
}

// Reference names one image: by a tag, by its digest, or by both, and then the digest counts.
type Reference struct {
	Repository
	Tag    string
	Digest Digest
}

// ParseReference reads BUCKET/NAME:TAG, BUCKET/NAME@sha256:HEX or both. Without either the tag is latest.
func ParseReference(s string) (ref Reference, err error) {
	rest, digest, pinned := strings.Cut(s, "@")
	if pinned {
		if ref.Digest, err = ParseDigest(digest); err != nil {
			return Reference{}, err
		}
	}
	repo, tag, tagged := strings.Cut(rest, ":")
	if ref.Repository, err = ParseRepository(repo); err != nil {
		return Reference{}, err
	}
	switch {
	case tagged && !ValidTag(tag):
		return Reference{}, invalid("reference", "a tag has up to 128 of a-z, A-Z, 0-9, . _ and -, and begins with none of . and -")
	case tagged:
		ref.Tag = tag
	case !pinned:
		ref.Tag = "latest"
	}
	return ref, nil
}

func (r Reference) String() string {
	s := r.Repository.String()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if !r.Digest.IsZero() {
		s += "@" + r.Digest.String()
	}
	return s
}

// invalid is what is wrong with something of an image, for who pushed it or wants to run it.
func invalid(op, why string, args ...any) error {
	return &redoubt.Error{Op: "image." + op, Kind: redoubt.Invalid, Rule: fmt.Sprintf(why, args...)}
}
