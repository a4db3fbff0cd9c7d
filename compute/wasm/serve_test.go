package wasm

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/computetest"
)

// hello is the service of the examples.
var hello = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "hello")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	c := exec.Command("go", "build", "-o", filepath.Join(dir, "m"), "redoubt/examples/wasm/hello")
	c.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := c.CombinedOutput(); err != nil {
		return nil, errors.New(string(out))
	}
	return os.ReadFile(filepath.Join(dir, "m"))
})

// begin begins an instance of a module.
func begin(t *testing.T, module []byte, files map[string][]byte, args ...string) (compute.Instance, *bytes.Buffer, error) {
	t.Helper()
	r, log := computetest.NewRun(files), new(bytes.Buffer)
	i, err := New(nil).Begin(t.Context(), compute.Service{JobRun: r, Spec: redoubt.ServiceSpec{Module: r.SetModule(module), Args: args}, Limits: redoubt.JobLimits{Memory: 64 << 20}, Timeout: 5 * time.Second, At: "SECRET", Log: log})
	if err == nil {
		t.Cleanup(i.Close)
	}
	return i, log, err
}

func request(i compute.Instance, method, target, body string) (*httptest.ResponseRecorder, error) {
	w, r := httptest.NewRecorder(), httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set(redoubt.ServiceSubjectHeader, "ada")
	r.Header.Set("Authorization", "Bearer secret")
	return w, i.Call(w, r)
}

func TestAModuleAnswersRequests(t *testing.T) {
	module, err := hello()
	if err != nil {
		t.Fatal(err)
	}
	i, _, err := begin(t, module, map[string][]byte{"reports/a": []byte("content")})
	if err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("0123456789", 300_000)
	for range 3 {
		for _, c := range []struct {
			method, target, body, want string
			status                     int
		}{
			{"GET", "/svc/hello/", "", "hello ada at SECRET\n", 200},
			{"GET", "/svc/hello/reports/a", "", "content", 200},
			{"GET", "/svc/hello/reports/none", "", "no such file\n", 404},
			{"POST", "/svc/hello/", big, big, 200},
		} {
			w, err := request(i, c.method, c.target, c.body)
			if err != nil || w.Code != c.status || w.Body.String() != c.want {
				t.Fatalf("%s %s: got %d %.80q %v", c.method, c.target, w.Code, w.Body, err)
			}
		}
	}
	if _, err := request(i, "POST", "/svc/hello/", strings.Repeat("x", redoubt.MaxServiceBody+1)); !errors.Is(err, redoubt.TooLarge) {
		t.Errorf("a body that is too large: %v", err)
	}
	if w, err := request(i, "GET", "/svc/hello/", ""); err != nil || w.Code != 200 {
		t.Errorf("and then: %d %v", w.Code, err)
	}
}

// The program of the contract suite does what its arguments say, which is no answer of a service.
func TestAModuleThatAnswersBadlyHarmsItsCallerAlone(t *testing.T) {
	program := computetest.Build(t, "wasip1", "wasm")
	for name, c := range map[string]struct {
		args []string
		want redoubt.Kind
		log  string
	}{
		"nothing":             {[]string{"exit", "0"}, redoubt.Internal, ""},
		"an exit code":        {[]string{"exit", "3"}, redoubt.Internal, "exit code 3"},
		"no header":           {[]string{"say", "no header at all"}, redoubt.Internal, ""},
		"a flood of header":   {[]string{"flood", "1000000"}, redoubt.Internal, ""},
		"a status of its own": {[]string{"say", "Status: 700 x\n\n"}, redoubt.Internal, ""},
		"too much memory":     {[]string{"hog", "1000000000"}, redoubt.Internal, "out of memory"},
		"what is not there":   {[]string{"write", "/out/x=1"}, redoubt.Internal, "exit code 1"},
	} {
		t.Run(name, func(t *testing.T) {
			i, log, err := begin(t, program, nil, c.args...)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // it goes on
				if w, err := request(i, "GET", "/svc/x/", ""); !errors.Is(err, c.want) || w.Body.Len() > 0 {
					t.Errorf("got %d %.80q %v", w.Code, w.Body, err)
				}
			}
			if !strings.Contains(log.String(), c.log) {
				t.Errorf("the log is %.200q", log)
			}
		})
	}
}

