package wasm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"

	"redoubt"
)

// answering is a file of this content, and what answers who reads it. wrong, where it is not nil, has the last word on an answer.
func answering(t *testing.T, content []byte, windowed bool, wrong func([]byte) []byte) (f *file, asked *int) {
	t.Helper()
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	done, n := make(chan struct{}), 0
	var window []byte
	if windowed {
		window = make([]byte, places*maxPiece)
	}
	go func() {
		defer close(done)
		defer inW.Close()
		w := frames{r: outR, w: inW}
		for {
			kind, body, err := w.read()
			if err != nil {
				return
			}
			switch kind {
			case askOpen:
				err = w.write(answer, []byte{0, 0, 0, 7})
			case askPlace:
				n++
				at, size := binary.BigEndian.Uint64(body[4:]), uint64(binary.BigEndian.Uint32(body[12:]))
				place := int(body[16])
				for i := range window[place*maxPiece:][:maxPiece] { // whoever has not taken out what lay there has lost it
					window[place*maxPiece+i] = 0xa5
				}
				m := copy(window[place*maxPiece:][:maxPiece], content[min(at, uint64(len(content))):min(at+size, uint64(len(content)))])
				told := binary.BigEndian.AppendUint32(nil, uint32(m))
				if wrong != nil {
					told = binary.BigEndian.AppendUint32(nil, uint32(len(wrong(make([]byte, m)))))
				}
				err = w.write(answer, told)
			case askRead:
				n++
				at, size := binary.BigEndian.Uint64(body[4:]), uint64(binary.BigEndian.Uint32(body[12:]))
				piece := content[min(at, uint64(len(content))):min(at+size, uint64(len(content)))]
				if wrong != nil {
					piece = wrong(piece)
				}
				err = w.write(answer, piece)
			default:
				err = w.write(answer)
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		outW.Close()
		<-done
		outR.Close()
		inR.Close()
	})
	return &file{in: inputs{&worker{frames: frames{r: inR, w: outW}, window: window}}, path: "b/f", info: info{redoubt.JobFile{Name: "f", Bytes: int64(len(content))}}}, &n
}

// both runs a test of reads by frames and by a window.
func both(t *testing.T, f func(t *testing.T, windowed bool)) {
	t.Run("by frames", func(t *testing.T) { f(t, false) })
	t.Run("by a window", func(t *testing.T) { f(t, true) })
}

// TestAModuleReadsWhatLiesThere, however much it has room for, from wherever, and be it of two files in turn.
func TestAModuleReadsWhatLiesThere(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	content := make([]byte, 4*maxPiece+77)
	for i := range content {
		content[i] = byte(rnd.Uint32())
	}
	both(t, func(t *testing.T, windowed bool) {
		f, _ := answering(t, content, windowed, nil)
		other := *f
		files := []*file{f, &other}
		room := make([]byte, 2*maxPiece)
		for range 400 {
			f := files[rnd.IntN(8)/7]
			p := room[:1+rnd.IntN([]int{100, maxPiece - 1, len(room) - 1}[rnd.IntN(3)])]
			if rnd.IntN(6) == 0 {
				if _, err := f.Seek(rnd.Int64N(int64(len(content))), io.SeekStart); err != nil {
					t.Fatal(err)
				}
			}
			at := f.at
			n, err := f.Read(p)
			if at == int64(len(content)) {
				if n != 0 || err != io.EOF {
					t.Fatalf("got %d and %v at the end", n, err)
				}
				f.at = 0
				continue
			}
			if err != nil || n == 0 || !bytes.Equal(p[:n], content[at:at+int64(n)]) {
				t.Fatalf("got %d and %v of %d bytes from %d", n, err, len(p), at)
			}
		}
		for _, f := range files {
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestLargeReadsAreAskedForOnce: what has room for a piece has it in its own memory, and what has less finds the rest of one there.
func TestLargeReadsAreAskedForOnce(t *testing.T) {
	both(t, func(t *testing.T, windowed bool) {
		for name, size := range map[string]int{"large": 2 * maxPiece, "as large as a piece": maxPiece, "small": 4096} {
			f, asked := answering(t, make([]byte, 8*maxPiece), windowed, nil)
			var err error
			for b := make([]byte, size); err == nil; {
				_, err = f.Read(b)
			}
			if err != io.EOF {
				t.Fatal(err)
			}
			if *asked != 8 {
				t.Errorf("%s: it asked %d times for 8 pieces", name, *asked)
			}
			if name != "small" && f.piece != nil {
				t.Errorf("%s: it was copied", name)
			}
		}
	})
}

// TestAnAnswerIsNoLongerThanWhatWasAskedFor: what is behind a module's room is not written over, and a file does not end before its size.
func TestAnAnswerIsNoLongerThanWhatWasAskedFor(t *testing.T) {
	both(t, func(t *testing.T, windowed bool) {
		for name, wrong := range map[string]func([]byte) []byte{
			"longer": func(b []byte) []byte { return append(bytes.Clone(b), 1) },
			"none":   func([]byte) []byte { return nil },
		} {
			f, _ := answering(t, make([]byte, 2*maxPiece), windowed, wrong)
			room := make([]byte, maxPiece+100)
			for _, p := range [][]byte{room[:maxPiece], room[:100]} {
				if n, err := f.ReadAt(p, 0); n != 0 || !errors.Is(err, syscall.EIO) {
					t.Errorf("%s: got %d and %v", name, n, err)
				}
			}
			if !bytes.Equal(room, make([]byte, len(room))) {
				t.Errorf("%s: the room was written to", name)
			}
		}
	})
}
