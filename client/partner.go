package client

import (
	"context"
	"io"
	"net/url"

	"redoubt"
)

// Agreements lists the agreements with other estates that the node is the gateway of.
func (c *Client) Agreements(ctx context.Context) ([]redoubt.AgreementStatus, error) {
	var out struct {
		Agreements []redoubt.AgreementStatus `json:"agreements"`
	}
	err := c.call(ctx, "GET", "/v1/agreements", nil, &out)
	return out.Agreements, err
}

// EndAgreement ends one, for good.
func (c *Client) EndAgreement(ctx context.Context, name, reason string) error {
	return c.call(ctx, "POST", "/v1/agreements/"+url.PathEscape(name)+"/end", map[string]string{"reason": reason}, nil)
}

// Partner is another estate's gateway as this one's asks it. Who asks is whose token the client has.
type Partner struct {
	// As gives a client with a fresh token.
	As func(ctx context.Context) (*Client, error)
}

// HandPartner gets the next bundle that is for this gateway; see redoubt.PartnerSource.
func (p Partner) HandPartner(ctx context.Context, have redoubt.BundleMark, w io.Writer) (redoubt.BundleMark, error) {
	return handed(ctx, p.As, "/v1/partner/hand", map[string]any{"have": viewMark(have)}, w)
}
