package node

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"redoubt"
	"redoubt/estate"
	"redoubt/keys"
	"redoubt/store/embedded"
)

func TestAWipedNodeStartsByNoKeyringThatIsPutBack(t *testing.T) {
	st, e, doc := exerciseOf(t, estate.ExampleText)
	o := Options{State: st, Name: "secret", Estate: e, Document: doc}
	_, stop := serve(t, o)
	stop()
	dir := st.NodeDir("secret")
	keyring := filepath.Join(dir, "keyring")
	copied, err := os.ReadFile(keyring)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.NotWiped("secret"); err != nil {
		t.Fatalf("before the wipe: %v", err)
	}
	if err := markWiped(dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	refused := func(what string, err error) {
		t.Helper()
		var told *redoubt.Error
		if !errors.Is(err, redoubt.Erased) || !errors.As(err, &told) || !strings.Contains(err.Error(), "wiped by order of its home") || !strings.Contains(ownHint(err), "redoubt device enrol secret") {
			t.Errorf("%s: got %v, want a refusal that tells of the wipe", what, err)
		}
	}
	open := func() error {
		n, err := Open(t.Context(), o)
		if err == nil {
			n.Close()
		}
		return err
	}
	stolen := func(path string) {
		t.Helper()
		if err := os.WriteFile(path, copied, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A crash left the keyring between the mark and its end; then it is put back; then it is gone.
	refused("the start after a crash", open())
	stolen(keyring)
	refused("the look at it", Inspect(st, "secret", nil))
	refused("the check of its store", checked(st))
	refused("a change of what opens it", ChangeUnlock(st, "secret", nil, keys.KeyFile(filepath.Join(dir, "key"))))
	refused("the start with a copy", open())
	if _, err := os.Stat(keyring); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the copy of the keyring that was put back is still there: %v", err)
	}
	refused("the start without any", open())
	// What does not open is not destroyed, and starts nothing either.
	stolen(keyring)
	if err := os.WriteFile(filepath.Join(dir, "key"), make([]byte, keys.KeyFileBytes), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("the start with what does not open", open())
	if _, err := os.Stat(keyring); err != nil {
		t.Error(err)
	}
	if r, err := st.Runtime("secret"); err != nil || r.State != Failed || r.PID != 0 {
		t.Errorf("it is %+v, %v, want one that failed", r, err)
	}
}

// checked asks for what only a store that is opened gives.
func checked(st State) error {
	return withStore(st, "secret", nil, "", func(*embedded.Engine) error { return nil })
}

// ownHint is the first hint in the chain.
func ownHint(err error) string {
	for e := (*redoubt.Error)(nil); errors.As(err, &e); err = e.Err {
		if e.Hint != "" {
			return e.Hint
		}
	}
	return ""
}

// lastLook is an unlock that, asked to forget, looks at what stands on the disk then.
type lastLook struct {
	root []byte
	look func()
}

func (*lastLook) Method() string                  { return "last-look" }
func (l *lastLook) Wrap(b []byte) ([]byte, error) { l.root = bytes.Clone(b); return []byte{1}, nil }
func (l *lastLook) Unwrap([]byte) ([]byte, error) { return bytes.Clone(l.root), nil }
func (l *lastLook) Forget([]byte) error           { l.look(); return nil }

func TestAWipeIsMarkedBeforeTheKeysGo(t *testing.T) {
	st, err := OpenState(filepath.Join(t.TempDir(), "state"))
	if err == nil {
		err = os.Mkdir(st.NodeDir("outpost"), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	var seen error
	path := filepath.Join(st.NodeDir("outpost"), "keyring")
	ring, err := keys.Create(path, &lastLook{look: func() { seen = st.NotWiped("outpost") }}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	d := &deviceSide{dir: st.NodeDir("outpost"), ring: ring, clock: time.Now, log: slog.New(slog.DiscardHandler)}
	if err := d.destroy(); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(seen, redoubt.Erased) {
		t.Errorf("when the keys went the state said %v, want that it was wiped", seen)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the keyring is still there: %v", err)
	}
}
