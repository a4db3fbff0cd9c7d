//go:build !linux

package sandbox

import (
	"context"
	"errors"
	"io"

	"redoubt"
)

// Binary is a program of ours.
type Binary struct{}

// NewBinary refuses.
func NewBinary([]byte) (*Binary, error) { return nil, errLinux }

// Close does nothing.
func (*Binary) Close() error { return nil }

// Process is a program that stands ready.
type Process struct{}

var errLinux = &redoubt.Error{Op: "sandbox.Start", Kind: redoubt.NotImplemented, Err: errors.New("programs are walled in on Linux alone")}

// Enter does nothing here.
func Enter(map[string]Worker) {}

// Start refuses.
func Start(Program) (*Process, error) { return nil, errLinux }

// Run refuses.
func Run(context.Context, Program, []byte) ([]byte, error) { return nil, errLinux }

// Run refuses.
func (*Process) Run(context.Context, []byte) ([]byte, error) { return nil, errLinux }

// Stream refuses.
func (*Process) Stream(context.Context, io.Reader, io.Writer) error { return errLinux }

// Talk refuses.
func (*Process) Talk(context.Context, func(io.Writer, io.Reader) error) (said, ended error) {
	return errLinux, errLinux
}

// Said is empty.
func (*Process) Said() string { return "" }

// Kill does nothing.
func (*Process) Kill() {}

// Libraries is empty.
func Libraries() []string { return nil }

// Available refuses.
func Available() ([]Mechanism, error) { return nil, errLinux }

// Confine refuses.
func Confine(write, read []string) error { return errLinux }

// Enclose refuses.
func Enclose(write, read []string) error { return errLinux }
