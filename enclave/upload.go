package enclave

import (
	"context"
	"encoding/json"
	"time"

	"redoubt"
	"redoubt/keys"
	"redoubt/label"
	"redoubt/store"
)

// uploadRecord is a multipart upload in progress, kept under the set of the working
// label that began it: for any other working label it does not exist (RULES 2.3).
type uploadRecord struct {
	Label     string              `json:"label"` // canonical text of the version to be
	Author    redoubt.SubjectName `json:"author"`
	Started   time.Time           `json:"started"`
	Attrs     redoubt.Attributes  `json:"attrs"`
	Tags      []redoubt.Tag       `json:"tags,omitempty"`
	Retention redoubt.Retention   `json:"retention,omitzero"`
	Hold      bool                `json:"hold,omitempty"`
	Sum       string              `json:"sum,omitempty"`
	Composite bool                `json:"composite,omitempty"`
}

// partRecord is one stored part.
type partRecord struct {
	Ref     store.BlobRef     `json:"ref"`
	Size    int64             `json:"size"`
	Wrapped []byte            `json:"wrapped"`
	Bound   versionID         `json:"bound"` // what the seal is bound to
	Stamp   versionID         `json:"stamp"` // makes the part's ETag and time
	MD5     string            `json:"md5,omitempty"`
	Sums    redoubt.Checksums `json:"sums"`

	Originator redoubt.SubjectName `json:"originator,omitempty"` // whom it was copied from, where her consent is needed for it to leave; "": the upload's author

	stored int // bytes of the record as it was read
}

// upload is an upload that a request found.
type upload struct {
	e     *Enclave
	who   redoubt.Credential // of the request
	asked ask                // by it
	b     *bucket
	name  redoubt.ObjectName
	id    versionID
	made  *labelSet // it was begun at
	set   *labelSet // of the version to be
	rec   uploadRecord

	stored int // bytes of the record as it was read
}

// CreateUpload begins a multipart upload.
func (e *Enclave) CreateUpload(ctx context.Context, who redoubt.Credential, in redoubt.CreateUpload) (begun redoubt.Upload, err error) {
	const op = "CreateMultipartUpload"
	if err := validName(op, in.Name); err != nil {
		return redoubt.Upload{}, err
	}
	a := ask{op: op, who: who, action: redoubt.ActionUpload, name: in.Name, made: who.Working}
	b, err := e.bucket(op, in.Name.Bucket)
	if err != nil {
		return redoubt.Upload{}, e.missingBucket(ctx, a, err)
	}
	a.bucket = b
	if a.fresh, err = e.mark(op, b, who, in.Label); err != nil {
		return redoubt.Upload{}, e.unmarked(ctx, a, err)
	}
	entry, err := e.decide(ctx, a)
	if err != nil {
		return redoubt.Upload{}, err
	}
	defer e.noteFailure(ctx, entry, &err)
	retention, err := b.retention(op, in.Retention, in.Hold, e.clock())
	if err != nil {
		return redoubt.Upload{}, err
	}
	set, err := e.sets.of(ctx, a.fresh)
	if err != nil {
		return redoubt.Upload{}, err
	}
	made, err := e.sets.of(ctx, who.Working)
	if err != nil {
		return redoubt.Upload{}, err
	}
	t, err := e.nextTime(ctx, made)
	if err != nil {
		return redoubt.Upload{}, err
	}
	u := &upload{e: e, b: b, name: in.Name, id: makeVersionID(t, e.maker, made.tag), made: made, set: set,
		rec: uploadRecord{Label: string(set.text), Author: who.Subject, Started: time.Unix(0, t).UTC(), Attrs: in.Attributes,
			Tags: in.Tags, Retention: retention, Hold: in.Hold, Sum: in.SumAlgorithm, Composite: in.SumComposite}}
	value, err := json.Marshal(u.rec)
	if err != nil {
		return redoubt.Upload{}, err
	}
	batch, charged := new(store.Batch), hold{set: made}
	defer charged.release()
	batch.Set(uploadKey(b.id, made.id, in.Name.Key, u.id), value)
	if err := e.charge(batch, &charged, chargeOf(in.Name.Key, len(value), 0), 0); err != nil {
		return redoubt.Upload{}, err
	}
	b.gate.RLock()
	defer b.gate.RUnlock()
	if _, err := e.bucket(op, in.Name.Bucket); err != nil {
		return redoubt.Upload{}, err
	}
	if err := e.commit(ctx, batch, entry); err != nil {
		return redoubt.Upload{}, err
	}
	charged.settle()
	return u.public(), nil
}

