package enclave

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"time"

	"redoubt"
	"redoubt/identity"
	"redoubt/keys"
	"redoubt/label"
	"redoubt/store"
)

// Limits of what arrives from a peer.
const (
	MaxClockAhead = 5 * time.Minute // RULES 4.4: a version stamped further ahead is not taken and moves no clock
	MaxApply      = redoubt.MaxBatchEntries
)

// The rules that refuse what arrives, beside the monitor's.
const (
	ruleCustody   = "makers-signature (4.3)"
	ruleMaker     = "known-maker (4.3)"
	ruleAhead     = "clock-ahead (4.4)"
	ruleStamp     = "stamp-of-its-maker (3.1)"
	ruleForm      = "well-formed-entry"
	ruleContent   = "content-as-signed"
	ruleSubscribe = "subscription"
	ruleSigner    = "signer-of-its-kind (4.3)"
)

// incoming is one entry on its way in.
type incoming struct {
	in      *redoubt.Received
	from    redoubt.NodeName
	id, of  versionID
	b       *bucket
	set     *labelSet
	made    *labelSet
	encoded []byte
	entry   *entry
	w       *write           // of a version
	record  *identity.Record // of a system record
	custody []byte
}

// Apply takes what a peer sent: each entry is verified, decided and staged by itself, and those that are taken are committed
// together with their audit entries; see redoubt.Journal.
func (e *Enclave) Apply(ctx context.Context, peer redoubt.NodeName, in []redoubt.Received) (refused []redoubt.Refusal, err error) {
	const op = "Apply"
	l, err := e.link(op, peer)
	if err != nil {
		return nil, err
	}
	if len(in) > MaxApply {
		return nil, &redoubt.Error{Op: op, Kind: redoubt.TooLarge}
	}
	signed := map[string]bool{} // roots that were verified
	var taken []*incoming
	defer func() {
		for _, n := range taken {
			if n.w != nil {
				n.w.discard()
			}
		}
	}()
	for i := range in {
		n, refusal, err := e.receive(ctx, l, &in[i], signed)
		if err != nil {
			return nil, err
		}
		if refusal != nil {
			refused = append(refused, *refusal)
			continue
		}
		taken = append(taken, n)
	}
	return refused, e.applyAll(ctx, taken)
}

// receive verifies one entry, decides it and takes its content in. A refusal is durable before it is returned.
func (e *Enclave) receive(ctx context.Context, l redoubt.Link, in *redoubt.Received, signed map[string]bool) (n *incoming, no *redoubt.Refusal, err error) {
	n = &incoming{in: in, from: l.Peer, id: versionID(in.Entry.Stamp), of: versionID(in.Entry.Of)}
	a := ask{op: "Apply", who: e.as(l), action: redoubt.ActionReceive, name: in.Entry.Name, detail: "from " + string(l.Peer)}
	refuse := func(kind redoubt.Kind, rule string, later bool) (*incoming, *redoubt.Refusal, error) {
		ent := e.describe(ctx, a, false, rule)
		ent.Kind, ent.Version = kind.Error(), n.id[:]
		if err := e.record(ctx, ent); err != nil {
			return nil, nil, err
		}
		return nil, &redoubt.Refusal{Stamp: in.Entry.Stamp, Kind: kind, Rule: rule, Later: later}, nil
	}
	of, err := label.ParseText([]byte(in.Entry.Label), e.policy)
	if err != nil {
		return refuse(redoubt.Invalid, ruleForm, false)
	}
	made, err := label.ParseText([]byte(in.Entry.Made), e.policy)
	if err != nil || !of.Dominates(made) {
		return refuse(redoubt.Invalid, ruleForm, false)
	}
	a.fresh = of
	system := in.Entry.Name.Bucket == redoubt.SystemBucket
	if !system {
		if n.b, err = e.bucket("Apply", in.Entry.Name.Bucket); err != nil {
			return refuse(redoubt.NoBucket, ruleForm, true)
		}
		a.bucket = n.b
		n.entry, err = e.decide(ctx, a)
	} else if err = e.receiveRecord(ctx, l, n, of); err != nil && n.entry != nil {
		return refuse(redoubt.KindOf(err), ruleOf(err), false)
	}
	if err != nil {
		return nil, &redoubt.Refusal{Stamp: in.Entry.Stamp, Kind: redoubt.KindOf(err), Rule: ruleOf(err)}, nil
	}
	n.entry.Version = n.id[:]
	if !e.travels(l, in.Entry.Name, true) {
		return refuse(redoubt.Denied, ruleSubscribe, false)
	}
	if system && in.Entry.Maker != l.Peer {
		return refuse(redoubt.Denied, ruleSigner, false)
	}
	if kind, rule := e.genuine(l, n, signed); rule != "" {
		return refuse(kind, rule, false)
	}
	if in.Entry.Stamp.Time() > e.clock().Add(MaxClockAhead).UnixNano() {
		return refuse(redoubt.Unavailable, ruleAhead, true)
	}
	if n.set, err = e.sets.of(ctx, of); err == nil {
		n.made, err = e.sets.of(ctx, made)
	}
	if err != nil {
		return nil, nil, err
	}
	if !e.stampFits(n) {
		return refuse(redoubt.Invalid, ruleStamp, false)
	}
	if in.Entry.Kind != redoubt.EntryVersion && !system {
		return n, nil, nil
	}
	if held, err := e.holdsStamp(n); err != nil || held {
		return n, nil, err
	}
	take := e.takeIn
	if system {
		take = func(_ context.Context, n *incoming) error { return e.takeRecord(n) }
	}
	if err := take(ctx, n); err != nil {
		if n.w != nil {
			n.w.discard()
		}
		switch kind := redoubt.KindOf(err); kind {
		case redoubt.BadDigest, redoubt.Invalid, redoubt.TooLarge:
			return refuse(kind, ruleContent, false)
		case redoubt.DiskFull, redoubt.QuotaExceeded:
			return refuse(kind, kind.Error(), true)
		}
		return nil, nil, err
	}
	return n, nil, nil
}

