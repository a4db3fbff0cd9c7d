package estate

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"redoubt"
	"redoubt/keys"
	"redoubt/label"
)

// An agreement joins this estate to another one, which is a partner: docs/spec/agreement.md. It proves itself: two officers of each have signed
// it, by keys that stand in it.

// Limits of an agreement.
const (
	MaxAgreementBytes   = 1 << 20 // 1,000 people at 300 bytes, with two equivalences
	MaxAgreements       = 64      // of one estate: one a partner
	MaxAgreementLife    = 10 * 366 * 24 * time.Hour
	MaxAgreementPeople  = 1000 // of one party
	MaxAgreementBuckets = 256  // of one party
	MaxPartyOfficers    = 16   // who may sign for one party
)

const agreementFormat = "redoubt-agreement-1"

// reservedEstates are names before a dot that subjects of every node have already.
var reservedEstates = []string{"node", "link", "guard", "redoubt"}

// Agreement is what two estates agree on.
type Agreement struct {
	Format    string    `json:"format"`
	Name      string    `json:"name"`
	Serial    int64     `json:"serial"` // rises with each issue: one that was ended never comes back
	NotBefore time.Time `json:"not_before"`
	Expires   time.Time `json:"expires"`
	Parties   []Party   `json:"parties"` // two, in the order of their estates' names
}

// Party is one of the two.
type Party struct {
	Estate   string       `json:"estate"`
	Policy   string       `json:"policy"` // NAME@VERSION
	Nation   string       `json:"nation"`
	Gateway  Gateway      `json:"gateway"`
	Officers []Officer    `json:"officers"`
	Gives    *Gives       `json:"gives,omitempty"`  // to the other; nil: nothing
	People   []Recognised `json:"people,omitempty"` // of this party: who they are to the other
}

// Gateway is the one enclave of a party that speaks with the other's.
type Gateway struct {
	Node      redoubt.NodeName `json:"node"`
	Key       string           `json:"key"`       // Ed25519, base64: it signs by it, and comes to the other by it
	Recipient string           `json:"recipient"` // what bundles for it are sealed to
	CA        string           `json:"ca"`        // its authority's certificate, PEM
	API       string           `json:"api_url"`
}

// Officer is who may sign for a party.
type Officer struct {
	Name redoubt.SubjectName `json:"name"`
	Key  string              `json:"key"`
}

// Gives is what a party lets the other have.
type Gives struct {
	Bound       string               `json:"bound"` // banner of the party's own policy: nothing that it does not dominate goes
	Buckets     []redoubt.BucketName `json:"buckets"`
	Equivalence *Equivalence         `json:"equivalence,omitempty"` // of the party's labels to the other's; nil: both have one policy
}

// Equivalence says what the labels of the giver's policy are in the taker's, as docs/spec/label.md tells. Policies and time are the agreement's.
type Equivalence struct {
	Classifications map[string]string   `json:"classifications"`
	Categories      map[string][]string `json:"categories"`
	Marks           map[string][]string `json:"marks"`
	Audience        map[string][]string `json:"audience"`
}

// Recognised is one of a party's people as the other party knows her: ESTATE.NAME.
type Recognised struct {
	Name      string    `json:"name"`
	Key       string    `json:"key"`
	Clearance string    `json:"clearance"` // marking of the other party's policy
	Nation    string    `json:"nation"`
	Expires   time.Time `json:"expires"`
}

// PartySignature is one officer's signature over Agreement.Message, in base64.
type PartySignature struct {
	Estate string              `json:"estate"`
	Signer redoubt.SubjectName `json:"signer"`
	Sig    string              `json:"sig"`
}

// SignedAgreement is an agreement with its signatures, as its file holds them.
type SignedAgreement struct {
	Agreement  Agreement        `json:"agreement"`
	Signatures []PartySignature `json:"signatures"`

	policies [2]*label.Policy
	bounds   [2]label.Label // of what each gives; the zero label: nothing
}

