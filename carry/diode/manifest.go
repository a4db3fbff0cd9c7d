package diode

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"redoubt"
	"redoubt/bundle"
)

// Limits of a manifest.
const (
	maxBlocks        = bundle.MaxSealedBytes / bundle.LeafBytes
	maxManifestBytes = manifestFixed + 12 + bundle.MaxHeadBytes + bundle.TrailerBytes + maxBlocks*sha256.Size
	maxPieces        = maxManifestBytes/(MinDatagram-headBytes) + 1 // 18,740

	manifestFormat = 1
	bareFormat     = 2 // without digests
	manifestFixed  = 1 + 2 + 2 + 2 + 2
)

// geometry says how a bundle's sealed content is cut: into blocks of bundle.LeafBytes, each into shards.
type geometry struct {
	shardBytes int
	parity     int // shards of a full block; 0 where the last block is the only one
	lastParity int // of the last block, which may be full
	sealed     int64
}

func (g *geometry) blocks() int { return int(ceil(g.sealed, bundle.LeafBytes)) }

func (g *geometry) blockLen(block int) int {
	return int(min(bundle.LeafBytes, g.sealed-int64(block)*bundle.LeafBytes))
}

// data is how many shards hold a block's content; the last is filled up with zeros.
func (g *geometry) data(block int) int {
	return int(ceil(int64(g.blockLen(block)), int64(g.shardBytes)))
}

func (g *geometry) parityOf(block int) int {
	if block == g.blocks()-1 {
		return g.lastParity
	}
	return g.parity
}

func (g *geometry) shards(block int) int { return g.data(block) + g.parityOf(block) }

// most is the number of shards of the block that has most.
func (g *geometry) most() int { return max(g.shards(0), g.shards(g.blocks()-1)) }

// parityBytes is what the parity of all blocks takes.
func (g *geometry) parityBytes() int64 {
	return (int64(g.blocks()-1)*int64(g.parity) + int64(g.lastParity)) * int64(g.shardBytes)
}

func ceil(n, by int64) int64 { return (n + by - 1) / by }

// maxParity bounds the parity of a block of so many data shards: more than half of all datagrams lost has no use for a code.
func maxParity(data int) int { return min(2*data+128, maxShards-data) }

// maxShards is what the code takes in one block.
const maxShards = 65535

func (g *geometry) check() error {
	switch {
	case g.shardBytes < MinDatagram-headBytes || g.shardBytes > MaxDatagram-headBytes || g.shardBytes%shardUnit != 0:
		return errors.New("a shard of another size")
	case g.sealed < 1 || g.sealed > bundle.MaxSealedBytes:
		return errors.New("content of no size")
	case g.blocks() == 1 && g.parity != 0:
		return errors.New("parity of blocks that are not there")
	case g.parity > maxParity(g.data(0)) || g.lastParity > maxParity(g.data(g.blocks()-1)):
		return errors.New("more parity than any loss needs")
	}
	return nil
}

// manifest says what is sent, and how it is cut. Its raw form is the one that there is, and gives the transfer its name.
type manifest struct {
	geometry
	*bundle.Outline
	id  transferID
	raw []byte
}

func newManifest(o *bundle.Outline, g geometry) (*manifest, error) {
	g.sealed = o.SealedBytes
	if err := g.check(); err != nil {
		return nil, &redoubt.Error{Op: "diode.manifest", Kind: redoubt.Invalid, Err: err}
	}
	b := make([]byte, 0, manifestFixed+len(o.Start)+len(o.End)+len(o.Leaves)*sha256.Size)
	format := byte(manifestFormat)
	if len(o.Leaves) == 0 {
		format = bareFormat
	}
	b = append(b, format)
	for _, n := range []int{g.shardBytes, g.parity, g.lastParity, len(o.Start)} {
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	}
	b = append(append(b, o.Start...), o.End...)
	for i := range o.Leaves {
		b = append(b, o.Leaves[i][:]...)
	}
	return &manifest{geometry: g, Outline: o, id: idOf(b), raw: b}, nil
}

func idOf(raw []byte) transferID {
	h := sha256.New()
	h.Write([]byte("redoubt diode manifest v1\n"))
	h.Write(raw)
	return transferID(h.Sum(nil)[:16])
}

var errManifest = &redoubt.Error{Op: "diode.manifest", Kind: redoubt.Invalid, Err: errors.New("not a manifest of this format")}

// decodeManifest reads the one form of a manifest. The digests are those that the bundle's end is about; who signed that is not asked.
func decodeManifest(raw []byte) (*manifest, error) {
	if len(raw) < manifestFixed || len(raw) > maxManifestBytes || raw[0] != manifestFormat && raw[0] != bareFormat {
		return nil, errManifest
	}
	var n [4]int
	for i := range n {
		n[i] = int(binary.BigEndian.Uint16(raw[1+2*i:]))
	}
	rest := raw[manifestFixed:]
	if len(rest) < n[3]+bundle.TrailerBytes || (len(rest)-n[3]-bundle.TrailerBytes)%sha256.Size != 0 {
		return nil, errManifest
	}
	start, end, digests := rest[:n[3]], rest[n[3]:n[3]+bundle.TrailerBytes], rest[n[3]+bundle.TrailerBytes:]
	var o *bundle.Outline
	var err error
	if raw[0] == bareFormat {
		o, err = bundle.NewBareOutline(start, end)
	} else {
		leaves := make([][sha256.Size]byte, len(digests)/sha256.Size)
		for i := range leaves {
			copy(leaves[i][:], digests[i*sha256.Size:])
		}
		o, err = bundle.NewOutline(start, end, leaves)
	}
	if err != nil {
		return nil, err
	}
	m, err := newManifest(o, geometry{shardBytes: n[0], parity: n[1], lastParity: n[2]})
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(m.raw, raw) {
		return nil, errManifest
	}
	return m, nil
}

// bare says whether no block can be held against a digest: each is what came under the key.
func (m *manifest) bare() bool { return m.raw[0] == bareFormat }

// pieces is how many datagrams the manifest takes.
func (m *manifest) pieces() int { return int(ceil(int64(len(m.raw)), int64(m.shardBytes))) }

func (m *manifest) piece(i int) []byte {
	return m.raw[i*m.shardBytes : min((i+1)*m.shardBytes, len(m.raw))]
}
