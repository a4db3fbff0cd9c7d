package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"redoubt"
	"redoubt/faketime"
)

// stream is a Memory whose commits can fail or be slow.
type stream struct {
	Memory
	err     error
	delay   time.Duration
	commits int
}

func (s *stream) Commit(ctx context.Context, entries [][]byte) error {
	if s.delay > 0 {
		time.Sleep(s.delay)
	}
	if s.err != nil {
		return s.err
	}
	s.commits++
	return s.Memory.Commit(ctx, entries)
}

func (s *stream) all(t *testing.T) []Entry {
	t.Helper()
	var out []Entry
	err := s.Read(context.Background(), 0, s.Len(), func(_ uint64, b []byte) error {
		e, err := ParseEntry(b)
		out = append(out, e)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func startRecorder(t *testing.T, s *stream) *Recorder {
	t.Helper()
	r, err := NewRecorder(context.Background(), "node:secret", s, s.Commit, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func read(i int) *Entry {
	return &Entry{Subject: "s", Action: "GetObject", Allow: true, Kind: "ok", Detail: fmt.Sprint(i)}
}

func count(entries []Entry, action string) (n int) {
	for _, e := range entries {
		if e.Action == action {
			n++
		}
	}
	return n
}

func TestAllowedReadsAreDurableWithinASecond(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := &stream{}
		r := startRecorder(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { r.Run(ctx) })
		for i := range 100 {
			if err := r.Read(ctx, read(i)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
			if got := count(s.all(t), "GetObject"); got < i+1-int(MaxUnflushed/(20*time.Millisecond)) {
				t.Fatalf("after read %d only %d are durable", i, got)
			}
		}
		cancel()
		wg.Wait()
		if err := r.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		entries := s.all(t)
		if got := count(entries, "GetObject"); got != 100 {
			t.Errorf("got %d reads, want 100", got)
		}
		if s.commits > 10 {
			t.Errorf("%d commits for 2 seconds of reads", s.commits)
		}
		last := entries[len(entries)-1]
		if last.Action != ActionClose || !strings.Contains(last.Detail, "reads=100") {
			t.Errorf("the last entry is %+v", last)
		}
	})
}

func TestReadsFlushForThemselvesWhenNobodyDoes(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := &stream{}
		r := startRecorder(t, s)
		for i := range 50 { // no Run
			if err := r.Read(t.Context(), read(i)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if got := count(s.all(t), "GetObject"); got < 40 {
			t.Errorf("only %d of 50 reads are durable", got)
		}
		for i := range MaxBufferedReads + 1 {
			if err := r.Read(t.Context(), read(i)); err != nil {
				t.Fatal(err)
			}
		}
		if r.Waiting() > MaxBufferedReads {
			t.Errorf("%d reads wait", r.Waiting())
		}
	})
}

func TestReadsStopWhenTheyCannotBeRecorded(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := &stream{}
		r := startRecorder(t, s)
		if err := r.Read(t.Context(), read(0)); err != nil {
			t.Fatal(err)
		}
		s.err = &redoubt.Error{Kind: redoubt.DiskFull}
		if err := r.Flush(t.Context()); !errors.Is(err, redoubt.DiskFull) {
			t.Fatalf("got %v", err)
		}
		if err := r.Read(t.Context(), read(1)); !errors.Is(err, redoubt.DiskFull) {
			t.Errorf("a read that cannot be recorded: got %v, want DiskFull", err)
		}
		if err := r.Close(t.Context()); !errors.Is(err, redoubt.DiskFull) {
			t.Errorf("Close: got %v", err)
		}
		s.err = nil
		if err := r.Read(t.Context(), read(2)); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := count(s.all(t), "GetObject"); got != 2 {
			t.Errorf("got %d reads, want the two that were allowed, once each", got)
		}
		for _, err := range []error{r.Read(t.Context(), read(3)), r.Flush(t.Context()), r.Close(t.Context())} {
			if !errors.Is(err, redoubt.Unavailable) {
				t.Errorf("after Close: got %v, want Unavailable", err)
			}
		}
	})
}

func TestACrashShowsAsAGap(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := &stream{}
		r := startRecorder(t, s)
		r.Read(t.Context(), read(0))
		r.Flush(t.Context())
		r.Read(t.Context(), read(1)) // lost
		s.Commit(t.Context(), [][]byte{r.Record(&Entry{Action: "PutObject", Allow: true})})
		r2 := startRecorder(t, s) // after the crash
		if err := r2.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		startRecorder(t, s)
		entries := s.all(t)
		var starts []Entry
		for _, e := range entries {
			if e.Action == ActionStart {
				starts = append(starts, e)
			}
		}
		if len(starts) != 3 || starts[0].Rule != StartFirst || starts[1].Rule != StartGap || starts[2].Rule != StartClean {
			t.Fatalf("got %+v", starts)
		}
		if d := starts[1].Detail; !strings.Contains(d, "previous="+r.session) || !strings.Contains(d, "flushed=1") {
			t.Errorf("the gap says %q", d)
		}
		l, err := NewLog(t.Context(), origin, testSigner(), s, &s.Memory, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		advance(t, l)
		sum, err := Verify(t.Context(), s, &s.Memory, l.Verifier(), nil, nil)
		if err != nil || sum.Sessions != 3 || len(sum.Gaps) != 1 || entries[sum.Gaps[0].Entry].Rule != StartGap {
			t.Errorf("got %+v, %v", sum, err)
		}
		// An entry after a clean close makes its end unclean.
		s2 := &stream{}
		startRecorder(t, s2).Close(t.Context())
		s2.Commit(t.Context(), [][]byte{testEntry(1)})
		startRecorder(t, s2)
		if all := s2.all(t); all[len(all)-1].Rule != StartGap {
			t.Errorf("got %+v", all[len(all)-1])
		}
	})
}

func TestUnauthenticatedFailuresAreCountedTogether(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := &stream{}
		r := startRecorder(t, s)
		total := 0
		for second := range 100 {
			for i := range 500 {
				r.Unauthenticated(&Entry{Action: "GetObject", Rule: "unauthenticated", Kind: "not authenticated", Source: fmt.Sprintf("192.0.2.%d", i%250), Allow: true})
				total++
			}
			if second == 50 { // a failed flush loses none
				s.err = errors.New("disk")
				r.Flush(t.Context())
				s.err = nil
			}
			if err := r.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		got, entries := 0, 0
		for _, e := range s.all(t) {
			if e.Rule == "unauthenticated" {
				got += int(e.Count)
				entries++
				if e.Allow {
					t.Error("an unauthenticated failure was written as allowed")
				}
			}
		}
		if got != total {
			t.Errorf("got a count of %d, want %d", got, total)
		}
		if entries > 600 {
			t.Errorf("a flood made %d entries in 100 s", entries)
		}
		s2 := &stream{}
		r2 := startRecorder(t, s2)
		for range 1000 {
			r2.Unauthenticated(&Entry{Action: "GetObject", Rule: "unauthenticated", Source: "192.0.2.1"})
		}
		r2.Flush(t.Context())
		if all := s2.all(t); len(all) != 2 || all[1].Count != 1000 || all[1].Source != "192.0.2.1" {
			t.Errorf("got %+v", all)
		}
	})
}

