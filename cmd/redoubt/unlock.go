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
	return a.ask(prompt, passphraseFileEnv+"=FILE, or --key-file FILE")
}

// ask asks at the terminal; without one, it says what else there is.
func (a *app) ask(prompt, instead string) ([]byte, error) {
	in, err := a.terminal(instead)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(a.err, "%s: ", prompt)
	defer fmt.Fprintln(a.err)
	return term.ReadPassword(in)
}

func (a *app) terminal(instead string) (fd int, err error) {
	in, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return 0, &redoubt.Error{Op: "passphrase", Kind: redoubt.Denied, Err: errors.New("no terminal to ask at"), Hint: "name a file: " + instead}
	}
	return int(in.Fd()), nil
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

// askTwice asks for something new at the terminal, and takes it when both answers agree.
func (a *app) askTwice(prompt, instead string) ([]byte, error) {
	in, err := a.terminal(instead)
	if err != nil {
		return nil, err
	}
	var answers [2][]byte
	for i, prompt := range []string{prompt, "The same again"} {
		fmt.Fprintf(a.err, "%s: ", prompt)
		pass, err := term.ReadPassword(in)
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
