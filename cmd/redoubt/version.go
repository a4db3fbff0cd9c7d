package main

import (
	"crypto/fips140"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

func (a *app) versionCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{Use: "version", Short: "This build", Example: "  redoubt version --json",
		Args: exactly(0), RunE: func(*cobra.Command, []string) error {
			if a.json {
				return a.print(map[string]any{"version": version(), "go": runtime.Version(), "platform": platform(), "fips": fips140.Enabled()})
			}
			_, err := fmt.Fprintf(a.out, "redoubt %s (%s, %s, FIPS 140-3 mode: %v)\n", version(), runtime.Version(), platform(), fips140.Enabled())
			return err
		}})
}
