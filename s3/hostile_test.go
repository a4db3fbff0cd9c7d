package s3

import (
	"bufio"
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"
	"unicode/utf8"

	"redoubt"
	"redoubt/faketime"
)

// pipeListener hands out one connection that exists in memory, so that its deadlines follow the bubble's clock.
type pipeListener struct {
	conn chan net.Conn
	done chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { close(l.done); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// inBubble serves one connection inside a synctest bubble.
func inBubble(t *testing.T, f func(t *testing.T, s *site, conn net.Conn)) {
	cryptotest.SetGlobalRandom(t, 1) // the FIPS module's own source needs a time that passes
	faketime.Test(t, func(t *testing.T) {
		fk := newFake()
		fk.CreateBucket(t.Context(), redoubt.Credential{}, "reports", redoubt.BucketSettings{})
		l := &pipeListener{make(chan net.Conn, 1), make(chan struct{})}
		srv := &http.Server{Handler: New(optionsOf(fk)), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
		go srv.Serve(l)
		client, server := net.Pipe()
		l.conn <- server
		f(t, &site{fake: fk, t: t, url: "http://node"}, client)
		client.Close()
		srv.Close()
		time.Sleep(time.Minute) // in the bubble: what feeds the connection sees that it is gone
	})
}

func TestAClientThatStallsIsCutOff(t *testing.T) {
	for name, feed := range map[string]func(io.Writer){
		"silence": func(io.Writer) {},
		"single bytes": func(w io.Writer) { // one a second: alive, and far below a KiB in 30 s
			for range 200 {
				time.Sleep(time.Second)
				if _, err := w.Write([]byte("x")); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *site, conn net.Conn) {
				body := bytes.Repeat([]byte("x"), 5000)
				r := s.sign(s.request("PUT", "/reports/k", body), "LOW", body)
				r.Body = nil
				var head bytes.Buffer
				fmt.Fprintf(&head, "PUT /reports/k HTTP/1.1\r\nHost: node\r\nContent-Length: 5000\r\n")
				r.Header.Write(&head)
				head.WriteString("\r\nx")
				began := time.Now()
				conn.Write(head.Bytes())
				go feed(conn)
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				text, _ := io.ReadAll(resp.Body)
				if resp.StatusCode != 400 || !strings.Contains(string(text), "RequestTimeout") {
					t.Errorf("got %d %s", resp.StatusCode, text)
				}
				if d := time.Since(began); d < defaultStall || d > defaultStall+time.Second {
					t.Errorf("cut off after %v, want %v", d, defaultStall)
				}
				if len(s.versions["reports"]) != 0 {
					t.Error("something was stored")
				}
			})
		})
	}
}

func TestAClientThatIsSlowButMovesIsServed(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site, conn net.Conn) {
		body := bytes.Repeat([]byte("x"), 10<<10)
		r := s.sign(s.request("PUT", "/reports/k", body), "LOW", body)
		var head bytes.Buffer
		fmt.Fprintf(&head, "PUT /reports/k HTTP/1.1\r\nHost: node\r\nContent-Length: %d\r\n", len(body))
		r.Header.Write(&head)
		head.WriteString("\r\n")
		conn.Write(head.Bytes())
		go func() {
			for i := 0; i < len(body); i += 1 << 10 {
				time.Sleep(defaultStall - time.Second)
				conn.Write(body[i : i+1<<10])
			}
		}()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("got %v, %v", resp, err)
		}
	})
}

func TestAReaderThatStallsIsCutOff(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site, conn net.Conn) {
		s.store(redoubt.Version{Name: redoubt.ObjectName{Bucket: "reports", Key: "big"}, Label: s.people["LOW"].cred.Working}, make([]byte, 4<<20))
		r := s.sign(s.request("GET", "/reports/big", nil), "LOW", nil)
		var head bytes.Buffer
		head.WriteString("GET /reports/big HTTP/1.1\r\nHost: node\r\n")
		r.Header.Write(&head)
		head.WriteString("\r\n")
		began := time.Now()
		conn.Write(head.Bytes())
		var first [1000]byte
		io.ReadFull(conn, first[:])
		time.Sleep(2 * defaultStall)
		n, _ := io.Copy(io.Discard, conn)
		if n > 2<<20 || time.Since(began) > 3*defaultStall {
			t.Errorf("got %d more bytes after %v", n, time.Since(began))
		}
	})
}

// panicking is a service with a fault that holds content.
type panicking struct{ *fake }

func (panicking) GetObject(context.Context, redoubt.Credential, redoubt.ReadObject) (redoubt.Object, error) {
	panic("the content of a secret")
}

func TestAPanicTellsNothing(t *testing.T) {
	var log bytes.Buffer
	s := newSiteWith(t, true, func(o *Options) {
		o.Objects = panicking{o.Objects.(*fake)}
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
	}, "reports")
	a := s.do("LOW", "GET", "/reports/k", nil).want(t, 500, "InternalError")
	if strings.Contains(a.body, "secret") || strings.Contains(log.String(), "the content") || !strings.Contains(log.String(), a.header.Get("X-Amz-Request-Id")) {
		t.Errorf("got %s, logged %s", a.body, log.String())
	}
}

// torn is an object whose content fails after some bytes.
type torn struct {
	fakeObject
	after int64
}

func (o torn) Reader(off, n int64) io.Reader {
	return io.MultiReader(io.LimitReader(o.fakeObject.Reader(off, n), o.after), failing{})
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, redoubt.Corrupt }

type tearing struct {
	*fake
	after int64
}

