package client

import (
	"context"
	"encoding/json"
	"io"

	"redoubt"
)

// ExportVersion has the node decide that a version may leave the estate for a partner nation. The content is what the caller makes a
// file of, and closes; an error of it means that what was read is a part.
func (c *Client) ExportVersion(ctx context.Context, q redoubt.ExportVersion) (out redoubt.Exported, content io.ReadCloser, err error) {
	const path = "/v1/exports"
	res, err := c.send(ctx, "POST", path, map[string]any{"bucket": q.Name.Bucket, "key": q.Name.Key, "version": q.Version, "nation": q.Nation, "reason": q.Reason, "kas": q.KAS})
	if err != nil {
		return out, nil, err
	}
	if err := json.Unmarshal([]byte(res.Header.Get("Redoubt-Export")), &out); err != nil {
		res.Body.Close()
		return out, nil, &redoubt.Error{Op: "POST " + path, Kind: redoubt.Unavailable, Err: err}
	}
	return out, res.Body, nil
}

// ConsentExport asks for what an originator is to sign, or gives it signed.
func (c *Client) ConsentExport(ctx context.Context, q redoubt.ConsentExport) (out redoubt.ExportConsent, err error) {
	return out, c.call(ctx, "POST", "/v1/exports/consent", map[string]any{"bucket": q.Name.Bucket, "key": q.Name.Key, "version": q.Version, "nation": q.Nation, "kas": q.KAS, "sha256": q.SHA256,
		"expires": q.Expires, "signature": q.Sig}, &out)
}
