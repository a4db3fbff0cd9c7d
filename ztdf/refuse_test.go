package ztdf

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"redoubt"
)

// reading holds a change of a file, made by somebody who has no key of it, to its refusal.
func TestAChangedManifestIsRefusedWithItsReason(t *testing.T) {
	data := written(t, content(t, "the plan"))
	type M = *manifest
	for what, one := range map[string]struct {
		change    func(m M)
		rule, why string
	}{
		"no version":                          {func(m M) { m.SchemaVersion, m.SpecVersion = "", "" }, RuleManifest, "want 4.3"},
		"an older version":                    {func(m M) { m.SchemaVersion, m.SpecVersion = "4.2.2", "" }, RuleManifest, "want 4.3"},
		"a version with the same beginning":   {func(m M) { m.SchemaVersion, m.SpecVersion = "4.30.0", "" }, RuleManifest, "want 4.3"},
		"two versions":                        {func(m M) { m.SpecVersion = "4.3.1" }, RuleManifest, "told twice"},
		"a payload elsewhere":                 {func(m M) { m.Payload.URL = "https://example.mil/0.payload" }, RuleManifest, "same zip"},
		"a payload in clear":                  {func(m M) { m.Payload.IsEncrypted = false }, RuleManifest, "encrypted"},
		"an inline payload":                   {func(m M) { m.Payload.Type = "embedded" }, RuleManifest, "same zip"},
		"a payload over another protocol":     {func(m M) { m.Payload.Protocol = "zipstream" }, RuleManifest, "same zip"},
		"a media type that breaks a header":   {func(m M) { m.Payload.MIME = "text/plain\r\nx: y" }, RuleManifest, "media type"},
		"a key given otherwise":               {func(m M) { m.Encryption.Type = "shamir" }, RuleManifest, "want split"},
		"another cipher":                      {func(m M) { m.Encryption.Method.Algorithm = "AES-128-GCM" }, RuleAlgorithm, "AES-256-GCM"},
		"a cipher that authenticates nothing": {func(m M) { m.Encryption.Method.Algorithm = "AES-256-CBC" }, RuleAlgorithm, "AES-256-GCM"},
		"one nonce for all":                   {func(m M) { m.Encryption.Method.IV = "AAAAAAAAAAAAAAAA" }, RuleManifest, "one nonce"},
		"a root signature without a key":      {func(m M) { m.Encryption.Integrity.Root.Alg = "GMAC" }, RuleAlgorithm, "HS256"},
		"a root signature of no algorithm":    {func(m M) { m.Encryption.Integrity.Root.Alg = "" }, RuleAlgorithm, "HS256"},
		"another segment hash":                {func(m M) { m.Encryption.Integrity.HashAlg = "CRC32" }, RuleAlgorithm, "GMAC"},
		"no key access":                       {func(m M) { m.Encryption.KeyAccess = nil }, RuleManifest, "key access"},
		"too much key access":                 {func(m M) { m.Encryption.KeyAccess = repeat(m.Encryption.KeyAccess[0], MaxKeyAccess+1) }, RuleManifest, "key access"},
		"a key in two shares": {func(m M) {
			m.Encryption.KeyAccess = repeat(m.Encryption.KeyAccess[0], 2)
			m.Encryption.KeyAccess[1].SID = "2"
		}, RuleKey, "split among"},
		"another wrapping":              {func(m M) { m.Encryption.KeyAccess[0].Type = "remote" }, RuleAlgorithm, "ec-wrapped"},
		"another protocol":              {func(m M) { m.Encryption.KeyAccess[0].Protocol = "ldap" }, RuleManifest, "want kas"},
		"a wrapping without its key":    {func(m M) { m.Encryption.KeyAccess[0].Ephemeral = "" }, RuleManifest, "key of its maker"},
		"a wrapped key that is damaged": {func(m M) { m.Encryption.KeyAccess[0].WrappedKey = flip64(m.Encryption.KeyAccess[0].WrappedKey) }, RuleKey, "opens none"},
		"a policy that is not bound":    {func(m M) { m.Encryption.KeyAccess[0].Binding.Alg = "none" }, RuleAlgorithm, "HS256"},
		"another binding":               {func(m M) { m.Encryption.KeyAccess[0].Binding.Hash = flip64(m.Encryption.KeyAccess[0].Binding.Hash) }, RulePolicy, "bound to"},
		"no binding":                    {func(m M) { m.Encryption.KeyAccess[0].Binding.Hash = "" }, RulePolicy, "bound to"},
		"another policy":                {func(m M) { m.Encryption.Policy = flip64(m.Encryption.Policy) }, RulePolicy, "bound to"},
		"another root signature":        {func(m M) { m.Encryption.Integrity.Root.Sig = flip64(m.Encryption.Integrity.Root.Sig) }, RuleIntegrity, "root signature"},
		"no segments":                   {func(m M) { m.Encryption.Integrity.Segments = nil }, RuleManifest, "segments"},
		"a segment too many":            {func(m M) { m.Encryption.Integrity.Segments = repeat(m.Encryption.Integrity.Segments[0], 2) }, RuleIntegrity, "its segments"},
		"a negative segment":            {func(m M) { m.Encryption.Integrity.Segments[0].Size = -1 }, RuleManifest, "segment 0"},
		"a segment that is too large": {func(m M) {
			s := &m.Encryption.Integrity.Segments[0]
			s.Size, s.SealedBytes = MaxSegmentBytes+1, MaxSegmentBytes+1+overhead
		}, RuleManifest, "segment 0"},
		"a default that is too large": {func(m M) {
			i := &m.Encryption.Integrity
			i.Size, i.SealedBytes = MaxSegmentBytes+1, MaxSegmentBytes+1+overhead
		}, RuleManifest, "default"},
		"sizes that do not fit":    {func(m M) { m.Encryption.Integrity.Segments[0].Size-- }, RuleManifest, "segment 0"},
		"a hash that is too short": {func(m M) { m.Encryption.Integrity.Segments[0].Hash = "AAAA" }, RuleManifest, "no tag"},
		"no assertion":             {func(m M) { m.Assertions = nil }, RuleAssertion, "unmarked"},
		"too many assertions":      {func(m M) { m.Assertions = repeat(m.Assertions[0], MaxAssertions+1) }, RuleManifest, "assertions"},
		"two labels":               {func(m M) { m.Assertions = repeat(m.Assertions[0], 2); m.Assertions[1].ID = "2" }, RuleAssertion, "two labels"},
		"two of one name":          {func(m M) { m.Assertions = repeat(m.Assertions[0], 2) }, RuleAssertion, "name of its own"},
		"an order that is not understood": {func(m M) {
			a := m.Assertions[0]
			a.ID, a.Statement.Schema = "2", "x"
			m.Assertions = append(m.Assertions, a)
		}, RuleAssertion, "not understood"},
		"a label of another schema": {func(m M) { m.Assertions[0].Statement.Schema = "urn:nato:stanag:4774:confidentialitymetadatalabel:2:0" }, RuleAssertion, "schema"},
		"a label that only tells":   {func(m M) { m.Assertions[0].Type = "other" }, RuleAssertion, "want handling"},
		"a label of something else": {func(m M) { m.Assertions[0].Scope = "explicit" }, RuleAssertion, "want handling"},
		"a label in another format": {func(m M) { m.Assertions[0].Statement.Format = "base64binary" }, RuleAssertion, "xml-structured"},
		"a label bound otherwise":   {func(m M) { m.Assertions[0].Binding.Method = "none" }, RuleAssertion, "want jws"},
		"a lower label": {func(m M) {
			s := &m.Assertions[0].Statement
			s.Value = strings.Replace(s.Value, "SECRET", "UNCLASSIFIED", 1)
		}, RuleAssertion, "another label"},
		"a label that is too long":            {func(m M) { m.Assertions[0].Statement.Value += strings.Repeat(" ", MaxStatementBytes) }, RuleAssertion, "too long"},
		"a signature that is too long":        {func(m M) { m.Assertions[0].Binding.Signature += strings.Repeat("A", MaxSignatureBytes) }, RuleAssertion, "too long"},
		"no signature":                        {func(m M) { m.Assertions[0].Binding.Signature = "" }, RuleAssertion, "no JWS"},
		"a signature with something after it": {func(m M) { m.Assertions[0].Binding.Signature += "." }, RuleAssertion, "no JWS"},
	} {
		p := takeApart(t, data)
		one.change(p.m)
		_, err := open(p.zip(), options())
		wantRefused(t, what, err, one.rule, one.why)
	}
	if _, err := open(takeApart(t, data).zip(), options()); err != nil {
		t.Errorf("without a change: %v", err)
	}
}

