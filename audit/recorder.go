package audit

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"redoubt"
)

// Bounds of what a Recorder holds in memory.
const (
	// MaxUnflushed is how long an allowed read may be known to memory alone.
	MaxUnflushed = time.Second
	// FlushEvery is how often Run flushes: twice as often as it must.
	FlushEvery = MaxUnflushed / 2
	// MaxBufferedReads is how many allowed reads may wait; the next one flushes first.
	MaxBufferedReads = 1 << 14

	// MaxFailureKeys is how many sorts of unauthenticated failure are told apart
	// between two flushes; all others count in one entry.
	MaxFailureKeys = 64
	// A flood of unauthenticated failures costs this many entries a second in the long
	// run (100 MB a day), after a first burst; beyond it, everything counts in one entry.
	failureRate  = 4
	failureBurst = MaxFailureKeys
)

// The recorder's own entries.
const (
	ActionStart = "audit.start" // a session begins; Rule says how the one before ended
	ActionMark  = "audit.mark"  // Count allowed reads were just flushed; Detail has the sum
	ActionClose = "audit.close" // the session ended and nothing was lost

	StartFirst = "first" // there was no session before
	StartClean = "clean" // the session before closed
	StartGap   = "gap"   // it did not: up to MaxUnflushed of its allowed reads are missing

	lookBack = 1 << 16 // how far back a start looks for the last mark
)

// Recorder turns decisions into entries. Writes, denials and privileged acts come back
// from Record to ride in the commit of what they speak of. Allowed reads wait in memory,
// at most MaxUnflushed, and unauthenticated failures are counted together. All methods
// may be called at once.
type Recorder struct {
	commit  func(ctx context.Context, entries [][]byte) error
	clock   func() time.Time
	subject string
	session string
	token   chan struct{} // held by the one who flushes

	mu       sync.Mutex // guards what follows
	reads    [][]byte
	oldest   time.Time // when the first of reads was taken; zero when there is none
	inflight time.Time // likewise of the reads being committed
	flushed  uint64    // reads made durable in this session
	failures map[failureKey]*Entry
	others   *Entry // failures beyond the limits
	tokens   float64
	refilled time.Time
	failing  bool // the last flush failed
	closed   bool
}

// failureKey is what makes two unauthenticated failures alike.
type failureKey struct{ action, rule, subject, source string }

// NewRecorder begins a session: it reads how the one before ended from the tail of
// entries and commits an ActionStart entry by node, the node's own subject. commit makes
// entries durable, in order, in the append stream; clock is the node's.
func NewRecorder(ctx context.Context, node string, entries Entries, commit func(ctx context.Context, entries [][]byte) error, clock func() time.Time) (*Recorder, error) {
	if entries == nil || commit == nil || clock == nil {
		return nil, &redoubt.Error{Op: "audit.NewRecorder", Kind: redoubt.Invalid, Err: errors.New("entries, commit and clock are needed")}
	}
	// A session is named by the length of the stream that it found: no other start can find the same.
	r := &Recorder{commit: commit, clock: clock, subject: node, session: strconv.FormatUint(entries.Len(), 10),
		token: make(chan struct{}, 1), failures: map[failureKey]*Entry{}, tokens: failureBurst, refilled: clock()}
	rule, detail, err := lastSession(ctx, entries)
	if err != nil {
		return nil, err
	}
	start := r.own(ActionStart, 1, "session="+r.session+detail)
	start.Rule = rule
	if err := commit(ctx, [][]byte{start.Append(nil)}); err != nil {
		return nil, &redoubt.Error{Op: "audit.NewRecorder", Kind: redoubt.KindOf(err), Err: err}
	}
	return r, nil
}

