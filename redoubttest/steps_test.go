package redoubttest_test

import (
	"crypto/fips140"
	"crypto/md5"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"redoubt"
	"redoubt/redoubttest"
)

// request plays a step that is S3 requests.
func (w *world) request(r *rand.Rand, a *actor, s step) string {
	bucket, key := pick(r, bucketChoice), pick(r, keyChoice)
	if bucket == "vault" && a.marking == "UNCLASSIFIED" {
		bucket = "reports"
	}
	if bucket == "secrets" && slices.Contains([]string{"create-upload", "put-part", "copy-part"}, s.op) && !uploadsGoUp(w.seed) {
		bucket = "reports"
	}
	before := ""
	in := redoubttest.Request{Method: http.MethodGet, Bucket: bucket, Key: key, Query: url.Values{}, Header: http.Header{}}
	switch s.op {
	case "put", "put-if", "write-up":
		in.Method, in.Body = http.MethodPut, content(r, s.n)
		w.dress(r, a, &in)
		if s.op == "write-up" {
			in.Header.Set("X-Amz-Meta-Redoubt-Label", pick(r, []string{"SECRET", "TOP SECRET", "TOP SECRET//SI/TK", "TOP SECRET//SI/TK"}))
		}
		if s.op == "put-if" {
			conditions(r, a, in.Header, "", "If-Match", "If-None-Match")
		}
	case "get", "head":
		if s.op == "head" {
			in.Method = http.MethodHead
		}
		if r.IntN(4) == 0 {
			in.Header.Set("Range", pick(r, []string{"bytes=0-3", "bytes=2-", "bytes=-4", "bytes=900-", "bytes=x"}))
		}
		if r.IntN(4) == 0 {
			conditions(r, a, in.Header, "", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")
		}
	case "get-version":
		in.Method = pick(r, []string{http.MethodGet, http.MethodGet, http.MethodHead})
		w.name(r, a, &in, 10)
	case "delete":
		in.Method = http.MethodDelete
		if r.IntN(5) == 0 {
			conditions(r, a, in.Header, "", "If-Match")
		}
	case "delete-version":
		in.Method = http.MethodDelete
		w.name(r, a, &in, 10)
		if r.IntN(3) == 0 {
			in.Header.Set("X-Amz-Bypass-Governance-Retention", "true")
		}
	case "delete-many":
		in.Method, in.Key, in.Query = http.MethodPost, "", url.Values{"delete": {""}}
		in.Body = deleteList(r, a, bucket, key)
	case "copy":
		in.Method = http.MethodPut
		source(r, a, in.Header)
		w.dress(r, a, &in)
		in.Header.Set("X-Amz-Metadata-Directive", pick(r, []string{"COPY", "REPLACE"}))
		if r.IntN(5) == 0 {
			conditions(r, a, in.Header, "X-Amz-Copy-Source-", "If-Match", "If-None-Match", "If-Modified-Since")
		}
	case "list", "list-v2":
		return w.list(r, a, in, s.op == "list-v2")
	case "list-versions":
		in.Key, in.Query = "", url.Values{"versions": {""}, "max-keys": {pick(r, []string{"1", "2", "3", "1000"})}}
		shape(r, in.Query)
		if m, ok := recent(r, a.markers); ok && r.IntN(2) == 0 {
			in.Bucket = m.bucket
			in.Query.Set("key-marker", m.key)
			if m.id != "" {
				in.Query.Set("version-id-marker", m.id)
			}
		}
	case "create-upload":
		in.Method, in.Query = http.MethodPost, url.Values{"uploads": {""}}
		w.dress(r, a, &in)
		if in.Header.Del("Content-Md5"); !uploadsGoUp(w.seed) {
			in.Header.Del("X-Amz-Meta-Redoubt-Label")
		}
	case "put-part", "copy-part":
		if len(a.uploads) == 0 || r.IntN(3) == 0 {
			before, _ = w.do(a, redoubttest.Request{Method: http.MethodPost, Bucket: bucket, Key: key, Query: url.Values{"uploads": {""}}})
		}
		in.Method, in.Body = http.MethodPut, content(r, s.n)
		upload(r, a, &in)
		in.Query.Set("partNumber", pick(r, []string{"1", "1", "2", "10000", "10001"}))
		if s.op == "copy-part" {
			in.Body = nil
			source(r, a, in.Header)
			in.Query.Set("partNumber", "1")
		}
	case "list-parts":
		upload(r, a, &in)
		in.Query.Set("max-parts", pick(r, []string{"1", "1000"}))
	case "list-uploads":
		in.Key, in.Query = "", url.Values{"uploads": {""}, "max-uploads": {pick(r, []string{"1", "2", "1000"})}}
		shape(r, in.Query)
	case "complete":
		in.Method = http.MethodPost
		upload(r, a, &in)
		in.Body = completion(r, a, in.Query.Get("uploadId"))
		if r.IntN(6) == 0 {
			conditions(r, a, in.Header, "", "If-Match", "If-None-Match")
		}
	case "abort":
		in.Method = http.MethodDelete
		upload(r, a, &in)
	case "put-tags":
		in.Method, in.Query = http.MethodPut, url.Values{"tagging": {""}}
		w.maybeName(r, a, &in)
		in.Body = fmt.Appendf(nil, "<Tagging><TagSet><Tag><Key>k%d</Key><Value>v</Value></Tag></TagSet></Tagging>", r.IntN(3))
	case "get-tags", "delete-tags":
		if s.op == "delete-tags" {
			in.Method = http.MethodDelete
		}
		in.Query = url.Values{"tagging": {""}}
		w.maybeName(r, a, &in)
	case "put-retention":
		in.Method, in.Bucket, in.Query = http.MethodPut, "locked", url.Values{"retention": {""}}
		w.nameLocked(r, a, &in)
		until := w.s.Clock.Now().Add(time.Duration(1+r.IntN(50)) * time.Hour).Format(time.RFC3339)
		in.Body = fmt.Appendf(nil, "<Retention><Mode>%s</Mode><RetainUntilDate>%s</RetainUntilDate></Retention>", pick(r, []string{"GOVERNANCE", "GOVERNANCE", "COMPLIANCE"}), until)
	case "get-retention":
		in.Bucket, in.Query = "locked", url.Values{pick(r, []string{"retention", "legal-hold"}): {""}}
		w.nameLocked(r, a, &in)
	case "put-hold":
		in.Method, in.Bucket, in.Query = http.MethodPut, "locked", url.Values{"legal-hold": {""}}
		w.nameLocked(r, a, &in)
		in.Body = fmt.Appendf(nil, "<LegalHold><Status>%s</Status></LegalHold>", pick(r, []string{"ON", "OFF", "OFF"}))
	case "attributes":
		in.Query = url.Values{"attributes": {""}}
		w.maybeName(r, a, &in)
		in.Header.Set("X-Amz-Object-Attributes", "ETag,Checksum,ObjectParts,StorageClass,ObjectSize")
	case "list-buckets":
		in.Bucket, in.Key = "", ""
	case "head-bucket":
		in.Method, in.Key = http.MethodHead, ""
	case "get-settings":
		in.Key, in.Query = "", url.Values{pick(r, []string{"redoubt", "tagging", "lifecycle", "policy", "object-lock", "versioning"}): {""}}
	case "create-bucket":
		in.Method, in.Bucket, in.Key = http.MethodPut, pick(r, []string{"temp", "temp", "vault", "temp2"}), ""
	case "delete-bucket":
		in.Method, in.Bucket, in.Key = http.MethodDelete, pick(r, []string{"temp", "temp", "temp", "vault", "vault", "temp2", "secrets"}), ""
	case "put-settings":
		in.Method, in.Bucket, in.Key, in.Query = http.MethodPut, pick(r, []string{"temp", "reports"}), "", url.Values{"tagging": {""}}
		in.Body = fmt.Appendf(nil, "<Tagging><TagSet><Tag><Key>k</Key><Value>v%d</Value></Tag></TagSet></Tagging>", s.n)
	case "fill":
		return w.fill(r, a, in, s.n)
	case "spend":
		return w.spend(r, a, s.n)
	default:
		w.t.Fatalf("no such operation: %s", s.op)
	}
	out, res := w.do(a, in)
	w.acknowledge(in, res)
	return before + out
}

// acknowledge notes a version for officers: who is asked to erase a version is told its ID by one who works at its label, or
// by who wrote it up to there.
func (w *world) acknowledge(in redoubttest.Request, res redoubttest.Response) {
	if at := res.Header.Get("X-Amz-Meta-Redoubt-Label"); in.Method == http.MethodPut && res.Status == http.StatusOK && at != "" {
		if id := res.Header.Get("X-Amz-Version-Id"); id != "" {
			w.acked[at] = append(w.acked[at], ref{in.Bucket, in.Key, id})
		}
	}
}

func content(r *rand.Rand, n int) []byte {
	size := r.IntN(300)
	switch r.IntN(40) {
	case 0:
		size = 0
	case 1:
		size = 2500
	}
	text := fmt.Sprintf("step %d ", n)
	return []byte(strings.Repeat(text, size/len(text)+1)[:size])
}

// dress gives a write its label, metadata, tags, digest and lock, now and then.
func (w *world) dress(r *rand.Rand, a *actor, in *redoubttest.Request) {
	if r.IntN(100) < 35 {
		in.Header.Set("X-Amz-Meta-Redoubt-Label", pick(r, labelChoice))
	}
	if r.IntN(6) == 0 {
		in.Header.Set("X-Amz-Meta-Note", "n")
		in.Header.Set("Content-Type", "text/plain")
	}
	if r.IntN(8) == 0 {
		in.Header.Set("X-Amz-Tagging", "a=1&b=2")
	}
	if r.IntN(8) == 0 && in.Body != nil {
		var sum [16]byte
		fips140.WithoutEnforcement(func() { sum = md5.Sum(in.Body) })
		in.Header.Set("Content-Md5", base64.StdEncoding.EncodeToString(sum[:]))
	}
	if in.Bucket == "locked" && r.IntN(4) == 0 {
		in.Header.Set("X-Amz-Object-Lock-Mode", "GOVERNANCE")
		in.Header.Set("X-Amz-Object-Lock-Retain-Until-Date", w.s.Clock.Now().Add(time.Hour).Format(time.RFC3339))
	}
}

// conditions adds one condition of those named, with what the actor has seen.
func conditions(r *rand.Rand, a *actor, h http.Header, prefix string, names ...string) {
	name := pick(r, names)
	switch name {
	case "If-None-Match", "If-Match":
		tag := "*"
		if len(a.etags) > 0 && (name == "If-Match" || prefix != "") && r.IntN(4) > 0 {
			tag = `"` + pick(r, a.etags[max(0, len(a.etags)-8):]) + `"`
		}
		h.Set(prefix+name, tag)
	default:
		if len(a.dates) > 0 {
			h.Set(prefix+name, pick(r, a.dates))
		}
	}
}

// name makes a request one about a version that the actor knows of; with a chance in n it guesses.
func (w *world) name(r *rand.Rand, a *actor, in *redoubttest.Request, n int) {
	if v, ok := recent(r, a.versions); ok && r.IntN(n) > 0 {
		in.Bucket, in.Key = v.bucket, v.key
		in.Query.Set("versionId", v.id)
		return
	}
	in.Query.Set("versionId", guess(r))
}

func (w *world) maybeName(r *rand.Rand, a *actor, in *redoubttest.Request) {
	if r.IntN(2) == 0 {
		w.name(r, a, in, 10)
	}
}

// nameLocked names a version in the bucket with object lock, if the actor knows of one.
func (w *world) nameLocked(r *rand.Rand, a *actor, in *redoubttest.Request) {
	var known []ref
	for _, v := range a.versions {
		if v.bucket == "locked" {
			known = append(known, v)
		}
	}
	if v, ok := recent(r, known); ok {
		in.Key = v.key
		if r.IntN(3) > 0 {
			in.Query.Set("versionId", v.id)
		}
	}
}

func guess(r *rand.Rand) string {
	if r.IntN(4) == 0 {
		return "nonsense"
	}
	b := make([]byte, 26)
	for i := range b {
		b[i] = "abcdefghijklmnopqrstuvwxyz234567"[r.IntN(32)]
	}
	b[25] = 'a'
	return string(b)
}

func source(r *rand.Rand, a *actor, h http.Header) {
	from := pick(r, bucketChoice) + "/" + url.PathEscape(pick(r, keyChoice))
	if v, ok := recent(r, a.versions); ok && r.IntN(4) > 0 {
		from = v.bucket + "/" + url.PathEscape(v.key)
		if r.IntN(2) == 0 {
			from += "?versionId=" + v.id
		}
	}
	h.Set("X-Amz-Copy-Source", from)
}

func upload(r *rand.Rand, a *actor, in *redoubttest.Request) {
	if u, ok := recent(r, a.uploads); ok && r.IntN(12) > 0 {
		in.Bucket, in.Key = u.bucket, u.key
		in.Query.Set("uploadId", u.id)
		return
	}
	in.Query.Set("uploadId", guess(r))
}

func completion(r *rand.Rand, a *actor, id string) []byte {
	var b strings.Builder
	b.WriteString("<CompleteMultipartUpload>")
	if parts := a.parts[id]; len(parts) > 0 {
		number, tag, _ := strings.Cut(parts[len(parts)-1], " ")
		fmt.Fprintf(&b, "<Part><PartNumber>%s</PartNumber><ETag>%s</ETag></Part>", number, tag)
	} else {
		fmt.Fprintf(&b, "<Part><PartNumber>%d</PartNumber><ETag>none</ETag></Part>", 1+r.IntN(2))
	}
	b.WriteString("</CompleteMultipartUpload>")
	return []byte(b.String())
}

// deleteList names one key (a marker) and some versions of other keys: more markers would be written side by side, in any order.
func deleteList(r *rand.Rand, a *actor, bucket, key string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "<Delete><Object><Key>%s</Key></Object>", key)
	seen := map[string]bool{}
	for range r.IntN(3) {
		v, ok := recent(r, a.versions)
		if !ok || v.bucket != bucket || v.key == key || seen[v.id] {
			continue
		}
		seen[v.id] = true
		fmt.Fprintf(&b, "<Object><Key>%s</Key><VersionId>%s</VersionId></Object>", v.key, v.id)
	}
	b.WriteString("</Delete>")
	return []byte(b.String())
}

