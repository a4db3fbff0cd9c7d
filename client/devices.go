package client

import (
	"context"
	"net/url"
	"time"

	"redoubt"
)

// EnrolDevice enrols the device that signed the request, by the token in it.
func (c *Client) EnrolDevice(ctx context.Context, req redoubt.EnrolRequest) (redoubt.Enrolment, error) {
	var out redoubt.Enrolment
	return out, c.With("").call(ctx, "POST", "/v1/devices/enrol", req, &out)
}

// RenewDevice asks for a lease for an enrolled device whose last one has ended.
func (c *Client) RenewDevice(ctx context.Context, req redoubt.EnrolRequest) (redoubt.Lease, error) {
	var out redoubt.Lease
	return out, c.With("").call(ctx, "POST", "/v1/devices/renew", req, &out)
}

// Devices lists the devices whose home the node is.
func (c *Client) Devices(ctx context.Context) ([]redoubt.Device, error) {
	var out struct {
		Devices []redoubt.Device `json:"devices"`
	}
	err := c.call(ctx, "GET", "/v1/devices", nil, &out)
	return out.Devices, err
}

// InviteDevice makes a token that lets a device enrol once.
func (c *Client) InviteDevice(ctx context.Context, name redoubt.NodeName) (redoubt.Invitation, error) {
	var out redoubt.Invitation
	return out, c.call(ctx, "POST", "/v1/devices/"+url.PathEscape(string(name))+"/invite", nil, &out)
}

// EndDevice revokes a device, or orders it to be wiped.
func (c *Client) EndDevice(ctx context.Context, name redoubt.NodeName, wipe, now bool, reason string) error {
	return c.call(ctx, "POST", "/v1/devices/"+url.PathEscape(string(name))+"/end", map[string]any{"wipe": wipe, "now": now, "reason": reason}, nil)
}

// Links tells of the node's links what the credential dominates.
func (c *Client) Links(ctx context.Context) ([]redoubt.LinkStatus, error) {
	var out struct {
		Links []redoubt.LinkStatus `json:"links"`
	}
	err := c.call(ctx, "GET", "/v1/links", nil, &out)
	return out.Links, err
}

// CutLink cuts the link to a peer, or restores it.
func (c *Client) CutLink(ctx context.Context, peer redoubt.NodeName, cut bool) error {
	return c.call(ctx, "POST", "/v1/links/"+url.PathEscape(string(peer))+"/cut", map[string]bool{"cut": cut}, nil)
}

// SilenceLink begins radio silence on a device's link, or ends it.
func (c *Client) SilenceLink(ctx context.Context, peer redoubt.NodeName, silent bool) error {
	return c.call(ctx, "POST", "/v1/links/"+url.PathEscape(string(peer))+"/silence", map[string]bool{"silent": silent}, nil)
}

// Conflict is a name under which nodes that were cut off wrote apart.
type Conflict struct {
	Bucket   redoubt.BucketName `json:"bucket"`
	Key      string             `json:"key"`
	Label    string             `json:"label"`
	Versions []struct {
		ID       redoubt.VersionID   `json:"version"`
		Node     redoubt.NodeName    `json:"node"`
		Author   redoubt.SubjectName `json:"author"`
		Modified time.Time           `json:"modified"`
		Bytes    int64               `json:"bytes"`
		Marker   bool                `json:"delete_marker,omitempty"`
		Current  bool                `json:"current,omitempty"`
	} `json:"versions"`
}

// Conflicts lists what the credential may see of them.
func (c *Client) Conflicts(ctx context.Context) ([]Conflict, error) {
	var out struct {
		Conflicts []Conflict `json:"conflicts"`
	}
	err := c.call(ctx, "GET", "/v1/conflicts", nil, &out)
	return out.Conflicts, err
}

// ResolveConflict settles one: keep is the version whose content stays current, "" the one that is.
func (c *Client) ResolveConflict(ctx context.Context, bucket redoubt.BucketName, key string, keep redoubt.VersionID) (redoubt.VersionID, error) {
	var out struct {
		Version redoubt.VersionID `json:"version"`
	}
	err := c.call(ctx, "POST", "/v1/conflicts/resolve", map[string]any{"bucket": bucket, "key": key, "keep": keep}, &out)
	return out.Version, err
}
