package enclave

import (
	"bytes"
	"context"
	"strings"

	"redoubt"
	"redoubt/access"
	"redoubt/store"
)

// ListObjects gives one page of what the reader sees: it walks the heads of the sets
// that the working label dominates, side by side, and nothing else (RULES 3.2).
func (e *Enclave) ListObjects(ctx context.Context, who redoubt.Credential, in redoubt.ListObjects) (redoubt.ObjectPage, error) {
	const op = "ListObjects"
	b, visible, err := e.listing(ctx, op, redoubt.ActionListObjects, who, in.Bucket)
	if err != nil {
		return redoubt.ObjectPage{}, err
	}
	view := e.engine.View()
	defer view.Close()
	m := merge(view, e.look(lookList, who.Working), b, in.Prefix, recHead)
	defer m.close()
	m.seek(startOf(in.After, in.Prefix, in.Delimiter))
	page := redoubt.ObjectPage{Versions: make([]redoubt.Version, 0, min(max(in.Max, 0), redoubt.MaxListKeys))}
	var last string
	for key, ok := m.key(); ok; key, ok = m.key() {
		if err := ctx.Err(); err != nil {
			return redoubt.ObjectPage{}, err
		}
		if visible != nil && !visible(key) {
			m.skipKey(key)
			continue
		}
		tops, err := m.take(key)
		if err != nil {
			return redoubt.ObjectPage{}, err
		}
		cur, _ := choose(tops, b.Current == "highest")
		if cur.rec == nil {
			continue
		}
		if len(page.Versions)+len(page.Prefixes) >= in.Max {
			page.Truncated, page.Next = in.Max > 0, last
			break
		}
		if prefix, under := commonPrefix(key, in.Prefix, in.Delimiter); under {
			page.Prefixes, last = append(page.Prefixes, prefix), prefix
			m.seek(after([]byte(prefix)))
			continue
		}
		v := e.listed(redoubt.ObjectName{Bucket: in.Bucket, Key: key}, cur.set, cur.rec)
		v.Latest = true
		page.Versions, last = append(page.Versions, v), key
	}
	return page, m.err()
}

// listing decides whether the bucket may be listed, and gives the filter of need to know (nil: everything).
func (e *Enclave) listing(ctx context.Context, op string, action redoubt.Action, who redoubt.Credential, name redoubt.BucketName) (*bucket, func(string) bool, error) {
	b, err := e.readable(op, name)
	if err == nil && b.deleted {
		var empty bool
		if empty, err = e.looksEmpty(b, who.Working); err == nil && empty {
			err = b.missing(op, redoubt.ObjectName{Bucket: name})
		}
	}
	if err != nil {
		return nil, nil, e.missingBucket(ctx, ask{op: op, who: who, action: action, name: redoubt.ObjectName{Bucket: name}}, err)
	}
	entry, err := e.decide(ctx, ask{op: op, who: who, action: action, bucket: b, name: redoubt.ObjectName{Bucket: name}, object: who.Working})
	if err != nil {
		return nil, nil, b.refused(op, redoubt.ObjectName{Bucket: name}, err)
	}
	if err := e.noteRead(ctx, entry); err != nil {
		return nil, nil, err
	}
	subject, _ := e.identity.Subject(who.Subject)
	return b, e.monitor.Scope(&access.Request{Now: e.clock(), Who: who, Subject: subject, Action: action, Bucket: &b.facts}), nil
}

// commonPrefix says whether key rolls up under a prefix, and which.
func commonPrefix(key, prefix, delimiter string) (string, bool) {
	if delimiter == "" {
		return "", false
	}
	i := strings.Index(key[len(prefix):], delimiter)
	if i < 0 {
		return "", false
	}
	return key[:len(prefix)+i+len(delimiter)], true
}

// startOf is where a listing begins: behind the key After, or behind all that rolls up
// under it where it is a common prefix.
func startOf(afterKey, prefix, delimiter string) []byte {
	if afterKey == "" || afterKey < prefix {
		return []byte(prefix)
	}
	if delimiter != "" && strings.HasPrefix(afterKey, prefix) {
		if p, under := commonPrefix(afterKey, prefix, delimiter); under && p == afterKey {
			return after([]byte(p))
		}
	}
	return append([]byte(afterKey), 0, 0)
}

// merged walks one kind of records of several label sets side by side, in key order.
type merged struct {
	lanes []*lane
	fault error
	tops  []found // reused by take
}

// lane is one label set's iterator. key is nil at its end.
type lane struct {
	set   *labelSet
	lower []byte // the range key and the prefix
	it    store.Iterator
	key   []byte // the object key that it stands at
	rec   record // what take gives of it; reused
}

// merge walks what begins with prefix. No key holds a NUL, so nothing begins with a prefix that does; in
// the catalogue a key is followed by one, and would be taken for a match.
func merge(view store.View, sets []*labelSet, b *bucket, prefix string, rec byte) *merged {
	m := new(merged)
	if strings.IndexByte(prefix, 0) >= 0 {
		return m
	}
	for _, set := range sets {
		lower := append(rangeKey(rec, b.id, set.id), prefix...)
		m.lanes = append(m.lanes, &lane{set: set, lower: lower[:rangeBytes], it: view.Scan(lower, after(lower))})
	}
	return m
}

func (m *merged) close() {
	for _, l := range m.lanes {
		l.it.Close()
	}
}

func (m *merged) err() error {
	if m.fault != nil {
		return &redoubt.Error{Op: "list", Kind: redoubt.Corrupt, Err: m.fault}
	}
	for _, l := range m.lanes {
		if err := l.it.Err(); err != nil {
			return err
		}
	}
	return nil
}

// seek puts every lane at the first key that is not before start.
func (m *merged) seek(start []byte) {
	if start == nil { // behind every key
		for _, l := range m.lanes {
			l.key = nil
		}
		return
	}
	for _, l := range m.lanes {
		l.stand(l.it.SeekGE(append(l.lower[:rangeBytes:rangeBytes], start...)))
	}
}

func (l *lane) stand(ok bool) {
	if !ok {
		l.key = nil
		return
	}
	raw := l.it.Key()[rangeBytes:]
	end := bytes.IndexByte(raw, 0)
	if end < 0 {
		end = len(raw)
	}
	l.key = raw[:end]
}

// key is the smallest key that a lane stands at.
func (m *merged) key() (string, bool) {
	var least []byte
	for _, l := range m.lanes {
		if l.key != nil && (least == nil || bytes.Compare(l.key, least) < 0) {
			least = l.key
		}
	}
	return string(least), least != nil
}

// take gives the heads of key and moves on. The result is good until the next take.
func (m *merged) take(key string) ([]found, error) {
	m.tops = m.tops[:0]
	for _, l := range m.lanes {
		if l.key == nil || string(l.key) != key {
			continue
		}
		l.rec = record{author: l.rec.author}
		if _, _, err := l.rec.decodeHead(l.it.Value()); err != nil {
			m.fault = err
			return nil, m.err()
		}
		m.tops = append(m.tops, found{set: l.set, rec: &l.rec})
		l.stand(l.it.Next())
	}
	return m.tops, nil
}

func (m *merged) skipKey(key string) {
	for _, l := range m.lanes {
		if l.key != nil && string(l.key) == key {
			l.stand(l.it.Next())
		}
	}
}
