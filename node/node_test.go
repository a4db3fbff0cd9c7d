package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"redoubt"
	"redoubt/estate"
	"redoubt/keys"
)

func TestMain(m *testing.M) {
	syscall.Umask(0o077) // as the command does for a node
	os.Exit(m.Run())
}

// exerciseOf opens a state with the built-in example, or with a text made from it.
func exerciseOf(t *testing.T, text []byte) (State, *estate.Estate, estate.Document) {
	t.Helper()
	st, err := OpenState(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	e, err := estate.Read(text, nil)
	if err == nil {
		_, err = st.PutExercise(e)
	}
	if err != nil {
		t.Fatal(err)
	}
	e, doc, err := st.ExerciseEstate()
	if err != nil {
		t.Fatal(err)
	}
	return st, e, doc
}

// serve runs a node until the test, or stop, ends it.
func serve(t *testing.T, o Options) (Runtime, func()) {
	t.Helper()
	n, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan Runtime, 1), make(chan error, 1)
	go func() { done <- n.Serve(ctx, func(r Runtime) { ready <- r }) }()
	stopped := false
	stop := func() {
		cancel()
		if !stopped {
			stopped = true
			if err := <-done; err != nil {
				t.Errorf("Serve: %v", err)
			}
		}
	}
	t.Cleanup(stop)
	select {
	case r := <-ready:
		return r, stop
	case err := <-done:
		stopped = true
		t.Fatalf("ended before it was ready: %v", err)
		panic("unreachable")
	}
}

func poolOf(t *testing.T, st State, name redoubt.NodeName) *x509.CertPool {
	t.Helper()
	bundle, err := os.ReadFile(st.CAFile(name))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(bundle) {
		t.Fatal("ca.pem holds no certificate")
	}
	return pool
}

func host(url string) string { return strings.TrimPrefix(url, "https://") }

func TestConnectionsAgreeOnPostQuantumKeys(t *testing.T) {
	st, e, doc := exerciseOf(t, estate.ExampleText)
	r, _ := serve(t, Options{State: st, Name: "unclass", Estate: e, Document: doc})
	for _, url := range []string{r.S3URL, r.APIURL} {
		for _, name := range []string{"localhost", "127.0.0.1", "reports.s3.localhost"} {
			c, err := tls.Dial("tcp", host(url), &tls.Config{RootCAs: poolOf(t, st, "unclass"), ServerName: name})
			if err != nil {
				t.Fatalf("%s as %s: %v", url, name, err)
			}
			cs := c.ConnectionState()
			c.Close()
			if cs.Version != tls.VersionTLS13 || cs.CurveID != tls.X25519MLKEM768 {
				t.Errorf("got %s with %v, want TLS 1.3 with X25519MLKEM768", tls.VersionName(cs.Version), cs.CurveID)
			}
		}
		if _, err := tls.Dial("tcp", host(url), &tls.Config{RootCAs: poolOf(t, st, "unclass"), ServerName: "localhost", MaxVersion: tls.VersionTLS12}); err == nil {
			t.Errorf("%s took TLS 1.2", url)
		}
	}
}

func TestPortsAreChosenOnceAndRemembered(t *testing.T) {
	st, e, doc := exerciseOf(t, estate.ExampleText)
	o := Options{State: st, Name: "secret", Estate: e, Document: doc}
	first, stop := serve(t, o)
	stop()
	if r, err := st.Runtime("secret"); err != nil || r.State != Stopped || r.PID != 0 {
		t.Errorf("after the stop: got %+v, %v", r, err)
	}
	o.Estate, o.Document = nil, estate.Document{} // by the estate in force
	second, stop := serve(t, o)
	stop()
	if first.S3URL != second.S3URL || first.APIURL != second.APIURL {
		t.Errorf("got %s and %s, want %s and %s", second.S3URL, second.APIURL, first.S3URL, first.APIURL)
	}
	l, err := net.Listen("tcp", host(first.S3URL))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if n, err := Open(t.Context(), o); !errors.Is(err, redoubt.Unavailable) {
		t.Errorf("with the port taken: got %v, %v, want unavailable", n, err)
	}
}