// Message is what officers sign: a domain line and the agreement as one line of JSON.
func (a *Agreement) Message() []byte {
	b, err := json.Marshal(a)
	if err != nil {
		panic(fmt.Sprintf("estate: plain fields do not encode: %v", err))
	}
	return append([]byte("redoubt agreement v1\n"), b...)
}

// Digest is the SHA-256 of Message, hex.
func (a *Agreement) Digest() string {
	sum := sha256.Sum256(a.Message())
	return hex.EncodeToString(sum[:])
}

// File is the agreement's one form as a file.
func (s *SignedAgreement) File() []byte {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("estate: plain fields do not encode: %v", err))
	}
	return append(b, '\n')
}

// ReadAgreement reads an agreement's file. It is strict: there is one file for an agreement and its signatures, byte for byte. known are policies beside
// the built-in ones. Whether it is signed as it must be VerifyAgreement says.
func ReadAgreement(data []byte, known ...*label.Policy) (*SignedAgreement, error) {
	s, err := readAgreement(data, known)
	if err != nil {
		return nil, &redoubt.Error{Op: "estate.ReadAgreement", Kind: redoubt.Invalid, Err: err, Hint: "redoubt agreement propose writes one"}
	}
	return s, nil
}

func readAgreement(data []byte, known []*label.Policy) (*SignedAgreement, error) {
	if len(data) > MaxAgreementBytes {
		return nil, fmt.Errorf("at most %d bytes are read", MaxAgreementBytes)
	}
	s := &SignedAgreement{}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return nil, err
	}
	if !bytes.Equal(s.File(), data) { // a key twice or in other capitals, another order, something behind the document
		return nil, errors.New("is not in the one form that an agreement has: something was added, moved or laid out anew")
	}
	return s, s.check(known)
}

// check holds it against what can be known without either estate.
func (s *SignedAgreement) check(known []*label.Policy) error {
	a := &s.Agreement
	switch {
	case a.Format != agreementFormat:
		return fmt.Errorf("has the format %s; this reads %q", printable(a.Format), agreementFormat)
	case !validName(a.Name):
		return errors.New("has no name of a-z, 0-9 and -")
	case a.Serial < 1:
		return errors.New("a serial begins at 1")
	case len(a.Parties) != 2:
		return errors.New("has two parties")
	case !plainTime(a.NotBefore) || !plainTime(a.Expires):
		return errors.New("times are written in UTC and whole seconds")
	case !a.NotBefore.Before(a.Expires) || a.Expires.Sub(a.NotBefore) > MaxAgreementLife:
		return errors.New("runs from not_before to expires, ten years at most")
	case a.Parties[0].Estate >= a.Parties[1].Estate:
		return errors.New("the two parties stand in the order of their estates' names, which differ")
	case len(s.Signatures) > 2*MaxPartyOfficers:
		return errors.New("has too many signatures")
	}
	held := map[string]bool{} // every key in it is of one holder
	for i := range a.Parties {
		p, err := policyNamed(a.Parties[i].Policy, known)
		if err == nil {
			s.policies[i] = p
			err = a.Parties[i].check(p, held)
		}
		if err != nil {
			return fmt.Errorf("party %s: %w", printable(a.Parties[i].Estate), err)
		}
	}
	for i := range a.Parties {
		if err := s.checkBetween(i); err != nil {
			return fmt.Errorf("party %s: %w", printable(a.Parties[i].Estate), err)
		}
	}
	return nil
}

// plainTime says whether a time is written in the one way that an agreement has.
func plainTime(t time.Time) bool {
	_, offset := t.Zone()
	return offset == 0 && t.Nanosecond() == 0
}

func policyNamed(ref string, known []*label.Policy) (*label.Policy, error) {
	for _, name := range label.BuiltinNames() {
		if p, err := label.Builtin(name); err == nil {
			known = append(slices.Clip(known), p)
		}
	}
	for _, p := range known {
		if p != nil && PolicyName(p) == ref {
			return p, nil
		}
	}
	return nil, fmt.Errorf("the policy %s is not known here", printable(ref))
}

