package identity

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/label"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is a registry with its clock, its people's keys, and the store that an enclave would be.
type world struct {
	t      testing.TB
	r      *Registry
	o      Options
	now    time.Time
	keys   map[redoubt.SubjectName]ed25519.PrivateKey
	stored map[string]Record
	count  byte
}

func keyOf(name redoubt.SubjectName) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func public(k ed25519.PrivateKey) string {
	return base64.StdEncoding.EncodeToString(k.Public().(ed25519.PublicKey))
}

func somebody(name redoubt.SubjectName, clearance, nation string, roles ...redoubt.Role) redoubt.Person {
	return redoubt.Person{Name: name, Clearance: clearance, Nation: nation, Roles: roles,
		Expires: noon.Add(365 * 24 * time.Hour), PublicKey: public(keyOf(name))}
}

// newWorld is a node of the built-in estate; ceiling says which.
func newWorld(t testing.TB, ceiling string) *world {
	t.Helper()
	usa, err := label.Builtin("USA")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, now: noon, stored: map[string]Record{}}
	w.o = Options{
		Node: "node", Policy: usa, Floor: w.mark(usa, "UNCLASSIFIED"), Ceiling: w.mark(usa, ceiling),
		Secret: make([]byte, SecretBytes), Region: "redoubt", Clock: func() time.Time { return w.now },
		People: []redoubt.Person{
			somebody("ts-analyst", "TOP SECRET//SI/TK", "USA", redoubt.RoleAnalyst),
			somebody("s-analyst", "SECRET", "USA", redoubt.RoleAnalyst),
			somebody("gbr-liaison", "SECRET", "GBR", redoubt.RoleAnalyst),
			somebody("u-analyst", "UNCLASSIFIED", "USA", redoubt.RoleAnalyst),
			somebody("officer", "TOP SECRET//SI/TK", "USA", redoubt.RoleOfficer),
			somebody("officer-2", "TOP SECRET//SI/TK", "USA", redoubt.RoleOfficer),
			somebody("reviewer", "TOP SECRET//SI/TK", "USA", redoubt.RoleReviewer),
			somebody("admin", "UNCLASSIFIED", "USA", redoubt.RoleAdmin, redoubt.RoleStorage),
		},
	}
	w.open()
	return w
}

func (w *world) mark(p *label.Policy, marking string) label.Label {
	w.t.Helper()
	l, err := p.Parse(marking)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// open makes the registry anew and loads what was stored, in the map's random order.
func (w *world) open() {
	w.t.Helper()
	var err error
	if w.r, err = New(w.o); err != nil {
		w.t.Fatal(err)
	}
	for _, rec := range w.stored {
		if err := w.r.Load(rec); err != nil {
			w.t.Fatal(err)
		}
	}
}

// commit is what an enclave does with records.
func (w *world) commit(recs []Record) {
	for _, rec := range recs {
		if w.stored[rec.Kind+" "+rec.Name] = rec; rec.Value == nil {
			delete(w.stored, rec.Kind+" "+rec.Name)
		}
	}
	w.r.Apply(recs...)
}

func (w *world) request(name redoubt.SubjectName, marking string) redoubt.MintRequest {
	w.count++
	nonce := make([]byte, nonceBytes)
	nonce[0] = w.count
	req := redoubt.MintRequest{Subject: name, Node: "node", Label: marking, Issued: w.now,
		Nonce: base64.RawURLEncoding.EncodeToString(nonce)}
	return signed(req, keyOf(name))
}

func signed(req redoubt.MintRequest, key ed25519.PrivateKey) redoubt.MintRequest {
	req.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(key, redoubt.MintMessage(req)))
	return req
}

func (w *world) mint(name redoubt.SubjectName, marking string) (redoubt.Minted, redoubt.Credential) {
	w.t.Helper()
	m, who, recs, err := w.r.Mint(w.request(name, marking))
	if err != nil {
		w.t.Fatalf("minting for %s: %v", name, err)
	}
	w.commit(recs)
	return m, who
}

func wantKind(t testing.TB, err error, kind redoubt.Kind, rule string) {
	t.Helper()
	var e *redoubt.Error
	if !errors.As(err, &e) || e.Kind != kind || e.Rule != rule {
		t.Errorf("got %v, want %v with rule %q", err, kind, rule)
	}
}