func ruleOf(err error) string {
	var e *redoubt.Error
	if errors.As(err, &e) {
		return e.Rule
	}
	return ""
}

// genuine says whether the entry is well formed and signed by the node that it names as its maker.
func (e *Enclave) genuine(l redoubt.Link, n *incoming, signed map[string]bool) (redoubt.Kind, string) {
	entry := &n.in.Entry
	if !wellFormed(entry) || validName("Apply", entry.Name) != nil {
		return redoubt.Invalid, ruleForm
	}
	var err error
	if n.encoded, err = entry.MarshalBinary(); err != nil {
		return redoubt.Invalid, ruleForm
	}
	keys := e.makerKeys(l, entry.Maker)
	if len(keys) == 0 {
		return redoubt.Denied, ruleMaker
	}
	c := &n.in.Custody
	if !c.Covers(n.encoded) {
		return redoubt.Denied, ruleCustody
	}
	root := string(entry.Maker) + "\x00" + string(c.Root[:]) + string(c.Signature[:])
	if !signed[root] {
		if !slices.ContainsFunc(keys, func(k ed25519.PublicKey) bool { return c.Signed(entry.Maker, k) }) {
			return redoubt.Denied, ruleCustody
		}
		signed[root] = true
	}
	n.custody, err = c.AppendBinary(nil)
	if err != nil {
		return redoubt.Invalid, ruleForm
	}
	return 0, ""
}

// makerKeys are the keys that a node signs, and signed, its entries with: this node's own come back to it over others.
func (e *Enclave) makerKeys(l redoubt.Link, maker redoubt.NodeName) (keys []ed25519.PublicKey) {
	if maker == e.name {
		return []ed25519.PublicKey{e.links.key}
	}
	if maker == l.Peer {
		keys = append(keys, l.Key)
	} else if other, err := e.link("Apply", maker); err == nil {
		keys = append(keys, other.Key)
	}
	e.links.deviceMu.Lock()
	defer e.links.deviceMu.Unlock()
	if r := e.links.devices[maker]; r != nil {
		for _, k := range append(slices.Clone(r.OldKeys), r.Key) {
			keys = append(keys, k)
		}
	}
	if told := e.links.makers.Load(); told != nil {
		keys = append(keys, (*told)[maker]...)
	}
	return keys
}

