package main

import (
	"bytes"
	"encoding/json"
	"image"
	"image/color"
	"image/png"
	"strings"
	"testing"
	"time"

	"redoubt"
)

// A document is the same to who reads it as JSON, and steers no terminal that it is shown on.
func TestADocumentSteersNoTerminal(t *testing.T) {
	name := "a\u009b2J\x7f\u202etxt.\u2066\u200b\U000E0041\u2028 ç 報告 <&>\x1b\n"
	for what, print := range map[string]func(*app, any) error{"print": (*app).print, "line": (*app).line} {
		var out bytes.Buffer
		if err := print(&app{out: &out}, map[string]string{name: name}); err != nil {
			t.Fatal(err)
		}
		if text := out.String(); visible(text) != text || !strings.Contains(text, `a\u009b2J\u007f\u202etxt.`) || !strings.Contains(text, "ç 報告 <&>") {
			t.Errorf("%s: got %q", what, text)
		}
		var back map[string]string
		if err := json.Unmarshal(out.Bytes(), &back); err != nil || back[name] != name {
			t.Errorf("%s: read back as %q, %v", what, back, err)
		}
	}
}

// TestNothingHidesFromAReviewer: what has no shape of its own stands as an escape.
func TestNothingHidesFromAReviewer(t *testing.T) {
	for in, want := range map[string]string{
		"plan.txt ç 報告\n\t": "plan.txt ç 報告\n\t", "plan\U000E0141": `plan\U000e0141`, "plan\uFE00": `plan\ufe00`, "a\u034Fb": `a\u034fb`, "\u3164": `\u3164`, "\u2800": `\u2800`,
		"\u115F": `\u115f`, "\u00AD": `\u00ad`, "\u202Etxt": `\u202etxt`, "\U000E0041": `\U000e0041`, "\u00A0": `\u00a0`, "\xff": `\xff`, "\x1b[2J": `\x1b[2J`,
	} {
		if got := visible(in); got != want {
			t.Errorf("%q is shown as %s, want %s", in, got, want)
		}
	}
}

// TestNoNameOrReasonPassesForARowOfItsOwn: who asks for a release chooses its name, its reason and its metadata, and reads none of what the
// reviewer is told in their place.
func TestNoNameOrReasonPassesForARowOfItsOwn(t *testing.T) {
	hostile := "x\nsigned by\treviewer-2\x1b[2J"
	var out bytes.Buffer
	a := &app{out: &out, err: &out}
	st := &redoubt.ReleaseStatement{To: "low", Bucket: "high.b", Key: hostile, ContentType: "text/plain", Meta: map[string]string{"b" + hostile: hostile, "a": "first"}, Expires: time.Unix(0, 0)}
	err := a.showRelease(redoubt.Release{ID: "id", Name: redoubt.ObjectName{Bucket: "b", Key: hostile}, Reason: hostile, Why: hostile, Statement: st,
		Findings: []redoubt.Finding{{Step: hostile, Rule: hostile, Detail: hostile}}}, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	a.say("%s", "\x1b[2J")
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "signed by") || strings.ContainsRune(line, '\x1b') {
			t.Errorf("a reviewer is shown the line %q", line)
		}
	}
	if first, second := strings.Index(out.String(), "metadata a "), strings.Index(out.String(), "metadata bx"); first < 0 || second < first {
		t.Errorf("the metadata stands at %d and %d", first, second)
	}
}

// TestAPictureIsDrawnOfAllItsPixels: one that hides what it shows between the pixels that a coarse drawing would take is not drawn as harmless.
func TestAPictureIsDrawnOfAllItsPixels(t *testing.T) {
	img := image.NewRGBA(image.Rect(0, 0, 160, 160))
	for y := range 160 {
		for x := range 160 {
			img.Set(x, y, color.Black)
			if x%10 == 0 && y%10 == 0 {
				img.Set(x, y, color.White)
			}
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	drawn, err := draw(b.Bytes(), 16)
	if err != nil || strings.Contains(drawn, "255;255;255") || !strings.Contains(drawn, "2;2;2") {
		t.Errorf("black with a white pixel in a hundred is drawn as %.60q, %v", drawn, err)
	}
	if !strings.Contains(drawn, "drawn 16 wide") {
		t.Errorf("nothing says that it is drawn smaller than it is: %q", drawn[len(drawn)-80:])
	}
	if small, err := draw(b.Bytes(), 160); err != nil || !strings.Contains(small, "255;255;255") || strings.Contains(small, "wide") {
		t.Errorf("where there is a cell for each pixel: %v", err)
	}
}

// TestANameStaysInItsRow: a name that somebody chose below is shown to who reads above.
func TestANameStaysInItsRow(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out, err: &out}
	w := a.table("KEY", "LABEL")
	w.row("a\x1b[31m\nplan.txt\tSECRET", "UNCLASSIFIED")
	if err := w.flush(); err != nil {
		t.Fatal(err)
	}
	a.say("%s is gone", "b\x1b[2J")
	want := "KEY                          LABEL\n" + `a\x1b[31m\nplan.txt\tSECRET  UNCLASSIFIED` + "\n" + `b\x1b[2J is gone` + "\n"
	if got := out.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
