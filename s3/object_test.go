package s3

import (
	"bytes"
	"crypto/fips140"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/minio/crc64nvme"

	"redoubt"
)

func TestRangesAreS3s(t *testing.T) {
	s := newSite(t, "reports")
	s.do("LOW", "PUT", "/reports/k", []byte("0123456789")).want(t, 200, "")
	s.do("LOW", "PUT", "/reports/empty", nil).want(t, 200, "")
	for _, c := range []struct {
		ranges string
		status int
		body   string
		says   string
	}{
		{"bytes=0-3", 206, "0123", "bytes 0-3/10"}, {"bytes=4-", 206, "456789", "bytes 4-9/10"}, {"bytes=-3", 206, "789", "bytes 7-9/10"},
		{"bytes=-30", 206, "0123456789", "bytes 0-9/10"}, {"bytes=9-99999999999999999999999", 206, "9", "bytes 9-9/10"},
		{"bytes=10-", 416, "", "bytes */10"}, {"bytes=-0", 416, "", "bytes */10"}, {"bytes=5-3", 200, "0123456789", ""},
		{"bytes=0-1,3-4", 200, "0123456789", ""}, {"lines=0-3", 200, "0123456789", ""}, {"bytes=a-b", 200, "0123456789", ""}, {"bytes=-", 200, "0123456789", ""},
	} {
		a := s.do("LOW", "GET", "/reports/k", nil, "Range", c.ranges)
		if a.status != c.status || c.body != "" && a.body != c.body || a.header.Get("Content-Range") != c.says {
			t.Errorf("%s: got %d %q %q", c.ranges, a.status, a.body, a.header.Get("Content-Range"))
		}
		h := s.do("LOW", "HEAD", "/reports/k", nil, "Range", c.ranges)
		if h.status != c.status || h.header.Get("Content-Range") != c.says || h.body != "" {
			t.Errorf("HEAD %s: got %d", c.ranges, h.status)
		}
	}
	s.do("LOW", "GET", "/reports/empty", nil, "Range", "bytes=0-").want(t, 416, "InvalidRange")
	s.do("LOW", "GET", "/reports/k?partNumber=1", nil).want(t, 206, "")
	s.do("LOW", "GET", "/reports/k?partNumber=2", nil).want(t, 416, "InvalidPartNumber")
	s.do("LOW", "GET", "/reports/k?partNumber=0", nil).want(t, 400, "InvalidArgument")
	s.do("LOW", "GET", "/reports/k?partNumber=10001", nil).want(t, 400, "InvalidArgument")
	s.do("LOW", "GET", "/reports/k?partNumber=1", nil, "Range", "bytes=0-1").want(t, 400, "InvalidRequest")
	etag := s.versions["reports"]["k"][0].ETag
	if a := s.do("LOW", "GET", "/reports/k", nil, "Range", "bytes=0-3", "If-Range", `"`+etag+`"`); a.status != 206 {
		t.Errorf("got %d, want 206", a.status)
	}
	if a := s.do("LOW", "GET", "/reports/k", nil, "Range", "bytes=0-3", "If-Range", `"other"`); a.status != 200 {
		t.Errorf("got %d, want 200", a.status)
	}
}

func TestConditions(t *testing.T) {
	s := newSite(t, "reports")
	put := s.do("LOW", "PUT", "/reports/k", []byte("x")).want(t, 200, "")
	etag := put.header.Get("Etag")
	early, late := time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	for _, c := range []struct {
		name, value string
		status      int
	}{
		{"If-Match", etag, 200}, {"If-Match", "*", 200}, {"If-Match", `"other"`, 412}, {"If-Match", `"other", ` + etag, 200},
		{"If-None-Match", etag, 304}, {"If-None-Match", "W/" + etag, 304}, {"If-None-Match", `"other"`, 200},
		{"If-Modified-Since", early, 200}, {"If-Modified-Since", late, 304}, {"If-Modified-Since", "nonsense", 200},
		{"If-Unmodified-Since", late, 200}, {"If-Unmodified-Since", early, 412},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			a := s.do("LOW", method, "/reports/k", nil, c.name, c.value)
			if a.status != c.status {
				t.Errorf("%s %s %s: got %d, want %d", method, c.name, c.value, a.status, c.status)
			}
			if a.status == 304 && (a.body != "" || c.name == "If-None-Match" && a.header.Get("Etag") != etag) {
				t.Errorf("304: got %q %v", a.body, a.header)
			}
		}
	}
	s.do("LOW", "PUT", "/reports/k", []byte("y"), "If-None-Match", "*").want(t, 412, "PreconditionFailed")
	s.do("LOW", "PUT", "/reports/new", []byte("y"), "If-None-Match", "*").want(t, 200, "")
	s.do("LOW", "PUT", "/reports/k", []byte("y"), "If-Match", `"other"`).want(t, 412, "PreconditionFailed")
	s.do("LOW", "PUT", "/reports/k", []byte("y"), "If-None-Match", etag).want(t, 501, "NotImplemented")
	s.do("LOW", "PUT", "/reports/c", nil, "X-Amz-Copy-Source", "reports/k", "X-Amz-Copy-Source-If-None-Match", etag).want(t, 412, "PreconditionFailed")
	s.do("LOW", "DELETE", "/reports/k", nil, "If-Match", `"other"`).want(t, 412, "PreconditionFailed")
}

