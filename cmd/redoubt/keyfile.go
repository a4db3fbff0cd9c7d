package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"redoubt"
)

// A subject's private key is an Ed25519 key in PKCS #8 PEM, as `openssl genpkey -algorithm
// ed25519` writes it, that nobody but its owner may read.

const maxKeyFileBytes = 4 << 10 // such a file has 119 bytes

// readKey reads a private key; Denied: others may read the file.
func readKey(path string) (ed25519.PrivateKey, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, &redoubt.Error{Object: path, Kind: redoubt.NotFound, Err: errors.New("no key file there"), Hint: "redoubt person key FILE makes one"}
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, &redoubt.Error{Object: path, Kind: redoubt.Denied, Rule: "key-file-mode", Err: fmt.Errorf("mode %v lets others read the key", st.Mode().Perm()), Hint: "chmod 600 " + path}
	}
	data, err := readLimited(path, maxKeyFileBytes)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	bad := &redoubt.Error{Object: path, Kind: redoubt.Invalid, Err: errors.New("is not an Ed25519 private key in PEM"), Hint: "redoubt person key FILE makes one"}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, bad
	}
	defer clear(block.Bytes)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, bad
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, bad
	}
	return private, nil
}

// makeKey makes a private key file; Exists when there is one.
func makeKey(path string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	defer clear(text)
	return key, newFile(path, text)
}

func publicText(key ed25519.PrivateKey) string {
	return base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
}

// newFile makes a file of mode 0600 with data, durable on return; it never replaces one.
func newFile(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return &redoubt.Error{Object: path, Kind: redoubt.Exists, Hint: "choose another name; a key is never written over"}
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(path)
	}
	return err
}

// replaceFile makes data the content of path: whole, or as it was.
func replaceFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// readLimited reads a file of at most limit bytes.
func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = &redoubt.Error{Object: path, Kind: redoubt.TooLarge, Err: fmt.Errorf("at most %d bytes are read", limit)}
	}
	return data, err
}
