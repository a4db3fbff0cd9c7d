package redoubttest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"redoubt"
	"redoubt/client"
)

// soak is for how long `make soak` has the crash tests go on: go test ./redoubttest -run Soak -args -soak 1h.
var soak = flag.Duration("soak", 0, "how long the crash tests go on; 0: a few rounds each")

// soakShare is what each crash test takes of -soak; they run one after another.
const soakShare = 4

// crashes is a server, the clients of it, and what it has promised them.
type crashes struct {
	*victim
	model
	workers     []*worker
	objects     []*client.Objects // one a label of crashLabels
	checkpoints []string          // of the audit log, as somebody outside keeps them
	rand        *rand.Rand
	share       int // of this test's part of -soak; 0 is the whole of it
}

func TestSoakAKilledNodeKeepsWhatItAcknowledged(t *testing.T) {
	c := newCrashes(t, kindNode, t.TempDir())
	c.rounds(5*time.Second, func() { c.kill() })
}

func TestSoakAKilledStoreThatTurnsOverKeepsWhatItAcknowledged(t *testing.T) {
	c := newCrashes(t, kindEngine, t.TempDir())
	c.rounds(6*time.Second, func() { c.kill() })
}

// newCrashes starts a server in dir, with workers whose credentials have to outlive every crash.
func newCrashes(t *testing.T, kind, dir string) *crashes {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := &crashes{victim: &victim{t: t, kind: kind, dir: dir}, rand: rand.New(rand.NewPCG(seed, 0)),
		model: model{facts: map[redoubt.VersionID]*fact{}, gone: map[redoubt.VersionID]bool{}}}
	t.Cleanup(c.kill)
	c.start()
	shared := []string{"shared/a", "shared/b", "shared/c"}
	for i := range 2 * len(crashLabels) {
		l := crashLabels[i%len(crashLabels)]
		own := []string{fmt.Sprintf("own/%d/a", i), fmt.Sprintf("own/%d/b b+ü", i), fmt.Sprintf("own/%d/c", i)}
		c.workers = append(c.workers, &worker{wire: wire{who: c.mint(l.who, l.marking)}, n: i, label: l.label,
			rand: rand.New(rand.NewPCG(seed, uint64(i+1))), order: map[string][]redoubt.VersionID{},
			uploads: map[string]*uploading{}, keys: append(own, shared...)})
	}
	return c
}

// mint gives a credential, by which the node's keys show that they work.
func (c *crashes) mint(who redoubt.SubjectName, marking string) redoubt.Minted {
	c.t.Helper()
	m, err := c.mintAt(who, marking)
	if err != nil {
		c.t.Fatalf("mint for %s: %v", who, err)
	}
	return m
}

func (c *crashes) mintAt(who redoubt.SubjectName, marking string) (redoubt.Minted, error) {
	a, err := client.New(c.API, c.roots, "")
	if err != nil {
		return redoubt.Minted{}, err
	}
	defer a.Close()
	return a.Mint(c.t.Context(), c.key(who), who, "topsecret", marking, 12*time.Hour)
}

// rounds: load, crash, restart, check, for as long as asked.
func (c *crashes) rounds(short time.Duration, crash func()) {
	long := *soak / soakShare / time.Duration(max(1, c.share))
	end := time.Now().Add(max(short, long))
	n := 0
	for ; n < 2 || time.Now().Before(end); n++ {
		c.load(time.Duration(20+c.rand.IntN(700))*time.Millisecond, crash)
		if c.t.Failed() {
			return
		}
		c.start()
		c.checkAll(false)
		if c.t.Failed() {
			c.t.Logf("round %d; the state is in %s", n, c.dir)
			return
		}
		if c.rand.IntN(4) == 0 { // a crash while the node does nothing, or what follows a start
			crash()
			c.start()
		}
	}
	c.checkAll(true)
	c.t.Logf("%d crashes, %d writes acknowledged, %d versions at the end", n, c.acked, len(c.facts))
	if c.acked < n {
		c.t.Errorf("only %d writes in %d rounds: this tried nothing", c.acked, n)
	}
}

