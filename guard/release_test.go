package guard

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"redoubt"
	"redoubt/faketime"
	"redoubt/label"
)

// desk is both ends of releases as a guard sees them. It notes what it is asked.
type desk struct {
	mu      sync.Mutex
	work    map[redoubt.ReleaseID]redoubt.ReleaseWork
	content map[redoubt.ReleaseID][]byte
	news    chan struct{}

	verdicts map[redoubt.ReleaseID]redoubt.ReleaseVerdict
	rebuilt  map[redoubt.ReleaseID][]byte
	packages map[redoubt.ReleaseID]redoubt.ReleasePackage
	accepted []redoubt.ReleaseID
	same     int // of accepted, by the source itself
	finished map[redoubt.ReleaseID]string
	fails    map[string][]error  // by method, of the next calls
	refuses  error               // of the target
	has      []redoubt.ReleaseID // of the target, before
}

func newDesk() *desk {
	return &desk{work: map[redoubt.ReleaseID]redoubt.ReleaseWork{}, content: map[redoubt.ReleaseID][]byte{}, news: make(chan struct{}, 100), verdicts: map[redoubt.ReleaseID]redoubt.ReleaseVerdict{},
		rebuilt: map[redoubt.ReleaseID][]byte{}, packages: map[redoubt.ReleaseID]redoubt.ReleasePackage{}, finished: map[redoubt.ReleaseID]string{}, fails: map[string][]error{}}
}

// fail gives the next error that a method is to fail with. mu is held.
func (d *desk) fail(method string) error {
	if len(d.fails[method]) == 0 {
		return nil
	}
	err := d.fails[method][0]
	d.fails[method] = d.fails[method][1:]
	return err
}

func (d *desk) PendingReleases(ctx context.Context, _ redoubt.Credential, state redoubt.ReleaseState) ([]redoubt.ReleaseID, error) {
	for {
		d.mu.Lock()
		if err := d.fail("PendingReleases"); err != nil {
			d.mu.Unlock()
			return nil, err
		}
		var ids []redoubt.ReleaseID
		for id := range d.work {
			_, judged := d.verdicts[id]
			_, signed := d.packages[id]
			_, done := d.finished[id]
			if state == redoubt.ReleaseRequested && !judged && !signed || state == redoubt.ReleaseApproved && signed && !done {
				ids = append(ids, id)
			}
		}
		d.mu.Unlock()
		if slices.Sort(ids); len(ids) > 0 {
			return ids, nil
		}
		select {
		case <-d.news:
		case <-ctx.Done():
			return nil, nil
		}
	}
}

// held is content in memory, which may fail to be read.
type held struct {
	b      []byte
	closed *bool
}

func (h held) Version() redoubt.Version { return redoubt.Version{SizeBytes: int64(len(h.b))} }
func (h held) Close() error             { return nil }
func (h held) Reader(off, n int64) io.Reader {
	return bytes.NewReader(h.b)
}

func (d *desk) FetchRelease(_ context.Context, _ redoubt.Credential, id redoubt.ReleaseID) (redoubt.ReleaseWork, redoubt.Object, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.fail("FetchRelease"); err != nil {
		return redoubt.ReleaseWork{}, nil, err
	}
	return d.work[id], held{b: d.content[id]}, nil
}

func (d *desk) SubmitRelease(_ context.Context, _ redoubt.Credential, id redoubt.ReleaseID, v redoubt.ReleaseVerdict, content io.Reader) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.fail("SubmitRelease"); err != nil {
		return err
	}
	d.verdicts[id] = v
	if content != nil {
		d.rebuilt[id], _ = io.ReadAll(content)
	}
	return nil
}

func (d *desk) FetchApproved(_ context.Context, _ redoubt.Credential, id redoubt.ReleaseID) (redoubt.ReleasePackage, redoubt.Object, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.fail("FetchApproved"); err != nil {
		return redoubt.ReleasePackage{}, nil, err
	}
	if d.packages[id].Settle {
		return d.packages[id], nil, nil
	}
	return d.packages[id], held{b: d.content[id]}, nil
}

