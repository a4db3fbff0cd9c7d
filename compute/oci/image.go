package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/oci/layers"
)

// Images finds what a reference names: a registry over labelled objects. What it opens it opens through Task.Object, so that it counts as read, and
// decides each anew. All methods may be called at once.
type Images interface {
	// Manifest gives a manifest or an index. ref is BUCKET/NAME:TAG or BUCKET/NAME@sha256:HEX, as Task.Spec has it. The driver checks what it
	// gives against a digest. NotFound: there is none, or none that the task may know of.
	Manifest(ctx context.Context, t compute.Task, ref string) ([]byte, error)
	// Blob opens a blob of the repository that ref is in. The driver checks what it reads against the digest.
	Blob(ctx context.Context, t compute.Task, ref, digest string) (redoubt.Content, int64, error)
}

// Limits of what describes an image.
const (
	maxLayers        = 127
	maxManifestBytes = 4 << 20
	maxConfigBytes   = 1 << 20
	maxIndexed       = 256
	maxArgs          = 4096
	maxArgBytes      = 1 << 20 // of all arguments and the environment together
)

// Media types that are taken; Docker's are what older tools push, and mean the same.
var (
	indexTypes    = []string{"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"}
	manifestTypes = []string{"application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"}
	configTypes   = []string{"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}
	layerTypes    = []string{
		"application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar+zstd",
		"application/vnd.docker.image.rootfs.diff.tar", "application/vnd.docker.image.rootfs.diff.tar.gzip",
	}
)

// descriptor is one of the image specification.
type descriptor struct {
	MediaType string   `json:"mediaType"`
	Digest    string   `json:"digest"`
	Size      int64    `json:"size"`
	URLs      []string `json:"urls"`
	Platform  *struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
	} `json:"platform"`
}

// manifest is an image manifest, or an index where Manifests has something.
type manifest struct {
	Schema    int          `json:"schemaVersion"`
	MediaType string       `json:"mediaType"`
	Config    descriptor   `json:"config"`
	Layers    []descriptor `json:"layers"`
	Manifests []descriptor `json:"manifests"`
}

// config is what an image says of how it is run.
type config struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Config       struct {
		User       string   `json:"User"`
		Env        []string `json:"Env"`
		Entrypoint []string `json:"Entrypoint"`
		Cmd        []string `json:"Cmd"`
		WorkingDir string   `json:"WorkingDir"`
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// image is one that was found, before its layers are read.
type image struct {
	ref      string
	digest   string // of its manifest
	manifest manifest
	config   config
}

// fault is an image's own: the submitter's to put right, not the machine's.
type fault struct{ why string }

func (f *fault) Error() string { return f.why }

func faultf(format string, args ...any) error { return &fault{fmt.Sprintf(format, args...)} }

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// repository cuts a reference into the repository and what in it: a tag with its colon, or a digest with its at.
func repository(ref string) (repo, digest string) {
	if repo, digest, ok := strings.Cut(ref, "@"); ok {
		return repo, digest
	}
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i], ""
	}
	return ref, ""
}

