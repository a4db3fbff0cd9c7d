package wasm

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"redoubt/compute/computetest"
	"redoubt/sandbox"
)

// said is what a worker says, frame by frame.
type said struct{ bytes.Buffer }

func (s *said) frame(kind byte, body ...[]byte) *said {
	f := frames{w: &s.Buffer}
	if err := f.write(kind, body...); err != nil {
		panic(err)
	}
	return s
}

func (s *said) json(kind byte, v any) *said {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return s.frame(kind, b)
}

func readOf(id uint32, off uint64, n uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, id), off), n)
}

// hear has a session hear it.
func hear(t testing.TB, what []byte) (*computetest.Run, *session, error) {
	r := computetest.NewRun(map[string][]byte{"b/f": []byte("content"), "b/d/g": bytes.Repeat([]byte("x"), 3<<20)})
	ended := 0
	s := &session{t: r.Task(programs.Load(nil, r, nil)), begins: func() {}, ends: func() { ended++ }}
	s.frames = frames{r: bytes.NewReader(what), w: io.Discard}
	err := s.talk(context.Background())
	s.close()
	if n := r.LeftOpen(); n != 0 {
		t.Errorf("%d contents were left open", n)
	}
	if ended > 1 || len(r.Outputs()) > 0 && (s.end == nil || s.end.Code != 0) {
		t.Errorf("it ended %d times, as %+v, with %d outputs", ended, s.end, len(r.Outputs()))
	}
	return r, s, err
}

func conversation() *said {
	s := new(said)
	s.frame(askStat, []byte("b/f")).frame(askList, []byte{0, 0, 0, 0}, []byte("b")).frame(askOpen, []byte("b/d/g")).frame(askRead, readOf(1, 0, maxPiece)).frame(askRead, readOf(1, 3<<20-5, maxPiece))
	s.frame(askClose, []byte{0, 0, 0, 1}).frame(sayOut, []byte("said")).frame(sayErr, []byte("warned")).frame(askStat, []byte("none"))
	return s
}

func TestAWorkerThatKeepsToTheProtocol(t *testing.T) {
	s := conversation()
	s.json(sayEnd, ending{}).json(sayFile, output{"a/b", 3}).frame(sayBytes, []byte("ab")).frame(sayBytes, []byte("c")).json(sayFile, output{"empty", 0}).frame(sayDone)
	r, _, err := hear(t, s.Bytes())
	if err != nil || string(r.Outputs()["a/b"]) != "abc" || len(r.Outputs()) != 2 || r.Said(1) != "said" || r.Said(2) != "warned" {
		t.Errorf("got %v, %q", err, r.Outputs())
	}
}

