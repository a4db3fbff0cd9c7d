package identity

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/label"
)

func TestDefaultWorkingLabelIsTheHighestShared(t *testing.T) {
	for _, c := range []struct {
		ceiling string
		name    redoubt.SubjectName
		want    string // "": refused
	}{
		{"UNCLASSIFIED", "ts-analyst", "UNCLASSIFIED"},
		{"UNCLASSIFIED", "gbr-liaison", "UNCLASSIFIED"},
		{"UNCLASSIFIED", "u-analyst", "UNCLASSIFIED"},
		{"SECRET", "ts-analyst", "SECRET"},
		{"SECRET", "s-analyst", "SECRET"},
		{"SECRET", "gbr-liaison", "SECRET//REL TO USA, GBR"},
		{"SECRET", "u-analyst", "UNCLASSIFIED"},
		{"SECRET", "admin", "UNCLASSIFIED"},
		{"TOP SECRET//SI/TK", "ts-analyst", "TOP SECRET//SI/TK"},
		{"TOP SECRET//SI/TK", "s-analyst", "SECRET"},
		{"TOP SECRET//SI/TK", "gbr-liaison", "SECRET//REL TO USA, GBR"},
		{"TOP SECRET//SI/TK", "u-analyst", "UNCLASSIFIED"},
	} {
		w := newWorld(t, c.ceiling)
		if l, err := w.r.DefaultWorking(c.name); err != nil || l.Banner() != c.want {
			t.Errorf("%s at %s: got %q, %v, want %q", c.name, c.ceiling, l.Banner(), err, c.want)
		}
		if m, who := w.mint(c.name, ""); m.Label != c.want || who.Working.Banner() != c.want {
			t.Errorf("%s at %s: minted %q, want %q", c.name, c.ceiling, m.Label, c.want)
		}
	}
	w := newWorld(t, "SECRET")
	w.o.Floor = w.mark(w.o.Policy, "SECRET//REL TO USA, GBR")
	w.open()
	_, _, _, err := w.r.Mint(w.request("u-analyst", ""))
	wantKind(t, err, redoubt.Denied, RuleNoCommonLabel)
	w.mint("gbr-liaison", "")
	_, err = w.r.DefaultWorking("nobody")
	wantKind(t, err, redoubt.NotFound, "")
}

// TestWhatExpiredLongAgoIsForgottenAtItsTime, and not when somebody next mints, which may be above.
func TestWhatExpiredLongAgoIsForgottenAtItsTime(t *testing.T) {
	w := newWorld(t, "SECRET")
	m, low := w.mint("s-analyst", "UNCLASSIFIED")
	answers := func() []any {
		_, _, signing := w.r.SigningKey(low.ID, redoubt.Scope{})
		_, bearer := w.r.Bearer(m.Token)
		_, known := w.r.Credential(low.ID)
		_, revoking := w.r.RevokeCredential("officer", low.ID)
		listed := len(w.r.Credentials(func(c redoubt.Credential) bool { return c.ID == low.ID }))
		return []any{redoubt.KindOf(w.r.Live(low)), redoubt.KindOf(signing), redoubt.KindOf(bearer), known, redoubt.KindOf(revoking), listed}
	}
	for _, c := range []struct {
		at   time.Time
		want []any
	}{
		{low.Expires.Add(keptExpired), []any{redoubt.Expired, redoubt.Expired, redoubt.Expired, true, redoubt.Internal, 1}}, // Internal: no error
		{low.Expires.Add(keptExpired + 1), []any{redoubt.Unauthenticated, redoubt.Unauthenticated, redoubt.Unauthenticated, false, redoubt.NotFound, 0}},
	} {
		w.now = c.at
		before := answers()
		w.mint("s-analyst", "SECRET")
		if after := answers(); !slices.Equal(before, c.want) || !slices.Equal(after, c.want) {
			t.Errorf("at %v: got %v, and after a credential was made above %v; want %v", c.at.Sub(low.Expires), before, after, c.want)
		}
	}
}