// find reads an image's manifest and configuration, and checks them.
func find(ctx context.Context, images Images, t compute.Task) (im *image, err error) {
	ref := t.Spec.Image
	repo, digest := repository(ref)
	if digest != "" && !digestForm.MatchString(digest) {
		return nil, faultf("the image's digest is not sha256 and 64 hex digits: %.100q", ref)
	}
	im = &image{ref: ref}
	for depth := 0; ; depth++ {
		b, err := images.Manifest(ctx, t, ref)
		if errors.Is(err, redoubt.NotFound) || errors.Is(err, redoubt.NoBucket) {
			return nil, faultf("there is no image %.200q: push it first, or name it as it was pushed", t.Spec.Image)
		}
		if err != nil {
			return nil, err
		}
		if len(b) > maxManifestBytes {
			return nil, faultf("the image's manifest has more than %d bytes", maxManifestBytes)
		}
		im.digest = "sha256:" + sumOf(b)
		if digest != "" && im.digest != digest {
			return nil, faultf("the image's manifest is not what its digest says: it has %s, and %s was asked for", im.digest, digest)
		}
		im.manifest = manifest{}
		if err := json.Unmarshal(b, &im.manifest); err != nil {
			return nil, faultf("the image's manifest is malformed: %v", err)
		}
		if !slices.Contains(indexTypes, im.manifest.MediaType) && len(im.manifest.Manifests) == 0 {
			break
		}
		if digest, err = im.manifest.ours(); err != nil {
			return nil, err
		}
		if depth > 0 {
			return nil, faultf("the image's index leads to another index")
		}
		ref = repo + "@" + digest
	}
	if err := im.manifest.check(); err != nil {
		return nil, err
	}
	b, err := im.blob(ctx, images, t, im.manifest.Config, maxConfigBytes)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &im.config); err != nil {
		return nil, faultf("the image's configuration is malformed: %v", err)
	}
	return im, im.config.check(len(im.manifest.Layers))
}

// ours is the manifest of an index that is for this machine.
func (m *manifest) ours() (digest string, err error) {
	if len(m.Manifests) > maxIndexed {
		return "", faultf("the image's index has more than %d manifests", maxIndexed)
	}
	for _, d := range m.Manifests {
		if p := d.Platform; p != nil && p.OS == "linux" && p.Architecture == runtime.GOARCH && slices.Contains(manifestTypes, d.MediaType) && digestForm.MatchString(d.Digest) {
			return d.Digest, nil
		}
	}
	return "", faultf("the image is not for linux/%s: build it for this platform", runtime.GOARCH)
}

func (m *manifest) check() error {
	if m.Schema != 2 || m.MediaType != "" && !slices.Contains(manifestTypes, m.MediaType) {
		return faultf("the image's manifest is of a kind that is not taken: schema %d, %.100q", m.Schema, m.MediaType)
	}
	if !slices.Contains(configTypes, m.Config.MediaType) {
		return faultf("what is named is no image to run: its configuration is %.100q", m.Config.MediaType)
	}
	if len(m.Layers) > maxLayers {
		return faultf("the image has %d layers, and may have %d", len(m.Layers), maxLayers)
	}
	for _, d := range append([]descriptor{m.Config}, m.Layers...) {
		if !digestForm.MatchString(d.Digest) || d.Size < 0 || d.Size > layers.MaxBytes {
			return faultf("the image's manifest names a blob by something other than sha256, or of an impossible size")
		}
	}
	for _, d := range m.Layers {
		if !slices.Contains(layerTypes, d.MediaType) {
			return faultf("the image has a layer of a kind that is not taken: %.100q", d.MediaType)
		}
	}
	return nil
}

func (c *config) check(layers int) error {
	if c.OS != "linux" || c.Architecture != runtime.GOARCH {
		return faultf("the image is for %.20s/%.20s, and this machine is linux/%s", c.OS, c.Architecture, runtime.GOARCH)
	}
	if c.RootFS.Type != "layers" || len(c.RootFS.DiffIDs) != layers {
		return faultf("the image's configuration tells of %d layers, and its manifest of %d", len(c.RootFS.DiffIDs), layers)
	}
	for _, d := range c.RootFS.DiffIDs {
		if !digestForm.MatchString(d) {
			return faultf("the image's configuration names a layer by something other than sha256")
		}
	}
	return nil
}

// blob reads a small one whole.
func (im *image) blob(ctx context.Context, images Images, t compute.Task, d descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, faultf("a blob of the image has %d bytes, and may have %d", d.Size, limit)
	}
	c, err := im.open(ctx, images, t, d)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	b, err := io.ReadAll(io.LimitReader(c.Reader(0, d.Size), d.Size+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) != d.Size || "sha256:"+sumOf(b) != d.Digest {
		return nil, faultf("a blob of the image is not what its digest says: %s", d.Digest)
	}
	return b, nil
}

