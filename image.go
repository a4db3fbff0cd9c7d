package redoubt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"regexp"
	"strings"
)

// ImagePolicy says which images may run. A nil policy is none: whatever a subject may read may run. One without rules admits nothing.
type ImagePolicy struct {
	Rules []ImageRule `json:"rules"`
}

// ImageRule admits the images of a repository that have one of the digests, where it names any, and a signature of one of the keys, where it
// names any. A rule that names neither admits nothing.
type ImageRule struct {
	Repository string   `json:"repository"`          // BUCKET/NAME; BUCKET/* and BUCKET/NAME/*: all below; *: all
	Digests    []string `json:"digests,omitempty"`   // sha256:HEX, of a manifest or an index
	SignedBy   []string `json:"signed_by,omitempty"` // as ParseImageKey reads them
}

// Limits of a policy on images.
const (
	MaxImageRules      = 1000
	MaxImageDigests    = 1000 // of one rule
	MaxImageKeys       = 64   // of one rule
	MaxRepositoryBytes = 255  // of BUCKET/NAME: what docker takes
)

// One part of a repository's name (OCI Distribution 1.1). None begins with "_", as the keys under a repository do, and none is "." or "..".
const repositoryPart = `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`

var (
	repositoryForm    = regexp.MustCompile(`^` + repositoryPart + `(?:/` + repositoryPart + `)+$`)
	repositoryPattern = regexp.MustCompile(`^` + repositoryPart + `(?:/` + repositoryPart + `)*/\*$`)
)

// ReservedRepository says whether first, behind /v2/ on a node's listener, belongs to another protocol than that of images: the Open
// Inference Protocol has /v2/models and /v2/health. No images lie in buckets of those names.
func ReservedRepository(first string) bool { return first == "models" || first == "health" }

// ValidRepository says whether s is BUCKET/NAME, a place for images.
func ValidRepository(s string) bool {
	bucket, _, _ := strings.Cut(s, "/")
	return len(s) <= MaxRepositoryBytes && repositoryForm.MatchString(s) && !ReservedRepository(bucket)
}

// ValidRepositoryPattern says whether s can be a rule's Repository.
func ValidRepositoryPattern(s string) bool {
	return s == "*" || ValidRepository(s) || len(s) <= MaxRepositoryBytes && repositoryPattern.MatchString(s)
}

// ParseImageKey reads who signs images: an Ed25519 key of 32 bytes as people have, or a PKIX key, which is what cosign.pub holds between its
// first and its last line, Ed25519 or ECDSA over P-256. Both are base64 on one line.
func ParseImageKey(s string) (crypto.PublicKey, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errors.New("is not base64 on one line")
	}
	if len(raw) == ed25519.PublicKeySize {
		return ed25519.PublicKey(raw), nil
	}
	key, err := x509.ParsePKIXPublicKey(raw)
	if err != nil {
		return nil, errors.New("is neither an Ed25519 key nor a PKIX public key")
	}
	switch k := key.(type) {
	case ed25519.PublicKey:
		return k, nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return k, nil
		}
	}
	return nil, errors.New("is a key of another kind than Ed25519 and ECDSA over P-256")
}
