package compute

import (
	"maps"
	"net/http"
	"slices"
	"testing"
)

func TestAServiceSpeaksForItselfAlone(t *testing.T) {
	own := []string{"Content-Type", "Content-Language", "Content-Encoding", "Content-Disposition", "Content-Range", "Accept-Ranges", "Cache-Control", "Etag", "Expires", "Last-Modified",
		"Location", "Retry-After", "Vary", "Allow", "X-Total-Count", "X-Request-Id"}
	never := []string{"Content-Security-Policy", "Content-Security-Policy-Report-Only", "Set-Cookie", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Clear-Site-Data",
		"Strict-Transport-Security", "Alt-Svc", "Www-Authenticate", "Proxy-Authenticate", "Refresh", "Link", "Nel", "Report-To", "Reporting-Endpoints", "Service-Worker-Allowed", "Sourcemap",
		"Cross-Origin-Resource-Policy", "Cross-Origin-Opener-Policy", "Referrer-Policy", "Permissions-Policy", "Origin-Agent-Cluster", "Public-Key-Pins", "Timing-Allow-Origin", "Server", "Date",
		"Redoubt-Label", "Redoubt-Subject", "Connection", "Keep-Alive", "Transfer-Encoding", "Trailer", "Te", "Upgrade", "Content-Length", "Status", "X-", "X-Content-Type-Options",
		"X-Content-Security-Policy", "X-Frame-Options", "X-Frame_options", "X-Xss-Protection", "X-Accel-Redirect", "X-Sendfile", "X-Forwarded-For", "X-Redoubt-Label", "X_total"}
	from := http.Header{}
	for _, name := range append(slices.Clone(own), never...) {
		from[name] = []string{"the service's"}
	}
	from["x-lower"] = []string{"the service's"} // as a driver may give it
	to := http.Header{"Redoubt-Label": {"SECRET"}, "Content-Security-Policy": {"sandbox"}, "Vary": {"the node's"}}
	want := maps.Clone(to)
	for _, name := range append(own, "X-Lower") {
		if name != "Vary" {
			want[name] = []string{"the service's"}
		}
	}
	AnswerHeader(to, from)
	for name := range want {
		if !slices.Equal(to[name], want[name]) {
			t.Errorf("%s is %q, want %q", name, to[name], want[name])
		}
	}
	for name := range to {
		if _, ok := want[name]; !ok {
			t.Errorf("%s is passed on", name)
		}
	}
}