// TestWhoHasThePayloadKeyCannotGiveTheLabelToOtherContent: a recipient can sign segments and bind policies anew, and make content whose
// segments have the same tags; what the originator signed still does not fit.
func TestWhoHasThePayloadKeyCannotGiveTheLabelToOtherContent(t *testing.T) {
	data := written(t, content(t, "the plan"))
	p := takeApart(t, data)
	aead := must(gcm(p.key))
	p.payload = aead.Seal(nil, nil, []byte("the lie!"), nil)
	p.m.Encryption.Integrity.Segments[0].Hash = b64.EncodeToString(p.payload[len(p.payload)-tagBytes:])
	_, err := open(p.reroot().zip(), options())
	wantRefused(t, "other content", err, RuleAssertion, "another payload")

	p = takeApart(t, data)
	other := takeApart(t, written(t, content(t, "other")))
	p.m.Assertions[0] = other.m.Assertions[0]
	_, err = open(p.zip(), options())
	wantRefused(t, "the label of another file", err, RuleAssertion, "another payload")

	p = takeApart(t, data)
	_, err = open(p.rebind(must(newPolicy(nil))).zip(), options())
	wantRefused(t, "another policy, bound anew", err, RuleIntegrity, "policy is not the one")

	// Eight bytes under the old tag: the payload's own digest tells.
	p = takeApart(t, data)
	p.resign(edKey(), true)
	c := must(b64url.DecodeString(strings.Split(p.m.Assertions[0].Binding.Signature, ".")[1]))
	var said claims
	must(0, json.Unmarshal(c, &said))
	said.Payload = flip64(said.Payload)
	p.m.Assertions[0].Binding.Signature = must(sign(edKey(), said))
	_, err = open(p.zip(), options())
	wantRefused(t, "the digest of another payload", err, RuleIntegrity, "payload is not the one")

	// A partner's file has no such digests: it is read, and said to be so.
	p = takeApart(t, data)
	if f, err := open(p.resign(edKey(), false).zip(), unbound()); err != nil || f.Whole {
		t.Errorf("without digests: whole %v, %v", f != nil && f.Whole, err)
	}
}

