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
// officer to look at.

// origins are what the derivatives of a report are known by. Each leads to the listed version that it stands for.
type origins struct {
	versions map[versionID]redoubt.VersionID     // what is listed, and manifests that name a blob that is
	programs map[string]redoubt.VersionID        // modules, by SHA-256
	repos    map[string]redoubt.VersionID        // repositories that a blob lies in
	copies   map[int64]map[string]derivedContent // of derivatives, by size and SHA-256
	labels   []label.Label                       // of what goes
	stamps   []versionID
}

type derivedContent struct {
	of    redoubt.VersionID
	stamp versionID // what is older is no copy of it
}

// originsOf gathers them.
func (e *Enclave) originsOf(ctx context.Context, r *spillRecord) (*origins, error) {
	o := &origins{versions: map[versionID]redoubt.VersionID{}, programs: map[string]redoubt.VersionID{}, repos: map[string]redoubt.VersionID{}, copies: map[int64]map[string]derivedContent{}}
	blobs := map[string]redoubt.VersionID{} // digests that manifests may name
	for of := r; of != nil; {
		if err := e.addOrigins(o, of, blobs); err != nil {
			return nil, err
		}
		if of.After == "" {
			break
		}
		var err error
		if of, err = e.spill(of.After); err != nil {
			return nil, err
		}
	}
	if len(blobs) == 0 {
		return o, nil
	}
	return o, e.manifestsOf(ctx, o, blobs)
}

// addOrigins adds those of one report.
func (e *Enclave) addOrigins(o *origins, r *spillRecord, blobs map[string]redoubt.VersionID) error {
	for i, c := range r.Copies {
		f := r.Found[i]
		if !r.goes(i) || len(f.Stamp) != len(versionID{}) {
			continue
		}
		set, err := e.setNamed(f.Set)
		if err != nil {
			return err
		}
		id := versionID(f.Stamp)
		o.versions[id], o.labels, o.stamps = c.Version, append(o.labels, set.label), append(o.stamps, id)
		if f.Sum == "" {
			continue
		}
		if o.programs[f.Sum] == "" {
			o.programs[f.Sum] = c.Version
		}
		if repo := image.Holder(redoubt.ObjectName{Bucket: c.Bucket, Key: c.Key}); repo != "" {
			o.repos[repo], blobs[f.Sum] = c.Version, c.Version
		}
		if c.Relation == relDerived && f.Size > 0 { // what is empty is a copy of anything
			if o.copies[f.Size] == nil {
				o.copies[f.Size] = map[string]derivedContent{}
			}
			if _, is := o.copies[f.Size][f.Sum]; !is {
				o.copies[f.Size][f.Sum] = derivedContent{c.Version, id}
			}
		}
	}
	return nil
}

// manifestsOf adds the manifests that name one of these digests: a job opens the manifest of its image each time, and a layer once.
func (e *Enclave) manifestsOf(ctx context.Context, o *origins, blobs map[string]redoubt.VersionID) error {
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
			if bytes.Contains(text, []byte(digest)) && o.versions[rec.id] == "" {
				o.versions[rec.id] = of
			}
		}
		return nil
	})
}

// has says whether one of these was opened, or runs as the program.
func (o *origins) has(read iter.Seq[versionID], program string) bool {
	return o.from(read, program) != ""
}

// from is the listed version that one of these stands for; "": none is.
func (o *origins) from(read iter.Seq[versionID], program string) redoubt.VersionID {
	if of := o.programs[program]; of != "" {
		return of
	}
	for id := range read {
		if of := o.versions[id]; of != "" {
			return of
		}
	}
	return ""
}

// mayHave says whether what runs at a label may have opened one of these: it opened more than is known, or a layer of its image may be one.
func (o *origins) mayHave(over bool, program string, at label.Label) bool {
	return o.repos[program] != "" || over && slices.ContainsFunc(o.labels, at.Dominates)
}

// mayBeFrom is what a version may have been made of whose job opened more than is known: what its label dominates, and is older.
func (o *origins) mayBeFrom(id versionID, at label.Label) redoubt.VersionID {
	for i, of := range o.stamps {
		if at.Dominates(o.labels[i]) && id.newer(of) {
			return o.versions[of]
		}
	}
	return ""
}