func TestEveryChecksumIsHeldTo(t *testing.T) {
	s := newSite(t, "reports")
	body := []byte("checked content")
	sum256 := sha256.Sum256(body)
	var sum1 [20]byte
	var sum5 [16]byte
	fips140.WithoutEnforcement(func() { sum1, sum5 = sha1.Sum(body), md5.Sum(body) })
	b64 := base64.StdEncoding.EncodeToString
	for name, value := range map[string]string{
		"X-Amz-Checksum-Crc32":     b64(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(body))),
		"X-Amz-Checksum-Crc32c":    b64(binary.BigEndian.AppendUint32(nil, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))),
		"X-Amz-Checksum-Crc64nvme": b64(binary.BigEndian.AppendUint64(nil, crc64nvme.Checksum(body))),
		"X-Amz-Checksum-Sha1":      b64(sum1[:]),
		"X-Amz-Checksum-Sha256":    b64(sum256[:]),
	} {
		a := s.do("LOW", "PUT", "/reports/k", body, name, value).want(t, 200, "")
		if a.header.Get(name) != value || a.header.Get("X-Amz-Checksum-Type") != "FULL_OBJECT" {
			t.Errorf("%s: got %v", name, a.header)
		}
		s.do("LOW", "PUT", "/reports/k", append([]byte("not "), body...), name, value).want(t, 400, "BadDigest")
		s.do("LOW", "PUT", "/reports/k", body, name, "AAAA").want(t, 400, "InvalidRequest")
		g := s.do("LOW", "GET", "/reports/k", nil, "X-Amz-Checksum-Mode", "ENABLED")
		if g.header.Get(name) != value {
			t.Errorf("%s does not come back: %v", name, g.header)
		}
		if g := s.do("LOW", "GET", "/reports/k", nil, "X-Amz-Checksum-Mode", "ENABLED", "Range", "bytes=0-1"); g.header.Get(name) != "" {
			t.Errorf("%s of the whole comes with a part", name)
		}
	}
	s.do("LOW", "PUT", "/reports/k", body, "X-Amz-Checksum-Sha1", b64(sum1[:]), "X-Amz-Checksum-Sha256", b64(sum256[:])).want(t, 400, "InvalidRequest")
	a := s.do("LOW", "PUT", "/reports/k", body).want(t, 200, "")
	if a.header.Get("X-Amz-Checksum-Crc64nvme") == "" || strings.Contains(a.header.Get("Etag"), hex.EncodeToString(sum5[:])) {
		t.Errorf("without a checksum: got %v", a.header)
	}
	a = s.do("LOW", "PUT", "/reports/k", body, "Content-Md5", b64(sum5[:])).want(t, 200, "")
	if a.header.Get("Etag") != `"`+hex.EncodeToString(sum5[:])+`"` {
		t.Errorf("got ETag %s, want the MD5", a.header.Get("Etag"))
	}
	s.do("LOW", "PUT", "/reports/k", body, "Content-Md5", b64(sum1[:16])).want(t, 400, "BadDigest")
	s.do("LOW", "PUT", "/reports/k", body, "Content-Md5", "xx").want(t, 400, "InvalidDigest")
	s.do("LOW", "PUT", "/reports/k", body, "Content-Md5", "").want(t, 400, "InvalidDigest")
	s.buckets["reports"].MD5ETag = true
	a = s.do("LOW", "PUT", "/reports/k", body).want(t, 200, "")
	if a.header.Get("Etag") != `"`+hex.EncodeToString(sum5[:])+`"` {
		t.Errorf("got ETag %s in a bucket set so, want the MD5", a.header.Get("Etag"))
	}
}

