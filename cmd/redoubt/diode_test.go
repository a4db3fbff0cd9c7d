package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"redoubt/bundle"
	"redoubt/keys"
)

func TestTheHelpsMakerIsOneThatTheCommandTakes(t *testing.T) {
	a := &app{self: "redoubt", out: io.Discard, err: io.Discard}
	c, _, err := a.root().Find([]string{"diode", "receive"})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	examples(c, func(_ *cobra.Command, args []string) {
		for i, w := range args {
			if w != "--maker" {
				continue
			}
			seen++
			q := receiving{hold: "64GiB", makers: args[i+1 : i+2]}
			if o, err := q.options(); err != nil || len(o.Makers) != 1 {
				t.Errorf("%s: got %v, %v", args[i+1], o.Makers, err)
			}
		}
	})
	if seen == 0 {
		t.Error("the help shows no --maker")
	}
}

// sealedFile is a bundle of n bytes of content, of no estate.
func sealedFile(t *testing.T, path string, n int) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := keys.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	h := bundle.Head{Kind: bundle.Journal, Estate: "example", Maker: "secret", Created: now, Expires: now.Add(time.Hour),
		To: []bundle.Addressee{{Node: "outpost", Numbering: [16]byte{1}, Serial: 1}}}
	var file bytes.Buffer
	w, err := bundle.NewWriter(&file, h, []keys.Recipient{id.Recipient()}, func(m []byte) ([]byte, error) { return ed25519.Sign(key, m), nil })
	if err == nil {
		_, err = io.CopyN(w, rand.Reader, int64(n))
	}
	if err == nil {
		err = w.Finish(func([32]byte) error { return nil })
	}
	if err == nil {
		err = os.WriteFile(path, file.Bytes(), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestAOneWaySendThatIsInterruptedSaysHowToSendItAgain(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "a b.rbundle"), filepath.Join(dir, "c.rbundle")
	sealedFile(t, first, 1<<20)
	sealedFile(t, second, 1000)
	for what, c := range map[string]struct {
		args []string
		code int
		want []string
	}{
		"a file":           {[]string{first, second}, exitFailed, []string{"redoubt: interrupted: " + first + " was not sent whole", "hint: ", "redoubt diode send '" + first + "' " + second + " --to ", " --rate 100kbit --loss 25%\n"}},
		"a folder once":    {[]string{dir, "--once"}, exitFailed, []string{"was not sent whole", "redoubt diode send " + dir + " --to ", " --once\n"}},
		"a folder watched": {[]string{dir}, exitOK, []string{"was not sent whole: it is sent again"}},
	} {
		far, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, interrupt := context.WithCancel(t.Context())
		go func() { // ends when far is closed
			if _, _, err := far.ReadFrom(make([]byte, 1<<16)); err == nil {
				interrupt()
			}
		}()
		var talk bytes.Buffer
		args := append([]string{"redoubt", "diode", "send"}, c.args...)
		code := run(ctx, append(args, "--to", far.LocalAddr().String(), "--rate", "100kbit", "--loss", "25%"), nil, io.Discard, &talk)
		far.Close()
		interrupt()
		if code != c.code || strings.Contains(talk.String(), "nothing was left half done") {
			t.Errorf("%s: exit %d, and said %q", what, code, talk.String())
		}
		for _, w := range c.want {
			if !strings.Contains(talk.String(), w) {
				t.Errorf("%s: said %q, want %q in it", what, talk.String(), w)
			}
		}
	}
}

func TestAnswersOfAFixedSetAreCompleted(t *testing.T) {
	for typed, want := range map[string]string{"": "on\noff\n:4\n", "of": "off\n:4\n", "x": ":4\n"} {
		var out bytes.Buffer
		if code := run(t.Context(), []string{"redoubt", "__complete", "link", "silence", "outpost", typed}, nil, &out, io.Discard); code != exitOK || out.String() != want {
			t.Errorf("%q: exit %d, got %q, want %q", typed, code, out.String(), want)
		}
	}
}