func TestSegmentsStayWhereTheyWere(t *testing.T) {
	data := written(t, content(t, strings.Repeat("a", SegmentBytes)+strings.Repeat("b", SegmentBytes)+"c"))
	const one = SegmentBytes + overhead
	for what, change := range map[string]func(p *parts){
		"the last one cut off":  func(p *parts) { p.payload = p.payload[:2*one] },
		"its last byte cut off": func(p *parts) { p.payload = p.payload[:len(p.payload)-1] },
		"a byte behind it":      func(p *parts) { p.payload = append(p.payload, 0) },
		"two changed places": func(p *parts) {
			p.payload = bytes.Join([][]byte{p.payload[one : 2*one], p.payload[:one], p.payload[2*one:]}, nil)
		},
		"one twice":                   func(p *parts) { copy(p.payload[one:], p.payload[:one]) },
		"a bit of the content":        func(p *parts) { p.payload[one+20] ^= 1 },
		"a bit of a nonce":            func(p *parts) { p.payload[one] ^= 1 },
		"a bit of a tag":              func(p *parts) { p.payload[one-1] ^= 1 },
		"two changed in the manifest": func(p *parts) { s := p.m.Encryption.Integrity.Segments; s[0], s[1] = s[1], s[0] },
		"one twice in the manifest":   func(p *parts) { s := p.m.Encryption.Integrity.Segments; s[1] = s[0] },
		"the last one gone from both": func(p *parts) {
			s := &p.m.Encryption.Integrity.Segments
			*s, p.payload = (*s)[:2], p.payload[:2*one]
		},
		"changed in both, by who has the key": func(p *parts) {
			s := p.m.Encryption.Integrity.Segments
			s[0], s[1] = s[1], s[0]
			p.payload = bytes.Join([][]byte{p.payload[one : 2*one], p.payload[:one], p.payload[2*one:]}, nil)
			p.reroot()
		},
	} {
		p := takeApart(t, data)
		change(p)
		if _, err := open(p.zip(), options()); redoubt.KindOf(err) != redoubt.Denied {
			t.Errorf("%s: got %v, want a refusal", what, err)
		}
	}
}

