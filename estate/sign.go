package estate

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"redoubt"
)

// Signatures is the content of an estate's signature file, FILE.sig.
type Signatures struct {
	Version    int                 `json:"redoubt_estate_signature"` // 1
	Digest     string              `json:"digest"`                   // Estate.Digest
	Signatures []redoubt.Signature `json:"signatures"`
}

// Limits of a signature file.
const (
	MaxSignatures         = 64
	MaxSignatureFileBytes = 64 << 10 // MaxSignatures at a few hundred bytes each
)

// Message is what an officer signs for an estate: a domain line and its digest.
func Message(e *Estate) []byte { return []byte("redoubt estate signature v1\n" + e.Digest()) }

// Sign adds an officer's signature to sigs. Signatures over another digest, as of an
// estate that was changed since, are dropped. Denied: who is no officer of e, or
// the key is not the one that e declares.
func Sign(e *Estate, sigs Signatures, officer redoubt.SubjectName, key ed25519.PrivateKey) (Signatures, error) {
	fail := func(kind redoubt.Kind, why, hint string) (Signatures, error) {
		return Signatures{}, &redoubt.Error{Op: "estate.Sign", Object: string(officer), Kind: kind, Err: errors.New(why), Hint: hint}
	}
	p, ok := e.Person(officer)
	switch {
	case !ok:
		return fail(redoubt.Denied, "nobody of that name is in the estate", "redoubt estate show FILE lists the people")
	case !slices.Contains(p.Roles, redoubt.RoleOfficer):
		return fail(redoubt.Denied, "is not a security officer", "")
	case len(key) != ed25519.PrivateKeySize || p.PublicKey != base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey)):
		return fail(redoubt.Denied, "the key is not the one that the estate declares for this officer", "redoubt person key FILE prints a key's public half")
	}
	out := Signatures{Version: 1, Digest: e.Digest()}
	if sigs.Digest == out.Digest {
		for _, s := range sigs.Signatures {
			if s.Signer != officer {
				out.Signatures = append(out.Signatures, s)
			}
		}
	}
	sig := ed25519.Sign(key, Message(e))
	out.Signatures = append(out.Signatures, redoubt.Signature{Signer: officer, Sig: base64.StdEncoding.EncodeToString(sig)})
	return out, nil
}

// Verify says whether e may take effect: nil when two different officers have signed its
// digest. The officers are those of inForce, the estate that e replaces; nil at genesis, where
// they are e's own. What replaces a real estate has a higher serial, so that an
// old file and its signatures cannot come back. Denied otherwise. Signatures of others are not counted and do no harm.
func Verify(e, inForce *Estate, sigs Signatures) error {
	fail := func(why string) error {
		return &redoubt.Error{Op: "estate.Verify", Kind: redoubt.Denied, Rule: "two-officers (4.2)", Err: errors.New(why),
			Hint: "two officers each run: redoubt estate sign FILE --as OFFICER --key KEYFILE"}
	}
	if sigs.Digest != e.Digest() {
		if len(sigs.Signatures) == 0 {
			return fail("nobody has signed the estate")
		}
		return fail("the estate was changed after it was signed")
	}
	authority, of := e, "it"
	if inForce != nil {
		if e.Serial <= inForce.Serial && !inForce.Exercise && e.Digest() != inForce.Digest() {
			return fail(fmt.Sprintf("serial %d does not follow %d, that of the estate in force", e.Serial, inForce.Serial))
		}
		authority, of = inForce, "the estate in force"
	}
	message := Message(e)
	signed := map[redoubt.SubjectName]bool{}
	keys := map[string]bool{}
	for _, s := range sigs.Signatures {
		p, ok := authority.Person(s.Signer)
		if !ok || p.Revoked || !slices.Contains(p.Roles, redoubt.RoleOfficer) {
			continue
		}
		pub, err := base64.StdEncoding.DecodeString(p.PublicKey)
		sig, err2 := base64.StdEncoding.DecodeString(s.Sig)
		if err != nil || err2 != nil || len(pub) != ed25519.PublicKeySize || !ed25519.Verify(pub, message, sig) {
			return fail(fmt.Sprintf("the signature of %s does not verify", s.Signer))
		}
		signed[s.Signer], keys[p.PublicKey] = true, true
	}
	if len(signed) < minOfficers || len(keys) < minOfficers {
		return fail(fmt.Sprintf("%d of the %d officers of %s that are needed have signed", min(len(signed), len(keys)), minOfficers, of))
	}
	return nil
}

// ReadSignatures decodes a signature file, strictly.
func ReadSignatures(data []byte) (Signatures, error) {
	fail := func(why string) (Signatures, error) {
		return Signatures{}, &redoubt.Error{Op: "estate.ReadSignatures", Kind: redoubt.Invalid, Err: errors.New(why),
			Hint: "remove the file and have the officers sign again"}
	}
	if len(data) > MaxSignatureFileBytes {
		return fail(fmt.Sprintf("at most %d bytes are read", MaxSignatureFileBytes))
	}
	if err := noDuplicates(json.NewDecoder(bytes.NewReader(data)), 0); err != nil {
		return fail(err.Error())
	}
	var s Signatures
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return fail(err.Error())
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fail("something follows the JSON document")
	}
	switch {
	case s.Version != 1:
		return fail(fmt.Sprintf("signature format %d; this build reads 1", s.Version))
	case len(s.Signatures) > MaxSignatures:
		return fail(fmt.Sprintf("%d signatures; at most %d are read", len(s.Signatures), MaxSignatures))
	}
	return s, nil
}

// signatureKeys are the keys of a signature file, letter for letter.
var signatureKeys = []string{"redoubt_estate_signature", "digest", "signatures", "signer", "sig"}

// noDuplicates refuses a JSON value in which an object has a key twice or one in other
// capitals, which encoding/json would pass over, and one nested deeper than the format.
func noDuplicates(d *json.Decoder, depth int) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	delim, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth > MaxDepth {
		return errors.New("nested too deep")
	}
	seen := map[string]bool{}
	for d.More() {
		if delim == '{' {
			key, err := d.Token()
			if err != nil {
				return err
			}
			name, _ := key.(string)
			if seen[name] {
				return fmt.Errorf("the key %q is given twice", printable(name))
			}
			if !slices.Contains(signatureKeys, name) {
				return fmt.Errorf("the key %q is unknown", printable(name))
			}
			seen[name] = true
		}
		if err := noDuplicates(d, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}