func shape(r *rand.Rand, q url.Values) {
	if r.IntN(3) == 0 {
		q.Set("delimiter", "/")
	}
	if r.IntN(4) == 0 {
		q.Set("prefix", pick(r, []string{"a", "a/", "b", "nothing"}))
	}
}

// list plays one page, and sometimes every page that follows it.
func (w *world) list(r *rand.Rand, a *actor, in redoubttest.Request, v2 bool) string {
	in.Key, in.Query = "", url.Values{"max-keys": {pick(r, []string{"1", "1", "2", "1000"})}}
	shape(r, in.Query)
	if v2 {
		in.Query.Set("list-type", "2")
		if r.IntN(3) == 0 {
			in.Query.Set("fetch-owner", "true")
		}
	}
	out := ""
	for range 1 + r.IntN(4) {
		text, res := w.do(a, in)
		out += text
		if m := tokenPattern.FindSubmatch(res.Body); v2 && m != nil {
			in.Query.Set("continuation-token", string(m[1]))
		} else if m := nextKey.FindSubmatch(res.Body); !v2 && m != nil {
			in.Query.Set("marker", string(m[1]))
		} else {
			break
		}
	}
	return out
}

// fill writes until the share of a label is used up, at most a few times.
func (w *world) fill(r *rand.Rand, a *actor, in redoubttest.Request, n int) string {
	in.Method, in.Bucket = http.MethodPut, pick(r, []string{"reports", "temp", "lasting"})
	if r.IntN(4) == 0 {
		in.Header.Set("X-Amz-Meta-Redoubt-Label", pick(r, labelChoice))
	}
	out := ""
	for i := range 4 {
		in.Key = "fill/" + strconv.Itoa(n%7) + "-" + strconv.Itoa(i)
		in.Body = make([]byte, 1500)
		text, res := w.do(a, in)
		out += text
		if res.Status != http.StatusOK {
			break
		}
	}
	return out
}

