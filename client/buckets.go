package client

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"io"
	"net/http"
	"net/url"
	"time"

	"redoubt"
)

// maxSettingsBytes bounds what a node answers about its buckets: a thousand names and dates.
const maxSettingsBytes = 1 << 20

// Bucket is one line of a node's list of buckets.
type Bucket struct {
	Name    redoubt.BucketName `xml:"Name" json:"name"`
	Created time.Time          `xml:"CreationDate" json:"created"`
}

// BucketSettings is the document of /BUCKET?redoubt (docs/spec/s3.md). Markings are text; "" is the node's own bound.
type BucketSettings struct {
	Default  string `json:"default"`
	Floor    string `json:"floor"`
	Ceiling  string `json:"ceiling"`
	Current  string `json:"current"` // newest or highest
	ETag     string `json:"etag"`    // opaque or md5
	Closed   bool   `json:"closed"`  // need to know
	ReadOnly bool   `json:"read_only"`
}

// Buckets lists the node's buckets, by name.
func (o *Objects) Buckets(ctx context.Context) ([]Bucket, error) {
	var doc struct {
		Buckets []Bucket `xml:"Buckets>Bucket"`
	}
	return doc.Buckets, o.ask(ctx, "list buckets", "", nil, xml.Unmarshal, &doc)
}

// BucketSettings gives a bucket's settings, which are known to everybody at the node.
func (o *Objects) BucketSettings(ctx context.Context, name redoubt.BucketName) (BucketSettings, error) {
	var b BucketSettings
	return b, o.ask(ctx, "show bucket", name, url.Values{"redoubt": {""}}, json.Unmarshal, &b)
}

// CreateBucket makes a bucket; with lock its versions may be retained. Denied: the storage role alone does. A bucket
// that is to be Closed is made open, and closed by a second request before this returns.
func (o *Objects) CreateBucket(ctx context.Context, name redoubt.BucketName, b BucketSettings, lock bool) error {
	headers := map[string]string{"X-Amz-Redoubt-Default-Label": b.Default, "X-Amz-Redoubt-Floor": b.Floor, "X-Amz-Redoubt-Ceiling": b.Ceiling,
		"X-Amz-Redoubt-Current": b.Current, "X-Amz-Redoubt-Etag": b.ETag}
	if lock {
		headers["X-Amz-Bucket-Object-Lock-Enabled"] = "true"
	}
	res, err := o.send(ctx, "create bucket", "PUT", redoubt.ObjectName{Bucket: name}, nil, headers, nil)
	if err != nil {
		return err
	}
	res.Body.Close()
	if b.Closed {
		return o.SetBucket(ctx, name, b)
	}
	return nil
}

// SetBucket replaces a bucket's settings. Denied: the storage role alone does.
func (o *Objects) SetBucket(ctx context.Context, name redoubt.BucketName, b BucketSettings) error {
	body, err := json.Marshal(b)
	if err != nil {
		return &redoubt.Error{Op: "set bucket", Object: string(name), Kind: redoubt.Invalid, Err: err}
	}
	res, err := o.send(ctx, "set bucket", "PUT", redoubt.ObjectName{Bucket: name}, url.Values{"redoubt": {""}}, map[string]string{"Content-Type": "application/json"}, body)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// DeleteBucket removes a bucket that the caller sees empty. Denied: the storage role alone does.
func (o *Objects) DeleteBucket(ctx context.Context, name redoubt.BucketName) error {
	res, err := o.send(ctx, "remove bucket", "DELETE", redoubt.ObjectName{Bucket: name}, nil, nil, nil)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// ask reads the document of a bucket, or of all.
func (o *Objects) ask(ctx context.Context, op string, name redoubt.BucketName, query url.Values, decode func([]byte, any) error, out any) error {
	res, err := o.send(ctx, op, http.MethodGet, redoubt.ObjectName{Bucket: name}, query, nil, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxSettingsBytes))
	if err == nil {
		err = decode(answer, out)
	}
	if err != nil {
		return &redoubt.Error{Op: op, Object: string(name), Kind: redoubt.Unavailable, Err: err}
	}
	return nil
}
