package s3

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"redoubt"
)

// redoubtSettings is the document of /BUCKET?redoubt: what S3 has no words for.
type redoubtSettings struct {
	Default  string `json:"default"`
	Floor    string `json:"floor"`
	Ceiling  string `json:"ceiling"`
	Current  string `json:"current"`
	ETag     string `json:"etag"` // "md5" or "opaque"
	Closed   bool   `json:"closed"`
	ReadOnly bool   `json:"read_only"`
}

// getSettings is GET /BUCKET?redoubt.
func (s *handler) getSettings(c *call) error {
	b, err := s.buckets.HeadBucket(c.ctx, c.who, c.bucket)
	if err != nil {
		return err
	}
	doc := redoubtSettings{Default: b.Default, Floor: b.Floor, Ceiling: b.Ceiling, Current: b.Current, ETag: "opaque", Closed: b.Closed, ReadOnly: b.ReadOnly}
	if doc.Current == "" {
		doc.Current = "newest"
	}
	if b.MD5ETag {
		doc.ETag = "md5"
	}
	body, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	c.set("Content-Type", "application/json")
	c.set("Content-Length", strconv.Itoa(len(body)))
	c.begin(http.StatusOK)
	return c.writeAll(body)
}

// putSettings is PUT /BUCKET?redoubt: the whole document; what it leaves out returns to its default. read_only
// is a guard's to set, and is only shown here.
func (s *handler) putSettings(c *call) error {
	body, _, err := c.readSmall(maxPolicyBytes)
	if err != nil {
		return err
	}
	var doc redoubtSettings
	if err := strictJSON(body, &doc); err != nil {
		return errInvalidRequest.say("The settings are not valid JSON of this form: " + err.Error())
	}
	if doc.ETag != "" && doc.ETag != "md5" && doc.ETag != "opaque" {
		return invalid("etag", doc.ETag, "The value must be md5 or opaque.")
	}
	if err := checkCurrent(doc.Current); err != nil {
		return err
	}
	return s.change(c, func(b *redoubt.BucketSettings) error {
		if doc.ReadOnly != b.ReadOnly {
			return invalid("read_only", strconv.FormatBool(doc.ReadOnly), "Only a guard's bucket is read-only.")
		}
		b.Default, b.Floor, b.Ceiling, b.Current = doc.Default, doc.Floor, doc.Ceiling, doc.Current
		b.MD5ETag, b.Closed = doc.ETag == "md5", doc.Closed
		return nil
	}, http.StatusOK)
}

// strictJSON decodes one document: an unknown field, a repeated name or a trailing byte is an error.
func strictJSON(body []byte, v any) error {
	if err := noRepeats(body); err != nil {
		return err
	}
	if err := exactNames(body, reflect.TypeOf(v).Elem()); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// exactNames holds the names of an object, or of each in a list, to the fields of what it is decoded into as they are written:
// encoding/json takes them in any case, so that "Closed" would stand beside "closed". null is no object.
func exactNames(body []byte, into reflect.Type) error {
	switch {
	case into.Kind() == reflect.Slice && into.Elem().Kind() == reflect.Struct:
		var each []json.RawMessage
		_ = json.Unmarshal(body, &each) // what is no list, who decodes it says
		for _, one := range each {
			if err := exactNames(one, into.Elem()); err != nil {
				return err
			}
		}
	case into.Kind() == reflect.Struct:
		var names map[string]json.RawMessage
		if json.Unmarshal(body, &names) != nil || names == nil {
			return jsonError("not an object")
		}
		for _, field := range reflect.VisibleFields(into) {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			delete(names, cmp.Or(name, field.Name))
		}
		for name := range names {
			return jsonError("the name " + strconv.Quote(name) + " is not known")
		}
	}
	return nil
}

// jsonError is what is wrong with a document, in words for its author.
type jsonError string

func (e jsonError) Error() string { return string(e) }

const maxJSONDepth = 16 // a policy has 6 levels

// noRepeats walks a document for repeated names, depth, bad UTF-8 and trailing bytes.
func noRepeats(body []byte) error {
	if !validText(string(body)) {
		return jsonError("not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := walkJSON(d, 0); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return jsonError("trailing bytes")
	}
	return nil
}

func walkJSON(d *json.Decoder, depth int) error {
	token, err := d.Token()
	if err != nil {
		return jsonError("malformed")
	}
	open, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	if depth == maxJSONDepth {
		return jsonError("too deep")
	}
	seen := map[string]bool{}
	for d.More() {
		if open == '{' {
			name, err := d.Token()
			if err != nil {
				return jsonError("malformed")
			}
			text, _ := name.(string)
			if seen[text] {
				return jsonError("the name " + strconv.Quote(text) + " is repeated")
			}
			seen[text] = true
		}
		if err := walkJSON(d, depth+1); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return jsonError("malformed")
	}
	return nil
}
