package client

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"redoubt"
)

// ExportBundle writes a bundle for a peer of the node to w. When it fails, what was written is no bundle.
func (c *Client) ExportBundle(ctx context.Context, q redoubt.ExportBundle, w io.Writer) (out redoubt.BundleExport, err error) {
	const path = "/v1/bundles/export"
	res, err := c.send(ctx, "POST", path, map[string]any{"peer": q.Peer, "seconds": int64(q.Life / time.Second), "receipt": q.Receipt, "anew": q.Anew})
	if err != nil {
		return out, err
	}
	defer res.Body.Close()
	if _, err = io.Copy(w, res.Body); err == nil {
		err = json.Unmarshal([]byte(res.Trailer.Get("Redoubt-Bundle")), &out)
	}
	if err != nil {
		return out, &redoubt.Error{Op: "POST " + path, Kind: redoubt.Unavailable, Hint: "what was written is a part: do not keep it", Err: err}
	}
	return out, nil
}

// ImportBundle has the node take a bundle. progress may be nil; it tells of what the node takes once it has the whole file.
func (c *Client) ImportBundle(ctx context.Context, r io.Reader, progress func(done, total int64)) (out redoubt.BundleImport, err error) {
	const path = "/v1/bundles/import"
	res, err := c.request(ctx, "POST", path, "application/octet-stream", r)
	if err != nil {
		return out, err
	}
	err = readLines("POST "+path, res, "report", func(member string, v json.RawMessage) error {
		switch member {
		case "report":
			return json.Unmarshal(v, &out)
		case "progress":
			var p struct{ Done, Total int64 }
			if err := json.Unmarshal(v, &p); err != nil {
				return err
			}
			if progress != nil {
				progress(p.Done, p.Total)
			}
		}
		return nil
	})
	return out, err
}