// TestASignedPayloadIsHandedOnWithItsDigest, which no client is shown: it asked for no such checksum. Of a payload that is signed by chunks or not at all
// nobody computed one.
func TestASignedPayloadIsHandedOnWithItsDigest(t *testing.T) {
	s := newSite(t, "reports")
	body := []byte("signed content")
	sum := sha256.Sum256(body)
	a := s.do("LOW", "PUT", "/reports/k", body).want(t, 200, "")
	if !bytes.Equal(s.digest, sum[:]) {
		t.Errorf("got %x", s.digest)
	}
	for _, a := range []answer{a, s.do("LOW", "GET", "/reports/k", nil, "X-Amz-Checksum-Mode", "ENABLED"),
		s.do("LOW", "GET", "/reports/k?attributes", nil, "X-Amz-Object-Attributes", "Checksum,ETag,ObjectParts")} {
		if shown := fmt.Sprint(a.header, a.body); strings.Contains(strings.ToLower(shown), "sha256") || strings.Contains(shown, hex.EncodeToString(sum[:])) ||
			strings.Contains(shown, base64.StdEncoding.EncodeToString(sum[:])) {
			t.Errorf("a client is shown it: %s", shown)
		}
	}
	b64 := base64.StdEncoding.EncodeToString
	if s.do("LOW", "PUT", "/reports/k", body, "X-Amz-Checksum-Sha256", b64(sum[:])).want(t, 200, ""); !bytes.Equal(s.digest, sum[:]) {
		t.Errorf("with the same checksum: got %x", s.digest)
	}
	s.digest = sum[:]
	if s.do("LOW", "PUT", "/reports/k", body, "X-Amz-Checksum-Crc32", "AAAAAA==").want(t, 400, "BadDigest"); s.versions["reports"]["k"][0].Checksums.SHA256 == "" {
		t.Error("what was refused is there")
	}
	clear := newSiteWith(t, false, nil, "reports")
	all, _ := pieces(8192, 1)
	if clear.send(clear.streamed(hashStream, "", nil, all...)).want(t, 200, ""); clear.digest != nil {
		t.Errorf("of chunks: got %x", clear.digest)
	}
}

func TestALabelIsNeverGuessed(t *testing.T) {
	s := newSite(t, "reports")
	a := s.do("LOW", "PUT", "/reports/k", []byte("x"), headerLabel, "S//REL TO USA, GBR").want(t, 200, "")
	if got := a.header.Get(headerLabel); got != "SECRET//REL TO USA, GBR" {
		t.Errorf("got label %q", got)
	}
	s.do("LOW", "PUT", "/reports/k", []byte("x"), headerLabel, "").want(t, 400, "InvalidArgument")
	r := s.request("PUT", "/reports/k", []byte("x"), headerLabel, "UNCLASSIFIED", headerLabel, "SECRET")
	s.send(s.sign(r, "LOW", []byte("x"))).want(t, 400, "InvalidArgument")
	for _, h := range []string{"X-Amz-Meta-Redoubt-Lable", "X-Amz-Meta-Redoubt_label", "X-Amz-Meta-Redoubtlabel"} {
		s.do("LOW", "PUT", "/reports/k", []byte("x"), h, "SECRET").want(t, 400, "InvalidArgument")
	}
	s.do("LOW", "PUT", "/reports/k?partNumber=1&uploadId=u", []byte("x"), headerLabel, "SECRET").want(t, 400, "InvalidArgument")
	s.do("LOW", "PUT", "/reports/k", []byte("x"), headerPrecedence, "urgent").want(t, 400, "InvalidArgument")
	s.do("LOW", "PUT", "/reports/k", []byte("x"), headerPrecedence, "flash").want(t, 200, "")
	for _, path := range []string{"/reports/k", "/reports/k?tagging", "/reports/k?legal-hold", "/reports/k?acl"} {
		if got := s.do("LOW", "GET", path, nil).want(t, 200, "").header.Get(headerLabel); got != "UNCLASSIFIED" {
			t.Errorf("%s: got label %q", path, got)
		}
	}
	g := s.do("LOW", "HEAD", "/reports/k", nil)
	if g.header.Get(headerPrecedence) != "flash" || g.header.Get(headerLabel) != "UNCLASSIFIED" {
		t.Errorf("got %v", g.header)
	}
	l := s.do("LOW", "GET", "/reports?list-type=2", nil, "X-Amz-Optional-Object-Attributes", "RedoubtLabel").want(t, 200, "")
	if !strings.Contains(l.body, "<RedoubtLabel>UNCLASSIFIED</RedoubtLabel>") {
		t.Errorf("got %s", l.body)
	}
}