// PolicyName is NAME@VERSION.
func PolicyName(p *label.Policy) string {
	text, err := p.Lowest().MarshalText()
	if err != nil {
		return ""
	}
	ref, _, _ := strings.Cut(string(text), " ")
	return ref
}

func (p *Party) check(policy *label.Policy, held map[string]bool) error {
	if !validName(p.Estate) || slices.Contains(reservedEstates, p.Estate) {
		return errors.New("its estate has a name that it cannot be known by")
	}
	if !validName(string(p.Gateway.Node)) || len(redoubt.PartnerName(p.Estate, p.Gateway.Node)) > MaxNameLength {
		return fmt.Errorf("ESTATE--NODE of its gateway has at most %d bytes", MaxNameLength)
	}
	if _, err := policy.Clearance(policy.Lowest().Banner(), p.Nation); err != nil {
		return err
	}
	key := func(text, whose string) error {
		b, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil || len(b) != ed25519.PublicKeySize {
			return fmt.Errorf("the key of %s is not an Ed25519 key in base64", whose)
		}
		if held[text] {
			return fmt.Errorf("the key of %s is another's too", whose)
		}
		held[text] = true
		return nil
	}
	if err := key(p.Gateway.Key, "its gateway"); err != nil {
		return err
	}
	if _, err := keys.ParseRecipient(p.Gateway.Recipient); err != nil {
		return fmt.Errorf("its gateway's recipient: %w", err)
	}
	block, rest := pem.Decode([]byte(p.Gateway.CA))
	if block == nil || len(rest) > 0 || block.Type != "CERTIFICATE" {
		return errors.New("its gateway's ca is not one certificate in PEM")
	}
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		return fmt.Errorf("its gateway's ca: %w", err)
	}
	if u, err := url.Parse(p.Gateway.API); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" {
		return errors.New("its gateway's api_url is not https://HOST:PORT")
	}
	if len(p.Officers) < minOfficers || len(p.Officers) > MaxPartyOfficers || len(p.People) > MaxAgreementPeople {
		return fmt.Errorf("names %d to %d officers and at most %d people", minOfficers, MaxPartyOfficers, MaxAgreementPeople)
	}
	names := map[string]bool{}
	for _, o := range p.Officers {
		if !validName(string(o.Name)) || names[string(o.Name)] {
			return errors.New("an officer has no good name, or another's")
		}
		names[string(o.Name)] = true
		if err := key(o.Key, string(o.Name)); err != nil {
			return err
		}
	}
	clear(names)
	for _, r := range p.People {
		if !validName(r.Name) || names[r.Name] {
			return errors.New("a person has no good name, or another's")
		}
		names[r.Name] = true
		if err := key(r.Key, r.Name); err != nil {
			return err
		}
	}
	return nil
}

