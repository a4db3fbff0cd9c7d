package image

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"redoubt"
)

// Limits of signatures.
const (
	MaxSignatures     = 64       // of one image that are looked at, of each form
	maxReferrers      = 256      // of one image that are looked at: what refers to it may be no signature
	maxReferrerBytes  = 64 << 10 // of the manifest of one that is taken for a signature; cosign's has 900
	maxPayloadBytes   = 64 << 10 // of one; cosign's have 300, and its bundles 700
	maxSignatureBytes = 1 << 10  // in base64; of ECDSA and Ed25519 the longest has 96
)

// What cosign writes. The older form is a manifest under the tag sha256-HEX.sig of the image's repository, with a layer for each signature: the layer
// is what is signed, and an annotation of its descriptor is the signature. The newer one is a manifest whose subject is the image, with one layer: a
// bundle, which holds an envelope (DSSE) of a statement (in-toto) about the digest.
const (
	typeBundle    = "application/vnd.dev.sigstore.bundle.v0.3+json"
	typeStatement = "application/vnd.in-toto+json"
	statementType = "https://in-toto.io/Statement/v1"
	predicateType = "https://sigstore.dev/cosign/sign/v1"

	typeSimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureNote     = "dev.cosignproject.cosign/signature"
	payloadType       = "cosign container image signature"
)

// Signature is what somebody signed, and how.
type Signature struct {
	Payload, Sig []byte
	Statement    bool // Payload is a statement, and was signed in an envelope
}

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

// Referring reads the signatures of the newer form over what has the digest d. What refers to it and is no signature is passed over, and so is what
// cannot be read: it admits nothing. They are not verified: Admit does that.
func Referring(ctx context.Context, o Shelf, repo Repository, d Digest) ([]Signature, error) {
	at := repo.Referrers(d)
	keys, err := o.Names(ctx, repo.Bucket, at, maxReferrers+1)
	if err != nil {
		return nil, err
	}
	if len(keys) > maxReferrers {
		return nil, invalid("signatures", "more than %d manifests refer to the image: which of them are signatures is not looked for", maxReferrers)
	}
	var all []Signature
	for _, key := range keys {
		of, err := ParseDigest("sha256:" + strings.TrimPrefix(key, at))
		if err != nil {
			continue
		}
		s, err := referring(ctx, o, repo, d, of)
		switch {
		case err != nil && unreadable(redoubt.KindOf(err)):
			continue
		case err != nil:
			return nil, err
		}
		if len(all) == MaxSignatures {
			return nil, invalid("signatures", "an image has at most %d signatures", MaxSignatures)
		}
		all = append(all, s)
	}
	return all, nil
}

