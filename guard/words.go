package guard

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"redoubt"
	"redoubt/label"
)

// Limits on the list of words.
const (
	MaxWords     = 10_000
	MaxWordBytes = 256
	minWordLen   = 3 // letters and digits of a word as it is searched for: shorter ones are in every text
	minInWord    = 5 // of one that is found inside another word too, or it begins with a letter of three bytes: a syllable of Hangul is as many alone
)

// Words searches what is to leave for the words of a list and for markings. It is immutable, and safe for use by many goroutines at once.
//
// What it finds it finds in plain sight and under the disguises that people and programs use: other cases, styles and widths of letters,
// letters of other scripts that look alike, digits for letters, and words that are split by spaces, punctuation, line breaks and characters
// that show nothing. It does not find what is enciphered, encoded, spelled wrong, translated or drawn.
type Words struct {
	words    []word          // sorted by their folded form, each once
	plain    beginnings      // of the words as they are folded
	disguise beginnings      // and in leet
	policies []*label.Policy // own first
	own      *label.Policy
	heads    []head
	headsBy  [256][]head // by their first byte, the longest first
	longest  int         // bytes of a head
}

// beginnings are words by how they begin.
type beginnings struct {
	words map[prefix][]spelling // sorted
	may   [1 << 12]bool         // whether one may begin so: most of a text is asked no further
}

// spelling is how a word is looked for, and its number.
type spelling struct {
	word   string
	number int
}

func (b *beginnings) add(word string, number int) {
	if b.words == nil {
		b.words = map[prefix][]spelling{}
	}
	p := prefix([]byte(word))
	b.words[p] = append(b.words[p], spelling{word, number})
	b.may[b.slot(p[:])] = true
}

// sort is called once all are added.
func (b *beginnings) sort() {
	for _, some := range b.words {
		slices.SortFunc(some, func(x, y spelling) int { return strings.Compare(x.word, y.word) })
	}
}

func (b *beginnings) slot(s []byte) int {
	return (int(s[0])<<6 ^ int(s[1])<<3 ^ int(s[2])) & (len(b.may) - 1)
}

// at are those that stand where s begins. It takes no longer where thousands begin alike, as the names of operations do.
func (b *beginnings) at(s []byte) (found []spelling) {
	if !b.may[b.slot(s)] {
		return nil
	}
	some := b.words[prefix(s)]
	for n := minWordLen; len(some) > 0; n++ { // all that are left begin as s does, for n bytes
		for len(some) > 0 && len(some[0].word) == n {
			found, some = append(found, some[0]), some[1:]
		}
		if n == len(s) {
			break
		}
		from := sort.Search(len(some), func(i int) bool { return some[i].word[n] >= s[n] })
		some = some[from:]
		some = some[:sort.Search(len(some), func(i int) bool { return some[i].word[n] > s[n] })]
	}
	return found
}

// prefix is the first bytes of a word: as many as the shortest has.
type prefix [minWordLen]byte

// word is one of the list.
type word struct {
	shown  string
	folded string // letters and digits, small
	leet   string // the same, digits that stand for letters undone
}

// NewWords takes a list of words, and the policy that the labels of releases are of; its markings are searched for, and those of the built-in
// policies beside it. Invalid: a word is too long, or has fewer than three letters and digits, or there are too many.
func NewWords(list []string, policy *label.Policy) (*Words, error) {
	fail := func(format string, args ...any) (*Words, error) {
		return nil, &redoubt.Error{Op: "guard.NewWords", Kind: redoubt.Invalid, Err: fmt.Errorf(format, args...)}
	}
	if policy == nil {
		return fail("no policy")
	}
	if len(list) > MaxWords {
		return fail("%d words, and %d may be", len(list), MaxWords)
	}
	w := &Words{own: policy, policies: []*label.Policy{policy}}
	for _, s := range list {
		if len(s) > MaxWordBytes {
			return fail("a word of %d bytes, and %d may be", len(s), MaxWordBytes)
		}
		f := fold(s)
		if utf8.RuneCount(norm.NFD.Bytes(f.letters)) < minWordLen { // a syllable of Hangul is two letters or three
			return fail("the word %q has fewer than %d letters and digits", s, minWordLen)
		}
		w.words = append(w.words, word{shown: s, folded: string(f.letters), leet: string(f.leet())})
	}
	slices.SortFunc(w.words, func(a, b word) int { return strings.Compare(a.folded, b.folded) })
	w.words = slices.CompactFunc(w.words, func(a, b word) bool { return a.folded == b.folded })
	for i, word := range w.words {
		w.plain.add(word.folded, i)
		w.disguise.add(word.leet, i)
	}
	w.plain.sort()
	w.disguise.sort()
	for _, name := range label.BuiltinNames() {
		p, err := label.Builtin(name)
		if err != nil {
			return fail("policy %s: %w", name, err)
		}
		if p.Name() != policy.Name() {
			w.policies = append(w.policies, p)
		}
	}
	if err := w.findHeads(); err != nil {
		return fail("%w", err)
	}
	return w, nil
}