func TestALabelAskedForMustFit(t *testing.T) {
	w := newWorld(t, "SECRET")
	if m, _ := w.mint("s-analyst", "S//REL TO USA, GBR"); m.Label != "SECRET//REL TO USA, GBR" {
		t.Errorf("got %q", m.Label)
	}
	_, _, _, err := w.r.Mint(w.request("s-analyst", "TOP SECRET"))
	wantKind(t, err, redoubt.Denied, RuleWithin)
	_, _, _, err = w.r.Mint(w.request("gbr-liaison", "SECRET"))
	wantKind(t, err, redoubt.Denied, RuleWithin)
	_, _, _, err = w.r.Mint(w.request("ts-analyst", "TOP SECRET//SI"))
	wantKind(t, err, redoubt.Denied, RuleNodeRange)
	_, _, _, err = w.r.Mint(w.request("s-analyst", "VERY SECRET"))
	wantKind(t, err, redoubt.Invalid, "")
}

func TestMintNeedsTheSubjectsSignatureHereNowAndOnce(t *testing.T) {
	w := newWorld(t, "SECRET")
	good := w.request("s-analyst", "")
	for name, req := range map[string]redoubt.MintRequest{
		"another's key":   signed(good, keyOf("u-analyst")),
		"no signature":    func() redoubt.MintRequest { r := good; r.Signature = ""; return r }(),
		"changed after":   func() redoubt.MintRequest { r := good; r.Label = "UNCLASSIFIED"; return r }(),
		"another subject": func() redoubt.MintRequest { r := good; r.Subject = "ts-analyst"; return r }(),
		"nobody":          func() redoubt.MintRequest { r := good; r.Subject = "nobody"; return signed(r, keyOf("nobody")) }(),
		"another node":    func() redoubt.MintRequest { r := good; r.Node = "other"; return signed(r, keyOf("s-analyst")) }(),
		"too early": func() redoubt.MintRequest {
			r := good
			r.Issued = w.now.Add(-redoubt.MintSkew - 1)
			return signed(r, keyOf("s-analyst"))
		}(),
		"too late": func() redoubt.MintRequest {
			r := good
			r.Issued = w.now.Add(redoubt.MintSkew + 1)
			return signed(r, keyOf("s-analyst"))
		}(),
		"the zero request": {Nonce: good.Nonce},
	} {
		if _, _, _, err := w.r.Mint(req); !errors.Is(err, redoubt.Unauthenticated) {
			t.Errorf("%s: got %v, want Unauthenticated", name, err)
		}
	}
	for name, spoil := range map[string]func(*redoubt.MintRequest){
		"no nonce":     func(r *redoubt.MintRequest) { r.Nonce = "" },
		"short nonce":  func(r *redoubt.MintRequest) { r.Nonce = r.Nonce[4:] },
		"padded nonce": func(r *redoubt.MintRequest) { r.Nonce += "==" },
		"long label":   func(r *redoubt.MintRequest) { r.Label = strings.Repeat("S", maxMarkingBytes+1) },
		"negative":     func(r *redoubt.MintRequest) { r.Seconds = -1 },
		"a week and more": func(r *redoubt.MintRequest) {
			r.Seconds = int64(redoubt.MaxCredentialLife/time.Second) + 1
		},
	} {
		r := w.request("s-analyst", "")
		spoil(&r)
		if _, _, _, err := w.r.Mint(signed(r, keyOf("s-analyst"))); !errors.Is(err, redoubt.Invalid) {
			t.Errorf("%s: got %v, want Invalid", name, err)
		}
	}
	_, who, recs, err := w.r.Mint(good)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.r.Live(who); !errors.Is(err, redoubt.Unauthenticated) {
		t.Errorf("live before it was durable: %v", err)
	}
	w.commit(recs)
	for range 2 {
		_, _, _, err = w.r.Mint(good)
		wantKind(t, err, redoubt.Unauthenticated, "")
		w.open() // a restart does not make a nonce new
	}
	w.now = w.now.Add(nonceLife + 1)
	if w.r.nonces.forget(w.now); len(w.r.nonces.used) != 0 || len(w.r.nonces.queue) != 0 || len(w.r.nonces.count) != 0 {
		t.Errorf("nonces are remembered beyond their time")
	}
	if _, _, _, err = w.r.Mint(good); !errors.Is(err, redoubt.Unauthenticated) {
		t.Errorf("after the nonce is forgotten: got %v", err)
	}
}

