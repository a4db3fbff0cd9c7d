package kube

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/computetest"
)

func TestMain(m *testing.M) {
	Enter() // a program of a service is started by this binary
	tryWall()
	os.Exit(m.Run())
}

// keepers has each pod that is joined have a real keeper, whose programs run here behind the wall of sockets. It gives where the programs' folder is.
type keepers struct {
	dir string

	mu   sync.Mutex
	all  map[string]net.Listener // by pod
	cut  context.CancelFunc      // breaks every stream
	held context.Context
}

func (c *cluster) keepers(t *testing.T) *keepers {
	k := &keepers{dir: t.TempDir(), all: map[string]net.Listener{}}
	k.held, k.cut = context.WithCancel(t.Context())
	var serving sync.WaitGroup
	t.Cleanup(func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, l := range k.all {
			l.Close()
		}
		serving.Wait()
	})
	c.join = func(ctx context.Context, pod string, in io.Reader, out io.Writer) error {
		k.mu.Lock()
		l := k.all[pod]
		if l == nil {
			var err error
			if l, err = net.Listen("unix", filepath.Join(k.dir, pod[:20])); err != nil {
				k.mu.Unlock()
				return err
			}
			k.all[pod] = l
			keeper := newKeeper(alone)
			keeper.asks = true
			serving.Go(func() { keeper.serve(l) })
		}
		held := k.held
		k.mu.Unlock()
		joined := make(chan error, 1)
		go func() { joined <- join(l.Addr().String(), in, out) }()
		select {
		case err := <-joined:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-held.Done():
			return errors.New("the stream broke")
		}
	}
	return k
}

// breakAll breaks every stream there is.
func (k *keepers) breakAll(t *testing.T) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cut()
	k.held, k.cut = context.WithCancel(t.Context())
}

// service is the suite's program as a service, on a port of this machine.
func (c *cluster) service(t *testing.T, k *keepers, args ...string) (compute.Service, *computetest.Run, *computetest.Words) {
	t.Helper()
	program := filepath.Join(k.dir, "program")
	if err := os.WriteFile(program, computetest.Build(t, runtime.GOOS, runtime.GOARCH), 0o700); err != nil {
		t.Fatal(err)
	}
	p := computetest.Programs{GOOS: runtime.GOOS, GOARCH: runtime.GOARCH, Load: func(_ *testing.T, r *computetest.Run, _ []byte) redoubt.SubmitJob { return withImage(r, program) }}
	s, r, log := p.Service(t, args...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Spec.Port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	return s, r, log
}

func begin(t *testing.T, d *Driver, s compute.Service) *instance {
	t.Helper()
	i, err := d.Begin(t.Context(), s)
	if err != nil {
		t.Fatalf("%v; it said %q", err, s.Log)
	}
	t.Cleanup(i.Close)
	return i.(*instance)
}

func TestAPodAnswersRequests(t *testing.T) {
	c := newCluster()
	c.agents(t)
	k := c.keepers(t)
	s, r, log := c.service(t, k, "serve", "")
	d := c.driver(t, nil)
	i := begin(t, d, s)
	for _, x := range [][3]string{{"GET", "", `GET /  "SECRET" "" 0`}, {"POST", strings.Repeat("x", redoubt.MaxServiceBody), `POST /  "SECRET" "" ` + strconv.Itoa(redoubt.MaxServiceBody)}} {
		w, err := computetest.Ask(i, x[0], "/svc/x/", strings.NewReader(x[1]))
		if err != nil || w.Code != 200 || w.Body.String() != x[2] || w.Header().Get("Set-Cookie") != "" || w.Header().Get("X-Own") == "" {
			t.Errorf("%s: got %d %.80q %q %v", x[0], w.Code, w.Body, w.Header(), err)
		}
	}
	if _, err := computetest.Ask(i, "POST", "/svc/x/", strings.NewReader(strings.Repeat("x", redoubt.MaxServiceBody+1))); !errors.Is(err, redoubt.TooLarge) {
		t.Errorf("a body that is too large: %v", err)
	}
	for _, want := range []string{"open reports/a", "open reports/b"} {
		if !strings.Contains(strings.Join(r.Reads(), "\n"), want) {
			t.Errorf("%q is not in %q", want, r.Reads())
		}
	}
	p := first[*corev1.Pod](t, c)
	if p.Spec.ActiveDeadlineSeconds == nil || *p.Spec.ActiveDeadlineSeconds != int64((inputsAge+s.Timeout+nearLife)/time.Second) || p.Spec.Containers[0].Command[2] != verbKeep || !strings.HasPrefix(p.Name, "service-") {
		t.Errorf("the pod %s is %+v", p.Name, p.Spec)
	}
	for _, o := range c.made {
		b, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"alice", "SECRET", "serve", strconv.Itoa(s.Spec.Port), "reports", i.key, string(r.Job().ID)} {
			if strings.Contains(string(b), `"`+secret) || strings.Contains(string(b), secret+`"`) {
				t.Errorf("%q is in %s", secret, b)
			}
		}
	}
	if _, err := computetest.Ask(i, "GET", "/svc/x/die", nil); !errors.Is(err, redoubt.Internal) {
		t.Errorf("a request that it died of: %v", err)
	}
	<-i.Ended()
	if _, err := computetest.Ask(i, "GET", "/svc/x/", nil); !errors.Is(err, redoubt.Unavailable) {
		t.Errorf("of an instance that has ended: %v", err)
	}
	if !strings.Contains(log.String(), "serving") {
		t.Errorf("the log is %q", log)
	}
	if pods, _ := c.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{}); len(pods.Items) != 0 {
		t.Error("its pod is left")
	}
}

