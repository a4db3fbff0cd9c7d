package main

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// client is one connection that signs as every S3 client does (SigV4, signed payload) and
// costs as little as it can: the machine's two cores are the server's too.
type client struct {
	srv  *server
	conn net.Conn
	r    *bufio.Reader
	buf  []byte
	day  string
	key  []byte
	want []byte // the answer must hold this

	accept int // a status beside 2xx that is no failure

	precedence string    // of what it puts; empty: none is said
	body       io.Writer // where an answer's body goes; nil: nowhere
	version    string    // that the last answer named
	status     int       // of the last answer
}

const precedenceHeader = "x-amz-meta-redoubt-precedence"

const emptyDigest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func (s *server) dial() (*client, error) {
	var conn net.Conn
	dial := func() (err error) {
		conn, err = net.Dial("tcp", s.addr)
		return err
	}
	err := error(nil)
	if s.namespace == "" {
		err = dial()
	} else {
		err = within(s.namespace, dial)
	}
	if err != nil {
		return nil, err
	}
	return &client{srv: s, conn: conn, r: bufio.NewReaderSize(conn, 64<<10)}, nil
}

func (c *client) close() { c.conn.Close() }

func mac(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	io.WriteString(m, text)
	return m.Sum(nil)
}

// do sends one request and reads its answer to the end. query is canonical already.
func (c *client) do(method, path, query string, body []byte, check func(int64) error) error {
	now := time.Now().UTC()
	stamp, day := now.Format("20060102T150405Z"), now.Format("20060102")
	s := c.srv
	if day != c.day {
		c.day, c.key = day, mac(mac(mac(mac([]byte("AWS4"+s.secret), day), s.region), "s3"), "aws4_request")
	}
	digest := emptyDigest
	if len(body) > 0 {
		sum := sha256.Sum256(body)
		digest = hex.EncodeToString(sum[:])
	}
	headers, signed, urgent := "host:"+s.addr+"\nx-amz-content-sha256:"+digest+"\nx-amz-date:"+stamp+"\n", "host;x-amz-content-sha256;x-amz-date", ""
	if c.precedence != "" && method == "PUT" {
		headers += precedenceHeader + ":" + c.precedence + "\n"
		signed += ";" + precedenceHeader
		urgent = precedenceHeader + ": " + c.precedence + "\r\n"
	}
	canonical := method + "\n" + path + "\n" + query + "\n" + headers + "\n" + signed + "\n" + digest
	sum := sha256.Sum256([]byte(canonical))
	scope := day + "/" + s.region + "/s3/aws4_request"
	signature := hex.EncodeToString(mac(c.key, "AWS4-HMAC-SHA256\n"+stamp+"\n"+scope+"\n"+hex.EncodeToString(sum[:])))
	target := path
	if query != "" {
		target += "?" + query
	}
	b := append(c.buf[:0], method+" "+target+" HTTP/1.1\r\nHost: "+s.addr+"\r\nX-Amz-Content-Sha256: "+digest+"\r\nX-Amz-Date: "+stamp+
		"\r\nAuthorization: AWS4-HMAC-SHA256 Credential="+s.access+"/"+scope+", SignedHeaders="+signed+", Signature="+signature+"\r\n"+urgent...)
	if method == "PUT" {
		b = append(b, "Content-Length: "+strconv.Itoa(len(body))+"\r\n"...)
	}
	b = append(b, "\r\n"...)
	small := len(body) <= 64<<10
	if small {
		b = append(b, body...)
	}
	c.buf = b
	if _, err := c.conn.Write(b); err != nil {
		return err
	}
	if !small {
		if _, err := c.conn.Write(body); err != nil {
			return err
		}
	}
	res, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	c.version, c.status = res.Header.Get("X-Amz-Version-Id"), res.StatusCode
	if res.StatusCode == c.accept {
		_, err := io.Copy(io.Discard, res.Body)
		return err
	}
	if res.StatusCode/100 != 2 || c.want != nil {
		text, err := io.ReadAll(io.LimitReader(res.Body, 8<<20))
		switch {
		case err != nil:
			return err
		case res.StatusCode/100 != 2:
			return fmt.Errorf("%s %s: %s: %.300s", method, path, res.Status, text)
		case !bytes.Contains(text, c.want):
			return fmt.Errorf("%s %s: the answer lacks %s", method, path, c.want)
		}
		return nil
	}
	got, err := io.Copy(cmp.Or[io.Writer](c.body, io.Discard), res.Body)
	if err == nil && check != nil {
		err = check(got)
	}
	return err
}
