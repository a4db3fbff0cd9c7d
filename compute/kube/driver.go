package kube

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/image"
)

// Name is the driver's, in SubmitJob.Driver.
const Name = "kube"

// NoRuntimeClass says that pods run as the cluster runs what names no RuntimeClass: with runc as a rule, on the kernel of its machines.
const NoRuntimeClass = "none"

// Options say which cluster, and what may be used of it. Kubeconfig, RuntimeClass, Agent, Registry and Owner are needed. The zero value of a number
// is the default beside it; there is no "unlimited".
type Options struct {
	Kubeconfig   string // file: one cluster over TLS, and a token or a certificate. Programs that fetch credentials are refused
	RuntimeClass string // gvisor, or as the cluster calls it; or NoRuntimeClass
	Agent        string // reference with digest of an image that holds our binary (WriteAgentImage), as the cluster pulls it
	Registry     string // HOST:PORT of this node's registry, as the machines of the cluster reach it
	Token        string // file: what the cluster proves itself with there, read before each run; "": nothing
	Owner        string // tells this driver from those of other nodes on the cluster. The cluster sees a hash of it

	PriorityClass string
	Machines      map[string]string // labels of the machines that pods may be on
	Annotate      bool              // a namespace says in clear whose it is: subject, START and MAX
	Disk          bool              // /in, /out and /tmp are on the machines' disks and not in their memory
	Pods          int               // at once in a namespace; 32
	InputBytes    int64             // that all inputs of a job may have; 4 GiB
	Wait          time.Duration     // until a pod has a machine and its images; 5 minutes
	Images        *redoubt.ImagePolicy
	Arch          string // of the cluster's machines; that of this one
	Log           *slog.Logger
}

const (
	keepIdle    = 10 * time.Minute // a namespace in which nothing runs
	collectTime = 30 * time.Minute // outputs may take
	cleanTime   = 30 * time.Second // removing a pod may take
	closeTime   = 10 * time.Second // removing everything may take
	sweepAgain  = 30 * time.Second
	maxGiven    = 1 << 20 // bytes of arguments and environment
)

// Driver runs images as pods.
type Driver struct {
	o      Options
	client kubernetes.Interface
	exec   executor
	owner  string // label value
	key    []byte // of this driver alone: names of namespaces are drawn from it

	swept    chan struct{} // closed when nothing is left of an earlier driver
	stopping context.Context
	stop     context.CancelFunc
	running  sync.WaitGroup

	mu     sync.Mutex
	spaces map[string]*space // by share

	asking sync.Mutex // held while Available asks, and for what follows; mu is not taken within
	asked  time.Time  // last
	answer error
}

// New makes a driver. It asks nothing of the cluster yet but, behind, to remove what an earlier driver of the same owner left there. Invalid: the
// kubeconfig cannot be used, and the hint says why.
func New(o Options) (*Driver, error) {
	client, exec, err := connect(o.Kubeconfig)
	if err != nil {
		return nil, err
	}
	return start(o, client, exec)
}

func start(o Options, client kubernetes.Interface, exec executor) (*Driver, error) {
	d := &Driver{o: o, client: client, exec: exec, owner: ownerID(o.Owner), key: make([]byte, 32), swept: make(chan struct{}), spaces: map[string]*space{}}
	rand.Read(d.key)
	d.o.Pods = cmp.Or(max(o.Pods, 0), 32)
	d.o.InputBytes = cmp.Or(max(o.InputBytes, 0), 4<<30)
	d.o.Wait = cmp.Or(max(o.Wait, 0), 5*time.Minute)
	d.o.Arch = cmp.Or(o.Arch, runtime.GOARCH)
	d.o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	d.stopping, d.stop = context.WithCancel(context.Background())
	d.running.Go(d.sweep)
	return d, nil
}

// opaque is a name that tells nothing to who has not the key: 32 hex digits.
func opaque(key []byte, of string) string {
	h := hmac.New(sha256.New, key)
	io.WriteString(h, of)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// ownerID is what a driver's objects carry. It is the same whenever the node starts, so it hides nothing but what the owner is called.
func ownerID(owner string) string {
	sum := sha256.Sum256([]byte("redoubt owner\x00" + owner))
	return hex.EncodeToString(sum[:16])
}

// sweep removes what an earlier driver left, however long the cluster does not answer.
func (d *Driver) sweep() {
	for {
		err := d.removeAll(d.stopping)
		if err == nil {
			close(d.swept)
			return
		}
		d.o.Log.Warn("what an earlier run left on the cluster is not removed yet", slog.String("reason", string(apierrors.ReasonForError(err))))
		select {
		case <-d.stopping.Done():
			return
		case <-time.After(sweepAgain):
		}
	}
}

// Remote says that programs run on other machines.
func (d *Driver) Remote() bool { return true }

// Available asks the cluster, at most every half minute. One that does not answer is no lack: it may soon, and a run is tried again.
func (d *Driver) Available() error {
	d.asking.Lock()
	defer d.asking.Unlock()
	if time.Since(d.asked) > 30*time.Second {
		ctx, cancel := context.WithTimeout(d.stopping, 5*time.Second)
		defer cancel()
		d.answer, d.asked = lacking(ctx, d.client, d.o), time.Now()
		if status := apierrors.APIStatus(nil); !errors.As(d.answer, &status) {
			d.answer = nil
		}
	}
	return d.answer
}

// Close ends what runs and removes all that the driver made. What a cluster that does not answer keeps, the next driver removes.
func (d *Driver) Close() error {
	d.mu.Lock()
	d.stop()
	d.mu.Unlock()
	d.running.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	d.forgetAll()
	if err := d.removeAll(ctx); err != nil {
		d.o.Log.Warn("what is on the cluster could not be removed", slog.String("reason", string(apierrors.ReasonForError(err))))
	}
	return nil
}

// ended is the Exit of a program that was ended, or could not be begun.
func ended(format string, args ...any) compute.Exit {
	return compute.Exit{Code: -1, Why: fmt.Sprintf(format, args...)}
}

// stopped is an Exit on its way up as an error.
type stopped struct{ compute.Exit }

func (s *stopped) Error() string { return s.Why }

func stop(format string, args ...any) error { return &stopped{ended(format, args...)} }

// begin counts one more that runs, until running.Done; false: the driver is closed.
func (d *Driver) begin() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopping.Err() != nil {
		return false
	}
	d.running.Add(1)
	return true
}

