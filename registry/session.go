package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"sync"
	"time"

	"redoubt"
	"redoubt/compute/image"
)

// session is a blob on its way in, whose digest is not known yet. Its last bytes wait in memory; what is more than that lies in parts of a
// multipart upload, sealed at the label of who began it, and becomes a version when its digest has been proved.
type session struct {
	id   string // random; also where the content will lie
	repo image.Repository
	who  redoubt.Credential

	mu     sync.Mutex // guards what follows; held by the request that uses the session, and by its end
	over   bool
	due    time.Time   // when it ends, when nothing comes
	end    *time.Timer // that does it
	sum    hash.Hash
	size   int64  // that has come
	held   []byte // the last of it, to MinPartBytes
	upload *redoubt.Upload
	parts  []redoubt.CompletePart
}

// Parts of an upload. A client that sends a blob in one request fills parts of these sizes; 10,000 parts of them hold the largest object.
const (
	partBytes      = 64 << 20
	largePartBytes = 1 << 30
	smallParts     = 1000
)

// start begins a session, while the credential and its label may have another.
func (g *Registry) start(who redoubt.Credential, repo image.Repository) (*session, error) {
	var raw [16]byte
	rand.Read(raw[:])
	s := &session{id: hex.EncodeToString(raw[:]), repo: repo, who: who, sum: sha256.New()}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, redoubt.Unavailable
	}
	own, alike := 0, 0
	for _, o := range g.sessions {
		if o.who.ID == who.ID {
			own++
		}
		if o.who.Working.Equivalent(who.Working) {
			alike++
		}
	}
	if own >= maxSessions || alike >= maxLabelSessions {
		return nil, errTooMany
	}
	g.sessions[s.id] = s
	g.ending.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	life := g.life(who)
	s.due = time.Now().Add(life)
	s.end = time.AfterFunc(life, func() {
		defer g.ending.Done()
		g.expire(s)
	})
	return s, nil
}

// life is how long a session waits: never longer than its credential can still end it.
func (g *Registry) life(who redoubt.Credential) time.Duration {
	return max(0, min(sessionLife, who.Expires.Sub(g.Clock())-stall))
}

// use finds a session of the caller's in the repository, and holds it until done is called. Another's is like one that never was.
func (g *Registry) use(who redoubt.Credential, repo image.Repository, id string) (s *session, done func(), err error) {
	g.mu.Lock()
	s = g.sessions[id]
	g.mu.Unlock()
	if s == nil || s.who.ID != who.ID || s.repo != repo {
		return nil, nil, errUploadUnknown
	}
	if !s.mu.TryLock() {
		return nil, nil, as("BLOB_UPLOAD_INVALID", &redoubt.Error{Op: "registry", Kind: redoubt.Conflict, Rule: "another request of this upload is under way"})
	}
	if s.over {
		s.mu.Unlock()
		return nil, nil, errUploadUnknown
	}
	g.disarm(s)
	return s, func() {
		if !s.over {
			g.extend(s)
		}
		s.mu.Unlock()
	}, nil
}

// extend sets a session's end anew. s.mu is held.
func (g *Registry) extend(s *session) {
	life := g.life(s.who)
	s.due = time.Now().Add(life)
	g.ending.Add(1)
	s.end.Reset(life)
}

// disarm takes back the end that is set, if it is not waiting for the lock already: then it will find that it is not due. s.mu is held.
func (g *Registry) disarm(s *session) {
	if s.end.Stop() {
		g.ending.Done()
	}
}

// expire ends a session that nobody has used for its life.
func (g *Registry) expire(s *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !time.Now().Before(s.due) {
		g.drop(context.Background(), s)
	}
}

// drop ends a session and forgets what has come. s.mu is held.
func (g *Registry) drop(ctx context.Context, s *session) {
	if s.over {
		return
	}
	g.forget(s)
	if s.upload != nil {
		// What cannot be ended, since the credential has ended, is left to the bucket's rule for unfinished uploads.
		_ = g.Uploads.AbortUpload(ctx, s.who, s.upload.Name, s.upload.ID)
	}
}

// forget takes a session out, whether its content was kept or not. s.mu is held.
func (g *Registry) forget(s *session) {
	s.over = true
	clear(s.held)
	s.held = nil
	g.disarm(s)
	g.mu.Lock()
	delete(g.sessions, s.id)
	g.mu.Unlock()
}

