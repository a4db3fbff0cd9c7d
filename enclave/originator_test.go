package enclave

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"sync"
	"testing"
	"time"

	"redoubt"
	"redoubt/identity"
)

func (w *world) copied(who redoubt.Credential, from, to, marking string, replace *redoubt.Attributes) (redoubt.Version, error) {
	w.t.Helper()
	return w.CopyObject(context.Background(), who, redoubt.CopyObject{Source: redoubt.ObjectName{Bucket: "reports", Key: from}, Target: redoubt.ObjectName{Bucket: "reports", Key: to}, Label: marking, ReplaceAttributes: replace})
}

// originator is who is named for a release of a key; "" and the hint where it is refused.
func (c *chain) originator(key string) (redoubt.SubjectName, string) {
	c.t.Helper()
	q := planRequest
	q.Name.Key = key
	r, err := c.ts.RequestRelease(context.Background(), c.ts.as("s-analyst", ""), q)
	if err == nil {
		return r.Originator, ""
	}
	e, ok := err.(*redoubt.Error)
	if !ok || e.Rule != ruleConsent || e.Kind != redoubt.Denied {
		c.t.Fatalf("of %s: %v", key, err)
	}
	return "", e.Hint
}

// TestACopyIsItsOriginatorsAsBefore: who copies what she may not let leave cannot consent to its leaving.
func TestACopyIsItsOriginatorsAsBefore(t *testing.T) {
	c := openChain(t)
	who := c.ts.as("rev-3", "SECRET")
	c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "the plan", orcon)
	if _, err := c.ts.copied(who, "plan", "copy", "", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ts.copied(who, "copy", "again", "", &redoubt.Attributes{Meta: map[string]string{"a": "b"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ts.copied(c.ts.as("ts-analyst", "SECRET"), "again", "hers", "", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ts.copied(who, "plan", "plan", "", &redoubt.Attributes{}); err != nil { // onto itself
		t.Fatal(err)
	}
	for _, key := range []string{"plan", "copy", "again", "hers"} {
		if got, hint := c.originator(key); got != "ts-analyst" {
			t.Errorf("%s is %q's (%s), want ts-analyst's", key, got, hint)
		}
	}
	v, err := c.ts.HeadObject(context.Background(), who, redoubt.ReadObject{Name: redoubt.ObjectName{Bucket: "reports", Key: "again"}})
	if err != nil || v.Author != "rev-3" || v.Attributes.Meta[redoubt.MetaOriginator] != "ts-analyst" || v.Attributes.Meta["a"] != "b" {
		t.Errorf("a copy is %+v, %v", v, err)
	}
	if v, err := c.ts.HeadObject(context.Background(), who, redoubt.ReadObject{Name: redoubt.ObjectName{Bucket: "reports", Key: "hers"}}); err != nil || v.Attributes.Meta[redoubt.MetaOriginator] != "" {
		t.Errorf("her own copy says %v, %v", v.Attributes.Meta, err)
	}
}

// TestACopyLosesNoMarkThatAsksForAConsent, though its label dominates what it is of.
func TestACopyLosesNoMarkThatAsksForAConsent(t *testing.T) {
	c := openChain(t)
	ctx, who := context.Background(), c.ts.as("rev-3", "SECRET")
	c.ts.put(c.ts.as("ts-analyst", "SECRET"), "plan", "the plan", orcon)
	for marking, lost := range map[string]bool{"SECRET": true, "TOP SECRET": true, "SECRET//FISA": true, orcon: false, "SECRET//ORCON/FISA": false} {
		w := who
		if strings.HasPrefix(marking, "TOP") {
			w = c.ts.as("ts-analyst", "SECRET")
		}
		_, err := c.ts.copied(w, "plan", "copy", marking, nil)
		if lost != (ruleOf(err) == ruleKeepsMarks) || !lost && err != nil {
			t.Errorf("as %s: %v", marking, err)
		}
		up, err := c.ts.CreateUpload(ctx, w, redoubt.CreateUpload{Name: redoubt.ObjectName{Bucket: "reports", Key: "parts"}, Label: marking})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = c.ts.CopyPart(ctx, w, redoubt.CopyPart{Name: up.Name, Upload: up.ID, Number: 1, Source: redoubt.ObjectName{Bucket: "reports", Key: "plan"}, N: -1})
		if lost != (ruleOf(err) == ruleKeepsMarks) || !lost && err != nil {
			t.Errorf("a part as %s: %v", marking, err)
		}
	}
	_, err := c.ts.Upgrade(ctx, c.ts.as("officer", "TOP SECRET"), redoubt.Regrade{Name: planRequest.Name, Label: "TOP SECRET", Reason: "too low"})
	wantRefusal(t, "upgraded without it", err, redoubt.Denied, ruleKeepsMarks)
	if _, err := c.ts.Upgrade(ctx, c.ts.as("officer", "TOP SECRET"), redoubt.Regrade{Name: planRequest.Name, Label: "TOP SECRET//ORCON", Reason: "too low"}); err != nil {
		t.Errorf("upgraded with it: %v", err)
	}
}

// TestWhatIsPutTogetherOfSeveralPeoplesIsNobodysToLetLeave.
func TestWhatIsPutTogetherOfSeveralPeoplesIsNobodysToLetLeave(t *testing.T) {
	c := openChain(t)
	ctx, who := context.Background(), c.ts.as("rev-3", "SECRET")
	big := strings.Repeat("x", redoubt.MinPartBytes)
	c.ts.put(c.ts.as("ts-analyst", "SECRET"), "hers", big, orcon)
	c.ts.put(c.ts.as("s-analyst", "SECRET"), "his", big, orcon)
	for what, one := range map[string]struct {
		parts []string // keys that are copied, or "" for her own
		want  redoubt.SubjectName
	}{"one's": {[]string{"hers", "hers"}, "ts-analyst"}, "two people's": {[]string{"hers", "his"}, ""}, "one's and the copier's": {[]string{"hers", ""}, ""}, "her own": {[]string{"", ""}, "rev-3"}} {
		name := redoubt.ObjectName{Bucket: "reports", Key: "made of " + what}
		up, err := c.ts.CreateUpload(ctx, who, redoubt.CreateUpload{Name: name, Label: orcon})
		if err != nil {
			t.Fatal(err)
		}
		var list []redoubt.CompletePart
		for i, key := range one.parts {
			var part redoubt.Part
			if key == "" {
				part, err = c.ts.PutPart(ctx, who, redoubt.PutPart{Name: name, Upload: up.ID, Number: i + 1, SizeBytes: int64(len(big)), Body: strings.NewReader(big)})
			} else {
				part, _, err = c.ts.CopyPart(ctx, who, redoubt.CopyPart{Name: name, Upload: up.ID, Number: i + 1, Source: redoubt.ObjectName{Bucket: "reports", Key: key}, N: -1})
			}
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, redoubt.CompletePart{Number: i + 1, ETag: part.ETag})
		}
		if _, err := c.ts.CompleteUpload(ctx, who, redoubt.CompleteUpload{Name: name, Upload: up.ID, Parts: list, SizeBytes: -1}); err != nil {
			t.Fatal(err)
		}
		got, hint := c.originator(name.Key)
		if got != one.want || one.want == "" && !strings.Contains(hint, "several people") {
			t.Errorf("%s: it is %q's (%s), want %q's", what, got, hint, one.want)
		}
	}
}

// TestWhoseConsentCannotBeProvedIsSaid, and nothing leaves.
func TestWhoseConsentCannotBeProvedIsSaid(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	low := c.secret.as("s-analyst", "SECRET")
	c.secret.put(low, "raised", "text", orcon) // by somebody whom the higher enclave knows by the same name and key
	c.raise(c.secret, c.ts)
	if _, err := c.ts.CopyObject(ctx, c.ts.as("rev-3", "SECRET"), redoubt.CopyObject{Source: redoubt.ObjectName{Bucket: "secret.reports", Key: "raised"}, Target: redoubt.ObjectName{Bucket: "reports", Key: "raised"}}); err != nil {
		t.Fatal(err)
	}
	if got, hint := c.originator("raised"); got != "s-analyst" {
		t.Errorf("what was raised is %q's (%s)", got, hint)
	}
	q := planRequest
	q.Name = redoubt.ObjectName{Bucket: "secret.reports", Key: "raised"}
	_, err := c.ts.RequestRelease(ctx, c.ts.as("s-analyst", ""), q)
	wantRefusal(t, "where it was raised to", err, redoubt.Denied, ruleOrigin)

	who := c.ts.as("rev-3", "SECRET")
	for key, meta := range map[string]string{"guard": "guard.topsecret", "partner": "their.analyst", "nobody": "who-was-here", "several": redoubt.SeveralOriginators, "low": "u-analyst"} {
		if _, err := c.ts.PutObject(ctx, who, redoubt.PutObject{Name: redoubt.ObjectName{Bucket: "reports", Key: key}, Label: orcon, SizeBytes: 4, Body: strings.NewReader("text"),
			Attributes: redoubt.Attributes{Meta: map[string]string{redoubt.MetaOriginator: meta}}}); err != nil {
			t.Fatal(err)
		}
	}
	for key, says := range map[string]string{"guard": "not of this estate or not known", "partner": "not of this estate or not known", "nobody": "who-was-here, who is no subject here", "several": "several people", "low": "u-analyst, who is no subject here, is one no more, or is not cleared"} {
		if got, hint := c.originator(key); got != "" || !strings.Contains(hint, says) {
			t.Errorf("%s is %q's: %q, want %q", key, got, hint, says)
		}
	}
	// A name that an agreement made known here: what a partner gave is not its own people's to let leave from here.
	if _, err := c.ts.PutObject(ctx, who, redoubt.PutObject{Name: redoubt.ObjectName{Bucket: "reports", Key: "theirs"}, Label: orcon, SizeBytes: 4, Body: strings.NewReader("text"),
		Attributes: redoubt.Attributes{Meta: map[string]string{redoubt.MetaOriginatorLabel: "x"}}}); err != nil {
		t.Fatal(err)
	}
	if got, hint := c.originator("theirs"); got != "" || !strings.Contains(hint, "it came from a partner") {
		t.Errorf("a partner's is %q's: %q", got, hint)
	}
}

// TestWhatIsReleasedStillMarkedIsItsOriginatorsBelow.
func TestWhatIsReleasedStillMarkedIsItsOriginatorsBelow(t *testing.T) {
	c := openChain(t)
	ctx := context.Background()
	id := c.askMarked("ts-analyst", orcon, func(q *redoubt.RequestRelease) {
		q.Label, q.Keep = "CONFIDENTIAL//ORCON", []string{redoubt.MetaOriginator}
	}).ID
	c.rebuilt(id, "the plan")
	for _, err := range []error{c.consents("ts-analyst", id), c.approve("rev-1", id), c.approve("rev-2", id)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	p, text := c.fetched(id)
	if _, err := c.accept(p, text); err != nil {
		t.Fatal(err)
	}
	who := c.secret.as("s-analyst", "CONFIDENTIAL")
	if _, err := c.secret.CopyObject(ctx, who, redoubt.CopyObject{Source: redoubt.ObjectName{Bucket: "topsecret.reports", Key: "plan"}, Target: redoubt.ObjectName{Bucket: "reports", Key: "plan"}}); err != nil {
		t.Fatal(err)
	}
	r, err := c.secret.RequestRelease(ctx, who, redoubt.RequestRelease{Name: redoubt.ObjectName{Bucket: "reports", Key: "plan"}, To: "unclass", Label: "UNCLASSIFIED", Reason: "press"})
	if err != nil || r.Originator != "ts-analyst" || strings.Join(r.ConsentFor, "") != "ORCON" {
		t.Errorf("it is %q's for %v, %v", r.Originator, r.ConsentFor, err)
	}
}

const kas = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

// exportMarked is an export of what needs ts-analyst's consent, and what she would say.
func exportMarked(c *chain) (redoubt.ExportVersion, redoubt.ConsentExport) {
	c.t.Helper()
	v := c.ts.put(c.ts.as("ts-analyst", relGBR), "plan", "the plan", "SECRET//ORCON/REL TO USA, GBR")
	sum := sha256.Sum256([]byte("the plan"))
	name := redoubt.ObjectName{Bucket: "reports", Key: "plan"}
	return redoubt.ExportVersion{Name: name, Nation: "GBR", Reason: "exercise", KAS: kas},
		redoubt.ConsentExport{Name: name, Version: v.ID, Nation: "GBR", KAS: kas, SHA256: hex.EncodeToString(sum[:]), Expires: c.hands.clock().Add(time.Hour).UTC().Truncate(time.Second)}
}

// consentsTo has somebody consent to an export, by what the node gives her to sign, changed.
func (c *chain) consentsTo(by redoubt.SubjectName, q redoubt.ConsentExport, change func(*redoubt.ExportConsent)) error {
	c.t.Helper()
	ctx, who := context.Background(), c.ts.as(by, "SECRET")
	out, err := c.ts.ConsentExport(ctx, who, q)
	if err != nil {
		return err
	}
	if change != nil {
		change(&out)
	}
	q.Sig = base64.StdEncoding.EncodeToString(ed25519.Sign(c.keys[by], redoubt.ExportConsentMessage(out)))
	_, err = c.ts.ConsentExport(ctx, who, q)
	return err
}

// export lets it out, or says why not.
func (c *chain) export(by redoubt.SubjectName, q redoubt.ExportVersion) error {
	c.t.Helper()
	out, o, err := c.ts.ExportVersion(context.Background(), c.ts.as(by, "SECRET"), q)
	if err != nil {
		return err
	}
	defer o.Close()
	if got := content(c.t, o, 0, -1); got != "the plan" || out.Consent == nil || out.Consent.Originator != "ts-analyst" || out.Consent.KAS != q.KAS {
		c.t.Errorf("given is %q, by %+v", got, out.Consent)
	}
	return nil
}

func TestWhatIsMarkedIsExportedByItsOriginatorsConsentOnce(t *testing.T) {
	c := openChain(t)
	q, give := exportMarked(c)
	wantRefusal(t, "without it", c.export("rev-1", q), redoubt.Denied, ruleConsent)
	if _, err := c.ts.ConsentExport(context.Background(), c.ts.as("ts-analyst", "SECRET"), give); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "asked for and not signed", c.export("rev-1", q), redoubt.Denied, ruleConsent)
	if err := c.consentsTo("ts-analyst", give, nil); err != nil {
		t.Fatal(err)
	}
	c.ts.restartGuarded(c)
	for what, change := range map[string]func(*redoubt.ExportVersion){
		"for another key": func(q *redoubt.ExportVersion) { q.KAS = strings.Repeat("0", 64) },
		"for no key":      func(q *redoubt.ExportVersion) { q.KAS = "" },
	} {
		other := q
		change(&other)
		wantRefusal(t, what, c.export("rev-1", other), redoubt.Denied, ruleConsent)
	}
	other := q
	other.KAS = "what"
	wantRefusal(t, "for what is no key", c.export("rev-1", other), redoubt.Invalid, ruleKAS)
	var wg sync.WaitGroup
	left := make(chan error, 8)
	who := c.ts.as("rev-1", "SECRET")
	for range 8 { // at once, too
		wg.Go(func() {
			_, o, err := c.ts.ExportVersion(context.Background(), who, q)
			if err == nil {
				err = o.Close()
			}
			left <- err
		})
	}
	wg.Wait()
	count := 0
	for range 8 {
		if err := <-left; err == nil {
			count++
		} else if ruleOf(err) != ruleConsent {
			t.Error(err)
		}
	}
	if count != 1 {
		t.Errorf("it left %d times by one consent", count)
	}
	c.ts.restartGuarded(c)
	wantRefusal(t, "once more, after a kill", c.export("rev-1", q), redoubt.Denied, ruleConsent)
	wantRefusal(t, "the same consent given again", c.consentsTo("ts-analyst", give, nil), redoubt.Conflict, ruleConsent)
	give.Expires = give.Expires.Add(time.Second)
	if err := c.consentsTo("ts-analyst", give, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.export("rev-2", q); err != nil {
		t.Errorf("by another consent: %v", err)
	}
	if !c.ts.saysOn(redoubt.ActionExportZTDF, "by consent of ts-analyst, key "+kas+", to GBR, sha256 ") || !c.ts.saysOn(redoubt.ActionConsent, "an export to GBR, key "+kas) {
		t.Error("it is not on record by whose consent it left")
	}
}

func TestOnlyTheOriginatorConsentsToAnExport(t *testing.T) {
	c := openChain(t)
	q, give := exportMarked(c)
	for _, by := range []redoubt.SubjectName{"rev-1", "rev-3", "s-analyst"} {
		if err := c.consentsTo(by, give, nil); redoubt.KindOf(err) != redoubt.Denied || ruleOf(err) != ruleConsent {
			t.Errorf("%s: %v", by, err)
		}
	}
	for what, change := range map[string]func(*redoubt.ExportConsent){
		"for another nation":   func(x *redoubt.ExportConsent) { x.Nation = "AUS" },
		"for another key":      func(x *redoubt.ExportConsent) { x.KAS = strings.Repeat("0", 64) },
		"over other content":   func(x *redoubt.ExportConsent) { x.SHA256 = strings.Repeat("0", 64) },
		"until another time":   func(x *redoubt.ExportConsent) { x.Expires = x.Expires.Add(time.Second) },
		"of another version":   func(x *redoubt.ExportConsent) { x.Version = "v" },
		"of another label":     func(x *redoubt.ExportConsent) { x.Label = relGBR },
		"at another node":      func(x *redoubt.ExportConsent) { x.Node = "secret" },
		"in another estate":    func(x *redoubt.ExportConsent) { x.Estate = "other" },
		"under other markings": func(x *redoubt.ExportConsent) { x.Policy = "USA@0" },
	} {
		wantRefusal(t, "signed "+what, c.consentsTo("ts-analyst", give, change), redoubt.Denied, identity.RuleSignature)
	}
	release := give
	release.Sig = base64.StdEncoding.EncodeToString(ed25519.Sign(c.keys["ts-analyst"], redoubt.ConsentMessage(redoubt.ReleasePublic{SHA256: give.SHA256})))
	_, err := c.ts.ConsentExport(context.Background(), c.ts.as("ts-analyst", "SECRET"), release)
	wantRefusal(t, "a consent to a release", err, redoubt.Denied, identity.RuleSignature)
	for what, change := range map[string]func(*redoubt.ConsentExport){
		"for too long":      func(x *redoubt.ConsentExport) { x.Expires = x.Expires.Add(redoubt.MaxReleaseLife + time.Hour) },
		"that has ended":    func(x *redoubt.ConsentExport) { x.Expires = c.hands.clock() },
		"for no nation":     func(x *redoubt.ConsentExport) { x.Nation = "XXX" },
		"for the own one":   func(x *redoubt.ConsentExport) { x.Nation = "USA" },
		"for no key":        func(x *redoubt.ConsentExport) { x.KAS = "" },
		"of no version":     func(x *redoubt.ConsentExport) { x.Version = "" },
		"with a long one":   func(x *redoubt.ConsentExport) { x.Sig = strings.Repeat("x", 200) },
		"over no digest":    func(x *redoubt.ConsentExport) { x.SHA256 = strings.ToUpper(x.SHA256) },
		"of an invalid key": func(x *redoubt.ConsentExport) { x.Name.Key = "" },
	} {
		x := give
		change(&x)
		if _, err := c.ts.ConsentExport(context.Background(), c.ts.as("ts-analyst", "SECRET"), x); redoubt.KindOf(err) != redoubt.Invalid {
			t.Errorf("one %s: %v", what, err)
		}
	}
	wantRefusal(t, "after all that", c.export("rev-1", q), redoubt.Denied, ruleConsent)

	low := c.ts.as("ts-analyst", "UNCLASSIFIED")
	_, err = c.ts.ConsentExport(context.Background(), low, give)
	none := give
	none.Name.Key = "nothing"
	_, nothing := c.ts.ConsentExport(context.Background(), low, none)
	if redoubt.KindOf(err) != redoubt.NotFound || strings.ReplaceAll(err.Error(), "plan", "nothing") != nothing.Error() {
		t.Errorf("of what is above: %v; of nothing: %v", err, nothing)
	}
}

func TestAConsentToAnExportDiesWithWhatItRestsOn(t *testing.T) {
	ctx := context.Background()
	for what, one := range map[string]struct {
		change func(c *chain)
		rule   string
	}{
		"written over": {func(c *chain) {
			c.ts.put(c.ts.as("ts-analyst", relGBR), "plan", "the plan", "SECRET//ORCON/REL TO USA, GBR")
		}, ruleConsent},
		"its time over":  {func(c *chain) { c.hands.add(2 * time.Hour) }, ruleConsent},
		"she is revoked": {func(c *chain) { _ = c.ts.RevokePerson(ctx, c.ts.as("officer", "SECRET"), "ts-analyst", "left") }, ruleConsent},
		"she is cleared for less": {func(c *chain) {
			c.hands.add(time.Minute)
			c.ts.changed(redoubt.Person{Name: "ts-analyst", Clearance: "CONFIDENTIAL", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleAnalyst}}, "officer", "officer-2")
		}, ruleConsent},
		"she has another key": {func(c *chain) {
			c.hands.add(time.Minute)
			public, _, _ := ed25519.GenerateKey(nil)
			c.ts.changed(redoubt.Person{Name: "ts-analyst", Clearance: "SECRET", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleAnalyst}, PublicKey: base64.StdEncoding.EncodeToString(public)}, "officer", "officer-2")
		}, identity.RuleSignature},
	} {
		c := openChain(t)
		q, give := exportMarked(c)
		q.Version = give.Version
		if err := c.consentsTo("ts-analyst", give, nil); err != nil {
			t.Fatal(err)
		}
		one.change(c)
		wantRefusal(t, what, c.export("rev-1", q), redoubt.Denied, one.rule)
	}
	// Content that is another than she signed for stays: the digest is that of what leaves.
	c := openChain(t)
	q, give := exportMarked(c)
	give.SHA256 = strings.Repeat("0", 64)
	if err := c.consentsTo("ts-analyst", give, nil); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "over other content", c.export("rev-1", q), redoubt.Denied, ruleConsent)
	// Who consents does not let it out herself.
	c = openChain(t)
	c.ts.put(c.ts.as("rev-3", relGBR), "plan", "the plan", "SECRET//ORCON/REL TO USA, GBR")
	q.Version = ""
	wantRefusal(t, "by who consents", c.export("rev-3", q), redoubt.Denied, ruleAuthor)
	if _, err := c.ts.copied(c.ts.as("ts-analyst", relGBR), "plan", "copy", "", nil); err != nil {
		t.Fatal(err)
	}
	q.Name.Key = "copy"
	wantRefusal(t, "by whose it is", c.export("rev-3", q), redoubt.Denied, ruleAuthor)
}

// TestASettledConflictIsItsOriginatorsAsBefore: who keeps one of two versions writes it anew, and it is not hers.
func TestASettledConflictIsItsOriginatorsAsBefore(t *testing.T) {
	p := openPair(t, "SECRET", nil)
	ctx := context.Background()
	p.home.put(p.home.as("s-analyst", orcon), "plan", "from home", "")
	p.device.put(p.device.as("s-analyst", orcon), "plan", "from the device", "")
	carry(t, p.device, p.home)
	v, err := p.home.ResolveConflict(ctx, p.home.as("ts-analyst", orcon), named("plan"), "")
	if err != nil || v.Author != "ts-analyst" || v.Attributes.Meta[redoubt.MetaOriginator] != "s-analyst" {
		t.Errorf("it is %+v, %v", v, err)
	}
	if _, refused := carry(t, p.home, p.device); len(refused) > 0 {
		t.Errorf("refused %+v", refused)
	}
	there, err := p.device.HeadObject(ctx, p.device.as("s-analyst", ""), redoubt.ReadObject{Name: named("plan")})
	if err != nil || there.Attributes.Meta[redoubt.MetaOriginator] != "s-analyst" {
		t.Errorf("where it travelled it is %+v, %v", there, err)
	}
}
