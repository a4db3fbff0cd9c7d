package guard

import (
	"fmt"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"redoubt"
	"redoubt/label"
)

// Limits of the search for markings.
const (
	maxMarking    = 200  // bytes that may follow a classification: no manual shows more. A longer marking cannot be read, which ends a release
	maxCandidates = 2000 // different ones in a view of a text: more is a text of markings, which is refused as such
)

// head is how a classification begins a marking.
type head struct {
	text   string // as it is looked for, upper case
	name   string // as its policy parses it
	policy *label.Policy
	long   bool // a word, which says something by itself; else an abbreviation, which does only in parentheses or before //
	lowest bool // of its policy
}

// findHeads collects the classifications of all policies, long and short, as words and written together.
func (w *Words) findHeads() error {
	known := map[string]bool{}
	add := func(p *label.Policy, text, name string, long, lowest bool) {
		text = strings.ToUpper(plainText(text))
		if !known[text] { // what two policies spell alike is the first one's, and the own policy is first
			known[text] = true
			w.heads = append(w.heads, head{text, name, p, long, lowest})
		}
	}
	for _, p := range w.policies {
		for i, name := range p.Classifications() {
			l, err := p.Parse(name)
			if err != nil {
				return fmt.Errorf("classification %s of policy %s: %w", name, p.Name(), err)
			}
			add(p, name, name, true, i == 0)
			for _, joint := range []string{"", "-", "_"} {
				add(p, strings.ReplaceAll(name, " ", joint), name, true, i == 0)
			}
			add(p, strings.Trim(l.Portion(), "()"), name, false, i == 0)
		}
	}
	// The longest first, so that TOP SECRET is not read as SECRET.
	slices.SortStableFunc(w.heads, func(a, b head) int { return len(b.text) - len(a.text) })
	for _, h := range w.heads {
		w.longest = max(w.longest, len(h.text))
		w.headsBy[h.text[0]] = append(w.headsBy[h.text[0]], h)
	}
	return nil
}

// searchMarkings finds markings that the label does not dominate.
func (w *Words) searchMarkings(text string, as label.Label) (found []redoubt.Finding) {
	told := map[string]bool{}
	add := func(rule, detail string) {
		if !told[rule+detail] {
			told[rule+detail] = true
			found = append(found, finding(true, rule, detail))
		}
	}
	looked := map[candidate]bool{}
	var last candidate
	for _, view := range views(text) {
		for c := range w.candidates(view) {
			if c == last || looked[c] {
				continue
			}
			last, looked[c] = c, true
			if len(looked) > 4*maxCandidates || len(told) >= redoubt.MaxReleaseReport {
				add("too many markings to look at", "")
				return found
			}
			switch l, err := w.read(c); {
			case err != nil:
				add("a marking that cannot be read", c.shown())
			case as.Dominates(l):
			case c.lowest && c.policy != w.own && l.Rank() == 0:
			case c.policy == w.own || l.Policy() == w.own:
				add("a marking above the label", c.shown())
			case c.sure:
				add("a marking of policy "+c.policy.Name(), c.shown())
			default:
				found = append(found, finding(false, "what may be a marking of policy "+c.policy.Name(), c.shown()))
			}
		}
	}
	return found
}

// views are the text as a reader may take it: as it stands, as one line, and with letters that were spaced put together.
func views(text string) []string {
	plain := plainText(text)
	line := strings.Join(strings.Fields(plain), " ")
	all := []string{plain, line, joinSpaced(plain), joinSpaced(line)}
	slices.Sort(all)
	return slices.Compact(all)
}

