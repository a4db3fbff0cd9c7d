//go:build !linux

package sandbox

import (
	"context"
	"errors"
	"io"
	"os"

	"redoubt"
)

// Binary is a program of ours.
type Binary struct{}

// NewBinary refuses.
func NewBinary(string) (*Binary, error) { return nil, errLinux }

// Close does nothing.
func (*Binary) Close() error { return nil }

// Process is a program that stands ready.
type Process struct{}

// Window is memory that we share with one.
type Window struct{}

// NewWindow refuses.
func NewWindow(int, int) (*Window, error) { return nil, errLinux }

// File is none.
func (*Window) File() *os.File { return nil }

// Put refuses.
func (*Window) Put(uint64, uint64, func([]byte) (int, error)) (int, error) { return 0, errLinux }

// Close does nothing.
func (*Window) Close() error { return nil }

// LookThrough refuses.
func LookThrough(int, int) ([]byte, error) { return nil, errLinux }

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

// Window is none.
func (*Process) Window() *Window { return nil }

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
