package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/label"
)

// fake is every service. It notes what it was asked, as whom, and answers with fail when that is set.
type fake struct {
	asked   []string
	refused []string
	fail    error
	late    error // after something was written
	query   redoubt.AuditQuery
	mint    redoubt.MintRequest
	change  redoubt.Change
	request string
	usage   []redoubt.LabelUsage
}

const good = "rdt_good"

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func mark(t testing.TB, marking string) label.Label {
	t.Helper()
	usa, err := label.Builtin("USA")
	if err != nil {
		t.Fatal(err)
	}
	l, err := usa.Parse(marking)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (f *fake) note(ctx context.Context, who redoubt.Credential, what ...string) error {
	f.request = redoubt.RequestID(ctx)
	f.asked = append(f.asked, string(who.Subject)+" "+strings.Join(what, " "))
	return f.fail
}

func (f *fake) SigningKey(context.Context, string, redoubt.Scope) ([32]byte, redoubt.Credential, error) {
	panic("the interface signs nothing")
}

func (f *fake) Bearer(_ context.Context, token string) (redoubt.Credential, error) {
	if token != good {
		return redoubt.Credential{}, &redoubt.Error{Op: "Bearer", Kind: redoubt.Unauthenticated, Err: io.ErrUnexpectedEOF}
	}
	usa, _ := label.Builtin("USA")
	l, _ := usa.Parse("SECRET")
	return redoubt.Credential{ID: "RDAAAAAAAAAAAAAAAAAA", Subject: "ada", Working: l, Expires: noon}, nil
}

func (f *fake) Refused(_ context.Context, _, reason string) { f.refused = append(f.refused, reason) }

func (f *fake) MintCredential(ctx context.Context, req redoubt.MintRequest) (redoubt.Minted, error) {
	f.mint = req
	return redoubt.Minted{AccessKeyID: "RDAAAAAAAAAAAAAAAAAA", SecretAccessKey: "s", Token: good, Label: "SECRET", Expires: noon, Region: "r"},
		f.note(ctx, redoubt.Credential{}, "mint", string(req.Subject))
}

func (f *fake) RevokeCredential(ctx context.Context, who redoubt.Credential, id string) error {
	return f.note(ctx, who, "revoke", id)
}

func (f *fake) Credentials(ctx context.Context, who redoubt.Credential) ([]redoubt.CredentialRecord, error) {
	return nil, f.note(ctx, who, "credentials")
}

func (f *fake) People(ctx context.Context, who redoubt.Credential) ([]redoubt.Person, error) {
	return []redoubt.Person{{Name: "ada"}}, f.note(ctx, who, "people")
}

func (f *fake) ProposeChange(ctx context.Context, who redoubt.Credential, c redoubt.Change) (redoubt.Change, error) {
	f.change = c
	return c, f.note(ctx, who, "propose")
}

func (f *fake) ApproveChange(ctx context.Context, who redoubt.Credential, id string, sig redoubt.Signature) (redoubt.Change, error) {
	return redoubt.Change{ID: id}, f.note(ctx, who, "approve", id, string(sig.Signer))
}

func (f *fake) Changes(ctx context.Context, who redoubt.Credential) ([]redoubt.Change, error) {
	return nil, f.note(ctx, who, "changes")
}

func (f *fake) RevokePerson(ctx context.Context, who redoubt.Credential, name redoubt.SubjectName, reason string) error {
	return f.note(ctx, who, "revoke person", string(name), reason)
}

func (f *fake) Grant(ctx context.Context, who redoubt.Credential, g redoubt.Grant) (redoubt.Grant, error) {
	g.ID = "G"
	return g, f.note(ctx, who, "grant", string(g.Subject))
}

func (f *fake) Grants(ctx context.Context, who redoubt.Credential) ([]redoubt.Grant, error) {
	return nil, f.note(ctx, who, "grants")
}

func (f *fake) RevokeGrant(ctx context.Context, who redoubt.Credential, id string) error {
	return f.note(ctx, who, "revoke grant", id)
}

func (f *fake) SearchAudit(ctx context.Context, who redoubt.Credential, q redoubt.AuditQuery, each func(redoubt.AuditRecord) error) error {
	f.query = q
	if err := f.note(ctx, who, "search"); err != nil {
		return err
	}
	for i := range uint64(2) {
		if err := each(redoubt.AuditRecord{Number: i, Action: "GetObject"}); err != nil {
			return err
		}
	}
	return f.late
}

func (f *fake) VerifyAudit(ctx context.Context, who redoubt.Credential, trusted []string) (redoubt.AuditReport, error) {
	return redoubt.AuditReport{OK: true, Node: "node"}, f.note(ctx, who, "verify", strings.Join(trusted, ","))
}

func (f *fake) ExportAudit(ctx context.Context, who redoubt.Credential, format string, q redoubt.AuditQuery, w io.Writer) error {
	f.query = q
	if err := f.note(ctx, who, "export", format); err != nil {
		return err
	}
	_, _ = io.WriteString(w, "one\ntwo\n")
	return f.late
}

func (f *fake) ArchiveAudit(ctx context.Context, who redoubt.Credential, before time.Time, recipient string, w io.Writer) error {
	if err := f.note(ctx, who, "archive", before.UTC().Format(time.RFC3339), recipient); err != nil {
		return err
	}
	_, _ = io.WriteString(w, "sealed\n")
	return f.late
}

func (f *fake) ConfirmArchive(ctx context.Context, who redoubt.Credential, sha256 string) (redoubt.AuditArchive, error) {
	return redoubt.AuditArchive{Node: "node", To: 256, SHA256: sha256, Time: noon}, f.note(ctx, who, "confirm", sha256)
}

func (f *fake) SearchArchive(ctx context.Context, who redoubt.Credential, q redoubt.AuditQuery, opened io.Reader, each func(redoubt.AuditRecord) error) error {
	b, err := io.ReadAll(opened)
	if f.query = q; err != nil {
		return err
	}
	if err := f.note(ctx, who, "search archive", string(b)); err != nil {
		return err
	}
	return each(redoubt.AuditRecord{Number: 7, Action: "GetObject"})
}

func (f *fake) Why(ctx context.Context, who redoubt.Credential, request string) ([]redoubt.AuditRecord, error) {
	return nil, f.note(ctx, who, "why", request)
}

func (f *fake) Keys(ctx context.Context, who redoubt.Credential) ([]redoubt.KeyStatus, error) {
	return nil, f.note(ctx, who, "keys")
}

func (f *fake) RotateKey(ctx context.Context, who redoubt.Credential, marking string) (redoubt.KeyStatus, error) {
	return redoubt.KeyStatus{Label: marking}, f.note(ctx, who, "rotate", marking)
}

func (f *fake) EraseVersion(ctx context.Context, who redoubt.Credential, name redoubt.ObjectName, id redoubt.VersionID, reason string) error {
	return f.note(ctx, who, "erase", name.String(), string(id), reason)
}

func (f *fake) Check(ctx context.Context, who redoubt.Credential, progress func(done, total int64)) (redoubt.CheckReport, error) {
	if err := f.note(ctx, who, "check"); err != nil {
		return redoubt.CheckReport{}, err
	}
	progress(1, 2)
	return redoubt.CheckReport{Node: "node", OK: true, Versions: 2}, f.late
}

func (f *fake) Backup(ctx context.Context, who redoubt.Credential, recipient string, w io.Writer) error {
	if err := f.note(ctx, who, "backup", recipient); err != nil {
		return err
	}
	_, _ = w.Write(make([]byte, 1<<20))
	return f.late
}

func (f *fake) ExportBundle(ctx context.Context, who redoubt.Credential, q redoubt.ExportBundle, w io.Writer) (redoubt.BundleExport, error) {
	if err := f.note(ctx, who, "export bundle", string(q.Peer), q.Life.String(), fmt.Sprint(q.Receipt)); err != nil {
		return redoubt.BundleExport{}, err
	}
	_, _ = io.WriteString(w, "bundle")
	return redoubt.BundleExport{Peer: q.Peer, Serial: 7}, f.late
}

func (f *fake) ImportBundle(ctx context.Context, who redoubt.Credential, r io.Reader, progress func(done, total int64)) (redoubt.BundleImport, error) {
	file, err := io.ReadAll(r)
	if err != nil {
		return redoubt.BundleImport{}, err
	}
	if err := f.note(ctx, who, "import bundle", string(file)); err != nil {
		return redoubt.BundleImport{}, err
	}
	progress(1, 2)
	return redoubt.BundleImport{Peer: "secret", Serial: 7}, f.late
}

func (f *fake) Compact(ctx context.Context, who redoubt.Credential) error {
	return f.note(ctx, who, "compact")
}

func (f *fake) Usage(ctx context.Context, who redoubt.Credential) ([]redoubt.LabelUsage, error) {
	return f.usage, f.note(ctx, who, "usage")
}

func (f *fake) NodeInfo(context.Context) redoubt.NodeInfo {
	return redoubt.NodeInfo{Name: "node", Kind: "enclave", Policy: "USA", Version: "1", FIPS: true}
}

// options are those of a node whose services are all f.
func options(t testing.TB, f *fake) Options {
	return Options{Auth: f, Credentials: f, People: f, Grants: f, Audit: f, Archives: f, Keys: f, Maintenance: f, Bundles: f, Exports: f, Ceiling: mark(t, "TOP SECRET//SI/TK")}
}

// ask sends one request to the handler, as ada.
func ask(h http.Handler, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+good)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// kept is content in memory.
type kept string

func (h kept) Version() redoubt.Version { return redoubt.Version{} }
func (h kept) Close() error             { return nil }
func (h kept) Reader(int64, int64) io.Reader {
	return strings.NewReader(string(h))
}

func (f *fake) ConsentExport(ctx context.Context, who redoubt.Credential, q redoubt.ConsentExport) (redoubt.ExportConsent, error) {
	return redoubt.ExportConsent{Version: q.Version, Nation: q.Nation}, f.note(ctx, who, "consent-export", q.Name.String(), string(q.Version), q.Nation, q.KAS, q.SHA256, q.Expires.Format(time.RFC3339), q.Sig)
}

func (f *fake) ExportVersion(ctx context.Context, who redoubt.Credential, q redoubt.ExportVersion) (redoubt.Exported, redoubt.Object, error) {
	return redoubt.Exported{Version: "v", Label: "SECRET//REL TO USA, GBR", XML: "<é/>", Nation: q.Nation, SizeBytes: 7}, kept("content"), f.note(ctx, who, "export", q.Name.String(), string(q.Version), q.Nation, q.Reason+q.KAS)
}