// checkBetween looks at what party i gives to the other, and at its people by the other's policy.
func (s *SignedAgreement) checkBetween(i int) error {
	p, other := &s.Agreement.Parties[i], &s.Agreement.Parties[1-i]
	own, theirs := s.policies[i], s.policies[1-i]
	for _, r := range p.People {
		if _, err := theirs.Clearance(r.Clearance, r.Nation); err != nil {
			return fmt.Errorf("%s: %w", r.Name, err)
		}
		if r.Expires.IsZero() || !plainTime(r.Expires) {
			return fmt.Errorf("%s: a clearance has an expiry, in UTC and whole seconds", r.Name)
		}
	}
	if p.Gives == nil {
		return nil
	}
	bound, err := own.Parse(p.Gives.Bound)
	if err != nil {
		return fmt.Errorf("gives.bound: %w", err)
	}
	if bound.Banner() != p.Gives.Bound {
		return fmt.Errorf("gives.bound is written %q", bound.Banner())
	}
	reader, err := own.Clearance(p.Gives.Bound, other.Nation)
	if err != nil || !reader.Dominates(bound) { // else the partner would be handed what is not releasable to it
		return errors.Join(err, fmt.Errorf("gives.bound %s is not releasable to %s", p.Gives.Bound, printable(other.Nation)))
	}
	if len(p.Gives.Buckets) < 1 || len(p.Gives.Buckets) > MaxAgreementBuckets {
		return fmt.Errorf("gives 1 to %d buckets", MaxAgreementBuckets)
	}
	for n, b := range p.Gives.Buckets {
		switch {
		case !validBucket(string(b)):
			return fmt.Errorf("%s is not a bucket of its own: what others brought goes to nobody else", printable(string(b)))
		case slices.Contains(p.Gives.Buckets[:n], b):
			return fmt.Errorf("the bucket %s stands twice", b)
		case len(TakenName(p.Estate, b)) > MaxNameLength:
			return fmt.Errorf("%s has more than %d bytes", TakenName(p.Estate, b), MaxNameLength)
		}
	}
	s.bounds[i] = bound
	convert, err := s.conversion(i, func() time.Time { return s.Agreement.NotBefore })
	if err != nil {
		return err
	}
	if _, err := convert(bound); err != nil {
		return fmt.Errorf("gives.bound: %w", err)
	}
	return nil
}

func validBucket(s string) bool { return len(s) >= 3 && validName(s) }

// conversion is how labels of party i become the other's.
func (s *SignedAgreement) conversion(i int, now func() time.Time) (func(label.Label) (label.Label, error), error) {
	from, to, g := s.policies[i], s.policies[1-i], s.Agreement.Parties[i].Gives
	if from == to || PolicyName(from) == PolicyName(to) {
		if g.Equivalence != nil {
			return nil, errors.New("both parties have one policy: an equivalence has no place")
		}
		return func(l label.Label) (label.Label, error) { return l, nil }, nil
	}
	if g.Equivalence == nil {
		return nil, errors.New("the parties' policies differ, and gives has no equivalence")
	}
	for code, becomes := range g.Equivalence.Audience {
		if len(code) == 3 && !slices.Equal(becomes, []string{code}) { // else an agreement would turn a reader into another
			return nil, fmt.Errorf("in equivalence.audience the nation %s stays itself alone", printable(code))
		}
	}
	doc, err := json.Marshal(map[string]any{"format": "redoubt-equivalence-1", "from": PolicyName(from), "to": PolicyName(to),
		"notBefore": s.Agreement.NotBefore.Format(time.RFC3339), "expires": s.Agreement.Expires.Format(time.RFC3339),
		"classifications": g.Equivalence.Classifications, "categories": g.Equivalence.Categories, "marks": g.Equivalence.Marks, "audience": g.Equivalence.Audience})
	if err != nil {
		return nil, err
	}
	e, err := label.ReadEquivalence(bytes.NewReader(doc), now, from, to)
	if err != nil {
		return nil, err
	}
	return e.Convert, nil
}

// Conversion is how the agreement turns labels of one party's policy into the other's. Denied: it does not. Whether it is signed Verify says.
func (s *SignedAgreement) Conversion(from, to *label.Policy, now func() time.Time) (func(label.Label) (label.Label, error), error) {
	for i := range s.Agreement.Parties {
		if g := s.Agreement.Parties[i].Gives; g != nil && s.policies[i] == from && s.policies[1-i] == to {
			return s.conversion(i, now)
		}
	}
	return nil, &redoubt.Error{Op: "estate.Conversion", Object: s.Agreement.Name, Kind: redoubt.Denied, Rule: "agreement", Err: errors.New("it gives nothing from " + PolicyName(from) + " to " + PolicyName(to))}
}

