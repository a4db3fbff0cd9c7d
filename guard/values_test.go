package guard_test

import (
	"archive/zip"
	"bytes"
	"testing"
)

// zipOf is an archive of names and contents, in turn.
func zipOf(t testing.TB, all ...string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := 0; i < len(all); i += 2 {
		f, err := w.Create(all[i])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(all[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestValuesAreSearchedAsTheyAreRead(t *testing.T) {
	w := newWords(t, "nightfall")
	low := mark(t, "UNCLASSIFIED")
	for _, c := range []struct{ mediaType, content string }{
		{"text/plain", "x nightfall y"},
		{"application/json", `{"a":"\u006eightf\u0061ll"}`}, {"application/json", `{"nightfall":1}`}, {"application/json", `["\u0053ECRET"]`}, {"application/json", `["night","fall"]`}, {"application/json", `{"night":"fall"}`},
		{"application/json", `{"a":"night","b":"fall"}`}, {"application/json", `[{"a":{"c":[1,"night"]},"b":["fall"]}]`}, {"application/json", `[{"a":"SECRET","b":"//NOFORN"}]`}, {"application/xml", "<a b='night' c='fall'/>"}, {"application/xml", "<a><b>night</b><c d='fall'/></a>"},
		{"text/csv", "a,b\nx,night\ny,fall\n"}, {"application/zip", zipOf(t, "a.txt", "night", "b.txt", "fall")},
		{"application/xml", "<a>&#110;ightfall</a>"}, {"application/xml", "<a b='n&#x69;ghtfall'/>"}, {"application/xml", "<nightfall/>"}, {"application/xml", "<a><![CDATA[SECRET]]></a>"}, {"application/xml", "<a>SEC<b/>RET//NOFORN nightf<b>all</b></a>"},
		{"application/xml", "<a><!-- nightfall --></a>"}, {"text/csv", "a,b\n\"night\"\"fall\",2\n"}, {"text/csv", "a,b\nx,(S//NF)\n"}, {"text/csv", "night,fall\n"},
		{"application/zip", zipOf(t, "a.txt", "nightfall")}, {"application/zip", zipOf(t, "nightfall.txt", "x")}, {"application/zip", zipOf(t, "b.zip", zipOf(t, "a.json", `["\u0053ECRET"]`))},
	} {
		if !fatal(w.SearchContent(c.mediaType, []byte(c.content), low)) {
			t.Errorf("%s %.60q: nothing was found", c.mediaType, c.content)
		}
	}
	for _, c := range []struct{ mediaType, content string }{
		{"text/plain", "plain"}, {"application/json", `{"a":[1,"x",null]}`}, {"application/xml", "<a b='c'>d</a>"}, {"text/csv", "a,b\n1,2\n"}, {"image/png", "\x89PNG"}, {"application/zip", zipOf(t, "a.txt", "x")},
	} {
		if found := w.SearchContent(c.mediaType, []byte(c.content), low); len(found) > 0 {
			t.Errorf("%s %.60q: got %v", c.mediaType, c.content, found)
		}
	}
}

func TestWhatCannotBeSearchedEnds(t *testing.T) {
	w := newWords(t)
	deep := "x"
	for range 4 {
		deep = zipOf(t, "a.zip", deep)
	}
	for _, c := range []struct{ mediaType, content string }{
		{"", "x"}, {"text/html", "x"}, {"text/plain", "\xff"}, {"application/json", "{"}, {"application/xml", "<a>"}, {"text/csv", "a\"b\n"}, {"application/zip", "PK"}, {"application/zip", zipOf(t, "a.exe", "x")},
		{"application/zip", deep},
	} {
		if !fatal(w.SearchContent(c.mediaType, []byte(c.content), mark(t, "TOP SECRET"))) {
			t.Errorf("%s %.60q passed", c.mediaType, c.content)
		}
	}
}

// TestGradesAreTold: a thousand cells of one letter each have any short word in them, and a table of them is not refused for that.
func TestGradesAreTold(t *testing.T) {
	w := newWords(t, "face", "nightfall")
	as := mark(t, "TOP SECRET")
	table := "name,grade\nann,B\nbob,F\ncid,A\ndan,C\neve,E\n"
	found := w.SearchContent("text/csv", []byte(table), as)
	if fatal(found) || len(found) == 0 {
		t.Errorf("a column of grades that reads as a word: %v", found)
	}
	if found := w.SearchContent("text/csv", []byte("name,grade\nann,night\nbob,fall\n"), as); !fatal(found) {
		t.Errorf("a word that is split over a column passed: %v", found)
	}
}

func TestNamesAreSearchedToo(t *testing.T) {
	w := newWords(t, "nightfall")
	low := mark(t, "UNCLASSIFIED")
	none := map[string]string{}
	for _, found := range []bool{
		fatal(w.SearchNames("ops/nightfall/plan.txt", "text/plain", none, low)),
		fatal(w.SearchNames("plan.txt", "text/nightfall", none, low)),
		fatal(w.SearchNames("SECRET/plan.txt", "text/plain", none, low)),
		fatal(w.SearchNames("top_secret.txt", "text/plain", none, low)) || fatal(w.SearchNames("TOP_SECRET.txt", "text/plain", none, low)),
		fatal(w.SearchNames("plan.txt", "text/plain", map[string]string{"nightfall": "x"}, low)),
		fatal(w.SearchNames("plan.txt", "text/plain", map[string]string{"x": "night fall"}, low)),
		fatal(w.SearchNames("plan.txt", "text/plain", map[string]string{"x": "night", "y": "fall"}, low)),
		fatal(w.SearchNames("plan.txt", "text/plain", map[string]string{"x": "=?utf-8?B?bmlnaHRmYWxs?="}, low)),
	} {
		if !found {
			t.Error("a name passed")
		}
	}
	if found := w.SearchNames("tracks/2026/week-14.json", "application/json", map[string]string{"author": "staff"}, low); len(found) > 0 {
		t.Errorf("got %v", found)
	}
}