// spendings are the sorts of records that a share can be spent on beside content.
var spendings = []string{"empty versions", "metadata", "markers", "uploads"}

// maxSpending bounds the requests of one step: any share of a history, and the room of markers over it, is spent by fewer.
const maxSpending = 60

// spend uses a share up by one sort of record alone, and mostly gives it back, in the order in which it was taken.
func (w *world) spend(r *rand.Rand, a *actor, n int) string {
	how, keep := pick(r, spendings), r.IntN(4) == 0
	in := redoubttest.Request{Method: http.MethodPut, Bucket: pick(r, []string{"reports", "temp"}), Header: http.Header{}, Query: url.Values{}}
	key := fmt.Sprintf("spend/%d/", n) + strings.Repeat("k", 900)
	switch how {
	case "metadata":
		in.Header.Set("X-Amz-Meta-Note", strings.Repeat("n", 1500))
	case "markers":
		in.Method = http.MethodDelete
	case "uploads":
		in.Method, in.Query = http.MethodPost, url.Values{"uploads": {""}}
	}
	if how != "markers" && r.IntN(5) == 0 && (how != "uploads" || uploadsGoUp(w.seed)) {
		in.Header.Set("X-Amz-Meta-Redoubt-Label", pick(r, labelChoice))
	}
	versions, uploads, out := len(a.versions), len(a.uploads), "> spend on "+how+"\n"
	for i := range maxSpending {
		in.Key = key + strconv.Itoa(i)
		text, res := w.do(a, in)
		if out += text; res.Status >= http.StatusBadRequest {
			break
		}
	}
	back := redoubttest.Request{Method: http.MethodDelete}
	for _, v := range a.versions[versions:] {
		if back.Bucket, back.Key, back.Query = v.bucket, v.key, (url.Values{"versionId": {v.id}}); !keep {
			text, _ := w.do(a, back)
			out += text
		}
	}
	for _, u := range a.uploads[uploads:] {
		if back.Bucket, back.Key, back.Query = u.bucket, u.key, (url.Values{"uploadId": {u.id}}); !keep {
			text, _ := w.do(a, back)
			out += text
		}
	}
	if !keep { // what is gone again is not worth asking for
		a.versions, a.uploads = a.versions[:versions], a.uploads[:uploads]
	}
	return out
}

