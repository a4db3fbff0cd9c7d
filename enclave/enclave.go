package enclave

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"redoubt"
	"redoubt/access"
	"redoubt/audit"
	"redoubt/identity"
	"redoubt/keys"
	"redoubt/label"
	"redoubt/store"
)

// Options is what an enclave is made from. All but Quotas, Buckets, AuditKeep, Rules, Clock, Rand and Log is needed.
type Options struct {
	Name           redoubt.NodeName
	Kind           string // enclave or device
	Policy         *label.Policy
	Floor, Ceiling label.Label
	Engine         store.Engine                          // owned: Close closes it
	Keys           *keys.Keyring                         // owned: Close closes it
	People         []redoubt.Person                      // of the signed genesis estate
	Buckets        []redoubt.Bucket                      // of the estate; those that were ever made are left as they are
	Quotas         map[string]int64                      // marking, or redoubt.QuotaOfOthers -> bytes
	Destinations   []redoubt.Destination                 // what its jobs may connect to
	Dial           Dialer                                // how; nil: nothing is reached
	Runc           []redoubt.SubjectName                 // whose jobs may run on the machine's own kernel
	AuditKeep      time.Duration                         // no entry of the audit log that is younger can be archived away
	Rules          access.Denier                         // the estate's own, able only to deny
	Links          []redoubt.Link                        // to the peers that it replicates with, beside its devices
	Devices        []DeclaredDevice                      // whose home it is
	Estate         string                                // its name, which what is released names
	Guards         []DeclaredGuard                       // that it is an end of
	Agreements     []Agreement                           // with other estates, that it is the gateway of
	Partners       []redoubt.Person                      // whom those name: gateways and people
	Origins        map[redoubt.NodeName]redoubt.NodeName // of every enclave and device of the estate: the enclave that its content is of
	IDKeys         []byte                                // of a device: its home's (redoubt.Enrolment); nil: keys of its own
	Region         string
	Version        string // of the software
	Clock          func() time.Time
	Rand           io.Reader
	Log            *slog.Logger
}

// Enclave is the cloud of one classification level, running.
type Enclave struct {
	name           redoubt.NodeName
	kind, build    string
	policy         *label.Policy
	floor, ceiling label.Label
	clock          func() time.Time
	log            *slog.Logger

	engine   store.Engine
	keyring  *keys.Keyring
	monitor  *access.Monitor
	identity *identity.Registry
	namer    *audit.Namer
	recorder *audit.Recorder
	tree     *audit.Log
	granted  granted       // jobnet.go
	keep     time.Duration // of the log (Options.AuditKeep)
	sets     *labelSets
	locks    *keyLocks
	ids      opaque
	idKeys   []byte
	gone     cipher.AEAD // of what is kept of erased versions
	mostGone int         // of them, at one label
	maker    uint32
	origins  map[redoubt.NodeName]redoubt.NodeName // Options.Origins
	estate   string
	guards   []DeclaredGuard
	releases releases
	jobs     jobs
	services services
	readers  readers
	partners partners
	links    links
	texts    labelCache // label.Label -> string

	signatures signatures

	bucketsMu  sync.Mutex // serialises changes of the table; taken before a bucket's gate
	buckets    atomic.Pointer[map[redoubt.BucketName]*bucket]
	peopleMu   sync.Mutex   // serialises what changes people: planned, committed, applied
	standingMu sync.RWMutex // held shared by who commits under a credential, alone while a revocation takes effect
	rotateMu   sync.Mutex   // one rotation or erasure at a time
	spillMu    sync.Mutex   // one spill at a time is brought to its end
	archiveMu  sync.RWMutex // held shared by who reads the whole log back, alone while it lets go of entries

	stop context.CancelFunc
	done sync.WaitGroup
}

