package client

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"redoubt"
)

// abortPatience is how long taking an upload back may take after its caller has given up.
const abortPatience = 10 * time.Second

// ErrPartsLeft is the cause of an error of Put whose parts could not be taken back.
var ErrPartsLeft = errors.New("parts that went up could not be taken back")

// upload is one object that goes up in parts, one after another.
type upload struct {
	o     *Objects
	in    Upload
	id    string
	part  int64  // bytes of every part but the last
	held  []byte // nil: a part goes from the source to the node as it is read
	sent  int64
	parts []sentPart
}

type sentPart struct {
	Number int    `xml:"PartNumber"`
	ETag   string `xml:"ETag"`
}

// putParts begins an upload, sends part after part and completes it, or takes it back. first is the first part where
// that was read already, of a body of unknown length.
func (o *Objects) putParts(ctx context.Context, in Upload, first []byte) (Object, error) {
	u := &upload{o: o, in: in, part: max(o.limits.part, (in.SizeBytes+redoubt.MaxParts-1)/redoubt.MaxParts), held: first}
	if u.held == nil && o.base.Scheme != "https" {
		u.held = make([]byte, u.part) // in clear the signature covers the part's hash
	}
	if err := u.begin(ctx); err != nil {
		return Object{}, err
	}
	out, err := u.send(ctx, first != nil)
	if err == nil {
		return out, nil
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortPatience)
	defer cancel()
	if left := u.abort(undo); left != nil && !errors.Is(left, redoubt.NotFound) {
		return Object{}, &redoubt.Error{Op: "put", Object: in.Name.String(), Kind: redoubt.KindOf(err), Err: fmt.Errorf("%w: %w; %w", ErrPartsLeft, left, err),
			Hint: "nobody can read them; they use space until the upload is aborted by any S3 client, or by a lifecycle rule of the bucket"}
	}
	return Object{}, err
}

func (u *upload) begin(ctx context.Context) error {
	req, err := u.o.request(ctx, "POST", u.in.Name, url.Values{"uploads": {""}}, nil)
	if err != nil {
		return err
	}
	u.in.describe(req)
	res, err := u.o.do("put", u.in.Name, req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var doc struct {
		ID string `xml:"UploadId"`
	}
	err = xml.NewDecoder(io.LimitReader(res.Body, maxErrorBytes)).Decode(&doc)
	if err == nil && doc.ID == "" {
		err = errors.New("the upload was given no ID")
	}
	if err != nil {
		return &redoubt.Error{Op: "put", Object: u.in.Name.String(), Kind: redoubt.Unavailable, Err: err}
	}
	u.id = doc.ID
	return nil
}

// send sends all parts and completes the upload. ready: the first part is in held.
func (u *upload) send(ctx context.Context, ready bool) (Object, error) {
	for more := true; more; ready = false {
		var body io.Reader
		var n int64
		switch {
		case ready:
			body, n = bytes.NewReader(u.held), int64(len(u.held))
		case u.held != nil:
			got, err := io.ReadFull(u.in.Body, u.held)
			if more = err == nil; err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return Object{}, u.fault(redoubt.Invalid, err)
			}
			body, n = bytes.NewReader(u.held[:got]), int64(got)
		default:
			n = min(u.part, u.in.SizeBytes-u.sent)
			body = io.LimitReader(u.in.Body, n)
		}
		if u.in.SizeBytes >= 0 && u.sent+n >= u.in.SizeBytes {
			more = false
		}
		if n == 0 {
			break
		}
		if err := u.sendPart(ctx, body, n); err != nil {
			return Object{}, err
		}
	}
	if u.in.SizeBytes >= 0 && u.sent != u.in.SizeBytes {
		return Object{}, u.fault(redoubt.Invalid, errors.New("the content has another length than was said"))
	}
	return u.complete(ctx)
}

func (u *upload) sendPart(ctx context.Context, body io.Reader, n int64) error {
	number := len(u.parts) + 1
	if number > redoubt.MaxParts {
		e := u.fault(redoubt.TooLarge, nil)
		e.Hint = "of unknown length at most 625 GiB are taken: put a file"
		return e
	}
	hash, err := u.o.payload(Upload{Name: u.in.Name, SizeBytes: n, Body: body})
	if err != nil {
		return err
	}
	req, err := u.o.request(ctx, "PUT", u.in.Name, url.Values{"partNumber": {strconv.Itoa(number)}, "uploadId": {u.id}},
		&counted{r: body, n: u.sent, tell: u.in.Progress})
	if err != nil {
		return err
	}
	req.ContentLength = n
	req.Header.Set(payloadHeader, hash)
	res, err := u.o.do("put", u.in.Name, req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	u.sent += n
	u.parts = append(u.parts, sentPart{number, res.Header.Get("ETag")})
	return nil
}

// complete makes the version. S3 may say 200 first and an error after.
func (u *upload) complete(ctx context.Context) (Object, error) {
	body, err := xml.Marshal(struct {
		XMLName xml.Name   `xml:"CompleteMultipartUpload"`
		Parts   []sentPart `xml:"Part"`
	}{Parts: u.parts})
	if err != nil {
		return Object{}, u.fault(redoubt.Internal, err)
	}
	res, err := u.o.send(ctx, "put", "POST", u.in.Name, url.Values{"uploadId": {u.id}},
		map[string]string{"Content-Type": "application/xml", "X-Amz-Mp-Object-Size": strconv.FormatInt(u.sent, 10)}, body)
	if err != nil {
		return Object{}, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxErrorBytes))
	var doc struct {
		XMLName xml.Name
		ETag    string `xml:"ETag"`
	}
	if err == nil {
		err = xml.Unmarshal(answer, &doc)
	}
	if err != nil {
		return Object{}, u.fault(redoubt.Unavailable, err)
	}
	if doc.XMLName.Local == "Error" {
		return Object{}, s3Error("put", u.in.Name, redoubt.Internal, answer)
	}
	out := described(u.in.Name, res)
	out.SizeBytes, out.ETag, out.ContentType = u.sent, trimQuotes(doc.ETag), u.in.ContentType
	return out, nil
}

func (u *upload) abort(ctx context.Context) error {
	res, err := u.o.send(ctx, "put: take back", "DELETE", u.in.Name, url.Values{"uploadId": {u.id}}, nil, nil)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

func (u *upload) fault(kind redoubt.Kind, err error) *redoubt.Error {
	return &redoubt.Error{Op: "put", Object: u.in.Name.String(), Kind: kind, Err: err}
}