func TestAttributesComeBackAsTheyWere(t *testing.T) {
	s := newSite(t, "reports")
	given := map[string]string{"Content-Type": "text/x; a=b", "Content-Encoding": "zstd", "Content-Language": "de", "Content-Disposition": `attachment; filename="\u00fc"`,
		"Cache-Control": "no-store", "Expires": "soon", "X-Amz-Meta-Own": "a  b", "X-Amz-Storage-Class": "STANDARD_IA"}
	var headers []string
	for name, v := range given {
		headers = append(headers, name, v)
	}
	s.do("LOW", "PUT", "/reports/k", []byte("x"), headers...).want(t, 200, "")
	a := s.do("LOW", "GET", "/reports/k", nil)
	for name, v := range given {
		if got := a.header.Get(name); got != v {
			t.Errorf("%s: got %q, want %q", name, got, v)
		}
	}
	s.do("LOW", "PUT", "/reports/plain", []byte("x")).want(t, 200, "")
	if got := s.do("LOW", "GET", "/reports/plain", nil).header.Get("Content-Type"); got != "binary/octet-stream" {
		t.Errorf("got content type %q", got)
	}
	a = s.do("LOW", "GET", "/reports/k?response-expires=never&response-cache-control=c&response-content-language=fr&response-content-disposition=d&response-content-encoding=e", nil)
	for name, v := range map[string]string{"Expires": "never", "Cache-Control": "c", "Content-Language": "fr", "Content-Disposition": "d", "Content-Encoding": "e"} {
		if got := a.header.Get(name); got != v {
			t.Errorf("override %s: got %q, want %q", name, got, v)
		}
	}
}

func TestLimitsOnObjects(t *testing.T) {
	s := newSite(t, "reports")
	put := func(path string, headers ...string) answer { return s.do("LOW", "PUT", path, []byte("x"), headers...) }
	put("/reports/"+strings.Repeat("k", redoubt.MaxKeyBytes)).want(t, 200, "")
	put("/reports/"+strings.Repeat("k", redoubt.MaxKeyBytes+1)).want(t, 400, "KeyTooLongError")
	put("/reports/k", "X-Amz-Meta-A", strings.Repeat("v", maxUserMetaBytes-1)).want(t, 200, "")
	put("/reports/k", "X-Amz-Meta-A", strings.Repeat("v", maxUserMetaBytes)).want(t, 400, "MetadataTooLarge")
	tags := func(n int) string {
		var b []string
		for i := range n {
			b = append(b, "k"+strconv.Itoa(i)+"=v")
		}
		return strings.Join(b, "&")
	}
	put("/reports/k", "X-Amz-Tagging", tags(redoubt.MaxTags)).want(t, 200, "")
	put("/reports/k", "X-Amz-Tagging", tags(redoubt.MaxTags+1)).want(t, 400, "BadRequest")
	put("/reports/k", "X-Amz-Tagging", "a=1&a=2").want(t, 400, "InvalidArgument")
	put("/reports/k", "X-Amz-Tagging", strings.Repeat("k", redoubt.MaxTagKeyRunes)+"=v").want(t, 200, "")
	put("/reports/k", "X-Amz-Tagging", strings.Repeat("k", redoubt.MaxTagKeyRunes+1)+"=v").want(t, 400, "InvalidTag")
	put("/reports/k", "X-Amz-Tagging", "k="+strings.Repeat("v", redoubt.MaxTagValueRunes)).want(t, 200, "")
	put("/reports/k", "X-Amz-Tagging", "k="+strings.Repeat("v", redoubt.MaxTagValueRunes+1)).want(t, 400, "InvalidTag")
	put("/reports/k", "X-Other", strings.Repeat("h", maxHeaderBytes)).want(t, 400, "RequestHeaderSectionTooLarge")
	put("/reports/%00").want(t, 400, "InvalidURI")
	put("/reports/%FF").want(t, 400, "InvalidURI")
	put("/re/k").want(t, 400, "InvalidBucketName")
	put("/Reports/k").want(t, 400, "InvalidBucketName")
	s.do("LOW", "GET", "/reports?prefix=%ff", nil).want(t, 400, "InvalidURI")
	s.do("LOW", "GET", "/reports?prefix=a&prefix=b", nil).want(t, 400, "InvalidArgument")
	s.do("LOW", "GET", "/reports?max-keys=-1", nil).want(t, 400, "InvalidArgument")
	s.do("LOW", "GET", "/reports?max-keys=0", nil).want(t, 200, "")
	s.do("LOW", "GET", "/reports?list-type=2&continuation-token=!", nil).want(t, 400, "InvalidArgument")
	s.do("LOW", "GET", "/reports?list-type=3", nil).want(t, 400, "InvalidArgument")
	s.do("LOW", "GET", "/reports/k?versionId=", nil).want(t, 400, "InvalidArgument")
	for _, n := range []struct {
		number int
		code   string
	}{{1, "NoSuchUpload"}, {10000, "NoSuchUpload"}, {0, "InvalidArgument"}, {10001, "InvalidArgument"}} {
		if a := put("/reports/k?uploadId=u&partNumber=" + strconv.Itoa(n.number)); a.code() != n.code {
			t.Errorf("part %d: got %s, want %s", n.number, a.code(), n.code)
		}
	}
}

