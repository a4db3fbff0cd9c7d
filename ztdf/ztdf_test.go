package ztdf

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"io"
	"strings"
	"testing"

	"redoubt"
	"redoubt/label"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	for name, body := range map[string]string{"nothing": "", "a line": "the plan\n", "one segment": strings.Repeat("x", SegmentBytes),
		"one segment and a byte": strings.Repeat("y", SegmentBytes+1), "three": strings.Repeat("z", 2*SegmentBytes+77)} {
		c := content(t, body)
		var b bytes.Buffer
		w, err := Write(&b, c)
		if err != nil {
			t.Fatal(err)
		}
		f, err := open(b.Bytes(), options())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := io.ReadAll(f.Reader())
		if err != nil || string(got) != body {
			t.Errorf("%s: read %d bytes, %v, want %d", name, len(got), err, len(body))
		}
		if f.SizeBytes != int64(len(body)) || w.SizeBytes != f.SizeBytes || f.MIME != "text/plain" || f.Label.Banner() != relGBR || !f.Whole || len(f.Attributes) != 1 || f.XML != string(c.Label) {
			t.Errorf("%s: it is %+v", name, f)
		}
	}
}

func TestEveryWrappingAndSignatureOpens(t *testing.T) {
	recipients := map[string]struct {
		public, private any
		typ             string
	}{"RSA": {&rsaKey().PublicKey, rsaKey(), "wrapped"}, "P-256": {&p256().PublicKey, p256(), "ec-wrapped"}, "P-384": {&p384().PublicKey, p384(), "ec-wrapped"}}
	signers := map[string]crypto.Signer{"RS256": rsaKey(), "ES256": p256(), "ES384": p384(), "EdDSA": edKey()}
	for kas, r := range recipients {
		for alg, s := range signers {
			c := content(t, "the plan")
			c.To.Key, c.Sign = r.public, s
			var b bytes.Buffer
			w, err := Write(&b, c)
			if err != nil || w.Wrapping != r.typ || w.Signer != alg {
				t.Fatalf("%s, %s: %+v, %v", kas, alg, w, err)
			}
			if _, err := open(b.Bytes(), Options{Private: r.private, Trust: []any{edKey().Public(), s.Public()}}); err != nil {
				t.Errorf("%s, %s: %v", kas, alg, err)
			}
			for other, o := range recipients {
				if other != kas {
					_, err := open(b.Bytes(), Options{Private: o.private, Trust: []any{s.Public()}})
					wantRefused(t, kas+" opened by "+other, err, RuleKey, "opens none")
				}
			}
		}
	}
}

func TestTheZeroOptionsOpenNothing(t *testing.T) {
	data := written(t, content(t, "the plan"))
	_, err := open(data, Options{})
	wantRefused(t, "no key", err, RuleKey, "opens none")
	_, err = open(data, Options{Private: p256()})
	wantRefused(t, "nobody trusted", err, RuleSigner, "no key that is trusted")
}

func TestNoTwoFilesShareAKeyOrANonce(t *testing.T) {
	a, b := takeApart(t, written(t, content(t, "the plan"))), takeApart(t, written(t, content(t, "the plan")))
	if bytes.Equal(a.key, b.key) || bytes.Equal(a.payload[:nonceBytes], b.payload[:nonceBytes]) {
		t.Error("two files of one content share their key or nonce")
	}
	two := takeApart(t, written(t, content(t, strings.Repeat("x", SegmentBytes+5))))
	if at := SegmentBytes + overhead; bytes.Equal(two.payload[:nonceBytes], two.payload[at:at+nonceBytes]) {
		t.Error("two segments share their nonce")
	}
}

func TestWeakKeysAreTakenNowhere(t *testing.T) {
	for what, text := range map[string]string{
		"nothing": "", "no PEM": "key", "a private key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"RSA of 2048 bits": weakRSA, "P-521": weakEC, "two keys": weakRSA + weakRSA, "too much": strings.Repeat(" ", maxPEM+1),
	} {
		if _, err := ParsePublic([]byte(text)); redoubt.KindOf(err) != redoubt.Invalid {
			t.Errorf("%s: got %v, want invalid", what, err)
		}
	}
}

func TestNothingIsWrittenThatIsNotRead(t *testing.T) {
	for what, change := range map[string]func(*Content){
		"without a label":               func(c *Content) { c.Label = nil },
		"with a label that is too long": func(c *Content) { c.Label = make([]byte, MaxStatementBytes+1) },
		"without a signer":              func(c *Content) { c.Sign = nil },
		"to no address":                 func(c *Content) { c.To.URL = "kas" },
		"to an address with a secret":   func(c *Content) { c.To.URL = "https://a:b@kas.example.mil" },
		"to no key":                     func(c *Content) { c.To.Key = nil },
		"to a key that signs":           func(c *Content) { c.To.Key = edKey().Public() },
		"with no media type":            func(c *Content) { c.MIME = "text\nplain" },
		"with no attribute":             func(c *Content) { c.Attributes = []string{"secret"} },
		"with too many attributes":      func(c *Content) { c.Attributes = make([]string, MaxAttributes+1) },
	} {
		c := content(t, "the plan")
		change(&c)
		if _, err := Write(io.Discard, c); err == nil {
			t.Errorf("%s: it was written", what)
		}
	}
	c := content(t, "")
	c.Body = io.MultiReader(strings.NewReader("part"), broken{})
	if _, err := Write(io.Discard, c); err != errBroken {
		t.Errorf("content that breaks off: got %v", err)
	}
}

func TestAttributesSayWhatTheLabelSays(t *testing.T) {
	got, err := Attributes("https://kas.example.mil", "TOP SECRET", []string{"SI-G ABCD", "RD/É"}, []string{"USA", "GBR"})
	const ns = "https://kas.example.mil/attr/"
	want := []string{ns + "classification/value/top_secret", ns + "category/value/si-g_abcd", ns + "category/value/rd_x2f__xe9_", ns + "releasable-to/value/usa", ns + "releasable-to/value/gbr"}
	if err != nil || strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	for _, a := range got {
		if !validFQN(a) {
			t.Errorf("%q is not read", a)
		}
	}
	for _, ns := range []string{"", "kas", "https://kas.example.mil/", "https://x/attr/y", "ftp://x"} {
		if _, err := Attributes(ns, "SECRET", nil, nil); err == nil {
			t.Errorf("the namespace %q was taken", ns)
		}
	}
}

func TestLabelsOfOtherPoliciesNeedThosePolicies(t *testing.T) {
	gbr := must(label.Builtin("GBR"))
	data := written(t, content(t, "the plan"))
	o := options()
	o.Policies = []*label.Policy{gbr}
	_, err := open(data, o)
	wantRefused(t, "a policy that is not known", err, RuleLabel, "no policy that is known")
}

type brokenError string

func (e brokenError) Error() string { return string(e) }

const errBroken = brokenError("broken off")

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errBroken }

func BenchmarkWriteAndOpen(b *testing.B) {
	body := make([]byte, 64<<20)
	rand.Read(body)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		c := content(b, "")
		c.Body = bytes.NewReader(body)
		if _, err := open(written(b, c), options()); err != nil {
			b.Fatal(err)
		}
	}
}
