package redoubttest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"redoubt"
	"redoubt/estate"
)

// TestMain removes the binary that the system tests build.
func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

var built struct {
	once sync.Once
	dir  string
	err  error
}

// redoubtBinary is the command, built once. It is built as the test itself is, so that nothing has to be compiled again.
func redoubtBinary(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if _, built.err = exec.LookPath("go"); built.err != nil {
			return
		}
		if built.dir, built.err = os.MkdirTemp("", "redoubt-system-"); built.err != nil {
			return
		}
		c := exec.Command("go", "build", "-o", filepath.Join(built.dir, "redoubt"), "redoubt/cmd/redoubt")
		c.Env = append(os.Environ(), "GODEBUG=")
		if out, err := c.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("%w: %s", err, out)
		}
	})
	if errors.Is(built.err, exec.ErrNotFound) {
		t.Skip(built.err)
	}
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "redoubt")
}

// running is an estate of its own in a state directory, run by the command.
type running struct {
	t     *testing.T
	exe   string
	state string
}

func newEstate(t *testing.T) *running {
	t.Helper()
	r := &running{t: t, exe: redoubtBinary(t), state: filepath.Join(t.TempDir(), "state")}
	t.Cleanup(r.end)
	return r
}

// end stops what a test left running: kindly, then by force.
func (r *running) end() {
	if _, err := os.Stat(r.state); err != nil {
		return
	}
	pids := r.pids()
	r.try("down")
	for _, pid := range pids {
		for end := time.Now().Add(10 * time.Second); alive(pid) && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		if alive(pid) {
			r.t.Errorf("process %d outlived down", pid)
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

type said struct {
	out, err string
	code     int
}

// command is `redoubt ARGS` on the estate's state.
func (r *running) command(args ...string) *exec.Cmd {
	c := exec.Command(r.exe, args...)
	c.Env = append(os.Environ(), "REDOUBT_STATE="+r.state)
	return c
}

// try runs a command to its end.
func (r *running) try(args ...string) said {
	r.t.Helper()
	var out, talk bytes.Buffer
	c := r.command(args...)
	c.Stdout, c.Stderr = &out, &talk
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatalf("%q: %v", args, err)
	}
	return said{out.String(), talk.String(), c.ProcessState.ExitCode()}
}

// must is try for a command that has to succeed; it gives what was printed.
func (r *running) must(args ...string) string {
	r.t.Helper()
	s := r.try(args...)
	if s.code != 0 {
		r.t.Fatalf("redoubt %q: exit %d\n%s%s", args, s.code, s.out, s.err)
	}
	return s.out
}

// nodeState is a node as CONTRACT says that status shows it.
type nodeState struct {
	Name, Kind string
	Range      struct{ Floor, Ceiling string }
	S3URL      string `json:"s3_url"`
	APIURL     string `json:"api_url"`
	State      string
	PID        int
	Wiped      bool
}

func (r *running) status() map[string]nodeState {
	r.t.Helper()
	var doc struct{ Nodes []nodeState }
	if err := json.Unmarshal([]byte(r.must("status", "--json")), &doc); err != nil {
		r.t.Fatal(err)
	}
	byName := map[string]nodeState{}
	for _, n := range doc.Nodes {
		byName[n.Name] = n
	}
	return byName
}

func (r *running) pids() (pids []int) {
	for _, n := range r.status() {
		if n.PID != 0 {
			pids = append(pids, n.PID)
		}
	}
	return pids
}

// alive tells a process that runs from one that is gone or waits to be buried.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// until waits for what another process is to bring about.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	within(t, 2*time.Minute, what, holds)
}

// within is until for what takes longer.
func within(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

func (r *running) roots(node string) *x509.CertPool {
	r.t.Helper()
	pem, err := os.ReadFile(filepath.Join(r.state, node, "ca.pem"))
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		r.t.Fatalf("ca.pem of %s: %v", node, err)
	}
	return pool
}

// env is what `redoubt env` gives a client.
func (r *running) env(who, node string, more ...string) (map[string]string, wire) {
	r.t.Helper()
	m := map[string]string{}
	for _, line := range strings.Split(r.must(append([]string{"env", who + "@" + node}, more...)...), "\n") {
		if name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "="); ok {
			m[name] = strings.Trim(value, "'")
		}
	}
	return m, wire{base: m["AWS_ENDPOINT_URL"], http: httpClient(r.roots(node)),
		who: redoubt.Minted{AccessKeyID: m["AWS_ACCESS_KEY_ID"], SecretAccessKey: m["AWS_SECRET_ACCESS_KEY"], Region: m["AWS_REGION"]}}
}

