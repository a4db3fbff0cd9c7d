// Package ztdf_test holds package ztdf against the Go SDK of OpenTDF: each opens what the other wrote, with a key access
// service in this process. It is a module of its own, so that the SDK and what it needs are nowhere near the binary.
package ztdf_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/lestrrat-go/jwx/v2/jwt"
	"github.com/opentdf/platform/lib/ocrypto"
	"github.com/opentdf/platform/protocol/go/kas"
	"github.com/opentdf/platform/protocol/go/kas/kasconnect"
	"github.com/opentdf/platform/sdk"
	"golang.org/x/oauth2"
	"google.golang.org/protobuf/encoding/protojson"

	"redoubt"
	"redoubt/label"
	"redoubt/ztdf"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// service is a key access service with one key: it opens what is wrapped to it, holds the policy against its binding, and seals the key
// to the session of who asks. It is written from the protocol, with none of the SDK's cryptography.
type service struct {
	kasconnect.UnimplementedAccessServiceHandler
	private any
	policy  string // the last that it was shown
}

func (s *service) Rewrap(_ context.Context, in *connect.Request[kas.RewrapRequest]) (*connect.Response[kas.RewrapResponse], error) {
	token, err := jwt.ParseInsecure([]byte(in.Msg.GetSignedRequestToken()))
	if err != nil {
		return nil, err
	}
	text, _ := token.Get("requestBody")
	body := new(kas.UnsignedRewrapRequest)
	if err := protojson.Unmarshal([]byte(text.(string)), body); err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(body.GetClientPublicKey()))
	client := must(must(x509.ParsePKIXPublicKey(block.Bytes)).(*ecdsa.PublicKey).ECDH())
	own := must(client.Curve().GenerateKey(rand.Reader))
	session := wrapping(own, client)
	out := &kas.RewrapResponse{SessionPublicKey: publicPEM(own.PublicKey())}
	for _, q := range body.GetRequests() {
		r := &kas.PolicyRewrapResult{PolicyId: q.GetPolicy().GetId()}
		s.policy = q.GetPolicy().GetBody()
		for _, k := range q.GetKeyAccessObjects() {
			key, err := s.open(k.GetKeyAccessObject(), s.policy)
			if err != nil {
				r.Results = append(r.Results, &kas.KeyAccessRewrapResult{KeyAccessObjectId: k.GetKeyAccessObjectId(), Status: "fail", Result: &kas.KeyAccessRewrapResult_Error{Error: err.Error()}})
				continue
			}
			r.Results = append(r.Results, &kas.KeyAccessRewrapResult{KeyAccessObjectId: k.GetKeyAccessObjectId(), Status: "permit",
				Result: &kas.KeyAccessRewrapResult_KasWrappedKey{KasWrappedKey: session.Seal(nil, nil, key, nil)}})
		}
		out.Responses = append(out.Responses, r)
	}
	return connect.NewResponse(out), nil
}

func (s *service) open(k *kas.KeyAccess, policy string) (key []byte, err error) {
	switch p := s.private.(type) {
	case *ecdsa.PrivateKey:
		block, _ := pem.Decode([]byte(k.GetEphemeralPublicKey()))
		if block == nil {
			return nil, errors.New("no ephemeral key")
		}
		far := must(must(x509.ParsePKIXPublicKey(block.Bytes)).(*ecdsa.PublicKey).ECDH())
		key, err = wrapping(must(p.ECDH()), far).Open(nil, nil, k.GetWrappedKey(), nil)
	case *rsa.PrivateKey:
		key, err = rsa.DecryptOAEP(sha256.New(), nil, p, k.GetWrappedKey(), nil)
	}
	if err != nil {
		return nil, err
	}
	m := hmac.New(sha256.New, key)
	m.Write([]byte(policy))
	if k.GetPolicyBinding().GetHash() != base64.StdEncoding.EncodeToString([]byte(hex.EncodeToString(m.Sum(nil)))) {
		return nil, errors.New("the policy is another one")
	}
	return key, nil
}

func wrapping(own *ecdh.PrivateKey, far *ecdh.PublicKey) cipher.AEAD {
	salt := sha256.Sum256([]byte("TDF"))
	key := must(hkdf.Key(sha256.New, must(own.ECDH(far)), salt[:], "", 32))
	return must(cipher.NewGCMWithRandomNonce(must(aes.NewCipher(key))))
}

