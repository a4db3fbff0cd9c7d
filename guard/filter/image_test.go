package filter_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"strings"
	"testing"

	"redoubt/guard"
	"redoubt/guard/filter"
)

// picture is a smooth one of w by h.
func picture(w, h int) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			m.SetRGBA(x, y, color.RGBA{uint8(x * 255 / w), uint8(y * 255 / h), uint8((x + y) / 8), 255})
		}
	}
	return m
}

func encodePNG(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pngOf(b []byte) guard.Content { return guard.Content{Type: filter.PNG, Bytes: b} }

// part is a chunk of a PNG.
func part(name string, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	b = append(append(b, name...), body...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
}

// with puts parts after the header of a PNG.
func with(b []byte, parts ...[]byte) []byte {
	const header = 8 + 25
	out := bytes.Clone(b[:header])
	for _, p := range parts {
		out = append(out, p...)
	}
	return append(out, b[header:]...)
}

// header is a PNG that claims a size and has one byte of a picture.
func header(w, h uint32, depth, colour byte) []byte {
	body := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, w), h)
	b := append([]byte("\x89PNG\r\n\x1a\n"), part("IHDR", append(body, depth, colour, 0, 0, 0))...)
	return append(append(b, part("IDAT", []byte{0x78, 0x9c, 1, 1, 0, 0xfe, 0xff, 0, 0, 1, 0, 1})...), part("IEND", nil)...)
}