// load has every worker write for a while, and then the server dies.
func (c *crashes) load(d time.Duration, crash func()) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	var wg sync.WaitGroup
	faults := make(chan error, len(c.workers)+1)
	for _, w := range c.workers {
		w.base, w.http = c.S3, httpClient(c.roots)
		wg.Go(func() {
			defer w.http.CloseIdleConnections()
			if err := w.work(ctx, &c.model); err != nil {
				faults <- err
			}
		})
	}
	officer, err := c.officer()
	if err != nil {
		c.t.Fatal(err)
	}
	defer officer.Close()
	wg.Go(func() {
		if err := rotate(ctx, officer); err != nil && !c.dying.Load() {
			faults <- err
		}
	})
	time.Sleep(d) // the length of the load, not a wait for something to happen
	c.dying.Store(true)
	crash()
	wg.Wait()
	c.dying.Store(false)
	close(faults)
	for err := range faults {
		c.t.Error(err)
	}
}

func (c *crashes) officer() (*client.Client, error) {
	a, err := client.New(c.API, c.roots, c.mint("officer", "").Token)
	return a, err
}

// rotate gives labels new keys, one after another, until the server is gone: a crash then meets a keyring that is being written.
func rotate(ctx context.Context, officer *client.Client) error {
	for i := 0; ; i++ {
		l := crashLabels[i%len(crashLabels)].label
		switch _, err := officer.RotateKey(ctx, l); {
		case err == nil:
		case errors.Is(err, redoubt.Unavailable):
			return nil
		case errors.Is(err, redoubt.NotFound): // nothing was written at that label yet
		default:
			return fmt.Errorf("rotating %s: %w", l, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(30 * time.Millisecond): // a pace, so that writers come between
		}
	}
}

// checkAll holds the restarted server against the model, with the credentials of before the crash and with fresh ones.
func (c *crashes) checkAll(all bool) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Minute)
	defer cancel()
	c.objects = nil
	for i := range crashLabels {
		w := c.workers[i]
		who := w.who // minted before every crash
		if c.rand.IntN(2) == 0 {
			who = c.mint(crashLabels[i].who, crashLabels[i].marking)
		}
		o, err := client.NewObjects(c.S3, c.roots, who)
		if err != nil {
			c.t.Fatal(err)
		}
		defer o.Close()
		c.objects = append(c.objects, o)
	}
	for _, w := range c.workers {
		w.base, w.http = c.S3, httpClient(c.roots)
		defer w.http.CloseIdleConnections()
	}
	c.check(ctx, c.t, c.workers, c.objects, all)
	parts := c.uploads(ctx, c.t, c.workers)
	admin, err := client.New(c.API, c.roots, c.mint("ts-admin", "").Token)
	if err != nil {
		c.t.Fatal(err)
	}
	defer admin.Close()
	c.recount(ctx, c.t, admin, parts)
	if report, err := admin.Check(ctx, nil); err != nil || !report.OK || report.Versions != int64(len(c.facts)) {
		c.t.Errorf("fsck: %+v, %v; want %d versions and no fault", report, err, len(c.facts))
	}
	c.audit(ctx)
}

// audit: the log verifies against every checkpoint that was ever given out, and knows the last write of everybody.
func (c *crashes) audit(ctx context.Context) {
	c.t.Helper()
	officer, err := c.officer()
	if err != nil {
		c.t.Fatal(err)
	}
	defer officer.Close()
	report, err := officer.VerifyAudit(ctx, c.checkpoints)
	if err != nil || !report.OK {
		c.t.Errorf("audit: %+v, %v", report, err)
		return
	}
	if report.Checkpoint == "" || report.Entries < uint64(len(c.facts)) {
		c.t.Errorf("audit: %d entries for %d versions, checkpoint %q", report.Entries, len(c.facts), report.Checkpoint)
	}
	c.checkpoints = append(c.checkpoints, report.Checkpoint)
	if len(c.checkpoints) > 8 {
		c.checkpoints = slices.Delete(c.checkpoints, 1, 2) // the first, and the last few
	}
	for _, w := range c.workers {
		if w.last == "" {
			continue
		}
		records, err := officer.Why(ctx, w.last)
		if err != nil || len(records) == 0 || !records[0].Allow {
			c.t.Errorf("the audit log does not know request %s of %s, which was acknowledged: %+v, %v", w.last, w.label, records, err)
		}
	}
}

// mustRoot skips where the test cannot be run, and says why.
func mustRoot(t *testing.T, what string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("needs root for %s", what)
	}
}
