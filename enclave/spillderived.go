package enclave

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"iter"
	"slices"

	"redoubt"
	"redoubt/compute/image"
	"redoubt/label"
)

// What was made of a spill (docs/adr/0039): outputs and logs of the jobs that opened what a report lists, what was compiled of it, what jobs made of
// those, and copies of all of them. Marks say it (derived.go). What is known to be made of it goes as a copy does; what only may be is listed for an
// officer to look at. What a derivative holds decides nothing: whoever read the spill chose it, and could choose the bytes of what others have.

// origins are what the derivatives of a report are known by. Each leads to the listed version that it stands for.
type origins struct {
	versions map[versionID]origin          // what is listed, and manifests that name a blob of the content
	programs map[string]origin             // the content itself as a module, by SHA-256
	repos    map[string]origin             // repositories that the content lies in as a blob
	copies   map[int64]map[string][]origin // what derivatives hold, by size and SHA-256: what may be a copy
	all      []origin                      // what goes
}

// origin is a listed version, and whom it can have led to: what is newer, and at a label that dominates its own.
type origin struct {
	of    redoubt.VersionID
	stamp versionID
	label label.Label
}

// ledTo says whether a version can have been made of this one.
func (o origin) ledTo(id versionID, at label.Label) bool {
	return o.of != "" && id.newer(o.stamp) && at.Dominates(o.label)
}

// newestStamp is newer than every version: what runs has put nothing yet.
var newestStamp = versionID(bytes.Repeat([]byte{0xff}, len(versionID{})))

// originsOf gathers them.
func (e *Enclave) originsOf(ctx context.Context, r *spillRecord) (*origins, error) {
	o := &origins{versions: map[versionID]origin{}, programs: map[string]origin{}, repos: map[string]origin{}, copies: map[int64]map[string][]origin{}}
	blobs := map[string]origin{} // digests that manifests may name
	all, err := e.chain(r)
	if err != nil {
		return nil, err
	}
	for _, of := range all {
		if err := e.addOrigins(o, of, blobs); err != nil {
			return nil, err
		}
	}
	if len(blobs) == 0 {
		return o, nil
	}
	return o, e.manifestsOf(ctx, o, blobs)
}

// addOrigins adds those of one report.
func (e *Enclave) addOrigins(o *origins, r *spillRecord, blobs map[string]origin) error {
	for i, c := range r.Copies {
		f := r.Found[i]
		if !r.goes(i) || len(f.Stamp) != len(versionID{}) {
			continue
		}
		set, err := e.setNamed(f.Set)
		if err != nil {
			return err
		}
		x := origin{c.Version, versionID(f.Stamp), set.label}
		o.versions[x.stamp], o.all = x, append(o.all, x)
		switch {
		case r.isContent(i):
			older(o.programs, f.Sum, x)
			if repo := image.Holder(redoubt.ObjectName{Bucket: c.Bucket, Key: c.Key}); repo != "" {
				older(o.repos, repo, x)
				older(blobs, f.Sum, x)
			}
		case f.Sum != "" && f.Size > 0: // what is empty is a copy of anything
			if o.copies[f.Size] == nil {
				o.copies[f.Size] = map[string][]origin{}
			}
			o.copies[f.Size][f.Sum] = append(o.copies[f.Size][f.Sum], x)
		}
	}
	return nil
}

// isContent says whether what is listed holds what was spilled, byte for byte, and that is known.
func (r *spillRecord) isContent(i int) bool {
	return r.Found[i].Sum != "" && (r.Copies[i].Relation == relItself || r.Copies[i].Relation == relSame)
}

// older keeps the older of two origins of one content.
func older(in map[string]origin, key string, x origin) {
	if was := in[key]; was.of == "" || was.stamp.newer(x.stamp) {
		in[key] = x
	}
}

// manifestsOf adds the manifests that name one of these digests: a job opens the manifest of its image each time, and a layer once.
func (e *Enclave) manifestsOf(ctx context.Context, o *origins, blobs map[string]origin) error {
	return e.eachContent(ctx, func(b *bucket, set *labelSet, key string, raw []byte, head *record) error {
		if !image.IsManifest(key) || head.size > image.MaxManifestBytes {
			return nil
		}
		rec, err := decodeRecord(raw)
		if err != nil {
			return &redoubt.Error{Op: "spill", Kind: redoubt.Corrupt, Err: err}
		}
		c, err := e.openContent(redoubt.ObjectName{Bucket: b.Name, Key: key}, found{set: set, rec: rec})
		if unreadable(err) {
			return nil // it names nothing that anybody reads
		}
		if err != nil {
			return err
		}
		text, err := io.ReadAll(c.Reader(0, -1))
		if err = errors.Join(err, c.Close()); err != nil {
			return err
		}
		for digest, of := range blobs {
			if bytes.Contains(text, []byte(digest)) && (o.versions[rec.id].of == "" || o.versions[rec.id].stamp.newer(of.stamp)) {
				o.versions[rec.id] = origin{of.of, of.stamp, set.label}
			}
		}
		return nil
	})
}