func (r *running) file(name, content string) string {
	r.t.Helper()
	path := filepath.Join(r.t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

func TestAnEstateOnOneMachine(t *testing.T) {
	r := newEstate(t)
	r.must("up", "--detach")
	first := r.status()

	t.Run("status has the shape of the contract", func(t *testing.T) {
		var doc map[string]json.RawMessage
		var nodes []map[string]any
		var links []any
		if err := errors.Join(json.Unmarshal([]byte(r.must("status", "--json")), &doc), json.Unmarshal(doc["nodes"], &nodes), json.Unmarshal(doc["links"], &links)); err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			for _, field := range []string{"name", "kind", "range", "s3_url", "api_url", "state", "pid"} {
				if n[field] == nil {
					t.Errorf("%v has no %s", n["name"], field)
				}
			}
		}
		want := map[string][2]string{"unclass": {"UNCLASSIFIED", "UNCLASSIFIED"}, "secret": {"UNCLASSIFIED", "SECRET"}, "topsecret": {"UNCLASSIFIED", "TOP SECRET//SI/TK"}}
		for name, limits := range want {
			n := first[name]
			if n.Kind != "enclave" || n.State != "ready" || [2]string{n.Range.Floor, n.Range.Ceiling} != limits {
				t.Errorf("%s: got %+v, want an enclave that is ready, %v", name, n, limits)
			}
			for _, u := range []string{n.S3URL, n.APIURL} {
				if p, err := url.Parse(u); err != nil || p.Scheme != "https" || p.Hostname() != "127.0.0.1" {
					t.Errorf("%s: got %q, want https on a loopback address", name, u)
				}
			}
		}
		if n := first["outpost"]; n.Kind != "device" || n.State != "ready" || n.Range.Ceiling != "SECRET" {
			t.Errorf("outpost: got %+v, want a device that is ready", n)
		}
		for _, name := range []string{"unclass-secret", "secret-topsecret"} {
			if n := first[name]; n.Kind != "guard" || n.State != "ready" || n.S3URL != "" || n.APIURL != "" {
				t.Errorf("%s: got %+v, want a guard that is ready and listens nowhere", name, n)
			}
		}
		if len(nodes) != len(want)+3 {
			t.Errorf("got %d nodes, want %d", len(nodes), len(want)+3)
		}
	})

	t.Run("each node is a process, and tells no secret by its arguments or environment", func(t *testing.T) {
		seen := map[int]bool{}
		for name, n := range first {
			seen[n.PID] = true
			cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n.PID))
			if err != nil {
				t.Skip("no /proc: ", err)
			}
			if args := strings.Split(string(cmdline), "\x00"); len(args) < 3 || args[1] != "serve" || args[2] != name {
				t.Errorf("%s runs as %q", name, args)
			}
			environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", n.PID))
			if err != nil || bytes.Contains(environ, []byte("SECRET_ACCESS_KEY")) || bytes.Contains(environ, []byte("REDOUBT_TOKEN")) {
				t.Errorf("%s: environment: %v", name, err)
			}
		}
		if len(seen) != 6 {
			t.Errorf("got %d processes, want 6", len(seen))
		}
	})

	t.Run("TLS 1.3 with post-quantum keys, and nothing in clear", func(t *testing.T) {
		for name, n := range first {
			if n.Kind == "guard" {
				continue
			}
			for _, address := range []string{n.S3URL, n.APIURL} {
				host := strings.TrimPrefix(address, "https://")
				c, err := tls.Dial("tcp", host, &tls.Config{RootCAs: r.roots(name)})
				if err != nil {
					t.Fatal(err)
				}
				cs := c.ConnectionState()
				c.Close()
				if cs.Version != tls.VersionTLS13 || cs.CurveID != tls.X25519MLKEM768 {
					t.Errorf("%s: got %s with %v", address, tls.VersionName(cs.Version), cs.CurveID)
				}
				if c, err := tls.Dial("tcp", host, &tls.Config{RootCAs: r.roots(name), MaxVersion: tls.VersionTLS12}); err == nil {
					c.Close()
					t.Errorf("%s took TLS 1.2", address)
				}
				if c, err := tls.Dial("tcp", host, &tls.Config{RootCAs: x509.NewCertPool()}); err == nil {
					c.Close()
					t.Errorf("%s was believed without its authority", address)
				}
				for other := range first {
					if first[other].Kind == "guard" {
						continue
					}
					if c, err := tls.Dial("tcp", host, &tls.Config{RootCAs: r.roots(other)}); err == nil {
						c.Close()
						if other != name {
							t.Errorf("%s was believed by the authority of %s", address, other)
						}
					}
				}
				clear, err := httpClient(nil).Get("http://" + host + "/reports")
				if err == nil {
					body, _ := io.ReadAll(clear.Body)
					clear.Body.Close()
					if clear.StatusCode != http.StatusBadRequest || bytes.Contains(body, []byte("reports")) || clear.Header.Get("X-Amz-Request-Id") != "" {
						t.Errorf("in clear: %s %s", clear.Status, body)
					}
				}
			}
		}
	})

	t.Run("health says nothing", func(t *testing.T) {
		c := httpClient(r.roots("secret"))
		defer c.CloseIdleConnections()
		for path, want := range map[string]string{"/health/live": "200 ok\n", "/health/ready": "200 ok\n", "/metrics": "401", "/v1/node": "401", "/v1/usage": "401", "/": "404", "/debug/pprof/": "404"} {
			res, err := c.Get(first["secret"].APIURL + path)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if got := fmt.Sprint(res.StatusCode, " ", string(body)); !strings.HasPrefix(got, want) || strings.HasPrefix(want, "200") && got != want {
				t.Errorf("%s: got %q, want %q", path, got, want)
			}
			for _, word := range []string{"SECRET", "secret", "reports", "analyst", "Go-http", "devel"} {
				if s := fmt.Sprint(res.Header, string(body)); strings.Contains(s, word) {
					t.Errorf("%s tells %q: %s", path, word, s)
				}
			}
		}
	})

	t.Run("metrics count what their reader dominates", func(t *testing.T) {
		env, _ := r.env("admin", "topsecret")
		_, analyst := r.env("ts-analyst", "topsecret")
		metrics := func() string {
			req, err := http.NewRequest(http.MethodGet, env["REDOUBT_API_URL"]+"/metrics", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+env["REDOUBT_TOKEN"])
			c := httpClient(r.roots("topsecret"))
			defer c.CloseIdleConnections()
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != http.StatusOK {
				t.Fatalf("%s %v", res.Status, err)
			}
			return string(body)
		}
		// What is raised from below may come in meanwhile, and then it does not any more; what is done above would show each time.
		var before, after string
		for try := 0; try < 30 && (before == "" || after != before); try++ {
			before = metrics()
			for i := range 20 {
				if _, err := analyst.want(t.Context(), Request{Method: http.MethodPut, Bucket: "reports", Key: fmt.Sprintf("convoy-%d", i), Body: make([]byte, 4096)}, http.StatusOK); err != nil {
					t.Fatal(err)
				}
			}
			after = metrics()
		}
		if after != before {
			t.Errorf("what is done above shows below:\n%s\n---\n%s", before, after)
		}
		if !strings.Contains(before, `redoubt_label_versions{label="UNCLASSIFIED"}`) {
			t.Errorf("the low reader sees nothing of its own: %s", before)
		}
		for _, line := range strings.Split(before, "\n") {
			if strings.HasPrefix(line, "#") || line == "" || strings.HasPrefix(line, "redoubt_node_info") {
				continue
			}
			if !regexp.MustCompile(`^redoubt_label_\w+\{label="UNCLASSIFIED(//NOFORN)?"\} `).MatchString(line) {
				t.Errorf("the low reader sees %q", line)
			}
		}
		for _, name := range []string{"reports", "imagery", "convoy", "analyst", "liaison", "officer", "TOP", "SI/TK"} {
			if strings.Contains(before, name) {
				t.Errorf("metrics name %q", name)
			}
		}
	})

	t.Run("exit codes", func(t *testing.T) {
		for _, c := range []struct {
			code int
			args []string
		}{
			{2, []string{"nosuchcommand"}},
			{2, []string{"key", "nosuchverb"}},
			{2, []string{"key"}},
			{2, []string{"status", "--nosuchflag"}},
			{2, []string{"get", "not-a-place", "--as", "u-analyst@unclass"}},
			{2, []string{"ls", "s3://reports", "--as", "nobody"}},
			{1, []string{"ls", "s3://reports", "--as", "u-analyst@nosuchnode"}},
			{1, []string{"get", "s3://reports/never-there", "--as", "u-analyst@unclass"}},
			{1, []string{"status", "--state", filepath.Join(t.TempDir(), "nothing")}},
			{3, []string{"env", "u-analyst@secret", "--label", "SECRET"}},
			{3, []string{"env", "ts-analyst@secret", "--label", "TOP SECRET"}},
			{3, []string{"put", r.file("f", "x"), "s3://reports/down", "--as", "s-analyst@secret", "--mark", "UNCLASSIFIED"}},
			{3, []string{"label", "dominates", "SECRET", "TOP SECRET"}},
			{0, []string{"label", "dominates", "TOP SECRET", "SECRET"}},
		} {
			s := r.try(c.args...)
			if s.code != c.code {
				t.Errorf("redoubt %q: exit %d, want %d\n%s%s", c.args, s.code, c.code, s.out, s.err)
			}
			if s.code != 0 && s.code != 3 && !strings.Contains(s.err, "hint:") {
				t.Errorf("redoubt %q fails without a hint: %s", c.args, s.err)
			}
		}
	})

	t.Run("up twice is harmless, and starts only what is down", func(t *testing.T) {
		content := strings.Repeat("kept over a kill\n", 20_000)
		path := r.file("kept", content)
		r.must("put", path, "s3://reports/kept", "--as", "s-analyst@secret")
		again := func() map[string]nodeState {
			r.must("up", "--detach")
			return r.status()
		}
		same := again()
		for name, n := range same {
			if n != first[name] {
				t.Errorf("a second up changed %s: %+v to %+v", name, first[name], n)
			}
		}
		if err := syscall.Kill(first["secret"].PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		until(t, "the killed node shows as stopped", func() bool { n := r.status()["secret"]; return n.State == "stopped" && n.PID == 0 })
		s := r.try("ls", "s3://reports", "--as", "s-analyst@secret")
		if s.code != 1 || !strings.Contains(s.err, "redoubt up") {
			t.Errorf("of a node that is down: exit %d, %s", s.code, s.err)
		}
		for name, n := range again() {
			if name == "secret" && (n.State != "ready" || n.PID == first[name].PID || n.S3URL != first[name].S3URL) {
				t.Errorf("the killed node: got %+v after %+v", n, first[name])
			}
			if name != "secret" && n != first[name] {
				t.Errorf("%s was disturbed: %+v to %+v", name, first[name], n)
			}
		}
		if got := r.must("get", "s3://reports/kept", "-", "--as", "s-analyst@secret"); got != content {
			t.Errorf("after the kill: %d bytes, want %d", len(got), len(content))
		}
	})

	t.Run("another estate runs beside it", func(t *testing.T) {
		other := newEstate(t)
		other.must("up", "--detach", "--no-samples")
		for name, n := range other.status() {
			mine := r.status()[name]
			if n.State != "ready" || n.PID == mine.PID || n.Kind != "guard" && (n.S3URL == mine.S3URL || n.APIURL == mine.APIURL) {
				t.Errorf("%s: %+v beside %+v", name, n, mine)
			}
			if mine.State != "ready" {
				t.Errorf("%s of the first estate is %s", name, mine.State)
			}
		}
		_, w := r.env("u-analyst", "unclass")
		w.base = other.status()["unclass"].S3URL
		w.http = httpClient(other.roots("unclass"))
		if got, err := w.do(t.Context(), Request{Method: http.MethodGet}); err != nil || got.code() != "InvalidAccessKeyId" {
			t.Errorf("a credential of another estate: %d %s %v", got.Status, got.code(), err)
		}
		other.must("down")
	})

	t.Run("down leaves no process", func(t *testing.T) {
		now := r.status()
		r.must("down")
		for name, n := range now {
			until(t, name+" has ended", func() bool { return !alive(n.PID) }) // it gave up its lock, and may be on its way out
			if c, err := net.Dial("tcp", strings.TrimPrefix(n.S3URL, "https://")); err == nil {
				c.Close()
				t.Errorf("%s still listens", name)
			}
		}
		for name, n := range r.status() {
			if n.State != "stopped" || n.PID != 0 {
				t.Errorf("%s: got %+v, want stopped", name, n)
			}
		}
		r.must("down") // again is harmless
	})
}

