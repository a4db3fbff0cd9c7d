package label

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestTheSpecificationsExamplesHold reads docs/spec/label.md and holds each table and each document in it
// against what the package does.
func TestTheSpecificationsExamplesHold(t *testing.T) {
	text, err := os.ReadFile("../docs/spec/label.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks, tables := specBlocks(string(text)), specTables(string(text))
	mini, err := ReadSPIF(strings.NewReader(blocks["xml"][0]))
	if err != nil {
		t.Fatal(err)
	}
	agreement := equivalence(t, blocks["json"][0])
	rows := 0
	for _, row := range tables["marking of USA"] {
		rows++
		checkMarking(t, usa(t), row[0], row[1], row[2])
	}
	for _, row := range tables["policy"] {
		rows++
		checkMarking(t, policy(t, row[0]), row[1], row[2], row[3])
	}
	for _, row := range tables["MINI"] {
		rows++
		checkMarking(t, mini, row[0], row[1], row[2])
	}
	for _, row := range tables["portions"] {
		rows++
		var portions []Label
		for _, p := range strings.Split(row[0], "` + `") {
			portions = append(portions, marked(t, strings.Trim(p, "`")))
		}
		if got := RollUp(portions).Banner(); got != row[1] {
			t.Errorf("%s: got %s, want %s", row[0], got, row[1])
		}
	}
	for _, row := range tables["GBR"] {
		rows++
		l, err := policy(t, "GBR").Parse(row[0])
		if err != nil {
			t.Fatal(err)
		}
		got, err := agreement.Convert(l)
		if row[1] == "refused" && err == nil || row[1] != "refused" && got.Banner() != row[1] {
			t.Errorf("%s: got %s, %v, want %s", row[0], got, err, row[1])
		}
	}
	faults := map[string][]string{}
	last := ""
	for _, row := range tables["fault"] {
		rows++
		if row[0] != "" {
			last = row[0]
		}
		place, name, _ := strings.Cut(row[1], " `")
		faults[last] = append(faults[last], place+" "+strconv.Quote(strings.Trim(name, "`"))+" "+row[2])
	}
	for marking, want := range faults {
		var got []string
		_, err := usa(t).Parse(marking)
		if err != nil {
			for _, f := range err.(*ParseError).Faults {
				got = append(got, fmt.Sprintf("%d %q %s", f.Offset, f.Text, f.Reason))
			}
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s: got %q, want %q", marking, got, want)
		}
	}
	if rows != 14+5+3+9+5+7 {
		t.Errorf("%d rows were found: the tables changed their form", rows)
	}
	check4774(t, blocks["xml"][1])
}

func checkMarking(t *testing.T, p *Policy, marking, banner, portion string) {
	t.Helper()
	l, err := p.Parse(marking)
	if err != nil || l.Banner() != banner || l.Portion() != portion {
		t.Errorf("%s: got %s %s, %v, want %s %s", marking, l.Banner(), l.Portion(), err, banner, portion)
	}
}

// check4774 reads the example back, and writes it again: lines of the page are not in the document.
func check4774(t *testing.T, doc string) {
	t.Helper()
	l, meta, err := Read4774(strings.NewReader(doc))
	if err != nil || l.Banner() != "TOP SECRET//SI-G ABCD/TK//ORCON/NOFORN" {
		t.Fatalf("got %s, %v", l, err)
	}
	lines := strings.Split(doc, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	want := lines[0] + "\n" + strings.Join(lines[1:], "")
	if got, err := l.To4774(meta); err != nil || string(got) != want {
		t.Errorf("got\n%s, %v\nwant\n%s", got, err, want)
	}
}

// specBlocks are the fenced blocks of a page, by language.
func specBlocks(text string) map[string][]string {
	blocks := map[string][]string{}
	for i, part := range strings.Split(text, "\n```") {
		if i%2 == 1 {
			language, body, _ := strings.Cut(part, "\n")
			blocks[language] = append(blocks[language], body)
		}
	}
	return blocks
}

// specTables are the tables of a page, by the title of their first column. A cell that is code as a whole is without its backquotes.
func specTables(text string) map[string][][]string {
	tables := map[string][][]string{}
	title := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			title = ""
			continue
		}
		cells := strings.Split(strings.TrimSuffix(strings.TrimPrefix(line, "|"), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
			if c := strings.TrimSuffix(strings.TrimPrefix(cells[i], "`"), "`"); !strings.Contains(c, "`") {
				cells[i] = c
			}
		}
		switch {
		case title == "":
			title = cells[0]
		case !strings.HasPrefix(cells[0], "---"):
			tables[title] = append(tables[title], cells)
		}
	}
	return tables
}