func TestRequestsForCredentialsAreBounded(t *testing.T) {
	var n nonces
	w := newWorld(t, "SECRET")
	mark := func(marking string) label.Label { return w.mark(w.o.Policy, marking) }
	next := 0
	use := func(who redoubt.SubjectName, marking string, at time.Time) error {
		next++
		return n.use(who, mark(marking), digest{byte(next), byte(next >> 8), byte(next >> 16)}, at)
	}
	for range maxNonces {
		if err := use("ada", "SECRET//REL TO USA, GBR", noon); err != nil {
			t.Fatal(err)
		}
	}
	for _, marking := range []string{"SECRET//REL TO USA, GBR", "SECRET"} { // they count at their label and above it
		if err := use("ada", marking, noon); !errors.Is(err, redoubt.QuotaExceeded) {
			t.Errorf("one more at %s: got %v", marking, err)
		}
	}
	for _, marking := range []string{"UNCLASSIFIED", "SECRET//REL TO USA, AUS"} { // and neither below nor beside it
		if err := use("ada", marking, noon); err != nil {
			t.Errorf("at %s: %v", marking, err)
		}
	}
	if err := use("bob", "SECRET", noon); err != nil {
		t.Errorf("another subject: %v", err)
	}
	if err := use("ada", "SECRET", noon.Add(nonceLife)); err != nil {
		t.Errorf("when they are forgotten: %v", err)
	}
	if len(n.used) != 1 || len(n.count) != 1 || len(n.count["ada"]) != 1 {
		t.Errorf("%d requests of %v are remembered, want the last", len(n.used), n.count)
	}
	nations := []string{"AUS", "BEL", "CAN", "CZE", "DEU", "DNK", "ESP", "FRA", "GBR", "GRC", "HUN", "ITA", "NLD", "NOR", "NZL", "POL"}
	for _, nation := range nations[:len(nations)-1] {
		for range maxNonces {
			if err := use("eve", "SECRET//REL TO USA, "+nation, noon); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range maxNonces {
		if err := use("eve", "UNCLASSIFIED", noon); err != nil {
			t.Fatal(err)
		}
	}
	if err := use("eve", "SECRET//REL TO USA, POL", noon); !errors.Is(err, redoubt.QuotaExceeded) || len(n.used) != maxNoncesOfAll+1 {
		t.Errorf("over all labels: got %v with %d", err, len(n.used))
	}
}

func TestANonceUsedAtAHighLabelIsNewAtALowOne(t *testing.T) {
	w := newWorld(t, "SECRET")
	high := w.request("s-analyst", "SECRET")
	low := high
	low.Label = "UNCLASSIFIED"
	low = signed(low, keyOf("s-analyst"))
	for _, req := range []redoubt.MintRequest{high, low} {
		_, _, recs, err := w.r.Mint(req)
		if err != nil {
			t.Fatalf("at %s: %v", req.Label, err)
		}
		w.commit(recs)
	}
	for range 2 {
		for _, req := range []redoubt.MintRequest{high, low} {
			_, _, _, err := w.r.Mint(req)
			wantKind(t, err, redoubt.Unauthenticated, "")
		}
		w.open()
	}
}

func TestCredentialsExpireAndNeverOutliveTheClearance(t *testing.T) {
	w := newWorld(t, "SECRET")
	_, who := w.mint("s-analyst", "")
	if want := noon.Add(redoubt.DefaultCredentialLife); !who.Expires.Equal(want) {
		t.Errorf("expires %v, want %v", who.Expires, want)
	}
	w.now = who.Expires.Add(-1)
	if err := w.r.Live(who); err != nil {
		t.Errorf("an instant before: %v", err)
	}
	w.now = who.Expires
	if err := w.r.Live(who); !errors.Is(err, redoubt.Expired) {
		t.Errorf("at its time: got %v", err)
	}
	if _, _, err := w.r.SigningKey(who.ID, redoubt.Scope{}); !errors.Is(err, redoubt.Expired) {
		t.Errorf("signing: got %v", err)
	}
	w.now = noon.Add(365*24*time.Hour - time.Minute)
	if _, who = w.mint("s-analyst", ""); !who.Expires.Equal(noon.Add(365 * 24 * time.Hour)) {
		t.Errorf("expires %v, want with the clearance", who.Expires)
	}
	w.now = noon.Add(365 * 24 * time.Hour)
	_, _, _, err := w.r.Mint(w.request("s-analyst", ""))
	wantKind(t, err, redoubt.Expired, RuleClearance)
}

func TestANewKeyEndsTheOldOnesCredentials(t *testing.T) {
	w := newWorld(t, "SECRET")
	_, who := w.mint("s-analyst", "")
	p := somebody("s-analyst", "SECRET", "USA", redoubt.RoleAnalyst)
	p.PublicKey = public(keyOf("her new one"))
	w.change(w.personChange(p), "officer", "officer-2")
	if err := w.r.Live(who); !errors.Is(err, redoubt.Unauthenticated) {
		t.Errorf("got %v", err)
	}
	_, _, _, err := w.r.Mint(w.request("s-analyst", ""))
	wantKind(t, err, redoubt.Unauthenticated, "")
	if _, _, _, err := w.r.Mint(signed(w.request("s-analyst", ""), keyOf("her new one"))); err != nil {
		t.Error(err)
	}
}

func TestOnlyWhatWasMintedIsLive(t *testing.T) {
	w := newWorld(t, "SECRET")
	_, who := w.mint("s-analyst", "S//REL TO USA, GBR")
	for range 2 {
		if err := w.r.Live(who); err != nil {
			t.Errorf("as minted: %v", err)
		}
		for name, spoil := range map[string]func(*redoubt.Credential){
			"zero":            func(c *redoubt.Credential) { *c = redoubt.Credential{} },
			"another subject": func(c *redoubt.Credential) { c.Subject = "ts-analyst" },
			"another label":   func(c *redoubt.Credential) { c.Working = w.o.Ceiling },
			"another time":    func(c *redoubt.Credential) { c.Expires = c.Expires.Add(1) },
		} {
			c := who
			spoil(&c)
			if err := w.r.Live(c); !errors.Is(err, redoubt.Unauthenticated) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		w.open()
	}
}

// sigV4 derives a signing key as the AWS manual says (General Reference, "Derive a signing key").
func sigV4(secret string, s redoubt.Scope) []byte {
	step := func(key []byte, data string) []byte {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(data))
		return m.Sum(nil)
	}
	return step(step(step(step([]byte("AWS4"+secret), s.Date), s.Region), s.Service), "aws4_request")
}

func TestSecretsAreDerivedAndAlikeAfterARestart(t *testing.T) {
	w := newWorld(t, "SECRET")
	m, who := w.mint("s-analyst", "")
	if len(m.AccessKeyID) != 20 || strings.Trim(m.AccessKeyID, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" || m.AccessKeyID != who.ID {
		t.Errorf("access key ID %q", m.AccessKeyID)
	}
	if len(m.SecretAccessKey) != 40 || m.Region != "redoubt" || !strings.HasPrefix(m.Token, "rdt_"+who.ID+"_") {
		t.Errorf("got %+v", m)
	}
	for _, s := range []redoubt.Scope{{Date: "20260301", Region: "redoubt", Service: "s3"}, {Date: "20260302", Region: "redoubt", Service: "s3"}, {Date: "20260301", Region: "eu", Service: "sts"}} {
		for range 2 {
			key, got, err := w.r.SigningKey(who.ID, s)
			if err != nil || got != who || !hmac.Equal(key[:], sigV4(m.SecretAccessKey, s)) {
				t.Errorf("%v: got %x for %+v, %v", s, key, got, err)
			}
		}
	}
	w.open()
	if got, err := w.r.Bearer(m.Token); err != nil || got != who {
		t.Errorf("got %+v, %v", got, err)
	}
	for name, token := range map[string]string{
		"empty": "", "cut": m.Token[:len(m.Token)-1], "longer": m.Token + "A", "prefix alone": "rdt_", "ID alone": "rdt_" + who.ID,
		"no prefix": m.Token[4:], "another ID": "rdt_RDAAAAAAAAAAAAAAAAAA" + m.Token[24:], "very long": m.Token + strings.Repeat("A", 1<<20),
	} {
		if _, err := w.r.Bearer(token); !errors.Is(err, redoubt.Unauthenticated) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// A token that this node would have made for an ID that it never gave out opens nothing.
	if _, err := w.r.Bearer(w.r.token("RDAAAAAAAAAAAAAAAAAA")); !errors.Is(err, redoubt.Unauthenticated) {
		t.Errorf("got %v", err)
	}
	w.o.Secret = append(make([]byte, SecretBytes-1), 1)
	w.open()
	if _, err := w.r.Bearer(m.Token); !errors.Is(err, redoubt.Unauthenticated) {
		t.Errorf("under another secret: got %v", err)
	}
	for _, id := range []string{"", "RDAAAAAAAAAAAAAAAAAA", strings.Repeat("A", 1<<20)} {
		if key, who, err := w.r.SigningKey(id, redoubt.Scope{}); !errors.Is(err, redoubt.Unauthenticated) || key != [32]byte{} || who.ID != "" {
			t.Errorf("%.20q: got %x, %+v, %v", id, key, who, err)
		}
	}
}

func TestLiveCredentialsAreBounded(t *testing.T) {
	w := newWorld(t, "SECRET")
	mint := func(i int) error {
		nonce := make([]byte, nonceBytes)
		nonce[0], nonce[1], nonce[2] = 9, byte(i), byte(i>>8)
		_, _, recs, err := w.r.Mint(signed(redoubt.MintRequest{Subject: "s-analyst", Node: "node", Seconds: 600, Issued: w.now,
			Nonce: base64.RawURLEncoding.EncodeToString(nonce)}, keyOf("s-analyst")))
		w.r.Apply(recs...)
		return err
	}
	for i := range MaxLiveCredentials {
		if err := mint(i); err != nil {
			t.Fatal(err)
		}
	}
	err := mint(MaxLiveCredentials)
	wantKind(t, err, redoubt.QuotaExceeded, "")
	var e *redoubt.Error
	if errors.As(err, &e); !strings.Contains(e.Hint, "revoke one, say RD") {
		t.Errorf("got the hint %q", e.Hint)
	}
	w.mint("u-analyst", "") // another subject's share is its own
	mine := w.r.Credentials(func(c redoubt.Credential) bool { return c.Subject == "s-analyst" })
	if len(mine) != MaxLiveCredentials {
		t.Fatalf("got %d", len(mine))
	}
	recs, _ := w.r.RevokeCredential("s-analyst", mine[0].ID)
	w.r.Apply(recs...)
	if err := mint(MaxLiveCredentials + 1); err != nil {
		t.Errorf("after a revocation: %v", err)
	}
	w.now = w.now.Add(time.Hour)
	if err := mint(MaxLiveCredentials + 2); err != nil {
		t.Errorf("after they expired: %v", err)
	}
	w.now = w.now.Add(2 * keptExpired)
	w.mint("u-analyst", "")
	if n := len(w.r.Credentials(func(redoubt.Credential) bool { return true })); n != 1 {
		t.Errorf("%d credentials are remembered, want what is live", n)
	}
}
