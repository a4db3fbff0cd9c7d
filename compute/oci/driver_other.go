//go:build !linux

package oci

import (
	"context"
	"errors"

	"redoubt/compute"
)

// Driver refuses.
type Driver struct{}

var errLinux = unavailable("run the node on Linux", errors.New("images run on Linux alone"))

// Enter does nothing here.
func Enter() {}

// New gives a driver that is not available.
func New(Options) (*Driver, error) { return &Driver{}, nil }

// Available says so.
func (*Driver) Available() error { return errLinux }

// Run refuses.
func (*Driver) Run(context.Context, compute.Task) (compute.Exit, error) {
	return compute.Exit{}, errLinux
}

// Close does nothing.
func (*Driver) Close() error { return nil }
