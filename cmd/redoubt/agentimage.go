package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"redoubt/compute/kube"
)

// agentImage is the document of job agent-image --json.
type agentImage struct {
	File   string `json:"file"`
	Digest string `json:"digest"`
}

func (a *app) jobAgentImage() *cobra.Command {
	c := &cobra.Command{Use: "agent-image FILE", Short: "Write the image that stands beside programs on a Kubernetes cluster",
		Long: `Writes an image that holds this binary and nothing else to FILE, as the archive of an OCI image layout, and prints its
digest. Push it to a registry that the cluster's machines reach, and name it in the estate with that digest
(kubernetes, agent). The same binary gives the same digest.`,
		Example: "  redoubt job agent-image agent.tar\n  skopeo copy oci-archive:agent.tar docker://registry.example:5000/redoubt/agent", Args: exactly(1),
		RunE: func(_ *cobra.Command, args []string) (err error) {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			from, err := os.Open(self)
			if err != nil {
				return err
			}
			defer from.Close()
			f, err := os.OpenFile(args[0], os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
			if err != nil {
				return err
			}
			digest, err := kube.WriteAgentImage(f, from, runtime.GOARCH)
			if err = errors.Join(err, f.Close()); err != nil {
				return errors.Join(err, os.Remove(args[0]))
			}
			if a.json {
				return a.print(agentImage{args[0], digest})
			}
			_, err = fmt.Fprintln(a.out, digest)
			return err
		}}
	return a.jsonFlag(c)
}