func TestAForegroundUpTakesItsNodesWithIt(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(*running, *os.Process) error
		code int
	}{
		{"Ctrl-C", func(_ *running, up *os.Process) error { return up.Signal(syscall.SIGINT) }, 0},
		{"kill -9 of up itself", func(_ *running, up *os.Process) error { return up.Kill() }, -1},
		{"down in another terminal", func(r *running, _ *os.Process) error {
			r.must("down", "outpost")
			if n := r.status()["secret"]; n.State != "ready" {
				t.Errorf("one node was stopped, and secret is %s", n.State)
			}
			r.must("down")
			return nil
		}, 0},
		{"kill -9 of a node", func(r *running, _ *os.Process) error { return syscall.Kill(r.status()["secret"].PID, syscall.SIGKILL) }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newEstate(t)
			up := r.command("up", "--no-samples")
			up.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			if err := up.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() { up.Wait(); close(ended) }()
			defer func() { up.Process.Kill(); <-ended }()
			until(t, "all nodes are ready", func() bool {
				if _, err := os.Stat(filepath.Join(r.state, ".exercise", "sealed")); err != nil {
					return false
				}
				nodes := r.status()
				return len(nodes) == 6 && !slices.ContainsFunc([]string{"unclass", "secret", "topsecret", "outpost", "unclass-secret", "secret-topsecret"}, func(n string) bool { return nodes[n].State != "ready" })
			})
			pids := r.pids()
			if err := c.end(r, up.Process); err != nil {
				t.Fatal(err)
			}
			<-ended
			if got := up.ProcessState.ExitCode(); got != c.code {
				t.Errorf("exit %d, want %d", got, c.code)
			}
			for _, pid := range pids {
				until(t, fmt.Sprintf("node %d has ended", pid), func() bool { return !alive(pid) })
			}
			for name, n := range r.status() {
				if n.State != "stopped" {
					t.Errorf("%s is %s", name, n.State)
				}
			}
		})
	}
}