func TestGenesisIsReadStrictly(t *testing.T) {
	w := newWorld(t, "SECRET")
	for name, spoil := range map[string]func(*Options){
		"no node":         func(o *Options) { o.Node = "" },
		"no policy":       func(o *Options) { o.Policy = nil },
		"no region":       func(o *Options) { o.Region = "" },
		"short secret":    func(o *Options) { o.Secret = o.Secret[1:] },
		"no floor":        func(o *Options) { o.Floor = label.Label{} },
		"crossed range":   func(o *Options) { o.Floor, o.Ceiling = o.Ceiling, o.Floor },
		"twice":           func(o *Options) { o.People[1] = o.People[0] },
		"one key for two": func(o *Options) { o.People[1].PublicKey = o.People[0].PublicKey },
		"no key":          func(o *Options) { o.People[1].PublicKey = "" },
		"short key":       func(o *Options) { o.People[1].PublicKey = "AAAA" },
		"no name":         func(o *Options) { o.People[1].Name = "" },
		"a dotted name":   func(o *Options) { o.People[1].Name = "node.node" },
		"everyone":        func(o *Options) { o.People[1].Name = Everyone },
		"no clearance":    func(o *Options) { o.People[1].Clearance = "" },
		"unknown nation":  func(o *Options) { o.People[1].Nation = "XXQ" },
		"no nation":       func(o *Options) { o.People[1].Nation = "" },
		"no expiry":       func(o *Options) { o.People[1].Expires = time.Time{} },
		"unknown role":    func(o *Options) { o.People[1].Roles = []redoubt.Role{"root"} },
		"role twice":      func(o *Options) { o.People[1].Roles = []redoubt.Role{"analyst", "analyst"} },
	} {
		o := w.o
		o.People = slices.Clone(w.o.People)
		spoil(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: got a registry, want an error", name)
		}
	}
}