// wellFormed holds an entry against what its kind may say.
func wellFormed(x *redoubt.JournalEntry) bool {
	if versionID(x.Stamp).isZero() || x.Maker == "" || x.SizeBytes < 0 || x.Stamp.Time() < 0 {
		return false
	}
	if x.Kind != redoubt.EntryVersion {
		return !versionID(x.Of).isZero() && x.Of != x.Stamp && !x.Marker && x.SizeBytes == 0 && len(x.PartSizes) == 0 && x.Content == [32]byte{}
	}
	if x.Of != (redoubt.Stamp{}) || len(x.PartSizes) > redoubt.MaxParts || x.SizeBytes > redoubt.MaxObjectBytes {
		return false
	}
	if x.Marker {
		return x.SizeBytes == 0 && x.Content == [32]byte{}
	}
	if len(x.PartSizes) == 0 {
		return true
	}
	var sum int64
	for _, n := range x.PartSizes {
		if n < 0 || sum > redoubt.MaxObjectBytes {
			return false
		}
		sum += n
	}
	return sum == x.SizeBytes
}

// stampFits says whether the stamp is one that its maker can have given in this label set.
func (e *Enclave) stampFits(n *incoming) bool {
	maker := makerOf(n.in.Entry.Maker)
	if n.made != n.set {
		maker ^= n.made.tag
	}
	return n.id == makeVersionID(n.id.time(), maker, n.set.tag)
}

// holdsStamp says whether a version is here already, or was and is gone for good.
func (e *Enclave) holdsStamp(n *incoming) (bool, error) {
	kind, _, err := e.fate(e.engine, n.set, n.id)
	if err != nil || kind == redoubt.EntryRemoval {
		return true, err
	}
	f, err := e.byID(e.engine, n.b, n.set.label, n.in.Entry.Name.Key, e.ids.versionID(n.id))
	return f.rec != nil, err
}

// takeIn seals and stages a version's content under this node's own keys, and holds it against the digest that was signed.
func (e *Enclave) takeIn(ctx context.Context, n *incoming) error {
	x := &n.in.Entry
	n.w = &write{e: e, who: e.own(n.set.label), b: n.b, name: x.Name, set: n.set, made: n.made, hold: hold{set: n.made}}
	rec := &record{id: n.id, base: versionID(x.Base), made: n.made.id, author: string(x.Author), maker: string(x.Maker), marker: x.Marker, size: x.SizeBytes,
		attrs: x.Attributes, sums: x.Checksums, tags: x.Tags, retention: x.Retention, hold: x.Hold, custody: n.custody, from: n.from, parts: len(x.PartSizes) > 0}
	n.w.rec = rec
	if err := rec.setMD5(x.MD5); err != nil {
		return &redoubt.Error{Op: "Apply", Kind: redoubt.Invalid, Err: err}
	}
	if x.Marker {
		return e.reserve(&n.w.hold, n.w.least(), markerRoom)
	}
	if err := n.w.reserve(n.w.least() + int64(max(1, len(x.PartSizes)))*mostOfPiece); err != nil { // least has the stated size in it
		return err
	}
	if n.in.Content == nil {
		return &redoubt.Error{Op: "Apply", Kind: redoubt.Invalid, Err: errors.New("a version came without its content")}
	}
	digest := sha256.New()
	body := io.TeeReader(io.LimitReader(n.in.Content, x.SizeBytes+1), digest)
	sizes := x.PartSizes
	if len(sizes) == 0 {
		sizes = []int64{x.SizeBytes}
	}
	for _, size := range sizes {
		if err := n.w.takePart(ctx, io.LimitReader(body, size), size); err != nil {
			return err
		}
	}
	if extra, err := body.Read(make([]byte, 1)); extra > 0 || err != io.EOF {
		if err == nil || err == io.EOF {
			err = errors.New("more content than was signed for")
		}
		return &redoubt.Error{Op: "Apply", Kind: redoubt.Invalid, Err: err}
	}
	if [32]byte(digest.Sum(nil)) != x.Content {
		return &redoubt.Error{Op: "Apply", Kind: redoubt.BadDigest}
	}
	return nil
}

// mostOfPiece is the most that a piece adds to a record, so that what was taken in also fits: size, key and what that is bound to.
const mostOfPiece = binary.MaxVarintLen64 + keys.WrappedBytes + 16 + 1