// plainText folds styles and look-alikes, and takes marks off and out what shows nothing; case and punctuation stay. A classification that is underlined
// or struck through by marks is read as one. Policies read their own phrases without marks too, and without the strokes of Ł, Đ, Ø, Ħ, Ŧ and Ŋ;
// a phrase of theirs with other letters of the table of look-alikes is not read from it.
func plainText(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	s = norm.NFKC.String(s)
	for i, r := range s {
		if r < utf8.RuneSelf {
			b.WriteByte(byte(r))
			continue
		}
		if redoubt.Invisible(r) || unicode.Is(unicode.M, r) && styled(r) == r {
			continue
		}
		if d := norm.NFD.PropertiesString(s[i:]).Decomposition(); len(d) > 0 {
			r, _ = utf8.DecodeRune(d)
		}
		if unicode.Is(signs, r) {
			r = '\''
		}
		if a, ok := alike[r]; ok {
			r = a
		}
		r = styled(r)
		switch r {
		case '\u2044', '\u2215', '\u2571', '\u27CB', '\u29F8', '\u1735', '\u3033': // slashes of other alphabets, of mathematics and of drawings
			r = '/'
		case '\u2AFD':
			b.WriteByte('/')
			r = '/'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// spaced are letters one by one with a sign between each two: S E C R E T, S-E-C-R-E-T, S.E.C.R.E.T.
var spaced = regexp.MustCompile(`\b(?:[\pL/](?:[ .\-_*|,:;+~=]|[ ]?\n)){3,}[\pL/](?:\b|$)`)

// joinSpaced puts them together. The expression is asked of what may be some alone: it takes a hundred times as long as looking for that.
func joinSpaced(s string) string {
	var b strings.Builder
	done := 0
	for i := 0; i < len(s); {
		end, letters := alternating(s, i)
		if letters < 4 {
			_, n := utf8.DecodeRuneInString(s[i:])
			i += n
			continue
		}
		_, before := utf8.DecodeLastRuneInString(s[:i]) // what is beside it says whether a word begins and ends there
		_, behind := utf8.DecodeRuneInString(s[end:])
		joined := spaced.ReplaceAllStringFunc(s[i-before:end+behind], func(m string) string {
			return strings.Map(func(r rune) rune {
				if unicode.IsLetter(r) || r == '/' {
					return r
				}
				return -1
			}, m)
		})
		b.WriteString(s[done:i])
		b.WriteString(joined[before : len(joined)-behind])
		i, done = end, end
	}
	if done == 0 {
		return s
	}
	b.WriteString(s[done:])
	return b.String()
}

// alternating gives how far letters and signs between them, one of each by turns, go on from i, and how many letters there are.
func alternating(s string, i int) (end, letters int) {
	for {
		r, n := utf8.DecodeRuneInString(s[i:])
		if !(r < utf8.RuneSelf && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '/') || r >= utf8.RuneSelf && unicode.IsLetter(r)) {
			return end, letters
		}
		i, letters = i+n, letters+1
		end = i
		switch rest := s[i:]; {
		case strings.HasPrefix(rest, " \n"):
			i += 2
		case rest != "" && strings.IndexByte(" .-_*|,:;+~=\n", rest[0]) >= 0:
			i++
		default:
			return end, letters
		}
	}
}

// candidate is a place where a marking may stand.
type candidate struct {
	head
	before string // what stands before the classification and belongs to it: //GBR
	rest   string // what follows it, to where the marking must end
	sure   bool   // it has the form of a marking: alone on its line, in parentheses, or with //
	strict bool   // what follows it is part of a marking beyond doubt: //
}

func (c candidate) shown() string { return c.before + c.name + c.rest }

// window is how much of a view is looked at at once: what a text needs of memory is a few times its own size, whatever stands in it.
const window = 256 << 10

// candidates are the places of one view, as they stand in it, window by window.
func (w *Words) candidates(s string) iter.Seq[candidate] {
	return func(yield func(candidate) bool) {
		taken := map[int]bool{} // where a longer classification ends: a shorter one that ends there is its end
		for from, to := 0, 0; from < len(s); from = to {
			to = runeStart(s, from+window)
			up := upper(s[from:runeStart(s, to+w.longest)])
			inWord := endsInWord(s[:from])
			for i := 0; i < to-from; {
				if !inWord {
					for _, h := range w.headsBy[up[i]] {
						end := from + i + len(h.text)
						if !strings.HasPrefix(up[i:], h.text) || taken[end] {
							continue
						}
						if c, ok := at(s, from+i, end, h); ok {
							taken[end] = true
							if !yield(c) {
								return
							}
						}
					}
				}
				r, n := utf8.DecodeRuneInString(up[i:])
				inWord, i = isWord(r), i+n
			}
			maps.DeleteFunc(taken, func(end int, _ bool) bool { return end <= to })
		}
	}
}

// runeStart is the first beginning of a rune from i on, or the end.
func runeStart(s string, i int) int {
	for i < len(s) && !utf8.RuneStart(s[i]) {
		i++
	}
	return min(i, len(s))
}

// upper is s in capitals of the same length.
func upper(s string) string {
	return strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf {
			if r >= 'a' && r <= 'z' {
				r -= 'a' - 'A'
			}
			return r
		}
		if u := unicode.ToUpper(r); utf8.RuneLen(u) == utf8.RuneLen(r) {
			return u
		}
		return r
	}, s)
}