// TestAServiceOutlivesItsStreams, and not its keeper.
func TestAServiceOutlivesItsStreams(t *testing.T) {
	var program int
	t.Cleanup(func() { // the first to be registered: the keeper has ended
		if err := syscall.Kill(program, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("its process %d is still there: %v", program, err)
		}
	})
	c := newCluster()
	c.agents(t)
	k := c.keepers(t)
	s, _, log := c.service(t, k, "serve", "127.0.0.1")
	i := begin(t, c.driver(t, nil), s)
	ask := func(path string) string {
		for { // a request that the stream carried when it broke is lost
			w, err := computetest.Ask(i, "GET", "/svc/x/"+path, nil)
			if err == nil {
				return w.Body.String()
			}
			if !errors.Is(err, redoubt.Internal) {
				t.Fatal(err)
			}
		}
	}
	before := ask("pid")
	program, _ = strconv.Atoi(before)
	for n := range 2 {
		k.breakAll(t)
		if after := ask("pid"); after != before {
			t.Errorf("it was process %s and is %s", before, after)
		}
		word := "word" + strconv.Itoa(n)
		ask("say?" + word)
		for !strings.Contains(log.String(), word) { // the test's own time ends it
			time.Sleep(time.Millisecond)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.all) != 1 {
		t.Errorf("it took %d pods", len(k.all))
	}
}

// What an instance has read it serves for an hour at most: it may have been erased meanwhile, or the right to read it have ended. Who is being answered is
// answered, and everybody else by another.
func TestAServiceDoesNotServeForEverWhatItHasRead(t *testing.T) {
	c := newCluster()
	c.agents(t)
	s, _, _ := c.service(t, c.keepers(t), "serve", "")
	s.Timeout = time.Hour
	before := time.Now()
	i := begin(t, c.driver(t, nil), s)
	if i.until.Before(before.Add(inputsAge*3/4)) || i.until.After(time.Now().Add(inputsAge)) {
		t.Errorf("it begins at %s and takes requests until %s", before, i.until)
	}
	body, more := io.Pipe()
	answered := make(chan string)
	go func() {
		w, err := computetest.Ask(i, "POST", "/svc/x/echo", body)
		if err != nil {
			t.Errorf("of who was being answered: %v", err)
		}
		answered <- w.Body.String()
	}()
	io.WriteString(more, "one ")
	i.aging.Reset(0)
	for { // the test's own time ends it
		_, err := computetest.Ask(i, "GET", "/svc/x/up", nil)
		if errors.Is(err, redoubt.Unavailable) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	closed := make(chan struct{})
	go func() { // as who is told so does
		defer close(closed)
		i.Close()
	}()
	io.WriteString(more, "two")
	select {
	case <-i.Ended():
		t.Error("it has ended while it answered")
	default:
	}
	more.Close()
	if got := <-answered; got != "one two" {
		t.Errorf("got %q", got)
	}
	<-closed
}

func TestAServiceThatAnswersNoMoreIsEndedByItsTime(t *testing.T) {
	c := newCluster()
	c.agents(t)
	s, _, _ := c.service(t, c.keepers(t), "serve", "")
	s.Timeout = time.Millisecond // which Services holds a request to
	i := begin(t, c.driver(t, nil), s)
	body, more := io.Pipe()
	defer more.Close()
	go computetest.Ask(i, "POST", "/svc/x/echo", body)
	io.WriteString(more, "one")
	i.retire()
	<-i.Ended()
}

func TestAServiceThatHasReadNothingRunsOn(t *testing.T) {
	c := newCluster()
	c.agents(t)
	k := c.keepers(t)
	s, _, _ := c.service(t, k, "serve", "")
	r := computetest.NewRun(nil)
	s.JobRun, s.Spec.Image = r, withImage(r, filepath.Join(k.dir, "program")).Image
	i := begin(t, c.driver(t, nil), s)
	if p := first[*corev1.Pod](t, c); i.aging != nil || p.Spec.ActiveDeadlineSeconds != nil {
		t.Errorf("it runs until %s, and its pod for %v", i.until, p.Spec.ActiveDeadlineSeconds)
	}
}

// A program can break its streams as often as it likes, and not have its node make new ones for ever.
func TestAServiceWhoseStreamsKeepBreakingEnds(t *testing.T) {
	c := newCluster()
	c.agents(t)
	k := c.keepers(t)
	s, _, _ := c.service(t, k, "serve", "")
	i := begin(t, c.driver(t, nil), s)
	for ended := false; !ended; { // the test's own time ends it
		k.breakAll(t)
		computetest.Ask(i, "GET", "/svc/x/up", nil)
		select {
		case <-i.Ended():
			ended = true
		default:
		}
	}
	if !errors.Is(i.why, errWorn) {
		t.Errorf("got %v", i.why)
	}
	if pods, _ := c.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{}); len(pods.Items) != 0 {
		t.Error("its pod is left")
	}
}

func TestAPodThatIsRemovedEndsItsInstance(t *testing.T) {
	c := newCluster()
	c.agents(t)
	k := c.keepers(t)
	s, _, _ := c.service(t, k, "serve", "")
	i := begin(t, c.driver(t, nil), s)
	if err := c.CoreV1().Pods(i.p.space.name).Delete(t.Context(), i.p.name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	k.breakAll(t)
	<-i.Ended()
	if i.why == nil || !strings.Contains(i.why.Error(), "removed") {
		t.Errorf("got %v", i.why)
	}
}

func TestAServiceThatDoesNotComeUpInItsPodSaysWhy(t *testing.T) {
	for name, x := range map[string]struct {
		args []string
		kind redoubt.Kind
		want string
	}{
		"it ends":           {[]string{"exit", "3"}, redoubt.Invalid, "exit code 3"},
		"it ends well":      {[]string{"exit", "0"}, redoubt.Invalid, "exit code 0"},
		"it is not there":   {nil, redoubt.Invalid, "cannot be begun"},
		"its pod is no one": {[]string{"serve", ""}, redoubt.Invalid, "cannot run the image"},
	} {
		c := newCluster()
		c.agents(t)
		k := c.keepers(t)
		s, r, _ := c.service(t, k, x.args...)
		switch name {
		case "it is not there":
			s.Spec.Image = withImage(r, "/none").Image
		case "its pod is no one":
			c.now = func(p *corev1.Pod) {
				p.Status.Phase = corev1.PodPending
				p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: jobContainer, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CreateContainerError"}}}}
			}
		}
		d := c.driver(t, nil)
		_, err := d.Begin(t.Context(), s)
		if e, ok := errors.AsType[*redoubt.Error](err); !ok || e.Kind != x.kind || !strings.Contains(e.Hint, x.want) {
			t.Errorf("%s: got %v, want %q", name, err, x.want)
		}
		if pods, _ := c.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{}); len(pods.Items) != 0 {
			t.Errorf("%s: its pod is left", name)
		}
	}
}

// What whoever runs the cluster has to mend is told to who deployed, and is not called the program's fault.
func TestWhatAClusterLacksForAServiceIsTold(t *testing.T) {
	for code, want := range map[int32]string{exitNoWall: "Linux 5.14", exitNoKeeper: "could not be started", exitNoVerb: "another version", 1: "another version"} {
		c := newCluster()
		c.agents(t)
		c.now = func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodFailed
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: jobContainer, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Error", ExitCode: code}}}}
		}
		s, _, _ := c.service(t, c.keepers(t), "serve", "")
		if _, err := c.driver(t, nil).Begin(t.Context(), s); !errors.Is(err, redoubt.Unavailable) || !strings.Contains(computetest.Told(err), want) {
			t.Errorf("%d: got %s, want %q", code, computetest.Told(err), want)
		}
	}
}

