package enclave

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/store"
)

// TestChargesAreThoseOfWhatIsThere plays random operations at several labels, with commits that fail, crashes, restarts,
// rotations and erasures, and holds the charges against a full count of the catalogue.
func TestChargesAreThoseOfWhatIsThere(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			var f *faulty
			h := new(hands)
			clock := withClock(h)
			m := &ledger{r: rand.New(rand.NewPCG(seed, 7)), h: h}
			m.world = open(t, func(o *Options) {
				clock(o)
				o.Quotas = map[string]int64{"UNCLASSIFIED": 15_000, redoubt.QuotaOfOthers: 20_000}
				for i := range o.Buckets {
					o.Buckets[i].Lifecycle = []redoubt.LifecycleRule{{Days: 1, NoncurrentDays: 1, AbortUploadDays: 1, ExpiredMarkers: true}}
				}
				withFaults(&f)(o)
			})
			for range 300 {
				if m.step(f) {
					f = &faulty{Engine: m.o.Engine}
					m.o.Engine, m.engine = f, f
				}
				f.when(nil)
				m.charges()
			}
			m.restart(true)
			m.charges()
			m.restart(false)
			m.charges()
			var kept int64
			view := m.engine.View()
			defer view.Close()
			for _, set := range m.sets.all() {
				n, err := counter(view, recKept, set.id)
				if err != nil {
					t.Fatal(err)
				}
				kept += n
			}
			if m.done < 100 || kept == 0 || m.refused == 0 || m.failed == 0 {
				t.Errorf("%d steps were done, %d refused by a share, %d failed, %d bytes are kept: the history is too thin", m.done, m.refused, m.failed, kept)
			}
		})
	}
}

// ledger is a random history of one enclave.
type ledger struct {
	*world
	r                     *rand.Rand
	h                     *hands
	at                    map[string]redoubt.Credential // of ts-analyst
	officer               redoubt.Credential
	minted                time.Time
	uploads               []redoubt.Upload
	versions              []redoubt.Version
	done, refused, failed int
}

var ledgerMarkings = []string{"UNCLASSIFIED", "SECRET", "SECRET//NOFORN", "SECRET//REL TO USA, GBR", "TOP SECRET"}

// mint sees to credentials that live for the length of a step.
func (m *ledger) mint() {
	if m.at != nil && m.clock().Sub(m.minted) < 10*time.Minute {
		return
	}
	m.at, m.officer, m.minted = map[string]redoubt.Credential{}, m.as("officer", ""), m.clock()
	for _, marking := range ledgerMarkings {
		m.at[marking] = m.as("ts-analyst", marking)
	}
}

// step does one thing; it says whether the enclave was opened anew.
func (m *ledger) step(f *faulty) (reopened bool) {
	ctx := context.Background()
	if m.r.IntN(40) == 0 {
		m.restart(m.r.IntN(2) == 0)
		return true
	}
	m.h.add(time.Duration(m.r.IntN(600)) * time.Second)
	if m.r.IntN(15) == 0 {
		m.h.add(13 * time.Hour)
	}
	m.mint()
	if m.r.IntN(12) == 0 {
		f.when(func(b *store.Batch) error {
			if len(b.Writes) > 0 {
				return errPulled
			}
			return nil
		})
	}
	label := ""
	if m.r.IntN(4) == 0 {
		label = ledgerMarkings[m.r.IntN(len(ledgerMarkings))]
	}
	err := m.act(ctx, m.at[ledgerMarkings[m.r.IntN(len(ledgerMarkings))]], label)
	switch {
	case err == nil:
		m.done++
	case errors.Is(err, errPulled):
		m.failed++
	case errors.Is(err, redoubt.QuotaExceeded):
		m.refused++
	}
	return false
}

