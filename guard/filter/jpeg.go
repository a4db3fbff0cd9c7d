package filter

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image/jpeg"
)

// quality is that of our own JPEG, which the second filter reads and writes anew at its own.
const quality = 92

// cleanJPEG writes a picture anew: what is seen of it, with noise, and nothing else. That a camera was held sideways is said in what is left
// out, so such a picture lies on its side afterwards.
func cleanJPEG(in, _ []byte, n *notes) ([]byte, error) {
	segments, err := readSegments(in)
	if err != nil {
		return nil, err
	}
	for _, s := range segments {
		if s.marker >= 0xE1 && s.marker <= 0xEF || s.marker == 0xFE {
			n.add("parts that are no picture were taken out", fmt.Sprintf("segment %#02x, %d bytes", s.marker, s.size))
		}
	}
	conf, err := jpeg.DecodeConfig(bytes.NewReader(in))
	if err != nil {
		return nil, refuse("", "it is no JPEG: %v", err)
	}
	if err := size(conf.Width, conf.Height); err != nil {
		return nil, err
	}
	img, err := jpeg.Decode(bytes.NewReader(in))
	if err != nil {
		return nil, refuse("", "it is no JPEG: %v", err)
	}
	clean, err := noisy(img, newNotes("")) // a JPEG has no transparency to be told of
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, clean, &jpeg.Options{Quality: quality}); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// segment is one marker of a JPEG.
type segment struct {
	marker byte
	size   int
	at     int // of what follows its length
}

const maxSegments = 4096

// readSegments finds that a JPEG is whole segments and scans from its first marker to its last, and nothing more.
func readSegments(b []byte) (all []segment, err error) {
	if len(b) < 4 || b[0] != 0xFF || b[1] != 0xD8 {
		return nil, refuse("", "it does not begin as a JPEG does")
	}
	cut := refuse("", "it is cut off, or no JPEG")
	for i := 2; ; {
		for i < len(b) && b[i] == 0xFF && i+1 < len(b) && b[i+1] == 0xFF {
			i++ // fill bytes
		}
		if i+2 > len(b) || b[i] != 0xFF || b[i+1] == 0 || b[i+1] == 0xFF {
			return nil, cut
		}
		m := b[i+1]
		i += 2
		switch {
		case m == 0xD9:
			if i != len(b) {
				return nil, refuse("take off what follows the picture", "%d bytes follow its end", len(b)-i)
			}
			return all, nil
		case m == 0xD8 || m == 0x01 || m >= 0xD0 && m <= 0xD7:
			return nil, refuse("", "a marker %#02x where none may stand", m)
		}
		if i+2 > len(b) {
			return nil, cut
		}
		n := int(binary.BigEndian.Uint16(b[i:]))
		if n < 2 || i+n > len(b) {
			return nil, cut
		}
		if all = append(all, segment{m, n - 2, i + 2}); len(all) > maxSegments {
			return nil, refuse("", "more than %d segments", maxSegments)
		}
		i += n
		if m != 0xDA {
			continue
		}
		for i+1 < len(b) && (b[i] != 0xFF || b[i+1] == 0 || b[i+1] >= 0xD0 && b[i+1] <= 0xD7) { // a scan, up to the next marker
			i++
		}
	}
}

// frame is the height and width that a JPEG states.
func frame(b []byte, segments []segment) []byte {
	for _, s := range segments {
		if s.marker >= 0xC0 && s.marker <= 0xCF && s.marker != 0xC4 && s.marker != 0xC8 && s.marker != 0xCC && s.size >= 5 {
			return b[s.at+1 : s.at+5]
		}
	}
	return nil
}

// bareJPEG agrees where what came out is a JPEG of the same size that has a picture and nothing else.
func bareJPEG(_ context.Context, in, out []byte) error {
	segments, err := readSegments(out)
	if err != nil {
		return fmt.Errorf("what came out: %w", errors.New(err.Error()))
	}
	for _, s := range segments {
		if s.marker >= 0xE1 && s.marker <= 0xEF || s.marker == 0xFE || s.marker == 0xE0 && s.size != 14 { // JFIF, without a picture in it
			return fmt.Errorf("what came out has a segment %#02x", s.marker)
		}
	}
	ours, err := readSegments(in)
	if err != nil {
		return err
	}
	if a, b := frame(in, ours), frame(out, segments); a == nil || !bytes.Equal(a, b) {
		return refuse("", "the two code bases do not agree on its size")
	}
	return nil
}
