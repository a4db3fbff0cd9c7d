package keys

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"redoubt"
)

// chest is a Keeper: its envelope is a number, and the root lies in its own memory.
type chest struct {
	kept map[byte][]byte
	dead error // what every call gives
}

func (*chest) Method() string { return "chest" }
func (c *chest) Wrap(root []byte) ([]byte, error) {
	n := byte(len(c.kept) + 1)
	c.kept[n] = slices.Clone(root)
	return []byte{n}, c.dead
}
func (c *chest) Unwrap(env []byte) ([]byte, error) {
	root := c.kept[env[0]]
	if root == nil {
		return nil, errors.Join(c.dead, &redoubt.Error{Kind: redoubt.Erased, Err: errors.New("nothing there"), Hint: "the chest's hint"})
	}
	return slices.Clone(root), c.dead
}
func (c *chest) Forget(env []byte) error {
	if c.dead == nil {
		c.kept[env[0]] = nil
	}
	return c.dead
}

const recovery = "five words for a recovery"

// severalWays makes a keyring that a chest and a passphrase open, closed.
func severalWays(t *testing.T) (string, *chest) {
	t.Helper()
	path, c := filepath.Join(t.TempDir(), "keyring"), &chest{kept: map[byte][]byte{}}
	must[*Keyring](t)(Create(path, Several(c, fixedPassphrase(recovery)), nil)).Close()
	return path, c
}

func TestEachOfSeveralWaysOpensAKeyringAndNoOther(t *testing.T) {
	path, c := severalWays(t)
	for _, u := range []Unlock{c, fixedPassphrase(recovery), Several(c, fixedPassphrase(recovery)), Several(fixedPassphrase("wrong wrong wrong"), c)} {
		k := must[*Keyring](t)(Open(path, u))
		if _, err := k.Secret("s", func() ([]byte, error) { return []byte("x"), nil }); err != nil { // a rewrite keeps every way
			t.Fatal(err)
		}
		k.Close()
	}
	ways := must[[]Way](t)(Sealing(path))
	if len(ways) != 2 || ways[0].Method != "chest" || ways[1].Method != "passphrase" {
		t.Errorf("got %v", ways)
	}
	_, err := Open(path, plainUnlock{})
	wantKind(t, err, redoubt.Denied)
	_, err = Open(path, fixedPassphrase("wrong wrong wrong"))
	wantKind(t, err, redoubt.Denied)
}

func TestTheFirstWayThatFailsSaysWhyAndWhatNext(t *testing.T) {
	path, c := severalWays(t)
	clear(c.kept)
	_, err := Open(path, Several(c, fixedPassphrase("wrong wrong wrong")))
	wantKind(t, err, redoubt.Erased)
	e, ok := errors.AsType[*redoubt.Error](err)
	if !ok || e.Hint != "the chest's hint" || !strings.Contains(err.Error(), "wrong passphrase") || !strings.Contains(err.Error(), "nothing there") {
		t.Errorf("got %v", err)
	}
}

func TestAKeeperForgetsWhatItKeptOfAnOldSeal(t *testing.T) {
	path, c := severalWays(t)
	old := must[[]byte](t)(os.ReadFile(path))
	k := must[*Keyring](t)(Open(path, fixedPassphrase(recovery)))
	if err := k.ChangeUnlock(Several(c, fixedPassphrase(recovery))); err != nil {
		t.Fatal(err)
	}
	k.Close()
	must[*Keyring](t)(Open(path, c)).Close()
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(path, c)
	wantKind(t, err, redoubt.Erased)
}

func TestASealThatCannotBeForgottenIsToldAndTheNewOneHolds(t *testing.T) {
	path, c := severalWays(t)
	k := must[*Keyring](t)(Open(path, c))
	c.dead = errors.New("the chest is locked")
	if err := k.ChangeUnlock(fixedPassphrase("another five words")); err == nil || !strings.Contains(err.Error(), "the new seal holds") {
		t.Errorf("got %v", err)
	}
	k.Close()
	must[*Keyring](t)(Open(path, fixedPassphrase("another five words"))).Close()
}

func TestNoCopyOfADestroyedKeyringOpensByAKeeper(t *testing.T) {
	path, c := severalWays(t)
	copied := must[[]byte](t)(os.ReadFile(path))
	k := must[*Keyring](t)(Open(path, c))
	c.dead = errors.New("the chest is locked")
	if err := k.Destroy(); err == nil {
		t.Error("what the chest keeps is there, and nobody says so")
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is there: %v", err)
	}
	c.dead = nil
	if err := k.Destroy(); err != nil {
		t.Errorf("again: %v", err)
	}
	k.Close()
	if err := os.WriteFile(path, copied, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(path, c)
	wantKind(t, err, redoubt.Erased)
}

func TestOneWayOfSeveralDoesNotResealForTheOthers(t *testing.T) {
	path, c := severalWays(t)
	k := must[*Keyring](t)(Open(path, c))
	defer k.Close()
	wantKind(t, k.Reseal(), redoubt.Invalid)
}

func TestWaysAreFewAndOfDifferentMethods(t *testing.T) {
	c := &chest{kept: map[byte][]byte{}}
	for what, u := range map[string]Unlock{"one": Several(c), "none": Several(), "two of one method": Several(c, c)} {
		if _, err := Create(filepath.Join(t.TempDir(), "keyring"), u, nil); err == nil {
			t.Errorf("%s: a keyring was made", what)
		}
	}
	good := must[[]byte](t)(Several(c, plainUnlock{}).Wrap(bytes.Repeat([]byte{1}, 32)))
	for what, w := range map[string]Way{
		"a byte more":      {"chest+plain", append(slices.Clone(good), 0)},
		"a byte less":      {"chest+plain", good[:len(good)-1]},
		"a way more":       {"chest+plain+more", good},
		"an empty method":  {"chest+", good},
		"one method twice": {"plain+plain", good},
		"five":             {"a+b+c+d+e", bytes.Repeat([]byte{0, 0, 0, 0}, 5)},
	} {
		if _, err := waysOf(w.Method, w.Envelope); !errors.Is(err, redoubt.Corrupt) {
			t.Errorf("%s: got %v, want Corrupt", what, err)
		}
	}
	if _, err := waysOf("a+b+c+d", bytes.Repeat([]byte{0, 0, 0, 0}, 4)); err != nil {
		t.Errorf("four ways: %v", err)
	}
}
