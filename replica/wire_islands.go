package replica

import (
	"crypto/sha256"
	"encoding/binary"

	"golang.org/x/crypto/cryptobyte"

	"redoubt"
)

// noteIslands is the kind of the note that goes before a hello, in the same precedence: who sends it keeps what comes behind a loss, and knows a
// peer that does. It names what is kept so. A node of an earlier version passes it over, as each note that it does not know.
const noteIslands = "islands"

// islandsOf is what the note says of one version that the hello names: which stretches of it lie apart from its part.
type islandsOf struct {
	Stamp   redoubt.Stamp
	Of      [16]byte         // islandsDigest
	Islands []redoubt.Island // without their digests
}

// islandsDigest is over the place, the length and the digest of each.
func islandsDigest(all []redoubt.Island) [16]byte {
	h := sha256.New()
	for i := range all {
		var b []byte
		b = binary.BigEndian.AppendUint64(b, uint64(all[i].From))
		b = binary.BigEndian.AppendUint64(b, uint64(all[i].SizeBytes))
		h.Write(append(b, all[i].Digest[:]...))
	}
	return [16]byte(h.Sum(nil))
}

func encodeApart(all []islandsOf) []byte {
	var b cryptobyte.Builder
	for _, x := range all {
		b.AddBytes(x.Stamp[:])
		b.AddBytes(x.Of[:])
		b.AddUint8(uint8(len(x.Islands)))
		at := int64(0)
		for _, i := range x.Islands {
			b.AddUint24(uint32(i.From - at))
			b.AddUint24(uint32(i.SizeBytes))
			at = i.From + i.SizeBytes
		}
	}
	return encodeNote(noteIslands, b.BytesOrPanic())
}

// decodeApart reads the body of the note. That islands ascend, and do not lie over one another, there is no way to say otherwise.
func decodeApart(body []byte) (all []islandsOf, err error) {
	s := cryptobyte.String(body)
	for !s.Empty() {
		var x islandsOf
		var n uint8
		if len(all) == redoubt.MaxArrivals || !s.CopyBytes(x.Stamp[:]) || !s.CopyBytes(x.Of[:]) || !s.ReadUint8(&n) || n == 0 || n > redoubt.MaxIslands {
			return nil, errMessage
		}
		at, total := int64(0), int64(0)
		for range n {
			var skip, size uint32
			if !s.ReadUint24(&skip) || !s.ReadUint24(&size) || size == 0 {
				return nil, errMessage
			}
			i := redoubt.Island{From: at + int64(skip), SizeBytes: int64(size)}
			at, total = i.From+i.SizeBytes, total+i.SizeBytes
			x.Islands = append(x.Islands, i)
		}
		if at > segmentHead+maxSegment || total > redoubt.MaxIslandBytes {
			return nil, errMessage
		}
		all = append(all, x)
	}
	return all, nil
}

// noteApart is the note of what is kept apart.
func noteApart(all []kept) []byte {
	var out []islandsOf
	for i := range all {
		if k := &all[i]; len(k.Islands) > 0 {
			out = append(out, islandsOf{k.Stamp, islandsDigest(k.Islands), k.Islands})
		}
	}
	return encodeApart(out)
}

// joinApart adds to what a hello says what the note before it said: of a version that the hello names, behind its part, and once.
func joinApart(all []kept, body []byte) error {
	told, err := decodeApart(body)
	if err != nil {
		return err
	}
	for _, x := range told {
		found := false
		for i := range all {
			if k := &all[i]; k.Stamp == x.Stamp && !found {
				if found = k.Part >= segmentHead && x.Islands[0].From > k.Part && k.Islands == nil; found {
					k.Islands, k.of = x.Islands, x.Of
				}
			}
		}
		if !found {
			return errMessage
		}
	}
	return nil
}
