package ztdf

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"

	"redoubt"
)

const (
	keyBytes   = 32 // of a payload key: AES-256
	nonceBytes = 12 // before a segment's ciphertext
	tagBytes   = 16 // behind it; the segment's hash
	overhead   = nonceBytes + tagBytes
	minRSABits = 3072 // below is less than 128 bits of strength
	maxRSABits = 8192 // above, one verification costs a reader too much
	maxPEM     = 16 << 10
)

// Recipient is a partner's key access service: where it is, and the public key that the payload key is wrapped to. He gave
// the key to the exporter himself.
type Recipient struct {
	URL string
	KID string // his name for the key; "": the first 16 hex digits of its SHA-256
	Key any    // *rsa.PublicKey of 3072 bits or more, or *ecdsa.PublicKey on P-256 or P-384; see ParsePublic
}

// ParsePublic reads one public key in PEM ("PUBLIC KEY", PKIX) that this package can wrap to or verify with: RSA of 3072 to
// 8192 bits, elliptic curve P-256 or P-384, Ed25519.
func ParsePublic(text []byte) (any, error) {
	der, err := onePEM(text, "PUBLIC KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, badKey("is no public key: %w", err)
	}
	return key, strongEnough(key)
}

// ParsePrivate reads one private key in PEM ("PRIVATE KEY", PKCS #8) of the same kinds.
func ParsePrivate(text []byte) (any, error) {
	der, err := onePEM(text, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	defer clear(der)
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, badKey("is no private key: %w", err)
	}
	public, ok := key.(interface{ Public() crypto.PublicKey })
	if !ok {
		return nil, badKey("is of a kind that is not used here")
	}
	return key, strongEnough(public.Public())
}

func badKey(format string, args ...any) error {
	return &redoubt.Error{Op: "ztdf", Kind: redoubt.Invalid, Rule: RuleAlgorithm, Err: fmt.Errorf("the key "+format, args...),
		Hint: "PEM as openssl pkey writes it: RSA of 3072 bits or more, P-256, P-384, or for signatures Ed25519"}
}

func onePEM(text []byte, want string) ([]byte, error) {
	if len(text) > maxPEM {
		return nil, badKey("has more than %d bytes", maxPEM)
	}
	b, rest := pem.Decode(text)
	if b == nil || b.Type != want || len(b.Headers) != 0 {
		return nil, badKey("is not one %s in PEM", want)
	}
	if more, _ := pem.Decode(rest); more != nil {
		return nil, badKey("is not alone in its file")
	}
	return b.Bytes, nil
}

// strongEnough says whether a public key is of a kind and strength that is used here.
func strongEnough(key any) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return badKey("has %d bits, want %d to %d", bits, minRSABits, maxRSABits)
		}
		return nil
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return badKey("is on %s, want P-256 or P-384", k.Params().Name)
		}
		return nil
	}
	if _, _, ok := jwsAlgorithm(key); !ok {
		return badKey("is of a kind that is not used here")
	}
	return nil
}

// keyID is the name of a key that was given none.
func keyID(key any) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:8]), err
}

// Check says whether something can be sealed to the recipient: a proper address and name, and a key that takes content.
func (to Recipient) Check() error {
	if !httpURL(to.URL) || len(to.KID) > MaxTextBytes || !printable(to.KID) {
		return &redoubt.Error{Op: "ztdf", Kind: redoubt.Invalid, Err: fmt.Errorf("%q is no address of a key access service, or its key has no proper name", clip(to.URL)), Hint: "such as https://kas.gbr.example; the partner says which"}
	}
	switch to.Key.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
		return strongEnough(to.Key)
	}
	return badKey("signs, and takes no content")
}

// wrap makes the key access object of a payload key.
func wrap(key []byte, to Recipient, policy string) (k keyAccess, err error) {
	if err := to.Check(); err != nil {
		return k, err
	}
	if to.KID == "" {
		if to.KID, err = keyID(to.Key); err != nil {
			return k, err
		}
	}
	k = keyAccess{URL: to.URL, Protocol: "kas", KID: to.KID, Version: "1.0", Binding: binding{Alg: "HS256", Hash: b64.EncodeToString([]byte(hex.EncodeToString(mac(key, []byte(policy)))))}}
	var wrapped []byte
	switch pub := to.Key.(type) {
	case *rsa.PublicKey:
		k.Type = "wrapped"
		wrapped, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, pub, key, nil)
	case *ecdsa.PublicKey:
		k.Type = "ec-wrapped"
		wrapped, k.Ephemeral, err = wrapEC(key, pub)
	}
	k.WrappedKey = b64.EncodeToString(wrapped)
	return k, err
}

