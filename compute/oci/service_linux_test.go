package oci_test

import (
	"bytes"
	"errors"
	"net"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/computetest"
	"redoubt/compute/oci"
)

// serviceOf is a service whose image holds the suite's program.
func serviceOf(t *testing.T, log *syncBuffer, args ...string) (compute.Service, *computetest.Run) {
	r := computetest.NewRun(map[string][]byte{"reports/a": []byte("content"), "reports/b": []byte("other")})
	spec := withProgram(t, r, computetest.Build(t, "linux", runtime.GOARCH))
	return compute.Service{JobRun: r, Spec: redoubt.ServiceSpec{Image: spec.Image, Args: args, Port: 8080, Health: "/up"}, Limits: redoubt.JobLimits{Memory: 256 << 20, CPUs: 1, Processes: 64, Disk: 16 << 20},
		Timeout: 10 * time.Second, At: "SECRET", Log: log}, r
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func ask(i compute.Instance, method, target, body string) (*httptest.ResponseRecorder, error) {
	w, r := httptest.NewRecorder(), httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer secret")
	r.Header.Set("Cookie", "secret")
	r.Header.Set("Redoubt_subject", "evil")
	w.Header().Set("Content-Security-Policy", "sandbox")
	return w, i.Call(w, r)
}

func TestAnImageAnswersRequests(t *testing.T) {
	d := driverWith(t, oci.Options{})
	log := new(syncBuffer)
	s, r := serviceOf(t, log, "serve", "")
	i, err := d.Begin(t.Context(), s)
	if err != nil {
		t.Fatalf("%v; it said %q", err, log)
	}
	defer i.Close()
	for _, c := range []struct{ method, target, body, want string }{
		{"GET", "/svc/x/", "", `GET /  "SECRET" "" 0`},
		{"GET", "/svc/x/y/z?q=1", "", `GET /y/z q=1 "SECRET" "" 0`},
		{"POST", "/svc/x/", strings.Repeat("x", redoubt.MaxServiceBody), `POST /  "SECRET" "" 8388608`},
		{"GET", "/svc/x/in/reports/a", "", "content"},
	} {
		w, err := ask(i, c.method, c.target, c.body)
		if err != nil || w.Code != 200 || w.Body.String() != c.want || w.Header().Get("Redoubt-Label")+w.Header().Get("Set-Cookie") != "" || len(w.Header()["Content-Security-Policy"]) != 1 {
			t.Errorf("%s %s: got %d %q %q %v", c.method, c.target, w.Code, w.Body, w.Header(), err)
		}
	}
	if w, err := ask(i, "GET", "/svc/x/", ""); err != nil || w.Header().Get("X-Own") == "" || w.Header().Get("Content-Length") == "" {
		t.Errorf("what is its own to say: %q %v", w.Header(), err)
	}
	if _, err := ask(i, "POST", "/svc/x/", strings.Repeat("x", redoubt.MaxServiceBody+1)); !errors.Is(err, redoubt.TooLarge) {
		t.Errorf("a body that is too large: %v", err)
	}
	for _, read := range r.Reads() {
		if strings.Contains(read, "reports/b") {
			t.Errorf("it was read and nobody asked: %q", r.Reads())
		}
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 10 {
				if w, err := ask(i, "GET", "/svc/x/", ""); err != nil || w.Code != 200 {
					t.Errorf("at once: %d %v", w.Code, err)
				}
			}
		})
	}
	wg.Wait()
	if !strings.Contains(log.String(), "serving") {
		t.Errorf("the log is %q", log)
	}
	if w, err := ask(i, "GET", "/svc/x/die", ""); err == nil {
		t.Errorf("a request that it died of: %d %q", w.Code, w.Body)
	}
	<-i.Ended()
	if _, err := ask(i, "GET", "/svc/x/", ""); !errors.Is(err, redoubt.Unavailable) {
		t.Errorf("of an instance that has ended: %v", err)
	}
}

func TestAServiceReachesNobody(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d := driverWith(t, oci.Options{})
	s, _ := serviceOf(t, new(syncBuffer), "serve", "")
	i, err := d.Begin(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	// Its own port answers, so that a refusal says something; who calls it has no port open, and nothing else has a route.
	for to, want := range map[string]string{"127.0.0.1:8080": "it answered", "127.0.0.1:" + port: "", "198.18.0.1:" + port: "", "198.18.0.2:" + port: "", "198.18.0.2:8080": "", "198.18.0.3:80": "", "169.254.169.254:80": "", "10.0.0.1:80": "", "localhost:" + port: ""} {
		if w, err := ask(i, "GET", "/svc/x/dial?"+to, ""); err != nil || w.Code != 200 || w.Body.String() != want {
			t.Errorf("%s: got %d %q %v, want %q", to, w.Code, w.Body, err, want)
		}
	}
}

func TestARequestThatAServiceDoesNotReadHoldsNothingUp(t *testing.T) {
	d := driverWith(t, oci.Options{})
	s, _ := serviceOf(t, new(syncBuffer), "serve", "")
	i, err := d.Begin(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	large := strings.Repeat("x", redoubt.MaxServiceBody)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				_, _ = ask(i, "POST", "/svc/x/deaf", large) // an answer, or that the program has closed the connection
			}
		})
	}
	wg.Wait()
	if w, err := ask(i, "POST", "/svc/x/", large); err != nil || w.Code != 200 {
		t.Errorf("afterwards: %d %v", w.Code, err)
	}
}

func TestAServiceThatDoesNotComeUpSaysWhy(t *testing.T) {
	d := driverWith(t, oci.Options{})
	for name, c := range map[string]struct {
		args []string
		want string
	}{"it ends": {[]string{"exit", "3"}, "exit code 3"}, "no such image": {nil, "there is none"}} {
		s, _ := serviceOf(t, new(syncBuffer), c.args...)
		if c.args == nil {
			s.Spec.Image = "images/none:v1"
		}
		_, err := d.Begin(t.Context(), s)
		var e *redoubt.Error
		if !errors.As(err, &e) || e.Kind != redoubt.Invalid || !strings.Contains(e.Hint, c.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestClosingEndsAService(t *testing.T) {
	d := driverWith(t, oci.Options{})
	s, r := serviceOf(t, new(syncBuffer), "serve", "")
	i, err := d.Begin(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if w, err := ask(i, "GET", "/svc/x/in/reports/a", ""); err != nil || w.Body.String() != "content" {
		t.Fatal(err)
	}
	i.Close()
	select {
	case <-i.Ended():
	default:
		t.Error("it runs on")
	}
	if n := r.LeftOpen(); n != 0 {
		t.Errorf("%d inputs are left open", n)
	}
}