func (t tearing) GetObject(ctx context.Context, who redoubt.Credential, in redoubt.ReadObject) (redoubt.Object, error) {
	o, err := t.fake.GetObject(ctx, who, in)
	if err != nil {
		return nil, err
	}
	return torn{o.(fakeObject), t.after}, nil
}

func TestContentThatFailsIsNeverShortenedInSilence(t *testing.T) {
	for _, after := range []int64{0, 1000, 1 << 20} {
		s := newSiteWith(t, true, func(o *Options) { o.Objects = tearing{o.Objects.(*fake), after} }, "reports")
		s.do("LOW", "PUT", "/reports/k", make([]byte, 2<<20)).want(t, 200, "")
		resp, err := s.Do(s.sign(s.request("GET", "/reports/k", nil), "LOW", nil))
		if err != nil {
			continue // cut off before the answer: also a sign
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if after < largeCopy {
			if resp.StatusCode != 500 || resp.Header.Get("Etag") != "" || resp.Header.Get(headerLabel) != "" {
				t.Errorf("after %d: got %d %v %s", after, resp.StatusCode, resp.Header, body)
			}
		} else if err == nil {
			t.Errorf("after %d: got %d bytes and no error", after, len(body))
		}
	}
}

func TestTheXMLWriterAgreesWithEncodingXML(t *testing.T) {
	for _, s := range []string{"plain", "<&>\"'", "a\tb\nc\rd", "\u00fc\u4e16\U0001F600", "\x00\x01\x1f", "\xff\xfe", "\ufffe\uffff", "\ud7ff\ue000", "]]>", ""} {
		var want bytes.Buffer
		xml.EscapeText(&want, []byte(s))
		if got := appendEscaped(nil, s); string(got) != want.String() {
			t.Errorf("%q: got %q, want %q", s, got, want.String())
		}
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 67_000_000, time.UTC)
	if got := string(appendTime(nil, at)); got != at.Format("2006-01-02T15:04:05.000Z") {
		t.Errorf("got %s", got)
	}
	if got := string(appendHTTPTime(nil, at)); got != at.Format(http.TimeFormat) {
		t.Errorf("got %s", got)
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("a<b>\x00\xff\ufffe")
	f.Fuzz(func(t *testing.T, s string) {
		var want bytes.Buffer
		xml.EscapeText(&want, []byte(s))
		if got := appendEscaped(nil, s); string(got) != want.String() {
			t.Errorf("%q: got %q, want %q", s, got, want.String())
		}
		back, ok := unescapePath(string(appendURI(nil, s, true)))
		if !ok || back != s {
			t.Errorf("%q escapes to %q", s, back)
		}
	})
}

func FuzzXML(f *testing.F) {
	f.Add([]byte(`<Delete><Object><Key>k</Key></Object></Delete>`))
	f.Add([]byte(`<LifecycleConfiguration><Rule><Status>Enabled</Status><Filter/><Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>`))
	f.Add([]byte(`<!DOCTYPE a [<!ENTITY b "c">]><Tagging><TagSet><Tag><Key>&b;</Key></Tag></TagSet></Tagging>`))
	f.Add([]byte(`<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>"x"</ETag></Part></CompleteMultipartUpload>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		doc, err := parseXML(body, "Delete", "LifecycleConfiguration", "CORSConfiguration", "ObjectLockConfiguration", "ServerSideEncryptionConfiguration")
		if err == nil && bytes.Contains(body, []byte("<!DOCTYPE")) && !bytes.Contains(body, []byte("<!--")) && !bytes.Contains(body, []byte("<![CDATA[")) {
			t.Errorf("accepted a DTD: %q", body)
		}
		if err == nil {
			parseLifecycle(doc)
			parseCORS(doc)
			parseLockConfig(doc)
			parseEncryption(doc)
		}
		c := &call{r: httptest.NewRequest("POST", "/b?delete", nil)}
		if entries, _, err := c.parseDelete(body); err == nil {
			for _, e := range entries {
				if !utf8.ValidString(e.in.Name.Key) || len(e.in.Name.Key) > redoubt.MaxKeyBytes || e.in.Name.Key == "" {
					t.Errorf("accepted key %q", e.in.Name.Key)
				}
			}
		}
		if parts, err := parseComplete(body); err == nil && len(parts) > redoubt.MaxParts {
			t.Errorf("accepted %d parts", len(parts))
		}
		if tags, err := parseTagging(body, redoubt.MaxTags); err == nil && len(tags) > redoubt.MaxTags {
			t.Errorf("accepted %d tags", len(tags))
		}
	})
}

func FuzzPostPolicy(f *testing.F) {
	f.Add([]byte(`{"expiration":"2026-01-01T00:00:00Z","conditions":[{"bucket":"b"},["eq","$key","k"],["starts-with","$x","y"],["content-length-range",1,2]]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := parsePostPolicy(body)
		if err == nil && p.check(map[string]string{"no-policy-names-this": "x"}, "b") == nil {
			for _, c := range p.conditions {
				if c.field == "no-policy-names-this" {
					return
				}
			}
			t.Errorf("%q lets an uncovered field through", body)
		}
	})
}

func FuzzBucketPolicy(f *testing.F) {
	f.Add([]byte(`{"Statement":{"Effect":"Deny","Principal":"*","Action":"s3:*","Resource":["arn:aws:s3:::b","arn:aws:s3:::b/x*"]}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		grants, err := parsePolicy(body, "b")
		if err != nil {
			return
		}
		if len(grants) == 0 {
			t.Errorf("%q says nothing", body)
		}
		for _, g := range grants {
			if g.Bucket != "b" || g.Subject == "" || strings.ContainsAny(g.Prefix, "*?") {
				t.Errorf("%q gives %+v", body, g)
			}
		}
	})
}