// wrapEC seals the payload key under what an ephemeral key and the recipient's agree on.
func wrapEC(key []byte, to *ecdsa.PublicKey) (wrapped []byte, ephemeral string, err error) {
	pub, err := to.ECDH()
	if err != nil {
		return nil, "", badKey("is no point: %w", err)
	}
	own, err := pub.Curve().GenerateKey(rand.Reader)
	if err != nil {
		return nil, "", err
	}
	der, err := x509.MarshalPKIXPublicKey(own.PublicKey())
	if err != nil {
		return nil, "", err
	}
	aead, err := agreed(own, pub)
	if err != nil {
		return nil, "", err
	}
	return aead.Seal(nil, nil, key, nil), string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

// agreed is the cipher that a payload key is wrapped with: HKDF-SHA256 of the shared secret, salted with SHA-256("TDF"), no info.
func agreed(own *ecdh.PrivateKey, far *ecdh.PublicKey) (cipher.AEAD, error) {
	shared, err := own.ECDH(far)
	if err != nil {
		return nil, err
	}
	defer clear(shared)
	salt := sha256.Sum256([]byte("TDF"))
	key, err := hkdf.Key(sha256.New, shared, salt[:], "", keyBytes)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return gcm(key)
}

// gcm is AES-256-GCM that draws its nonces itself and puts them before the ciphertext, as TDF has it.
func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func mac(key, data []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(data)
	return h.Sum(nil)
}

// errOtherKey is a key access object that is for another kind of key.
var errOtherKey = errors.New("it is wrapped to another kind of key")

// unwrap opens one key access object.
func (k *keyAccess) unwrap(private any) ([]byte, error) {
	wrapped, err := decode64(k.WrappedKey, MaxTextBytes)
	if err != nil {
		return nil, err
	}
	var key []byte
	switch p := private.(type) {
	case *rsa.PrivateKey:
		if k.Type != "wrapped" {
			return nil, errOtherKey
		}
		key, err = rsa.DecryptOAEP(sha256.New(), nil, p, wrapped, nil)
	case *ecdsa.PrivateKey:
		if k.Type != "ec-wrapped" {
			return nil, errOtherKey
		}
		key, err = k.unwrapEC(p, wrapped)
	default:
		return nil, errOtherKey
	}
	if err == nil && len(key) != keyBytes {
		err = fmt.Errorf("it has %d bytes, want %d", len(key), keyBytes)
	}
	return key, err
}

func (k *keyAccess) unwrapEC(private *ecdsa.PrivateKey, wrapped []byte) ([]byte, error) {
	pub, err := ParsePublic([]byte(k.Ephemeral))
	if err != nil {
		return nil, err
	}
	point, ok := pub.(*ecdsa.PublicKey)
	if !ok || point.Curve != private.Curve {
		return nil, errOtherKey
	}
	far, err := point.ECDH()
	if err != nil {
		return nil, err
	}
	own, err := private.ECDH()
	if err != nil {
		return nil, err
	}
	aead, err := agreed(own, far)
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, nil, wrapped, nil)
}

// payloadKey finds the payload key: of the key access object that opens with the private key at hand, once the policy is shown
// to be the one that it is bound to.
func (e *encryption) payloadKey(private any) ([]byte, error) {
	var last error
	for i := range e.KeyAccess {
		k := &e.KeyAccess[i]
		key, err := k.unwrap(private)
		if err != nil {
			last = err
			continue
		}
		if err := k.Binding.verify(key, e.Policy); err != nil {
			clear(key)
			return nil, err
		}
		return key, nil
	}
	return nil, refused(redoubt.Denied, RuleKey, "the key at hand opens none of %d key access objects: %w", len(e.KeyAccess), last)
}

// verify holds the policy against what the key is bound to. The HMAC stands there in hex, as OpenTDF writes it, or bare, as its specification says.
func (b binding) verify(key []byte, policy string) error {
	want := mac(key, []byte(policy))
	got, err := decode64(b.Hash, 2*sha256.Size)
	if err == nil && len(got) == 2*sha256.Size {
		got, err = hex.DecodeString(string(got))
	}
	if err != nil || !hmac.Equal(got, want) {
		return refused(redoubt.Denied, RulePolicy, "the policy is not the one that the key is bound to")
	}
	return nil
}
