package client

import (
	"bytes"
	"context"
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
)

// guarded is a node that guards join to others, and repeats what it is told.
type guarded struct {
	*node
	content string
	got     []any // what it was told, in its order
	fail    error
	mark    redoubt.BundleMark
	cut     bool
}

func (g *guarded) tell(all ...any) error { g.got = append(g.got, all...); return g.fail }

// nasty is text that neither JSON nor a header takes as it is.
const nasty = "<é\U0001f600\u2028\x01&\">"

var (
	work = redoubt.ReleaseWork{Release: redoubt.Release{ID: "ab", Reason: nasty, Name: redoubt.ObjectName{Bucket: "b", Key: nasty}, Keep: []string{"k"}, Made: noon, Expires: noon},
		Attributes: redoubt.Attributes{Meta: map[string]string{"k": nasty}}}
	pack = redoubt.ReleasePackage{Statement: redoubt.ReleaseStatement{ID: "ab", Key: nasty, Meta: map[string]string{"k": nasty}, SizeBytes: 4, Expires: noon},
		Approvals: []redoubt.Signature{{Signer: "x", Sig: "s"}, {Signer: "y", Sig: "t"}}}
	receipt = redoubt.ReleaseReceipt{ReleasePublic: pack.Statement.Public(), Taken: noon, Node: "n", Reviewers: []redoubt.Pseudonym{{Key: "k", Sig: "s"}}}
	verdict = redoubt.ReleaseVerdict{ContentType: "text/plain", Rules: "r", Findings: []redoubt.Finding{{Step: "words", Rule: "r", Detail: nasty}}}
)

type object struct{ s string }

func (o object) Version() redoubt.Version { return redoubt.Version{SizeBytes: int64(len(o.s))} }
func (o object) Close() error             { return nil }
func (o object) Reader(int64, int64) io.Reader {
	return strings.NewReader(o.s)
}

func (g *guarded) PendingReleases(_ context.Context, who redoubt.Credential, s redoubt.ReleaseState) ([]redoubt.ReleaseID, error) {
	return []redoubt.ReleaseID{"ab"}, g.tell(who.Subject, s)
}
func (g *guarded) FetchRelease(_ context.Context, who redoubt.Credential, id redoubt.ReleaseID) (redoubt.ReleaseWork, redoubt.Object, error) {
	return work, object{g.content}, g.tell(who.Subject, id)
}
func (g *guarded) SubmitRelease(_ context.Context, _ redoubt.Credential, id redoubt.ReleaseID, v redoubt.ReleaseVerdict, content io.Reader) error {
	b, _ := io.ReadAll(content)
	return g.tell(id, v, string(b))
}
func (g *guarded) FetchApproved(_ context.Context, _ redoubt.Credential, id redoubt.ReleaseID) (redoubt.ReleasePackage, redoubt.Object, error) {
	if id == "ended" {
		settle := pack
		settle.Settle = true
		return settle, nil, g.tell(id)
	}
	return pack, object{g.content}, g.tell(id)
}
func (g *guarded) FinishRelease(_ context.Context, _ redoubt.Credential, id redoubt.ReleaseID, r *redoubt.ReleaseReceipt, refused string) error {
	return g.tell(id, r, refused)
}
func (g *guarded) AcceptRelease(_ context.Context, _ redoubt.Credential, p redoubt.ReleasePackage, content io.Reader) (redoubt.ReleaseReceipt, error) {
	b, _ := io.ReadAll(content)
	return receipt, g.tell(p, string(b))
}
func (g *guarded) ReleaseTaken(_ context.Context, _ redoubt.Credential, p redoubt.ReleasePublic) (redoubt.ReleaseReceipt, bool, error) {
	if p.ID == "none" {
		return redoubt.ReleaseReceipt{}, false, g.tell(p)
	}
	return receipt, true, g.tell(p)
}
func (g *guarded) HandRaise(_ context.Context, _ redoubt.Credential, peer redoubt.NodeName, have redoubt.BundleMark, w io.Writer) (redoubt.BundleMark, error) {
	if err := g.tell(peer, have); err != nil {
		return redoubt.BundleMark{}, err
	}
	_, err := io.WriteString(w, g.content)
	if g.cut {
		return redoubt.BundleMark{}, redoubt.Internal
	}
	return g.mark, err
}
func (g *guarded) HandAgain(_ context.Context, _ redoubt.Credential, peer redoubt.NodeName, have redoubt.BundleMark, serial uint64, w io.Writer) (redoubt.BundleMark, error) {
	if err := g.tell(peer, have, serial); err != nil {
		return redoubt.BundleMark{}, err
	}
	_, err := io.WriteString(w, g.content)
	return g.mark, err
}
func (g *guarded) TakeRaise(_ context.Context, _ redoubt.Credential, r io.Reader) (redoubt.BundleImport, error) {
	b, _ := io.ReadAll(r)
	return redoubt.BundleImport{Serial: 7, Missing: 2}, g.tell(string(b))
}
func (g *guarded) Raises(_ context.Context, who redoubt.Credential) ([]redoubt.RaiseStatus, error) {
	return []redoubt.RaiseStatus{{Peer: "low", Way: "here", Gaps: []redoubt.NumberSpan{{From: 1, To: 2}}}}, g.tell(who.Subject)
}
func (g *guarded) RaiseAnew(_ context.Context, _ redoubt.Credential, peer redoubt.NodeName) error {
	return g.tell(peer)
}