// traceDerived finds what is known to be made of what a report lists, until nothing more is.
func (e *Enclave) traceDerived(ctx context.Context, r *spillRecord) error {
	sums, opened := map[versionID]string{}, map[redoubt.JobID][]versionID{}
	for had := -1; had < r.listed(); {
		had = r.listed()
		o, err := e.originsOf(ctx, r)
		if err != nil {
			return err
		}
		err = e.eachMade(ctx, o, func(b *bucket, set *labelSet, key string, rec *record, m mark, marked bool) error {
			if o.versions[rec.id] != "" && r.lists(rec.id) {
				return nil
			}
			d := derivation{Job: m.job}
			if marked {
				if d.From = o.from(slices.Values(m.reads), m.program); d.From == "" && m.more {
					if _, asked := opened[m.job]; !asked {
						if opened[m.job], _, err = e.allReads(m.job); err != nil {
							return err
						}
					}
					d.From = o.from(slices.Values(opened[m.job]), m.program)
				}
			}
			if d.From == "" {
				if d.From, err = e.copyOfDerived(o, b, set, key, rec, sums); err != nil || d.From == "" {
					return err
				}
				d.Job = ""
			}
			return e.listDerived(r, b, set, key, rec, relDerived, d)
		})
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
// blob of it lay in. It comes last, since nobody knows how many there are.
func (e *Enclave) traceUnsure(ctx context.Context, r *spillRecord) error {
	o, err := e.originsOf(ctx, r)
	if err != nil {
		return err
	}
	known := map[redoubt.JobID]bool{}
	err = e.eachMade(ctx, o, func(b *bucket, set *labelSet, key string, rec *record, m mark, marked bool) error {
		if !marked || r.lists(rec.id) {
			return nil
		}
		from := o.repos[m.program]
		if _, asked := known[m.job]; from == "" && m.more && !asked {
			if _, known[m.job], err = e.allReads(m.job); err != nil {
				return err
			}
		}
		if from == "" && m.more && !known[m.job] {
			from = o.mayBeFrom(rec.id, set.label)
		}
		if from == "" {
			return nil
		}
		return e.listDerived(r, b, set, key, rec, relMayBe, derivation{Job: m.job, From: from})
	})
	if errors.Is(err, errSpillFull) {
		return nil
	}
	return err
}

// derivation is how a version was made.
type derivation struct {
	Job  redoubt.JobID
	From redoubt.VersionID
}

func (e *Enclave) listDerived(r *spillRecord, b *bucket, set *labelSet, key string, rec *record, relation string, d derivation) error {
	name, f := redoubt.ObjectName{Bucket: b.Name, Key: key}, found{set: set, rec: rec}
	sum, _, err := e.contentDigest(name, f, rec.size, 0)
	text := hex.EncodeToString(sum[:])
	if unreadable(err) {
		text, err = "", nil // its copies are not known then; that it goes does not wait for that
	}
	if err != nil {
		return err
	}
	return e.list(r, name, f, relation, text, d)
}

// copyOfDerived says of which derivative a version has the content.
func (e *Enclave) copyOfDerived(o *origins, b *bucket, set *labelSet, key string, rec *record, sums map[versionID]string) (redoubt.VersionID, error) {
	of := o.copies[rec.size]
	if of == nil {
		return "", nil
	}
	if _, is := sums[rec.id]; !is {
		sum, _, err := e.contentDigest(redoubt.ObjectName{Bucket: b.Name, Key: key}, found{set: set, rec: rec}, rec.size, 0)
		if err != nil && !unreadable(err) {
			return "", err
		}
		if sums[rec.id] = ""; err == nil {
			sums[rec.id] = hex.EncodeToString(sum[:])
		}
	}
	if d, is := of[sums[rec.id]]; is && rec.id.newer(d.stamp) {
		return d.of, nil
	}
	return "", nil
}

// eachMade goes over the versions that bear a mark, and those that have the size of a derivative.
func (e *Enclave) eachMade(ctx context.Context, o *origins, each func(b *bucket, set *labelSet, key string, rec *record, m mark, marked bool) error) error {
	return e.eachContent(ctx, func(b *bucket, set *labelSet, key string, raw []byte, head *record) error {
		if o.copies[head.size] == nil && !bytes.Contains(raw, []byte(metaMade)) {
			return nil
		}
		rec, err := decodeRecord(raw)
		if err != nil {
			return &redoubt.Error{Op: "spill", Kind: redoubt.Corrupt, Err: err}
		}
		m, marked := markOf(rec)
		if !marked && o.copies[head.size] == nil {
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
