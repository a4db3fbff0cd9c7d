package image

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"strings"
	"testing"

	"redoubt"
)

type signer struct {
	public string
	sign   func(payload []byte) []byte
}

func edSigner(t *testing.T) signer {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{base64.StdEncoding.EncodeToString(pub), func(b []byte) []byte { return ed25519.Sign(key, b) }}
}

// ecSigner signs as cosign does with the key that it makes.
func ecSigner(t *testing.T, curve elliptic.Curve) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return signer{base64.StdEncoding.EncodeToString(pub), func(b []byte) []byte {
		sum := sha256.Sum256(b)
		sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}}
}

// attach puts signatures where cosign does.
func (s shelf) attach(t *testing.T, d Digest, payload []byte, sigs ...[]byte) {
	t.Helper()
	var layers []Descriptor
	for _, sig := range sigs {
		l := s.blob(tools, typeSimpleSigning, payload)
		l.Annotations = map[string]string{signatureNote: base64.StdEncoding.EncodeToString(sig)}
		layers = append(layers, l)
	}
	m := s.manifest(t, tools, map[string]any{"schemaVersion": 2, "mediaType": TypeManifest, "config": s.blob(tools, TypeConfig, []byte("{}")), "layers": layers})
	s[tools.Tag(SignatureTag(d))] = []byte(m.String())
}

func rules(r ...redoubt.ImageRule) *redoubt.ImagePolicy { return &redoubt.ImagePolicy{Rules: r} }

func TestWhatAPolicyDoesNotAdmitDoesNotRun(t *testing.T) {
	s := shelf{}
	s.put(t, "gzip")
	ref, _ := ParseReference("tools/shell/dash")
	found, err := Open(t.Context(), s, ref, Linux("amd64"))
	if err != nil {
		t.Fatal(err)
	}
	const repo = "tools/shell/dash"
	ed, other, ec := edSigner(t), edSigner(t), ecSigner(t, elliptic.P256())
	root, own, foreign := found.Root.String(), found.Digest.String(), DigestOf([]byte("x")).String()
	payload := Payload(tools, found.Root)
	s.attach(t, found.Root, payload, ec.sign(payload), ed.sign(payload))

	for why, p := range map[string]*redoubt.ImagePolicy{
		"no policy":                   nil,
		"the index is pinned":         rules(redoubt.ImageRule{Repository: repo, Digests: []string{foreign, root}}),
		"the manifest is pinned":      rules(redoubt.ImageRule{Repository: "tools/shell/*", Digests: []string{own}}),
		"signed, Ed25519":             rules(redoubt.ImageRule{Repository: "*", SignedBy: []string{other.public, ed.public}}),
		"signed, ECDSA":               rules(redoubt.ImageRule{Repository: "tools/*", SignedBy: []string{ec.public}}),
		"both":                        rules(redoubt.ImageRule{Repository: repo, Digests: []string{root}, SignedBy: []string{ec.public}}),
		"the second rule is the one":  rules(redoubt.ImageRule{Repository: repo, Digests: []string{foreign}}, redoubt.ImageRule{Repository: repo, SignedBy: []string{ed.public}}),
		"the first rule is the other": rules(redoubt.ImageRule{Repository: "tools/other", Digests: []string{foreign}}, redoubt.ImageRule{Repository: repo, Digests: []string{root}}),
	} {
		if err := found.Admit(t.Context(), p); err != nil {
			t.Errorf("%s: %v", why, err)
		}
	}
	for why, p := range map[string]*redoubt.ImagePolicy{
		"no rules":                 rules(),
		"the zero rule":            rules(redoubt.ImageRule{}),
		"a rule that pins nothing": rules(redoubt.ImageRule{Repository: repo}),
		"another digest":           rules(redoubt.ImageRule{Repository: repo, Digests: []string{foreign}}),
		"another key":              rules(redoubt.ImageRule{Repository: repo, SignedBy: []string{other.public}}),
		"another repository":       rules(redoubt.ImageRule{Repository: "tools/shell", Digests: []string{root}}),
		"a prefix of the name":     rules(redoubt.ImageRule{Repository: "tools/she*", Digests: []string{root}}),
		"the bucket alone":         rules(redoubt.ImageRule{Repository: "tools", Digests: []string{root}}),
		"digest, and another key":  rules(redoubt.ImageRule{Repository: repo, Digests: []string{root}, SignedBy: []string{other.public}}),
		"key, and another digest":  rules(redoubt.ImageRule{Repository: repo, Digests: []string{foreign}, SignedBy: []string{ed.public}}),
		"no key at all":            rules(redoubt.ImageRule{Repository: repo, SignedBy: []string{"", "AAAA"}}),
	} {
		if err := found.Admit(t.Context(), p); redoubt.KindOf(err) != redoubt.Denied {
			t.Errorf("%s: %v", why, err)
		}
	}
}

func TestSignaturesOverOtherThingsAdmitNothing(t *testing.T) {
	ref, _ := ParseReference("tools/shell/dash")
	for _, who := range []signer{edSigner(t), ecSigner(t, elliptic.P256())} {
		policy := rules(redoubt.ImageRule{Repository: "*", SignedBy: []string{who.public}})
		try := func(payload []byte, sig func([]byte) []byte) error {
			s := shelf{}
			s.put(t, "")
			found, err := Open(t.Context(), s, ref, Linux("amd64"))
			if err != nil {
				t.Fatal(err)
			}
			s.attach(t, found.Root, payload, sig(payload))
			return found.Admit(t.Context(), policy)
		}
		s := shelf{}
		s.put(t, "")
		found, _ := Open(t.Context(), s, ref, Linux("amd64"))
		good := Payload(tools, found.Root)
		if err := try(good, who.sign); err != nil {
			t.Fatal(err)
		}
		text := string(good)
		for why, payload := range map[string]string{
			"another digest": string(Payload(tools, DigestOf([]byte("x")))),
			"another type":   strings.Replace(text, payloadType, "atomic container signature", 1),
			"twice":          strings.Replace(text, `"type"`, `"image":{"docker-manifest-digest":"`+DigestOf(nil).String()+`"},"type"`, 1),
			"no JSON":        "cosign",
			"empty":          "",
		} {
			if err := try([]byte(payload), who.sign); redoubt.KindOf(err) != redoubt.Denied {
				t.Errorf("%s: %v", why, err)
			}
		}
		for why, sig := range map[string]func([]byte) []byte{
			"a bit":     func(b []byte) []byte { s := who.sign(b); s[len(s)-1] ^= 1; return s },
			"of others": edSigner(t).sign,
			"empty":     func([]byte) []byte { return nil },
			"short":     func(b []byte) []byte { return who.sign(b)[:10] },
		} {
			if err := try(good, sig); redoubt.KindOf(err) != redoubt.Denied {
				t.Errorf("%s: %v", why, err)
			}
		}
	}
}

func TestKeysOfImages(t *testing.T) {
	for _, good := range []signer{edSigner(t), ecSigner(t, elliptic.P256())} {
		if _, err := redoubt.ParseImageKey(good.public); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "AAAA", ecSigner(t, elliptic.P384()).public, edSigner(t).public[1:], "-----BEGIN PUBLIC KEY-----"} {
		if _, err := redoubt.ParseImageKey(bad); err == nil {
			t.Errorf("took %q", bad)
		}
	}
}
