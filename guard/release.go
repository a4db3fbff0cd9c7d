package guard

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"redoubt"
	"redoubt/label"
)

// Rules is what a guard holds every release to.
type Rules struct {
	Digest       string   // of all of it, as both enclaves know it
	Types        []string // media types
	Schemas      map[string]string
	Words        []string
	Floor, Limit label.Label // range of the target
	Policy       *label.Policy
	High, Low    redoubt.NodeName
}

// ReleaserOptions is what a Releaser is made of. All but Log is needed.
type ReleaserOptions struct {
	Rules   Rules
	AtHigh  redoubt.Credential
	AtLow   redoubt.Credential
	Source  redoubt.ReleaseSource
	Same    redoubt.ReleaseTarget // the source itself, for another label in the same enclave
	Target  redoubt.ReleaseTarget
	Filters func(typ string) (Pair, error) // both of a type, or why it has none here
	Words   *Words
	Log     *slog.Logger
}

// Releaser takes requests through the pipeline, and approved releases to the target. Run is called once.
type Releaser struct{ o ReleaserOptions }

// NewReleaser makes it. It starts nothing.
func NewReleaser(o ReleaserOptions) *Releaser {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Releaser{o}
}

// Run works until ctx ends. Whatever fails is tried again or refused; nothing passes by failing.
func (r *Releaser) Run(ctx context.Context) {
	var work sync.WaitGroup
	work.Go(func() { r.work(ctx, redoubt.ReleaseRequested, r.filter) })
	work.Go(func() { r.work(ctx, redoubt.ReleaseApproved, r.transfer) })
	work.Wait()
}

// filter takes one request through the pipeline: fetch → policy → type → filter → filter → words → verdict. Every step is always invoked;
// there is no way round one.
func (r *Releaser) filter(ctx context.Context, id redoubt.ReleaseID, _ func(lane) bool) error {
	fetch, cancel := context.WithTimeout(ctx, deadline(redoubt.MaxReleaseBytes))
	defer cancel()
	work, source, err := r.o.Source.FetchRelease(fetch, r.o.AtHigh, id)
	if err != nil {
		return passedOver(err)
	}
	content, err := io.ReadAll(io.LimitReader(source.Reader(0, -1), redoubt.MaxReleaseBytes+1))
	if err = errors.Join(err, source.Close()); err != nil {
		return err
	}
	v := redoubt.ReleaseVerdict{Rules: r.o.Rules.Digest}
	out, err := r.guarded(ctx, work, content, &v)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	submit, cancel := context.WithTimeout(ctx, deadline(int64(len(out))))
	defer cancel()
	if err != nil {
		v.Refused, v.ContentType = refusal(err), ""
		fit(&v)
		what := []any{slog.String("release", string(id)), slog.String("step", stepOf(err)), slog.String("kind", redoubt.KindOf(err).Error())}
		if redoubt.KindOf(err) == redoubt.Denied { // why is of the source's label, and in the verdict alone
			r.o.Log.Info("a release was refused", what...)
		} else {
			r.o.Log.Error("a filter failed, and the release was refused", what...)
		}
		return passedOver(r.o.Source.SubmitRelease(submit, r.o.AtHigh, id, v, nil))
	}
	fit(&v)
	return passedOver(r.o.Source.SubmitRelease(submit, r.o.AtHigh, id, v, bytes.NewReader(out)))
}

// guarded is the pipeline, of which a step that panics has failed like any other.
func (r *Releaser) guarded(ctx context.Context, work redoubt.ReleaseWork, content []byte, v *redoubt.ReleaseVerdict) (out []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			out, err = nil, &redoubt.Error{Op: opRelease, Kind: redoubt.Internal, Err: fmt.Errorf("a step panicked: %v", p)}
		}
	}()
	within, cancel := context.WithTimeout(ctx, maxFiltering)
	defer cancel()
	if out, err = r.pipeline(within, work, content, v); err != nil && within.Err() != nil && ctx.Err() == nil {
		return nil, refuse("filters", "it takes too long", fmt.Sprintf("all steps together have %s: release it in parts", maxFiltering))
	}
	return out, err
}

// maxFiltering is of all steps together: each has its own limit, and an archive of 200 members has 800 of them.
const maxFiltering = 10 * time.Minute

// maxVerdictBytes is of a verdict as the source is told it, in ASCII: it goes in a header.
const maxVerdictBytes = 40 << 10