// lastSession says how the session before ended, and what is known of it.
func lastSession(ctx context.Context, entries Entries) (rule, detail string, err error) {
	end := entries.Len()
	if end == 0 {
		return StartFirst, "", nil
	}
	for to, first := end, entries.First(); to > first && end-to < lookBack; {
		from := max(first, to-min(to, 256))
		err := entries.Read(ctx, from, to, func(n uint64, b []byte) error {
			e, err := ParseEntry(b)
			if err != nil {
				return nil // Verify reports it
			}
			switch e.Action {
			case ActionStart, ActionMark, ActionClose:
				rule, detail = StartGap, markText(e.Detail)
				if e.Action == ActionClose && n == end-1 {
					rule = StartClean
				}
			}
			return nil
		})
		if err != nil {
			return "", "", &redoubt.Error{Op: "audit.NewRecorder", Kind: redoubt.KindOf(err), Err: err}
		}
		if rule != "" {
			return rule, detail + " entries=" + strconv.FormatUint(end, 10), nil
		}
		to = from
	}
	return StartGap, " entries=" + strconv.FormatUint(end, 10), nil
}

// markText turns "session=S reads=N …" of a session's entry into what its successor says of it.
func markText(detail string) string {
	out, reads := "", "0"
	for field := range strings.FieldsSeq(detail) {
		if v, ok := strings.CutPrefix(field, "session="); ok {
			out = " previous=" + v
		}
		if v, ok := strings.CutPrefix(field, "reads="); ok {
			reads = v
		}
	}
	return out + " flushed=" + reads
}

// own is an entry of the recorder itself.
func (r *Recorder) own(action string, count uint32, detail string) *Entry {
	return &Entry{Time: r.clock(), Subject: r.subject, Action: action, Rule: "audit", Allow: true, Kind: "ok", Count: count, Detail: detail}
}

// Record gives the entry of a decision that must not be lost: the caller commits it in
// the same batch as what it speaks of, and answers only then. A zero Time becomes now.
func (r *Recorder) Record(e *Entry) []byte {
	c := *e
	if c.Time.IsZero() {
		c.Time = r.clock()
	}
	return c.Append(make([]byte, 0, 256))
}

// Read takes an allowed read. When it returns nil the read may be answered: the entry is
// durable within MaxUnflushed, by this and later calls or by Run. Where that cannot be
// kept (the buffer is full, the oldest read waits too long, the last flush failed) it
// flushes first, and gives that flush's error: the read must then be refused.
func (r *Recorder) Read(ctx context.Context, e *Entry) error {
	encoded := r.Record(e)
	for {
		r.mu.Lock()
		if r.closed {
			r.mu.Unlock()
			return recorderClosed()
		}
		if now := r.clock(); !r.mustFlush(now) {
			r.reads = append(r.reads, encoded)
			if r.oldest.IsZero() {
				r.oldest = now
			}
			r.mu.Unlock()
			return nil
		}
		r.mu.Unlock()
		if err := r.flush(ctx, flushIfNeeded); err != nil {
			return err
		}
	}
}

// mustFlush reports whether no read may be taken before a flush. r.mu is held.
func (r *Recorder) mustFlush(now time.Time) bool {
	late := func(t time.Time) bool { return !t.IsZero() && now.Sub(t) >= MaxUnflushed }
	return r.failing || len(r.reads) >= MaxBufferedReads || late(r.oldest) || late(r.inflight)
}