// takePart seals and stages one piece of content under a key of its own.
func (w *write) takePart(ctx context.Context, r io.Reader, size int64) error {
	key, wrapped, err := w.e.keyring.NewDataKey(w.set.text)
	if err != nil {
		return err
	}
	defer key.Wipe()
	staged, err := w.e.engine.Stage(ctx)
	if err != nil {
		return err
	}
	w.staged = append(w.staged, staged)
	sealer := keys.NewSealer(key, w.binding(w.rec.id), staged)
	n, err := sealer.ReadFrom(r)
	if err = errors.Join(err, sealer.Close()); err != nil {
		return err
	}
	if n != size {
		return &redoubt.Error{Op: "Apply", Kind: redoubt.Invalid, Err: errors.New("less content than was signed for")}
	}
	w.rec.pieces = append(w.rec.pieces, piece{ref: staged.Ref(), size: size, wrapped: wrapped, bound: w.rec.id})
	return staged.Finish()
}

// applyAll commits what was taken, in one batch; a second one is needed only for what is about a name, or of a label set, that
// the first has an entry of already.
func (e *Enclave) applyAll(ctx context.Context, taken []*incoming) error {
	for len(taken) > 0 {
		var round, rest []*incoming
		names := map[lockName]bool{}
		for _, n := range taken {
			name := lockName{n.b.id, n.in.Entry.Name.Key}
			if n.set != taken[0].set || names[name] {
				rest = append(rest, n)
				continue
			}
			names[name] = true
			round = append(round, n)
		}
		if err := e.applyRound(ctx, taken[0].set, round); err != nil {
			return err
		}
		taken = rest
	}
	return nil
}

// applyRound commits entries of one label set, each of another name.
func (e *Enclave) applyRound(ctx context.Context, set *labelSet, round []*incoming) error {
	unlock := e.lockNames(round)
	defer unlock()
	set.epochGate.RLock()
	defer set.epochGate.RUnlock()
	batch := new(store.Batch)
	var last, versions, bytes int64
	var charges []*hold
	defer func() {
		for _, h := range charges {
			h.release() // what was committed is settled, and holds nothing
		}
	}()
	for _, n := range round {
		last = max(last, n.id.time())
		o, err := e.applyOne(batch, n)
		if err != nil {
			return err
		}
		versions, bytes = versions+o.versions, bytes+o.bytes
		if o.charge != nil {
			charges = append(charges, o.charge)
		}
		batch.Append(e.recorder.Record(n.entry))
	}
	set.boundMu.Lock() // a restart must not give out a time before one that is on record
	defer set.boundMu.Unlock()
	if last > set.bound.Load() {
		batch.Set(setKey(recClock, set.id), binary.LittleEndian.AppendUint64(nil, uint64(last)))
	}
	if err := e.commit(ctx, batch, nil); err != nil {
		return err
	}
	set.bound.Store(max(set.bound.Load(), last))
	set.observe(last)
	for _, h := range charges {
		h.settle()
	}
	e.count(set, versions, bytes)
	return e.believe(round)
}

// observe moves the set's clock past a time that another node gave out.
func (s *labelSet) observe(t int64) {
	for last := s.clock.Load(); last < t; last = s.clock.Load() {
		if s.clock.CompareAndSwap(last, t) {
			return
		}
	}
}

// lockNames takes the gates of the buckets and the locks of the names, each in one order, so that no two of these wait for one another.
func (e *Enclave) lockNames(round []*incoming) (unlock func()) {
	byName := slices.Clone(round)
	slices.SortFunc(byName, func(a, b *incoming) int {
		return cmp.Or(cmp.Compare(a.b.id, b.b.id), cmp.Compare(a.in.Entry.Name.Key, b.in.Entry.Name.Key))
	})
	var undo []func()
	for i, n := range byName {
		if i == 0 || byName[i-1].b.id != n.b.id {
			n.b.gate.RLock()
			undo = append(undo, n.b.gate.RUnlock)
		}
	}
	for _, n := range byName {
		undo = append(undo, e.locks.lock(n.b.id, n.in.Entry.Name.Key))
	}
	return func() {
		for _, u := range slices.Backward(undo) {
			u()
		}
	}
}