func TestDeleteObjectsIsStrict(t *testing.T) {
	s := newSite(t, "reports")
	s.do("LOW", "PUT", "/reports/k", []byte("x")).want(t, 200, "")
	doc := func(n int) []byte {
		return []byte(`<Delete xmlns="` + xmlNamespace + `"><Quiet>true</Quiet>` + strings.Repeat("<Object><Key>k</Key></Object>", n) + "</Delete>")
	}
	s.do("LOW", "POST", "/reports?delete", doc(redoubt.MaxDeletesPerCall)).want(t, 200, "")
	s.do("LOW", "POST", "/reports?delete", doc(redoubt.MaxDeletesPerCall+1)).want(t, 400, "MalformedXML")
	s.do("LOW", "POST", "/reports?delete", doc(0)).want(t, 400, "MalformedXML")
	s.do("LOW", "POST", "/reports?delete", doc(1), "X-Amz-Content-Sha256", hashUnsigned).want(t, 400, "InvalidRequest")
	if a := s.do("LOW", "POST", "/reports?delete", doc(1)); strings.Contains(a.body, "<Deleted>") {
		t.Errorf("quiet is not quiet: %s", a.body)
	}
	for _, body := range []string{
		`<!DOCTYPE x [<!ENTITY e "k">]><Delete><Object><Key>&e;</Key></Object></Delete>`,
		`<Delete><Object><Key>&unknown;</Key></Object></Delete>`,
		`<Delete><Object><Key>k</Key><Key>j</Key></Object></Delete>`,
		`<Delete><Object><Other>k</Other></Object></Delete>`,
		`<Delete><Object><Key>k</Key></Object></Delete><Delete/>`,
		`<Delete><Object><Key>` + "\x00" + `</Key></Object></Delete>`,
		`<Delete><Object><Key>` + "\xff" + `</Key></Object></Delete>`,
		`<Delete xmlns="urn:other"><Object><Key>k</Key></Object></Delete>`,
		`<Delete>text<Object><Key>k</Key></Object></Delete>`,
		`<?xml version="1.0" encoding="latin1"?><Delete><Object><Key>k</Key></Object></Delete>`,
		strings.Repeat("<Delete>", 100) + strings.Repeat("</Delete>", 100), ``, `<Delete>`,
	} {
		if a := s.do("LOW", "POST", "/reports?delete", []byte(body)); a.code() != "MalformedXML" && a.code() != "InvalidURI" {
			t.Errorf("%s: got %d %s", body, a.status, a.code())
		}
	}
	big := append([]byte("<Tagging><TagSet></TagSet>"), []byte(strings.Repeat(" ", maxXMLBytes))...)
	s.do("LOW", "PUT", "/reports?tagging", append(big[:maxXMLBytes-10], "</Tagging>"...)).want(t, 204, "")
	s.do("LOW", "PUT", "/reports?tagging", append(big[:maxXMLBytes-9], "</Tagging>"...)).want(t, 400, "MalformedXML")
}
