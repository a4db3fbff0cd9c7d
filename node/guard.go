package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net"
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
// listens nowhere.
type guardSide struct {
	declared estate.Node
	exercise bool
	state    State
	dir      string
	policy   guard.Rules
	seeds    map[redoubt.NodeName][]byte // by which it comes to each enclave
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

// roadConfig is the one-way road between the halves, as it is kept: whoever knows the key may put datagrams on it.
type roadConfig struct {
	Address string `json:"address"` // UDP, where the high half listens
	Key     []byte `json:"key"`
}

const roadFile = "road.json"

// GuardKeySecret is the keyring's secret that a guard of a real estate comes to an enclave by.
func guardKeySecret(enclave redoubt.NodeName) string { return "guard/" + string(enclave) }

// openGuard makes a guard ready to run. It reaches for neither enclave yet.
func (n *Node) openGuard(o Options, e *estate.Estate, declared estate.Node, ring *keys.Keyring) (*guardSide, error) {
	low, ok := e.Node(declared.Guard.Low)
	if !ok {
		return nil, &redoubt.Error{Op: "node.openGuard", Object: string(declared.Guard.Low), Kind: redoubt.NotFound}
	}
	r := declared.Guard.Release
	g := &guardSide{tell: n.tellOfGuard, trusts: map[redoubt.NodeName]redoubt.Trusted{}, halves: map[string]int{}, declared: declared, exercise: e.Exercise, state: o.State, dir: n.dir, seeds: map[redoubt.NodeName][]byte{}, clock: n.clock, log: n.log, run: o.Half,
		policy: guard.Rules{Digest: r.Rules(), Types: r.Types, Schemas: r.Schemas, Words: r.Words, Floor: low.Floor(), Limit: low.Ceiling(), Policy: e.MarkingPolicy(), High: declared.Guard.High, Low: declared.Guard.Low}}
	if g.run == nil {
		g.run = g.spawn
	}
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
	for side, public := range map[redoubt.NodeName]string{declared.Guard.Low: declared.Guard.LowKey, declared.Guard.High: declared.Guard.HighKey} {
		seed, err := guardSeed(o, e, declared.Name, side, ring)
		if err != nil {
			return nil, err
		}
		if publicKey(seed) != public {
			return nil, &redoubt.Error{Op: "node.openGuard", Object: string(declared.Name), Kind: redoubt.Denied, Err: errors.New("its key for " + string(side) + " is not the one that the estate names"),
				Hint: "redoubt guard key " + string(declared.Name) + " prints its keys, for officers to sign"}
		}
		g.seeds[side] = seed
	}
	return g, g.openRoad()
}

// guardSeed is the guard's private key for one side: of an exercise in the state, else in the guard's own keyring.
func guardSeed(o Options, e *estate.Estate, name, side redoubt.NodeName, ring *keys.Keyring) ([]byte, error) {
	if e.Exercise {
		key, err := o.State.SubjectKey(estate.GuardSide(name, side))
		return key.Seed(), err
	}
	return ring.Secret(guardKeySecret(side), freshKey)
}

// openRoad chooses the road between the halves once.
func (g *guardSide) openRoad() error {
	path := filepath.Join(g.dir, roadFile)
	err := readJSON(path, &g.road)
	if !errors.Is(err, redoubt.NotFound) {
		return err
	}
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	g.road.Address, g.road.Key = c.LocalAddr().String(), make([]byte, 32)
	if err := c.Close(); err != nil {
		return err
	}
	if _, err := rand.Read(g.road.Key); err != nil {
		return err
	}
	return writeJSON(path, g.road)
}

// serve runs the guard until ctx ends.
func (g *guardSide) serve(ctx context.Context) {
	var work sync.WaitGroup
	for _, side := range []string{HalfLow, HalfHigh} {
		work.Go(func() { g.keepHalf(ctx, side) })
	}
	work.Go(func() { g.release(ctx) })
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
	c := HalfConfig{Side: side, Guard: g.declared.Name, High: g.declared.Guard.High, Card: card, Seed: g.seeds[enclave], Road: g.road.Address, RoadKey: hex.EncodeToString(g.road.Key), Dir: filepath.Join(g.dir, side)}
	if side == HalfHigh { // a name and a public key is all that it is told of the other
		low, err := cardFor(g.state, g.declared, g.declared.Guard.Low, g.exercise)
		if err != nil {
			return HalfConfig{}, err
		}
		c.Low, c.LowKey = low.Node, low.Key
	}
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

// dialler is an enclave as the guard asks it, with a credential that is made anew before it ends.
func (g *guardSide) dialler(enclave redoubt.NodeName) client.Guard {
	d := &dialler{node: enclave, subject: redoubt.SubjectName(g.declared.Name), seed: g.seeds[enclave], card: func() (Card, error) { return cardFor(g.state, g.declared, enclave, g.exercise) }, clock: g.clock}
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

// GuardKeys makes the keys of a guard of a real estate, at its first call, and gives the public halves in base64: for the estate to name.
func GuardKeys(s State, name, low, high redoubt.NodeName, unlock keys.Unlock) (lowKey, highKey string, err error) {
	dir := s.NodeDir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", "", &redoubt.Error{Op: "node.GuardKeys", Object: dir, Err: cause(err)}
	}
	ring, err := openKeyring(dir, Options{Unlock: unlock})
	if err != nil {
		return "", "", err
	}
	defer ring.Close()
	for side, into := range map[redoubt.NodeName]*string{low: &lowKey, high: &highKey} {
		seed, err := ring.Secret(guardKeySecret(side), freshKey)
		if err != nil {
			return "", "", err
		}
		*into = publicKey(seed)
	}
	return lowKey, highKey, nil
}
