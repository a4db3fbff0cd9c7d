// Package cosign_test holds the registry and the images policy against cosign itself: it signs and verifies in an enclave's registry, and what it has
// signed may run. It is a module of its own, so that cosign and what it needs are nowhere near the binary.
package cosign_test

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"redoubt"
	"redoubt/compute/image"
	"redoubt/redoubttest"
)

// site is an enclave whose registry listens, and somebody who pushes, signs and runs there.
type site struct {
	t      *testing.T
	s      *redoubttest.Stack
	host   string
	who    redoubt.Minted
	cosign string
	home   string
}

func open(t *testing.T) *site {
	x := &site{t: t, s: redoubttest.New(t, redoubttest.Options{Seed: 1, Name: "secret", Ceiling: "SECRET", Time: time.Now}), home: t.TempDir()}
	server := httptest.NewServer(x.s.Images)
	t.Cleanup(server.Close)
	x.host, x.who, x.cosign = strings.TrimPrefix(server.URL, "http://"), x.s.Mint("s-analyst", ""), filepath.Join(t.TempDir(), "cosign")
	x.run("go", "build", "-o", x.cosign, "github.com/sigstore/cosign/v3/cmd/cosign")
	return x
}

func (x *site) try(name string, args ...string) (string, error) {
	c := exec.CommandContext(x.t.Context(), name, args...)
	c.Env = append(os.Environ(), "COSIGN_PASSWORD=of a test", "CGO_ENABLED=0")
	if name == x.cosign {
		c.Env = append(c.Env, "HOME="+x.home)
	}
	out, err := c.CombinedOutput()
	return string(out), err
}

func (x *site) run(name string, args ...string) {
	x.t.Helper()
	if out, err := x.try(name, args...); err != nil {
		x.t.Fatalf("%s %s: %v\n%s", filepath.Base(name), args[0], err, out)
	}
}

