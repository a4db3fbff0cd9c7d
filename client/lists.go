package client

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net/url"
	"time"

	"redoubt"
)

// maxPageBytes bounds one page of a listing: a thousand keys, each escaped threefold, and what is around them.
const maxPageBytes = 16 << 20

// entry is one version, marker or key of a listing, as S3 writes it.
type entry struct {
	Key          string    `xml:"Key"`
	VersionID    string    `xml:"VersionId"`
	IsLatest     bool      `xml:"IsLatest"`
	LastModified time.Time `xml:"LastModified"`
	ETag         string    `xml:"ETag"`
	Size         int64     `xml:"Size"`
}

type page struct {
	Encoding            string  `xml:"EncodingType"`
	Truncated           bool    `xml:"IsTruncated"`
	NextToken           string  `xml:"NextContinuationToken"`
	NextKeyMarker       string  `xml:"NextKeyMarker"`
	NextVersionIDMarker string  `xml:"NextVersionIdMarker"`
	Contents            []entry `xml:"Contents"`
	Versions            []entry
	CommonPrefixes      []struct {
		Prefix string `xml:"Prefix"`
	} `xml:"CommonPrefixes"`
}

// UnmarshalXML keeps versions and markers in the one order that they come in.
func (p *page) UnmarshalXML(d *xml.Decoder, start xml.StartElement) error {
	for {
		tok, err := d.Token()
		if err != nil {
			return err
		}
		el, ok := tok.(xml.StartElement)
		if _, end := tok.(xml.EndElement); end {
			return nil
		}
		if !ok {
			continue
		}
		var into any
		var e entry
		var prefix struct {
			Prefix string `xml:"Prefix"`
		}
		switch el.Name.Local {
		case "EncodingType":
			into = &p.Encoding
		case "IsTruncated":
			into = &p.Truncated
		case "NextContinuationToken":
			into = &p.NextToken
		case "NextKeyMarker":
			into = &p.NextKeyMarker
		case "NextVersionIdMarker":
			into = &p.NextVersionIDMarker
		case "Contents", "Version", "DeleteMarker":
			into = &e
		case "CommonPrefixes":
			into = &prefix
		default:
			if err := d.Skip(); err != nil {
				return err
			}
			continue
		}
		if err := d.DecodeElement(into, &el); err != nil {
			return err
		}
		switch el.Name.Local {
		case "Contents":
			p.Contents = append(p.Contents, e)
		case "DeleteMarker":
			e.Size = -1
			p.Versions = append(p.Versions, e)
		case "Version":
			p.Versions = append(p.Versions, e)
		case "CommonPrefixes":
			p.CommonPrefixes = append(p.CommonPrefixes, prefix)
		}
	}
}

// List calls each with every current version under prefix, in the order of their keys, and prefixes (which may be
// nil) with every common prefix when delimiter is not "". It asks for page after page. Labels are not in
// listings: Head gives one.
func (o *Objects) List(ctx context.Context, bucket redoubt.BucketName, prefix, delimiter string, each func(Object) error, prefixes func(string) error) error {
	query := url.Values{"list-type": {"2"}, "encoding-type": {"url"}, "prefix": {prefix}}
	if delimiter != "" {
		query.Set("delimiter", delimiter)
	}
	for {
		p, err := o.page(ctx, "list", bucket, query)
		if err != nil {
			return err
		}
		for _, e := range p.Contents {
			obj, err := e.object(bucket, p.Encoding)
			if err != nil {
				return err
			}
			obj.Latest = true
			if err := each(obj); err != nil {
				return err
			}
		}
		if err := p.tellPrefixes(prefixes); err != nil {
			return err
		}
		if !p.Truncated {
			return nil
		}
		if p.NextToken == "" || p.NextToken == query.Get("continuation-token") {
			return stuck("list", bucket)
		}
		query.Set("continuation-token", p.NextToken)
	}
}

// Versions calls each with every version and delete marker under prefix, newest first under each key.
func (o *Objects) Versions(ctx context.Context, bucket redoubt.BucketName, prefix string, each func(Object) error) error {
	query := url.Values{"versions": {""}, "encoding-type": {"url"}, "prefix": {prefix}}
	for {
		p, err := o.page(ctx, "versions", bucket, query)
		if err != nil {
			return err
		}
		for _, e := range p.Versions {
			obj, err := e.object(bucket, p.Encoding)
			if err != nil {
				return err
			}
			if err := each(obj); err != nil {
				return err
			}
		}
		if !p.Truncated {
			return nil
		}
		next, err := unescape(p.NextKeyMarker, p.Encoding)
		if err != nil || next == "" || next == query.Get("key-marker") && p.NextVersionIDMarker == query.Get("version-id-marker") {
			return stuck("versions", bucket)
		}
		query.Set("key-marker", next)
		query.Set("version-id-marker", p.NextVersionIDMarker)
	}
}

func (o *Objects) page(ctx context.Context, op string, bucket redoubt.BucketName, query url.Values) (page, error) {
	name := redoubt.ObjectName{Bucket: bucket}
	req, err := o.request(ctx, "GET", name, query, nil)
	if err != nil {
		return page{}, err
	}
	res, err := o.do(op, name, req)
	if err != nil {
		return page{}, err
	}
	defer res.Body.Close()
	var p page
	if err := xml.NewDecoder(io.LimitReader(res.Body, maxPageBytes)).Decode(&p); err != nil {
		return page{}, &redoubt.Error{Op: op, Object: string(bucket), Kind: redoubt.Unavailable, Err: err}
	}
	return p, nil
}

func (p *page) tellPrefixes(tell func(string) error) error {
	if tell == nil {
		return nil
	}
	for _, c := range p.CommonPrefixes {
		prefix, err := unescape(c.Prefix, p.Encoding)
		if err != nil {
			return &redoubt.Error{Op: "list", Kind: redoubt.Unavailable, Err: err}
		}
		if err := tell(prefix); err != nil {
			return err
		}
	}
	return nil
}

func (e entry) object(bucket redoubt.BucketName, encoding string) (Object, error) {
	key, err := unescape(e.Key, encoding)
	if err != nil {
		return Object{}, &redoubt.Error{Op: "list", Object: string(bucket), Kind: redoubt.Unavailable, Err: err}
	}
	return Object{
		Name: redoubt.ObjectName{Bucket: bucket, Key: key}, Version: redoubt.VersionID(e.VersionID), Latest: e.IsLatest,
		Marker: e.Size < 0, SizeBytes: max(e.Size, 0), ETag: trimQuotes(e.ETag), Modified: e.LastModified,
	}, nil
}

func unescape(s, encoding string) (string, error) {
	if encoding != "url" {
		return s, nil
	}
	return url.QueryUnescape(s)
}

func stuck(op string, bucket redoubt.BucketName) error {
	return &redoubt.Error{Op: op, Object: string(bucket), Kind: redoubt.Unavailable, Err: errors.New("the listing does not go on")}
}
