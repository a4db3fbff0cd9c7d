package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/computetest"
	"redoubt/compute/kube"
	"redoubt/label"
	"redoubt/redoubttest"
)

func TestAClustersServicesMeetTheContract(t *testing.T) {
	computetest.Services(t, func(t *testing.T) compute.ServiceDriver { return theLab.driver(t, theLab.options()) }, theLab.programs())
}

// client speaks with the cluster as its administrator.
func client(t *testing.T) *kubernetes.Clientset {
	t.Helper()
	c, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	k, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func begin(t testing.TB, d compute.ServiceDriver, s compute.Service) compute.Instance {
	t.Helper()
	i, err := d.Begin(t.Context(), s)
	if err != nil {
		t.Fatalf("%s; it said %q", computetest.Told(err), s.Log)
	}
	t.Cleanup(i.Close)
	return i
}

// ask has a service answer a request for a path.
func ask(t testing.TB, i compute.Instance, path string) string {
	t.Helper()
	w, err := computetest.Ask(i, "GET", "/svc/x/"+path, nil)
	if err != nil {
		t.Errorf("%s: %v", path, err)
	}
	return w.Body.String()
}

// A service listens on every address, and is reached by the API server alone; it reaches nobody but itself.
func TestAServiceHasNoNetworkButItself(t *testing.T) {
	s, _, _ := theLab.programs().Service(t, "serve", "")
	i := begin(t, theLab.driver(t, theLab.options()), s)
	pods, err := client(t).CoreV1().Pods("").List(t.Context(), metav1.ListOptions{LabelSelector: "redoubt/owner"})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("%d pods, %v", len(pods.Items), err)
	}
	at := pods.Items[0].Status.PodIP
	if c, err := net.DialTimeout("tcp", net.JoinHostPort(at, "8080"), 3*time.Second); err == nil {
		c.Close()
		t.Errorf("%s answers from outside", at)
	}
	for _, to := range []string{"tcp/10.77.0.1:6443", "tcp/10.88.0.1:6443", "udp/10.77.0.1:53"} {
		if got := ask(t, i, "dial/"+to); got == "<nil>" {
			t.Errorf("%s: it got out", to)
		}
	}
	if got := ask(t, i, "dial/tcp/127.0.0.1:8080"); got != "<nil>" {
		t.Errorf("it does not reach itself: %s", got)
	}
	for _, file := range []string{"proc/1/mem", "proc/1/environ", "var/run/secrets/kubernetes.io/serviceaccount/token"} {
		if got := ask(t, i, "kind/"+file); got != "permission denied" && got != "no such file or directory" {
			t.Errorf("%s: %s", file, got)
		}
	}
}

// Beside the program are the first process of its container, its keeper and what joins the node with that: all of its user. It can look into none of them,
// and its keeper, whose socket it reaches, does nothing for it.
func TestAServiceHasNoNetworkByWhatStandsBesideIt(t *testing.T) {
	s, _, _ := theLab.programs().Service(t, "serve", "")
	i := begin(t, theLab.driver(t, theLab.options()), s)
	own, denied := ask(t, i, "pid"), 0
	for pid := range 64 {
		at := fmt.Sprintf("kind/proc/%d/", pid)
		if pid == 0 || ask(t, i, fmt.Sprintf("kind/proc/%s/task/%d/environ", own, pid)) == "<nil>" { // a thread of its own, which has a name there too
			continue
		}
		for _, file := range []string{"mem", "environ"} {
			switch got := ask(t, i, at+file); got {
			case "permission denied":
				denied++
			case "no such file or directory":
			default:
				t.Errorf("process %d, %s: %s", pid, file, got)
			}
		}
	}
	if denied < 2*3 {
		t.Errorf("it was denied %d files, of three processes", denied)
	}
	for _, what := range []string{"POST/@redoubt-keeper/begin", "POST/@redoubt-keeper/connect", "GET/@redoubt-keeper/watch"} {
		if got := ask(t, i, "ask/"+what); got != "403" && !(class == "gvisor" && strings.Contains(got, "connection refused")) { // where it is in a network namespace of its own
			t.Errorf("%s: %s", what, got)
		}
	}
}

