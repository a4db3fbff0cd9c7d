package redoubttest_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"

	"redoubt"
	"redoubt/faketime"
	"redoubt/label"
	"redoubt/redoubttest"
)

// A history is what many subjects do to one enclave, step by step, as a function of a
// seed. Each step draws its details from a source of its own, so that a step does
// the same thing whether or not others are left out; what it refers to (version IDs, upload
// IDs, ETags, tokens) it takes from what its own actor has received, and from nowhere else.

// role is one credential of a history, and what it is good for.
type role struct {
	who     redoubt.SubjectName
	marking string
	ops     []weighted
}

type weighted struct {
	op     string
	weight int
}

var analystOps = append([]weighted{
	{"put", 18}, {"put-if", 6}, {"get", 10}, {"get-version", 5}, {"head", 4}, {"delete", 6}, {"delete-version", 4},
	{"delete-many", 3}, {"copy", 6}, {"list", 5}, {"list-v2", 6}, {"list-versions", 7}, {"create-upload", 4}, {"put-part", 6},
	{"copy-part", 3}, {"list-parts", 2}, {"list-uploads", 3}, {"complete", 4}, {"abort", 2}, {"put-tags", 3}, {"get-tags", 2},
	{"delete-tags", 2}, {"put-retention", 4}, {"get-retention", 2}, {"put-hold", 3}, {"attributes", 2}, {"list-buckets", 1},
	{"head-bucket", 1}, {"get-settings", 1}, {"fill", 3}, {"spend", 4}, {"credentials", 1}, {"why", 1}, {"mint", 2},
}, jobOps...)

var adminOps = append([]weighted{{"create-bucket", 12}, {"delete-bucket", 12}, {"put-settings", 4}, {"usage", 12}, {"check", 4}, {"compact", 6}}, analystOps...)

// upOps are of an analyst who may write up.
var upOps = append([]weighted{{"write-up", 20}}, analystOps...)

var auditOps = []weighted{{"audit", 10}, {"verify", 1}, {"keys", 4}, {"changes", 3}, {"credentials", 3}, {"list-buckets", 1}, {"why", 2}, {"put", 1}, {"get", 1},
	{"people", 1}, {"grants", 1}, {"mint", 1}, {"propose", 3}, {"approve", 2}, {"grant", 2}, {"revoke-person", 3}, {"revoke-credential", 2}, {"revoke-grant", 2}}

var officerOps = append([]weighted{{"rotate", 4}, {"erase-version", 8}, {"erase-label", 5}}, auditOps...)

// roles are all who act. Index 0 is the highest.
var roles = []role{
	{"ts-analyst", "TOP SECRET//SI/TK", analystOps},
	{"ts-analyst", "TOP SECRET", upOps},
	{"ts-analyst", "SECRET", upOps},
	{"ts-analyst", "UNCLASSIFIED", upOps},
	{"s-analyst", "SECRET", analystOps},
	{"s-analyst", "SECRET//REL TO USA, GBR", analystOps},
	{"s-analyst", "UNCLASSIFIED", analystOps},
	{"gbr-liaison", "SECRET//REL TO USA, GBR", analystOps},
	{"u-analyst", "UNCLASSIFIED", analystOps},
	{"admin", "UNCLASSIFIED", adminOps},
	{"u-officer", "UNCLASSIFIED", auditOps},
	{"officer", "TOP SECRET//SI/TK", officerOps},
	{"officer", "SECRET", officerOps},
}

// roleWeights makes the ends of the order meet often.
var roleWeights = []int{7, 3, 3, 4, 6, 5, 2, 5, 8, 7, 4, 5, 2}

// observers are the working labels whose bearers must not be told anything by those above or beside them.
var observers = []string{"UNCLASSIFIED", "SECRET//REL TO USA, GBR", "SECRET", "TOP SECRET"}