func (u *upload) public() redoubt.Upload {
	return redoubt.Upload{Name: u.name, ID: redoubt.UploadID(u.e.ids.token(u.id)), Label: u.set.label, Author: u.rec.Author,
		Started: u.rec.Started, Attributes: u.rec.Attrs, SumAlgorithm: u.rec.Sum, SumComposite: u.rec.Composite}
}

// upload finds an upload at the caller's working label and decides. For every other
// label the answer is that of an upload that never was. In a removed bucket one can still be ended: its parts
// count against its label's share.
func (e *Enclave) upload(ctx context.Context, op string, action redoubt.Action, who redoubt.Credential, name redoubt.ObjectName, id redoubt.UploadID) (*upload, *entry, error) {
	if err := validName(op, name); err != nil {
		return nil, nil, err
	}
	a := ask{op: op, who: who, action: action, name: name, made: who.Working, fresh: who.Working}
	find := e.bucket
	if action == redoubt.ActionAbortUpload {
		find = e.readable
	}
	b, err := find(op, name.Bucket)
	if err != nil {
		return nil, nil, e.missingBucket(ctx, a, err)
	}
	a.bucket = b
	u, err := e.findUpload(b, who.Working, name, id)
	if err != nil {
		return nil, nil, err
	}
	if u != nil {
		u.who = who
		a.made, a.fresh = u.made.label, u.set.label
	}
	entry, err := e.decide(ctx, a)
	if err != nil {
		return nil, nil, b.refused(op, name, err)
	}
	if u == nil {
		return nil, nil, e.noted(ctx, entry, b.missing(op, name))
	}
	u.asked = a
	return u, entry, nil
}

func (e *Enclave) findUpload(b *bucket, working label.Label, name redoubt.ObjectName, id redoubt.UploadID) (*upload, error) {
	uid, ok := e.ids.parse(string(id))
	if !ok {
		return nil, nil
	}
	for _, made := range e.sets.equalTo(working) {
		raw, ok, err := e.engine.Get(uploadKey(b.id, made.id, name.Key, uid))
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		return e.decodeUpload(b, made, name, uid, raw)
	}
	return nil, nil
}

func (e *Enclave) decodeUpload(b *bucket, made *labelSet, name redoubt.ObjectName, id versionID, raw []byte) (*upload, error) {
	u := &upload{e: e, b: b, name: name, id: id, made: made, stored: len(raw)}
	if err := strictJSON(raw, &u.rec); err != nil {
		return nil, &redoubt.Error{Op: "upload", Kind: redoubt.Corrupt, Err: err}
	}
	l, err := label.ParseText([]byte(u.rec.Label), e.policy)
	if err != nil {
		return nil, &redoubt.Error{Op: "upload", Kind: redoubt.Corrupt, Err: err}
	}
	if u.set, err = e.sets.of(context.Background(), l); err != nil {
		return nil, err
	}
	return u, nil
}

// PutPart stores one part, sealed under a key of its own.
func (e *Enclave) PutPart(ctx context.Context, who redoubt.Credential, in redoubt.PutPart) (redoubt.Part, error) {
	u, entry, err := e.upload(ctx, "UploadPart", redoubt.ActionUpload, who, in.Name, in.Upload)
	if err != nil {
		return redoubt.Part{}, err
	}
	return u.put(ctx, entry, in, "")
}

