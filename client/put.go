package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"

	"redoubt"
)

// PartBytes is what goes up at once where an object goes up in parts, and all that is held in memory of a body
// whose length is not known: no plaintext is spooled to a disk.
const PartBytes = 64 << 20

// limits are where a PUT ends and parts begin; tests lower them.
type limits struct{ put, part int64 }

// Upload is what Put sends.
type Upload struct {
	Name        redoubt.ObjectName
	Label       string // the marking asked for; "": the join of working label and the bucket's default
	Precedence  string
	ContentType string
	Meta        map[string]string
	SizeBytes   int64 // of Body; -1 when not known
	Body        io.Reader
	Progress    func(sentBytes int64) // may be nil; called from the sending goroutine
}

// Put stores a new version and returns when it is durable: whole, or nothing of it. What is more than redoubt.MaxPutBytes,
// or of unknown length and more than PartBytes, goes up in parts. An error, or the end of ctx, takes back the
// parts that went up; where that fails, the error is ErrPartsLeft. Nobody can read such parts.
//
// TooLarge: more than redoubt.MaxObjectBytes, or of unknown length and more than redoubt.MaxParts parts.
func (o *Objects) Put(ctx context.Context, in Upload) (Object, error) {
	switch {
	case in.SizeBytes > redoubt.MaxObjectBytes:
		return Object{}, &redoubt.Error{Op: "put", Object: in.Name.String(), Kind: redoubt.TooLarge, Hint: "an object has 5 TiB at most"}
	case in.SizeBytes > o.limits.put:
		return o.putParts(ctx, in, nil)
	case in.SizeBytes >= 0:
		return o.putWhole(ctx, in)
	}
	first := make([]byte, o.limits.part)
	n, err := io.ReadFull(in.Body, first)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		in.SizeBytes, in.Body = int64(n), bytes.NewReader(first[:n])
		return o.putWhole(ctx, in)
	case err != nil:
		return Object{}, &redoubt.Error{Op: "put", Object: in.Name.String(), Kind: redoubt.Invalid, Err: err}
	}
	return o.putParts(ctx, in, first)
}

// putWhole is one PUT.
func (o *Objects) putWhole(ctx context.Context, in Upload) (Object, error) {
	hash, err := o.payload(in)
	if err != nil {
		return Object{}, err
	}
	var body io.Reader = http.NoBody
	if in.SizeBytes != 0 {
		body = &counted{r: in.Body, tell: in.Progress}
	}
	req, err := o.request(ctx, "PUT", in.Name, nil, body)
	if err != nil {
		return Object{}, err
	}
	req.ContentLength = in.SizeBytes
	in.describe(req)
	req.Header.Set(payloadHeader, hash)
	res, err := o.do("put", in.Name, req)
	if err != nil {
		return Object{}, err
	}
	defer res.Body.Close()
	out := described(in.Name, res)
	out.SizeBytes = in.SizeBytes
	return out, nil
}

// describe sets the headers that say what is stored.
func (in Upload) describe(req *http.Request) {
	for name, v := range in.Meta {
		req.Header.Set(metaPrefix+name, v)
	}
	for name, v := range map[string]string{labelHeader: in.Label, precedenceHeader: in.Precedence, "Content-Type": in.ContentType} {
		if v != "" {
			req.Header.Set(name, v)
		}
	}
}

// payload is the hash that a body is signed with. In clear it is read twice, so it has to be one that seeks.
func (o *Objects) payload(in Upload) (string, error) {
	switch {
	case in.SizeBytes == 0:
		return emptyPayload, nil
	case o.base.Scheme == "https":
		return unsignedPayload, nil
	}
	seeker, ok := in.Body.(io.ReadSeeker)
	if !ok {
		return "", &redoubt.Error{Op: "put", Object: in.Name.String(), Kind: redoubt.Invalid, Err: errors.New("without TLS the content is read twice"), Hint: "put a file"}
	}
	at, err := seeker.Seek(0, io.SeekCurrent)
	sum := sha256.New()
	if err == nil {
		_, err = io.Copy(sum, seeker)
	}
	if err == nil {
		_, err = seeker.Seek(at, io.SeekStart)
	}
	if err != nil {
		return "", &redoubt.Error{Op: "put", Object: in.Name.String(), Kind: redoubt.Invalid, Err: err}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// counted tells how much has been read, all parts before it included.
type counted struct {
	r    io.Reader
	n    int64
	tell func(int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.tell != nil && n > 0 {
		c.tell(c.n)
	}
	return n, err
}
