package enclave

import (
	"cmp"
	"context"
	"crypto/fips140"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"redoubt"
	"redoubt/store"
)

// CompleteUpload makes the version out of the parts that the client names. Nothing is
// copied: the version takes the parts' blobs as they are.
func (e *Enclave) CompleteUpload(ctx context.Context, who redoubt.Credential, in redoubt.CompleteUpload) (v redoubt.Version, err error) {
	const op = "CompleteMultipartUpload"
	u, entry, err := e.upload(ctx, op, redoubt.ActionUpload, who, in.Name, in.Upload)
	if err != nil {
		return redoubt.Version{}, err
	}
	defer e.noteFailure(ctx, entry, &err)
	u.b.gate.RLock()
	defer u.b.gate.RUnlock()
	if _, err := e.bucket(op, in.Name.Bucket); err != nil {
		return redoubt.Version{}, err
	}
	unlock := e.locks.lock(u.b.id, in.Name.Key)
	defer unlock()
	if err := u.still(); err != nil {
		return redoubt.Version{}, err
	}
	w, keep, err := u.join(ctx, in)
	if err != nil {
		return redoubt.Version{}, err
	}
	if len(in.If.IfMatch)+len(in.If.IfNoneMatch) > 0 {
		if err := e.conditions(op, w, in.If); err != nil {
			return redoubt.Version{}, err
		}
	}
	batch := new(store.Batch)
	freed, cost, err := u.drop(batch, keep)
	if err != nil {
		return redoubt.Version{}, err
	}
	u.set.epochGate.RLock()
	defer u.set.epochGate.RUnlock()
	if err := w.freshKeys(); err != nil {
		return redoubt.Version{}, err
	}
	recordBytes, err := e.place(batch, u.b.id, u.set, in.Name.Key, w.rec)
	if err != nil {
		return redoubt.Version{}, err
	}
	defer w.discard()
	if err := e.charge(batch, &w.hold, w.rec.cost(in.Name.Key, recordBytes)-cost, 0); err != nil {
		return redoubt.Version{}, err
	}
	deltaSet(batch, recCount, u.set.id, 1)
	entry.Version, entry.Bytes = w.rec.id[:], w.rec.size
	done, err := e.standing(who, &u.asked, entry)
	if err != nil {
		return redoubt.Version{}, err
	}
	defer done()
	if err := e.commit(ctx, batch, entry); err != nil {
		return redoubt.Version{}, err
	}
	w.hold.settle()
	e.count(u.set, 1, -freed)
	return e.version(in.Name, u.set, w.rec), nil
}

// join makes the version of the parts that the client names; keep are their blobs. The name's lock is held.
func (u *upload) join(ctx context.Context, in redoubt.CompleteUpload) (w *write, keep map[store.BlobRef]bool, err error) {
	chosen, err := u.choose(in.Parts)
	if err != nil {
		return nil, nil, err
	}
	id, err := u.e.newID(ctx, u.made, u.set)
	if err != nil {
		return nil, nil, err
	}
	w = &write{e: u.e, b: u.b, name: in.Name, set: u.set, made: u.made, hold: hold{set: u.made}, rec: &record{id: id, made: u.made.id,
		author: string(u.rec.Author), maker: string(u.e.name), attrs: u.rec.Attrs, tags: u.rec.Tags, retention: u.rec.Retention,
		hold: u.rec.Hold, parts: true}}
	keep = map[store.BlobRef]bool{}
	if len(redoubt.ConsentMarks(u.set.label)) > 0 {
		w.rec.attrs = withOriginator(w.rec.attrs, u.originator(chosen), u.rec.Author)
	}
	for _, p := range chosen {
		w.rec.pieces = append(w.rec.pieces, p.piece())
		w.rec.size += p.Size
		keep[p.Ref] = true
	}
	if err := w.rec.fits(in); err != nil {
		return nil, nil, err
	}
	return w, keep, w.rec.sumParts(u, chosen, in.Checksums)
}

