// Package computetest is what a driver of package compute is held to: [Suite], the contract that each must meet, and [Run], an attempt of a job
// in memory that remembers what was asked of it.
package computetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"redoubt"
	"redoubt/compute"
)

// Run is an attempt of a job in memory. Its files are under /in; it notes every list, stat and open in the order that they came. All methods may be
// called at once.
type Run struct {
	job      redoubt.Job
	share    string
	files    map[string][]byte
	hidden   map[string]bool
	objects  map[redoubt.ObjectName][]byte
	module   []byte
	kept     map[string][]byte
	reaches  map[string]func(context.Context) (redoubt.JobConn, error)
	canceled chan struct{}
	once     sync.Once

	mu      sync.Mutex
	reads   []string
	said    [3]bytes.Buffer // by stream
	outputs map[string][]byte
	exit    *redoubt.JobExit
	open    int // contents that were not closed
	refuse  error
}

var _ redoubt.JobRun = (*Run)(nil)

// Modified is when every file under /in was last changed.
var Modified = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// NewRun makes an attempt with files under /in. START and MAX are one, until Between says else.
func NewRun(files map[string][]byte) *Run {
	r := &Run{files: files, hidden: map[string]bool{}, objects: map[redoubt.ObjectName][]byte{}, kept: map[string][]byte{}, reaches: map[string]func(context.Context) (redoubt.JobConn, error){}, canceled: make(chan struct{}), outputs: map[string][]byte{}, share: "alice s s"}
	r.job = redoubt.Job{ID: "00000000000000000000000000000001", By: "alice", Start: "SECRET", Max: "SECRET", State: redoubt.JobRunning, Attempt: 1}
	return r
}

// Between sets START and MAX, and with them the share.
func (r *Run) Between(by redoubt.SubjectName, start, max string) *Run {
	r.job.By, r.job.Start, r.job.Max, r.share = by, start, max, fmt.Sprintf("%s %s %s", by, start, max)
	return r
}

// Hide has a file lie beyond MAX: it is as if it were not there.
func (r *Run) Hide(name string) *Run {
	r.hidden[name] = true
	return r
}

// SetModule sets the module, and gives its digest.
func (r *Run) SetModule(b []byte) string {
	r.module = b
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// SetObject puts a version that Object opens.
func (r *Run) SetObject(name redoubt.ObjectName, b []byte) { r.objects[name] = b }

// RefuseOutputs has every Put fail with err.
func (r *Run) RefuseOutputs(err error) { r.refuse = err }

// Cancel ends the job.
func (r *Run) Cancel() { r.once.Do(func() { close(r.canceled) }) }

// Task is the attempt as a driver is given it, with the limits that spec leaves out filled in.
func (r *Run) Task(spec redoubt.SubmitJob) compute.Task {
	t := compute.Task{JobRun: r, Spec: spec, Limits: spec.Limits, Timeout: time.Duration(spec.Seconds) * time.Second}
	if t.Timeout == 0 {
		t.Timeout = time.Minute
	}
	if t.Limits.Memory == 0 {
		t.Limits.Memory = redoubt.DefaultJobMemory
	}
	if t.Limits.CPUs == 0 {
		t.Limits.CPUs = 1
	}
	if t.Limits.Processes == 0 {
		t.Limits.Processes = 256
	}
	if t.Limits.Disk == 0 {
		t.Limits.Disk = redoubt.DefaultJobDisk
	}
	return t
}

// Reads is what was asked, in order: "list DIR", "stat PATH", "open PATH", "object BUCKET/KEY", "module", "dial NAME".
func (r *Run) Reads() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.reads)
}

// Said is what was logged of a stream, 1 or 2.
func (r *Run) Said(stream int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said[stream].String()
}

// Outputs are the files that were put.
func (r *Run) Outputs() map[string][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.outputs)
}

// LeftOpen counts the contents that nobody has closed.
func (r *Run) LeftOpen() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open
}

func (r *Run) note(what, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reads = append(r.reads, strings.TrimSpace(what+" "+name))
}

func notFound(op, name string) error {
	return &redoubt.Error{Op: op, Object: name, Kind: redoubt.NotFound}
}

// find is what lies at a path: a file, a directory, or nothing.
func (r *Run) find(name string) (f redoubt.JobFile, ok bool) {
	if b, ok := r.files[name]; ok && !r.hidden[name] {
		return redoubt.JobFile{Name: path.Base(name), Bytes: int64(len(b)), Modified: Modified}, true
	}
	if name == "" {
		return redoubt.JobFile{Dir: true}, true
	}
	for k := range r.files {
		if strings.HasPrefix(k, name+"/") && !r.hidden[k] {
			return redoubt.JobFile{Name: path.Base(name), Dir: true}, true
		}
	}
	return f, false
}

// List implements redoubt.JobFiles.
func (r *Run) List(ctx context.Context, dir string) ([]redoubt.JobFile, error) {
	r.note("list", dir)
	if f, ok := r.find(dir); !ok || !f.Dir {
		return nil, notFound("List", dir)
	}
	in := map[string]redoubt.JobFile{}
	for k := range r.files {
		rest := k
		if dir != "" {
			var ok bool
			if rest, ok = strings.CutPrefix(k, dir+"/"); !ok {
				continue
			}
		}
		name, _, _ := strings.Cut(rest, "/")
		if f, ok := r.find(path.Join(dir, name)); ok {
			in[name] = f
		}
	}
	return slices.SortedFunc(maps.Values(in), func(a, b redoubt.JobFile) int { return strings.Compare(a.Name, b.Name) }), ctx.Err()
}

