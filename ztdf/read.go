package ztdf

import (
	"bytes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha512"
	"hash"
	"hash/crc32"
	"io"

	"redoubt"
	"redoubt/label"
)

// Options are what a reader has of its own. The zero Options open nothing.
type Options struct {
	Private  any             // *rsa.PrivateKey or *ecdsa.PrivateKey of the key access service: see ParsePrivate
	Trust    []any           // public keys of who signs labels for the partner: see ParsePublic
	Policies []*label.Policy // that a label may be of; none: every built-in one
	Unbound  bool            // take a file whose signature does not cover the digests of payload and policy: see File.Whole
}

// File is a file that was opened: everything in it was authenticated.
type File struct {
	Label      label.Label
	Meta       label.Meta4774
	XML        string // the label as it was signed
	MIME       string
	SizeBytes  int64
	Attributes []string // of the policy; a node does not decide by them
	Signer     any      // the pinned key that signed the label
	Whole      bool     // the signature also covers the payload's and the policy's own digests; see docs/spec/ztdf.md

	archive  *archive
	segments []segment
	aead     cipher.AEAD
}

// Open reads a file of size bytes and authenticates all of it, in the order of docs/spec/ztdf.md, section "Reading". It reads the
// payload once; [File.Reader] reads it again, and again gives out nothing that is not authentic.
func Open(r io.ReaderAt, size int64, o Options) (*File, error) {
	a, err := readArchive(r, size)
	if err != nil {
		return nil, err
	}
	if a.manifest.size > MaxManifestBytes {
		return nil, refused(redoubt.TooLarge, RuleManifest, "the manifest has %d bytes, want %d at most", a.manifest.size, MaxManifestBytes)
	}
	text := make([]byte, a.manifest.size)
	if _, err := r.ReadAt(text, int64(a.manifest.start)); err != nil && err != io.EOF {
		return nil, badZip("the manifest cannot be read: %w", err)
	}
	if crc32.ChecksumIEEE(text) != a.manifest.crc {
		return nil, badZip("the manifest is damaged")
	}
	m, err := readManifest(text)
	if err != nil {
		return nil, err
	}
	f := &File{MIME: m.Payload.MIME, archive: a, segments: m.Encryption.Integrity.Segments}
	var sealed int64
	for _, s := range f.segments {
		f.SizeBytes += s.Size
		sealed += s.SealedBytes
	}
	if uint64(sealed) != a.payload.size {
		return nil, refused(redoubt.Denied, RuleIntegrity, "the payload has %d bytes, and its segments %d", a.payload.size, sealed)
	}
	key, err := m.Encryption.payloadKey(o.Private)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	if f.Attributes, err = readPolicy(m.Encryption.Policy); err != nil {
		return nil, err
	}
	hashes, err := m.Encryption.Integrity.hashes()
	if err != nil {
		return nil, err
	}
	if root, err := decode64(m.Encryption.Integrity.Root.Sig, 32); err != nil || !hmac.Equal(root, mac(key, hashes)) {
		return nil, refused(redoubt.Denied, RuleIntegrity, "the segments are not those that the root signature is of")
	}
	said, err := f.believe(m, hashes, o)
	if err != nil {
		return nil, err
	}
	if f.aead, err = gcm(key); err != nil {
		return nil, err
	}
	if f.Whole = said.Payload != "" && said.Policy != ""; !f.Whole && !o.Unbound {
		return nil, refused(redoubt.Denied, RuleDigest, "the signature covers the segments' tags alone, and no digest of payload and policy")
	}
	if err := f.verify(said, m.Encryption.Policy); err != nil {
		return nil, err
	}
	return f, nil
}

// believe verifies the label and reads it.
func (f *File) believe(m *manifest, hashes []byte, o Options) (claims, error) {
	a, err := m.labelAssertion()
	if err != nil {
		return claims{}, err
	}
	said, by, err := a.verify(hashes, o.Trust)
	if err != nil {
		return claims{}, err
	}
	f.Signer, f.XML = by, a.Statement.Value
	f.Label, f.Meta, err = readLabel(f.XML, o.Policies)
	return said, err
}

