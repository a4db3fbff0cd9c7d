package enclave

import (
	"context"
	"io"
	"sync"
	"unicode/utf8"

	"redoubt"
	"redoubt/keys"
	"redoubt/label"
	"redoubt/store"
)

// inlinePlain is the largest content that is sealed in one piece, once its place in
// the order of versions is known.
const inlinePlain = store.InlineBytes - 4*keys.ChunkOverhead

// PutObject makes a new version: mark, check, seal and stage, record, commit, count.
func (e *Enclave) PutObject(ctx context.Context, who redoubt.Credential, in redoubt.PutObject) (redoubt.Version, error) {
	const op = "PutObject"
	if err := validName(op, in.Name); err != nil {
		return redoubt.Version{}, err
	}
	b, err := e.bucket(op, in.Name.Bucket)
	if err != nil {
		return redoubt.Version{}, e.missingBucket(ctx, ask{op: op, who: who, action: redoubt.ActionPutObject, name: in.Name}, err)
	}
	l, err := e.mark(op, b, who, in.Label)
	if err != nil {
		return redoubt.Version{}, e.unmarked(ctx, ask{op: op, who: who, action: redoubt.ActionPutObject, bucket: b, name: in.Name}, err)
	}
	return e.putAs(ctx, op, who, b, l, in)
}

// putAs makes a new version that is to carry label l.
func (e *Enclave) putAs(ctx context.Context, op string, who redoubt.Credential, b *bucket, l label.Label, in redoubt.PutObject) (v redoubt.Version, err error) {
	asked := ask{op: op, who: who, action: redoubt.ActionPutObject, bucket: b, name: in.Name, fresh: l}
	entry, err := e.decide(ctx, asked)
	if err != nil {
		return redoubt.Version{}, err
	}
	defer e.noteFailure(ctx, entry, &err)
	w, err := e.write(ctx, b, in.Name, l, who)
	if err != nil {
		return redoubt.Version{}, err
	}
	w.asked = asked
	w.copies = op == opCopy
	w.rec.attrs, w.rec.tags, w.rec.hold = in.Attributes, in.Tags, in.Hold
	if w.rec.retention, err = b.retention(op, in.Retention, in.Hold, e.clock()); err != nil {
		return redoubt.Version{}, err
	}
	defer w.discard()
	if err := w.reserve(w.least()); err != nil {
		return redoubt.Version{}, err
	}
	if err := w.read(ctx, in.Body, in.SizeBytes); err != nil {
		return redoubt.Version{}, err
	}
	if in.Finish != nil {
		sums, md5, err := in.Finish()
		if err != nil {
			return redoubt.Version{}, err
		}
		if w.rec.sums, err = sums, w.rec.setMD5(md5); err != nil {
			return redoubt.Version{}, err
		}
	}
	if in.Digest != nil {
		if sum, known := in.Digest(); known {
			w.rec.hashed(sum)
		}
	}
	return w.commit(ctx, op, in.If, entry)
}

// mark is the label that a new version is to carry: the one asked for, or the join of
// the working label and the bucket's default. It is checked by decide, not here.
func (e *Enclave) mark(op string, b *bucket, who redoubt.Credential, asked string) (label.Label, error) {
	if asked == "" {
		if b.facts.Default.IsZero() {
			return who.Working, nil
		}
		return label.Join(who.Working, b.facts.Default), nil
	}
	l, err := e.policy.Parse(asked)
	if err != nil {
		return label.Label{}, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Rule: "label: " + err.Error(), Err: err,
			Hint: "redoubt label parse shows what a marking means"}
	}
	return l, nil
}

// validName refuses names that no S3 client could read back.
func validName(op string, n redoubt.ObjectName) error {
	bad := func(why string) error {
		return &redoubt.Error{Op: op, Kind: redoubt.Invalid, Rule: why}
	}
	switch {
	case n.Key == "":
		return bad("the key is empty")
	case len(n.Key) > redoubt.MaxKeyBytes:
		return &redoubt.Error{Op: op, Kind: redoubt.TooLarge, Rule: "a key has at most 1024 bytes"}
	case !utf8.ValidString(n.Key):
		return bad("the key is not UTF-8")
	}
	for i := range len(n.Key) {
		if n.Key[i] == 0 {
			return bad("the key holds a NUL byte")
		}
	}
	return nil
}