func TestAHostileWorkerIsHeardNoFurther(t *testing.T) {
	begun := func() *said { return new(said).json(sayEnd, ending{}) }
	for name, s := range map[string]*said{
		"says nothing":                     new(said),
		"ends before the module":           new(said).frame(sayDone),
		"a kind that is none":              new(said).frame('?'),
		"what it is told itself":           new(said).frame(answer, []byte("x")),
		"an output before the end":         new(said).json(sayFile, output{"a", 0}),
		"an output after a failure":        new(said).json(sayEnd, ending{Code: 1}).json(sayFile, output{"a", 0}).frame(sayDone),
		"a question after the end":         begun().frame(askOpen, []byte("b/f")),
		"a list after the end":             begun().frame(askList, []byte{0, 0, 0, 0, 'b'}),
		"a word after the end":             begun().frame(sayOut, []byte("x")),
		"two ends":                         begun().json(sayEnd, ending{}),
		"an end that is none":              new(said).frame(sayEnd, []byte("{")),
		"a path that leads out":            begun().json(sayFile, output{"../a", 0}),
		"an absolute path":                 begun().json(sayFile, output{"/a", 0}),
		"no path":                          begun().json(sayFile, output{"", 0}),
		"a path with a dot":                begun().json(sayFile, output{"a/./b", 0}),
		"a negative size":                  begun().json(sayFile, output{"a", -1}),
		"more than it said":                begun().json(sayFile, output{"a", 1}).frame(sayBytes, []byte("xy")),
		"less than it said":                begun().json(sayFile, output{"a", 2}).frame(sayBytes, []byte("x")).frame(sayDone),
		"an empty piece":                   begun().json(sayFile, output{"a", 2}).frame(sayBytes),
		"a question within":                begun().json(sayFile, output{"a", 2}).frame(askOpen, []byte("b/f")),
		"a piece of nothing":               begun().frame(sayBytes, []byte("x")),
		"a handle that it was not given":   new(said).frame(askRead, readOf(7, 0, 1)),
		"an offset below 0":                new(said).frame(askOpen, []byte("b/f")).frame(askRead, readOf(1, 1<<63, 1)),
		"too much at once, by the window":  new(said).frame(askOpen, []byte("b/f")).frame(askPlace, append(readOf(1, 0, maxPiece+1), 0)),
		"a place that is none":             new(said).frame(askOpen, []byte("b/f")).frame(askPlace, append(readOf(1, 0, 1), places)),
		"a place of no file":               new(said).frame(askPlace, append(readOf(1, 0, 1), 0)),
		"a place before the file":          new(said).frame(askOpen, []byte("b/f")).frame(askPlace, append(readOf(1, 1<<63, 1), 0)),
		"half a place":                     new(said).frame(askOpen, []byte("b/f")).frame(askPlace, readOf(1, 0, 1)),
		"too much at once":                 new(said).frame(askOpen, []byte("b/f")).frame(askRead, readOf(1, 0, maxPiece+1)),
		"nothing at once":                  new(said).frame(askOpen, []byte("b/f")).frame(askRead, readOf(1, 0, 0)),
		"a short question":                 new(said).frame(askRead, []byte{1}),
		"a list from beyond its end":       new(said).frame(askList, []byte{0, 0, 0, 0, 'b'}).frame(askList, []byte{0xff, 0xff, 0xff, 0xff, 'b'}),
		"a list that goes on as another":   new(said).frame(askList, []byte{0, 0, 0, 0, 'b'}).frame(askList, []byte{0, 0, 0, 1, 'c'}),
		"a list without a place":           new(said).frame(askList, []byte{1}),
		"a close of nothing in particular": new(said).frame(askClose, nil),
		"what a compiler says":             new(said).frame(sayMade, []byte("x")),
	} {
		r, _, err := hear(t, s.Bytes())
		if err == nil {
			t.Errorf("%s: it is believed", name)
		}
		for name, content := range r.Outputs() {
			if len(content) > 0 && name != "a" {
				t.Errorf("%s was put: %q", name, content)
			}
		}
		for _, read := range r.Reads() {
			if strings.Contains(name, "after the end") && strings.HasPrefix(read, "open") {
				t.Errorf("%s: %s", name, read)
			}
		}
	}
	for _, head := range [][]byte{{0, 0, 0, 0, 'X'}, {0xff, 0xff, 0xff, 0xff, 'X'}, {0, 0x10, 0, 66, 'X'}, {0, 0, 0, 2, 'X'}, {0, 0}} {
		if _, _, err := hear(t, head); err == nil {
			t.Errorf("the frame %x is believed", head)
		}
	}
}

func TestHandlesAreBounded(t *testing.T) {
	s := new(said)
	for range maxHandles + 100 {
		s.frame(askOpen, []byte("b/f"))
	}
	s.frame(askRead, readOf(maxHandles, 0, 1))
	s.json(sayEnd, ending{Code: 1}).frame(sayDone)
	if _, _, err := hear(t, s.Bytes()); err != nil {
		t.Error(err)
	}
	if _, _, err := hear(t, append(s.Bytes()[:0:0], new(said).frame(askRead, readOf(maxHandles+1, 0, 1)).Bytes()...)); err == nil {
		t.Error("one more is there")
	}
}