func TestANodeRunsOnce(t *testing.T) {
	st, e, doc := exerciseOf(t, estate.ExampleText)
	o := Options{State: st, Name: "unclass", Estate: e, Document: doc}
	_, _ = serve(t, o)
	if _, err := Open(t.Context(), o); !errors.Is(err, redoubt.Unavailable) {
		t.Errorf("got %v, want unavailable", err)
	}
	if r, err := st.Runtime("unclass"); err != nil || r.State != Ready {
		t.Errorf("the second start disturbed the first: %+v, %v", r, err)
	}
	release, err := st.Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if _, err := st.Lock(); !errors.Is(err, redoubt.Unavailable) {
		t.Errorf("a second lock of the state: got %v, want unavailable", err)
	}
}

func TestNothingReadableIsInTheState(t *testing.T) {
	text := bytes.ReplaceAll(estate.ExampleText, []byte("reports"), []byte("planted-bucket"))
	text = bytes.ReplaceAll(text, []byte("ts-analyst"), []byte("planted-person"))
	text = bytes.ReplaceAll(text, []byte("name: example"), []byte("name: planted-estate"))
	st, e, doc := exerciseOf(t, text)
	r, stop := serve(t, Options{State: st, Name: "topsecret", Estate: e, Document: doc})
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: poolOf(t, st, "topsecret")}}}
	resp, err := client.Get(r.S3URL + "/planted-bucket/planted-key")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	client.CloseIdleConnections()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("without a credential: got %s, want 403", resp.Status)
	}
	look := func() {
		err := filepath.WalkDir(st.Dir(), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, planted := range []string{"planted", "TOP SECRET", "UNCLASSIFIED", "SECRET//", "officer", "imagery", "analyst"} {
				if bytes.Contains(data, []byte(planted)) || bytes.Contains(data, []byte(base64.StdEncoding.EncodeToString([]byte(planted))[:6])) {
					t.Errorf("%s holds %q", path, planted)
				}
			}
			if info, err := d.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s may be read by others: %v, %v", path, info.Mode(), err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	look()
	stop()
	look()
}

// realOf is an estate that is no exercise, signed by the officers whose seeds are given.
func realOf(t *testing.T, serial int, officers [2]byte, ceiling string, signers ...byte) (*estate.Estate, estate.Document) {
	t.Helper()
	key := func(n byte) ed25519.PrivateKey {
		return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
	}
	public := func(n byte) string {
		return base64.StdEncoding.EncodeToString(key(n).Public().(ed25519.PublicKey))
	}
	e, err := estate.Read(fmt.Appendf(nil, `redoubt: 1
serial: %d
policy: USA
nodes:
  - {name: alpha, range: {floor: U, ceiling: %s}, buckets: [reports]}
people:
  - {name: o1, clearance: TS, nation: USA, roles: [officer], expires: 2040-01-01, public_key: %s}
  - {name: o2, clearance: TS, nation: USA, roles: [officer], expires: 2040-01-01, public_key: %s}
`, serial, ceiling, public(officers[0]), public(officers[1])), nil)
	if err != nil {
		t.Fatal(err)
	}
	doc := e.Document()
	for i, s := range signers {
		doc.Sigs = append(doc.Sigs, redoubt.Signature{Signer: redoubt.SubjectName(fmt.Sprintf("o%d", i+1)),
			Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(key(s), estate.Message(e)))})
	}
	return e, doc
}

