package estate

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/keys"
	"redoubt/label"
)

func recipient(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	ring, err := keys.Create(dir+"/ring", keys.KeyFile(dir+"/key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	id, err := ring.BundleIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id.Recipient().String()
}

func certificate(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// pact is a good agreement of the estate that realEstate reads with a British one, unsigned.
func pact(t *testing.T) Agreement {
	t.Helper()
	r, ca := recipient(t), certificate(t)
	party := func(estate, policy, nation string, node redoubt.NodeName, seed byte) Party {
		return Party{Estate: estate, Policy: policy, Nation: nation, Gateway: Gateway{Node: node, Key: public(seed), Recipient: r, CA: ca, API: "https://127.0.0.1:9443"},
			Officers: []Officer{{"o1", public(seed + 1)}, {"o2", public(seed + 2)}}}
	}
	gbr, north := party("gbr", "GBR@1", "GBR", "defence", 20), party("north", "USA@1", "USA", "alpha", 0)
	north.Gateway.Key = public(30)
	north.Gives = &Gives{Bound: "SECRET//REL TO USA, GBR", Buckets: []redoubt.BucketName{"reports"}, Equivalence: &Equivalence{Classifications: map[string]string{"SECRET": "SECRET"},
		Categories: map[string][]string{}, Marks: map[string][]string{}, Audience: map[string][]string{"USA": {"USA"}, "GBR": {"GBR"}}}}
	gbr.People = []Recognised{{Name: "alice", Key: public(40), Clearance: "SECRET", Nation: "GBR", Expires: time.Date(2039, 1, 1, 0, 0, 0, 0, time.UTC)}}
	return Agreement{Name: "north-gbr", Serial: 1, NotBefore: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), Expires: time.Date(2035, 1, 1, 0, 0, 0, 0, time.UTC), Parties: []Party{north, gbr}}
}

func signAll(t *testing.T, s *SignedAgreement) {
	t.Helper()
	for _, by := range []struct {
		estate string
		name   redoubt.SubjectName
		seed   byte
	}{{"north", "o1", 1}, {"north", "o2", 2}, {"gbr", "o1", 21}, {"gbr", "o2", 22}} {
		if err := s.Sign(by.estate, by.name, key(by.seed)); err != nil {
			t.Fatal(err)
		}
	}
}

func signedPact(t *testing.T) *SignedAgreement {
	t.Helper()
	s, err := NewAgreement(pact(t))
	if err != nil {
		t.Fatal(err)
	}
	signAll(t, s)
	return s
}

func TestAnAgreementHasOneFormByteForByte(t *testing.T) {
	s := signedPact(t)
	file := s.File()
	again, err := ReadAgreement(file)
	if err != nil || !bytes.Equal(again.File(), file) || again.Verify() != nil {
		t.Fatalf("it does not read as it was written: %v", err)
	}
	for name, other := range map[string][]byte{
		"a byte behind it":     append(bytes.Clone(file), '\n'),
		"other layout":         bytes.Replace(file, []byte("  "), []byte(" "), 1),
		"a key twice":          bytes.Replace(file, []byte(`"serial": 1,`), []byte("\"serial\": 2,\n    \"serial\": 1,"), 1),
		"a key in capitals":    bytes.Replace(file, []byte(`"serial"`), []byte(`"Serial"`), 1),
		"an unknown key":       bytes.Replace(file, []byte(`"serial": 1,`), []byte("\"serial\": 1,\n    \"note\": \"x\","), 1),
		"another document":     append(bytes.Clone(file), file...),
		"a time in other zone": bytes.Replace(file, []byte("2035-01-01T00:00:00Z"), []byte("2035-01-01T01:00:00+01:00"), 1),
		"nothing":              nil,
		"too much":             bytes.Repeat([]byte(" "), MaxAgreementBytes+1),
	} {
		if _, err := ReadAgreement(other); !errors.Is(err, redoubt.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnAgreementNeedsTwoOfficersOfEachSide(t *testing.T) {
	s := signedPact(t)
	all := s.Signatures
	for i := range all {
		less := &SignedAgreement{Agreement: s.Agreement, Signatures: append(append([]PartySignature{}, all[:i]...), all[i+1:]...)}
		if err := less.Verify(); !errors.Is(err, redoubt.Denied) {
			t.Errorf("without %s of %s: %v", all[i].Signer, all[i].Estate, err)
		}
	}
	with := func(change func(sigs []PartySignature) []PartySignature) error {
		x := &SignedAgreement{Agreement: s.Agreement, Signatures: change(append([]PartySignature{}, all...))}
		return x.Verify()
	}
	if err := with(func(s []PartySignature) []PartySignature { s[1] = s[0]; return s }); !errors.Is(err, redoubt.Denied) {
		t.Errorf("one officer twice: %v", err)
	}
	if err := with(func(s []PartySignature) []PartySignature { s[1].Sig = s[0].Sig; return s }); !errors.Is(err, redoubt.Denied) {
		t.Errorf("another's signature: %v", err)
	}
	if err := with(func(s []PartySignature) []PartySignature { s[0].Estate = "north"; return s }); !errors.Is(err, redoubt.Denied) {
		t.Errorf("a signature for the other side: %v", err)
	}
	if err := with(func(s []PartySignature) []PartySignature {
		return append(s, PartySignature{Estate: "fra", Signer: "o1", Sig: s[0].Sig})
	}); !errors.Is(err, redoubt.Denied) {
		t.Errorf("a third party's: %v", err)
	}
	if err := s.Sign("north", "o1", key(9)); !errors.Is(err, redoubt.Denied) {
		t.Errorf("another key signs: %v", err)
	}
	if err := s.Sign("north", "o3", key(1)); !errors.Is(err, redoubt.Denied) {
		t.Errorf("nobody's officer signs: %v", err)
	}
}

func TestAnAlteredAgreementVerifiesNoMore(t *testing.T) {
	for name, change := range map[string]func(a *Agreement){
		"the expiry":     func(a *Agreement) { a.Expires = a.Expires.Add(time.Hour) },
		"the serial":     func(a *Agreement) { a.Serial++ },
		"a bucket":       func(a *Agreement) { a.Parties[1].Gives.Buckets[0] = "imagery" },
		"a bound":        func(a *Agreement) { a.Parties[1].Gives.Bound = "CONFIDENTIAL//REL TO USA, GBR" },
		"a person's key": func(a *Agreement) { a.Parties[0].People[0].Key = public(41) },
		"a clearance":    func(a *Agreement) { a.Parties[0].People[0].Clearance = "TOP SECRET" },
		"the gateway":    func(a *Agreement) { a.Parties[0].Gateway.Key = public(42) },
		"its address":    func(a *Agreement) { a.Parties[0].Gateway.API = "https://192.0.2.1" },
		"an equivalence": func(a *Agreement) { a.Parties[1].Gives.Equivalence.Classifications["UNCLASSIFIED"] = "OFFICIAL" },
	} {
		s := signedPact(t)
		change(&s.Agreement)
		if err := s.Verify(); !errors.Is(err, redoubt.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatIsNoAgreementIsRefused(t *testing.T) {
	north := func(a *Agreement) *Party { return &a.Parties[1] } // gbr stands first
	for name, change := range map[string]func(a *Agreement){
		"a bound that is not releasable to the partner": func(a *Agreement) { north(a).Gives.Bound = "SECRET//NOFORN" },
		"a bound for another":                           func(a *Agreement) { north(a).Gives.Bound = "SECRET//REL TO USA, FRA" },
		"a bound that is not written as it is":          func(a *Agreement) { north(a).Gives.Bound = "S//REL TO USA, GBR" },
		"a bound that does not convert":                 func(a *Agreement) { north(a).Gives.Bound = "CONFIDENTIAL//REL TO USA, GBR" },
		"what a guard brought":                          func(a *Agreement) { north(a).Gives.Buckets[0] = "unclass.reports" },
		"a bucket twice":                                func(a *Agreement) { north(a).Gives.Buckets = []redoubt.BucketName{"reports", "reports"} },
		"no bucket":                                     func(a *Agreement) { north(a).Gives.Buckets = []redoubt.BucketName{} },
		"a nation that becomes another":                 func(a *Agreement) { north(a).Gives.Equivalence.Audience["USA"] = []string{"FRA"} },
		"a nation that becomes several":                 func(a *Agreement) { north(a).Gives.Equivalence.Audience["USA"] = []string{"USA", "FRA"} },
		"a class that nobody knows":                     func(a *Agreement) { north(a).Gives.Equivalence.Classifications["SECRET"] = "GEHEIM" },
		"no equivalence":                                func(a *Agreement) { north(a).Gives.Equivalence = nil },
		"an officer of both sides":                      func(a *Agreement) { a.Parties[0].Officers[0].Key = a.Parties[1].Officers[0].Key },
		"one officer by two names":                      func(a *Agreement) { a.Parties[0].Officers[1].Key = a.Parties[0].Officers[0].Key },
		"one officer":                                   func(a *Agreement) { a.Parties[0].Officers = a.Parties[0].Officers[:1] },
		"a person who is an officer":                    func(a *Agreement) { a.Parties[0].People[0].Key = a.Parties[0].Officers[0].Key },
		"a person of the gateway's key":                 func(a *Agreement) { a.Parties[0].People[0].Key = a.Parties[0].Gateway.Key },
		"a name with a dot":                             func(a *Agreement) { a.Parties[0].People[0].Name = "fra.alice" },
		"a clearance of the wrong policy":               func(a *Agreement) { a.Parties[0].People[0].Clearance = "OFFICIAL" },
		"no nation":                                     func(a *Agreement) { a.Parties[0].Nation = "XXX" },
		"an estate named as a node's own subject":       func(a *Agreement) { a.Parties[0].Estate = "link" },
		"one estate":                                    func(a *Agreement) { a.Parties[0].Estate = "north" },
		"an unknown policy":                             func(a *Agreement) { a.Parties[0].Policy = "GBR@2" },
		"no serial":                                     func(a *Agreement) { a.Serial = 0 },
		"no time":                                       func(a *Agreement) { a.Expires = a.NotBefore },
		"too long a time":                               func(a *Agreement) { a.Expires = a.NotBefore.Add(MaxAgreementLife + time.Second) },
		"an address in clear":                           func(a *Agreement) { a.Parties[0].Gateway.API = "http://127.0.0.1:9443" },
		"no certificate":                                func(a *Agreement) { a.Parties[0].Gateway.CA = "x" },
		"three parties":                                 func(a *Agreement) { a.Parties = append(a.Parties, a.Parties[0]) },
		"too long a name between estates": func(a *Agreement) {
			a.Parties[0].Gateway.Node = redoubt.NodeName(strings.Repeat("d", 63-len("gbr--")+1))
		},
	} {
		s, err := NewAgreement(pact(t))
		if err != nil {
			t.Fatal(err)
		}
		change(&s.Agreement)
		if _, err := ReadAgreement(s.File()); !errors.Is(err, redoubt.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(a *Agreement){
		"the longest time": func(a *Agreement) { a.Expires = a.NotBefore.Add(MaxAgreementLife) },
		"the longest name": func(a *Agreement) { a.Parties[0].Gateway.Node = redoubt.NodeName(strings.Repeat("d", 63-len("gbr--"))) },
	} {
		s, err := NewAgreement(pact(t))
		if err != nil {
			t.Fatal(err)
		}
		change(&s.Agreement)
		if _, err := ReadAgreement(s.File()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTwoEstatesOfOnePolicyKeepTheirLabels(t *testing.T) {
	a := pact(t)
	a.Parties[1].Policy, a.Parties[1].People[0].Clearance, a.Parties[0].Gives.Equivalence = "USA@1", "SECRET", nil
	s, err := NewAgreement(a)
	if err != nil {
		t.Fatal(err)
	}
	convert, err := s.conversion(1, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	usa, _ := label.Builtin("USA")
	l, _ := usa.Parse("SECRET//REL TO USA, GBR")
	if got, err := convert(l); err != nil || got != l {
		t.Errorf("got %v, %v", got, err)
	}
}

// withPact reads the test's real estate with an agreement beside it.
func withPact(t *testing.T, file []byte, more string) (*Estate, error) {
	t.Helper()
	text := fmt.Sprintf(real, 1, public(1), public(2)) + more + "agreements: [pact.json]\n"
	return Read([]byte(text), func(name string) ([]byte, error) {
		if name != "pact.json" {
			return nil, redoubt.NotFound
		}
		return file, nil
	})
}

func TestAnEstateNamesItsAgreementsAndItsSignaturesCoverThem(t *testing.T) {
	s := signedPact(t)
	e, err := withPact(t, s.File(), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.OfficersAgree(); err != nil {
		t.Error(err)
	}
	other := signedPact(t) // another gateway certificate
	if e2, err := withPact(t, other.File(), ""); err != nil || e2.Digest() == e.Digest() {
		t.Errorf("two estates with different agreements have one digest: %v", err)
	}
	again, err := e.Document().Read()
	if err != nil || again.Digest() != e.Digest() || len(again.Partners("alpha")) != 1 {
		t.Errorf("its document: %v", err)
	}
	people := e.PartnerPeople("alpha")
	if len(people) != 2 || people[0].Name != "gbr--defence" || people[0].Roles[0] != redoubt.RolePartner || people[1].Name != "gbr.alice" || !people[1].Expires.Equal(s.Agreement.Expires) {
		t.Errorf("its people: %+v", people)
	}
	if steps := Plan(realEstate(t, 1, 1, 2), e); len(steps) != 1 || steps[0].Noun != "agreement" || steps[0].Do != "add" {
		t.Errorf("the plan: %v", steps)
	}
}

func TestAnEstateTakesNoAgreementThatIsNotItsOwn(t *testing.T) {
	one := func(change func(a *Agreement)) []byte {
		a := pact(t)
		change(&a)
		s, err := NewAgreement(a)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range s.Agreement.Parties {
			for _, o := range p.Officers {
				for seed := range byte(60) {
					if public(seed) == o.Key {
						if err := s.Sign(p.Estate, o.Name, key(seed)); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
		}
		return s.File()
	}
	unsigned, err := NewAgreement(pact(t))
	if err != nil {
		t.Fatal(err)
	}
	same := one(func(*Agreement) {})
	if _, err := withPact(t, same, ""); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		file []byte
		more string
	}{
		"unsigned":                         {file: unsigned.File()},
		"of two others":                    {file: one(func(a *Agreement) { a.Parties[0].Estate = "south" })},
		"under another policy":             {file: one(func(a *Agreement) { a.Parties[0].Policy, a.Parties[0].Gives = "NZL@1", nil; a.Parties[1].People = nil })},
		"by officers of another making":    {file: one(func(a *Agreement) { a.Parties[0].Officers = []Officer{{"o1", public(51)}, {"o2", public(52)}} })},
		"by people who are no officers":    {file: one(func(a *Agreement) { a.Parties[0].Officers[0].Name = "nobody" })},
		"with a gateway that is not here":  {file: one(func(a *Agreement) { a.Parties[0].Gateway.Node = "beta" })},
		"with a person who is one of ours": {file: same, more: "  - {name: p, clearance: S, nation: USA, roles: [analyst], expires: 2040-01-01, public_key: " + public(40) + "}\n"},
		"with a bucket that is not here":   {file: one(func(a *Agreement) { a.Parties[0].Gives.Buckets[0] = "imagery" })},
	} {
		_, err := withPact(t, tt.file, tt.more)
		var faults Faults
		if !errors.As(err, &faults) {
			t.Errorf("%s: %v", name, err)
		}
	}
	text := strings.Replace(fmt.Sprintf(real, 1, public(1), public(2)), "buckets: [reports]", "buckets: [reports]\n  - name: gbr\n    range: {floor: U, ceiling: S}", 1) + "agreements: [pact.json]\n"
	if _, err := Read([]byte(text), func(string) ([]byte, error) { return signedPact(t).File(), nil }); err == nil {
		t.Error("a partner named as a node was taken: gbr.reports would be two things")
	}
	if _, err := Read([]byte(fmt.Sprintf(real, 1, public(1), public(2))+"agreements: [pact.json, pact.json]\n"), func(string) ([]byte, error) { return signedPact(t).File(), nil }); err == nil {
		t.Error("two agreements with one partner were taken")
	}
	second := func(name string) error {
		other := one(func(a *Agreement) {
			a.Name, a.Parties[1].Estate, a.Parties[1].Gateway.Key, a.Parties[1].People = name, "kent", public(45), nil
		})
		_, err := Read([]byte(fmt.Sprintf(real, 1, public(1), public(2))+"agreements: [pact.json, other.json]\n"), func(file string) ([]byte, error) {
			if file == "other.json" {
				return other, nil
			}
			return same, nil
		})
		return err
	}
	if err := second("north-kent"); err != nil {
		t.Fatal(err)
	}
	if err := second("north-gbr"); err == nil {
		t.Error("two agreements of one name were taken: who ends it ends one of them")
	}
	if _, err := Read([]byte(fmt.Sprintf(real, 1, public(1), public(2))+"agreements: [../pact.json]\n"), func(string) ([]byte, error) { return signedPact(t).File(), nil }); err == nil {
		t.Error("an agreement outside the estate's folder was taken")
	}
}

func FuzzAgreement(f *testing.F) {
	f.Add([]byte(`{"agreement":{},"signatures":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ReadAgreement(data)
		if err == nil && !bytes.Equal(s.File(), data) {
			t.Error("it has another form")
		}
	})
}
