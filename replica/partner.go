package replica

import (
	"context"
	"io"

	"redoubt"
)

// Between two estates bundles go as those of a raise do: one way, numbered, sealed to the far gateway, taken for handed over when that says by
// number that it has them. Each gateway fetches what is for it, so the two directions are two such streams. The names in them are ESTATE--NODE.

// HandPartner writes the next bundle for a partner's gateway, which the credential is of; see redoubt.PartnerSource.
func (b *Bundles) HandPartner(ctx context.Context, who redoubt.Credential, have redoubt.BundleMark, w io.Writer) (redoubt.BundleMark, error) {
	return b.hand(ctx, who, redoubt.ActionHandPartner, redoubt.NodeName(who.Subject), have, 0, w)
}

// TakePartner takes a bundle that this node fetched of a partner. Exists: it was taken before. Unavailable, QuotaExceeded, DiskFull: not now, and
// nothing is lost by fetching it again.
func (b *Bundles) TakePartner(ctx context.Context, r io.Reader) (redoubt.BundleImport, error) {
	return b.importAs(ctx, redoubt.Credential{}, redoubt.ActionTakePartner, r, nil)
}
