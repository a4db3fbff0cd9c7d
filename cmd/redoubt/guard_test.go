package main

import (
	"bytes"
	"testing"

	"redoubt"
)

// TestGuardStatusSaysWhatToDoAboutWhatWasPassedOver, in the words of the commands that do it.
func TestGuardStatusSaysWhatToDoAboutWhatWasPassedOver(t *testing.T) {
	for n, versions := range map[int]string{1: "1 version", 2: "2 versions"} {
		var out bytes.Buffer
		a := &app{out: &out, err: &out}
		a.passedOver("unclass", redoubt.RaiseStatus{Peer: "secret", Unread: n})
		want := "redoubt: not raised to secret: " + versions + ", which did not read, or has more than a bundle may (1 TiB); what came after was\n" +
			"hint: redoubt fsck unclass names what is damaged; when it reads again: redoubt guard refeed GUARD --anew --as ADMIN@unclass\n"
		if out.String() != want {
			t.Errorf("got %q, want %q", &out, want)
		}
		out.Reset()
		a.notGiven("unclass", redoubt.AgreementStatus{Partner: "gbr", Unread: n})
		want = "redoubt: not given to gbr: " + versions + ", which did not read, or has more than a bundle may (1 TiB); what came after was\n" +
			"hint: redoubt fsck unclass names what is damaged; when it reads again it is given within an hour, and above 16 MiB once it is put anew\n"
		if out.String() != want {
			t.Errorf("got %q, want %q", &out, want)
		}
	}
}