// originator names whose all of the parts are.
func (u *upload) originator(parts []*partRecord) redoubt.SubjectName {
	of := func(p *partRecord) redoubt.SubjectName { return cmp.Or(p.Originator, u.rec.Author) }
	for _, p := range parts[1:] {
		if of(p) != of(parts[0]) {
			return redoubt.SeveralOriginators
		}
	}
	return of(parts[0])
}

// fits compares the size that the client stated, where it did.
func (r *record) fits(in redoubt.CompleteUpload) error {
	if r.size > redoubt.MaxObjectBytes {
		return &redoubt.Error{Op: "CompleteMultipartUpload", Kind: redoubt.TooLarge, Rule: "an object has at most 5 TiB"}
	}
	if in.SizeBytes >= 0 && in.SizeBytes != r.size {
		return &redoubt.Error{Op: "CompleteMultipartUpload", Kind: redoubt.Invalid, Rule: "the parts are not as long together as announced"}
	}
	return nil
}

// choose checks the client's list against the stored parts: ascending, each there
// with the ETag and checksums that the client saw, and none but the last too small.
func (u *upload) choose(list []redoubt.CompletePart) ([]*partRecord, error) {
	bad := func(err error, number int) error {
		return &redoubt.Error{Op: "CompleteMultipartUpload", Kind: redoubt.Invalid, Rule: fmt.Sprintf("part %d: %v", number, err), Err: err}
	}
	if len(list) == 0 || len(list) > redoubt.MaxParts {
		return nil, &redoubt.Error{Op: "CompleteMultipartUpload", Kind: redoubt.Invalid, Rule: "an upload is completed with 1 to 10000 parts"}
	}
	for i, want := range list[1:] {
		if want.Number <= list[i].Number {
			return nil, bad(redoubt.ErrInvalidPartOrder, want.Number)
		}
	}
	stored := map[int]*partRecord{}
	if err := u.eachPart(0, func(n int, p *partRecord) error { stored[n] = p; return nil }); err != nil {
		return nil, err
	}
	out := make([]*partRecord, len(list))
	for i, want := range list {
		p := stored[want.Number]
		if p == nil || want.ETag != "" && want.ETag != u.e.publicPart(want.Number, p).ETag || !sumsAgree(want.Checksums, p.Sums) {
			return nil, bad(redoubt.ErrInvalidPart, want.Number)
		}
		if i < len(list)-1 && p.Size < redoubt.MinPartBytes {
			return nil, bad(redoubt.ErrPartTooSmall, want.Number)
		}
		out[i] = p
	}
	return out, nil
}

// sumsAgree compares those checksums that the client states.
func sumsAgree(want, have redoubt.Checksums) bool {
	for _, s := range [][2]string{{want.CRC32, have.CRC32}, {want.CRC32C, have.CRC32C}, {want.CRC64NVME, have.CRC64NVME}, {want.SHA1, have.SHA1}, {want.SHA256, have.SHA256}} {
		if s[0] != "" && s[1] != "" && s[0] != s[1] {
			return false
		}
	}
	return true
}

// sumParts makes the version's ETag (the MD5 of MD5s where every part has one) and its checksum, and compares the
// latter with what the client stated.
func (r *record) sumParts(u *upload, parts []*partRecord, stated redoubt.Checksums) error {
	var digests []byte
	for _, p := range parts {
		d, err := hex.DecodeString(p.MD5)
		if err != nil || len(d) != 16 {
			digests = nil
			break
		}
		digests = append(digests, d...)
	}
	if digests != nil {
		// The ETag of old clients, not a security function.
		fips140.WithoutEnforcement(func() { sum := md5.Sum(digests); r.md5 = sum[:] })
		r.md5Parts = len(parts)
	}
	sums, err := joinSums(u.rec.Sum, u.rec.Composite, parts)
	if err != nil {
		return err
	}
	if !sumsAgree(stripParts(stated), stripParts(sums)) {
		return &redoubt.Error{Op: "CompleteMultipartUpload", Kind: redoubt.BadDigest, Err: errors.New("the checksum of the whole differs")}
	}
	r.sums = sums
	return nil
}

