package redoubttest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/crane"
	crname "github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	crandom "github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"redoubt"
	"redoubt/compute/image"
)

// images is crane with one credential at one registry.
type images struct {
	host    string
	options []crane.Option
}

// newImages takes what env prints: REDOUBT_API_URL, REDOUBT_TOKEN and the CA's file.
func newImages(t *testing.T, env map[string]string) images {
	t.Helper()
	at, err := url.Parse(env["REDOUBT_API_URL"])
	if err != nil || at.Host == "" {
		t.Fatalf("REDOUBT_API_URL is %q", env["REDOUBT_API_URL"])
	}
	ca, err := os.ReadFile(env["AWS_CA_BUNDLE"])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return images{at.Host, []crane.Option{crane.WithContext(t.Context()), crane.WithAuth(&authn.Basic{Username: "redoubt", Password: env["REDOUBT_TOKEN"]}),
		crane.WithTransport(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}})}}
}

func (c images) push(t *testing.T, img v1.Image, ref string) string {
	t.Helper()
	if err := crane.Push(img, c.host+"/"+ref, c.options...); err != nil {
		t.Fatalf("push %s: %v", ref, err)
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

// pull reads all of an image, so that every layer is held to its digest.
func (c images) pull(ref string) (string, error) {
	img, err := crane.Pull(c.host+"/"+ref, c.options...)
	if err != nil {
		return "", err
	}
	if err := crane.Export(img, discard{}); err != nil {
		return "", err
	}
	d, err := img.Digest()
	return d.String(), err
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// absent says whether an error is the registry's word for what it does not know.
func absent(err error) bool {
	var e *transport.Error
	return errors.As(err, &e) && e.StatusCode == http.StatusNotFound
}

func someImage(t *testing.T, layers, size int64) v1.Image {
	t.Helper()
	img, err := crandom.Image(size, layers)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// craneSite gives crane the credentials that a running estate's env printed (scripts/clients), or those of an enclave of its own.
func craneSite(t *testing.T) func(who string) images {
	if os.Getenv(clientsDir) != "" {
		site := newClientSite(t)
		return func(who string) images { return newImages(t, site.env(who)) }
	}
	s := New(t, Options{Seed: 1, Name: "secret", Ceiling: "SECRET", Time: time.Now})
	server := httptest.NewTLSServer(s.Images)
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	s.check(os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	return func(who string) images {
		return newImages(t, map[string]string{"REDOUBT_API_URL": server.URL, "REDOUBT_TOKEN": s.Mint(redoubt.SubjectName(who), "").Token, "AWS_CA_BUNDLE": ca})
	}
}

func TestClientCrane(t *testing.T) {
	if fips140.Enforced() {
		t.Skip("the client itself is not held to it; scripts/clients runs it against a server under enforcement or not")
	}
	at := craneSite(t)
	s, u := at("s-analyst"), at("u-analyst")
	const repo = "reports/crane/tool"
	one, two := someImage(t, 3, 100_000), someImage(t, 2, 12<<20)
	t.Run("push_and_pull", func(t *testing.T) {
		for tag, img := range map[string]v1.Image{"one": one, "two": two} {
			want := s.push(t, img, repo+":"+tag)
			for _, ref := range []string{":" + tag, "@" + want} {
				if got, err := s.pull(repo + ref); err != nil || got != want {
					t.Errorf("pull %s: %s, %v", ref, got, err)
				}
			}
			if got, err := crane.Digest(s.host+"/"+repo+":"+tag, s.options...); err != nil || got != want {
				t.Errorf("digest: %s, %v", got, err)
			}
		}
	})
	t.Run("push_again_sends_nothing", func(t *testing.T) { s.push(t, two, repo+":two") })
	t.Run("an_index", func(t *testing.T) {
		idx, err := crandom.Index(1000, 1, 3)
		if err != nil {
			t.Fatal(err)
		}
		ref := s.host + "/" + repo + ":all"
		if err := crane.Copy(ref+"none", ref, s.options...); !absent(err) {
			t.Errorf("copy of none: %v", err)
		}
		o := crane.GetOptions(s.options...)
		name, err := crname.ParseReference(ref)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.WriteIndex(name, idx, o.Remote...); err != nil {
			t.Fatal(err)
		}
		if raw, err := crane.Manifest(ref, s.options...); err != nil || !bytes.Contains(raw, []byte("manifests")) {
			t.Errorf("got %s, %v", raw, err)
		}
	})
	t.Run("copy_between_repositories", func(t *testing.T) { // with mounts
		if err := crane.Copy(s.host+"/"+repo+":two", s.host+"/imagery/crane/copy:two", s.options...); err != nil {
			t.Fatal(err)
		}
		if _, err := s.pull("imagery/crane/copy:two"); err != nil {
			t.Error(err)
		}
	})
	t.Run("tags", func(t *testing.T) {
		if err := crane.Tag(s.host+"/"+repo+":one", "newest", s.options...); err != nil {
			t.Fatal(err)
		}
		tags, err := crane.ListTags(s.host+"/"+repo, s.options...)
		if err != nil || !slices.Equal(tags, []string{"all", "newest", "one", "two"}) {
			t.Errorf("got %v, %v", tags, err)
		}
	})
	t.Run("delete", func(t *testing.T) {
		if err := crane.Delete(s.host+"/"+repo+":newest", s.options...); err != nil {
			t.Fatal(err)
		}
		if _, err := s.pull(repo + ":newest"); !absent(err) {
			t.Errorf("after delete: %v", err)
		}
	})
	t.Run("below_there_is_nothing", func(t *testing.T) {
		if _, err := u.pull(repo + ":one"); !absent(err) {
			t.Errorf("pull: %v", err)
		}
		if _, err := crane.ListTags(u.host+"/"+repo, u.options...); !absent(err) {
			t.Errorf("tags: %v", err)
		}
	})
	t.Run("below_the_same_tag_is_another", func(t *testing.T) {
		low := u.push(t, someImage(t, 1, 1000), "reports/crane/both:v1")
		high := s.push(t, someImage(t, 1, 1000), "reports/crane/both:v1")
		if got, err := u.pull("reports/crane/both:v1"); err != nil || got != low {
			t.Errorf("below: %s, %v, want %s", got, err, low)
		}
		if got, err := s.pull("reports/crane/both:v1"); err != nil || got != high {
			t.Errorf("above: %s, %v, want %s", got, err, high)
		}
	})
	t.Run("no_credential", func(t *testing.T) {
		if _, err := crane.Digest(s.host+"/"+repo+":one", append(s.options, crane.WithAuth(authn.Anonymous))...); err == nil {
			t.Error("it was told without one")
		}
	})
}

// What cosign signs is admitted: a signature made here as cosign makes it, pushed with crane, and read through the enclave.
func TestASignedImageIsAdmitted(t *testing.T) {
	if fips140.Enforced() {
		t.Skip("the client itself is not held to it")
	}
	s := New(t, Options{Seed: 1, Name: "secret", Ceiling: "SECRET", Time: time.Now})
	server := httptest.NewServer(s.Images)
	t.Cleanup(server.Close)
	m := s.Mint("s-analyst", "")
	c := images{strings.TrimPrefix(server.URL, "http://"), []crane.Option{crane.WithContext(t.Context()), crane.Insecure, crane.WithAuth(&authn.Basic{Username: "x", Password: m.Token})}}
	img := someImage(t, 2, 1000)
	digest := c.push(t, img, "reports/tool:v1")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	policy := &redoubt.ImagePolicy{Rules: []redoubt.ImageRule{{Repository: "reports/*", SignedBy: []string{base64.StdEncoding.EncodeToString(der)}}}}
	ref, err := image.ParseReference("reports/tool:v1")
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	admitted := func() error {
		found, err := image.Open(t.Context(), opener{s, s.As(m)}, ref, image.Platform{OS: config.OS, Architecture: config.Architecture})
		if err != nil {
			t.Fatal(err)
		}
		return found.Admit(t.Context(), policy)
	}
	if err := admitted(); redoubt.KindOf(err) != redoubt.Denied {
		t.Errorf("unsigned: %v", err)
	}
	payload := []byte(`{"critical":{"identity":{"docker-reference":"` + c.host + `/reports/tool"},"image":{"docker-manifest-digest":"` + digest + `"},"type":"cosign container image signature"},"optional":null}`)
	sum := sha256.Sum256(payload)
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signed, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), mutate.Addendum{Layer: static.NewLayer(payload, "application/vnd.dev.cosign.simplesigning.v1+json"),
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(sig)}})
	if err != nil {
		t.Fatal(err)
	}
	c.push(t, signed, "reports/tool:"+strings.Replace(digest, ":", "-", 1)+".sig")
	if err := admitted(); err != nil {
		t.Errorf("signed: %v", err)
	}
}

// opener reads as one credential does.
type opener struct {
	s   *Stack
	who redoubt.Credential
}

func (o opener) Object(ctx context.Context, name redoubt.ObjectName) (redoubt.Version, redoubt.Content, error) {
	opened, err := o.s.GetObject(ctx, o.who, redoubt.ReadObject{Name: name})
	if err != nil {
		return redoubt.Version{}, nil, err
	}
	return opened.Version(), opened, nil
}

func (o opener) Names(ctx context.Context, bucket redoubt.BucketName, prefix string, most int) (all []string, err error) {
	page, err := o.s.ListObjects(ctx, o.who, redoubt.ListObjects{Bucket: bucket, Prefix: prefix, Max: most})
	for _, v := range page.Versions {
		all = append(all, v.Name.Key)
	}
	return all, err
}

// An image travels as versions do: over a guard upward, to a device, and back from one.
func TestImagesTravelAsVersions(t *testing.T) {
	r := newEstate(t)
	r.must("up", "--detach")
	at := func(who string) images {
		env, _ := r.env(who[:strings.IndexByte(who, '@')], who[strings.IndexByte(who, '@')+1:])
		return newImages(t, env)
	}
	low, high, top, device := at("u-analyst@unclass"), at("s-analyst@secret"), at("ts-analyst@topsecret"), at("s-analyst@outpost")
	arrives := func(c images, ref, want string) {
		t.Helper()
		var last error
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			var got string
			if got, last = c.pull(ref); last == nil {
				if got != want {
					t.Fatalf("%s is %s, want %s", ref, got, want)
				}
				return
			}
		}
		t.Fatalf("%s did not arrive: %v", ref, last)
	}
	want := low.push(t, someImage(t, 3, 6<<20), "reports/tool:v1")
	arrives(high, "unclass.reports/tool:v1", want)
	arrives(top, "unclass.reports/tool:v1", want)
	arrives(device, "unclass.reports/tool:v1", want)
	if _, err := high.pull("reports/tool:v1"); !absent(err) {
		t.Errorf("it lies under another name too: %v", err)
	}
	if err := crane.Push(someImage(t, 1, 100), high.host+"/unclass.reports/tool:v2", high.options...); err == nil || absent(err) {
		t.Errorf("pushed into a guard's bucket: %v", err)
	}
	above := high.push(t, someImage(t, 2, 1000), "reports/plan:v1")
	arrives(device, "reports/plan:v1", above)
	arrives(top, "secret.reports/plan:v1", above)
	there := device.push(t, someImage(t, 1, 1000), "reports/field:v1")
	arrives(high, "reports/field:v1", there)
	if _, err := low.pull("reports/plan:v1"); !absent(err) {
		t.Errorf("what is above is below: %v", err)
	}
}