func (d *desk) ReleaseTaken(_ context.Context, _ redoubt.Credential, p redoubt.ReleasePublic) (redoubt.ReleaseReceipt, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return redoubt.ReleaseReceipt{ReleasePublic: p}, slices.Contains(d.has, p.ID), d.fail("ReleaseTaken")
}

func (d *desk) FinishRelease(_ context.Context, _ redoubt.Credential, id redoubt.ReleaseID, receipt *redoubt.ReleaseReceipt, refused string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.fail("FinishRelease"); err != nil {
		return err
	}
	if receipt != nil {
		refused = "receipt"
	}
	d.finished[id] = refused
	return nil
}

func (d *desk) AcceptRelease(_ context.Context, _ redoubt.Credential, p redoubt.ReleasePackage, content io.Reader) (redoubt.ReleaseReceipt, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.fail("AcceptRelease"); err != nil {
		return redoubt.ReleaseReceipt{}, err
	}
	if d.refuses != nil {
		return redoubt.ReleaseReceipt{}, d.refuses
	}
	b, err := io.ReadAll(content)
	if err != nil || len(b) != int(p.Statement.SizeBytes) {
		return redoubt.ReleaseReceipt{}, redoubt.BadDigest
	}
	d.accepted = append(d.accepted, p.Statement.ID)
	return redoubt.ReleaseReceipt{ReleasePublic: p.Statement.Public()}, nil
}

// sameDesk is the source as a target of its own.
type sameDesk struct{ *desk }

func (d sameDesk) AcceptRelease(ctx context.Context, g redoubt.Credential, p redoubt.ReleasePackage, content io.Reader) (redoubt.ReleaseReceipt, error) {
	r, err := d.desk.AcceptRelease(ctx, g, p, content)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		d.same++
	}
	return r, err
}

// sieve is a filter that does what a test says.
type sieve struct {
	name  string
	clean func(in Content) ([]byte, []redoubt.Finding, error)
	seen  *[]string
}

func (s sieve) Name() string { return s.name }
func (s sieve) Clean(_ context.Context, in Content) ([]byte, []redoubt.Finding, error) {
	if s.seen != nil {
		*s.seen = append(*s.seen, s.name+":"+in.Type+":"+string(in.Bytes))
	}
	return s.clean(in)
}

// adds gives what it was given, and a letter.
func adds(letter string) func(Content) ([]byte, []redoubt.Finding, error) {
	return func(in Content) ([]byte, []redoubt.Finding, error) {
		return append(bytes.Clone(in.Bytes), letter...), []redoubt.Finding{{Rule: "added " + letter}}, nil
	}
}

// office is a guard of secret and topsecret, with two filters.
type office struct {
	*desk
	r    *Releaser
	o    ReleaserOptions
	pair Pair
	seen []string
}

