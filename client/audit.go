package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"redoubt"
)

// auditQuery is redoubt.AuditQuery as it is sent.
type auditQuery struct {
	Subject redoubt.SubjectName `json:"subject,omitempty"`
	Action  redoubt.Action      `json:"action,omitempty"`
	Outcome string              `json:"outcome,omitempty"`
	Rule    string              `json:"rule,omitempty"`
	Since   time.Time           `json:"since,omitzero"`
	Until   time.Time           `json:"until,omitzero"`
	Bucket  redoubt.BucketName  `json:"bucket,omitempty"`
	Key     string              `json:"key,omitempty"`
	Request string              `json:"request,omitempty"`
	From    uint64              `json:"from,omitempty"`
	Max     int                 `json:"max,omitempty"`
}

func wire(q redoubt.AuditQuery) auditQuery {
	return auditQuery{Subject: q.Subject, Action: q.Action, Outcome: q.Outcome, Rule: q.Rule, Since: q.Since, Until: q.Until,
		Bucket: q.Object.Bucket, Key: q.Object.Key, Request: q.Request, From: q.From, Max: q.Max}
}

// SearchAudit calls each with every record found, as they arrive. An error of each ends the search.
func (c *Client) SearchAudit(ctx context.Context, q redoubt.AuditQuery, each func(redoubt.AuditRecord) error) error {
	return c.lines(ctx, "/v1/audit/search", wire(q), "end", eachRecord(each))
}

// eachRecord reads the records among the lines of an answer.
func eachRecord(each func(redoubt.AuditRecord) error) func(member string, v json.RawMessage) error {
	return func(member string, v json.RawMessage) error {
		if member != "record" {
			return nil
		}
		var rec redoubt.AuditRecord
		if err := json.Unmarshal(v, &rec); err != nil {
			return err
		}
		return each(rec)
	}
}

// VerifyAudit has the node verify its whole log against checkpoints that the caller kept.
func (c *Client) VerifyAudit(ctx context.Context, trusted []string) (redoubt.AuditReport, error) {
	var out redoubt.AuditReport
	return out, c.call(ctx, "POST", "/v1/audit/verify", map[string][]string{"trusted": trusted}, &out)
}

// ExportAudit writes records as "ocsf", "cef" or "syslog". When it fails, what was written is a part.
func (c *Client) ExportAudit(ctx context.Context, format string, q redoubt.AuditQuery, w io.Writer) error {
	return c.stream(ctx, "/v1/audit/export", map[string]any{"format": format, "query": wire(q)}, w)
}

// Why explains the decisions of one request.
func (c *Client) Why(ctx context.Context, request string) ([]redoubt.AuditRecord, error) {
	var out struct {
		Records []redoubt.AuditRecord `json:"records"`
	}
	err := c.call(ctx, "GET", "/v1/why/"+url.PathEscape(request), nil, &out)
	return out.Records, err
}

// lines asks for a stream of JSON lines; see readLines.
func (c *Client) lines(ctx context.Context, path string, in any, last string, each func(member string, v json.RawMessage) error) error {
	res, err := c.send(ctx, "POST", path, in)
	if err != nil {
		return err
	}
	return readLines("POST "+path, res, last, each)
}

// readLines reads an answer of JSON lines to its last.
func readLines(op string, res *http.Response, last string, each func(member string, v json.RawMessage) error) error {
	defer res.Body.Close()
	scan := bufio.NewScanner(res.Body)
	scan.Buffer(nil, maxLineBytes)
	for scan.Scan() {
		var line map[string]json.RawMessage
		if err := json.Unmarshal(scan.Bytes(), &line); err != nil {
			return &redoubt.Error{Op: op, Kind: redoubt.Unavailable, Err: err}
		}
		if raw, failed := line["error"]; failed {
			var p problem
			if err := json.Unmarshal(raw, &p); err != nil {
				return &redoubt.Error{Op: op, Kind: redoubt.Unavailable, Err: err}
			}
			return p.err(op, res.Header.Get("Redoubt-Request"))
		}
		for member, v := range line {
			if err := each(member, v); err != nil {
				return err
			}
		}
		if _, done := line[last]; done {
			return nil
		}
	}
	err := scan.Err()
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return &redoubt.Error{Op: op, Kind: redoubt.Unavailable, Err: errors.Join(errors.New("the answer was cut off"), err)}
}

// stream copies an answer to w.
func (c *Client) stream(ctx context.Context, path string, in any, w io.Writer) error {
	res, err := c.send(ctx, "POST", path, in)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(w, res.Body); err != nil {
		return &redoubt.Error{Op: "POST " + path, Kind: redoubt.Unavailable, Hint: "what was written is a part: do not keep it", Err: err}
	}
	return nil
}
