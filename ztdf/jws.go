package ztdf

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"redoubt"
)

// A signature is a JWS in compact form (RFC 7515). Its algorithm is that of the key: what a header says is compared with it
// and never followed, so neither "none" nor a public key used as the secret of HS256 comes through.

// jwsAlgorithm is the one algorithm that a public key is used with.
func jwsAlgorithm(key any) (name string, hash crypto.Hash, ok bool) {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return "EdDSA", 0, true
	case *rsa.PublicKey:
		return "RS256", crypto.SHA256, true
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return "ES256", crypto.SHA256, true
		case elliptic.P384():
			return "ES384", crypto.SHA384, true
		}
	}
	return "", 0, false
}

func digest(hash crypto.Hash, data []byte) []byte {
	switch hash {
	case crypto.SHA256:
		d := sha256.Sum256(data)
		return d[:]
	case crypto.SHA384:
		d := sha512.Sum384(data)
		return d[:]
	}
	return data // Ed25519 signs the data
}

var b64url = base64.RawURLEncoding.Strict()

// claims are what is signed.
type claims struct {
	Hash    string `json:"assertionHash"`             // SHA-256 of the assertion's canonical form, hex
	Sig     string `json:"assertionSig"`              // the segments' hashes one behind the other, and that SHA-256 again; base64
	Payload string `json:"redoubt_payload,omitempty"` // SHA-384 of the sealed payload, base64
	Policy  string `json:"redoubt_policy,omitempty"`  // SHA-384 of the policy as it stands in the manifest, base64
}

var claimKeys = set("assertionHash", "assertionSig", "redoubt_payload", "redoubt_policy")

// sign makes the JWS.
func sign(by crypto.Signer, c claims) (string, error) {
	alg, hash, ok := jwsAlgorithm(by.Public())
	if !ok {
		return "", badKey("is of a kind that does not sign here")
	}
	if err := strongEnough(by.Public()); err != nil {
		return "", err
	}
	body, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	text := b64url.EncodeToString([]byte(`{"alg":"`+alg+`","typ":"JWT"}`)) + "." + b64url.EncodeToString(body)
	sig, err := by.Sign(rand.Reader, digest(hash, []byte(text)), hash)
	if err != nil {
		return "", err
	}
	if pub, ok := by.Public().(*ecdsa.PublicKey); ok {
		var rs struct{ R, S *big.Int }
		if rest, err := asn1.Unmarshal(sig, &rs); err != nil || len(rest) != 0 {
			return "", errors.New("the signer gave no ECDSA signature")
		}
		n := (pub.Params().BitSize + 7) / 8
		sig = append(rs.R.FillBytes(make([]byte, n)), rs.S.FillBytes(make([]byte, n))...)
	}
	return text + "." + b64url.EncodeToString(sig), nil
}

// verify finds the pinned key that made the JWS, and gives what it signed.
func verify(text string, trust []any) (c claims, by any, err error) {
	bad := func(format string, args ...any) (claims, any, error) {
		return claims{}, nil, refused(redoubt.Denied, RuleAssertion, format, args...)
	}
	if len(text) > MaxSignatureBytes {
		return bad("its signature has more than %d bytes", MaxSignatureBytes)
	}
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return bad("its signature is no JWS in compact form")
	}
	var raw [3][]byte
	for i, p := range parts {
		if raw[i], err = b64url.DecodeString(p); err != nil || b64url.EncodeToString(raw[i]) != p {
			return bad("its signature is not base64url as it is written")
		}
	}
	alg, err := jwsHeader(raw[0])
	if err != nil {
		return bad("its signature's header: %w", err)
	}
	known := false
	signed := []byte(parts[0] + "." + parts[1])
	for _, key := range trust {
		want, hash, ok := jwsAlgorithm(key)
		if !ok || want != alg || strongEnough(key) != nil {
			continue
		}
		known = true
		if verifies(key, hash, signed, raw[2]) {
			by = key
			break
		}
	}
	switch {
	case by == nil && !known:
		return claims{}, nil, refused(redoubt.Denied, RuleSigner, "it is signed by %q, which is the algorithm of no key that is trusted", clip(alg))
	case by == nil:
		return claims{}, nil, refused(redoubt.Denied, RuleSigner, "no key that is trusted signed it")
	}
	if err := strictJSON(raw[1], claimKeys, &c); err != nil {
		return bad("what is signed: %w", err)
	}
	return c, by, nil
}

// jwsHeader gives the algorithm that a header names. Keys and certificates that it carries are not looked at; what would change how
// the signature is to be read is refused.
func jwsHeader(raw []byte) (alg string, err error) {
	var h map[string]json.RawMessage
	if err := strictJSON(raw, nil, &h); err != nil {
		return "", err
	}
	for name := range h {
		switch name {
		case "alg", "typ", "kid", "jwk", "x5c", "x5t", "x5t#S256":
		default:
			return "", fmt.Errorf("%q is not read", clip(name))
		}
	}
	if typ, ok := h["typ"]; ok && string(typ) != `"JWT"` {
		return "", fmt.Errorf("its type is %s, want JWT", clip(string(typ)))
	}
	if err := json.Unmarshal(h["alg"], &alg); err != nil {
		return "", errors.New("it names no algorithm")
	}
	return alg, nil
}

func verifies(key any, hash crypto.Hash, signed, sig []byte) bool {
	d := digest(hash, signed)
	switch k := key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(k, signed, sig)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, hash, d, sig) == nil
	case *ecdsa.PublicKey:
		n := (k.Params().BitSize + 7) / 8
		return len(sig) == 2*n && ecdsa.Verify(k, d, new(big.Int).SetBytes(sig[:n]), new(big.Int).SetBytes(sig[n:]))
	}
	return false
}
