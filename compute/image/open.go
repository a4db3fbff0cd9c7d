package image

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"redoubt"
)

// maxWindow bounds what unpacking a layer may hold in memory: the largest window that zstd asks its readers to take.
const maxWindow = 8 << 20

// Objects opens the newest version that its caller may see.
type Objects interface {
	Object(ctx context.Context, name redoubt.ObjectName) (redoubt.Version, redoubt.Content, error)
}

// Shelf opens, and gives the keys of a bucket that begin with a prefix, as its caller may see them: at most so many, in order. A redoubt.JobRun is one.
type Shelf interface {
	Objects
	Names(ctx context.Context, bucket redoubt.BucketName, prefix string, most int) ([]string, error)
}

// Image is an image that can be run.
type Image struct {
	Reference Reference // as it was asked for
	Root      Digest    // what the reference means: of an index, or the same as Digest
	Digest    Digest    // of the manifest for the platform
	Config    *Config
	ConfigID  Digest
	Layers    []Descriptor // lowest first; as many as Config.RootFS.DiffIDs

	shelf Shelf
}

// Open resolves a reference to the image for a platform. NotFound: there is none that the reader may see. Invalid: it cannot be run here, or is
// not what its digest says; the error's Rule says why.
func Open(ctx context.Context, o Shelf, ref Reference, on Platform) (*Image, error) {
	found := &Image{Reference: ref, Root: ref.Digest, shelf: o}
	var err error
	if found.Root.IsZero() {
		if found.Root, err = ResolveTag(ctx, o, ref.Repository, ref.Tag); err != nil {
			return nil, missing(err, ref)
		}
	}
	found.Digest = found.Root
	m, err := OpenManifest(ctx, o, ref.Repository, found.Root)
	if err != nil {
		return nil, missing(err, ref)
	}
	if m.Index() {
		if found.Digest, err = choose(m, on); err != nil {
			return nil, err
		}
		if m, err = OpenManifest(ctx, o, ref.Repository, found.Digest); err != nil {
			return nil, missing(err, ref)
		}
		if m.Index() {
			return nil, invalid("open", "an index within an index is not followed")
		}
	}
	if m.Config.MediaType != TypeConfig && m.Config.MediaType != TypeDockerConfig {
		return nil, invalid("open", "it is an artifact of another kind, not an image that can be run")
	}
	raw, err := readBlob(ctx, o, ref.Repository, *m.Config, MaxConfigBytes)
	if err != nil {
		return nil, missing(err, ref)
	}
	if found.Config, err = ReadConfig(raw); err != nil {
		return nil, err
	}
	found.ConfigID, found.Layers = m.Config.Digest, m.Layers
	if !on.runs(&found.Config.Platform) {
		return nil, invalid("open", "the image is for %q, and this node runs %s", found.Config.Platform.String(), on)
	}
	if len(m.Layers) != len(found.Config.RootFS.DiffIDs) {
		return nil, invalid("open", "its manifest and its configuration do not name as many layers")
	}
	for _, l := range m.Layers {
		if _, err := packing(l.MediaType); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// missing says of what is not there that the image is not.
func missing(err error, ref Reference) error {
	if redoubt.KindOf(err) != redoubt.NotFound {
		return err
	}
	return &redoubt.Error{Op: "image.open", Object: ref.String(), Kind: redoubt.NotFound, Err: err,
		Hint: "push it to this node's registry, or ask who did for its name; docs/spec/registry.md"}
}

// choose finds the manifest for a platform.
func choose(m *Manifest, on Platform) (Digest, error) {
	var others []string
	for i := range m.Manifests {
		d := &m.Manifests[i]
		if on.runs(d.Platform) && (d.MediaType == TypeManifest || d.MediaType == TypeDockerManifest) {
			return d.Digest, nil
		}
		if d.Platform != nil && len(others) < 8 {
			others = append(others, fmt.Sprintf("%q", d.Platform.String()))
		}
	}
	return Digest{}, invalid("open", "the image is not made for %s, but for %s", on, strings.Join(others, ", "))
}

// ResolveTag says which manifest a tag means.
func ResolveTag(ctx context.Context, o Objects, repo Repository, tag string) (Digest, error) {
	raw, err := readSmall(ctx, o, repo.Tag(tag), tagBytes)
	if err != nil {
		return Digest{}, err
	}
	return ParseDigest(string(raw))
}

const (
	tagBytes = len("sha256:") + 2*sha256.Size
	idBytes  = 32
)

// OpenManifest reads a manifest or an index that has the digest d.
func OpenManifest(ctx context.Context, o Objects, repo Repository, d Digest) (*Manifest, error) {
	raw, err := ManifestBytes(ctx, o, repo, d)
	if err != nil {
		return nil, err
	}
	return ReadManifest(raw, "")
}

// ManifestBytes is a manifest as it was pushed. BadDigest: what lies there is something else.
func ManifestBytes(ctx context.Context, o Objects, repo Repository, d Digest) ([]byte, error) {
	raw, err := readSmall(ctx, o, repo.Manifest(d), MaxManifestBytes)
	if err == nil && DigestOf(raw) != d {
		err = &redoubt.Error{Op: "image.manifest", Object: repo.String(), Kind: redoubt.BadDigest, Rule: "what lies under the manifest's digest is something else"}
	}
	return raw, err
}

// readSmall reads a whole version of at most limit bytes.
func readSmall(ctx context.Context, o Objects, name redoubt.ObjectName, limit int) ([]byte, error) {
	v, c, err := o.Object(ctx, name)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if v.SizeBytes > int64(limit) {
		return nil, &redoubt.Error{Op: "image.read", Object: name.String(), Kind: redoubt.TooLarge, Rule: "it is larger than what may lie there"}
	}
	return io.ReadAll(io.LimitReader(c.Reader(0, -1), int64(limit)))
}

// OpenBlob opens what lies under a blob's digest, wherever that is. It is not held to it: Verify does that.
func OpenBlob(ctx context.Context, o Objects, repo Repository, d Digest) (redoubt.Version, redoubt.Content, error) {
	v, c, err := o.Object(ctx, repo.Blob(d))
	if redoubt.KindOf(err) != redoubt.NotFound || err == nil {
		return v, c, err
	}
	id, linkErr := readSmall(ctx, o, repo.Link(d), idBytes)
	if linkErr != nil {
		if redoubt.KindOf(linkErr) == redoubt.NotFound {
			return v, nil, err
		}
		return v, nil, linkErr
	}
	if !ValidID(string(id)) {
		return v, nil, &redoubt.Error{Op: "image.blob", Object: repo.String(), Kind: redoubt.BadDigest, Rule: "what lies under the blob's digest is something else"}
	}
	return o.Object(ctx, repo.Data(string(id)))
}

// ValidID says whether s can be the ID of a blob's content: 32 hex digits.
func ValidID(s string) bool {
	return len(s) == idBytes && strings.Trim(s, "0123456789abcdef") == ""
}

// openExact opens a blob whose size is known, and holds it to both.
func openExact(ctx context.Context, o Objects, repo Repository, d Descriptor) (io.ReadCloser, error) {
	v, c, err := OpenBlob(ctx, o, repo, d.Digest)
	if err != nil {
		return nil, err
	}
	if v.SizeBytes != d.Size {
		c.Close()
		return nil, &redoubt.Error{Op: "image.blob", Object: repo.String(), Kind: redoubt.BadDigest, Rule: "a blob is not as long as its manifest says"}
	}
	return &closing{Reader: Verify(c.Reader(0, -1), d.Digest, d.Size), all: []func() error{c.Close}}, nil
}

func readBlob(ctx context.Context, o Objects, repo Repository, d Descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, &redoubt.Error{Op: "image.blob", Object: repo.String(), Kind: redoubt.TooLarge, Rule: "a document of the image is larger than what is read of one"}
	}
	r, err := openExact(ctx, o, repo, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// Layer opens a layer as it was pushed. The last of its bytes come only when all of them have its digest; else BadDigest comes in their place.
func (i *Image) Layer(ctx context.Context, n int) (io.ReadCloser, error) {
	return openExact(ctx, i.shelf, i.Reference.Repository, i.Layers[n])
}

// LayerTar opens a layer unpacked: a tar archive. It is held to the layer's own digest and to that of the archive (its DiffID). Neither is
// proved before io.EOF: whoever stops earlier, as archive/tar does, reads the rest (io.Copy to io.Discard) before it believes what it made of it.
// How much an archive unpacks to is for the caller to bound.
func (i *Image) LayerTar(ctx context.Context, n int) (io.ReadCloser, error) {
	how, err := packing(i.Layers[n].MediaType)
	if err != nil {
		return nil, err
	}
	packed, err := i.Layer(ctx, n)
	if err != nil {
		return nil, err
	}
	out := &closing{all: []func() error{packed.Close}}
	var tar io.Reader = packed
	switch how {
	case "gzip":
		z, err := gzip.NewReader(bufio.NewReader(packed))
		if err != nil {
			return nil, errors.Join(unpacked(err), out.Close())
		}
		tar, out.all = z, append(out.all, z.Close)
	case "zstd":
		z, err := zstd.NewReader(packed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, errors.Join(unpacked(err), out.Close())
		}
		tar, out.all = z, append(out.all, func() error { z.Close(); return nil })
	}
	// Behind the packed stream nothing may follow that its digest covers and the archive's does not.
	out.Reader = &unpacking{r: Verify(tar, i.Config.RootFS.DiffIDs[n], math.MaxInt64), rest: packed}
	return out, nil
}

// packing says how a layer is packed: "", gzip or zstd.
func packing(mediaType string) (string, error) {
	switch mediaType {
	case "application/vnd.oci.image.layer.v1.tar":
		return "", nil
	case "application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip":
		return "gzip", nil
	case "application/vnd.oci.image.layer.v1.tar+zstd":
		return "zstd", nil
	}
	return "", invalid("open", "a layer has a media type that is not run here: tar, tar+gzip and tar+zstd are; one that lies elsewhere (nondistributable, foreign) is not fetched")
}

// unpacking gives an archive, and ends once what it was packed in has ended too.
type unpacking struct {
	r, rest io.Reader
}

func (u *unpacking) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if err == io.EOF {
		if _, err := io.Copy(io.Discard, u.rest); err != nil {
			return n, err
		}
	}
	return n, unpacked(err)
}

// unpacked gives what a decompressor says a Kind of its own.
func unpacked(err error) error {
	var known *redoubt.Error
	if err == nil || err == io.EOF || errors.As(err, &known) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &redoubt.Error{Op: "image.layer", Kind: redoubt.Invalid, Rule: "a layer does not unpack", Err: err}
}

// closing closes what a reader stands on, the last first.
type closing struct {
	io.Reader
	all []func() error
}

func (c *closing) Close() (err error) {
	for i := len(c.all) - 1; i >= 0; i-- {
		err = errors.Join(err, c.all[i]())
	}
	c.all = nil
	return err
}

// Verify gives the first size bytes of r, as long as they can be what has the digest: where they are not, BadDigest comes in place of the last of
// them, or of an end before that. A size of math.MaxInt64 is not known: then it comes in place of the end.
func Verify(r io.Reader, want Digest, size int64) io.Reader {
	return &verified{r: r, want: want, left: size, open: size == math.MaxInt64, h: sha256.New()}
}

type verified struct {
	r    io.Reader
	want Digest
	left int64
	open bool // the size is not known
	h    hash.Hash
	err  error // for good
}

func (v *verified) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if v.left == 0 && !v.open {
		return 0, v.end(v.proved())
	}
	n, err := v.r.Read(p[:min(int64(len(p)), v.left)])
	v.h.Write(p[:n])
	v.left -= int64(n)
	switch {
	case err != nil && err != io.EOF:
		v.err = err
		return 0, err
	case v.open && err == io.EOF:
		return n, v.end(v.proved())
	case v.open:
		return n, nil
	case v.left == 0:
		if proved := v.proved(); proved != nil {
			return 0, v.end(proved)
		}
		return n, nil
	case err == io.EOF:
		return 0, v.end(mismatch())
	}
	return n, nil
}

// end is what Read gives from now on: io.EOF, or why not.
func (v *verified) end(err error) error {
	if v.err = err; err == nil {
		v.err = io.EOF
	}
	return v.err
}

func (v *verified) proved() error {
	if Digest(v.h.Sum(nil)) != v.want {
		return mismatch()
	}
	return nil
}

func mismatch() error {
	return &redoubt.Error{Op: "image.verify", Kind: redoubt.BadDigest, Rule: "a blob is not what its digest says"}
}
