package replica

import (
	"bytes"
	"errors"
	"testing"

	"redoubt"
)

// note is the body of one, written by hand: numbers are of 3 bytes, texts as they are.
func note(parts ...any) (b []byte) {
	for _, p := range parts {
		switch p := p.(type) {
		case byte:
			b = append(b, p)
		case int:
			b = append(b, byte(p>>16), byte(p>>8), byte(p))
		case redoubt.Stamp:
			b = append(b, p[:]...)
			b = append(b, make([]byte, 16)...)
		}
	}
	return b
}

func TestANoteOfIslandsThatCannotBeEndsTheMeeting(t *testing.T) {
	other := redoubt.Stamp{3}
	says := func() []kept {
		return []kept{{Arrival: redoubt.Arrival{Set: "S", Stamp: baseStamp, Part: 100}}, {Arrival: redoubt.Arrival{Set: "S", Stamp: nextStamp, Part: 4}}}
	}
	many := []any{baseStamp, byte(redoubt.MaxIslands), 101, 1}
	for range redoubt.MaxIslands - 1 {
		many = append(many, 0, 1)
	}
	for what, body := range map[string][]byte{
		"nothing":                nil,
		"one":                    note(baseStamp, byte(1), 101, 50),
		"as many as may be":      note(many...),
		"as large as may be":     note(baseStamp, byte(1), 101, redoubt.MaxIslandBytes),
		"as far as it may reach": note(baseStamp, byte(1), segmentHead+maxSegment-10, 10),
	} {
		if err := joinApart(says(), body); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	many[1] = byte(redoubt.MaxIslands + 1)
	var versions []byte
	for i := range byte(redoubt.MaxArrivals + 1) {
		versions = append(versions, note(redoubt.Stamp{i}, byte(1), 101, 1)...)
	}
	for what, body := range map[string][]byte{
		"of a version that was not told": note(other, byte(1), 101, 50),
		"of a version without a part":    note(nextStamp, byte(1), 101, 50),
		"twice":                          append(note(baseStamp, byte(1), 101, 50), note(baseStamp, byte(1), 101, 50)...),
		"none":                           note(baseStamp, byte(0)),
		"one too many":                   note(append(many, 0, 1)...),
		"of nothing":                     note(baseStamp, byte(1), 101, 0),
		"within the part":                note(baseStamp, byte(1), 99, 50),
		"touching the part":              note(baseStamp, byte(1), 100, 50),
		"too large":                      note(baseStamp, byte(1), 101, redoubt.MaxIslandBytes+1),
		"together too large":             note(baseStamp, byte(2), 101, redoubt.MaxIslandBytes, 1, 1),
		"beyond a segment":               note(baseStamp, byte(1), segmentHead+maxSegment-10, 11),
		"far beyond":                     note(baseStamp, byte(1), 1<<24-1, 1),
		"cut off":                        note(baseStamp, byte(1), 101, 50)[:37],
		"a byte over":                    append(note(baseStamp, byte(1), 101, 50), 0),
		"of too many versions":           versions,
	} {
		if err := joinApart(says(), body); !errors.Is(err, errMessage) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Its place is before the hello.
	s := receiving(new(holder))
	if err := s.serve(t.Context(), redoubt.Flash, encodeApart(nil)); !errors.Is(err, errMessage) {
		t.Errorf("behind the hello: %v", err)
	}
}

// FuzzIslands looks for notes of which two mean the same, or that are taken for more than they may say.
func FuzzIslands(f *testing.F) {
	f.Add(note(baseStamp, byte(2), 101, 50, 1, 7))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		all := []kept{{Arrival: redoubt.Arrival{Stamp: baseStamp, Part: 100}}}
		told, err := decodeApart(body)
		if err != nil {
			if joinApart(all, body) == nil {
				t.Fatal("what is malformed is joined")
			}
			return
		}
		if _, again, err := decodeNote(encodeApart(told)); err != nil || !bytes.Equal(again, body) {
			t.Fatalf("%x is read as %x, %v", body, again, err)
		}
		if joinApart(all, body) != nil {
			return
		}
		at := all[0].Part + 1
		for _, i := range all[0].Islands {
			if i.From < at || i.SizeBytes <= 0 || i.From+i.SizeBytes > segmentHead+maxSegment {
				t.Fatalf("%+v", all[0].Islands)
			}
			at = i.From + i.SizeBytes
		}
		packed := make([]byte, 300)
		if lacked, same := sameIslands(&all[0], packed); same && lacked.total() >= len(packed) {
			t.Fatalf("%v lack of %d", lacked, len(packed))
		}
	})
}
