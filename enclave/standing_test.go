package enclave

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"redoubt"
)

// takings are the ways in which a right is taken while content is under way.
var takings = map[string]struct {
	take func(w *world)
	kind redoubt.Kind
	rule string
}{
	"revoked": {func(w *world) {
		if err := w.RevokePerson(context.Background(), w.as("officer", ""), "s-analyst", "left"); err != nil {
			w.t.Fatal(err)
		}
	}, redoubt.Unauthenticated, ""},
	"cleared for less": {func(w *world) {
		w.person(redoubt.Person{Name: "s-analyst", Clearance: "UNCLASSIFIED", Roles: []redoubt.Role{redoubt.RoleAnalyst}})
	}, redoubt.Denied, "working-label (2.1)"},
	"denied by a grant": {func(w *world) {
		if _, err := w.Grant(context.Background(), w.as("officer", ""), redoubt.Grant{Subject: "s-analyst", Bucket: "reports", Deny: true}); err != nil {
			w.t.Fatal(err)
		}
	}, 0, "need-to-know"},
	"shut out of a bucket": {func(w *world) {
		if _, err := w.UpdateBucket(context.Background(), w.as("admin", ""), "reports", func(b *redoubt.BucketSettings) error { b.Closed = true; return nil }); err != nil {
			w.t.Fatal(err)
		}
	}, 0, "need-to-know"},
}