func cleanImage(t *testing.T, s *filter.Set, c guard.Content) image.Image {
	t.Helper()
	out, _, err := both(t, s, c)
	if err != nil {
		t.Fatalf("%v (%s)", err, hint(err))
	}
	m, _, err := image.Decode(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// far is the greatest difference of a sample between two pictures of one size.
func far(t *testing.T, a, b image.Image) (most int) {
	t.Helper()
	if a.Bounds().Size() != b.Bounds().Size() {
		t.Fatalf("got %v, want %v", b.Bounds(), a.Bounds())
	}
	for y := range a.Bounds().Dy() {
		for x := range a.Bounds().Dx() {
			p := color.RGBAModel.Convert(a.At(a.Bounds().Min.X+x, a.Bounds().Min.Y+y)).(color.RGBA)
			q := color.RGBAModel.Convert(b.At(b.Bounds().Min.X+x, b.Bounds().Min.Y+y)).(color.RGBA)
			for _, d := range []int{int(p.R) - int(q.R), int(p.G) - int(q.G), int(p.B) - int(q.B)} {
				most = max(most, d, -d)
			}
		}
	}
	return most
}

func TestAPictureLeavesAsItLooks(t *testing.T) {
	s := newSet(t)
	grey := image.NewGray(image.Rect(0, 0, 100, 50))
	palette := image.NewPaletted(image.Rect(0, 0, 64, 64), color.Palette{color.White, color.Black, color.RGBA{200, 10, 10, 255}})
	deep := image.NewRGBA64(image.Rect(0, 0, 40, 40))
	for y := range 64 {
		for x := range 100 {
			grey.SetGray(x, y, color.Gray{uint8(x * y)})
			palette.SetColorIndex(x%64, y, uint8(x+y)%3)
			deep.SetRGBA64(x%40, y%40, color.RGBA64{uint16(x * 600), uint16(y * 900), 0x1234, 0xffff})
		}
	}
	for name, m := range map[string]image.Image{"RGBA": picture(300, 200), "grey": grey, "palette": palette, "16 bits": deep, "one pixel": picture(1, 1)} {
		if d := far(t, m, cleanImage(t, s, pngOf(encodePNG(t, m)))); d > 3 {
			t.Errorf("%s: a sample is off by %d, and 3 is noise", name, d)
		}
	}
}

func TestTransparencyIsLaidOverWhite(t *testing.T) {
	s := newSet(t)
	m := image.NewNRGBA(image.Rect(0, 0, 32, 32))
	for y := range 32 {
		for x := range 32 {
			m.SetNRGBA(x, y, color.NRGBA{uint8(x * 8), 77, uint8(y * 8), 0}) // a picture that nobody sees
		}
	}
	out, seen, err := both(t, s, pngOf(encodePNG(t, m)))
	if err != nil {
		t.Fatal(err)
	}
	has(t, seen, "transparency")
	clean, err := png.Decode(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	white := image.NewUniform(color.White)
	if d := far(t, clean, &image.RGBA{Pix: bytes.Repeat([]byte{255}, 32*32*4), Stride: 32 * 4, Rect: image.Rect(0, 0, 32, 32)}); d > 3 {
		t.Errorf("what was transparent is off white (%v) by %d", white.C, d)
	}
}

// A payload in the low bits is not there afterwards: what is read of it is as good as a coin's throw.
func TestAPayloadInTheLowBitsDoesNotLeave(t *testing.T) {
	s := newSet(t)
	const side = 256
	for bit := range 2 {
		m := picture(side, side)
		r := rand.New(rand.NewPCG(7, uint64(bit)))
		payload := make([]byte, 3*side*side)
		for i := range payload {
			payload[i] = byte(r.IntN(2))
			p := &m.Pix[i/3*4+i%3]
			*p = *p&^(1<<bit) | payload[i]<<bit
		}
		clean := cleanImage(t, s, pngOf(encodePNG(t, m)))
		same := 0
		for i, want := range payload {
			c := color.RGBAModel.Convert(clean.At(i/3%side, i/3/side)).(color.RGBA)
			if [3]uint8{c.R, c.G, c.B}[i%3]>>bit&1 == want {
				same++
			}
		}
		// 196,608 throws: the mean is half of them, six deviations are 1,330.
		if half := len(payload) / 2; same < half-1330 || same > half+1330 {
			t.Errorf("bit %d: %d of %d bits of the payload are there", bit, same, len(payload))
		}
	}
}

func TestMetadataOfAPictureDoesNotLeave(t *testing.T) {
	s := newSet(t)
	secret := []byte("Comment\x00payload-in-the-margin")
	b := with(encodePNG(t, picture(40, 40)), part("tEXt", secret), part("iTXt", append([]byte("XML:com.adobe.xmp\x00\x00\x00\x00\x00"), secret...)), part("eXIf", append([]byte("MM\x00*"), secret...)),
		part("zTXt", secret), part("prVt", secret), part("pHYs", make([]byte, 9)))
	out, seen, err := both(t, s, pngOf(b))
	if err != nil {
		t.Fatal(err)
	}
	has(t, seen, "no picture")
	for _, name := range []string{"payload", "tEXt", "iTXt", "eXIf", "zTXt", "prVt", "pHYs", "tIME"} {
		if bytes.Contains(out, []byte(name)) {
			t.Errorf("%s left", name)
		}
	}
}

func TestAPictureThatIsMoreThanAPictureIsRefused(t *testing.T) {
	s := newSet(t)
	good := encodePNG(t, picture(20, 20))
	zip := "PK\x03\x04" + strings.Repeat("\x00", 60)
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	for name, c := range map[string]struct {
		b    []byte
		rule string
	}{
		"a ZIP behind it":     {append(bytes.Clone(good), zip...), "follow its end"},
		"one byte behind it":  {append(bytes.Clone(good), 0), "follow its end"},
		"a ZIP before it":     {append([]byte(zip), good...), "does not begin"},
		"a GIF":               {[]byte("GIF89a/*\x01\x00\x01\x00\x00\x00\x00*/=1;alert(1)"), "does not begin"},
		"a JPEG":              {[]byte("\xff\xd8\xff\xe0"), "does not begin"},
		"a script":            {[]byte("<svg onload=alert(1)>"), "does not begin"},
		"nothing":             {nil, "does not begin"},
		"cut":                 {good[:len(good)-5], "cut off"},
		"no end":              {good[:len(good)-12], "no end"},
		"a bit turned":        {flipped, "checksum"},
		"a moving picture":    {with(good, part("acTL", make([]byte, 8))), "moves"},
		"two headers":         {with(good, good[8:33]), "header"},
		"a bomb":              {header(100000, 100000, 8, 2), "by"},
		"a wide one":          {header(filter.MaxSide+1, 1, 8, 2), "by"},
		"too many pixels":     {header(8192, filter.MaxPixels/8192+1, 8, 2), "by"},
		"no pixels":           {header(0, 10, 8, 2), ""},
		"less than it claims": {header(4096, 4096, 8, 2), "no PNG"},
		"another colour":      {header(1, 1, 8, 7), "no PNG"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, s, pngOf(c.b), c.rule) })
	}
}

func TestPicturesAtTheLimitPass(t *testing.T) {
	if testing.Short() {
		t.Skip("pictures of 36 megapixels")
	}
	s := newSet(t)
	for _, r := range []image.Rectangle{image.Rect(0, 0, filter.MaxSide, 1), image.Rect(0, 0, 8192, filter.MaxPixels/8192)} {
		if m := cleanImage(t, s, pngOf(encodePNG(t, image.NewGray(r)))); m.Bounds() != r {
			t.Errorf("got %v, want %v", m.Bounds(), r)
		}
	}
}
