package oci_test

import (
	"net"
	"runtime"
	"strings"
	"testing"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/computetest"
	"redoubt/compute/oci"
)

func servicePrograms() computetest.Programs {
	return computetest.Programs{GOOS: "linux", GOARCH: runtime.GOARCH, Load: func(t *testing.T, r *computetest.Run, p []byte) redoubt.SubmitJob { return withProgram(t, r, p) }}
}

func TestServicesMeetTheContract(t *testing.T) {
	computetest.Services(t, func(t *testing.T) compute.ServiceDriver { return driverWith(t, oci.Options{}) }, servicePrograms())
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
	s, _, _ := servicePrograms().Service(t, "serve", "")
	i, err := driverWith(t, oci.Options{}).Begin(t.Context(), s)
	if err != nil {
		t.Fatal(computetest.Told(err))
	}
	defer i.Close()
	// Its own port answers, so that a refusal says something; who calls it has no port open, and nothing else has a route.
	for to, answers := range map[string]bool{"127.0.0.1:8080": true, "127.0.0.1:" + port: false, "198.18.0.1:" + port: false, "198.18.0.2:" + port: false, "198.18.0.2:8080": false, "198.18.0.3:80": false, "169.254.169.254:80": false, "10.0.0.1:80": false, "localhost:" + port: false} {
		w, err := computetest.Ask(i, "GET", "/svc/x/dial/tcp/"+to, nil)
		if got := w.Body.String(); err != nil || w.Code != 200 || answers != (got == "<nil>") || !answers && !strings.Contains(got, "refused") && !strings.Contains(got, "unreachable") {
			t.Errorf("%s: got %d %q %v, want an answer: %v", to, w.Code, got, err, answers)
		}
	}
}
