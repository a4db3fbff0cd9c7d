package keys

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"redoubt"
)

// Keyring is an enclave's open keys. All methods may be called at once. After Close
// every method refuses with redoubt.Unavailable.
type Keyring struct {
	path string
	disk disk
	rand io.Reader

	ring atomic.Pointer[ring] // what the hot path reads; nil once closed

	mu       sync.Mutex // one change at a time; guards what follows
	lock     *os.File
	unlock   Unlock
	method   string
	envelope []byte
	root     [32]byte
	body     *body
	signer   *Signer

	destroyed bool // the file is gone
}

// Create makes a keyring at path (mode 0600), durable on return, with a fresh enclave
// and signing key, and opens it. It never replaces a file: redoubt.Exists. random is for
// tests and must be safe for concurrent use; nil is the system's generator.
func Create(path string, u Unlock, random io.Reader) (*Keyring, error) {
	return createOn(osDisk{}, path, u, random)
}

func createOn(d disk, path string, u Unlock, random io.Reader) (*Keyring, error) {
	b := &body{labels: map[string]*labelEpochs{}, secrets: map[string][]byte{}}
	if random == nil {
		random = rand.Reader
	}
	k := &Keyring{rand: random}
	for _, key := range [][]byte{b.enclave[:], b.seed[:]} {
		if err := k.random(key); err != nil {
			return nil, err
		}
	}
	return createFrom(d, path, u, random, b)
}

// createFrom makes a keyring file that holds b, which it takes over.
func createFrom(d disk, path string, u Unlock, random io.Reader, b *body) (*Keyring, error) {
	const op = "keys.Create"
	if there, err := d.Exists(path); err != nil {
		return nil, &redoubt.Error{Op: op, Object: path, Err: pathless(err)}
	} else if there {
		return nil, exists(op, path)
	}
	k := &Keyring{path: path, disk: d, rand: random, body: b}
	held, err := lock(path)
	if err != nil {
		return nil, err
	}
	data, err := k.seal(u, k.body)
	if err == nil {
		err = create(d, path, data)
	}
	if err != nil {
		held.Close()
		k.body.wipe()
		clear(k.root[:])
		if errors.Is(err, fs.ErrExist) {
			return nil, exists(op, path)
		}
		return nil, wrapError(op, path, err)
	}
	return k, k.begin(held)
}

// Open opens the keyring at path for this process alone (redoubt.Unavailable while
// another has it) and destroys what an interrupted rewrite left. A wrong passphrase or
// key file is redoubt.Denied with a hint, a damaged file redoubt.Corrupt, no file
// redoubt.NotFound.
func Open(path string, u Unlock) (*Keyring, error) { return openOn(osDisk{}, path, u) }

func openOn(d disk, path string, u Unlock) (*Keyring, error) {
	const op = "keys.Open"
	if u == nil {
		return nil, &redoubt.Error{Op: op, Object: path, Kind: redoubt.Denied, Err: errors.New("no unlock given")}
	}
	if there, err := d.Exists(path); err == nil && !there {
		return nil, &redoubt.Error{Op: op, Object: path, Kind: redoubt.NotFound, Err: fs.ErrNotExist}
	}
	held, err := lock(path)
	if err != nil {
		return nil, err
	}
	k := &Keyring{path: path, disk: d, rand: rand.Reader}
	if err := k.load(u); err != nil {
		held.Close()
		return nil, wrapError(op, path, err)
	}
	return k, k.begin(held)
}

func (k *Keyring) load(u Unlock) error {
	in, err := k.disk.ReadFile(k.path, maxFileBytes)
	if err != nil {
		return err
	}
	f, err := parseFile(in)
	if err != nil {
		return &redoubt.Error{Kind: redoubt.Corrupt, Err: err, Hint: "restore the keyring from its backup"}
	}
	root, err := unwrap(u, f.method, f.envelope)
	if err != nil {
		return err
	}
	defer clear(root)
	if len(root) != len(k.root) {
		return &redoubt.Error{Kind: redoubt.Denied, Err: errors.New("the unlock gave a root of the wrong length")}
	}
	b, err := f.open(root)
	if err != nil {
		return err
	}
	if err := finish(k.disk, k.path); err != nil {
		b.wipe()
		return err
	}
	copy(k.root[:], root)
	k.unlock, k.method, k.envelope, k.body = u, f.method, slices.Clone(f.envelope), b
	return nil
}

