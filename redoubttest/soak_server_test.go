package redoubttest

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"redoubt"
	"redoubt/api"
	"redoubt/enclave"
	"redoubt/estate"
	"redoubt/keys"
	"redoubt/label"
	"redoubt/node"
	"redoubt/s3"
	"redoubt/store/embedded"
)

// A server that is killed has to be a process of its own. It is this test binary again: as a node of an exercise
// estate, put together by the code that `redoubt serve` runs, or as an enclave over a store with small segments and
// maintenance without pause, so that what is rare in a node happens in every round.

const (
	serveEnv   = "REDOUBT_TEST_SERVE" // kind:directory
	kindNode   = "node"
	kindEngine = "engine"
	readyWait  = 60 * time.Second
)

// place is where a server is to be found: the line that it prints when it is ready.
type place struct {
	S3  string `json:"s3"`
	API string `json:"api"`
	CA  string `json:"ca,omitempty"` // file
}

// crashEstate is the example estate, with an administrator who is cleared for everything: who counts and checks at
// every label.
func crashEstate() []byte {
	return append(append([]byte{}, estate.ExampleText...), `
  - name: ts-admin
    clearance: TOP SECRET//SI/TK
    nation: USA
    roles: [admin]
    expires: 2099-12-31
`...)
}

// TestTheOtherProcess is not a test: it is what the crash tests start and kill.
func TestTheOtherProcess(t *testing.T) {
	kind, dir, ok := strings.Cut(os.Getenv(serveEnv), ":")
	if !ok {
		t.Skip("the crash tests run it, as another process")
	}
	syscall.Umask(0o077)
	go func() { // whoever started us is gone: so are we
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	ready := func(p place) {
		if err := json.NewEncoder(os.Stdout).Encode(p); err != nil {
			os.Exit(1)
		}
	}
	serve := map[string]func(string, func(place)) error{kindNode: serveNode, kindEngine: serveEngine}[kind]
	if err := serve(dir, ready); err != nil {
		fmt.Fprintln(os.Stderr, "the server:", err)
		os.Exit(1)
	}
}

func serveNode(dir string, ready func(place)) error {
	st, err := node.OpenState(filepath.Join(dir, "state"))
	if err != nil {
		return err
	}
	e, doc, err := exerciseIn(st)
	if err != nil {
		return err
	}
	n, err := node.Open(context.Background(), node.Options{State: st, Name: "topsecret", Estate: e, Document: doc, Version: "test"})
	if err != nil {
		return err
	}
	return n.Serve(context.Background(), func(r node.Runtime) { ready(place{r.S3URL, r.APIURL, st.CAFile("topsecret")}) })
}

func exerciseIn(st node.State) (*estate.Estate, estate.Document, error) {
	if !st.HasExercise() {
		e, err := estate.Read(crashEstate(), nil)
		if err != nil {
			return nil, estate.Document{}, err
		}
		if _, err := st.PutExercise(e); err != nil {
			return nil, estate.Document{}, err
		}
	}
	return st.ExerciseEstate()
}

// serveEngine serves an enclave over a store that turns over all the time.
func serveEngine(dir string, ready func(place)) error {
	cloud, policy, err := openCloud(dir, embedded.Options{SegmentBytes: 1 << 20, ReserveBytes: -1, CompactPerSec: 256 << 20, MaintainEvery: 20 * time.Millisecond})
	if err != nil {
		return err
	}
	ceiling, err := policy.Parse("TOP SECRET//SI/TK")
	if err != nil {
		return err
	}
	var at place
	failed := make(chan error, 2)
	for _, f := range []struct {
		url *string
		h   http.Handler
	}{
		{&at.S3, s3.New(s3.Options{Objects: cloud, Lists: cloud, Uploads: cloud, Buckets: cloud, Auth: cloud, Policy: policy, Region: Region, UnsignedInClear: true})},
		{&at.API, api.New(api.Options{Auth: cloud, Credentials: cloud, People: cloud, Grants: cloud, Audit: cloud, Keys: cloud, Maintenance: cloud, Ceiling: ceiling})},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		*f.url = "http://" + l.Addr().String()
		go func() { failed <- http.Serve(l, f.h) }() // ends with the process
	}
	ready(at)
	return <-failed
}

// openCloud opens the enclave "topsecret" in dir, with keys and a store beside one another.
func openCloud(dir string, o embedded.Options, change ...func(*enclave.Options)) (_ *enclave.Enclave, _ *label.Policy, err error) {
	policy, err := label.Builtin("USA")
	if err != nil {
		return nil, nil, err
	}
	floor, err := policy.Parse("UNCLASSIFIED")
	if err != nil {
		return nil, nil, err
	}
	ceiling, err := policy.Parse("TOP SECRET//SI/TK")
	if err != nil {
		return nil, nil, err
	}
	path, unlock := filepath.Join(dir, "keyring"), keys.KeyFile(filepath.Join(dir, "key"))
	ring, err := keys.Open(path, unlock)
	if errors.Is(err, redoubt.NotFound) {
		ring, err = keys.Create(path, unlock, nil)
	}
	if err != nil {
		return nil, nil, err
	}
	if o.Key, err = ring.Derive("engine", 32); err != nil {
		return nil, nil, errors.Join(err, ring.Close())
	}
	engine, err := embedded.Open(filepath.Join(dir, "store"), o)
	if err != nil {
		return nil, nil, errors.Join(err, ring.Close())
	}
	eo := enclave.Options{Name: "topsecret", Policy: policy, Floor: floor, Ceiling: ceiling, Engine: engine, Keys: ring,
		Buckets: []redoubt.Bucket{{Name: "reports"}, {Name: "imagery"}}, Region: Region, Version: "test"}
	for _, p := range append(People[:len(People):len(People)], redoubt.Person{Name: "ts-admin", Clearance: "TOP SECRET//SI/TK", Nation: "USA", Roles: []redoubt.Role{redoubt.RoleAdmin}}) {
		p.PublicKey = base64.StdEncoding.EncodeToString(personKey(p.Name).Public().(ed25519.PublicKey))
		p.Expires = time.Date(2099, 12, 31, 0, 0, 0, 0, time.UTC)
		eo.People = append(eo.People, p)
	}
	for _, c := range change {
		c(&eo)
	}
	cloud, err := enclave.Open(context.Background(), eo)
	if err != nil {
		return nil, nil, errors.Join(err, engine.Close(), ring.Close())
	}
	return cloud, policy, nil
}

// personKey is the private key of a person of openCloud.
func personKey(name redoubt.SubjectName) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("crash test of " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// victim is a server that is started and killed again and again.
type victim struct {
	t    *testing.T
	kind string
	dir  string
	place
	roots *x509.CertPool
	cmd   *exec.Cmd
	life  io.Closer // the server's standard input
	said  *strings.Builder
}

// start brings the server up and waits until it serves.
func (v *victim) start() {
	v.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		v.t.Fatal(err)
	}
	v.cmd = exec.Command(exe, "-test.run=^TestTheOtherProcess$")
	v.cmd.Env = append(os.Environ(), serveEnv+"="+v.kind+":"+v.dir)
	v.said = new(strings.Builder)
	v.cmd.Stderr = v.said
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		v.t.Fatal(err)
	}
	if v.life, err = v.cmd.StdinPipe(); err != nil {
		v.t.Fatal(err)
	}
	if err := v.cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	slow := time.AfterFunc(readyWait, func() { v.cmd.Process.Kill() })
	line, err := bufio.NewReader(out).ReadBytes('\n')
	slow.Stop()
	if err == nil {
		err = json.Unmarshal(line, &v.place)
	}
	if err != nil {
		v.kill()
		v.t.Fatalf("the server did not come up: %v: %q\n%s", err, line, v.said)
	}
	if v.CA != "" {
		pem, err := os.ReadFile(v.CA)
		v.roots = x509.NewCertPool()
		if err != nil || !v.roots.AppendCertsFromPEM(pem) {
			v.t.Fatalf("%s: %v", v.CA, err)
		}
	}
}

// kill is kill -9, and the end of the process.
func (v *victim) kill() {
	if v.cmd == nil {
		return
	}
	v.cmd.Process.Kill()
	_ = v.cmd.Wait() // it was killed
	v.life.Close()
	v.cmd = nil
}

// key is the private key of a subject of the server.
func (v *victim) key(name redoubt.SubjectName) ed25519.PrivateKey {
	v.t.Helper()
	if v.kind == kindEngine {
		return personKey(name)
	}
	st, err := node.FindState(filepath.Join(v.dir, "state"))
	if err != nil {
		v.t.Fatal(err)
	}
	key, err := st.SubjectKey(name)
	if err != nil {
		v.t.Fatal(err)
	}
	return key
}