// Stat implements redoubt.JobFiles.
func (r *Run) Stat(ctx context.Context, name string) (redoubt.JobFile, error) {
	r.note("stat", name)
	f, ok := r.find(name)
	if !ok {
		return f, notFound("Stat", name)
	}
	return f, ctx.Err()
}

// Open implements redoubt.JobFiles.
func (r *Run) Open(ctx context.Context, name string) (redoubt.JobFile, redoubt.Content, error) {
	r.note("open", name)
	f, ok := r.find(name)
	if !ok || f.Dir {
		return f, nil, notFound("Open", name)
	}
	return f, r.content(r.files[name]), ctx.Err()
}

// content is of one goroutine at a time, as the contract says: a second is a race that the detector sees.
type content struct {
	run    *Run
	b      []byte
	busy   int
	closed bool
}

func (r *Run) content(b []byte) *content {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open++
	return &content{run: r, b: b}
}

func (c *content) Reader(off, n int64) io.Reader {
	c.busy++
	switch size := int64(len(c.b)); {
	case c.closed:
		return errReader{errors.New("read of a closed content")}
	case off < 0 || off > size:
		return errReader{errors.New("read outside of the content")}
	case n < 0 || off+n > size:
		return bytes.NewReader(c.b[off:])
	default:
		return bytes.NewReader(c.b[off : off+n])
	}
}

func (c *content) Close() error {
	if c.closed {
		return errors.New("closed twice")
	}
	c.closed = true
	c.run.mu.Lock()
	defer c.run.mu.Unlock()
	c.run.open--
	return nil
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

// Job implements redoubt.JobRun.
func (r *Run) Job() redoubt.Job { return r.job }

// Share implements redoubt.JobRun.
func (r *Run) Share() string { return r.share }

// Lane implements redoubt.JobRun.
func (r *Run) Lane() string { return r.job.Max }

// Kept implements redoubt.JobRun.
func (r *Run) Kept(_ context.Context, name string) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, ok := r.kept[name]
	if !ok {
		return nil, notFound("Kept", name)
	}
	return b, nil
}

// Keep implements redoubt.JobRun.
func (r *Run) Keep(_ context.Context, name string, content []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept[name] = bytes.Clone(content)
	return nil
}

// Module implements redoubt.JobRun.
func (r *Run) Module(ctx context.Context) (redoubt.Content, int64, error) {
	r.note("module", "")
	if r.module == nil {
		return nil, 0, notFound("Module", "")
	}
	return r.content(r.module), int64(len(r.module)), ctx.Err()
}

// Object implements redoubt.JobRun.
func (r *Run) Object(ctx context.Context, name redoubt.ObjectName) (redoubt.Version, redoubt.Content, error) {
	r.note("object", name.String())
	b, ok := r.objects[name]
	if !ok {
		return redoubt.Version{}, nil, notFound("Object", name.String())
	}
	return redoubt.Version{Name: name, SizeBytes: int64(len(b))}, r.content(b), ctx.Err()
}

// Reach has connections to a destination be what dial gives.
func (r *Run) Reach(name string, dial func(context.Context) (redoubt.JobConn, error)) *Run {
	r.reaches[name] = dial
	return r
}

// Dial implements redoubt.JobRun.
func (r *Run) Dial(ctx context.Context, to string) (redoubt.JobConn, error) {
	r.note("dial", to)
	dial := r.reaches[to]
	if dial == nil {
		return nil, notFound("Dial", to)
	}
	return dial(ctx)
}

// Names implements redoubt.JobRun.
func (r *Run) Names(ctx context.Context, bucket redoubt.BucketName, prefix string, most int) (all []string, err error) {
	r.note("names", string(bucket)+"/"+prefix)
	for name := range r.objects {
		if name.Bucket == bucket && strings.HasPrefix(name.Key, prefix) {
			all = append(all, name.Key)
		}
	}
	slices.Sort(all)
	return all[:min(len(all), most)], ctx.Err()
}

// Log implements redoubt.JobRun.
func (r *Run) Log(stream int, text []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if left := redoubt.MaxJobLogBytes - r.said[1].Len() - r.said[2].Len(); left > 0 {
		r.said[stream].Write(text[:min(len(text), left)])
	}
}

// Put implements redoubt.JobRun. What is shorter or longer than it was said to be is refused, and so is a path that leads out.
func (r *Run) Put(ctx context.Context, name string, size int64, content io.Reader) error {
	if r.refuse != nil {
		return r.refuse
	}
	if path.Clean("/"+name) != "/"+name || name == "" {
		return &redoubt.Error{Op: "Put", Object: name, Kind: redoubt.Invalid}
	}
	b, err := io.ReadAll(content)
	if err == nil && int64(len(b)) != size {
		err = fmt.Errorf("%s has %d bytes, and was said to have %d", name, len(b), size)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, twice := r.outputs[name]; twice {
		err = errors.Join(err, fmt.Errorf("%s was put twice", name))
	}
	r.outputs[name] = b
	return errors.Join(err, ctx.Err())
}

// Canceled implements redoubt.JobRun.
func (r *Run) Canceled() <-chan struct{} { return r.canceled }

// Finish implements redoubt.JobRun.
func (r *Run) Finish(_ context.Context, x redoubt.JobExit) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.exit != nil {
		return errors.New("finished twice")
	}
	r.exit = &x
	return nil
}
