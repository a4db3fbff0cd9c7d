package ztdf

import (
	"archive/zip"
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"redoubt"
)

// Content is one version that leaves, and for whom.
type Content struct {
	Body       io.Reader // at most MaxContentBytes
	MIME       string    // "": application/octet-stream
	Label      []byte    // the originator's STANAG 4774 label, XML
	Attributes []string  // that the partner's service decides by; see Attributes
	To         Recipient
	Sign       crypto.Signer // Ed25519, P-256, P-384, or RSA of 3072 bits or more: the partner has its public key
}

// Written says what was written.
type Written struct {
	SizeBytes int64 // of the content
	Segments  int
	KID       string
	Wrapping  string // "wrapped" or "ec-wrapped"
	Signer    string // the algorithm of the signature
}

// Write seals a content into a file. An error leaves a part that no reader takes: the directory is written last.
func Write(w io.Writer, c Content) (out Written, err error) {
	if len(c.Label) == 0 || len(c.Label) > MaxStatementBytes || c.Sign == nil {
		return out, refused(redoubt.Invalid, RuleAssertion, "nothing is written without a label and who signs it")
	}
	if out.Signer, _, _ = jwsAlgorithm(c.Sign.Public()); out.Signer == "" {
		return out, badKey("is of a kind that does not sign here")
	}
	policy, err := newPolicy(c.Attributes)
	if err != nil {
		return out, err
	}
	key := make([]byte, keyBytes)
	defer clear(key)
	rand.Read(key)
	access, err := wrap(key, c.To, policy)
	if err != nil {
		return out, err
	}
	out.KID, out.Wrapping = access.KID, access.Type

	m := &manifest{SchemaVersion: Version, SpecVersion: Version, Payload: payload{Type: "reference", URL: payloadName, Protocol: "zip", MIME: c.MIME, IsEncrypted: true},
		Encryption: encryption{Type: "split", Policy: policy, KeyAccess: []keyAccess{access}}}
	if m.Payload.MIME == "" {
		m.Payload.MIME = "application/octet-stream"
	}
	e := &m.Encryption
	e.Method.Algorithm, e.Method.IsStreamable = "AES-256-GCM", true
	in := &e.Integrity
	in.Root.Alg, in.HashAlg, in.Size, in.SealedBytes = "HS256", "GMAC", SegmentBytes, SegmentBytes+overhead

	z := zip.NewWriter(w)
	body, err := z.CreateHeader(&zip.FileHeader{Name: payloadName, Method: zip.Store})
	if err != nil {
		return out, err
	}
	sum := sha512.New384()
	hashes, err := seal(io.MultiWriter(body, sum), c.Body, key, in, &out)
	if err != nil {
		return out, err
	}
	in.Root.Sig = b64.EncodeToString(mac(key, hashes))
	bound := sha512.Sum384([]byte(policy))
	a, err := bind(c.Label, hashes, sum.Sum(nil), bound[:], c.Sign)
	if err != nil {
		return out, err
	}
	m.Assertions = []assertion{a}
	text, err := encode(m)
	if err != nil {
		return out, err
	}
	if _, err := readManifest(text); err != nil {
		return out, err // what we would not read is not written
	}
	head, err := z.CreateHeader(&zip.FileHeader{Name: manifestName, Method: zip.Store})
	if err == nil {
		_, err = head.Write(text)
	}
	return out, errors.Join(err, z.Close())
}

// seal writes the content's segments: nonce, ciphertext, tag. It gives their hashes, which are the tags, one behind the other.
func seal(w io.Writer, body io.Reader, key []byte, in *integrity, out *Written) (hashes []byte, err error) {
	aead, err := gcm(key)
	if err != nil {
		return nil, err
	}
	plain, sealed := make([]byte, SegmentBytes), make([]byte, 0, SegmentBytes+overhead)
	defer clear(plain)
	for last := false; !last; {
		n, err := io.ReadFull(body, plain)
		last = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		switch {
		case err != nil && !last:
			return nil, err
		case n == 0 && len(in.Segments) > 0:
			return hashes, nil
		case len(in.Segments) == MaxSegments:
			return nil, &redoubt.Error{Op: "ztdf", Kind: redoubt.TooLarge, Err: fmt.Errorf("a file holds %d bytes at most", MaxContentBytes)}
		}
		sealed = aead.Seal(sealed[:0], nil, plain[:n], nil)
		if _, err := w.Write(sealed); err != nil {
			return nil, err
		}
		tag := sealed[len(sealed)-tagBytes:]
		hashes = append(hashes, tag...)
		in.Segments = append(in.Segments, segment{Hash: b64.EncodeToString(tag), Size: int64(n), SealedBytes: int64(len(sealed))})
		out.SizeBytes += int64(n)
		out.Segments++
	}
	return hashes, nil
}

// newPolicy is the policy in base64.
func newPolicy(attributes []string) (string, error) {
	if len(attributes) > MaxAttributes {
		return "", refused(redoubt.Invalid, RulePolicy, "%d attributes, want %d at most", len(attributes), MaxAttributes)
	}
	p := policyObject{UUID: newUUID()}
	p.Body.Dissem = []string{}
	p.Body.Attributes = []attribute{}
	for _, a := range attributes {
		if !validFQN(a) {
			return "", refused(redoubt.Invalid, RulePolicy, "%q is no attribute: want NAMESPACE/attr/NAME/value/VALUE", clip(a))
		}
		p.Body.Attributes = append(p.Body.Attributes, attribute{Attribute: a})
	}
	text, err := encode(p)
	return b64.EncodeToString(text), err
}

// newUUID draws a version 4 UUID (RFC 9562).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// encode is JSON with nothing escaped for HTML: a label is XML, and would be half as long again.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}
