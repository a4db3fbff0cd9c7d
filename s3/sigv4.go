package s3

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"time"

	"redoubt"
)

// SigV4, from "Authenticating Requests (AWS Signature Version 4)" of the S3 API reference.
const (
	sigAlgorithm  = "AWS4-HMAC-SHA256"
	sigService    = "s3"
	sigTerminator = "aws4_request"
	sigTimeFormat = "20060102T150405Z"

	hashUnsigned        = "UNSIGNED-PAYLOAD"
	hashEmpty           = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	hashStream          = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	hashStreamTrailer   = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
	hashUnsignedTrailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
)

// signature is what a request says about itself, and the key that proved it.
type signature struct {
	accessKey string
	scope     redoubt.Scope
	signed    []string // header names, lower case, sorted
	given     [32]byte
	date      string // as signed
	time      time.Time
	content   string // x-amz-content-sha256 as signed
	presigned bool
	expires   time.Duration // of a presigned request
	key       [32]byte      // signing key, for chunks
}

// scopeText is DATE/REGION/s3/aws4_request.
func (g *signature) appendScope(b []byte) []byte {
	b = append(b, g.scope.Date...)
	b = append(append(b, '/'), g.scope.Region...)
	b = append(append(b, '/'), g.scope.Service...)
	return append(append(b, '/'), sigTerminator...)
}

// authenticate proves who asks, and fills c.who and c.sig. Failures are recorded.
func (s *handler) authenticate(c *call) error {
	err := verify(s, c)
	if err != nil {
		s.refused(c, err)
	}
	return err
}

// refused records a failure to authenticate; a fault of ours is none.
func (s *handler) refused(c *call, err error) {
	if answer := answerFor(err, c.form); answer.status < http.StatusInternalServerError {
		s.auth.Refused(c.ctx, c.r.RemoteAddr, answer.code)
	}
}

// verify is the whole of SigV4 for a request, but for its content.
func verify(s *handler, c *call) error {
	if err := c.readSignature(); err != nil {
		return err
	}
	if err := s.checkScope(&c.sig); err != nil {
		return err
	}
	if err := s.checkTime(&c.sig); err != nil {
		return err
	}
	if err := c.checkSigned(); err != nil {
		return err
	}
	key, who, err := s.auth.SigningKey(c.ctx, c.sig.accessKey, c.sig.scope)
	if err != nil {
		return err
	}
	c.sig.key = key
	if !c.signatureMatches() {
		return errSignature
	}
	c.who = who
	return c.hoist()
}

// readSignature finds the one place where the request is signed.
func (c *call) readSignature() error {
	header, err := c.single("Authorization")
	if err != nil {
		return err
	}
	inQuery := c.query.has("X-Amz-Signature") || c.query.has("X-Amz-Algorithm") || c.query.has("X-Amz-Credential")
	switch {
	case c.query.has("AWSAccessKeyId") || strings.HasPrefix(header, "AWS "):
		return errInvalidRequest.say("The authorization mechanism that you have provided is not supported. Please use AWS4-HMAC-SHA256.")
	case header != "" && inQuery:
		return errInvalidArgument.say("Only one auth mechanism allowed.")
	case c.header("X-Amz-Security-Token") != "" || c.query.hasHeader("X-Amz-Security-Token"):
		return errInvalidToken
	case inQuery:
		return c.sig.fromQuery(c)
	case header == "":
		return errNoAuth
	}
	if err := c.sig.parseHeader(header); err != nil {
		return err
	}
	return c.sig.datedByHeader(c)
}

// parseHeader reads "AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…", each part once.
func (g *signature) parseHeader(header string) error {
	rest, ok := strings.CutPrefix(header, sigAlgorithm)
	if !ok {
		return errInvalidRequest.say("The authorization mechanism that you have provided is not supported. Please use AWS4-HMAC-SHA256.")
	}
	if rest == "" || rest[0] != ' ' {
		return errBadAuth
	}
	var credential, signed, sig string
	for rest != "" {
		var part string
		part, rest, _ = cut(rest, ',')
		name, value, _ := cut(strings.TrimSpace(part), '=')
		field := &sig
		switch name {
		case "Credential":
			field = &credential
		case "SignedHeaders":
			field = &signed
		case "Signature":
		default:
			return errBadAuth
		}
		if *field != "" || value == "" {
			return errBadAuth
		}
		*field = value
	}
	if !g.parseCredential(credential) || !g.parseSigned(signed) || !g.parseGiven(sig) {
		return errBadAuth
	}
	return nil
}