func TestManyReadAtOnceAndNoneIsLost(t *testing.T) {
	s := &stream{}
	r := startRecorder(t, s)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 5000 {
				if err := r.Read(t.Context(), read(i)); err != nil {
					t.Error(err)
				}
				if i%1000 == g {
					r.Flush(t.Context())
				}
			}
		})
	}
	wg.Wait()
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries := s.all(t)
	marked := 0
	for _, e := range entries {
		if e.Action == ActionMark {
			marked += int(e.Count)
		}
	}
	if got := count(entries, "GetObject"); got != 40000 || marked != 40000 {
		t.Errorf("got %d reads and marks for %d, want 40000", got, marked)
	}
}

func TestASlowCommitHoldsReadsBack(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := &stream{}
		r := startRecorder(t, s)
		r.Read(t.Context(), read(0))
		s.delay = 3 * time.Second
		var wg sync.WaitGroup
		wg.Go(func() { r.Flush(t.Context()) })
		time.Sleep(MaxUnflushed / 2)
		begin := time.Now()
		if err := r.Read(t.Context(), read(1)); err != nil || time.Since(begin) != 0 {
			t.Errorf("a read within the second waited %v: %v", time.Since(begin), err)
		}
		time.Sleep(MaxUnflushed)
		if err := r.Read(t.Context(), read(2)); err != nil || time.Since(begin) < 2*time.Second {
			t.Errorf("a read was allowed while one waited for over a second (%v, %v)", time.Since(begin), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wg.Wait()
		wg.Go(func() { r.Flush(t.Context()) })
		time.Sleep(time.Millisecond)
		if err := r.Flush(ctx); !errors.Is(err, redoubt.Unavailable) {
			t.Errorf("a flush that waited too long: %v", err)
		}
		wg.Wait()
	})
}

func BenchmarkRecorderRead(b *testing.B) {
	s := &stream{}
	r, err := NewRecorder(b.Context(), "node", s, func(context.Context, [][]byte) error { return nil }, time.Now)
	if err != nil {
		b.Fatal(err)
	}
	e := fullEntry()
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Read(b.Context(), &e); err != nil {
			b.Fatal(err)
		}
	}
}
