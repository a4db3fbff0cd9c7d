package client

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"time"

	"redoubt"
)

// ArchiveAudit writes an archive of the audit log's entries that are older than before to w, sealed to the recipient.
// When it fails, what was written is a part. The log keeps everything until ConfirmArchive.
func (c *Client) ArchiveAudit(ctx context.Context, before time.Time, recipient string, w io.Writer) error {
	return c.stream(ctx, "/v1/audit/archive", map[string]any{"before": before, "recipient": recipient}, w)
}

// ConfirmArchive says that the file with that SHA-256 (hex), as ArchiveAudit wrote it, is durable: the log lets go of what it holds.
func (c *Client) ConfirmArchive(ctx context.Context, sha256 string) (redoubt.AuditArchive, error) {
	var out redoubt.AuditArchive
	return out, c.call(ctx, "POST", "/v1/audit/archive/confirm", map[string]string{"sha256": sha256}, &out)
}

// SearchArchive has the node search an archive that the caller opened, and calls each with every record found.
func (c *Client) SearchArchive(ctx context.Context, q redoubt.AuditQuery, opened io.Reader, each func(redoubt.AuditRecord) error) error {
	const path = "/v1/audit/archive/search"
	line, err := json.Marshal(wire(q))
	if err != nil {
		return &redoubt.Error{Op: "POST " + path, Kind: redoubt.Invalid, Err: err}
	}
	res, err := c.request(ctx, "POST", path, "application/octet-stream", io.MultiReader(bytes.NewReader(append(line, '\n')), opened))
	if err != nil {
		return err
	}
	return readLines("POST "+path, res, "end", eachRecord(each))
}