// Search looks for words of the list and for markings in text that is to leave under a label. A word of the list, and a marking that the label
// does not dominate, are fatal; what only may be one is told and not fatal. Findings are at most redoubt.MaxReleaseReport, fatal ones first.
func (w *Words) Search(text string, as label.Label) []redoubt.Finding {
	if swells(text) {
		return []redoubt.Finding{finding(true, "too many characters that each stand for several", "")}
	}
	found := append(w.searchWords(text), w.searchMarkings(text, as)...)
	slices.SortStableFunc(found, func(a, b redoubt.Finding) int {
		if a.Fatal == b.Fatal {
			return 0
		}
		if a.Fatal {
			return -1
		}
		return 1
	})
	return atMost(found)
}

// swells says whether a text written out in plain characters is more than twice as long, and a little: one of three bytes may stand for thirty-three,
// and a search takes memory and time by what it reads.
func swells(text string) bool {
	room := len(text) + 64<<10
	for i, r := range text {
		if r < utf8.RuneSelf {
			continue
		}
		if d := norm.NFKD.PropertiesString(text[i:]).Decomposition(); len(d) > utf8.RuneLen(r) {
			if room -= len(d) - utf8.RuneLen(r); room < 0 {
				return true
			}
		}
	}
	return false
}

// finding is one of the step.
func finding(fatal bool, rule, detail string) redoubt.Finding {
	const most = 256
	if len(detail) > most {
		detail = strings.ToValidUTF8(detail[:most], "")
	}
	return redoubt.Finding{Step: "words", Rule: rule, Detail: strings.ToValidUTF8(detail, "?"), Fatal: fatal}
}

// searchWords finds each word once, where it stands most plainly.
func (w *Words) searchWords(text string) (found []redoubt.Finding) {
	if len(w.words) == 0 {
		return nil
	}
	f := fold(text)
	plain := f.find(f.letters, &w.plain, false)
	disguised := f.find(f.leet(), &w.disguise, true)
	f = f.withoutNumbers(text)
	between := f.find(f.letters, &w.plain, false)
	for i, word := range w.words {
		p, d, b := plain[i], disguised[i], between[i]
		switch {
		case p.how >= inside:
			found = append(found, finding(true, "a word of the list", fmt.Sprintf("%q at byte %d", word.shown, p.at)))
		case d.how >= inside:
			found = append(found, finding(true, "a word of the list, in digits for letters", fmt.Sprintf("%q at byte %d", word.shown, d.at)))
		case b.how >= inside:
			found = append(found, finding(true, "a word of the list, with numbers in it", fmt.Sprintf("%q at byte %d", word.shown, b.at)))
		case b.how == across:
			found = append(found, finding(false, "letters that make a word of the list, between numbers", fmt.Sprintf("%q at byte %d", word.shown, b.at)))
		case p.how == across:
			found = append(found, finding(false, "letters that make a word of the list, across words", fmt.Sprintf("%q at byte %d", word.shown, p.at)))
		case d.how == figures:
			found = append(found, finding(false, "a number that makes a word of the list, each digit read as a letter", fmt.Sprintf("%q at byte %d", word.shown, d.at)))
		}
	}
	return found
}

// folded is a text as a search sees it: its letters and digits and nothing between them.
type folded struct {
	letters []byte  // UTF-8
	source  []int32 // of each byte of letters: the byte of the text that it comes from
	begins  []bool  // of each byte: whether a word of the text begins there
	numbers []bool  // of each byte: whether a number was taken out before it; nil: all of them stand
	other   bool    // whether the text has numbers that are not of ASCII
}

