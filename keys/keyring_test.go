package keys

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"redoubt"
)

// plainUnlock holds a root in clear: quick, for tests of all else.
type plainUnlock struct{}

func (plainUnlock) Method() string                    { return "plain" }
func (plainUnlock) Wrap(root []byte) ([]byte, error)  { return slices.Clone(root), nil }
func (plainUnlock) Unwrap(env []byte) ([]byte, error) { return slices.Clone(env), nil }

func fixedPassphrase(s string) Unlock {
	return Passphrase(func() ([]byte, error) { return []byte(s), nil })
}

func newKeyring(t testing.TB) (*Keyring, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keyring")
	k, err := Create(path, plainUnlock{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k, path
}

func reopen(t testing.TB, k *Keyring, path string) *Keyring {
	t.Helper()
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	k, err := Open(path, plainUnlock{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

func wantKind(t testing.TB, err error, want redoubt.Kind) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

var secretLabel = []byte("USA:SECRET")

func TestEverythingInAKeyringSurvivesReopening(t *testing.T) {
	k, path := newKeyring(t)
	d, w, err := k.NewDataKey(secretLabel)
	if err != nil {
		t.Fatal(err)
	}
	derived := must[[]byte](t)(k.Derive("store", 48))
	public := must[*Signer](t)(k.Signer()).Public()
	secret := must[[]byte](t)(k.Secret("tls", func() ([]byte, error) { return []byte("chain"), nil }))
	for range 2 {
		k = reopen(t, k, path)
		if got := must[DataKey](t)(k.DataKey(secretLabel, w)); got != d {
			t.Error("another data key came back")
		}
		if got := must[[]byte](t)(k.Derive("store", 48)); !bytes.Equal(got, derived) {
			t.Error("another derived key came back")
		}
		if got := must[*Signer](t)(k.Signer()).Public(); !got.(ed25519.PublicKey).Equal(public) {
			t.Error("another signing key came back")
		}
		if got := must[[]byte](t)(k.Secret("tls", nil)); !bytes.Equal(got, secret) {
			t.Error("another secret came back")
		}
		if _, err := k.Rotate(secretLabel); err != nil {
			t.Fatal(err)
		}
	}
	if other := must[[]byte](t)(k.Derive("store2", 48)); bytes.Equal(other, derived) {
		t.Error("two purposes give one key")
	}
}

func TestCreateNeverReplacesAKeyring(t *testing.T) {
	k, path := newKeyring(t)
	before := must[[]byte](t)(os.ReadFile(path))
	if _, err := Create(path, plainUnlock{}, nil); !errors.Is(err, redoubt.Exists) {
		t.Errorf("got %v, want Exists", err)
	}
	k.Close()
	if _, err := Create(path, plainUnlock{}, nil); !errors.Is(err, redoubt.Exists) {
		t.Errorf("got %v, want Exists", err)
	}
	if after := must[[]byte](t)(os.ReadFile(path)); !bytes.Equal(before, after) {
		t.Error("the file changed")
	}
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, want 0600", st.Mode())
	}
}

func TestOneProcessHasTheKeyring(t *testing.T) {
	k, path := newKeyring(t)
	_, err := Open(path, plainUnlock{})
	wantKind(t, err, redoubt.Unavailable)
	k.Close()
	k2 := must[*Keyring](t)(Open(path, plainUnlock{}))
	k2.Close()
	_, err = Open(path+"-none", plainUnlock{})
	wantKind(t, err, redoubt.NotFound)
}

func TestPassphraseOpensAndAWrongOneIsDeniedWithAHint(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring")
	k := must[*Keyring](t)(Create(path, fixedPassphrase("correct horse battery"), nil))
	k.Close()
	must[*Keyring](t)(Open(path, fixedPassphrase("correct horse battery"))).Close()
	_, err := Open(path, fixedPassphrase("incorrect horse battery"))
	wantKind(t, err, redoubt.Denied)
	if e, ok := errors.AsType[*redoubt.Error](err); !ok || e.Hint == "" {
		t.Errorf("got %v, want a hint", err)
	}
	if strings.Contains(fmt.Sprint(err), "incorrect horse") {
		t.Error("the error tells the passphrase")
	}
	_, err = Open(path, plainUnlock{})
	wantKind(t, err, redoubt.Denied)
	_, err = Create(path+"2", fixedPassphrase(strings.Repeat("x", MinPassphraseBytes-1)), nil)
	wantKind(t, err, redoubt.Invalid)
	_, err = Create(path+"2", fixedPassphrase(strings.Repeat("x", MaxPassphraseBytes+1)), nil)
	wantKind(t, err, redoubt.Invalid)
	_, err = Create(path+"2", Passphrase(nil), nil)
	wantKind(t, err, redoubt.Denied)
}

func TestFewerRoundsThanTheFloorAreRefused(t *testing.T) {
	u := fixedPassphrase("correct horse battery")
	env := must[[]byte](t)(u.Wrap(make([]byte, 32)))
	for _, rounds := range []uint32{0, 1, minIterations - 1, maxIterations + 1} {
		bad := slices.Clone(env)
		bad[0], bad[1], bad[2], bad[3] = byte(rounds>>24), byte(rounds>>16), byte(rounds>>8), byte(rounds)
		_, err := u.Unwrap(bad)
		wantKind(t, err, redoubt.Corrupt)
	}
}

func TestKeyFileMustBeItsOwnersAlone(t *testing.T) {
	dir := t.TempDir()
	path, key := filepath.Join(dir, "keyring"), filepath.Join(dir, "key")
	must[*Keyring](t)(Create(path, KeyFile(key), nil)).Close()
	if st, _ := os.Stat(key); st.Mode().Perm() != 0o600 || st.Size() != KeyFileBytes {
		t.Errorf("got %v and %d bytes, want 0600 and %d", st.Mode(), st.Size(), KeyFileBytes)
	}
	os.Chmod(key, 0o640)
	_, err := Open(path, KeyFile(key))
	wantKind(t, err, redoubt.Denied)
	os.Chmod(key, 0o600)
	must[*Keyring](t)(Open(path, KeyFile(key))).Close()
	_, err = Open(path, KeyFile(key+"-none"))
	wantKind(t, err, redoubt.Denied)
	for _, n := range []int{0, KeyFileBytes - 1, KeyFileBytes + 1} {
		os.WriteFile(key+"2", bytes.Repeat([]byte{7}, n), 0o600)
		_, err = Open(path, KeyFile(key+"2"))
		wantKind(t, err, redoubt.Invalid)
	}
	os.WriteFile(key+"2", bytes.Repeat([]byte{7}, KeyFileBytes), 0o600)
	_, err = Open(path, KeyFile(key+"2"))
	wantKind(t, err, redoubt.Denied)
}

func TestChangeUnlockShutsTheOldOneOut(t *testing.T) {
	k, path := newKeyring(t)
	d, w, _ := k.NewDataKey(secretLabel)
	old := must[[]byte](t)(os.ReadFile(path))
	key := KeyFile(path + ".key")
	if err := k.ChangeUnlock(key); err != nil {
		t.Fatal(err)
	}
	if err := k.Reseal(); err != nil {
		t.Fatal(err)
	}
	k.Close()
	_, err := Open(path, plainUnlock{})
	wantKind(t, err, redoubt.Denied)
	k = must[*Keyring](t)(Open(path, key))
	defer k.Close()
	if got := must[DataKey](t)(k.DataKey(secretLabel, w)); got != d {
		t.Error("another data key came back")
	}
	if now := must[[]byte](t)(os.ReadFile(path)); bytes.Contains(now, old[100:200]) {
		t.Error("the body key was not changed")
	}
	if err := k.ChangeUnlock(nil); err == nil {
		t.Error("no unlock was taken")
	}
}

func TestRotateRewrapDestroy(t *testing.T) {
	k, path := newKeyring(t)
	d, w1, _ := k.NewDataKey(secretLabel)
	if e := must[uint32](t)(k.Rotate(secretLabel)); e != 2 {
		t.Fatalf("got epoch %d, want 2", e)
	}
	wantKind(t, k.DestroyEpoch(secretLabel, 2), redoubt.Conflict)
	wantKind(t, k.DestroyEpoch(secretLabel, 3), redoubt.NotFound)
	wantKind(t, k.DestroyEpoch(secretLabel, 0), redoubt.NotFound)
	wantKind(t, k.DestroyEpoch([]byte("other"), 1), redoubt.NotFound)
	w2 := must[Wrapped](t)(k.Rewrap(secretLabel, w1))
	if again := must[Wrapped](t)(k.Rewrap(secretLabel, w2)); again != w2 || w2.Epoch() != 2 {
		t.Error("re-wrapping what is current changed it")
	}
	if err := k.DestroyEpoch(secretLabel, 1); err != nil {
		t.Fatal(err)
	}
	if err := k.DestroyEpoch(secretLabel, 1); err != nil {
		t.Errorf("destroying twice: %v", err)
	}
	for range 2 {
		_, err := k.DataKey(secretLabel, w1)
		wantKind(t, err, redoubt.Erased)
		_, err = k.Rewrap(secretLabel, w1)
		wantKind(t, err, redoubt.Erased)
		if got := must[DataKey](t)(k.DataKey(secretLabel, w2)); got != d {
			t.Error("another data key came back")
		}
		k = reopen(t, k, path)
	}
	if err := k.DestroyLabel(secretLabel); err != nil {
		t.Fatal(err)
	}
	_, err := k.DataKey(secretLabel, w2)
	wantKind(t, err, redoubt.Erased)
	_, w3, err := k.NewDataKey(secretLabel)
	if err != nil || w3.Epoch() != 3 {
		t.Errorf("got epoch %d and %v, want 3: an epoch is never used twice", w3.Epoch(), err)
	}
	live, current, _ := k.Epochs(secretLabel)
	if !slices.Equal(live, []uint32{3}) || current != 3 {
		t.Errorf("got %v, %d, want [3], 3", live, current)
	}
}

func TestDestroyedKeysLeaveNoBytesInTheDirectory(t *testing.T) {
	k, path := newKeyring(t)
	k.NewDataKey(secretLabel)
	k.mu.Lock()
	raw := k.body.labels[string(secretLabel)].live[1]
	k.mu.Unlock()
	before := must[[]byte](t)(os.ReadFile(path))
	held := must[*os.File](t)(os.Open(path)) // the old file, still reachable
	defer held.Close()
	if err := k.DestroyLabel(secretLabel); err != nil {
		t.Fatal(err)
	}
	if *raw != [32]byte{} {
		t.Error("the key is still in memory")
	}
	after := make([]byte, len(before))
	if n, _ := held.ReadAt(after, 0); n != len(before) || bytes.Contains(after, before[100:132]) || bytes.Equal(after[:8], before[:8]) {
		t.Error("the old file was not overwritten in place")
	}
	files := must[[]os.DirEntry](t)(os.ReadDir(filepath.Dir(path)))
	if len(files) != 2 {
		t.Errorf("got %v, want the keyring and its lock", files)
	}
}

func TestAWrappedKeyOpensUnderItsLabelAlone(t *testing.T) {
	k, _ := newKeyring(t)
	_, w, _ := k.NewDataKey(secretLabel)
	k.NewDataKey([]byte("USA:TOP SECRET"))
	_, err := k.DataKey([]byte("USA:TOP SECRET"), w)
	wantKind(t, err, redoubt.Corrupt)
	_, err = k.DataKey([]byte("none"), w)
	wantKind(t, err, redoubt.Corrupt)
	_, err = k.DataKey(secretLabel, Wrapped{})
	wantKind(t, err, redoubt.Corrupt)
	for bit := range WrappedBytes * 8 {
		bad := w
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := k.DataKey(secretLabel, bad); !errors.Is(err, redoubt.Corrupt) {
			t.Fatalf("bit %d flipped: got %v, want Corrupt", bit, err)
		}
	}
	if labels, _ := k.Labels(); len(labels) != 2 {
		t.Errorf("got %q", labels)
	}
}

func TestLimitsOfAKeyring(t *testing.T) {
	k, path := newKeyring(t)
	for n, want := range map[int]bool{0: false, 1: true, MaxLabelBytes: true, MaxLabelBytes + 1: false} {
		if _, _, err := k.NewDataKey(bytes.Repeat([]byte("L"), n)); (err == nil) != want {
			t.Errorf("a label of %d bytes: %v", n, err)
		}
	}
	for n, want := range map[int]bool{0: false, 1: true, MaxNameBytes: true, MaxNameBytes + 1: false} {
		name := strings.Repeat("n", n)
		if _, err := k.Secret(name, func() ([]byte, error) { return nil, nil }); (err == nil) != want {
			t.Errorf("a name of %d bytes: %v", n, err)
		}
		if _, err := k.Derive(name, 32); (err == nil) != want {
			t.Errorf("a purpose of %d bytes: %v", n, err)
		}
	}
	for n, want := range map[int]bool{0: true, MaxSecretBytes: true, MaxSecretBytes + 1: false} {
		if _, err := k.Secret(fmt.Sprint("s", n), func() ([]byte, error) { return make([]byte, n), nil }); (err == nil) != want {
			t.Errorf("a secret of %d bytes: %v", n, err)
		}
	}
	for n, want := range map[int]bool{0: false, 1: true, 255 * 32: true, 255*32 + 1: false} {
		if _, err := k.Derive("p", n); (err == nil) != want {
			t.Errorf("deriving %d bytes: %v", n, err)
		}
	}
	_, err := k.Secret("none", nil)
	wantKind(t, err, redoubt.NotFound)
	k = reopen(t, k, path)
	if err := k.ForgetSecret("s0"); err != nil {
		t.Fatal(err)
	}
	_, err = k.Secret("s0", nil)
	wantKind(t, err, redoubt.NotFound)
}

func TestEveryFlippedBitOfAKeyringFileIsFound(t *testing.T) {
	k, path := newKeyring(t)
	k.Close()
	whole := must[[]byte](t)(os.ReadFile(path))
	step := 1
	if testing.Short() || len(whole) > 2000 {
		step = 37
	}
	for bit := 0; bit < len(whole)*8; bit += step {
		bad := slices.Clone(whole)
		bad[bit/8] ^= 1 << (bit % 8)
		if f, err := parseFile(bad); err == nil {
			t.Fatalf("bit %d flipped was taken: %+v", bit, f)
		}
	}
	for n := range len(whole) {
		if _, err := parseFile(whole[:n]); err == nil {
			t.Fatalf("cut to %d bytes was taken", n)
		}
	}
	// An attacker repairs the checksum: authentication must find it.
	f, _ := parseFile(whole)
	for _, at := range []int{len(f.head), len(f.head) + sealedKey + 4, len(whole) - 40} {
		bad := slices.Clone(whole)
		bad[at] ^= 1
		os.WriteFile(path, resum(bad), 0o600)
		_, err := Open(path, plainUnlock{})
		wantKind(t, err, redoubt.Corrupt)
	}
	if bytes.Contains(whole, []byte("SECRET")) {
		t.Error("the file tells a label")
	}
}

func TestCloseWipesAndRefuses(t *testing.T) {
	k, _ := newKeyring(t)
	_, w, _ := k.NewDataKey(secretLabel)
	k.Secret("s", func() ([]byte, error) { return []byte("secret"), nil })
	s := must[*Signer](t)(k.Signer())
	b, private := k.body, s.private
	raw, value := b.labels[string(secretLabel)].live[1], b.secrets["s"]
	if err := errors.Join(k.Close(), k.Close()); err != nil {
		t.Fatal(err)
	}
	zero := make([]byte, 64)
	if *raw != [32]byte{} || b.enclave != [32]byte{} || b.seed != [32]byte{} || k.root != [32]byte{} ||
		!bytes.Equal(private, zero) || !bytes.Equal(value, zero[:len(value)]) {
		t.Error("a key is still in memory")
	}
	calls := map[string]func() error{
		"NewDataKey":   func() error { _, _, err := k.NewDataKey(secretLabel); return err },
		"DataKey":      func() error { _, err := k.DataKey(secretLabel, w); return err },
		"Rewrap":       func() error { _, err := k.Rewrap(secretLabel, w); return err },
		"Rotate":       func() error { _, err := k.Rotate(secretLabel); return err },
		"DestroyEpoch": func() error { return k.DestroyEpoch(secretLabel, 1) },
		"DestroyLabel": func() error { return k.DestroyLabel(secretLabel) },
		"Derive":       func() error { _, err := k.Derive("x", 32); return err },
		"Secret":       func() error { _, err := k.Secret("s", nil); return err },
		"Forget":       func() error { return k.ForgetSecret("s") },
		"Signer":       func() error { _, err := k.Signer(); return err },
		"Sign":         func() error { _, err := s.Sign(nil, []byte("m"), crypto.Hash(0)); return err },
		"ChangeUnlock": func() error { return k.ChangeUnlock(plainUnlock{}) },
		"Reseal":       func() error { return k.Reseal() },
		"Epochs":       func() error { _, _, err := k.Epochs(secretLabel); return err },
		"Labels":       func() error { _, err := k.Labels(); return err },
		"SealBytes":    func() error { _, err := k.SealBytes("p", nil); return err },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, redoubt.Unavailable) {
			t.Errorf("%s after Close: got %v, want Unavailable", name, err)
		}
	}
}

func TestNothingPrintsAKey(t *testing.T) {
	k, _ := newKeyring(t)
	d, _, _ := k.NewDataKey(secretLabel)
	for i := range d.key {
		d.key[i] = 0x41
	}
	id := must[*Identity](t)(NewIdentity())
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, nil))
	for _, v := range []any{d, &d, k, must[*Signer](t)(k.Signer()), id, []DataKey{d}, map[string]DataKey{"k": d}, struct{ D DataKey }{d}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		log.Info("x", "v", v)
		j, _ := json.Marshal(v)
		out.Write(j)
	}
	for _, leak := range []string{"AAAAAAAA", "41414141", "65 65 65 65", "0x41, 0x41, 0x41, 0x41"} { // long enough that a certificate does not have it by chance
		if strings.Contains(out.String(), leak) {
			t.Errorf("a key was printed: %q", leak)
		}
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("nothing says redacted")
	}
}

func TestManyUseAKeyringAtOnce(t *testing.T) {
	k, path := newKeyring(t)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			label := fmt.Appendf(nil, "label %d", g%3)
			var kept []Wrapped
			for i := range 40 {
				d, w, err := k.NewDataKey(label)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := k.DataKey(label, w); err != nil || got != d {
					t.Errorf("got %v", err)
				}
				kept = append(kept, w)
				if g < 3 && i%10 == 9 {
					if _, err := k.Rotate(label); err != nil {
						t.Error(err)
					}
				}
			}
			for _, w := range kept {
				if _, err := k.Rewrap(label, w); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	k = reopen(t, k, path)
	if labels, _ := k.Labels(); len(labels) != 3 {
		t.Errorf("got %q", labels)
	}
}

func BenchmarkNewDataKeyAndSeal4KiB(b *testing.B) {
	k, _ := newKeyring(b)
	plain, buf := make([]byte, 4<<10), make([]byte, 0, 8<<10)
	bind := Binding{Label: secretLabel, Bucket: "reports", Key: "2026/a", Version: make([]byte, 16)}
	b.ReportAllocs()
	for b.Loop() {
		d, _, err := k.NewDataKey(secretLabel)
		if err != nil {
			b.Fatal(err)
		}
		SealAll(buf, d, bind, plain)
	}
}

func BenchmarkRewrap(b *testing.B) {
	k, _ := newKeyring(b)
	_, w, _ := k.NewDataKey(secretLabel)
	k.Rotate(secretLabel)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Rewrap(secretLabel, w); err != nil {
			b.Fatal(err)
		}
	}
}

func TestADestroyedKeyringOpensNothingAgain(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ring")
	k, err := Create(path, KeyFile(filepath.Join(dir, "key")), nil)
	if err != nil {
		t.Fatal(err)
	}
	// A second name of the file shows what becomes of its bytes.
	if err := os.Link(path, filepath.Join(dir, "kept")); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Destroy(); err != nil {
		t.Fatal(err)
	}
	if err := k.Reseal(); err == nil {
		t.Error("a destroyed keyring was written again")
	}
	if _, err := k.Rotate([]byte("l")); err == nil {
		t.Error("a destroyed keyring took a new epoch")
	}
	k.Close()
	if _, err := Open(path, KeyFile(filepath.Join(dir, "key"))); err == nil {
		t.Error("it opens")
	}
	after, err := os.ReadFile(filepath.Join(dir, "kept"))
	if err != nil || bytes.Equal(before, after) || len(after) != len(before) {
		t.Errorf("the bytes were left as they were (%v)", err)
	}
}