// TestWhatIsReadAheadIsWhatIsThere, in whatever order two files are read, from wherever, and closed.
func TestWhatIsReadAheadIsWhatIsThere(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	files := map[string][]byte{"b/0": make([]byte, 5*maxPiece+7), "b/1": make([]byte, 3*maxPiece)}
	for _, b := range files {
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
	}
	r, answers := computetest.NewRun(files), new(bytes.Buffer)
	s := &session{frames: frames{w: answers}, t: r.Task(programs.Load(nil, r, nil)), handles: map[uint32]*handle{}}
	heard := func(want []byte) {
		t.Helper()
		kind, got, err := (&frames{r: answers}).read()
		if err != nil || kind != answer || !bytes.Equal(got, want) {
			t.Fatalf("got %c, %d bytes and %v, want %d bytes that lie there", kind, len(got), err, len(want))
		}
	}
	var err error
	if s.window, err = sandbox.NewWindow(places, maxPiece); err != nil {
		t.Fatal(err)
	}
	defer s.window.Close()
	seen, err := unix.Mmap(int(s.window.File().Fd()), 0, places*maxPiece, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(seen)
	var next uint32
	open := func(i int) uint32 {
		if err := s.serve(t.Context(), askOpen, fmt.Appendf(nil, "b/%d", i)); err != nil {
			t.Fatal(err)
		}
		next++
		heard(binary.BigEndian.AppendUint32(nil, next))
		return next
	}
	ids, at := [2]uint32{open(0), open(1)}, [2]int{}
	aheads := 0
	for range 400 {
		i := rnd.IntN(8) / 6
		content := files[fmt.Sprintf("b/%d", i)]
		n := maxPiece
		switch rnd.IntN(12) {
		case 0:
			at[i] = rnd.IntN(len(content))
		case 1:
			n = 1 + rnd.IntN(maxPiece)
		case 2:
			if err := s.serve(t.Context(), askClose, binary.BigEndian.AppendUint32(nil, ids[i])); err != nil {
				t.Fatal(err)
			}
			heard(nil)
			ids[i], at[i] = open(i), 0
		}
		if at[i] >= len(content) {
			at[i] = 0
		}
		end := min(at[i]+n, len(content))
		if rnd.IntN(8) == 0 {
			place := rnd.IntN(places)
			if err := s.serve(t.Context(), askPlace, append(readOf(ids[i], uint64(at[i]), uint32(n)), byte(place))); err != nil {
				t.Fatal(err)
			}
			heard(binary.BigEndian.AppendUint32(nil, uint32(end-at[i])))
			if !bytes.Equal(seen[place*maxPiece:][:end-at[i]], content[at[i]:end]) {
				t.Fatalf("in the window lies other than %d bytes from %d of %d", end-at[i], at[i], i)
			}
			at[i] = end
			continue
		}
		if s.ahead != nil {
			aheads++
		}
		if err := s.serve(t.Context(), askRead, readOf(ids[i], uint64(at[i]), uint32(n))); err != nil {
			t.Fatal(err)
		}
		heard(content[at[i]:end])
		at[i] = end
	}
	s.close()
	if r.LeftOpen() != 0 || aheads < 50 {
		t.Errorf("%d contents were left open; %d pieces were read ahead", r.LeftOpen(), aheads)
	}
	for _, read := range r.Reads() {
		if !strings.HasPrefix(read, "open b/") {
			t.Errorf("the session has asked: %s", read)
		}
	}
}

// FuzzSession has a session hear anything: it ends, asks for nothing but what it is asked, and leaves nothing open.
func FuzzSession(f *testing.F) {
	f.Add(conversation().json(sayEnd, ending{}).json(sayFile, output{"a/b", 3}).frame(sayBytes, []byte("abc")).frame(sayDone).Bytes())
	f.Add(conversation().json(sayEnd, ending{Code: 3, Memory: true, Fault: "x\x00\x1b[2J"}).frame(sayDone).Bytes())
	f.Add(new(said).json(sayEnd, ending{}).json(sayFile, output{"../x", 1 << 62}).Bytes())
	f.Add(new(said).frame(askList, []byte{0, 0, 0, 0}).frame(askList, []byte{0, 0, 0, 9}).Bytes())
	f.Add(new(said).frame(askOpen, []byte("b/f")).frame(askRead, readOf(1, 1<<62, 9)).frame(askRead, readOf(2, 0, 9)).Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, s, err := hear(t, b)
		if err == nil {
			if x := s.exit(); x.Code != 0 && x.Why == "" || strings.ContainsFunc(x.Why, func(r rune) bool { return r < ' ' }) {
				t.Errorf("got %+v", x)
			}
		}
	})
}
