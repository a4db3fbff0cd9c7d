package enclave

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"redoubt"
	"redoubt/access"
)

// What a job sees under /in. A version is there where its time is not after the last that its label set had given out when the job was submitted:
// nothing is copied then, and nothing is looked at before the program asks. What one node tells another later may carry an earlier time, and is
// seen then.
//
// Whatever the job is told, and be it that nothing is there, its own label sees too (told).

// List tells of what a directory holds. Each name that it tells raises the job by the label of what bears it; of a directory, by that of the first
// of what lies in it.
func (r *jobRun) List(ctx context.Context, dir string) ([]redoubt.JobFile, error) {
	const op = "List"
	bucket, under, err := r.at(op, dir)
	if err != nil {
		return nil, err
	}
	if bucket == "" {
		var all []redoubt.JobFile
		for _, in := range r.j.Spec.In {
			all = append(all, redoubt.JobFile{Name: string(in.Bucket), Dir: true})
		}
		return unique(all), nil
	}
	prefix := ""
	if under != "" {
		prefix = under + "/"
	}
	w, err := r.walk(ctx, op, redoubt.ActionListObjects, bucket, prefix)
	if err != nil {
		return nil, err
	}
	defer w.close()
	var all []redoubt.JobFile
	for _, in := range r.inputs(bucket) {
		switch {
		case strings.HasPrefix(prefix, in):
			err = w.names(ctx, prefix, prefix, &all)
		case strings.HasPrefix(in, prefix):
			if name, _, deeper := strings.Cut(in[len(prefix):], "/"); deeper { // the submitter named it
				all = append(all, redoubt.JobFile{Name: name, Dir: true})
			} else {
				err = w.names(ctx, prefix, in, &all)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	if len(all) == 0 && under != "" && !r.ancestor(bucket, under) {
		return nil, notThere(op, dir)
	}
	return unique(all), nil
}

// Stat tells of one file or directory.
func (r *jobRun) Stat(ctx context.Context, path string) (redoubt.JobFile, error) {
	const op = "Stat"
	bucket, under, err := r.at(op, path)
	if err != nil {
		return redoubt.JobFile{}, err
	}
	name := path[strings.LastIndexByte(path, '/')+1:]
	if bucket == "" || under == "" || r.ancestor(bucket, under) {
		return redoubt.JobFile{Name: name, Dir: true}, nil
	}
	w, err := r.walk(ctx, op, redoubt.ActionHeadObject, bucket, under)
	if err != nil {
		return redoubt.JobFile{}, err
	}
	defer w.close()
	if f, err := w.find(ctx, under); err != nil {
		return redoubt.JobFile{}, err
	} else if f.rec != nil {
		return jobFile(name, f), nil
	}
	if f, err := w.first(ctx, under+"/"); err != nil {
		return redoubt.JobFile{}, err
	} else if f.rec != nil {
		return redoubt.JobFile{Name: name, Dir: true}, nil
	}
	return redoubt.JobFile{}, notThere(op, path)
}

// Open opens one file: find and rise, decide, open.
func (r *jobRun) Open(ctx context.Context, path string) (redoubt.JobFile, redoubt.Content, error) {
	const op = "Open"
	bucket, under, err := r.at(op, path)
	if err != nil {
		return redoubt.JobFile{}, nil, err
	}
	if under == "" {
		return redoubt.JobFile{}, nil, notThere(op, path)
	}
	// A rotation may end an epoch between the finding of a record and the opening of its key: then there is a newer record.
	for try := 0; ; try++ {
		f, o, err := r.open(ctx, op, bucket, under)
		if redoubt.KindOf(err) == redoubt.Erased && try < 2 {
			continue
		}
		if err != nil {
			return redoubt.JobFile{}, nil, err
		}
		if o == nil {
			return redoubt.JobFile{}, nil, notThere(op, path)
		}
		return jobFile(path[strings.LastIndexByte(path, '/')+1:], f), o, nil
	}
}

func (r *jobRun) open(ctx context.Context, op string, bucket redoubt.BucketName, key string) (found, *object, error) {
	w, err := r.walk(ctx, op, redoubt.ActionGetObject, bucket, key)
	if err != nil {
		return found{}, nil, err
	}
	defer w.close()
	f, err := w.find(ctx, key)
	if err != nil || f.rec == nil {
		return f, nil, err
	}
	return r.opened(ctx, op, w.b, redoubt.ObjectName{Bucket: bucket, Key: key}, f)
}

// opened decides that a version is read, and opens it.
func (r *jobRun) opened(ctx context.Context, op string, b *bucket, name redoubt.ObjectName, f found) (found, *object, error) {
	e := r.e
	raw, err := decodeRecord(f.raw)
	if err != nil {
		return f, nil, &redoubt.Error{Op: op, Kind: redoubt.Corrupt, Err: err}
	}
	f.rec = raw
	asked, taken := ask{op: op, who: r.who(r.j.max.label), action: redoubt.ActionGetObject, bucket: b, name: name, object: f.set.label}, e.readers.taken.Load()
	ent, err := e.decide(ctx, asked)
	if err != nil {
		return f, nil, b.refused(op, name, err)
	}
	ent.Version, ent.Bytes = f.rec.id[:], f.rec.size
	if err := r.note(op, f.rec); err != nil {
		return f, nil, e.noted(ctx, ent, err)
	}
	if err := e.noteRead(ctx, ent); err != nil {
		return f, nil, err
	}
	asked.detail = "while job " + string(r.j.ID) + " read it"
	o := &object{e: e, name: name, set: f.set, rec: f.rec, asked: asked, since: ent.Time, taken: taken, held: true}
	if err := o.open(); err != nil {
		o.Close()
		return f, nil, err
	}
	return f, o, nil
}

// Object opens a version of the program itself, the newest that START dominates.
func (r *jobRun) Object(ctx context.Context, name redoubt.ObjectName) (redoubt.Version, redoubt.Content, error) {
	o, err := r.part(ctx, "Object", r.who(r.j.start.label), name)
	if err != nil {
		return redoubt.Version{}, nil, err
	}
	return o.Version(), o, nil
}

// Module opens the program.
func (r *jobRun) Module(ctx context.Context) (redoubt.Content, int64, error) {
	o, err := r.part(ctx, "Module", r.e.own(r.j.start.label), moduleName(r.j.Spec.Module))
	if redoubt.KindOf(err) == redoubt.NotFound && err != nil {
		err = &redoubt.Error{Op: "Module", Object: r.j.Spec.Module, Kind: redoubt.NotFound, Rule: ruleJobProgram, Hint: "the module is kept for 30 days: put it once more"}
	}
	if err != nil {
		return nil, 0, err
	}
	return o, o.Version().SizeBytes, nil
}

// part opens what START sees under a name. It is on record at MAX: when a job has begun is not known below.
func (r *jobRun) part(ctx context.Context, op string, who redoubt.Credential, name redoubt.ObjectName) (o *object, err error) {
	for range 3 { // as Open
		if o, err = r.openPart(ctx, op, who, name); redoubt.KindOf(err) != redoubt.Erased {
			break
		}
	}
	return o, err
}

func (r *jobRun) openPart(ctx context.Context, op string, who redoubt.Credential, name redoubt.ObjectName) (*object, error) {
	e := r.e
	missing := &redoubt.Error{Op: op, Object: name.String(), Kind: redoubt.NotFound}
	b, err := e.readable(op, name.Bucket)
	if err != nil {
		return nil, missing
	}
	taken := e.readers.taken.Load()
	view := e.engine.View()
	defer view.Close()
	f, _, err := e.current(view, lookCurrent, b, who.Working, name.Key)
	if err != nil {
		return nil, err
	}
	a := ask{op: op, who: who, action: redoubt.ActionGetObject, bucket: b, name: name, object: who.Working, detail: "job " + string(r.j.ID)}
	if f.rec != nil {
		a.object = f.set.label
	}
	d, ent := e.judge(ctx, a)
	ent.Label = r.j.max.name
	switch {
	case !d.Allow:
		ent.Kind = d.Kind.Error()
		return nil, errors.Join(e.record(ctx, ent), b.refused(op, name, e.refusal(d, a)))
	case f.rec == nil:
		return nil, e.noted(ctx, ent, missing)
	}
	ent.Version, ent.Bytes = f.rec.id[:], f.rec.size
	if err := r.note(op, f.rec); err != nil {
		return nil, e.noted(ctx, ent, err)
	}
	if err := e.noteRead(ctx, ent); err != nil {
		return nil, err
	}
	a.detail = "while " + a.detail + " read it"
	o := &object{e: e, name: name, set: f.set, rec: f.rec, latest: true, asked: a, since: ent.Time, told: ent.Label, taken: taken, held: true}
	if err := o.open(); err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

// Names gives the keys of what belongs to the program. It is on record at MAX, as what is opened of it is.
func (r *jobRun) Names(ctx context.Context, bucket redoubt.BucketName, prefix string, most int) (all []string, err error) {
	const op = "Names"
	e, who, name := r.e, r.who(r.j.start.label), redoubt.ObjectName{Bucket: bucket, Key: prefix}
	b, err := e.readable(op, bucket)
	if err != nil {
		return nil, &redoubt.Error{Op: op, Object: name.String(), Kind: redoubt.NotFound}
	}
	a := ask{op: op, who: who, action: redoubt.ActionListObjects, bucket: b, name: name, object: who.Working, detail: "job " + string(r.j.ID)}
	d, ent := e.judge(ctx, a)
	ent.Label = r.j.max.name
	if !d.Allow {
		ent.Kind = d.Kind.Error()
		return nil, errors.Join(e.record(ctx, ent), b.refused(op, name, e.refusal(d, a)))
	}
	if err := e.noteRead(ctx, ent); err != nil {
		return nil, err
	}
	subject, _ := e.identity.Subject(who.Subject)
	visible := e.monitor.Scope(&access.Request{Now: e.clock(), Who: who, Subject: subject, Action: a.action, Bucket: &b.facts})
	view := e.engine.View()
	defer view.Close()
	m := merge(view, e.look(lookList, who.Working), b, prefix, recHead)
	defer m.close()
	m.seek([]byte(prefix))
	for key, ok := m.key(); ok && len(all) < most; key, ok = m.key() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if visible == nil || visible(key) {
			f, _, err := e.current(view, lookCurrent, b, who.Working, key)
			if err != nil {
				return nil, err
			}
			if f.rec != nil {
				all = append(all, key)
			}
		}
		m.skipKey(key)
	}
	return all, m.err()
}

// at takes a path apart: /in is "", a bucket has no rest.
func (r *jobRun) at(op, path string) (bucket redoubt.BucketName, under string, err error) {
	if r.ends.Load() {
		return "", "", &redoubt.Error{Op: op, Object: "/in/" + path, Kind: redoubt.Invalid, Rule: ruleJobEnds}
	}
	if path == "" {
		return "", "", nil
	}
	for element := range strings.SplitSeq(path, "/") {
		if !plainElement(element) {
			return "", "", notThere(op, path)
		}
	}
	first, rest, _ := strings.Cut(path, "/")
	bucket = redoubt.BucketName(first)
	if r.inputs(bucket) == nil {
		return "", "", notThere(op, path)
	}
	return bucket, rest, nil
}

// plainElement says whether part of a key can be a file's name. A key with another is not seen.
func plainElement(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= 255 && strings.IndexByte(s, 0) < 0
}

// inputs are the prefixes that the job was given of a bucket.
func (r *jobRun) inputs(bucket redoubt.BucketName) (all []string) {
	for _, in := range r.j.Spec.In {
		if in.Bucket == bucket {
			all = append(all, in.Prefix)
		}
	}
	return all
}

// ancestor says whether a path is a directory because the submitter named what is below it.
func (r *jobRun) ancestor(bucket redoubt.BucketName, under string) bool {
	return slices.ContainsFunc(r.inputs(bucket), func(in string) bool { return strings.HasPrefix(in, under+"/") })
}

// covers says whether the job was given a key.
func (r *jobRun) covers(bucket redoubt.BucketName, key string) bool {
	return slices.ContainsFunc(r.inputs(bucket), func(in string) bool { return strings.HasPrefix(key, in) })
}

func notThere(op, path string) error {
	return &redoubt.Error{Op: op, Object: "/in/" + path, Kind: redoubt.NotFound}
}

func jobFile(name string, f found) redoubt.JobFile {
	return redoubt.JobFile{Name: name, Bytes: f.rec.size, Modified: time.Unix(0, f.rec.id.time()).UTC()}
}

// unique puts files in order of their names; a file hides a directory that bears its name.
func unique(all []redoubt.JobFile) []redoubt.JobFile {
	slices.SortStableFunc(all, func(a, b redoubt.JobFile) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 || a.Dir == b.Dir {
			return c
		}
		if a.Dir {
			return 1
		}
		return -1
	})
	return slices.CompactFunc(all, func(a, b redoubt.JobFile) bool { return a.Name == b.Name })
}