// withoutNumbers are the letters of text alone: numbers split a word as other signs do, those that are written out as letters (Ⅳ) too. It is
// empty where there are none.
func (f folded) withoutNumbers(text string) (out folded) {
	if !f.other && !slices.ContainsFunc(f.letters, isDigit) {
		return out
	}
	other := func(i int32) bool {
		r, _ := utf8.DecodeRuneInString(text[i:])
		return r >= utf8.RuneSelf && unicode.Is(unicode.N, r)
	}
	number := false
	for i, c := range f.letters {
		if isDigit(c) || f.other && other(f.source[i]) {
			number = true
			continue
		}
		out.letters, out.source = append(out.letters, c), append(out.source, f.source[i])
		out.begins, out.numbers = append(out.begins, number || f.begins[i]), append(out.numbers, number)
		number = false
	}
	return out
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// fold takes the letters and digits of a text: compatible forms made plain, marks taken off, look-alikes made Latin, digits those of ASCII, all small.
// Hangul is taken by syllables, however it is written: by letters it would be three times as long.
func fold(s string) folded {
	f := folded{letters: make([]byte, 0, len(s)), source: make([]int32, 0, len(s)), begins: make([]bool, 0, len(s))}
	begin := true
	var buf [utf8.UTFMax]byte
	plain := func(r rune, at int) {
		if !searched(r) && !stands(r) {
			if !unicode.Is(unicode.M, r) && !redoubt.Invisible(r) {
				begin = true
			}
			return
		}
		n := utf8.EncodeRune(buf[:], letter(r))
		for i := range n {
			f.letters = append(f.letters, buf[i])
			f.source = append(f.source, int32(at))
			f.begins = append(f.begins, begin && i == 0)
		}
		begin = false
	}
	for i, r := range s {
		if r < utf8.RuneSelf {
			plain(r, i)
			continue
		}
		if r >= '가' && r <= '힣' {
			plain(r, i)
			continue
		}
		f.other = f.other || unicode.Is(unicode.N, r)
		for _, d := range norm.NFKD.String(string(styled(r))) {
			if f.joins(d) {
				begin = false
				continue
			}
			plain(d, i)
		}
	}
	return f
}

// joins adds a vowel or final consonant of Hangul to the letter or syllable before it, and says whether it could.
func (f *folded) joins(r rune) bool {
	if r < '\u1161' || r > '\u11c2' {
		return false
	}
	last, n := utf8.DecodeLastRune(f.letters)
	syllable, size := utf8.DecodeRuneInString(norm.NFC.String(string([]rune{last, r})))
	if syllable == last || size != n {
		return false
	}
	utf8.EncodeRune(f.letters[len(f.letters)-n:], syllable)
	return true
}

// searched says whether a character is one of those that words are made of.
func searched(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
	}
	return unicode.In(r, unicode.L, unicode.N) && !unicode.Is(signs, r)
}

// stands reports whether a sign stands for a letter in leet, so that it is kept where a word is looked for. It begins no word by itself.
func stands(r rune) bool { return r == '$' || r == '@' }

// leet is the letters with the digits and signs that stand for letters undone. Each is one byte, as is what it stands for.
func (f folded) leet() []byte {
	out := slices.Clone(f.letters)
	for i, c := range out {
		switch c {
		case '0':
			out[i] = 'o'
		case '1', 'i':
			out[i] = 'l'
		case '2':
			out[i] = 'z'
		case '3':
			out[i] = 'e'
		case '4', '@':
			out[i] = 'a'
		case '5', '$':
			out[i] = 's'
		case '6', '9':
			out[i] = 'g'
		case '7':
			out[i] = 't'
		case '8':
			out[i] = 'b'
		}
	}
	return out
}

// how a word stands in a text.
type how int

const (
	nowhere how = iota
	across      // its letters follow one another, and words of the text begin and end within it
	figures     // in disguise, and all of it are digits: a table of numbers has any that are short
	inside      // within one word of the text
	whole       // it begins where a word begins and ends where one ends, whatever is between its letters
)

// place is where and how a word stands in a text.
type place struct {
	at  int // byte of the text
	how how
}

// find gives, for each word that stands in letters, the plainest place. Of words in disguise, only places with a digit or sign count.
func (f folded) find(letters []byte, words *beginnings, disguised bool) map[int]place {
	best := map[int]place{}
	for i := 0; i+minWordLen <= len(letters); i++ {
		for _, w := range words.at(letters[i:]) {
			if h := f.stands(i, i+len(w.word), disguised); h > best[w.number].how {
				best[w.number] = place{int(f.source[i]), h}
			}
		}
	}
	return best
}

// stands tells how the letters from i to end stand in the text.
func (f folded) stands(i, end int, disguised bool) how {
	switch {
	case disguised && !slices.ContainsFunc(f.letters[i:end], func(c byte) bool { return c < 'a' }):
		return nowhere
	case disguised && !slices.ContainsFunc(f.letters[i:end], func(c byte) bool { return !isDigit(c) }):
		return figures
	case f.numbers != nil:
		return f.standsBetween(i, end)
	case f.begins[i] && (end == len(f.begins) || f.begins[end]):
		return whole
	case (end-i >= minInWord || f.letters[i] >= 0xE0) && !slices.Contains(f.begins[i+1:end], true):
		return inside
	}
	return across
}

// standsBetween tells how the letters from i to end stand where numbers were taken out. Those that are few, or have a number between nearly each two, any
// table of numbered letters has.
func (f folded) standsBetween(i, end int) how {
	numbers := 0
	for _, is := range f.numbers[i+1 : end] {
		if is {
			numbers++
		}
	}
	switch {
	case numbers == 0 || !f.begins[i] || end < len(f.begins) && !f.begins[end]:
		return nowhere
	case end-i < minInWord || 2*numbers > end-i:
		return across
	}
	return whole
}