// cutter stands between a driver and the cluster's API, and breaks every connection when it is told to.
type cutter struct {
	net.Listener
	to string

	mu  sync.Mutex
	all []net.Conn
}

func (c *cutter) serve() {
	for {
		in, err := c.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", c.to)
		if err != nil {
			in.Close()
			continue
		}
		c.mu.Lock()
		c.all = append(c.all, in, out)
		c.mu.Unlock()
		go func() { io.Copy(out, in); out.Close() }()
		go func() { io.Copy(in, out); in.Close() }()
	}
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.all {
		x.Close()
	}
	c.all = nil
}

func TestAServiceOutlivesALostConnection(t *testing.T) {
	was, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{Listener: l, to: "10.77.0.1:6443"}
	t.Cleanup(func() { l.Close(); c.cut() })
	go c.serve()
	for _, x := range was.Clusters {
		x.Server = "https://" + l.Addr().String()
	}
	o := theLab.options()
	o.Kubeconfig, o.Owner = filepath.Join(t.TempDir(), "kubeconfig"), "cut"
	if err := clientcmd.WriteToFile(clientcmdapi.Config(*was), o.Kubeconfig); err != nil {
		t.Fatal(err)
	}
	s, _, log := theLab.programs().Service(t, "serve", "")
	i := begin(t, theLab.driver(t, o), s)
	before := ask(t, i, "pid")
	for n := range 3 {
		c.cut()
		began := time.Now()
		for {
			w, err := computetest.Ask(i, "GET", fmt.Sprintf("/svc/x/say?word%d", n), nil)
			if err == nil {
				break
			}
			if !errors.Is(err, redoubt.Internal) {
				t.Fatalf("%d %v", w.Code, err)
			}
		}
		t.Logf("answers again after %v", time.Since(began))
		if got := ask(t, i, "pid"); got != before {
			t.Errorf("process %s was %s", got, before)
		}
		for deadline := time.Now().Add(time.Minute); !strings.Contains(log.String(), fmt.Sprintf("word%d", n)) && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
	}
	if got := log.String(); !strings.Contains(got, "word0") || !strings.Contains(got, "word1") || !strings.Contains(got, "word2") {
		t.Errorf("the log is %q", got)
	}
}