// parseCredential reads ACCESSKEY/DATE/REGION/SERVICE/aws4_request from the right: an access key may hold a slash.
func (g *signature) parseCredential(s string) bool {
	parts := [4]string{}
	for i := range parts {
		at := strings.LastIndexByte(s, '/')
		if at < 0 {
			return false
		}
		parts[i], s = s[at+1:], s[:at]
	}
	g.accessKey = s
	g.scope = redoubt.Scope{Service: parts[1], Region: parts[2], Date: parts[3]}
	return s != "" && parts[0] == sigTerminator && len(g.scope.Date) == 8 && len(s) <= 128
}

// parseSigned reads the names of the signed headers: lower case, sorted, each once.
func (g *signature) parseSigned(s string) bool {
	if s == "" || len(s) > maxHeaderBytes {
		return false
	}
	g.signed = strings.Split(s, ";")
	for i, name := range g.signed {
		if name == "" || strings.ToLower(name) != name || i > 0 && g.signed[i-1] >= name {
			return false
		}
	}
	return true
}

func (g *signature) parseGiven(s string) bool {
	if len(s) != 64 {
		return false
	}
	_, err := hex.Decode(g.given[:], []byte(s))
	return err == nil
}

// datedByHeader takes time and content digest from the headers.
func (g *signature) datedByHeader(c *call) error {
	var err error
	if g.content, err = c.single("X-Amz-Content-Sha256"); err != nil {
		return err
	}
	if g.content == "" {
		return errInvalidRequest.say("Missing required header for this request: x-amz-content-sha256")
	}
	if date := c.header("X-Amz-Date"); date != "" {
		g.date = date
		g.time, err = time.Parse(sigTimeFormat, date)
	} else if date = c.header("Date"); date != "" && g.covers("date") {
		if g.time, err = http.ParseTime(date); err == nil {
			g.date = g.time.UTC().Format(sigTimeFormat)
		}
	} else {
		return errAccessDenied.say("AWS authentication requires a valid Date or x-amz-date header.")
	}
	if err != nil {
		return errAccessDenied.say("AWS authentication requires a valid Date or x-amz-date header.")
	}
	return nil
}

// fromQuery reads a presigned request.
func (g *signature) fromQuery(c *call) error {
	g.presigned = true
	if c.query.get("X-Amz-Algorithm") != sigAlgorithm {
		return errBadAuthQuery.say("X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\".")
	}
	if !g.parseCredential(c.query.get("X-Amz-Credential")) || !g.parseSigned(c.query.get("X-Amz-SignedHeaders")) ||
		!g.parseGiven(c.query.get("X-Amz-Signature")) {
		return errBadAuthQuery
	}
	var err error
	g.date = c.query.get("X-Amz-Date")
	if g.time, err = time.Parse(sigTimeFormat, g.date); err != nil {
		return errBadAuthQuery.say("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\".")
	}
	seconds, err := strconv.ParseInt(c.query.get("X-Amz-Expires"), 10, 64)
	if err != nil || seconds < 1 || seconds > maxPresignSeconds {
		return errBadAuthQuery.say("X-Amz-Expires must be between 1 and 604800 seconds.")
	}
	g.expires = time.Duration(seconds) * time.Second
	g.content = hashUnsigned
	if v := c.query.get("X-Amz-Content-Sha256"); v != "" {
		g.content = v
	}
	if v := c.header("X-Amz-Content-Sha256"); v != "" {
		if c.query.has("X-Amz-Content-Sha256") && v != g.content {
			return errBadAuthQuery.say("x-amz-content-sha256 is given twice.")
		}
		g.content = v
	}
	return nil
}

// checkScope holds the credential scope to this region, this service and the day of the request.
func (s *handler) checkScope(g *signature) error {
	bad := errBadAuth
	if g.presigned {
		bad = errBadAuthQuery
	}
	switch {
	case g.scope.Service != sigService:
		return bad.say("The credential is malformed; incorrect service. This endpoint belongs to \"s3\".")
	case g.scope.Region != s.region && g.scope.Region != unsetRegion:
		return bad.say("The region in the credential is wrong; expecting '"+s.region+"'.").with("Region", s.region)
	case !strings.HasPrefix(g.date, g.scope.Date):
		return bad.say("The date in the credential scope is not that of the request.")
	}
	return nil
}

