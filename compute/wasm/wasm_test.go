package wasm

import (
	"os"
	"testing"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/computetest"
	"redoubt/sandbox"
)

func TestMain(m *testing.M) {
	sandbox.Enter(Workers())
	os.Exit(m.Run())
}

var programs = computetest.Programs{GOOS: "wasip1", GOARCH: "wasm", Load: func(_ *testing.T, r *computetest.Run, program []byte) redoubt.SubmitJob {
	return redoubt.SubmitJob{Module: r.SetModule(program)}
}}

func TestTheContractOfDrivers(t *testing.T) {
	computetest.Suite(t, func(*testing.T) compute.Driver { return New() }, programs)
}
