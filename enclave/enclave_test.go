package enclave

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/keys"
	"redoubt/label"
	"redoubt/store/memory"
)

// world is an enclave on an in-memory store with the people of the example estate.
type world struct {
	*Enclave
	t     *testing.T
	keys  map[redoubt.SubjectName]ed25519.PrivateKey
	o     Options
	rings string // the folder of keyring and key file
}

var testPeople = []redoubt.Person{
	{Name: "ts-analyst", Clearance: "TOP SECRET//SI/TK", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleAnalyst, redoubt.RoleWriteUp}},
	{Name: "s-analyst", Clearance: "SECRET", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleAnalyst}},
	{Name: "u-analyst", Clearance: "UNCLASSIFIED", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleAnalyst}},
	{Name: "gbr-liaison", Clearance: "SECRET", Nation: "GBR", Roles: []redoubt.Role{redoubt.RoleAnalyst}},
	{Name: "officer", Clearance: "TOP SECRET//SI/TK", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleOfficer}},
	{Name: "officer-2", Clearance: "TOP SECRET//SI/TK", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleOfficer}},
	{Name: "admin", Clearance: "UNCLASSIFIED", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleAdmin, redoubt.RoleStorage}},
}

func open(t *testing.T, change func(*Options)) *world {
	t.Helper()
	policy, err := label.Builtin("USA")
	if err != nil {
		t.Fatal(err)
	}
	parse := func(m string) label.Label {
		l, err := policy.Parse(m)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	w := &world{t: t, keys: map[redoubt.SubjectName]ed25519.PrivateKey{}, rings: t.TempDir()}
	ring, err := keys.Create(filepath.Join(w.rings, "ring"), keys.KeyFile(filepath.Join(w.rings, "key")), nil)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Name: "topsecret", Policy: policy, Floor: parse("UNCLASSIFIED"), Ceiling: parse("TOP SECRET//SI/TK"),
		Engine: memory.Open(), Keys: ring, Region: "redoubt", Version: "test",
		Buckets: []redoubt.Bucket{{Name: "reports"}, {Name: "locked", BucketSettings: redoubt.BucketSettings{Lock: redoubt.LockSettings{Enabled: true}}}}}
	for _, p := range testPeople {
		public, private, _ := ed25519.GenerateKey(rand.Reader)
		w.keys[p.Name] = private
		p.PublicKey, p.Expires = base64.StdEncoding.EncodeToString(public), time.Now().Add(24*365*time.Hour)
		o.People = append(o.People, p)
	}
	if change != nil {
		change(&o)
	}
	w.o = o
	if w.Enclave, err = Open(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// as mints a credential.
func (w *world) as(who redoubt.SubjectName, marking string) redoubt.Credential {
	w.t.Helper()
	nonce := make([]byte, 16)
	rand.Read(nonce)
	req := redoubt.MintRequest{Subject: who, Node: w.name, Label: marking, Issued: w.clock(), Nonce: base64.RawURLEncoding.EncodeToString(nonce)}
	req.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(w.keys[who], redoubt.MintMessage(req)))
	m, err := w.MintCredential(context.Background(), req)
	if err != nil {
		w.t.Fatalf("mint %s at %q: %v", who, marking, err)
	}
	c, err := w.Bearer(context.Background(), m.Token)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) put(who redoubt.Credential, key, content, marking string) redoubt.Version {
	w.t.Helper()
	v, err := w.PutObject(context.Background(), who, redoubt.PutObject{Name: redoubt.ObjectName{Bucket: "reports", Key: key},
		Label: marking, SizeBytes: int64(len(content)), Body: strings.NewReader(content)})
	if err != nil {
		w.t.Fatalf("put %s: %v", key, err)
	}
	return v
}

// get reads a key; missing is "", and any other error fails the test.
func (w *world) get(who redoubt.Credential, key string) string {
	w.t.Helper()
	o, err := w.GetObject(context.Background(), who, redoubt.ReadObject{Name: redoubt.ObjectName{Bucket: "reports", Key: key}})
	if errors.Is(err, redoubt.NotFound) {
		return ""
	}
	if err != nil {
		w.t.Fatalf("get %s: %v", key, err)
	}
	defer o.Close()
	b, err := io.ReadAll(o.Reader(0, -1))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

func (w *world) list(who redoubt.Credential) (keys []string) {
	w.t.Helper()
	page, err := w.ListObjects(context.Background(), who, redoubt.ListObjects{Bucket: "reports", Max: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, v := range page.Versions {
		keys = append(keys, v.Name.Key)
	}
	return keys
}

func TestALowWriterNeitherSeesNorHidesAHighVersion(t *testing.T) {
	w := open(t, nil)
	high, low := w.as("ts-analyst", ""), w.as("u-analyst", "")
	w.put(high, "plan", "high", "")
	if got := w.get(low, "plan"); got != "" {
		t.Errorf("the low reader got %q, want nothing", got)
	}
	if got := w.list(low); len(got) != 0 {
		t.Errorf("the low list shows %v, want nothing", got)
	}
	w.put(low, "plan", "low", "")
	if got := w.get(low, "plan"); got != "low" {
		t.Errorf("the low reader got %q, want low", got)
	}
	if got := w.get(high, "plan"); got != "low" {
		t.Errorf("the high reader got %q, want the newest that it dominates: low", got)
	}
	name := redoubt.ObjectName{Bucket: "reports", Key: "plan"}
	if _, err := w.DeleteObject(context.Background(), low, redoubt.DeleteObject{Name: name}); err != nil {
		t.Fatal(err)
	}
	if got := w.get(low, "plan"); got != "" {
		t.Errorf("after the low delete the low reader got %q", got)
	}
	if got := w.get(high, "plan"); got != "high" {
		t.Errorf("after the low delete the high reader got %q, want high", got)
	}
	page, err := w.ListVersions(context.Background(), high, redoubt.ListVersions{Bucket: "reports", Max: 10})
	if err != nil || len(page.Versions) != 3 {
		t.Fatalf("the high reader sees %d versions (%v), want 3", len(page.Versions), err)
	}
}

func TestLargeContentComesBackByRange(t *testing.T) {
	w := open(t, nil)
	s := w.as("s-analyst", "")
	content := make([]byte, 3<<20+17)
	rand.Read(content)
	v, err := w.PutObject(context.Background(), s, redoubt.PutObject{Name: redoubt.ObjectName{Bucket: "reports", Key: "big"}, SizeBytes: -1, Body: bytes.NewReader(content)})
	if err != nil {
		t.Fatal(err)
	}
	if v.SizeBytes != int64(len(content)) {
		t.Errorf("got %d bytes, want %d", v.SizeBytes, len(content))
	}
	o, err := w.GetObject(context.Background(), s, redoubt.ReadObject{Name: v.Name})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	for _, r := range [][2]int64{{0, -1}, {1 << 20, 70000}, {int64(len(content)) - 3, 3}} {
		got, err := io.ReadAll(o.Reader(r[0], r[1]))
		end := r[0] + r[1]
		if r[1] < 0 {
			end = int64(len(content))
		}
		if err != nil || !bytes.Equal(got, content[r[0]:end]) {
			t.Errorf("range %v differs (%v)", r, err)
		}
	}
}

func TestMultipartJoinsItsParts(t *testing.T) {
	w := open(t, nil)
	ctx, s := context.Background(), w.as("s-analyst", "")
	name := redoubt.ObjectName{Bucket: "reports", Key: "parts"}
	u, err := w.CreateUpload(ctx, s, redoubt.CreateUpload{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	one, two := bytes.Repeat([]byte("1"), redoubt.MinPartBytes), []byte("two")
	var list []redoubt.CompletePart
	for i, body := range [][]byte{one, two} {
		p, err := w.PutPart(ctx, s, redoubt.PutPart{Name: name, Upload: u.ID, Number: i + 1, SizeBytes: int64(len(body)), Body: bytes.NewReader(body)})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, redoubt.CompletePart{Number: i + 1, ETag: p.ETag})
	}
	if _, err := w.ListParts(ctx, w.as("ts-analyst", ""), redoubt.ListParts{Name: name, Upload: u.ID, Max: 10}); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("another working label sees the upload: %v", err)
	}
	if _, err := w.CompleteUpload(ctx, s, redoubt.CompleteUpload{Name: name, Upload: u.ID, Parts: list, SizeBytes: -1}); err != nil {
		t.Fatal(err)
	}
	if got := w.get(s, "parts"); got != string(one)+"two" {
		t.Errorf("got %d bytes", len(got))
	}
	if err := w.AbortUpload(ctx, s, name, u.ID); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("the upload is still there: %v", err)
	}
}

func TestRevocationBitesAtOnce(t *testing.T) {
	w := open(t, nil)
	s, officer := w.as("s-analyst", ""), w.as("officer", "")
	w.put(s, "a", "x", "")
	if err := w.RevokePerson(context.Background(), officer, "s-analyst", "left"); err != nil {
		t.Fatal(err)
	}
	_, err := w.GetObject(context.Background(), s, redoubt.ReadObject{Name: redoubt.ObjectName{Bucket: "reports", Key: "a"}})
	if !errors.Is(err, redoubt.Unauthenticated) {
		t.Errorf("got %v, want not authenticated", err)
	}
}

func TestErasingAVersionLeavesTheOthersReadable(t *testing.T) {
	w := open(t, nil)
	ctx, s, officer := context.Background(), w.as("s-analyst", ""), w.as("officer", "")
	spilt := w.put(s, "spilt", "do not keep", "")
	w.put(s, "kept", "keep", "")
	if err := w.EraseVersion(ctx, officer, spilt.Name, spilt.ID, "spill"); err != nil {
		t.Fatal(err)
	}
	if got := w.get(s, "spilt"); got != "" {
		t.Errorf("got %q", got)
	}
	if got := w.get(s, "kept"); got != "keep" {
		t.Errorf("got %q, want keep", got)
	}
	status, err := w.Keys(ctx, officer)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range status {
		if len(k.Epochs) > 1 {
			t.Errorf("%s keeps epochs %v", k.Label, k.Epochs)
		}
	}
}

func TestTwoOfficersEraseALabel(t *testing.T) {
	w := open(t, nil)
	ctx, s, officer := context.Background(), w.as("s-analyst", ""), w.as("officer", "")
	w.put(s, "a", "x", "")
	c := redoubt.Change{Kind: redoubt.ChangeEraseLabel, Node: w.name, Label: "SECRET", Reason: "spill", Made: w.clock(), Expires: w.clock().Add(time.Hour)}
	sign := func(by redoubt.SubjectName) redoubt.Signature {
		return redoubt.Signature{Signer: by, Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(w.keys[by], redoubt.ChangeMessage(c)))}
	}
	c.ID = redoubt.ChangeID(c)
	c.Signatures = []redoubt.Signature{sign("officer")}
	got, err := w.ProposeChange(ctx, officer, c)
	if err != nil || got.State != "pending" {
		t.Fatalf("got %q, %v", got.State, err)
	}
	if w.get(s, "a") != "x" {
		t.Fatal("one officer erased it alone")
	}
	if got, err = w.ApproveChange(ctx, w.as("officer-2", ""), c.ID, sign("officer-2")); err != nil || got.State != "in effect" {
		t.Fatalf("got %q, %v", got.State, err)
	}
	if got := w.get(s, "a"); got != "" {
		t.Errorf("got %q", got)
	}
	w.put(s, "b", "after", "")
	if got := w.get(s, "b"); got != "after" {
		t.Errorf("got %q, want after", got)
	}
}

func TestTheLogVerifiesAndAnswersSearches(t *testing.T) {
	w := open(t, nil)
	ctx, s, officer := context.Background(), w.as("s-analyst", ""), w.as("officer", "")
	w.put(s, "a", "x", "")
	w.get(w.as("u-analyst", ""), "a")
	report, err := w.VerifyAudit(ctx, officer, nil)
	if err != nil || !report.OK || report.Entries == 0 || report.Checkpoint == "" {
		t.Fatalf("got %+v, %v", report, err)
	}
	var puts int
	err = w.SearchAudit(ctx, officer, redoubt.AuditQuery{Object: redoubt.ObjectName{Bucket: "reports", Key: "a"}, Action: redoubt.ActionPutObject},
		func(r redoubt.AuditRecord) error { puts++; return nil })
	if err != nil || puts != 1 {
		t.Errorf("found %d puts (%v), want 1", puts, err)
	}
	if err := w.SearchAudit(ctx, s, redoubt.AuditQuery{}, nil); !errors.Is(err, redoubt.Denied) {
		t.Errorf("an analyst searched the log: %v", err)
	}
}

// gate is a body that stops half-way until it is opened.
type gate struct {
	first  io.Reader
	at     chan struct{} // closed when the first half has been read
	opened chan struct{}
	once   bool
}

func (g *gate) Read(p []byte) (int, error) {
	n, err := g.first.Read(p)
	if n > 0 || err != io.EOF {
		return n, nil
	}
	if !g.once {
		g.once = true
		close(g.at)
		<-g.opened
		return copy(p, "rest"), nil
	}
	return 0, io.EOF
}

func TestARevokedWriterCommitsNothing(t *testing.T) {
	w := open(t, nil)
	ctx, s, officer := context.Background(), w.as("s-analyst", ""), w.as("officer", "")
	body := &gate{first: strings.NewReader("half"), at: make(chan struct{}), opened: make(chan struct{})}
	ended := make(chan error, 1)
	go func() {
		_, err := w.PutObject(ctx, s, redoubt.PutObject{Name: redoubt.ObjectName{Bucket: "reports", Key: "late"}, SizeBytes: 8, Body: body})
		ended <- err
	}()
	<-body.at
	if err := w.RevokePerson(ctx, officer, "s-analyst", "left"); err != nil {
		t.Fatal(err)
	}
	close(body.opened)
	if err := <-ended; !errors.Is(err, redoubt.Unauthenticated) {
		t.Errorf("got %v, want not authenticated", err)
	}
	if got := w.get(w.as("ts-analyst", ""), "late"); got != "" {
		t.Errorf("%q was stored after its writer was revoked", got)
	}
}

func TestRefusedMarkingsAreOnRecord(t *testing.T) {
	w := open(t, nil)
	ctx, s, officer := context.Background(), w.as("s-analyst", ""), w.as("officer", "")
	src := w.put(s, "source", "x", "")
	if _, err := w.PutObject(ctx, s, redoubt.PutObject{Name: redoubt.ObjectName{Bucket: "reports", Key: "bogus"}, Label: "SECRET//BOGUS", Body: strings.NewReader("")}); !errors.Is(err, redoubt.Invalid) {
		t.Fatalf("got %v, want invalid", err)
	}
	if _, err := w.CopyObject(ctx, s, redoubt.CopyObject{Source: src.Name, Target: redoubt.ObjectName{Bucket: "reports", Key: "lower"}, Label: "UNCLASSIFIED"}); !errors.Is(err, redoubt.Denied) {
		t.Fatalf("got %v, want denied", err)
	}
	for _, key := range []string{"bogus", "lower"} {
		found := 0
		err := w.SearchAudit(ctx, officer, redoubt.AuditQuery{Object: redoubt.ObjectName{Bucket: "reports", Key: key}, Outcome: "deny"},
			func(redoubt.AuditRecord) error { found++; return nil })
		if err != nil || found != 1 {
			t.Errorf("%s: %d denials on record (%v), want 1", key, found, err)
		}
	}
}