// serveGuards gives the node, and a client of it as a guard has.
func serveGuards(t *testing.T) (*guarded, *Client, Guard) {
	t.Helper()
	g := &guarded{node: newNode(t), content: strings.Repeat("content ", 1000), mark: redoubt.BundleMark{Numbering: [16]byte{1}, Serial: 9, ID: [32]byte{2}, Created: noon}}
	srv := httptest.NewTLSServer(api.New(api.Options{Auth: g, Credentials: g, ReleaseSource: g, ReleaseTarget: g, RaiseSource: g, RaiseTarget: g, Raises: g, Releases: releases{}}))
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
	as := c.With(m.Token)
	return g, as, Guard{As: func(context.Context) (*Client, error) { return as, nil }}
}

type releases struct{ redoubt.ReleaseService }

func (g *guarded) wantGot(t *testing.T, what string, want ...any) {
	t.Helper()
	if !reflect.DeepEqual(g.got, want) {
		t.Errorf("%s: the node was told\n%+v\nwant\n%+v", what, g.got, want)
	}
	g.got = nil
}

func TestAGuardIsToldAndTellsExactlyWhatIsMeant(t *testing.T) {
	g, c, at := serveGuards(t)
	ctx, who := t.Context(), redoubt.Credential{}
	read := func(o redoubt.Object) string {
		b, err := io.ReadAll(o.Reader(0, -1))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	ids, err := at.PendingReleases(ctx, who, redoubt.ReleaseApproved)
	if err != nil || len(ids) != 1 || ids[0] != "ab" {
		t.Errorf("pending %v, %v", ids, err)
	}
	g.wantGot(t, "pending", redoubt.SubjectName("ada"), redoubt.ReleaseApproved)
	w, o, err := at.FetchRelease(ctx, who, "ab")
	if err != nil || !reflect.DeepEqual(w, work) || read(o) != g.content {
		t.Errorf("fetched %+v, %v", w, err)
	}
	g.wantGot(t, "fetch", redoubt.SubjectName("ada"), redoubt.ReleaseID("ab"))
	for _, content := range []string{"", "rebuilt"} {
		if err := at.SubmitRelease(ctx, who, "ab", verdict, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		g.wantGot(t, "submit", redoubt.ReleaseID("ab"), verdict, content)
	}
	if err := at.SubmitRelease(ctx, who, "ab", verdict, nil); err != nil {
		t.Fatal(err)
	}
	g.wantGot(t, "submit nothing", redoubt.ReleaseID("ab"), verdict, "")
	p, o, err := at.FetchApproved(ctx, who, "ab")
	if err != nil || !reflect.DeepEqual(p, pack) || read(o) != g.content || p.Statement.Public() != pack.Statement.Public() {
		t.Errorf("approved %+v, %v", p, err)
	}
	g.wantGot(t, "approved", redoubt.ReleaseID("ab"))
	r, err := at.AcceptRelease(ctx, who, pack, strings.NewReader("text"))
	if err != nil || !reflect.DeepEqual(r, receipt) {
		t.Errorf("accepted %+v, %v", r, err)
	}
	g.wantGot(t, "accept", pack, "text")
	p, o, err = at.FetchApproved(ctx, who, "ended")
	if err != nil || !p.Settle || p.Statement.Public() != pack.Statement.Public() || read(o) != "" {
		t.Errorf("to be settled: %+v, %v", p, err)
	}
	g.wantGot(t, "to be settled", redoubt.ReleaseID("ended"))
	r, taken, err := at.ReleaseTaken(ctx, who, pack.Statement.Public())
	if err != nil || !taken || !reflect.DeepEqual(r, receipt) {
		t.Errorf("taken %+v, %v, %v", r, taken, err)
	}
	g.wantGot(t, "taken", pack.Statement.Public())
	if r, taken, err = at.ReleaseTaken(ctx, who, redoubt.ReleasePublic{ID: "none"}); err != nil || taken || !reflect.DeepEqual(r, redoubt.ReleaseReceipt{}) {
		t.Errorf("not taken %+v, %v, %v", r, taken, err)
	}
	g.wantGot(t, "not taken", redoubt.ReleasePublic{ID: "none"})
	if err := at.FinishRelease(ctx, who, "ab", &receipt, ""); err != nil {
		t.Fatal(err)
	}
	g.wantGot(t, "finish", redoubt.ReleaseID("ab"), &receipt, "")
	if err := at.FinishRelease(ctx, who, "ab", nil, nasty); err != nil {
		t.Fatal(err)
	}
	g.wantGot(t, "refused", redoubt.ReleaseID("ab"), (*redoubt.ReleaseReceipt)(nil), nasty)
	all, err := c.Raises(ctx)
	if err != nil || len(all) != 1 || len(all[0].Gaps) != 1 {
		t.Errorf("raises %+v, %v", all, err)
	}
	g.wantGot(t, "raises", redoubt.SubjectName("ada"))
	if err := c.RaiseAnew(ctx, "high"); err != nil {
		t.Fatal(err)
	}
	g.wantGot(t, "anew", redoubt.NodeName("high"))
}

func TestABundleIsHandedOverWholeOrNotAtAll(t *testing.T) {
	g, _, at := serveGuards(t)
	ctx, who := t.Context(), redoubt.Credential{}
	var out bytes.Buffer
	m, err := at.HandRaise(ctx, who, "high", redoubt.BundleMark{}, &out)
	if err != nil || m != g.mark || out.String() != g.content {
		t.Errorf("got %+v, %v, and %d bytes", m, err, out.Len())
	}
	g.wantGot(t, "hand", redoubt.NodeName("high"), redoubt.BundleMark{})
	if _, err := at.HandRaise(ctx, who, "high", g.mark, io.Discard); err != nil {
		t.Fatal(err)
	}
	g.wantGot(t, "hand", redoubt.NodeName("high"), g.mark)
	out.Reset()
	if m, err := at.HandAgain(ctx, who, "high", g.mark, 5, &out); err != nil || m != g.mark || out.String() != g.content {
		t.Errorf("again: %+v, %v, and %d bytes", m, err, out.Len())
	}
	g.wantGot(t, "again", redoubt.NodeName("high"), g.mark, uint64(5))
	g.fail = redoubt.NotFound
	if _, err := at.HandAgain(ctx, who, "high", g.mark, 5, io.Discard); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("a number that is not known: %v", err)
	}
	g.fail, g.got = nil, nil
	g.cut = true
	if m, err := at.HandRaise(ctx, who, "high", g.mark, io.Discard); err == nil || m != (redoubt.BundleMark{}) {
		t.Errorf("of one that was cut off: %+v, %v", m, err)
	}
	g.cut, g.fail = false, redoubt.NotModified
	if _, err := at.HandRaise(ctx, who, "high", g.mark, io.Discard); !errors.Is(err, redoubt.NotModified) {
		t.Errorf("nothing came: %v", err)
	}
	g.fail = redoubt.Denied
	if _, err := at.HandRaise(ctx, who, "high", g.mark, io.Discard); !errors.Is(err, redoubt.Denied) {
		t.Errorf("refused: %v", err)
	}
	g.fail, g.got = nil, nil
	in, err := at.TakeRaise(ctx, who, strings.NewReader("bundle"))
	if err != nil || in.Serial != 7 || in.Missing != 2 {
		t.Errorf("taken %+v, %v", in, err)
	}
	g.wantGot(t, "take", "bundle")
	for _, kind := range []redoubt.Kind{redoubt.Exists, redoubt.QuotaExceeded, redoubt.DiskFull, redoubt.Unavailable, redoubt.Denied, redoubt.Conflict} {
		g.fail = kind
		if _, err := at.TakeRaise(ctx, who, strings.NewReader("bundle")); !errors.Is(err, kind) {
			t.Errorf("got %v, want %v", err, kind)
		}
	}
}

func TestAGuardIsGivenNoMoreThanAReleaseMayHave(t *testing.T) {
	g, _, at := serveGuards(t)
	for n, fits := range map[int]bool{redoubt.MaxReleaseBytes: true, redoubt.MaxReleaseBytes + 1: false} {
		g.content = strings.Repeat("x", n)
		_, o, err := at.FetchRelease(t.Context(), redoubt.Credential{}, "ab")
		if fits != (err == nil) || fits && o.Version().SizeBytes != int64(n) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// inAll is a body whose length is told before it comes.
type inAll struct{ io.Reader }

func (inAll) BytesInAll() int64 { return slowTaking }

// TestWhatIsLargeMayBeTakenSlowly: the time that a node has for its answer grows with what it is told to take.
func TestWhatIsLargeMayBeTakenSlowly(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select { // longer than a question may take, and far from what this one may
		case <-time.After(100 * time.Millisecond):
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, `{"serial":3,"missing":0}`)
	}))
	defer srv.Close()
	c, err := New(srv.URL, roots(srv), "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.AnswersWithin(10 * time.Millisecond)
	g := Guard{As: func(context.Context) (*Client, error) { return c, nil }}
	if _, err := g.TakeRaise(t.Context(), redoubt.Credential{}, inAll{bytes.NewReader(make([]byte, slowTaking))}); err != nil {
		t.Errorf("a large bundle is given no time: %v", err)
	}
	if _, err := g.TakeRaise(t.Context(), redoubt.Credential{}, bytes.NewReader([]byte("small"))); redoubt.KindOf(err) != redoubt.Unavailable {
		t.Errorf("a small one is waited for for as long: %v", err)
	}
}
