package oci_test

import (
	"runtime"
	"testing"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/computetest"
	"redoubt/compute/oci"
)

func TestServicesMeetTheContract(t *testing.T) {
	computetest.Services(t, func(t *testing.T) compute.ServiceDriver { return driverWith(t, oci.Options{}) }, computetest.Programs{GOOS: "linux", GOARCH: runtime.GOARCH, Buffers: true,
		Load: func(t *testing.T, r *computetest.Run, p []byte) redoubt.SubmitJob { return withProgram(t, r, p) }}, 960<<10)
}
