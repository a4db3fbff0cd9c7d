package enclave

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"redoubt"
	"redoubt/keys"
	"redoubt/label"
	"redoubt/store"
)

// getter reads the catalogue: the engine itself, or a view of it.
type getter interface {
	Get(key []byte) (value []byte, ok bool, err error)
}

// found is a version and the set that it lies in.
type found struct {
	set *labelSet
	rec *record
	raw []byte

	gone bool      // it was erased, and what is known of it is for spill reports alone (spillgone.go)
	at   time.Time // when it was, of what is gone
}

// current finds what a reader sees under a key: the newest version that the working
// label dominates and that no marker hides (RULES 2.2), or, in a bucket set so, the one
// of the highest label. It reads one head for each dominated set and touches no
// other. A nil rec is nothing; hidden then says that a marker is the reason.
func (e *Enclave) current(get getter, l look, b *bucket, working label.Label, key string) (cur found, hidden *found, err error) {
	var tops []found
	for _, set := range e.look(l, working) {
		raw, ok, err := get.Get(headKey(b.id, set.id, key))
		if err != nil {
			return found{}, nil, err
		}
		if !ok {
			continue
		}
		rec := new(record)
		if _, _, err := rec.decodeHead(raw); err != nil {
			return found{}, nil, &redoubt.Error{Op: "read", Kind: redoubt.Corrupt, Err: err}
		}
		tops = append(tops, found{set: set, rec: rec, raw: raw})
	}
	cur, hidden = choose(tops, b.Current == "highest")
	if cur.rec != nil {
		full, err := decodeRecord(cur.raw)
		if err != nil {
			return found{}, nil, &redoubt.Error{Op: "read", Kind: redoubt.Corrupt, Err: err}
		}
		cur.rec = full
	}
	return cur, hidden, nil
}

// choose picks the current one of the heads of one key. Only heads matter: a marker lies in a
// set whose label dominates everything that it hides, and a version above it in its
// own set is newer and dominates them as well.
func choose(tops []found, highest bool) (cur found, hidden *found) {
	if len(tops) == 1 {
		if tops[0].rec.marker {
			return found{}, &tops[0]
		}
		return tops[0], nil
	}
	var newestMarker *found
	for i := range tops {
		t := &tops[i]
		if t.rec.marker {
			if newestMarker == nil || t.rec.id.newer(newestMarker.rec.id) {
				newestMarker = t
			}
			continue
		}
		if hides(tops, t) || highest && outranked(tops, t) {
			continue
		}
		if cur.rec == nil || t.rec.id.newer(cur.rec.id) {
			cur = *t
		}
	}
	if cur.rec != nil {
		return cur, nil
	}
	return found{}, newestMarker
}

// hides says whether a marker among tops hides t.
func hides(tops []found, t *found) bool {
	for i := range tops {
		m := &tops[i]
		if m.rec.marker && m.rec.id.newer(t.rec.id) && m.set.label.Dominates(t.set.label) {
			return true
		}
	}
	return false
}

// outranked says whether one of tops that nothing hides has a label strictly above that of t. Labels
// that do not compare outrank neither, so of the highest ones the newest is current.
func outranked(tops []found, t *found) bool {
	for i := range tops {
		o := &tops[i]
		if !o.rec.marker && o.set.label.Dominates(t.set.label) && !t.set.label.Dominates(o.set.label) && !hides(tops, o) {
			return true
		}
	}
	return false
}

// byID finds one version that the working label dominates; nil when there is none.
func (e *Enclave) byID(get getter, b *bucket, working label.Label, key string, id redoubt.VersionID) (found, error) {
	vid, ok := e.ids.parse(string(id))
	if !ok {
		return found{}, nil
	}
	set := e.sets.byTag(vid.tag())
	if set == nil || !working.Dominates(set.label) {
		return found{}, nil
	}
	raw, ok, err := get.Get(headKey(b.id, set.id, key))
	if err != nil || !ok {
		return found{}, err
	}
	rec, err := decodeRecord(raw)
	if err == nil && rec.id != vid {
		if raw, ok, err = get.Get(oldKey(b.id, set.id, key, vid)); err != nil || !ok {
			return found{}, err
		}
		rec, err = decodeRecord(raw)
	}
	if err != nil {
		return found{}, &redoubt.Error{Op: "read", Kind: redoubt.Corrupt, Err: err}
	}
	return found{set: set, rec: rec, raw: raw}, nil
}

