package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"runtime"
	"slices"
	"strings"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/image"
	"redoubt/compute/oci/layers"
)

// Limits of what is run.
const (
	maxArgs     = 4096
	maxArgBytes = 1 << 20 // of all arguments and the environment together
)

// fault is an image's own: the submitter's to put right, not the machine's.
type fault struct{ why string }

func (f *fault) Error() string { return f.why }

func faultf(format string, args ...any) error { return &fault{fmt.Sprintf(format, args...)} }

// faulty says of an error whether it is the image's fault, and in what words.
func faulty(ref string, err error) error {
	var e *redoubt.Error
	if !errors.As(err, &e) {
		return err
	}
	for in := e; e.Rule == "" && errors.As(e.Err, &in); { // what is nearest to the cause and has words for people
		e = in
	}
	why := e.Rule
	switch e.Kind {
	case redoubt.NotFound, redoubt.NoBucket:
		why = "there is none, or a part of it is missing"
	case redoubt.Invalid, redoubt.BadDigest, redoubt.TooLarge, redoubt.Denied:
	default:
		return err
	}
	if e.Hint != "" {
		why += "; " + e.Hint
	}
	return faultf("the image %.200q: %s", ref, why)
}

// open finds the image of a task, and holds it to a policy, each time anew.
func open(ctx context.Context, t compute.Task, policy *redoubt.ImagePolicy) (*image.Image, error) {
	ref, err := image.ParseReference(t.Spec.Image)
	if err != nil {
		return nil, faulty(t.Spec.Image, err)
	}
	im, err := image.Open(ctx, t, ref, image.Linux(runtime.GOARCH))
	if err == nil {
		err = im.Admit(ctx, policy)
	}
	if err != nil {
		return nil, faulty(t.Spec.Image, err)
	}
	return im, nil
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

// newProcess joins what the image says and what was submitted: arguments stand in for the image's own (CMD) and follow its program (ENTRYPOINT).
func newProcess(im *image.Image, spec redoubt.SubmitJob, u layers.Told) (p process, err error) {
	c := im.Config.Config
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

// unpackSpec is what the image's unpacking is told.
func unpackSpec(im *image.Image, limit int64) layers.Spec {
	s := layers.Spec{User: im.Config.Config.User, Limit: limit, Dirs: []string{"in", "out", "tmp", "proc", "dev", "sys"}}
	if layers.Inside(im.Config.Config.WorkingDir) {
		s.Dirs = append(s.Dirs, im.Config.Config.WorkingDir)
	}
	for i, l := range im.Layers {
		s.Layers = append(s.Layers, layers.Layer{Size: l.Size, Media: l.MediaType, DiffID: im.Config.RootFS.DiffIDs[i].String()})
	}
	return s
}

// blobs reads all layers in order as they were pushed, each held to its digest.
type blobs struct {
	ctx  context.Context
	im   *image.Image
	next int
	open io.ReadCloser
}

func (l *blobs) Read(p []byte) (n int, err error) {
	for {
		if l.open == nil {
			if l.next == len(l.im.Layers) {
				return 0, io.EOF
			}
			if l.open, err = l.im.Layer(l.ctx, l.next); err != nil {
				return 0, err
			}
			l.next++
		}
		n, err = l.open.Read(p)
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
		err = l.open.Close()
	}
	l.open = nil
	return err
}
