package enclave

import (
	"testing"
)

func TestARaisedNameIsTheSameAtEveryHop(t *testing.T) {
	c := openChain(t)
	u := func(w *world) string { return w.in(w.as("u-analyst", ""), "unclass.reports", "a") }
	c.unclass.put(c.unclass.as("u-analyst", ""), "a", "weather", "")
	c.raise(c.unclass, c.secret)
	if got := u(c.secret); got != "weather" {
		t.Errorf("at secret: %q", got)
	}
	c.raise(c.secret, c.ts)
	if got := u(c.ts); got != "weather" {
		t.Errorf("at topsecret: %q", got)
	}
	c.nothing(c.unclass, c.secret)
	c.nothing(c.secret, c.ts)
}
