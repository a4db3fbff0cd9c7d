package enclave

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"testing"
	"time"

	"redoubt"
	"redoubt/keys"
	"redoubt/store/memory"
)

func recipient(t *testing.T) (string, *keys.Identity) {
	t.Helper()
	id, err := keys.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(id.Recipient()), id
}

// restored is a second enclave out of a backup of w.
func restored(t *testing.T, w *world, id *keys.Identity, backup io.Reader) *world {
	t.Helper()
	n := &world{t: t, keys: w.keys, o: w.o, rings: t.TempDir()}
	unlock := keys.KeyFile(filepath.Join(n.rings, "key"))
	engine := memory.Open()
	err := Restore(context.Background(), id, backup, func(exported []byte) (err error) {
		n.o.Keys, err = keys.Import(filepath.Join(n.rings, "ring"), unlock, exported, nil)
		return err
	}, engine)
	if err != nil {
		t.Fatal(err)
	}
	n.o.Engine = engine
	if n.Enclave, err = Open(context.Background(), n.o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func TestABackupBringsEverythingBack(t *testing.T) {
	w := open(t, nil)
	ctx, s, admin := context.Background(), w.as("s-analyst", ""), w.as("admin", "")
	w.put(s, "a", "one", "")
	second := w.put(s, "a", "two", "")
	u, list := w.upload(s, "parts", "", redoubt.MinPartBytes, 3)
	if _, err := w.complete(s, u, list); err != nil {
		t.Fatal(err)
	}
	to, id := recipient(t)
	var sealed bytes.Buffer
	want(t, w.Backup(ctx, s, to, io.Discard), redoubt.Denied)
	want(t, w.Backup(ctx, admin, "nobody", io.Discard), redoubt.Invalid)
	if err := w.Backup(ctx, admin, to, &sealed); err != nil {
		t.Fatal(err)
	}
	w.put(s, "a", "three, not in the backup", "")
	_, other := recipient(t)
	for what, r := range map[string]io.Reader{"cut short": bytes.NewReader(sealed.Bytes()[:sealed.Len()-9]), "nothing": bytes.NewReader(nil)} {
		if err := Restore(ctx, id, r, func([]byte) error { t.Errorf("%s: keys were made", what); return nil }, memory.Open()); err == nil {
			t.Errorf("%s was restored", what)
		}
	}
	if err := Restore(ctx, other, bytes.NewReader(sealed.Bytes()), nil, memory.Open()); err == nil {
		t.Error("another recipient opened it")
	}
	n := restored(t, w, id, &sealed)
	if got := n.get(s, "a"); got != "two" {
		t.Errorf("got %q, want two", got)
	}
	if got := n.get(s, "parts"); len(got) != redoubt.MinPartBytes+3 {
		t.Errorf("got %d bytes", len(got))
	}
	if v, err := n.HeadObject(ctx, s, redoubt.ReadObject{Name: reports, ID: second.ID}); err != nil || v.ETag != second.ETag {
		t.Errorf("got %+v, %v", v, err)
	}
	if report, err := n.Check(ctx, n.as("admin", ""), nil); err != nil || !report.OK {
		t.Errorf("got %+v, %v", report, err)
	}
}

func TestARestartKeepsEverythingThatWasAcknowledged(t *testing.T) {
	for _, crash := range []bool{false, true} {
		h := new(hands)
		w := open(t, withClock(h))
		ctx, s, officer := context.Background(), w.as("s-analyst", ""), w.as("officer", "")
		first := w.put(s, "a", "one", "")
		u, list := w.upload(s, "parts", "", redoubt.MinPartBytes, 3)
		if _, err := w.RotateKey(ctx, officer, "SECRET"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.CreateBucket(ctx, w.as("admin", ""), "made", redoubt.BucketSettings{Closed: true}); err != nil {
			t.Fatal(err)
		}
		if err := w.RevokePerson(ctx, officer, "u-analyst", "left"); err != nil {
			t.Fatal(err)
		}
		versions, size := w.usage("SECRET")
		h.add(-time.Hour) // the machine comes up with its clock set back
		w.restart(crash)
		if v, n := w.usage("SECRET"); v != versions || n != size {
			t.Errorf("%d versions of %d bytes became %d of %d", versions, size, v, n)
		}
		second := w.put(s, "a", "two", "")
		if got := w.get(s, "a"); got != "two" {
			t.Errorf("got %q, want the newer", got)
		}
		if second.Modified.Before(first.Modified) {
			t.Errorf("time went back from %v to %v", first.Modified, second.Modified)
		}
		if _, err := w.complete(s, u, list); err != nil {
			t.Error(err)
		}
		if b, err := w.HeadBucket(ctx, s, "made"); err != nil || !b.Closed {
			t.Errorf("got %+v, %v", b, err)
		}
		if _, err := w.GetObject(ctx, w.credential("u-analyst"), redoubt.ReadObject{Name: reports}); redoubt.KindOf(err) != redoubt.Unauthenticated {
			t.Errorf("a revoked person reads after a restart: %v", err)
		}
		if report, err := w.VerifyAudit(ctx, officer, nil); err != nil || !report.OK {
			t.Errorf("got %+v, %v", report, err)
		}
	}
}

// credential is one that nobody minted.
func (w *world) credential(who redoubt.SubjectName) redoubt.Credential {
	return redoubt.Credential{ID: "RDBTMADEUP", Subject: who, Working: w.floor, Expires: w.clock().Add(time.Hour)}
}
