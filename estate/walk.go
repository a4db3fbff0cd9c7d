package estate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// walker takes a YAML tree apart and gathers every fault. It remembers where each
// value stands, so that later checks can point at it.
type walker struct {
	faults Faults
	at     map[string]*yaml.Node // by path
}

// field is one key that a mapping may have.
type field struct {
	name     string
	required bool
	read     func(n *yaml.Node, path string)
}

func (w *walker) fault(n *yaml.Node, path, message, hint string) {
	if len(w.faults) >= MaxFaults {
		return
	}
	f := Fault{Path: path, Message: message, Hint: hint}
	if n != nil {
		f.Line, f.Column = n.Line, n.Column
	}
	w.faults = append(w.faults, f)
}

// faultAt points at the value of path, or at the nearest thing that holds it.
func (w *walker) faultAt(path, message, hint string) {
	for p := path; ; {
		if n, ok := w.at[p]; ok {
			w.fault(n, path, message, hint)
			return
		}
		i := strings.LastIndexAny(p, ".[")
		if i < 0 {
			w.fault(w.at[""], path, message, hint)
			return
		}
		p = p[:i]
	}
}

// mapping reads a mapping of exactly the given fields.
func (w *walker) mapping(n *yaml.Node, path string, fields ...field) {
	w.at[path] = n
	if n.Kind != yaml.MappingNode {
		w.fault(n, path, "want a mapping (NAME: VALUE lines), got "+kindOf(n), "")
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			w.fault(key, path, "a key must be a plain word, got "+kindOf(key), "")
			continue
		}
		if line, twice := seen[key.Value]; twice {
			w.fault(key, join(path, key.Value), fmt.Sprintf("given twice; first at line %d", line), "keep one of the two")
			continue
		}
		seen[key.Value] = key.Line
		j := slices.IndexFunc(fields, func(f field) bool { return f.name == key.Value })
		if j < 0 {
			w.fault(key, join(path, printable(key.Value)), "unknown field", suggest(key.Value, fields))
			continue
		}
		w.at[join(path, key.Value)] = value
		fields[j].read(value, join(path, key.Value))
	}
	for _, f := range fields {
		if _, ok := seen[f.name]; f.required && !ok {
			w.fault(n, path, "missing field "+f.name, "")
		}
	}
}

// entries reads a mapping whose keys are data.
func (w *walker) entries(n *yaml.Node, path string, limit int, each func(key, value *yaml.Node, path string)) {
	w.at[path] = n
	if n.Kind != yaml.MappingNode {
		w.fault(n, path, "want a mapping (NAME: VALUE lines), got "+kindOf(n), "")
		return
	}
	if len(n.Content)/2 > limit {
		w.fault(n, path, fmt.Sprintf("%d entries; at most %d are allowed", len(n.Content)/2, limit), "")
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if line, twice := seen[key.Value]; twice {
			w.fault(key, join(path, printable(key.Value)), fmt.Sprintf("given twice; first at line %d", line), "keep one of the two")
			continue
		}
		seen[key.Value] = key.Line
		p := join(path, printable(key.Value))
		w.at[p] = value
		each(key, value, p)
	}
}

// list reads a sequence of at most limit items.
func (w *walker) list(n *yaml.Node, path string, limit int, each func(n *yaml.Node, path string)) {
	w.at[path] = n
	if n.Kind != yaml.SequenceNode {
		w.fault(n, path, "want a list (- ITEM lines), got "+kindOf(n), "")
		return
	}
	if len(n.Content) > limit {
		w.fault(n, path, fmt.Sprintf("%d entries; at most %d are allowed", len(n.Content), limit), "")
		return
	}
	for i, item := range n.Content {
		p := fmt.Sprintf("%s[%d]", path, i)
		w.at[p] = item
		each(item, p)
	}
}

// text reads a string. What YAML would take for a number or a date is a string here too.
func (w *walker) text(n *yaml.Node, path string) string {
	w.at[path] = n
	switch {
	case n.Kind != yaml.ScalarNode || n.Tag == "!!null":
		w.fault(n, path, "want text, got "+kindOf(n), "")
	case len(n.Value) > MaxScalar:
		w.fault(n, path, fmt.Sprintf("%d bytes; at most %d are allowed", len(n.Value), MaxScalar), "")
	case strings.ContainsFunc(n.Value, unicode.IsControl):
		w.fault(n, path, "holds a control character", "")
	case strings.TrimSpace(n.Value) == "":
		w.fault(n, path, "is empty", "")
	default:
		return n.Value
	}
	return ""
}

// flag reads true or false.
func (w *walker) flag(n *yaml.Node, path string) bool {
	w.at[path] = n
	if n.Kind == yaml.ScalarNode && n.Tag == "!!bool" {
		var b bool
		if n.Decode(&b) == nil {
			return b
		}
	}
	w.fault(n, path, "want true or false, got "+kindOf(n), "")
	return false
}

// number reads a whole number from low to high.
func (w *walker) number(n *yaml.Node, path string, low, high int64) int64 {
	w.at[path] = n
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" {
		w.fault(n, path, "want a whole number, got "+kindOf(n), "")
		return 0
	}
	v, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil || v < low || v > high {
		w.fault(n, path, fmt.Sprintf("want a whole number from %d to %d, got %s", low, high, printable(n.Value)), "")
		return 0
	}
	return v
}

// forbid finds what no estate may hold, anywhere in the tree: anchors, aliases, tags, depth.
func (w *walker) forbid(n *yaml.Node, depth int) bool {
	if depth > MaxDepth {
		w.fault(n, "", fmt.Sprintf("nested deeper than %d levels", MaxDepth), "")
		return false
	}
	ok := true
	if n.Kind == yaml.AliasNode {
		w.fault(n, "", "an alias (*"+printable(n.Value)+")", "write the value out: an estate says everything where it stands")
		return false // and do not follow it
	}
	if n.Anchor != "" {
		w.fault(n, "", "an anchor (&"+printable(n.Anchor)+")", "remove it: an estate says everything where it stands")
		ok = false
	}
	if n.Style&yaml.TaggedStyle != 0 {
		w.fault(n, "", "a tag ("+printable(n.Tag)+")", "remove it")
		ok = false
	}
	if n.Tag == "!!merge" {
		w.fault(n, "", "a merge key (<<)", "write the fields out")
		ok = false
	}
	for _, c := range n.Content {
		ok = w.forbid(c, depth+1) && ok
	}
	return ok
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		switch n.Tag {
		case "!!null":
			return "nothing"
		case "!!int", "!!float":
			return "the number " + printable(n.Value)
		case "!!bool":
			return "the word " + printable(n.Value)
		}
		return strconv.Quote(printable(n.Value))
	}
	return "something else"
}

// printable is s fit for a terminal: short, and without control characters.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}

// suggest names the known field nearest to a wrong one.
func suggest(got string, fields []field) string {
	best, bestDistance := "", 3
	names := make([]string, 0, len(fields))
	for _, f := range fields {
		names = append(names, f.name)
		if d := distance(got, f.name); d < bestDistance {
			best, bestDistance = f.name, d
		}
	}
	if best != "" {
		return "did you mean " + best + "?"
	}
	return "known here: " + strings.Join(names, ", ")
}

// distance counts the letters put in, left out, exchanged or swapped with their neighbour, of short words only.
func distance(a, b string) int {
	if len(a) > 40 || len(b) > 40 {
		return len(a) + len(b)
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, last, row = last, row, before
		row[0] = i + 1
		for j := range len(b) {
			exchanged := last[j]
			if a[i] != b[j] {
				exchanged++
			}
			row[j+1] = min(exchanged, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