// put stores a part. Like every write it locks the name before the gate: a rotation that waits at the gate
// keeps out whoever comes after it, so the two must not be taken the other way round.
func (u *upload) put(ctx context.Context, entry *entry, in redoubt.PutPart, originator redoubt.SubjectName) (part redoubt.Part, err error) {
	e := u.e
	defer e.noteFailure(ctx, entry, &err)
	if in.Number < 1 || in.Number > redoubt.MaxParts {
		return redoubt.Part{}, &redoubt.Error{Op: "UploadPart", Kind: redoubt.Invalid, Rule: "a part's number is 1 to 10000"}
	}
	w := &write{e: e, b: u.b, name: u.name, set: u.set, made: u.made, rec: new(record), hold: hold{set: u.made}}
	defer w.discard()
	if err := w.reserve(chargeOverhead); err != nil {
		return redoubt.Part{}, err
	}
	if err := w.read(ctx, in.Body, in.SizeBytes); err != nil {
		return redoubt.Part{}, err
	}
	p := partRecord{Size: w.rec.size, Originator: originator}
	if in.Finish != nil {
		var err error
		if p.Sums, p.MD5, err = in.Finish(); err != nil {
			return redoubt.Part{}, err
		}
	}
	batch := &store.Batch{Links: w.staged}
	t, err := e.nextTime(ctx, u.made)
	if err != nil {
		return redoubt.Part{}, err
	}
	p.Stamp = makeVersionID(t, e.maker, u.made.tag)
	if w.rec.id.isZero() {
		w.rec.id = p.Stamp
	}
	unlock := e.locks.lock(u.b.id, u.name.Key)
	defer unlock()
	if err := u.still(); err != nil {
		return redoubt.Part{}, err
	}
	u.set.epochGate.RLock()
	defer u.set.epochGate.RUnlock()
	if w.buffer != nil {
		if err := w.sealBuffer(ctx, batch); err != nil {
			return redoubt.Part{}, err
		}
	}
	if err := w.freshKeys(); err != nil {
		return redoubt.Part{}, err
	}
	piece := w.rec.pieces[0]
	p.Ref, p.Wrapped, p.Bound = piece.ref, append([]byte(nil), piece.wrapped[:]...), piece.bound
	old, err := e.part(partKey(u.id, in.Number))
	if err != nil {
		return redoubt.Part{}, err
	}
	if p.stored, err = putPart(batch, u.id, in.Number, &p); err != nil {
		return redoubt.Part{}, err
	}
	grown, cost := p.Size, p.charge()
	if old != nil {
		batch.Unlinks = append(batch.Unlinks, old.Ref)
		grown, cost = grown-old.Size, cost-old.charge()
	}
	if err := e.charge(batch, &w.hold, cost, 0); err != nil {
		return redoubt.Part{}, err
	}
	deltaSet(batch, recBytes, u.set.id, grown)
	entry.Bytes = p.Size
	done, err := e.standing(u.who, &u.asked, entry)
	if err != nil {
		return redoubt.Part{}, err
	}
	defer done()
	if err := e.commit(ctx, batch, entry); err != nil {
		return redoubt.Part{}, err
	}
	w.hold.settle()
	e.count(u.set, 0, grown)
	return e.publicPart(in.Number, &p), nil
}

// still refuses to go on with an upload that was completed or aborted meanwhile. The name's lock is held.
func (u *upload) still() error {
	_, ok, err := u.e.engine.Get(uploadKey(u.b.id, u.made.id, u.name.Key, u.id))
	if err == nil && !ok {
		err = &redoubt.Error{Op: "upload", Object: u.name.String(), Kind: redoubt.NotFound}
	}
	return err
}

func (e *Enclave) part(key []byte) (*partRecord, error) {
	raw, ok, err := e.engine.Get(key)
	if err != nil || !ok {
		return nil, err
	}
	return decodePart(raw)
}

// putPart adds a part's record to batch and says how many bytes it has.
func putPart(batch *store.Batch, upload versionID, number int, p *partRecord) (recordBytes int, err error) {
	value, err := json.Marshal(p)
	if err == nil {
		batch.Set(partKey(upload, number), value)
	}
	return len(value), err
}

func decodePart(raw []byte) (*partRecord, error) {
	p := new(partRecord)
	if err := strictJSON(raw, p); err != nil || len(p.Wrapped) != keys.WrappedBytes {
		return nil, &redoubt.Error{Op: "part", Kind: redoubt.Corrupt, Err: err}
	}
	p.stored = len(raw)
	return p, nil
}

// piece is the part as a piece of a version.
func (p *partRecord) piece() piece {
	return piece{ref: p.Ref, size: p.Size, wrapped: keys.Wrapped(p.Wrapped), bound: p.Bound}
}

func (e *Enclave) publicPart(number int, p *partRecord) redoubt.Part {
	etag := p.MD5
	if etag == "" {
		etag = e.ids.tag(p.Stamp)
	}
	return redoubt.Part{Number: number, SizeBytes: p.Size, ETag: etag, Modified: time.Unix(0, p.Stamp.time()).UTC(), Checksums: p.Sums}
}

