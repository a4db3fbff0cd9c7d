package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttest "k8s.io/client-go/testing"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/computetest"
	"redoubt/compute/image"
	"redoubt/faketime"
)

// cluster is one in memory. Its pods are as now says; what is started in them is exec.
type cluster struct {
	*fake.Clientset
	now  func(p *corev1.Pod)
	exec func(container, verb string, in io.Reader, out io.Writer) error
	join func(ctx context.Context, pod string, in io.Reader, out io.Writer) error

	mu   sync.Mutex
	made []kruntime.Object
}

// running has every container of a pod run.
func running(p *corev1.Pod) {
	p.Status.Phase = corev1.PodRunning
	for _, c := range p.Spec.Containers {
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: c.Name, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}})
	}
}

func newCluster(objects ...kruntime.Object) *cluster {
	c := &cluster{Clientset: fake.NewClientset(objects...), now: running}
	c.PrependReactor("create", "*", func(a clienttest.Action) (bool, kruntime.Object, error) {
		o := a.(clienttest.CreateAction).GetObject()
		if p, ok := o.(*corev1.Pod); ok {
			c.now(p)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.made = append(c.made, o.DeepCopyObject())
		return false, nil, nil
	})
	return c
}

// driver makes one for the cluster.
func (c *cluster) driver(t *testing.T, change func(*Options)) *Driver {
	t.Helper()
	o := Options{RuntimeClass: "gvisor", Agent: "registry.test/redoubt@sha256:" + strings.Repeat("a", 64), Registry: "node.test:7443", Owner: "north/secret", Arch: "amd64"}
	if change != nil {
		change(&o)
	}
	d, err := start(o, c, func(ctx context.Context, _, pod, container string, argv []string, in io.Reader, out, _ io.Writer) error {
		if argv[len(argv)-1] == verbJoin {
			return c.join(ctx, pod, in, out)
		}
		return c.exec(container, argv[len(argv)-1], in, out)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// first is what was made of a type.
func first[T kruntime.Object](t *testing.T, c *cluster) T {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.made {
		if x, ok := o.(T); ok {
			return x
		}
	}
	t.Fatalf("no %T was made", *new(T))
	return *new(T)
}

// withImage gives a run an image, and what asks for it.
func withImage(r *computetest.Run, entry ...string) redoubt.SubmitJob {
	config, _ := json.Marshal(map[string]any{"os": "linux", "architecture": "amd64", "config": map[string]any{"Entrypoint": entry, "Env": []string{"PATH=/bin:/usr/bin"}, "WorkingDir": "/"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{}}})
	manifest, _ := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": image.TypeManifest, "config": map[string]any{"mediaType": image.TypeConfig, "digest": image.DigestOf(config), "size": len(config)}, "layers": []any{}})
	repo := image.Repository{Bucket: "tools", Name: "program"}
	r.SetObject(repo.Blob(image.DigestOf(config)), config)
	r.SetObject(repo.Manifest(image.DigestOf(manifest)), manifest)
	r.SetObject(repo.Tag("latest"), []byte(image.DigestOf(manifest).String()))
	return redoubt.SubmitJob{Image: "tools/program"}
}

// agents has real agents work on folders of the test's, which stand for /in and /out.
func (c *cluster) agents(t *testing.T) agent {
	a := agent{in: t.TempDir(), out: t.TempDir()}
	c.exec = func(_, verb string, in io.Reader, out io.Writer) error {
		if verb == verbTake {
			return a.take(in, out)
		}
		return a.run(in, out)
	}
	return a
}

// secrets of a job that may be in nothing that the cluster keeps.
var secrets = []string{"alice", "SECRET", "program-argument", "VARIABLE", "report-name", "content of it"}

func TestNothingOfAJobIsInTheClustersObjects(t *testing.T) {
	c := newCluster()
	a := c.agents(t)
	d := c.driver(t, nil)
	r := computetest.NewRun(map[string][]byte{"b/report-name": []byte("content of it")})
	spec := withImage(r, "sh", "-c", `cat `+a.in+`/b/report-name; echo $VARIABLE $0; echo out >`+a.out+`/result`)
	spec.Args, spec.Env = []string{"program-argument"}, []string{"VARIABLE=value"}
	x, err := d.Run(t.Context(), r.Task(spec))
	if err != nil || x.Code != 0 {
		t.Fatalf("got %+v, %v; it said %q", x, err, r.Said(2))
	}
	if r.Said(1) != "content of itvalue program-argument\n" || string(r.Outputs()["result"]) != "out\n" {
		t.Errorf("it said %q and put %q", r.Said(1), r.Outputs())
	}
	if r.LeftOpen() != 0 {
		t.Error("contents were left open")
	}
	for _, o := range c.made {
		b, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range secrets {
			if bytes.Contains(b, []byte(s)) {
				t.Errorf("%q is in %s", s, b)
			}
		}
	}
	pods, _ := c.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	kept, _ := c.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{})
	if len(pods.Items)+len(kept.Items) != 0 {
		t.Errorf("left behind: %d pods and %d secrets", len(pods.Items), len(kept.Items))
	}
}

func TestAPodIsWalledIn(t *testing.T) {
	c := newCluster()
	c.agents(t)
	d := c.driver(t, func(o *Options) {
		o.Machines, o.PriorityClass = map[string]string{"level": "secret"}, "low"
		o.Token = filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(o.Token, []byte("rdt_pull\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	r := computetest.NewRun(map[string][]byte{"b/x": []byte("x")})
	spec := withImage(r, "true")
	spec.Limits = redoubt.JobLimits{Memory: 256 << 20, CPUs: 1.5, Disk: 8 << 20}
	if x, err := d.Run(t.Context(), r.Task(spec)); err != nil || x.Code != 0 {
		t.Fatalf("got %+v, %v", x, err)
	}
	p := first[*corev1.Pod](t, c)
	s := p.Spec
	if *s.RuntimeClassName != "gvisor" || *s.AutomountServiceAccountToken || *s.EnableServiceLinks || s.HostNetwork || s.HostPID || s.HostIPC || s.DNSPolicy != corev1.DNSNone || s.RestartPolicy != corev1.RestartPolicyNever ||
		s.PriorityClassName != "low" || s.NodeSelector["level"] != "secret" || s.NodeSelector[corev1.LabelArchStable] != "amd64" || s.ServiceAccountName == "default" || *s.ActiveDeadlineSeconds < 60 {
		t.Errorf("the pod is %+v", s)
	}
	if len(s.InitContainers) != 1 || len(s.Containers) != 2 {
		t.Fatalf("%d and %d containers", len(s.InitContainers), len(s.Containers))
	}
	for _, x := range append(s.InitContainers, s.Containers...) {
		w := x.SecurityContext
		if !*w.RunAsNonRoot || *w.RunAsUser < firstUser || *w.AllowPrivilegeEscalation || *w.Privileged || !*w.ReadOnlyRootFilesystem || !slices.Equal(w.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(w.Capabilities.Add) != 0 || w.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: %+v", x.Name, w)
		}
		for _, what := range []corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceCPU, corev1.ResourceEphemeralStorage} {
			if q := x.Resources.Limits[what]; q.IsZero() {
				t.Errorf("%s has no limit of %s", x.Name, what)
			}
		}
		if len(x.Env)+len(x.EnvFrom)+len(x.Ports) != 0 {
			t.Errorf("%s has an environment or ports", x.Name)
		}
	}
	job := s.Containers[0]
	if !strings.HasPrefix(job.Image, "node.test:7443/tools/program@sha256:") || job.Resources.Limits.Memory().Value() != 256<<20+ownMemory || job.Resources.Limits.Cpu().MilliValue() != 1500 {
		t.Errorf("the job's container is %+v", job)
	}
	for _, m := range job.VolumeMounts {
		if want := m.MountPath == inDir || m.MountPath == agentDir; m.ReadOnly != want {
			t.Errorf("%s: read-only is %v", m.MountPath, m.ReadOnly)
		}
	}
	for _, v := range s.Volumes {
		if v.EmptyDir == nil || v.EmptyDir.SizeLimit.IsZero() || v.Name != "agent" && v.EmptyDir.Medium != corev1.StorageMediumMemory {
			t.Errorf("the volume %s is %+v", v.Name, v.VolumeSource)
		}
	}
	pull := first[*corev1.Secret](t, c)
	if pull.Type != corev1.SecretTypeDockerConfigJson || !*pull.Immutable || s.ImagePullSecrets[0].Name != pull.Name {
		t.Errorf("the secret is of type %s, and the pod's %+v", pull.Type, s.ImagePullSecrets)
	}
}

func TestAShareHasANamespaceWithWallsOfItsOwn(t *testing.T) {
	c := newCluster()
	c.agents(t)
	d := c.driver(t, nil)
	in := map[string]bool{}
	for _, by := range []redoubt.SubjectName{"alice", "alice", "bob"} {
		r := computetest.NewRun(nil).Between(by, "SECRET", "SECRET")
		if x, err := d.Run(t.Context(), r.Task(withImage(r, "true"))); err != nil || x.Code != 0 {
			t.Fatalf("got %+v, %v", x, err)
		}
	}
	kinds := map[string]int{}
	for _, o := range c.made {
		kinds[fmt.Sprintf("%T", o)]++
		if p, ok := o.(*corev1.Pod); ok {
			in[p.Namespace] = true
		}
	}
	if len(in) != 2 {
		t.Errorf("pods are in %d namespaces, want 2", len(in))
	}
	for _, kind := range []string{"*v1.Namespace", "*v1.ResourceQuota", "*v1.LimitRange", "*v1.NetworkPolicy", "*v1.ServiceAccount"} {
		if kinds[kind] != 2 {
			t.Errorf("%d of %s, want 2: %v", kinds[kind], kind, kinds)
		}
	}
	n := first[*corev1.Namespace](t, c)
	if len(n.Annotations) != 0 || n.Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
		t.Errorf("the namespace has %v and %v", n.Labels, n.Annotations)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if all, _ := c.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); len(all.Items) != 0 {
		t.Errorf("%d namespaces are left", len(all.Items))
	}
}

func TestWhoseANamespaceIsIsToldWhereTheEstateSaysSo(t *testing.T) {
	c := newCluster()
	c.agents(t)
	d := c.driver(t, func(o *Options) { o.Annotate = true })
	r := computetest.NewRun(nil)
	if x, err := d.Run(t.Context(), r.Task(withImage(r, "true"))); err != nil || x.Code != 0 {
		t.Fatalf("got %+v, %v", x, err)
	}
	if n := first[*corev1.Namespace](t, c); n.Annotations[shareNote] != r.Share() || strings.Contains(n.Name, "alice") {
		t.Errorf("got %s with %v", n.Name, n.Annotations)
	}
}

func TestWhatAnEarlierDriverLeftIsRemovedAndNothingElse(t *testing.T) {
	left := func(name, owner string) *corev1.Namespace {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{ownerLabel: ownerID(owner)}}}
	}
	c := newCluster(left("redoubt-old", "north/secret"), left("redoubt-others", "north/unclass"), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	d := c.driver(t, nil)
	<-d.swept
	all, _ := c.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
	var names []string
	for _, n := range all.Items {
		names = append(names, n.Name)
	}
	if slices.Sort(names); !slices.Equal(names, []string{"default", "redoubt-others"}) {
		t.Errorf("left are %q", names)
	}
}

// A namespace that is done with may have a pod in it that the cluster would not remove: it is asked for more than once, and not without end.
func TestANamespaceThatIsNotRemovedIsTriedAgain(t *testing.T) {
	for name, x := range map[string]struct{ fails, want int }{"for a while": {3, 4}, "for ever": {1000, retireTries}} {
		faketime.Test(t, func(t *testing.T) {
			c, asked := newCluster(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "redoubt-x"}}), 0
			c.PrependReactor("delete", "namespaces", func(clienttest.Action) (bool, kruntime.Object, error) {
				asked++
				return asked <= x.fails, nil, errors.New("the cluster does not answer")
			})
			d := &Driver{client: c, spaces: map[string]*space{}, o: Options{Log: slog.New(slog.DiscardHandler)}}
			d.stopping, d.stop = context.WithCancel(t.Context())
			d.retire(&space{name: "redoubt-x"})
			if asked != x.want {
				t.Errorf("%s: it was asked %d times, want %d", name, asked, x.want)
			}
			asked = 0
			go d.retire(&space{name: "redoubt-x"})
			synctest.Wait()
			d.stop() // which removes all
			if d.running.Wait(); asked > 1 {
				t.Errorf("%s: it goes on with a driver that is closed", name)
			}
		})
	}
}

// outcome runs something in a cluster.
func outcome(t *testing.T, c *cluster, r *computetest.Run, spec redoubt.SubmitJob) (compute.Exit, error) {
	t.Helper()
	return c.driver(t, func(o *Options) { o.Wait = time.Millisecond }).Run(t.Context(), r.Task(spec))
}

func TestWhatTheClusterSaysIsTold(t *testing.T) {
	waiting := func(reason, message string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodPending
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: jobContainer, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}}
		}
	}
	ended := func(reason string, code int32) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodFailed
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: jobContainer, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: reason, ExitCode: code, Message: "why"}}}}
		}
	}
	phase := func(reason string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Status.Phase, p.Status.Reason = corev1.PodFailed, reason }
	}
	for _, x := range []struct {
		name, want string // "": it is not the job's fault, and is tried again
		now        func(*corev1.Pod)
	}{
		{"pull", "cannot pull the image", waiting("ImagePullBackOff", "")},
		{"refused", "cannot pull the image", waiting("ErrImagePull", "unexpected status: 401 Unauthorized")},
		{"name", "cannot pull the image", waiting("InvalidImageName", "")},
		{"create", "cannot run the image: no such thing", waiting("CreateContainerError", "no such\nthing")},
		{"start", "cannot run the image: why", ended("StartError", 128)},
		{"deadline", "out of time: ", phase("DeadlineExceeded")},
		{"evicted", "has put it out", phase("Evicted")},
		{"lost", "", phase("NodeLost")},
		{"no wall", "", ended("Error", exitNoWall)},
		{"sidecar", "containers of its own", func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "proxy", Image: "mesh"})
			running(p)
		}},
		{"first of all", "containers of its own", func(p *corev1.Pod) {
			p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: "proxy", Image: "mesh"})
			running(p)
		}},
		{"another image", "changes ours", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "mesh"; running(p) }},
		{"another command", "changes ours", func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"sh"}; running(p) }},
		{"agent", "", func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: agentContainer, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}}}
		}},
		{"room", "no room for it", func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "0/1 nodes are available"}}
		}},
		{"slow", "did not begin it", func(p *corev1.Pod) {}},
	} {
		c := newCluster()
		c.now = x.now
		r := computetest.NewRun(nil)
		got, err := outcome(t, c, r, withImage(r, "true"))
		if (err != nil) != (x.want == "") || x.want != "" && (got.Code != -1 || !strings.Contains(got.Why, x.want)) {
			t.Errorf("%s: got %+v, %v, want %q", x.name, got, err, x.want)
		}
	}
}

