package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/api"
	"redoubt/identity"
	"redoubt/label"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// node is what stands behind the interfaces: a real registry of people, and services that repeat what they are told.
type node struct {
	redoubt.PeopleService
	r       *identity.Registry
	fail    error
	late    error
	said    []any
	refused int
}

func seed(name string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte((name + strings.Repeat(".", 32))[:32]))
}

func newNode(t *testing.T) *node {
	t.Helper()
	usa, err := label.Builtin("USA")
	if err != nil {
		t.Fatal(err)
	}
	floor, _ := usa.Parse("UNCLASSIFIED")
	ceiling, _ := usa.Parse("SECRET")
	key := seed("ada").Public().(ed25519.PublicKey)
	r, err := identity.New(identity.Options{Node: "secret", Policy: usa, Floor: floor, Ceiling: ceiling, Secret: make([]byte, 32), Region: "redoubt",
		People: []redoubt.Person{{Name: "ada", Clearance: "SECRET", Nation: "USA", Roles: []redoubt.Role{"analyst"}, Expires: time.Now().Add(time.Hour), PublicKey: b64(key)}}})
	if err != nil {
		t.Fatal(err)
	}
	return &node{r: r}
}

// serve gives a client as ada, over TLS.
func (n *node) serve(t *testing.T) *Client {
	t.Helper()
	srv := httptest.NewTLSServer(api.New(api.Options{Auth: n, Credentials: n, People: n, Grants: n, Audit: n, Keys: n, Maintenance: n}))
	t.Cleanup(srv.Close)
	c, err := New(srv.URL, roots(srv), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	m, err := c.Mint(t.Context(), seed("ada"), "ada", "secret", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	return c.With(m.Token)
}

func roots(srv *httptest.Server) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	return pool
}

func (n *node) say(v ...any) error { n.said = v; return n.fail }

func (n *node) SigningKey(_ context.Context, id string, s redoubt.Scope) ([32]byte, redoubt.Credential, error) {
	return n.r.SigningKey(id, s)
}
func (n *node) Bearer(_ context.Context, token string) (redoubt.Credential, error) {
	return n.r.Bearer(token)
}
func (n *node) Refused(context.Context, string, string) { n.refused++ }
func (n *node) MintCredential(_ context.Context, req redoubt.MintRequest) (redoubt.Minted, error) {
	m, _, recs, err := n.r.Mint(req)
	n.r.Apply(recs...)
	return m, err
}
func (n *node) RevokeCredential(_ context.Context, _ redoubt.Credential, id string) error {
	return n.say("revoke", id)
}
func (n *node) Credentials(context.Context, redoubt.Credential) ([]redoubt.CredentialRecord, error) {
	return []redoubt.CredentialRecord{{ID: "RD", Label: "SECRET", Issued: noon}}, n.say("credentials")
}
func (n *node) People(context.Context, redoubt.Credential) ([]redoubt.Person, error) {
	return []redoubt.Person{{Name: "ada", Expires: noon}}, n.say("people")
}
func (n *node) ProposeChange(_ context.Context, _ redoubt.Credential, c redoubt.Change) (redoubt.Change, error) {
	return c, n.say("propose", c)
}
func (n *node) ApproveChange(_ context.Context, _ redoubt.Credential, id string, sig redoubt.Signature) (redoubt.Change, error) {
	return redoubt.Change{ID: id, State: "pending"}, n.say("approve", id, sig)
}
func (n *node) Changes(context.Context, redoubt.Credential) ([]redoubt.Change, error) {
	return []redoubt.Change{{ID: "I", Made: noon}}, n.say("changes")
}
func (n *node) RevokePerson(_ context.Context, _ redoubt.Credential, name redoubt.SubjectName, reason string) error {
	return n.say("revoke person", name, reason)
}
func (n *node) Grant(_ context.Context, _ redoubt.Credential, g redoubt.Grant) (redoubt.Grant, error) {
	err := n.say("grant", g)
	g.ID = "G"
	return g, err
}
func (n *node) Grants(context.Context, redoubt.Credential) ([]redoubt.Grant, error) {
	return []redoubt.Grant{{ID: "G", Subject: "ada", Bucket: "b"}}, n.say("grants")
}
func (n *node) RevokeGrant(_ context.Context, _ redoubt.Credential, id string) error {
	return n.say("revoke grant", id)
}
func (n *node) SearchAudit(_ context.Context, _ redoubt.Credential, q redoubt.AuditQuery, each func(redoubt.AuditRecord) error) error {
	if err := n.say("search", q); err != nil {
		return err
	}
	for i := range uint64(3) {
		if err := each(redoubt.AuditRecord{Number: i, Time: noon}); err != nil {
			return err
		}
	}
	return n.late
}
func (n *node) VerifyAudit(_ context.Context, _ redoubt.Credential, trusted []string) (redoubt.AuditReport, error) {
	return redoubt.AuditReport{OK: true, Entries: 7, Faults: []string{}}, n.say("verify", trusted)
}
func (n *node) ExportAudit(_ context.Context, _ redoubt.Credential, format string, q redoubt.AuditQuery, w io.Writer) error {
	if err := n.say("export", format, q); err != nil {
		return err
	}
	_, _ = io.WriteString(w, "records\n")
	return n.late
}
func (n *node) Why(_ context.Context, _ redoubt.Credential, request string) ([]redoubt.AuditRecord, error) {
	return []redoubt.AuditRecord{{Number: 5, Time: noon}}, n.say("why", request)
}
func (n *node) Keys(context.Context, redoubt.Credential) ([]redoubt.KeyStatus, error) {
	return []redoubt.KeyStatus{{Label: "SECRET", Epoch: 2, Epochs: []uint32{2}}}, n.say("keys")
}
func (n *node) RotateKey(_ context.Context, _ redoubt.Credential, marking string) (redoubt.KeyStatus, error) {
	return redoubt.KeyStatus{Label: marking, Epoch: 3}, n.say("rotate", marking)
}
func (n *node) EraseVersion(_ context.Context, _ redoubt.Credential, name redoubt.ObjectName, id redoubt.VersionID, reason string) error {
	return n.say("erase", name, id, reason)
}
func (n *node) Check(_ context.Context, _ redoubt.Credential, progress func(done, total int64)) (redoubt.CheckReport, error) {
	if err := n.say("check"); err != nil {
		return redoubt.CheckReport{}, err
	}
	progress(3, 9)
	return redoubt.CheckReport{OK: true, Versions: 9, Faults: []string{}}, n.late
}
func (n *node) Backup(_ context.Context, _ redoubt.Credential, recipient string, w io.Writer) error {
	if err := n.say("backup", recipient); err != nil {
		return err
	}
	_, _ = w.Write(bytes.Repeat([]byte("x"), 1<<20))
	return n.late
}
func (n *node) Compact(context.Context, redoubt.Credential) error { return n.say("compact") }
func (n *node) Usage(context.Context, redoubt.Credential) ([]redoubt.LabelUsage, error) {
	return []redoubt.LabelUsage{{Label: "SECRET", Bytes: 5}}, n.say("usage")
}
func (n *node) NodeInfo(context.Context) redoubt.NodeInfo {
	return redoubt.NodeInfo{Name: "secret", FIPS: true}
}

// methods are all calls of a Client, with what the node then hears and what comes back.
func methods(ctx context.Context, c *Client) map[string]struct {
	call func() (any, error)
	said []any
	want any
} {
	query := redoubt.AuditQuery{Subject: "ada", Since: noon, Object: redoubt.ObjectName{Bucket: "b", Key: "k"}, Max: 3, Outcome: "deny"}
	change := redoubt.Change{Kind: redoubt.ChangePerson, Person: &redoubt.Person{Name: "bob", Expires: noon}, Made: noon, Expires: noon.Add(time.Hour)}
	change.Signatures = []redoubt.Signature{SignChange(change, "ada", seed("ada"))}
	grant := redoubt.Grant{Subject: "bob", Bucket: "b", Prefix: "p/", Deny: true, Expires: noon}
	made := grant
	made.ID = "G"
	none := func(err error) (any, error) { return nil, err }
	return map[string]struct {
		call func() (any, error)
		said []any
		want any
	}{
		"Node":             {func() (any, error) { return c.Node(ctx) }, nil, redoubt.NodeInfo{Name: "secret", FIPS: true}},
		"Credentials":      {func() (any, error) { return c.Credentials(ctx) }, []any{"credentials"}, []redoubt.CredentialRecord{{ID: "RD", Label: "SECRET", Issued: noon}}},
		"RevokeCredential": {func() (any, error) { return none(c.RevokeCredential(ctx, "RD/X")) }, []any{"revoke", "RD/X"}, nil},
		"People":           {func() (any, error) { return c.People(ctx) }, []any{"people"}, []redoubt.Person{{Name: "ada", Expires: noon}}},
		"RevokePerson":     {func() (any, error) { return none(c.RevokePerson(ctx, "bob", "left")) }, []any{"revoke person", redoubt.SubjectName("bob"), "left"}, nil},
		"Changes":          {func() (any, error) { return c.Changes(ctx) }, []any{"changes"}, []redoubt.Change{{ID: "I", Made: noon}}},
		"ProposeChange":    {func() (any, error) { return c.ProposeChange(ctx, change) }, []any{"propose", change}, change},
		"ApproveChange": {func() (any, error) { return c.ApproveChange(ctx, "ID", change.Signatures[0]) },
			[]any{"approve", "ID", change.Signatures[0]}, redoubt.Change{ID: "ID", State: "pending"}},
		"Grants":      {func() (any, error) { return c.Grants(ctx) }, []any{"grants"}, []redoubt.Grant{{ID: "G", Subject: "ada", Bucket: "b"}}},
		"Grant":       {func() (any, error) { return c.Grant(ctx, grant) }, []any{"grant", grant}, made},
		"RevokeGrant": {func() (any, error) { return none(c.RevokeGrant(ctx, "G")) }, []any{"revoke grant", "G"}, nil},
		"SearchAudit": {func() (any, error) {
			var all []uint64
			err := c.SearchAudit(ctx, query, func(r redoubt.AuditRecord) error { all = append(all, r.Number); return nil })
			return all, err
		}, []any{"search", query}, []uint64{0, 1, 2}},
		"VerifyAudit": {func() (any, error) { return c.VerifyAudit(ctx, []string{"a"}) }, []any{"verify", []string{"a"}}, redoubt.AuditReport{OK: true, Entries: 7, Faults: []string{}}},
		"ExportAudit": {func() (any, error) {
			var b bytes.Buffer
			err := c.ExportAudit(ctx, "cef", query, &b)
			return b.String(), err
		}, []any{"export", "cef", query}, "records\n"},
		"Why":          {func() (any, error) { return c.Why(ctx, "REQ") }, []any{"why", "REQ"}, []redoubt.AuditRecord{{Number: 5, Time: noon}}},
		"Keys":         {func() (any, error) { return c.Keys(ctx) }, []any{"keys"}, []redoubt.KeyStatus{{Label: "SECRET", Epoch: 2, Epochs: []uint32{2}}}},
		"RotateKey":    {func() (any, error) { return c.RotateKey(ctx, "SECRET") }, []any{"rotate", "SECRET"}, redoubt.KeyStatus{Label: "SECRET", Epoch: 3}},
		"EraseVersion": {func() (any, error) { return none(c.EraseVersion(ctx, query.Object, "V", "spill")) }, []any{"erase", query.Object, redoubt.VersionID("V"), "spill"}, nil},
		"Check": {func() (any, error) {
			var at []int64
			report, err := c.Check(ctx, func(done, total int64) { at = append(at, done, total) })
			return []any{at, report}, err
		}, []any{"check"}, []any{[]int64{3, 9}, redoubt.CheckReport{OK: true, Versions: 9, Faults: []string{}}}},
		"Backup": {func() (any, error) {
			var b bytes.Buffer
			err := c.Backup(ctx, "R", &b)
			return b.Len(), err
		}, []any{"backup", "R"}, 1 << 20},
		"Compact": {func() (any, error) { return none(c.Compact(ctx)) }, []any{"compact"}, nil},
		"Usage":   {func() (any, error) { return c.Usage(ctx) }, []any{"usage"}, []redoubt.LabelUsage{{Label: "SECRET", Bytes: 5}}},
	}
}

func TestEveryMethodSaysAndHearsWhatTheNodeDoes(t *testing.T) {
	n := newNode(t)
	c := n.serve(t)
	for name, m := range methods(t.Context(), c) {
		n.said = nil
		got, err := m.call()
		if err != nil || !reflect.DeepEqual(got, m.want) {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, m.want)
		}
		if !reflect.DeepEqual(n.said, m.said) {
			t.Errorf("%s: the node heard %+v, want %+v", name, n.said, m.said)
		}
	}
	if err := c.Ready(t.Context()); err != nil {
		t.Errorf("Ready: %v", err)
	}
}

