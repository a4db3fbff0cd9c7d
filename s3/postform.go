package s3

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"redoubt"
)

// postForm is POST /BUCKET with multipart/form-data: a browser's upload, proved by the policy that it carries.
func (s *handler) postForm(c *call) error {
	if c.r.TLS == nil && !s.unsignedInClear {
		return errUnsignedInClear
	}
	f, err := c.readForm()
	if err != nil {
		return err
	}
	if err := s.authenticateForm(c, f); err != nil {
		s.refused(c, err)
		return err
	}
	if err := s.checkPolicy(c, f); err != nil {
		return err
	}
	v, err := s.putForm(c, f)
	if err != nil {
		return err
	}
	c.key = f.fields["key"]
	return c.respondForm(f, &v)
}

// postedForm is what stands before the file.
type postedForm struct {
	fields   map[string]string // by lower-case name
	file     *multipart.Part
	most     int64 // content-length-range of the policy
	least    int64
	redirect *url.URL
}

func isForm(contentType string) bool {
	kind, _, _ := cut(contentType, ';')
	return strings.EqualFold(strings.TrimSpace(kind), "multipart/form-data")
}

// budgetReader gives at most so many bytes until it is opened: the fields are bounded, the file by its own limits.
type budgetReader struct {
	r    io.Reader
	left int64
	open bool
}

