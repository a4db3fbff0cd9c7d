package filter_test

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/jpeg"
	"strings"
	"testing"

	"redoubt/guard"
	"redoubt/guard/filter"
)

func encodeJPEG(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func jpegOf(b []byte) guard.Content { return guard.Content{Type: filter.JPEG, Bytes: b} }

// between puts a segment after the first marker of a JPEG.
func between(b []byte, marker byte, body string) []byte {
	out := append(bytes.Clone(b[:2]), 0xFF, marker)
	out = binary.BigEndian.AppendUint16(out, uint16(len(body)+2))
	return append(append(out, body...), b[2:]...)
}

func TestAPhotoLeavesAsItLooksAndWithoutMetadata(t *testing.T) {
	s := newSet(t)
	m := picture(320, 200)
	b := between(between(between(encodeJPEG(t, m), 0xE1, "Exif\x00\x00payload-place"), 0xFE, "payload-comment"), 0xE1, "http://ns.adobe.com/xap/1.0/\x00payload-xmp")
	out, seen, err := both(t, s, jpegOf(b))
	if err != nil {
		t.Fatal(err)
	}
	has(t, seen, "no picture")
	if bytes.Contains(out, []byte("payload")) || bytes.Contains(out, []byte("Exif")) {
		t.Error("metadata left")
	}
	clean, err := jpeg.Decode(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	if d := far(t, m, clean); d > 40 {
		t.Errorf("a sample is off by %d", d)
	}
	grey := image.NewGray(image.Rect(0, 0, 33, 17))
	if got := cleanImage(t, s, jpegOf(encodeJPEG(t, grey))); got.Bounds() != grey.Bounds() {
		t.Errorf("got %v", got.Bounds())
	}
}

func TestAPhotoThatIsMoreThanAPhotoIsRefused(t *testing.T) {
	s := newSet(t)
	good := encodeJPEG(t, picture(64, 64))
	huge := bytes.Clone(good)
	at := bytes.Index(huge, []byte{0xFF, 0xC0})
	binary.BigEndian.PutUint16(huge[at+5:], 65000)
	binary.BigEndian.PutUint16(huge[at+7:], 65000)
	for name, c := range map[string]struct {
		b    []byte
		rule string
	}{
		"a ZIP behind it":    {append(bytes.Clone(good), "PK\x03\x04"+strings.Repeat("\x00", 60)...), "follow its end"},
		"another behind it":  {append(bytes.Clone(good), good...), "follow its end"},
		"a script before it": {append([]byte("<script>"), good...), "does not begin"},
		"a PNG":              {encodePNG(t, picture(3, 3)), "does not begin"},
		"cut":                {good[:len(good)-2], "cut off"},
		"only a head":        {good[:30], "cut off"},
		"nothing":            {nil, "does not begin"},
		"a bomb":             {huge, "by"},
		"no picture":         {[]byte{0xFF, 0xD8, 0xFF, 0xD9}, "no JPEG"},
		"a stray marker":     {between(good, 0xD8, "")[:len(good)], "marker"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, s, jpegOf(c.b), c.rule) })
	}
}