// outcome is what one entry adds to the use of its set, and what it charges; nil is nothing.
type outcome struct {
	versions, bytes int64
	charge          *hold
}

// applyOne adds what one entry changes to the batch, and says what comes of it. What is held already, or was
// removed for good, adds nothing. The name's lock is held.
func (e *Enclave) applyOne(batch *store.Batch, n *incoming) (o outcome, err error) {
	x := &n.in.Entry
	switch {
	case n.record != nil:
		return o, e.placeRecord(batch, n)
	case x.Kind == redoubt.EntryVersion:
		return e.applyVersion(batch, n)
	}
	kind, was, err := e.fate(e.engine, n.set, n.of)
	if err != nil {
		return o, err
	}
	if kind == redoubt.EntryRemoval || kind == x.Kind && !n.id.newer(was) {
		n.entry.Kind = outcomeHeld
		return o, nil
	}
	f, err := e.byID(e.engine, n.b, n.set.label, x.Name.Key, e.ids.versionID(n.of))
	if err != nil {
		return o, err
	}
	if kind == redoubt.EntryAlteration {
		batch.Delete(stampKey(n.set.id, was))
	}
	if err := e.noteFate(batch, n.set, x, n.custody, n.from); err != nil || f.rec == nil {
		return o, err // what it is about has not come yet, and will find it
	}
	if x.Kind == redoubt.EntryRemoval {
		return outcome{versions: -1, bytes: -f.rec.size, charge: e.givenBack(f, x.Name.Key)}, e.remove(batch, n.b, f, x.Name.Key)
	}
	before := f.rec.charge(x.Name.Key)
	if err := e.keepOrigin(n.b, f, x.Name.Key); err != nil {
		return o, err
	}
	f.rec.tags, f.rec.retention, f.rec.hold, f.rec.altered = x.Tags, x.Retention, x.Hold, n.id
	o.charge, err = e.recharge(batch, n.b, f, x.Name.Key, before, anyRoom)
	return o, err
}

// outcomeHeld is on record for what brought nothing new.
const outcomeHeld = "held already"

// applyVersion places a version, with the alteration that came before it, if one did.
func (e *Enclave) applyVersion(batch *store.Batch, n *incoming) (o outcome, err error) {
	held, err := e.holdsStamp(n)
	if err != nil || held || n.w == nil {
		n.entry.Kind = outcomeHeld
		return o, err
	}
	if err := n.w.freshKeys(); err != nil {
		return o, err
	}
	kind, was, err := e.fate(e.engine, n.set, n.id)
	if err != nil {
		return o, err
	}
	rec := n.w.rec
	if kind == redoubt.EntryAlteration {
		raw, _, err := e.engine.Get(stampKey(n.set.id, was))
		if err != nil {
			return o, err
		}
		alteration, _, is, err := fateOf(raw)
		if err != nil || !is {
			return o, &redoubt.Error{Op: "Apply", Kind: redoubt.Corrupt, Err: errors.Join(errRecord, err)}
		}
		rec.origin, rec.altered = n.encoded, was
		rec.tags, rec.retention, rec.hold = alteration.Tags, alteration.Retention, alteration.Hold
	}
	if err := e.noteConflict(batch, n); err != nil {
		return o, err
	}
	recordBytes, err := e.place(batch, n.b.id, n.set, n.in.Entry.Name.Key, rec)
	if err != nil {
		return o, err
	}
	if err := e.charge(batch, &n.w.hold, rec.cost(n.w.name.Key, recordBytes), anyRoom); err != nil {
		return o, err
	}
	deltaSet(batch, recCount, n.set.id, 1)
	deltaSet(batch, recBytes, n.set.id, rec.size)
	batch.Links = append(batch.Links, n.w.staged...)
	n.entry.Bytes = rec.size
	return outcome{versions: 1, bytes: rec.size, charge: &n.w.hold}, nil
}

// keepOrigin keeps another node's entry as it was signed, before the version is altered here for the first time.
func (e *Enclave) keepOrigin(b *bucket, f found, key string) error {
	if f.rec.custody == nil || f.rec.origin != nil {
		return nil
	}
	entry, err := e.signable(b, f, key)
	if err == nil {
		f.rec.origin, err = entry.MarshalBinary()
	}
	return err
}