func TestAContainerThatIsKilledForItsMemoryIsTold(t *testing.T) {
	c := newCluster()
	c.exec = func(_, _ string, in io.Reader, out io.Writer) error {
		f := &frames{r: in, w: out, max: maxTask}
		f.read()
		f.write(sayBegan, nil)
		pods, _ := c.CoreV1().Pods("").List(context.Background(), metav1.ListOptions{})
		p := pods.Items[0]
		p.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "OOMKilled", ExitCode: 137}}
		p.Status.Phase = corev1.PodFailed
		c.CoreV1().Pods(p.Namespace).Update(context.Background(), &p, metav1.UpdateOptions{})
		return errors.New("the stream broke")
	}
	r := computetest.NewRun(nil)
	spec := withImage(r, "true")
	spec.Limits.Memory = 128 << 20
	x, err := c.driver(t, nil).Run(t.Context(), r.Task(spec))
	if err != nil || x.Code != -1 || !strings.HasPrefix(x.Why, "out of memory: it may use 128 MiB") {
		t.Errorf("got %+v, %v", x, err)
	}
}

func TestImagesThatAreNotThereOrNotAdmittedDoNotRun(t *testing.T) {
	c := newCluster()
	d := c.driver(t, func(o *Options) { o.Images = &redoubt.ImagePolicy{} })
	r := computetest.NewRun(nil)
	spec := withImage(r, "true")
	if x, err := d.Run(t.Context(), r.Task(spec)); err != nil || x.Code != -1 || !strings.Contains(x.Why, "polic") {
		t.Errorf("got %+v, %v, want it not admitted", x, err)
	}
	for _, name := range []string{"tools/none", "tools/program:none", "-", "tools/program@sha256:12"} {
		if x, err := d.Run(t.Context(), r.Task(redoubt.SubmitJob{Image: name})); err != nil || x.Code != -1 || x.Why == "" {
			t.Errorf("%s: got %+v, %v", name, x, err)
		}
	}
	if n := len(c.made); n != 0 {
		t.Errorf("%d objects were made on the cluster", n)
	}
}

