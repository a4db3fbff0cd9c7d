package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"redoubt"
)

// searched commits entries of two labels and gives their numbers as a query finds them.
func searched(t *testing.T, m *Memory, q Query) []uint64 {
	t.Helper()
	q.Numbers = true
	var out []uint64
	for f, err := range Search(context.Background(), m, q) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, f.Number)
	}
	return out
}

func everything(string) bool { return true }

func TestSearchFindsByEachField(t *testing.T) {
	m := &Memory{}
	for i := range 2000 {
		e := Entry{Time: day.Add(time.Duration(i) * time.Second), Subject: fmt.Sprint("s", i%5), Action: fmt.Sprint("a", i%7), Rule: fmt.Sprint("r", i%3),
			Kind: fmt.Sprint("k", i%11), Request: fmt.Sprint("q", i), Source: fmt.Sprint("h", i%13), Allow: i%2 == 0, Name: [16]byte{byte(i % 17), 1}, Bucket: [16]byte{byte(i % 4), 2}, Label: "L"}
		m.Commit(context.Background(), [][]byte{e.Append(nil)})
	}
	for name, c := range map[string]struct {
		q    Query
		want func(i int) bool
	}{
		"all":     {Query{}, func(i int) bool { return true }},
		"subject": {Query{Subject: "s3"}, func(i int) bool { return i%5 == 3 }},
		"action":  {Query{Action: "a2"}, func(i int) bool { return i%7 == 2 }},
		"rule":    {Query{Rule: "r1", Kind: "k4"}, func(i int) bool { return i%3 == 1 && i%11 == 4 }},
		"request": {Query{Request: "q77"}, func(i int) bool { return i == 77 }},
		"source":  {Query{Source: "h5"}, func(i int) bool { return i%13 == 5 }},
		"allow":   {Query{Outcome: "allow"}, func(i int) bool { return i%2 == 0 }},
		"deny":    {Query{Outcome: "deny", Name: [16]byte{3, 1}}, func(i int) bool { return i%2 == 1 && i%17 == 3 }},
		"bucket":  {Query{Bucket: [16]byte{2, 2}}, func(i int) bool { return i%4 == 2 }},
		"since":   {Query{Since: day.Add(100 * time.Second), Until: day.Add(103 * time.Second)}, func(i int) bool { return i >= 100 && i < 103 }},
		"range":   {Query{From: 511, To: 1025}, func(i int) bool { return i >= 511 && i < 1025 }},
		"none":    {Query{Outcome: "other"}, func(i int) bool { return false }},
	} {
		var want []uint64
		for i := range 2000 {
			if c.want(i) {
				want = append(want, uint64(i))
			}
		}
		c.q.Visible = everything
		if got := searched(t, m, c.q); !slices.Equal(got, want) {
			t.Errorf("%s: got %d, want %d", name, len(got), len(want))
		}
		c.q.Newest = true
		slices.Reverse(want)
		if got := searched(t, m, c.q); !slices.Equal(got, want) {
			t.Errorf("%s, newest first: got %d, want %d", name, len(got), len(want))
		}
		c.q.Max = 2
		if got := searched(t, m, c.q); !slices.Equal(got, want[:min(2, len(want))]) {
			t.Errorf("%s, two: got %v", name, got)
		}
	}
}