// keys makes a pair as cosign does: the private one's file, the public one's, and that as a policy names it.
func (x *site) keys(name string) (private, public, text string) {
	x.t.Helper()
	prefix := filepath.Join(x.home, name)
	x.run(x.cosign, "generate-key-pair", "--output-key-prefix", prefix)
	b, err := os.ReadFile(prefix + ".pub")
	if err != nil {
		x.t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	return prefix + ".key", prefix + ".pub", base64.StdEncoding.EncodeToString(block.Bytes)
}

// sign signs, cut off: no log and no authority is asked.
func (x *site) sign(key, ref string, more ...string) {
	x.t.Helper()
	x.run(x.cosign, append([]string{"sign", "--key", key, "--use-signing-config=false", "--tlog-upload=false", "--yes", "--allow-http-registry", "--registry-username=redoubt", "--registry-password=" + x.who.Token, x.host + "/" + ref}, more...)...)
}

func (x *site) verify(public, ref string, more ...string) error {
	_, err := x.try(x.cosign, append([]string{"verify", "--key", public, "--insecure-ignore-tlog", "--allow-http-registry", "--registry-username=redoubt", "--registry-password=" + x.who.Token, x.host + "/" + ref}, more...)...)
	return err
}

func (x *site) options() []crane.Option {
	return []crane.Option{crane.WithAuth(&authn.Basic{Username: "redoubt", Password: x.who.Token})}
}

// image is one that could run here.
func (x *site) image() v1.Image {
	x.t.Helper()
	img, err := random.Image(1000, 1)
	if err != nil {
		x.t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		x.t.Fatal(err)
	}
	c.OS, c.Architecture = "linux", runtime.GOARCH
	if img, err = mutate.ConfigFile(img, c); err != nil {
		x.t.Fatal(err)
	}
	return img
}

// push pushes an image, and gives its reference by digest.
func (x *site) push(repo string) string {
	x.t.Helper()
	img := x.image()
	d, err := img.Digest()
	if err == nil {
		err = crane.Push(img, x.host+"/"+repo+":latest", x.options()...)
	}
	if err != nil {
		x.t.Fatal(err)
	}
	return repo + "@" + d.String()
}

// admits asks as a job does that is to run the image.
func (x *site) admits(ref, key string) error {
	x.t.Helper()
	ctx := x.t.Context()
	if _, err := x.s.SubmitJob(ctx, x.s.As(x.who), redoubt.SubmitJob{Image: ref}); err != nil {
		x.t.Fatal(err)
	}
	run, err := x.s.NextJob(ctx, func(string, redoubt.SubmitJob) bool { return true })
	if err != nil {
		x.t.Fatal(err)
	}
	defer func() {
		if err := run.Finish(context.WithoutCancel(ctx), redoubt.JobExit{}); err != nil {
			x.t.Error(err)
		}
	}()
	r, err := image.ParseReference(ref)
	if err != nil {
		x.t.Fatal(err)
	}
	found, err := image.Open(ctx, run, r, image.Linux(runtime.GOARCH))
	if err != nil {
		x.t.Fatal(err)
	}
	return found.Admit(ctx, &redoubt.ImagePolicy{Rules: []redoubt.ImageRule{{Repository: "reports/*", SignedBy: []string{key}}}})
}

func TestWhatCosignSignedMayRun(t *testing.T) {
	x := open(t)
	private, public, key := x.keys("estate")
	otherPrivate, otherPublic, other := x.keys("other")
	for form, flags := range map[string][]string{"bundle": nil, "tag": {"--new-bundle-format=false"}} {
		t.Run(form, func(t *testing.T) {
			x.t = t
			signed, plain, foreign := x.push("reports/tool-"+form), x.push("reports/plain-"+form), x.push("reports/foreign-"+form)
			x.sign(private, signed, flags...)
			x.sign(otherPrivate, foreign, flags...)
			if err := x.verify(public, signed, flags...); err != nil {
				t.Errorf("cosign does not find its own signature in the registry: %v", err)
			}
			if err := x.verify(otherPublic, signed, flags...); err == nil {
				t.Error("cosign takes another key for that of the signature")
			}
			if err := x.admits(signed, key); err != nil {
				t.Errorf("what is signed: %v", err)
			}
			for why, err := range map[string]error{"of no signature": x.admits(plain, key), "of another key's": x.admits(foreign, key), "with another key named": x.admits(signed, other)} {
				if redoubt.KindOf(err) != redoubt.Denied {
					t.Errorf("an image %s: %v", why, err)
				}
			}
			x.sign(private, foreign, flags...) // beside the other's
			if err := x.admits(foreign, key); err != nil {
				t.Errorf("what both have signed: %v", err)
			}
		})
	}
	t.Run("an index", func(t *testing.T) {
		x.t = t
		img := x.image()
		idx := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}})
		d, err := idx.Digest()
		if err != nil {
			t.Fatal(err)
		}
		o := crane.GetOptions(x.options()...)
		at, err := name.ParseReference(x.host + "/reports/index:latest")
		if err == nil {
			err = remote.WriteIndex(at, idx, o.Remote...)
		}
		if err != nil {
			t.Fatal(err)
		}
		x.sign(private, "reports/index@"+d.String())
		if err := x.admits("reports/index:latest", key); err != nil {
			t.Errorf("what is found through a signed index: %v", err)
		}
	})
	t.Run("an attestation is no signature", func(t *testing.T) {
		x.t = t
		ref := x.push("reports/attested")
		predicate := filepath.Join(x.home, "predicate.json")
		if err := os.WriteFile(predicate, []byte(`{"scanned":true}`), 0o600); err != nil {
			t.Fatal(err)
		}
		x.run(x.cosign, "attest", "--key", private, "--predicate", predicate, "--use-signing-config=false", "--tlog-upload=false", "--yes", "--allow-http-registry",
			"--registry-username=redoubt", "--registry-password="+x.who.Token, x.host+"/"+ref)
		if err := x.admits(ref, key); redoubt.KindOf(err) != redoubt.Denied {
			t.Errorf("what is attested and not signed: %v", err)
		}
	})
}
