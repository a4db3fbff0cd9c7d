package node

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"redoubt"
	"redoubt/client"
	"redoubt/estate"
	"redoubt/guard"
	"redoubt/guard/filter"
	"redoubt/keys"
)

// guardSide is a guard's process for releases, and the one that starts the two halves of its raise. It holds neither enclave's keys, and
// listens nowhere. Where the halves run apart it is either half's: the high one's releases too, for what is high is opened above alone, and the
// low one's has neither a key for the higher enclave nor a filter.
type guardSide struct {
	side     string // HalfLow or HalfHigh where they run apart; "": both
	declared estate.Node
	exercise bool
	state    State
	dir      string
	policy   guard.Rules
	seeds    map[redoubt.NodeName][]byte // by which it comes to each enclave
	releases bool                        // it has what it takes
	road     roadConfig
	words    *guard.Words
	filters  interface {
		Pair(mediaType string) (guard.Pair, error)
	} // nil: noFilters says why
	noFilters error
	run       func(ctx context.Context, c HalfConfig) error // starts a half and waits for it
	clock     func() time.Time
	log       *slog.Logger

	tell   func(trusts []redoubt.Trusted, halves []int) // what is known now; called by one at a time
	mu     sync.Mutex                                   // guards what follows
	trusts map[redoubt.NodeName]redoubt.Trusted
	halves map[string]int
}

// roadTold notes the road, where its ends are on two machines.
func (g *guardSide) roadTold() {
	if g.side == "" {
		return
	}
	sum := sha256.Sum256(g.road.Key)
	t := redoubt.Trusted{Node: g.declared.Name, As: redoubt.TrustedRoad, Fingerprint: hex.EncodeToString(sum[:])}
	if g.side == HalfLow {
		t.Dials = []string{g.road.Address}
	}
	g.note(func() { g.trusts[g.declared.Name] = t })
}

// learned notes whom the guard dials, and by what it verifies that enclave.
func (g *guardSide) learned(c Card) {
	g.note(func() {
		g.trusts[c.Node] = redoubt.Trusted{Node: c.Node, As: redoubt.TrustedSide, Fingerprint: certificatePrint(c.CA), Dials: dialledBy(c.API)}
	})
}

// note changes what is told, and tells it.
func (g *guardSide) note(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
	var trusts []redoubt.Trusted
	for _, name := range sortedNames(g.trusts) {
		trusts = append(trusts, g.trusts[name])
	}
	g.tell(trusts, slices.Sorted(maps.Values(g.halves)))
}

// GuardKeySecret is the keyring's secret that a guard of a real estate comes to an enclave by.
func guardKeySecret(enclave redoubt.NodeName) string { return "guard/" + string(enclave) }

// openGuard makes a guard ready to run. It reaches for neither enclave yet.
func (n *Node) openGuard(o Options, e *estate.Estate, declared estate.Node, ring *keys.Keyring) (*guardSide, error) {
	low, ok := e.Node(declared.Guard.Low)
	if !ok {
		return nil, &redoubt.Error{Op: "node.openGuard", Object: string(declared.Guard.Low), Kind: redoubt.NotFound}
	}
	if err := fitSide(o, e, declared); err != nil {
		return nil, err
	}
	r := declared.Guard.Release
	g := &guardSide{side: o.Side, tell: n.tellOfGuard, trusts: map[redoubt.NodeName]redoubt.Trusted{}, halves: map[string]int{}, declared: declared, exercise: e.Exercise, state: o.State, dir: n.dir, seeds: map[redoubt.NodeName][]byte{}, clock: n.clock, log: n.log, run: o.Half,
		policy: guard.Rules{Digest: r.Rules(), Types: r.Types, Schemas: r.Schemas, Words: r.Words, Floor: low.Floor(), Limit: low.Ceiling(), Policy: e.MarkingPolicy(), High: declared.Guard.High, Low: declared.Guard.Low}}
	if g.run == nil {
		g.run = g.spawn
	}
	if err := g.openKeys(o, e, ring); err != nil {
		return nil, err
	}
	if g.releases {
		var err error
		if g.words, err = guard.NewWords(r.Words, g.policy.Policy); err != nil {
			return nil, err
		}
		if set, err := filter.New(filter.Options{Warm: 1}); err != nil {
			g.noFilters = err
			n.log.Error("nothing can be filtered here, so nothing is released", slog.String("why", err.Error()))
		} else {
			g.filters = set
			n.closing(func() error { set.Close(); return nil })
		}
	}
	return g, g.openRoad(o.RoadKey)
}

// guardSecret is a key of a guard that the estate names: in which of its keyring's secrets it lies, and as whom it comes where.
type guardSecret struct {
	field, secret, public string
	enclave               redoubt.NodeName
}

