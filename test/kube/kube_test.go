// Package kube runs the contract suite of package computetest on a real cluster: make kube.
package kube

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/computetest"
	"redoubt/compute/image"
	"redoubt/compute/kube"
)

// What `make kube` says: the cluster's kubeconfig, and the binary whose image is the agent.
var (
	kubeconfig = os.Getenv("KUBE_CONFIG")
	binary     = os.Getenv("KUBE_AGENT")
	class      = cmp.Or(os.Getenv("KUBE_RUNTIME_CLASS"), kube.NoRuntimeClass)
)

// token is what the cluster proves itself with to the registry.
const token = "rdt_the-clusters-own"

// lab is a registry that the cluster pulls from.
type lab struct {
	addr, agent, tokenFile string
}

var theLab *lab

func TestMain(m *testing.M) {
	if kubeconfig == "" || binary == "" {
		fmt.Println("no cluster: make kube brings one up")
		os.Exit(0)
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "kube")
		if err != nil {
			log.Fatal(err)
		}
		defer os.RemoveAll(dir)
		if theLab, err = open(dir); err != nil {
			log.Fatal(err)
		}
		return m.Run()
	}())
}

// open serves a registry on this machine alone, and puts the agent's image there. Who pulls anything but that proves itself.
func open(dir string) (*lab, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	all := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); !strings.HasPrefix(r.URL.Path, "/v2/redoubt/") && password != token {
			w.Header().Set("WWW-Authenticate", `Basic realm="lab"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
			return
		}
		all.ServeHTTP(w, r)
	}))
	x := &lab{addr: l.Addr().String(), tokenFile: filepath.Join(dir, "token")}
	if err := os.WriteFile(x.tokenFile, []byte(token+"\n"), 0o600); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	f, err := os.Open(binary)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	digest, err := kube.WriteAgentImage(&b, f, "amd64")
	if err != nil {
		return nil, err
	}
	at := filepath.Join(dir, "agent")
	if err := untar(at, &b); err != nil {
		return nil, err
	}
	index, err := layout.ImageIndexFromPath(at)
	if err != nil {
		return nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	agent, err := index.Image(m.Manifests[0].Digest)
	if err != nil {
		return nil, err
	}
	x.agent = x.addr + "/redoubt/agent@" + digest
	return x, x.push("redoubt/agent", agent)
}

func untar(dir string, r io.Reader) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		at := filepath.Join(dir, h.Name)
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(at, 0o755)
		} else {
			var b []byte
			if b, err = io.ReadAll(t); err == nil {
				err = errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, b, 0o644))
			}
		}
		if err != nil {
			return err
		}
	}
}

func (l *lab) push(repo string, i v1.Image) error {
	d, err := i.Digest()
	if err != nil {
		return err
	}
	ref, err := name.NewDigest(l.addr + "/" + repo + "@" + d.String())
	if err != nil {
		return err
	}
	return remote.Write(ref, i, remote.WithAuth(&authn.Basic{Username: "lab", Password: token}))
}

func (l *lab) options() kube.Options {
	return kube.Options{Kubeconfig: kubeconfig, RuntimeClass: class, Agent: l.agent, Registry: l.addr, Token: l.tokenFile, Owner: "lab", Wait: 2 * time.Minute}
}

func (l *lab) driver(t testing.TB, o kube.Options) *kube.Driver {
	t.Helper()
	d, err := kube.New(o)
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

// tarOf is a layer with one program in it.
func tarOf(program []byte) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "program", Mode: 0o755, Size: int64(len(program)), Typeflag: tar.TypeReg})); err != nil {
		panic(err)
	}
	w.Write(program)
	w.Close()
	return b.Bytes()
}

// imageOf makes an image of a program: of nothing else, so no shell and no tar.
func imageOf(program []byte) *pushed {
	layer := tarOf(program)
	config, err := json.Marshal(map[string]any{"os": "linux", "architecture": "amd64",
		"config": map[string]any{"Entrypoint": []string{"/program"}}, "rootfs": map[string]any{"type": "layers", "diff_ids": []string{image.DigestOf(layer).String()}}})
	if err != nil {
		panic(err)
	}
	manifest, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": image.TypeManifest,
		"config": map[string]any{"mediaType": image.TypeConfig, "digest": image.DigestOf(config), "size": len(config)},
		"layers": []any{map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": image.DigestOf(layer), "size": len(layer)}}})
	if err != nil {
		panic(err)
	}
	return &pushed{manifest: manifest, config: config, layer: layer}
}

// load hands an image of a program to a run. It lies in the registry, and its manifest and configuration among the objects of the run too, as they
// do in an enclave.
func (l *lab) load(t testing.TB, r *computetest.Run, program []byte) redoubt.SubmitJob {
	t.Helper()
	i := imageOf(program)
	if err := l.push("tools/program", i); err != nil {
		t.Fatal(err)
	}
	repo := image.Repository{Bucket: "tools", Name: "program"}
	d := image.DigestOf(i.manifest)
	r.SetObject(repo.Manifest(d), i.manifest)
	r.SetObject(repo.Blob(image.DigestOf(i.config)), i.config)
	return redoubt.SubmitJob{Image: "tools/program@" + d.String()}
}

// pushed is an image as it was made here, byte for byte.
type pushed struct{ manifest, config, layer []byte }

func hash(b []byte) v1.Hash { return v1.Hash{Algorithm: "sha256", Hex: image.DigestOf(b).Hex()} }

func (p *pushed) one() v1.Layer                       { return static.NewLayer(p.layer, types.OCIUncompressedLayer) }
func (p *pushed) Layers() ([]v1.Layer, error)         { return []v1.Layer{p.one()}, nil }
func (p *pushed) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
func (p *pushed) Size() (int64, error)                { return int64(len(p.manifest)), nil }
func (p *pushed) ConfigName() (v1.Hash, error)        { return hash(p.config), nil }
func (p *pushed) ConfigFile() (*v1.ConfigFile, error) {
	return v1.ParseConfigFile(bytes.NewReader(p.config))
}
func (p *pushed) RawConfigFile() ([]byte, error) { return p.config, nil }
func (p *pushed) Digest() (v1.Hash, error)       { return hash(p.manifest), nil }
func (p *pushed) Manifest() (*v1.Manifest, error) {
	return v1.ParseManifest(bytes.NewReader(p.manifest))
}
func (p *pushed) RawManifest() ([]byte, error)            { return p.manifest, nil }
func (p *pushed) LayerByDigest(v1.Hash) (v1.Layer, error) { return p.one(), nil }
func (p *pushed) LayerByDiffID(v1.Hash) (v1.Layer, error) { return p.one(), nil }

func (l *lab) programs() computetest.Programs {
	return computetest.Programs{GOOS: "linux", GOARCH: "amd64", Processes: true, Eager: true,
		Load: func(t *testing.T, r *computetest.Run, program []byte) redoubt.SubmitJob { return l.load(t, r, program) }}
}

func TestAClusterMeetsTheContract(t *testing.T) {
	computetest.Suite(t, func(t *testing.T) compute.Driver { return theLab.driver(t, theLab.options()) }, theLab.programs())
}

// A job has read all of its inputs before it begins, whatever it opens: so it has risen to their join.
func TestAllInputsAreReadBeforeAJobBegins(t *testing.T) {
	d := theLab.driver(t, theLab.options())
	r := computetest.NewRun(map[string][]byte{"b/low": []byte("1"), "b/deep/high": []byte("2")})
	spec := theLab.load(t, r, computetest.Build(t, "linux", "amd64"))
	spec.Args = []string{"say", "began"}
	var before []string
	task := r.Task(spec)
	task.JobRun = &saying{r, func() { before = r.Reads() }}
	if x, err := d.Run(t.Context(), task); err != nil || x.Code != 0 {
		t.Fatalf("got %+v, %v", x, err)
	}
	for _, want := range []string{"list", "list b", "list b/deep", "open b/low", "open b/deep/high"} {
		if !slices.Contains(before, want) {
			t.Errorf("%q was not read when the program said something: %q", want, before)
		}
	}
}

type saying struct {
	*computetest.Run
	first func()
}

func (s *saying) Log(stream int, text []byte) { s.first(); s.Run.Log(stream, text) }

func TestMuchComesAndGoes(t *testing.T) {
	d := theLab.driver(t, theLab.options())
	files := map[string][]byte{"b/large": bytes.Repeat([]byte("0123456789abcdef"), 16<<20)}
	for i := range 3000 {
		files[fmt.Sprintf("b/small/%d", i)] = []byte("x")
	}
	r := computetest.NewRun(files)
	spec := theLab.load(t, r, computetest.Build(t, "linux", "amd64"))
	spec.Args = []string{"sum", "/in/b/large", "sum", "/in/b/small/2999", "fill", "/out/large=134217728"}
	began := time.Now()
	x, err := d.Run(t.Context(), r.Task(spec))
	if err != nil || x.Code != 0 || len(r.Outputs()["large"]) != 128<<20 || !strings.HasPrefix(r.Said(1), "268435456 ") {
		t.Errorf("got %+v, %v; it said %q %q", x, err, r.Said(1), r.Said(2))
	}
	t.Logf("256 MiB and 3000 files in, 128 MiB out: %v", time.Since(began))
}

func TestAProgramHasNoWayOut(t *testing.T) {
	d := theLab.driver(t, theLab.options())
	r := computetest.NewRun(nil)
	spec := theLab.load(t, r, computetest.Build(t, "linux", "amd64"))
	spec.Args = []string{"dial", "127.0.0.1:6443", "dial", "10.77.0.1:6443", "kind", "/var/run/secrets/kubernetes.io/serviceaccount/token", "refuse", "/etc/new", "device", "/tmp/null", "user", "", "env", "KUBERNETES_SERVICE_HOST", "kind", "/proc/1/mem"}
	x, err := d.Run(t.Context(), r.Task(spec))
	if err != nil || x.Code != 0 {
		t.Fatalf("got %+v, %v: %q", x, err, r.Said(2))
	}
	said := strings.Split(strings.TrimSuffix(r.Said(1), "\n"), "\n")
	if len(said) != 7 || said[0] != "refused" || said[1] != "refused" || said[2] != "no such file or directory" || said[3] != "operation not permitted" || strings.HasPrefix(said[4], "0 ") || said[5] != "KUBERNETES_SERVICE_HOST=" || said[6] != "permission denied" && said[6] != "no such file or directory" {
		t.Errorf("it said %q", said)
	}
}

func TestAnImageThatCannotBePulledIsTold(t *testing.T) {
	o := theLab.options()
	o.Token = "" // the registry refuses who does not prove itself
	d := theLab.driver(t, o)
	r := computetest.NewRun(nil)
	x, err := d.Run(t.Context(), r.Task(theLab.load(t, r, []byte("never pulled before: "+time.Now().String()))))
	if err != nil || x.Code != -1 || !strings.Contains(x.Why, "cannot pull") {
		t.Errorf("got %+v, %v", x, err)
	}
}

func TestWhatTheClusterHasNoRoomForIsTold(t *testing.T) {
	o := theLab.options()
	o.Wait = 5 * time.Second
	d := theLab.driver(t, o)
	r := computetest.NewRun(nil)
	spec := theLab.load(t, r, computetest.Build(t, "linux", "amd64"))
	spec.Limits.Memory = 1 << 50
	x, err := d.Run(t.Context(), r.Task(spec))
	if err != nil || x.Code != -1 || !strings.Contains(x.Why, "no room") {
		t.Errorf("got %+v, %v", x, err)
	}
}

// A driver that died leaves its pods; the next one of the same owner removes them.
func TestWhatADeadDriverLeftIsRemoved(t *testing.T) {
	o := theLab.options()
	o.Owner = "dies"
	dead, err := kube.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := computetest.NewRun(nil)
	spec := theLab.load(t, r, computetest.Build(t, "linux", "amd64"))
	spec.Args = []string{"say", "began", "spin", ""}
	task := r.Task(spec)
	began := make(chan struct{})
	task.JobRun = &saying{r, func() { close(began) }}
	gone := make(chan struct{})
	go func() { defer close(gone); dead.Run(ctx, task) }()
	<-began
	if left(t) == 0 {
		t.Fatal("nothing is on the cluster while it runs")
	}
	next := theLab.driver(t, o) // as after a crash: the first is still in the middle of it
	for deadline := time.Now().Add(time.Minute); left(t) > 0 && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond)
	}
	if n := left(t); n != 0 {
		t.Errorf("%d namespaces are left", n)
	}
	<-gone // its stream has ended with the pod
	cancel()
	r = computetest.NewRun(nil)
	spec = theLab.load(t, r, computetest.Build(t, "linux", "amd64"))
	spec.Args = []string{"say", "and others go on"}
	if x, err := next.Run(t.Context(), r.Task(spec)); err != nil || x.Code != 0 {
		t.Errorf("got %+v, %v", x, err)
	}
	dead.Close()
}

// left counts the namespaces of drivers on the cluster.
func left(t *testing.T) int {
	t.Helper()
	c, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	all, err := client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{LabelSelector: "redoubt/owner"})
	if err != nil {
		t.Fatal(err)
	}
	return len(all.Items)
}

// What docs/spec/kube.md says a node's account must be allowed is enough, and no program that fetches credentials is needed.
func TestTheRoleIsEnough(t *testing.T) {
	c, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../contrib/kubernetes-role.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var role rbacv1.ClusterRole
	if err := yaml.UnmarshalStrict(text, &role); err != nil {
		t.Fatal(err)
	}
	_, err = client.RbacV1().ClusterRoles().Create(t.Context(), &role, metav1.CreateOptions{})
	if err == nil {
		_, err = client.CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "node"}}, metav1.CreateOptions{})
	}
	if err == nil {
		_, err = client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: role.Name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: "node"}}}, metav1.CreateOptions{})
	}
	t.Cleanup(func() {
		client.RbacV1().ClusterRoleBindings().Delete(context.Background(), role.Name, metav1.DeleteOptions{})
		client.RbacV1().ClusterRoles().Delete(context.Background(), role.Name, metav1.DeleteOptions{})
		client.CoreV1().ServiceAccounts("default").Delete(context.Background(), "node", metav1.DeleteOptions{})
	})
	if err != nil {
		t.Fatal(err)
	}
	account, err := client.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "node", &authv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	o := theLab.options()
	o.Kubeconfig, o.Owner = filepath.Join(t.TempDir(), "kubeconfig"), "limited"
	config := clientcmdapi.Config{CurrentContext: "c", Contexts: map[string]*clientcmdapi.Context{"c": {Cluster: "c", AuthInfo: "c"}},
		Clusters:  map[string]*clientcmdapi.Cluster{"c": {Server: c.Host, CertificateAuthority: c.CAFile}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{"c": {Token: account.Status.Token}}}
	if err := clientcmd.WriteToFile(config, o.Kubeconfig); err != nil {
		t.Fatal(err)
	}
	if err := kube.Check(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	d := theLab.driver(t, o)
	r := computetest.NewRun(map[string][]byte{"b/x": []byte("x")})
	spec := theLab.load(t, r, computetest.Build(t, "linux", "amd64"))
	spec.Args = []string{"cat", "/in/b/x", "write", "/out/y=y"}
	if x, err := d.Run(t.Context(), r.Task(spec)); err != nil || x.Code != 0 || r.Said(1) != "x" || string(r.Outputs()["y"]) != "y" {
		t.Errorf("got %+v, %v", x, err)
	}
	s, _, _ := theLab.programs().Service(t, "serve", "")
	if got := ask(t, begin(t, d, s), "in/reports/a"); got != "content" {
		t.Errorf("a service answers %q", got)
	}
}

// From Run to its return, of a program that does nothing.
func BenchmarkRun(b *testing.B) {
	d := theLab.driver(b, theLab.options())
	r := computetest.NewRun(nil)
	spec := theLab.load(b, r, computetest.Build(b, "linux", "amd64"))
	spec.Args = []string{"exit", "0"}
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		if x, err := d.Run(b.Context(), r.Task(spec)); err != nil || x.Code != 0 {
			b.Fatalf("got %+v, %v", x, err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "p50-ms")
	b.ReportMetric(float64(took[0].Milliseconds()), "min-ms")
}
