package s3

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"redoubt"
)

// chunkWriter frames content as a client does, written from the S3 API reference and not from our reader.
type chunkWriter struct {
	key  []byte
	date string
	prev string
	out  bytes.Buffer
}

func (w *chunkWriter) sign(kind string, middle string, data []byte) string {
	sum := sha256.Sum256(data)
	m := hmac.New(sha256.New, w.key)
	fmt.Fprintf(m, "%s\n%s\n%s/%s/s3/aws4_request\n%s\n%s%s", kind, w.date, w.date[:8], testRegion, w.prev, middle, hex.EncodeToString(sum[:]))
	w.prev = hex.EncodeToString(m.Sum(nil))
	return w.prev
}

func (w *chunkWriter) chunk(data []byte) {
	fmt.Fprintf(&w.out, "%x;chunk-signature=%s\r\n%s", len(data), w.sign("AWS4-HMAC-SHA256-PAYLOAD", hashEmpty+"\n", data), data)
	if len(data) > 0 {
		w.out.WriteString("\r\n")
	}
}

// streamed makes a signed streaming PUT of the pieces.
func (s *site) streamed(content, trailer string, change func(*bytes.Buffer), pieces ...[]byte) *http.Request {
	size := 0
	for _, p := range pieces {
		size += len(p)
	}
	headers := []string{"X-Amz-Content-Sha256", content, "X-Amz-Decoded-Content-Length", strconv.Itoa(size), "Content-Encoding", "aws-chunked,gzip"}
	if trailer != "" {
		headers = append(headers, "X-Amz-Trailer", strings.SplitN(trailer, ":", 2)[0])
	}
	r := s.request("PUT", "/reports/k", nil, headers...)
	s.sign(r, "LOW", nil)
	date := r.Header.Get("X-Amz-Date")
	_, sig, _ := strings.Cut(r.Header.Get("Authorization"), "Signature=")
	w := &chunkWriter{key: signingKey(s.people["LOW"].secret, redoubt.Scope{Date: date[:8], Region: testRegion, Service: "s3"}), date: date, prev: sig}
	for _, p := range pieces {
		w.chunk(p)
	}
	w.chunk(nil)
	if trailer != "" {
		fmt.Fprintf(&w.out, "%s\r\nx-amz-trailer-signature:%s\r\n", trailer, w.sign("AWS4-HMAC-SHA256-TRAILER", "", []byte(trailer+"\n")))
	}
	w.out.WriteString("\r\n")
	if change != nil {
		change(&w.out)
	}
	r.Body, r.ContentLength = io.NopCloser(&w.out), int64(w.out.Len())
	return r
}

func pieces(sizes ...int) (all [][]byte, whole []byte) {
	for _, n := range sizes {
		p := make([]byte, n)
		rand.Read(p)
		all, whole = append(all, p), append(whole, p...)
	}
	return all, whole
}

func crcTrailer(b []byte) string {
	return "x-amz-checksum-crc32:" + base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(b)))
}

func TestSignedChunksArriveWhole(t *testing.T) {
	s := newSiteWith(t, false, nil, "reports")
	for _, sizes := range [][]int{{}, {1}, {8192, 1}, {65536, 65536, 100}, {200000}} {
		all, whole := pieces(sizes...)
		s.send(s.streamed(hashStream, "", nil, all...)).want(t, 200, "")
		got := s.versions["reports"]["k"][0]
		if !bytes.Equal(got.content, whole) || got.Attributes.ContentEncoding != "gzip" {
			t.Errorf("%v: got %d bytes, encoding %q", sizes, len(got.content), got.Attributes.ContentEncoding)
		}
		s.send(s.streamed(hashStreamTrailer, crcTrailer(whole), nil, all...)).want(t, 200, "")
		if got := s.versions["reports"]["k"][0]; !bytes.Equal(got.content, whole) || got.Checksums.CRC32 == "" {
			t.Errorf("%v: got %d bytes with a trailer", sizes, len(got.content))
		}
	}
}

func TestAnyBitOfAChunkedBodyCounts(t *testing.T) {
	s := newSiteWith(t, false, nil, "reports")
	all, whole := pieces(8192, 100)
	n := s.streamed(hashStreamTrailer, crcTrailer(whole), nil, all...).ContentLength
	for at := int64(0); at < n; at += 1 + n/300 {
		r := s.streamed(hashStreamTrailer, crcTrailer(whole), func(b *bytes.Buffer) { b.Bytes()[at] ^= 1 }, all...)
		if a := s.send(r); a.status == 200 {
			got := s.versions["reports"]["k"][0].content
			t.Errorf("byte %d flipped: accepted (content equal: %v)", at, bytes.Equal(got, whole))
		}
	}
}