func openOffice(t *testing.T, first, second func(Content) ([]byte, []redoubt.Finding, error)) *office {
	t.Helper()
	policy, err := label.Builtin("USA")
	if err != nil {
		t.Fatal(err)
	}
	words, err := NewWords([]string{"BLUEBIRD"}, policy)
	if err != nil {
		t.Fatal(err)
	}
	of := &office{desk: newDesk()}
	of.pair = Pair{sieve{"first", first, &of.seen}, sieve{"second", second, &of.seen}}
	mark := func(s string) label.Label {
		l, err := policy.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	of.o = ReleaserOptions{Rules: Rules{Digest: "rules", Types: []string{"text/plain", "application/json"}, Floor: mark("UNCLASSIFIED"), Limit: mark("SECRET"), Policy: policy, High: "topsecret", Low: "secret"},
		Source: of, Same: sameDesk{of.desk}, Target: of, Filters: func(string) (Pair, error) { return of.pair, nil }, Words: words}
	of.r = NewReleaser(of.o)
	return of
}

func (of *office) ask(id redoubt.ReleaseID, content string, change func(*redoubt.ReleaseWork)) {
	w := redoubt.ReleaseWork{Release: redoubt.Release{ID: id, From: "topsecret", To: "secret", Label: "SECRET", As: "UNCLASSIFIED", Key: "plan.txt"}, Attributes: redoubt.Attributes{ContentType: "text/plain"}}
	if change != nil {
		change(&w)
	}
	of.mu.Lock()
	of.work[id], of.content[id] = w, []byte(content)
	of.mu.Unlock()
	of.news <- struct{}{}
}

// runs lets the guard work for a while.
func (of *office) runs(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	of.r.Run(ctx)
}

func TestEveryStepOfThePipelineIsInvokedAndWhatLeavesIsTheSecondFilters(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		of := openOffice(t, adds("1"), adds("2"))
		of.ask("a", "text", nil)
		of.runs(t, time.Second)
		v := of.verdicts["a"]
		if string(of.rebuilt["a"]) != "text12" || v.Refused != "" || v.ContentType != "text/plain" || v.Rules != "rules" {
			t.Errorf("it came to %q, %+v", of.rebuilt["a"], v)
		}
		if want := []string{"first:text/plain:text", "second:text/plain:text1"}; !slices.Equal(of.seen, want) {
			t.Errorf("the filters were asked %v, want %v", of.seen, want)
		}
		if len(v.Findings) != 2 || v.Findings[0].Step != "filter first" || v.Findings[1].Step != "filter second" {
			t.Errorf("found %+v", v.Findings)
		}
	})
}

func TestEachStepRefusesAlone(t *testing.T) {
	fails := func(err error) func(Content) ([]byte, []redoubt.Finding, error) {
		return func(Content) ([]byte, []redoubt.Finding, error) { return []byte("leaks"), nil, err }
	}
	panics := func(Content) ([]byte, []redoubt.Finding, error) { panic("taken over") }
	large := func(Content) ([]byte, []redoubt.Finding, error) {
		return make([]byte, redoubt.MaxReleaseBytes+1), nil, nil
	}
	says := func(s string) func(Content) ([]byte, []redoubt.Finding, error) {
		return func(Content) ([]byte, []redoubt.Finding, error) { return []byte(s), nil, nil }
	}
	for what, one := range map[string]struct {
		first, second func(Content) ([]byte, []redoubt.Finding, error)
		content       string
		change        func(*redoubt.ReleaseWork)
		why           string
		asked         int // filters
	}{
		"policy: no label":           {change: func(w *redoubt.ReleaseWork) { w.As = "NO SUCH" }, why: "policy"},
		"policy: beyond the target":  {change: func(w *redoubt.ReleaseWork) { w.As = "TOP SECRET" }, why: "policy: within the target's range"},
		"policy: to another":         {change: func(w *redoubt.ReleaseWork) { w.To = "unclass" }, why: "policy: between"},
		"policy: from another":       {change: func(w *redoubt.ReleaseWork) { w.From = "secret" }, why: "policy: between"},
		"policy: too large":          {content: strings.Repeat("x", redoubt.MaxReleaseBytes+1), why: "policy: too large"},
		"type: none":                 {content: "\xff\xfe\x00", why: "type: unknown type"},
		"type: not of the list":      {content: "%PDF-1.7", why: "type: type not allowed"},
		"type: a PNG called text":    {content: "\x89PNG\r\n\x1a\n", why: "type: type not allowed"},
		"first filter: refuses":      {first: fails(refuse("filter first", "hidden", "a layer")), why: "filter first: hidden: a layer", asked: 1},
		"first filter: fails":        {first: fails(errors.New("killed")), why: "a filter failed", asked: 1},
		"first filter: panics":       {first: panics, why: "a filter failed", asked: 1},
		"first filter: too large":    {first: large, why: "filter first: too large", asked: 1},
		"second filter: refuses":     {second: fails(refuse("filter second", "hidden", "")), why: "filter second: hidden", asked: 2},
		"second filter: fails":       {second: fails(context.DeadlineExceeded), why: "a filter failed", asked: 2},
		"second filter: panics":      {second: panics, why: "a filter failed", asked: 2},
		"second filter: too large":   {second: large, why: "filter second: too large", asked: 2},
		"words: in the content":      {second: says("the bluebird flies"), why: "words", asked: 2},
		"words: a marking":           {second: says("(S//NF) the plan"), why: "words", asked: 2},
		"words: in the name":         {change: func(w *redoubt.ReleaseWork) { w.Key = "bluebird.txt" }, why: "words", asked: 2},
		"words: in the metadata":     {change: func(w *redoubt.ReleaseWork) { w.Attributes.Meta = map[string]string{"subject": "BLUEBIRD"} }, why: "words", asked: 2},
		"words: in metadata's name":  {change: func(w *redoubt.ReleaseWork) { w.Attributes.Meta = map[string]string{"bluebird": "x"} }, why: "words", asked: 2},
		"words: what is unreadable":  {change: func(w *redoubt.ReleaseWork) { w.Key = "plan.json" }, second: says("{"), why: "words: what is to leave cannot be searched", asked: 2},
		"words: escaped in a string": {change: func(w *redoubt.ReleaseWork) { w.Key = "plan.json" }, second: says(`{"a":"BL\u0055EBIRD"}`), why: "words", asked: 2},
	} {
		faketime.Test(t, func(t *testing.T) {
			same := func(in Content) ([]byte, []redoubt.Finding, error) { return in.Bytes, nil, nil }
			if one.first == nil {
				one.first = same
			}
			if one.second == nil {
				one.second = same
			}
			if one.content == "" {
				one.content = "text"
			}
			of := openOffice(t, one.first, one.second)
			of.ask("a", one.content, one.change)
			of.runs(t, time.Second)
			v, judged := of.verdicts["a"]
			if !judged || !strings.HasPrefix(v.Refused, one.why) || of.rebuilt["a"] != nil || len(of.seen) != one.asked {
				t.Errorf("%s: it came to %+v (%v) and %q by %d filters, want it refused: %s", what, v, judged, of.rebuilt["a"], len(of.seen), one.why)
			}
		})
	}
}