// serviceCall plays a step that has no S3 form; ok is false for one that has.
func (w *world) serviceCall(r *rand.Rand, a *actor, s step) (out string, ok bool) {
	ctx := w.t.Context()
	var v any
	var err error
	switch s.op {
	case "usage":
		v, err = w.s.Usage(ctx, a.cred)
	case "check":
		v, err = w.s.Check(ctx, a.cred, nil)
	case "compact":
		err = w.s.Compact(ctx, a.cred)
	case "keys":
		v, err = w.s.Keys(ctx, a.cred)
	case "credentials":
		v, err = w.credentials(a)
	case "verify":
		v, err = w.verify(a)
	case "audit":
		v, err = w.audit(r, a)
	case "why":
		id := "0123456789ABCDEF"
		if len(a.requests) > 0 && r.IntN(5) > 0 {
			id = pick(r, a.requests[max(0, len(a.requests)-10):])
		}
		var found []redoubt.AuditRecord
		found, err = w.s.Why(ctx, a.cred, id)
		v = w.records(a, found)
	case "rotate":
		v, err = w.s.RotateKey(ctx, a.cred, s.effect)
	case "erase-version":
		target, found := recent(r, w.acked[s.effect])
		if mark := marks(w.t); !found || !mark(a.marking).Dominates(mark(s.effect)) { // nobody tells an ID to who works below it
			target = ref{"reports", "plan", guess(r)}
		}
		err = w.s.EraseVersion(ctx, a.cred, redoubt.ObjectName{Bucket: redoubt.BucketName(target.bucket), Key: target.key}, redoubt.VersionID(target.id), "spill")
	case "erase-label":
		v, err = w.eraseLabel(r, a, s)
	default:
		if v, err, ok = w.officersCall(r, a, s); !ok {
			if v, err, ok = w.jobsCall(r, a, s); !ok {
				return "", false
			}
		}
	}
	return fmt.Sprintf("> %s\n< %s\n< %s", s.op, render2(v), maskJobs(w.maskedIn(errorText(err)))), true
}