// Open starts an enclave on its engine: it takes up every label set, bucket and system
// record, begins an audit session and starts what runs behind. On an error
// nothing is left running, and engine and keys are still the caller's.
func Open(ctx context.Context, o Options) (*Enclave, error) {
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Kind == "" {
		o.Kind = "enclave"
	}
	if !o.Ceiling.Dominates(o.Floor) {
		return nil, &redoubt.Error{Op: "enclave.Open", Object: string(o.Name), Kind: redoubt.Invalid, Err: errors.New("the ceiling does not dominate the floor")}
	}
	last, err := lastTime(o.Engine)
	if err != nil {
		return nil, err
	}
	o.Clock = notBefore(last, o.Clock)
	e := &Enclave{name: o.Name, kind: o.Kind, build: o.Version, policy: o.Policy, floor: o.Floor, ceiling: o.Ceiling,
		clock: o.Clock, keep: o.AuditKeep, log: o.Log, engine: o.Engine, keyring: o.Keys, locks: newKeyLocks(),
		monitor: access.New(o.Floor, o.Ceiling, o.Name, o.Rules), maker: makerOf(o.Name), origins: o.Origins, estate: o.Estate, guards: o.Guards}
	if e.granted, err = newGranted(o); err != nil {
		return nil, err
	}
	if err := e.deriveKeys(o); err != nil {
		return nil, err
	}
	quotas, err := e.quotas(o.Quotas)
	if err != nil {
		return nil, err
	}
	if e.sets, err = openSets(o.Engine, o.Policy, quotas); err != nil {
		return nil, err
	}
	if err := e.openShares(ctx); err != nil {
		return nil, err
	}
	if err := e.openAudit(ctx); err != nil {
		return nil, err
	}
	e.links.fixed = o.Links
	if err := e.loadIdentity(ctx); err != nil {
		return nil, err
	}
	if err := e.loadBuckets(ctx, append([]redoubt.Bucket{{Name: JobBucket, BucketSettings: jobSettings()}}, o.Buckets...)); err != nil {
		return nil, err
	}
	if err := e.signBatches(); err != nil {
		return nil, err
	}
	if err := e.loadReleases(); err != nil {
		return nil, err
	}
	if err := e.loadConsents(); err != nil {
		return nil, err
	}
	if err := e.loadReaders(ctx); err != nil {
		return nil, err
	}
	if err := e.loadJobs(ctx); err != nil {
		return nil, err
	}
	if err := e.loadPartners(ctx, o.Agreements); err != nil {
		return nil, err
	}
	if err := e.loadDevices(ctx, o.Devices); err != nil {
		return nil, err
	}
	if err := e.bringUp(ctx); err != nil {
		return nil, err
	}
	if err := errors.Join(e.takeUpReleases(ctx), e.takeUpConsents(ctx)); err != nil {
		return nil, err
	}
	behind, stop := context.WithCancel(context.Background())
	e.stop = stop
	e.behind(behind)
	return e, nil
}

// Now is the enclave's time, which every front end of it goes by too: it is never before a time that is on record, so
// nothing that has expired lives again because a clock was set back.
func (e *Enclave) Now() time.Time { return e.clock() }

// deriveKeys takes from the keyring what the enclave itself needs.
func (e *Enclave) deriveKeys(o Options) error {
	derived := map[string][]byte{}
	for _, purpose := range []string{"version-id", "etag", "audit-names", "credentials", "erased"} {
		k, err := e.keyring.Derive(purpose, 32)
		if err != nil {
			return err
		}
		derived[purpose] = k
	}
	var err error
	e.idKeys = append(derived["version-id"], derived["etag"]...)
	if o.IDKeys != nil {
		e.idKeys = o.IDKeys
	}
	if len(e.idKeys) != 64 {
		return &redoubt.Error{Op: "enclave.Open", Kind: redoubt.Invalid, Err: errors.New("two keys of 32 bytes make the IDs")}
	}
	if e.ids, err = newOpaque(e.idKeys[:32], e.idKeys[32:]); err != nil {
		return err
	}
	if e.namer, err = audit.NewNamer(derived["audit-names"]); err != nil {
		return err
	}
	e.mostGone = maxGoneKept
	block, err := aes.NewCipher(derived["erased"])
	if err == nil {
		e.gone, err = cipher.NewGCMWithRandomNonce(block)
	}
	if err != nil {
		return err
	}
	e.identity, err = identity.New(identity.Options{Node: o.Name, Policy: o.Policy, Floor: o.Floor, Ceiling: o.Ceiling,
		Secret: derived["credentials"], People: o.People, Partners: o.Partners, Region: o.Region, Clock: o.Clock, Rand: o.Rand})
	return err
}