// GetObject opens a version for reading: find, check, record, open.
func (e *Enclave) GetObject(ctx context.Context, who redoubt.Credential, in redoubt.ReadObject) (redoubt.Object, error) {
	if in.Action == "" {
		in.Action = redoubt.ActionGetObject
	}
	o, err := e.getObject(ctx, who, in)
	// A rotation may end an epoch between the finding of a record and the opening of its key: then there
	// is a newer record. What was erased for good is still erased when it is asked for again.
	for range 2 {
		if redoubt.KindOf(err) != redoubt.Erased {
			break
		}
		o, err = e.getObject(ctx, who, in)
	}
	if err != nil {
		return nil, err
	}
	return o, nil
}

func (e *Enclave) getObject(ctx context.Context, who redoubt.Credential, in redoubt.ReadObject) (*object, error) {
	const op = "GetObject"
	taken := e.readers.taken.Load()
	view := e.engine.View() // what is found is of one moment, and stays until it is open
	defer view.Close()
	since := e.clock()
	f, err := e.resolve(ctx, view, op, who, in)
	if err != nil {
		return nil, err
	}
	o := &object{e: e, name: in.Name, set: f.set, rec: f.rec, latest: in.ID == "", taken: taken,
		asked: ask{op: op, who: who, action: in.Action, name: in.Name, object: f.set.label, detail: "while it was sent"}, since: since, request: redoubt.RequestID(ctx)}
	if err := o.open(); err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

// HeadObject describes a version. Where a delete marker is the reason that there is none, the error names it.
func (e *Enclave) HeadObject(ctx context.Context, who redoubt.Credential, in redoubt.ReadObject) (redoubt.Version, error) {
	if in.Action == "" {
		in.Action = redoubt.ActionHeadObject
	}
	view := e.engine.View()
	defer view.Close()
	f, err := e.resolve(ctx, view, "HeadObject", who, in)
	if f.rec == nil {
		return redoubt.Version{}, err
	}
	v := e.version(in.Name, f.set, f.rec)
	v.Latest = in.ID == ""
	return v, err
}

// resolve finds the version that a request is about, decides and records. It reads several heads, or a head and what lies
// under it, so it reads a view: else it could find what there was at no moment.
func (e *Enclave) resolve(ctx context.Context, view getter, op string, who redoubt.Credential, in redoubt.ReadObject) (found, error) {
	if err := validName(op, in.Name); err != nil {
		return found{}, err
	}
	b, err := e.readable(op, in.Name.Bucket)
	if err != nil {
		return found{}, e.missingBucket(ctx, ask{op: op, who: who, action: in.Action, name: in.Name}, err)
	}
	var f found
	var marker *found
	if in.ID == "" {
		f, marker, err = e.current(view, lookCurrent, b, who.Working, in.Name.Key)
	} else {
		f, err = e.byID(view, b, who.Working, in.Name.Key, in.ID)
	}
	if err != nil {
		return found{}, err
	}
	a := ask{op: op, who: who, action: in.Action, bucket: b, name: in.Name, object: who.Working}
	if f.rec != nil {
		a.object = f.set.label
	}
	entry, err := e.decide(ctx, a)
	if err != nil {
		return found{}, b.refused(op, in.Name, err)
	}
	switch {
	case f.rec == nil:
		missing := b.missing(op, in.Name)
		if marker != nil {
			missing.Marker = e.ids.versionID(marker.rec.id)
		}
		return found{}, e.noted(ctx, entry, missing)
	case f.rec.marker:
		return f, e.noted(ctx, entry, &redoubt.Error{Op: op, Object: in.Name.String(), Kind: redoubt.MethodNotAllowed})
	case e.readers.closes(f.rec, f.set.label) != "":
		return found{}, e.noted(ctx, entry, b.missing(op, in.Name))
	}
	entry.Version, entry.Bytes = f.rec.id[:], f.rec.size
	if err := e.holds(op, f.rec, in.If); err != nil {
		entry.Kind = redoubt.KindOf(err).Error()
		if lost := e.noteRead(ctx, entry); lost != nil {
			return found{}, lost
		}
		return f, err
	}
	if err := e.noteRead(ctx, entry); err != nil {
		return found{}, err
	}
	return f, nil
}

// holds applies RFC 9110 conditions to a version, in the order that S3 does.
func (e *Enclave) holds(op string, rec *record, c redoubt.Conditions) error {
	etag, modified := e.etag(rec), time.Unix(0, rec.id.time()).UTC().Truncate(time.Second)
	failed := func(k redoubt.Kind) error { return &redoubt.Error{Op: op, Kind: k} }
	if len(c.IfMatch) > 0 {
		if !anyTag(c.IfMatch, etag) {
			return failed(redoubt.PreconditionFail)
		}
	} else if !c.IfUnmodifiedSince.IsZero() && modified.After(c.IfUnmodifiedSince) {
		return failed(redoubt.PreconditionFail)
	}
	if len(c.IfNoneMatch) > 0 {
		if anyTag(c.IfNoneMatch, etag) {
			return failed(redoubt.NotModified)
		}
	} else if !c.IfModifiedSince.IsZero() && !modified.After(c.IfModifiedSince) {
		return failed(redoubt.NotModified)
	}
	return nil
}

func anyTag(tags []string, etag string) bool {
	for _, t := range tags {
		if t == "*" || t == etag {
			return true
		}
	}
	return false
}

// conditions checks a write's conditions against what the writer sees. The name's lock is held.
func (e *Enclave) conditions(op string, w *write, c redoubt.Conditions) error {
	made := e.sets.byID(w.rec.made)
	cur, _, err := e.current(e.engine, lookCondition, w.b, made.label, w.name.Key)
	if err != nil {
		return err
	}
	if len(c.IfMatch) > 0 {
		switch {
		case cur.rec == nil:
			none := w.b.missing(op, w.name)
			none.Err = redoubt.ErrNoCurrent
			return none
		case !anyTag(c.IfMatch, e.etag(cur.rec)):
			return &redoubt.Error{Op: op, Kind: redoubt.PreconditionFail}
		}
	}
	if len(c.IfNoneMatch) > 0 && cur.rec != nil && anyTag(c.IfNoneMatch, e.etag(cur.rec)) {
		return &redoubt.Error{Op: op, Kind: redoubt.PreconditionFail}
	}
	return nil
}

// object is an open version.
type object struct {
	e       *Enclave
	name    redoubt.ObjectName
	set     *labelSet
	rec     *record
	latest  bool
	asked   ask // by whom it is read; the zero ask is the node's own act
	since   time.Time
	request string
	told    string // label of what is on record about it; "": that of what was asked
	held    bool   // it may be read long after it was opened, however small it is
	taken   uint64 // readers.taken before it was found
	blobs   []store.Blob
	openers []*keys.Opener
	small   *small // instead of openers
}

// open pins the version's content and opens its keys.
func (o *object) open() error {
	for _, p := range o.rec.pieces {
		key, err := o.e.keyring.DataKey(o.set.text, p.wrapped)
		if err != nil {
			return err
		}
		blob, err := o.e.engine.OpenBlob(p.ref)
		if err != nil {
			return err
		}
		o.blobs = append(o.blobs, blob)
		bind := keys.Binding{Label: o.set.text, Bucket: string(o.name.Bucket), Key: o.name.Key, Version: p.bound[:]}
		if len(o.rec.pieces) == 1 && p.size <= smallBytes {
			o.small = &small{key: key, bind: bind, blob: blob}
			return nil
		}
		if sealed, ok := blob.(store.SealedBlob); ok {
			sealed.ReaderAuthenticates() // the opener does, chunk by chunk
		}
		o.openers = append(o.openers, keys.NewOpener(key, bind, blob, blob.Size()))
	}
	return nil
}

func (o *object) Version() redoubt.Version {
	v := o.e.version(o.name, o.set, o.rec)
	v.Latest = o.latest
	return v
}

// Reader gives a range of the plaintext, across the parts of a multipart version.
func (o *object) Reader(off, n int64) io.Reader {
	if n < 0 || n > o.rec.size-off {
		n = o.rec.size - off
	}
	if o.small != nil {
		r := &smallReader{o.small, off, off + max(n, 0)}
		if !o.held {
			return r
		}
		return &lasting{r, o}
	}
	var readers []io.Reader
	for i, p := range o.rec.pieces {
		if off >= p.size {
			off -= p.size
			continue
		}
		take := min(n, p.size-off)
		if take <= 0 {
			break
		}
		readers = append(readers, o.openers[i].Range(off, take))
		off, n = 0, n-take
	}
	r := io.MultiReader(readers...)
	if len(readers) == 1 {
		r = readers[0]
	}
	if o.asked.action == "" {
		return r
	}
	return &lasting{r, o}
}

func (o *object) Close() error {
	if o.small != nil {
		o.small.close()
	}
	var first error
	for _, b := range o.blobs {
		if err := b.Close(); err != nil && first == nil {
			first = err
		}
	}
	o.blobs = nil
	return first
}

// smallBytes is up to where content is opened at once rather than through the large buffers of a stream.
const smallBytes = 16 << 10

// small is the content of a small version, opened when it is first read.
type small struct {
	key   keys.DataKey
	bind  keys.Binding
	blob  store.Blob
	space *smallSpace // what plain lies in; nil before the first read and after close
	plain []byte
	done  bool
	err   error
}

// smallSpace is what a small version is read and opened in.
type smallSpace struct {
	sealed [smallBytes + keys.ChunkOverhead]byte
	plain  [smallBytes]byte
}

var smallSpaces = sync.Pool{New: func() any { return new(smallSpace) }}

func (s *small) open() ([]byte, error) {
	if s.done {
		return s.plain, s.err
	}
	s.done = true
	size := s.blob.Size()
	s.space = smallSpaces.Get().(*smallSpace)
	if size > int64(len(s.space.sealed)) {
		s.err = &redoubt.Error{Op: "read", Kind: redoubt.Corrupt, Err: errors.New("the content is longer than its record says")}
		return nil, s.err
	}
	sealed := s.space.sealed[:size]
	if n, err := s.blob.ReadAt(sealed, 0); n < len(sealed) {
		s.err = &redoubt.Error{Op: "read", Kind: redoubt.Corrupt, Err: err}
		return nil, s.err
	}
	s.plain, s.err = keys.OpenAll(s.space.plain[:0], s.key, s.bind, sealed)
	s.key.Wipe()
	return s.plain, s.err
}

// close gives the memory back without what was in it. Later reads fail.
func (s *small) close() {
	if s.space != nil {
		clear(s.plain)
		smallSpaces.Put(s.space)
	}
	s.space, s.plain, s.done = nil, nil, true
	if s.err == nil {
		s.err = &redoubt.Error{Op: "read", Kind: redoubt.Internal, Err: errors.New("the version is closed")}
	}
}

// smallReader reads a range of it.
type smallReader struct {
	s       *small
	at, end int64
}

func (r *smallReader) rest() ([]byte, error) {
	plain, err := r.s.open()
	if err != nil {
		return nil, err
	}
	if r.at < 0 || r.end > int64(len(plain)) {
		return nil, &redoubt.Error{Op: "read", Kind: redoubt.RangeInvalid}
	}
	return plain[r.at:r.end], nil
}

func (r *smallReader) Read(p []byte) (int, error) {
	rest, err := r.rest()
	if err != nil {
		return 0, err
	}
	if len(rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, rest)
	r.at += int64(n)
	return n, nil
}

// WriteTo hands the whole range over in one write.
func (r *smallReader) WriteTo(w io.Writer) (int64, error) {
	rest, err := r.rest()
	if err != nil || len(rest) == 0 {
		return 0, err
	}
	n, err := w.Write(rest)
	r.at += int64(n)
	return int64(n), err
}