// Run runs an image as a pod.
func (d *Driver) Run(ctx context.Context, t compute.Task) (compute.Exit, error) {
	if !d.begin() {
		return compute.Exit{}, errClosed
	}
	defer d.running.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.stopping, cancel)()

	x, err := d.run(ctx, t)
	if s, ok := errors.AsType[*stopped](err); ok {
		return s.Exit, nil
	}
	if err != nil && ctx.Err() != nil {
		return ended("it was ended"), nil
	}
	return x, err
}

var errClosed = errors.New("the driver is closed")

func (d *Driver) run(ctx context.Context, t compute.Task) (compute.Exit, error) {
	if len(t.Spec.Network) > 0 {
		return ended("a pod has no network: leave out --network, or use another driver"), nil
	}
	p, do, err := d.makePod(ctx, t, false)
	if err != nil {
		return compute.Exit{}, err
	}
	defer d.leave(p.space)
	s := &session{t: t, do: do}
	x, err := s.run(ctx, p)
	p.remove(!s.done || err != nil)
	return x, err
}

// makePod makes a pod that has its inputs and waits for what it is to run. Whose it is removes it, and then leaves its space. serves: it is a service's.
func (d *Driver) makePod(ctx context.Context, t compute.Task, serves bool) (_ *pod, do task, err error) {
	if t.Spec.Image == "" {
		return nil, do, stop("the driver %s runs images, and no modules: leave out --driver", Name)
	}
	found, err := d.find(ctx, t)
	if err != nil {
		return nil, do, err
	}
	if do, err = toRun(t, found); err != nil {
		return nil, do, err
	}
	since := time.Now()
	in, err := d.plan(ctx, t)
	if err != nil {
		return nil, do, err
	}
	select {
	case <-d.swept:
	case <-ctx.Done():
		return nil, do, ctx.Err()
	}
	s, err := d.enter(ctx, t.Share())
	if err != nil {
		return nil, do, err
	}
	p, err := d.place(ctx, s, t, found, in, serves)
	if err != nil {
		d.leave(s)
		return nil, do, err
	}
	if in.any() {
		p.fed = since
	}
	if err = p.ready(ctx); err == nil && in.any() {
		err = p.because(ctx, in.send(ctx, p, t))
	}
	if err != nil {
		p.remove(true)
		d.leave(s)
		return nil, do, err
	}
	return p, do, nil
}

// find resolves the image as the job may see it, and holds it to the node's policy.
func (d *Driver) find(ctx context.Context, t compute.Task) (*image.Image, error) {
	ref, err := image.ParseReference(t.Spec.Image)
	if err != nil {
		return nil, refusedImage(err)
	}
	found, err := image.Open(ctx, t, ref, image.Linux(d.o.Arch))
	if err == nil {
		err = found.Admit(ctx, d.o.Images)
	}
	if err != nil {
		return nil, refusedImage(err)
	}
	return found, nil
}

// refusedImage tells what is wrong with an image, where that is not the machine's fault.
func refusedImage(err error) error {
	e, ok := errors.AsType[*redoubt.Error](err)
	if !ok {
		return err
	}
	switch e.Kind {
	case redoubt.NotFound, redoubt.NoBucket, redoubt.Erased:
		return stop("there is no such image: push it to this node's registry, or name it as it was pushed")
	case redoubt.Invalid, redoubt.BadDigest, redoubt.TooLarge, redoubt.Denied:
		why := "it is no image that can be run here: " + e.Kind.Error()
		for _, more := range []string{e.Rule, e.Hint} {
			if more != "" {
				why += ": " + more
			}
		}
		return stop("%s", compute.Plain(why))
	}
	return err
}

// toRun is what the image and the job say of the program.
func toRun(t compute.Task, i *image.Image) (do task, err error) {
	c := i.Config.Config
	args := t.Spec.Args
	if len(args) == 0 {
		args = c.Cmd
	}
	do = task{Args: raw(slices.Concat(c.Entrypoint, args)), Env: raw(environment(c.Env, t.Spec.Env)), Dir: cmp.Or(c.WorkingDir, "/"), Processes: t.Limits.Processes}
	given := 0
	for _, b := range slices.Concat(do.Args, do.Env) {
		given += len(b)
	}
	if given > maxGiven {
		return do, stop("its arguments and its environment, with the image's, have more than %d KiB", maxGiven>>10)
	}
	if len(do.Args) == 0 {
		return do, stop("the image does not say which program it runs (Entrypoint, Cmd): name one with the job's arguments")
	}
	return do, nil
}

// environment is the image's, then the job's, which counts where both have a name; and what most programs cannot do without.
func environment(image, job []string) []string {
	all := slices.Concat(image, job)
	for _, v := range []string{"PATH=" + defaultPath, "HOME=" + tmpDir} {
		name := v[:strings.IndexByte(v, '=')+1]
		if !slices.ContainsFunc(all, func(s string) bool { return strings.HasPrefix(s, name) }) {
			all = append(all, v)
		}
	}
	return all
}
