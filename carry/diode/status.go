package diode

import (
	"cmp"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"redoubt"
	"redoubt/bundle"
)

// Partial is a bundle that is on its way.
type Partial struct {
	Kind          string           `json:"kind"`
	Maker         redoubt.NodeName `json:"maker"`
	For           redoubt.NodeName `json:"for"`
	Number        uint64           `json:"number"` // of a receipt: of the bundle that it is about
	ID            string           `json:"id"`
	Bytes         int64            `json:"bytes"`
	Percent       float64          `json:"percent"` // of the shards that it takes
	Blocks        int              `json:"blocks"`
	MissingBlocks []Span           `json:"missing_blocks"`
	Shards        int              `json:"missing_shards"` // the least that have to come
}

// Numbering is what is known of the bundles of one maker for one node.
type Numbering struct {
	Maker     redoubt.NodeName `json:"maker"`
	For       redoubt.NodeName `json:"for"`
	Numbering string           `json:"numbering"`
	Newest    time.Time        `json:"newest"` // when the newest that is known was made
	Ended     bool             `json:"ended"`  // a later numbering has begun: what is missing of this one is not wanted
	Whole     []Span           `json:"whole"`
	Partial   []Span           `json:"partial"`
	Missing   []Span           `json:"missing"` // numbers before the newest of which nothing is known
}

// Report is what a receiving folder knows. It is for who looks after that folder; nothing of it goes anywhere.
type Report struct {
	Numberings []Numbering `json:"numberings"`
	Partial    []Partial   `json:"partial"`
}

// Status reads a receiving folder, also while a process receives into it.
func Status(dir string) (Report, error) {
	var r Report
	b, err := readBook(filepath.Join(dir, stageDir, "book.json"))
	if err != nil {
		return r, err
	}
	entries, err := os.ReadDir(filepath.Join(dir, stageDir))
	if err != nil {
		return r, &redoubt.Error{Op: "diode.Status", Object: dir, Kind: redoubt.NotFound, Err: errors.New("nothing was ever received into this folder"),
			Hint: "redoubt diode receive --listen ADDR --to DIR"}
	}
	part := map[*series][]Span{}
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		t, err := look(filepath.Join(dir, stageDir), e.Name())
		if err != nil || b.has(t.ID) {
			continue // it is being made or has just become a file
		}
		r.Partial = append(r.Partial, partialOf(t))
		for _, to := range t.To {
			s := b.find(&t.Sheet, to)
			if t.Created.After(s.Newest) {
				s.Newest = t.Created
			}
			if t.Kind == bundle.Journal {
				part[s] = redoubt.AddSpan(part[s], Span{From: to.Serial, To: to.Serial})
			}
		}
	}
	sortPartial(r.Partial)
	for _, s := range b.Series {
		r.Numberings = append(r.Numberings, s.report(part[s]))
	}
	r.order()
	return r, nil
}

// order has the numberings of one maker for one node together, the newest first, and says which have ended.
func (r *Report) order() {
	slices.SortFunc(r.Numberings, func(x, y Numbering) int {
		return cmp.Or(cmp.Compare(x.Maker, y.Maker), cmp.Compare(x.For, y.For), y.Newest.Compare(x.Newest), cmp.Compare(x.Numbering, y.Numbering))
	})
	for i := 1; i < len(r.Numberings); i++ {
		x, y := &r.Numberings[i-1], &r.Numberings[i]
		y.Ended = x.Maker == y.Maker && x.For == y.For
	}
}

func (s *series) report(partial []Span) Numbering {
	n := Numbering{Maker: s.Maker, For: s.For, Numbering: s.Numbering, Newest: s.Newest, Whole: append([]Span{}, s.Whole...), Partial: append([]Span{}, partial...)}
	known, last := s.Whole, uint64(0)
	for _, p := range partial {
		known = redoubt.AddSpan(known, p)
	}
	if len(known) > 0 {
		last = known[len(known)-1].To
	}
	n.Missing = append([]Span{}, gaps(known, last)...)
	return n
}

// look reads a transfer that another process may be writing.
func look(dir, name string) (*transfer, error) {
	m, err := readManifest(filepath.Join(dir, name, "manifest"))
	if err != nil {
		return nil, err
	}
	t := &transfer{manifest: m, dir: filepath.Join(dir, name), have: map[int]*shardSet{}}
	marks, err := os.Open(filepath.Join(t.dir, "marks"))
	if err != nil {
		return nil, err
	}
	t.marks = marks
	defer t.close()
	return t, t.load()
}

func partialOf(t *transfer) Partial {
	to := t.To[0]
	p := Partial{Kind: t.Kind.String(), Maker: t.Maker, For: to.Node, Number: to.Serial, ID: hex.EncodeToString(t.ID[:]), Bytes: t.FileBytes,
		Blocks: t.blocks(), MissingBlocks: []Span{}}
	total := 0
	for b := range t.blocks() {
		total += t.data(b)
		if t.state[b] == blockWhole {
			continue
		}
		p.MissingBlocks = redoubt.AddSpan(p.MissingBlocks, Span{From: uint64(b), To: uint64(b)})
		need := t.data(b)
		if set := t.have[b]; set != nil {
			need = max(0, need-set.n)
		}
		p.Shards += need
	}
	p.Percent = float64((total-p.Shards)*1000/total) / 10
	return p
}

// Partial tells how far what is on its way is.
func (s *Stage) Partial() (all []Partial) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.moving {
		all = append(all, partialOf(t))
	}
	sortPartial(all)
	return all
}

func sortPartial(all []Partial) {
	slices.SortFunc(all, func(x, y Partial) int {
		return cmp.Or(cmp.Compare(x.Maker, y.Maker), cmp.Compare(x.For, y.For), cmp.Compare(x.Number, y.Number), cmp.Compare(x.ID, y.ID))
	})
}
