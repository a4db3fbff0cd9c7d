//go:build !linux

package oci

import (
	"context"
	"errors"

	"redoubt/compute"
	"redoubt/sandbox"
)

// Driver refuses.
type Driver struct{}

var errLinux = unavailable("run the node on Linux", errors.New("images run on Linux alone"))

// Enter does nothing here.
func Enter() {}

// New gives a driver that is not available.
func New(Options) (*Driver, error) { return &Driver{}, nil }

// Trusted refuses.
type Trusted struct{ Driver }

// NewTrusted gives a driver that is not available.
func NewTrusted(Options) (*Trusted, error) { return &Trusted{}, nil }

// Available says so.
func (*Driver) Available() error { return errLinux }

// Run refuses.
func (*Driver) Run(context.Context, compute.Task) (compute.Exit, error) {
	return compute.Exit{}, errLinux
}

// Details say that there are none.
func (*Driver) Details() []sandbox.Mechanism {
	return []sandbox.Mechanism{{Name: "gVisor", Detail: errLinux.Error()}}
}

// Close does nothing.
func (*Driver) Close() error { return nil }

// Begin refuses.
func (*Driver) Begin(context.Context, compute.Service) (compute.Instance, error) {
	return nil, errLinux
}

// AtOnce is of no use.
func (*Driver) AtOnce() int { return 1 }
