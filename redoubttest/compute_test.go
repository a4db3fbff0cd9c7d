package redoubttest

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// module builds one of the examples, and gives where it lies.
func (r *running) module(name string) string {
	r.t.Helper()
	path := filepath.Join(r.t.TempDir(), name+".wasm")
	if err := os.WriteFile(path, buildModule(r.t, name), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// buildModule builds one of the examples.
func buildModule(t *testing.T, name string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	c := exec.Command("go", "build", "-o", path, "redoubt/examples/wasm/"+name)
	c.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// call asks a service.
func (r *running) call(who, node, path string) string {
	r.t.Helper()
	env, _ := r.env(who, node)
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, env["REDOUBT_API_URL"]+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+env["REDOUBT_TOKEN"])
	c := httpClient(r.roots(node))
	defer c.CloseIdleConnections()
	res, err := c.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return fmt.Sprint(res.StatusCode, " ", string(body))
}

// TestAnOutpostComputesCutOff: jobs, schedules, triggers and services of a device run without its home and after it was killed, and what they wrote
// is at its home when they meet.
func TestAnOutpostComputesCutOff(t *testing.T) {
	r := newEstate(t)
	r.must("up", "--detach")
	r.must("link", "wait", "outpost", "--timeout", "120s")
	r.must("link", "cut", "outpost")
	words, hello := r.module("words"), r.module("hello")
	_, there := r.env("s-analyst", "outpost")
	there.put(t, "field/a.txt", []byte("convoy convoy dawn"))
	if out := r.must("job", "run", "--wasm", words, "--in", "s3://reports/field/", "--out", "s3://reports/first/", "--as", "s-analyst@outpost"); out != "2 words of 1 files\n" {
		t.Errorf("the job said %q", out)
	}
	r.must("schedule", "put", "each", "--on", "s3://reports/field/", "--wasm", words, "--in", "s3://reports/field/", "--out", "s3://reports/each/", "--as", "s-analyst@outpost")
	r.must("schedule", "put", "minutely", "--cron", "* * * * *", "--wasm", words, "--in", "s3://reports/field/", "--out", "s3://reports/minutely/", "--as", "s-analyst@outpost")
	r.must("service", "deploy", "hello", "--wasm", hello, "--in", "s3://reports", "--as", "s-analyst@outpost")

	if err := syscall.Kill(r.status()["outpost"].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.until("the outpost is known to have ended", func() bool { return r.status()["outpost"].State != "ready" })
	r.must("up", "--detach")
	_, there = r.env("s-analyst", "outpost")
	there.put(t, "field/b.txt", []byte("dawn"))
	r.until("a new version has started a job", func() bool { return there.get(t, "each/words.csv") != nil })
	if got := string(there.get(t, "each/words.csv")); got != "convoy,2\ndawn,2\n" {
		t.Errorf("the trigger's job wrote %q", got)
	}
	r.until("a minute has passed", func() bool { return there.get(t, "minutely/words.csv") != nil })
	if got := r.call("s-analyst", "outpost", "/svc/hello/reports/field/b.txt"); got != "200 dawn" {
		t.Errorf("the service answers %q", got)
	}
	_, home := r.env("s-analyst", "secret")
	if home.get(t, "first/words.csv") != nil {
		t.Error("what a job wrote went over a link that is cut")
	}
	r.must("link", "restore", "outpost")
	r.must("link", "wait", "outpost", "--timeout", "120s")
	for _, key := range []string{"first/words.csv", "each/words.csv", "minutely/words.csv"} {
		if got := home.get(t, key); !strings.HasPrefix(string(got), "convoy,2") {
			t.Errorf("at home %s is %q", key, got)
		}
	}
}

// until waits for what takes processes some time.
func (r *running) until(what string, holds func() bool) {
	r.t.Helper()
	for end := time.Now().Add(90 * time.Second); !holds(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("%s: not in 90 s", what)
		}
	}
}
