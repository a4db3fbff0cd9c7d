package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"redoubt"
)

// parts is an upload in progress on the shelf.
type parts struct {
	begun   redoubt.CreateUpload
	content map[int][]byte
}

func (s *shelf) CreateUpload(_ context.Context, who redoubt.Credential, in redoubt.CreateUpload) (redoubt.Upload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return redoubt.Upload{}, s.fail
	}
	id := redoubt.UploadID(fmt.Sprint("u", len(s.all)))
	s.uploads[id] = &parts{in, map[int][]byte{}}
	return redoubt.Upload{Name: in.Name, ID: id, Label: who.Working}, nil
}

func (s *shelf) PutPart(_ context.Context, _ redoubt.Credential, in redoubt.PutPart) (redoubt.Part, error) {
	b, err := io.ReadAll(in.Body)
	if err != nil {
		return redoubt.Part{}, err
	}
	if _, _, err := in.Finish(); err != nil {
		return redoubt.Part{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u, ok := s.uploads[in.Upload]
	if !ok || u.begun.Name != in.Name {
		return redoubt.Part{}, redoubt.NotFound
	}
	if in.Number == s.refuse {
		return redoubt.Part{}, redoubt.QuotaExceeded
	}
	u.content[in.Number] = b
	return redoubt.Part{Number: in.Number, ETag: fmt.Sprint("e", in.Number)}, nil
}

func (s *shelf) CompleteUpload(_ context.Context, who redoubt.Credential, in redoubt.CompleteUpload) (redoubt.Version, error) {
	s.mu.Lock()
	u, ok := s.uploads[in.Upload]
	delete(s.uploads, in.Upload)
	s.mu.Unlock()
	if !ok {
		return redoubt.Version{}, redoubt.NotFound
	}
	var all []byte
	for i, p := range in.Parts {
		if p.Number != i+1 || p.ETag != fmt.Sprint("e", p.Number) {
			return redoubt.Version{}, redoubt.ErrInvalidPart
		}
		all = append(all, u.content[p.Number]...)
	}
	if in.SizeBytes != int64(len(all)) {
		return redoubt.Version{}, redoubt.Invalid
	}
	return s.add(redoubt.Version{Name: in.Name, Label: who.Working, Attributes: u.begun.Attributes, SizeBytes: in.SizeBytes}, all), nil
}

func (s *shelf) AbortUpload(_ context.Context, _ redoubt.Credential, _ redoubt.ObjectName, id redoubt.UploadID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uploads[id] == nil {
		return redoubt.NotFound
	}
	if s.keep {
		return redoubt.Unavailable
	}
	delete(s.uploads, id)
	return nil
}

// small makes a part of 10 bytes and a PUT of 25 the most.
func small(t *testing.T, clear bool) (*Objects, *shelf) {
	o, s := shelves(t, clear)
	o.limits = limits{put: 25, part: 10}
	return o, s
}

func TestWhatIsTooLargeForOneRequestGoesUpInParts(t *testing.T) {
	for _, clear := range []bool{false, true} {
		o, s := small(t, clear)
		for _, n := range []int{0, 1, 9, 10, 11, 20, 25, 26, 30, 1234} {
			for _, known := range []bool{false, true} {
				name := redoubt.ObjectName{Bucket: "reports", Key: fmt.Sprint(n, known, " a+b")}
				content := make([]byte, n)
				for i := range content {
					content[i] = byte(i)
				}
				var sent []int64
				up := Upload{Name: name, ContentType: "text/plain", Meta: map[string]string{"case": "x"}, SizeBytes: -1,
					Body: iotest.OneByteReader(bytes.NewReader(content)), Progress: func(n int64) { sent = append(sent, n) }}
				if known {
					up.SizeBytes, up.Body = int64(n), bytes.NewReader(content)
				}
				put, err := o.Put(t.Context(), up)
				if err != nil {
					t.Fatalf("%d bytes, known %v: %v", n, known, err)
				}
				if put.SizeBytes != int64(n) || put.Version == "" || put.Label != "SECRET" && n > 25 {
					t.Errorf("%d bytes, known %v: got %+v", n, known, put)
				}
				if n > 0 && (len(sent) == 0 || sent[len(sent)-1] != int64(n)) {
					t.Errorf("%d bytes, known %v: told %v", n, known, sent)
				}
				got, err := s.find(name, put.Version)
				if err != nil || !bytes.Equal(got.content, content) || got.v.Attributes.ContentType != "text/plain" || len(got.v.Attributes.Meta) != 1 {
					t.Errorf("%d bytes, known %v: got %+v, %v", n, known, got, err)
				}
			}
		}
		if len(s.uploads) != 0 {
			t.Errorf("%d uploads are left", len(s.uploads))
		}
	}
}

func TestAnUploadThatFailsLeavesNothing(t *testing.T) {
	name := redoubt.ObjectName{Bucket: "reports", Key: "k"}
	broken := errors.New("the pipe broke")
	for what, c := range map[string]struct {
		size   int64
		body   func(cancel func()) io.Reader
		refuse int
		want   error
	}{
		"a part is refused": {100, func(func()) io.Reader { return bytes.NewReader(make([]byte, 100)) }, 3, redoubt.QuotaExceeded},
		"the source breaks": {-1, func(func()) io.Reader {
			return io.MultiReader(bytes.NewReader(make([]byte, 35)), iotest.ErrReader(broken))
		}, 0, broken},
		"the file is shorter":  {100, func(func()) io.Reader { return bytes.NewReader(make([]byte, 55)) }, 0, nil},
		"its caller gives up":  {-1, func(cancel func()) io.Reader { return &after{n: 42, do: cancel} }, 0, context.Canceled},
		"and with a file, too": {100, func(cancel func()) io.Reader { return &after{n: 42, do: cancel} }, 0, context.Canceled},
	} {
		o, s := small(t, false)
		s.refuse = c.refuse
		ctx, cancel := context.WithCancel(t.Context())
		_, err := o.Put(ctx, Upload{Name: name, SizeBytes: c.size, Body: c.body(cancel)})
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", what, err, c.want)
		}
		if len(s.uploads) != 0 || len(s.all) != 0 {
			t.Errorf("%s: %d uploads and %d versions are left", what, len(s.uploads), len(s.all))
		}
		cancel()
	}
}

// after gives zeros without end, and does something when n bytes have gone.
type after struct {
	n  int
	do func()
}

func (a *after) Read(p []byte) (int, error) {
	n := min(len(p), 7)
	clear(p[:n])
	if a.n -= n; a.n <= 0 {
		a.do()
	}
	return n, nil
}

func TestPartsThatAreLeftAreTold(t *testing.T) {
	o, s := small(t, false)
	s.keep, s.refuse = true, 2
	_, err := o.Put(t.Context(), Upload{Name: redoubt.ObjectName{Bucket: "reports", Key: "k"}, SizeBytes: 100, Body: bytes.NewReader(make([]byte, 100))})
	if !errors.Is(err, ErrPartsLeft) || !errors.Is(err, redoubt.QuotaExceeded) {
		t.Errorf("got %v, want that parts are left and why", err)
	}
}

func TestLongWorkRenewsItsCredential(t *testing.T) {
	o, _ := small(t, false)
	good := o.who.minted
	asked := 0
	var fail error
	o.Renew(time.Minute, func(context.Context) (redoubt.Minted, error) { asked++; return good, fail })
	put := func(want int) {
		t.Helper()
		if _, err := o.Put(t.Context(), Upload{Name: redoubt.ObjectName{Bucket: "reports", Key: "k"}}); err != nil || asked != want {
			t.Errorf("got %v, asked %d times, want %d", err, asked, want)
		}
	}
	put(0)
	o.who.since = o.who.since.Add(-2 * time.Minute)
	put(1)
	put(1)
	o.who.since, fail = o.who.since.Add(-2*time.Minute), redoubt.Unavailable
	put(2) // the old one serves on
	put(3)
}

func TestAPutIsBounded(t *testing.T) {
	o, s := small(t, false)
	o.limits.part = 1
	name := redoubt.ObjectName{Bucket: "reports", Key: "k"}
	if _, err := o.Put(t.Context(), Upload{Name: name, SizeBytes: redoubt.MaxObjectBytes + 1, Body: &after{n: 1 << 62}}); !errors.Is(err, redoubt.TooLarge) {
		t.Errorf("larger than an object may be: got %v", err)
	}
	u := &upload{o: o, in: Upload{Name: name}, parts: make([]sentPart, redoubt.MaxParts)}
	if err := u.sendPart(t.Context(), bytes.NewReader([]byte{1}), 1); !errors.Is(err, redoubt.TooLarge) {
		t.Errorf("a part too many: got %v", err)
	}
	if len(s.all) != 0 {
		t.Error("something was stored")
	}
	in, _ := shelves(t, true)
	if _, err := in.Put(t.Context(), Upload{Name: name, SizeBytes: 10, Body: io.LimitReader(&after{}, 10)}); !errors.Is(err, redoubt.Invalid) {
		t.Errorf("what cannot be read twice, in clear: got %v", err)
	}
}