func TestWithoutTwoFiltersNothingPasses(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		of := openOffice(t, adds("1"), adds("2"))
		for i, pair := range []Pair{{}, {First: of.pair.First}, {Second: of.pair.Second}} {
			id := redoubt.ReleaseID(fmt.Sprint(i))
			of.pair = pair
			of.ask(id, "text", nil)
			of.runs(t, time.Second)
			if of.verdicts[id].Refused == "" || of.rebuilt[id] != nil {
				t.Errorf("%d: %+v", i, of.verdicts[id])
			}
		}
		of.o.Filters = func(string) (Pair, error) { return Pair{}, redoubt.Unavailable }
		of.r = NewReleaser(of.o)
		of.ask("none", "text", nil)
		of.runs(t, time.Second)
		if of.verdicts["none"].Refused == "" {
			t.Errorf("%+v", of.verdicts["none"])
		}
	})
}

// TestAVerdictAlwaysFits: one that the source cannot take would be brought again for ever, and keep the others waiting.
func TestAVerdictAlwaysFits(t *testing.T) {
	for name, detail := range map[string]string{"plain": "x", "escaped": "<", "wide": "\U0001f600", "control": "\x01"} {
		for _, ends := range []error{nil, refuse("filter second", "no", strings.Repeat(detail, 3000))} {
			faketime.Test(t, func(t *testing.T) {
				of := openOffice(t, adds("1"), func(Content) ([]byte, []redoubt.Finding, error) {
					var many []redoubt.Finding
					for i := range 300 {
						many = append(many, redoubt.Finding{Rule: strings.Repeat(detail, 300), Detail: fmt.Sprint(i, strings.Repeat(detail, 300))})
					}
					return []byte("text"), many, ends
				})
				of.ask("a", "text", nil)
				of.runs(t, time.Second)
				v, ok := of.verdicts["a"]
				n := asciiBytes(v)
				if !ok || n > 48<<10 || len(v.Findings) > redoubt.MaxReleaseReport || len(v.Findings) < 5 || len(v.Refused) > redoubt.MaxReleaseReason || (v.Refused == "") != (ends == nil) {
					t.Errorf("%s: %d bytes with %d findings, refused %.20q", name, n, len(v.Findings), v.Refused)
				}
				for _, f := range v.Findings {
					if len(f.Detail) > 256 || len(f.Rule) > 128 || len(f.Step) > 64 {
						t.Errorf("%s: %+v", name, f)
					}
				}
			})
		}
	}
}

