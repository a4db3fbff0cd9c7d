package compute

import (
	"net/http"
	"strings"
)

// AnswerHeader copies of the header of a service's answer what is the service's to say. The rest is dropped: what would speak for the node to whoever
// shows the answer, or to a proxy before the node (cookies, transport security, policies of a page, what other pages may read, redirects within a
// proxy), and what is of one connection. What the node has said itself stands. Drivers write no other header.
func AnswerHeader(to, from http.Header) {
	for name, values := range from {
		name = http.CanonicalHeaderKey(name)
		if _, said := to[name]; !said && ofService(name) {
			to[name] = values
		}
	}
}

func ofService(name string) bool {
	switch name {
	case "Accept-Ranges", "Allow", "Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Range", "Content-Type", "Etag", "Expires",
		"Last-Modified", "Location", "Retry-After", "Vary":
		return true
	}
	own, ok := strings.CutPrefix(name, "X-")
	if !ok || own == "" || strings.Contains(name, "_") { // some take "_" for "-"
		return false
	}
	for _, obeyed := range obeyed {
		if strings.HasPrefix(own, obeyed) {
			return false
		}
	}
	return true
}

// obeyed are beginnings of names behind X- that browsers or proxies do as they say.
var obeyed = []string{"Accel-", "Amz-", "Content-", "Dns-", "Download-", "Forwarded-", "Frame-", "Lighttpd-", "Litespeed-", "Original-", "Permitted-", "Real-", "Redoubt-",
	"Reproxy-", "Rewrite-", "Robots-", "Sendfile", "Sourcemap", "Ua-", "Webkit-", "Xss-"}