func TestChunkedBodiesAreHeldToTheirForm(t *testing.T) {
	s := newSite(t, "reports")
	all, whole := pieces(8192, 100)
	small, _ := pieces(8191, 100)
	for name, c := range map[string]struct {
		r    *http.Request
		code string
	}{
		"truncated":        {s.streamed(hashStream, "", func(b *bytes.Buffer) { b.Truncate(b.Len() - 200) }, all...), "IncompleteBody"},
		"trailing bytes":   {s.streamed(hashStream, "", func(b *bytes.Buffer) { b.WriteString("x") }, all...), "MalformedTrailerError"},
		"a small chunk":    {s.streamed(hashStream, "", nil, small...), "InvalidChunkSizeError"},
		"a wrong checksum": {s.streamed(hashStreamTrailer, crcTrailer(whole[1:]), nil, all...), "BadDigest"},
		"no trailer":       {s.streamed(hashStreamTrailer, "", nil, all...), "InvalidRequest"},
		"many trailers": {s.streamed(hashStreamTrailer, crcTrailer(whole), func(b *bytes.Buffer) {
			b.WriteString(strings.Repeat("a:b\r\n", maxTrailers))
		}, all...), "MalformedTrailerError"},
		"a long trailer": {s.streamed(hashStreamTrailer, crcTrailer(whole), func(b *bytes.Buffer) {
			b.WriteString(strings.Repeat("\r\n", maxTrailerBytes))
		}, all...), "MalformedTrailerError"},
		"a long header": {s.streamed(hashStream, "", func(b *bytes.Buffer) {
			rest := b.String()
			b.Reset()
			b.WriteString(strings.Repeat("0", maxChunkHeader) + rest)
		}, all...), "IncompleteBody"},
		"another stream": {s.streamed("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "", nil, all...), "NotImplemented"},
	} {
		t.Run(name, func(t *testing.T) {
			if a := s.send(c.r); a.code() != c.code {
				t.Errorf("got %d %s, want %s", a.status, a.code(), c.code)
			}
		})
	}
	if n := len(s.versions["reports"]["k"]); n != 0 {
		t.Errorf("got %d versions, want none", n)
	}
}

func TestUnsignedChunksWithATrailer(t *testing.T) {
	s := newSite(t, "reports")
	body := "5\r\nhello\r\n1\r\n!\r\n0\r\n" + crcTrailer([]byte("hello!")) + "\r\n\r\n"
	put := func(body string) answer {
		r := s.request("PUT", "/reports/k", nil, "X-Amz-Content-Sha256", hashUnsignedTrailer, "X-Amz-Decoded-Content-Length", "6", "X-Amz-Trailer", "x-amz-checksum-crc32")
		s.sign(r, "LOW", nil)
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		return s.send(r)
	}
	put(body).want(t, 200, "")
	put(strings.Replace(body, "hello", "hallo", 1)).want(t, 400, "BadDigest")
	put(strings.Replace(body, "1\r\n!\r\n", "", 1)).want(t, 400, "IncompleteBody")
	put(strings.Replace(body, "1\r\n!", "2\r\n!!", 1)).want(t, 400, "IncompleteBody")
}

func FuzzChunkReader(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"), int64(5), false)
	f.Add([]byte("5;chunk-signature="+strings.Repeat("0", 64)+"\r\nhello\r\n0;chunk-signature="+strings.Repeat("0", 64)+"\r\n\r\n"), int64(5), true)
	f.Fuzz(func(t *testing.T, body []byte, size int64, signed bool) {
		sig := &signature{content: hashUnsignedTrailer, date: "20260101T000000Z"}
		if signed {
			sig.content = hashStream
		}
		read := func(r io.Reader) (string, error) {
			c := newChunkReader(r, sig, size)
			if !signed {
				c.trailer = "x-amz-checksum-crc32"
			}
			b, err := io.ReadAll(c)
			return string(b), err
		}
		whole, err := read(bytes.NewReader(body))
		if err == nil && (signed || int64(len(whole)) != size) {
			t.Errorf("accepted %d bytes for %d (signed %v)", len(whole), size, signed)
		}
		piecewise, err2 := read(iotest.OneByteReader(bytes.NewReader(body)))
		if (err == nil) != (err2 == nil) || err == nil && whole != piecewise {
			t.Errorf("reading byte by byte gives %q %v, at once %q %v", piecewise, err2, whole, err)
		}
	})
}
