package kube

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/computetest"
	"redoubt/compute/kube"
	"redoubt/redoubttest"
)

// An enclave's job, whose image the cluster pulls from the enclave's own registry, reads one low file of two and has risen to the label of both: its
// output is SECRET, and is not there for who is not.
func TestAJobOfAnEnclaveRisesToAllOfItsInputs(t *testing.T) {
	s := redoubttest.New(t, redoubttest.Options{Time: time.Now, Buckets: []redoubt.Bucket{{Name: "reports"}, {Name: "tools"}}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s.Images}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })

	low := s.Mint("s-analyst", "UNCLASSIFIED")
	i := imageOf(computetest.Build(t, "linux", "amd64"))
	ref, err := name.NewTag(l.Addr().String() + "/tools/program:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, i, remote.WithAuth(&authn.Basic{Username: "redoubt", Password: low.Token})); err != nil {
		t.Fatal(err)
	}
	high := s.As(s.Mint("s-analyst", "SECRET"))
	for key, who := range map[string]redoubt.Credential{"in/low": s.As(low), "in/high": high} {
		if _, err := s.PutObject(t.Context(), who, redoubt.PutObject{Name: redoubt.ObjectName{Bucket: "reports", Key: key}, SizeBytes: 3, Body: strings.NewReader("abc")}); err != nil {
			t.Fatal(err)
		}
	}

	o := theLab.options()
	o.Registry, o.Owner, o.Token = l.Addr().String(), "enclave", filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(o.Token, []byte(low.Token), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, s, theLab.driver(t, o))
	j, err := s.SubmitJob(t.Context(), s.As(low), redoubt.SubmitJob{Image: "tools/program:1", Driver: kube.Name, Max: "SECRET", In: []redoubt.JobInput{{Bucket: "reports", Prefix: "in/"}},
		Out: redoubt.JobInput{Bucket: "reports", Prefix: "out/"}, Args: []string{"cat", "/in/reports/in/low", "write", "/out/copy=done"}})
	if err != nil {
		t.Fatal(err)
	}
	for !j.State.Final() {
		if j, err = s.WaitJob(t.Context(), high, j.ID, j.State); err != nil {
			t.Fatal(err)
		}
	}
	if j.State != redoubt.JobDone || j.Label != "SECRET" || len(j.Outputs) != 1 {
		t.Fatalf("got %+v", j)
	}
	out := redoubt.ReadObject{Name: redoubt.ObjectName{Bucket: "reports", Key: "out/copy"}}
	if v, err := s.HeadObject(t.Context(), high, out); err != nil || v.Label.Banner() != "SECRET" {
		t.Errorf("got %+v, %v", v, err)
	}
	if _, err := s.HeadObject(t.Context(), s.As(low), out); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("below it: got %v", err)
	}
}

// run has the enclave's jobs run on a driver until the test ends.
func run(t *testing.T, s *redoubttest.Stack, d compute.Driver) {
	e := compute.NewEngine(compute.Options{Desk: s.Enclave, Drivers: map[string]compute.Driver{kube.Name: d}})
	gone := make(chan struct{})
	go func() { defer close(gone); e.Run(t.Context()) }()
	t.Cleanup(func() { <-gone })
}