func TestInputsAreReadWholeBeforeTheProgramBegins(t *testing.T) {
	c := newCluster()
	a := c.agents(t)
	files := map[string][]byte{"b/low": []byte("1"), "b/deep/er/high": bytes.Repeat([]byte("x"), maxPiece+1), "b/empty": {}}
	r := computetest.NewRun(files).Hide("b/deep/beyond")
	x, err := c.driver(t, nil).Run(t.Context(), r.Task(withImage(r, "true")))
	if err != nil || x.Code != 0 {
		t.Fatalf("got %+v, %v", x, err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(a.in, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if s, err := os.Stat(filepath.Join(a.in, name)); err != nil || !s.ModTime().Equal(computetest.Modified) {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
	reads := r.Reads()
	for _, want := range []string{"list", "list b", "list b/deep", "open b/low", "open b/deep/er/high", "open b/empty"} {
		if !slices.Contains(reads, want) {
			t.Errorf("%q was not read: %q", want, reads)
		}
	}
}

func TestTooManyInputBytesAreRefusedBeforeAnyIsOpened(t *testing.T) {
	for limit, ok := range map[int64]bool{10: true, 9: false} {
		c := newCluster()
		c.agents(t)
		r := computetest.NewRun(map[string][]byte{"b/a": []byte("12345"), "b/b": []byte("67890")})
		x, err := c.driver(t, func(o *Options) { o.InputBytes = limit }).Run(t.Context(), r.Task(withImage(r, "true")))
		if err != nil || (x.Code == 0) != ok || slices.Contains(r.Reads(), "open b/a") != ok {
			t.Errorf("%d: got %+v, %v and %q", limit, x, err, r.Reads())
		}
	}
}

func TestAProgramIsFoundAndTold(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("pods run Linux")
	}
	for _, x := range []struct {
		entry []string
		code  int
		why   string
	}{
		{[]string{"sh", "-c", "exit 3"}, 3, "exit code 3"},
		{[]string{"/bin/sh", "-c", "kill -KILL $$"}, 137, "signal: killed"},
		{[]string{"none"}, -1, `"none" is not in the image`},
		{[]string{"/none"}, -1, "cannot be begun"},
		{[]string{"/etc/passwd"}, -1, "cannot be begun"},
		{nil, -1, "does not say which program"},
		{[]string{"sh", "-c", `test "$HOME$PATH" = /tmp/bin:/usr/bin`}, 0, ""},
	} {
		c := newCluster()
		c.agents(t)
		r := computetest.NewRun(nil)
		got, err := c.driver(t, nil).Run(t.Context(), r.Task(withImage(r, x.entry...)))
		if err != nil || got.Code != x.code || !strings.Contains(got.Why, x.why) {
			t.Errorf("%q: got %+v, %v", x.entry, got, err)
		}
	}
}

func TestTimeEndsAPodsProgram(t *testing.T) {
	c := newCluster()
	c.agents(t)
	r := computetest.NewRun(nil)
	spec := withImage(r, "sleep", "1000")
	spec.Seconds = 1
	if x, err := c.driver(t, nil).Run(t.Context(), r.Task(spec)); err != nil || x.Code != -1 || !strings.HasPrefix(x.Why, "out of time: ") {
		t.Errorf("got %+v, %v", x, err)
	}
	if pods, _ := c.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{}); len(pods.Items) != 0 {
		t.Error("the pod is left")
	}
}

func TestNoNetworkIsGranted(t *testing.T) {
	c := newCluster()
	r := computetest.NewRun(nil)
	spec := withImage(r, "true")
	spec.Network = []string{"home:443"}
	if x, err := outcome(t, c, r, spec); err != nil || x.Code != -1 || !strings.Contains(x.Why, "network") {
		t.Errorf("got %+v, %v", x, err)
	}
}

func TestAKubeconfigThatTrustsTooMuchIsRefused(t *testing.T) {
	const form = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "%s"%s}}]
