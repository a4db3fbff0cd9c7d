package computetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"redoubt"
	"redoubt/compute"
)

// Words is the log of a service in memory. All methods may be called at once.
type Words struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (w *Words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *Words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// Service is the suite's program as a service of an image, at SECRET, run with args. It has two files under /in.
func (p Programs) Service(t *testing.T, args ...string) (compute.Service, *Run, *Words) {
	r, log := NewRun(map[string][]byte{"reports/a": []byte("content"), "reports/b": []byte("other")}), new(Words)
	spec := p.Load(t, r, Build(t, p.GOOS, p.GOARCH))
	return compute.Service{JobRun: r, Spec: redoubt.ServiceSpec{Image: spec.Image, Args: args, Port: 8080, Health: "/up"}, Limits: redoubt.JobLimits{Memory: 256 << 20, CPUs: 1, Processes: 64, Disk: 16 << 20},
		Timeout: 10 * time.Second, At: "SECRET", Log: log}, r, log
}

// Ask has an instance answer a request that carries what no program may see.
func Ask(i compute.Instance, method, target string, body io.Reader) (*httptest.ResponseRecorder, error) {
	w, r := httptest.NewRecorder(), httptest.NewRequest(method, target, body)
	r.Header.Set("Authorization", "Bearer secret")
	r.Header.Set("Cookie", "secret")
	r.Header.Set("Redoubt_subject", "evil")
	w.Header().Set("Content-Security-Policy", "sandbox")
	return w, i.Call(w, r)
}

// Told is an error with the hint that people are told.
func Told(err error) string {
	if e, ok := errors.AsType[*redoubt.Error](err); ok {
		return fmt.Sprintf("%v: %s", err, e.Hint)
	}
	return fmt.Sprint(err)
}

// Services holds a driver to the contract of compute.ServiceDriver for images.
func Services(t *testing.T, newDriver func(t *testing.T) compute.ServiceDriver, p Programs) {
	s := &services{Programs: p, driver: newDriver(t)}
	for _, c := range []struct {
		name string
		test func(*testing.T)
	}{
		{"AnImageAnswersRequests", s.testAnswers},
		{"ManyAreAnsweredAtOnce", s.testAtOnce},
		{"InstancesAreApart", s.testApart},
		{"WhatItDiesOfIsTold", s.testDies},
		{"AServiceThatDoesNotComeUpSaysWhy", s.testNotUp},
		{"ARequestThatIsGivenUpIsNoFault", s.testGivenUp},
		{"ARequestThatIsNotReadHoldsNothingUp", s.testUnread},
		{"ClosingEndsAService", s.testClose},
	} {
		t.Run(c.name, c.test)
	}
}

type services struct {
	Programs
	driver compute.ServiceDriver
}

func (s *services) begin(t *testing.T, args ...string) (compute.Instance, *Run, *Words) {
	t.Helper()
	of, r, log := s.Service(t, args...)
	i, err := s.driver.Begin(t.Context(), of)
	if err != nil {
		t.Fatalf("%s; it said %q", Told(err), log)
	}
	t.Cleanup(i.Close)
	return i, r, log
}

func (s *services) testAnswers(t *testing.T) {
	i, r, log := s.begin(t, "serve", "")
	for _, c := range []struct{ method, target, body, want string }{
		{"GET", "/svc/x/", "", `GET /  "SECRET" "" 0`},
		{"GET", "/svc/x/y/z?q=1", "", `GET /y/z q=1 "SECRET" "" 0`},
		{"POST", "/svc/x/", strings.Repeat("x", redoubt.MaxServiceBody), fmt.Sprintf(`POST /  "SECRET" "" %d`, redoubt.MaxServiceBody)},
		{"GET", "/svc/x/in/reports/a", "", "content"},
		{"POST", "/svc/x/echo", strings.Repeat("0123456789", redoubt.MaxServiceBody/10), strings.Repeat("0123456789", redoubt.MaxServiceBody/10)},
	} {
		w, err := Ask(i, c.method, c.target, strings.NewReader(c.body))
		if err != nil || w.Code != 200 || w.Body.String() != c.want || w.Header().Get("Redoubt-Label")+w.Header().Get("Set-Cookie") != "" || len(w.Header()["Content-Security-Policy"]) != 1 {
			t.Errorf("%s %s: got %d %.80q %q %v", c.method, c.target, w.Code, w.Body, w.Header(), err)
		}
	}
	if w, err := Ask(i, "GET", "/svc/x/", nil); err != nil || w.Header().Get("X-Own") == "" || w.Header().Get("Content-Length") == "" {
		t.Errorf("what is its own to say: %q %v", w.Header(), err)
	}
	if _, err := Ask(i, "POST", "/svc/x/", strings.NewReader(strings.Repeat("x", redoubt.MaxServiceBody+1))); !errors.Is(err, redoubt.TooLarge) {
		t.Errorf("a body that is too large: %v", err)
	}
	if _, err := Ask(i, "POST", "/svc/x/", io.MultiReader(strings.NewReader("x"), errReader{errors.New("broken")})); !errors.Is(err, redoubt.Invalid) {
		t.Errorf("a body that does not arrive whole: %v", err)
	}
	if w, err := Ask(i, "GET", "/svc/x/in/reports/none", nil); err != nil || w.Code != 404 {
		t.Errorf("what is not there: %d %v", w.Code, err)
	}
	for _, read := range r.Reads() {
		if strings.Contains(read, "reports/b") && !s.Eager {
			t.Errorf("it was read and nobody asked: %q", r.Reads())
		}
	}
	if !strings.Contains(log.String(), "serving") {
		t.Errorf("the log is %q", log)
	}
}

func (s *services) testAtOnce(t *testing.T) {
	i, _, _ := s.begin(t, "serve", "")
	var wg sync.WaitGroup
	for n := range 16 {
		wg.Go(func() {
			for range 10 {
				want := fmt.Sprintf(`GET /%d  "SECRET" "" 0`, n)
				if w, err := Ask(i, "GET", fmt.Sprintf("/svc/x/%d", n), nil); err != nil || w.Code != 200 || w.Body.String() != want {
					t.Errorf("%d: %d %q %v", n, w.Code, w.Body, err)
				}
			}
		})
	}
	wg.Wait()
}

// Of one service or of two, an instance finds nothing that another wrote.
func (s *services) testApart(t *testing.T) {
	for range 2 {
		i, _, _ := s.begin(t, "serve", "")
		for _, c := range [][2]string{{"kind/tmp/left", "no such file or directory"}, {"write/tmp/left", "<nil>"}, {"kind/tmp/left", "<nil>"}} {
			if w, err := Ask(i, "GET", "/svc/x/"+c[0], nil); err != nil || w.Body.String() != c[1] {
				t.Errorf("%s: got %q %v, want %s", c[0], w.Body, err, c[1])
			}
		}
	}
}

func (s *services) testDies(t *testing.T) {
	i, _, _ := s.begin(t, "serve", "")
	if w, err := Ask(i, "GET", "/svc/x/die", nil); !errors.Is(err, redoubt.Internal) {
		t.Errorf("a request that it died of: %d %q %v", w.Code, w.Body, err)
	}
	<-i.Ended()
	if _, err := Ask(i, "GET", "/svc/x/", nil); !errors.Is(err, redoubt.Unavailable) {
		t.Errorf("of an instance that has ended: %v", err)
	}
}

func (s *services) testNotUp(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"it ends":            {[]string{"exit", "3"}, "exit code 3"},
		"it ends well":       {[]string{"exit", "0"}, "exit code 0"},
		"no such image":      {nil, "there is "},
		"too much memory":    {[]string{"hog", fmt.Sprint(1 << 30)}, "out of memory"},
		"too many processes": {[]string{"bomb", ""}, "process"},
	} {
		of, _, log := s.Service(t, c.args...)
		of.Limits.Memory = 128 << 20
		if c.args == nil {
			of.Spec.Image = "images/none:v1"
		}
		i, err := s.driver.Begin(t.Context(), of)
		if err == nil {
			i.Close()
		}
		if !errors.Is(err, redoubt.Invalid) || !strings.Contains(Told(err), c.want) {
			t.Errorf("%s: got %s, want %q; it said %q", name, Told(err), c.want, tail(log.String()))
		}
	}
}