func TestAnEstateThatNamesWhatIsNotBuiltIsRefused(t *testing.T) {
	r := newEstate(t)
	for key, reason := range map[string]string{"links": "not built yet", "price_book": "not built yet"} {
		path := r.file(key+".yaml", string(estate.ExampleText)+key+":\n  - name: something\n")
		for _, args := range [][]string{{"estate", "check", path}, {"up", path, "--detach"}, {"serve", "secret", "--estate", path, "--state", r.state}} {
			s := r.try(args...)
			if s.code == 0 || !strings.Contains(s.out+s.err, reason) || !regexp.MustCompile(regexp.QuoteMeta(path)+`:\d+`).MatchString(s.out+s.err) {
				t.Errorf("redoubt %q: exit %d, want the line and %q:\n%s%s", args, s.code, reason, s.out, s.err)
			}
		}
	}
	if nodes := r.try("status", "--json"); strings.Contains(nodes.out, "ready") {
		t.Errorf("something runs: %s", nodes.out)
	}
}

// hosts that a binary may name: of XML namespaces and documentation in messages of libraries and in the sample files, all of
// which nobody dials. What is not here is looked at by a person before it is added.
var namedHosts = map[string]string{
	"www.xmlspif.org":          "namespace of SPIF",
	"json-schema.org":          "names of the versions of JSON Schema",
	"www.w3.org":               "namespaces of XML",
	"ns.adobe.com":             "namespaces in the metadata of sample images",
	"s3.amazonaws.com":         "namespace of S3's documents",
	"github.com":               "where a message of a library points its reader",
	"go.dev":                   "where a message of the standard library points its reader",
	"tldr.fail":                "where a message of crypto/tls points its reader",
	"protobuf.dev":             "where a message of protobuf points its reader",
	"dl.acm.org":               "where a message of a library points its reader",
	"www.pgdp.net":             "in a sample text",
	"www.gutenberg.org":        "in a sample text",
	"www.imagemagick.org":      "in the metadata of a sample image",
	"gvisor.dev":               "where a message of gVisor points its reader",
	"in-toto.io":               "name of the statement that cosign signs",
	"sigstore.dev":             "name of what cosign states",
	"kubernetes.io":            "where a description of a type of the Kubernetes API points its reader",
	"examples.k8s.io":          "likewise",
	"git.k8s.io":               "likewise",
	"issues.k8s.io":            "likewise",
	"issue.k8s.io":             "likewise",
	"kep.k8s.io":               "likewise",
	"pr.k8s.io":                "likewise",
	"k8s.io":                   "likewise",
	"kubernetes-csi.github.io": "likewise",
	"en.wikipedia.org":         "likewise",
	"man7.org":                 "likewise",
	"access.redhat.com":        "likewise",
	"www.oxeye.io":             "likewise",
	"datatracker.ietf.org":     "where a message of a library of the Kubernetes client points its reader",
	"tools.ietf.org":           "likewise",
	"www.rfc-editor.org":       "likewise",
	"www.iana.org":             "likewise",
	"www.secg.org":             "likewise",
	"ed25519.cr.yp.to":         "likewise",
	"jsonpatch.com":            "likewise",
	"pkg.go.dev":               "likewise",
	"golang.org":               "likewise",
	"localhost":                "our own",
}

