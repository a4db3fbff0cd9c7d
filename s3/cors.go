package s3

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"redoubt"
)

// preflight answers OPTIONS: the one question that needs no credential. It tells the bucket's rules and nothing else;
// a bucket without rules and one that is not there answer alike.
func (s *handler) preflight(c *call) error {
	origin, method := c.header("Origin"), c.header("Access-Control-Request-Method")
	if origin == "" || method == "" || c.bucket == "" {
		return &apiError{code: "BadRequest", status: 400, message: "Insufficient information. Origin request header needed."}
	}
	var asked []string
	for _, v := range c.r.Header["Access-Control-Request-Headers"] {
		for h := range strings.SplitSeq(v, ",") {
			if h = strings.ToLower(strings.TrimSpace(h)); h != "" {
				asked = append(asked, h)
			}
		}
	}
	c.set("Vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method")
	rules := s.buckets.BucketCORS(c.ctx, c.bucket)
	for i := range rules {
		if r := &rules[i]; corsMatches(r, origin, method, asked) {
			c.setCORS(r, origin)
			if len(asked) > 0 {
				c.set("Access-Control-Allow-Headers", strings.Join(asked, ", "))
			}
			c.set("Access-Control-Allow-Methods", strings.Join(r.Methods, ", "))
			if r.MaxAgeSeconds > 0 {
				c.set("Access-Control-Max-Age", strconv.Itoa(r.MaxAgeSeconds))
			}
			return c.done(http.StatusOK)
		}
	}
	return errPreflight
}

// answerCORS adds the headers that a browser needs to hand an answer to a page.
func (s *handler) answerCORS(c *call) {
	origin := c.header("Origin")
	if origin == "" || c.bucket == "" {
		return
	}
	rules := s.buckets.BucketCORS(c.ctx, c.bucket)
	for i := range rules {
		if r := &rules[i]; corsMatches(r, origin, c.r.Method, nil) {
			c.set("Vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method")
			c.setCORS(r, origin)
			c.set("Access-Control-Allow-Methods", strings.Join(r.Methods, ", "))
			return
		}
	}
}

func (c *call) setCORS(r *redoubt.CORSRule, origin string) {
	if slices.Contains(r.Origins, "*") {
		c.set("Access-Control-Allow-Origin", "*")
	} else {
		c.set("Access-Control-Allow-Origin", origin)
		c.set("Access-Control-Allow-Credentials", "true")
	}
	if len(r.Expose) > 0 {
		c.set("Access-Control-Expose-Headers", strings.Join(r.Expose, ", "))
	}
}

func corsMatches(r *redoubt.CORSRule, origin, method string, asked []string) bool {
	if !slices.Contains(r.Methods, method) || !slices.ContainsFunc(r.Origins, func(p string) bool { return wildcard(p, origin) }) {
		return false
	}
	for _, h := range asked {
		if !slices.ContainsFunc(r.Headers, func(p string) bool { return wildcard(strings.ToLower(p), h) }) {
			return false
		}
	}
	return true
}

// wildcard matches a pattern with at most one "*".
func wildcard(pattern, s string) bool {
	before, after, found := strings.Cut(pattern, "*")
	if !found {
		return pattern == s
	}
	return len(s) >= len(before)+len(after) && strings.HasPrefix(s, before) && strings.HasSuffix(s, after)
}

// getCORS is GET /BUCKET?cors.
func (s *handler) getCORS(c *call) error {
	b, err := s.buckets.HeadBucket(c.ctx, c.who, c.bucket)
	if err != nil {
		return err
	}
	if len(b.CORS) == 0 {
		return errNoCORS
	}
	x := newXML()
	defer x.release()
	x.root("CORSConfiguration")
	for i := range b.CORS {
		r := &b.CORS[i]
		x.open("CORSRule")
		x.some("ID", r.ID)
		writeTexts(x, "AllowedOrigin", r.Origins)
		writeTexts(x, "AllowedMethod", r.Methods)
		writeTexts(x, "AllowedHeader", r.Headers)
		writeTexts(x, "ExposeHeader", r.Expose)
		if r.MaxAgeSeconds > 0 {
			x.int("MaxAgeSeconds", int64(r.MaxAgeSeconds))
		}
		x.close("CORSRule")
	}
	x.close("CORSConfiguration")
	c.respondXML(http.StatusOK, x)
	return nil
}

func writeTexts(x *xmlWriter, name string, values []string) {
	for _, v := range values {
		x.text(name, v)
	}
}

// putCORS is PUT /BUCKET?cors.
func (s *handler) putCORS(c *call) error {
	doc, err := c.readDocument("CORSConfiguration")
	if err != nil {
		return err
	}
	rules, err := parseCORS(doc)
	if err != nil {
		return err
	}
	return s.change(c, func(b *redoubt.BucketSettings) error { b.CORS = rules; return nil }, http.StatusOK)
}

// deleteCORS is DELETE /BUCKET?cors.
func (s *handler) deleteCORS(c *call) error {
	return s.change(c, func(b *redoubt.BucketSettings) error { b.CORS = nil; return nil }, http.StatusNoContent)
}

func parseCORS(doc *element) (rules []redoubt.CORSRule, err error) {
	err = doc.each(func(kid *element) error {
		if kid.name != "CORSRule" {
			return malformed(kid.name)
		}
		if len(rules) == maxCORSRules {
			return errMalformedXML.say("The CORS configuration has more than 100 rules.")
		}
		r, err := parseCORSRule(kid)
		rules = append(rules, r)
		return err
	})
	if err == nil && len(rules) == 0 {
		err = errMalformedXML
	}
	return rules, err
}

func parseCORSRule(e *element) (r redoubt.CORSRule, err error) {
	seen := map[string]bool{}
	err = e.each(func(kid *element) error {
		lists := map[string]*[]string{"AllowedOrigin": &r.Origins, "AllowedMethod": &r.Methods, "AllowedHeader": &r.Headers, "ExposeHeader": &r.Expose}
		if list := lists[kid.name]; list != nil {
			v := ""
			if err := into(&v)(kid); err != nil {
				return err
			}
			if strings.Count(v, "*") > 1 || v == "" || strings.ContainsAny(v, "\r\n") {
				return errInvalidRequest.say(kid.name + " \"" + v + "\" can not have more than one wildcard.")
			}
			*list = append(*list, v)
			return nil
		}
		if seen[kid.name] {
			return malformed(kid.name)
		}
		seen[kid.name] = true
		switch kid.name {
		case "ID":
			return into(&r.ID)(kid)
		case "MaxAgeSeconds":
			return intoInt(&r.MaxAgeSeconds, 0, 1<<31-1)(kid)
		}
		return malformed(kid.name)
	})
	if err != nil {
		return r, err
	}
	for _, m := range r.Methods {
		if !slices.Contains([]string{"GET", "PUT", "POST", "DELETE", "HEAD"}, m) {
			return r, errInvalidRequest.say("Found unsupported HTTP method in CORS config. Unsupported method is " + m)
		}
	}
	if len(r.Origins) == 0 || len(r.Methods) == 0 || len(r.ID) > 255 {
		return r, malformed("CORSRule")
	}
	return r, nil
}