// stripParts takes off the "-N" that some clients and S3 itself put behind a composite checksum.
func stripParts(c redoubt.Checksums) redoubt.Checksums {
	for _, s := range []*string{&c.CRC32, &c.CRC32C, &c.CRC64NVME, &c.SHA1, &c.SHA256} {
		if i := strings.IndexByte(*s, '-'); i >= 0 {
			*s = (*s)[:i]
		}
	}
	return c
}

// ListParts gives one page of an upload's parts.
func (e *Enclave) ListParts(ctx context.Context, who redoubt.Credential, in redoubt.ListParts) (redoubt.PartPage, error) {
	u, entry, err := e.upload(ctx, "ListParts", redoubt.ActionUpload, who, in.Name, in.Upload)
	if err != nil {
		return redoubt.PartPage{}, err
	}
	if err := e.noteRead(ctx, entry); err != nil {
		return redoubt.PartPage{}, err
	}
	page := redoubt.PartPage{Upload: u.public()}
	err = u.eachPart(in.After, func(number int, p *partRecord) error {
		if len(page.Parts) >= in.Max {
			page.Truncated = in.Max > 0
			return errEnough
		}
		page.Parts, page.Next = append(page.Parts, e.publicPart(number, p)), number
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return page, err
}

var errEnough = errors.New("enough")

// ListUploads gives one page of the uploads in progress at the caller's working label.
func (e *Enclave) ListUploads(ctx context.Context, who redoubt.Credential, in redoubt.ListUploads) (redoubt.UploadPage, error) {
	b, visible, err := e.listing(ctx, "ListMultipartUploads", redoubt.ActionListUploads, who, in.Bucket)
	if err != nil {
		return redoubt.UploadPage{}, err
	}
	view := e.engine.View()
	defer view.Close()
	var page redoubt.UploadPage
	behind, _ := e.ids.parse(string(in.AfterID))
	if set := e.sets.byTag(behind.tag()); set == nil || !who.Working.Equivalent(set.label) {
		behind = versionID{} // as one that was made up: it tells no time
	}
	m := merge(view, e.lookEqual(lookUploads, who.Working), b, in.Prefix, recUpload)
	defer m.close()
	start := startOf(in.AfterKey, in.Prefix, in.Delimiter)
	if in.AfterID != "" && in.AfterKey >= in.Prefix {
		start = append([]byte(in.AfterKey), 0)
	}
	m.seek(start)
	for key, ok := m.key(); ok; key, ok = m.key() {
		if err := ctx.Err(); err != nil {
			return redoubt.UploadPage{}, err
		}
		l, id := m.at(key)
		if visible != nil && !visible(key) || key == in.AfterKey && (in.AfterID == "" || !id.newer(behind)) {
			l.stand(l.it.Next())
			continue
		}
		if len(page.Uploads)+len(page.Prefixes) >= in.Max {
			page.Truncated = in.Max > 0
			return page, m.err()
		}
		if prefix, under := commonPrefix(key, in.Prefix, in.Delimiter); under {
			page.Prefixes = append(page.Prefixes, prefix)
			page.NextKey, page.NextID = prefix, ""
			m.seek(after([]byte(prefix)))
			continue
		}
		u, err := e.decodeUpload(b, l.set, redoubt.ObjectName{Bucket: in.Bucket, Key: key}, id, append([]byte(nil), l.it.Value()...))
		if err != nil {
			return redoubt.UploadPage{}, err
		}
		page.Uploads = append(page.Uploads, u.public())
		page.NextKey, page.NextID = key, redoubt.UploadID(e.ids.token(id))
		l.stand(l.it.Next())
	}
	page.NextKey, page.NextID = "", ""
	return page, m.err()
}

// at is the lane that stands at the oldest upload of key, and that upload's ID.
func (m *merged) at(key string) (at *lane, oldest versionID) {
	for _, l := range m.lanes {
		if l.key == nil || string(l.key) != key {
			continue
		}
		raw := l.it.Key()
		if id := versionID(raw[len(raw)-16:]); at == nil || oldest.newer(id) {
			at, oldest = l, id
		}
	}
	return at, oldest
}
