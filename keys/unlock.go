package keys

import (
	"bytes"
	"crypto/hkdf"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"redoubt"
)

// Unlock holds a keyring's root key. Passphrase and KeyFile are built in; a TPM, a
// PKCS#11 token or a KMS is handed in by whoever wires the node.
type Unlock interface {
	// Method names the way of holding the root, in clear in the file: "passphrase",
	// "key-file", "pkcs11". Open refuses an Unlock of another method than the file's.
	// It is 1 to MaxMethodBytes bytes of printable ASCII without "+", which joins the methods of Several.
	Method() string
	// Wrap returns an envelope from which Unwrap gives root back. The envelope is stored
	// in clear and must tell nothing of root; at most MaxEnvelopeBytes.
	Wrap(root []byte) (envelope []byte, err error)
	// Unwrap opens what Wrap made. A wrong passphrase or key is redoubt.Denied.
	Unwrap(envelope []byte) (root []byte, err error)
}

// Limits of an unlock.
const (
	MaxMethodBytes   = 64      // a word, for people
	MaxEnvelopeBytes = 1 << 16 // a KMS answer with its certificates

	// MinPassphraseBytes is the shortest passphrase taken: with 600,000 rounds a shorter
	// one falls to a rented rack within a lease.
	MinPassphraseBytes = 12
	MaxPassphraseBytes = 1 << 10

	// KeyFileBytes is the exact length of a key file.
	KeyFileBytes = 32

	minIterations = 600_000     // OWASP 2023 for PBKDF2-HMAC-SHA256; NIST SP 800-132
	maxIterations = 100_000_000 // half a minute: more is a file made to stall us
	saltBytes     = 16
	sealedKey     = 32 + ChunkOverhead
)

// Passphrase holds the root under PBKDF2-HMAC-SHA256 of a passphrase. prompt is
// called once for each Wrap and Unwrap; what it returns is overwritten after use.
// Asking twice before a new passphrase is taken is the prompt's business.
func Passphrase(prompt func() ([]byte, error)) Unlock { return passphrase{prompt} }

type passphrase struct{ prompt func() ([]byte, error) }

func (passphrase) Method() string { return "passphrase" }

func (p passphrase) ask() ([]byte, error) {
	if p.prompt == nil {
		return nil, &redoubt.Error{Op: "keys.Passphrase", Kind: redoubt.Denied, Err: errors.New("no passphrase given")}
	}
	pass, err := p.prompt()
	if err != nil {
		return nil, &redoubt.Error{Op: "keys.Passphrase", Kind: redoubt.Denied, Err: errors.New("the prompt gave no passphrase")}
	}
	return pass, nil
}

// Wrap makes: iterations (4), salt (16), nonce+root+tag (60).
func (p passphrase) Wrap(root []byte) ([]byte, error) {
	pass, err := p.ask()
	if err != nil {
		return nil, err
	}
	defer clear(pass)
	if len(pass) < MinPassphraseBytes || len(pass) > MaxPassphraseBytes {
		return nil, &redoubt.Error{Op: "keys.Passphrase", Kind: redoubt.Invalid,
			Err:  fmt.Errorf("a passphrase has %d to %d bytes", MinPassphraseBytes, MaxPassphraseBytes),
			Hint: "choose a longer passphrase, such as five random words"}
	}
	head := binary.BigEndian.AppendUint32(nil, minIterations)
	head = append(head, make([]byte, saltBytes)...)
	if _, err := rand.Read(head[4:]); err != nil {
		return nil, &redoubt.Error{Op: "keys.Passphrase", Err: err}
	}
	kek, err := pbkdf2.Key(sha256.New, string(pass), head[4:], minIterations, 32)
	if err != nil {
		return nil, &redoubt.Error{Op: "keys.Passphrase", Err: err}
	}
	defer clear(kek)
	return sealUnder(head, kek, root, aadPassphrase(head))
}

func (p passphrase) Unwrap(envelope []byte) ([]byte, error) {
	if len(envelope) != 4+saltBytes+sealedKey {
		return nil, corrupt("keys.Passphrase", "envelope length")
	}
	head := envelope[:4+saltBytes]
	n := binary.BigEndian.Uint32(head)
	if n < minIterations || n > maxIterations {
		return nil, &redoubt.Error{Op: "keys.Passphrase", Kind: redoubt.Corrupt,
			Err: fmt.Errorf("%d rounds lie outside %d to %d", n, minIterations, maxIterations)}
	}
	pass, err := p.ask()
	if err != nil {
		return nil, err
	}
	defer clear(pass)
	kek, err := pbkdf2.Key(sha256.New, string(pass), head[4:], int(n), 32)
	if err != nil {
		return nil, &redoubt.Error{Op: "keys.Passphrase", Err: err}
	}
	defer clear(kek)
	root, err := openUnder(kek, envelope[len(head):], aadPassphrase(head))
	if err != nil {
		return nil, &redoubt.Error{Op: "keys.Passphrase", Kind: redoubt.Denied, Err: errors.New("wrong passphrase"),
			Hint: "check the keyboard layout and type the passphrase again"}
	}
	return root, nil
}

