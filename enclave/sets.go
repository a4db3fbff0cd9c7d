package enclave

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sort"
	"sync"
	"sync/atomic"

	"redoubt"
	"redoubt/label"
	"redoubt/store"
)

// labelSet is all versions of one label. The catalogue is ordered by it, so a reader
// walks the sets that its working label dominates and never touches another (RULES 3.2).
type labelSet struct {
	id    uint32
	label label.Label
	text  []byte // canonical
	name  string // the same
	tag   uint32 // of versionID
	share *share // of all at the same point of the order

	versions, bytes atomic.Int64 // what carries the label, as committed
	charged         atomic.Int64 // what was made at it, as committed (share.go)

	clock   atomic.Int64 // the last time given out
	bound   atomic.Int64 // durable; no time above it was used
	boundMu sync.Mutex   // serialises raising the bound

	epoch     atomic.Uint32 // data keys wrapped under an older epoch are re-wrapped before they are committed
	epochGate sync.RWMutex  // held shared by who commits a data key, alone to wait for them
}

// labelSets is the table of them. It only grows.
type labelSets struct {
	engine store.Engine
	quotas func(label.Label) int64

	mu    sync.Mutex // serialises growth
	table atomic.Pointer[setTable]

	grownMu sync.Mutex
	grown   map[redoubt.NodeName]growth // by peers that do not speak for all
}

// growth is how many sets a peer had made on a day.
type growth struct {
	day  int64 // since 1970
	sets int
}

// maxNewSets is how many label sets a device or a neighbour may have made in a day: a set stays for good, and every view looks at each that it
// dominates. It is more than a unit in the field begins to work at in a day, and a thousand days of a captured device are bearable.
const maxNewSets = 32

// maxPartnerSets is how many a partner may: its first bundles bring all that there is, and what is over it holds up its erasures, too.
const maxPartnerSets = 256

// allow counts sets that a peer has made, unless they are too many.
func (s *labelSets) allow(peer redoubt.NodeName, day int64, fresh, most int) bool {
	s.grownMu.Lock()
	defer s.grownMu.Unlock()
	g := s.grown[peer]
	if g.day != day {
		g = growth{day: day}
	}
	if g.sets+fresh > most {
		return false
	}
	g.sets += fresh
	if s.grown == nil {
		s.grown = map[redoubt.NodeName]growth{}
	}
	s.grown[peer] = g
	return true
}

// tagOf is the tag of a label's set, or that of the one which would be made; it is not free where another set has that.
func (s *labelSets) tagOf(l label.Label) (tag uint32, free bool) {
	t := s.table.Load()
	if set := t.byLabel[l]; set != nil {
		return set.tag, true
	}
	text, err := l.MarshalText()
	if err != nil {
		return 0, false
	}
	sum := sha256.Sum256(text)
	tag = binary.BigEndian.Uint32(sum[:])
	return tag, t.byTag[tag] == nil
}

// setTable is an immutable picture of the table; seen caches answers and is the only part that changes.
type setTable struct {
	byID    map[uint32]*labelSet
	byLabel map[label.Label]*labelSet
	byTag   map[uint32]*labelSet
	seen    labelCache // label.Label -> []*labelSet that it dominates
	equal   labelCache // label.Label -> []*labelSet equivalent to it
}

// labelCache keeps answers by label, the first maxCachedLabels of them: whoever asks may name any number
// of labels, each of which would stay for good.
type labelCache struct {
	answers sync.Map
	kept    atomic.Int64
}

const maxCachedLabels = 4096

func (c *labelCache) load(l label.Label) (any, bool) { return c.answers.Load(l) }

func (c *labelCache) store(l label.Label, answer any) {
	if c.kept.Load() >= maxCachedLabels {
		return
	}
	if _, there := c.answers.LoadOrStore(l, answer); !there {
		c.kept.Add(1)
	}
}

// openSets reads the table.
func openSets(engine store.Engine, policy *label.Policy, quotas func(label.Label) int64) (*labelSets, error) {
	s := &labelSets{engine: engine, quotas: quotas}
	t := newSetTable(nil)
	view := engine.View()
	defer view.Close()
	it := view.Scan([]byte{recSet}, []byte{recSet + 1})
	defer it.Close()
	for it.Next() {
		if len(it.Key()) != 5 {
			return nil, fmt.Errorf("label set: %w", errRecord)
		}
		l, err := label.ParseText(it.Value(), policy)
		if err != nil {
			return nil, &redoubt.Error{Op: "enclave.Open", Kind: redoubt.Corrupt, Err: err,
				Hint: "the state holds a label of a policy that this estate does not name; start it with the estate that made it"}
		}
		set := t.newLabelSet(binary.BigEndian.Uint32(it.Key()[1:]), l, append([]byte(nil), it.Value()...), quotas)
		if err := set.load(view); err != nil {
			return nil, err
		}
		t.add(set)
	}
	if err := it.Err(); err != nil {
		return nil, err
	}
	s.table.Store(t)
	return s, nil
}