func publicPEM(key any) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(key))}))
}

// serve starts the service, and an SDK that knows it.
func serve(t *testing.T, private any) (*service, string, *sdk.SDK) {
	t.Helper()
	s := &service{private: private}
	mux := http.NewServeMux()
	path, h := kasconnect.NewAccessServiceHandler(s)
	mux.Handle(path, h)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	client, err := sdk.New(server.URL, sdk.WithInsecurePlaintextConn(), sdk.WithTokenEndpoint(server.URL+"/token"),
		sdk.WithPlatformConfiguration(sdk.PlatformConfiguration{"idp": map[string]any{"issuer": server.URL}}),
		sdk.WithOAuthAccessTokenSource(oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "token", Expiry: time.Now().Add(time.Hour)})))
	if err != nil {
		t.Fatal(err)
	}
	return s, server.URL, client
}

const marking = "SECRET//REL TO USA, GBR"

func xml(t *testing.T) []byte {
	t.Helper()
	l := must(must(label.Builtin("USA")).Parse(marking))
	return must(l.To4774(label.Options4774{Kind: label.Originator4774, Created: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)}))
}

var bodies = map[string]string{"empty": "", "small": "the plan\n", "several segments": strings.Repeat("0123456789abcdef", 300_000)}

// ours writes a file for a service.
func ours(t *testing.T, url, body string, to any, signer *ecdsa.PrivateKey) []byte {
	t.Helper()
	var b bytes.Buffer
	attrs := must(ztdf.Attributes("https://kas.example.mil", "SECRET", nil, []string{"USA", "GBR"}))
	if _, err := ztdf.Write(&b, ztdf.Content{Body: strings.NewReader(body), MIME: "text/plain", Label: xml(t), Attributes: attrs,
		To: ztdf.Recipient{URL: url, KID: "k1", Key: to}, Sign: signer}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func theirOptions(url string, signer *ecdsa.PrivateKey, alg string) []sdk.TDFReaderOption {
	return []sdk.TDFReaderOption{sdk.WithKasAllowlist([]string{url}), sdk.WithSessionKeyType(ocrypto.EC256Key), sdk.WithSchemaValidation(sdk.Strict),
		sdk.WithAssertionVerificationKeys(sdk.AssertionVerificationKeys{DefaultKey: sdk.AssertionKey{Alg: sdk.AssertionKeyAlg(alg), Key: &signer.PublicKey}})}
}

func TestOpenTDFOpensWhatIsWrittenHere(t *testing.T) {
	for name, kasKey := range map[string]any{"P-256": must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), "P-384": must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		"RSA, by a service that takes SHA-256": must(rsa.GenerateKey(rand.Reader, 3072))} {
		s, url, client := serve(t, kasKey)
		for alg, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384()} {
			signer := must(ecdsa.GenerateKey(curve, rand.Reader))
			for what, body := range bodies {
				data := ours(t, url, body, kasKey.(interface{ Public() crypto.PublicKey }).Public(), signer)
				r, err := client.LoadTDF(bytes.NewReader(data), theirOptions(url, signer, alg)...)
				if err != nil {
					t.Fatalf("%s, %s, %s: %v", name, alg, what, err)
				}
				var got bytes.Buffer
				if _, err := r.WriteTo(&got); err != nil || got.String() != body {
					t.Errorf("%s, %s, %s: %d bytes, %v", name, alg, what, got.Len(), err)
				}
				attrs, err := r.DataAttributes()
				if err != nil || len(attrs) != 3 || attrs[0] != "https://kas.example.mil/attr/classification/value/secret" {
					t.Errorf("%s: attributes %v, %v", name, attrs, err)
				}
				if s.policy == "" {
					t.Errorf("%s: the service saw no policy", name)
				}
			}
		}
	}
}

func TestOpenTDFRefusesWhatIsSignedByAStranger(t *testing.T) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	_, url, client := serve(t, key)
	signer, stranger := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)), must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	r, err := client.LoadTDF(bytes.NewReader(ours(t, url, "the plan", &key.PublicKey, signer)), theirOptions(url, stranger, "ES384")...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); err == nil {
		t.Error("it was read")
	}
}

