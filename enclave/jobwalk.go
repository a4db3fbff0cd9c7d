package enclave

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"

	"redoubt"
	"redoubt/access"
	"redoubt/store"
)

// walker goes over the keys of one bucket as they stood at submission.
type walker struct {
	r       *jobRun
	b       *bucket
	view    store.View
	sets    []*labelSet
	visible func(string) bool // need to know
}

// walk begins one. It decides that the bucket may be listed or read at all; each version that is opened is decided again.
func (r *jobRun) walk(ctx context.Context, op string, action redoubt.Action, name redoubt.BucketName, key string) (*walker, error) {
	e, who := r.e, r.who(r.j.max.label)
	b, err := e.readable(op, name)
	if err != nil {
		return nil, notThere(op, string(name))
	}
	ent, err := e.decide(ctx, ask{op: op, who: who, action: redoubt.ActionListObjects, bucket: b, name: redoubt.ObjectName{Bucket: name, Key: key}, object: who.Working})
	if err != nil {
		if k := redoubt.KindOf(err); k == redoubt.Denied || k == redoubt.NotFound { // need to know
			return nil, notThere(op, string(name))
		}
		return nil, err
	}
	if action == redoubt.ActionListObjects { // of what is opened there is an entry of its own
		if err := e.noteRead(ctx, ent); err != nil {
			return nil, err
		}
	}
	subject, _ := e.identity.Subject(who.Subject)
	return &walker{r: r, b: b, view: e.engine.View(), sets: e.look(lookInput, who.Working),
		visible: e.monitor.Scope(&access.Request{Now: e.clock(), Who: who, Subject: subject, Action: action, Bucket: &b.facts})}, nil
}

func (w *walker) close() { w.view.Close() }

// sees says whether a key is one that the job was given, and can be a path.
func (w *walker) sees(key string) bool {
	if !w.r.covers(w.b.Name, key) || w.visible != nil && !w.visible(key) {
		return false
	}
	for element := range strings.SplitSeq(key, "/") {
		if !plainElement(element) {
			return false
		}
	}
	return true
}

// find finds what was current under a key, and has the job rise by it; a nil rec is nothing.
func (w *walker) find(ctx context.Context, key string) (found, error) {
	if !w.sees(key) {
		return found{}, nil
	}
	var tops []found
	for _, set := range w.sets {
		raw, ok, err := w.view.Get(headKey(w.b.id, set.id, key))
		if err != nil {
			return found{}, err
		}
		if ok {
			if tops, err = w.past(ctx, tops, set, key, raw); err != nil {
				return found{}, err
			}
		}
	}
	highest := w.b.Current == "highest"
	cur, _ := choose(tops, highest)
	return cur, w.r.told(tops, cur, highest)
}

// told has the job rise by what is current under a key, and by a marker that hides from it what some label below sees: else an output that says that
// nothing is there would tell, at such a label, what was removed above it. Where the highest counts, all that is there may.
func (r *jobRun) told(tops []found, cur found, highest bool) error {
	if cur.rec != nil {
		if err := r.rise(cur); err != nil {
			return err
		}
	}
	if len(tops) < 2 {
		return nil
	}
	for i := range tops {
		t := &tops[i]
		if highest {
			if err := r.rise(*t); err != nil {
				return err
			}
			continue
		}
		var by *found // the lowest that hides it
		for k := range tops {
			if m := &tops[k]; hides(tops[k:k+1], t) && (by == nil || by.set.label.Dominates(m.set.label)) {
				by = m
			}
		}
		if t.rec.marker || by == nil || t.set.label.Dominates(by.set.label) {
			continue
		}
		if at := r.risen(); slices.ContainsFunc(tops, func(m found) bool { return at.Dominates(m.set.label) && hides([]found{m}, t) }) {
			continue
		}
		if err := r.rise(*by); err != nil {
			return err
		}
	}
	return nil
}

// past adds the newest version of a key in a set that was there at submission.
func (w *walker) past(ctx context.Context, tops []found, set *labelSet, key string, raw []byte) ([]found, error) {
	take := func(raw []byte) (bool, error) {
		rec := new(record)
		if _, _, err := rec.decodeHead(raw); err != nil {
			return false, &redoubt.Error{Op: "job", Kind: redoubt.Corrupt, Err: err}
		}
		if rec.id.time() > w.r.until(set, rec) {
			return false, nil
		}
		tops = append(tops, found{set: set, rec: rec, raw: slices.Clone(raw)})
		return true, nil
	}
	if done, err := take(raw); done || err != nil {
		return tops, err
	}
	lower := nameKey(recOld, w.b.id, set.id, key)
	it := w.view.Scan(lower, after(lower))
	defer it.Close()
	for it.Next() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if done, err := take(it.Value()); done || err != nil {
			return tops, err
		}
	}
	return tops, it.Err()
}

// until is the time up to which a version was there: the clock of its own set, or of the one that it was made at.
func (r *jobRun) until(set *labelSet, rec *record) int64 {
	if r.from == nil {
		return math.MaxInt64
	}
	return max(r.from[set.id], r.from[rec.made])
}

// first finds what was current under the first key that begins with a prefix.
func (w *walker) first(ctx context.Context, prefix string) (found, error) {
	m := merge(w.view, w.sets, w.b, prefix, recHead)
	defer m.close()
	m.seek([]byte(prefix))
	for key, ok := m.key(); ok; key, ok = m.key() {
		if err := ctx.Err(); err != nil {
			return found{}, err
		}
		if f, err := w.find(ctx, key); err != nil || f.rec != nil {
			return f, err
		}
		m.skipKey(key)
	}
	return found{}, m.err()
}

// names adds what lies right below dir and begins with prefix.
func (w *walker) names(ctx context.Context, dir, prefix string, all *[]redoubt.JobFile) error {
	m := merge(w.view, w.sets, w.b, prefix, recHead)
	defer m.close()
	m.seek([]byte(prefix))
	for key, ok := m.key(); ok; key, ok = m.key() {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, err := w.find(ctx, key)
		if err != nil {
			return err
		}
		if f.rec == nil {
			m.skipKey(key)
			continue
		}
		if len(*all) >= redoubt.MaxJobListed {
			return &redoubt.Error{Op: "List", Object: "/in/" + string(w.b.Name) + "/" + dir, Kind: redoubt.TooLarge, Err: errors.New("the directory holds too much")}
		}
		name, _, below := strings.Cut(key[len(dir):], "/")
		if below {
			*all = append(*all, redoubt.JobFile{Name: name, Dir: true})
			m.seek(after([]byte(dir + name + "/")))
			continue
		}
		*all = append(*all, jobFile(name, f))
		m.skipKey(key)
	}
	return m.err()
}
