package s3

import (
	"bytes"
	"html"
	"io"
	"mime/multipart"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"redoubt"
)

// A condition that is empty, as a script writes it whose variable is, is met by nothing: it is not the same as none.
func TestAnEmptyConditionIsMetByNothing(t *testing.T) {
	s := newSite(t, "reports")
	s.do("LOW", "PUT", "/reports/k", []byte("first")).want(t, 200, "")
	for _, tag := range []string{"", `""`, " , ", `W/""`} {
		s.do("LOW", "PUT", "/reports/k", []byte("second"), "If-Match", tag).want(t, 412, "PreconditionFailed")
		s.do("LOW", "DELETE", "/reports/k", nil, "If-Match", tag).want(t, 412, "PreconditionFailed")
		s.do("LOW", "GET", "/reports/k", nil, "If-Match", tag).want(t, 412, "PreconditionFailed")
		s.do("LOW", "GET", "/reports/k", nil, "If-None-Match", tag).want(t, 200, "")
		s.do("LOW", "PUT", "/reports/k", []byte("second"), "If-None-Match", tag).want(t, 501, "NotImplemented")
	}
	for _, tag := range []string{"<ETag></ETag>", `<ETag>""</ETag>`} {
		a := s.do("LOW", "POST", "/reports?delete", []byte("<Delete><Object><Key>k</Key>"+tag+"</Object></Delete>")).want(t, 200, "PreconditionFailed")
		if strings.Contains(a.body, "<Deleted>") {
			t.Errorf("%s: got %s", tag, a.body)
		}
	}
	if got := s.do("LOW", "GET", "/reports/k", nil).want(t, 200, "").body; got != "first" {
		t.Errorf("got %q, want what no condition let be replaced", got)
	}
}

func TestAChecksumThatIsNotComparedIsRefused(t *testing.T) {
	s := newSite(t, "reports")
	for _, name := range []string{"X-Amz-Checksum-Sha512", "X-Amz-Checksum-Md5", "X-Amz-Checksum-Crc"} {
		s.do("LOW", "PUT", "/reports/k", []byte("x"), name, "AAAA").want(t, 501, "NotImplemented")
		s.do("LOW", "PUT", "/reports/k?partNumber=1&uploadId=u", []byte("x"), name, "AAAA").want(t, 501, "NotImplemented")
		s.do("LOW", "POST", "/reports?delete", []byte("<Delete><Object><Key>k</Key></Object></Delete>"), name, "AAAA").want(t, 501, "NotImplemented")
	}
	s.do("LOW", "GET", "/reports/k", nil).want(t, 404, "NoSuchKey")
}

func TestADeleteTakesNoConditionThatItWouldIgnore(t *testing.T) {
	s := newSite(t, "reports")
	s.do("LOW", "PUT", "/reports/k", []byte("x")).want(t, 200, "")
	for _, h := range [][2]string{{"If-None-Match", "*"}, {"If-None-Match", `"e"`}, {"If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:00 GMT"}, {"If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT"}} {
		s.do("LOW", "DELETE", "/reports/k", nil, h[0], h[1]).want(t, 501, "NotImplemented")
	}
	s.do("LOW", "GET", "/reports/k", nil).want(t, 200, "")
}

// A slip in how a label is asked for ends in a refusal and not in a version without that label.
func TestALabelThatIsAskedForAmissIsRefused(t *testing.T) {
	s := newSite(t, "reports")
	put := func(query string) answer {
		r := s.presign("PUT", "/reports/k?"+query, 60, time.Now())
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), 1
		return s.send(r)
	}
	for _, name := range []string{"x-amz-meta-redoubt-label ", "x-amz-meta-redoubt-label\u00a0", "x-amz-meta-redoubt_label", "x-amz-meta-redoubt-läbel", "x-amz-redoubt-label"} {
		put(url.QueryEscape(name)+"=SECRET").want(t, 400, "InvalidArgument")
		s.post(postedTest{fields: [][2]string{{"key", "k"}, {name, "SECRET"}}, policy: policyOf(`{"key":"k"},{"` + name + `":"SECRET"}`), file: "x"}).want(t, 400, "InvalidArgument")
	}
	for _, name := range []string{"X-Amz-Redoubt-Label", "X-Amz-Redoubt-Default-Label"} {
		s.do("LOW", "PUT", "/reports/k", []byte("x"), name, "SECRET").want(t, 400, "InvalidArgument")
		s.do("LOW", "POST", "/reports/k?uploads", nil, name, "SECRET").want(t, 400, "InvalidArgument")
	}
	beside := postedTest{fields: [][2]string{{"key", "k"}}, policy: policyOf(`{"key":"k"}`), file: "x"}
	s.postTo("/reports", beside, headerLabel, "SECRET").want(t, 400, "InvalidArgument")
	s.postTo("/reports?x-amz-meta-redoubt-label=SECRET", beside).want(t, 400, "InvalidArgument")
	s.do("LOW", "GET", "/reports/k", nil).want(t, 404, "NoSuchKey") // what was refused has put nothing
	s.post(beside).want(t, 204, "")
}