// begin makes a loaded keyring usable.
func (k *Keyring) begin(held *os.File) error {
	k.lock = held
	k.signer = newSigner(k.body.seed[:])
	r, err := newRing(k.body, nil)
	if err != nil {
		return errors.Join(err, k.Close())
	}
	k.ring.Store(r)
	return nil
}

// seal draws a fresh root, has u hold it, and renders b under it.
func (k *Keyring) seal(u Unlock, b *body) ([]byte, error) {
	if u == nil || !validMethod(u.Method()) {
		return nil, &redoubt.Error{Kind: redoubt.Invalid, Err: errors.New("no unlock given")}
	}
	var root [32]byte
	defer clear(root[:])
	if err := k.random(root[:]); err != nil {
		return nil, err
	}
	given := slices.Clone(root[:])
	defer clear(given)
	envelope, err := u.Wrap(given)
	if err != nil {
		return nil, err
	}
	if len(envelope) > MaxEnvelopeBytes {
		return nil, &redoubt.Error{Kind: redoubt.TooLarge, Err: errors.New("the unlock's envelope is too large")}
	}
	data, err := k.render(u.Method(), envelope, root[:], b)
	if err != nil {
		return nil, err
	}
	k.unlock, k.method, k.envelope, k.root = u, u.Method(), slices.Clone(envelope), root
	return data, nil
}

// render gives the file for b under a fresh body key.
func (k *Keyring) render(method string, envelope, root []byte, b *body) ([]byte, error) {
	var bodyKey [32]byte
	defer clear(bodyKey[:])
	if err := k.random(bodyKey[:]); err != nil {
		return nil, err
	}
	return sealFile(method, envelope, root, bodyKey[:], b)
}

func (k *Keyring) random(p []byte) error {
	if _, err := io.ReadFull(k.rand, p); err != nil {
		return &redoubt.Error{Op: "keys.random", Err: errors.New("no randomness")}
	}
	return nil
}

// change makes next the keyring's body: durable first, then visible. k.mu is held.
// When it fails the keyring in memory is as before, and the file is whole: the old one or the new.
func (k *Keyring) change(op string, next *body) error {
	if k.destroyed {
		return closed(op)
	}
	data, err := k.render(k.method, k.envelope, k.root[:], next)
	if err != nil {
		return wrapError(op, k.path, err)
	}
	if len(data) > maxFileBytes {
		return &redoubt.Error{Op: op, Object: k.path, Kind: redoubt.TooLarge, Err: errors.New("the keyring is full")}
	}
	r, err := newRing(next, k.ring.Load())
	if err != nil {
		return wrapError(op, k.path, err)
	}
	if err := replace(k.disk, k.path, data); err != nil {
		return wrapError(op, k.path, err)
	}
	k.body = next
	k.ring.Store(r)
	return nil
}

// ChangeUnlock draws a new root and has u hold it, durable on return. The old
// passphrase or key file no longer opens the file; see the package comment for blocks
// that a disk has kept. What a Keeper kept of the old seal is forgotten, when it is among the old unlock or u: an
// error beside which u opens the file says that it could not be. Data and label keys do not change.
func (k *Keyring) ChangeUnlock(u Unlock) error {
	const op = "keys.ChangeUnlock"
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.body == nil || k.destroyed {
		return closed(op)
	}
	before := struct {
		unlock   Unlock
		method   string
		envelope []byte
		root     [32]byte
	}{k.unlock, k.method, k.envelope, k.root}
	defer clear(before.root[:])
	data, err := k.seal(u, k.body)
	if err == nil {
		err = replace(k.disk, k.path, data)
	}
	if err != nil {
		k.unlock, k.method, k.envelope, k.root = before.unlock, before.method, before.envelope, before.root
		return wrapError(op, k.path, err)
	}
	if err := forget(before.method, before.envelope, before.unlock, u); err != nil {
		return &redoubt.Error{Op: op, Object: k.path, Kind: redoubt.KindOf(err), Err: errors.Join(errors.New("the new seal holds, and what the old one kept could not be destroyed"), err)}
	}
	return nil
}