func TestSubjectsResolveWithTheirGrantsAndWithoutAllocating(t *testing.T) {
	w := newWorld(t, "SECRET")
	for _, g := range []redoubt.Grant{
		{Subject: "s-analyst", Bucket: "reports"}, {Subject: Everyone, Bucket: "imagery", Deny: true}, {Subject: "u-analyst", Bucket: "reports"},
	} {
		_, recs, err := w.r.Grant(g)
		if err != nil {
			t.Fatal(err)
		}
		w.commit(recs)
	}
	for range 2 {
		s, ok := w.r.Subject("s-analyst")
		if !ok || s.Name != "s-analyst" || s.Nation != "USA" || !s.Has(redoubt.RoleAnalyst) || s.Expires.IsZero() || s.Clearance.IsZero() {
			t.Errorf("got %+v, %v", s, ok)
		}
		if len(s.Grants) != 2 {
			t.Errorf("got %d grants, want the own one and everyone's", len(s.Grants))
		}
		w.open()
	}
	if _, ok := w.r.Subject("nobody"); ok {
		t.Error("nobody was resolved")
	}
	_, who := w.mint("s-analyst", "")
	if n := testing.AllocsPerRun(100, func() { w.r.Subject("s-analyst"); w.r.Live(who) }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func TestRecordsAreOnlyWhatThisPackageWrites(t *testing.T) {
	w := newWorld(t, "SECRET")
	w.mint("s-analyst", "")
	_, recs, _ := w.r.Grant(redoubt.Grant{Subject: "s-analyst", Bucket: "reports"})
	w.commit(recs)
	w.change(w.personChange(somebody("new", "SECRET", "USA", redoubt.RoleAnalyst)), "officer", "officer-2")
	recs, _ = w.r.RevokePerson("officer", "u-analyst", "left")
	w.commit(recs)
	kinds := map[string]bool{}
	for _, rec := range w.stored {
		kinds[rec.Kind] = true
		for name, spoil := range map[string]func(*Record){
			"another kind":  func(r *Record) { r.Kind += "x" },
			"another name":  func(r *Record) { r.Name += "x" },
			"no value":      func(r *Record) { r.Value = nil },
			"null":          func(r *Record) { r.Value = []byte("null") },
			"trailing byte": func(r *Record) { r.Value = append(slices.Clone(r.Value), ' ') },
			"unknown field": func(r *Record) { r.Value = append([]byte(`{"x":1,`), r.Value[1:]...) },
			"too large":     func(r *Record) { r.Value = make([]byte, MaxRecordBytes+1) },
		} {
			bad := rec
			spoil(&bad)
			if err := w.r.Load(bad); !errors.Is(err, redoubt.Corrupt) {
				t.Errorf("%s, %s: got %v, want it refused", rec.Kind, name, err)
			}
		}
		if err := w.r.Load(rec); err != nil {
			t.Errorf("%s a second time: %v", rec.Kind, err)
		}
	}
	for _, n := range []int{MaxRecordBytes, MaxRecordBytes + 1} {
		rec := encode(KindRevocation, "grant/x", revocationRecord{Kind: "grant", Name: "x", At: noon})
		pad := n - len(rec.Value) - len(`"reason":"",`)
		rec = encode(KindRevocation, "grant/x", revocationRecord{Kind: "grant", Name: "x", At: noon, Reason: strings.Repeat("r", pad)})
		if err := w.r.Load(rec); len(rec.Value) != n || (err == nil) != (n == MaxRecordBytes) {
			t.Errorf("a record of %d bytes: got %v", len(rec.Value), err)
		}
	}
	for _, kind := range Kinds() {
		if !kinds[kind] {
			t.Errorf("no record of kind %s was tried", kind)
		}
	}
}

func FuzzLoad(f *testing.F) {
	w := newWorld(f, "SECRET")
	w.mint("s-analyst", "")
	_, recs, _ := w.r.Grant(redoubt.Grant{Subject: "s-analyst", Bucket: "reports", Actions: []redoubt.Action{"GetObject"}})
	w.commit(recs)
	w.change(w.personChange(somebody("new", "SECRET", "USA", redoubt.RoleAnalyst)), "officer", "officer-2")
	recs, _ = w.r.RevokePerson("officer", "u-analyst", "left")
	w.commit(recs)
	for _, rec := range w.stored {
		f.Add(rec.Kind, rec.Name, rec.Value)
	}
	f.Fuzz(func(t *testing.T, kind, name string, value []byte) {
		r, err := New(w.o)
		if err != nil {
			t.Fatal(err)
		}
		rec := Record{kind, name, value}
		if r.Load(rec) != nil {
			return
		}
		if err := r.Load(rec); err != nil {
			t.Fatalf("loaded once and not twice: %v", err)
		}
		// Whatever was loaded, nobody became an officer but by a record that says so.
		for _, p := range r.People() {
			if kind != KindPerson && slices.Contains(p.Roles, redoubt.RoleOfficer) && p.Name != "officer" && p.Name != "officer-2" {
				t.Fatalf("%s is an officer after a record of kind %s", p.Name, kind)
			}
		}
		r.Credentials(func(redoubt.Credential) bool { return true })
		r.Changes()
		r.Grants()
	})
}

func TestEverythingAtOnce(t *testing.T) {
	w := newWorld(t, "SECRET")
	w.o.Clock = func() time.Time { return noon }
	w.open()
	_, who := w.mint("s-analyst", "")
	done := make(chan error, 4)
	go func() {
		for i := range 200 {
			nonce := make([]byte, nonceBytes)
			nonce[0], nonce[1], nonce[2] = 255, byte(i), byte(i>>8)
			_, who, recs, err := w.r.Mint(signed(redoubt.MintRequest{Subject: "u-analyst", Node: "node", Issued: noon,
				Nonce: base64.RawURLEncoding.EncodeToString(nonce)}, keyOf("u-analyst")))
			if err != nil {
				done <- err
				return
			}
			w.r.Apply(recs...)
			if err := w.r.Live(who); err != nil {
				done <- err
				return
			}
			if recs, err = w.r.RevokeCredential("officer", who.ID); err == nil {
				w.r.Apply(recs...)
				err = nil
			}
			if !errors.Is(w.r.Live(who), redoubt.Unauthenticated) {
				done <- fmt.Errorf("live after its revocation")
				return
			}
		}
		done <- nil
	}()
	go func() {
		for range 200 {
			g, recs, err := w.r.Grant(redoubt.Grant{Subject: Everyone, Bucket: "reports"})
			if err == nil {
				w.r.Apply(recs...)
				recs, err = w.r.RevokeGrant("officer", g.ID)
			}
			if err != nil {
				done <- err
				return
			}
			w.r.Apply(recs...)
		}
		done <- nil
	}()
	for range 2 {
		go func() {
			for range 2000 {
				w.r.Subject("s-analyst")
				if err := w.r.Live(who); err != nil {
					done <- err
					return
				}
				if _, _, err := w.r.SigningKey(who.ID, redoubt.Scope{Date: "20260301", Region: "redoubt", Service: "s3"}); err != nil {
					done <- err
					return
				}
			}
			w.r.Credentials(func(redoubt.Credential) bool { return true })
			w.r.People()
			done <- nil
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkResolve(b *testing.B) {
	w := newWorld(b, "SECRET")
	_, who := w.mint("s-analyst", "")
	b.Run("Subject", func(b *testing.B) {
		for b.Loop() {
			w.r.Subject("s-analyst")
		}
	})
	b.Run("Live", func(b *testing.B) {
		for b.Loop() {
			w.r.Live(who)
		}
	})
	b.Run("SigningKey", func(b *testing.B) {
		s := redoubt.Scope{Date: "20260301", Region: "redoubt", Service: "s3"}
		for b.Loop() {
			w.r.SigningKey(who.ID, s)
		}
	})
	b.Run("SigningKey of nobody", func(b *testing.B) {
		s := redoubt.Scope{Date: "20260301", Region: "redoubt", Service: "s3"}
		for b.Loop() {
			w.r.SigningKey("RDAAAAAAAAAAAAAAAAAA", s)
		}
	})
}