func TestWhatStandsForAHeaderIsHeldToIt(t *testing.T) {
	s := newSite(t, "reports")
	for _, value := range []string{"a\r\nb", "a\nb", "a\x7fb", "a\x01"} {
		s.send(s.presign("PUT", "/reports/k?x-amz-meta-own="+url.QueryEscape(value), 60, time.Now())).want(t, 400, "InvalidArgument")
	}
	s.post(postedTest{fields: [][2]string{{"key", "k"}, {"content-disposition", "a\nb"}}, policy: policyOf(`{"key":"k"},["starts-with","$content-disposition",""]`), file: "x"}).want(t, 400, "InvalidArgument")
	for _, name := range []string{"x-amz-security-token", "X-Amz-Security-Token"} {
		s.send(s.presign("GET", "/reports?"+name+"=t", 60, time.Now())).want(t, 400, "InvalidToken")
	}
}

// A presigned copy is one in whatever case its parameter is written, and not an empty object that is put.
func TestAPresignedCopyIsNoEmptyObject(t *testing.T) {
	s := newSite(t, "reports")
	s.do("LOW", "PUT", "/reports/from", []byte("content")).want(t, 200, "")
	for _, name := range []string{"x-amz-copy-source", "X-Amz-Copy-Source"} {
		r := s.presign("PUT", "/reports/to?"+name+"=reports/from", 60, time.Now())
		r.Header.Set("Content-Length", "0")
		s.send(r).want(t, 200, "")
		if got := s.do("LOW", "GET", "/reports/to", nil).want(t, 200, "").body; got != "content" {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

func TestNamesOfADocumentAreTakenAsTheyAreWritten(t *testing.T) {
	s := newSite(t, "reports")
	s.do("LOW", "PUT", "/reports?redoubt", []byte(`{"closed":true}`)).want(t, 200, "")
	for _, body := range []string{`null`, `{"Closed":false}`, `{"closed":true,"CLOSED":false}`, `{"cloſed":false}`} {
		s.do("LOW", "PUT", "/reports?redoubt", []byte(body)).want(t, 400, "InvalidRequest")
	}
	if !s.buckets["reports"].Closed {
		t.Error("the bucket is open")
	}
	statement := `"Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::reports/*"`
	for _, body := range []string{`{"Statement":{"Effect":"Deny","effect":"Allow",` + statement + `}}`, `{"Statement":[{"effect":"Allow",` + statement + `}]}`,
		`{"statement":[{"Effect":"Allow",` + statement + `}]}`} {
		s.do("LOW", "PUT", "/reports?policy", []byte(body)).want(t, 400, "MalformedPolicy")
	}
	s.do("LOW", "PUT", "/reports?policy", []byte(`{"Statement":[{"Effect":"Allow",`+statement+`}]}`)).want(t, 204, "")
}

// postTo is post to another target, with headers beside the form.
func (s *site) postTo(target string, f postedTest, headers ...string) answer {
	body, contentType := s.form(f)
	return s.send(s.request("POST", target, body, append(headers, "Content-Type", contentType)...))
}

func formOf(fields [][2]string, file string) ([]byte, string) {
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for _, kv := range fields {
		w.WriteField(kv[0], kv[1])
	}
	part, _ := w.CreateFormFile("file", "report.txt")
	part.Write([]byte(file))
	w.Close()
	return body.Bytes(), w.FormDataContentType()
}

// A write whose condition finds no version says so, and not that the bucket or the upload is gone.
func TestAConditionThatFindsNothingNamesTheKey(t *testing.T) {
	s := newSite(t, "reports")
	s.fail = &redoubt.Error{Kind: redoubt.NotFound, Err: redoubt.ErrNoCurrent}
	s.do("LOW", "PUT", "/reports/k", []byte("x"), "If-Match", `"e"`).want(t, 404, "NoSuchKey")
	s.do("LOW", "POST", "/reports/k?uploadId=u", []byte("<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>e</ETag></Part></CompleteMultipartUpload>"), "If-Match", `"e"`).want(t, 404, "NoSuchKey")
	s.fail = redoubt.NotFound
	s.do("LOW", "POST", "/reports/k?uploadId=u", []byte("<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>e</ETag></Part></CompleteMultipartUpload>"), "If-Match", `"e"`).want(t, 404, "NoSuchUpload")
	s.do("LOW", "PUT", "/reports/k", []byte("x"), "If-Match", `"e"`).want(t, 404, "NoSuchBucket") // one that may not be known of, as one that never was
}

// A page that ends with a name which XML cannot carry goes on behind that, and not behind another: nothing that lies between is passed over.
func TestAListGoesOnBehindANameThatXMLCannotCarry(t *testing.T) {
	s := newSite(t, "reports")
	keys := []string{"p/%01", "p/%02" + strings.Repeat("x", redoubt.MaxKeyBytes-3), "p/%02y", "p/orders", markerForm + "cC8B", "z%EF%BF%BE"}
	for _, key := range keys {
		s.do("LOW", "PUT", "/reports/"+key, []byte("x")).want(t, 200, "")
		s.do("LOW", "POST", "/reports/"+key+"?uploads", nil).want(t, 200, "")
	}
	next := regexp.MustCompile("<Next(Marker|KeyMarker|VersionIdMarker|UploadIdMarker)>([^<]*)<")
	for _, list := range []string{"/reports?max-keys=1", "/reports?versions&max-keys=1", "/reports?uploads&max-uploads=1"} {
		seen, more := 0, ""
		for page := true; page && seen <= len(keys); {
			a := s.do("LOW", "GET", list+more, nil).want(t, 200, "")
			seen, more = seen+strings.Count(a.body, "<Key>"), ""
			for _, m := range next.FindAllStringSubmatch(a.body, -1) {
				name := map[string]string{"Marker": "marker", "KeyMarker": "key-marker", "VersionIdMarker": "version-id-marker", "UploadIdMarker": "upload-id-marker"}[m[1]]
				more += "&" + name + "=" + url.QueryEscape(html.UnescapeString(m[2]))
			}
			page = strings.Contains(a.body, "<IsTruncated>true<")
		}
		if seen != len(keys) {
			t.Errorf("%s: %d of %d are seen, page by page", list, seen, len(keys))
		}
	}
	if a := s.do("LOW", "GET", "/reports?max-keys=1&encoding-type=url", nil).want(t, 200, ""); !strings.Contains(a.body, "<NextMarker>p/%01</NextMarker>") {
		t.Errorf("got %s", a.body)
	}
}

func TestAMarkerThatAnybodyCouldNameSomethingIsItself(t *testing.T) {
	l := new(listing)
	for _, name := range []string{"a\x01", strings.Repeat("\x02", redoubt.MaxKeyBytes), "\uffff"} {
		if m := l.marker(name); len(m) <= redoubt.MaxKeyBytes || !carried(m) || behind(m) != name {
			t.Errorf("%q is told as %q, which is %q", name, m, behind(m))
		}
	}
	long := strings.Repeat(".", redoubt.MaxKeyBytes)
	for _, m := range []string{"", "a", markerForm, markerForm + "cC8B", markerForm + "$" + long, markerForm + "gA" + long, "x" + markerForm + "cC8B" + long} {
		if behind(m) != m {
			t.Errorf("%.40q is taken for %q", m, behind(m))
		}
	}
}