// missingBucket answers a request for a bucket that is not there, on the record.
func (e *Enclave) missingBucket(ctx context.Context, a ask, missing error) error {
	a.fresh = a.who.Working
	d, ent := e.judge(ctx, a)
	if !d.Allow && (d.Kind == redoubt.Expired || d.Kind == redoubt.Unauthenticated) {
		missing = &redoubt.Error{Op: a.op, Kind: d.Kind, Rule: d.Rule}
	}
	return e.noted(ctx, ent, missing)
}

// unmarked answers a write whose label cannot be: an unknown marking, or one below what it is made of. It is refused
// on the record (RULES 1.6, 2.4).
func (e *Enclave) unmarked(ctx context.Context, a ask, why error) error {
	a.fresh, a.made = a.who.Working, a.who.Working
	d, _ := e.judge(ctx, a)
	if !d.Allow {
		_, refused := e.decide(ctx, a)
		return refused
	}
	ent := e.describe(ctx, a, false, "marking (1.6, 2.4)")
	return e.noted(ctx, ent, why)
}

// write is a version on its way into the store.
type write struct {
	e       *Enclave
	who     redoubt.Credential
	asked   ask // what was allowed; the zero ask is the node's own act
	b       *bucket
	name    redoubt.ObjectName
	set     *labelSet
	made    *labelSet // of the working label
	rec     *record
	dataKey keys.DataKey
	buffer  *[]byte // content that is sealed at commit
	filled  int     // bytes of it
	staged  []store.Staged
	durable int                      // of staged: how many finish has made so; only what comes from a peer counts them
	hold    hold                     // of the share of made
	copies  bool                     // what bears a mark maybe, and is put by no job
	also    func(*store.Batch) error // what is committed with it, once it has its ID; may be nil
	entry   *entry                   // of one that waits for others to be committed with it
}

// write begins a version with label l.
func (e *Enclave) write(ctx context.Context, b *bucket, name redoubt.ObjectName, l label.Label, who redoubt.Credential) (*write, error) {
	set, err := e.sets.of(ctx, l)
	if err != nil {
		return nil, err
	}
	made, err := e.sets.of(ctx, who.Working)
	if err != nil {
		return nil, err
	}
	return &write{e: e, who: who, b: b, name: name, set: set, made: made, hold: hold{set: made},
		rec: &record{made: made.id, author: string(who.Subject), maker: string(e.name)}}, nil
}

// discard gives back what was not committed.
func (w *write) discard() {
	for _, s := range w.staged {
		s.Discard()
	}
	w.hold.release()
	w.dropBuffer()
	w.dataKey.Wipe()
}

// dropBuffer gives the buffer back without what was in it.
func (w *write) dropBuffer() {
	if w.buffer != nil {
		clear((*w.buffer)[:w.filled])
		buffers.Put(w.buffer)
		w.buffer, w.filled = nil, 0
	}
}

var buffers = sync.Pool{New: func() any { b := make([]byte, inlinePlain+1); return &b }}

// read takes the content in. Small content waits in memory, to be sealed under the
// version's ID once that is known; more is sealed and staged as it comes.
func (w *write) read(ctx context.Context, body io.Reader, size int64) error {
	if size > redoubt.MaxPutBytes {
		return &redoubt.Error{Op: "write", Kind: redoubt.TooLarge, Rule: "one request stores at most 5 GiB; use a multipart upload"}
	}
	if err := w.reserve(max(size, 0)); err != nil {
		return err
	}
	if body == nil {
		body = noBody{}
	}
	w.buffer = buffers.Get().(*[]byte)
	ended, err := w.fill(body)
	if err != nil {
		return err
	}
	if size < 0 {
		if err := w.reserve(int64(w.filled)); err != nil {
			return err
		}
	}
	if !ended {
		return w.stream(ctx, body, w.filled, size)
	}
	return w.took(int64(w.filled), size)
}

// fill reads into the buffer until it is full or the body has ended. Only io.EOF is an end:
// a connection that broke gives io.ErrUnexpectedEOF.
func (w *write) fill(body io.Reader) (ended bool, err error) {
	for idle := 0; w.filled < len(*w.buffer); {
		n, err := body.Read((*w.buffer)[w.filled:])
		w.filled += n
		switch {
		case err == io.EOF:
			return true, nil
		case err != nil:
			return false, err
		case n > 0:
			idle = 0
		default:
			if idle++; idle == maxIdleReads {
				return false, io.ErrNoProgress
			}
		}
	}
	return false, nil
}

const maxIdleReads = 100 // of nothing, without an error, in a row: a body that does so never ends

type noBody struct{}