// CopyPart makes a part from a version, whose label the upload's must dominate.
func (e *Enclave) CopyPart(ctx context.Context, who redoubt.Credential, in redoubt.CopyPart) (redoubt.Part, redoubt.Version, error) {
	const op = "UploadPartCopy"
	opened, err := e.GetObject(ctx, who, redoubt.ReadObject{Name: in.Source, ID: in.SourceID, If: in.SourceIf})
	if err != nil {
		return redoubt.Part{}, redoubt.Version{}, sourceError(err)
	}
	src := opened.(*object)
	defer src.Close()
	u, entry, err := e.upload(ctx, op, redoubt.ActionUpload, who, in.Name, in.Upload)
	if err != nil {
		return redoubt.Part{}, redoubt.Version{}, err
	}
	if !u.set.label.Dominates(src.set.label) {
		return redoubt.Part{}, redoubt.Version{}, e.noted(ctx, entry, &redoubt.Error{Op: op, Kind: redoubt.Denied,
			Rule: "a copy's label is at least the join of its sources (2.4)", Hint: "begin the upload with a label that dominates the source's"})
	}
	if !keepsConsentMarks(u.set.label, src.set.label) {
		return redoubt.Part{}, redoubt.Version{}, e.noted(ctx, entry, &redoubt.Error{Op: op, Kind: redoubt.Denied, Rule: ruleKeepsMarks, Hint: "begin the upload with a label that has the source's marks"})
	}
	originator := redoubt.SubjectName("")
	if len(redoubt.ConsentMarks(src.set.label)) > 0 {
		originator = originatorOf(src.rec)
	}
	n := in.N
	if n < 0 {
		n = src.rec.size - in.Off
	}
	if in.Off < 0 || n < 0 || n > src.rec.size-in.Off {
		return redoubt.Part{}, redoubt.Version{}, e.noted(ctx, entry, &redoubt.Error{Op: op, Kind: redoubt.RangeInvalid})
	}
	put := redoubt.PutPart{Name: in.Name, Upload: in.Upload, Number: in.Number, SizeBytes: n, Body: src.Reader(in.Off, n)}
	if sums := newSums(u.rec.Sum, put.Body); sums != nil {
		put.Body = sums
		put.Finish = func() (redoubt.Checksums, string, error) { return sums.result(), "", nil }
	}
	part, err := u.put(ctx, entry, put, originator)
	return part, src.Version(), err
}

// AbortUpload forgets an upload and its parts.
func (e *Enclave) AbortUpload(ctx context.Context, who redoubt.Credential, name redoubt.ObjectName, id redoubt.UploadID) error {
	u, entry, err := e.upload(ctx, "AbortMultipartUpload", redoubt.ActionAbortUpload, who, name, id)
	if err != nil {
		return err
	}
	return u.abort(ctx, entry)
}

func (u *upload) abort(ctx context.Context, entry *entry) error { return u.end(ctx, entry, nil) }

// end forgets an upload and its parts. What more belongs to the commit is added by with.
func (u *upload) end(ctx context.Context, entry *entry, with func(*store.Batch) error) (err error) {
	e := u.e
	defer e.noteFailure(ctx, entry, &err)
	unlock := e.locks.lock(u.b.id, u.name.Key)
	defer unlock()
	if err := u.still(); err != nil {
		return err
	}
	batch, back := new(store.Batch), hold{set: u.made}
	if with != nil {
		if err := with(batch); err != nil {
			return err
		}
	}
	freed, cost, err := u.drop(batch, nil)
	if err != nil {
		return err
	}
	if err := e.charge(batch, &back, -cost, 0); err != nil {
		return err
	}
	if err := e.commit(ctx, batch, entry); err != nil {
		return err
	}
	back.settle()
	e.count(u.set, 0, -freed)
	return nil
}

// drop adds to batch the end of an upload: its record and parts go, and the blobs of those not in keep. It says how
// many bytes of content go, and what the upload and its parts cost together.
func (u *upload) drop(batch *store.Batch, keep map[store.BlobRef]bool) (freed, cost int64, err error) {
	batch.Delete(uploadKey(u.b.id, u.made.id, u.name.Key, u.id))
	cost = u.charge()
	err = u.eachPart(0, func(number int, p *partRecord) error {
		batch.Delete(partKey(u.id, number))
		cost += p.charge()
		if !keep[p.Ref] {
			batch.Unlinks = append(batch.Unlinks, p.Ref)
			freed += p.Size
		}
		return nil
	})
	if freed > 0 {
		deltaSet(batch, recBytes, u.set.id, -freed)
	}
	return freed, cost, err
}

// eachPart walks the stored parts numbered above behind.
func (u *upload) eachPart(behind int, each func(number int, p *partRecord) error) error {
	if behind < 0 || behind >= redoubt.MaxParts {
		return nil
	}
	view := u.e.engine.View()
	defer view.Close()
	it := view.Scan(partKey(u.id, behind+1), after(partKey(u.id, 0xffff)))
	defer it.Close()
	for it.Next() {
		p, err := decodePart(it.Value())
		if err != nil {
			return err
		}
		k := it.Key()
		if err := each(int(k[len(k)-2])<<8|int(k[len(k)-1]), p); err != nil {
			return err
		}
	}
	return it.Err()
}