// from is the listed version that a version was made of, by a program and of what was opened; "": it was made of none. A program is the content itself,
// which goes at whatever label it lies: so does what it made.
func (o *origins) from(id versionID, at label.Label, read iter.Seq[versionID], program string) redoubt.VersionID {
	if x := o.programs[program]; x.of != "" && id.newer(x.stamp) {
		return x.of
	}
	for r := range read {
		if x := o.versions[r]; x.ledTo(id, at) {
			return x.of
		}
	}
	return ""
}

// mayHave says whether what runs at a label may have opened one of these: it opened more than is known, or a layer of its image may be one.
func (o *origins) mayHave(over bool, program string, at label.Label) bool {
	return o.repos[program].of != "" || over && o.mayBeFrom(newestStamp, at) != ""
}

// mayBeFrom is what a version may have been made of whose job opened more than is known: what its label dominates, and is older.
func (o *origins) mayBeFrom(id versionID, at label.Label) redoubt.VersionID {
	for _, x := range o.all {
		if x.ledTo(id, at) {
			return x.of
		}
	}
	return ""
}

// traceDerived finds what is known to be made of what a report lists, until nothing more is.
func (e *Enclave) traceDerived(ctx context.Context, r *spillRecord) error {
	opened := map[redoubt.JobID][]versionID{}
	for had := -1; had < r.listed(); {
		had = r.listed()
		o, err := e.originsOf(ctx, r)
		if err != nil {
			return err
		}
		derived := func(set *labelSet, rec *record, m mark) (redoubt.VersionID, error) {
			from := o.from(rec.id, set.label, slices.Values(m.reads), m.program)
			if from == "" && m.more {
				if _, asked := opened[m.job]; !asked {
					if opened[m.job], _, err = e.allReads(m.job); err != nil {
						return "", err
					}
				}
				from = o.from(rec.id, set.label, slices.Values(opened[m.job]), m.program)
			}
			return from, nil
		}
		err = e.eachMade(ctx, nil, func(b *bucket, set *labelSet, key string, rec *record, m mark, _ bool) error {
			if o.versions[rec.id].of != "" && r.lists(rec.id) {
				return nil
			}
			from, err := derived(set, rec, m)
			if err != nil || from == "" {
				return err
			}
			return e.listDerived(r, b, found{set: set, rec: rec}, key, relDerived, derivation{m.job, from})
		})
		if err == nil {
			err = e.eachGone(ctx, func(b *bucket, f found, key string) error {
				m, marked := markOf(f.rec)
				if !marked || o.versions[f.rec.id].of != "" { // a report that this one goes on with has it
					return nil
				}
				from, err := derived(f.set, f.rec, m)
				if err != nil || from == "" {
					return err
				}
				return e.listDerived(r, b, f, key, relDerived, derivation{m.job, from})
			})
		}
		if errors.Is(err, errSpillFull) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// traceUnsure lists what only may be made of what a report lists: of jobs that opened more than is known, or ran another image of a repository that a
// blob of it lay in; what names a version that is no longer here, and may itself have been made of it; and what holds what a derivative does, and bears no
// mark. It comes last, since nobody knows how many there are.
func (e *Enclave) traceUnsure(ctx context.Context, r *spillRecord) error {
	o, err := e.originsOf(ctx, r)
	if err != nil {
		return err
	}
	lost, err := e.lostFrom(ctx, o)
	if err != nil {
		return err
	}
	known, opened := map[redoubt.JobID]bool{}, map[redoubt.JobID][]versionID{}
	err = e.eachMade(ctx, o, func(b *bucket, set *labelSet, key string, rec *record, m mark, marked bool) error {
		if r.lists(rec.id) {
			return nil
		}
		if !marked {
			from, err := e.copyOfDerived(o, b, set, key, rec)
			if err != nil || from == "" {
				return err
			}
			return e.listDerived(r, b, found{set: set, rec: rec}, key, relMayBe, derivation{From: from})
		}
		from := o.repos[m.program].of
		if _, asked := known[m.job]; from == "" && m.more && !asked {
			if opened[m.job], known[m.job], err = e.allReads(m.job); err != nil {
				return err
			}
		}
		if from == "" {
			from = firstOf(lost, m.reads)
		}
		for _, id := range m.reads { // above it, or newer: no true mark names that, and nothing goes by a false one
			if x := o.versions[id]; from == "" && x.stamp == id {
				from = x.of
			}
		}
		if from == "" && m.more {
			from = firstOf(lost, opened[m.job])
		}
		if from == "" && m.more && !known[m.job] {
			from = o.mayBeFrom(rec.id, set.label)
		}
		if from == "" {
			return nil
		}
		return e.listDerived(r, b, found{set: set, rec: rec}, key, relMayBe, derivation{Job: m.job, From: from})
	})
	if errors.Is(err, errSpillFull) {
		return nil
	}
	return err
}

// lostFrom gives the versions that were opened and are not here any more, with the listed version that each may have been made of, or been a copy of:
// nobody can look. What is listed has led to what it could already.
func (e *Enclave) lostFrom(ctx context.Context, o *origins) (map[versionID]redoubt.VersionID, error) {
	lost, asked := map[versionID]redoubt.VersionID{}, map[redoubt.JobID]bool{}
	named := func(all []versionID) {
		for _, id := range all {
			if set := e.sets.byTag(id.tag()); set != nil && o.versions[id].of == "" {
				if of := o.mayBeFrom(id, set.label); of != "" {
					lost[id] = of
				}
			}
		}
	}
	err := e.eachMade(ctx, nil, func(_ *bucket, _ *labelSet, _ string, _ *record, m mark, _ bool) error {
		named(m.reads)
		if !m.more || asked[m.job] {
			return nil
		}
		asked[m.job] = true
		opened, _, err := e.allReads(m.job)
		named(opened)
		return err
	})
	if err != nil || len(lost) == 0 {
		return nil, err
	}
	return lost, e.eachContent(ctx, func(_ *bucket, _ *labelSet, _ string, _ []byte, head *record) error {
		delete(lost, head.id)
		return nil
	})
}

// firstOf is what the first of these that is among them leads to.
func firstOf(lost map[versionID]redoubt.VersionID, all []versionID) redoubt.VersionID {
	for _, id := range all {
		if of := lost[id]; of != "" {
			return of
		}
	}
	return ""
}

// derivation is how a version was made.
type derivation struct {
	Job  redoubt.JobID
	From redoubt.VersionID
}

func (e *Enclave) listDerived(r *spillRecord, b *bucket, f found, key string, relation string, d derivation) error {
	name := redoubt.ObjectName{Bucket: b.Name, Key: key}
	text, err := e.spilledSum(name, f)
	if unreadable(err) {
		text, err = "", nil // its copies are not known then; that it goes does not wait for that
	}
	if err != nil {
		return err
	}
	return e.list(r, name, f, relation, text, d)
}

// copyOfDerived says of which derivative a version may be a copy.
func (e *Enclave) copyOfDerived(o *origins, b *bucket, set *labelSet, key string, rec *record) (redoubt.VersionID, error) {
	sum, _, _, err := e.contentDigest(redoubt.ObjectName{Bucket: b.Name, Key: key}, found{set: set, rec: rec}, rec.size, 0)
	if unreadable(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for _, x := range o.copies[rec.size][hex.EncodeToString(sum[:])] {
		if x.ledTo(rec.id, set.label) {
			return x.of, nil
		}
	}
	return "", nil
}

// eachMade goes over the versions that bear a mark, and those that have the size of a derivative, if any are given.
func (e *Enclave) eachMade(ctx context.Context, o *origins, each func(b *bucket, set *labelSet, key string, rec *record, m mark, marked bool) error) error {
	return e.eachContent(ctx, func(b *bucket, set *labelSet, key string, raw []byte, head *record) error {
		sized := o != nil && o.copies[head.size] != nil
		if !sized && !bytes.Contains(raw, []byte(metaMade)) {
			return nil
		}
		rec, err := decodeRecord(raw)
		if err != nil {
			return &redoubt.Error{Op: "spill", Kind: redoubt.Corrupt, Err: err}
		}
		m, marked := markOf(rec)
		if !marked && !sized {
			return nil
		}
		return each(b, set, key, rec, m, marked)
	})
}

// eachContent goes over every version that is no marker, in every bucket but the system's.
func (e *Enclave) eachContent(ctx context.Context, each func(b *bucket, set *labelSet, key string, raw []byte, head *record) error) error {
	view := e.engine.View()
	defer view.Close()
	for _, b := range *e.buckets.Load() {
		if b.id == systemBucketID {
			continue
		}
		for _, set := range e.look(lookVersions, e.ceiling) {
			err := e.eachVersion(view, b.id, set, func(key string, raw []byte) error {
				var head record
				if _, _, err := head.decodeHead(raw); err != nil {
					return &redoubt.Error{Op: "spill", Kind: redoubt.Corrupt, Err: err}
				}
				if err := ctx.Err(); err != nil || head.marker {
					return err
				}
				return each(b, set, key, raw, &head)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// unreadable says of an error that there is no content any more, or none that reads back.
func unreadable(err error) bool {
	k := redoubt.KindOf(err)
	return err != nil && (k == redoubt.Erased || k == redoubt.Corrupt)
}