var (
	historyBuckets = []redoubt.Bucket{
		{Name: "reports"},
		{Name: "locked", BucketSettings: redoubt.BucketSettings{Lock: redoubt.LockSettings{Enabled: true, Mode: "GOVERNANCE", Days: 1}}},
		{Name: "closed", BucketSettings: redoubt.BucketSettings{Closed: true}},
		{Name: "lasting", BucketSettings: redoubt.BucketSettings{Current: "highest", MD5ETag: true, Lifecycle: []redoubt.LifecycleRule{
			{ID: "all", Days: 1, NoncurrentDays: 1, ExpiredMarkers: true, AbortUploadDays: 1}}}},
		{Name: "secrets", BucketSettings: redoubt.BucketSettings{Default: "SECRET"}},
		{Name: "temp"},
		{Name: "made"},
		{Name: "marks"}, // of landmark
		{Name: "vault"}, // nobody writes into it who works at the floor, and the administrator tries to remove it
	}
	bucketChoice = []string{"reports", "reports", "reports", "reports", "locked", "closed", "closed", "lasting", "lasting", "secrets", "temp", "temp", "vault", "none", "locked"}
	keyChoice    = []string{"plan", "plan", "a/x", "a/y", "a/z/1", "b/1", "ü n", "zz"}
	labelChoice  = []string{"UNCLASSIFIED", "SECRET", "SECRET", "SECRET//REL TO USA, GBR", "SECRET//NOFORN", "TOP SECRET", "TOP SECRET", "TOP SECRET//SI",
		"TOP SECRET//SI/TK", "CONFIDENTIAL", "NO SUCH MARKING"}
	historyQuotas = map[string]int64{"UNCLASSIFIED": 32_000, "SECRET//REL TO USA, GBR": 26_000, "SECRET": 32_000, redoubt.QuotaOfOthers: 24_000}
)

// step is one action of a history.
type step struct {
	n      int
	role   int // index of roles; theNode is the node itself
	op     string
	effect string // of an officer's act: the marking at which it takes effect beside the actor's own
	seed   uint64
}

const (
	theNode    = -1
	topOfficer = 11 // who works at the ceiling
)

// uploadsGoUp says whether in this history uploads are begun for a label above their working label. Erasing that label
// ends them, which shows below; so half the histories have such uploads and the other half erase labels.
func uploadsGoUp(seed uint64) bool { return seed%2 == 1 }

func (s step) String() string {
	if s.role == theNode {
		return fmt.Sprintf("step %d: the node: %s", s.n, s.op)
	}
	at := ""
	if s.effect != "" {
		at = " (of " + s.effect + ")"
	}
	return fmt.Sprintf("step %d: %s at %s: %s%s", s.n, roles[s.role].who, roles[s.role].marking, s.op, at)
}

// plan draws a history of n steps.
func plan(seed uint64, n int) []step {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]step, n)
	for i := range out {
		s := step{n: i, seed: r.Uint64()}
		s.role = pickWeight(r, len(roles), func(i int) int { return roleWeights[i] })
		ops := roles[s.role].ops
		s.op = ops[pickWeight(r, len(ops), func(i int) int { return ops[i].weight })].op
		switch s.op {
		case "rotate", "erase-version", "erase-label":
			s.effect = pick(r, []string{"UNCLASSIFIED", "SECRET//REL TO USA, GBR", "SECRET", "TOP SECRET", "TOP SECRET//SI/TK"})
		}
		if s.op == "erase-label" && uploadsGoUp(seed) {
			s.op = "erase-version"
		}
		switch r.IntN(60) {
		case 0:
			s.role, s.op, s.effect = theNode, "expire", ""
		case 1, 2, 3, 4, 5, 6:
			s.role, s.op, s.effect = theNode, "work", ""
		}
		out[i] = s
	}
	if hoards(seed) {
		for _, of := range []struct { // the same subject high, and afterwards low
			role, from int
			op         string
		}{{0, 0, "hoard-credentials"}, {1, 0, "hoard-credentials"}, {topOfficer, 0, "hoard-changes"}, {2, n / 3, "mint"}, {3, n / 3, "mint"}} {
			at := of.from + r.IntN(n/3)
			out[at] = step{n: at, role: of.role, op: of.op, seed: r.Uint64()}
		}
	}
	return out
}

// hoards says whether in this history the high ones reach the limits of what a subject and a node hold. It is what takes longest.
func hoards(seed uint64) bool { return seed%3 == 0 }

// moment is the clock at a step: it stands still for a while, goes on, jumps a day, and sometimes goes back.
func moments(seed uint64, n int) []time.Time {
	r := rand.New(rand.NewPCG(seed, 2))
	t := time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC)
	out := make([]time.Time, n)
	days := 0
	for i := range out {
		switch x := r.IntN(60); {
		case x == 0 && days < 4:
			t, days = t.AddDate(0, 0, 1), days+1
		case x == 1:
			t = t.Add(-time.Duration(r.IntN(50)) * time.Second)
		case x < 8:
			t = t.Add(time.Duration(r.IntN(90_000)) * time.Millisecond)
		case x < 12:
			t = t.Add(time.Duration(r.IntN(3)))
		}
		out[i] = t
	}
	return out
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func pickWeight(r *rand.Rand, n int, weight func(int) int) int {
	total := 0
	for i := range n {
		total += weight(i)
	}
	at := r.IntN(total)
	for i := range n {
		if at -= weight(i); at < 0 {
			return i
		}
	}
	panic("unreachable")
}