func TestSearchShowsOnlyWhatItsReaderDominates(t *testing.T) {
	m := &Memory{}
	for _, l := range [][2]string{{"S", "S"}, {"U", "U"}, {"U", "S"}, {"", "U"}, {"", ""}, {"U", ""}, {"S", "U"}, {tooLong, "U"}} {
		e := Entry{Time: day, Action: "x", Label: l[0], Working: l[1]}
		m.Commit(context.Background(), [][]byte{e.Append(nil)})
	}
	low := func(label string) bool { return label == "U" }
	if got := searched(t, m, Query{Visible: low}); !slices.Equal(got, []uint64{1, 3, 5}) {
		t.Errorf("a low reader sees %v: not what a high one did, nor the node's own", got)
	}
	for f, err := range Search(context.Background(), m, Query{Visible: low}) {
		if err != nil || f.Number != 0 || f.Numbered {
			t.Errorf("a number that counts high entries was let out: %d, %v", f.Number, err)
		}
	}
	for _, err := range Search(context.Background(), m, Query{}) {
		if !errors.Is(err, redoubt.Denied) {
			t.Errorf("without Visible: got %v, want Denied", err)
		}
	}
	m.entries[1] = []byte("not an entry")
	found := 0
	for _, err := range Search(context.Background(), m, Query{Visible: everything}) {
		if err == nil {
			found++
		} else if !errors.Is(err, redoubt.Corrupt) {
			t.Errorf("got %v", err)
		}
	}
	if found != 0 {
		t.Errorf("%d found in a block that is corrupt", found)
	}
}

func exported() []Found {
	denied := Entry{Time: day, Subject: `a|b=c\d]"e`, Action: "PutObject", Rule: "write-down", Kind: "refused by policy", Count: 2, Detail: "x=y|z"}
	return []Found{{Number: 12, Numbered: true, Entry: fullEntry()}, {Entry: denied}}
}

func TestExportGolden(t *testing.T) {
	for _, format := range []string{"ocsf", "cef", "syslog"} {
		var out bytes.Buffer
		err := Export(&out, format, "redoubt.example/secret", func(yield func(Found, error) bool) {
			for _, f := range exported() {
				if !yield(f, nil) {
					return
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		file := "testdata/export." + format
		if os.Getenv("UPDATE_GOLDEN") != "" {
			os.WriteFile(file, out.Bytes(), 0o644)
		}
		want, err := os.ReadFile(file)
		if err != nil || !bytes.Equal(out.Bytes(), want) {
			t.Errorf("%s: got\n%s\nwant\n%s(%v)", format, out.Bytes(), want, err)
		}
		if n := strings.Count(out.String(), "\n"); n != 2 {
			t.Errorf("%s: got %d lines, want 2", format, n)
		}
	}
	if err := Export(&bytes.Buffer{}, "xml", "n", nil); !errors.Is(err, redoubt.Invalid) {
		t.Errorf("got %v", err)
	}
}

func TestOCSFHasWhatItsClassRequires(t *testing.T) {
	for _, f := range exported() {
		line, err := AppendOCSF(nil, "node", f)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatal(err)
		}
		for _, required := range []string{"activity_id", "actor", "api", "category_uid", "class_uid", "metadata", "severity_id", "src_endpoint", "time", "type_uid", "action_id"} {
			if _, ok := got[required]; !ok {
				t.Errorf("%s is missing", required)
			}
		}
		if got["type_uid"].(float64) != 600300+got["activity_id"].(float64) {
			t.Errorf("type %v of activity %v", got["type_uid"], got["activity_id"])
		}
	}
	for action, want := range map[string]int{"CreateBucket": 1, "GetObject": 2, "ListObjects": 2, "PutObject": 3, "DeleteObjectVersion": 4, "audit.start": 99, "CryptoErase": 4} {
		if got, _ := activity(action); got != want {
			t.Errorf("%s: got activity %d, want %d", action, got, want)
		}
	}
}

func FuzzLines(f *testing.F) {
	f.Add("subject", "PutObject", "label=x|y", "[::1]:5")
	f.Fuzz(func(t *testing.T, subject, action, label, source string) {
		e := Entry{Subject: subject, Action: action, Label: label, Source: source, Detail: label + subject}
		e, err := ParseEntry(e.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range [][]byte{AppendCEF(nil, source, Found{Entry: e}), AppendSyslog(nil, source, Found{Entry: e})} {
			if bytes.ContainsAny(line, "\n\r") {
				t.Fatalf("two lines: %q", line)
			}
		}
	})
}