// fit has a verdict within the source's limits, by leaving out the last findings, which it says: one that does not fit would be brought again for ever.
func fit(v *redoubt.ReleaseVerdict) {
	all := len(v.Findings)
	v.Findings = v.Findings[:min(all, redoubt.MaxReleaseReport)]
	for i := range v.Findings {
		f := &v.Findings[i]
		f.Step, f.Rule, f.Detail = cut(f.Step, 64), cut(f.Rule, 128), cut(f.Detail, 256)
	}
	for len(v.Findings) > 0 && asciiBytes(*v) > maxVerdictBytes {
		v.Findings = v.Findings[:len(v.Findings)-1]
	}
	if n := len(v.Findings); n > 0 && n < all {
		v.Findings[n-1] = redoubt.Finding{Step: "report", Rule: moreFound, Detail: fmt.Sprintf("%d more", all-n+1)}
	}
}

// moreFound is the rule of what stands in the place of findings that there is no room for.
const moreFound = "more was found than is told"

func cut(s string, most int) string {
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "")
}

// asciiBytes is how long a verdict is as JSON in which what is not ASCII is escaped.
func asciiBytes(v redoubt.ReleaseVerdict) (n int) {
	b, err := json.Marshal(v)
	if err != nil {
		return maxVerdictBytes + 1
	}
	for _, r := range string(b) {
		switch {
		case r < 0x80:
			n++
		case r < 0x10000:
			n += len(`\u0000`)
		default:
			n += 2 * len(`\u0000`)
		}
	}
	return n
}

// passedOver is nil for what somebody else has ended meanwhile.
func passedOver(err error) error {
	switch redoubt.KindOf(err) {
	case redoubt.Conflict, redoubt.NotFound, redoubt.Denied:
		return nil
	}
	return err
}

// pipeline is the straight line. What it gives is what the last filter wrote.
func (r *Releaser) pipeline(ctx context.Context, work redoubt.ReleaseWork, content []byte, v *redoubt.ReleaseVerdict) ([]byte, error) {
	as, err := r.policy(work, content)
	if err != nil {
		return nil, err
	}
	typ, err := r.typeOf(work, content)
	if err != nil {
		return nil, err
	}
	if f, hides := hidden(work.Key, work.Attributes.Meta); hides {
		v.Findings = append(v.Findings, f)
		return nil, refuse(f.Step, f.Rule, f.Detail)
	}
	pair, err := r.o.Filters(typ)
	if err != nil {
		return nil, err
	}
	in := Content{Type: typ, Schema: []byte(r.o.Rules.Schemas[typ]), Bytes: content}
	for _, f := range []Filter{pair.First, pair.Second} {
		out, seen, err := f.Clean(ctx, in)
		v.Findings = append(v.Findings, stepped("filter "+f.Name(), seen)...)
		if err != nil {
			return nil, err
		}
		if len(out) > redoubt.MaxReleaseBytes {
			return nil, refuse("filter "+f.Name(), "too large", "what the filter wrote is too large to leave")
		}
		in.Bytes = out
	}
	found := stepped("words", append(r.o.Words.SearchNames(work.Key, typ, work.Attributes.Meta, as), r.o.Words.SearchContent(typ, in.Bytes, as)...))
	v.Findings = append(found, v.Findings...) // first: what is told of words is for the reviewers, who are told no more than there is room for
	if i := slices.IndexFunc(found, func(f redoubt.Finding) bool { return f.Fatal }); i >= 0 {
		return nil, refuse("words", found[i].Rule, found[i].Detail)
	}
	v.ContentType = typ
	return in.Bytes, nil
}

func stepped(step string, all []redoubt.Finding) (out []redoubt.Finding) {
	for _, f := range all {
		f.Step = step
		out = append(out, f)
	}
	return out
}

// policy holds a request against where it may go.
func (r *Releaser) policy(work redoubt.ReleaseWork, content []byte) (label.Label, error) {
	as, err := r.o.Rules.Policy.Parse(work.As)
	switch {
	case err != nil:
		return as, refuse("policy", "label", err.Error())
	case work.From != r.o.Rules.High || work.To != r.o.Rules.Low && work.To != r.o.Rules.High:
		return as, refuse("policy", "between the guard's two enclaves", "this guard joins "+string(r.o.Rules.Low)+" and "+string(r.o.Rules.High))
	case work.To == r.o.Rules.Low && (!r.o.Rules.Limit.Dominates(as) || !as.Dominates(r.o.Rules.Floor)):
		return as, refuse("policy", "within the target's range", "")
	case work.Originator == "" && asksConsent(r.o.Rules.Policy, work.Label, as):
		return as, refuse("policy", "originator's consent", "the source names nobody who may give it")
	case len(content) > redoubt.MaxReleaseBytes:
		return as, refuse("policy", "too large", fmt.Sprintf("a release has at most %d bytes", redoubt.MaxReleaseBytes))
	}
	return as, nil
}