// guardSecrets are the keys that a guard has on a machine: of both sides, or of the half that runs there.
func guardSecrets(side string, g *estate.GuardSpec) (all []guardSecret) {
	if side != HalfHigh {
		all = append(all, guardSecret{"low_key", guardKeySecret(g.Low), g.LowKey, g.Low})
	}
	if side != HalfLow {
		all = append(all, guardSecret{"high_key", guardKeySecret(g.High), g.HighKey, g.High})
	}
	if side == HalfHigh {
		all = append(all, guardSecret{"release_key", "release/" + string(g.Low), g.ReleaseKey, g.Low})
	}
	return all
}

// openKeys opens the guard's keys. Where the halves run apart and the estate names no key to release by, nothing is released.
func (g *guardSide) openKeys(o Options, e *estate.Estate, ring *keys.Keyring) error {
	g.releases = g.side == ""
	for _, k := range guardSecrets(g.side, g.declared.Guard) {
		if k.field == "release_key" {
			if k.public == "" {
				g.log.Warn("the estate names no release_key for the guard, so it releases nothing")
				continue
			}
			g.releases = true
		}
		seed, err := guardSeed(o, e, g.declared.Name, k, ring)
		if err != nil {
			return err
		}
		if publicKey(seed) != k.public {
			return &redoubt.Error{Op: "node.openGuard", Object: string(g.declared.Name), Kind: redoubt.Denied, Err: errors.New("its key for " + string(k.enclave) + " is not the " + k.field + " that the estate names"),
				Hint: "redoubt guard key " + string(g.declared.Name) + " prints its keys, for officers to sign"}
		}
		g.seeds[k.enclave] = seed
	}
	return nil
}

// guardSeed is one of the guard's private keys: of an exercise in the state, else in the guard's own keyring.
func guardSeed(o Options, e *estate.Estate, name redoubt.NodeName, k guardSecret, ring *keys.Keyring) ([]byte, error) {
	if e.Exercise {
		key, err := o.State.SubjectKey(estate.GuardSide(name, k.enclave))
		return key.Seed(), err
	}
	return ring.Secret(k.secret, freshKey)
}

// serve runs the guard until ctx ends.
func (g *guardSide) serve(ctx context.Context) {
	g.roadTold()
	var work sync.WaitGroup
	for _, side := range []string{HalfLow, HalfHigh} {
		if g.side == "" || g.side == side {
			work.Go(func() { g.keepHalf(ctx, side) })
		}
	}
	if g.releases {
		work.Go(func() { g.release(ctx) })
	}
	work.Wait()
}