func TestOurBinarySaysByItsExitCodeWhatIsWrong(t *testing.T) {
	for _, x := range []struct {
		err  error
		want int
	}{
		{agent{}.enter("another"), exitNoVerb},
		{errors.New("something"), exitFault},
		{notStarted(false, &os.PathError{Op: "fork/exec", Err: unix.EPERM}), exitNoWall},
		{notStarted(false, &os.PathError{Op: "fork/exec", Err: unix.EAGAIN}), exitNoKeeper},
		{notStarted(true, &os.PathError{Op: "fork/exec", Err: unix.EPERM}), exitNoKeeper},
	} {
		if got := exitOf(x.err); got != x.want {
			t.Errorf("%v: got %d, want %d", x.err, got, x.want)
		}
	}
	var ended *exec.ExitError
	if err := exec.Command(os.Args[0], Command, "another").Run(); !errors.As(err, &ended) || ended.ExitCode() != exitNoVerb {
		t.Errorf("a verb that there is none of: %v", err)
	}
}

func TestAClusterThatDoesNotBeginAServiceIsTold(t *testing.T) {
	c := newCluster()
	c.agents(t)
	c.now = func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }
	s, _, _ := c.service(t, c.keepers(t), "serve", "")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.driver(t, nil).Begin(ctx, s); !errors.Is(err, redoubt.Unavailable) || !strings.Contains(computetest.Told(err), "in reach") {
		t.Errorf("got %s", computetest.Told(err))
	}
	if pods, _ := c.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{}); len(pods.Items) != 0 {
		t.Error("its pod is left")
	}
}

func TestClosingTheDriverEndsItsServices(t *testing.T) {
	c := newCluster()
	c.agents(t)
	s, _, _ := c.service(t, c.keepers(t), "serve", "")
	d := c.driver(t, nil)
	i := begin(t, d, s)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-i.Ended():
	default:
		t.Error("it runs on")
	}
	if _, err := d.Begin(t.Context(), s); !errors.Is(err, redoubt.Unavailable) {
		t.Errorf("got %v", err)
	}
}
