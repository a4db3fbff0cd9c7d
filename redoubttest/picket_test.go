package redoubttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"redoubt/estate"
)

// The example estate with a device whose ceiling lies below its home's: what such a device is told of people and buckets.

// withPicket is the example estate with the device picket, to SECRET, whose home is topsecret.
func withPicket(t *testing.T) string {
	t.Helper()
	const high = "    range: {floor: UNCLASSIFIED, ceiling: TOP SECRET//SI/TK}\n"
	text := string(estate.ExampleText)
	for _, x := range []struct{ old, new string }{
		{high, high + "    peers: {listen: \"127.0.0.1:0\"}\n"},
		{"\npeople:\n", `
  - name: picket
    kind: device
    home: topsecret
    range: {floor: UNCLASSIFIED, ceiling: SECRET}
    lease: 72h
    buckets: [reports]

people:
`}} {
		if strings.Count(text, x.old) != 1 {
			t.Fatalf("the example estate has %q %d times", x.old, strings.Count(text, x.old))
		}
		text = strings.Replace(text, x.old, x.new, 1)
	}
	return text
}

// clear has two officers clear a person at topsecret.
func (r *running) clear(verb, name string, more ...string) {
	r.t.Helper()
	args := append([]string{"person", verb, name, "--reason", "a reason that is nobody's below", "--as", "officer@topsecret", "--json"}, more...)
	var out said
	until(r.t, "another second, for changes of one person are a second apart", func() bool {
		out = r.try(args...)
		return out.code == 0
	})
	id := regexp.MustCompile(`"id": "([0-9a-f]{64})"`).FindStringSubmatch(out.out)
	if id == nil {
		r.t.Fatal("the proposal has no ID")
	}
	r.must("person", "approve", id[1], "--as", "officer-2@topsecret")
}

// step waits until a device and its home have nothing more for one another.
func (r *running) step(device string) {
	r.t.Helper()
	for _, who := range []string{"admin", "s-analyst", "ts-analyst"} {
		r.must("link", "wait", device, "--timeout", "120s", "--as", who+"@topsecret")
	}
}

// in asks for an object of any bucket and says what was answered.
func (w wire) in(t *testing.T, method, bucket, key string, content []byte) (int, []byte) {
	t.Helper()
	a, err := w.do(t.Context(), Request{Method: method, Bucket: bucket, Key: key, Body: content})
	if err != nil {
		t.Fatal(err)
	}
	return a.Status, a.Body
}

func TestWhoIsClearedAtHomeWorksAtAPicketThatIsCutOff(t *testing.T) {
	r := newEstate(t)
	r.must("up", r.file("estate.yaml", withPicket(t)), "--detach")
	r.step("picket")
	r.clear("add", "n-analyst", "--clearance", "TOP SECRET//SI", "--nation", "USA", "--role", "analyst", "--expires", "2090-12-31")
	r.must("bucket", "create", "desk", "--default", "CONFIDENTIAL", "--as", "admin@topsecret")
	_, home := r.env("s-analyst", "topsecret")
	if status, body := home.in(t, http.MethodPut, "desk", "orders", []byte("advance")); status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	r.step("picket") // the one meeting
	r.must("link", "cut", "picket", "--as", "admin@topsecret")

	env, there := r.env("n-analyst", "picket")
	if env["REDOUBT_TOKEN"] == "" {
		t.Error("who was cleared at home gets no credential at the picket")
	}
	if status, body := there.in(t, http.MethodGet, "desk", "orders", nil); status != http.StatusOK || string(body) != "advance" {
		t.Errorf("a bucket that was made at home reads %d %s at the picket", status, body)
	}
	if status, body := there.in(t, http.MethodPut, "desk", "sighting", []byte("tracks")); status != http.StatusOK {
		t.Errorf("and takes nothing: %d %s", status, body)
	}
	if out := r.must("person", "show", "n-analyst", "--at", "picket", "--as", "officer"); !strings.Contains(out, "SECRET") || strings.Contains(out, "TOP SECRET") {
		t.Errorf("the picket knows her as\n%s", out)
	}
	if out := r.try("bucket", "create", "mine", "--as", "admin@picket"); out.code != 3 || !strings.Contains(out.err, "topsecret") {
		t.Errorf("a bucket that is made at the picket: %d %s", out.code, out.err)
	}

	r.must("person", "revoke", "n-analyst", "--reason", "left", "--as", "officer@topsecret")
	if status, _ := there.in(t, http.MethodGet, "desk", "orders", nil); status != http.StatusOK {
		t.Errorf("before the picket has heard of it she is answered %d", status)
	}
	r.must("link", "restore", "picket", "--as", "admin@topsecret")
	r.step("picket")
	if status, _ := there.in(t, http.MethodGet, "desk", "orders", nil); status != http.StatusForbidden {
		t.Errorf("after it has heard of it her credential is answered %d", status)
	}
	if out := r.try("ls", "s3://desk", "--as", "n-analyst@picket"); out.code == 0 {
		t.Error("and she gets another")
	}
	if status, body := home.in(t, http.MethodGet, "desk", "sighting", nil); status != http.StatusOK || string(body) != "tracks" {
		t.Errorf("at home what she wrote reads %d %s", status, body)
	}
	r.must("bucket", "rm", "desk", "--as", "admin@topsecret")
	r.step("picket")
	_, left := r.env("s-analyst", "picket")
	if status, _ := left.in(t, http.MethodPut, "desk", "late", []byte("x")); status != http.StatusNotFound {
		t.Errorf("a bucket that was removed at home takes a write at the picket: %d", status)
	}
}

