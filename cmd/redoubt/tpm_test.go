package main

import (
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"redoubt/tpm/tpmtest"
)

// The scripts in testdata/tpm have a machine with an emulated TPM of their own: `tpm off`, `tpm cut` (its power is pulled),
// `tpm on`, `tpm measure PCR VALUE`. $OTHER_TPM is the socket of a second one.
func TestCommandsWithATPM(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	tpmtest.Need(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/tpm",
		Setup: func(e *testscript.Env) error {
			m := tpmtest.Start(e.T().(testing.TB))
			other := tpmtest.Start(e.T().(testing.TB))
			e.Values["tpm"] = m
			e.Setenv("REDOUBT_TPM", m.Path)
			e.Setenv("OTHER_TPM", other.Path)
			e.Defer(func() { stopEverything(e.WorkDir) })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "ready": ready, "grab": grab, "nothing": nothing, "signal": signalNode, "tpm": machine},
	})
}

func machine(ts *testscript.TestScript, _ bool, args []string) {
	m := ts.Value("tpm").(*tpmtest.TPM)
	switch args[0] {
	case "off":
		ts.Check(m.Off())
	case "cut":
		m.Kill()
	case "on":
		ts.Check(m.On())
	case "measure":
		pcr, err := strconv.ParseUint(args[1], 10, 8)
		ts.Check(err)
		value, err := strconv.ParseUint(args[2], 10, 8)
		ts.Check(err)
		ts.Check(m.Extend(uint(pcr), byte(value)))
	default:
		ts.Fatalf("unknown: tpm %s", args[0])
	}
}
