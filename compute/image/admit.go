package image

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"

	"redoubt"
)

// Limits of signatures.
const (
	MaxSignatures     = 64       // of one image that are looked at
	maxPayloadBytes   = 64 << 10 // of one; cosign's have 300
	maxSignatureBytes = 1 << 10  // in base64; of ECDSA and Ed25519 the longest has 96
)

// What cosign writes: a manifest under the tag sha256-HEX.sig of the image's repository, with a layer for each signature. The layer is what is
// signed, and an annotation of its descriptor is the signature.
const (
	typeSimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureNote     = "dev.cosignproject.cosign/signature"
	payloadType       = "cosign container image signature"
)

// Signature is what somebody signed, and how.
type Signature struct{ Payload, Sig []byte }

// SignatureTag is the tag that the signatures over d have.
func SignatureTag(d Digest) string { return "sha256-" + d.Hex() + ".sig" }

// Signatures reads the signatures over what has the digest d. None is no error. They are not verified: Admit does that.
func Signatures(ctx context.Context, o Objects, repo Repository, d Digest) ([]Signature, error) {
	at, err := ResolveTag(ctx, o, repo, SignatureTag(d))
	if redoubt.KindOf(err) == redoubt.NotFound && err != nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := OpenManifest(ctx, o, repo, at)
	if err != nil {
		return nil, err
	}
	var all []Signature
	for _, l := range m.Layers {
		note := l.Annotations[signatureNote]
		if l.MediaType != typeSimpleSigning || note == "" || len(note) > maxSignatureBytes {
			continue
		}
		if len(all) == MaxSignatures {
			return nil, invalid("signatures", "an image has at most %d signatures", MaxSignatures)
		}
		sig, err := base64.StdEncoding.Strict().DecodeString(note)
		if err != nil {
			return nil, invalid("signatures", "a signature is not base64")
		}
		payload, err := readBlob(ctx, o, repo, l, maxPayloadBytes)
		if err != nil {
			return nil, err
		}
		all = append(all, Signature{Payload: payload, Sig: sig})
	}
	return all, nil
}

// Admit says whether a policy lets an image run: it is what has one of the digests, which are that of its manifest and, where it was found through
// an index, the index's. Denied is an error that says what to do. Without a policy everything may run; what a policy does not name may not.
func Admit(p *redoubt.ImagePolicy, repo Repository, digests []Digest, signatures []Signature) error {
	if p == nil {
		return nil
	}
	why, hint := "no rule of the estate's images policy names the repository (images)", "two officers sign an estate whose images: names it; docs/spec/registry.md"
	for _, rule := range p.Rules {
		if !names(rule.Repository, repo) || len(rule.Digests)+len(rule.SignedBy) == 0 {
			continue
		}
		pinned := len(rule.Digests) == 0
		for _, d := range digests {
			pinned = pinned || slices.Contains(rule.Digests, d.String())
		}
		signed := len(rule.SignedBy) == 0 || signedBy(rule.SignedBy, digests, signatures)
		switch {
		case pinned && signed:
			return nil
		case !pinned:
			why, hint = "the estate's images policy pins other digests of this repository (images)", "run one of those, or have this one's pinned: two officers sign the estate"
		default:
			why, hint = "no signature over the image is of a key that the estate's images policy names (images)", "sign it: cosign sign --key KEY --new-bundle-format=false REGISTRY/"+repo.String()+"@DIGEST"
		}
	}
	return &redoubt.Error{Op: "image.Admit", Object: repo.String(), Kind: redoubt.Denied, Rule: why, Hint: hint}
}

// Admit holds the image to a policy, with the signatures that lie beside it.
func (i *Image) Admit(ctx context.Context, p *redoubt.ImagePolicy) error {
	if p == nil {
		return nil
	}
	digests := []Digest{i.Digest}
	if i.Root != i.Digest {
		digests = append(digests, i.Root)
	}
	var signatures []Signature
	for _, d := range digests {
		more, err := Signatures(ctx, i.objects, i.Reference.Repository, d)
		if err != nil {
			return err
		}
		signatures = append(signatures, more...)
	}
	return Admit(p, i.Reference.Repository, digests, signatures)
}

// names says whether a rule's pattern takes a repository in.
func names(pattern string, repo Repository) bool {
	if below, ok := strings.CutSuffix(pattern, "*"); ok && redoubt.ValidRepositoryPattern(pattern) {
		return strings.HasPrefix(repo.String(), below)
	}
	return pattern == repo.String()
}

// signedBy looks for a good signature of one of the keys over one of the digests. A key that cannot be read signs nothing.
func signedBy(keys []string, digests []Digest, signatures []Signature) bool {
	for _, text := range keys {
		key, err := redoubt.ParseImageKey(text)
		if err != nil {
			continue
		}
		for _, s := range signatures {
			if verifies(key, s) && slices.Contains(digests, s.names()) {
				return true
			}
		}
	}
	return false
}

func verifies(key any, s Signature) bool {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(k, s.Payload, s.Sig)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(s.Payload)
		return ecdsa.VerifyASN1(k, sum[:], s.Sig)
	}
	return false
}

// names is the digest that the payload is about; the zero Digest where it is no payload of this kind.
func (s Signature) names() Digest {
	var p struct {
		Critical struct {
			Type  string `json:"type"`
			Image struct {
				Digest Digest `json:"docker-manifest-digest"`
			} `json:"image"`
		} `json:"critical"`
	}
	if err := decode("signature", bytes.TrimSpace(s.Payload), &p, "critical", "optional"); err != nil || p.Critical.Type != payloadType {
		return Digest{}
	}
	return p.Critical.Image.Digest
}

// Payload is what is signed of an image, as cosign writes it.
func Payload(repo Repository, d Digest) []byte {
	return []byte(`{"critical":{"identity":{"docker-reference":"` + repo.String() + `"},"image":{"docker-manifest-digest":"` + d.String() + `"},"type":"` + payloadType + `"},"optional":null}`)
}