func TestWhatHidesInANameEndsTheReleaseAndIsNotRepeated(t *testing.T) {
	hidden := strings.Repeat("\U000E0141\U000E0142\uFE03", 80)
	for what, one := range map[string]struct {
		change func(*redoubt.ReleaseWork)
		where  string
	}{
		"the key":        {func(w *redoubt.ReleaseWork) { w.Key = "plan" + hidden }, "the key, at byte 4"},
		"a filler":       {func(w *redoubt.ReleaseWork) { w.Key = "\u3164.txt" }, "the key, at byte 0"},
		"another script": {func(w *redoubt.ReleaseWork) { w.Key = "p\u0430rt.txt" }, "the key"},
		"a name":         {func(w *redoubt.ReleaseWork) { w.Attributes.Meta = map[string]string{"a": "plain", "b" + hidden: "x"} }, "name 2 of the kept metadata, at byte 1"},
		"a value":        {func(w *redoubt.ReleaseWork) { w.Attributes.Meta = map[string]string{"a": "plain", "b": "x" + hidden} }, "value 2 of the kept metadata, at byte 1"},
	} {
		faketime.Test(t, func(t *testing.T) {
			of := openOffice(t, adds(""), adds(""))
			of.ask("a", "text", one.change)
			of.runs(t, time.Second)
			v := of.verdicts["a"]
			if of.rebuilt["a"] != nil || len(v.Findings) != 1 || !v.Findings[0].Fatal || v.Findings[0].Step != "names" || !strings.HasPrefix(v.Findings[0].Detail, one.where) || !strings.HasPrefix(v.Refused, "names: ") {
				t.Errorf("%s: it came to %+v", what, v)
			}
			if told := fmt.Sprint(v); strings.Contains(told, "\U000E0141") || strings.Contains(told, "\u3164") || strings.Contains(told, "\u0430") {
				t.Errorf("%s: the verdict repeats it: %+q", what, told)
			}
		})
	}
}

// TestALogOfRefusalsHasNoContent: it lies in clear on the guard's disk.
func TestALogOfRefusalsHasNoContent(t *testing.T) {
	const secret = "AGENT-NAME-IN-CLEAR"
	gives := func(err error) func(Content) ([]byte, []redoubt.Finding, error) {
		return func(Content) ([]byte, []redoubt.Finding, error) {
			return []byte(secret), []redoubt.Finding{{Rule: secret, Detail: secret}}, err
		}
	}
	panics := func(Content) ([]byte, []redoubt.Finding, error) { panic(secret) }
	for what, one := range map[string]struct {
		clean  func(Content) ([]byte, []redoubt.Finding, error)
		change func(*redoubt.ReleaseWork)
		step   string
	}{
		"a filter's refusal":  {clean: gives(&redoubt.Error{Op: "filter redoubt", Kind: redoubt.Denied, Rule: secret, Hint: secret}), step: `step="filter redoubt"`},
		"a filter's failure":  {clean: gives(&redoubt.Error{Op: "filter jq", Kind: redoubt.Internal, Err: errors.New(secret)}), step: `step="filter jq"`},
		"an error of no kind": {clean: gives(errors.New(secret)), step: `step=""`},
		"another's error":     {clean: gives(&redoubt.Error{Op: secret, Object: secret, Kind: redoubt.Internal}), step: "step=filter"},
		"a panic":             {clean: panics, step: `step=""`},
		"a word in the name":  {clean: adds(""), change: func(w *redoubt.ReleaseWork) { w.Key = secret + "-bluebird" }, step: "step=words"},
		"a label":             {change: func(w *redoubt.ReleaseWork) { w.As = secret }, step: "step=policy"},
		"a hidden name":       {change: func(w *redoubt.ReleaseWork) { w.Key = secret + "\u3164" }, step: "step=names"},
	} {
		faketime.Test(t, func(t *testing.T) {
			of := openOffice(t, one.clean, adds(""))
			var log bytes.Buffer
			of.o.Log = slog.New(slog.NewTextHandler(&log, nil))
			of.r = NewReleaser(of.o)
			of.ask("a1b2", "text "+secret, one.change)
			of.runs(t, time.Second)
			if got := log.String(); of.verdicts["a1b2"].Refused == "" || strings.Contains(got, secret) || !strings.Contains(got, "release=a1b2") || !strings.Contains(got, one.step) {
				t.Errorf("%s: refused %q, and the log has %s", what, of.verdicts["a1b2"].Refused, got)
			}
		})
	}
}