func TestWhatOpenTDFWritesIsOpenedHere(t *testing.T) {
	for typ, curve := range map[ocrypto.KeyType]elliptic.Curve{ocrypto.EC256Key: elliptic.P256(), ocrypto.EC384Key: elliptic.P384()} {
		key := must(ecdsa.GenerateKey(curve, rand.Reader))
		_, url, client := serve(t, key)
		for alg, signer := range map[string]any{"ES384": must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)), "RS256": must(rsa.GenerateKey(rand.Reader, 3072))} {
			pub := signer.(interface{ Public() crypto.PublicKey }).Public()
			for what, body := range bodies {
				for sized, in := range map[string]io.Reader{"of known length": strings.NewReader(body), "from a pipe": io.MultiReader(strings.NewReader(body))} {
					data := theirs(t, client, in, url, typ, &key.PublicKey, alg, signer)
					o := ztdf.Options{Private: key, Trust: []any{pub}, Unbound: true} // they sign no digest
					f, err := ztdf.Open(bytes.NewReader(data), int64(len(data)), o)
					if err != nil {
						t.Errorf("%s, %s, %s %s: %v", typ, alg, what, sized, err)
						continue
					}
					got, err := io.ReadAll(f.Reader())
					if err != nil || string(got) != body || f.Label.Banner() != marking || f.Whole || f.MIME != "text/plain" || len(f.Attributes) != 1 {
						t.Errorf("%s, %s, %s %s: %d bytes, %v, %+v", typ, alg, what, sized, len(got), err, f)
					}
					o.Trust = []any{must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)).Public()}
					var e *redoubt.Error
					if _, err := ztdf.Open(bytes.NewReader(data), int64(len(data)), o); !errors.As(err, &e) || e.Rule != ztdf.RuleSigner {
						t.Errorf("by a stranger: %v", err)
					}
				}
			}
		}
	}
}

// TestTheirDefaultsAreRefusedHere: an assertion that is signed with the payload key, which every recipient has, and RSA-OAEP with SHA-1.
func TestTheirDefaultsAreRefusedHere(t *testing.T) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	signer := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	_, url, client := serve(t, key)
	data := theirs(t, client, strings.NewReader("the plan"), url, ocrypto.EC256Key, &key.PublicKey, "", nil)
	_, err := ztdf.Open(bytes.NewReader(data), int64(len(data)), ztdf.Options{Private: key, Trust: []any{signer.Public()}})
	var e *redoubt.Error
	if !errors.As(err, &e) || e.Rule != ztdf.RuleSigner {
		t.Errorf("signed with the payload key: %v", err)
	}
	if fips140.Enforced() {
		return // their RSA-OAEP is with SHA-1, which is not there then
	}
	wide := must(rsa.GenerateKey(rand.Reader, 4096))
	data = theirs(t, client, strings.NewReader("the plan"), url, ocrypto.RSA4096Key, &wide.PublicKey, "ES384", signer)
	_, err = ztdf.Open(bytes.NewReader(data), int64(len(data)), ztdf.Options{Private: wide, Trust: []any{signer.Public()}})
	if !errors.As(err, &e) || e.Rule != ztdf.RuleKey {
		t.Errorf("RSA-OAEP with SHA-1: %v", err)
	}
}

func theirs(t *testing.T, client *sdk.SDK, in io.Reader, url string, typ ocrypto.KeyType, to any, alg string, signer any) []byte {
	t.Helper()
	a := sdk.AssertionConfig{ID: "label", Type: sdk.HandlingAssertion, Scope: sdk.PayloadScope, AppliesToState: sdk.Unencrypted,
		Statement: sdk.Statement{Format: "xml-structured", Schema: ztdf.LabelSchema, Value: string(xml(t))}}
	if signer != nil {
		a.SigningKey = sdk.AssertionKey{Alg: sdk.AssertionKeyAlg(alg), Key: signer}
	}
	var b bytes.Buffer
	if _, err := client.CreateTDF(&b, in, sdk.WithAutoconfigure(false), sdk.WithMimeType("text/plain"), sdk.WithSystemMetadataAssertion(), sdk.WithAssertions(a),
		sdk.WithDataAttributes("https://kas.example.mil/attr/classification/value/secret"),
		sdk.WithKasInformation(sdk.KASInfo{URL: url, KID: "k1", Algorithm: string(typ), PublicKey: publicPEM(to), Default: true})); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
