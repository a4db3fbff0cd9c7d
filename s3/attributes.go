package s3

import (
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"redoubt"
)

// The two names of user metadata that are Redoubt's own.
const (
	metaPrefix       = "X-Amz-Meta-"
	headerLabel      = "X-Amz-Meta-Redoubt-Label"
	headerPrecedence = "X-Amz-Meta-Redoubt-Precedence"
	bucketPrefix     = "X-Amz-Redoubt-" // settings, of CreateBucket alone

	// Answers spell metadata in lower case, as S3 does: clients show the names as they come.
	answerMeta       = "x-amz-meta-"
	answerLabel      = "x-amz-meta-redoubt-label"
	answerPrecedence = "x-amz-meta-redoubt-precedence"
)

// asked is what a request says about the version that it makes.
type asked struct {
	label      string
	attributes redoubt.Attributes
	tags       []redoubt.Tag
	retention  redoubt.Retention
	hold       bool
}

// readAsked reads label, attributes, tags and lock from the headers of PUT, COPY and CreateMultipartUpload.
func (c *call) readAsked() (a asked, err error) {
	if a.label, err = c.readLabel(); err != nil {
		return a, err
	}
	if a.attributes, err = readAttributes(c.r.Header); err != nil {
		return a, err
	}
	if a.tags, err = readTagHeader(c.header("X-Amz-Tagging"), redoubt.MaxTags); err != nil {
		return a, err
	}
	a.retention, a.hold, err = c.readLock()
	return a, err
}

// readLabel reads the marking asked for. Two label headers, or an empty one, are no answer to how secret a thing is.
func (c *call) readLabel() (string, error) {
	v, err := c.single(headerLabel)
	if err != nil {
		return "", err
	}
	if v == "" && c.r.Header[headerLabel] != nil {
		return "", invalid(headerLabel, "", "The label is empty.")
	}
	return v, nil
}

// misplacedLabel refuses a label where none is taken (a part, say, or beside the fields of a form), and the settings of a
// bucket on what makes none: whoever asks for a marking must not believe that it was given.
func (c *call) misplacedLabel() error {
	for name := range c.r.Header {
		if strings.HasPrefix(name, bucketPrefix) && c.op.name != "CreateBucket" {
			return invalid(name, c.header(name), c.op.name+" does not take a bucket's settings.")
		}
	}
	if c.r.Header[headerLabel] == nil && !(c.op.authless && c.query.hasHeader(headerLabel)) { // else the query's are headers by now
		return nil
	}
	switch c.op.name {
	case "PutObject", "CopyObject", "CreateMultipartUpload":
		return nil
	}
	return invalid(headerLabel, c.header(headerLabel), c.op.name+" does not take a label.")
}

// readAttributes reads what travels with a version.
func readAttributes(h http.Header) (redoubt.Attributes, error) {
	first := func(name string) string {
		if v := h[name]; len(v) > 0 {
			return v[0]
		}
		return ""
	}
	a := redoubt.Attributes{
		ContentType: first("Content-Type"), ContentEncoding: stripChunked(h["Content-Encoding"]), ContentLanguage: first("Content-Language"),
		ContentDisposition: first("Content-Disposition"), CacheControl: first("Cache-Control"), Expires: first("Expires"),
		StorageClass: first("X-Amz-Storage-Class"),
	}
	if err := checkStorageClass(a.StorageClass); err != nil {
		return a, err
	}
	size := len(a.ContentType) + len(a.ContentEncoding) + len(a.ContentLanguage) + len(a.ContentDisposition) + len(a.CacheControl) + len(a.Expires)
	if !utf8.ValidString(a.ContentType + a.ContentEncoding + a.ContentLanguage + a.ContentDisposition + a.CacheControl + a.Expires) {
		return a, errInvalidArgument.say("A header is not UTF-8.")
	}
	return a, readMeta(h, &a, size)
}

// readMeta collects user metadata. Every name that begins with "redoubt" is reserved: a label
// header with a slip in its name must not turn into a version without that label.
func readMeta(h http.Header, a *redoubt.Attributes, size int) error {
	user := 0
	for name, values := range h {
		if !strings.HasPrefix(name, metaPrefix) {
			continue
		}
		switch {
		case name == headerLabel:
			continue
		case name == headerPrecedence:
			if _, err := redoubt.ParsePrecedence(values[0]); err != nil || len(values) > 1 {
				return invalid(headerPrecedence, strings.Join(values, ","), "The precedence must be flash, immediate, priority or routine.")
			}
			a.Precedence = values[0]
			continue
		}
		short := strings.ToLower(name[len(metaPrefix):])
		if strings.HasPrefix(short, "redoubt") {
			return invalid("x-amz-meta-"+short, "", "Metadata names that begin with redoubt are reserved.")
		}
		value := strings.Join(values, ",")
		if !utf8.ValidString(value) {
			return invalid("x-amz-meta-"+short, "", "The metadata is not UTF-8.")
		}
		if a.Meta == nil {
			a.Meta = make(map[string]string, 4)
		}
		a.Meta[short] = value
		user += len(short) + len(value)
	}
	if user > maxUserMetaBytes || user+size > redoubt.MaxMetadataBytes {
		return errMetadataTooLarge.with("Size", strconv.Itoa(user)).with("MaxSizeAllowed", strconv.Itoa(maxUserMetaBytes))
	}
	return nil
}