func TestTheBinaryNamesNoHostThatIsNotKnown(t *testing.T) {
	data, err := os.ReadFile(redoubtBinary(t))
	if err != nil {
		t.Fatal(err)
	}
	host := regexp.MustCompile(`(?i)(?:https?|wss?|ftp)://([a-z0-9-]+(?:\.[a-z0-9-]+)+|localhost)`)
	names := 0
	for at := bytes.Index(data, []byte("://")); at >= 0; {
		m := host.FindSubmatch(data[max(0, at-5):min(len(data), at+120)])
		if m != nil {
			names++
			known := strings.HasSuffix(string(m[1]), ".example") // of our own help: no name there ever resolves (RFC 6761)
			for k := range namedHosts {                          // strings lie end to end in a binary, so more may follow
				known = known || strings.HasPrefix(strings.ToLower(string(m[1])), k)
			}
			if !known {
				t.Errorf("the binary names %q", m[0])
			}
		}
		next := bytes.Index(data[at+3:], []byte("://"))
		if next < 0 {
			break
		}
		at += 3 + next
	}
	if names < 5 {
		t.Errorf("only %d names were seen: the binary was not looked at", names)
	}
}

// calls are the system calls by which a process reaches others, and the files by which it would look up a name.
var (
	toAddress = regexp.MustCompile(`(connect|sendto|sendmsg|sendmmsg)\(.*?sa_family=AF_INET6?, sin6?_port=htons\((\d+)\).*?(?:inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)")`)
	toSocket  = regexp.MustCompile(`connect\(.*?sa_family=AF_UNIX, sun_path=@?"([^"]+)"`)
	resolver  = regexp.MustCompile(`openat\(.*"(/etc/resolv\.conf|/etc/nsswitch\.conf|/etc/hosts)"`)
)

