package enclave

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/audit"
	"redoubt/keys"
	"redoubt/store"
)

// refusals fills the log with n entries, each a commit.
func (w *world) refusals(n int) {
	w.t.Helper()
	for range n {
		w.get(w.as("s-analyst", ""), "nothing")
	}
	if err := w.recorder.Flush(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

// archive writes what is older than before, and gives the file's bytes and its digest.
func (w *world) archive(to string, before time.Time) ([]byte, string) {
	w.t.Helper()
	var file bytes.Buffer
	if err := w.ArchiveAudit(context.Background(), w.as("officer", ""), before, to, &file); err != nil {
		w.t.Fatal(err)
	}
	return file.Bytes(), digestOf(file.Bytes())
}

func digestOf(file []byte) string {
	sum := sha256.Sum256(file)
	return hex.EncodeToString(sum[:])
}

func (w *world) confirm(digest string) redoubt.AuditArchive {
	w.t.Helper()
	a, err := w.ConfirmArchive(context.Background(), w.as("officer", ""), digest)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

func (w *world) verified() redoubt.AuditReport {
	w.t.Helper()
	r, err := w.VerifyAudit(context.Background(), w.as("officer", ""), nil)
	if err != nil || !r.OK {
		w.t.Fatalf("the log does not verify: %+v, %v", r, err)
	}
	return r
}

// opened reads an archive with its recipient's key.
func (w *world) opened(file []byte, id *keys.Identity) (audit.Archive, error) {
	w.t.Helper()
	in, err := keys.OpenWith(id, bytes.NewReader(file))
	if err != nil {
		return audit.Archive{}, err
	}
	return audit.ReadArchive(context.Background(), in, w.tree.Verifier(), nil, nil)
}

func TestTheLogAgesIntoConfirmedArchivesAndLosesNothing(t *testing.T) {
	w := open(t, nil)
	to, id := recipient(t)
	w.refusals(600)
	old := w.verified()
	file, digest := w.archive(to, w.clock())
	if first := w.engine.Stats().FirstAppend; first != 0 {
		t.Fatalf("an archive that nobody confirmed dropped %d entries", first)
	}
	a, err := w.opened(file, id)
	if err != nil || a.From != 0 || a.To < 512 || a.To%256 != 0 {
		t.Fatalf("got %+v, %v", a, err)
	}
	done := w.confirm(digest)
	if s := w.engine.Stats(); done.To != a.To || s.FirstAppend != a.To || done.SHA256 != digest || s.Appended <= a.To {
		t.Fatalf("got %+v; entries %d to %d are kept", done, s.FirstAppend, s.Appended)
	}
	if again := w.confirm(digest); again != done {
		t.Fatalf("confirmed again: got %+v, want %+v", again, done)
	}
	r := w.verified()
	if r.KeptFrom != a.To || len(r.Archives) != 1 || r.Archives[0] != done || r.Entries <= old.Entries {
		t.Fatalf("got %+v", r)
	}
	for _, mark := range []string{old.Checkpoint, string(a.After.Note)} {
		if r, err := w.VerifyAudit(context.Background(), w.as("officer", ""), []string{mark}); err != nil || !r.OK {
			t.Fatalf("against a checkpoint from before: %+v, %v", r, err)
		}
	}

	for _, crash := range []bool{false, true} {
		w.restart(crash)
		if r := w.verified(); r.KeptFrom != a.To || len(r.Archives) != 1 {
			t.Fatalf("after a restart: %+v", r)
		}
	}
	w.refusals(300)
	next, digest := w.archive(to, w.clock())
	b, err := w.opened(next, id)
	if err != nil || b.From != a.To {
		t.Fatalf("the next archive: %+v, %v", b, err)
	}
	w.confirm(digest)
	if r := w.verified(); r.KeptFrom != b.To || len(r.Archives) != 2 {
		t.Fatalf("got %+v", r)
	}
	if gaps := audit.Gaps([]audit.Archive{a, b}, b.To); len(gaps) > 0 {
		t.Fatalf("between the two: %v", gaps)
	}
}

func TestOnlyTheFileThatWasWrittenLastIsConfirmed(t *testing.T) {
	w := open(t, nil)
	to, _ := recipient(t)
	w.refusals(300)
	ctx, officer := context.Background(), w.as("officer", "")
	first, _ := w.archive(to, w.clock())
	second, _ := w.archive(to, w.clock()) // as after a client that died between export and confirm
	cut := second[:len(second)-1]
	for name, digest := range map[string]string{"none": "", "an older file": digestOf(first), "a file cut short": digestOf(cut), "no digest": "zz"} {
		_, err := w.ConfirmArchive(ctx, officer, digest)
		want(t, err, redoubt.Conflict)
		if got := w.engine.Stats().FirstAppend; got != 0 {
			t.Fatalf("%s: %d entries are gone", name, got)
		}
	}
	w.restart(true) // what waits to be confirmed outlives a crash
	w.confirm(digestOf(second))
	_, err := w.ConfirmArchive(ctx, w.as("officer", ""), digestOf(first))
	want(t, err, redoubt.Conflict)
	w.verified()
}

// TestAFailedExportOrConfirmLosesNothing: the client goes away while it is written, or the commit fails.
func TestAFailedExportOrConfirmLosesNothing(t *testing.T) {
	var f *faulty
	w := open(t, withFaults(&f))
	to, _ := recipient(t)
	w.refusals(300)
	ctx := context.Background()
	gone := errors.New("gone")
	if err := w.ArchiveAudit(ctx, w.as("officer", ""), w.clock(), to, &shortWriter{left: 10_000, err: gone}); !errors.Is(err, gone) {
		t.Fatalf("got %v", err)
	}
	if _, ok, err := w.engine.Get(writtenKey); ok || err != nil {
		t.Fatalf("half a file can be confirmed: %v", err)
	}
	_, digest := w.archive(to, w.clock())
	officer := w.as("officer", "")
	f.when(func(b *store.Batch) error {
		if b.DropBelow > 0 {
			return gone
		}
		return nil
	})
	if _, err := w.ConfirmArchive(ctx, officer, digest); !errors.Is(err, gone) {
		t.Fatalf("got %v", err)
	}
	f.when(nil)
	if got := w.engine.Stats().FirstAppend; got != 0 {
		t.Fatalf("%d entries are gone", got)
	}
	w.confirm(digest)
	w.verified()
}

type shortWriter struct {
	left int
	err  error
}

func (l *shortWriter) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, l.err
	}
	return len(p), nil
}

func TestArchivingIsForOfficersAtTheCeilingAndOnRecord(t *testing.T) {
	w := open(t, nil)
	to, _ := recipient(t)
	w.refusals(300)
	ctx := context.Background()
	for _, who := range []redoubt.Credential{w.as("officer", "SECRET"), w.as("officer", "TOP SECRET"), w.as("ts-analyst", ""), w.as("admin", "")} {
		want(t, w.ArchiveAudit(ctx, who, w.clock(), to, io.Discard), redoubt.Denied)
		_, err := w.ConfirmArchive(ctx, who, "00")
		want(t, err, redoubt.Denied)
	}
	want(t, w.ArchiveAudit(ctx, w.as("officer", ""), w.clock(), "no key", io.Discard), redoubt.Invalid)
	_, digest := w.archive(to, w.clock())
	done := w.confirm(digest)
	said := map[redoubt.Action][]string{}
	refused := 0
	err := w.SearchAudit(ctx, w.as("officer", ""), redoubt.AuditQuery{}, func(r redoubt.AuditRecord) error {
		if r.Action == redoubt.ActionArchiveAudit || r.Action == redoubt.ActionConfirmArchive {
			if !r.Allow {
				refused++
			} else {
				said[r.Action] = append(said[r.Action], r.Detail)
			}
		}
		return nil
	})
	what := fmt.Sprintf("from=0 to=%d sha256=%s", done.To, digest)
	if err != nil || refused != 8 || strings.Join(said[redoubt.ActionArchiveAudit], ";") != "begun;"+what || strings.Join(said[redoubt.ActionConfirmArchive], ";") != what {
		t.Fatalf("%d refusals and %q are on record, %v", refused, said, err)
	}
}

func TestWhatTheEstateKeepsIsNotArchived(t *testing.T) {
	h := &hands{}
	w := open(t, func(o *Options) { withClock(h)(o); o.AuditKeep = 720 * time.Hour })
	to, _ := recipient(t)
	ctx := context.Background()
	w.refusals(300)
	old, olds := h.clock().Add(time.Second), w.engine.Stats().Appended
	h.add(720*time.Hour - time.Minute)
	err := w.ArchiveAudit(ctx, w.as("officer", ""), old, to, io.Discard)
	want(t, err, redoubt.Denied)
	var told *redoubt.Error
	if !errors.As(err, &told) || told.Rule != ruleAuditKeep {
		t.Fatalf("got %v", err)
	}
	h.add(2 * time.Minute)
	w.refusals(300) // young
	_, digest := w.archive(to, old)
	w.keep += time.Hour // the estate is issued anew between export and confirm
	_, err = w.ConfirmArchive(ctx, w.as("officer", ""), digest)
	want(t, err, redoubt.Denied)
	w.keep -= time.Hour
	if a := w.confirm(digest); a.To != olds/256*256 {
		t.Fatalf("entries to %d are archived, of %d that are old enough", a.To, olds)
	}
	want(t, w.ArchiveAudit(ctx, w.as("officer", ""), old, to, io.Discard), redoubt.PreconditionFail)
}

func TestASearchOfAnArchiveShowsALowOfficerNothingAbove(t *testing.T) {
	w := open(t, nil)
	to, id := recipient(t)
	w.put(w.as("ts-analyst", ""), "a", "x", "")
	w.put(w.as("u-analyst", ""), "a", "x", "")
	w.refusals(300)
	ctx := context.Background()
	puts := redoubt.AuditQuery{Action: redoubt.ActionPutObject, Object: reports}
	live := []redoubt.AuditRecord{}
	if err := w.SearchAudit(ctx, w.as("officer", ""), puts, func(r redoubt.AuditRecord) error { live = append(live, r); return nil }); err != nil {
		t.Fatal(err)
	}
	file, digest := w.archive(to, w.clock())
	w.confirm(digest)
	search := func(who redoubt.Credential, file []byte) (found []redoubt.AuditRecord, err error) {
		in, err := keys.OpenWith(id, bytes.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		err = w.SearchArchive(ctx, who, puts, in, func(r redoubt.AuditRecord) error { found = append(found, r); return nil })
		return found, err
	}
	got, err := search(w.as("officer", ""), file)
	if err != nil || len(got) != 2 || fmt.Sprint(got) != fmt.Sprint(live) {
		t.Fatalf("got %+v, %v; the live log showed %+v", got, err, live)
	}
	if got, err := search(w.as("officer", "UNCLASSIFIED"), file); err != nil || len(got) != 1 || got[0].Number != 0 || strings.Contains(got[0].Label, "TOP") {
		t.Fatalf("the low officer finds %+v, %v", got, err)
	}
	_, err = search(w.as("ts-analyst", ""), file)
	want(t, err, redoubt.Denied)
	other := open(t, nil) // another node's log
	in, err := keys.OpenWith(id, bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	err = other.SearchArchive(ctx, other.as("officer", "UNCLASSIFIED"), puts, in, func(redoubt.AuditRecord) error { return errors.New("shown") })
	want(t, err, redoubt.Corrupt)
	if strings.ContainsAny(err.Error(), "0123456789") {
		t.Fatalf("the low officer is told %v", err)
	}
}

func TestABackupOfAnArchivedLogRestoresAndVerifies(t *testing.T) {
	w := open(t, nil)
	to, id := recipient(t)
	w.refusals(300)
	_, digest := w.archive(to, w.clock())
	done := w.confirm(digest)
	var backup bytes.Buffer
	if err := w.Backup(context.Background(), w.as("admin", ""), to, &backup); err != nil {
		t.Fatal(err)
	}
	again := restored(t, w, id, &backup)
	if r := again.verified(); r.KeptFrom != done.To || len(r.Archives) != 1 || r.Archives[0].SHA256 != digest {
		t.Fatalf("got %+v", r)
	}
}