// checkTime bounds how far a request may be from now.
func (s *handler) checkTime(g *signature) error {
	now := s.clock()
	if !g.presigned {
		if d := now.Sub(g.time); d > clockSkew || d < -clockSkew {
			return errTimeSkewed.with("RequestTime", g.date).with("ServerTime", now.UTC().Format(time.RFC3339)).
				with("MaxAllowedSkewMilliseconds", strconv.FormatInt(clockSkew.Milliseconds(), 10))
		}
		return nil
	}
	if g.time.Sub(now) > clockSkew {
		return errAccessDenied.say("Request is not valid yet.")
	}
	if now.Sub(g.time) > g.expires {
		return errAccessDenied.say("Request has expired.")
	}
	return nil
}

// checkSigned refuses a request that carries what its signature does not cover: host and every x-amz- header.
// x-amz-content-sha256 needs no cover of its own: it stands in the string that is signed.
func (c *call) checkSigned() error {
	if !c.sig.covers("host") {
		return errNotSigned.with("HeadersNotSigned", "host")
	}
	for name := range c.r.Header {
		if len(name) > 6 && name[:6] == "X-Amz-" && name != "X-Amz-Content-Sha256" {
			if lower := strings.ToLower(name); !c.sig.covers(lower) {
				return errNotSigned.with("HeadersNotSigned", lower)
			}
		}
	}
	return nil
}

func (g *signature) covers(name string) bool {
	for _, s := range g.signed {
		if s == name {
			return true
		}
	}
	return false
}

// signatureMatches computes the signature and compares it in constant time. The path is taken as S3 writes it
// and, should that not match, as the client did: both name the same key, so neither can stand for another.
func (c *call) signatureMatches() bool {
	mac := hmac.New(sha256.New, c.sig.key[:])
	buf := pathPool.Get().(*[]byte)
	defer pathPool.Put(buf)
	*buf = appendURI((*buf)[:0], c.r.URL.Path, false)
	canonical := string(*buf)
	if c.signatureFor(mac, canonical) {
		return true
	}
	sent := c.resource()
	return sent != canonical && strings.HasPrefix(sent, "/") && c.signatureFor(mac, sent)
}

func (c *call) signatureFor(mac hash.Hash, path string) bool {
	buf := pathPool.Get().(*[]byte)
	defer pathPool.Put(buf)
	*buf = c.appendCanonical((*buf)[:0], path)
	sum := sha256.Sum256(*buf)
	*buf = c.sig.appendStringToSign((*buf)[:0], sum)
	mac.Reset()
	mac.Write(*buf)
	var want [32]byte
	return hmac.Equal(mac.Sum(want[:0]), c.sig.given[:])
}

func (g *signature) appendStringToSign(b []byte, canonical [32]byte) []byte {
	b = append(b, sigAlgorithm...)
	b = append(append(b, '\n'), g.date...)
	b = append(b, '\n')
	b = g.appendScope(b)
	b = append(b, '\n')
	return hex.AppendEncode(b, canonical[:])
}

// hoist turns x-amz- parameters of the query into headers, where SDKs of some languages put them when they
// presign; they are signed there. One in both places is refused, so that no label can be asked for twice.
func (c *call) hoist() error {
	for _, p := range c.query {
		if len(p.name) < 6 || !strings.EqualFold(p.name[:6], "x-amz-") {
			continue
		}
		name := http.CanonicalHeaderKey(p.name)
		switch name {
		case "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-Signedheaders", "X-Amz-Signature", "X-Amz-Content-Sha256":
			continue
		}
		if c.r.Header[name] != nil {
			return invalid(p.name, p.value, "The header is given in the query as well.")
		}
		if !headerName(p.name) || !headerValue(p.value) {
			return invalid(p.name, p.value, notAHeader)
		}
		c.r.Header[name] = []string{p.value}
	}
	return nil
}

// unsetRegion is what clients sign with when they were told no region. It is taken as ours: the region is part of
// what the signature covers either way.
const unsetRegion = "us-east-1"