// TestAKeyClaimsNoOtherType: what a name makes of a text where it arrives is nothing that a filter of texts looked for.
func TestAKeyClaimsNoOtherType(t *testing.T) {
	png := "\x89PNG\r\n\x1a\n"
	for _, one := range []struct {
		key, content string
		passes       bool
	}{
		{"plan", "text", true}, {"plan.txt", "text", true}, {"PLAN.TXT", "text", true}, {"x.html.txt", "text", true}, {"v1.2/plan", "text", true}, {"plan.json", "{}", true},
		{"p.png", png, true}, {"p", png, true},
		{"x.html", "hello <script>alert(1)</script>", false}, {"x.HTML", "text", false}, {"x.svg", "x <svg onload=alert(1)>", false}, {"x.bat", "text", false}, {"x.ps1", "text", false}, {"x.hta", "text", false},
		{"x.bat ", "text", false}, {"x.bat.", "text", false}, {".profile", "text", false}, {"x.pdf", "text", false}, {"x.png", "text", false}, {"p.jpg", png, false}, {"p.txt", png, false},
	} {
		faketime.Test(t, func(t *testing.T) {
			of := openOffice(t, adds(""), adds(""))
			of.o.Rules.Types = append(of.o.Rules.Types, "image/png")
			of.r = NewReleaser(of.o)
			of.ask("a", one.content, func(w *redoubt.ReleaseWork) { w.Key = one.key })
			of.runs(t, time.Second)
			why := of.verdicts["a"].Refused
			if one.passes != (why == "") || !one.passes && !strings.HasPrefix(why, "type: a name of another type: ") || one.passes != (of.rebuilt["a"] != nil) {
				t.Errorf("%q under %q: refused %q", one.content, one.key, why)
			}
		})
	}
}

// sign puts a release where two have signed it.
func (of *office) sign(id redoubt.ReleaseID, change func(*redoubt.ReleasePackage)) {
	of.mu.Lock()
	sum := sha256.Sum256([]byte("text"))
	p := redoubt.ReleasePackage{Statement: redoubt.ReleaseStatement{ID: id, From: "topsecret", To: "secret", Requester: "ada", SizeBytes: 4, SHA256: hex.EncodeToString(sum[:]), Rules: "rules"},
		Approvals: []redoubt.Signature{{Signer: "rev-1"}, {Signer: "rev-2"}}}
	if change != nil {
		change(&p)
	}
	of.work[id], of.content[id], of.packages[id] = redoubt.ReleaseWork{}, []byte("text"), p
	of.mu.Unlock()
	of.news <- struct{}{}
}

func TestWhatWasSignedIsTakenOver(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		of := openOffice(t, adds("1"), adds("2"))
		of.sign("a", nil)
		of.sign("b", func(p *redoubt.ReleasePackage) { p.Statement.To = "topsecret" })
		for method, err := range map[string]error{"PendingReleases": redoubt.Unavailable, "FetchApproved": redoubt.Unavailable, "AcceptRelease": redoubt.DiskFull, "FinishRelease": redoubt.Unavailable} {
			of.fails[method] = []error{err, err} // each fails at first
		}
		of.runs(t, 5*time.Minute)
		if of.finished["a"] != "receipt" || of.finished["b"] != "receipt" || of.same == 0 || len(of.accepted) < 2 {
			t.Errorf("it ended %v, taken %v", of.finished, of.accepted)
		}
	})
}