// around is what a marking that stands alone on its line may have beside it.
const around = " \t*#-_=[]<>|\"'.:"

// at decides whether what stands from i to end is the head of a marking.
func at(s string, i, end int, h head) (candidate, bool) {
	if first, last := strings.TrimRight(s[:i], "_"), strings.TrimLeft(s[end:], "_"); endsInWord(first) || beginsWord(last) { // _SECRET_ is emphasis, CLIENT_SECRET a name
		return candidate{}, false
	}
	before, _ := utf8.DecodeLastRuneInString(s[:i])
	after, _ := utf8.DecodeRuneInString(s[end:])
	word, rest := s[i:end], s[end:]
	capitals := word == strings.ToUpper(word)
	c := candidate{head: h, rest: stretch(rest)}
	c.strict = strings.HasPrefix(strings.TrimLeft(rest, " "), "//")
	line := s[max(0, i-maxMarking):i]
	line = line[strings.LastIndexByte(line, '\n')+1:]
	if j := strings.LastIndex(line, "//"); j >= 0 && len(line)-j < 64 && !strings.ContainsFunc(line[j+2:], func(r rune) bool { return !unicode.IsLetter(r) && r != ' ' }) {
		c.before = line[j:]
		c.sure = true
	}
	portion := before == '(' && after == ')'
	switch {
	case c.strict:
		c.sure = true
		return c, capitals || h.long || before == '(' || readable(c)
	case portion:
		// (c) and (s) are of a list or a plural; a short form with small letters of its own (VS-NfD) has capitals too.
		c.sure = h.long || len(word) > 1
		return c, h.long || strings.ContainsFunc(word, unicode.IsUpper)
	case !h.long:
		return c, c.before != "" && capitals && readable(c)
	}
	last, _, _ := strings.Cut(rest[:min(len(rest), maxMarking)], "\n")
	said := strings.ToUpper(strings.TrimRight(line, around))
	if strings.Trim(line, around) == "" && strings.Trim(last, around) == "" || strings.HasSuffix(said, "CLASSIFICATION") || strings.HasSuffix(said, "CLASSIFIED") {
		c.sure = true
	}
	return c, c.sure || capitals
}

// readable reports whether all of it, up to the next space, is a marking.
func readable(c candidate) bool {
	first, _, _ := strings.Cut(strings.TrimLeft(c.rest, " "), " ")
	_, err := c.policy.Parse(c.before + c.name + first)
	return err == nil
}

func endsInWord(s string) bool {
	r, _ := utf8.DecodeLastRuneInString(s)
	return isWord(r)
}

func beginsWord(s string) bool {
	r, _ := utf8.DecodeRuneInString(s)
	return isWord(r)
}

func isWord(r rune) bool {
	if r < utf8.RuneSelf {
		return searched(r)
	}
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r))
}

// stretch is what may belong to a marking after its classification: up to a parenthesis, a quote or the end of the line.
func stretch(rest string) string {
	rest = rest[:min(len(rest), maxMarking)]
	if i := strings.IndexAny(rest, "()\n\r\"<>{}[];"); i >= 0 {
		rest = rest[:i]
	}
	return strings.TrimRight(strings.ToValidUTF8(rest, ""), " \t.,:!?*#-_=|'")
}

// read gives the label of a candidate: of the longest beginning of it that is a marking, in the own policy where that knows it. It is an
// error where what follows // is none.
func (w *Words) read(c candidate) (label.Label, error) {
	parse := func(s string) (label.Label, error) {
		if c.policy != w.own {
			if l, err := w.own.Parse("//" + strings.TrimLeft(s, "/")); err == nil {
				return l, nil
			}
		}
		return c.policy.Parse(s)
	}
	for rest := c.rest; ; {
		l, err := parse(c.before + c.name + rest)
		if err == nil {
			if left := strings.TrimLeft(c.rest[len(rest):], " "); c.strict && strings.HasPrefix(left, "/") {
				return label.Label{}, fmt.Errorf("%q is no part of a marking", left)
			}
			return l, nil
		}
		i := strings.LastIndexAny(rest, " ,/")
		if i < 0 {
			if c.before != "" { // what stood before was no part of it
				c.before = ""
				rest = c.rest
				continue
			}
			return label.Label{}, err
		}
		rest = strings.TrimRight(rest[:i], " ,/")
	}
}