func (noBody) Read([]byte) (int, error) { return 0, io.EOF }

// stream seals and stages what is too large to wait in memory: the first n bytes, which are in the
// buffer, then the rest. It is sealed under an ID of its own: its place in the order of versions is settled when it is
// committed, so that what is acknowledged is the newest.
func (w *write) stream(ctx context.Context, body io.Reader, n int, size int64) error {
	bound, err := w.e.newID(ctx, w.made, w.set)
	if err != nil {
		return err
	}
	staged, err := w.stage(ctx)
	if err != nil {
		return err
	}
	sealer := keys.NewSealer(w.dataKey, w.binding(bound), staged)
	if _, err := sealer.Write((*w.buffer)[:n]); err != nil {
		return err
	}
	rest, err := sealer.ReadFrom(&limited{r: body, left: redoubt.MaxPutBytes - int64(n), w: w, charge: size < 0})
	if err != nil {
		return err
	}
	if err := sealer.Close(); err != nil {
		return err
	}
	if err := staged.Finish(); err != nil {
		return err
	}
	w.rec.pieces[0].ref, w.rec.pieces[0].bound, w.rec.pieces[0].size = staged.Ref(), bound, int64(n)+rest
	w.dropBuffer()
	return w.took(int64(n)+rest, size)
}

// limited ends a body that goes past what one request may store, and charges the quota of
// a body whose size was not stated, as it comes.
type limited struct {
	r      io.Reader
	left   int64
	w      *write
	charge bool
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, &redoubt.Error{Op: "write", Kind: redoubt.TooLarge, Rule: "one request stores at most 5 GiB; use a multipart upload"}
	}
	if l.charge {
		if err := l.w.reserve(int64(n)); err != nil {
			return 0, err
		}
	}
	return n, err
}

func (w *write) reserve(n int64) error { return w.e.reserve(&w.hold, n, 0) }

// least is what the version costs beside its content, as far as that is known before there is any.
func (w *write) least() int64 {
	var record [1024]byte
	return w.rec.cost(w.name.Key, len(w.rec.encode(record[:0])))
}

// took settles the size. Fewer bytes than announced are an error: nothing half arrives.
func (w *write) took(n, size int64) error {
	if size >= 0 && n != size {
		return &redoubt.Error{Op: "write", Kind: redoubt.Invalid, Rule: "the content is not as long as announced"}
	}
	w.rec.size = n
	return nil
}

// stage draws a fresh key and begins a blob for what is sealed under it.
func (w *write) stage(ctx context.Context) (store.Staged, error) {
	key, wrapped, err := w.e.keyring.NewDataKey(w.set.text)
	if err != nil {
		return nil, err
	}
	w.dataKey, w.rec.pieces = key, []piece{{wrapped: wrapped}}
	staged, err := w.e.engine.Stage(ctx)
	if err == nil {
		w.staged = append(w.staged, staged)
	}
	return staged, err
}

func (w *write) binding(bound versionID) keys.Binding {
	return keys.Binding{Label: w.set.text, Bucket: string(w.name.Bucket), Key: w.name.Key, Version: bound[:]}
}