// Close ends the sessions that are open; one that a request uses, when that is done. No request may begin any more.
func (g *Registry) Close() error {
	g.mu.Lock()
	g.closed = true
	var open []*session
	for _, s := range g.sessions {
		open = append(open, s)
	}
	g.mu.Unlock()
	for _, s := range open {
		s.mu.Lock()
		g.drop(context.Background(), s)
		s.mu.Unlock()
	}
	g.ending.Wait()
	return nil
}

// take takes in what a request brings. Of a body that broke off is kept what came, and the client goes on from there. s.mu is held.
func (g *Registry) take(ctx context.Context, s *session, body io.Reader) (broke bool, err error) {
	in := &arriving{r: body, s: s}
	for {
		if len(s.held) < redoubt.MinPartBytes {
			if err := in.fill(); err != nil {
				return false, err
			}
			if in.ended {
				return in.broke, nil
			}
		}
		if err := g.putPart(ctx, s, in); err != nil {
			return false, err
		}
	}
}

// putPart stores a part: what is held, and more of what arrives.
func (g *Registry) putPart(ctx context.Context, s *session, in *arriving) error {
	if len(s.parts) == redoubt.MaxParts || s.size > redoubt.MaxObjectBytes {
		return &redoubt.Error{Op: "registry", Kind: redoubt.TooLarge, Rule: "the blob is too large, or came in too many small pieces"}
	}
	if s.upload == nil {
		up, err := g.Uploads.CreateUpload(ctx, s.who, redoubt.CreateUpload{Name: s.repo.Data(s.id)})
		if err != nil {
			return err
		}
		s.upload = &up
	}
	body, size := io.Reader(bytes.NewReader(s.held)), int64(len(s.held))
	if in != nil {
		limit := int64(partBytes)
		if len(s.parts) >= smallParts {
			limit = largePartBytes
		}
		body, size = io.MultiReader(body, io.LimitReader(in, limit-size)), -1
	}
	part, err := g.Uploads.PutPart(ctx, s.who, redoubt.PutPart{Name: s.upload.Name, Upload: s.upload.ID, Number: len(s.parts) + 1, SizeBytes: size, Body: body})
	if err != nil {
		return err
	}
	s.parts = append(s.parts, redoubt.CompletePart{Number: part.Number, ETag: part.ETag})
	clear(s.held)
	s.held = s.held[:0]
	return nil
}

// finish makes the blob durable, once what has come has the digest. s.mu is held.
func (g *Registry) finish(ctx context.Context, s *session, d image.Digest) error {
	if image.Digest(s.sum.Sum(nil)) != d {
		return as("DIGEST_INVALID", redoubt.BadDigest)
	}
	if s.upload == nil {
		return g.putBlob(ctx, s.who, s.repo, d, int64(len(s.held)), bytes.NewReader(s.held))
	}
	if len(s.held) > 0 {
		if err := g.putPart(ctx, s, nil); err != nil {
			return err
		}
	}
	if _, err := g.Uploads.CompleteUpload(ctx, s.who, redoubt.CompleteUpload{Name: s.upload.Name, Upload: s.upload.ID, Parts: s.parts, SizeBytes: s.size}); err != nil {
		return err
	}
	name := s.upload.Name
	s.upload = nil // it is a version now
	if err := g.putSmall(ctx, s.who, s.repo.Link(d), s.id, ""); err != nil {
		_, undo := g.Objects.DeleteObject(ctx, s.who, redoubt.DeleteObject{Name: name})
		return errors.Join(err, undo)
	}
	return nil
}

// arriving is the body of a request as it comes: it sums what it gives. Where it breaks off it ends.
type arriving struct {
	r     io.Reader
	s     *session
	ended bool
	broke bool // before its end
}

func (a *arriving) Read(p []byte) (int, error) {
	if a.ended {
		return 0, io.EOF
	}
	n, err := a.r.Read(p)
	a.s.sum.Write(p[:n])
	a.s.size += int64(n)
	if err != nil {
		a.ended, a.broke = true, err != io.EOF
		return n, io.EOF
	}
	return n, nil
}

// fill reads into what the session holds, until that is full or the body has ended.
func (a *arriving) fill() error {
	s := a.s
	for idle := 0; len(s.held) < redoubt.MinPartBytes && !a.ended; {
		if len(s.held) == cap(s.held) {
			more := make([]byte, len(s.held), min(redoubt.MinPartBytes, max(32<<10, 2*cap(s.held))))
			copy(more, s.held)
			clear(s.held)
			s.held = more
		}
		n, err := a.Read(s.held[len(s.held):cap(s.held)])
		s.held = s.held[:len(s.held)+n]
		if n > 0 || err != nil {
			idle = 0
		} else if idle++; idle == 100 {
			return io.ErrNoProgress
		}
	}
	return nil
}