// told is what a device knows of people, byte for byte, and how many entries were sent to it in this meeting, which of all.
type told struct {
	people  string
	sent    int64
	meeting int // how many its home had begun before, by the home's log
}

func (r *running) told(device string) (k told) {
	r.t.Helper()
	k.meeting = r.meetings("topsecret", device)
	var s struct{ Sent int64 }
	if err := json.Unmarshal([]byte(r.must("link", "status", device, "--as", "ts-analyst@topsecret", "--json")), &s); err != nil {
		r.t.Fatal(err)
	}
	k.people = r.must("person", "ls", "--at", device, "--as", "officer", "--json") + r.must("grant", "ls", "--as", "officer@"+device, "--json")
	k.sent = s.Sent
	return k
}

// meetings counts how often a node's log says that it meets a peer.
func (r *running) meetings(node, peer string) (n int) {
	r.t.Helper()
	log, err := os.ReadFile(filepath.Join(r.state, node, "log", "node.log"))
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range bytes.Lines(log) {
		if bytes.Contains(line, []byte("meeting a peer")) && bytes.Contains(line, []byte(peer)) {
			n++
		}
	}
	return n
}

func TestAPicketIsToldNothingOfWhatChangesAboveIt(t *testing.T) {
	r := newEstate(t)
	r.must("up", r.file("estate.yaml", withPicket(t)), "--detach")
	r.clear("add", "n-analyst", "--clearance", "SECRET", "--nation", "USA", "--role", "analyst", "--expires", "2090-12-31")
	r.step("picket")
	before := r.told("picket")
	if !strings.Contains(before.people, "n-analyst") {
		t.Fatalf("the picket does not know whom its home cleared: %s", before.people)
	}
	// What was sent is counted from the beginning of a meeting: over a break, which a busy machine may bring about, it says nothing.
	for try := 0; ; try++ {
		before = r.told("picket")
		r.changeAbove(t, try)
		r.step("picket")
		after := r.told("picket")
		if after.people != before.people {
			t.Errorf("the picket knows\n%s\nand knew\n%s", after.people, before.people)
		}
		if r.meetings("topsecret", "picket") == before.meeting {
			if after.sent != before.sent {
				t.Errorf("of what changes above it the picket is sent %d entries", after.sent-before.sent)
			}
			break
		}
		if try == 4 {
			t.Fatal("no meeting lasted")
		}
	}
	if strings.Contains(r.must("audit", "search", "--as", "officer@picket", "--json"), "tasker") {
		t.Error("the picket's audit log names who cannot work there")
	}
	// That it would show, if there were something to show.
	before = r.told("picket")
	r.clear("set", "n-analyst", "--clearance", "CONFIDENTIAL")
	r.step("picket")
	after := r.told("picket")
	if after.people == before.people {
		t.Error("a clearance that was lowered at home is not lowered at the picket")
	}
	if r.meetings("topsecret", "picket") == before.meeting && after.sent == before.sent {
		t.Error("what was sent of that is not counted")
	}
}

// changeAbove changes people, grants and objects in ways that a picket may know nothing of; each try in another.
func (r *running) changeAbove(t *testing.T, try int) {
	t.Helper()
	tasker := fmt.Sprint("tasker", try)
	r.clear("set", "n-analyst", "--clearance", []string{"TOP SECRET//SI/TK", "TOP SECRET//SI"}[try%2])
	r.clear("add", tasker, "--clearance", "TOP SECRET//SI/TK", "--nation", "USA", "--role", "reviewer", "--expires", "2090-12-31")
	r.clear("set", "n-analyst", "--role", []string{"analyst,reviewer,storage", "analyst,reviewer"}[try%2])
	r.must("grant", "add", tasker, "s3://reports/compartment/", "--as", "officer@topsecret")
	r.must("person", "revoke", tasker, "--reason", "left", "--as", "officer@topsecret")
	_, high := r.env("ts-analyst", "topsecret")
	high.put(t, fmt.Sprint("tasking", try), tracks(100_000))
}