func (b *budgetReader) Read(p []byte) (int, error) {
	if b.open {
		return b.r.Read(p)
	}
	if b.left <= 0 {
		return 0, errMalformedPOST.say("The fields of the form are too long.")
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// readForm reads the fields up to the file, which must be the last that matters.
func (c *call) readForm() (*postedForm, error) {
	_, params, err := mime.ParseMediaType(c.header("Content-Type"))
	if err != nil || params["boundary"] == "" {
		return nil, errMalformedPOST
	}
	budget := &budgetReader{r: &progressReader{r: c.r.Body, rc: c.rc, lim: c.s.limits}, left: maxFormBytes}
	parts := multipart.NewReader(budget, params["boundary"])
	f := &postedForm{fields: map[string]string{}, most: redoubt.MaxPutBytes}
	for {
		part, err := parts.NextRawPart()
		if err == io.EOF {
			return nil, errInvalidArgument.say("POST requires exactly one file upload per request.")
		}
		if err != nil {
			return nil, formError(err)
		}
		name := strings.ToLower(part.FormName())
		if name == "file" {
			budget.open = true
			f.file = part
			break
		}
		if err := f.add(name, part); err != nil {
			return nil, err
		}
	}
	key := f.fields["key"]
	if key == "" {
		return nil, errInvalidArgument.say("Bucket POST must contain a field named 'key'. If it is specified, please check the order of the fields.")
	}
	f.fields["key"] = strings.ReplaceAll(key, "${filename}", f.file.FileName())
	return f, checkKey(f.fields["key"])
}

func (f *postedForm) add(name string, part *multipart.Part) error {
	if _, twice := f.fields[name]; name == "" || twice {
		return errMalformedPOST.say("A field of the form has no name or is repeated.")
	}
	if len(f.fields) == maxFormFields {
		return errMalformedPOST.say("The form has too many fields.")
	}
	value, err := io.ReadAll(io.LimitReader(part, maxFormFieldBytes+1))
	if err != nil {
		return formError(err)
	}
	if len(value) > maxFormFieldBytes {
		return &apiError{code: "MaxPostPreDataLengthExceededError", status: 400, message: "Your POST request fields preceding the upload file were too large."}
	}
	if !validText(string(value)) || !validText(name) {
		return errMalformedPOST.say("A field of the form is not UTF-8.")
	}
	f.fields[name] = string(value)
	return nil
}

func formError(err error) error {
	answer, ok := bodyError(err).(*apiError)
	if ok && answer.code == errIncompleteBody.code {
		return errMalformedPOST
	}
	return answer
}

// authenticateForm checks the signature over the policy, in constant time.
func (s *handler) authenticateForm(c *call, f *postedForm) error {
	policy := f.fields["policy"]
	if policy == "" {
		return errAccessDenied
	}
	g := &c.sig
	if f.fields["x-amz-algorithm"] != sigAlgorithm || f.fields["x-amz-security-token"] != "" {
		return errInvalidArgument.say("X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\".")
	}
	g.date = f.fields["x-amz-date"]
	t, err := time.Parse(sigTimeFormat, g.date)
	if err != nil || !g.parseCredential(f.fields["x-amz-credential"]) || !g.parseGiven(f.fields["x-amz-signature"]) {
		return errInvalidArgument.say("The signature fields of the form are malformed.")
	}
	if err := s.checkScope(g); err != nil {
		return err
	}
	if age := s.clock().Sub(t); age > maxPresignSeconds*time.Second || age < -clockSkew {
		return errTimeSkewed
	}
	key, who, err := s.auth.SigningKey(c.ctx, g.accessKey, g.scope)
	if err != nil {
		return err
	}
	mac := hmac.New(sha256.New, key[:])
	mac.Write([]byte(policy))
	if !hmac.Equal(mac.Sum(nil), g.given[:]) {
		return errSignature
	}
	c.who = who
	return nil
}

// checkPolicy holds the form to its policy.
func (s *handler) checkPolicy(c *call, f *postedForm) error {
	raw, err := base64.StdEncoding.DecodeString(f.fields["policy"])
	if err != nil {
		return errInvalidPolicyDocument("The policy is not base64.")
	}
	p, err := parsePostPolicy(raw)
	if err != nil {
		return err
	}
	if !s.clock().Before(p.expires) {
		return errExpiredForm
	}
	if err := p.check(f.fields, string(c.bucket)); err != nil {
		return err
	}
	if p.ranged {
		f.least, f.most = p.least, min(p.most, redoubt.MaxPutBytes)
	}
	return nil
}

// formHeaders are the fields that stand for headers of a PUT besides x-amz-….
var formHeaders = map[string]string{
	"content-type": "Content-Type", "cache-control": "Cache-Control", "content-disposition": "Content-Disposition",
	"content-encoding": "Content-Encoding", "content-language": "Content-Language", "expires": "Expires",
	"content-md5": "Content-Md5", "acl": "X-Amz-Acl",
}

// headers turns fields into the headers that a PUT would carry.
func (f *postedForm) headers() (http.Header, error) {
	h := http.Header{}
	for name, value := range f.fields {
		canonical := formHeaders[name]
		if canonical == "" && strings.HasPrefix(name, "x-amz-") {
			canonical = http.CanonicalHeaderKey(name)
		}
		if canonical == "" {
			continue
		}
		if !headerName(name) || !headerValue(value) {
			return nil, invalid(name, value, notAHeader)
		}
		if strings.HasPrefix(canonical, bucketPrefix) {
			return nil, invalid(name, value, "A form does not take a bucket's settings.")
		}
		h[canonical] = []string{value}
	}
	return h, nil
}

// putForm stores the file as PutObject would.
func (s *handler) putForm(c *call, f *postedForm) (redoubt.Version, error) {
	if err := refuseUnoffered(c.r.Header); err != nil {
		return redoubt.Version{}, err
	}
	if err := c.misplacedLabel(); err != nil { // beside the form, where none is taken
		return redoubt.Version{}, err
	}
	var err error
	if c.r.Header, err = f.headers(); err != nil {
		return redoubt.Version{}, err
	}
	if err := refuseUnoffered(c.r.Header); err != nil { // the fields stand for headers, so they are held to the same
		return redoubt.Version{}, err
	}
	ask, err := c.readAsked()
	if err != nil {
		return redoubt.Version{}, err
	}
	if doc := f.fields["tagging"]; doc != "" {
		if ask.tags, err = parseTagging([]byte(doc), redoubt.MaxTags); err != nil {
			return redoubt.Version{}, err
		}
	}
	body := &payload{c: c, src: &formFile{f: f}, size: -1}
	if err := body.openChecksum(); err != nil {
		return redoubt.Version{}, err
	}
	if err := body.openMD5(s.wantsMD5(c.ctx, c.bucket)); err != nil {
		return redoubt.Version{}, err
	}
	v, err := s.objects.PutObject(c.ctx, c.who, redoubt.PutObject{
		Name: redoubt.ObjectName{Bucket: c.bucket, Key: f.fields["key"]}, Label: ask.label, Attributes: ask.attributes, Tags: ask.tags,
		Retention: ask.retention, Hold: ask.hold, SizeBytes: -1, Body: body, Finish: body.finish,
	})
	return v, conflicting(body.blame(err))
}

// formFile reads the file within the sizes that the policy allows.
type formFile struct {
	f    *postedForm
	read int64
}

func (r *formFile) Read(b []byte) (int, error) {
	n, err := r.f.file.Read(b)
	r.read += int64(n)
	if r.read > r.f.most {
		return 0, errEntityTooLarge.with("MaxSizeAllowed", strconv.FormatInt(r.f.most, 10))
	}
	if err == io.EOF && r.read < r.f.least {
		return 0, errEntityTooSmall.with("MinSizeAllowed", strconv.FormatInt(r.f.least, 10))
	}
	return n, err
}

// respondForm answers as success_action_… asks.
func (c *call) respondForm(f *postedForm, v *redoubt.Version) error {
	c.setWritten(v)
	if to := f.fields["success_action_redirect"]; to != "" {
		if u, err := url.Parse(to); err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" {
			q := u.Query()
			q.Set("bucket", string(c.bucket))
			q.Set("key", c.key)
			q.Set("etag", `"`+v.ETag+`"`)
			u.RawQuery = q.Encode()
			c.set("Location", u.String())
			return c.done(http.StatusSeeOther)
		}
	}
	c.set("Location", c.location())
	switch f.fields["success_action_status"] {
	case "200":
		return c.done(http.StatusOK)
	case "201":
		return c.respondPosted(v)
	}
	return c.done(http.StatusNoContent)
}

// postResponse is the document of success_action_status 201.
type postResponse struct {
	XMLName                     xml.Name `xml:"PostResponse"`
	Location, Bucket, Key, ETag string
}

func (c *call) respondPosted(v *redoubt.Version) error {
	doc, err := xml.Marshal(postResponse{Location: c.location(), Bucket: string(c.bucket), Key: c.key, ETag: `"` + v.ETag + `"`})
	if err != nil {
		return err
	}
	x := newXML()
	defer x.release()
	x.b = append(x.b, doc...)
	c.respondXML(http.StatusCreated, x)
	return nil
}