users: [{name: u, user: {%s}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`
	for _, x := range []struct {
		name, server, cluster, user string
		mode                        os.FileMode
		want                        string
	}{
		{"good", "https://10.0.0.1:6443", "", "token: t", 0o600, ""},
		{"open", "https://10.0.0.1:6443", "", "token: t", 0o640, "others"},
		{"clear", "http://10.0.0.1:6443", "", "token: t", 0o600, "TLS"},
		{"blind", "https://10.0.0.1:6443", ", insecure-skip-tls-verify: true", "token: t", 0o600, "any server"},
		{"program", "https://10.0.0.1:6443", "", "exec: {apiVersion: client.authentication.k8s.io/v1, command: id, interactiveMode: Never}", 0o600, "program"},
	} {
		file := filepath.Join(t.TempDir(), "kubeconfig")
		if err := os.WriteFile(file, fmt.Appendf(nil, form, x.server, x.cluster, x.user), x.mode); err != nil {
			t.Fatal(err)
		}
		_, err := config(file)
		if (err == nil) != (x.want == "") || err != nil && !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: got %v, want %q", x.name, err, x.want)
		}
		if at, err := Server(file); x.want == "" && (err != nil || at != "10.0.0.1:6443") {
			t.Errorf("got %s, %v", at, err)
		}
	}
}

func TestAClusterThatDoesNotAnswerLacksNothingAndOneThatRefusesDoes(t *testing.T) {
	for _, x := range []struct {
		err     error
		objects []kruntime.Object
		want    bool
	}{
		{errors.New("connection refused"), nil, true},
		{apierrors.NewForbidden(corev1.Resource("namespaces"), "", nil), nil, false},
		{nil, nil, false}, // no RuntimeClass
		{nil, []kruntime.Object{&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "gvisor"}}}, true},
	} {
		c := newCluster(x.objects...)
		if x.err != nil {
			c.PrependReactor("list", "namespaces", func(clienttest.Action) (bool, kruntime.Object, error) { return true, nil, x.err })
		}
		if err := c.driver(t, nil).Available(); (err == nil) != x.want {
			t.Errorf("%v: got %v", x.err, err)
		}
	}
}
