//go:build !linux

package kube

import (
	"errors"
	"os"
	"os/exec"
)

var errLinux = errors.New("pods run Linux")

func bound(int) error { return errLinux }

func secret() error { return errLinux }

func canAsk() bool { return false }

func wall() error { return errLinux }

func hold() {}

func crowd(int, <-chan struct{}) bool { return false }

func keep() error { return errLinux }

func startProgram() error { return errLinux }

func (k *keeper) launch(task, *os.File) (*exec.Cmd, string, error) { return nil, "", errLinux }
