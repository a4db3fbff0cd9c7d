package image

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
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
	s, found := dash(t, "gzip")
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
	for _, who := range []signer{edSigner(t), ecSigner(t, elliptic.P256())} {
		policy := rules(redoubt.ImageRule{Repository: "*", SignedBy: []string{who.public}})
		try := func(payload []byte, sig func([]byte) []byte) error {
			s, found := dash(t, "")
			s.attach(t, found.Root, payload, sig(payload))
			return found.Admit(t.Context(), policy)
		}
		_, found := dash(t, "")
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

// Names implements Shelf.
func (s shelf) Names(ctx context.Context, bucket redoubt.BucketName, prefix string, most int) (all []string, err error) {
	for name := range s {
		if name.Bucket == bucket && strings.HasPrefix(name.Key, prefix) {
			all = append(all, name.Key)
		}
	}
	slices.Sort(all)
	return all[:min(len(all), most)], ctx.Err()
}

// newer is a signature of the newer form, as cosign writes it, before a test changes it.
type newer struct {
	statement, payloadType, signed string // "": what is right
	bundle                         func(envelope map[string]any) any
	manifest                       map[string]any // what stands otherwise
	sign                           func([]byte) []byte
}

func statementOf(d Digest) string {
	return `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"` + d.Hex() + `"},"annotations":{}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`
}

func (n newer) attach(t *testing.T, s shelf, d Digest) {
	t.Helper()
	statement, typ := cmp.Or(n.statement, statementOf(d)), cmp.Or(n.payloadType, "application/vnd.in-toto+json")
	signed := cmp.Or(n.signed, fmt.Sprintf("DSSEv1 %d %s %d %s", len(typ), typ, len(statement), statement))
	envelope := map[string]any{"payload": base64.StdEncoding.EncodeToString([]byte(statement)), "payloadType": typ, "signatures": []any{map[string]any{"sig": base64.StdEncoding.EncodeToString(n.sign([]byte(signed)))}}}
	const bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	bundle := any(map[string]any{"mediaType": bundleType, "verificationMaterial": map[string]any{"publicKey": map[string]any{"hint": "x"}}, "dsseEnvelope": envelope})
	if n.bundle != nil {
		bundle = n.bundle(envelope)
	}
	raw, is := bundle.(string)
	if !is {
		b, err := json.Marshal(bundle)
		if err != nil {
			t.Fatal(err)
		}
		raw = string(b)
	}
	m := map[string]any{"schemaVersion": 2, "mediaType": TypeManifest, "artifactType": bundleType, "config": s.blob(tools, "application/vnd.oci.empty.v1+json", []byte("{}")),
		"layers": []Descriptor{s.blob(tools, bundleType, []byte(raw))}, "subject": Descriptor{MediaType: TypeManifest, Size: 1, Digest: d}}
	maps.Copy(m, n.manifest)
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
	s[tools.Referrer(d, s.manifest(t, tools, m))] = nil
}

func TestSignaturesOfTheNewerFormAdmit(t *testing.T) {
	for name, who := range map[string]signer{"Ed25519": edSigner(t), "ECDSA": ecSigner(t, elliptic.P256())} {
		s, found := dash(t, "gzip")
		policy := rules(redoubt.ImageRule{Repository: "tools/*", SignedBy: []string{who.public}})
		newer{sign: edSigner(t).sign}.attach(t, s, found.Root) // somebody else's
		s[tools.Referrer(found.Root, DigestOf([]byte("nothing")))] = nil
		s[redoubt.ObjectName{Bucket: tools.Bucket, Key: tools.Referrers(found.Root) + "no-digest"}] = nil
		if err := found.Admit(t.Context(), policy); redoubt.KindOf(err) != redoubt.Denied {
			t.Errorf("%s: before it is signed: %v", name, err)
		}
		newer{sign: who.sign}.attach(t, s, found.Root)
		if err := found.Admit(t.Context(), policy); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSignaturesOfTheNewerFormOverOtherThingsAdmitNothing(t *testing.T) {
	other := DigestOf([]byte("other"))
	for _, who := range []signer{edSigner(t), ecSigner(t, elliptic.P256())} {
		policy := rules(redoubt.ImageRule{Repository: "*", SignedBy: []string{who.public}})
		try := func(change func(right string, n *newer)) error {
			s, found := dash(t, "")
			n := newer{sign: who.sign}
			change(statementOf(found.Root), &n)
			n.attach(t, s, found.Root)
			return found.Admit(t.Context(), policy)
		}
		replaced := func(old, new string) func(string, *newer) {
			return func(right string, n *newer) {
				if n.statement = strings.Replace(right, old, new, 1); n.statement == right {
					t.Errorf("%s is not there", old)
				}
			}
		}
		manifest := func(key string, value any) func(string, *newer) {
			return func(_ string, n *newer) { n.manifest = map[string]any{key: value} }
		}
		bundle := func(f func(map[string]any) any) func(string, *newer) {
			return func(_ string, n *newer) { n.bundle = f }
		}
		if err := try(func(string, *newer) {}); err != nil {
			t.Fatal(err)
		}
		for why, change := range map[string]func(string, *newer){
			"an attestation":            replaced("https://sigstore.dev/cosign/sign/v1", "https://spdx.dev/Document"),
			"another kind of statement": replaced("in-toto.io/Statement/v1", "in-toto.io/Statement/v0.1"),
			"another digest":            func(_ string, n *newer) { n.statement = statementOf(other) },
			"another digest beside it":  replaced(`"subject":[`, `"subject":[{"digest":{"sha256":"`+other.Hex()+`"}},`),
			"another digest behind it":  replaced(`],"predicateType"`, `,{"digest":{"sha256":"`+other.Hex()+`"}}],"predicateType"`),
			"a type that was not signed": func(right string, n *newer) {
				n.payloadType, n.signed = "text/plain", fmt.Sprintf("DSSEv1 %d %s %d %s", len(typeStatement), typeStatement, len(right), right)
			},
			"two subjects, one by one": replaced(`"predicateType"`, `"subject":[],"predicateType"`),
			"no subject": func(_ string, n *newer) {
				n.statement = `{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"https://sigstore.dev/cosign/sign/v1"}`
			},
			"another spelling":            replaced(`"predicateType"`, `"predicatetype"`),
			"what is no JSON":             func(_ string, n *newer) { n.statement = "cosign" },
			"something behind it":         func(right string, n *newer) { n.statement = right + "{}" },
			"another type of payload":     func(_ string, n *newer) { n.payloadType = "text/plain" },
			"the payload without a type":  func(right string, n *newer) { n.signed = right },
			"another's":                   func(_ string, n *newer) { n.sign = edSigner(t).sign },
			"a manifest of another kind":  manifest("artifactType", "application/spdx+json"),
			"a manifest of no kind":       manifest("artifactType", nil),
			"a manifest about another":    manifest("subject", Descriptor{MediaType: TypeManifest, Size: 1, Digest: other}),
			"a manifest about nothing":    manifest("subject", nil),
			"a manifest without layers":   manifest("layers", []Descriptor{}),
			"a manifest that is too long": manifest("annotations", map[string]string{"x": strings.Repeat("x", maxReferrerBytes)}),
			"two signatures": bundle(func(e map[string]any) any {
				e["signatures"] = append(e["signatures"].([]any), map[string]any{"sig": ""})
				return map[string]any{"mediaType": typeBundle, "dsseEnvelope": e}
			}),
			"no signature": bundle(func(e map[string]any) any {
				e["signatures"] = []any{}
				return map[string]any{"mediaType": typeBundle, "dsseEnvelope": e}
			}),
			"no envelope": bundle(func(map[string]any) any {
				return map[string]any{"mediaType": typeBundle, "messageSignature": map[string]any{}}
			}),
			"an older bundle": bundle(func(e map[string]any) any {
				return map[string]any{"mediaType": "application/vnd.dev.sigstore.bundle.v0.2+json", "dsseEnvelope": e}
			}),
			"a bundle that is none": bundle(func(map[string]any) any { return "null" }),
			"a bundle that is too long": bundle(func(e map[string]any) any {
				return map[string]any{"mediaType": typeBundle, "dsseEnvelope": e, "verificationMaterial": strings.Repeat("x", maxPayloadBytes)}
			}),
		} {
			if err := try(change); redoubt.KindOf(err) != redoubt.Denied {
				t.Errorf("%s: %v", why, err)
			}
		}
	}
}

// TestReferrersAreBounded: whoever may push can make any number, and hides nothing by that: the image is refused.
func TestReferrersAreBounded(t *testing.T) {
	who := edSigner(t)
	s, found := dash(t, "")
	newer{sign: who.sign}.attach(t, s, found.Root)
	policy := rules(redoubt.ImageRule{Repository: "*", SignedBy: []string{who.public}})
	s[tools.Tag(SignatureTag(found.Root))] = []byte("no digest") // which anybody may write who may write there
	if err := found.Admit(t.Context(), policy); err != nil {
		t.Errorf("with a tag of the older form that is no good: %v", err)
	}
	delete(s, tools.Tag(SignatureTag(found.Root)))
	for i := range maxReferrers - 1 {
		s[tools.Referrer(found.Root, DigestOf(fmt.Append(nil, i)))] = nil
	}
	if err := found.Admit(t.Context(), policy); err != nil {
		t.Errorf("with %d referrers: %v", maxReferrers, err)
	}
	s[tools.Referrer(found.Root, DigestOf([]byte("one more")))] = nil
	if err := found.Admit(t.Context(), policy); redoubt.KindOf(err) != redoubt.Invalid {
		t.Errorf("with one more: %v", err)
	}
	s[tools.Tag(SignatureTag(found.Root))] = []byte("no digest")
	pinned := rules(redoubt.ImageRule{Repository: "*", Digests: []string{found.Root.String()}})
	if err := found.Admit(t.Context(), pinned); err != nil {
		t.Errorf("what is pinned needs none of them: %v", err)
	}
}