// TakenName is what a bucket of a partner's is called here.
func TakenName(partner string, b redoubt.BucketName) redoubt.BucketName {
	return redoubt.BucketName(partner) + "." + b
}

// Verify says whether two different officers of each party have signed: nil, or Denied. A signature that does not verify, is of nobody whom the
// agreement names, or stands twice spoils it.
func (s *SignedAgreement) Verify() error {
	fail := func(why string) error {
		return &redoubt.Error{Op: "estate.VerifyAgreement", Object: s.Agreement.Name, Kind: redoubt.Denied, Rule: "two-officers (4.2)", Err: errors.New(why),
			Hint: "two officers of each estate run: redoubt agreement sign FILE --estate ESTATE --as OFFICER"}
	}
	message := s.Agreement.Message()
	signed := map[string]int{}
	seen := map[[2]string]bool{}
	for _, g := range s.Signatures {
		who := [2]string{g.Estate, string(g.Signer)}
		o, ok := s.officer(g.Estate, g.Signer)
		key, err := base64.StdEncoding.DecodeString(o.Key)
		sig, err2 := base64.StdEncoding.Strict().DecodeString(g.Sig)
		switch {
		case !ok || seen[who]:
			return fail(fmt.Sprintf("%s of %s may not sign it, or has twice", g.Signer, printable(g.Estate)))
		case err != nil || err2 != nil || len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, message, sig):
			return fail(fmt.Sprintf("the signature of %s of %s does not verify: the agreement was changed after it, or it is another's", g.Signer, printable(g.Estate)))
		}
		seen[who] = true
		signed[g.Estate]++
	}
	for _, p := range s.Agreement.Parties {
		if signed[p.Estate] < minOfficers {
			return fail(fmt.Sprintf("%d of the %d officers of %s that are needed have signed", signed[p.Estate], minOfficers, p.Estate))
		}
	}
	return nil
}

func (s *SignedAgreement) officer(estate string, name redoubt.SubjectName) (Officer, bool) {
	for _, p := range s.Agreement.Parties {
		if i := slices.IndexFunc(p.Officers, func(o Officer) bool { return o.Name == name }); p.Estate == estate && i >= 0 {
			return p.Officers[i], true
		}
	}
	return Officer{}, false
}

// Sign adds an officer's signature. Denied: the agreement does not name her, or another key.
func (s *SignedAgreement) Sign(estate string, officer redoubt.SubjectName, key ed25519.PrivateKey) error {
	o, ok := s.officer(estate, officer)
	if !ok || len(key) != ed25519.PrivateKeySize || o.Key != base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey)) {
		return &redoubt.Error{Op: "estate.SignAgreement", Object: string(officer), Kind: redoubt.Denied, Err: errors.New("the agreement names no such officer of that estate, or another key"),
			Hint: "redoubt agreement show FILE lists who may sign"}
	}
	s.Signatures = slices.DeleteFunc(s.Signatures, func(g PartySignature) bool { return g.Estate == estate && g.Signer == officer })
	s.Signatures = append(s.Signatures, PartySignature{Estate: estate, Signer: officer, Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(key, s.Agreement.Message()))})
	slices.SortFunc(s.Signatures, func(a, b PartySignature) int {
		return strings.Compare(a.Estate+"\x00"+string(a.Signer), b.Estate+"\x00"+string(b.Signer))
	})
	return nil
}

// NewAgreement makes one that nobody has signed, in its one form: parties in their order, times in UTC and whole seconds.
func NewAgreement(a Agreement, known ...*label.Policy) (*SignedAgreement, error) {
	a.Format = agreementFormat
	a.NotBefore, a.Expires = a.NotBefore.UTC().Truncate(time.Second), a.Expires.UTC().Truncate(time.Second)
	slices.SortFunc(a.Parties, func(x, y Party) int { return strings.Compare(x.Estate, y.Estate) })
	return ReadAgreement((&SignedAgreement{Agreement: a, Signatures: []PartySignature{}}).File(), known...)
}