func TestARealEstateTakesEffectOnlySigned(t *testing.T) {
	st, err := OpenState(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	unlock := keys.Passphrase(func() ([]byte, error) { return []byte("five random words of some length"), nil })
	try := func(e *estate.Estate, doc estate.Document) error {
		n, err := Open(t.Context(), Options{State: st, Name: "alpha", Estate: e, Document: doc, Unlock: unlock})
		if err == nil {
			err = n.Close()
		}
		return err
	}
	for _, c := range []struct {
		what    string
		serial  int
		by      [2]byte
		ceiling string
		signers []byte
		want    error
	}{
		{"unsigned", 1, [2]byte{1, 2}, "S", nil, redoubt.Denied},
		{"one officer", 1, [2]byte{1, 2}, "S", []byte{1}, redoubt.Denied},
		{"genesis", 1, [2]byte{1, 2}, "S", []byte{1, 2}, nil},
		{"the same again", 1, [2]byte{1, 2}, "S", nil, nil},
		{"an administrator's own officers", 2, [2]byte{3, 4}, "S", []byte{3, 4}, redoubt.Denied},
		{"a change without a new serial", 1, [2]byte{1, 2}, "TS", []byte{1, 2}, redoubt.Denied},
		{"a wider range", 2, [2]byte{1, 2}, "TS", []byte{1, 2}, nil},
		{"the old file back", 1, [2]byte{1, 2}, "S", []byte{1, 2}, redoubt.Denied},
		{"a narrower range", 3, [2]byte{1, 2}, "S", []byte{1, 2}, redoubt.Denied},
	} {
		e, doc := realOf(t, c.serial, c.by, c.ceiling, c.signers...)
		if err := try(e, doc); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.what, err, c.want)
		}
	}
	if err := try(nil, estate.Document{}); err != nil {
		t.Errorf("by the estate in force: %v", err)
	}
	wrong := keys.Passphrase(func() ([]byte, error) { return []byte("not the right passphrase"), nil })
	if _, err := Open(t.Context(), Options{State: st, Name: "alpha", Unlock: wrong}); !errors.Is(err, redoubt.Denied) {
		t.Errorf("a wrong passphrase: got %v, want denied", err)
	}
	if _, err := st.SubjectKey("o1"); !errors.Is(err, redoubt.NotFound) {
		t.Errorf("the state gives a subject's key: %v", err)
	}
}

func TestALostKeyringIsNoFirstStart(t *testing.T) {
	st, e, doc := exerciseOf(t, estate.ExampleText)
	o := Options{State: st, Name: "unclass", Estate: e, Document: doc}
	_, stop := serve(t, o)
	stop()
	if err := os.Remove(filepath.Join(st.NodeDir("unclass"), "keyring")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), o); !errors.Is(err, redoubt.Corrupt) {
		t.Errorf("got %v, want corrupt", err)
	}
}

func TestAStateThatOthersMayReadIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenState(dir); !errors.Is(err, redoubt.Denied) {
		t.Errorf("got %v, want denied", err)
	}
}

func TestCertificatesAreMadeAnewBeforeTheyEnd(t *testing.T) {
	dir := t.TempDir()
	ring, err := keys.Create(filepath.Join(dir, "keyring"), keys.KeyFile(filepath.Join(dir, "key")), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	now := time.Now()
	clock := func() time.Time { return now }
	a, err := openAuthority(dir, ring, []string{"node.example", "192.0.2.7"}, clock)
	if err != nil {
		t.Fatal(err)
	}
	leaf := func() *x509.Certificate {
		c, err := a.certificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf
	}
	first := leaf()
	now = now.Add(leafLife - leafRenew - time.Minute)
	if leaf() != first {
		t.Error("made anew too early")
	}
	now = now.Add(2 * time.Minute)
	second := leaf()
	if second == first || !second.NotAfter.After(first.NotAfter) {
		t.Error("not made anew")
	}
	for _, name := range []string{"node.example", "192.0.2.7", "localhost", "::1", "bucket.s3.localhost"} {
		if err := second.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	again, err := openAuthority(dir, ring, nil, clock)
	if err != nil || !again.cert.Equal(a.cert) {
		t.Errorf("a restart made another authority: %v", err)
	}
}

func TestLogsAreBounded(t *testing.T) {
	dir := t.TempDir()
	f := &logFile{path: filepath.Join(dir, "node.log"), max: 100}
	if err := f.open(); err != nil {
		t.Fatal(err)
	}
	line := []byte(strings.Repeat("x", 39) + "\n")
	for range 50 {
		if _, err := f.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != keptLogs+1 {
		t.Errorf("got %d files, %v, want %d", len(files), err, keptLogs+1)
	}
	for _, d := range files {
		info, err := d.Info()
		if err != nil || info.Size() > 100 || info.Size()%40 != 0 {
			t.Errorf("%s: %d bytes, %v", d.Name(), info.Size(), err)
		}
	}
}