func TestTimeEndsAModuleThatDoesNotAnswer(t *testing.T) {
	i, _, err := begin(t, computetest.Build(t, "wasip1", "wasm"), nil, "spin", "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	w := httptest.NewRecorder()
	if err := i.Call(w, httptest.NewRequest("GET", "/svc/x/", nil).WithContext(ctx)); !errors.Is(err, redoubt.Unavailable) {
		t.Errorf("got %v", err)
	}
	<-i.Ended()
	if _, err := request(i, "GET", "/svc/x/", ""); !errors.Is(err, redoubt.Unavailable) {
		t.Errorf("an instance that has ended: %v", err)
	}
}

func TestWhatIsNoModuleIsNotBegun(t *testing.T) {
	if _, _, err := begin(t, []byte("rubbish"), nil); !errors.Is(err, redoubt.Invalid) {
		t.Errorf("got %v", err)
	}
}

// endsWhenWhole is a worker that reads no further when its module is whole.
type endsWhenWhole struct{ over bool }

func (e *endsWhenWhole) Write(b []byte) (int, error) {
	if e.over {
		return 0, syscall.EPIPE
	}
	e.over = len(b) == 5 && b[4] == tellWhole
	return len(b), nil
}

// TestAServicesWorkerIsHeardBeforeItIsToldMore: one for which what was compiled is of no use says so and ends, and that is what has it compiled anew.
func TestAServicesWorkerIsHeardBeforeItIsToldMore(t *testing.T) {
	var u *unfit
	err := new(instance).talk(t.Context(), new(endsWhenWhole), new(said).frame(sayUnfit, []byte("another's")), &made{}, make(chan error, 1))
	if !errors.As(err, &u) {
		t.Errorf("got %v", err)
	}
}

func TestTheCredentialDoesNotReachTheModule(t *testing.T) {
	r := httptest.NewRequest("GET", "/svc/x/y?q=1", nil)
	r.Header = http.Header{"Authorization": {"Bearer secret"}, "Cookie": {"secret"}, "Proxy": {"evil"}, "X-Test": {"a", "b"}, "Redoubt-Subject": {"ada"},
		"X_test": {"evil"}, "X_other": {"evil"}, "Redoubt_subject": {"evil"}, "Content_type": {"evil"}}
	env := strings.Join(variables(r, "SECRET", 0), "\n") + "\n"
	for _, want := range []string{"PATH_INFO=/y\n", "SCRIPT_NAME=/svc/x\n", "QUERY_STRING=q=1\n", "HTTP_X_TEST=a, b\n", "REMOTE_USER=ada\n", "REDOUBT_LABEL=SECRET\n"} {
		if !strings.Contains(env, want) {
			t.Errorf("%q is not among %q", want, env)
		}
	}
	for _, never := range []string{"secret", "evil", "HTTP_PROXY", "HTTP_REDOUBT"} {
		if strings.Contains(env, never) {
			t.Errorf("%q is among %q", never, env)
		}
	}
}

func TestAModuleDoesNotSpeakForTheNode(t *testing.T) {
	i, _, err := begin(t, computetest.Build(t, "wasip1", "wasm"), nil, "say", "Content-Type: text/html\nContent-Security-Policy: none\nSet-Cookie: a=b\nAccess-Control-Allow-Origin: *\nX-Own: x\nRedoubt-Label: UNCLASSIFIED\n\n")
	if err != nil {
		t.Fatal(err)
	}
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/svc/x/", nil)
	w.Header().Set("Content-Security-Policy", "sandbox")
	w.Header().Set(redoubt.ServiceLabelHeader, "SECRET")
	if err := i.Call(w, r); err != nil {
		t.Fatal(err)
	}
	want := http.Header{"Content-Type": {"text/html"}, "Content-Security-Policy": {"sandbox"}, "X-Own": {"x"}, "Redoubt-Label": {"SECRET"}}
	if !maps.EqualFunc(w.Header(), want, slices.Equal) {
		t.Errorf("got %v, want %v", w.Header(), want)
	}
}

// TestARequestIsWholeForAnotherInstance should the one that was asked have ended.
func TestARequestIsWholeForAnotherInstance(t *testing.T) {
	module, err := hello()
	if err != nil {
		t.Fatal(err)
	}
	i, _, err := begin(t, module, nil)
	if err != nil {
		t.Fatal(err)
	}
	i.Close()
	w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/svc/hello/", strings.NewReader("body"))
	if err := i.Call(w, r); !errors.Is(err, redoubt.Unavailable) {
		t.Fatalf("one that has ended: %v", err)
	}
	if i, _, err = begin(t, module, nil); err != nil {
		t.Fatal(err)
	}
	if err := i.Call(w, r); err != nil || w.Body.String() != "body" {
		t.Errorf("the other answered %q, %v", w.Body, err)
	}
}