// asksConsent says whether something leaves by its originator's consent alone. So does what has a label that cannot be read here.
func asksConsent(p *label.Policy, source string, as label.Label) bool {
	l, err := p.Parse(source)
	return err != nil || len(redoubt.ConsentMarks(l))+len(redoubt.ConsentMarks(as)) > 0
}

// typeOf says what content is by what is in it; what it is called only tells texts apart. Every type but those of the allow-list is refused,
// and so is a name by which another program would open it: text of an HTML key is no text where it arrives.
func (r *Releaser) typeOf(work redoubt.ReleaseWork, content []byte) (string, error) {
	typ := detect(content, work.Attributes.ContentType, work.Key)
	if typ == "" {
		return "", refuse("type", "unknown type", "it is none of the types that may leave: "+strings.Join(r.o.Rules.Types, ", "))
	}
	if !slices.Contains(r.o.Rules.Types, typ) {
		return "", refuse("type", "type not allowed", typ+" does not leave here; what does: "+strings.Join(r.o.Rules.Types, ", "))
	}
	if ext := path.Ext(work.Key); ext != "" && MemberType(work.Key) != typ {
		return "", refuse("type", "a name of another type", "the key ends in "+strconv.Quote(ext)+", by which it would be opened as something else than "+typ+": ask under a key that ends in "+suffixOf(typ)+", or has no dot")
	}
	return typ, nil
}

// suffixOf is how a key of a type ends.
func suffixOf(typ string) string {
	for _, ext := range []string{".txt", ".json", ".xml", ".csv", ".png", ".jpg", ".pdf", ".zip"} {
		if MemberType(ext) == typ {
			return ext
		}
	}
	return ".txt"
}

// detect gives a media type; "" where it is not one that any guard knows.
func detect(content []byte, declared, key string) string {
	sniffed, _, _ := strings.Cut(http.DetectContentType(content), ";")
	switch sniffed {
	case "image/png", "image/jpeg", "application/pdf", "application/zip":
		return sniffed
	}
	if !utf8.Valid(content) || bytes.IndexByte(content, 0) >= 0 {
		return ""
	}
	base, _, _ := mime.ParseMediaType(declared)
	switch ext := strings.ToLower(path.Ext(key)); {
	case base == "application/json" || ext == ".json":
		return "application/json"
	case base == "application/xml" || base == "text/xml" || ext == ".xml":
		return "application/xml"
	case base == "text/csv" || ext == ".csv":
		return "text/csv"
	}
	return "text/plain"
}

// hidden finds what does not show all that it has, of what leaves beside the content: a reviewer would sign what she cannot see. It says where, and
// not what stands there.
func hidden(key string, meta map[string]string) (f redoubt.Finding, is bool) {
	found := func(s, where string) bool {
		at := redoubt.Hides(s)
		switch {
		case at >= 0:
			f = redoubt.Finding{Rule: "what is not seen, or not written plainly", Detail: fmt.Sprintf("%s, at byte %d: write it anew", where, at)}
		case LookAlike(s) != "":
			f = redoubt.Finding{Rule: "letters of one script that look like those of another", Detail: where + ": write the word in one script"}
		default:
			return false
		}
		f.Step, f.Fatal = "names", true
		return true
	}
	if found(key, "the key") {
		return f, true
	}
	for i, name := range slices.Sorted(maps.Keys(meta)) {
		if found(name, fmt.Sprintf("name %d of the kept metadata", i+1)) || found(meta[name], fmt.Sprintf("value %d of the kept metadata", i+1)) {
			return f, true
		}
	}
	return f, false
}

// opRelease is the operation of every step's own refusals.
const opRelease = "guard.Release"

func refuse(step, rule, hint string) error {
	return &redoubt.Error{Op: opRelease, Kind: redoubt.Denied, Rule: step + ": " + rule, Hint: hint}
}

// stepOf is the step that an error ended, as this package and the filters name theirs: nothing of what was looked at is in it.
func stepOf(err error) string {
	e, ok := errors.AsType[*redoubt.Error](err)
	if !ok {
		return ""
	}
	step, _, _ := strings.Cut(e.Rule, ":")
	switch {
	case e.Op != opRelease:
		step = e.Op
		if !strings.HasPrefix(step, "filter ") || len(step) > 64 {
			return "filter"
		}
	case !slices.Contains([]string{"policy", "type", "names", "words", "filters"}, step) && !strings.HasPrefix(step, "filter "):
		return ""
	}
	return step
}

// refusal is an error in words for who asked. A filter that failed is told of as that alone.
func refusal(err error) string {
	e, ok := errors.AsType[*redoubt.Error](err)
	text := "a filter failed: nothing passes that both did not write anew"
	if ok && e.Rule != "" {
		if text = e.Rule; e.Hint != "" {
			text += ": " + e.Hint
		}
	} else if ok && e.Hint != "" {
		text += "; " + e.Hint
	}
	if len(text) > redoubt.MaxReleaseReason {
		text = strings.ToValidUTF8(text[:redoubt.MaxReleaseReason], "")
	}
	return text
}