func (m *ledger) act(ctx context.Context, who redoubt.Credential, label string) error {
	name := redoubt.ObjectName{Bucket: []redoubt.BucketName{"reports", "reports", "locked"}[m.r.IntN(3)], Key: []string{"a", "b", "a/longer/name"}[m.r.IntN(3)]}
	size := []int{0, 1, 300, 3000}[m.r.IntN(4)]
	body := bytes.NewReader(make([]byte, size))
	attrs := redoubt.Attributes{Meta: map[string]string{"n": strings.Repeat("n", m.r.IntN(500))}}
	stated := int64(size)
	if m.r.IntN(3) == 0 {
		stated = -1
	}
	v, someVersion := lastOf(m.r, m.versions)
	u, someUpload := lastOf(m.r, m.uploads)
	switch n := m.r.IntN(100); {
	case n < 25:
		v, err := m.PutObject(ctx, who, redoubt.PutObject{Name: name, Label: label, SizeBytes: stated, Body: body, Attributes: attrs})
		if err == nil {
			m.versions = append(m.versions, v)
		}
		return err
	case n < 33:
		d, err := m.DeleteObject(ctx, who, redoubt.DeleteObject{Name: name})
		if err == nil {
			m.versions = append(m.versions, redoubt.Version{Name: name, ID: d.ID, Label: who.Working})
		}
		return err
	case n < 43 && someVersion:
		_, err := m.DeleteObject(ctx, m.at[v.Label.Banner()], redoubt.DeleteObject{Name: v.Name, ID: v.ID, BypassGovernance: true})
		return err
	case n < 52 && someVersion:
		in := redoubt.AlterObject{Name: v.Name, ID: v.ID, BypassGovernance: true}
		if tags := []redoubt.Tag{{Key: "k", Value: strings.Repeat("v", m.r.IntN(200))}}; m.r.IntN(2) == 0 {
			in.Tags = &tags
		} else {
			in.Retention = &redoubt.Retention{Mode: "GOVERNANCE", Until: m.clock().Add(time.Hour)}
		}
		_, err := m.AlterObject(ctx, m.at[v.Label.Banner()], in)
		return err
	case n < 58 && someVersion:
		_, err := m.CopyObject(ctx, who, redoubt.CopyObject{Source: v.Name, SourceID: v.ID, Target: name})
		return err
	case n < 65:
		u, err := m.CreateUpload(ctx, who, redoubt.CreateUpload{Name: name, Label: label, Attributes: attrs})
		if err == nil {
			m.uploads = append(m.uploads, u)
		}
		return err
	case n < 76 && someUpload:
		_, err := m.PutPart(ctx, m.beganAt(u), redoubt.PutPart{Name: u.Name, Upload: u.ID, Number: 1 + m.r.IntN(2), SizeBytes: stated, Body: body})
		return err
	case n < 83 && someUpload:
		return m.finish(ctx, u)
	case n < 87 && someUpload:
		return m.AbortUpload(ctx, m.beganAt(u), u.Name, u.ID)
	case n < 91:
		return m.Expire(ctx)
	case n < 94:
		_, err := m.RotateKey(ctx, m.officer, who.Working.Banner())
		return err
	case n < 97 && someVersion:
		return m.EraseVersion(ctx, m.officer, v.Name, v.ID, "spill")
	case n < 98:
		c := redoubt.Change{Kind: redoubt.ChangeEraseLabel, Label: who.Working.Banner()}
		if m.r.IntN(2) == 0 {
			c = redoubt.Change{Kind: redoubt.ChangeEraseBucket, Bucket: name.Bucket}
		}
		m.engine.(*faulty).when(nil) // erase ends the test when its proposal fails
		return m.erase(c)
	}
	return m.fulfilAll(ctx)
}

// beganAt is a credential at the label that an upload was begun at: it lies under that set.
func (m *ledger) beganAt(u redoubt.Upload) redoubt.Credential {
	id, _ := m.ids.parse(string(u.ID))
	return m.at[m.sets.byTag(id.tag()).label.Banner()]
}

// finish completes an upload with the first part that it has.
func (m *ledger) finish(ctx context.Context, u redoubt.Upload) error {
	who := m.beganAt(u)
	page, err := m.ListParts(ctx, who, redoubt.ListParts{Name: u.Name, Upload: u.ID, Max: 10})
	if err != nil || len(page.Parts) == 0 {
		return err
	}
	v, err := m.CompleteUpload(ctx, who, redoubt.CompleteUpload{Name: u.Name, Upload: u.ID, SizeBytes: -1,
		Parts: []redoubt.CompletePart{{Number: page.Parts[0].Number, ETag: page.Parts[0].ETag}}})
	if err == nil {
		m.versions = append(m.versions, v)
	}
	return err
}

func lastOf[T any](r *rand.Rand, from []T) (v T, ok bool) {
	if len(from) == 0 {
		return v, false
	}
	return from[len(from)-1-r.IntN(min(len(from), 8))], true
}
