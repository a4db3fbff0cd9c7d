package main

import (
	"crypto/fips140"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func (a *app) versionCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{Use: "version", Short: "This build", Example: "  redoubt version --json",
		Args: exactly(0), RunE: func(*cobra.Command, []string) error {
			if a.json {
				return a.print(map[string]any{"version": version(), "go": runtime.Version(), "platform": platform(),
					"fips": fips140.Enabled(), "fips_enforced": fips140.Enforced(), "fips_module": fips140.Version()})
			}
			_, err := fmt.Fprintln(a.out, build())
			return err
		}})
}

// build says what was built, with what, and whether the FIPS 140-3 module is in force.
func build() string {
	fips := "off"
	switch {
	case fips140.Enforced():
		fips = "enforced"
	case fips140.Enabled():
		fips = "on"
	}
	return fmt.Sprintf("redoubt %s (%s, %s, FIPS 140-3 module %s: %s)", version(), runtime.Version(), platform(), fips140.Version(), fips)
}

// version is the build's version: a release's is set by the linker, any other's is its commit.
func version() string {
	v := release
	if info, ok := debug.ReadBuildInfo(); ok && v == "" {
		v = "devel"
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v = "devel-" + s.Value[:min(12, len(s.Value))]
			}
		}
	}
	return v
}

// release is set by the linker: -X main.release=1.0.0.
var release string

func platform() string { return runtime.GOOS + "/" + runtime.GOARCH }