// keepHalf runs one half, and starts it again when it ends.
func (g *guardSide) keepHalf(ctx context.Context, side string) {
	for pause := learnEvery; ctx.Err() == nil; pause = min(2*pause, 10*time.Second) {
		began := time.Now()
		c, err := g.half(side)
		if err == nil {
			err = g.run(ctx, c)
		}
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute {
			pause = learnEvery
		}
		if !errors.Is(err, redoubt.NotFound) { // its enclave has not been up yet
			g.log.Warn("a half of the raise ended, and is started again", slog.String("half", side), slog.String("kind", redoubt.KindOf(err).Error()))
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// half is what one half is told: of its own enclave alone.
func (g *guardSide) half(side string) (HalfConfig, error) {
	enclave := g.declared.Guard.Low
	if side == HalfHigh {
		enclave = g.declared.Guard.High
	}
	card, err := cardFor(g.state, g.declared, enclave, g.exercise)
	if err != nil {
		return HalfConfig{}, err
	}
	g.learned(card)
	c := HalfConfig{Side: side, Guard: g.declared.Name, High: g.declared.Guard.High, Card: card, Seed: g.seeds[enclave], Road: g.road.Address, RoadKey: hex.EncodeToString(g.road.Key), Pace: g.road.pace, Dir: filepath.Join(g.dir, side)}
	if side == HalfLow {
		c.From = g.declared.Guard.Road.From
		return c, nil
	}
	c.Hold = g.declared.Guard.Road.Hold
	// A name and a public key is all that the high half is told of the other.
	if pin, ok := g.declared.Guard.Pins[string(g.declared.Guard.Low)]; ok {
		c.Low, c.LowKey = g.declared.Guard.Low, pin.Key
		return c, nil
	}
	low, err := cardFor(g.state, g.declared, g.declared.Guard.Low, g.exercise)
	if err != nil {
		return HalfConfig{}, err
	}
	c.Low, c.LowKey = low.Node, low.Key
	return c, nil
}

// spawn runs a half as a process of its own, which ends with this one. What it is told goes by a pipe.
func (g *guardSide) spawn(ctx context.Context, c HalfConfig) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	told, err := json.Marshal(c)
	if err != nil {
		return err
	}
	defer clear(told)
	theirs, ours, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ours.Close() // while it is open the half lives
	cmd := &exec.Cmd{Path: exe, Args: []string{"redoubt", HalfCommand, c.Side}, Stdin: theirs, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	log, err := os.OpenFile(g.state.LogFile(g.declared.Name)+"."+c.Side, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		theirs.Close()
		return err
	}
	defer log.Close()
	cmd.Stderr = log
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return err
	}
	g.note(func() { g.halves[c.Side] = cmd.Process.Pid })
	defer g.note(func() { delete(g.halves, c.Side) })
	defer context.AfterFunc(ctx, func() { cmd.Process.Signal(syscall.SIGTERM) })()
	if _, err := ours.Write(append(told, '\n')); err != nil {
		cmd.Process.Kill()
		return errors.Join(err, cmd.Wait())
	}
	return cmd.Wait()
}

// noFilters refuses every type.
type noFilters struct{ why error }

func (n noFilters) Pair(string) (guard.Pair, error) { return guard.Pair{}, n.why }

// release runs the pipeline of releases.
func (g *guardSide) release(ctx context.Context) {
	high, low := g.dialler(g.declared.Guard.High), g.dialler(g.declared.Guard.Low)
	filters := g.filters
	if filters == nil { // nothing can be walled in here: every type is refused, with that reason
		filters = noFilters{g.noFilters}
	}
	r := guard.NewReleaser(guard.ReleaserOptions{Rules: g.policy, Source: high, Same: high, Target: low, Filters: filters.Pair, Words: g.words, Log: g.log})
	r.Run(ctx)
}

// dialler is an enclave as the guard's releases ask it, with a credential that is made anew before it ends.
func (g *guardSide) dialler(enclave redoubt.NodeName) client.Guard {
	as := redoubt.SubjectName(g.declared.Name)
	if enclave == g.declared.Guard.Low {
		as = g.declared.Guard.Releaser(g.declared.Name)
	}
	d := &dialler{node: enclave, subject: as, seed: g.seeds[enclave], card: func() (Card, error) { return cardFor(g.state, g.declared, enclave, g.exercise) }, clock: g.clock}
	return client.Guard{As: d.client}
}

// dialler keeps a client of one enclave with a live credential.
type dialler struct {
	node    redoubt.NodeName
	subject redoubt.SubjectName
	seed    []byte
	sign    func(message []byte) ([]byte, error) // in its place: with a key that is not at hand
	card    func() (Card, error)
	clock   func() time.Time

	mu   sync.Mutex
	url  string
	c    *client.Client
	ends time.Time
}

// credentialLife is how long a guard's credential lives: it is made anew when half of that is over.
const credentialLife = time.Hour

// answerMost is how long an enclave may think: questions are held open for 20 s, and a raised bundle is applied before it is answered.
const answerMost = 10 * time.Minute

func (d *dialler) client(ctx context.Context) (*client.Client, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	card, err := d.card()
	if err != nil {
		return nil, err
	}
	if d.c != nil && d.url == card.API && d.clock().Before(d.ends) {
		return d.c, nil
	}
	roots, err := card.roots()
	if err != nil {
		return nil, err
	}
	anybody, err := client.New(card.API, roots, "")
	if err != nil {
		return nil, err
	}
	anybody.AnswersWithin(answerMost)
	sign := d.sign
	if sign == nil {
		key := ed25519.NewKeyFromSeed(d.seed)
		sign = func(message []byte) ([]byte, error) { return ed25519.Sign(key, message), nil }
	}
	m, err := anybody.MintBy(ctx, sign, d.subject, d.node, "", credentialLife)
	if err != nil {
		anybody.Close()
		return nil, err
	}
	if d.c != nil {
		d.c.Close()
	}
	d.c, d.url, d.ends = anybody.With(m.Token), card.API, d.clock().Add(credentialLife/2)
	return d.c, nil
}

// GuardKeys makes the keys of a guard of a real estate, or of the half of it that runs on this machine, at its first call, and gives the public halves
// in base64 by what the estate calls them.
func GuardKeys(s State, name, low, high redoubt.NodeName, half string, unlock keys.Unlock) (map[string]string, error) {
	dir := s.NodeDir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, &redoubt.Error{Op: "node.GuardKeys", Object: dir, Err: cause(err)}
	}
	ring, err := openKeyring(dir, Options{Unlock: unlock})
	if err != nil {
		return nil, err
	}
	defer ring.Close()
	out := map[string]string{}
	for _, k := range guardSecrets(half, &estate.GuardSpec{Low: low, High: high}) {
		seed, err := ring.Secret(k.secret, freshKey)
		if err != nil {
			return nil, err
		}
		out[k.field] = publicKey(seed)
	}
	return out, nil
}