func TestErrorsKeepKindRuleAndHint(t *testing.T) {
	n := newNode(t)
	c := n.serve(t)
	for _, kind := range redoubt.Kinds() {
		n.fail = &redoubt.Error{Kind: kind, Rule: "a-rule", Hint: "a hint"}
		for name, m := range methods(t.Context(), c) {
			if name == "Node" {
				continue
			}
			_, err := m.call()
			var e *redoubt.Error
			if !errors.Is(err, kind) || !errors.As(err, &e) {
				t.Errorf("%s, %v: got %v", name, kind, err)
				continue
			}
			if silent := kind == redoubt.NotFound || kind == redoubt.Internal || kind == redoubt.NotModified; !silent && (e.Rule != "a-rule" || e.Hint != "a hint" || !strings.Contains(err.Error(), "request ")) {
				t.Errorf("%s, %v: got %#v", name, kind, e)
			}
		}
	}
}

func TestWhatIsCutOffIsAnError(t *testing.T) {
	n := newNode(t)
	c := n.serve(t)
	n.late = &redoubt.Error{Kind: redoubt.DiskFull}
	for name, want := range map[string]redoubt.Kind{"SearchAudit": redoubt.DiskFull, "Check": redoubt.DiskFull, "ExportAudit": redoubt.Unavailable, "Backup": redoubt.Unavailable} {
		if _, err := methods(t.Context(), c)[name].call(); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
	}
	for _, body := range []string{"", `{"record":{}}` + "\n", "{\n", `{"error":1}`} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, body) }))
		c, err := New(srv.URL, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SearchAudit(t.Context(), redoubt.AuditQuery{}, func(redoubt.AuditRecord) error { return nil }); !errors.Is(err, redoubt.Unavailable) {
			t.Errorf("%q: got %v", body, err)
		}
		srv.Close()
		if err := c.Compact(t.Context()); !errors.Is(err, redoubt.Unavailable) {
			t.Errorf("a node that is gone: got %v", err)
		}
	}
}