// TestWhatEndedIsAskedForAndNotBrought, under whatever rules: only whether it was taken is still open.
func TestWhatEndedIsAskedForAndNotBrought(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		of := openOffice(t, adds("1"), adds("2"))
		of.has = []redoubt.ReleaseID{"a", "c"}
		for _, id := range []redoubt.ReleaseID{"a", "b", "c"} {
			of.sign(id, func(p *redoubt.ReleasePackage) {
				p.Settle, p.Statement.Rules = true, "others"
				if id == "c" {
					p.Statement.To = "topsecret"
				}
			})
		}
		of.fails["ReleaseTaken"] = []error{redoubt.Unavailable, redoubt.Denied, redoubt.Unavailable}
		of.fails["FinishRelease"] = []error{redoubt.Unavailable}
		of.runs(t, 5*time.Minute)
		if of.finished["a"] != "receipt" || of.finished["b"] != "it was not taken before" || of.finished["c"] != "receipt" || len(of.accepted) > 0 {
			t.Errorf("it ended %v, brought %v", of.finished, of.accepted)
		}
	})
}

// stalled is a lower enclave that takes what it is asked and never answers, until it heals.
type stalled struct {
	*desk
	heals time.Time
	asked *int
}

func (d stalled) AcceptRelease(ctx context.Context, g redoubt.Credential, p redoubt.ReleasePackage, content io.Reader) (redoubt.ReleaseReceipt, error) {
	if time.Now().After(d.heals) {
		return d.desk.AcceptRelease(ctx, g, p, content)
	}
	d.mu.Lock()
	*d.asked++
	d.mu.Unlock()
	<-ctx.Done()
	return redoubt.ReleaseReceipt{}, ctx.Err()
}

// TestASilentTargetHoldsUpNothingElse, neither what stays within the higher enclave nor itself for ever.
func TestASilentTargetHoldsUpNothingElse(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		of, asked, began := openOffice(t, adds("1"), adds("2")), 0, time.Now()
		of.o.Target = stalled{of.desk, began.Add(2 * time.Hour), &asked}
		of.r = NewReleaser(of.o)
		within := func(p *redoubt.ReleasePackage) { p.Statement.To = "topsecret" }
		for _, id := range []redoubt.ReleaseID{"a1", "a2", "a3", "a4"} {
			of.sign(id, nil)
		}
		of.sign("b1", within)
		go func() {
			time.Sleep(time.Minute)
			of.sign("b2", within)
		}()
		of.runs(t, 2*time.Minute)
		if of.finished["b1"] != "receipt" || of.finished["b2"] != "receipt" || len(of.finished) != 2 || asked != atOnce {
			t.Errorf("within minutes ended %v, asked %d times", of.finished, asked)
		}
		of.runs(t, 3*time.Hour)
		if len(of.finished) != 6 || asked < 4 {
			t.Errorf("after it came back ended %v, asked %d times before", of.finished, asked)
		}
	})
}

// TestAGuardFiltersNothingThatNamesNoOriginator, where its label asks for a consent.
func TestAGuardFiltersNothingThatNamesNoOriginator(t *testing.T) {
	for what, one := range map[string]struct {
		label, as  string
		originator redoubt.SubjectName
		leaves     bool
	}{
		"nobody named":              {"SECRET//ORCON", "UNCLASSIFIED", "", false},
		"nobody named, as marked":   {"SECRET", "CONFIDENTIAL//ORCON", "", false},
		"a label that is not known": {"SECRET//WHAT", "UNCLASSIFIED", "", false},
		"somebody named":            {"SECRET//ORCON", "UNCLASSIFIED", "ada", true},
		"nothing asks for it":       {"SECRET//NOFORN", "UNCLASSIFIED", "", true},
	} {
		faketime.Test(t, func(t *testing.T) {
			of := openOffice(t, adds("1"), adds("2"))
			of.ask("a", "text", func(w *redoubt.ReleaseWork) { w.Label, w.As, w.Originator = one.label, one.as, one.originator })
			of.runs(t, time.Minute)
			v := of.verdicts["a"]
			if (v.Refused == "") != one.leaves || !one.leaves && v.Refused != "policy: originator's consent: the source names nobody who may give it" {
				t.Errorf("%s: it came to %+v", what, v)
			}
		})
	}
}