// commit gives the version its place and makes it durable and visible, with its audit
// entry, unless a condition fails. After an error the caller notes the entry.
func (w *write) commit(ctx context.Context, op string, cond redoubt.Conditions, entry *entry) (redoubt.Version, error) {
	e := w.e
	if w.copies { // what jobs put is put with it held
		e.readers.gate.RLock()
		defer e.readers.gate.RUnlock()
	}
	w.b.gate.RLock()
	defer w.b.gate.RUnlock()
	if _, err := e.bucket(op, w.name.Bucket); err != nil {
		return redoubt.Version{}, err
	}
	if e.readers.closes(w.rec, w.set.label) != "" { // a copy of what was taken out meanwhile
		return redoubt.Version{}, &redoubt.Error{Op: op, Object: w.name.String(), Kind: redoubt.Conflict, Rule: ruleJobSpilt}
	}
	unlock := e.locks.lock(w.b.id, w.name.Key)
	defer unlock()
	if len(cond.IfMatch)+len(cond.IfNoneMatch) > 0 {
		if err := e.conditions(op, w, cond); err != nil {
			return redoubt.Version{}, err
		}
	}
	batch := &store.Batch{Links: w.staged}
	if w.rec.id.isZero() {
		var err error
		if w.rec.id, err = e.newID(ctx, w.made, w.set); err != nil {
			return redoubt.Version{}, err
		}
	}
	w.set.epochGate.RLock()
	defer w.set.epochGate.RUnlock()
	if w.buffer != nil {
		if err := w.sealBuffer(ctx, batch); err != nil {
			return redoubt.Version{}, err
		}
	}
	deltaSet(batch, recCount, w.set.id, 1)
	deltaSet(batch, recBytes, w.set.id, w.rec.size)
	if err := w.freshKeys(); err != nil {
		return redoubt.Version{}, err
	}
	recordBytes, err := e.place(batch, w.b.id, w.set, w.name.Key, w.rec)
	if err != nil {
		return redoubt.Version{}, err
	}
	if err := e.charge(batch, &w.hold, w.rec.cost(w.name.Key, recordBytes), room(w.who, w.rec)); err != nil {
		return redoubt.Version{}, err
	}
	if w.also != nil {
		if err := w.also(batch); err != nil {
			return redoubt.Version{}, err
		}
	}
	entry.Version, entry.Bytes = w.rec.id[:], w.rec.size
	done, err := e.standing(w.who, &w.asked, entry)
	if err != nil {
		return redoubt.Version{}, err
	}
	defer done()
	if err := e.commit(ctx, batch, entry); err != nil {
		return redoubt.Version{}, err
	}
	w.hold.settle()
	e.count(w.set, 1, w.rec.size)
	return e.version(w.name, w.set, w.rec), nil
}

// freshKeys wraps data keys anew that were wrapped before a rotation, so that none is committed under an epoch that is about
// to be destroyed: from the key at hand for content that has just come in, else from its wrapped form. The set's epochGate is held shared.
func (w *write) freshKeys() error {
	for i := range w.rec.pieces {
		p := &w.rec.pieces[i]
		if p.wrapped.Epoch() >= w.set.epoch.Load() {
			continue
		}
		fresh, err := w.e.keyring.Wrap(w.set.text, w.dataKey)
		if redoubt.KindOf(err) == redoubt.Invalid {
			fresh, err = w.e.keyring.Rewrap(w.set.text, p.wrapped)
		}
		if err != nil {
			return &redoubt.Error{Op: "write", Kind: redoubt.Unavailable, Err: err, Hint: "the label's key was rotated meanwhile; send it again"}
		}
		p.wrapped = fresh
	}
	return nil
}

// sealBuffer seals small content under the ID that the version has been given. Its key is drawn now, with the set's
// epochGate held shared, so no rotation comes between, however slowly the content arrived.
func (w *write) sealBuffer(ctx context.Context, batch *store.Batch) error {
	staged, err := w.stage(ctx)
	if err != nil {
		return err
	}
	out := buffers.Get().(*[]byte)
	sealed := keys.SealAll((*out)[:0], w.dataKey, w.binding(w.rec.id), (*w.buffer)[:w.rec.size])
	_, err = staged.Write(sealed)
	buffers.Put(out)
	if err != nil {
		return err
	}
	if err := staged.Finish(); err != nil {
		return err
	}
	w.rec.pieces[0].ref, w.rec.pieces[0].bound, w.rec.pieces[0].size = staged.Ref(), w.rec.id, w.rec.size
	batch.Links = w.staged
	return nil
}

// place puts a version where it belongs among those of its key and label set: the
// newest is the head, the others follow it. It goes into the journal of a node with links. It says how many bytes the record
// has. The name's lock is held.
func (e *Enclave) place(b *store.Batch, bucket uint32, set *labelSet, key string, rec *record) (recordBytes int, err error) {
	hk := headKey(bucket, set.id, key)
	old, ok, err := e.engine.Get(hk)
	if err != nil {
		return 0, err
	}
	var head record
	if ok {
		if _, _, err := head.decodeHead(old); err != nil {
			return 0, &redoubt.Error{Op: "place", Kind: redoubt.Corrupt, Err: err}
		}
	}
	if e.journaled(bucket, key) || rec.custody != nil {
		if rec.custody == nil && rec.base.isZero() {
			rec.base = head.id
		}
		e.noteVersion(b, bucket, set, key, rec.id, rec.from)
	}
	value := rec.encode(nil)
	switch {
	case !ok:
		b.Set(hk, value)
	case rec.id.newer(head.id):
		b.Set(oldKey(bucket, set.id, key, head.id), old)
		b.Set(hk, value)
	default:
		b.Set(oldKey(bucket, set.id, key, rec.id), value)
	}
	e.fires(bucket, set, key, rec)
	return len(value), nil
}