// Unauthenticated counts a failure of somebody who proved nothing: durable, alone or in
// a sum, with the next flush. Subject, if any, is what was claimed.
func (r *Recorder) Unauthenticated(e *Entry) {
	c := *e
	c.Allow, c.Count = false, max(1, e.Count)
	if c.Time.IsZero() {
		c.Time = r.clock()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addFailure(&c)
}

// addFailure counts c with its like. r.mu is held.
func (r *Recorder) addFailure(c *Entry) {
	key := failureKey{c.Action, c.Rule, c.Subject, c.Source}
	same := r.failures[key]
	if same == nil {
		now := r.clock()
		r.tokens = min(failureBurst, r.tokens+failureRate*max(0, now.Sub(r.refilled).Seconds()))
		r.refilled = now
		if len(r.failures) < MaxFailureKeys && r.tokens >= 1 {
			r.tokens--
			r.failures[key] = c
			return
		}
		if r.others == nil {
			r.others = &Entry{Time: c.Time, Action: "unauthenticated", Rule: c.Rule, Kind: c.Kind, Source: "many", Count: c.Count,
				Detail: "failures of many sorts, counted together"}
			return
		}
		same = r.others
	}
	same.Count = uint32(min(1<<32-1, uint64(same.Count)+uint64(c.Count)))
}

// Flush makes everything taken so far durable. When the commit fails all is kept for
// the next flush, and reads are refused until one succeeds.
func (r *Recorder) Flush(ctx context.Context) error {
	return r.flush(ctx, flushAll)
}

// flushMode says what a flush is for.
type flushMode uint8

const (
	flushAll      flushMode = iota
	flushIfNeeded           // for a read: somebody else may have flushed meanwhile
	flushLast               // and close
)

// flush is one turn: take what waits, commit it, and put it back if that fails.
func (r *Recorder) flush(ctx context.Context, mode flushMode) error {
	select {
	case r.token <- struct{}{}:
		defer func() { <-r.token }()
	case <-ctx.Done():
		return &redoubt.Error{Op: "audit.Flush", Kind: redoubt.Unavailable, Err: ctx.Err()}
	}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return recorderClosed()
	}
	if mode == flushIfNeeded && !r.mustFlush(r.clock()) {
		r.mu.Unlock()
		return nil
	}
	r.closed = mode == flushLast // no more reads; undone below if the commit fails
	reads, failures, others := r.reads, r.failures, r.others
	r.inflight, r.oldest = r.oldest, time.Time{}
	r.reads, r.others = nil, nil
	if len(failures) > 0 {
		r.failures = map[failureKey]*Entry{}
	}
	sum := r.flushed + uint64(len(reads))
	r.mu.Unlock()

	batch := reads[:len(reads):len(reads)]
	for _, f := range failures {
		batch = append(batch, f.Append(nil))
	}
	if others != nil {
		batch = append(batch, others.Append(nil))
	}
	if len(reads) > 0 {
		batch = append(batch, r.own(ActionMark, uint32(len(reads)), fmt.Sprintf("session=%s reads=%d", r.session, sum)).Append(nil))
	}
	if mode == flushLast {
		batch = append(batch, r.own(ActionClose, 1, fmt.Sprintf("session=%s reads=%d", r.session, sum)).Append(nil))
	}
	var err error
	if len(batch) > 0 {
		err = r.commit(ctx, batch)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	r.failing = err != nil
	taken := r.inflight
	r.inflight = time.Time{}
	if err == nil {
		r.flushed = sum
		return nil
	}
	r.closed = false
	if len(reads) > 0 {
		r.reads, r.oldest = append(reads, r.reads...), taken
	}
	for _, f := range failures {
		r.addFailure(f)
	}
	if others != nil {
		r.addFailure(others)
	}
	return &redoubt.Error{Op: "audit.Flush", Kind: redoubt.KindOf(err), Err: err}
}

// Run flushes every FlushEvery until ctx ends. The node starts it once and waits for it;
// then it calls Close. Errors stay: the next Read meets them.
func (r *Recorder) Run(ctx context.Context) {
	tick := time.NewTicker(FlushEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = r.Flush(ctx) // kept, and refused to the next Read
		}
	}
}

// Close flushes and ends the session cleanly: the next one starts without a gap, if
// nothing else is committed to the stream after it. After an error it may be called again.
func (r *Recorder) Close(ctx context.Context) error { return r.flush(ctx, flushLast) }

// Waiting is how many allowed reads are not durable yet, those being flushed aside.
func (r *Recorder) Waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.reads)
}

func recorderClosed() error {
	return &redoubt.Error{Op: "audit.Recorder", Kind: redoubt.Unavailable, Err: errors.New("the recorder is closed")}
}