// Reseal draws a new root under the same unlock (a passphrase is asked for again), so
// that a root seen in memory no longer opens the file. Invalid: it was opened by one of several ways, and the others
// would be lost.
func (k *Keyring) Reseal() error {
	const op = "keys.Reseal"
	k.mu.Lock()
	u, method := k.unlock, k.method
	k.mu.Unlock()
	if u == nil {
		return closed(op)
	}
	if u.Method() != method {
		return &redoubt.Error{Op: op, Object: k.path, Kind: redoubt.Invalid, Err: errors.New("the keyring is unlocked by " + method + ", and was opened by " + u.Method())}
	}
	return k.ChangeUnlock(u)
}

// Derive gives n bytes (1 to 255*32) that only this enclave can compute, the same each
// time for one purpose: HKDF-SHA256 of the enclave key. A purpose is 1 to MaxNameBytes
// bytes. The caller owns the bytes and should clear them.
func (k *Keyring) Derive(purpose string, n int) ([]byte, error) {
	const op = "keys.Derive"
	if purpose == "" || len(purpose) > MaxNameBytes || n < 1 || n > 255*sha256.Size {
		return nil, &redoubt.Error{Op: op, Object: purpose, Kind: redoubt.Invalid}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.body == nil {
		return nil, closed(op)
	}
	out, err := hkdf.Key(sha256.New, k.body.enclave[:], nil, "redoubt keys derive v1\x00"+purpose, n)
	if err != nil {
		return nil, &redoubt.Error{Op: op, Object: purpose, Err: err}
	}
	return out, nil
}

// Signer is the enclave's Ed25519 signing key, made with the keyring.
func (k *Keyring) Signer() (*Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.body == nil {
		return nil, closed("keys.Signer")
	}
	return k.signer, nil
}

// Destroy overwrites the file and removes it: nothing that was sealed under this keyring opens again, once it is
// closed. Until then the keys stay in memory, and nothing can be changed. What a Keeper among the unlocks keeps is
// forgotten first, so that copies of the file do not open by it either. When that fails the file goes nonetheless,
// and the error says so; Destroy may be called again.
func (k *Keyring) Destroy() error {
	const op = "keys.Destroy"
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.body == nil {
		return closed(op)
	}
	k.destroyed = true
	kept := forget(k.method, k.envelope, k.unlock)
	for _, path := range []string{k.path, k.path + ".old", k.path + ".new"} {
		there, err := k.disk.Exists(path)
		if err == nil && there {
			err = errors.Join(k.disk.Overwrite(path), k.disk.Remove(path))
		}
		if err != nil {
			return wrapError(op, path, err)
		}
	}
	if err := errors.Join(k.disk.SyncDir(filepath.Dir(k.path)), kept); err != nil {
		return wrapError(op, k.path, err)
	}
	return nil
}

// Close overwrites the keys in memory and lets other processes open the file. It writes
// nothing; a keyring that is never closed loses nothing. Closing twice is no error.
func (k *Keyring) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ring.Store(nil)
	if k.body == nil {
		return nil
	}
	k.body.wipe()
	k.signer.wipe()
	clear(k.root[:])
	k.body, k.unlock = nil, nil
	return k.lock.Close()
}

func closed(op string) error {
	return &redoubt.Error{Op: op, Kind: redoubt.Unavailable, Err: errors.New("the keyring is closed")}
}

func exists(op, path string) error {
	return &redoubt.Error{Op: op, Object: path, Kind: redoubt.Exists, Err: fs.ErrExist,
		Hint: "open the keyring that is there, or choose another path"}
}

// wrapError names the operation and the file; a *redoubt.Error keeps its kind and hint.
func wrapError(op, path string, err error) error {
	if e, ok := errors.AsType[*redoubt.Error](err); ok {
		return &redoubt.Error{Op: op, Object: path, Kind: e.Kind, Hint: e.Hint, Err: e.Err}
	}
	return &redoubt.Error{Op: op, Object: path, Err: pathless(err)}
}