// referring reads one manifest that refers to d, if it is a signature.
func referring(ctx context.Context, o Objects, repo Repository, d, at Digest) (s Signature, err error) {
	no := invalid("signatures", "it is no signature of the newer form")
	raw, err := readSmall(ctx, o, repo.Manifest(at), maxReferrerBytes)
	if err != nil {
		return s, err
	}
	if DigestOf(raw) != at {
		return s, no
	}
	m, err := ReadManifest(raw, "")
	if err != nil {
		return s, err
	}
	if m.Index() || m.ArtifactType != typeBundle || m.Subject == nil || m.Subject.Digest != d || len(m.Layers) != 1 || m.Layers[0].MediaType != typeBundle {
		return s, no
	}
	raw, err = readBlob(ctx, o, repo, m.Layers[0], maxPayloadBytes)
	if err != nil {
		return s, err
	}
	var b struct {
		MediaType string `json:"mediaType"`
		Envelope  *struct {
			Payload     string `json:"payload"`
			PayloadType string `json:"payloadType"`
			Signatures  []struct {
				Sig string `json:"sig"`
			} `json:"signatures"`
		} `json:"dsseEnvelope"`
	}
	if err := decode("signature", raw, &b, "mediaType", "verificationMaterial", "dsseEnvelope", "messageSignature"); err != nil {
		return s, err
	}
	e := b.Envelope
	if b.MediaType != typeBundle || e == nil || e.PayloadType != typeStatement || len(e.Signatures) != 1 || len(e.Signatures[0].Sig) > maxSignatureBytes {
		return s, no
	}
	s.Statement = true
	if s.Payload, err = base64.StdEncoding.Strict().DecodeString(e.Payload); err != nil {
		return s, no
	}
	if s.Sig, err = base64.StdEncoding.Strict().DecodeString(e.Signatures[0].Sig); err != nil {
		return s, no
	}
	return s, nil
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
			why, hint = "no signature over the image is of a key that the estate's images policy names (images)", "sign it: cosign sign --key KEY --use-signing-config=false --tlog-upload=false REGISTRY/"+repo.String()+"@DIGEST"
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
	// What admits the image without the next form is enough: what lies there, and be it too much, is not asked for.
	forms := []func(context.Context, Digest) ([]Signature, error){
		func(context.Context, Digest) ([]Signature, error) { return nil, nil },
		func(ctx context.Context, d Digest) ([]Signature, error) {
			return Signatures(ctx, i.shelf, i.Reference.Repository, d)
		},
		func(ctx context.Context, d Digest) ([]Signature, error) {
			return Referring(ctx, i.shelf, i.Reference.Repository, d)
		},
	}
	var signatures []Signature
	var refused, spoilt error
	for _, form := range forms {
		for _, d := range digests {
			more, err := form(ctx, d)
			switch {
			case err != nil && unreadable(redoubt.KindOf(err)): // who may write there can spoil this form, and not the next
				spoilt = err
			case err != nil:
				return err
			}
			signatures = append(signatures, more...)
		}
		if refused = Admit(p, i.Reference.Repository, digests, signatures); refused == nil {
			return nil
		}
	}
	if spoilt != nil {
		return spoilt
	}
	return refused
}

// unreadable says whether an error is about what lies there: it admits nothing.
func unreadable(k redoubt.Kind) bool {
	return k == redoubt.NotFound || k == redoubt.Invalid || k == redoubt.TooLarge || k == redoubt.BadDigest
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
			if verifies(key, s.signed(), s.Sig) && slices.Contains(digests, s.names()) {
				return true
			}
		}
	}
	return false
}

func verifies(key any, signed, sig []byte) bool {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(k, signed, sig)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(signed)
		return ecdsa.VerifyASN1(k, sum[:], sig)
	}
	return false
}

// signed is what the signature is over: the payload, or its envelope as DSSE encodes it (PAE).
func (s Signature) signed() []byte {
	if !s.Statement {
		return s.Payload
	}
	return append(fmt.Appendf(nil, "DSSEv1 %d %s %d ", len(typeStatement), typeStatement, len(s.Payload)), s.Payload...)
}

// names is the digest that the payload is about; the zero Digest where it is no payload of its kind.
func (s Signature) names() Digest {
	if s.Statement {
		return s.states()
	}
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

// states is the digest that a statement is about. A statement of another kind, as an attestation is one, says something else of it.
func (s Signature) states() Digest {
	var p struct {
		Type      string `json:"_type"`
		Predicate string `json:"predicateType"`
		Subject   []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	if err := decode("signature", s.Payload, &p, "_type", "subject", "predicateType", "predicate"); err != nil || p.Type != statementType || p.Predicate != predicateType || len(p.Subject) != 1 {
		return Digest{}
	}
	d, err := ParseDigest("sha256:" + p.Subject[0].Digest["sha256"])
	if err != nil {
		return Digest{}
	}
	return d
}

// Payload is what is signed of an image, as cosign writes it.
func Payload(repo Repository, d Digest) []byte {
	return []byte(`{"critical":{"identity":{"docker-reference":"` + repo.String() + `"},"image":{"docker-manifest-digest":"` + d.String() + `"},"type":"` + payloadType + `"},"optional":null}`)
}
