package ztdf

import (
	"archive/zip"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"redoubt"
	"redoubt/label"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// The keys of the tests: made once, for RSA takes its time.
var (
	rsaKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, minRSABits)) })
	p256   = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	p384   = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) })
	edKey  = sync.OnceValue(func() ed25519.PrivateKey { _, k, err := ed25519.GenerateKey(rand.Reader); return must(k, err) })
)

// xmlOf is the originator's label of a marking.
func xmlOf(t testing.TB, marking string) []byte {
	t.Helper()
	p := must(label.Builtin("USA"))
	l, err := p.Parse(marking)
	if err != nil {
		t.Fatal(err)
	}
	xml, err := l.To4774(label.Options4774{Kind: label.Originator4774, Created: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)})
	if err != nil {
		t.Fatal(err)
	}
	return xml
}

const relGBR = "SECRET//REL TO USA, GBR"

func content(t testing.TB, body string) Content {
	return Content{Body: strings.NewReader(body), MIME: "text/plain", Label: xmlOf(t, relGBR), Attributes: []string{"https://kas.example.mil/attr/classification/value/secret"},
		To: Recipient{URL: "https://kas.example.mil", KID: "k1", Key: &p256().PublicKey}, Sign: edKey()}
}

func written(t testing.TB, c Content) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := Write(&b, c); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// options are those that open what content writes.
func options() Options { return Options{Private: p256(), Trust: []any{edKey().Public()}} }

// unbound are those that open what a partner writes who signs no digest.
func unbound() Options {
	o := options()
	o.Unbound = true
	return o
}

func open(data []byte, o Options) (*File, error) {
	return Open(bytes.NewReader(data), int64(len(data)), o)
}

func wantRefused(t *testing.T, what string, err error, rule, why string) {
	t.Helper()
	var e *redoubt.Error
	if !errors.As(err, &e) || e.Rule != rule || !strings.Contains(err.Error(), why) {
		t.Errorf("%s: got %v, want a refusal by %s that says %q", what, err, rule, why)
	}
}

// parts are a file taken apart, so that a test may put together another one.
type parts struct {
	m       *manifest
	payload []byte
	key     []byte
}

func takeApart(t testing.TB, data []byte) *parts {
	t.Helper()
	z := must(zip.NewReader(bytes.NewReader(data), int64(len(data))))
	p := &parts{m: new(manifest)}
	for _, f := range z.File {
		b := must(io.ReadAll(must(f.Open())))
		if f.Name == payloadName {
			p.payload = b
			continue
		}
		if err := json.Unmarshal(b, p.m); err != nil {
			t.Fatal(err)
		}
	}
	p.key = must(p.m.Encryption.KeyAccess[0].unwrap(p256()))
	return p
}

// zip is the file again.
func (p *parts) zip() []byte { return zipped(must(encode(p.m)), p.payload) }

func zipped(manifest, payload []byte) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, data := range map[string][]byte{payloadName: payload, manifestName: manifest} {
		w := must(z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store}))
		must(w.Write(data))
	}
	must(0, z.Close())
	return b.Bytes()
}

// hashes are those that the manifest has now.
func (p *parts) hashes() []byte { return must(p.m.Encryption.Integrity.hashes()) }

// reroot signs the segments anew, as who has the payload key can.
func (p *parts) reroot() *parts {
	p.m.Encryption.Integrity.Root.Sig = b64.EncodeToString(mac(p.key, p.hashes()))
	return p
}

// rebind binds the policy anew, as who has the payload key can.
func (p *parts) rebind(policy string) *parts {
	p.m.Encryption.Policy = policy
	p.m.Encryption.KeyAccess[0].Binding.Hash = b64.EncodeToString([]byte(hex.EncodeToString(mac(p.key, []byte(policy)))))
	return p
}

// resign has a signer sign the assertion as it stands.
func (p *parts) resign(by crypto.Signer, whole bool) *parts {
	a := &p.m.Assertions[0]
	sum := sha256.Sum256(a.canonical())
	c := claims{Hash: hex.EncodeToString(sum[:]), Sig: b64.EncodeToString(slices.Concat(p.hashes(), sum[:]))}
	if whole {
		d, e := sha512.Sum384(p.payload), sha512.Sum384([]byte(p.m.Encryption.Policy))
		c.Payload, c.Policy = b64.EncodeToString(d[:]), b64.EncodeToString(e[:])
	}
	a.Binding.Signature = must(sign(by, c))
	return p
}
