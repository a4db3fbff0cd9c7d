package filter

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"slices"
)

// Limits on images.
const (
	MaxSide     = 16384              // pixels of one side
	MaxPixels   = 36 << 20           // of one image: 6K by 6K
	noiseBits   = 2                  // low bits of each sample that are random afterwards
	maxRawBytes = 3*MaxPixels + 1024 // of an image in memory, and its header
)

// grayModel is the colour of pictures that have none.
var grayModel = color.GrayModel

// cleanPNG writes a picture anew: what is seen of it over white, with noise, and nothing else.
func cleanPNG(in, _ []byte, n *notes) ([]byte, error) {
	chunks, err := readChunks(in)
	if err != nil {
		return nil, err
	}
	for _, c := range chunks {
		if !slices.Contains([]string{"IHDR", "PLTE", "tRNS", "IDAT", "IEND"}, c.name) {
			n.add("parts that are no picture were taken out", fmt.Sprintf("%s, %d bytes", printable(c.name), c.size))
		}
		if c.name == "acTL" || c.name == "fcTL" || c.name == "fdAT" {
			return nil, refuse("release it as a picture that stands still", "a picture that moves")
		}
	}
	conf, err := png.DecodeConfig(bytes.NewReader(in))
	if err != nil {
		return nil, refuse("", "it is no PNG: %v", err)
	}
	if err := size(conf.Width, conf.Height); err != nil {
		return nil, err
	}
	img, err := png.Decode(bytes.NewReader(in))
	if err != nil {
		return nil, refuse("", "it is no PNG: %v", err)
	}
	clean, err := noisy(img, n)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := png.Encoder{CompressionLevel: png.BestSpeed} // the second filter compresses it well
	if err := e.Encode(&b, clean); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func size(w, h int) error {
	if w <= 0 || h <= 0 || w > MaxSide || h > MaxSide || int64(w)*int64(h) > MaxPixels {
		return refuse("make it smaller", "a picture of %d by %d, and %d a side and %d in all may be", w, h, MaxSide, MaxPixels)
	}
	return nil
}

// noisy draws a picture over white, 8 bits a sample, and makes the low bits random. What had been hidden in them, in transparent pixels, in
// the order of a palette or in finer shades is gone.
func noisy(img image.Image, n *notes) (image.Image, error) {
	r := img.Bounds()
	if o, ok := img.(interface{ Opaque() bool }); !ok || !o.Opaque() {
		n.add("transparency was laid over white", "")
	}
	if g, ok := img.(*image.Gray); ok {
		out := image.NewGray(image.Rect(0, 0, r.Dx(), r.Dy()))
		for y := range r.Dy() {
			copy(out.Pix[y*out.Stride:][:r.Dx()], g.Pix[g.PixOffset(r.Min.X, r.Min.Y+y):][:r.Dx()])
		}
		return out, addNoise(out.Pix, 0)
	}
	out := image.NewRGBA(image.Rect(0, 0, r.Dx(), r.Dy()))
	overWhite(out, img)
	return out, addNoise(out.Pix, 4)
}

// overWhite draws img on white.
func overWhite(out *image.RGBA, img image.Image) {
	r := img.Bounds()
	for y := range r.Dy() {
		row := out.Pix[y*out.Stride:][:4*r.Dx()]
		for x := range r.Dx() {
			p := row[4*x : 4*x+4 : 4*x+4]
			switch m := img.(type) {
			case *image.RGBA:
				q := m.Pix[m.PixOffset(r.Min.X+x, r.Min.Y+y):]
				blend(p, uint32(q[0]), uint32(q[1]), uint32(q[2]), uint32(q[3]))
			case *image.NRGBA:
				q := m.Pix[m.PixOffset(r.Min.X+x, r.Min.Y+y):]
				a := uint32(q[3])
				blend(p, uint32(q[0])*a/255, uint32(q[1])*a/255, uint32(q[2])*a/255, a)
			default:
				c := color.RGBAModel.Convert(img.At(r.Min.X+x, r.Min.Y+y)).(color.RGBA)
				blend(p, uint32(c.R), uint32(c.G), uint32(c.B), uint32(c.A))
			}
		}
	}
}

// blend sets a pixel to a colour, its alpha multiplied in, over white.
func blend(p []byte, r, g, b, a uint32) {
	white := 255 - a
	p[0], p[1], p[2], p[3] = uint8(min(r+white, 255)), uint8(min(g+white, 255)), uint8(min(b+white, 255)), 255
}

// addNoise makes the low bits of each sample random; of every `skip`th sample, which is alpha, it leaves them.
func addNoise(pix []byte, skip int) error {
	const mask = 1<<noiseBits - 1
	var pool [16 << 10]byte
	have, bits := 0, byte(0)
	for i := range pix {
		if skip > 0 && i%skip == skip-1 {
			continue
		}
		if i%4 == 0 { // one random byte for four samples
			if have == 0 {
				if _, err := rand.Read(pool[:]); err != nil {
					return err
				}
				have = len(pool)
			}
			have--
			bits = pool[have]
		}
		pix[i] = pix[i]&^mask | bits&mask
		bits >>= noiseBits
	}
	return nil
}

// chunk is one part of a PNG.
type chunk struct {
	name string
	size int
}

const pngMagic = "\x89PNG\r\n\x1a\n"

// readChunks finds that a PNG is its magic and whole parts, each with its checksum, from IHDR to IEND, and nothing more.
func readChunks(b []byte) (all []chunk, err error) {
	rest, ok := bytes.CutPrefix(b, []byte(pngMagic))
	if !ok {
		return nil, refuse("", "it does not begin as a PNG does")
	}
	for len(rest) > 0 {
		if len(rest) < 12 {
			return nil, refuse("", "it is cut off")
		}
		n := binary.BigEndian.Uint32(rest)
		if uint64(n)+12 > uint64(len(rest)) {
			return nil, refuse("", "it is cut off")
		}
		body := rest[4 : 8+n]
		if crc32.ChecksumIEEE(body) != binary.BigEndian.Uint32(rest[8+n:]) {
			return nil, refuse("", "a part with a wrong checksum")
		}
		all = append(all, chunk{string(body[:4]), int(n)})
		rest = rest[12+n:]
		switch {
		case (len(all) == 1) != (all[len(all)-1].name == "IHDR"):
			return nil, refuse("", "its header does not stand first and once")
		case all[len(all)-1].name == "IEND":
			if len(rest) > 0 {
				return nil, refuse("take off what follows the picture", "%d bytes follow its end", len(rest))
			}
			return all, nil
		}
	}
	return nil, refuse("", "it has no end")
}

func printable(name string) string { return fmt.Sprintf("%q", name) }

// barePNG agrees where what came out is a PNG of the same size that has a picture and nothing else.
func barePNG(_ context.Context, in, out []byte) error {
	chunks, err := readChunks(out)
	if err != nil {
		return fmt.Errorf("what came out: %w", errors.New(err.Error()))
	}
	for _, c := range chunks {
		if !slices.Contains([]string{"IHDR", "PLTE", "tRNS", "IDAT", "IEND"}, c.name) {
			return fmt.Errorf("what came out has a part %s", printable(c.name))
		}
	}
	const header = len(pngMagic) + 8
	if !bytes.Equal(in[header:header+8], out[header:header+8]) { // width and height; the first filter's PNG has them at the same place
		return refuse("", "the two code bases do not agree on its size")
	}
	return nil
}
