package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/term"

	"redoubt"
	"redoubt/keys"
)

// Where a passphrase comes from: never from the command line or the environment itself,
// which others on the machine can read, but from a file, a pipe or a terminal.
const (
	passphraseFileEnv = "REDOUBT_PASSPHRASE_FILE"
	passphraseFDEnv   = "REDOUBT_PASSPHRASE_FD" // a pipe from `redoubt up`
	credentialName    = "redoubt-passphrase"    // of systemd's LoadCredential
)

// unlock is how a node's keyring is held: by a key file outside the state, or a passphrase.
func (a *app) unlock(keyFile, prompt string) keys.Unlock {
	if keyFile != "" {
		return keys.KeyFile(keyFile)
	}
	return keys.Passphrase(func() ([]byte, error) { return a.passphrase(prompt) })
}

// passphrase asks the first of pipe, file, systemd credential and terminal that is there.
func (a *app) passphrase(prompt string) ([]byte, error) {
	if fd := os.Getenv(passphraseFDEnv); fd != "" {
		return passphrasePipe(fd)
	}
	if path := os.Getenv(passphraseFileEnv); path != "" {
		return passphraseFile(path)
	}
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		return passphraseFile(filepath.Join(dir, credentialName))
	}
	in, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return nil, &redoubt.Error{Op: "passphrase", Kind: redoubt.Denied, Err: errors.New("no terminal to ask at"),
			Hint: "name a file: " + passphraseFileEnv + "=FILE, or --key-file FILE"}
	}
	fmt.Fprintf(a.err, "%s: ", prompt)
	defer fmt.Fprintln(a.err)
	return term.ReadPassword(int(in.Fd()))
}

var errPipe = errors.New("the pipe with the passphrase is broken")

// passphrasePipe reads the pipe, once: a start asks for one passphrase.
func passphrasePipe(fd string) ([]byte, error) {
	n, err := strconv.Atoi(fd)
	if err != nil {
		return nil, errPipe
	}
	f := os.NewFile(uintptr(n), "passphrase")
	if f == nil {
		return nil, errPipe
	}
	defer f.Close()
	pass, err := io.ReadAll(io.LimitReader(f, keys.MaxPassphraseBytes+1))
	if err != nil || len(pass) == 0 {
		return nil, errPipe
	}
	return pass, nil
}

// passphraseFile is the first line of a file.
func passphraseFile(path string) ([]byte, error) {
	data, err := readLimited(path, keys.MaxPassphraseBytes+2)
	if err != nil {
		return nil, err
	}
	pass, _, _ := bytes.Cut(data, []byte("\n"))
	return bytes.TrimSuffix(pass, []byte("\r")), nil
}

// askTwice asks for a new passphrase at the terminal until both answers agree once.
func (a *app) askTwice() ([]byte, error) {
	in, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return nil, &redoubt.Error{Op: "passphrase", Kind: redoubt.Denied, Err: errors.New("no terminal to ask at"), Hint: "name a file: --new-passphrase-file FILE"}
	}
	var answers [2][]byte
	for i, prompt := range []string{"New passphrase", "The same again"} {
		fmt.Fprintf(a.err, "%s: ", prompt)
		pass, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(a.err)
		if err != nil {
			return nil, err
		}
		answers[i] = pass
	}
	defer clear(answers[1])
	if !bytes.Equal(answers[0], answers[1]) {
		clear(answers[0])
		return nil, &redoubt.Error{Op: "passphrase", Kind: redoubt.Invalid, Err: errors.New("the two differ"), Hint: "type them again"}
	}
	return answers[0], nil
}