// TestNoKeyThatTheFileCarriesIsBelieved: signatures of a stranger, in every form that tries to be believed.
func TestNoKeyThatTheFileCarriesIsBelieved(t *testing.T) {
	stranger := p384()
	data := written(t, content(t, "the plan"))
	payloadOf := func(p *parts) string { return strings.Split(p.m.Assertions[0].Binding.Signature, ".")[1] }
	jws := func(header, body string, mac []byte) string {
		h := b64url.EncodeToString([]byte(header))
		if mac == nil {
			return h + "." + body + "."
		}
		m := hmac.New(sha256.New, mac)
		m.Write([]byte(h + "." + body))
		return h + "." + body + "." + b64url.EncodeToString(m.Sum(nil))
	}
	der := must(x509.MarshalPKIXPublicKey(edKey().Public()))
	for what, one := range map[string]struct {
		change func(p *parts)
		rule   string
		why    string
	}{
		"a stranger's":                       {func(p *parts) { p.resign(stranger, true) }, RuleSigner, "no key that is trusted"},
		"none":                               {func(p *parts) { p.m.Assertions[0].Binding.Signature = jws(`{"alg":"none"}`, payloadOf(p), nil) }, RuleSigner, "algorithm of no key"},
		"HS256 with the payload key":         {func(p *parts) { p.m.Assertions[0].Binding.Signature = jws(`{"alg":"HS256"}`, payloadOf(p), p.key) }, RuleSigner, "algorithm of no key"},
		"HS256 with the public key":          {func(p *parts) { p.m.Assertions[0].Binding.Signature = jws(`{"alg":"HS256"}`, payloadOf(p), der) }, RuleSigner, "algorithm of no key"},
		"another algorithm with its content": {func(p *parts) { p.m.Assertions[0].Binding.Signature = swapHeader(p, `{"alg":"ES384"}`) }, RuleSigner, "algorithm of no key"},
		"a stranger's with his key in it": {func(p *parts) {
			p.m.Assertions[0].Binding.Signature = signedWith(fmt.Sprintf(`{"alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","x":"%s"}}`, b64url.EncodeToString(strangerEd[32:])), payloadOf(p))
		}, RuleSigner, "no key that is trusted"},
		"a key elsewhere": {func(p *parts) {
			p.m.Assertions[0].Binding.Signature = swapHeader(p, `{"alg":"EdDSA","jku":"https://x"}`)
		}, RuleAssertion, `"jku" is not read`},
		"certificates there": {func(p *parts) {
			p.m.Assertions[0].Binding.Signature = swapHeader(p, `{"alg":"EdDSA","x5u":"https://x"}`)
		}, RuleAssertion, `"x5u" is not read`},
		"a critical field": {func(p *parts) {
			p.m.Assertions[0].Binding.Signature = swapHeader(p, `{"alg":"EdDSA","crit":["exp"],"exp":1}`)
		}, RuleAssertion, "is not read"},
		"an algorithm twice": {func(p *parts) { p.m.Assertions[0].Binding.Signature = swapHeader(p, `{"alg":"none","alg":"EdDSA"}`) }, RuleAssertion, "stands twice"},
		"another type":       {func(p *parts) { p.m.Assertions[0].Binding.Signature = swapHeader(p, `{"alg":"EdDSA","typ":"JOSE"}`) }, RuleAssertion, "want JWT"},
		"no algorithm":       {func(p *parts) { p.m.Assertions[0].Binding.Signature = swapHeader(p, `{}`) }, RuleAssertion, "no algorithm"},
		"padded":             {func(p *parts) { p.m.Assertions[0].Binding.Signature += "=" }, RuleAssertion, "base64url"},
		"more that is signed": {func(p *parts) {
			p.m.Assertions[0].Binding.Signature = signedBy(`{"alg":"EdDSA"}`, b64url.EncodeToString([]byte(`{"assertionHash":"","assertionSig":"","exp":1}`)))
		}, RuleAssertion, `"exp"`},
	} {
		p := takeApart(t, data)
		one.change(p)
		_, err := open(p.zip(), options())
		wantRefused(t, what, err, one.rule, one.why)
	}
	// The pinned key's own signature is read with another's key beside it, for that one is not looked at.
	p := takeApart(t, data)
	p.m.Assertions[0].Binding.Signature = signedBy(`{"alg":"EdDSA","kid":"x","jwk":{"kty":"oct","k":"AAAA"},"x5c":["AAAA"]}`, payloadOf(p))
	if _, err := open(p.zip(), options()); err != nil {
		t.Errorf("the pinned key's signature beside another key: %v", err)
	}
}