// verify reads the whole payload and opens every segment of it. Where the signature covers the payload's digest and the policy's,
// they are held against it: the segments' tags alone do not bind a payload against who has its key (docs/spec/ztdf.md).
func (f *File) verify(said claims, policy string) error {
	sum, crc := sha512.New384(), crc32.NewIEEE()
	r := f.reader(sum, crc)
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	if crc.Sum32() != f.archive.payload.crc {
		return badZip("the payload is damaged")
	}
	p := sha512.Sum384([]byte(policy))
	for _, d := range []struct {
		said string
		is   []byte
		what string
	}{{said.Payload, sum.Sum(nil), "payload"}, {said.Policy, p[:], "policy"}} {
		if d.said != "" && !same(d.said, b64.EncodeToString(d.is)) {
			return refused(redoubt.Denied, RuleIntegrity, "the %s is not the one that the label was signed for", d.what)
		}
	}
	return nil
}

// hashes are the segments' hashes, one behind the other.
func (in *integrity) hashes() (all []byte, err error) {
	for i, s := range in.Segments {
		h, err := decode64(s.Hash, tagBytes)
		if err != nil || len(h) != tagBytes {
			return nil, badManifest("the hash of segment %d is no tag of %d bytes", i, tagBytes)
		}
		all = append(all, h...)
	}
	return all, nil
}

// readPolicy reads the policy, once it is known to be the one that the key is bound to.
func readPolicy(text string) (attributes []string, err error) {
	raw, err := decode64(text, MaxPolicyBytes)
	if err != nil {
		return nil, refused(redoubt.Invalid, RulePolicy, "the policy: %w", err)
	}
	var p policyObject
	if err := strictJSON(raw, policyKeys, &p); err != nil {
		return nil, refused(redoubt.Invalid, RulePolicy, "the policy: %w", err)
	}
	if len(p.Body.Dissem) > 0 {
		return nil, refused(redoubt.Denied, RulePolicy, "the policy names %d persons, who alone may read it: no label says that", len(p.Body.Dissem))
	}
	if len(p.Body.Attributes) > MaxAttributes {
		return nil, refused(redoubt.Invalid, RulePolicy, "the policy has %d attributes, want %d at most", len(p.Body.Attributes), MaxAttributes)
	}
	for _, a := range p.Body.Attributes {
		if !validFQN(a.Attribute) {
			return nil, refused(redoubt.Invalid, RulePolicy, "%q is no attribute", clip(a.Attribute))
		}
		attributes = append(attributes, a.Attribute)
	}
	return attributes, nil
}

// Reader gives the content. An error of it means that the file was changed after it was opened.
func (f *File) Reader() io.Reader { return f.reader() }

func (f *File) reader(also ...hash.Hash) *segmentReader {
	return &segmentReader{f: f, also: also, at: int64(f.archive.payload.start)}
}

// segmentReader opens one segment after the other.
type segmentReader struct {
	f    *File
	also []hash.Hash // of the sealed bytes
	at   int64
	next int
	buf  []byte // sealed
	open []byte // opened
	left []byte // of that, what is not given out yet
}

func (r *segmentReader) Read(p []byte) (int, error) {
	for len(r.left) == 0 {
		if r.next == len(r.f.segments) {
			return 0, io.EOF
		}
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

func (r *segmentReader) fill() error {
	s := r.f.segments[r.next]
	if int64(cap(r.buf)) < s.SealedBytes {
		r.buf = make([]byte, s.SealedBytes)
	}
	r.buf = r.buf[:s.SealedBytes]
	if n, err := r.f.archive.r.ReadAt(r.buf, r.at); n != len(r.buf) {
		return refused(redoubt.Denied, RuleIntegrity, "segment %d cannot be read: %w", r.next, err)
	}
	for _, h := range r.also {
		h.Write(r.buf)
	}
	tag, err := decode64(s.Hash, tagBytes)
	if err != nil || !bytes.Equal(tag, r.buf[len(r.buf)-tagBytes:]) {
		return refused(redoubt.Denied, RuleIntegrity, "segment %d is another one", r.next)
	}
	if r.open, err = r.f.aead.Open(r.open[:0], nil, r.buf, nil); err != nil {
		return refused(redoubt.Denied, RuleIntegrity, "segment %d is not authentic", r.next)
	}
	r.left = r.open
	r.at += s.SealedBytes
	r.next++
	return nil
}