// newLabelSet makes a set that is not in the table yet. Its tag is the first four bytes of a hash over its text, made
// anew with a further zero byte for as long as another set has it; sets are read back in the order in which they were made.
func (t *setTable) newLabelSet(id uint32, l label.Label, text []byte, quotas func(label.Label) int64) *labelSet {
	set := &labelSet{id: id, label: l, text: text, name: string(text), share: t.shareOf(l)}
	if set.share == nil {
		set.share = &share{label: l, quota: quotas(l)}
	}
	for salted := bytes.Clone(text); ; salted = append(salted, 0) {
		sum := sha256.Sum256(salted)
		if set.tag = binary.BigEndian.Uint32(sum[:]); t.byTag[set.tag] == nil {
			return set
		}
	}
}

// shareOf is the share that the sets at this point of the order have; nil where there is none yet.
func (t *setTable) shareOf(l label.Label) *share {
	for _, set := range t.byID {
		if set.label.Equivalent(l) {
			return set.share
		}
	}
	return nil
}

// load reads the set's counters and the bound of its clock.
func (s *labelSet) load(view store.View) error {
	for _, c := range []struct {
		rec  byte
		into func(int64)
	}{{recCount, s.versions.Store}, {recBytes, s.bytes.Store}, {recCharge, func(v int64) { s.charged.Store(v); s.share.used.Add(v) }},
		{recClock, func(v int64) { s.clock.Store(v); s.bound.Store(v) }}} {
		v, err := counter(view, c.rec, s.id)
		if err != nil {
			return err
		}
		c.into(v)
	}
	return nil
}

// counter reads a number that is kept for a set; 0 where there is none.
func counter(view store.View, rec byte, set uint32) (int64, error) {
	v, ok, err := view.Get(setKey(rec, set))
	if err != nil || !ok || len(v) != 8 {
		return 0, err
	}
	return int64(binary.LittleEndian.Uint64(v)), nil
}

func newSetTable(from *setTable) *setTable {
	t := &setTable{byID: map[uint32]*labelSet{}, byLabel: map[label.Label]*labelSet{}, byTag: map[uint32]*labelSet{}}
	if from != nil {
		for _, set := range from.byID {
			t.add(set)
		}
	}
	return t
}

func (t *setTable) add(set *labelSet) {
	t.byID[set.id], t.byLabel[set.label], t.byTag[set.tag] = set, set, set
}

// of finds the set of a label, making it durable first where it is new.
func (s *labelSets) of(ctx context.Context, l label.Label) (*labelSet, error) {
	if set := s.table.Load().byLabel[l]; set != nil {
		return set, nil
	}
	if l.IsZero() {
		return nil, &redoubt.Error{Op: "label set", Kind: redoubt.Internal, Err: fmt.Errorf("unmarked")}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.table.Load()
	if set := t.byLabel[l]; set != nil {
		return set, nil
	}
	text, err := l.MarshalText()
	if err != nil {
		return nil, err
	}
	set := t.newLabelSet(uint32(len(t.byID)+1), l, text, s.quotas)
	b := new(store.Batch)
	b.Set(setKey(recSet, set.id), text)
	if err := s.engine.Commit(ctx, b); err != nil {
		return nil, err
	}
	grown := newSetTable(t)
	grown.add(set)
	s.table.Store(grown)
	return set, nil
}

// seenBy gives the sets that a working label dominates, in a fixed order.
func (s *labelSets) seenBy(working label.Label) []*labelSet {
	t := s.table.Load()
	return cachedSets(&t.seen, working, func() []*labelSet {
		return t.filter(func(set *labelSet) bool { return working.Dominates(set.label) })
	})
}

// equalTo gives the sets at the same point of the order (SECRET and SECRET//NOFORN).
func (s *labelSets) equalTo(working label.Label) []*labelSet {
	t := s.table.Load()
	return cachedSets(&t.equal, working, func() []*labelSet {
		return t.filter(func(set *labelSet) bool { return working.Equivalent(set.label) })
	})
}

func cachedSets(cache *labelCache, l label.Label, find func() []*labelSet) []*labelSet {
	if got, ok := cache.load(l); ok {
		return got.([]*labelSet)
	}
	found := find()
	cache.store(l, found)
	return found
}

func (t *setTable) filter(keep func(*labelSet) bool) []*labelSet {
	var out []*labelSet
	for _, set := range t.byID {
		if keep(set) {
			out = append(out, set)
		}
	}
	sort.Slice(out, func(i, j int) bool { return string(out[i].text) < string(out[j].text) })
	return out
}

func (s *labelSets) byTag(tag uint32) *labelSet { return s.table.Load().byTag[tag] }
func (s *labelSets) byID(id uint32) *labelSet   { return s.table.Load().byID[id] }

func (s *labelSets) all() []*labelSet {
	return s.table.Load().filter(func(*labelSet) bool { return true })
}