func TestNothingCallsOut(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("needs strace: ", err)
	}
	r := newEstate(t)
	trace := filepath.Join(t.TempDir(), "trace")
	script := r.file("script", `set -e
if [ "$ALONE" = yes ]; then ip link set lo up; fi
"$R" up --detach
printf 'content' > "$T/f"
"$R" put "$T/f" s3://reports/called-out --as s-analyst@secret
"$R" get s3://reports/called-out "$T/g" --as s-analyst@secret
cmp "$T/f" "$T/g"
"$R" ls s3://reports --as ts-analyst@topsecret > /dev/null
"$R" audit verify > /dev/null
"$R" status > /dev/null
"$R" doctor --sovereignty --json > "$T/doctor"
"$R" down
`)
	dir := t.TempDir()
	args := []string{"-f", "-qq", "-s", "256", "-e", "trace=connect,sendto,sendmsg,sendmmsg,openat", "-o", trace, "sh", script}
	alone := "no"
	c := exec.Command(strace, args...)
	if unshare, err := exec.LookPath("unshare"); err == nil && exec.Command(unshare, "-n", "ip", "link", "set", "lo", "up").Run() == nil {
		alone = "yes" // with no network at all but loopback
		c = exec.Command(unshare, append([]string{"-n", strace}, args...)...)
	}
	c.Env = append(os.Environ(), "REDOUBT_STATE="+r.state, "R="+r.exe, "T="+dir, "ALONE="+alone)
	out, err := c.CombinedOutput()
	if err != nil && bytes.Contains(out, []byte("ptrace")) {
		t.Skipf("strace may not trace here: %s", out)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("in a network namespace of its own: %s", alone)
	lines, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	dialled := 0
	for _, line := range strings.Split(string(lines), "\n") {
		if m := toAddress.FindStringSubmatch(line); m != nil {
			ip := net.ParseIP(m[3] + m[4])
			if !ip.IsLoopback() || m[2] == "53" || m[2] == "853" {
				t.Errorf("a call out: %s", line)
			}
			dialled++
		}
		if m := toSocket.FindStringSubmatch(line); m != nil {
			t.Errorf("a call to another service of the machine: %s", line)
		}
		if resolver.MatchString(line) {
			t.Errorf("something was about to look up a name: %s", line)
		}
	}
	if dialled < 5 {
		t.Errorf("only %d connections were seen: the trace shows nothing", dialled)
	}
	var d struct {
		Sovereignty struct {
			Outbound []struct {
				Node, Address, Owner string
				Told, Seen           bool
			}
			Listeners []struct{ Address, Face string }
			Roots     []struct{ What, Owner string }
		}
	}
	doctor, err := os.ReadFile(filepath.Join(dir, "doctor"))
	if err == nil {
		err = json.Unmarshal(doctor, &d)
	}
	if s := d.Sovereignty; err != nil || len(s.Outbound) != 6 || len(s.Listeners) != 15 || len(s.Roots) < 3 {
		t.Errorf("doctor --sovereignty: %v: %s", err, doctor)
	}
	for _, o := range d.Sovereignty.Outbound {
		home := o.Node == "outpost" && strings.HasPrefix(o.Owner, "enclave secret, its home") && !o.Seen
		side := strings.HasSuffix(o.Owner, ", which it joins") && strings.Contains(o.Node, strings.TrimSuffix(strings.TrimPrefix(o.Owner, "enclave "), ", which it joins"))
		if !home && !side || !o.Told {
			t.Errorf("dials %+v", o)
		}
	}
	for _, l := range d.Sovereignty.Listeners {
		if host, _, err := net.SplitHostPort(l.Address); err != nil || !net.ParseIP(host).IsLoopback() || !slices.Contains([]string{"s3", "api", "peers", "link", "raise"}, l.Face) {
			t.Errorf("listens at %+v", l)
		}
	}
}