func TestLabelsThatAreNoneAreRefused(t *testing.T) {
	good := string(xmlOf(t, relGBR))
	for what, xml := range map[string]string{
		"no XML":                 "SECRET",
		"nothing in it":          "<originatorConfidentialityLabel/>",
		"another policy":         strings.Replace(good, ">USA<", ">XYZ<", 1),
		"another classification": strings.Replace(good, ">SECRET<", ">MOST SECRET<", 1),
		"another nation":         strings.Replace(good, ">GBR<", ">XXZ<", 1),
		"an alternative label":   strings.ReplaceAll(good, "originatorConf", "alternativeConf"),
		"something behind it":    good + "<x/>",
		"an entity":              `<!DOCTYPE x [<!ENTITY a "b">]>` + good,
	} {
		p := takeApart(t, written(t, content(t, "the plan")))
		p.m.Assertions[0].Statement.Value = xml
		_, err := open(p.resign(edKey(), true).zip(), options())
		wantRefused(t, what, err, RuleLabel, "")
	}
}

func TestPoliciesAreReadStrictly(t *testing.T) {
	for what, one := range map[string]struct{ policy, why string }{
		"no JSON":                   {"x", "policy"},
		"a field twice":             {`{"uuid":"1","uuid":"2","body":{"dataAttributes":[],"dissem":[]}}`, "twice"},
		"another field":             {`{"uuid":"1","body":{"dataAttributes":[],"dissem":[]},"x":1}`, `"x"`},
		"a field in capitals":       {`{"UUID":"1","body":{"dataAttributes":[],"dissem":[]}}`, `"UUID"`},
		"persons":                   {`{"uuid":"1","body":{"dataAttributes":[],"dissem":["a@example.mil"]}}`, "persons"},
		"an attribute that is none": {`{"uuid":"1","body":{"dataAttributes":[{"attribute":"x"}],"dissem":[]}}`, "no attribute"},
	} {
		p := takeApart(t, written(t, content(t, "the plan")))
		_, err := open(p.rebind(b64.EncodeToString([]byte(one.policy))).resign(edKey(), true).zip(), options())
		wantRefused(t, what, err, RulePolicy, one.why)
	}
	p := takeApart(t, written(t, content(t, "the plan")))
	p.rebind(b64.EncodeToString([]byte(`{"uuid":"1","body":{"dataAttributes":null,"dissem":null}}`))).resign(edKey(), true)
	p.m.Encryption.KeyAccess[0].Binding.Hash = b64.EncodeToString(mac(p.key, []byte(p.m.Encryption.Policy))) // bare, as the specification says
	if f, err := open(p.zip(), options()); err != nil || f.Attributes != nil {
		t.Errorf("a policy without attributes: %v", err)
	}
}

func repeat[T any](v T, n int) []T {
	all := make([]T, n)
	for i := range all {
		all[i] = v
	}
	return all
}

// flip64 changes the first character of base64 to another.
func flip64(s string) string {
	if s[0] == 'A' {
		return "B" + s[1:]
	}
	return "A" + s[1:]
}
