package client

import (
	"context"
	"encoding/json"
	"io"
	"net/url"

	"redoubt"
)

// Keys lists the state of every label's keys that the credential dominates.
func (c *Client) Keys(ctx context.Context) ([]redoubt.KeyStatus, error) {
	var out struct {
		Keys []redoubt.KeyStatus `json:"keys"`
	}
	err := c.call(ctx, "GET", "/v1/keys", nil, &out)
	return out.Keys, err
}

// RotateKey begins a new epoch of a label.
func (c *Client) RotateKey(ctx context.Context, marking string) (redoubt.KeyStatus, error) {
	var out redoubt.KeyStatus
	return out, c.call(ctx, "POST", "/v1/keys/rotate", map[string]string{"label": marking}, &out)
}

// EraseVersion destroys one version for good.
func (c *Client) EraseVersion(ctx context.Context, name redoubt.ObjectName, id redoubt.VersionID, reason string) error {
	return c.call(ctx, "POST", "/v1/erase", map[string]string{
		"bucket": string(name.Bucket), "key": name.Key, "version": string(id), "reason": reason}, nil)
}

// Check has the node verify its whole store. progress may be nil; total is 0 while it is not known.
func (c *Client) Check(ctx context.Context, progress func(done, total int64)) (redoubt.CheckReport, error) {
	var out redoubt.CheckReport
	err := c.lines(ctx, "/v1/check", nil, "report", func(member string, v json.RawMessage) error {
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

// Backup writes the whole enclave to w, sealed to the recipient. When it fails, what was written is a part.
func (c *Client) Backup(ctx context.Context, recipient string, w io.Writer) error {
	return c.stream(ctx, "/v1/backup", map[string]string{"recipient": recipient}, w)
}

// Compact gives space back to the disk.
func (c *Client) Compact(ctx context.Context) error {
	return c.call(ctx, "POST", "/v1/compact", nil, nil)
}

// Usage gives bytes and versions by label.
func (c *Client) Usage(ctx context.Context) ([]redoubt.LabelUsage, error) {
	var out struct {
		Usage []redoubt.LabelUsage `json:"usage"`
	}
	err := c.call(ctx, "GET", "/v1/usage", nil, &out)
	return out.Usage, err
}

// Find searches one page.
func (c *Client) Find(ctx context.Context, q redoubt.FindObjects) (out redoubt.FindPage, err error) {
	return out, c.call(ctx, "POST", "/v1/find", q, &out)
}

// Upgrade gives a version a higher label.
func (c *Client) Upgrade(ctx context.Context, q redoubt.Regrade) (out redoubt.Regraded, err error) {
	return out, c.call(ctx, "POST", "/v1/regrade", q, &out)
}

// ReportSpill finds a version, every copy of its content and what jobs made of it, and with Erase destroys them.
func (c *Client) ReportSpill(ctx context.Context, q redoubt.Spill) (out redoubt.SpillReport, err error) {
	return out, c.call(ctx, "POST", "/v1/spills", map[string]any{"bucket": q.Name.Bucket, "key": q.Name.Key, "version": q.Version, "reason": q.Reason, "erase": q.Erase, "spare": q.Spare}, &out)
}

// Spills lists the reports.
func (c *Client) Spills(ctx context.Context) ([]redoubt.SpillReport, error) {
	var out struct {
		Spills []redoubt.SpillReport `json:"spills"`
	}
	err := c.call(ctx, "GET", "/v1/spills", nil, &out)
	return out.Spills, err
}

// ErasedElsewhere lists what peers erased and no report here takes up, the newest, and says how many that are in all.
func (c *Client) ErasedElsewhere(ctx context.Context) (newest []redoubt.SpillErased, all int, err error) {
	var out struct {
		Erased []redoubt.SpillErased `json:"erased"`
		All    int                   `json:"all"`
	}
	err = c.call(ctx, "GET", "/v1/spills/erased", nil, &out)
	return out.Erased, max(out.All, len(out.Erased)), err // a node of an earlier version does not say how many
}

// Spill tells how one stands now.
func (c *Client) Spill(ctx context.Context, id string) (out redoubt.SpillReport, err error) {
	return out, c.call(ctx, "GET", "/v1/spills/"+url.PathEscape(id), nil, &out)
}