// storageClasses are S3's; here they are one, and kept for display.
var storageClasses = map[string]bool{"": true, "STANDARD": true, "REDUCED_REDUNDANCY": true, "STANDARD_IA": true, "ONEZONE_IA": true, "INTELLIGENT_TIERING": true}

func checkStorageClass(class string) error {
	switch class {
	case "GLACIER", "DEEP_ARCHIVE", "GLACIER_IR", "OUTPOSTS", "SNOW", "EXPRESS_ONEZONE", "FSX_OPENZFS", "FSX_ONTAP":
		return notImplemented("The storage class " + class)
	}
	if !storageClasses[class] {
		return &apiError{code: "InvalidStorageClass", status: 400, message: "The storage class you specified is not valid."}
	}
	return nil
}

// stripChunked removes aws-chunked: it is how the content came, not what it is.
func stripChunked(values []string) string {
	if len(values) == 1 && !strings.Contains(values[0], "aws-chunked") {
		return values[0]
	}
	var kept []string
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if part = strings.TrimSpace(part); part != "" && part != "aws-chunked" {
				kept = append(kept, part)
			}
		}
	}
	return strings.Join(kept, ",")
}

// checkEncryption accepts AES256, which is what happens anyhow, and refuses keys of others' making by name.
func checkEncryption(h http.Header) error {
	for name := range h {
		if name == headerBucketKey {
			continue // refuseUnoffered has looked at its value
		}
		if strings.HasPrefix(name, "X-Amz-Server-Side-Encryption-") || strings.HasPrefix(name, "X-Amz-Copy-Source-Server-Side-Encryption-") {
			if strings.Contains(name, "Customer") {
				return notImplemented("SSE-C (" + strings.ToLower(name) + ")")
			}
			return notImplemented("SSE-KMS (" + strings.ToLower(name) + ")")
		}
	}
	v := h["X-Amz-Server-Side-Encryption"]
	switch {
	case len(v) == 0 || len(v) == 1 && v[0] == "AES256":
		return nil
	case len(v) == 1 && strings.HasPrefix(v[0], "aws:"):
		return notImplemented("x-amz-server-side-encryption: " + v[0])
	}
	return invalid("x-amz-server-side-encryption", strings.Join(v, ","), "The encryption method specified is not supported")
}

// readLock reads the object lock headers.
func (c *call) readLock() (r redoubt.Retention, hold bool, err error) {
	switch v := c.header("X-Amz-Object-Lock-Legal-Hold"); v {
	case "", "OFF":
	case "ON":
		hold = true
	default:
		return r, false, invalid("x-amz-object-lock-legal-hold", v, "Legal Hold must be either of 'ON' or 'OFF'")
	}
	mode, until := c.header("X-Amz-Object-Lock-Mode"), c.header("X-Amz-Object-Lock-Retain-Until-Date")
	if mode == "" && until == "" {
		return r, hold, nil
	}
	if mode == "" || until == "" {
		return r, false, errInvalidArgument.say("x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied")
	}
	r, err = c.retention(mode, until)
	return r, hold, err
}

// retention reads a mode and a date in the future.
func (c *call) retention(mode, until string) (redoubt.Retention, error) {
	if mode != "GOVERNANCE" && mode != "COMPLIANCE" {
		return redoubt.Retention{}, invalid("x-amz-object-lock-mode", mode, "Unknown wormMode directive.")
	}
	t, err := time.Parse(time.RFC3339, until)
	if err != nil {
		return redoubt.Retention{}, invalid("x-amz-object-lock-retain-until-date", until, "The retain until date must be provided in ISO 8601 format")
	}
	if !t.After(c.s.clock()) {
		return redoubt.Retention{}, invalid("x-amz-object-lock-retain-until-date", until, "The retain until date must be in the future!")
	}
	return redoubt.Retention{Mode: mode, Until: t.UTC()}, nil
}
