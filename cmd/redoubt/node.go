package main

import (
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"redoubt"
	"redoubt/node"
)

func (a *app) nodeCommand() *cobra.Command {
	c := &cobra.Command{Use: "node", Short: "What clients on other machines need to know of a node, and what its labels store",
		Example: "  redoubt node ca secret > secret.pem"}
	c.AddCommand(a.nodeCA(), a.nodeCard(), a.nodeUsage())
	return c
}

func (a *app) nodeCA() *cobra.Command {
	return a.jsonFlag(&cobra.Command{Use: "ca NODE", Short: "The certificate of a node's own authority, for clients on other machines",
		Long: `Prints the certificate that clients verify the node by, in PEM. It is public, but must arrive as it left: carry it by hand,
or compare the fingerprint over another way. On the other machine --ca or REDOUBT_CA names the file, --api-url and
--s3-url say where the node is, and --key is the subject's own key.`,
		Example: `  redoubt node ca secret > secret.pem
  redoubt ls s3://reports --as s-analyst@secret --key s-analyst.key --ca secret.pem \
    --api-url https://secret.example:8444 --s3-url https://secret.example:8443`,
		Args: exactly(1), RunE: func(_ *cobra.Command, args []string) error {
			st, err := a.state()
			if err != nil {
				return err
			}
			if err := hasNode(st, redoubt.NodeName(args[0])); err != nil {
				return err
			}
			cert, err := readCA(st.CAFile(redoubt.NodeName(args[0])))
			if err != nil {
				return err
			}
			text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
			if a.json {
				return a.print(map[string]any{"node": args[0], "ca": text, "sha256": fingerprint(cert), "expires": cert.NotAfter.UTC().Format(time.RFC3339)})
			}
			a.say("SHA-256 %s, until %s", fingerprint(cert), cert.NotAfter.UTC().Format(time.DateOnly))
			_, err = fmt.Fprint(a.out, text)
			return err
		}})
}

// hasNode is nil when the state has the node.
func hasNode(st node.State, name redoubt.NodeName) error {
	if dirExists(st.NodeDir(name)) {
		return nil
	}
	return &redoubt.Error{Object: "node " + string(name), Kind: redoubt.NotFound, Err: errors.New("the state has no such node"), Hint: "redoubt status lists the nodes"}
}