// What an enclave's service answers comes of an instance at the caller's label, in a namespace of its own; a new revision takes over when it answers.
func TestAServiceOfAnEnclaveAnswersAtEachLabel(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{Time: time.Now, Buckets: []redoubt.Bucket{{Name: "reports"}, {Name: "tools"}}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s.Images}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	low, high := s.Mint("s-analyst", "UNCLASSIFIED"), s.Mint("s-analyst", "SECRET")
	ref, err := name.NewTag(l.Addr().String() + "/tools/program:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, imageOf(computetest.Build(t, "linux", "amd64")), remote.WithAuth(&authn.Basic{Username: "redoubt", Password: low.Token})); err != nil {
		t.Fatal(err)
	}
	for key, who := range map[string]redoubt.Credential{"low": s.As(low), "high": s.As(high)} {
		if _, err := s.PutObject(t.Context(), who, redoubt.PutObject{Name: redoubt.ObjectName{Bucket: "reports", Key: key}, SizeBytes: 3, Body: strings.NewReader("abc")}); err != nil {
			t.Fatal(err)
		}
	}
	o := theLab.options()
	o.Registry, o.Owner, o.Token = l.Addr().String(), "enclave", filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(o.Token, []byte(low.Token), 0o600); err != nil {
		t.Fatal(err)
	}
	host := compute.NewServices(s.Enclave, map[string]compute.Driver{kube.Name: theLab.driver(t, o)}, nil)
	t.Cleanup(func() { host.Close() })
	spec := redoubt.ServiceSpec{Image: "tools/program:1", Driver: kube.Name, Args: []string{"serve", ""}, Health: "/up", Most: 1, Seconds: 90, In: []redoubt.JobInput{{Bucket: "reports"}}}
	deploy := func() redoubt.Service {
		t.Helper()
		of, err := s.DeployService(t.Context(), s.As(low), "x", spec)
		if err != nil {
			t.Fatal(err)
		}
		return of
	}
	call := func(who redoubt.Credential, path string) (int, string) {
		t.Helper()
		w := httptest.NewRecorder()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		if err := host.Serve(w, httptest.NewRequest("GET", "/svc/x/"+path, nil).WithContext(ctx), who, "x"); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		return w.Code, w.Header().Get(redoubt.ServiceLabelHeader) + " " + w.Body.String()
	}
	of := deploy()
	for _, c := range []struct {
		who  redoubt.Credential
		path string
		code int
		want string
	}{
		{s.As(low), "in/reports/low", 200, "UNCLASSIFIED abc"},
		{s.As(low), "in/reports/high", 404, "UNCLASSIFIED "},
		{s.As(high), "in/reports/high", 200, "SECRET abc"},
		{s.As(high), "in/reports/low", 200, "SECRET abc"},
		{s.As(high), "write/tmp/left", 200, "SECRET <nil>"},
		{s.As(low), "kind/tmp/left", 200, "UNCLASSIFIED no such file or directory"},
	} {
		if code, got := call(c.who, c.path); code != c.code || got != c.want {
			t.Errorf("%s: got %d %q, want %d %q", c.path, code, got, c.code, c.want)
		}
	}
	spaces, err := client(t).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{LabelSelector: "redoubt/owner"})
	made := slices.DeleteFunc(spaces.Items, func(n corev1.Namespace) bool { return n.DeletionTimestamp != nil }) // those of other tests
	if err != nil || len(made) != 2 {
		t.Errorf("%d namespaces, %v; want one for each label", len(made), err)
	}
	if seen := host.Running(of, label.Label{}); len(seen) != 0 {
		t.Errorf("whose label dominates nothing sees %+v", seen)
	}
	spec.Args = []string{"say", "revision two", "serve", ""}
	of = deploy()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline) && !strings.Contains(string(host.Log(of, s.As(low).Working)), "revision two"); time.Sleep(100 * time.Millisecond) {
		if code, got := call(s.As(low), "up"); code != 200 {
			t.Fatalf("while a new revision begins: %d %s", code, got)
		}
	}
	if log := string(host.Log(of, s.As(low).Working)); !strings.Contains(log, "revision two") || !strings.Contains(log, "serving") {
		t.Errorf("the log is %q", log)
	}
	if err := host.Close(); err != nil {
		t.Fatal(err)
	}
	pods, err := client(t).CoreV1().Pods("").List(t.Context(), metav1.ListOptions{LabelSelector: "redoubt/owner"})
	if err != nil || len(pods.Items) != 0 {
		t.Errorf("%d pods are left, %v", len(pods.Items), err)
	}
}

// From Begin to its return, and a request to what it has begun.
func BenchmarkService(b *testing.B) {
	d := theLab.driver(b, theLab.options())
	p := theLab.programs()
	var s compute.Service
	r := computetest.NewRun(nil)
	s = compute.Service{JobRun: r, Limits: redoubt.JobLimits{Memory: 256 << 20, CPUs: 1, Processes: 64, Disk: 16 << 20}, Timeout: 10 * time.Second, At: "SECRET", Log: io.Discard,
		Spec: redoubt.ServiceSpec{Image: theLab.load(b, r, computetest.Build(b, p.GOOS, p.GOARCH)).Image, Args: []string{"serve", ""}, Port: 8080, Health: "/up"}}
	began := time.Now()
	i := begin(b, d, s)
	b.Logf("begun after %v", time.Since(began))
	body := strings.NewReader(strings.Repeat("x", 1<<20))
	b.Run("small", func(b *testing.B) {
		for b.Loop() {
			ask(b, i, "up")
		}
	})
	b.Run("1MiB-echo", func(b *testing.B) {
		b.SetBytes(2 << 20)
		for b.Loop() {
			body.Seek(0, io.SeekStart)
			if w, err := computetest.Ask(i, "POST", "/svc/x/echo", body); err != nil || w.Body.Len() != 1<<20 {
				b.Fatalf("%d %v", w.Body.Len(), err)
			}
		}
	})
}