func aadPassphrase(head []byte) []byte {
	return append([]byte("redoubt keys passphrase v1\x00"), head...)
}

// KeyFile holds the root under a file of KeyFileBytes random bytes that only its owner
// may read (mode 0600 or less, else redoubt.Denied). Wrap makes the file when there is
// none, durable on return; Unwrap never does.
func KeyFile(path string) Unlock { return keyFile{path} }

type keyFile struct{ path string }

func (keyFile) Method() string { return "key-file" }

// Wrap makes: salt (16), nonce+root+tag (60).
func (f keyFile) Wrap(root []byte) ([]byte, error) {
	err := f.create()
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, &redoubt.Error{Op: "keys.KeyFile", Object: f.path, Err: err}
	}
	salt := make([]byte, saltBytes)
	if _, err := rand.Read(salt); err != nil {
		return nil, &redoubt.Error{Op: "keys.KeyFile", Err: err}
	}
	kek, err := f.kek(salt)
	if err != nil {
		return nil, err
	}
	defer clear(kek)
	return sealUnder(salt, kek, root, aadKeyFile)
}

func (f keyFile) Unwrap(envelope []byte) ([]byte, error) {
	if len(envelope) != saltBytes+sealedKey {
		return nil, corrupt("keys.KeyFile", "envelope length")
	}
	kek, err := f.kek(envelope[:saltBytes])
	if err != nil {
		return nil, err
	}
	defer clear(kek)
	root, err := openUnder(kek, envelope[saltBytes:], aadKeyFile)
	if err != nil {
		return nil, &redoubt.Error{Op: "keys.KeyFile", Object: f.path, Kind: redoubt.Denied, Err: errors.New("not the key file of this keyring"),
			Hint: "give the key file that the keyring was made with"}
	}
	return root, nil
}

var aadKeyFile = []byte("redoubt keys key-file v1\x00")

func (f keyFile) kek(salt []byte) ([]byte, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, &redoubt.Error{Op: "keys.KeyFile", Object: f.path, Kind: redoubt.Denied, Err: pathless(err),
			Hint: "give the key file that the keyring was made with"}
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return nil, &redoubt.Error{Op: "keys.KeyFile", Object: f.path, Err: pathless(err)}
	}
	if !st.Mode().IsRegular() || st.Mode().Perm()&0o077 != 0 {
		return nil, &redoubt.Error{Op: "keys.KeyFile", Object: f.path, Kind: redoubt.Denied,
			Err:  fmt.Errorf("mode %v lets others read the key", st.Mode()),
			Hint: "chmod 600 " + f.path}
	}
	key := make([]byte, KeyFileBytes+1)
	defer clear(key)
	n, err := io.ReadFull(file, key)
	if err != io.ErrUnexpectedEOF || n != KeyFileBytes {
		return nil, &redoubt.Error{Op: "keys.KeyFile", Object: f.path, Kind: redoubt.Invalid,
			Err: fmt.Errorf("a key file has exactly %d bytes", KeyFileBytes)}
	}
	if bytes.Equal(key, make([]byte, len(key))) {
		return nil, &redoubt.Error{Op: "keys.KeyFile", Object: f.path, Kind: redoubt.Invalid, Err: errors.New("the key file is all zeros")}
	}
	return hkdf.Key(sha256.New, key[:n], salt, "redoubt keys key-file v1", 32)
}

// create makes the key file; fs.ErrExist when there is one. It is written under another
// name and linked into place, so a crash leaves the whole file or none.
func (f keyFile) create() error {
	if _, err := os.Lstat(f.path); err == nil {
		return fs.ErrExist
	}
	key := make([]byte, KeyFileBytes)
	defer clear(key)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(f.path), filepath.Base(f.path)+".new-*") // mode 0600
	if err != nil {
		return pathless(err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(key)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Link(tmp.Name(), f.path)
	}
	if err != nil {
		return err
	}
	return osDisk{}.SyncDir(filepath.Dir(f.path))
}

// pathless drops the paths of a file error; Object names the file already.
func pathless(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}