func (im *image) open(ctx context.Context, images Images, t compute.Task, d descriptor) (redoubt.Content, error) {
	c, size, err := images.Blob(ctx, t, im.ref, d.Digest)
	if errors.Is(err, redoubt.NotFound) {
		return nil, faultf("a blob of the image is not there: %s; push it again", d.Digest)
	}
	if err != nil {
		return nil, err
	}
	if size != d.Size {
		return nil, errors.Join(faultf("a blob of the image has %d bytes, and its manifest says %d: %s", size, d.Size, d.Digest), c.Close())
	}
	return c, nil
}

// process is what is run of an image for a job.
type process struct {
	Args   []string `json:"args"`
	Env    []string `json:"env"`
	Cwd    string   `json:"cwd"`
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups"`
}

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// process joins what the image says and what was submitted: arguments stand in for the image's own (CMD) and follow its program (ENTRYPOINT).
func (im *image) process(spec redoubt.SubmitJob, u layers.Told) (p process, err error) {
	c := im.config.Config
	tail := c.Cmd
	if len(spec.Args) > 0 {
		tail = spec.Args
	}
	p = process{Args: append(slices.Clone(c.Entrypoint), tail...), Cwd: path.Clean("/" + c.WorkingDir), UID: u.UID, GID: u.GID, Groups: u.Groups}
	if len(p.Args) == 0 || p.Args[0] == "" {
		return p, faultf("the image names no program to run, and none was given: add one after --")
	}
	set := map[string]int{}
	for _, e := range slices.Concat([]string{defaultPath, "HOME=" + u.Home}, c.Env, spec.Env) {
		name, _, ok := strings.Cut(e, "=")
		if !ok || name == "" {
			return p, faultf("the environment has %.100q, which is not NAME=VALUE", e)
		}
		if i, again := set[name]; again {
			p.Env[i] = e
			continue
		}
		set[name] = len(p.Env)
		p.Env = append(p.Env, e)
	}
	total := 0
	for _, s := range slices.Concat(p.Args, p.Env) {
		if total += len(s) + 1; strings.ContainsRune(s, 0) {
			return p, faultf("an argument or a variable holds a zero byte")
		}
	}
	if len(p.Args)+len(p.Env) > maxArgs || total > maxArgBytes {
		return p, faultf("the arguments and the environment are too long: %d bytes", total)
	}
	return p, nil
}

// spec is what the image's unpacking is told.
func (im *image) spec(limit int64) layers.Spec {
	s := layers.Spec{User: im.config.Config.User, Limit: limit, Dirs: []string{"in", "out", "tmp", "proc", "dev", "sys"}}
	if layers.Inside(im.config.Config.WorkingDir) {
		s.Dirs = append(s.Dirs, im.config.Config.WorkingDir)
	}
	for i, l := range im.manifest.Layers {
		s.Layers = append(s.Layers, layers.Layer{Size: l.Size, Media: l.MediaType, DiffID: im.config.RootFS.DiffIDs[i]})
	}
	return s
}

// blobs reads all layers in order, and checks each digest before it says that all is read.
type blobs struct {
	ctx    context.Context
	images Images
	task   compute.Task
	im     *image
	next   int
	open   io.Reader
	close  func() error
}

func (l *blobs) Read(p []byte) (int, error) {
	for {
		if l.open == nil {
			if l.next == len(l.im.manifest.Layers) {
				return 0, io.EOF
			}
			d := l.im.manifest.Layers[l.next]
			c, err := l.im.open(l.ctx, l.images, l.task, d)
			if err != nil {
				return 0, err
			}
			l.next++
			l.open, l.close = &digested{r: c.Reader(0, d.Size), want: d, sum: newSum()}, c.Close
		}
		n, err := l.open.Read(p)
		if err == io.EOF {
			if err = l.Close(); err == nil && n == 0 {
				continue
			}
		}
		return n, err
	}
}

// Close closes what is open.
func (l *blobs) Close() (err error) {
	if l.open != nil {
		err = l.close()
	}
	l.open, l.close = nil, nil
	return err
}
