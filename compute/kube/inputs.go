package kube

import (
	"context"
	"errors"
	"io"
	"path"

	"redoubt"
	"redoubt/compute"
)

// Limits of what lies under /in.
const (
	maxInputs     = 100_000 // files and folders
	maxInputDepth = 200
	maxName       = 255     // of a file or folder: Linux has no longer ones
	fileRoom      = 8 << 10 // of a volume, that one takes beside its content
)

// inputs is all that lies under a job's /in.
type inputs struct {
	all   []entry // a folder before what is in it
	bytes int64
}

func (in *inputs) any() bool { return len(in.all) > 0 }

// volume is how large a volume they need.
func (in *inputs) volume() int64 { return in.bytes + int64(len(in.all))*fileRoom + 1<<20 }

// plan lists everything under /in. The job rises by it.
func (d *Driver) plan(ctx context.Context, t compute.Task) (*inputs, error) {
	in := &inputs{}
	return in, d.planDir(ctx, t, in, "", 0)
}

func (d *Driver) planDir(ctx context.Context, t compute.Task, in *inputs, dir string, depth int) error {
	if depth > maxInputDepth {
		return stop("its inputs lie in folders %d deep, and a cluster takes %d", depth, maxInputDepth)
	}
	files, err := t.List(ctx, dir)
	if err != nil {
		return unreadable(dir, err)
	}
	for _, f := range files {
		if len(f.Name) > maxName {
			return stop("its input %.100q cannot be a file: a part of its name has more than %d bytes", path.Join(dir, f.Name), maxName)
		}
		e := entry{Path: path.Join(dir, f.Name), Dir: f.Dir, Bytes: f.Bytes, Modified: f.Modified}
		if in.all = append(in.all, e); len(in.all) > maxInputs {
			return stop("its inputs are more than %d files and folders, and a cluster takes all of them at once: name fewer with --in", maxInputs)
		}
		if f.Dir {
			if err := d.planDir(ctx, t, in, e.Path, depth+1); err != nil {
				return err
			}
			continue
		}
		if in.bytes += f.Bytes; in.bytes > d.o.InputBytes {
			return stop("its inputs have more than %d MiB, and a cluster takes all of them at once: name fewer with --in, or have it run on the node", d.o.InputBytes>>20)
		}
	}
	return nil
}

// unreadable tells of an input that cannot be had, where that is not the machine's fault.
func unreadable(name string, err error) error {
	switch k := redoubt.KindOf(err); k {
	case redoubt.NotFound, redoubt.NoBucket, redoubt.Denied, redoubt.Expired, redoubt.TooLarge, redoubt.Erased, redoubt.Unauthenticated:
		if name == "" {
			return stop("its inputs cannot be read: %s", k.Error())
		}
		return stop("its input %q cannot be read: %s", name, k.Error())
	}
	return err
}

// send has the pod take them.
func (in *inputs) send(ctx context.Context, p *pod, t compute.Task) error {
	return p.talk(ctx, inContainer, verbTake, func(f *frames) error {
		heard := make(chan error, 1)
		go func() { // it says nothing until it has all, or cannot go on
			kind, body, err := f.read()
			switch {
			case err != nil:
			case kind == sayFault:
				err = errors.New("the pod does not take the inputs: " + compute.Plain(string(body[:min(len(body), maxFault)])))
			case kind != sayDone:
				err = errFrame
			}
			heard <- err
		}()
		sent := in.sendAll(ctx, f, t)
		if _, ok := errors.AsType[*stopped](sent); ok || ctx.Err() != nil {
			return sent
		}
		return errors.Join(<-heard, sent)
	})
}

func (in *inputs) sendAll(ctx context.Context, f *frames, t compute.Task) error {
	for _, e := range in.all {
		if e.Dir {
			if err := f.writeJSON(tellEntry, e); err != nil {
				return err
			}
			continue
		}
		if err := sendFile(ctx, f, t, e); err != nil {
			return err
		}
	}
	return f.write(tellEnd, nil)
}

func sendFile(ctx context.Context, f *frames, t compute.Task, e entry) error {
	now, c, err := t.Open(ctx, e.Path)
	if err != nil {
		return unreadable(e.Path, err)
	}
	defer c.Close()
	if now.Bytes != e.Bytes { // /in is a snapshot
		return errors.New("an input is not as long as it was listed to be")
	}
	if err := f.writeJSON(tellEntry, e); err != nil {
		return err
	}
	r := &noting{r: c.Reader(0, -1)}
	if err := f.writeContent(r, e.Bytes); err != nil {
		return errors.Join(err, r.err)
	}
	return nil
}

// noting keeps the error that a reader gave.
type noting struct {
	r   io.Reader
	err error
}

func (n *noting) Read(p []byte) (int, error) {
	k, err := n.r.Read(p)
	if err != nil && err != io.EOF {
		n.err = err
	}
	return k, err
}