func TestMintSignsHere(t *testing.T) {
	n := newNode(t)
	c := n.serve(t)
	m, err := c.Mint(t.Context(), seed("ada"), "ada", "secret", "UNCLASSIFIED", 5*time.Minute)
	if err != nil || m.Label != "UNCLASSIFIED" || time.Until(m.Expires) > 5*time.Minute {
		t.Errorf("got %+v, %v", m, err)
	}
	if _, err := c.With(m.Token).Credentials(t.Context()); err != nil {
		t.Errorf("as minted: %v", err)
	}
	_, err = c.Mint(t.Context(), seed("eve"), "ada", "secret", "", 0)
	if !errors.Is(err, redoubt.Unauthenticated) || n.refused == 0 {
		t.Errorf("with another key: got %v", err)
	}
	_, err = c.Mint(t.Context(), seed("ada"), "ada", "secret", "TOP SECRET", 0)
	var e *redoubt.Error
	if !errors.As(err, &e) || e.Kind != redoubt.Denied || e.Rule != identity.RuleWithin || e.Hint == "" {
		t.Errorf("above the clearance: got %v", err)
	}
}

func TestOnlyTheNodeIsTrusted(t *testing.T) {
	for _, bad := range []string{"", "node", "http://example.com", "ftp://localhost", "https://user@localhost", "https://localhost?x=1", "https://"} {
		if _, err := New(bad, nil, ""); !errors.Is(err, redoubt.Invalid) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
	for _, fine := range []string{"https://node.example", "http://127.0.0.1:9000", "http://localhost:1", "http://[::1]:9000"} {
		if _, err := New(fine, nil, ""); err != nil {
			t.Errorf("%q: %v", fine, err)
		}
	}
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	defer srv.Close()
	c, _ := New(srv.URL, x509.NewCertPool(), "")
	var e *redoubt.Error
	if err := c.Compact(t.Context()); !errors.As(err, &e) || e.Kind != redoubt.Unavailable || !strings.Contains(e.Hint, "certificate") {
		t.Errorf("an unknown certificate: got %v", err)
	}
	old := httptest.NewUnstartedServer(http.NotFoundHandler())
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS12}
	old.StartTLS()
	defer old.Close()
	if c, _ = New(old.URL, roots(old), ""); !errors.Is(c.Compact(t.Context()), redoubt.Unavailable) {
		t.Error("TLS 1.2 was spoken")
	}
	away := httptest.NewServer(http.RedirectHandler("https://elsewhere.invalid/", http.StatusTemporaryRedirect))
	defer away.Close()
	if c, _ = New(away.URL, nil, "token"); c.Compact(t.Context()) == nil {
		t.Error("a redirect was taken for an answer")
	}
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