// transfer takes what two reviewers signed to the target: fetch → digest → target → receipt. It may be cut off anywhere: the target takes a
// release once, and gives the same receipt for it again.
func (r *Releaser) transfer(ctx context.Context, id redoubt.ReleaseID, moves func(lane) bool) error {
	ctx, cancel := context.WithTimeout(ctx, deadline(redoubt.MaxReleaseBytes))
	defer cancel()
	p, rebuilt, err := r.o.Source.FetchApproved(ctx, r.o.AtHigh, id)
	if err != nil {
		return passedOver(err)
	}
	target, who := r.o.Target, r.o.AtLow
	if p.Statement.To == r.o.Rules.High {
		target, who = r.o.Same, r.o.AtHigh
	}
	if !moves(lane(p.Statement.To)) {
		if rebuilt != nil {
			return errors.Join(errLater, rebuilt.Close())
		}
		return errLater
	}
	if p.Settle {
		return r.settle(ctx, target, who, p.Statement.Public())
	}
	content, err := io.ReadAll(io.LimitReader(rebuilt.Reader(0, -1), redoubt.MaxReleaseBytes+1))
	if err = errors.Join(err, rebuilt.Close()); err != nil {
		return err
	}
	if p.Statement.Rules != r.o.Rules.Digest {
		// One of the two has not heard yet of what the other goes by. Nothing is refused for that: the target may have it already, and an answer
		// that was lost is asked for again once all three agree, or it dies at its source.
		return &redoubt.Error{Op: "guard.Release", Object: string(id), Kind: redoubt.Unavailable, Rule: "policy: the guard's rules", Hint: "bring the enclaves and the guard up with the same estate"}
	}
	if why := r.mismatch(p, content); why != "" {
		return passedOver(r.o.Source.FinishRelease(ctx, r.o.AtHigh, id, nil, why))
	}
	receipt, err := target.AcceptRelease(ctx, who, p, bytes.NewReader(content))
	switch redoubt.KindOf(err) {
	case redoubt.Denied, redoubt.Expired, redoubt.Invalid, redoubt.Conflict, redoubt.BadDigest, redoubt.NoBucket, redoubt.TooLarge:
		if err != nil {
			return passedOver(r.o.Source.FinishRelease(ctx, r.o.AtHigh, id, nil, refusal(err)))
		}
	}
	if err != nil {
		return err
	}
	return passedOver(r.o.Source.FinishRelease(ctx, r.o.AtHigh, id, &receipt, ""))
}

// settle ends what ended at its source after it was given to this guard: by the receipt, where the target has it, and otherwise for good.
func (r *Releaser) settle(ctx context.Context, target redoubt.ReleaseTarget, who redoubt.Credential, p redoubt.ReleasePublic) error {
	receipt, taken, err := target.ReleaseTaken(ctx, who, p)
	if err != nil {
		return err
	}
	if taken {
		return passedOver(r.o.Source.FinishRelease(ctx, r.o.AtHigh, p.ID, &receipt, ""))
	}
	return passedOver(r.o.Source.FinishRelease(ctx, r.o.AtHigh, p.ID, nil, "it was not taken before"))
}

// mismatch holds what is to leave against what was signed and against this guard's own rules, as the target will once more.
func (r *Releaser) mismatch(p redoubt.ReleasePackage, content []byte) string {
	sum := sha256.Sum256(content)
	s := &p.Statement
	switch {
	case hex.EncodeToString(sum[:]) != s.SHA256 || int64(len(content)) != s.SizeBytes:
		return "what is to leave is not what was signed"
	case len(p.Approvals) != 2 || p.Approvals[0].Signer == p.Approvals[1].Signer || s.Requester == p.Approvals[0].Signer || s.Requester == p.Approvals[1].Signer:
		return "two different reviewers, neither of whom asked, sign a release"
	case (len(s.Consent) > 0) != (s.Originator != "") || (len(s.Consent) > 0) != (p.Consent != nil):
		return "what an originator alone lets leave has her consent, and nothing else has one"
	case p.Consent != nil && (p.Consent.Signer != s.Originator || s.Originator == p.Approvals[0].Signer || s.Originator == p.Approvals[1].Signer):
		return "the originator consents, who is neither reviewer"
	case s.From != r.o.Rules.High || s.To != r.o.Rules.Low && s.To != r.o.Rules.High:
		return "it is not between this guard's two enclaves"
	}
	return ""
}