// actor is one credential in a run, with what it has received.
type actor struct {
	role
	minted   redoubt.Minted
	cred     redoubt.Credential
	versions []ref
	uploads  []ref
	etags    []string
	dates    []string
	tokens   []ref // continuation tokens, by bucket
	markers  []ref // key and version ID to go on from, by bucket
	parts    map[string][]string
	requests []string
	jobs     []redoubt.JobID

	schedules, services []string
}

// ref is a name with something that stands for it.
type ref struct{ bucket, key, id string }

// world is one run of a history: a fresh stack and its actors.
type world struct {
	t      testing.TB
	s      *redoubttest.Stack
	seed   uint64
	actors []*actor
	// acked are the versions acknowledged at a label to those who wrote them: what an officer who is asked to erase one is told.
	acked map[string][]ref
	said  map[int]string // what each step's actor received
	held  []redoubt.JobRun

	known                  map[string]bool // the access key IDs that are alike in every run: those of the actors
	minted, given, waiting []string        // IDs of credentials, grants and changes made at the ceiling, where no observer works
}

// run plays the steps of a history that keep chooses. It does so in fake time: what the node does behind the requests it does in steps of the node.
func run(t *testing.T, seed uint64, steps []step, at []time.Time, keep func(step) bool) (w *world) {
	t.Helper()
	cryptotest.SetGlobalRandom(t, seed) // the FIPS module's own source needs a time that passes
	faketime.Test(t, func(t *testing.T) { w = runs(t, seed, steps, at, keep) })
	return w
}

func runs(t *testing.T, seed uint64, steps []step, at []time.Time, keep func(step) bool) *world {
	w := &world{t: t, seed: seed, acked: map[string][]ref{}, said: map[int]string{}, known: map[string]bool{}}
	w.s = redoubttest.New(t, redoubttest.Options{Seed: seed, Clock: redoubttest.NewClock(at[0].Add(-time.Minute)), Buckets: historyBuckets, Quotas: historyQuotas})
	for _, r := range roles {
		a := &actor{role: r, minted: w.s.MintFor(r.who, r.marking, redoubt.MaxCredentialLife), parts: map[string][]string{}}
		a.cred = w.s.As(a.minted)
		w.actors, w.known[a.cred.ID] = append(w.actors, a), true
	}
	officer := w.actors[topOfficer]
	for _, g := range []redoubt.Grant{{Subject: "ts-analyst", Bucket: "closed"}, {Subject: "s-analyst", Bucket: "closed", Prefix: "a/"},
		{Subject: "u-analyst", Bucket: "closed", Prefix: "a/"}, {Subject: "gbr-liaison", Bucket: "reports", Prefix: "b/", Deny: true},
		{Subject: "*", Bucket: "locked", Prefix: "a/", Actions: []redoubt.Action{redoubt.ActionBypassLock}}} {
		if _, err := w.s.Grant(t.Context(), officer.cred, g); err != nil {
			t.Fatal(err)
		}
	}
	w.putLandmarks()
	for _, s := range steps {
		w.s.Clock.Set(at[s.n])
		if !keep(s) {
			continue
		}
		w.said[s.n] = w.play(s)
	}
	return w
}

// play does one step and gives everything that its actor received.
func (w *world) play(s step) string {
	r := rand.New(rand.NewPCG(s.seed, 3))
	if s.role == theNode && s.op == "work" {
		w.jobWork()
		return ""
	}
	if s.role == theNode {
		if err := w.s.Expire(w.t.Context()); err != nil {
			w.t.Fatalf("%v: %v", s, err)
		}
		return ""
	}
	a := w.actors[s.role]
	if out, ok := w.serviceCall(r, a, s); ok {
		return out
	}
	return w.request(r, a, s)
}

// do sends one request, remembers what came back and renders both.
func (w *world) do(a *actor, in redoubttest.Request) (string, redoubttest.Response) {
	res := w.s.Do(a.minted, in)
	if res.RequestID == "" {
		w.t.Fatalf("an answer without a request ID: %d %s", res.Status, res.Body)
	}
	a.requests = append(a.requests, res.RequestID)
	a.learn(in, res)
	return render(in, res), res
}

func render(in redoubttest.Request, res redoubttest.Response) string {
	var b strings.Builder
	fmt.Fprintf(&b, "> %s /%s/%s?%s", in.Method, in.Bucket, in.Key, in.Query.Encode())
	headers(&b, " ", in.Header)
	fmt.Fprintf(&b, " %q\n< %d\n", clip(in.Body), res.Status)
	headers(&b, "\n< ", res.Header)
	fmt.Fprintf(&b, "\n%s\n", res.Body)
	return b.String()
}

func clip(b []byte) []byte {
	if len(b) > 40 {
		return b[:40]
	}
	return b
}