func render2(v any) string {
	if text, ok := v.(string); ok {
		return text
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return maskJobs(string(b))
}

// errorText is what front ends show of an error: kind, rule and hint.
func errorText(err error) string {
	if err == nil {
		return "ok"
	}
	var e *redoubt.Error
	if !errors.As(err, &e) {
		return "internal"
	}
	return fmt.Sprintf("%s|%s|%s", redoubt.KindOf(err), e.Rule, e.Hint)
}

// verify reads the log back. At the ceiling it shows size and checkpoint, which hang on the real clock as records do.
func (w *world) verify(a *actor) (redoubt.AuditReport, error) {
	report, err := w.s.VerifyAudit(w.t.Context(), a.cred, nil)
	if a.marking == roles[0].marking {
		report.Entries, report.Checkpoint = 0, ""
	}
	return report, err
}

// audit searches with some restriction. Reads reach the log within a second, so their place among
// writes hangs on the real clock: records are compared as a set, and where Max cuts, writes alone are asked for.
func (w *world) audit(r *rand.Rand, a *actor) (string, error) {
	q := redoubt.AuditQuery{}
	switch r.IntN(6) {
	case 0:
		q.Outcome = pick(r, []string{"allow", "deny"})
	case 1:
		q.Subject = pick(r, roles).who
	case 2:
		q.Object = redoubt.ObjectName{Bucket: redoubt.BucketName(pick(r, bucketChoice)), Key: pick(r, keyChoice)}
	case 3:
		q.Action, q.Max = redoubt.ActionPutObject, 1+r.IntN(5)
	case 4:
		if q.From = uint64(r.IntN(100)); a.marking == roles[0].marking {
			q.From = 0
		}
	}
	var found []redoubt.AuditRecord
	err := w.s.SearchAudit(w.t.Context(), a.cred, q, func(rec redoubt.AuditRecord) error {
		found = append(found, rec)
		return nil
	})
	return w.records(a, found), err
}

// records renders audit records without what is random: the request IDs, and the IDs of what was minted and granted. At the node's ceiling numbers are shown, and the
// marks of the recorder: both hang on the real clock, and no observer works there.
func (w *world) records(a *actor, found []redoubt.AuditRecord) string {
	var lines []string
	for _, rec := range found {
		rec.Request, rec.Credential = "", w.masked(rec.Credential)
		switch rec.Action {
		case redoubt.ActionRevoke, redoubt.ActionRevokeGrant, redoubt.ActionApprove: // what was asked about may be another in every run
			if !strings.HasPrefix(rec.Detail, "x-") {
				rec.Detail = "ID"
			}
		}
		if a.marking == roles[0].marking {
			if rec.Number = 0; rec.Action == "audit.mark" {
				continue
			}
		}
		lines = append(lines, render2(rec))
	}
	return sortedLines(lines)
}

// eraseLabel is two officers' act; sometimes the second one does not sign.
func (w *world) eraseLabel(r *rand.Rand, a *actor, s step) (redoubt.Change, error) {
	now := w.s.Clock.Now()
	c := redoubt.Change{Kind: redoubt.ChangeEraseLabel, Node: "topsecret", Label: s.effect, Reason: fmt.Sprintf("spill at step %d", s.n), Made: now, Expires: now.Add(time.Hour)}
	c.ID = redoubt.ChangeID(c)
	c.Signatures = []redoubt.Signature{w.s.Sign("officer", c)}
	if r.IntN(3) == 0 {
		c.Signatures = append(c.Signatures, w.s.Sign("officer-2", c))
	}
	return w.s.ProposeChange(w.t.Context(), a.cred, c)
}
