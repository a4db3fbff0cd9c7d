package keys

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
)

// Limits of a keyring, each with what it is for.
const (
	MaxLabelBytes  = 8 << 10  // a canonical label text with every nation and compartment
	MaxLabels      = 1 << 16  // distinct labels of one enclave
	MaxEpochs      = 1 << 16  // live epochs of one label
	MaxNameBytes   = 256      // the name of a secret
	MaxSecretBytes = 64 << 10 // a certificate chain with its key
	MaxSecrets     = 1 << 12
	maxFileBytes   = 256 << 20 // what Open reads at most

	bodyBlock   = 4096 // the body is padded, so its length tells little of how many labels there are
	bodyVersion = 1
)

// body is the content of a keyring: all of its secrets. Its owner is Keyring.mu.
type body struct {
	enclave [32]byte // the enclave key
	seed    [32]byte // of the Ed25519 signing key
	labels  map[string]*labelEpochs
	secrets map[string][]byte
}

// labelEpochs are the keys of one label. Epochs count from 1 and are never used twice:
// one below next that is not live was destroyed.
type labelEpochs struct {
	next uint32               // the number of the next epoch
	live map[uint32]*[32]byte // keys of live epochs
}

// current is the newest live epoch, the one that new data keys are wrapped under; 0 when
// the last one made was destroyed, even if older ones live.
func (l *labelEpochs) current() uint32 {
	if _, ok := l.live[l.next-1]; ok {
		return l.next - 1
	}
	return 0
}

// clone copies the maps and shares the key arrays, which are only ever wiped, never changed.
func (b *body) clone() *body {
	c := &body{enclave: b.enclave, seed: b.seed,
		labels: make(map[string]*labelEpochs, len(b.labels)), secrets: make(map[string][]byte, len(b.secrets))}
	for text, l := range b.labels {
		n := &labelEpochs{next: l.next, live: make(map[uint32]*[32]byte, len(l.live))}
		for e, key := range l.live {
			n.live[e] = key
		}
		c.labels[text] = n
	}
	for name, value := range b.secrets {
		c.secrets[name] = value
	}
	return c
}

// wipe overwrites every key.
func (b *body) wipe() {
	clear(b.enclave[:])
	clear(b.seed[:])
	for _, l := range b.labels {
		for _, key := range l.live {
			clear(key[:])
		}
	}
	for _, value := range b.secrets {
		clear(value)
	}
}

// encode gives the one encoding of b, padded to whole blocks. Integers are big-endian,
// labels, epochs and names in ascending order.
func (b *body) encode() []byte {
	size := 1 + 64 + 4 + 4
	for text, l := range b.labels {
		size += 2 + len(text) + 8 + 36*len(l.live)
	}
	for name, value := range b.secrets {
		size += 2 + len(name) + 4 + len(value)
	}
	size = (size + bodyBlock - 1) / bodyBlock * bodyBlock
	out := make([]byte, 0, size) // exactly: growing would leave copies of keys behind
	out = append(out, bodyVersion)
	out = append(out, b.enclave[:]...)
	out = append(out, b.seed[:]...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(b.labels)))
	for _, text := range sorted(b.labels) {
		l := b.labels[text]
		out = binary.BigEndian.AppendUint16(out, uint16(len(text)))
		out = append(out, text...)
		out = binary.BigEndian.AppendUint32(out, l.next)
		out = binary.BigEndian.AppendUint32(out, uint32(len(l.live)))
		for _, e := range sorted(l.live) {
			out = binary.BigEndian.AppendUint32(out, e)
			out = append(out, l.live[e][:]...)
		}
	}
	out = binary.BigEndian.AppendUint32(out, uint32(len(b.secrets)))
	for _, name := range sorted(b.secrets) {
		out = binary.BigEndian.AppendUint16(out, uint16(len(name)))
		out = append(out, name...)
		out = binary.BigEndian.AppendUint32(out, uint32(len(b.secrets[name])))
		out = append(out, b.secrets[name]...)
	}
	return out[:size]
}

func sorted[K cmp.Ordered, V any](m map[K]V) []K {
	all := make([]K, 0, len(m))
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// decodeBody reads what encode wrote and nothing else: order, lengths and padding are checked.
func decodeBody(in []byte) (*body, error) {
	r := reader{in: in}
	b := &body{labels: map[string]*labelEpochs{}, secrets: map[string][]byte{}}
	r.check(len(in)%bodyBlock == 0, "length")
	r.check(r.byte() == bodyVersion, "version")
	copy(b.enclave[:], r.take(32))
	copy(b.seed[:], r.take(32))
	last := ""
	for i, n := uint32(0), r.count(MaxLabels); i < n && r.err == nil; i++ {
		text := string(r.take(int(r.uint16())))
		r.check(text != "" && len(text) <= MaxLabelBytes && (i == 0 || text > last), "label")
		last = text
		l := &labelEpochs{next: r.uint32(), live: map[uint32]*[32]byte{}}
		r.check(l.next > 1, "epoch") // a label enters with its first epoch
		previous := uint32(0)
		for m := r.count(MaxEpochs); m > 0 && r.err == nil; m-- {
			e := r.uint32()
			r.check(e > previous && e < l.next, "epoch")
			previous = e
			l.live[e] = new([32]byte)
			copy(l.live[e][:], r.take(32))
		}
		b.labels[text] = l
	}
	last = ""
	for i, n := uint32(0), r.count(MaxSecrets); i < n && r.err == nil; i++ {
		name := string(r.take(int(r.uint16())))
		r.check(name != "" && len(name) <= MaxNameBytes && (i == 0 || name > last), "name")
		last = name
		size := r.uint32()
		r.check(size <= MaxSecretBytes, "secret")
		if r.err == nil {
			b.secrets[name] = slices.Clone(r.take(int(size)))
		}
	}
	r.check(len(r.in) < bodyBlock, "padding")
	for _, c := range r.in {
		r.check(c == 0, "padding")
	}
	if r.err != nil {
		b.wipe()
		return nil, r.err
	}
	return b, nil
}

// reader takes fields off in; after the first fault it gives zeros and keeps the fault,
// which names the field and never its content.
type reader struct {
	in  []byte
	err error
}

func (r *reader) check(ok bool, what string) {
	if !ok && r.err == nil {
		r.err = errors.New("bad " + what)
	}
}

func (r *reader) take(n int) []byte {
	if r.err == nil && (n < 0 || n > len(r.in)) {
		r.err = errors.New("ends early")
	}
	if r.err != nil {
		return nil
	}
	out := r.in[:n:n]
	r.in = r.in[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) count(most uint32) uint32 {
	n := r.uint32()
	r.check(n <= most, "count")
	if r.err != nil {
		return 0
	}
	return n
}