// TestOneThatFailsHoldsUpNoOther: the first fails again and again.
func TestOneThatFailsHoldsUpNoOther(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		of := openOffice(t, adds("1"), adds("2"))
		of.sign("a", func(p *redoubt.ReleasePackage) { p.Statement.Rules = "others" }) // it waits for rules that agree
		go func() {
			time.Sleep(time.Hour)
			of.sign("b", nil)
		}()
		of.runs(t, time.Hour+10*time.Second)
		if of.finished["b"] != "receipt" || len(of.finished) != 1 {
			t.Errorf("ended %v", of.finished)
		}
	})
}

func TestWhatIsNotAsItWasSignedIsNotTakenOver(t *testing.T) {
	for what, change := range map[string]func(*redoubt.ReleasePackage){
		"other content":       func(p *redoubt.ReleasePackage) { p.Statement.SHA256 = strings.Repeat("0", 64) },
		"another size":        func(p *redoubt.ReleasePackage) { p.Statement.SizeBytes = 5 },
		"one signature":       func(p *redoubt.ReleasePackage) { p.Approvals = p.Approvals[:1] },
		"three signatures":    func(p *redoubt.ReleasePackage) { p.Approvals = append(p.Approvals, redoubt.Signature{Signer: "rev-3"}) },
		"one reviewer twice":  func(p *redoubt.ReleasePackage) { p.Approvals[1] = p.Approvals[0] },
		"by who asked":        func(p *redoubt.ReleasePackage) { p.Approvals[1].Signer = "ada" },
		"from somewhere else": func(p *redoubt.ReleasePackage) { p.Statement.From = "unclass" },
		"for another target":  func(p *redoubt.ReleasePackage) { p.Statement.To = "unclass" },
		"a consent that is lacking": func(p *redoubt.ReleasePackage) {
			p.Statement.Originator, p.Statement.Consent = "ada", []string{"ORCON"}
		},
		"a consent that is not asked for": func(p *redoubt.ReleasePackage) { p.Consent = &redoubt.Signature{Signer: "ada"} },
		"a consent of somebody else": func(p *redoubt.ReleasePackage) {
			p.Statement.Originator, p.Statement.Consent, p.Consent = "ada", []string{"ORCON"}, &redoubt.Signature{Signer: "rev-3"}
		},
		"an originator who reviews": func(p *redoubt.ReleasePackage) {
			p.Statement.Originator, p.Statement.Consent, p.Consent = p.Approvals[1].Signer, []string{"ORCON"}, &redoubt.Signature{Signer: p.Approvals[1].Signer}
		},
	} {
		faketime.Test(t, func(t *testing.T) {
			of := openOffice(t, adds("1"), adds("2"))
			of.sign("a", change)
			of.runs(t, time.Minute)
			if len(of.accepted) > 0 || of.finished["a"] == "" || of.finished["a"] == "receipt" {
				t.Errorf("%s: taken %v, ended %q", what, of.accepted, of.finished["a"])
			}
		})
	}
	for _, kind := range []redoubt.Kind{redoubt.Denied, redoubt.Expired, redoubt.Invalid, redoubt.Conflict, redoubt.BadDigest, redoubt.NoBucket, redoubt.TooLarge} {
		faketime.Test(t, func(t *testing.T) {
			of := openOffice(t, adds("1"), adds("2"))
			of.refuses = &redoubt.Error{Op: "AcceptRelease", Kind: kind, Rule: "a-rule"}
			of.sign("a", nil)
			of.runs(t, time.Minute)
			if of.finished["a"] != "a-rule" {
				t.Errorf("%v: ended %q", kind, of.finished["a"])
			}
		})
	}
}