// denials counts what is on record as denied of a key.
func (w *world) denials(key string, action redoubt.Action, rule string) (n int) {
	w.t.Helper()
	err := w.SearchAudit(context.Background(), w.as("officer", ""), redoubt.AuditQuery{Object: named(key), Action: action, Outcome: "deny"}, func(r redoubt.AuditRecord) error {
		if strings.HasPrefix(r.Rule, rule) {
			n++
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// A right that is taken while content comes in is taken: nothing is committed under it, and the refusal is on record.
func TestNothingIsCommittedUnderARightThatWasTaken(t *testing.T) {
	for name, c := range takings {
		t.Run(name, func(t *testing.T) {
			w := open(t, nil)
			ctx, s := context.Background(), w.as("s-analyst", "")
			u, err := w.CreateUpload(ctx, s, redoubt.CreateUpload{Name: named("parts")})
			if err != nil {
				t.Fatal(err)
			}
			writes := map[string]func(body io.Reader) error{
				"late": func(body io.Reader) error {
					_, err := w.PutObject(ctx, s, redoubt.PutObject{Name: named("late"), SizeBytes: 8, Body: body})
					return err
				},
				"parts": func(body io.Reader) error {
					_, err := w.PutPart(ctx, s, redoubt.PutPart{Name: named("parts"), Upload: u.ID, Number: 1, SizeBytes: 8, Body: body})
					return err
				},
			}
			ends, gates := make(chan error, len(writes)), []*gate{}
			for _, write := range writes {
				body := &gate{first: strings.NewReader("half"), at: make(chan struct{}), opened: make(chan struct{})}
				gates = append(gates, body)
				go func() { ends <- write(body) }()
				<-body.at
			}
			c.take(w)
			for _, g := range gates {
				close(g.opened)
			}
			for range writes {
				switch err := <-ends; {
				case err == nil:
					t.Error("it was committed")
				case c.kind != 0 && redoubt.KindOf(err) != c.kind:
					t.Errorf("got %v, want %v", err, c.kind)
				}
			}
			ts := w.as("ts-analyst", "")
			if _, err := w.HeadObject(ctx, ts, redoubt.ReadObject{Name: named("late")}); err == nil {
				t.Error("it is there")
			}
			if c.kind == redoubt.Unauthenticated {
				return
			}
			for key, action := range map[string]redoubt.Action{"late": redoubt.ActionPutObject, "parts": redoubt.ActionUpload} {
				if n := w.denials(key, action, c.rule); n != 1 {
					t.Errorf("%s: %d denials by %s on record, want 1", key, n, c.rule)
				}
			}
		})
	}
}

// A download ends with the right to it, within a piece, on the record; one whose credential merely expires goes on.
func TestADownloadEndsWithTheRightToIt(t *testing.T) {
	content := strings.Repeat("0123456789abcdef", 4<<20/16)
	for name, c := range takings {
		t.Run(name, func(t *testing.T) {
			w := open(t, nil)
			ctx, s := context.Background(), w.as("s-analyst", "")
			w.put(s, "large", content, "")
			open := func() redoubt.Object {
				o, err := w.GetObject(ctx, s, redoubt.ReadObject{Name: named("large")})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { o.Close() })
				return o
			}
			read, written := open().Reader(0, -1), open().Reader(1, 3<<20)
			if _, err := io.ReadFull(read, make([]byte, 1<<20)); err != nil {
				t.Fatal(err)
			}
			c.take(w)
			if n, err := read.Read(make([]byte, 1<<20)); err == nil {
				t.Errorf("%d bytes more were read", n)
			}
			var got bytes.Buffer
			if _, err := written.(io.WriterTo).WriteTo(&got); err == nil || got.Len() > 0 {
				t.Errorf("%d bytes were written: %v", got.Len(), err)
			}
			if n := w.denials("large", redoubt.ActionGetObject, c.rule); n != 2 {
				t.Errorf("%d denials on record, want 2", n)
			}
		})
	}
}

func TestADownloadOutlastsItsCredentialsTime(t *testing.T) {
	var later atomic.Int64
	w := open(t, func(o *Options) { o.Clock = func() time.Time { return time.Now().Add(time.Duration(later.Load())) } })
	s := w.as("s-analyst", "")
	content := strings.Repeat("x", 1<<20)
	w.put(s, "large", content, "")
	o, err := w.GetObject(context.Background(), s, redoubt.ReadObject{Name: named("large")})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	later.Store(int64(time.Until(s.Expires) + time.Hour))
	if _, err := w.GetObject(context.Background(), s, redoubt.ReadObject{Name: named("large")}); !errors.Is(err, redoubt.Expired) {
		t.Fatalf("got %v, want expired", err)
	}
	if got, err := io.ReadAll(o.Reader(0, -1)); err != nil || string(got) != content {
		t.Errorf("%d bytes of what was begun in time: %v", len(got), err)
	}
}

// A download ends with the version, where that is taken out for what is in it: on the record, as one that is not there.
func TestADownloadEndsWithWhatIsTakenOut(t *testing.T) {
	content := strings.Repeat("0123456789abcdef", 4<<20/16)
	report := func(w *world, key string, erase bool) {
		if _, err := w.reported(key, "", erase); err != nil {
			w.t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		take func(w *world, v redoubt.Version)
		ends bool
	}{
		"reported as a spill": {func(w *world, _ redoubt.Version) { report(w, "large", true) }, true},
		"a copy of a spill":   {func(w *world, _ redoubt.Version) { report(w, "copy", true) }, true},
		"erased": {func(w *world, v redoubt.Version) {
			if err := w.EraseVersion(context.Background(), w.spillOfficer(), named("large"), v.ID, "test"); err != nil {
				w.t.Fatal(err)
			}
		}, true},
		"only found": {func(w *world, _ redoubt.Version) { report(w, "large", false) }, false},
		"deleted": {func(w *world, v redoubt.Version) {
			if _, err := w.DeleteObject(context.Background(), w.as("s-analyst", ""), redoubt.DeleteObject{Name: named("large"), ID: v.ID}); err != nil {
				w.t.Fatal(err)
			}
		}, false},
		"another is a spill": {func(w *world, _ redoubt.Version) { report(w, "other", true) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := open(t, nil)
			ctx, s := context.Background(), w.as("s-analyst", "")
			w.put(s, "other", "something else", "")
			w.put(s, "copy", content, "")
			v := w.put(s, "large", content, "")
			o, err := w.GetObject(ctx, s, redoubt.ReadObject{Name: named("large")})
			if err != nil {
				t.Fatal(err)
			}
			defer o.Close()
			r := o.Reader(0, -1)
			if _, err := io.ReadFull(r, make([]byte, 1<<20)); err != nil {
				t.Fatal(err)
			}
			c.take(w, v)
			rest, err := io.ReadAll(r)
			switch n := w.denials("large", redoubt.ActionGetObject, ruleTakenOut); {
			case !c.ends && (err != nil || len(rest) != 3<<20 || n != 0):
				t.Errorf("%d bytes were read, %d denials: %v", len(rest), n, err)
			case c.ends && (!errors.Is(err, redoubt.NotFound) || len(rest) > 0 || n != 1):
				t.Errorf("%d bytes were read, %d denials on record, want 1: %v", len(rest), n, err)
			}
		})
	}
}

// underRead opens a key in each way in which a program reads what it asks for later.
func (w *world) underRead(key string) map[string]redoubt.Content {
	w.t.Helper()
	ctx, s := context.Background(), w.as("s-analyst", "")
	w.submit(s, nil)
	job := w.run()
	w.deploy(s, "tool")
	call, err := w.CallService(ctx, s, "tool")
	if err != nil {
		w.t.Fatal(err)
	}
	all := map[string]redoubt.Content{}
	for what, open := range map[string]func() (redoubt.Content, error){
		"a job's input":      func() (c redoubt.Content, err error) { _, c, err = job.Open(ctx, "reports/"+key); return },
		"a service's input":  func() (c redoubt.Content, err error) { _, c, err = call.Begin().Open(ctx, "reports/"+key); return },
		"a program's object": func() (c redoubt.Content, err error) { _, c, err = job.Object(ctx, named(key)); return },
	} {
		c, err := open()
		if err != nil {
			w.t.Fatal(what, err)
		}
		w.t.Cleanup(func() { c.Close() })
		all[what] = c
	}
	return all
}

// What a program has opened is read no further than its submitter may, however small it is; nor is what was taken out.
func TestWhatAProgramReadsEndsWithTheRightToIt(t *testing.T) {
	for name, c := range takings {
		t.Run(name, func(t *testing.T) {
			w := open(t, nil)
			w.put(w.as("s-analyst", ""), "small", "a few bytes", "")
			all := w.underRead("small")
			c.take(w)
			for what, content := range all {
				if got, err := io.ReadAll(content.Reader(0, -1)); err == nil || len(got) > 0 {
					t.Errorf("%s: %q, %v", what, got, err)
				}
			}
			if n := w.denials("small", redoubt.ActionGetObject, c.rule); c.kind != redoubt.Unauthenticated && n != len(all) {
				t.Errorf("%d denials by %s on record, want %d", n, c.rule, len(all))
			}
		})
	}
	for name, take := range map[string]func(w *world, v redoubt.Version) error{
		"reported as a spill": func(w *world, v redoubt.Version) error {
			_, err := w.reported("large", v.ID, true)
			return err
		},
		"erased": func(w *world, v redoubt.Version) error {
			return w.EraseVersion(context.Background(), w.spillOfficer(), named("large"), v.ID, "test")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := open(t, nil)
			v := w.put(w.as("s-analyst", ""), "large", strings.Repeat("0123456789abcdef", 2<<20/16), "")
			all, readers := w.underRead("large"), map[string]io.Reader{}
			for what, content := range all {
				readers[what] = content.Reader(0, -1)
				if _, err := io.ReadFull(readers[what], make([]byte, 1<<20)); err != nil {
					t.Fatal(what, err)
				}
			}
			if err := take(w, v); err != nil {
				t.Fatal(err)
			}
			for what, r := range readers {
				if got, err := io.ReadAll(r); !errors.Is(err, redoubt.NotFound) || len(got) > 0 {
					t.Errorf("%s: %d bytes more, %v", what, len(got), err)
				}
			}
		})
	}
}

// That a program reads no further is on record at MAX: START does not know when it began.
func TestThatAProgramReadsNoFurtherIsOnRecordAtMax(t *testing.T) {
	w := open(t, nil)
	ctx, who := context.Background(), w.as("ts-analyst", "SECRET")
	v := w.put(who, "part", "a part", "")
	w.submit(who, maxed(top))
	_, c, err := w.run().Object(ctx, named("part"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := w.EraseVersion(ctx, w.spillOfficer(), named("part"), v.ID, "test"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c.Reader(0, -1)); !errors.Is(err, redoubt.NotFound) {
		t.Fatalf("got %q, %v", got, err)
	}
	for marking, want := range map[string]int{"SECRET": 0, w.ceiling.Banner(): 1} {
		n := 0
		err := w.SearchAudit(ctx, w.as("officer", marking), redoubt.AuditQuery{Object: named("part"), Outcome: "deny"}, func(redoubt.AuditRecord) error { n++; return nil })
		if err != nil || n != want {
			t.Errorf("at %s %d denials are on record, want %d: %v", marking, n, want, err)
		}
	}
}

// What a reviewer looks at she reads for as long as she may, and as long as it is there.
func TestWhatAReviewerReadsEndsWithTheRightToIt(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		take func(c *chain)
		ends bool
	}{
		"she is revoked": {func(c *chain) {
			if err := c.ts.RevokePerson(ctx, c.ts.as("officer", ""), "rev-1", "left"); err != nil {
				c.t.Fatal(err)
			}
		}, true},
		"it is reported as a spill": {func(c *chain) { c.spill("", true) }, true},
		"its source is erased": {func(c *chain) {
			v, err := c.ts.HeadObject(ctx, c.ts.as("ts-analyst", "SECRET"), redoubt.ReadObject{Name: planRequest.Name})
			if err == nil {
				err = c.ts.EraseVersion(ctx, c.ts.spillOfficer(), planRequest.Name, v.ID, "test")
			}
			if err != nil {
				c.t.Fatal(err)
			}
		}, true},
		"another reviewer is revoked": {func(c *chain) {
			if err := c.ts.RevokePerson(ctx, c.ts.as("officer", ""), "rev-2", "left"); err != nil {
				c.t.Fatal(err)
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			x := openChain(t)
			o, err := x.ts.OpenRebuilt(ctx, x.ts.as("rev-1", "SECRET"), x.inReview())
			if err != nil {
				t.Fatal(err)
			}
			defer o.Close()
			c.take(x)
			if got, err := io.ReadAll(o.Reader(0, -1)); (err != nil) != c.ends || (len(got) == 0) != c.ends {
				t.Errorf("%q is read, %v", got, err)
			}
		})
	}
}