func headers(b *strings.Builder, before string, h http.Header) {
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		for _, v := range h[name] {
			fmt.Fprintf(b, "%s%s: %s", before, name, v)
		}
	}
}

var (
	entryPattern   = regexp.MustCompile(`<Key>([^<]*)</Key><VersionId>([^<]*)</VersionId>`)
	deletedPattern = regexp.MustCompile(`<Key>([^<]*)</Key>.*?<DeleteMarkerVersionId>([^<]*)</DeleteMarkerVersionId>`)
	uploadPattern  = regexp.MustCompile(`<Key>([^<]*)</Key><UploadId>([^<]*)</UploadId>`)
	etagPattern    = regexp.MustCompile(`<ETag>(?:&quot;|&#34;)?([^<&]*)(?:&quot;|&#34;)?</ETag>`)
	tokenPattern   = regexp.MustCompile(`<NextContinuationToken>([^<]*)</NextContinuationToken>`)
	nextKey        = regexp.MustCompile(`<Next(?:Key)?Marker>([^<]*)</Next(?:Key)?Marker>`)
	nextID         = regexp.MustCompile(`<Next(?:VersionId|UploadId)Marker>([^<]*)</Next(?:VersionId|UploadId)Marker>`)
)

// learn takes up what an answer tells that a later request may refer to.
func (a *actor) learn(in redoubttest.Request, res redoubttest.Response) {
	if id := res.Header.Get("X-Amz-Version-Id"); id != "" && in.Key != "" {
		a.versions = append(a.versions, ref{in.Bucket, in.Key, id})
	}
	if tag := strings.Trim(res.Header.Get("Etag"), `"`); tag != "" {
		a.etags = append(a.etags, tag)
		if id := in.Query.Get("uploadId"); id != "" {
			a.parts[id] = append(a.parts[id], in.Query.Get("partNumber")+" "+tag)
		}
	}
	if d := res.Header.Get("Last-Modified"); d != "" {
		a.dates = append(a.dates, d)
	}
	body := string(res.Body)
	for _, m := range entryPattern.FindAllStringSubmatch(body, -1) {
		a.versions = append(a.versions, ref{in.Bucket, m[1], m[2]})
	}
	for _, m := range deletedPattern.FindAllStringSubmatch(body, -1) {
		a.versions = append(a.versions, ref{in.Bucket, m[1], m[2]})
	}
	for _, m := range uploadPattern.FindAllStringSubmatch(body, -1) {
		a.uploads = append(a.uploads, ref{in.Bucket, m[1], m[2]})
	}
	for _, m := range etagPattern.FindAllStringSubmatch(body, -1) {
		a.etags = append(a.etags, m[1])
		if id := in.Query.Get("uploadId"); id != "" && in.Query.Get("partNumber") != "" { // a copied part
			a.parts[id] = append(a.parts[id], in.Query.Get("partNumber")+" "+m[1])
		}
	}
	for _, m := range tokenPattern.FindAllStringSubmatch(body, -1) {
		a.tokens = append(a.tokens, ref{in.Bucket, in.Query.Get("delimiter"), m[1]})
	}
	if m := nextKey.FindStringSubmatch(body); m != nil {
		next := ref{bucket: in.Bucket, key: m[1]}
		if id := nextID.FindStringSubmatch(body); id != nil {
			next.id = id[1]
		}
		a.markers = append(a.markers, next)
	}
}

// recent draws from the last few of what was learnt: it is the fresh that is worth asking for.
func recent(r *rand.Rand, from []ref) (ref, bool) {
	if len(from) == 0 {
		return ref{}, false
	}
	tail := from[max(0, len(from)-12):]
	return pick(r, tail), true
}

// marks are the labels that histories speak of.
func marks(t testing.TB) func(string) label.Label {
	t.Helper()
	policy, err := label.Builtin("USA")
	if err != nil {
		t.Fatal(err)
	}
	return func(marking string) label.Label {
		l, err := policy.Parse(marking)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
}

// visibleTo says which steps an observer's working label dominates: those that it may be told of, and which are played in both runs.
func visibleTo(t testing.TB, observer string) func(step) bool {
	t.Helper()
	mark := marks(t)
	o := mark(observer)
	return func(s step) bool {
		return s.role == theNode || o.Dominates(mark(roles[s.role].marking)) || s.effect != "" && o.Dominates(mark(s.effect))
	}
}

// observes says whose answers an observer is held to: those of actors whose working label it dominates.
func observes(t testing.TB, observer string) func(step) bool {
	t.Helper()
	mark := marks(t)
	o := mark(observer)
	return func(s step) bool { return s.role != theNode && o.Dominates(mark(roles[s.role].marking)) }
}

func sortedLines(lines []string) string {
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
