package enclave

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"redoubt"
	"redoubt/store"
	"redoubt/store/embedded"
)

// finishing is an engine that tells when the first blob is being made durable, and whose syncs are slow.
type finishing struct {
	store.Engine
	first sync.Once
	began chan struct{}
	ends  chan struct{} // not nil: nothing is durable before it is closed
	fault error         // of every Finish
}

type finishingBlob struct {
	store.Staged
	of *finishing
}

func (f *finishing) Stage(ctx context.Context) (store.Staged, error) {
	s, err := f.Engine.Stage(ctx)
	return &finishingBlob{s, f}, err
}

func (s *finishingBlob) Finish() error {
	s.of.first.Do(func() { close(s.of.began) })
	if s.of.ends != nil {
		<-s.of.ends
	}
	return errors.Join(s.of.fault, s.Staged.Finish())
}

func (f *finishing) Commit(ctx context.Context, b *store.Batch) error {
	own := *b
	own.Links = nil
	for _, s := range b.Links {
		own.Links = append(own.Links, s.(*finishingBlob).Staged)
	}
	err := f.Engine.Commit(ctx, &own)
	b.FirstAppend = own.FirstAppend
	return err
}

// newFinishing is a pair whose home has such an engine, and what its device has for it: n versions of so many bytes, and some more.
func newFinishing(t *testing.T, n, bytes int) (p pair, f *finishing, in []redoubt.Received, contents []string) {
	t.Helper()
	f = &finishing{began: make(chan struct{})}
	p = openPair(t, "SECRET", func(o *Options) {
		if o.Name != "home" {
			return
		}
		engine, err := embedded.Open(t.TempDir(), embedded.Options{Key: make([]byte, 32), ReserveBytes: -1})
		if err != nil {
			t.Fatal(err)
		}
		f.Engine = engine
		o.Engine = f
	})
	for i := range n {
		content := make([]byte, bytes+i)
		rand.Read(content)
		p.device.put(p.device.as("s-analyst", ""), fmt.Sprint("key", i), string(content), "")
		contents = append(contents, string(content))
	}
	refs, _, err := p.device.Since(context.Background(), "home", secretSet, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	in = received(t, fetch(t, p.device, p.home, secretSet, refs))
	if len(in) != n {
		t.Fatalf("%d entries, want %d", len(in), n)
	}
	f.first, f.began = sync.Once{}, make(chan struct{}) // what the home itself wrote does not count
	return p, f, in, contents
}

// once is content that is read when something has happened.
type once struct {
	io.Reader
	before func()
}

func (o *once) Read(p []byte) (int, error) {
	o.before()
	return o.Reader.Read(p)
}

func TestTheFirstIsMadeDurableWhileTheLastComes(t *testing.T) {
	p, f, in, contents := newFinishing(t, finishTogether+1, store.InlineBytes)
	last, ends := &in[len(in)-1], sync.OnceFunc(func() { close(f.ends) })
	f.ends = make(chan struct{})
	last.Content = &once{last.Content, func() {
		<-f.began
		ends()
	}}
	hangs := time.AfterFunc(time.Minute, func() {
		t.Error("the last is not read before the first is durable")
		ends()
	})
	defer hangs.Stop()
	if refused, err := p.home.Apply(context.Background(), "device", in); err != nil || len(refused) > 0 {
		t.Fatalf("%v, %v", refused, err)
	}
	for i, want := range contents {
		if got := p.home.get(p.home.as("s-analyst", ""), fmt.Sprint("key", i)); got != want {
			t.Errorf("version %d reads otherwise", i)
		}
	}
}

func TestWhatCannotBeMadeDurableIsNotTaken(t *testing.T) {
	p, f, in, _ := newFinishing(t, finishTogether+1, store.InlineBytes)
	f.fault = redoubt.DiskFull
	refused, err := p.home.Apply(context.Background(), "device", in)
	if err != nil || len(refused) != len(in) {
		t.Fatalf("%d refused, %v; want %d", len(refused), err, len(in))
	}
	for _, no := range refused {
		if no.Kind != redoubt.DiskFull || !no.Later {
			t.Errorf("%+v, want it to come later", no)
		}
	}
	again := func() {
		for _, n := range in {
			n.Content.(io.Seeker).Seek(0, io.SeekStart)
		}
	}
	again()
	f.fault = redoubt.Unavailable // nothing that an entry is the reason of
	if _, err := p.home.Apply(context.Background(), "device", in); !errors.Is(err, redoubt.Unavailable) {
		t.Errorf("%v", err)
	}
	again()
	f.fault = nil
	if refused, err := p.home.Apply(context.Background(), "device", in); err != nil || len(refused) > 0 {
		t.Errorf("%v, %v", refused, err)
	}
}

// TestContentInMemoryIsHeldAgainstWhatWasSigned, to its last byte, as content that is read is.
func TestContentInMemoryIsHeldAgainstWhatWasSigned(t *testing.T) {
	for _, size := range []int{store.InlineBytes, digestBeside} {
		heldAgainstWhatWasSigned(t, size)
	}
}

func heldAgainstWhatWasSigned(t *testing.T, size int) {
	p, _, in, contents := newFinishing(t, 1, size)
	good := contents[0]
	bad := []byte(good)
	bad[len(bad)-1] ^= 1
	for what, content := range map[string]io.Reader{
		"another byte": bytes.NewReader(bad), "a byte less": bytes.NewReader([]byte(good)[1:]), "a byte more": bytes.NewReader(append([]byte(good), 1)), "nothing": bytes.NewReader(nil),
		"another byte, read": io.MultiReader(bytes.NewReader(bad)), "a byte more, read": io.MultiReader(bytes.NewReader(append([]byte(good), 1))),
	} {
		in[0].Content = content
		if refused, err := p.home.Apply(context.Background(), "device", in); err != nil || len(refused) != 1 || refused[0].Rule != ruleContent {
			t.Errorf("%s: %+v, %v", what, refused, err)
		}
	}
	in[0].Content = bytes.NewReader([]byte(good))
	if refused, err := p.home.Apply(context.Background(), "device", in); err != nil || len(refused) > 0 {
		t.Errorf("%+v, %v", refused, err)
	}
	if got := p.home.get(p.home.as("s-analyst", ""), "key0"); got != good {
		t.Error("it reads otherwise")
	}
}

// TestContentIsDigestedBesideItsSealing: all of it goes both ways, and nothing goes on when one of them has ended early.
func TestContentIsDigestedBesideItsSealing(t *testing.T) {
	for _, size := range []int{0, 1, digestBeside - 1, digestBeside, 1 << 20} {
		content := make([]byte, size)
		rand.Read(content)
		digest, sealed := sha256.New(), new(bytes.Buffer)
		w := &whole{held: bytes.NewReader(content), digest: digest}
		if n, err := w.WriteTo(sealed); n != int64(size) || err != nil || w.held.Len() != 0 || !bytes.Equal(sealed.Bytes(), content) {
			t.Errorf("%d of %d bytes, %v", n, size, err)
		}
		if [32]byte(digest.Sum(nil)) != sha256.Sum256(content) {
			t.Errorf("the digest of %d bytes is another", size)
		}
	}
	digest, content := sha256.New(), make([]byte, 1<<20)
	w := &whole{held: bytes.NewReader(content), digest: digest}
	if _, err := w.WriteTo(fullDisk{}); !errors.Is(err, redoubt.DiskFull) {
		t.Errorf("got %v", err)
	}
	digest.Reset() // of nobody else's by now, as the race detector says
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, redoubt.DiskFull }