// quotas compiles the estate's shares: what a label has, alone or as one of the others.
func (e *Enclave) quotas(declared map[string]int64) (func(label.Label) int64, error) {
	byLabel, others := map[label.Label]int64{}, declared[redoubt.QuotaOfOthers]
	for marking, bytes := range declared {
		if marking == redoubt.QuotaOfOthers {
			continue
		}
		l, err := e.policy.Parse(marking)
		if err != nil {
			return nil, fmt.Errorf("quota: %w", err)
		}
		for of := range byLabel {
			if of.Equivalent(l) {
				return nil, fmt.Errorf("quota: %s is declared twice", l.Banner())
			}
		}
		byLabel[l] = bytes
	}
	return func(l label.Label) int64 {
		for of, bytes := range byLabel {
			if of.Equivalent(l) {
				return bytes
			}
		}
		return others
	}, nil
}

// behind starts what runs behind the requests: reads reach the log within a second, the tree
// follows the log, and lifecycle rules are applied.
func (e *Enclave) behind(ctx context.Context) {
	run := func(f func()) {
		e.done.Add(1)
		go func() {
			defer e.done.Done()
			f()
		}()
	}
	run(func() { e.recorder.Run(ctx) })
	every := func(first, period time.Duration, what string, f func(context.Context) error) {
		run(func() {
			tick := time.NewTimer(first)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					tick.Reset(period)
				}
				if err := f(ctx); err != nil && ctx.Err() == nil {
					e.log.Error("background work failed", "work", what, "kind", redoubt.KindOf(err).Error())
				}
			}
		})
	}
	every(dutyEvery, dutyEvery, "erasures and rotations", e.fulfilAll)
	every(treeEvery, treeEvery, "audit tree", e.tree.Advance)
	every(lifecycleFirst, lifecycleEvery, "lifecycle", e.Expire)
	every(markEvery, markEvery, "time", e.markTime)
	every(trimEvery, trimEvery, "journal", e.Trim)
	every(releasesEvery, releasesEvery, "releases", e.lookAtReleases)
	every(lifecycleFirst, lifecycleEvery, "jobs", e.pruneJobs)
	every(lifecycleFirst, lifecycleEvery, "modules", e.keepModules)
	run(func() { e.runSchedules(ctx) })
}

const (
	treeEvery      = time.Second
	dutyEvery      = 10 * time.Second
	lifecycleFirst = time.Minute // a node that is started anew within every hour expires too
	lifecycleEvery = time.Hour
	markEvery      = 10 * time.Second
	trimEvery      = 10 * time.Minute
	releasesEvery  = 5 * time.Minute // what expires is on record as dead by then; that it is dead does not wait for it
)

// Close ends the audit session, settles the clocks and closes engine and keys.
// Requests must have ended.
func (e *Enclave) Close() error {
	e.stop()
	e.done.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	errs := []error{e.recorder.Close(ctx)}
	b := new(store.Batch)
	e.settleClocks(b)
	errs = append(errs, e.engine.Commit(ctx, b), e.tree.Advance(ctx), e.engine.Close(), e.keyring.Close())
	return errors.Join(errs...)
}

// count keeps a label's use in step with what was committed.
func (e *Enclave) count(set *labelSet, versions, bytes int64) {
	set.versions.Add(versions)
	set.bytes.Add(bytes)
}