func (s *services) testGivenUp(t *testing.T) {
	i, _, _ := s.begin(t, "serve", "")
	ctx, cancel := context.WithCancel(t.Context())
	body, in := io.Pipe()
	r := httptest.NewRequest("POST", "/svc/x/echo", body).WithContext(ctx)
	came := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		defer func() { // of what was begun nothing more comes: the server ends the connection
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				panic(p)
			}
			done <- nil
		}()
		done <- i.Call(&first{ResponseRecorder: httptest.NewRecorder(), came: came}, r)
	}()
	in.Write([]byte("half of it"))
	<-came // while the other half is on its way
	cancel()
	in.CloseWithError(context.Canceled)
	<-done
	if w, err := Ask(i, "GET", "/svc/x/", nil); err != nil || w.Code != 200 {
		t.Errorf("and then: %d %v", w.Code, err)
	}
}

func (s *services) testUnread(t *testing.T) {
	i, _, _ := s.begin(t, "serve", "")
	large := strings.Repeat("x", redoubt.MaxServiceBody)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				_, _ = Ask(i, "POST", "/svc/x/up", strings.NewReader(large)) // an answer, or that the program has closed the connection
			}
		})
	}
	wg.Wait()
	if w, err := Ask(i, "POST", "/svc/x/", strings.NewReader(large)); err != nil || w.Code != 200 {
		t.Errorf("and then: %d %v", w.Code, err)
	}
}

// first tells when something of an answer has come.
type first struct {
	*httptest.ResponseRecorder
	once sync.Once
	came chan struct{}
}

func (f *first) Write(p []byte) (int, error) {
	f.once.Do(func() { close(f.came) })
	return f.ResponseRecorder.Write(p)
}

func (s *services) testClose(t *testing.T) {
	i, r, _ := s.begin(t, "serve", "")
	if w, err := Ask(i, "GET", "/svc/x/in/reports/a", nil); err != nil || w.Body.String() != "content" {
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
